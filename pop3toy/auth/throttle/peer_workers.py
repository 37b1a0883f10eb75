"""The other processes of a server with workers: who of them has one to spare, and asking for room.

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
    :param ask: asks a process, by its number, to send one away.
    """

    def __init__(
        self,
        shared: SharedCounts,
        own: int,
        whose: Crowds,
        now: Callable[[], float],
        ask: Callable[[int], object],
    ) -> None:
        self._told = shared.to_spare(whose)
        self._own = own
        self._ask = ask
        self.now = now

    def tell(self, strangers: int, idle_since: float) -> None:
        """Tell the others."""
        own = self._told[self._own]
        own[0], own[1] = strangers, idle_since

    def make_room(self, *, of_stranger: bool) -> bool:
        """Ask the one with the longest idle of all, or the most strangers; false if that is this process.

        :param of_stranger: whether nobody else will do.
        """
        told = [(one[0], one[1], who) for who, one in enumerate(self._told)]
        idle = [] if of_stranger else [(since, who) for _, since, who in told if since]
        # Of several with as many it is this process.
        strangers = [(count, who == self._own, who) for count, _, who in told if count]
        if not idle and not strangers:
            return False
        who = min(idle)[1] if idle else max(strangers)[2]
        if who == self._own:
            return False
        self._ask(who)
        return True
