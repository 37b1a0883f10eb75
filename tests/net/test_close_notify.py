"""Clients that end their side of TLS and read on, against a server as users start it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

from OpenSSL import SSL
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..corpus import make_maildir
from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, maildir_options, wait_until
from ..tls_world import Authority, OpenSSLWire

#: Larger than what the kernel and the server's own buffers take without being read.
MESSAGE = b"Subject: large\r\n\r\n" + (b"x" * 98 + b"\r\n") * 6000
ALL = b"USER ann\r\nPASS secret\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n"
ANSWERS = [
    b"+OK send PASS\r\n",
    b"+OK maildrop has 1 message (%d octets)\r\n" % len(MESSAGE),
    b"+OK %d octets\r\n%b.\r\n" % (len(MESSAGE), MESSAGE),
    b"+OK message 1 deleted\r\n",
    b"+OK bye, 1 message removed\r\n",
]


class CloseNotifyTests(SynchronousTestCase):
    """``printf ... | gnutls-cli``: all commands at once, then a ``close_notify``."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        authority = Authority(self.folder)
        authority.issue("localhost", "127.0.0.1").write(self.folder / "localhost.pem")
        self.maildir = make_maildir(self.folder / "mail" / "ann")
        self.server = RealServer(
            *maildir_options(self.folder / "mail"),
            "--tls-port=0",
            f"--certificate={self.folder}/localhost.pem",
            folder=self.folder,
        )
        self.addCleanup(self.server.terminate)
        self.port, self.tls_port = map(self.server.port_for, ("POP3", "POP3 over TLS"))

    def deliver(self) -> Path:
        """One large message."""
        path = self.maildir / "new" / "1700000000.1.host"
        path.write_bytes(MESSAGE.replace(b"\r\n", b"\n"))
        return path

    def test_all_at_once(self) -> None:
        """In one packet, on the first visit and when the size is known: all is answered."""
        for version, stls in (
            (SSL.TLS1_2_VERSION, False),
            (SSL.TLS1_3_VERSION, False),
            (SSL.TLS1_3_VERSION, True),
        ):
            for known in (False, True):
                path = self.deliver()
                with OpenSSLWire(self.port if stls else self.tls_port) as wire:
                    if stls:
                        self.assertTrue(wire.line().startswith(b"+OK"))
                        self.assertTrue(wire.ask(b"STLS").startswith(b"+OK"))
                    wire.secure(version)
                    if not stls:
                        self.assertTrue(wire.line().startswith(b"+OK"))
                    if known:
                        self.look()
                    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                    wire.send(ALL)
                    wire.connection.shutdown()
                    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
                    # Raises unless the server ends with a close_notify.
                    self.assertEqual(wire.rest(), b"".join(ANSWERS))
                self.assertFalse(path.exists())
        wait_until(
            lambda: len(re.findall(r"ended=quit .*retrieved=1 removed=1", self.server.log)) == 6,
            "all sessions ended with QUIT",
        )

    def look(self) -> None:
        """ConnectionSlot the mailbox, so that its sizes are known."""
        with OpenSSLWire(self.port) as wire:
            self.assertTrue(wire.line().startswith(b"+OK"))
            self.assertTrue(wire.ask(b"STLS").startswith(b"+OK"))
            wire.secure(SSL.TLS1_3_VERSION)
            for command in ALL.split(b"\r\n")[:2]:
                wire.ask(command)
            self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))

    def test_gnutls_cli(self) -> None:
        """The same with a real client."""
        if shutil.which("gnutls-cli") is None:
            raise SkipTest("gnutls-cli is not installed (Debian package gnutls-bin)")
        for priority in ("NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"):
            path = self.deliver()
            done = subprocess.run(
                ["gnutls-cli", f"--port={self.tls_port}", f"--priority={priority}", "--logfile=/dev/null",
                 f"--x509cafile={next(self.folder.glob('*.crt'))}", "localhost"],
                input=ALL, capture_output=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            for answer in ANSWERS:
                self.assertIn(answer, done.stdout, done.stderr)
            self.assertEqual(done.returncode, 0, done)
            self.assertFalse(path.exists())
