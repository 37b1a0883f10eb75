"""Sessions and events as the JSON of the API (``docs/openapi.json``)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ...interfaces import SessionInfo
from ..json_lines import as_json
from .hub import Record, Session

__all__ = ["event_as_json", "session_as_dict", "when"]


def when(wall: float) -> str:
    """The time of day as ISO 8601 has it, in UTC."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")


def event_as_json(record: Record) -> str:
    """An event with its explanations: an object in one line."""
    more: dict[str, Any] = {"seq": record.seq, "explained": [one._asdict() for one in record.explained]}
    if record.cut:
        more["cut"] = record.cut
    return f"{as_json(record.event, record.wall)[:-1]},{json.dumps(more, separators=(',', ':'))[1:]}"


def session_as_dict(session: Session, now: float, info: SessionInfo | None, *, held: bool) -> dict[str, Any]:
    """A session.

    :param now: the connections' clock.
    :param info: what its connection says, if it is live and in this process.
    """
    tls = session.tls
    told: dict[str, Any] = {
        "id": session.number,
        "protocol": session.protocol,
        "peer": session.peer,
        "host": session.host,
        "user": session.user,
        "mechanism": session.mechanism,
        "tls": None if tls is None else {"version": tls.version, "cipher": tls.cipher},
        "state": session.state,
        "client": session.client,
        "began": when(session.began),
        "seconds": round((session.last if session.ended else now) - session.at, 3),
        "idle": 0.0 if session.ended else round(now - session.last, 3),
        "received": session.received,
        "sent": session.sent,
        "retrieved": session.retrieved,
        "removed": session.removed,
        "ended": session.ended,
        "held": held,
    }
    if info is not None and session.ended is None:
        told |= {
            "state": info.state,
            "seconds": round(info.seconds, 3),
            "idle": round(info.idle, 3),
            "received": info.received,
            "sent": info.sent,
            "retrieved": info.retrieved,
        }
    return told
