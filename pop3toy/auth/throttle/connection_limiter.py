"""How many connections there may be: in all, from one address, and of clients that have not logged in.

When there are too many, one that has not logged in is evicted, so that idle clients never keep a
user out: at random one from the network that has most of them.  Were it the oldest, a flood
of new connections would leave nobody the time to log in.

Before those, connections are evicted whose clients lose little, the one that is idle longest
first: anonymous visitors, and mail servers that have brought a message and may or may not bring another.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...errors import StoreTrouble
from .counts import Tally
from .origins import NOWHERE, Networks, is_local, neighbourhood, network

__all__ = ["ConnectionLimiter", "ConnectionLimits", "ConnectionSlot", "divided"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The numbers, each with its reason."""

    #: Connections in all.  Each costs some 20 kB and a file descriptor, and
    #: another descriptor while a message is read.
    connections: int = 4096
    #: Of them such as have not logged in: a login takes a second, so that 1,024 are more
    #: than ever log in at once.
    unauthenticated: int = 1024
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
            unauthenticated=divided(self.unauthenticated, workers),
            per_address=divided(self.per_address, workers),
            per_local_address=divided(self.per_local_address, workers),
        )


def divided(limit: int, workers: int) -> int:
    """The part of a limit that each of so many processes has: rounded up, so that all have some."""
    return -(-limit // workers)


class ConnectionLimiter:
    """Bounds the connections in all, of one address, and of clients that have not logged in.

    Give it to a :class:`~pop3toy.pop3.factory.POP3Factory` as its ``limiter``; several may share one.

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
        choose: Callable[[Sequence[ConnectionSlot]], ConnectionSlot] = random.choice,
    ) -> None:
        self.limits = limits if limits is not None else ConnectionLimits()
        #: Connections now, and those of them that have not logged in.
        self.connections = self.unauthenticated = 0
        self._by_address = Tally()
        self._choose = choose
        # Those that have not logged in, by network, and how many of them the largest network has;
        # and those that are evicted before them, the longest idle first.
        self._networks: dict[str, dict[ConnectionSlot, None]] = {}
        self._heaviest = 0
        self._idle: dict[ConnectionSlot, None] = {}

    def acquire(self, host: str, evict: Callable[[], object]) -> ConnectionSlot:
        """A client connects.

        :param host: the client's address in text; ``unix`` is not limited by address.
        :param evict: closes this connection; called at most once, to make room for
            another.  :meth:`ConnectionSlot.release` is harmless after it.
        :raises pop3toy.errors.StoreTrouble: if the connection cannot be taken.
        """
        address, limits = network(host), self.limits
        if self._by_address.get(address, 0) >= self._most_of(host):
            raise StoreTrouble("too many connections from your address")
        too_many_unauthenticated = self.unauthenticated >= limits.unauthenticated
        if too_many_unauthenticated or self.connections >= limits.connections:
            self._evict_one(unauthenticated=too_many_unauthenticated)
        slot = ConnectionSlot(self, address, neighbourhood(host), evict)
        self.connections += 1
        self.unauthenticated += 1
        self._by_address.add(address)
        group = self._networks.setdefault(slot.network, {})
        group[slot] = None
        self._heaviest = max(self._heaviest, len(group))
        return slot

    def _most_of(self, host: str) -> int:
        if host == "unix" or host in self.limits.trusted:
            return sys.maxsize
        return self.limits.per_local_address if is_local(host) else self.limits.per_address

    def _evict_one(self, *, unauthenticated: bool) -> None:
        """Close a connection: one that has not logged in, if those are too many.

        :raises pop3toy.errors.StoreTrouble: if there is none that may be closed.
        """
        if self._idle and not unauthenticated:
            slot = next(iter(self._idle))
        elif self._networks:
            most = self._heaviest
            slot = self._choose(
                [one for each in self._networks.values() if len(each) == most for one in each]
            )
        else:
            raise StoreTrouble("too many connections")
        slot.release()
        slot.evict()

    def forget(self, slot: ConnectionSlot) -> None:
        """The slot is among those that may be evicted no more."""
        group = self._networks.get(slot.network)
        if group is not None and slot in group:
            was_heaviest = len(group) == self._heaviest
            del group[slot]
            if not group:
                del self._networks[slot.network]
            if was_heaviest:
                self._heaviest = max(map(len, self._networks.values()), default=0)
            self.unauthenticated -= 1
        else:
            self._idle.pop(slot, None)

    def may_go(self, slot: ConnectionSlot) -> None:
        """The slot is evicted before unauthenticated ones, and behind those that are idle longer."""
        self.forget(slot)
        self._idle[slot] = None

    def release(self, slot: ConnectionSlot) -> None:
        """The connection is closed."""
        self.forget(slot)
        self.connections -= 1
        self._by_address.remove(slot.address)


class ConnectionSlot:
    """One connection, as the limiter counts it; see :class:`pop3toy.interfaces.ConnectionSlot`.

    :param address: the address that it is counted for.
    :param network: where it comes from, for the choice of one to evict.
    """

    __slots__ = ("_limiter", "_released", "address", "evict", "network")

    def __init__(
        self, limiter: ConnectionLimiter, address: str, network: str, evict: Callable[[], object]
    ) -> None:
        self.address = address
        self.network = network
        self.evict = evict
        self._limiter = limiter
        self._released = False

    def logged_in(self) -> None:
        """A user has logged in, or the client brings a message: the connection is not evicted."""
        if not self._released:
            self._limiter.forget(self)

    def idle(self) -> None:
        """The client would lose little: the connection is evicted before unauthenticated ones."""
        if not self._released:
            self._limiter.may_go(self)

    def release(self) -> None:
        """The connection is closed.  Harmless when called twice."""
        if not self._released:
            self._released = True
            self._limiter.release(self)
