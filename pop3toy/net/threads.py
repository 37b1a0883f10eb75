"""Threads of our own for what may wait for a disk: never the reactor's, where DNS lives."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeAlias, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from ..errors import StoreTrouble

__all__ = ["NoThreads", "RunInThread", "Threads", "WorkerThreads", "run_now"]

_T = TypeVar("_T")
_Job: TypeAlias = "tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]"


class RunInThread(Protocol):
    """Runs a function where it may wait."""

    def __call__(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Fires with what ``function(*args)`` returns, or fails with what it raises."""


def run_now(function: Callable[..., _T], *args: Any) -> Deferred[_T]:
    """A :class:`RunInThread` without a thread: for tests and command lines, which may wait."""
    return maybeDeferred(function, *args)


class Threads(Protocol):
    """What a pool of threads is to whoever has work for it."""

    @property
    def run(self) -> RunInThread:
        """Runs a function in one of them."""

    def is_over(self) -> bool:
        """Whether it was told to stop: what takes long asks from its thread, and ends then."""


class NoThreads:
    """In the place of :class:`Threads` for a command, which may wait: all is done at once."""

    run: RunInThread = staticmethod(run_now)

    def is_over(self) -> bool:
        """False."""
        return False


class WorkerThreads(Service):
    """A few threads that live as long as the service; its ``run`` is a :class:`RunInThread`.

    Threads start when there is work, hence after twistd has become a daemon.  Going
    to another thread and back costs half of what it does with Twisted's pool, and a
    delivery goes five times, a cold message once for each chunk.

    :param reactor: where results are delivered, and from whose thread ``run`` is called.
    :param size: how many threads at the most.
    """

    def __init__(self, reactor: IReactorFromThreads, *, name: str = "disk", size: int = 8) -> None:
        self._reactor = reactor
        self._name = name
        self._size = size
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[Thread] = []
        # Jobs of which no result is there yet.
        self._busy = 0
        self._over = False
        self._when_idle: list[Deferred[None]] = []

    def startService(self) -> None:
        """Begin with the work that is there already."""
        super().startService()
        self._over = False
        while self._wants_a_thread():
            self._start_a_thread()

    def stopService(self) -> Deferred[None]:
        """Finish what was begun; a removal is never left half-done.

        :return: a Deferred that fires when it is done; the reactor goes on meanwhile.
        """
        super().stopService()
        self._over = True
        done: Deferred[None] = Deferred()
        self._when_idle.append(done)
        self._end_if_idle()
        return done

    def _end_if_idle(self) -> None:
        if self._busy and self._threads:
            return
        for _ in self._threads:
            self._jobs.put(None)
        while self._threads:
            # With nothing to do it ends at once.
            self._threads.pop().join()
        when_idle, self._when_idle = self._when_idle, []
        for waiting in when_idle:
            waiting.callback(None)

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """See :class:`RunInThread`; after the end of the service it fails with ``StoreTrouble``."""
        if self._over:
            return fail(StoreTrouble(detail="asked for a thread after the service had stopped"))
        result: Deferred[_T] = Deferred()
        self._busy += 1
        if self.running and self._wants_a_thread():
            try:
                self._start_a_thread()
            except RuntimeError as error:
                # The others will do it, if there are any.
                if not self._threads:
                    self._busy -= 1
                    return fail(StoreTrouble(detail=f"starting a thread: {error}"))
        self._jobs.put((result, function, args))
        return result

    def is_over(self) -> bool:
        """Whether it was told to stop: what takes long asks from its thread, and ends then."""
        return self._over

    def _wants_a_thread(self) -> bool:
        return len(self._threads) < min(self._busy, self._size)

    def _start_a_thread(self) -> None:
        thread = Thread(target=self._work, name=f"pop3toy-{self._name}-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        """What each thread does."""
        while (job := self._jobs.get()) is not None:
            result, function, args = job
            try:
                outcome = function(*args)
            except BaseException:
                outcome = Failure()
            self._reactor.callFromThread(self._done, result, outcome)
            # Not kept until the next job comes.
            del job, result, function, args, outcome

    def _done(self, result: Deferred[Any], outcome: Any) -> None:
        self._busy -= 1
        # A failure is one for errbacks.
        result.callback(outcome)
        if self._when_idle:
            self._end_if_idle()
