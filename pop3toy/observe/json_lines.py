"""All events as JSON Lines, for programs: one object a line, as ``docs/transcript.schema.json`` says.

Octets become text as UTF-8; one that is no UTF-8 is a lone surrogate (Python's ``surrogateescape``:
``"\\udce4"`` is the octet 0xE4), so that nothing is lost.  ``time`` is the time of day, ``at`` the seconds of
the connection's clock, which is never set and is what durations are taken from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from zope.interface import implementer

from ..events import KINDS, Event
from ..interfaces import Channel, IObserver, TLSFacts
from .line_writer import LineWriter

__all__ = ["JSONLines", "as_json"]


def as_json(event: Event, now: float) -> str:
    """An event as one line of JSON, without a line end; ASCII.

    :param now: the time of day, seconds since the epoch.
    """
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    fields = {name: _plain(value) for name, value in zip(event._fields, event, strict=True)}
    return json.dumps({"event": type(event).__name__, "time": moment, **fields}, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, Channel):
        tls = None if value.tls is None else _plain(value.tls)
        return {"host": value.host, "local": value.local, "tls": tls}
    if isinstance(value, TLSFacts):
        return {"version": value.version, "cipher": value.cipher, "client_name": value.client_name}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def lost(lines: int) -> str:
    """What stands in the file in place of events that could not be written, or not fast enough."""
    return json.dumps({"event": "Lost", "events": lines}, separators=(",", ":"))


@implementer(IObserver)
class JSONLines:
    """Writes all events down.

    :param writer: who does that.
    :param wall: the time of day, seconds since the epoch.
    """

    wants: Collection[type] = KINDS

    def __init__(self, writer: LineWriter, wall: Callable[[], float] = time.time) -> None:
        self._writer = writer
        self._wall = wall

    def observe(self, event: Any) -> None:
        """See :class:`~pop3toy.interfaces.IObserver`."""
        self._writer.write(f"{as_json(event, self._wall())}\n")
