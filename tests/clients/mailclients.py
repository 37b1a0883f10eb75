"""How to run the mail programs of the world against a port of 127.0.0.1.

Here lives, for each program, its configuration, how it is started, where the
mail is that it fetched, and what it is known to do to a message on the way, so
that everything else can be compared octet by octet.  Nothing here knows
anything of the server.
"""

from __future__ import annotations

import contextlib
import email
import os
import poplib
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from ..corpus import make_maildir
from ..realserver import DEADLINE, environment

__all__ = [
    "CClient",
    "Curl",
    "Fdm",
    "Fetchmail",
    "Getmail",
    "MailClient",
    "Movemail",
    "Mpop",
    "Mutt",
    "NetPop",
    "NetPop3",
    "Poplib",
    "TwistedClient",
]


class MailClient:
    """A program that fetches the mail of ``ann`` with the password ``secret``.

    :param port: of a POP3 server on 127.0.0.1.
    :param home: an empty folder for the program's configuration, memory and mail.
    """

    #: The program's name, or an empty string where none is needed.
    program: ClassVar[str] = ""
    #: Debian's package of it.
    package: ClassVar[str] = ""

    def __init__(self, port: int, home: Path) -> None:
        self.port = port
        self.home = home

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be run here, or ``None`` if it can."""
        if cls.program and shutil.which(cls.program) is None:
            return f"{cls.program} is not installed (Debian package {cls.package})"
        return None

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        """Fetch the mail; the messages it got in this run, in order.

        :param count: how many messages there are, for programs that have to be told.
        :param delete: let it remove from the server what it has fetched.
        :param only_new: leave out what it remembers from an earlier run, if it remembers anything.
        """
        raise NotImplementedError

    def expected(self, wire: bytes) -> bytes:
        """What this program makes of a message in wire form."""
        return wire

    def same(self, got: bytes, wire: bytes) -> bool:
        """Whether it got the message, but for what it is known to change."""
        return got == self.expected(wire)

    # What the programs below share.

    def _private(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def _run(self, *command: str, statuses: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            command,
            env=environment(self.home),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=2 * DEADLINE,
            check=False,
        )
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        if done.returncode not in statuses:
            raise AssertionError(f"{self.program} ended with status {done.returncode}:\n{said[-4000:]}")
        return said

    def _run_on_terminal(self, *command: str) -> None:
        """Run a program that wants a terminal, and keys from nobody."""
        ours, its = pty.openpty()
        try:
            process = subprocess.Popen(
                command,
                env={**environment(self.home), "TERM": "xterm"},
                cwd=self.home,
                stdin=its,
                stdout=its,
                stderr=its,
                start_new_session=True,
            )
        finally:
            os.close(its)
        shown = b""
        watchdog = threading.Timer(2 * DEADLINE, process.kill)
        watchdog.start()
        try:
            # Linux says EIO when the last process has closed its side.
            with contextlib.suppress(OSError):
                while octets := os.read(ours, 65_536):
                    shown += octets
            status = process.wait()
        finally:
            watchdog.cancel()
            os.close(ours)
        if status:
            raise AssertionError(f"{self.program} ended with status {status}:\n{shown[-4000:]!r}")

    def _delivery_agent(self) -> tuple[Path, Path]:
        """A program that keeps what comes on standard input, and the folder in which it does."""
        folder = self.home / "delivered"
        folder.mkdir(exist_ok=True)
        script = f'#!/bin/sh\nexec cat > "{folder}/$(printf %06d $(ls "{folder}" | wc -l))"\n'
        return self._private("deliver", script, 0o700), folder

    @staticmethod
    def _new_in(folder: Path, run: Callable[[], object], order: Callable[[str], object] = str) -> list[bytes]:
        """The contents of the files that appear in a folder while something runs, in their order."""
        before = set(os.listdir(folder))
        run()
        appeared = sorted(set(os.listdir(folder)) - before, key=order)  # type: ignore[arg-type]
        return [(folder / name).read_bytes() for name in appeared]


class Poplib(MailClient):
    """Python's own library.

    It refuses lines of more than 2,048 octets by default (``_MAXLINE``), which
    programs that use it raise, as getmail does.
    """

    longest_line: ClassVar[int] = 2_048

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        limit, poplib._MAXLINE = poplib._MAXLINE, self.longest_line  # type: ignore[attr-defined]
        try:
            client = poplib.POP3("127.0.0.1", self.port, timeout=DEADLINE)
            client.user("ann")
            client.pass_("secret")
            fetched = []
            for number in range(1, count + 1):
                # It splits at LF and takes one CR off each line: nothing is lost.
                fetched.append(b"".join(line + b"\r\n" for line in client.retr(number)[1]))
                if delete:
                    client.dele(number)
            client.quit()
        finally:
            poplib._MAXLINE = limit  # type: ignore[attr-defined]
        return fetched


class Curl(MailClient):
    """curl: all messages over one connection; it changes nothing."""

    program = package = "curl"

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        folder = self.home / "delivered"
        folder.mkdir()
        self._run(*self.command(f"[1-{count}]", "--output", f"{folder}/#1"))
        if delete:
            self._run(*self.command(f"[1-{count}]", "--request", "DELE", "--list-only"))
        return [(folder / str(number)).read_bytes() for number in range(1, count + 1)]

    def command(self, what: str, *options: str) -> list[str]:
        """The command line for one URL below the account."""
        url = f"pop3://127.0.0.1:{self.port}/{what}"
        return ["curl", "--silent", "--show-error", "--fail-early", "--user", "ann:secret", *options, url]

    def ask(self, what: str, *options: str) -> str:
        """What curl prints for one URL."""
        return self._run(*self.command(what, *options))


class Fetchmail(MailClient):
    """fetchmail, told to change as little as it can."""

    program = package = "fetchmail"
    #: It reads lines in pieces of 8 KiB and puts stray octets between the pieces of a longer one.
    whole_line: ClassVar[int] = 8_000

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        agent, folder = self._delivery_agent()
        self._private(
            ".fetchmailrc",
            f"""
            set no bouncemail
            set no syslog
            set invisible
            set idfile "{self.home}/ids"
            set pidfile "{self.home}/fetchmail.pid"
            poll 127.0.0.1 protocol pop3 port {self.port} uidl bad-header accept
                username ann password secret
                sslproto ""
                {"nokeep" if delete else "keep"} {"no fetchall" if only_new else "fetchall"}
                no rewrite no mimedecode no stripcr no forcecr pass8bits
                no dropstatus no dropdelivered
                mda "{agent}"
            """,
        )
        # Status 1 means that there was no new mail.
        statuses = (0, 1) if only_new else (0,)
        return self._new_in(folder, lambda: self._run("fetchmail", "--nodetach", statuses=statuses))

    def same(self, got: bytes, wire: bytes) -> bool:
        head, blank, body = wire.partition(b"\r\n\r\n")
        if wire.lstrip(b"\r").startswith(b"\n"):
            # A message without any header gets one.
            return got.startswith(b"From: FETCHMAIL-DAEMON\r\n") and got.endswith(wire.lstrip(b"\r\n"))
        if wire.startswith(b"From "):
            # The envelope line of an mbox file is taken off.
            head = head.partition(b"\r\n")[2]
        # A NUL in a header is taken off.
        expected = head.replace(b"\0", b"") + blank + body
        lines = expected.split(b"\r\n")
        long = [at for at, line in enumerate(lines) if len(line) > self.whole_line]
        if not long:
            return got == expected
        start = b"\r\n".join(lines[: long[0] + 1])
        start = start[: len(start) - len(lines[long[0]]) + self.whole_line]
        end = b"\r\n".join(lines[long[-1] + 1 :])
        return got.startswith(start) and got.endswith(b"\r\n" + end)


class Getmail(MailClient):
    """getmail6, which sends each message through Python's ``email`` package."""

    program = "getmail"
    package = "getmail6"

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        agent, folder = self._delivery_agent()
        self._private(
            "getmailrc",
            f"""
[retriever]
type = SimplePOP3Retriever
server = 127.0.0.1
port = {self.port}
username = ann
password = secret
timeout = {DEADLINE:.0f}
[destination]
type = MDA_external
path = {agent}
allow_root_commands = true
[options]
read_all = {not only_new}
delete = {delete}
delivered_to = false
received = false
""",
        )
        return self._new_in(folder, lambda: self._run("getmail", "--getmaildir", str(self.home)))

    def expected(self, wire: bytes) -> bytes:
        # LF line ends; one Return-Path, in front; what the email package makes of a header that is none.
        message = email.message_from_bytes(wire.replace(b"\r\n", b"\n"))
        sender = (message["Return-Path"] or message["Sender"] or "unknown").strip("<>")
        del message["Return-Path"]
        return b"Return-Path: <%s>\n%s" % (
            sender.encode("ascii"),
            message.as_bytes(policy=message.policy.clone(linesep="\n")),
        )


class Mpop(MailClient):
    """mpop, which pipelines whatever CAPA allows it to."""

    program = package = "mpop"

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        folder = self.home / "Maildir"
        if not folder.exists():
            make_maildir(folder)
        configuration = self._private(
            "mpoprc",
            f"""
account ann
host 127.0.0.1
port {self.port}
timeout {DEADLINE:.0f}
user ann
password secret
auth user
tls off
tls_starttls off
keep {"off" if delete else "on"}
only_new {"on" if only_new else "off"}
received_header off
uidls_file {self.home}/uidls
delivery maildir {folder}
""",
        )
        return self._new_in(
            folder / "new",
            lambda: self._run("mpop", "-C", str(configuration), "ann"),
            lambda name: [int(digits) for digits in re.findall(r"Q(\d+)\.", name)],
        )

    def expected(self, wire: bytes) -> bytes:
        # A Maildir holds LF line ends.
        return wire.replace(b"\r\n", b"\n")


class Fdm(MailClient):
    """fdm, which asks for the size and the message in turn, and marks one while it reads the next."""

    program = package = "fdm"

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        agent, folder = self._delivery_agent()
        configuration = self._private(
            "fdm.conf",
            # The usual lock is one for all of root's at once.
            f"""
set lock-file "{self.home}/fdm.lock"
set maximum-size 100M
set no-received
set queue-high 1
account "ann" pop3 server "127.0.0.1" port {self.port} user "ann" pass "secret" no-apop
action "deliver" pipe "{agent}"
match all action "deliver"
""",
        )
        keep = [] if delete else ["-k"]
        return self._new_in(folder, lambda: self._run("fdm", "-f", str(configuration), *keep, "fetch"))

    def expected(self, wire: bytes) -> bytes:
        # LF line ends; a line ends at a NUL; the envelope line of an mbox file is taken off.
        if wire.startswith(b"From "):
            wire = wire.partition(b"\r\n")[2]
        return re.sub(rb"\0[^\n]*", b"", wire.replace(b"\r\n", b"\n"))


class Mutt(MailClient):
    """mutt's own fetching of mail, into a folder of the one form that needs no quoting."""

    program = package = "mutt"
    #: It reads lines in pieces of so many octets; a CRLF that is torn between two ends two lines.
    piece: ClassVar[int] = 1023

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        folder = self._private("spool", "")
        configuration = self._private(
            "muttrc",
            f"""
set pop_host="pop://ann@127.0.0.1:{self.port}" pop_pass="secret" pop_authenticators="user"
set ssl_starttls=no ssl_force_tls=no pop_delete={"yes" if delete else "no"} pop_last=no
set mbox_type=MMDF spoolfile="{folder}" folder="{self.home}" record="" move=no
push <fetch-mail><quit>
""",
        )
        self._run_on_terminal("mutt", "-n", "-F", str(configuration), "-f", os.devnull)
        # Each begins with an envelope line of mutt's.
        framed = folder.read_bytes().split(b"\1\1\1\1\n")
        return [message.partition(b"\n")[2] for message in framed if message]

    def expected(self, wire: bytes) -> bytes:
        lines = []
        for line in wire.split(b"\r\n"):
            torn = line and (len(line) + line.startswith(b".") + 1) % self.piece == 0
            # A line ends at a NUL, too.
            lines.append(line.partition(b"\0")[0] + (b"\n" if torn else b""))
        return b"\n".join(lines)


class Movemail(MailClient):
    """movemail of GNU Mailutils, into a folder that numbers its messages.

    It reads a connection without TLS octet by octet.
    """

    program = "movemail.mailutils"
    package = "mailutils"

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        folder = self.home / "delivered"
        folder.mkdir()
        keep = [] if delete else ["--preserve"]
        url = f"pop://ann:secret@127.0.0.1:{self.port}"
        self._run("movemail.mailutils", "--no-config", *keep, url, f"mh://{folder}")
        return [(folder / str(number)).read_bytes() for number in range(1, count + 1)]

    def expected(self, wire: bytes) -> bytes:
        # It takes a CR off each line twice; a line of the header ends at a NUL.
        head, blank, body = wire.replace(b"\r\n", b"\n").replace(b"\r\n", b"\n").partition(b"\n\n")
        return re.sub(rb"\0[^\n]*", b"", head) + blank + body

    @staticmethod
    def takes(wire: bytes) -> bool:
        """Whether it can hold this message: one with a header that it can read."""
        return re.match(rb"[!-9;-~]+:", wire) is not None


class Library(MailClient):
    """A library, driven by a few lines in its own language.

    They get a port, a folder and ``keep`` or ``delete``, and write message 1
    to the file ``1`` of the folder.
    """

    #: What succeeds if the library is there.
    probe: ClassVar[Sequence[str]] = ()
    script: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        why = super().missing()
        if (
            why is None
            and cls.probe
            and subprocess.run(cls.probe, capture_output=True, check=False).returncode
        ):
            why = f"{cls.program} has not got the library (Debian package {cls.package})"
        return why

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        folder = self.home / "delivered"
        folder.mkdir()
        script = self._private("fetch", self.script)
        interpreter = self.program or sys.executable
        self._run(interpreter, str(script), str(self.port), str(folder), "delete" if delete else "keep")
        return [(folder / str(number)).read_bytes() for number in range(1, count + 1)]


class NetPop3(Library):
    """Perl's Net::POP3."""

    program = package = "perl"
    probe = ("perl", "-MNet::POP3", "-e1")
    script = """
use strict; use warnings; use Net::POP3;
my ($port, $folder, $what) = @ARGV;
my $pop = Net::POP3->new("127.0.0.1", Port => $port) or die "connect: $@";
defined $pop->login("ann", "secret") or die $pop->message;
my ($sizes, $ids) = ($pop->list, $pop->uidl);
die "ids" unless keys %$sizes == keys %$ids and ($pop->popstat)[0] == keys %$sizes;
for my $number (sort { $a <=> $b } keys %$sizes) {
    my $lines = $pop->get($number) or die $pop->message;
    open my $file, ">:raw", "$folder/$number" or die;
    print $file @$lines;
    close $file;
    if ($what eq "delete") { $pop->delete($number) or die $pop->message }
}
$pop->quit or die $pop->message;
"""

    def expected(self, wire: bytes) -> bytes:
        # Without TLS it makes LF of CRLF.
        return wire.replace(b"\r\n", b"\n")


class NetPop(Library):
    """Ruby's net/pop, which changes nothing."""

    program = package = "ruby"
    probe = ("ruby", "-rnet/pop", "-e1")
    script = """
require "net/pop"
port, folder, what = ARGV
Net::POP3.start("127.0.0.1", port.to_i, "ann", "secret") do |pop|
  pop.each_mail do |mail|
    raise "id" if mail.unique_id.empty?
    File.binwrite("#{folder}/#{mail.number}", mail.pop)
    mail.delete if what == "delete"
  end
end
"""


class CClient(Library):
    """The University of Washington's c-client, on which Alpine and PHP's imap extension stand."""

    program = "php"
    package = "php-imap, and php-cli"
    probe = ("php", "-r", 'exit(function_exists("imap_open") ? 0 : 1);')
    script = """<?php
[, $port, $folder, $what] = $argv;
$drop = imap_open("{127.0.0.1:$port/pop3/notls}INBOX", "ann", "secret", 0, 1) or exit(1);
for ($number = 1; $number <= imap_num_msg($drop); $number++) {
    file_put_contents("$folder/$number", imap_fetchheader($drop, $number) . imap_body($drop, $number));
    if ($what == "delete") imap_delete($drop, $number);
}
imap_close($drop, $what == "delete" ? CL_EXPUNGE : 0);
"""

    def expected(self, wire: bytes) -> bytes:
        # A line ends at a NUL.
        return b"\r\n".join(line.partition(b"\0")[0] for line in wire.split(b"\r\n"))


class TwistedClient(Library):
    """Twisted's client, which takes APOP, and changes nothing."""

    script = """
import sys
from pathlib import Path

from twisted.internet import defer, endpoints, task
from twisted.mail.pop3 import AdvancedPOP3Client

port, folder, what = sys.argv[1:]


class Client(AdvancedPOP3Client):
    MAX_LENGTH = 1 << 24

    def serverGreeting(self, greeting):
        super().serverGreeting(greeting)
        self.greeted.callback(self)


async def main(reactor):
    endpoint = endpoints.clientFromString(reactor, f"tcp:127.0.0.1:{port}")
    client = Client()
    client.greeted = defer.Deferred()
    await endpoints.connectProtocol(endpoint, client)
    await client.greeted
    await client.capabilities()
    await client.login(b"ann", b"secret")
    sizes, ids = await client.listSize(), await client.listUID()
    assert len(set(ids)) == len(sizes)
    for number in range(len(sizes)):
        lines = await client.retrieve(number)
        Path(folder, str(number + 1)).write_bytes(b"".join(line + b"\\r\\n" for line in lines))
        if what == "delete":
            await client.delete(number)
    await client.quit()


task.react(main)
"""
