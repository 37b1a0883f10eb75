"""The plain way to send, and a server without what is there for speed."""

from __future__ import annotations

import poplib
import shutil
import socket
import sys
from pathlib import Path
from subprocess import run
from typing import Any

from twisted.internet import tcp
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

import pop3toy
from pop3toy.net.sending import Sending

from ..realserver import RealServer
from .test_immediate_write import IdleReactor, Producer


class PlainTests(SynchronousTestCase):
    """Over a socket whose reactor does what the test says."""

    def setUp(self) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            self.addCleanup(end.close)
        self.client = ours
        self.reactor: Any = IdleReactor()
        port: Any = None
        self.transport = tcp.Server(theirs, Protocol(), ("127.0.0.1", 1), port, 1, self.reactor)  # type: ignore[arg-type]
        self.sending = Sending()

    def test_paused_until_sent(self) -> None:
        """A producer is paused until the reactor has sent all, be it nothing, and is told so once."""
        producer = Producer()
        self.assertFalse(self.sending.pause_until_sent(self.transport))
        self.transport.registerProducer(producer, True)
        for data in (b"x", b""):
            self.transport.write(data)
            self.assertTrue(self.sending.pause_until_sent(self.transport))
            self.assertEqual((producer.told, self.transport in self.reactor.writers), (["pause"], True))
            self.transport.doWrite()
            self.assertEqual(producer.told, ["pause", "resume"])
            producer.told.clear()
        self.assertEqual(self.client.recv(9), b"x")
        self.assertFalse(self.sending.pause_until_sent(StringTransport()))

    def test_unsent(self) -> None:
        """It counts what the socket has not taken."""
        self.transport.write(b"x" * (1 << 20))
        self.transport.doWrite()
        left = self.sending.unsent(self.transport)
        assert left is not None
        self.assertGreater(left, 0)
        self.transport.stopWriting()
        self.assertLess(left, 1 << 20)
        self.assertIsNone(self.sending.unsent(StringTransport()))

    def test_close(self) -> None:
        """The last octets are written before the end."""
        transport: Any = StringTransport()
        self.assertFalse(self.sending.close(transport, b"+OK bye\r\n"))
        self.assertEqual((transport.value(), transport.disconnecting), (b"+OK bye\r\n", True))


class WithoutFastTests(SynchronousTestCase):
    """The folder is gone."""

    def test_deleted(self) -> None:
        """A copy of the package without ``net/fast`` starts, removes what was fetched, and ends in order."""
        copy = Path(self.mktemp()).absolute()
        package = Path(pop3toy.__file__).parent
        shutil.copytree(package, copy / "pop3toy", ignore=shutil.ignore_patterns("__pycache__", "fast"))
        plugin = Path("twisted/plugins/pop3toy_plugin.py")
        (copy / plugin).parent.mkdir(parents=True)
        shutil.copy(package.parent / plugin, copy / plugin)
        launcher = ("env", f"PYTHONPATH={copy}")
        asked = [*launcher, sys.executable, "-c", "import pop3toy.net as net; print(net.__file__)"]
        self.assertIn(str(copy), run(asked, capture_output=True, text=True, check=True, cwd=copy).stdout)
        with RealServer("--user=ann:pass", launcher=launcher) as server:
            for messages in (1, 0):
                client = poplib.POP3("127.0.0.1", server.port, timeout=60)
                client.user("ann")
                client.pass_("pass")
                self.assertEqual(client.stat()[0], messages)
                if messages:
                    client.retr(1)
                    client.dele(1)
                client.quit()
            self.assertTrue(server.terminate(), server.log)
