"""``twistd pop3toy --faults FILE`` as a process: all its ports, Maildirs, mistakes, and ``config``."""

from __future__ import annotations

import contextlib
import os
import poplib
import smtplib
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ..cli_world import CommandTests
from ..corpus import make_maildir
from ..realserver import RealServer, maildir_options, run_command, text_of, twistd, wait_until

MESSAGES = (b"Subject: one\n\n1\n", b"Subject: two\n\n2\n")


class FaultsProcessTests(SynchronousTestCase):
    """A server of Maildirs that is wrong."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.maildir = make_maildir(self.folder / "mail" / "ann")
        for at, message in enumerate(MESSAGES):
            (self.maildir / "cur" / f"{1_700_000_000 + at}.M{at}P1.mail:2,S").write_bytes(message)

    def serve(self, faults: str, *options: str) -> RealServer:
        """Start it."""
        file = self.folder / "faults.toml"
        file.write_text(faults)
        server = RealServer(
            *maildir_options(self.folder / "mail"),
            f"--faults={file}",
            f"--transcript={self.folder / 'transcript'}",
            *options,
        )
        self.addCleanup(server.terminate)
        return server

    def test_maildir(self) -> None:
        """A message that breaks off, and a QUIT that is refused, cost no mail, and are told."""
        server = self.serve(
            '[[fault]]\nkind = "drop"\ncommand = "RETR"\nnth = 2\noctets = 20\n'
            '[[fault]]\nkind = "quit-refused"\nsession = 2\n'
        )
        self.assertRegex(
            server.log, r"wrong on purpose, for tests only: faults of \S+faults\.toml, 2 of them"
        )

        def session() -> poplib.POP3:
            client = poplib.POP3("127.0.0.1", server.port, timeout=20)
            client.user("ann")
            client.pass_("secret")
            return client

        with contextlib.closing(session()) as client:
            self.assertEqual(client.retr(1)[1], [b"Subject: one", b"", b"1"])
            client.dele(1)
            with self.assertRaises(poplib.error_proto):
                client.retr(2)
        with contextlib.closing(session()) as client:
            client.dele(1)
            with self.assertRaisesRegex(poplib.error_proto, "not removed"):
                client.quit()
        self.assertEqual(len(list((self.maildir / "cur").iterdir())), 2)
        transcript = self.folder / "transcript"
        wait_until(lambda: "[2] -- closed" in text_of(transcript), "the session has ended")
        told = transcript.read_text()
        self.assertRegex(told, r"\[1\] C: RETR 2\n\[1\] -- fault drop \(octets 20\)")
        self.assertIn("[2] -- fault quit-refused", told)

    def test_mail_ports(self) -> None:
        """A fault is for POP3, if it does not say for which of the ports that take mail."""
        rule = '[[fault]]\nkind = "answer"\ncommand = "NOOP"\n'
        faults = "".join(
            f'{rule}protocol = "{protocol}"\ntext = "451 {protocol} is tired"\n'
            for protocol in ("SMTP", "submission", "LMTP")
        )
        server = self.serve(
            f'{rule}text = "-ERR POP3 is tired"\n{faults}',
            "--domain=example.org",
            "--smtp-port=0",
            "--submission-port=0",
            "--lmtp=tcp:0:interface=127.0.0.1",
        )
        for what, hello in (("SMTP", b"EHLO me"), ("submission", b"EHLO me"), ("LMTP", b"LHLO me")):
            with socket.create_connection(("127.0.0.1", server.port_for(what)), 20) as sock:
                sock.sendall(hello + b"\r\nNOOP\r\nQUIT\r\n")
                said = b"".join(iter(lambda: sock.recv(4096), b""))
            self.assertRegex(said, rb"(?s)\A220 .*\n250 [^\n]*\n451 %b is tired\r\n221 " % what.encode())
        with contextlib.closing(poplib.POP3("127.0.0.1", server.port, timeout=20)) as client:
            client.user("ann")
            client.pass_("secret")
            with self.assertRaisesRegex(poplib.error_proto, "POP3 is tired"):
                client.noop()

    def test_mail_comes_twice(self) -> None:
        """An acknowledgement that is lost: who sends again has sent twice."""
        server = self.serve(
            '[[fault]]\nkind = "drop"\ncommand = "DATA"\nnth = 2\nprotocol = "SMTP"\n',
            "--domain=example.org",
            "--smtp-port=0",
        )

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", server.port_for("SMTP"), timeout=20) as sender:
                sender.sendmail("me@example.org", ["ann@example.org"], "Subject: x\n\nx\n")

        with self.assertRaises(smtplib.SMTPServerDisconnected):
            send()
        send()
        self.assertEqual(len(list((self.maildir / "new").iterdir())), 2)

    def test_seed(self) -> None:
        """What is random is the same again, in another process with the same seed."""
        seen = []
        for seed in (7, 7, 8):
            faults = f'seed = {seed}\n[[fault]]\nkind = "answer"\ncommand = "NOOP"\nprobability = 0.4\n'
            server = self.serve(faults)
            with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
                sock.sendall(b"USER ann\r\nPASS secret\r\n" + b"NOOP\r\n" * 40 + b"QUIT\r\n")
                said = b"".join(iter(lambda: sock.recv(4096), b""))
            server.terminate()
            seen.append([line[:1] for line in said.split(b"\r\n")[3:43]])
        self.assertEqual(seen[0], seen[1])
        self.assertNotEqual(seen[0], seen[2])
        self.assertEqual({*seen[0]}, {b"+", b"-"})

    def test_mistakes(self) -> None:
        """One line with the place, and nothing is started."""
        file = self.folder / "faults.toml"
        for text, says in (
            ('[[fault]]\nkind = "dorp"\n', f"{file}:2: there is no fault 'dorp'; did you mean 'drop'?"),
            ('[[fault]]\nkind = "drop"\nprotocol = "IMAP"\n', f"{file}:3: protocol is one of"),
            ("[[fault\n", f"{file}: this is not TOML"),
            (None, f"--faults {file}.none: no such file or directory"),
        ):
            file.write_text(text or "")
            path = file if text is not None else f"{file}.none"
            command = twistd(
                "--nodaemon", "--pidfile=pid", "--logfile=log", "pop3toy", "--port=0", f"--faults={path}"
            )
            done = run_command(*command, folder=self.folder)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done)
            self.assertRegex(done.stderr, r"\Apop3toy: [^\n]*\n\Z")
            self.assertIn(says, done.stderr)
            self.assertNotIn(
                "Traceback", (self.folder / "log").read_text() if (self.folder / "log").exists() else ""
            )


class ConfigTests(CommandTests):
    """``pop3toy config`` looks at the file of faults, too."""

    def setUp(self) -> None:
        super().setUp()
        self.faults = self.root / "faults.toml"
        self.file = self.root / "pop3toy.toml"
        self.accounts.write_text("ann:{PLAIN}x\n")
        self.accounts.chmod(0o600)
        self.patch(os, "environ", {key: value for key, value in os.environ.items() if key[:7] != "POP3TOY"})

    def test_check_and_show(self) -> None:
        self.file.write_text(
            f'[store]\nmaildir = "{self.pattern}"\n[accounts]\naccounts = "{self.accounts}"\n'
            f'[pop3]\nfaults = "{self.faults}"\n'
        )
        self.faults.write_text('[[fault]]\nkind = "drop"\n')
        done = self.run_command("config", "check", str(self.file))
        self.assertEqual((done.status, done.err), (0, ""))
        shown = self.run_command("config", "show", f"--config={self.file}")
        self.assertIn(f'faults = "{self.faults}"', shown.out)
        self.faults.write_text('[[fault]]\nkind = "drop"\noctet = 1\n')
        done = self.run_command("config", "check", str(self.file))
        self.assertEqual(done.status, os.EX_CONFIG)
        self.assertRegex(done.err, rf"\AError: {self.faults}:3: drop has no 'octet'; [^\n]*\n\Z")
        self.faults.unlink()
        done = self.run_command("config", "check", str(self.file))
        self.assertEqual(done.status, os.EX_CONFIG)
        self.assertRegex(done.err, r"\AError: [^\n]*no such file or directory\n\Z")
