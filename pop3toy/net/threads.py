"""Threads of our own for what may wait for a disk: never the reactor's, where DNS lives.

A disk that does not answer keeps the threads that ask it, and nothing can be done about it.
So the caller says whose work it is (:class:`Share`): that of one user, or of one
file system, never has more than its share of the threads, and what waits for its share for long
fails instead of piling up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clock import steady
from ..errors import StoreTrouble
from .types import IThreadedReactor

__all__ = ["Helpers", "Load", "NoThreads", "RunInThread", "Share", "Threads", "WorkerThreads", "run_now"]

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

    def __call__(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        """Fires with what ``function(*args)`` returns, or fails with what it raises."""


def run_now(function: Callable[..., _T], *args: object) -> Deferred[_T]:
    """A :class:`RunInThread` without a thread: for tests and command lines, which may wait."""
    return maybeDeferred(function, *args)


class Share(NamedTuple):
    """A part of the threads that some work may have."""

    #: Whose work it is: equal keys are one share.
    key: Hashable
    #: Threads that it has at the most.
    most: int


class Load(NamedTuple):
    """What a pool has to do now."""

    #: Threads that there are.
    threads: int
    #: Jobs that are with the threads, and that wait until they may be.
    running: int
    waiting: int


class Threads(Protocol):
    """A pool of threads, as its callers see it."""

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
            work whose result holds nothing that has to be closed.
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


class Helpers:
    """Threads that take part in what another thread has to do, and end with it.

    Nobody waits for one: who finds none free does alone what there is to do.  Any thread may ask.

    :param most: how many there are at once, whomever they help.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._free = BoundedSemaphore(most)

    def call_each(self, do: Callable[[_T], object], parts: Iterable[_T], at_once: int) -> None:
        """Call ``do`` with each part, which begin in their order, so many at once at the most; blocks.

        Behind one that fails none begins; what it raised is raised when those have ended that had begun.
        """
        left = deque(parts)
        failed: list[BaseException] = []

        def work() -> None:
            while not failed:
                try:
                    # Nobody else gets the same.
                    part = left.popleft()
                except IndexError:
                    return
                try:
                    do(part)
                except BaseException as error:
                    failed.append(error)

        def help_out() -> None:
            try:
                work()
            finally:
                self._free.release()

        helpers: list[Thread] = []
        for _ in range(min(at_once, len(left)) - 1):
            if not self._free.acquire(blocking=False):
                break
            helper = Thread(target=help_out, name=f"pop3toy-{self._name}", daemon=True)
            try:
                helper.start()
            except RuntimeError:
                # The system has no more threads.
                self._free.release()
                break
            helpers.append(helper)
        work()
        for helper in helpers:
            helper.join()
        if failed:
            raise failed[0]


class _Key:
    """The work of one key."""

    __slots__ = ("jobs", "key", "most", "moved", "running", "waiting")

    def __init__(self, key: Hashable, most: int) -> None:
        self.key, self.most = key, most
        #: How many jobs it has: with the threads, and waiting for this key or for another.
        self.jobs = self.running = 0
        #: When one of its jobs began or ended last.
        self.moved = 0.0
        self.waiting: deque[_Job] = deque()

    @property
    def full(self) -> bool:
        """Whether the next job has to wait."""
        return self.running >= self.most


class _Job:
    """A call, its result, and the keys that it counts for: its shares' and the whole pool's."""

    __slots__ = ("args", "function", "keys", "refusal", "result", "waits_for")

    def __init__(self, function: Callable[..., object], args: tuple[object, ...], keys: list[_Key]) -> None:
        self.function, self.args, self.keys = function, args, keys
        self.result: Deferred[Any] = Deferred()
        self.waits_for: _Key | None = None
        #: Comes when it has waited for too long.
        self.refusal: IDelayedCall | None = None


class WorkerThreads(Service):
    """A few threads that live as long as the service; its ``run`` is a :class:`RunInThread`.

    A job is given to the threads when all its keys have room, its shares' and the whole pool's; until
    then it waits at the first that has none.  So no more jobs are with the threads than there are
    threads, and all that is counted is counted in the reactor's thread.

    Threads start when there is work, hence after twistd has become a daemon.  Going
    to another thread and back costs half of what it does with Twisted's pool, and a
    delivery goes several times, a cold message once for each chunk.

    :param reactor: where results are delivered, from whose thread all is called, and which tells the time.
    :param size: how many threads at the most.
    """

    def __init__(self, reactor: IThreadedReactor, *, name: str = "disk", size: int = 8) -> None:
        self._reactor = reactor
        self._clock = steady(reactor)
        self._name = name
        self._size = size
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._keys: dict[Hashable, _Key] = {}
        # No job begins before the service.
        self._pool = _Key("all", 0)
        # With the threads, each with the time at which it was given to them.
        self._running: dict[_Job, float] = {}
        self._over = False
        self._when_idle: list[Deferred[None]] = []
        self._give_up: IDelayedCall | None = None

    @property
    def load(self) -> Load:
        """What it has to do now."""
        running = len(self._running)
        return Load(len(self._threads), running, self._pool.jobs - running)

    def startService(self) -> None:
        """Begin with the work that is there already."""
        super().startService()
        self._over = False
        self._pool.most = self._size
        self._begin_waiting(self._pool)

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
        if self._pool.jobs and self._threads:
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
        latest = max(self._running.values(), default=0.0)
        if (left := latest + HANGING - self._clock.seconds()) > 0:
            self._give_up = self._clock.callLater(left, self._end_if_hanging)
            return
        log.warn(
            "{count} threads ({name}) wait for a disk that does not answer, and are not waited for",
            count=len(self._running),
            name=self._name,
        )
        undone = [job for key in (*self._keys.values(), self._pool) for job in key.waiting]
        with suppress(Empty):
            # None of the threads has taken these.
            while (job := self._jobs.get_nowait()) is not None:
                undone.append(job)
        for _ in self._threads:
            self._jobs.put(None)
        # Those of a pool that is started again count anew, and come from another queue.
        self._jobs = SimpleQueue()
        self._threads.clear()
        self._running.clear()
        self._keys.clear()
        self._pool = _Key("all", self._size)
        self._ended()
        for job in undone:
            self._fail(job, StoreTrouble(detail="the disk did not answer until the end"))

    def _ended(self) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        when_idle, self._when_idle = self._when_idle, []
        for waiting in when_idle:
            waiting.callback(None)

    def run(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        """See :class:`RunInThread`; after the end of the service it fails with ``StoreTrouble``."""
        return self._run(function, args)

    def shared(
        self, shares: Sequence[Share], *, patient: bool = False, within: float | None = None
    ) -> RunInThread:
        """See :class:`Threads`."""

        def run(function: Callable[..., _T], *args: object) -> Deferred[_T]:
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
        function: Callable[..., _T],
        args: tuple[object, ...],
        shares: Sequence[Share] = (),
        patient: bool = True,
    ) -> Deferred[_T]:
        if self._over:
            return fail(StoreTrouble(detail="asked for a thread after the service had stopped"))
        keys = [self._keys.get(key) or _Key(key, most) for key, most in shares]
        if not patient and any(key.full and key.moved + PATIENCE <= self._clock.seconds() for key in keys):
            return fail(_hangs())
        for key in keys:
            self._keys[key.key] = key
        job = _Job(function, args, [*keys, self._pool])
        for key in job.keys:
            key.jobs += 1
        if not self._begin(job) and not patient:
            job.refusal = self._clock.callLater(PATIENCE, self._refuse, job)
        return job.result

    def _begin(self, job: _Job) -> bool:
        """Give a job to the threads, unless it has to wait for one of its keys."""
        job.waits_for = next((key for key in job.keys if key.full), None)
        if job.waits_for is not None:
            job.waits_for.waiting.append(job)
            return False
        if job.refusal is not None:
            job.refusal.cancel()
            job.refusal = None
        self._running[job] = now = self._clock.seconds()
        for key in job.keys:
            key.running += 1
            key.moved = now
        if len(self._threads) < len(self._running):
            name = f"pop3toy-{self._name}-{len(self._threads)}"
            thread = Thread(target=self._work, args=(self._jobs,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # The others will do it, if there are any.
                if not self._threads:
                    self._done(job, Failure(StoreTrouble(detail=f"starting a thread: {error}")))
                    return True
            else:
                self._threads.append(thread)
        self._jobs.put(job)
        return True

    def _begin_waiting(self, key: _Key) -> None:
        while key.waiting and not key.full:
            self._begin(key.waiting.popleft())

    def _refuse(self, job: _Job) -> None:
        """A job has waited for too long."""
        assert job.waits_for is not None
        job.waits_for.waiting.remove(job)
        job.refusal = None
        self._forget(job)
        self._fail(job, _hangs())
        if self._when_idle:
            self._end_if_idle()

    def _fail(self, job: _Job, why: StoreTrouble) -> None:
        if job.refusal is not None:
            job.refusal.cancel()
        job.args = ()
        job.result.errback(Failure(why))

    def _forget(self, job: _Job) -> None:
        for key in job.keys:
            key.jobs -= 1
            if not key.jobs and key is not self._pool:
                del self._keys[key.key]

    def _work(self, jobs: SimpleQueue[_Job | None]) -> None:
        """What each thread does."""
        while (job := jobs.get()) is not None:
            outcome: object
            try:
                outcome = job.function(*job.args)
            except BaseException:
                outcome = Failure()
            self._reactor.callFromThread(self._done, job, outcome)
            # Not kept until the next job comes.
            del job, outcome

    def _done(self, job: _Job, outcome: object) -> None:
        """A job has ended: give back its room, then its result."""
        job.args = ()
        # A pool that has given up waiting for it does not count it any more.
        if self._running.pop(job, None) is not None:
            now = self._clock.seconds()
            for key in job.keys:
                key.running -= 1
                key.moved = now
            self._forget(job)
            for key in job.keys:
                self._begin_waiting(key)
        # A failure is one for errbacks.
        job.result.callback(outcome)
        if self._when_idle:
            self._end_if_idle()


def _too_late(result: object, seconds: float) -> NoReturn:
    raise StoreTrouble(detail=f"the disk or the network has not answered for {seconds:.0f} s")


def _hangs() -> StoreTrouble:
    return StoreTrouble(
        detail=f"no thread was free within {PATIENCE:.0f} s: the disk or the network does not answer"
    )
