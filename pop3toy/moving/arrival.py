"""When a message came, by its header, and how times are made to fit an order that is known better."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime

__all__ = ["arrival", "in_order"]


def arrival(header: bytes) -> int | None:
    """Microseconds since the epoch, by the topmost Received, which the last server wrote; else by Date.

    :param header: with whatever follows it.
    """
    try:
        parsed = BytesHeaderParser().parsebytes(header)
        said = [str(one).rpartition(";")[2] for one in parsed.get_all("Received", ())[:1]]
        said += [str(one) for one in parsed.get_all("Date", ())[:1]]
    except (ValueError, LookupError):
        return None
    for text in said:
        try:
            found = parsedate_to_datetime(text.strip())
            return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)
        except (ValueError, OverflowError, IndexError, TypeError):
            continue
    return None


def in_order(times: Sequence[int | None], now: int) -> list[int]:
    """Times that never go back, as few of them changed as can be.

    Servers list messages in the order in which these came; a header may say anything.  The longest row of
    times that does not go back stays (by patience sorting), and all others get the time of the one before.

    :param times: ``None`` where nothing is known; what is behind now is not known either.
    """
    ends: list[int] = []
    places: list[int] = []
    before: list[int] = [-1] * len(times)
    for at, time in enumerate(times):
        if time is None or not 0 <= time <= now:
            continue
        slot = bisect_right(ends, time)
        before[at] = places[slot - 1] if slot else -1
        ends[slot : slot + 1], places[slot : slot + 1] = [time], [at]
    kept = set()
    at = places[-1] if places else -1
    while at >= 0:
        kept.add(at)
        at = before[at]
    first = next((time for at, time in enumerate(times) if at in kept and time is not None), now)
    found, last = [], first
    for at, time in enumerate(times):
        if at in kept and time is not None:
            last = time
        found.append(last)
    return found
