"""From the command line: the toy as a mail trap, and a mail system for a few friends."""

from __future__ import annotations

import poplib
import re
import smtplib
import socket
import ssl
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.admin import add_user
from pop3toy.self_signed import self_signed
from tests.mailserver import LOOPBACK
from tests.realserver import RealServer, wait_until
from tests.test_smtp_real import without_trace

TEXT = b"Subject: caught\r\n\r\nin the trap\r\n"


def port_for(server: RealServer, what: str) -> int:
    """The port on which a server says that it listens for something."""
    listening = re.compile(rf"listens for {what} on 127\.0\.0\.1:(\d+)")
    wait_until(lambda: listening.search(server.log) is not None, f"the port for {what}")
    return int(listening.findall(server.log)[0])


def fetch_last(server: RealServer, user: str, password: str) -> tuple[int, bytes]:
    """How many messages a user has, and the last of them without our headers."""
    reader = poplib.POP3(LOOPBACK, server.port, timeout=30)
    reader.user(user)
    reader.pass_(password)
    count = reader.stat()[0]
    lines = reader.retr(count)[1]
    reader.quit()
    return count, without_trace(b"".join(line + b"\r\n" for line in lines))


class ToyTests(SynchronousTestCase):
    """``twistd -n pop3toy --smtp-port 2525``."""

    def test_mail_trap(self) -> None:
        """Mail for anybody lands in the built-in mailbox, and both conversations are on the terminal."""
        with RealServer("--smtp-port", "0") as server:
            with smtplib.SMTP(LOOPBACK, port_for(server, "SMTP"), timeout=30) as client:
                client.sendmail("me@here.example", ["you@there.example", "they@else.example"], TEXT)
            self.assertEqual(fetch_last(server, "user", "pass"), (2, TEXT))
            for line in ("C: mail FROM:<me@here.example>", "S: 250 2.1.5 recipient ok", "C: RETR 2"):
                wait_until(lambda line=line: line in server.words, line)  # type: ignore[misc]


class UnixSocketTests(SynchronousTestCase):
    """``--listen unix:PATH``."""

    def test_conversation(self) -> None:
        """A client on a Unix socket logs in and reads, with its password in clear text."""
        with (
            tempfile.TemporaryDirectory() as folder,
            RealServer(f"--listen=unix:{folder}/s", "--listen=tcp:0:interface=127.0.0.1"),
        ):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.settimeout(30)
            client.connect(f"{folder}/s")
            client.sendall(b"USER user\r\nPASS pass\r\nSTAT\r\nQUIT\r\n")
            said = b""
            while data := client.recv(1000):
                said += data
            self.assertEqual([line[:3] for line in said.splitlines()], [b"+OK"] * 5, said)


class FriendsTests(SynchronousTestCase):
    """``twistd -n pop3toy --accounts --maildir --submission-port --smtp-port``."""

    def test_friends(self) -> None:
        """One friend logs in and writes to an alias of another, who fetches it; strangers cannot relay."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "mail").mkdir()
            for user in ("ann", "bob"):
                add_user(root / "accounts", user, f"{user}'s secret", scheme="PLAIN")
            (root / "aliases").write_text("bobby: bob\n")
            (root / "pem").write_bytes(Path(self_signed(str(root / "kept")).certificate).read_bytes())
            with RealServer(
                f"--accounts={root}/accounts", f"--maildir={root}/mail/{{user}}", "--create",
                "--smtp-port=0", "--submission-port=0", "--domain=friends.example",
                f"--aliases={root}/aliases", "--submission-tls-port=0", f"--certificate={root}/pem",
            ) as server:  # fmt: skip
                with smtplib.SMTP(LOOPBACK, port_for(server, "submission"), timeout=30) as client:
                    client.login("ann", "ann's secret")
                    client.sendmail("ann@friends.example", ["Bobby@friends.example"], TEXT)
                encrypted = port_for(server, "submission over TLS")
                context = ssl.create_default_context(cafile=f"{root}/pem")
                with smtplib.SMTP_SSL("localhost", encrypted, timeout=30, context=context) as client:
                    client.login("bob", "bob's secret")
                    client.sendmail("bob@friends.example", ["ann@friends.example"], TEXT)
                self.assertEqual(fetch_last(server, "ann", "ann's secret"), (1, TEXT))
                self.assertIn("mail for postmaster is refused", server.log)
                with smtplib.SMTP(LOOPBACK, port_for(server, "SMTP"), timeout=30) as client:
                    self.assertRaises(
                        smtplib.SMTPRecipientsRefused, client.sendmail, "", ["x@elsewhere.example"], TEXT
                    )
                self.assertEqual(fetch_last(server, "bob", "bob's secret"), (1, TEXT))
