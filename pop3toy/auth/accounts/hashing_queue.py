"""Slow checks of passwords, a bounded number at a time, away from the reactor's thread.

What is checked is not known here, only how much may wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from ...errors import StoreTrouble
from ...net.threads import RunInThread

__all__ = ["Workers"]

_T = TypeVar("_T")


class Workers:
    """A door to a thread pool of one's own that lets only so much wait.

    :param in_thread: the pool behind it must be for this alone: a flood of
        logins must not stop those who are in.
    :param most: jobs that may run or wait.  Two threads check some 30 argon2id
        hashes a second, so that 450 are 15 seconds of patience; mail clients
        give up after 30.
    """

    def __init__(self, in_thread: RunInThread, *, most: int = 450) -> None:
        self._in_thread = in_thread
        self._most = most
        #: Jobs that run or wait now.
        self.busy = 0

    def run(self, job: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Do it in a thread.

        :raises pop3toy.errors.StoreTrouble: at once, if too much waits already.
        """
        if self.busy >= self._most:
            raise StoreTrouble("too many logins at the moment, try later")
        self.busy += 1
        return self._in_thread(job, *args).addBoth(self._finished)

    def _finished(self, result: _T) -> _T:
        self.busy -= 1
        return result
