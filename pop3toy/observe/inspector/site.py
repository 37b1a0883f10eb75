"""HTTP for the inspector: no access log, since a link has the token in it, and no bodies of strangers."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime

from ..site import BoundedRequest, EndingSite, QuietSite
from .access import Access
from .api import Inspected, Inspector

__all__ = ["InspectorSite"]

#: Octets of a request's body.
MOST = 50 * 1024 * 1024
#: Connections at once: strangers can connect, too, and each takes an open file that the mail has not.
CONNECTIONS = 100


class _Request(BoundedRequest):
    """Takes no body of whoever may not ask."""

    most = MOST
    _known: bool | None = None

    def handleContentChunk(self, data: bytes) -> None:
        """See ``Request``."""
        if self._known is None:
            channel: Any = self.channel
            self._known = channel.site.access.knows_token(self)
        if self._known:
            super().handleContentChunk(data)


class InspectorSite(EndingSite):
    """The factory of the inspector's connections."""

    def __init__(self, inspected: Inspected, access: Access, clock: IReactorTime) -> None:
        self._inspector = Inspector(inspected, access)
        site: Any = QuietSite(self._inspector, requestFactory=_Request, reactor=clock)
        site.access = access
        super().__init__(site, CONNECTIONS)

    def stopFactory(self) -> None:
        """End what still goes on: those who follow would do so for ever."""
        self._inspector.finish()
        super().stopFactory()
