"""What may be done to a running server: list connections, close one, let all end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

from ..events import Noted
from ..interfaces import IServerControl, IStoreAdmin, SessionInfo
from ..net.connection import AnyConnection
from ..net.factory import ConnectionFactory

__all__ = ["ServerControl"]

log = Logger()


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

    @property
    def draining(self) -> bool:
        """Whether no more connections are taken."""
        return any(factory.draining for factory in self._factories)

    def _connections(self) -> Iterator[AnyConnection]:
        for factory in self._factories:
            yield from factory.all_connections()

    def sessions(self) -> Sequence[SessionInfo]:
        """See :class:`IServerControl`."""
        return sorted((connection.info() for connection in self._connections()), key=lambda one: one.session)

    def _connection(self, session: int) -> AnyConnection | None:
        return next((one for one in self._connections() if one.record.number == session), None)

    def close(self, session: int, *, why: str = "administrator", at_once: bool = False) -> bool:
        """See :class:`IServerControl`."""
        connection = self._connection(session)
        if connection is not None:
            connection.hang_up(why, at_once)
            if at_once:
                # The first has closed it; the second does not wait for the client to read.
                connection.hang_up(why, at_once)
        return connection is not None

    def note(self, session: int, text: str) -> bool:
        """See :class:`IServerControl`."""
        connection = self._connection(session)
        if connection is not None:
            connection.writer.happened(Noted, text)
        return connection is not None

    def drain(self) -> Deferred[None]:
        """See :class:`IServerControl`."""
        log.info("no more connections are taken, as was asked for; sessions may end")
        return gatherResults([factory.drain() for factory in self._factories]).addCallback(lambda _: None)

    def resume(self) -> None:
        """See :class:`IServerControl`."""
        log.info("connections are taken again")
        for factory in self._factories:
            factory.resume()
