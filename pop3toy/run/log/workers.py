"""The lines of worker processes, finished when they come: the supervisor writes them as they are."""

from __future__ import annotations

import re
from datetime import datetime

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.python.components import Componentized

from ..process import TwistdOptions
from .choosing import ChosenLog, set_observer
from .lines import LinesInTurn

__all__ = ["WorkersLog"]

log = Logger()

#: The beginning of what one event says in a log; other lines go on with it.
_BEGINNING = re.compile(r"^(?=\d\S* \[)", re.MULTILINE)
_ENTRY = re.compile(r"(\d\S*) \[(.*?)\] (.*)\n", re.DOTALL)
_LEVELS = {level.name: level for level in LogLevel.iterconstants()}


def _event_of(entry: str) -> LogEvent | None:
    """The event of which an entry was made; ``None`` where the entry is cut off at its beginning."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        return None
    when, system, text = found.groups()
    return {
        "log_level": _LEVELS.get(system.rpartition("#")[2], LogLevel.info),
        "log_system": system,
        "log_time": datetime.strptime(when, "%Y-%m-%dT%H:%M:%S%z").timestamp(),
        "log_format": "{text}",
        "text": text.replace("\n\t", "\n"),
    }


class WorkersLog:
    """Where the lines of workers go.

    :param chosen: the log of the supervisor.
    """

    def __init__(self, chosen: ChosenLog) -> None:
        self._chosen = chosen
        self._own: LinesInTurn | None = None

    def set_observer(self, application: Componentized, twistd: TwistdOptions) -> None:
        """As :func:`set_observer`: the observer that takes these lines as they are, if it may be ours."""
        set_observer(application, twistd, self._chosen)
        observer = application.getComponent(ILogObserver, None)
        self._own = observer if isinstance(observer, LinesInTurn) else None

    def publish(self, lines: str) -> None:
        """Write whole lines, or make events of them where the log is no text file (syslog, ``--logger``)."""
        if self._own is not None:
            self._own.put(lines)
            return
        for entry in filter(None, _BEGINNING.split(lines)):
            event = _event_of(entry)
            if event is not None:
                globalLogPublisher(event)
            else:
                log.info("{text}", text=entry.strip())
