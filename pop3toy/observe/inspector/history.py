"""The last hour, minute by minute, for charts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...events import Connected, Ended, LineReceived, LoggedIn, LoginFailed, ReplySent, TextReceived

__all__ = ["History"]

#: How many minutes are kept.
MINUTES = 60
#: Sessions whose answer is waited for; of more, the oldest is not measured.
_WAITING = 10_000


@dataclass(slots=True)
class _Minute:
    """What happened in one minute."""

    #: Its start, in minutes since the epoch.
    number: int
    #: Sessions that began, and the most that were live at once.
    sessions: int = 0
    live: int = 0
    logins: int = 0
    failed: int = 0
    received: int = 0
    sent: int = 0
    #: Replies, the seconds from the last line before to the reply's end in all, and the longest.
    answers: int = 0
    seconds: float = 0.0
    longest: float = 0.0


class History:
    """Counts events by the minute in which they happened, for an hour."""

    def __init__(self) -> None:
        self._minutes: deque[_Minute] = deque(maxlen=MINUTES)
        # When each session's last line came, while its answer is waited for.
        self._asked: dict[int, float] = {}

    def count(self, event: Any, wall: float, live: int) -> None:
        """An event.

        :param event: of :data:`~pop3toy.events.KINDS`, in their order.
        :param wall: the time of day at which it happened.
        :param live: how many sessions there are with it.
        """
        minute = self._minute(wall, live)
        match event:
            case LineReceived():
                minute.received += event.octets
                self._ask(event.session, event.at)
            case ReplySent():
                if event.handed_over:
                    minute.sent += event.octets
                if event.last and (asked := self._asked.pop(event.session, None)) is not None:
                    seconds = max(event.at - asked, 0.0)
                    minute.answers += 1
                    minute.seconds += seconds
                    minute.longest = max(minute.longest, seconds)
            case TextReceived():
                minute.received += event.octets
                if event.last:
                    self._ask(event.session, event.at)
            case Connected():
                minute.sessions += 1
            case LoggedIn():
                minute.logins += 1
            case LoginFailed():
                minute.failed += 1
            case Ended():
                self._asked.pop(event.session, None)

    def _ask(self, session: int, at: float) -> None:
        self._asked[session] = at
        if len(self._asked) > _WAITING:
            del self._asked[next(iter(self._asked))]

    def _minute(self, wall: float, live: int) -> _Minute:
        number = int(wall // 60)
        last = self._minutes[-1] if self._minutes else None
        # The time of day may be set back: what happens then is of the minute before.
        if last is not None and number <= last.number:
            last.live = max(last.live, live)
            return last
        # Minutes in which nothing happened are minutes, too.
        first = number if last is None else max(last.number + 1, number - MINUTES + 1)
        for one in range(first, number + 1):
            self._minutes.append(_Minute(one, live=live))
        return self._minutes[-1]

    def as_list(self, wall: float, live: int) -> list[dict[str, object]]:
        """The minutes, the oldest first; the last is the one that is going on.

        :param wall: the time of day now.
        :param live: how many sessions there are.
        """
        self._minute(wall, live)
        return [
            {
                "time": datetime.fromtimestamp(one.number * 60, UTC).isoformat(timespec="milliseconds"),
                "sessions": one.sessions,
                "live": one.live,
                "logins": one.logins,
                "failed": one.failed,
                "received": one.received,
                "sent": one.sent,
                "answers": one.answers,
                "answer_mean": one.seconds / one.answers if one.answers else None,
                "answer_max": one.longest if one.answers else None,
            }
            for one in self._minutes
        ]
