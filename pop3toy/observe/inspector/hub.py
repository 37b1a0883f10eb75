"""What happened, kept for whoever looks: live sessions, some that have ended, and the last events of all.

The hub is told in the turn in which something happens, and does the work (explaining, keeping) later, in
turns of its own that are short: connections do not wait for it.  Its memory is bounded in every direction.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...clock import steady
from ...events import (
    KINDS,
    NONE,
    Connected,
    ConnectionRejected,
    Ended,
    Event,
    LineReceived,
    LoggedIn,
    MessageRemoved,
    MessageRetrieved,
    ReplySent,
    TextReceived,
    TLSFailed,
    TLSStarted,
)
from ...interfaces import IObserver, TLSFacts
from ..explain.explanation import Explanation
from .history import History

__all__ = ["Bounds", "Explains", "Hub", "Record", "Session"]

#: Seconds that what happened may wait to be kept, and that a turn of keeping may take.
MOMENT = 0.02
TURN = 0.002
#: About what a record takes besides its octets.
_RECORD = 400


class Explains(Protocol):
    """See :class:`~pop3toy.observe.explain.explainer.Explainer`."""

    def explain(self, event: Any) -> Sequence[Explanation]:
        """What there is to say about an event."""

    def client(self, session: int) -> str | None:
        """Which program it seems to be."""


class Bounds(NamedTuple):
    """How much a hub keeps."""

    #: Sessions that have ended.
    ended: int = 500
    #: Events of one session, and octets of all sessions' events.
    events: int = 2000
    octets: int = 32 * 1024 * 1024
    #: The last events of all sessions, for followers, and their octets.
    last_events: int = 20_000
    last_octets: int = 8 * 1024 * 1024
    #: Octets of one event's line or text.
    line: int = 16 * 1024
    #: Events that are not kept yet.
    waiting: int = 20_000


class Record(NamedTuple):
    """An event that is kept."""

    #: Grows by one from event to event, over all sessions.
    seq: int
    event: Event
    #: The time of day, seconds since the epoch.
    wall: float
    explained: Sequence[Explanation]
    #: Octets of its line or text that were left out here.
    cut: int
    #: About what it takes in memory.
    octets: int


@dataclass(slots=True)
class Session:
    """What is known of one connection from its events."""

    number: int
    protocol: str
    #: The time of day, and the connection's clock.
    began: float
    at: float
    last: float
    peer: str = ""
    host: str = ""
    user: str | None = None
    mechanism: str | None = None
    tls: TLSFacts | None = None
    state: str = ""
    client: str | None = None
    received: int = 0
    sent: int = 0
    retrieved: int = 0
    removed: int = 0
    #: Why it has ended; ``None`` while it is live.
    ended: str | None = None
    records: deque[Record] = field(default_factory=deque)
    #: Of its records; how many of them were dropped.
    octets: int = 0
    dropped: int = 0


@implementer(IObserver)
class Hub:
    """Keeps sessions and their events, and tells followers that there is something new.

    :param clock: when it works.
    :param explainer: says what there is to say.
    :param wall: the time of day, seconds since the epoch.
    """

    wants: Collection[type] = KINDS

    def __init__(
        self,
        clock: IReactorTime,
        explainer: Explains,
        wall: Callable[[], float] = time.time,
        bounds: Bounds = Bounds(),  # noqa: B008
    ) -> None:
        self.clock = steady(clock)
        self.bounds = bounds
        #: How many connections there were, and the number of the last event.
        self.total = 0
        self.seq = 0
        self._history = History()
        self._explainer = explainer
        self._wall = wall
        self._live: dict[int, Session] = {}
        self._ended: OrderedDict[int, Session] = OrderedDict()
        self._octets = 0
        # The last events of all; the first of them has the number seq - len + 1.
        self._last: list[Record] = []
        self._last_octets = 0
        self._waiting: deque[tuple[Event, float]] = deque()
        self._overflowed: dict[int, int] = {}
        self._scheduled = False
        #: Is told the numbers of sessions that have ended.
        self.when_ended: Callable[[int], object] = lambda number: None
        self._followers: dict[Callable[[], object], None] = {}

    # -- in ------------------------------------------------------------------------------

    def observe(self, event: Any) -> None:
        """See :class:`~pop3toy.interfaces.IObserver`."""
        self.take(event, self._wall())

    def take(self, event: Event, wall: float) -> None:
        """An event of this process or of another one.

        :param wall: the time of day at which it happened.
        """
        if isinstance(event, Ended):
            self.when_ended(event.session)
        waiting = self._waiting
        if len(waiting) >= self.bounds.waiting and isinstance(event, LineReceived | ReplySent | TextReceived):
            # There is more than can be kept in time; what changes a session is kept all the same.
            self._overflowed[event.session] = self._overflowed.get(event.session, 0) + 1
            return
        waiting.append((event, wall))
        if not self._scheduled:
            self._scheduled = True
            self.clock.callLater(MOMENT, self._work)

    def _work(self) -> None:
        self._scheduled = False
        until = self.clock.seconds() + TURN
        while self._waiting:
            for _ in range(min(10, len(self._waiting))):
                self._keep(*self._waiting.popleft())
            if self._waiting and self.clock.seconds() >= until:
                self._scheduled = True
                # The connections have their turn; then there is more to keep.
                self.clock.callLater(TURN, self._work)
                break
        self._tell()

    def flush(self) -> None:
        """Keep what waits, for somebody who asks now; what would take long is left for later."""
        if self._waiting:
            until = self.clock.seconds() + 5 * TURN
            while self._waiting and self.clock.seconds() <= until:
                self._keep(*self._waiting.popleft())
            self._tell()

    def _tell(self) -> None:
        for wake in list(self._followers):
            wake()

    def _keep(self, event: Event, wall: float) -> None:
        session = self._session_of(event, wall) if event.session != NONE else None
        if session is not None and isinstance(event, LineReceived | Ended):
            # Behind the end the explainer does not know it any more.
            session.client = self._explainer.client(event.session) or session.client
        explained = self._explainer.explain(event)
        if session is not None:
            self._update(session, event)
        self._history.count(event, wall, len(self._live))
        data = _data(event)
        cut = max(len(data) - self.bounds.line, 0)
        if cut and isinstance(event, ReplySent | TextReceived):
            event = event._replace(data=data[: self.bounds.line])
        elif cut and isinstance(event, LineReceived):
            event = event._replace(line=data[: self.bounds.line])
        self.seq += 1
        octets = _RECORD + len(data) - cut + sum([len(one.text) for one in explained])
        record = Record(self.seq, event, wall, explained, cut, octets)
        if session is not None:
            self._append(session, record)
        self._last.append(record)
        self._last_octets += record.octets
        if len(self._last) > self.bounds.last_events or self._last_octets > self.bounds.last_octets:
            # Many at once: taking the first away one by one moves all others each time.
            gone = max(len(self._last) // 8, 1)
            self._last_octets -= sum(one.octets for one in self._last[:gone])
            del self._last[:gone]

    def _session_of(self, event: Event, wall: float) -> Session:
        number = event.session
        session = self._live.get(number) or self._ended.get(number)
        if session is None:
            session = Session(number, getattr(event, "protocol", ""), wall, event.at, event.at)
            self._live[number] = session
            self.total += 1
        return session

    def _update(self, session: Session, event: Event) -> None:
        session.last = event.at
        match event:
            case Connected() | ConnectionRejected() | TLSFailed():
                session.host = event.channel.host
                session.tls = event.channel.tls or session.tls
                if isinstance(event, Connected):
                    session.peer = event.peer
                else:
                    session.state = "ended"
            case LineReceived():
                session.received += event.octets
                session.state = event.state
            case TextReceived():
                session.received += event.octets
            case ReplySent():
                session.sent += event.octets if event.handed_over else 0
            case TLSStarted():
                session.tls = event.tls
            case LoggedIn():
                session.user, session.mechanism = event.user, event.mechanism
                session.tls = event.channel.tls or session.tls
                if event.protocol == "POP3":
                    session.state = "TRANSACTION"
            case MessageRetrieved():
                session.retrieved += 1
            case MessageRemoved():
                session.removed += 1
            case Ended():
                session.user, session.mechanism = event.user, event.mechanism
                session.received, session.sent = event.received, event.sent
                session.retrieved, session.removed = event.retrieved, event.removed
                session.tls = event.channel.tls or session.tls
                self._end(session, event.why)

    def _end(self, session: Session, why: str) -> None:
        session.ended, session.state = why, "ended"
        if self._live.pop(session.number, None) is not None:
            self._ended[session.number] = session
        while len(self._ended) > self.bounds.ended:
            self._forget(self._ended.popitem(last=False)[1])

    def end(self, gone: Callable[[int], bool], why: str) -> None:
        """Sessions have ended of which nothing more will be told: their process is gone.

        :param gone: says which, by their numbers.
        """
        self.flush()
        for session in list(self._live.values()):
            if gone(session.number):
                self._end(session, why)

    def _append(self, session: Session, record: Record) -> None:
        session.dropped += self._overflowed.pop(session.number, 0)
        session.records.append(record)
        session.octets += record.octets
        self._octets += record.octets
        if len(session.records) > self.bounds.events:
            self._drop(session)
        while self._octets > self.bounds.octets and self._ended:
            self._forget(self._ended.popitem(last=False)[1])
        while self._octets > self.bounds.octets and len(session.records) > 1:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        octets = session.records.popleft().octets
        session.octets -= octets
        self._octets -= octets
        session.dropped += 1

    def _forget(self, session: Session) -> None:
        self._octets -= session.octets
        # An event that comes late finds nobody.
        session.records.clear()
        session.octets = 0

    # -- out -----------------------------------------------------------------------------

    def sessions(self) -> Iterator[Session]:
        """All that are known, those that have ended first, oldest first."""
        self.flush()
        yield from list(self._ended.values())
        yield from list(self._live.values())

    def session(self, number: int) -> Session | None:
        """One of them."""
        self.flush()
        return self._live.get(number) or self._ended.get(number)

    @property
    def live(self) -> int:
        """How many connections there are."""
        return len(self._live)

    def is_live(self, number: int) -> bool:
        """Whether there is such a connection now."""
        self.flush()
        return number in self._live

    def minutes(self) -> list[dict[str, object]]:
        """The last hour, see :meth:`~pop3toy.observe.inspector.history.History.as_list`."""
        self.flush()
        return self._history.as_list(self._wall(), len(self._live))

    def holder(self, user: str) -> int | None:
        """The session that has a user's mailbox open."""
        self.flush()
        for session in self._live.values():
            if session.user == user and session.protocol == "POP3":
                return session.number
        return None

    def follow(self, wake: Callable[[], object]) -> None:
        """Be called when there is something new."""
        self._followers[wake] = None

    def unfollow(self, wake: Callable[[], object]) -> None:
        """No more."""
        self._followers.pop(wake, None)

    @property
    def followers(self) -> int:
        """How many there are."""
        return len(self._followers)

    def behind(self, seq: int) -> tuple[int, Sequence[Record]]:
        """What was kept behind an event: how many are missing first, and up to a thousand that are there.

        :param seq: the number of the last event that is known.
        """
        first = self.seq - len(self._last) + 1
        missed = max(first - seq - 1, 0)
        at = max(seq + 1 - first, 0)
        return missed, self._last[at : at + 1000]


def _data(event: Event) -> bytes:
    """What of an event may be long."""
    if isinstance(event, ReplySent | TextReceived):
        return event.data
    return event.line if isinstance(event, LineReceived) else b""
