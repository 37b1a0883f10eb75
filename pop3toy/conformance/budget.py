"""How much of time one check may take, and all of them: a server without an end is through all the same."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Budget"]

#: How many times as long as an answer: a check, the checks that went on for too long, and all.
_CHECK, _LOST, _ALL = 10, 25, 60
#: Seconds that the last two have at least, whatever an answer has.
_LOST_LEAST, _ALL_LEAST = 45.0, 300.0


class Budget:
    """The time of one run.

    :param clock: seconds, of a clock that nobody sets.
    :param timeout: seconds for an answer.
    :param more: seconds that a check may wait for something else, as for a mailbox in use.
    """

    def __init__(self, clock: Callable[[], float], timeout: float, more: float) -> None:
        self._clock = clock
        #: Seconds that a check may take.
        self.seconds = _CHECK * timeout + more
        self._lost_most = max(_LOST * timeout, _LOST_LEAST)
        self._all_most = max(_ALL * timeout, _ALL_LEAST) + more
        self._begun = self._check_begun = clock()
        self._lost = 0.0
        self._spoiled = False
        #: When the time of the check is over.
        self.due = math.inf

    def begin_run(self) -> None:
        """Begin with the checks: no time was lost."""
        self._begun, self._lost = self._clock(), 0.0

    def begin(self) -> None:
        """Begin a check."""
        self._spoiled = False
        self._check_begun = self._clock()
        self.due = self._check_begun + self.seconds

    def spoil(self) -> None:
        """The server did not come to an end: the time of this check is lost."""
        self._spoiled = True

    def end(self) -> None:
        """End a check."""
        if self._spoiled:
            self._lost += self._clock() - self._check_begun

    @property
    def used_up(self) -> str:
        """Why no other check can be tried; empty if it can."""
        if self._lost > self._lost_most:
            return f"in {self._lost:.0f} s the server came to no end"
        if self._clock() - self._begun > self._all_most:
            return f"the other checks took {self._all_most:.0f} s"
        return ""
