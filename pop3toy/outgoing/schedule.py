"""When a message is tried, when it is given up, and what its sender is told.  Pure: values and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple

from .entry import Entry, Outcome, Recipient, Status

__all__ = ["Due", "Notice", "is_finished", "notices_due", "record_of_attempt", "wait_after"]

#: Seconds between two attempts; the last one again and again.  RFC 5321 section 4.5.4.1 asks for 30 minutes
#: at least in general, and for sooner tries at the beginning.
WAITS: Final = (300, 600, 1200, 1800, 3600, 7200, 14400)

#: Seconds after which it is given up: RFC 5321 section 4.5.4.1, "at least 4-5 days".
GIVE_UP: Final = 5 * 86400

#: Seconds after which its sender is warned, once.
WARN: Final = 4 * 3600


class Notice(Enum):
    """What a delivery status notification is about: RFC 3464 section 2.3.3, the action."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    DELIVERED = "delivered"


class Due(NamedTuple):
    """A notice that is to be made, and the places of the recipients that it is about."""

    notice: Notice
    numbers: tuple[int, ...]

    @property
    def record(self) -> dict[str, object]:
        """What is written down when it was delivered."""
        return {"warned" if self.notice is Notice.DELAYED else "told": list(self.numbers)}


def wait_after(attempts: int) -> int:
    """Seconds to wait after so many attempts, at least one."""
    return WAITS[min(attempts, len(WAITS)) - 1]


def record_of_attempt(
    entry: Entry, outcomes: Mapping[int, Outcome], now: float, why: str
) -> dict[str, object]:
    """What is written down after an attempt.

    A recipient that is waiting when the time is up has failed (RFC 3463: 4.4.7).

    :param outcomes: by the recipients' places; of some nothing may be known.
    :param now: seconds since the epoch.
    :param why: why it was not handed on to all, in a line.
    """
    end = entry.came + GIVE_UP
    # Without an answer of its own a recipient waits for the reason that all have.
    waiting = entry.numbers(Status.WAITING)
    said = {**dict.fromkeys(waiting, Outcome(Status.WAITING, "4.4.1", why, remote=False)), **outcomes}
    if now >= end:
        for number in waiting:
            if (last := said[number]).status is Status.WAITING:
                said[number] = Outcome(Status.FAILED, "4.4.7", last.text, last.remote)
    return {
        "tried": now,
        "next": min(now + wait_after(entry.attempts + 1), max(end, now + WAITS[0])),
        "why": why,
        "outcomes": {
            str(number): [one.status.value, one.enhanced, one.text, one.remote]
            for number, one in said.items()
        },
    }


#: How it ended, the notice, and the word of NOTIFY that asks for it (RFC 3461 section 4.1).
_ENDINGS: Final = (
    (Status.FAILED, Notice.FAILED, "FAILURE"),
    (Status.RELAYED, Notice.RELAYED, "SUCCESS"),
    (Status.DELIVERED, Notice.DELIVERED, "SUCCESS"),
)


def notices_due(entry: Entry, now: float) -> Iterator[Due]:
    """What the sender is to be told now.  What has no sender is never answered (RFC 5321 section 4.5.5)."""
    for status, notice, word in _ENDINGS:
        numbers = [
            number for number in entry.numbers(status) if _untold(entry, entry.recipients[number], word)
        ]
        if numbers:
            yield Due(notice, tuple(numbers))
    if now >= entry.came + WARN:
        late = [
            number
            for number in entry.numbers(Status.WAITING)
            if entry.sender
            and not entry.recipients[number].warned
            and entry.recipients[number].wants("DELAY")
        ]
        if late:
            yield Due(Notice.DELAYED, tuple(late))


def _untold(entry: Entry, one: Recipient, word: str) -> bool:
    return bool(entry.sender) and not one.told and one.wants(word)


def is_finished(entry: Entry, now: float) -> bool:
    """Whether nothing is left to do."""
    return not entry.numbers(Status.WAITING) and not any(notices_due(entry, now))
