"""Slow checks of passwords, a bounded number at a time, away from the reactor's thread.

Only counts the jobs; what they check is in ``accounts_file``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from ...errors import StoreTrouble
from ...net.threads import RunInThread

__all__ = ["HashingQueue"]

_T = TypeVar("_T")


#: Seconds between two results before any was measured: argon2id in the two threads of a small machine.
FIRST_GUESS = 0.1
#: How much of the mean the newest measurement is.
NEWEST = 0.125


class HashingQueue:
    """A bounded queue before a thread pool.

    :param in_thread: runs a job in a pool that is for this alone: a flood of
        logins must not stop the sessions.
    :param longest_wait: seconds that a job may be expected to wait for those
        before it; mail clients give up after 30, and have more to do.
    :param most: jobs that may run or wait, however fast they are.
    :param now: tells the time in seconds.
    """

    def __init__(
        self,
        in_thread: RunInThread,
        *,
        longest_wait: float = 10.0,
        most: int = 450,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._in_thread = in_thread
        self._longest_wait = longest_wait
        self._most = most
        self._now = now
        # Mean seconds from one result to the next while there is work.  It covers how many threads
        # there are, and how busy the machine is.
        self._mean = FIRST_GUESS
        self._last = 0.0
        #: Jobs that run or wait now.
        self.busy = 0

    def run(self, job: Callable[..., _T], *args: object) -> Deferred[_T]:
        """Do it in a thread.

        :raises pop3toy.errors.StoreTrouble: at once, if too much waits already.
        """
        if self.busy >= self._most or self.busy * self._mean > self._longest_wait:
            raise StoreTrouble("too many logins at the moment, try later")
        if not self.busy:
            self._last = self._now()
        self.busy += 1
        return self._in_thread(job, *args).addBoth(self._finished)

    def _finished(self, result: _T) -> _T:
        self.busy -= 1
        now = self._now()
        self._mean += NEWEST * (now - self._last - self._mean)
        self._last = now
        return result
