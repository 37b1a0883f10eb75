"""The inspector over workers: events go up to the supervisor, which has the page; orders go down.

The supervisor has the hub and explains what happened: it serves no client, so no client waits for that.
Events go many at once, and only where there is an inspector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, get_type_hints

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ... import events
from ...clock import steady
from ...events import KINDS, Event
from ...interfaces import Channel, IObserver, IServerControl, IStoreAdmin, SessionInfo, TLSFacts
from ...observe.inspector.hub import Hub

__all__ = ["EventsToSupervisor", "WorkersControl", "act", "take"]

#: Seconds that an event waits for others to go with it, and how many go at once.
MOMENT = 0.05
MANY = 200


def _plain(value: Any) -> Any:
    """What JSON can hold; octets as the characters of the same numbers."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Channel):
        return [value.host, value.local, _plain(value.tls)]
    if isinstance(value, TLSFacts):
        return [value.version, value.cipher, value.client_name]
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


@implementer(IObserver)
class EventsToSupervisor:
    """A worker's observer.

    :param report: writes a list of events to the supervisor.
    :param wall: the time of day, seconds since the epoch.
    """

    wants: Collection[type] = KINDS

    def __init__(
        self,
        report: Callable[[list[object]], object],
        reactor: IReactorTime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._report = report
        self._wall = wall
        self._clock = steady(reactor)
        self._waiting: list[object] = []

    def observe(self, event: Any) -> None:
        """See :class:`~pop3toy.interfaces.IObserver`."""
        waiting = self._waiting
        waiting.append([type(event).__name__, self._wall(), *map(_plain, event)])
        if len(waiting) >= MANY:
            self.flush()
        elif len(waiting) == 1:
            self._clock.callLater(MOMENT, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._report(waiting)


def _readers(kind: Any) -> Sequence[Callable[[Any], Any]]:
    """For each field what makes its value of what JSON holds."""
    by_type: dict[object, Callable[[Any], Any]] = {
        bytes: _octets,
        Channel: lambda value: Channel(value[0], value[1], _tls(value[2])),
        TLSFacts: _tls,
        Sequence[tuple[str, bytes]]: lambda value: [(user, _octets(uid)) for user, uid in value],
    }
    return [by_type.get(hint, _same) for hint in get_type_hints(kind, vars(events)).values()]


def _same(value: Any) -> Any:
    return value


def _octets(value: str) -> bytes:
    return value.encode("latin-1")


def _tls(value: Sequence[Any] | None) -> TLSFacts | None:
    return None if value is None else TLSFacts(*value)


_KINDS: dict[str, tuple[Any, Sequence[Callable[[Any], Any]]]] = {
    kind.__name__: (kind, _readers(kind)) for kind in KINDS
}


def take(hub: Hub, told: Sequence[Any]) -> None:
    """Give a worker's events to the hub."""
    for name, wall, *fields in told:
        kind, readers = _KINDS[name]
        made: Event = kind(*[read(value) for read, value in zip(readers, fields, strict=True)])
        hub.take(made, wall)


@implementer(IServerControl)
class WorkersControl:
    """Acts on the workers' sessions.

    :param send: sends to the worker of a number what is to be done.
    :param workers: how many there are.
    :param admin: gives the store's administrator.
    """

    def __init__(
        self,
        hub: Hub,
        workers: int,
        send: Callable[[int, Sequence[object]], object],
        admin: Callable[[], IStoreAdmin | None],
    ) -> None:
        self._hub = hub
        self._workers = workers
        self._send = send
        self._admin = admin
        self._drained: list[Deferred[None]] = []
        #: See :class:`~pop3toy.interfaces.IServerControl`.
        self.draining = False

    @property
    def mailboxes(self) -> IStoreAdmin | None:
        """The store as an administrator sees it."""
        return self._admin()

    def worker_of(self, session: int) -> int:
        """The worker that has a session: each counts in steps of how many there are."""
        return (session - 1) % self._workers

    def sessions(self) -> Sequence[SessionInfo]:
        """None: what is known of the workers' sessions is what the hub was told."""
        return ()

    def close(self, session: int, *, why: str = "administrator", at_once: bool = False) -> bool:
        """See :class:`~pop3toy.interfaces.IServerControl`."""
        return self._to_session("close", session, why, at_once)

    def note(self, session: int, text: str) -> bool:
        """See :class:`~pop3toy.interfaces.IServerControl`."""
        return self._to_session("note", session, text)

    def _to_session(self, what: str, session: int, *more: object) -> bool:
        live = self._hub.is_live(session)
        if live:
            self._send(self.worker_of(session), [what, session, *more])
        return live

    def drain(self) -> Deferred[None]:
        """See :class:`~pop3toy.interfaces.IServerControl`."""
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        if not self.draining:
            self.draining = True
            self._hub.follow(self._look)
            self._to_all("drain")
        self._look()
        return done

    def resume(self) -> None:
        """See :class:`~pop3toy.interfaces.IServerControl`."""
        self.draining = False
        self._to_all("resume")
        self._end_drain()

    def serves(self, worker: int) -> None:
        """A worker was started, and serves."""
        if self.draining:
            self._send(worker, ["drain"])

    def _to_all(self, what: str) -> None:
        for worker in range(self._workers):
            self._send(worker, [what])

    def _look(self) -> None:
        if not self._hub.live:
            self._end_drain()

    def _end_drain(self) -> None:
        self._hub.unfollow(self._look)
        drained, self._drained = self._drained, []
        for done in drained:
            done.callback(None)


def act(control: IServerControl, what: Sequence[Any]) -> None:
    """In a worker: do what :class:`WorkersControl` has sent."""
    match what:
        case ["close", int(session), str(why), bool(at_once)]:
            control.close(session, why=why, at_once=at_once)
        case ["note", int(session), str(text)]:
            control.note(session, text)
        case ["drain"]:
            control.drain()
        case ["resume"]:
            control.resume()
