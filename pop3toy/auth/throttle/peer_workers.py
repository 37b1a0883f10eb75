"""The other processes of a server with workers: who of them has the oldest stranger, and asking for room.

What they share is in ``shared_counts``; who has to go is decided in ``connection_limiter``.
"""

from __future__ import annotations

from collections.abc import Callable

from .shared_counts import Crowds, SharedCounts

__all__ = ["Neighbours"]


class Neighbours:
    """The other processes, as :class:`pop3toy.auth.throttle.connection_limiter.Neighbours`.

    :param own: the number of this process.
    :param now: the time, the same for all of them.
    :param ask: asks a process, by its number, to send its oldest stranger away.
    """

    def __init__(
        self,
        shared: SharedCounts,
        own: int,
        whose: Crowds,
        now: Callable[[], float],
        ask: Callable[[int], object],
    ) -> None:
        self._shared = shared
        self._own = own
        self._whose = whose
        self._ask = ask
        self.now = now

    def oldest_came(self, seconds: float) -> None:
        """Tell the others."""
        self._shared.oldest_stranger(self._own, self._whose, seconds)

    def make_room(self) -> bool:
        """Ask the one with the oldest stranger of all; false if that is this process, or if there is none."""
        came = [(when, who) for who, when in enumerate(self._shared.oldest_strangers(self._whose)) if when]
        if not came or min(came)[1] == self._own:
            return False
        self._ask(min(came)[1])
        return True
