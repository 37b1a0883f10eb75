"""Log lines as twistd writes them, in much less time.

A login and its end are a line each.  For each line Twisted works out the time of day and its
zone anew and parses the format, which was a good part of a session's CPU time; here both are
kept as long as they are the same.  Lines of one turn are written with one call of the system.
What is written is the same to the octet; all other events go through Twisted's own formatter.

Workers make such lines too, and their supervisor writes them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatTime
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from ...interfaces import Batcher
from ...observe.log_levels import Levels
from ...printable import printable

__all__ = ["FastLines", "LinesInTurn", "from_level", "quiet", "safe_lines"]


class _Out(Protocol):
    """An open text file, Twisted's ``LogFile`` or a ``LineWriter``."""

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


def from_level(line: Callable[[LogEvent], str | None], levels: Levels) -> Callable[[LogEvent], str | None]:
    """Makes lines of these levels alone; the others are not even formatted."""

    def of(event: LogEvent) -> str | None:
        return line(event) if event.get("log_level", LogLevel.info) in levels.shown else None

    return of


def quiet(
    line: Callable[[LogEvent], str | None], starting: Callable[[], bool]
) -> Callable[[LogEvent], str | None]:
    """Makes lines, but none of what others than pop3toy say while it starts, unless they warn."""

    def of(event: LogEvent) -> str | None:
        ours = str(event.get("log_namespace", "")).startswith("pop3toy")
        if not ours and event.get("log_level", LogLevel.info) <= LogLevel.info and starting():
            return None
        return line(event)

    return of
