"""The counts behind the limits, of one process: what is there now, and what has happened.

A :class:`Tally` is of what is there now; it is exact, and its size is bounded by the number of
connections.  A :class:`Recent` is of what happened; its size is bounded by forgetting.  Decides
nothing: ``connection_limiter`` and ``login_throttle`` do.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["NEVER", "Counts", "Recent", "Tally"]

#: What ``Recent.get`` gives for a key of which nothing is known.
NEVER = (0, 0.0)


class Tally(dict[str, int]):
    """How many there are of each key at the moment; keys of which there are none are not in it."""

    def add(self, key: str) -> None:
        """One more."""
        self[key] = self.get(key, 0) + 1

    def remove(self, key: str) -> None:
        """One less; :meth:`add` came before it."""
        if left := self[key] - 1:
            self[key] = left
        else:
            del self[key]


class Recent(OrderedDict[str, tuple[int, float]]):
    """A number for each key, and when it was written; the oldest are forgotten first.

    :param most: keys that are remembered.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, key: str, number: int, seconds: float) -> None:
        """Write it down; 0 is as good as nothing."""
        if not number:
            self.pop(key, None)
            return
        self[key] = (number, seconds)
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)


class Counts:
    """All that is counted about logins.

    :param remembered: keys of each :class:`Recent`.
    """

    def __init__(self, remembered: int = 20_000) -> None:
        #: Logins that wait or are checked, by address and by user.
        self.in_flight = Tally()
        #: Open maildrops by user.
        self.sessions = Tally()
        #: Logins that wait for a maildrop, by user; and sessions that are ending, by user.
        self.waiting = Tally()
        self.ending = Tally()
        #: Failed logins.
        self.address_failures = Recent(remembered)
        self.user_failures = Recent(remembered)
        #: By address and user: how often a user may mistype who has come in from there.
        self.known_good = Recent(remembered)
        #: When a user's maildrop was opened.
        self.logins = Recent(remembered)
