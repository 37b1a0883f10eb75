"""How many connections there may be: in all, from one address, and of strangers.

Counts and nothing else.  Whoever has not logged in is a stranger; when there are
too many, one of them has to go, so that idle strangers never keep a user out: at
random one of those from the network that has the most of them.  Were it the oldest, a flood of new
connections would leave nobody the time to log in.

Before strangers go those who lose little by it, the one that is idle longest
first: anonymous visitors, and mail servers that have brought a message and may
or may not bring another.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...errors import StoreTrouble
from .counts import Tally
from .origins import NOWHERE, Networks, is_local, neighbourhood, network

__all__ = ["ConnectionLimiter", "ConnectionLimits", "Visit", "divided"]


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

    def shared_by(self, workers: int) -> ConnectionLimits:
        """The limits of one of so many processes: a part each, rounded up."""
        return replace(
            self,
            connections=divided(self.connections, workers),
            strangers=divided(self.strangers, workers),
            per_address=divided(self.per_address, workers),
            per_local_address=divided(self.per_local_address, workers),
        )


def divided(limit: int, workers: int) -> int:
    """The part of a limit that each of so many processes has: rounded up, so that all have some."""
    return -(-limit // workers)


class ConnectionLimiter:
    """Who is connected: bounds the connections in all, of one address, and of clients not logged in.

    Give it to a :class:`~pop3toy.pop3.factory.POP3Factory` as its ``gatekeeper``; several may share one.

    :param limits: the numbers, ``ConnectionLimiter.Limits(connections=100)``; its defaults if not given.
    :param choose: picks one of several, at random.
    """

    #: What may be limited: a frozen dataclass in which each number has a default, and a comment that
    #: says what it is.
    Limits = ConnectionLimits

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        *,
        choose: Callable[[Sequence[Visit]], Visit] = random.choice,
    ) -> None:
        self.limits = limits if limits is not None else ConnectionLimits()
        # By address; strangers are those of them that have not logged in.
        self._connections, self._strangers = Tally(), Tally()
        self._choose = choose
        # Strangers by network, and how many of them the largest has; and those that would go
        # before them, the longest idle first.
        self._heaviest = 0
        self._networks: dict[str, dict[Visit, None]] = {}
        self._idle: dict[Visit, None] = {}

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
        :param turn_out: closes this connection; called at most once, when it has
            to make room.  :meth:`Visit.left` is harmless after it.
        :raises pop3toy.errors.StoreTrouble: if he has to be turned away at once.
        """
        address, limits = network(host), self.limits
        if self._connections.count(address) >= self._most_of(host):
            raise StoreTrouble("too many connections from your address")
        too_many_strangers = self.strangers >= limits.strangers
        if too_many_strangers or self.connections >= limits.connections:
            self._make_room(of_stranger=too_many_strangers)
        visit = Visit(self, address, neighbourhood(host), turn_out)
        self._connections.add(address)
        self._strangers.add(address)
        group = self._networks.setdefault(visit.network, {})
        group[visit] = None
        self._heaviest = max(self._heaviest, len(group))
        return visit

    def _most_of(self, host: str) -> int:
        if host == "unix" or host in self.limits.trusted:
            return sys.maxsize
        return self.limits.per_local_address if is_local(host) else self.limits.per_address

    def _make_room(self, *, of_stranger: bool) -> None:
        """Send one away: a stranger, if those are too many.

        :raises pop3toy.errors.StoreTrouble: if there is none that may be.
        """
        if self._idle and not of_stranger:
            visit = next(iter(self._idle))
        elif self._networks:
            most = self._heaviest
            visit = self._choose(
                [one for each in self._networks.values() if len(each) == most for one in each]
            )
        else:
            raise StoreTrouble("too many connections")
        visit.left()
        visit.turn_out()

    def known(self, visit: Visit, *, idle: bool) -> None:
        """Not a stranger any more; whether it goes before strangers all the same."""
        group = self._networks.get(visit.network)
        if group is not None and visit in group:
            was_heaviest = len(group) == self._heaviest
            del group[visit]
            if not group:
                del self._networks[visit.network]
            if was_heaviest:
                self._heaviest = max(map(len, self._networks.values()), default=0)
            self._strangers.remove(visit.address)
        elif visit in self._idle:
            del self._idle[visit]
        if idle:
            self._idle[visit] = None

    def gone(self, visit: Visit) -> None:
        """Not connected any more."""
        self.known(visit, idle=False)
        self._connections.remove(visit.address)


class Visit:
    """One connection.

    :param address: whom it is counted for.
    :param network: where it comes from, for the choice of one that has to go.
    """

    __slots__ = ("_crowd", "_left", "address", "network", "turn_out")

    def __init__(
        self, crowd: ConnectionLimiter, address: str, network: str, turn_out: Callable[[], object]
    ) -> None:
        self.address = address
        self.network = network
        self.turn_out = turn_out
        self._crowd = crowd
        self._left = False

    def logged_in(self) -> None:
        """He is a user, or brings a message: he will not have to make room."""
        if not self._left:
            self._crowd.known(self, idle=False)

    def idle(self) -> None:
        """He is no stranger, but loses little by going: he makes room before strangers do."""
        if not self._left:
            self._crowd.known(self, idle=True)

    def left(self) -> None:
        """The connection is gone.  Harmless when called twice."""
        if not self._left:
            self._left = True
            self._crowd.gone(self)
