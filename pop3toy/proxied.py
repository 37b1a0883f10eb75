"""Behind a proxy that speaks the PROXY protocol: no word before its header was read.

Twisted's ``haproxy:`` endpoint tells the protocol of a connection at once, when
the address is still the proxy's; a server that speaks first, as POP3 and SMTP
servers do, would take every client for the proxy.  Here the protocol hears of
the connection when the header is there, and sees the client's address only.

This is the one file that knows Twisted's wrapper from inside.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["PATIENCE", "ProxiedEndpoint"]

#: Seconds for the header; a proxy sends it with the first octets of a connection.
PATIENCE = 10.0


class _Doorstep(Protocol):
    """Stands for the real protocol until the header is there; keeps what came behind it."""

    def __init__(self) -> None:
        self.kept = b""

    def dataReceived(self, data: bytes) -> None:
        """Octets behind the header."""
        self.kept += data


class _Proxied(HAProxyProtocolWrapper):
    """One connection from the proxy."""

    factory: _ProxiedFactory

    def __init__(self, factory: Any, wrappedProtocol: IProtocol) -> None:
        self._doorstep = _Doorstep()
        self._real: Any = wrappedProtocol
        self._timer: IDelayedCall | None = None
        super().__init__(factory, self._doorstep)

    def makeConnection(self, transport: Any) -> None:
        """Wait for the header, but not for ever."""
        super().makeConnection(transport)
        self._timer = self.factory.clock.callLater(PATIENCE, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        self.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """The header, and then whatever is behind it."""
        super().dataReceived(data)
        real = self._real
        if real is None or self._proxyInfo is None or self.disconnecting:
            return
        self._real = None
        self._stop_timer()
        self.wrappedProtocol = real
        real.makeConnection(self)
        if self._doorstep.kept:
            real.dataReceived(self._doorstep.kept)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._stop_timer()
        self._real = None
        super().connectionLost(reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _ProxiedFactory(HAProxyWrappingFactory):
    protocol = _Proxied
    noisy = False

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(factory)
        self.clock = clock


@implementer(IStreamServerEndpoint)
class ProxiedEndpoint:
    """An endpoint where nobody but a proxy connects.

    Version 1 and 2 of the header are read.  Who may reach the port can claim
    any address, so it belongs behind a firewall or on loopback.

    :param endpoint: where the proxy connects.
    :param clock: for the patience with which the header is waited for.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, clock: IReactorTime) -> None:
        self._endpoint = endpoint
        self._clock = clock

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``."""
        listening: Deferred[IListeningPort] = self._endpoint.listen(
            _ProxiedFactory(protocolFactory, self._clock)
        )
        return listening
