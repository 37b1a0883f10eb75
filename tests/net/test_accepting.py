"""Ports of a process that has no file descriptor left."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.net.accepting import PAUSE, wait_for_descriptors


class _Reactor(Clock):
    """Knows which ports are read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: set[object] = set()
        self.addReader = self.reading.add
        self.removeReader = self.reading.discard

    def removeWriter(self, writer: object) -> None:
        """There are none."""


class _Exhausted(socket.socket):
    """A listening socket of a process without descriptors, as long as it is told so."""

    error: int | None = errno.EMFILE

    def accept(self) -> Any:
        if self.error is not None:
            raise OSError(self.error, "none left")
        return super().accept()


class AcceptTests(SynchronousTestCase):
    """``wait_for_descriptors``."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.made: list[Protocol] = []
        factory = Factory.forProtocol(Protocol)
        factory.protocol = self.make  # type: ignore[assignment]
        factory.noisy = False  # type: ignore[misc]
        self.port: Any = Port(0, factory, interface="127.0.0.1", reactor=self.reactor)
        self.port.createInternetSocket = self.exhausted
        self.port.startListening()
        self.addCleanup(self.listener.close)
        wait_for_descriptors(self.port, self.reactor)  # type: ignore[arg-type]

    def exhausted(self) -> socket.socket:
        """A listening socket that can accept nothing."""
        self.listener = _Exhausted(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setblocking(False)
        return self.listener

    def make(self) -> Protocol:
        """One that is remembered."""
        self.made.append(Protocol())
        return self.made[-1]

    def test_waits(self) -> None:
        """Clients wait until there is a descriptor, and are closed by nobody; one line a minute says so."""
        client = socket.create_connection(self.listener.getsockname())
        self.addCleanup(client.close)
        client.setblocking(False)
        with capturedLogs() as events:
            for error in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                self.listener.error = error
                self.port.doRead()
                self.assertNotIn(self.port, self.reactor.reading)
                self.reactor.advance(PAUSE)
                self.assertIn(self.port, self.reactor.reading)
        self.assertEqual(len(events), 1)
        self.assertRaises(BlockingIOError, client.recv, 1)
        self.listener.error = None
        self.port.doRead()
        self.assertEqual(len(self.made), 1)
        transport: Any = self.made[0].transport
        transport.socket.close()

    def test_closed_meanwhile(self) -> None:
        """A port that was closed stays so."""
        self.port.doRead()
        self.port.stopListening()
        self.reactor.advance(2 * PAUSE)
        self.assertNotIn(self.port, self.reactor.reading)
