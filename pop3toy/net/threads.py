"""Threads of our own for what may wait for a disk: never the reactor's, where DNS lives.

A disk that does not answer keeps the threads that ask it, and nothing can be done about it.
So whoever has work for a pool says whose it is (:class:`Share`): the work of one user, or of one
file system, never has more than its share of the threads, and what waits for its share for long
fails instead of piling up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clock import steady
from ..errors import StoreTrouble

__all__ = ["NoThreads", "RunInThread", "Share", "Threads", "WorkerThreads", "run_now"]

log = Logger()

_T = TypeVar("_T")

#: Seconds that a job with a share waits for a thread, and after which a share whose threads are all
#: taken and give nothing back is taken to hang: what comes then is refused at once.
PATIENCE: Final = 10.0

#: Seconds after its beginning for which a stopping pool still waits for a job.  The longest that is
#: worth waiting for is the removal of very many messages; service managers wait for 90.
HANGING: Final = 30.0


class RunInThread(Protocol):
    """Runs a function where it may wait."""

    def __call__(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Fires with what ``function(*args)`` returns, or fails with what it raises."""


def run_now(function: Callable[..., _T], *args: Any) -> Deferred[_T]:
    """A :class:`RunInThread` without a thread: for tests and command lines, which may wait."""
    return maybeDeferred(function, *args)


class Share(NamedTuple):
    """A part of the threads that some work may have."""

    #: Whose work it is: equal keys are one share.
    key: Hashable
    #: Threads that it has at the most.
    most: int


class Threads(Protocol):
    """What a pool of threads is to whoever has work for it."""

    @property
    def run(self) -> RunInThread:
        """Runs a function in one of them."""

    def shared(
        self, shares: Sequence[Share], *, patient: bool = False, within: float | None = None
    ) -> RunInThread:
        """The same for work of which each share has room for so much at once; the rest waits in order.

        What has not begun after :data:`PATIENCE` seconds fails with ``StoreTrouble``, and is not run.

        :param patient: it waits as long as it takes: what closes descriptors has to be done.
        :param within: seconds after which it fails with ``StoreTrouble`` though it may be running, for
            work whose result nobody has to give back.
        """

    def is_over(self) -> bool:
        """Whether it was told to stop: what takes long asks from its thread, and ends then."""


class NoThreads:
    """In the place of :class:`Threads` for a command, which may wait: all is done at once."""

    run: RunInThread = staticmethod(run_now)

    def shared(
        self, shares: Sequence[Share], *, patient: bool = False, within: float | None = None
    ) -> RunInThread:
        """The same as ``run``."""
        return self.run

    def is_over(self) -> bool:
        """False."""
        return False


class _Job:
    """Something to do.  It is begun by a thread or refused by the reactor's, whoever claims it first."""

    __slots__ = ("_claims", "args", "began", "function", "result", "shares", "since")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], shares: Sequence[_Used], since: float
    ) -> None:
        self.function = function
        self.args = args
        self.shares = shares
        self.result: Deferred[Any] = Deferred()
        #: When it came, and when it was given to the threads.
        self.since = since
        self.began: float | None = None
        # Taking the last of a list is atomic.
        self._claims = [True]

    def claim(self) -> bool:
        """Whether the caller is the first; from any thread."""
        try:
            return self._claims.pop()
        except IndexError:
            return False

    @property
    def claimed(self) -> bool:
        """Whether somebody has."""
        return not self._claims


class _Used:
    """A share of which something is used or waited for."""

    __slots__ = ("jobs", "key", "most", "moved", "running", "waiting")

    def __init__(self, share: Share, now: float) -> None:
        self.key, self.most = share
        #: Those that have it, begun or not.
        self.jobs = 0
        self.running = 0
        #: When one of its jobs began or ended last.
        self.moved = now
        self.waiting: deque[_Job] = deque()

    @property
    def full(self) -> bool:
        """Whether all of it is used."""
        return self.running >= self.most


class WorkerThreads(Service):
    """A few threads that live as long as the service; its ``run`` is a :class:`RunInThread`.

    Threads start when there is work, hence after twistd has become a daemon.  Going
    to another thread and back costs half of what it does with Twisted's pool, and a
    delivery goes five times, a cold message once for each chunk.

    :param reactor: where results are delivered (``IReactorFromThreads``), from whose thread all is
        called, and which tells the time (``IReactorTime``).
    :param size: how many threads at the most.
    """

    def __init__(self, reactor: Any, *, name: str = "disk", size: int = 8) -> None:
        self._reactor = reactor
        self._clock: IReactorTime = steady(reactor)
        self._name = name
        self._size = size
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[Thread] = []
        # Given to the threads, in this order; no result is there yet.
        self._begun: dict[_Job, None] = {}
        # How many wait for a share.
        self._held = 0
        self._shares: dict[Hashable, _Used] = {}
        # Those that had to wait and may not wait for ever, some of them begun meanwhile.
        self._impatient: deque[_Job] = deque()
        self._look: IDelayedCall | None = None
        self._over = False
        self._when_idle: list[Deferred[None]] = []
        self._give_up: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin with the work that is there already."""
        super().startService()
        self._over = False
        while self._wants_a_thread():
            self._start_a_thread()

    def stopService(self) -> Deferred[None]:
        """Finish what was begun; a removal is never left half-done, unless its disk hangs.

        :return: a Deferred that fires when it is done, or when what is left has run for
            :data:`HANGING` seconds; the reactor goes on meanwhile.
        """
        super().stopService()
        self._over = True
        done: Deferred[None] = Deferred()
        self._when_idle.append(done)
        self._end_if_idle()
        if self._when_idle and self._give_up is None:
            self._end_if_hanging()
        return done

    def _end_if_idle(self) -> None:
        if (self._begun or self._held) and self._threads:
            return
        for _ in self._threads:
            self._jobs.put(None)
        while self._threads:
            # With nothing to do it ends at once.
            self._threads.pop().join()
        self._ended()

    def _end_if_hanging(self) -> None:
        """Leave the threads alone that hang, and what waits for them undone."""
        self._give_up = None
        latest = max((job.began or 0.0 for job in self._begun), default=0.0)
        if (left := latest + HANGING - self._clock.seconds()) > 0:
            self._give_up = self._clock.callLater(left, self._end_if_hanging)
            return
        log.warn(
            "{count} threads ({name}) wait for a disk that does not answer, and are not waited for",
            count=len(self._begun),
            name=self._name,
        )
        for _ in self._threads:
            self._jobs.put(None)
        # Those of a pool that is started again come from another queue.
        self._jobs = SimpleQueue()
        self._threads.clear()
        undone = [*self._begun, *(job for share in self._shares.values() for job in share.waiting)]
        self._begun.clear()
        self._shares.clear()
        self._held = 0
        self._ended()
        for job in undone:
            if job.claim():
                job.result.errback(Failure(StoreTrouble(detail="the disk did not answer until the end")))

    def _ended(self) -> None:
        self._impatient.clear()
        for call in (self._look, self._give_up):
            if call is not None and call.active():
                call.cancel()
        self._look = self._give_up = None
        when_idle, self._when_idle = self._when_idle, []
        for waiting in when_idle:
            waiting.callback(None)

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """See :class:`RunInThread`; after the end of the service it fails with ``StoreTrouble``."""
        return self._run(function, args)

    def shared(
        self, shares: Sequence[Share], *, patient: bool = False, within: float | None = None
    ) -> RunInThread:
        """See :class:`Threads`."""

        def run(function: Callable[..., _T], *args: Any) -> Deferred[_T]:
            result: Deferred[_T] = self._run(function, args, shares, patient)
            if within is not None and not result.called:
                result.addTimeout(within, self._clock, _too_late)
            return result

        return run

    def is_over(self) -> bool:
        """Whether it was told to stop: what takes long asks from its thread, and ends then."""
        return self._over

    def _run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        shares: Sequence[Share] = (),
        patient: bool = True,
    ) -> Deferred[Any]:
        if self._over:
            return fail(StoreTrouble(detail="asked for a thread after the service had stopped"))
        now = self._clock.seconds()
        used = [self._shares.get(share.key) or _Used(share, now) for share in shares]
        if not patient and any(share.full and share.moved + PATIENCE <= now for share in used):
            return fail(_hangs())
        job = _Job(function, args, used, now)
        for share in used:
            self._shares[share.key] = share
            share.jobs += 1
        begun = self._begin_or_hold(job)
        if begun and self.running and self._wants_a_thread():
            try:
                self._start_a_thread()
            except RuntimeError as error:
                # The others will do it, if there are any.
                if not self._threads and job.claim():
                    self._forget(job)
                    return fail(StoreTrouble(detail=f"starting a thread: {error}"))
        if not patient and (not begun or len(self._begun) > self._size):
            self._impatient.append(job)
            if self._look is None:
                self._look = self._clock.callLater(PATIENCE, self._refuse_the_late)
        return job.result

    def _begin_or_hold(self, job: _Job) -> bool:
        """Give a job to the threads, or let it wait for the first of its shares that has no room."""
        for share in job.shares:
            if share.full:
                share.waiting.append(job)
                self._held += 1
                return False
        job.began = self._clock.seconds()
        for share in job.shares:
            share.running += 1
            share.moved = job.began
        self._begun[job] = None
        self._jobs.put(job)
        return True

    def _forget(self, job: _Job) -> None:
        """It is not with the threads any more; those that waited for its shares have their turn."""
        del self._begun[job]
        now = self._clock.seconds()
        for share in job.shares:
            share.running -= 1
            share.moved = now
        self._give_back(job)
        for share in job.shares:
            while share.waiting and not share.full:
                next_one = share.waiting.popleft()
                self._held -= 1
                if not next_one.claimed:
                    self._begin_or_hold(next_one)
        while self.running and self._wants_a_thread():
            try:
                self._start_a_thread()
            except RuntimeError:
                break

    def _give_back(self, job: _Job) -> None:
        for share in job.shares:
            share.jobs -= 1
            if not share.jobs:
                del self._shares[share.key]

    def _refuse_the_late(self) -> None:
        """Refuse what has waited for too long."""
        self._look = None
        now = self._clock.seconds()
        late = []
        while self._impatient and self._impatient[0].since + PATIENCE <= now:
            job = self._impatient.popleft()
            if job.claim():
                late.append(job)
        for job in late:
            if job in self._begun:
                # The threads will pass it over.
                self._forget(job)
            else:
                self._give_back(job)
                for share in job.shares:
                    self._drop_claimed(share)
        if self._impatient:
            left = self._impatient[0].since + PATIENCE - now
            self._look = self._clock.callLater(left, self._refuse_the_late)
        for job in late:
            job.result.errback(Failure(_hangs()))
        if self._when_idle:
            self._end_if_idle()

    def _drop_claimed(self, share: _Used) -> None:
        while share.waiting and share.waiting[0].claimed:
            share.waiting.popleft()
            self._held -= 1

    def _wants_a_thread(self) -> bool:
        return len(self._threads) < min(len(self._begun), self._size)

    def _start_a_thread(self) -> None:
        name = f"pop3toy-{self._name}-{len(self._threads)}"
        thread = Thread(target=self._work, args=(self._jobs,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self, jobs: SimpleQueue[_Job | None]) -> None:
        """What each thread does."""
        while (job := jobs.get()) is not None:
            if job.claim():
                try:
                    outcome = job.function(*job.args)
                except BaseException:
                    outcome = Failure()
                self._reactor.callFromThread(self._done, job, outcome)
                del outcome
            # Not kept until the next job comes.
            del job

    def _done(self, job: _Job, outcome: Any) -> None:
        # It may be told of among those that had to wait.
        job.args = ()
        if job in self._begun:
            self._forget(job)
        # A failure is one for errbacks.
        job.result.callback(outcome)
        if self._when_idle:
            self._end_if_idle()


def _too_late(result: object, seconds: float) -> NoReturn:
    raise StoreTrouble(detail=f"the disk has not answered for {seconds:.0f} s")


def _hangs() -> StoreTrouble:
    return StoreTrouble(detail=f"no thread was free within {PATIENCE:.0f} s: the disk does not answer")
