"""HTTP for the inspector: no access log, since a link has the token in it, and no bodies of strangers."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.http import HTTPChannel
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site

from .access import Access
from .api import Inspected, Inspector

__all__ = ["InspectorSite"]

#: Octets of a request's body.
MOST = 50 * 1024 * 1024
#: Connections at once: strangers can connect, too, and each takes an open file that the mail has not.
CONNECTIONS = 100


class _Request(SiteRequest):
    """Takes no body of whoever may not ask, and none that is too large."""

    too_large = False
    _taken = 0
    _known: bool | None = None

    def handleContentChunk(self, data: bytes) -> None:
        """See ``Request``."""
        self._taken += len(data)
        if self._known is None:
            channel: Any = self.channel
            self._known = channel.site.access.knows_token(self)
        if not self._known:
            return
        if self._taken > MOST:
            self.too_large = True
        else:
            super().handleContentChunk(data)


class InspectorSite(Site):
    """The factory of the inspector's connections."""

    noisy = False
    #: Without HTTP/2, which Twisted would agree on with a client that has it.
    protocol = HTTPChannel  # type: ignore[assignment]

    def __init__(self, inspected: Inspected, access: Access, clock: IReactorTime) -> None:
        self._inspector = Inspector(inspected, access)
        super().__init__(self._inspector, requestFactory=_Request, reactor=clock)
        self.access = access
        self._channels: set[Any] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See ``IProtocolFactory``; one connection too many is closed."""
        if len(self._channels) >= CONNECTIONS:
            return None
        channel: Any = super().buildProtocol(addr)
        lost = channel.connectionLost

        def connection_lost(reason: object) -> None:
            self._channels.discard(channel)
            lost(reason)

        channel.connectionLost = connection_lost
        self._channels.add(channel)
        return channel

    def startFactory(self) -> None:
        """Without a log: Twisted would write to that of the process."""

    def stopFactory(self) -> None:
        """End what still goes on: those who follow would do so for ever."""
        self._inspector.finish()
        for channel in list(self._channels):
            if channel.transport is not None:
                channel.transport.loseConnection()
