"""The supervisor: starts worker processes, starts them again, passes on what one tells the others, ends them.

What they serve is not known here.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IConsumer, IDelayedCall, IProcessTransport, IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...clock import steady
from ...net.types import IReactor
from .pipes import LOG, REPORTS, SOCKETS, Command, LineBuffer, Report, WorkerConfig, read, write

__all__ = ["SpawnSpec", "Supervisor", "pause_before"]

log = Logger()

#: Seconds between two starts of a worker that dies again and again, at the most.
LONGEST_PAUSE = 60.0
#: Seconds that a worker has to serve for its death to be called the first again.
STEADY = 60.0
#: Seconds without a worker that serves after which clients are turned away: a
#: worker that died is back in one or two, and a mail client waits for 30.
PATIENCE = 10.0
#: Events of workers that are kept for one that is started later, and for one that does not read.
REMEMBERED = 10_000


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
class SpawnSpec:
    """How workers are started."""

    #: The command line; its first word is the program.
    command: Sequence[str]
    environment: Mapping[str, str]
    #: Makes the configuration of the worker of this number.
    config: Callable[[int], WorkerConfig]
    #: Gives the listening sockets.
    sockets: Callable[[], Sequence[int]]


class _ProcessTransport(IProcessTransport, IConsumer):
    """What Twisted gives a process protocol: producers are told when standard input is full."""


@implementer(IPushProducer)
class _WorkerProcess(ProcessProtocol):
    """One worker process, its pipes, and what its supervisor remembers of it."""

    transport: _ProcessTransport

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self.number = number
        #: The line that it ended with, if it could not serve.
        self.refusal: str | None = None
        #: When it began to serve, by the supervisor's clock.
        self.serves_since: float | None = None
        self._supervisor = supervisor
        self._reports, self._errors, self._log = LineBuffer(), LineBuffer(), LineBuffer()
        self._stopping = False
        # What it is still to be told, while its standard input is full.
        self._full = False
        self._last: dict[Command, object] = {}
        self._events: deque[Sequence[object]] = deque(maxlen=REMEMBERED)
        self._acts: deque[Sequence[object]] = deque(maxlen=REMEMBERED)

    def connectionMade(self) -> None:
        """The process runs: write its configuration."""
        self.transport.registerProducer(self, True)
        self.transport.write(self._supervisor.spec.config(self.number).octets())

    def tell(self, command: Command, value: object) -> None:
        """Tell it what takes the place of what it was told before: one that does not read hears the last."""
        self._last[command] = value
        self._send()

    def note(self, events: Sequence[Sequence[object]]) -> None:
        """Tell it the events of other workers.

        One that does not read (it is stopped, or swapped out) is told the newest ones when it reads again.
        """
        if self._full and len(self._events) < REMEMBERED <= len(self._events) + len(events):
            log.warn(
                "worker {number} does not read what others tell of logins: it will not hear of the oldest",
                number=self.number + 1,
            )
        self._events.extend(events)
        self._send()

    def act(self, what: Sequence[object]) -> None:
        """Let it do something with its sessions; one that does not read does it when it reads again."""
        self._acts.append(what)
        self._send()

    def _send(self) -> None:
        if self._full or self._stopping:
            return
        while self._acts:
            self.transport.write(write([Command.ACT, self._acts.popleft()]))
        last, self._last = self._last, {}
        for told in last.items():
            self.transport.write(write(told))
        if self._events:
            events = list(self._events)
            self._events.clear()
            self.transport.write(write([Command.NOTE, events]))

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: standard input is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``: the worker has read everything."""
        self._full = False
        self._send()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: standard input is closed."""
        self._stopping = True

    def stop(self) -> None:
        """Let it end in good order."""
        self._stopping = True
        # Twisted closes a pipe only when no producer is paused.
        self.transport.unregisterProducer()
        self.transport.closeStdin()

    def kill(self) -> None:
        """End it at once."""
        if self.transport.pid is not None:
            self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """A report, lines for the log, or lines on its standard error."""
        if childFD == LOG:
            if lines := self._log.whole(data):
                self._supervisor.publish(lines.decode("utf-8", "backslashreplace"))
        elif childFD == REPORTS:
            for line in self._reports.add(data):
                self._report(line)
        else:
            for line in self._errors.add(data):
                self._complain(line)

    def _report(self, line: bytes) -> None:
        match read(line):
            case [Report.READY]:
                self._supervisor.serves(self)
            case [Report.REFUSED, str(why)]:
                self.refusal = why
            case [Report.TELL, list(events)]:
                self._supervisor.pass_on(self, events)
            case [Report.HAPPENED, list(told)]:
                self._supervisor.happened(told)
            case _:
                self._complain(line)

    def _complain(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        log.error("worker {number} says: {text}", number=self.number + 1, text=text)

    def processEnded(self, reason: Failure) -> None:
        """The process is gone, and all that it has written is read."""
        for line in self._errors.add(b"\n"):
            if line:
                self._complain(line)
        self._supervisor.gone(self, self._ended_how(reason))

    def _ended_how(self, reason: Failure) -> str:
        ended = reason.value
        if self.refusal is not None:
            return f"cannot serve: {self.refusal}"
        if isinstance(ended, ProcessTerminated) and ended.signal is not None:
            names = {one.value: one.name for one in signal.Signals}
            return f"was ended by signal {ended.signal} ({names.get(ended.signal, 'unknown')})"
        return f"ended with status {0 if isinstance(ended, ProcessDone) else getattr(ended, 'exitCode', '?')}"


class Supervisor(Service):
    """Runs a number of workers as long as it runs itself.

    :param reactor: starts processes and tells the time.
    :param grace: seconds that workers may take to stop before they are killed.
    :param publish: takes lines for the log, whole ones.
    :param give_up: is told why, if not one worker has ever come to serve.
    :param turn_away: is told ``True`` when no worker has served for a while, and ``False`` when one does
        again.  The sockets stay open meanwhile, because ports below 1024 could not be opened again, and
        clients would hang.  The supervisor does not end: what keeps workers from serving may pass, and
        perhaps nothing would start the server again.
    :param buried: is told the number of a worker whose process is gone, before it is started again.
    :param served: is told the number of a worker that serves from now on.
    :param happened: is given what workers tell of their sessions, as they have written it.
    """

    def __init__(
        self,
        reactor: IReactor,
        spec: SpawnSpec,
        workers: int,
        *,
        grace: float,
        publish: Callable[[str], None],
        give_up: Callable[[str], object],
        turn_away: Callable[[bool], object],
        buried: Callable[[int], object] = lambda number: None,
        served: Callable[[int], object] = lambda number: None,
        happened: Callable[[list[object]], object] = lambda told: None,
    ) -> None:
        self.spec = spec
        #: How often a worker was started again.
        self.restarts = 0
        self.happened = happened
        self._buried = buried
        self._served = served
        self.publish = publish
        #: How many processes of each worker have ended.
        self.ended = [0] * workers
        #: What workers have told each other.
        self.events: deque[Sequence[object]] = deque(maxlen=REMEMBERED)
        self._reactor = reactor
        self._clock = steady(reactor)
        self._give_up = give_up
        self._grace = grace
        self._running: dict[int, _WorkerProcess] = {}
        self._pauses: dict[int, IDelayedCall] = {}
        self._deaths = dict.fromkeys(range(workers), 0)
        self._anyone_served = False
        self._turn_away = turn_away
        self._alarm: IDelayedCall | None = None
        self._turning_away = False
        self._stopped: Deferred[None] | None = None

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs."""
        super().startService()
        # Only then the reactor hears of processes that end.
        self._reactor.callWhenRunning(self._start_all)

    def stopService(self) -> Deferred[None]:
        """Let the workers end; kill those that take too long.

        :return: fires when the last is gone.
        """
        super().stopService()
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        self._stop_turning_away()
        if not self._running:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        for worker in list(self._running.values()):
            worker.stop()
        killing = self._clock.callLater(self._grace, self._kill)

        def all_gone(_: None) -> None:
            if killing.active():
                killing.cancel()

        return stopped.addCallback(all_gone)

    @property
    def serving(self) -> int:
        """How many workers serve now."""
        return sum(one.serves_since is not None for one in self._running.values())

    @property
    def processes(self) -> Sequence[int]:
        """Their process ids."""
        return [one.transport.pid for one in self._running.values() if one.transport.pid is not None]

    def use_tls(self, material: str) -> None:
        """Let all workers serve with this TLS material."""
        self._tell_all(Command.USE_TLS, material)

    def use_settings(self, settings: str) -> None:
        """Let all workers serve by these settings."""
        self._tell_all(Command.USE_SETTINGS, settings)

    def reopen(self) -> None:
        """Let all workers open their files again."""
        self._tell_all(Command.REOPEN, None)

    def _tell_all(self, command: Command, value: object) -> None:
        for worker in self._running.values():
            worker.tell(command, value)

    def act(self, number: int, what: Sequence[object]) -> None:
        """Have a worker do something with its sessions, if there is this worker now."""
        worker = self._running.get(number)
        if worker is not None:
            worker.act(what)

    def _start_all(self) -> None:
        if self.running:
            for number in self._deaths:
                self._start(number)

    def _start(self, number: int) -> None:
        if self._pauses.pop(number, None) is not None:
            self.restarts += 1
        spec = self.spec
        self._running[number] = worker = _WorkerProcess(self, number)
        # Standard output is the supervisor's own: a transcript writes whole lines there.
        descriptors: dict[int, int | str] = {0: "w", 1: 1, 2: "r", REPORTS: "r", LOG: "r"}
        descriptors |= dict(enumerate(spec.sockets(), SOCKETS))
        try:
            self._reactor.spawnProcess(
                worker, spec.command[0], spec.command, env=dict(spec.environment), childFDs=descriptors
            )
        except OSError as error:
            self.gone(worker, f"cannot be started: {(error.strerror or str(error)).lower()}")

    def _kill(self) -> None:
        for worker in self._running.values():
            log.error("worker {number} does not end and is killed", number=worker.number + 1)
            worker.kill()

    # -- what becomes of workers -----------------------------------------------------------

    def serves(self, worker: _WorkerProcess) -> None:
        """A worker serves from now on."""
        self._anyone_served = True
        worker.serves_since = self._clock.seconds()
        self._stop_turning_away()
        log.info("worker {number} serves (process {pid})", number=worker.number + 1, pid=worker.transport.pid)
        self._served(worker.number)

    def _stop_turning_away(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._turning_away:
            self._turning_away = False
            self._turn_away(False)

    def _nobody_serves(self) -> None:
        self._alarm = None
        self._turning_away = True
        log.critical("no worker serves: whoever connects is turned away until one does")
        self._turn_away(True)

    def pass_on(self, worker: _WorkerProcess, events: Sequence[Sequence[object]]) -> None:
        """One worker tells all others of events."""
        self.events.extend(events)
        for other in self._running.values():
            if other is not worker:
                other.note(events)

    def gone(self, worker: _WorkerProcess, how: str) -> None:
        """A worker is dead: start it again, after a pause."""
        number = worker.number
        del self._running[number]
        self.ended[number] += 1
        self._buried(number)
        if not self.running:
            if not self._running and self._stopped is not None:
                stopped, self._stopped = self._stopped, None
                stopped.callback(None)
            return
        self._tell_all(Command.USE_ENDED, [*self.ended])
        none_serves = all(one.serves_since is None for one in self._running.values())
        if self._anyone_served and none_serves and self._alarm is None and not self._turning_away:
            self._alarm = self._clock.callLater(PATIENCE, self._nobody_serves)
        served = worker.serves_since is not None
        if worker.serves_since is not None and self._clock.seconds() - worker.serves_since >= STEADY:
            self._deaths[number] = 0
        pause = pause_before(self._deaths[number], served=served)
        self._deaths[number] += 1
        again = f"in {pause:.0f} s" if pause else "now"
        log.error(
            "worker {number} {how}; it is started again {again}", number=number + 1, how=how, again=again
        )
        self._pauses[number] = self._clock.callLater(pause, self._start, number)
        if not self._anyone_served and all(self._deaths.values()):
            for call in self._pauses.values():
                call.cancel()
            self._pauses.clear()
            self._anyone_served = True
            self._give_up(worker.refusal or f"worker {number + 1} {how}")
