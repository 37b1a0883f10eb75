"""Whether the server is well: what is looked at now, and what is looked at in a thread every few seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...clock import steady
from ...errors import CannotStart, Refusal

__all__ = ["KEPT", "Health"]

#: Seconds for which it is not looked again: whoever asks often does not keep the disk busy.
KEPT: Final = 5.0


class Health:
    """Finds what is wrong.

    :param clock: tells the time.
    :param at_once: each gives what is wrong, a sentence each; must not wait.
    :param looks: each gives a Deferred that fires within seconds, or fails with what is wrong
        (a :class:`Refusal`, or what a check of settings raises).
    :param warnings: gives what will be wrong if nobody does anything, a sentence each; must not wait.
    """

    def __init__(
        self,
        clock: IReactorTime,
        at_once: Sequence[Callable[[], Sequence[str]]],
        looks: Sequence[Callable[[], Deferred[object]]] = (),
        warnings: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        self._clock = steady(clock)
        self._at_once = at_once
        self._looks = looks
        self.warnings = warnings
        #: What the last look has found, and when; none before the first.
        self._found: tuple[Sequence[str], float] | None = None
        self._waiting: list[Deferred[Sequence[str]]] | None = None

    @property
    def known(self) -> Sequence[str] | None:
        """What is wrong as far as it is known; ``None`` before the first look has ended."""
        if self._found is None:
            return None if self._looks else self._now()
        return [*self._now(), *self._found[0]]

    def look(self) -> Deferred[Sequence[str]]:
        """What is wrong, from a look that is a few seconds old at the most."""
        if self._found is not None and self._clock.seconds() - self._found[1] < KEPT:
            return succeed([*self._now(), *self._found[0]])
        turn: Deferred[Sequence[str]] = Deferred()
        if self._waiting is not None:
            self._waiting.append(turn)
            return turn
        self._waiting = [turn]
        all_looks = [look().addCallbacks(lambda _: None, _wrong) for look in self._looks]
        gatherResults(all_looks).addCallback(self._looked)
        return turn

    def _looked(self, results: Sequence[str | None]) -> None:
        found = [result for result in results if result is not None]
        self._found = found, self._clock.seconds()
        waiting, self._waiting = self._waiting or [], None
        for turn in waiting:
            turn.callback([*self._now(), *found])

    def _now(self) -> list[str]:
        return [problem for look in self._at_once for problem in look()]


def _wrong(why: Failure) -> str:
    error = why.value
    if isinstance(error, Refusal):
        return error.detail or error.text
    if isinstance(error, CannotStart):
        return str(error).removeprefix("--")
    return f"{type(error).__name__}: {error}"
