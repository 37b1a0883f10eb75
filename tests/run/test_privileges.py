"""Starting as root and going on as somebody else; ports that systemd opens; the unit that docs/ has."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import pop3toy
from pop3toy.auth.throttle.connection_limiter import ConnectionLimits
from pop3toy.run.process import Fitting

from ..corpus import awkward_messages, fill_maildir
from ..folders import new_folder
from ..realserver import (
    DEADLINE,
    RealServer,
    ServerDied,
    environment,
    maildir_options,
    wait_until,
)
from ..tls_world import Authority, Wire, trusting

DOCS = Path(pop3toy.__file__).parent.parent / "docs"


def privileged_ports(count: int) -> list[int]:
    """Free ports that only root may open."""
    found: list[int] = []
    for port in range(1023, 600, -1):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise SkipTest("no free ports below 1024")


class DroppedTests(SynchronousTestCase):
    """``twistd --uid --gid`` on ports below 1024."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can give up being root")
        self.nobody = pwd.getpwnam("nobody")
        # Below the tests' own folder it might be out of reach for others.
        self.folder = new_folder(self)
        self.folder.chmod(0o755)
        # Modules that are loaded when they are needed must be in reach as well.
        command = [sys.executable, "-c", "import pop3toy.pop3.protocol, argon2"]
        run_as = [
            "setpriv",
            f"--reuid={self.nobody.pw_uid}",
            f"--regid={self.nobody.pw_gid}",
            "--clear-groups",
        ]
        reach = subprocess.run(
            [*run_as, *command], cwd="/", env=environment(self.folder), capture_output=True, check=False
        )
        if reach.returncode != 0:
            raise SkipTest("the user nobody cannot run this Python from where it is")
        fill_maildir(self.folder / "mail" / "ann", awkward_messages(large=False)[:3])
        for path in (self.folder / "mail", *(self.folder / "mail").rglob("*")):
            os.chown(path, self.nobody.pw_uid, self.nobody.pw_gid)
        (self.folder / "mail").chmod(0o700)
        (self.folder / "secret").mkdir(mode=0o700)
        self.pem = self.folder / "secret" / "localhost.pem"
        self.authority = Authority(self.folder)
        self.serial = self.authority.issue("localhost").write(self.pem)

    def test_dropped(self) -> None:
        """Root opens the ports and reads the key; nobody serves, and a reload does not lose the key."""
        plain, encrypted = privileged_ports(2)
        server = RealServer(
            *maildir_options(self.folder / "mail"),
            f"--port={plain}",
            f"--tls-port={encrypted}",
            f"--certificate={self.pem}",
            folder=self.folder,
            own_options=["--uid=nobody", f"--gid={self.nobody.pw_gid}"],
        )
        self.addCleanup(server.terminate)
        self.assertEqual((server.port_for("POP3"), server.port_for("POP3 over TLS")), (plain, encrypted))
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        ids = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
        self.assertEqual(ids["Uid"], [str(self.nobody.pw_uid)] * 4)
        self.assertEqual(ids["Gid"], [str(self.nobody.pw_gid)] * 4)
        self.assertEqual(ids["CapEff"], ["0" * 16])
        before = self._fetch_and_delete(encrypted)
        # Now the key is replaced, and nobody may not read it.
        self.authority.issue("localhost").write(self.pem)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "certificates not reloaded, the old ones stay in use" in server.log, "a reload")
        self.assertIn("permission denied", server.log)
        self.assertEqual(self._fetch_and_delete(encrypted), before)
        left = list((self.folder / "mail" / "ann").glob("*/*mail*"))
        self.assertEqual(len(left), 1)
        self.assertNotIn("Traceback", server.log)

    def _fetch_and_delete(self, port: int) -> bytes | None:
        """One session that removes a message; the certificate that it saw."""
        with Wire(port) as wire:
            wire.starttls(trusting(self.authority)).line()
            certificate = wire.tls.getpeercert(binary_form=True)
            for command in (b"USER ann", b"PASS secret", b"DELE 1", b"QUIT"):
                self.assertTrue(wire.ask(command).startswith(b"+OK"), command)
            self.assertEqual(wire.rest(), b"")
        return certificate

    def test_opened_before(self) -> None:
        """What root opens is nobody's, who can start the next server behind one that was killed."""
        place = self.folder / "run"
        place.mkdir(mode=0o755)
        os.chown(place, self.nobody.pw_uid, self.nobody.pw_gid)
        options = [
            *maildir_options(self.folder / "mail"),
            *(f"--{what}=unix:{place}/{what}" for what in ("lmtp", "metrics", "inspector")),
        ]
        own = [f"--pidfile={place}/pid"]
        server = RealServer(*options, folder=place, own_options=["--uid=nobody", *own])
        self.addCleanup(server.terminate)
        made = ("lmtp", "metrics", "inspector", "pid", "server.log")
        whose = {name: os.lstat(place / name).st_uid for name in made}
        self.assertEqual(whose, dict.fromkeys(made, self.nobody.pw_uid))
        modes = [stat.S_IMODE(os.lstat(place / name).st_mode) for name in made[:3]]
        self.assertEqual(modes, [0o660, 0o660, 0o600])
        server.kill()
        again = RealServer(
            *options,
            folder=place,
            own_options=own,
            launcher=[
                "setpriv",
                f"--reuid={self.nobody.pw_uid}",
                f"--regid={self.nobody.pw_gid}",
                "--clear-groups",
            ],
        )
        self.addCleanup(again.terminate)
        self.assertTrue(again.terminate())
        self.assertEqual(set(made[:4]) & set(os.listdir(place)), set())

    def test_out_of_reach(self) -> None:
        """What the server opens only when it is nobody ends the start if nobody cannot."""
        closed = self.folder / "secret"
        mail = maildir_options(self.folder / "mail")
        for options, says in (
            ([f"--maildir={closed}/{{user}}", "--user=ann:secret"], "permission"),
            ([*mail, f"--transcript={closed}/t"], "--transcript: no permission to write"),
        ):
            with self.assertRaises(ServerDied) as raised:
                RealServer(*options, folder=self.folder, own_options=["--uid=nobody"])
            self.assertIn(says, str(raised.exception))
            self.assertNotIn("Traceback", str(raised.exception))

    def test_accounts_out_of_reach(self) -> None:
        """An accounts file that nobody may read is trouble of the server's, not a wrong password."""
        accounts = self.folder / "accounts"
        accounts.write_text("ann:{PLAIN}secret\n")
        accounts.chmod(0o600)
        server = RealServer(
            f"--maildir={self.folder}/mail/{{user}}",
            f"--accounts={accounts}",
            folder=self.folder,
            own_options=["--uid=nobody", f"--gid={self.nobody.pw_gid}"],
        )
        self.addCleanup(server.terminate)
        # What was read as root holds until the file changes.
        accounts.write_text("ann:{PLAIN}changed\n")
        with Wire(server.port) as wire:
            wire.line()
            wire.ask(b"USER ann")
            self.assertTrue(wire.ask(b"PASS changed").startswith(b"-ERR [SYS/TEMP]"))
        self.assertIn("Permission denied", server.log)
        self.assertNotIn("Traceback", server.log)


class Activated(NamedTuple):
    """A server whose ports somebody else has opened."""

    server: RealServer
    #: In the order in which the sockets were handed over.
    ports: list[int]
    #: For clients that trust its certificate.
    context: ssl.SSLContext


class SocketActivationTests(SynchronousTestCase):
    """``systemd:domain=INET:index=N``: somebody else has opened the ports."""

    def activated(self, folder: Path, *options: str, sockets: int, workers: int = 0) -> Activated:
        """A server of ann's mail, as systemd starts it with so many sockets."""
        if not (folder / "mail").exists():
            fill_maildir(folder / "mail" / "ann", awkward_messages(large=False)[:2])
        authority = Authority(folder)
        authority.issue("localhost").write(folder / "localhost.pem")
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(sockets)]
        for one in listening:
            self.addCleanup(one.close)
        # As systemd does it: descriptors from 3 on, and the number of the process that they are for.
        places = " ".join(f'{number + 3}<&"${number + 1}"' for number in range(sockets))
        script = f'exec {places}; shift {sockets}; LISTEN_FDS={sockets} LISTEN_PID=$$ exec "$@"'
        # Each as high as no place is, so that filling one leaves the others as they are.
        copies = [fcntl.fcntl(one, fcntl.F_DUPFD, 100) for one in listening]
        try:
            server = RealServer(
                *maildir_options(folder / "mail"),
                f"--certificate={folder}/localhost.pem",
                *([f"--workers={workers}"] if workers else []),
                *options,
                folder=folder,
                launcher=["bash", "-c", script, "systemd", *map(str, copies)],
                inherited=copies,
            )
        finally:
            for copy in copies:
                os.close(copy)
        self.addCleanup(server.terminate)
        return Activated(server, [one.getsockname()[1] for one in listening], trusting(authority))

    def test_two_sockets(self) -> None:
        """The sockets are counted from 0; one speaks TLS from the first octet on."""
        server, ports, context = self.activated(
            Path(self.mktemp()).absolute(),
            "--listen=systemd:domain=INET:index=0",
            "--tls-listen=systemd:domain=INET:index=1",
            sockets=2,
        )
        self.assertEqual([server.port_for("POP3"), server.port_for("POP3 over TLS")], ports)
        with Wire(ports[0]) as plain, Wire(ports[1]) as encrypted:
            encrypted.starttls(context)
            for wire in (plain, encrypted):
                self.assertTrue(wire.line().startswith(b"+OK"))
                self.assertEqual(wire.ask(b"USER ann"), b"+OK send PASS")
                self.assertTrue(wire.ask(b"PASS secret").startswith(b"+OK maildrop has 2"))
                self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))

    def test_submission(self) -> None:
        """As in docs/systemd: STARTTLS at one more, TLS at another, and AUTH at both; with workers too."""
        for workers in (0, 2):
            with self.subTest(workers=workers):
                folder = Path(self.mktemp()).absolute()
                folder.mkdir()
                server, ports, context = self.activated(
                    folder,
                    "--listen=systemd:domain=INET:index=0",
                    "--tls-listen=systemd:domain=INET:index=1",
                    "--submission=systemd:domain=INET:index=2",
                    "--submission-tls=systemd:domain=INET:index=3",
                    sockets=4,
                    workers=workers,
                )
                told = ("POP3", "POP3 over TLS", "submission", "submission over TLS")
                self.assertEqual([server.port_for(what) for what in told], ports)
                before = len(list((folder / "mail" / "ann" / "new").iterdir()))
                with smtplib.SMTP("localhost", ports[2], timeout=DEADLINE) as client:
                    client.ehlo()
                    client.starttls(context=context)
                    self.submit(client)
                with smtplib.SMTP_SSL("localhost", ports[3], timeout=DEADLINE, context=context) as client:
                    client.ehlo()
                    self.assertFalse(client.has_extn("starttls"))
                    self.submit(client)
                after = len(list((folder / "mail" / "ann" / "new").iterdir()))
                self.assertEqual(after - before, 2)
                self.assertTrue(server.terminate())

    def submit(self, client: smtplib.SMTP) -> None:
        """Send nothing before login, not with a wrong password, and a message with the right one."""
        with self.assertRaises(smtplib.SMTPSenderRefused):
            client.sendmail("ann@localhost", ["ann@localhost"], "Subject: x\r\n")
        wrong = base64.b64encode(b"\0ann\0wrong").decode()
        self.assertEqual(client.docmd("AUTH", f"PLAIN {wrong}")[0], 535)
        client.login("ann", "secret")
        client.sendmail("ann@localhost", ["ann@localhost"], "Subject: x\r\n")

    def test_no_socket(self) -> None:
        """Without systemd it is one line and no start."""

        folder = Path(self.mktemp()).absolute()
        fill_maildir(folder / "mail" / "ann", [])
        with self.assertRaises(ServerDied) as raised:
            RealServer(
                *maildir_options(folder / "mail"), "--listen=systemd:domain=INET:index=0", folder=folder
            )
        self.assertIn("exit status 1", str(raised.exception))
        self.assertIn("pop3toy: --listen systemd:domain=INET:index=0: ", str(raised.exception))
        self.assertNotIn("Traceback", str(raised.exception))


class UnitTests(SynchronousTestCase):
    """The files in docs/systemd."""

    def verified(self, folder: Path) -> None:
        """systemd-analyze finds nothing wrong with the two, but that the program is not where they say."""
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not installed (Debian package systemd)")
        unit = folder / "pop3toy.service"
        unit.write_text(unit.read_text().replace("/opt/pop3toy/bin/twistd", "/bin/true"))
        done = subprocess.run(
            ["systemd-analyze", "verify", str(unit), str(folder / "pop3toy.socket")],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        # In tenths: 25 is 2.5.
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=24", str(unit)],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_verified(self) -> None:
        """The units beside another mail server, as docs/operating/start.rst puts them in place."""
        folder = Path(self.mktemp()).absolute()
        shutil.copytree(DOCS / "systemd", folder, ignore=shutil.ignore_patterns("alone"))
        more = folder / "pop3toy.socket.d"
        more.mkdir()
        (folder / "smtp.conf").rename(more / "smtp.conf")
        self.verified(folder)

    def test_verified_alone(self) -> None:
        """The units for a host without another mail server."""
        folder = Path(self.mktemp()).absolute()
        shutil.copytree(DOCS / "systemd" / "alone", folder)
        self.verified(folder)

    def test_started(self) -> None:
        """Each service comes when the clock is right, and again when it has died; not by chance."""
        for path in sorted((DOCS / "systemd").rglob("*.service")):
            lines = path.read_text().splitlines()
            [after] = [line for line in lines if line.startswith("After=")]
            self.assertIn("time-sync.target", after.split(), path)
            self.assertIn("Restart=on-failure", lines, path)
            self.assertIn("RestartSec=5", lines, path)

    def test_alone_as_beside(self) -> None:
        """Where no other mail server is, the service is the same, but for its queue and what it is called."""
        one, other = (
            {line for line in (DOCS / "systemd" / name).read_text().splitlines() if line and line[0] != "#"}
            for name in ("pop3toy.service", "alone/pop3toy.service")
        )
        more = {line.partition("=")[0] for line in other - one}
        self.assertEqual(
            more, {"Description", "After", "StateDirectory", "StateDirectoryMode", "TimeoutStopSec"}
        )
        self.assertEqual({line.partition("=")[0] for line in one - other}, {"Description", "After"})

    def test_open_files(self) -> None:
        """The unit allows as many as the server needs for all connections that it takes, of each kind."""
        [files] = re.findall(
            r"^LimitNOFILE=(\d+)$", (DOCS / "systemd" / "pop3toy.service").read_text(), re.MULTILINE
        )
        fit = Fitting(ConnectionLimits(), int(files), smtp=True, lmtp=True)
        wanted = ConnectionLimits().connections
        self.assertEqual((fit.pop3.connections, fit.smtp.connections), (wanted, wanted))
        self.assertGreaterEqual(fit.lmtp.connections, wanted)
        # What docs/operating/attack.rst tells is enough, and nothing less.
        text = (DOCS / "operating" / "attack.rst").read_text()
        for kinds, told in enumerate(("20,520", "41,000", "61,480"), 1):
            self.assertIn(told, text)
            for less in (0, 1):
                fit = Fitting(
                    ConnectionLimits(), int(told.replace(",", "")) - less, smtp=kinds > 1, lmtp=kinds > 2
                )
                self.assertEqual(fit.pop3.connections, wanted - less)

    def test_options(self) -> None:
        """The server understands the command line in the unit, and the file that goes with it."""
        self.understood("pop3toy.service", "host.toml", "pop3toy.socket", "smtp.conf")

    def test_options_alone(self) -> None:
        """The same of the units for a host without another mail server; port 25 is in force there."""
        self.understood("alone/pop3toy.service", "alone.toml", "alone/pop3toy.socket")

    def understood(self, service: str, example: str, *sockets: str) -> None:
        """The unit's options are right, and the file names each port by the place where it is opened."""
        unit = (DOCS / "systemd" / service).read_text().replace("\\\n", " ")
        [command] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
        program, *words = command.removeprefix("ExecStart=").split()
        self.assertTrue(program.endswith("/twistd"))
        from twisted.python.usage import UsageError

        from pop3toy.tap import Options

        options = Options()
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in ("accounts", "aliases"):
            (folder / name).touch()
        file = (DOCS / "examples" / "config" / example).read_text()
        for path in ("/etc/pop3toy", "/srv/mail"):
            file = file.replace(path, str(folder.absolute()))
        (folder / "pop3toy.toml").write_text(file)
        ours = " ".join(words[words.index("pop3toy") + 1 :]).replace("/etc/pop3toy", str(folder))
        try:
            options.parseOptions(ours.split())
        except (UsageError, SystemExit) as error:
            self.fail(str(error))
        [(listen,), (tls_listen,)] = options.settings.listen, options.settings.tls_listen
        [(submission,), (submission_tls,)] = options.settings.submission, options.settings.submission_tls
        [smtp] = re.findall(r"^#?smtp = \[\"(.*)\"\]$", file, re.MULTILINE)
        meant = {listen: 110, tls_listen: 995, submission: 587, submission_tls: 465, smtp: 25}
        units = [(DOCS / "systemd" / name).read_text() for name in sockets]
        opened = re.findall(r"^ListenStream=(\d+)$", "\n".join(units), re.MULTILINE)
        self.assertEqual(
            meant, {f"systemd:domain=INET6:index={at}": int(port) for at, port in enumerate(opened)}
        )
