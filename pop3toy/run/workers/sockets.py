"""Listening sockets that one process opens and others serve.

Endpoints know how to listen from their description; what they call for it is the
reactor.  So both sides get a reactor with other ways of listening: the
supervisor's opens and does not accept, a worker's takes the next socket that it
has inherited.  Both run through the same settings, hence in the same order.

This file and ``net/unix_sockets.py`` know how Twisted's ports adopt a socket.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import ILoggingContext, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from zope.interface import implementer

from ...net.types import IReactor
from ...net.unix_sockets import AdoptedUnixPort, UnixListening

__all__ = ["Inheritance", "OpenedForOthers", "stand_in"]

#: Clients that a worker takes before it looks at those it has.
ACCEPTS = 4


@implementer(ILoggingContext)
class _Nobody(Factory):
    """Serves nobody: Twisted closes the connection at once."""

    noisy = False

    def logPrefix(self) -> str:
        """Who opens a port, in Twisted's own line about it."""
        return "the supervisor's port"

    def buildProtocol(self, addr: object) -> None:
        """Nothing."""


class OpenedForOthers:
    """A reactor whose ports do not accept: they hold what workers inherit.

    :param reactor: what does all the rest.
    """

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = UnixListening(reactor)
        self._ports: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    @property
    def descriptors(self) -> list[int]:
        """The sockets in the order in which they were opened."""
        return [port.fileno() for port in self._ports]

    def turn_away(self, yes: bool) -> None:
        """Whether to accept whoever connects and close the connection, because nobody else would."""
        for port in self._ports:
            if yes:
                port.startReading()
            else:
                port.stopReading()

    def _keep(self, port: Any) -> Any:
        port.stopReading()
        # Closed and no more: shutting it down would do so for the workers, in the middle of an accept.
        port._shouldShutdown = False
        self._ports.append(port)
        return port

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """See :class:`twisted.internet.interfaces.IReactorTCP`."""
        return self._keep(self._reactor.listenTCP(port, _Nobody(), *args, **kwargs))

    def listenSSL(self, port: int, factory: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        """TLS is the workers' business."""
        return self.listenTCP(port, factory, *args, **kwargs)

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """See :class:`twisted.internet.interfaces.IReactorUNIX`."""
        return self._keep(self._reactor.listenUNIX(address, _Nobody(), *args, **kwargs))

    def adoptStreamPort(self, descriptor: int, family: socket.AddressFamily, factory: Any) -> Any:
        """See :class:`twisted.internet.interfaces.IReactorSocket`."""
        return self._keep(self._reactor.adoptStreamPort(descriptor, family, _Nobody()))


class Inheritance:
    """A reactor that listens on what was inherited, one socket after the other.

    :param reactor: what does all the rest.
    :param descriptors: the sockets; each belongs to this process.
    """

    def __init__(self, reactor: IReactor, descriptors: Iterable[int]) -> None:
        self._reactor = reactor
        self._descriptors = iter(descriptors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _take(self, factory: Any, backlog: int = 50) -> Any:
        descriptor = next(self._descriptors)
        inherited = socket.socket(fileno=descriptor)
        inherited.setblocking(False)
        # Twisted's ports duplicate it.
        with inherited:
            port: Any
            if inherited.family == socket.AF_UNIX:
                port = _UnixPort._fromListeningDescriptor(self._reactor, descriptor, factory)
            else:
                port = _TCPPort._fromListeningDescriptor(self._reactor, descriptor, inherited.family, factory)
            # It tells the system once more, and the number is one for all who share the socket.
            port.backlog = backlog
            port.startListening()
            return port

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, *args: Any, **kwargs: Any) -> Any:
        """See :class:`twisted.internet.interfaces.IReactorTCP`."""
        return self._take(factory, backlog)

    def listenSSL(
        self, port: int, factory: Any, context: Any, backlog: int = 50, *args: Any, **kwargs: Any
    ) -> Any:
        """See :class:`twisted.internet.interfaces.IReactorSSL`."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self._take(TLSMemoryBIOFactory(context, False, factory), backlog)

    def listenUNIX(self, address: str, factory: Any, backlog: int = 50, *args: Any, **kwargs: Any) -> Any:
        """See :class:`twisted.internet.interfaces.IReactorUNIX`."""
        return self._take(factory, backlog)


class _InTurns:
    """Leaves some clients to the others.

    Twisted takes up to 100 in a turn of the reactor: of 32 that came at once one
    of two workers took 8 to 27, with this 13 to 17.  When 32 clients log in
    again and again, both are as busy as each other (by 5 % of their CPU time),
    as they are with a socket of each one's own (SO_REUSEPORT), where clients
    would be lost with the worker that the system has chosen for them.
    """

    @property
    def numberAccepts(self) -> int:
        return ACCEPTS

    @numberAccepts.setter
    def numberAccepts(self, number: int) -> None:
        """What Twisted would like."""


class _TCPPort(_InTurns, Port):
    """A TCP port."""


class _UnixPort(_InTurns, AdoptedUnixPort):
    """A Unix socket; its file is the supervisor's, or systemd's."""


def stand_in(reactor: IReactor, backlog: int) -> IStreamServerEndpoint:
    """For an endpoint whose description means something to the supervisor's process alone (``systemd:``)."""
    return TCP4ServerEndpoint(reactor, 0, backlog)
