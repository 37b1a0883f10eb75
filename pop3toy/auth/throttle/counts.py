"""The counts behind the limits, of one process: what is there now, and what has happened.

A :class:`Tally` is of what is there now; it is exact, and its size is bounded by the number of
connections.  A :class:`Recent` is of what happened; its size is bounded by forgetting.  Decides
nothing: ``connection_limiter`` and ``login_throttle`` do.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Counts", "Recent", "Tally"]


class Tally:
    """How many there are of each at the moment."""

    def __init__(self) -> None:
        #: How many there are of all.
        self.total = 0
        self._counts: dict[str, int] = {}

    def count(self, key: str) -> int:
        """How many there are of this."""
        return self._counts.get(key, 0)

    def add(self, key: str) -> None:
        """One more."""
        self.total += 1
        self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, key: str) -> None:
        """One less; :meth:`add` came before it."""
        self.total -= 1
        left = self._counts[key] - 1
        if left:
            self._counts[key] = left
        else:
            del self._counts[key]


class Recent:
    """A number for each key, and when it was written; the oldest are forgotten first.

    :param most: keys that are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> tuple[int, float]:
        """The number and its time; ``(0, 0.0)`` if nothing is known."""
        return self._entries.get(key, (0, 0.0))

    def put(self, key: str, number: int, seconds: float) -> None:
        """Write it down; 0 is as good as nothing."""
        if not number:
            self._entries.pop(key, None)
            return
        self._entries[key] = (number, seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)


class Counts:
    """All that is counted about logins.

    :param remembered: keys of each :class:`Recent`.
    """

    def __init__(self, remembered: int = 20_000) -> None:
        #: Logins that wait or are checked, by address and by user.
        self.under_way = Tally()
        #: Open maildrops by user.
        self.sessions = Tally()
        #: Logins that wait for a maildrop, by user; and sessions that are ending, by user.
        self.waiting = Tally()
        self.ending = Tally()
        #: Failed logins.
        self.address_failures = Recent(remembered)
        self.user_failures = Recent(remembered)
        #: By address and user: how often he may mistype now who came in from there.
        self.friends = Recent(remembered)
        #: When a user's maildrop was opened.
        self.logins = Recent(remembered)
