"""A worker's side of the pipes: it hears what the supervisor says, and reports.

Nothing here knows what a worker serves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from ...net.types import IReactor
from .pipes import LineBuffer, read, write

__all__ = ["ControlPipe", "LogToSupervisor", "ReportPipe"]

#: Seconds that a line for the log may wait for others to go with it: a write for each line, and a turn of the
#: supervisor's reactor, cost more than the line.
MOMENT = 0.05


class ReportPipe:
    """A pipe to the supervisor.

    :param descriptor: of the pipe.  Where it is full the worker waits, as for a log file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._writing = threading.Lock()

    def report(self, *report: object) -> None:
        """Report something; harmless when the supervisor is gone."""
        self.send(write(report))

    def send(self, octets: bytes) -> None:
        """Send octets; as harmless."""
        rest = memoryview(octets)
        with self._writing:
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                # The supervisor is gone: the control pipe has ended, too, and stops the worker.
                pass


@implementer(ILogObserver)
class LogToSupervisor:
    """Sends lines up: there is one log, and the supervisor writes it.

    What is no warning may wait for a moment, for others to go with it.

    :param line: makes the line of an event, with its end.
    :param reactor: tells when the moment has passed.
    """

    def __init__(self, pipe: ReportPipe, line: Callable[[LogEvent], str | None], reactor: IReactor) -> None:
        self._pipe = pipe
        self._line = line
        self._reactor = reactor
        self._waiting: list[str] = []
        self._thread = threading.get_ident()

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
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
class ControlPipe:
    """What the supervisor commands; the end of the pipe is the order to stop.

    :param handle: is called with each line's JSON value, which is a list of a command and its value.
    :param stop: is called once, at the end.
    """

    def __init__(
        self,
        reactor: IReactor,
        descriptor: int,
        handle: Callable[[object], object],
        stop: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._handle = handle
        self._stop = stop
        self._lines = LineBuffer()
        self._over = False
        os.set_blocking(descriptor, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._descriptor

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "control pipe"

    def doRead(self) -> None:
        """See ``IReadDescriptor``."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        for line in self._lines.add(data):
            self._handle(read(line))
        if not data:
            self._end()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``; some reactors call it in place of :meth:`doRead` at the end."""
        self._end()

    def _end(self) -> None:
        self._reactor.removeReader(self)
        if not self._over:
            self._over = True
            self._stop()
