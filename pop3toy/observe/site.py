"""HTTP without a line for each request: what the sites of metrics, inspector and passwords have alike."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import WrappingFactory
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site

__all__ = ["BoundedRequest", "EndingSite", "QuietSite"]


class QuietSite(Site):
    """Without a log of requests, and without the timer that such lines need."""

    noisy = False
    #: Without HTTP/2, which Twisted would agree on with a client that has it.
    protocol = HTTPChannel  # type: ignore[assignment]

    def startFactory(self) -> None:
        """Without a log: Twisted would write to that of the process."""

    def log(self, request: HTTPRequest) -> None:
        """Say nothing: tokens are in links, and somebody asks every few seconds, for ever."""


class EndingSite(WrappingFactory):
    """A site whose connections end when its port is closed: some stay open, or follow, for ever.

    :param most: connections at once; one more is closed.
    """

    noisy = False

    def __init__(self, site: Site, most: float = float("inf")) -> None:
        super().__init__(site)
        self._most = most

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See ``IProtocolFactory``."""
        return super().buildProtocol(addr) if len(self.protocols) < self._most else None

    def stopFactory(self) -> None:
        """See ``Factory``."""
        for connection in list(self.protocols):
            connection.loseConnection()
        super().stopFactory()


class BoundedRequest(SiteRequest):
    """Keeps no body that is too large."""

    #: Octets.
    most = 0
    too_large = False
    _taken = 0

    def handleContentChunk(self, data: bytes) -> None:
        """See ``Request``."""
        self._taken += len(data)
        self.too_large = self._taken > self.most
        if not self.too_large:
            super().handleContentChunk(data)
