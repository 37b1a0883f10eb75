"""How to run the mail programs of the world against a port of 127.0.0.1.

Here lives, for each program, its configuration, how it is started, where the
mail is that it fetched, and what it is known to do to a message on the way, so
that everything else can be compared octet by octet.  Nothing here knows
anything of the server.
"""

from __future__ import annotations

import email
import os
import poplib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from .corpus import make_maildir
from .realserver import DEADLINE, environment

__all__ = ["CLIENTS", "Curl", "Fetchmail", "Getmail", "MailClient", "Mpop", "Poplib"]


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


#: All of them.
CLIENTS: tuple[type[MailClient], ...] = (Poplib, Curl, Fetchmail, Getmail, Mpop)
