"""Listening sockets that one process opens and others accept from.

The supervisor opens them, as any server does, and accepts nothing; a worker inherits them, and an
accept reader makes its connections with the reactor's ``adoptStreamConnection``.  Twisted's own
``adoptStreamPort`` would set a Unix socket's mode to 0666, and remove it with the first worker that stops.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...net.accepting import NONE_LEFT, Patience
from ...net.types import IReactor

__all__ = ["InheritedEndpoint", "SharedSockets"]

log = Logger()

#: Clients that a worker takes before it looks at those it has, so that it leaves some to the others.
#: Twisted's ports take up to 100: of 32 that came at once one of two workers took 8 to 27, with this 13 to
#: 17.  Both are as busy as each other then (by 5 % of their CPU time), as they are with a socket of each
#: one's own (SO_REUSEPORT), where clients would be lost with the worker that the system has chosen for them.
ACCEPTS = 4


class _Nobody(Factory):
    """Serves nobody: Twisted closes the connection at once."""

    noisy = False

    def logPrefix(self) -> str:
        """Who opens a port, in Twisted's own line about it."""
        return "the supervisor's port"

    def buildProtocol(self, addr: object) -> None:
        """Nothing."""


class SharedSockets:
    """The supervisor's ports, which do not accept: they hold what workers inherit."""

    def __init__(self) -> None:
        #: What they are opened with.
        self.factory: Any = _Nobody()
        self._ports: list[Any] = []

    def add(self, port: Any) -> None:
        """One that is open now, in the order in which workers inherit them."""
        port.stopReading()
        self._ports.append(port)

    @property
    def descriptors(self) -> list[int]:
        """The sockets, in that order."""
        return [port.fileno() for port in self._ports]

    def turn_away(self, yes: bool) -> None:
        """Whether to accept whoever connects and close the connection, because nobody else would."""
        for port in self._ports:
            if yes:
                port.startReading()
            else:
                port.stopReading()


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """A listening socket that somebody else has opened.

    :param reactor: makes connections.
    :param descriptor: belongs to this process.
    """

    def __init__(self, reactor: IReactor, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``."""
        port = AcceptReader(socket.socket(fileno=self._descriptor), protocolFactory, self._reactor)
        port.startListening()
        return succeed(port)


@implementer(IListeningPort)
class AcceptReader(FileDescriptor):
    """Accepts from a listening socket, a few at a time."""

    def __init__(self, listening: socket.socket, factory: IProtocolFactory, reactor: IReactor) -> None:
        super().__init__(reactor)
        listening.setblocking(False)
        self._listening = listening
        self._factory = factory
        self._adopting: Any = reactor
        self._patience = Patience(self, reactor)
        # One that is accepted, while there is no descriptor that its transport needs besides.
        self._client: socket.socket | None = None

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._listening.fileno()

    def getHost(self) -> IAddress:
        """See ``IListeningPort``."""
        name = self._listening.getsockname()
        if self._listening.family == socket.AF_UNIX:
            return UNIXAddress(os.fsencode(name))
        kind = IPv6Address if self._listening.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *name[:2])

    def startListening(self) -> None:
        """See ``IListeningPort``."""
        self._factory.doStart()
        self.connected = True
        self.startReading()

    def stopListening(self) -> Deferred[None]:
        """See ``IListeningPort``; only this process's hold of the socket ends."""
        if self.connected:
            self.connectionLost(Failure(ConnectionAbortedError()))
        return succeed(None)

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``."""
        super().connectionLost(reason)
        self._listening.close()
        if self._client is not None:
            self._client.close()
        self._factory.doStop()

    def doRead(self) -> None:
        """Accept some."""
        for _ in range(ACCEPTS):
            try:
                client = self._client or self._listening.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NONE_LEFT:
                    self._patience.pause(error)
                elif error.errno == errno.EINVAL:
                    # The supervisor has ended its port.
                    self.stopReading()
                # All else is of one client: it has gone, or netfilter does not let it in.
                return
            self._client = None
            try:
                self._adopting.adoptStreamConnection(client.fileno(), self._listening.family, self._factory)
            except Exception as error:
                number = getattr(error, "errno", None)
                if number in NONE_LEFT:
                    self._client = client
                    self._patience.pause(cast(OSError, error))
                    return
                if number != errno.ENOTCONN:
                    log.failure("a connection cannot be served")
                # Else the client has gone.
            # The transport has a descriptor of its own.
            client.close()
