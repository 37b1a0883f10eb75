"""SIGHUP: the file of options is read again; what can change is taken, a broken one is refused whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from ..folders import new_folder
from ..realserver import RealServer, listening, wait_until
from ..strictclient import Refused, StrictClient
from ..tls_world import Authority, Wire, trusting


class ReloadCase(SynchronousTestCase):
    """A server with a file of options."""

    more: ClassVar[Sequence[str]] = ()

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.file = self.folder / "pop3toy.toml"
        self.accounts = self.folder / "accounts"
        self.accounts.write_text("ann:{PLAIN}secret\nbob:{PLAIN}secret\n")
        self.accounts.chmod(0o600)
        (self.folder / "mail").mkdir()

    def write(
        self, pop3: str = "", tls: str = "", accounts: str = "", mail: str = "", limits: str = ""
    ) -> None:
        """The file, with these lines in its tables."""
        self.file.write_text(
            f"[pop3]\n{pop3}\n[tls]\n{tls}\n[accounts]\naccounts = 'accounts'\n{accounts}\n"
            f"[store]\nmaildir = 'mail/{{user}}'\ncreate = true\n"
            f"[mail]\nlmtp = ['tcp:0:interface=127.0.0.1']\n{mail}\n[limits]\n{limits}\n"
        )

    def start(self, *options: str) -> RealServer:
        """Start it with the file."""
        server = RealServer(f"--config={self.file}", *self.more, *options, folder=self.folder)
        self.addCleanup(server.terminate)
        return server

    def hang_up(self, server: RealServer, says: str) -> str:
        """Send SIGHUP, and wait until the log says so; gives the line."""
        before = len(server.log)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: says in server.log[before:], says)
        return next(line for line in server.log[before:].splitlines() if says in line)

    def capabilities(self, server: RealServer) -> list[bytes]:
        """What a new connection is offered."""
        with Wire(server.port) as wire:
            wire.line()
            wire.send(b"CAPA\r\n")
            lines = []
            while (line := wire.line().rstrip()) != b".":
                lines.append(line)
        return lines

    def recipient(self, server: RealServer, name: bytes, size: int = 0) -> bytes:
        """What LMTP says of a recipient, or of a message of this size before."""
        with Wire(server.port_for("LMTP")) as wire:
            wire.line()
            wire.send(b"LHLO x\r\n")
            while wire.line()[3:4] == b"-":
                pass
            wire.send(b"MAIL FROM:<>%s\r\n" % (b" SIZE=%d" % size if size else b""))
            if not (said := wire.line()).startswith(b"250"):
                return said[:3]
            wire.send(b"RCPT TO:<%s>\r\n" % name)
            return wire.line()[:3]


class ReloadTests(ReloadCase):
    """One process."""

    def test_taken(self) -> None:
        """Limits, domains, catch-all and mechanisms of the file are in force for who comes then."""
        self.write()
        with self.start() as server:
            session = StrictClient(server.port)
            self.addCleanup(session.close)
            session.login(b"ann", b"secret")
            self.assertNotIn(b"LOGIN-DELAY 60", self.capabilities(server))
            self.assertEqual(self.recipient(server, b"ann@new.example"), b"550")
            self.assertEqual(self.recipient(server, b"nobody@localhost"), b"550")
            self.assertEqual(self.recipient(server, b"ann", size=5000), b"250")
            self.write(
                accounts="mechanisms = 'USER'",
                mail="domain = ['new.example']\ncatch-all = 'bob'",
                limits="login-delay = 60\nmax-message-size = 2000",
            )
            said = self.hang_up(server, "taken: ")
            self.assertTrue(
                said.endswith("taken: mechanisms, domain, catch-all, login-delay, max-message-size"), said
            )
            offered = self.capabilities(server)
            self.assertIn(b"LOGIN-DELAY 60", offered)
            self.assertFalse([line for line in offered if line.startswith(b"SASL")], offered)
            self.assertEqual(self.recipient(server, b"ann@new.example"), b"250")
            self.assertEqual(self.recipient(server, b"nobody@new.example"), b"250")
            self.assertEqual(self.recipient(server, b"ann@localhost"), b"550")
            self.assertEqual(self.recipient(server, b"ann", size=5000), b"552")
            # The session that was open goes on.
            session.quit()
            self.hang_up(server, "nothing has changed")
            self.assertNotIn("Traceback", server.log)

    def test_users(self) -> None:
        """Users of the file come and go."""
        self.write(accounts="user = ['carl:secret']")
        with self.start() as server:
            self.write(accounts="user = ['dora:secret']")
            self.hang_up(server, "taken: user")
            client = StrictClient(server.port)
            self.addCleanup(client.close)
            client.login(b"dora", b"secret")
            client.quit()
            client = StrictClient(server.port)
            self.addCleanup(client.close)
            with self.assertRaises(Refused):
                client.login(b"carl", b"secret")

    def test_restart(self) -> None:
        """What only a restart can change is told, and the rest is taken."""
        self.write(pop3="transcript = 'off'")
        with self.start() as server:
            port = server.port
            self.write(
                pop3="transcript = 'conversation'\ntls-port = 0",
                tls="self-signed = true",
                limits="login-delay = 7",
            )
            said = self.hang_up(server, "only a restart takes them: ")
            self.assertTrue(said.endswith(": tls-port, transcript, self-signed"), said)
            self.assertIn("taken: login-delay\n", server.log)
            self.assertIn(b"LOGIN-DELAY 7", self.capabilities(server))
            self.assertEqual(listening(server.log)["POP3"], port)

    def test_command_line(self) -> None:
        """What the command line says still wins over the file."""
        self.write()
        with self.start("--login-delay=3") as server:
            self.write(limits="login-delay = 9")
            self.hang_up(server, "nothing has changed")
            self.assertIn(b"LOGIN-DELAY 3", self.capabilities(server))

    def test_refused(self) -> None:
        """Of a file with a mistake nothing is taken: one line says why, and the old state stays."""
        self.write(limits="login-delay = 5")
        with self.start() as server:
            for limits, mail, says in (
                ("login-delay = 9\nlogin-dely = 3", "", "login-dely: there is no such option"),
                ("login-delay = 9", "catch-all = 'eve'", "[mail] catch-all eve: there is no such user"),
                ("login-delay = 9", "aliases = 'missing'", "[mail] aliases: there is no file"),
                ("login-delay = [", "", "this is not TOML"),
            ):
                with self.subTest(says=says):
                    self.write(limits=limits, mail=mail)
                    said = self.hang_up(server, "settings not taken, the old ones stay in force: ")
                    self.assertIn(says, said)
                    self.assertIn(b"LOGIN-DELAY 5", self.capabilities(server))
            self.file.unlink()
            self.assertIn("no such file", self.hang_up(server, "settings not taken"))
            self.write(limits="login-delay = 9")
            self.hang_up(server, "taken: login-delay")
            self.assertIn(b"LOGIN-DELAY 9", self.capabilities(server))

    def test_certificate(self) -> None:
        """Another file for the certificate is taken; one that does not fit is refused with all the rest."""
        authority = Authority(self.folder)
        first, second = (authority.issue("localhost", "127.0.0.1") for _ in range(2))
        first.write(self.folder / "first.pem")
        second.write(self.folder / "second.pem")
        (self.folder / "bad.pem").write_text("nonsense")
        self.write(pop3="tls-port = 0", tls="certificate = 'first.pem'")
        with self.start() as server:
            self.assertEqual(self.shown(server, authority), first.x509.serial_number)
            self.write(pop3="tls-port = 0", tls="certificate = 'bad.pem'", limits="login-delay = 9")
            self.assertIn("bad.pem: no certificate", self.hang_up(server, "settings not taken"))
            self.assertNotIn(b"LOGIN-DELAY 9", self.capabilities(server))
            self.write(pop3="tls-port = 0", tls="certificate = 'second.pem'")
            self.hang_up(server, "taken: certificate")
            self.assertEqual(self.shown(server, authority), second.x509.serial_number)
            first.write(self.folder / "second.pem")
            # The new file is the one that is looked at from now on.
            self.hang_up(server, "certificates reloaded")
            self.assertEqual(self.shown(server, authority), first.x509.serial_number)

    def shown(self, server: RealServer, authority: Authority) -> int:
        """The serial number of the certificate that is shown now."""
        with Wire(server.port_for("POP3 over TLS")) as wire:
            certificate = wire.starttls(trusting(authority)).tls.getpeercert()
            assert certificate is not None
            return int(str(certificate["serialNumber"]), 16)


class WorkersReloadTests(ReloadCase):
    """With workers: all of them serve by the new settings, and those that are started later."""

    more = ("--workers=2",)

    def test_taken(self) -> None:
        """Every worker takes them, one that is started again too; a broken file changes none."""
        self.write()
        with self.start() as server:
            wait_until(lambda: server.log.count(" serves (process ") == 2, "both serve")
            self.write(limits="login-delay = 60", mail="domain = ['new.example']")
            self.hang_up(server, "taken: domain, login-delay")
            wait_until(lambda: self.everywhere(server, b"LOGIN-DELAY 60"), "all workers have it")
            self.assertEqual(self.recipient(server, b"ann@new.example"), b"250")
            self.write(limits="login-delay = nonsense")
            self.hang_up(server, "settings not taken, the old ones stay in force: ")
            [pid, _] = [
                int(line.rpartition("process ")[2].rstrip(")"))
                for line in server.log.splitlines()
                if " serves (process " in line
            ]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: server.log.count(" serves (process ") == 3, "it serves again")
            wait_until(lambda: self.everywhere(server, b"LOGIN-DELAY 60"), "all workers have it")
            self.assertNotIn("Traceback", server.log)

    def everywhere(self, server: RealServer, line: bytes) -> bool:
        """Whether twenty connections, which all workers get some of, are offered this."""
        return all(line in self.capabilities(server) for _ in range(20))
