"""Real servers hand mail on: to a smarthost with STARTTLS and AUTH, through kills, and with workers."""

from __future__ import annotations

import email
import email.policy
import json
import shutil
import smtplib
import subprocess
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.mailserver import LOOPBACK
from tests.realserver import POP3TOY, RealServer, run_command, wait_until

from ..folders import new_folder
from ..tls_world import Authority
from .smarthosts import FakeSmarthost

LETTER = b"From: ann@example.org\r\nTo: eve@elsewhere.example\r\nSubject: hello\r\n\r\n.dot\r\nbye\r\n"


class OutgoingCase(SynchronousTestCase):
    """A server with two users, and a smarthost of the test's."""

    workers: int | None = None
    scheme = "smtp+starttls"
    more: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.root = new_folder(self)
        (self.root / "mail").mkdir()
        self.authority = Authority(self.root)
        self.pem = self.root / "smart.pem"
        self.authority.issue("localhost", LOOPBACK).write(self.pem)
        self.ca = self.authority.file
        self.credentials = self.root / "smarthost"
        self.credentials.write_text("relay:open sesame\n")
        self.credentials.chmod(0o600)
        self.queue = self.root / "queue"
        self.smarthost = self.new_smarthost()
        self.server = self.start()

    def new_smarthost(self, **options: object) -> FakeSmarthost:
        """One that asks for TLS and a login; it closes with the test."""
        made = FakeSmarthost(self.pem, login=("relay", "open sesame"), **options)  # type: ignore[arg-type]
        self.addCleanup(made.close)
        return made

    def start(self) -> RealServer:
        """The server, which ends with the test."""
        workers = [f"--workers={self.workers}"] if self.workers else []
        server = RealServer(
            f"--maildir={self.root}/mail/{{user}}", "--create", "--user=ann:ann", "--user=bob:bob",
            "--submission-port=0", "--smtp-port=0", "--domain=example.org", "--hostname=mail.example.org",
            f"--smarthost={self.scheme}://localhost:{self.smarthost.port}", f"--smarthost-ca={self.ca}",
            f"--smarthost-credentials={self.credentials}", f"--queue={self.queue}", *workers, *self.more,
        )  # fmt: skip
        self.addCleanup(server.terminate)
        return server

    def client(self, user: str = "ann") -> smtplib.SMTP:
        """A client that has logged in."""
        client = smtplib.SMTP(LOOPBACK, self.server.port_for("submission"), timeout=30)
        self.addCleanup(client.close)
        client.ehlo("laptop")
        client.login(user, user)
        return client

    def send(self, *to: str, text: bytes = LETTER, **options: object) -> str:
        """Hand a message in; what was said behind it."""
        client = self.client()
        client.mail("ann@example.org")
        for one in to:
            code, said = client.rcpt(one)
            self.assertEqual(code, 250, said)
        code, said = client.data(text)
        self.assertEqual(code, 250, said)
        return said.decode()

    def waiting(self) -> list[Path]:
        """The messages in the queue."""
        return [*self.queue.glob("*.mail"), *self.queue.glob("*.tmp")]

    def mail(self, user: str) -> list[EmailMessage]:
        """What has come for a user."""
        files = [*(self.root / "mail" / user).glob("new/*")]
        return [
            email.message_from_bytes(file.read_bytes(), policy=email.policy.default)  # type: ignore[misc]
            for file in sorted(files, key=lambda file: file.name)
        ]


class HandOnTests(OutgoingCase):
    """One process."""

    def test_taken_and_handed_on(self) -> None:
        """What is for elsewhere is queued, and the smarthost gets it octet for octet; bob here has it too."""
        said = self.send("eve@elsewhere.example", "bob@example.org")
        self.assertRegex(said, r"^2\.0\.0 delivered and queued as [0-9a-f]{12}$")
        queue_id = said.split()[-1]
        wait_until(lambda: bool(self.smarthost.taken), "the smarthost has it")
        wait_until(lambda: not self.waiting(), "the queue is empty")
        [taken] = self.smarthost.taken
        self.assertTrue(taken.mail.startswith("MAIL FROM:<ann@example.org> SIZE="), taken.mail)
        self.assertEqual(taken.rcpt, ["RCPT TO:<eve@elsewhere.example>"])
        self.assertTrue(taken.text.endswith(LETTER), taken.text)
        self.assertTrue(taken.text.startswith(b"Received: from laptop"), taken.text)
        self.assertEqual([one["Subject"] for one in self.mail("bob")], ["hello"])
        log = self.server.log
        sender, to = "from=<ann@example.org>", "to=<eve@elsewhere.example> user='ann'"
        self.assertIn(f"queued: id={queue_id} octets=79 {sender} {to} session=1 rip=127.0.0.1", log)
        self.assertIn(f"sent: id={queue_id} {sender} {to} smarthost=localhost seconds=", log)
        self.assertNotIn("open sesame", log)
        self.assertEqual(self.queue.stat().st_mode & 0o777, 0o700)

    def test_bounce(self) -> None:
        """What the smarthost refuses for good comes back to its sender, once, as RFC 3464 has it."""
        self.smarthost.replies["RCPT TO:<eve@"] = "550 5.1.1 no such user"
        self.send("eve@elsewhere.example", "dan@elsewhere.example")
        wait_until(lambda: bool(self.mail("ann")), "the notice")
        wait_until(lambda: not self.waiting(), "the queue is empty")
        [notice] = self.mail("ann")
        self.assertEqual(notice.get_content_type(), "multipart/report")
        self.assertEqual(notice["Return-Path"], "<>")
        [taken] = self.smarthost.taken
        self.assertEqual(taken.rcpt, ["RCPT TO:<dan@elsewhere.example>"])
        status: Any = notice.get_payload(1)
        of_all, of_eve = status.get_payload()
        self.assertEqual(of_all["Reporting-MTA"], "dns; mail.example.org")
        self.assertEqual(of_eve["Final-Recipient"], "rfc822; eve@elsewhere.example")
        self.assertEqual((of_eve["Action"], of_eve["Status"]), ("failed", "5.1.1"))

    def test_wrong_certificate(self) -> None:
        """A smarthost whose certificate is another's gets neither password nor mail; the log says why."""
        self.authority.issue("elsewhere.example").write(self.pem)
        other = self.new_smarthost()
        self.server.terminate()
        self.smarthost = other
        self.server = self.start()
        self.send("eve@elsewhere.example")
        wait_until(lambda: "deferred" in self.server.log, "it is put off")
        self.assertIn("TLS failed: its certificate is for another name", self.server.log)
        self.assertFalse([line for line in other.lines if line.startswith(("AUTH", "MAIL"))])
        self.assertEqual(other.taken, [])

    def test_down_and_up(self) -> None:
        """A smarthost that is down gets the mail later; the command says why, and has it tried now."""
        port = self.smarthost.port
        self.smarthost.close()
        said = self.send("eve@elsewhere.example")
        queue_id = said.split()[-1]
        wait_until(lambda: "deferred" in self.server.log, "it is put off")
        listed = run_command(
            *POP3TOY, "queue", "list", "--json", "--queue", str(self.queue), folder=self.root
        )
        [one] = json.loads(listed.stdout)
        self.assertEqual((one["id"], one["attempts"]), (queue_id, 1))
        self.assertIn("cannot connect to localhost", one["reason"])
        self.smarthost = self.new_smarthost(port=port)
        run_command(*POP3TOY, "queue", "retry", queue_id, "--queue", str(self.queue), folder=self.root)
        wait_until(lambda: bool(self.smarthost.taken), "the smarthost has it")

    def test_swaks(self) -> None:
        """swaks sends, with TLS off and a login, to somebody elsewhere."""
        if shutil.which("swaks") is None:
            self.skipTest("swaks is not installed (Debian package swaks)")
        done = subprocess.run(
            ["swaks", "--server", LOOPBACK, "--port", str(self.server.port_for("submission")),
             "--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "ann", "--from", "ann@example.org",
             "--to", "eve@elsewhere.example", "--header", "Subject: by swaks"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("queued as", done.stdout)
        wait_until(lambda: bool(self.smarthost.taken), "the smarthost has it")
        self.assertIn(b"Subject: by swaks", self.smarthost.taken[0].text)

    def test_no_relay(self) -> None:
        """Nobody sends elsewhere without a login, by port 25, or from an address that is not theirs."""
        stranger = smtplib.SMTP(LOOPBACK, self.server.port_for("SMTP"), timeout=30)
        self.addCleanup(stranger.close)
        stranger.ehlo("x")
        stranger.mail("ann@example.org")
        self.assertEqual(stranger.rcpt("eve@elsewhere.example")[0], 550)
        client = self.client()
        self.assertEqual(client.mail("bob@example.org")[0], 553)
        client.mail("ann@elsewhere.example")
        self.assertEqual(client.rcpt("eve@elsewhere.example")[0], 553)
        nobody = smtplib.SMTP(LOOPBACK, self.server.port_for("submission"), timeout=30)
        self.addCleanup(nobody.close)
        nobody.ehlo("x")
        self.assertEqual(nobody.mail("ann@example.org")[0], 530)


class KillTests(OutgoingCase):
    """kill -9 at each step: nothing is lost, and at most one is there twice."""

    def killed_at(self, step: str) -> list[bytes]:
        """What the smarthost has of a server that was killed when a command came there, and started again."""
        once = [step]

        def kill(line: str) -> None:
            if once and line.upper().startswith(step):
                once.clear()
                self.server.kill()

        self.smarthost.hook = kill
        self.send("eve@elsewhere.example")
        wait_until(lambda: not once, f"the server was killed at {step}")
        self.assertTrue(self.waiting())
        self.server = self.start()
        wait_until(lambda: not self.waiting(), "the queue is empty")
        return [taken.text for taken in self.smarthost.taken]

    def test_each_step(self) -> None:
        """Before the smarthost has the text it comes once; between its reply and the record perhaps twice."""
        for step in ("GREETING", "EHLO", "MAIL", "RCPT", "DATA"):
            self.smarthost.taken.clear()
            self.assertEqual(len(self.killed_at(step)), 1, step)
        self.smarthost.taken.clear()
        texts = self.killed_at(".")
        self.assertIn(len(texts), (1, 2))
        self.assertEqual(len(set(texts)), 1)

    def test_behind_the_250(self) -> None:
        """What was acknowledged in the moment of the kill is handed on by the next server."""
        self.smarthost.close()
        self.send("eve@elsewhere.example")
        self.server.kill()
        self.smarthost = self.new_smarthost()
        self.server = self.start()
        wait_until(lambda: bool(self.smarthost.taken), "the smarthost has it")
        wait_until(lambda: not self.waiting(), "the queue is empty")


class LimitTests(OutgoingCase):
    """What a user may send within an hour."""

    more = ("--smarthost-limit=3",)

    def test_killed(self) -> None:
        """A server that is killed and started again has forgotten nothing."""
        self.send("eve@elsewhere.example", "cat@elsewhere.example")
        self.server.kill()
        self.server = self.start()
        self.send("eve@elsewhere.example", "bob@example.org")
        client = self.client()
        client.mail("ann@example.org")
        code, said = client.rcpt("eve@elsewhere.example")
        self.assertEqual((code, said[:19]), (450, b"4.7.1 you may write"))
        self.assertEqual(client.rcpt("bob@example.org")[0], 250)
        other = self.client("bob")
        other.mail("bob@example.org")
        self.assertEqual(other.rcpt("eve@elsewhere.example")[0], 250)


class LimitOfWorkersTests(OutgoingCase):
    """What a user may send within an hour, whichever worker takes it."""

    more = ("--smarthost-limit=5",)
    workers = 2

    def test_together(self) -> None:
        """Two workers take as much as one."""
        taken = 0
        for _ in range(10):
            client = self.client()
            client.mail("ann@example.org")
            if client.rcpt("eve@elsewhere.example")[0] == 250:
                taken += client.data(LETTER)[0] == 250
        self.assertEqual(taken, 5)


class ImplicitTests(OutgoingCase):
    """TLS from the first octet on."""

    scheme = "smtps"

    def new_smarthost(self, **options: object) -> FakeSmarthost:
        """One that speaks TLS at once."""
        return super().new_smarthost(implicit=True, **options)

    def test_handed_on(self) -> None:
        """A message larger than what a transport takes at once arrives whole."""
        letter = LETTER + b"0123456789\r\n" * 200_000
        self.send("eve@elsewhere.example", text=letter)
        wait_until(lambda: bool(self.smarthost.taken), "the smarthost has it")
        self.assertTrue(self.smarthost.taken[0].text.endswith(letter))
        wait_until(lambda: not self.waiting(), "the queue is empty")


class WorkersTests(OutgoingCase):
    """Several processes, of which one runs the queue."""

    workers = 2

    def test_each_takes_one_hands_on(self) -> None:
        """Whichever worker takes a message, each is handed on once."""
        for _ in range(8):
            self.send("eve@elsewhere.example")
        wait_until(lambda: len(self.smarthost.taken) >= 8, "the smarthost has all")
        wait_until(lambda: not self.waiting(), "the queue is empty")
        self.assertEqual(len(self.smarthost.taken), 8)
