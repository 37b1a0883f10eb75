"""Keeps workers running: starts them, starts them again, passes on what one says to another, ends them.

It does not know what they do.  A worker is a process with pipes (``talk``) and
the sockets that it inherits.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from .talk import COUNTS, REPORTS, SOCKETS, Brief, Lines, Report, Word, read, write

__all__ = ["Launch", "Supervisor", "pause_before"]

log = Logger()

#: Seconds between two starts of a worker that dies and dies, at the most.
LONGEST_PAUSE = 60.0
#: Seconds that a worker has to serve for its death to be called the first again.
STEADY = 60.0
_WORDS = {word.value for word in Word}


def pause_before(start: int, *, served: bool) -> float:
    """Seconds to wait before a worker is started again.

    :param start: how often it has died before in a row.
    :param served: whether it came to serve at all; what went wrong at once
        will go wrong at once again.
    """
    if start == 0 and served:
        return 0.0
    return min(2.0 ** min(start - (1 if served else 0), 10), LONGEST_PAUSE)


@dataclass(frozen=True)
class Launch:
    """How a worker is started."""

    #: The command line; its first word is the program.
    command: Sequence[str]
    environment: Mapping[str, str]
    #: For the worker of this number.
    brief: Callable[[int], Brief]
    #: The listening sockets, and the memory that all share.
    sockets: Callable[[], Sequence[int]]
    counts: int


class Supervisor(Service):
    """Runs a number of workers as long as it runs itself.

    :param reactor: starts processes and tells the time.
    :param grace: seconds that they may take to stop before they are killed.
    :param ended: is told the number of a worker that is dead, before another is started.
    :param publish: takes log events.
    :param hopeless: is told why, if not one worker has ever come to serve.
    """

    def __init__(
        self,
        reactor: Any,
        launch: Launch,
        workers: int,
        *,
        grace: float,
        ended: Callable[[int], None],
        publish: Callable[[dict[str, Any]], None],
        hopeless: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._launch = launch
        self._ended = ended
        self._publish = publish
        self._hopeless = hopeless
        self._grace = grace
        self._running: dict[int, _Worker] = {}
        self._pauses: dict[int, IDelayedCall] = {}
        self._deaths = dict.fromkeys(range(workers), 0)
        self._anyone_served = False
        self._stopped: Deferred[None] | None = None

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs."""
        super().startService()
        # Only then the reactor hears of processes that end.
        self._reactor.callWhenRunning(self._start_all)

    def stopService(self) -> Deferred[None]:
        """Let the workers end; kills those that take too long.

        :return: fires when the last is gone.
        """
        super().stopService()
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        if not self._running:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        for worker in list(self._running.values()):
            worker.stop()
        killing = self._reactor.callLater(self._grace, self._kill)

        def all_gone(_: None) -> None:
            if killing.active():
                killing.cancel()

        return stopped.addCallback(all_gone)

    def reload(self) -> None:
        """Tell all workers to read their files again."""
        for worker in self._running.values():
            worker.tell(Word.RELOAD)

    def reload_if_changed(self) -> None:
        """Nothing: workers look for themselves."""

    def _start_all(self) -> None:
        if self.running:
            for number in self._deaths:
                self._start(number)

    def _start(self, number: int) -> None:
        self._pauses.pop(number, None)
        self._running[number] = worker = _Worker(self, number, self._reactor, self._launch, self._publish)
        try:
            worker.start()
        except OSError as error:
            self._gone(worker, f"cannot be started: {(error.strerror or str(error)).lower()}")

    def _kill(self) -> None:
        for worker in self._running.values():
            log.error("worker {number} does not end and is killed", number=worker.number + 1)
            worker.kill()

    # -- what workers tell -----------------------------------------------------------------

    def _serves(self, worker: _Worker) -> None:
        self._anyone_served = True
        log.info("worker {number} serves (process {pid})", number=worker.number + 1, pid=worker.pid)

    def _pass_on(self, number: int, word: Word) -> None:
        if number in self._running:
            self._running[number].tell(word)

    def _gone(self, worker: _Worker, how: str) -> None:
        number = worker.number
        del self._running[number]
        self._ended(number)
        if not self.running:
            if not self._running and self._stopped is not None:
                stopped, self._stopped = self._stopped, None
                stopped.callback(None)
            return
        seconds = worker.served()
        if seconds >= STEADY:
            self._deaths[number] = 0
        pause = pause_before(self._deaths[number], served=seconds > 0)
        self._deaths[number] += 1
        again = f"in {pause:.0f} s" if pause else "now"
        log.error(
            "worker {number} {how}; it is started again {again}", number=number + 1, how=how, again=again
        )
        self._pauses[number] = self._reactor.callLater(pause, self._start, number)
        if not self._anyone_served and all(self._deaths.values()):
            for call in self._pauses.values():
                call.cancel()
            self._pauses.clear()
            self._anyone_served = True
            self._hopeless(worker.refusal or f"worker {number + 1} {how}")


class _Worker(ProcessProtocol):
    """One process."""

    def __init__(
        self,
        supervisor: Supervisor,
        number: int,
        reactor: Any,
        launch: Launch,
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self.number = number
        #: The line that it ended with, if it could not serve.
        self.refusal: str | None = None
        self._supervisor = supervisor
        self._reactor = reactor
        self._launch = launch
        self._publish = publish
        self._served_since: float | None = None
        self._reports, self._words = Lines(), Lines()
        self._stopping = False

    def start(self) -> None:
        """Start it.

        :raises OSError: if the system cannot.
        """
        launch = self._launch
        # Standard output is the supervisor's own: a transcript writes whole lines there.
        descriptors: dict[int, int | str] = {0: "w", 1: 1, 2: "r", REPORTS: "r", COUNTS: launch.counts}
        descriptors |= dict(enumerate(launch.sockets(), SOCKETS))
        self._reactor.spawnProcess(
            self, launch.command[0], launch.command, env=dict(launch.environment), childFDs=descriptors
        )

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self.transport.pid if self.transport is not None else None

    def served(self) -> float:
        """Seconds since it serves; 0 if it does not."""
        if self._served_since is None:
            return 0.0
        return float(max(self._reactor.seconds() - self._served_since, 0.001))

    def connectionMade(self) -> None:
        """It runs; tell it what to do."""
        assert self.transport is not None
        self.transport.write(self._launch.brief(self.number).line())
        if self._stopping:
            self.transport.closeStdin()

    def tell(self, word: Word) -> None:
        """Say something to it."""
        if self.transport is not None and not self._stopping:
            self.transport.write(write(word))

    def stop(self) -> None:
        """Let it end in good order."""
        self._stopping = True
        if self.transport is not None:
            self.transport.closeStdin()

    def kill(self) -> None:
        """End it at once."""
        if self.pid is not None:
            self.transport.signalProcess("KILL")  # type: ignore[union-attr]

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """A report, or words on its standard error."""
        if childFD == REPORTS:
            for line in self._reports.add(data):
                self._report(line)
        else:
            for line in self._words.add(data):
                self._complain(line)

    def _report(self, line: bytes) -> None:
        match read(line):
            case [Report.LOG, str(level), str(system), float(seconds), str(text)]:
                self._publish(
                    {
                        "log_level": LogLevel.levelWithName(level),
                        "log_system": system,
                        "log_time": seconds,
                        "log_format": "{text}",
                        "text": text,
                    }
                )
            case [Report.READY]:
                self._served_since = self._reactor.seconds()
                self._supervisor._serves(self)
            case [Report.REFUSED, str(why)]:
                self.refusal = why
            case [Report.TELL, int(other), str(word)] if word in _WORDS:
                self._supervisor._pass_on(other, Word(word))
            case _:
                self._complain(line)

    def _complain(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        log.error("worker {number} says: {text}", number=self.number + 1, text=text)

    def processEnded(self, reason: Failure) -> None:
        """It is gone."""
        self._words.rest(self._complain)
        self._supervisor._gone(self, _how(reason, self.refusal))


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
