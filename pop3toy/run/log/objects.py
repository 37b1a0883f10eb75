"""The log as JSON: an object a line, for programs.

Each has ``time`` (RFC 3339, UTC), ``level`` and ``message``, the text; lines of ``observe.session_log`` have
their ``kind`` and fields besides, those of a failure ``traceback``.  What begins with ``log_`` is for
:func:`twisted.logger.eventsFromJSONLogFile`, which makes events of them again.  Everything is ASCII: nothing
in it steers a terminal.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from ...observe.session_log import fields_of
from ...printable import printable

__all__ = ["as_object"]

#: By these Twisted knows its levels and failures again (``twisted.logger._json``).
_LEVEL: Final = "02E59486-F24D-46AD-8224-3ACDF2A5732A"
_FAILURE: Final = "E76887E2-20ED-49BF-A8F8-BA25CC586F2D"


def as_object(event: LogEvent) -> str | None:
    """An event as a line of JSON, with its end; ``None`` for one that says nothing."""
    message = printable(formatEvent(event), keep="\n\t")
    failure = event.get("log_failure")
    if not message and failure is None:
        return None
    when = event.get("log_time", 0.0)
    level = event.get("log_level") or LogLevel.info
    said: dict[str, Any] = {
        "time": datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds"),
        "level": level.name,
    }
    found = fields_of(event.get("event"))
    if found is not None:
        said |= {"kind": found[0], **found[1]}
    said["message"] = message
    if isinstance(failure, Failure):
        said["traceback"] = printable(failure.getTraceback(), keep="\n\t")
        said["log_failure"] = _of_failure(failure)
    said |= {
        "log_time": when,
        "log_level": {"name": level.name, "__class_uuid__": _LEVEL},
        "log_namespace": str(event.get("log_namespace", "")),
        # What somebody has chosen is never a format.
        "log_format": "{message}",
    }
    return json.dumps(said, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def _of_failure(failure: Failure) -> dict[str, object]:
    """A failure as Twisted reads it, without the values of variables, which may be secrets."""
    kind: Any = failure.type
    frames = [[function, file, line, [], []] for function, file, line, *_ in failure.frames]
    return {
        "type": {"__module__": kind.__module__, "__name__": kind.__name__},
        "value": {"unpersistable": True},
        "parents": list(failure.parents or ()),
        "frames": frames,
        "stack": [],
        "count": failure.count,
        "captureVars": False,
        "tb": None,
        "pickled": 1,
        "__class_uuid__": _FAILURE,
    }
