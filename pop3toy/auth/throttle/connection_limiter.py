"""How many connections there may be: in all, from one address, and of strangers.

Counts and nothing else; where the counts are kept is ``counts``.  Whoever has
not logged in is a stranger; when there are too many, the one who is longest
there without logging in has to go, so that idle strangers never keep a user
out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...errors import StoreTrouble
from .counts import Heads, own_counts
from .origins import NOWHERE, Networks, is_local, network

__all__ = ["ConnectionLimiter", "ConnectionLimits", "Neighbours", "Visit"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The numbers, each with its reason."""

    #: Connections in all.  Each costs some 20 kB and a file descriptor, and
    #: another descriptor while a message is read.
    connections: int = 4096
    #: Of them strangers: a login takes a second, so that 1,024 are more than
    #: ever log in at once.
    strangers: int = 1024
    #: From one address (IPv6: one /64): an office behind one address, and a
    #: client that opens several.
    per_address: int = 64
    #: The same from loopback: a webmail, a proxy or a load test there stands
    #: for many.
    per_local_address: int = sys.maxsize
    #: Addresses that speak for many: not limited as one.
    trusted: Networks = NOWHERE


class Neighbours(Protocol):
    """The other processes, where several share the counts."""

    def now(self) -> float:
        """The time, the same for all of them, in seconds."""

    def oldest_came(self, seconds: float) -> None:
        """Tell them when the oldest stranger of this process came; 0 if there is none."""

    def make_room(self) -> bool:
        """Ask the one with the oldest stranger of all to send him away; false if that is this process."""


class ConnectionLimiter:
    """Who is connected: bounds the connections in all, of one address, and of clients not logged in.

    Give it to a :class:`~pop3toy.pop3.factory.POP3Factory` as its ``gatekeeper``; several may share one.

    :param limits: the numbers, ``ConnectionLimiter.Limits(connections=100)``; its defaults if not given.
    :param heads: where it counts; of its own if not given.
    :param neighbours: who else counts there.
    """

    #: What may be limited: a frozen dataclass in which each number has a default, and a comment that
    #: says what it is.
    Limits = ConnectionLimits

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        heads: Heads | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.limits = limits if limits is not None else ConnectionLimits()
        heads = heads if heads is not None else own_counts().readers
        self._connections, self._strangers = heads.connections, heads.strangers
        self._neighbours = neighbours
        #: The strangers of this process in the order in which they came.
        self._queue: dict[Visit, None] = {}
        self._oldest: Visit | None = None

    @property
    def connections(self) -> int:
        """Connections now."""
        return self._connections.total

    @property
    def strangers(self) -> int:
        """Connections now that have not logged in."""
        return self._strangers.total

    def arrive(self, host: str, turn_out: Callable[[], object]) -> Visit:
        """Somebody connects.

        :param host: the client's address in text; ``unix`` is not limited by address.
        :param turn_out: closes this connection; called at most once, when a
            stranger has to make room.  :meth:`Visit.left` is harmless after it.
        :raises pop3toy.errors.StoreTrouble: if he has to be turned away at once.
        """
        address = network(host)
        if self._connections.count(address) >= self._most_of(host):
            raise StoreTrouble("too many connections from your address")
        full = self.connections >= self.limits.connections or self.strangers >= self.limits.strangers
        if full and not self._room_elsewhere() and not self.make_room():
            raise StoreTrouble("too many connections")
        came = self._neighbours.now() if self._neighbours is not None else 0.0
        visit = Visit(self, address, turn_out, came)
        self._connections.add(address)
        self._strangers.add(address)
        self._queue[visit] = None
        self._tell()
        return visit

    def _most_of(self, host: str) -> int:
        if host == "unix" or host in self.limits.trusted:
            return sys.maxsize
        return self.limits.per_local_address if is_local(host) else self.limits.per_address

    def make_room(self) -> bool:
        """Turn the oldest stranger of this process out, if there is one."""
        oldest = next(iter(self._queue), None)
        if oldest is None:
            return False
        oldest.left()
        oldest.turn_out()
        return True

    def known(self, visit: Visit) -> None:
        """Not a stranger any more."""
        if visit in self._queue:
            del self._queue[visit]
            self._strangers.remove(visit.address)
            self._tell()

    def gone(self, visit: Visit) -> None:
        """Not connected any more."""
        self.known(visit)
        self._connections.remove(visit.address)

    def _room_elsewhere(self) -> bool:
        return self._neighbours is not None and self._neighbours.make_room()

    def _tell(self) -> None:
        oldest = next(iter(self._queue), None)
        if self._neighbours is not None and oldest is not self._oldest:
            self._oldest = oldest
            self._neighbours.oldest_came(oldest.came if oldest is not None else 0.0)


class Visit:
    """One connection."""

    __slots__ = ("_crowd", "_left", "address", "came", "turn_out")

    def __init__(
        self, crowd: ConnectionLimiter, address: str, turn_out: Callable[[], object], came: float
    ) -> None:
        self.address = address
        self.turn_out = turn_out
        self.came = came
        self._crowd = crowd
        self._left = False

    def logged_in(self) -> None:
        """He is a user: he will not have to make room."""
        self._crowd.known(self)

    def left(self) -> None:
        """The connection is gone.  Harmless when called twice."""
        if not self._left:
            self._left = True
            self._crowd.gone(self)
