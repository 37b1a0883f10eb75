"""What is printed of a message of the queue: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate

from ...outgoing.entry import Entry, Status
from ..options import printable

__all__ = ["as_json", "in_a_line", "in_full"]


def as_json(entry: Entry) -> dict[str, object]:
    """A message as ``--json`` has it; times are seconds since the epoch."""
    return {
        "id": entry.queue_id,
        "user": entry.user,
        "sender": entry.sender,
        "octets": entry.octets,
        "came": entry.came,
        "attempts": entry.attempts,
        "last_attempt": entry.last or None,
        "next_attempt": entry.next,
        "reason": entry.why,
        "recipients": [
            {"address": one.address, "status": one.status.value, "code": one.enhanced, "reason": one.text}
            for one in entry.recipients
        ],
    }


def in_a_line(entry: Entry, now: float) -> str:
    """A message in a line, and why it waits in another."""
    waiting = entry.numbers(Status.WAITING)
    to = ", ".join(entry.recipients[number].address for number in waiting[:3])
    more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    sender = entry.sender or "<>"
    line = printable(
        f"{entry.queue_id}  {_duration(now - entry.came):>7}  {entry.octets:>10}  {sender} -> {to}{more}"
    )
    wait = entry.next - now
    then = f"next try in {_duration(wait)}" if wait > 0 else "next try now"
    tried = (
        f"{entry.attempts} {'try' if entry.attempts == 1 else 'tries'}, {then}" if entry.attempts else then
    )
    return f"{line}\n    {tried}{printable(f': {entry.why}') if entry.why else ''}"


def in_full(entry: Entry) -> Iterator[str]:
    """All that is known of a message, line by line."""
    yield f"id: {entry.queue_id}"
    yield printable(f"user: {entry.user}")
    yield printable(f"sender: <{entry.sender}>")
    yield f"octets: {entry.octets}"
    yield f"came: {formatdate(entry.came, localtime=True)}"
    yield f"attempts: {entry.attempts}"
    if entry.last:
        yield f"last attempt: {formatdate(entry.last, localtime=True)}"
    yield f"next attempt: {formatdate(entry.next, localtime=True)}"
    if entry.why:
        yield printable(f"reason: {entry.why}")
    for one in entry.recipients:
        yield printable(f"to: <{one.address}> {one.status.value}{f': {one.text}' if one.text else ''}")


def _duration(seconds: float) -> str:
    """As short as ``3h20m``."""
    minutes = max(int(seconds) // 60, 0)
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    return f"{minutes // 1440}d{minutes // 60 % 24:02}h"
