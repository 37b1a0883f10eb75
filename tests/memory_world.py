"""A server in memory: a reactor whose threads the test serves, and clients on strings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

from twisted.application.service import IService
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer
from zope.interface.interface import InterfaceClass

from pop3toy import Settings, server
from pop3toy.run.service import Server

from .realserver import DEADLINE

__all__ = ["LOOPBACK", "MemoryCase", "MemoryReactor", "StringClient", "talk"]

from pop3toy.testing.sockets import LOOPBACK as LOOPBACK

Address = IPv4Address | IPv6Address | UNIXAddress


@implementer(IReactorFromThreads)
class MemoryReactor(MemoryReactorClock):
    """A reactor in memory that can be given to thread pools; the test delivers what comes from threads."""

    def __init__(self) -> None:
        super().__init__()
        self._results: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        if threading.current_thread() is threading.main_thread():
            callable(*args, **kwargs)
        else:
            self._results.put(partial(callable, *args, **kwargs))

    def deliver(self) -> None:
        """Wait for a result of a thread, and deliver it."""
        self._results.get(timeout=DEADLINE)()

    def callInThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def suggestThreadPoolSize(self, size: int) -> None:
        pass

    def factory_at(self, port: int) -> Any:
        """The factory that listens at this port."""
        [factory] = [one[1] for one in self.tcpServers if one[0] == port]
        return factory


class StringClient:
    """A client whose connection is a ``StringTransport``.

    :param provides: interfaces that the transport has besides.
    :ivar greeting: what the server said first.
    """

    greeting: Any

    def __init__(self, factory: Any, peer: Address = LOOPBACK, *provides: InterfaceClass) -> None:
        self.transport = StringTransport(peerAddress=peer, lenient=True)
        alsoProvides(self.transport, *provides)
        self.protocol: Any = factory.buildProtocol(peer)
        self.protocol.makeConnection(self.transport)
        self.greeting = self.read()

    def send(self, data: bytes) -> bytes:
        """Send octets, unless the server has ended the connection; what is answered at once."""
        if not self.closed:
            self.protocol.dataReceived(data)
        return self.read()

    def say(self, *lines: bytes) -> bytes:
        """Send lines, all at once; what is answered at once."""
        return self.send(b"".join(line + b"\r\n" for line in lines))

    def read(self) -> bytes:
        """What was answered since the last look."""
        said: bytes = self.transport.value()
        self.transport.clear()
        return said

    @property
    def closed(self) -> bool:
        """Whether the server has ended the connection."""
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def leave(self) -> None:
        """The connection is lost."""
        self.protocol.connectionLost(connectionDone)


def talk(factory: Any, *lines: bytes, peer: Address = LOOPBACK) -> bytes:
    """All that a server says to a client that sends these lines at once and leaves."""
    client = StringClient(factory, peer)
    said: bytes = client.greeting + client.say(*lines)
    client.leave()
    return said


class MemoryCase(SynchronousTestCase):
    """A server on a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def started(self, settings: Settings, **more: Any) -> Server:
        """A server that runs, and is stopped when the test ends."""
        service = server(self.reactor, settings, **more)
        self.start(service)
        return service

    def start(self, service: IService) -> None:
        """Start a service, which is stopped when the test ends."""
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))

    def talk(self, port: int, *lines: bytes, peer: IPv4Address = LOOPBACK, results: int = 0) -> bytes:
        """What the server at one of its ports answers a client that says these lines.

        :param results: of threads that the answer needs.
        """
        client = StringClient(self.reactor.factory_at(port), peer)
        said: bytes = client.greeting + client.say(*lines)
        for _ in range(results):
            self.reactor.deliver()
        said += client.read()
        client.leave()
        return said
