"""Log lines as twistd writes them, in much less time.

A login and its end are a line each.  For each line Twisted works out the time of day and its
zone anew and parses the format, which was a good part of a session's CPU time; here both are
kept as long as they are the same.  Lines of one turn are written with one call of the system.
What is written is the same to the octet; all other events go through Twisted's own formatter.

Workers make such lines too, and their supervisor writes them as they are.

This is the one file that knows how twistd chooses its log.  Where ``--logger`` names
another one, or the log is no text file, that stays as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatTime,
    globalLogPublisher,
)
from twisted.python.components import Componentized
from twisted.python.runtime import platformType
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from ..interfaces import Batcher
from ..observe.line_writer import LineWriter
from ..printable import printable
from .process import TwistdOptions

__all__ = ["FastLines", "LinesInTurn", "WorkersLog", "safe_lines", "set_observer"]

log = Logger()


class _Out(Protocol):
    """An open text file, Twisted's ``LogFile`` or a :class:`LineWriter`."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class FastLines:
    """Formats events, as a :class:`twisted.logger.FileLogObserver` asks for.

    :param ordinary: formats all events for which there is no short way.
    """

    def __init__(self, ordinary: Callable[[LogEvent], str | None]) -> None:
        self._ordinary = ordinary
        # The last second in which a line was written, and what lines of it begin with.
        self._second: int | None = None
        self._beginning = ""

    def __call__(self, event: LogEvent) -> str | None:
        """The line of an event, with its end."""
        when = event.get("log_time")
        text = event.get("text")
        if (
            event.get("log_format") != "{text}"
            or type(text) is not str
            or not text
            or type(when) is not float
            or "log_failure" in event
            or "log_flattened" in event
        ):
            return self._ordinary(event)
        second = int(when)
        if second != self._second:
            self._beginning = formatTime(when)
            self._second = second
        system = event.get("log_system")
        if system is None:
            level = event.get("log_level")
            if level is None:
                return self._ordinary(event)
            system = f"{event.get('log_namespace', '-')}#{level.name}"
        if "\n" in system:
            return self._ordinary(event)
        if "\n" in text:
            text = text.replace("\n", "\n\t")
        return f"{self._beginning} [{system}] {text}\n"


@implementer(ILogObserver)
class LinesInTurn:
    """Writes to a log file; what comes within one turn is written at its end, in one piece.

    :param line: makes the line of an event, with its end.
    :param batcher: of the reactor; ``None`` writes each line at once.
    """

    def __init__(self, out: _Out, line: Callable[[LogEvent], str | None], batcher: Batcher | None) -> None:
        self._out = out
        self._line = safe_lines(line)
        self._batcher = batcher
        self._gathered: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        """One event."""
        text = self._line(event)
        if not text:
            return
        if self._batcher is None or not isInIOThread():
            # Only the reactor's own thread has turns; what another has to say does not wait.
            self.put(text)
            return
        self._gathered.append(text)
        self._write()

    def _write(self) -> None:
        # Behind what is heard, and then behind the answers to it; the first one writes for all.
        if self._batcher is not None and self._batcher.postpone(self._write):
            return
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self.put("".join(gathered))

    def put(self, text: str) -> None:
        """Write whole lines."""
        try:
            self._out.write(text)
        except UnicodeError:
            # A terminal of another alphabet.  One stranger's name must not hide the others' lines.
            self._out.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        self._out.flush()


def safe_lines(line: Callable[[LogEvent], str | None]) -> Callable[[LogEvent], str | None]:
    """Makes lines in which nothing steers a terminal."""

    def of(event: LogEvent) -> str | None:
        text = line(event)
        if text and not text[:-1].isprintable():
            # Tracebacks have lines.  All else that steers a terminal may be some stranger's doing.
            return printable(text, keep="\n\t")
        return text

    return of


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
    """Where the lines of workers go."""

    def __init__(self) -> None:
        self._own: LinesInTurn | None = None

    def set_observer(self, application: Componentized, twistd: TwistdOptions) -> None:
        """As :func:`set_observer`: the observer that takes these lines as they are, if it may be ours."""
        set_observer(application, twistd)
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


def _quiet(
    line: Callable[[LogEvent], str | None], starting: Callable[[], bool]
) -> Callable[[LogEvent], str | None]:
    """Makes lines, but none of what others than pop3toy say while it starts, unless they warn."""

    def of(event: LogEvent) -> str | None:
        ours = str(event.get("log_namespace", "")).startswith("pop3toy")
        if not ours and event.get("log_level", LogLevel.info) <= LogLevel.info and starting():
            return None
        return line(event)

    return of


def set_observer(
    application: Componentized,
    twistd: TwistdOptions,
    batcher: Batcher | None = None,
    *,
    starting: Callable[[], bool] | None = None,
    terminal: LineWriter | None = None,
) -> None:
    """Give an application the observer that twistd would make for it, with :class:`FastLines`.

    twistd asks an application for one, and makes its own where there is none; ``--logger``
    goes before both.

    :param twistd: the options of twistd itself; empty in another program, which has a log of its own.
    :param batcher: of the reactor, if it has one.
    :param starting: as long as it says so, Twisted's own lines are left out; ``None`` leaves none out.
    :param terminal: writes to standard output.  If the log goes there as well its lines are given
        to it at once, so that each stands between those lines of a conversation where it belongs.
    """
    if not twistd or platformType != "posix" or application.getComponent(ILogObserver, None) is not None:
        return
    # twistd makes it of the same options a moment later, if this is not what it looks like.
    from twisted.scripts._twistd_unix import UnixAppLogger

    if twistd.get("syslog") or twistd.get("logger"):
        return
    made = UnixAppLogger(twistd)._getLogObserver()
    out = getattr(made, "_outFile", None)
    if type(made) is FileLogObserver and out is not None:
        line: Callable[[LogEvent], str | None] = FastLines(made.formatEvent)
        if starting is not None:
            line = _quiet(line, starting)
        if terminal is not None and out is sys.__stdout__:
            out, batcher = terminal, None
        application.setComponent(ILogObserver, LinesInTurn(out, line, batcher))
