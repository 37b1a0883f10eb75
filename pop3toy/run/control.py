"""What may be done to a running server: list connections, close one, let all end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..clock import steady
from ..events import Noted
from ..interfaces import IServerControl, IStoreAdmin, SessionInfo
from ..net.connection import AnyConnection
from ..net.factory import ConnectionFactory

__all__ = ["Notice", "ServerControl"]

log = Logger()


class Notice(Service):
    """The time between saying that no more connections are taken and taking no more.

    A load balancer asks every now and then whether the server is well, and sends clients until it has
    asked again: they are served as ever meanwhile.  Added behind the ports, it is stopped before them.

    :param clock: measures the time.
    :param seconds: of notice; 0 gives none.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = steady(clock)
        self._seconds = seconds
        self._past = not seconds
        self._timer: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self._stopping = False

    def give(self) -> Deferred[None]:
        """Begin, unless it has begun.

        :return: a Deferred that fires when the time is over, or with :meth:`withdraw`.
        """
        if self._past:
            return succeed(None)
        if self._timer is None:
            log.info("connections are taken for {seconds} s more, until all know", seconds=self._seconds)
            self._timer = self._clock.callLater(self._seconds, self._end)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        return done

    def use(self, seconds: float) -> None:
        """The next notice is so long; one that was begun is not changed."""
        self._seconds = seconds
        if self._timer is None and not self._stopping:
            self._past = not seconds

    def withdraw(self) -> None:
        """The server stays: the next notice is as long as the first.  Not while the server stops."""
        if self._stopping:
            return
        self.cut_short()
        self._past = not self._seconds

    def cut_short(self) -> None:
        """Whoever stops the server says so again: it is over, if it was begun."""
        if self._timer is not None:
            self._timer.cancel()
            self._end()

    def _end(self) -> None:
        self._timer, self._past = None, True
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def startService(self) -> None:
        """Started again, it gives notice again."""
        super().startService()
        self._stopping, self._past = False, not self._seconds

    def stopService(self) -> Deferred[None]:
        """Give notice, unless that was done; none of a server that has never served.

        :return: a Deferred that fires when the ports may be closed.
        """
        was_running, self._stopping = self.running, True
        super().stopService()
        return self.give() if was_running else succeed(None)


@implementer(IServerControl)
class ServerControl:
    """See :class:`IServerControl`.

    :param factories: whose connections there are.
    :param admin: makes the store's administrator, when it is asked for.
    :param notice: is given before connections are turned away.
    """

    def __init__(
        self,
        factories: Sequence[ConnectionFactory],
        admin: Callable[[], IStoreAdmin | None],
        notice: Notice,
    ) -> None:
        self._factories = factories
        self._admin = admin
        self._notice = notice
        self._drains = False

    @property
    def mailboxes(self) -> IStoreAdmin | None:
        """The store as an administrator sees it."""
        return self._admin()

    @property
    def draining(self) -> bool:
        """Whether no more connections are taken, or notice of that was given."""
        return self._drains or any(factory.draining for factory in self._factories)

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
        self._drains = True
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        await self._notice.give()
        # Else clients were let in again meanwhile.
        if self._drains:
            log.info("no more connections are taken, as was asked for; sessions may end")
            await gatherResults([factory.drain() for factory in self._factories])

    def resume(self) -> None:
        """See :class:`IServerControl`."""
        log.info("connections are taken again")
        self._drains = False
        self._notice.withdraw()
        for factory in self._factories:
            factory.resume()
