"""A real Postfix hands mail over by LMTP, as docs/operating/mail.rst says to set it up."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import smtplib
import subprocess
from pathlib import Path

from tests.mailserver import LOOPBACK, MailServer
from tests.realserver import free_port, wait_until
from tests.smtp.test_smtp_real import MESSAGE, ServerTests, without_trace

from ..pages import page

#: Postfix breaks lines that are longer than SMTP allows.
LETTER = MESSAGE.replace(b"z" * 2000, b"z" * 900)

MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {root}
maillog_file = {root}/maillog
inet_interfaces = {loopback}
inet_protocols = ipv4
myhostname = relay.example.org
mydestination =
mynetworks = {loopback}/32
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_maps = static:any
smtputf8_enable = no
# Otherwise it adds Date and Message-Id to what mynetworks send.
local_header_rewrite_clients =
"""

MASTER = """
{loopback}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - y - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
pickup unix n - n 60 1 pickup
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


def section() -> str:
    """What docs/operating/mail.rst says about Postfix."""
    text = page("docs/operating/mail.rst")
    return text.partition("\nFrom Postfix\n")[2].partition("\nWithout Postfix\n")[0]


class PostfixCase(ServerTests):
    """A Postfix of our own on loopback, with its folders in a temporary one, set up as the page says.

    Of the page's text just the place of the socket, or the port's number, is another one.
    """

    #: What the page says of ``lmtp`` in the file, and which of its groups of commands goes with it.
    endpoint = re.compile(r"``lmtp = \[\"(unix:\S+)\"\]``")
    commands = 1

    def setUp(self) -> None:
        if shutil.which("postfix") is None:
            self.skipTest("postfix is not installed (Debian package postfix)")
        if os.geteuid() != 0:
            self.skipTest("Postfix starts as root only")
        super().setUp()
        # Postfix's own user goes through it to the socket.
        self.root.chmod(0o755)
        self.port = free_port()
        self.config = self.root / "etc"
        for folder in ("etc", "queue", "data"):
            (self.root / folder).mkdir()
        shutil.chown(self.root / "data", "postfix")
        values = {"root": self.root, "loopback": LOOPBACK, "port": self.port}
        (self.config / "main.cf").write_text(MAIN.format(**values))
        (self.config / "master.cf").write_text(MASTER.format(**values))
        groups = re.findall(r"::\n\n((?:    .*\n)+)", section())
        done = [shlex.split(self.placed(line)) for line in groups[self.commands].splitlines()]
        for command, *arguments in done:
            if command == "postconf":
                subprocess.run(["postconf", "-c", str(self.config), *arguments], check=True)
        self.postfix("start")
        self.addCleanup(self.postfix, "stop")

    def placed(self, text: str) -> str:
        """The page's text, with a place of our own for the socket."""
        return text.replace("/run/pop3toy/lmtp.sock", str(self.root / "lmtp.sock"))

    def start(self) -> MailServer:
        """As the page says."""
        told = self.endpoint.search(section())
        assert told is not None
        return MailServer(self.root, *self.users, lmtp=self.placed(told[1]))

    def postfix(self, command: str) -> None:
        """Run ``postfix`` on our configuration."""
        done = subprocess.run(
            ["postfix", "-c", str(self.config), command], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.log())

    def log(self) -> str:
        """What Postfix has to say."""
        path = self.root / "maillog"
        return path.read_text() if path.exists() else ""

    def in_queue(self) -> bool:
        """Whether Postfix still has a message."""
        folders = ("incoming", "active", "deferred", "maildrop")
        return any(path.is_file() for folder in folders for path in (self.root / "queue" / folder).rglob("*"))

    def send(self, *users: str) -> None:
        """Give a message to Postfix."""
        with smtplib.SMTP(LOOPBACK, self.port, timeout=30) as client:
            client.sendmail("eve@elsewhere.example", [f"{user}@example.org" for user in users], LETTER)


class UnixTests(PostfixCase):
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


class InetTests(PostfixCase):
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
