"""A worker's side: it hears what the supervisor says, and reports.

Nothing here knows what a worker serves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from ...net.types import IReactor
from .talk import Lines, Word, read, write

__all__ = ["Lifeline", "LogToSupervisor", "Pipe"]

#: Seconds that a line for the log may wait for others to go with it: a write for each line, and a turn of the
#: supervisor's reactor, cost more than the line.
MOMENT = 0.05


class Pipe:
    """A way up.

    :param descriptor: of the pipe.  It is waited for when it is full, as for a log file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._writing = threading.Lock()

    def report(self, *report: object) -> None:
        """Report something; harmless when nobody is there to hear it."""
        self.send(write(report))

    def send(self, octets: bytes) -> None:
        """Send octets; as harmless."""
        rest = memoryview(octets)
        with self._writing:
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                # The supervisor is gone, and the lifeline will tell.
                pass


@implementer(ILogObserver)
class LogToSupervisor:
    """Sends lines up: there is one log, and the supervisor writes it.

    What is no warning may wait for a moment, for others to go with it.

    :param line: makes the line of an event, with its end.
    :param reactor: tells when the moment has passed.
    """

    def __init__(self, pipe: Pipe, line: Callable[[LogEvent], str | None], reactor: IReactor) -> None:
        self._pipe = pipe
        self._line = line
        self._reactor = reactor
        self._waiting: list[str] = []
        self._thread = threading.get_ident()

    def __call__(self, event: LogEvent) -> None:
        """See :class:`twisted.logger.ILogObserver`."""
        line = self._line(event)
        if not line:
            return
        self._waiting.append(line)
        at_rest = not self._reactor.running or threading.get_ident() != self._thread
        if at_rest or event.get("log_level", LogLevel.info) > LogLevel.info:
            self.flush()
        elif len(self._waiting) == 1:
            self._reactor.callLater(MOMENT, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        self._pipe.send("".join(waiting).encode("utf-8", "backslashreplace"))


@implementer(IReadDescriptor)
class Lifeline:
    """The way down; its end is the order to stop.

    :param does: what is done at each word, with the value that comes with it.
    :param stop: is called once, at the end.
    """

    def __init__(
        self,
        reactor: IReactor,
        descriptor: int,
        does: Mapping[Word, Callable[[Any], object]],
        stop: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._does = does
        self._stop = stop
        self._lines = Lines()
        self._over = False
        os.set_blocking(descriptor, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """See :class:`twisted.internet.interfaces.IFileDescriptor`."""
        return self._descriptor

    def logPrefix(self) -> str:
        """See :class:`twisted.internet.interfaces.ILoggingContext`."""
        return "lifeline"

    def doRead(self) -> None:
        """See :class:`twisted.internet.interfaces.IReadDescriptor`."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        if not data:
            self._end()
        for line in self._lines.add(data):
            match read(line):
                case [str(word), value] if word in self._does:
                    self._does[Word(word)](value)

    def connectionLost(self, reason: Failure) -> None:
        """See :class:`twisted.internet.interfaces.IFileDescriptor`.

        Called instead of :meth:`doRead`, with some reactors, when there is nothing left but the end.
        """
        self._end()

    def _end(self) -> None:
        self._reactor.removeReader(self)
        if not self._over:
            self._over = True
            self._stop()
