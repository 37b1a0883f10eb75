"""What may be done to a running server: list connections, close one, let all end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from ..interfaces import IServerControl, IStoreAdmin, SessionInfo
from ..net.connection import AnyConnection
from ..net.factory import ConnectionFactory

__all__ = ["ServerControl"]


@implementer(IServerControl)
class ServerControl:
    """See :class:`IServerControl`.

    :param factories: whose connections there are.
    :param admin: makes the store's administrator, when it is asked for.
    """

    def __init__(
        self, factories: Sequence[ConnectionFactory], admin: Callable[[], IStoreAdmin | None]
    ) -> None:
        self._factories = factories
        self._admin = admin

    @property
    def mailboxes(self) -> IStoreAdmin | None:
        """The store as an administrator sees it."""
        return self._admin()

    def _connections(self) -> Iterator[AnyConnection]:
        for factory in self._factories:
            yield from factory.all_connections()

    def sessions(self) -> Sequence[SessionInfo]:
        """See :class:`IServerControl`."""
        return sorted((connection.info() for connection in self._connections()), key=lambda one: one.session)

    def close(self, session: int) -> bool:
        """See :class:`IServerControl`."""
        for connection in self._connections():
            if connection.record.number == session:
                connection.hang_up("administrator")
                return True
        return False

    def drain(self) -> Deferred[None]:
        """See :class:`IServerControl`."""
        return gatherResults([factory.drain() for factory in self._factories]).addCallback(lambda _: None)

    def resume(self) -> None:
        """See :class:`IServerControl`."""
        for factory in self._factories:
            factory.resume()
