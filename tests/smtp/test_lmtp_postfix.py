"""A real Postfix hands mail over by LMTP, as docs/operating/mail.rst says to set it up."""

from __future__ import annotations

import re
import shlex
import shutil
import smtplib
import subprocess
from pathlib import Path

from tests.mailserver import LOOPBACK, MailServer
from tests.postfix_world import PostfixMixin
from tests.realserver import free_port, wait_until
from tests.smtp.test_smtp_real import MESSAGE, ServerTests, without_trace

from ..pages import page

#: Postfix breaks lines that are longer than SMTP allows.
LETTER = MESSAGE.replace(b"z" * 2000, b"z" * 900)


def section() -> str:
    """What docs/operating/mail.rst says about Postfix."""
    text = page("docs/operating/mail.rst")
    return text.partition("\nFrom Postfix\n")[2].partition("\nWithout Postfix\n")[0]


class LMTPCase(PostfixMixin, ServerTests):
    """A Postfix of our own on loopback, with its folders in a temporary one, set up as the page says.

    Of the page's text just the place of the socket, or the port's number, is another one.
    """

    #: What the page says of ``lmtp`` in the file, and which of its groups of commands goes with it.
    endpoint = re.compile(r"``lmtp = \[\"(unix:\S+)\"\]``")
    commands = 1

    def setUp(self) -> None:
        self.needs_postfix()
        super().setUp()
        self.prepare_postfix(self.root)
        groups = re.findall(r"::\n\n((?:    .*\n)+)", section())
        done = [shlex.split(self.placed(line)) for line in groups[self.commands].splitlines()]
        for command, *arguments in done:
            if command == "postconf":
                subprocess.run(["postconf", "-c", str(self.root / "etc"), *arguments], check=True)
        self.start_postfix()

    def placed(self, text: str) -> str:
        """The page's text, with a place of our own for the socket."""
        return text.replace("/run/pop3toy/lmtp.sock", str(self.root / "lmtp.sock"))

    def start(self) -> MailServer:
        """As the page says."""
        told = self.endpoint.search(section())
        assert told is not None
        return MailServer(self.root, *self.users, lmtp=self.placed(told[1]))

    def in_queue(self) -> bool:
        """Whether Postfix still has a message."""
        folders = ("incoming", "active", "deferred", "maildrop")
        return any(path.is_file() for folder in folders for path in (self.root / "queue" / folder).rglob("*"))

    def send(self, *users: str) -> None:
        """Give a message to Postfix."""
        with smtplib.SMTP(LOOPBACK, self.port, timeout=30) as client:
            client.sendmail("eve@elsewhere.example", [f"{user}@example.org" for user in users], LETTER)


class UnixTests(LMTPCase):
    """Through a Unix socket."""

    def start(self) -> MailServer:
        """As the page says; the socket's group is here the one that Postfix has already."""
        server = super().start()
        shutil.chown(server.lmtp, group="postfix")
        self.assertEqual(Path(server.lmtp).stat().st_mode & 0o777, 0o660)
        return server

    def test_octet_for_octet(self) -> None:
        """What Postfix took comes out of POP3 octet for octet, behind the headers that were added."""
        self.send("ann", "bob")
        wait_until(lambda: not self.in_queue(), "Postfix hands its mail over")
        for user in ("ann", "bob"):
            (message,) = self.fetch(user)
            self.assertTrue(message.startswith(b"Received: "), self.log())
            self.assertEqual(without_received(message), LETTER)

    def test_one_refused(self) -> None:
        """An unknown recipient is refused, the others have their mail, and Postfix tries no more."""
        self.send("nobody", "cat")
        wait_until(lambda: bool(self.server.messages("cat")), "the message for cat")
        wait_until(lambda: "status=bounced" in self.log(), "Postfix gives up on nobody")
        self.assertIn("550 5.1.1 no such user here", self.log())
        self.assertEqual(len(self.fetch("cat")), 1)

    def test_down_and_up(self) -> None:
        """While our server is down Postfix keeps the mail; when it is up again the mail comes, once."""
        self.server.kill()
        self.send("ann")
        wait_until(lambda: "status=deferred" in self.log(), "Postfix keeps the message")
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.postfix("flush")
        wait_until(lambda: not self.in_queue(), "Postfix hands its mail over")
        self.assertEqual(len(self.fetch("ann")), 1)


class InetTests(LMTPCase):
    """Through a port of loopback."""

    endpoint = re.compile(r"``lmtp = \[\"(tcp:\S+)\"\]``")
    commands = 0

    def setUp(self) -> None:
        self.lmtp_port = free_port()
        super().setUp()

    def placed(self, text: str) -> str:
        """The page's text, with a port of our own."""
        return text.replace("2400", str(self.lmtp_port))

    def test_octet_for_octet(self) -> None:
        """What Postfix took comes out of POP3 octet for octet, behind the headers that were added."""
        self.send("ann")
        wait_until(lambda: not self.in_queue(), "Postfix hands its mail over")
        (message,) = self.fetch("ann")
        self.assertEqual(without_received(message), LETTER)


def without_received(message: bytes) -> bytes:
    """A message without the Received that Postfix put before it."""
    return without_trace(b"Return-Path: <>\r\n" + message)
