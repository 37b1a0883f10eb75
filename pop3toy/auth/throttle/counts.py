"""The counts behind the limits: what they are, and where one process keeps them.

Two kinds.  A :class:`Tally` is of what is there now; it must be exact, and its
size is bounded by the number of connections.  A :class:`Recent` is of what
happened; its size is bounded by forgetting.  Decides nothing: ``connection_limiter``
and ``login_throttle`` do.  Where several processes share them is ``shared_counts``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Counts", "Heads", "OwnRecent", "OwnTally", "Recent", "Tally", "make_counts", "own_counts"]


class Tally(Protocol):
    """How many there are of each at the moment."""

    @property
    def total(self) -> int:
        """How many there are of all."""

    def count(self, key: str) -> int:
        """How many there are of this."""

    def add(self, key: str) -> None:
        """One more."""

    def remove(self, key: str) -> None:
        """One less; :meth:`add` came before it, in this process."""


class Recent(Protocol):
    """A number for each key, and when it was written; the oldest are forgotten first."""

    def get(self, key: str) -> tuple[int, float]:
        """The number and its time; ``(0, 0.0)`` if nothing is known."""

    def put(self, key: str, number: int, seconds: float) -> None:
        """Write it down; 0 is as good as nothing."""


@dataclass(frozen=True)
class Heads:
    """Who is connected, by address."""

    connections: Tally
    #: Those of them that have not logged in.
    strangers: Tally


@dataclass(frozen=True)
class Counts:
    """All that is counted."""

    #: Who reads mail, and who brings it.
    readers: Heads
    bringers: Heads
    #: Logins that wait or are checked, by address.
    under_way: Tally
    #: Open maildrops by user.
    sessions: Tally
    #: Logins that wait for a maildrop, by user; and sessions that are ending, by user.
    waiting: Tally
    ending: Tally
    #: Failed logins.
    address_failures: Recent
    user_failures: Recent
    #: By address and user: how often he may mistype now who came in from there.
    friends: Recent
    #: When a user's maildrop was opened.
    logins: Recent


class OwnTally:
    """A :class:`Tally` of one process."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: dict[str, int] = {}

    def count(self, key: str) -> int:
        """See :class:`Tally`."""
        return self._counts.get(key, 0)

    def add(self, key: str) -> None:
        """See :class:`Tally`."""
        self.total += 1
        self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, key: str) -> None:
        """See :class:`Tally`."""
        self.total -= 1
        left = self._counts[key] - 1
        if left:
            self._counts[key] = left
        else:
            del self._counts[key]


class OwnRecent:
    """A :class:`Recent` of one process.

    :param most: keys that are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> tuple[int, float]:
        """See :class:`Recent`."""
        return self._entries.get(key, (0, 0.0))

    def put(self, key: str, number: int, seconds: float) -> None:
        """See :class:`Recent`."""
        if not number:
            self._entries.pop(key, None)
            return
        self._entries[key] = (number, seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)


def own_counts(remembered: int = 20_000) -> Counts:
    """The counts of a process that shares them with nobody.

    :param remembered: keys of each :class:`Recent`.
    """
    return make_counts(OwnTally, lambda: OwnRecent(remembered))


def make_counts(tally: Callable[[], Tally], recent: Callable[[], Recent]) -> Counts:
    """Eight of one kind and four of the other, made in the order in which they are named."""
    readers, bringers = Heads(tally(), tally()), Heads(tally(), tally())
    tallies = (tally(), tally(), tally(), tally())
    return Counts(readers, bringers, *tallies, recent(), recent(), recent(), recent())
