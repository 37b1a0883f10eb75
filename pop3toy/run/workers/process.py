"""One worker as its supervisor has it: a process with pipes (``talk``) and the sockets that it inherits.

It is started, talked to and heard here; when that happens is the supervisor's business.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clock import steady
from ...net.types import IReactor
from .talk import LOG, REPORTS, SOCKETS, Brief, Lines, Report, Word, read, write

__all__ = ["Launch", "Told", "WorkerProcess"]

log = Logger()


@dataclass(frozen=True)
class Launch:
    """How a worker is started."""

    #: The command line; its first word is the program.
    command: Sequence[str]
    environment: Mapping[str, str]
    #: For the worker of this number.
    brief: Callable[[int], Brief]
    #: The listening sockets.
    sockets: Callable[[], Sequence[int]]


class Told(Protocol):
    """Who is told what becomes of a worker."""

    def serves(self, worker: WorkerProcess) -> None:
        """It serves now."""

    def pass_on(self, worker: WorkerProcess, events: list[Any]) -> None:
        """It tells the others something."""

    def gone(self, worker: WorkerProcess, how: str) -> None:
        """It is dead."""


class WorkerProcess(ProcessProtocol):
    """One process.

    :param told: is told what becomes of it.
    :param reactor: starts it and tells the time.
    :param publish: takes its lines for the log, whole ones.
    """

    #: Twisted's, from :meth:`start` on.
    transport: Any

    def __init__(
        self,
        told: Told,
        number: int,
        reactor: IReactor,
        launch: Launch,
        publish: Callable[[str], None],
    ) -> None:
        self.number = number
        #: The line that it ended with, if it could not serve.
        self.refusal: str | None = None
        self._told = told
        self._reactor = reactor
        self._clock: IReactorTime = steady(reactor)
        self._launch = launch
        self._publish = publish
        self._served_since: float | None = None
        self._reports, self._words, self._log = Lines(), Lines(), Lines()
        self._stopping = False

    def start(self) -> None:
        """Start it.

        :raises OSError: if the system cannot.
        """
        launch = self._launch
        # Standard output is the supervisor's own: a transcript writes whole lines there.
        descriptors: dict[int, int | str] = {0: "w", 1: 1, 2: "r", REPORTS: "r", LOG: "r"}
        descriptors |= dict(enumerate(launch.sockets(), SOCKETS))
        self._reactor.spawnProcess(
            self, launch.command[0], launch.command, env=dict(launch.environment), childFDs=descriptors
        )

    @property
    def pid(self) -> int | None:
        """The process id; ``None`` when it is dead."""
        pid: int | None = self.transport.pid
        return pid

    def served(self) -> float:
        """Seconds since it serves; 0 if it does not."""
        if self._served_since is None:
            return 0.0
        return float(max(self._clock.seconds() - self._served_since, 0.001))

    def connectionMade(self) -> None:
        """It runs; tell it what to do."""
        self.transport.write(self._launch.brief(self.number).octets())

    def tell(self, word: Word, value: object) -> None:
        """Say something to it."""
        if not self._stopping:
            self.transport.write(write([word, value]))

    def stop(self) -> None:
        """Let it end in good order."""
        self._stopping = True
        self.transport.closeStdin()

    def kill(self) -> None:
        """End it at once."""
        if self.pid is not None:
            self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """A report, lines for the log, or words on its standard error."""
        if childFD == LOG:
            if lines := self._log.whole(data):
                self._publish(lines.decode("utf-8", "backslashreplace"))
        elif childFD == REPORTS:
            for line in self._reports.add(data):
                self._report(line)
        else:
            for line in self._words.add(data):
                self._complain(line)

    def _report(self, line: bytes) -> None:
        match read(line):
            case [Report.READY]:
                self._served_since = self._clock.seconds()
                self._told.serves(self)
            case [Report.REFUSED, str(why)]:
                self.refusal = why
            case [Report.TELL, list(events)]:
                self._told.pass_on(self, events)
            case _:
                self._complain(line)

    def _complain(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        log.error("worker {number} says: {text}", number=self.number + 1, text=text)

    def processEnded(self, reason: Failure) -> None:
        """It is gone."""
        self._words.rest(self._complain)
        self._told.gone(self, _how(reason, self.refusal))


def _how(reason: Failure, refusal: str | None) -> str:
    if refusal is not None:
        return f"cannot serve: {refusal}"
    if reason.check(ProcessDone) is not None:
        return "ended with status 0"
    ended: Any = reason.value
    if ended.signal is not None:
        return f"was ended by signal {ended.signal} ({_signal_name(ended.signal)})"
    return f"ended with status {ended.exitCode}"


def _signal_name(number: int) -> str:
    known = {one.value: one.name for one in signal.Signals}
    return known.get(number, "unknown")
