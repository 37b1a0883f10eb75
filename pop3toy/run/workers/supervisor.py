"""Keeps workers running: starts them, starts them again, passes on what one says to another, ends them.

It does not know what they do.  One of them, as a process, is in ``process``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ...clock import steady
from ...net.types import IReactor
from .process import Launch, WorkerProcess
from .talk import Word

__all__ = ["Supervisor", "pause_before"]

log = Logger()

#: Seconds between two starts of a worker that dies and dies, at the most.
LONGEST_PAUSE = 60.0
#: Seconds that a worker has to serve for its death to be called the first again.
STEADY = 60.0
#: Seconds without a worker that serves after which clients are turned away: a
#: worker that died is back in one or two, and a mail client waits for 30.
PATIENCE = 10.0
#: Events that workers have told each other which one that is started later is told.
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


class Supervisor(Service):
    """Runs a number of workers as long as it runs itself.

    :param reactor: starts processes and tells the time.
    :param grace: seconds that they may take to stop before they are killed.
    :param publish: takes lines for the log, whole ones.
    :param hopeless: is told why, if not one worker has ever come to serve.
    :param unattended: is told ``True`` when none has served for a while, and
        ``False`` when one does again.  The sockets stay open meanwhile, because
        ports below 1024 could not be opened again, and whoever connects would
        hang.  The supervisor does not end: what keeps workers from serving may
        pass, and not everybody has somebody who would start it again.
    """

    def __init__(
        self,
        reactor: IReactor,
        launch: Launch,
        workers: int,
        *,
        grace: float,
        publish: Callable[[str], None],
        hopeless: Callable[[str], object],
        unattended: Callable[[bool], object],
    ) -> None:
        self._reactor = reactor
        self._clock: IReactorTime = steady(reactor)
        self._launch = launch
        self._publish = publish
        self._hopeless = hopeless
        self._grace = grace
        #: What workers have told each other.
        self.told: deque[Any] = deque(maxlen=REMEMBERED)
        self._running: dict[int, WorkerProcess] = {}
        self._pauses: dict[int, IDelayedCall] = {}
        self._deaths = dict.fromkeys(range(workers), 0)
        self._anyone_served = False
        self._serving: set[int] = set()
        self._unattended = unattended
        self._alarm: IDelayedCall | None = None
        self._turning_away = False
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
        self._attended()
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

    def tell_all(self, word: Word, value: object) -> None:
        """Say something to all workers."""
        for worker in self._running.values():
            worker.tell(word, value)

    def _start_all(self) -> None:
        if self.running:
            for number in self._deaths:
                self._start(number)

    def _start(self, number: int) -> None:
        self._pauses.pop(number, None)
        self._running[number] = worker = WorkerProcess(
            self, number, self._reactor, self._launch, self._publish
        )
        try:
            worker.start()
        except OSError as error:
            self.gone(worker, f"cannot be started: {(error.strerror or str(error)).lower()}")

    def _kill(self) -> None:
        for worker in self._running.values():
            log.error("worker {number} does not end and is killed", number=worker.number + 1)
            worker.kill()

    # -- what workers tell -----------------------------------------------------------------

    def serves(self, worker: WorkerProcess) -> None:
        """It serves now."""
        self._anyone_served = True
        self._serving.add(worker.number)
        self._attended()
        log.info("worker {number} serves (process {pid})", number=worker.number + 1, pid=worker.pid)

    def _attended(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._turning_away:
            self._turning_away = False
            self._unattended(False)

    def _nobody_serves(self) -> None:
        self._alarm = None
        self._turning_away = True
        log.critical("no worker serves: whoever connects is turned away until one does")
        self._unattended(True)

    def pass_on(self, worker: WorkerProcess, events: list[Any]) -> None:
        """One worker tells all others something."""
        self.told.extend(events)
        for other in self._running.values():
            if other is not worker:
                other.tell(Word.TOLD, events)

    def gone(self, worker: WorkerProcess, how: str) -> None:
        """It is dead; start it again."""
        number = worker.number
        del self._running[number]
        if not self.running:
            if not self._running and self._stopped is not None:
                stopped, self._stopped = self._stopped, None
                stopped.callback(None)
            return
        self._serving.discard(number)
        if self._anyone_served and not self._serving and self._alarm is None and not self._turning_away:
            self._alarm = self._clock.callLater(PATIENCE, self._nobody_serves)
        seconds = worker.served()
        if seconds >= STEADY:
            self._deaths[number] = 0
        pause = pause_before(self._deaths[number], served=seconds > 0)
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
            self._hopeless(worker.refusal or f"worker {number + 1} {how}")
