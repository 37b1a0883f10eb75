"""Behind a proxy that speaks the PROXY protocol: no word before its header was read.

Twisted's ``haproxy:`` endpoint tells the protocol of a connection at once, when
the address is still the proxy's; a server that speaks first, as POP3 and SMTP
servers do, would take every client for the proxy.  Here the protocol hears of
the connection when the header is there, and sees the client's address only.
What the header means is in ``proxy_header``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from ..clock import steady
from ..errors import Refusal
from ..interfaces import ConnectionSlot, Limiter
from .proxy_header import BadHeader, Header, parse_header
from .sending import abort
from .transport import peer_name
from .types import IStreamTransport

__all__ = ["PATIENCE", "ProxiedEndpoint"]

log = Logger()

#: Seconds for the header; a proxy sends it with the first octets of a connection.
PATIENCE = 10.0


@implementer(IHalfCloseableProtocol)
class _Proxied(ProtocolWrapper):
    """One connection from the proxy: a transport for the protocol behind it."""

    factory: _ProxiedFactory
    logs_by_itself = True

    transport: IStreamTransport

    def __init__(self, factory: _ProxiedFactory, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)
        self._begin = b""
        self._header: Header | None = None
        self._timer: IDelayedCall | None = None
        self._slot: ConnectionSlot | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """Wait for the header, but not for ever."""
        directlyProvides(self, providedBy(transport))
        # The wrapped protocol hears of it later, so this is not the wrapper's own.
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self._timer = self.factory.clock.callLater(PATIENCE, self._too_late)
        if self.factory.limiter is not None:
            try:
                # The proxy stands for many: no limit by address holds for it, as for a Unix socket.
                self._slot = self.factory.limiter.acquire("unix", self.let_go)
            except Refusal as why:
                self._send_away(why.text)

    @property
    def header_is_there(self) -> bool:
        """Whether the protocol behind knows of the connection."""
        return self._header is not None

    def let_go(self) -> None:
        """End the connection: the header did not come in time, or the port is closed."""
        abort(self.transport)

    def _too_late(self) -> None:
        self._timer = None
        self.let_go()

    def _send_away(self, why: str) -> None:
        log.warn("{proxy} is sent away: {why}", proxy=peer_name(self.transport), why=why)
        self.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """The header, and then whatever is behind it."""
        if self._header is not None:
            self.wrappedProtocol.dataReceived(data)
        elif not self.disconnecting:
            self._begin += data
            try:
                self._header = parse_header(self._begin)
            except BadHeader as why:
                self._send_away(str(why))
            if self._header is not None:
                self._go_on(self._header.rest)

    def _go_on(self, rest: bytes) -> None:
        self._begin = b""
        self._waited_for()
        # A transport as far as the one below is one.
        transport: Any = self
        self.wrappedProtocol.makeConnection(transport)
        if rest:
            self.wrappedProtocol.dataReceived(rest)

    def getPeer(self) -> IAddress:
        """The client; the proxy as long as, or if, nothing is known of one."""
        source = self._header.source if self._header is not None else None
        return source if source is not None else super().getPeer()

    def getHost(self) -> IAddress:
        """Where the client has connected."""
        destination = self._header.destination if self._header is not None else None
        return destination if destination is not None else super().getHost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._waited_for()
        if self._header is not None:
            super().connectionLost(reason)
        else:
            self.factory.unregisterProtocol(self)

    def readConnectionLost(self) -> None:
        """The client sends no more; a protocol that cannot go on then, as TLS, is ended as by TCP."""
        if self._header is not None and IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            IHalfCloseableProtocol(self.wrappedProtocol).readConnectionLost()
        else:
            self.let_go()

    def writeConnectionLost(self) -> None:
        """Never happens: no socket tells."""

    def _waited_for(self) -> None:
        """The header is there, or will not come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._slot is not None:
            self._slot.release()
            self._slot = None


class _ProxiedFactory(WrappingFactory[_Proxied]):
    protocol = _Proxied
    noisy = False

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime, limiter: Limiter | None) -> None:
        super().__init__(factory)
        self.clock = clock
        self.limiter = limiter

    def stopFactory(self) -> None:
        """The port is closed: connections whose header has not come are not waited for."""
        for connection in list(self.protocols):
            if not connection.header_is_there:
                connection.let_go()


@implementer(IStreamServerEndpoint)
class ProxiedEndpoint:
    """An endpoint to which only a proxy connects.

    Version 1 and 2 of the header are read.  A client that can reach the port can claim
    any address, so it belongs behind a firewall or on loopback.

    :param endpoint: where the proxy connects.
    :param clock: for the patience with which the header is waited for.
    :param limiter: counts the connections whose header has not come; ``None`` lets all in.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, clock: IReactorTime, limiter: Limiter | None = None
    ) -> None:
        self._endpoint = endpoint
        self._clock: IReactorTime = steady(clock)
        self._limiter = limiter

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``."""
        listening: Deferred[IListeningPort] = self._endpoint.listen(
            _ProxiedFactory(protocolFactory, self._clock, self._limiter)
        )
        return listening
