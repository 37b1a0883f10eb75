"""Real clients against a whole server: smtplib and swaks send, poplib fetches."""

from __future__ import annotations

import poplib
import shutil
import smtplib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.mailserver import LOOPBACK, MailServer

from ..folders import new_folder
from ..tls_world import Authority, Wire, trusting

MESSAGE = (
    b"From: eve@example.org\r\nSubject: x\r\n\r\n.dot\r\n..dots\r\nFrom here\r\n\xc3\xbc\r\n"
    + b"z" * 2000
    + b"\r\n"
)


class ServerTests(SynchronousTestCase):
    """A server process with three users."""

    users = ("ann", "bob", "cat")
    tls = False

    def setUp(self) -> None:
        self.root = new_folder(self)
        if self.tls:
            self.authority = Authority(self.root)
            self.authority.issue("localhost", LOOPBACK).write(self.root / "cert.pem")
        self.server = self.start()
        self.addCleanup(self.server.stop)

    def start(self) -> MailServer:
        """A server on our folder."""
        return MailServer(self.root, *self.users)

    def fetch(self, user: str) -> list[bytes]:
        """The user's messages as POP3 gives them, without our own headers; removes them."""
        client = poplib.POP3(LOOPBACK, self.server.pop3, timeout=30)
        client.user(user)
        client.pass_(user)
        messages = []
        for number in range(1, client.stat()[0] + 1):
            _, lines, octets = client.retr(number)
            message = b"".join(line + b"\r\n" for line in lines)
            self.assertEqual(len(message), octets)
            messages.append(message)
            client.dele(number)
        client.quit()
        return [without_trace(message) for message in messages]


def without_trace(message: bytes) -> bytes:
    """A message without the Return-Path and Received that we put before it, and the trap's X-Original-To."""
    assert message.startswith(b"Return-Path: <"), message[:80]
    _, received = message.split(b"\r\n", 1)
    while received.startswith(b"X-Original-To: "):
        received = received.split(b"\r\n", 1)[1]
    assert received.startswith(b"Received: from ")
    while True:
        received = received.split(b"\r\n", 1)[1]
        if not received.startswith(b"\t"):
            return received


class SmtplibTests(ServerTests):
    """Python's client."""

    def test_octet_for_octet(self) -> None:
        """What was sent to several is fetched by each, octet for octet."""
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
            client.sendmail("eve@elsewhere.example", ["ann@localhost", "Bob+x@example.org"], MESSAGE)
        self.assertEqual(self.fetch("ann"), [MESSAGE])
        self.assertEqual(self.fetch("bob"), [MESSAGE])
        self.assertEqual(self.fetch("cat"), [])

    def test_refused(self) -> None:
        """A client learns who was refused; the others have their message."""
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
            everybody = ["ann@localhost", "no@localhost", "a@y.example"]
            refused = client.sendmail("e@x.example", everybody, MESSAGE)
        codes = {name: code for name, (code, _) in refused.items()}
        self.assertEqual(codes, {"no@localhost": 550, "a@y.example": 550})
        self.assertEqual(self.fetch("ann"), [MESSAGE])

    def test_utf8(self) -> None:
        """SMTPUTF8: headers and addresses in UTF-8."""
        text = "Subject: grüße\r\n\r\nx\r\n".encode()
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
            options = ["SMTPUTF8", "BODY=8BITMIME"]
            client.sendmail("jürgen@x.example", ["ann@localhost"], text, mail_options=options)
        self.assertIn("Return-Path: <jürgen@x.example>".encode(), self.server.messages("ann")[0])
        self.assertEqual(self.fetch("ann"), [text])

    def test_too_large(self) -> None:
        """A message that says that it is too large is not even sent."""
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
            client.ehlo()
            code, _ = client.mail("e@x.example", [f"SIZE={10**9}"])
        self.assertEqual(code, 552)

    def test_large(self) -> None:
        """A message of 50 MB for three comes through, and the server does not keep it in memory."""
        line = b"x" * 998 + b"\r\n"
        text = b"Subject: large\r\n\r\n" + line * 50_000
        before = memory(self.server.process.pid)
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=60) as client:
            client.sendmail("e@x.example", [f"{user}@localhost" for user in self.users], text)
        self.assertLess(memory(self.server.process.pid) - before, 10_000)
        self.assertEqual(self.fetch("ann"), [text])

    def test_netcat(self) -> None:
        """A whole session in one write, whose sender closes its half at once, is answered and delivered."""
        with Wire(self.server.smtp) as wire:
            wire.send(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann@localhost>\r\nDATA\r\n")
            wire.send(b"Subject: nc\r\n\r\n.\r\nQUIT\r\n")
            wire.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(wire.rest().splitlines()[-1][:3], b"221")
        self.assertEqual(self.fetch("ann"), [b"Subject: nc\r\n\r\n"])

    def test_many_at_once(self) -> None:
        """Ten clients at once, and every message once."""

        def send(sender: int) -> None:
            with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=60) as client:
                for number in range(20):
                    user = self.users[number % 3]
                    client.sendmail("", [f"{user}@localhost"], b"Subject: %d.%d\r\n\r\n" % (sender, number))

        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fetched = [message for user in self.users for message in self.fetch(user)]
        expected = [b"Subject: %d.%d\r\n\r\n" % (one, two) for one in range(10) for two in range(20)]
        self.assertEqual(sorted(fetched), sorted(expected))

    def test_open_session(self) -> None:
        """A delivery during a POP3 session is not refused, and that session's numbers do not move."""
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
            client.sendmail("", ["ann@localhost"], b"Subject: 1\r\n\r\n")
            session = poplib.POP3(LOOPBACK, self.server.pop3, timeout=30)
            session.user("ann")
            session.pass_("ann")
            client.sendmail("", ["ann@localhost"], b"Subject: 2\r\n\r\n")
            self.assertEqual(session.stat()[0], 1)
            session.dele(1)
            session.quit()
        self.assertEqual(self.fetch("ann"), [b"Subject: 2\r\n\r\n"])


class TLSTests(ServerTests):
    """STARTTLS and AUTH, as mail programs use them."""

    tls = True

    def context(self) -> ssl.SSLContext:
        """One that trusts our certificate and no other."""
        return trusting(self.authority)

    def test_submission(self) -> None:
        """A mail program starts TLS, logs in and sends."""
        with smtplib.SMTP("localhost", self.server.submission, timeout=30) as client:
            client.ehlo()
            client.starttls(context=self.context())
            client.login("ann", "ann")
            client.sendmail("ann@localhost", ["bob@localhost"], MESSAGE)
        self.assertIn(b"with ESMTPSA id", self.server.messages("bob")[0])
        self.assertEqual(self.fetch("bob"), [MESSAGE])

    def test_wrong_password(self) -> None:
        """A wrong password does not send."""
        with smtplib.SMTP("localhost", self.server.submission, timeout=30) as client:
            client.starttls(context=self.context())
            self.assertRaises(smtplib.SMTPAuthenticationError, client.login, "ann", "wrong")
            self.assertRaises(smtplib.SMTPSenderRefused, client.sendmail, "a", ["bob"], MESSAGE)

    def test_injection(self) -> None:
        """Clear text behind STARTTLS is not carried out behind TLS."""
        with smtplib.SMTP("localhost", self.server.smtp, timeout=30) as client:
            client.ehlo()
            assert client.sock is not None
            client.sock.sendall(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<ann@localhost>\r\n")
            self.assertEqual(client.getreply()[0], 220)
            client.sock = self.context().wrap_socket(client.sock, server_hostname="localhost")
            client.file = None
            # The first answer behind TLS is that to the first command behind TLS.
            self.assertEqual(client.docmd("NOOP")[0], 250)
            self.assertEqual(client.docmd("DATA")[0], 503)


class SwaksTests(ServerTests):
    """swaks, the Swiss army knife for SMTP."""

    tls = True

    def setUp(self) -> None:
        if shutil.which("swaks") is None:
            self.skipTest("swaks is not installed (Debian package swaks)")
        super().setUp()

    def swaks(self, *options: str) -> str:
        """Send with swaks."""
        done = subprocess.run(
            ["swaks", "--to", "ann@localhost", "--from", "bob@localhost", "--body", "hello swaks", *options],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_smtp(self) -> None:
        """It delivers in clear text and with PIPELINING."""
        for options in ((), ("--pipeline",)):
            self.swaks("--server", LOOPBACK, "--port", str(self.server.smtp), *options)
        fetched = self.fetch("ann")
        self.assertEqual(len(fetched), 2)
        for message in fetched:
            self.assertIn(b"hello swaks", message)

    def test_starttls(self) -> None:
        """It delivers over STARTTLS."""
        probe = subprocess.run(["perl", "-MNet::SSLeay", "-e", "1"], capture_output=True, check=False)
        if probe.returncode:
            self.skipTest("swaks has no TLS here (Debian package libnet-ssleay-perl)")
        said = self.swaks("--server", LOOPBACK, "--port", str(self.server.smtp), "-tls")
        self.assertIn("TLS started with cipher TLSv1.3", said)
        self.assertIn(b"with ESMTPS id", self.server.messages("ann")[0])
        (message,) = self.fetch("ann")
        self.assertIn(b"hello swaks", message)

    def test_submission(self) -> None:
        """It logs in with PLAIN and LOGIN."""
        for mechanism in ("PLAIN", "LOGIN"):
            self.swaks(
                "--server", LOOPBACK, "--port", str(self.server.submission),
                "--auth", mechanism, "--auth-user", "bob", "--auth-password", "bob",
            )  # fmt: skip
        self.assertEqual(len(self.fetch("ann")), 2)

    def test_lmtp(self) -> None:
        """It speaks LMTP through the Unix socket."""
        self.swaks("--socket", self.server.lmtp, "--protocol", "LMTP", "--to", "ann@localhost,cat@localhost")
        self.assertEqual((len(self.fetch("ann")), len(self.fetch("cat"))), (1, 1))


def memory(pid: int) -> int:
    """The most memory that a process ever had, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
