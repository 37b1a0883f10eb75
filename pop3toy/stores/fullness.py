"""When a mailbox is nearly full, and how often its owner is told: the same for all kinds of store."""

from __future__ import annotations

from typing import Final

__all__ = ["AGAIN", "is_nearly_full", "is_time"]

#: Percent of a quota from which on a mailbox is nearly full.
_NEARLY: Final = 90
#: Seconds between two warnings: a week.
AGAIN: Final = 7 * 86400.0


def is_nearly_full(octets: int, quota: int) -> bool:
    """Whether so many octets fill a mailbox with this quota nearly."""
    return quota > 0 and octets * 100 >= quota * _NEARLY


def is_time(told: bytes | None, now: float) -> bool:
    """Whether the owner is to be told.

    :param told: what was written down when that was done last; see :data:`AGAIN`.
    :param now: the time of day, in seconds.
    """
    try:
        # A time in the future is a clock's mistake.
        return told is None or not 0 <= now - int(told) < AGAIN
    except ValueError:
        return True
