"""Threads of our own for what may wait for a disk: never the reactor's, where DNS lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from .errors import StoreTrouble

__all__ = ["RunInThread", "WorkerThreads", "run_now"]

_T = TypeVar("_T")


class RunInThread(Protocol):
    """Runs a function where it may wait."""

    def __call__(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Fires with what ``function(*args)`` returns, or fails with what it raises."""


def run_now(function: Callable[..., _T], *args: Any) -> Deferred[_T]:
    """A :class:`RunInThread` without a thread: for tests and command lines, which may wait."""
    return maybeDeferred(function, *args)


class WorkerThreads(Service):
    """A thread pool that lives as long as the service; its ``run`` is a :class:`RunInThread`.

    Threads start when there is work, hence after twistd has become a daemon.

    :param reactor: where results are delivered.
    :param size: how many threads at the most.
    """

    def __init__(self, reactor: IReactorFromThreads, *, name: str = "disk", size: int = 8) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=f"pop3toy-{name}")

    def startService(self) -> None:
        """Let the pool take work."""
        super().startService()
        self._pool.start()

    def stopService(self) -> None:
        """Finish what was begun; a removal is never left half-done."""
        super().stopService()
        self._pool.stop()

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """See :class:`RunInThread`; after the end of the service it fails with ``StoreTrouble``."""
        if self._pool.joined:
            # A pool that has stopped would drop it without a word.
            return fail(StoreTrouble(detail="asked for a thread after the service had stopped"))
        return deferToThreadPool(self._reactor, self._pool, function, *args)
