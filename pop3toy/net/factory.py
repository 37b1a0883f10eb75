"""What the connections of one port share, and how all of them end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory

from .. import limits
from ..clock import steady
from ..events import Observers
from ..interfaces import IGate, Limiter
from .connection import AnyConnection
from .gated import put_gate
from .sending import Sending

__all__ = ["ConnectionFactory"]


class ConnectionFactory(ServerFactory):
    """Makes connections of one kind, and ends them in good order.

    :param reactor: the clock of all timers (``IReactorTime``); they do not mind that the time
        of day is set.
    :param observers: are told of events.
    :param limiter: counts connections and turns some away; ``None`` lets all in.
    :param tls_context: offers STLS or STARTTLS with this context factory.
    :param numbers: session numbers, shared with other factories whose observers are the same.
    :param sending: how octets reach the transports; the plain way, if none is given.
    :param gate: holds, changes or drops commands and replies.
    """

    #: Makes a connection of this factory and a number.
    protocol: Callable[[Any, int], AnyConnection]
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        observers: Observers | None = None,
        limiter: Limiter | None = None,
        tls_context: object | None = None,
        numbers: Iterator[int] | None = None,
        sending: Sending | None = None,
        gate: IGate | None = None,
    ) -> None:
        self.clock: IReactorTime = steady(reactor)
        self.observers = observers if observers is not None else Observers()
        self.limiter = limiter
        self.tls_context = tls_context
        self.sending = sending if sending is not None else Sending()
        self.gate = gate
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._connections: dict[AnyConnection, None] = {}
        self._when_drained: list[Deferred[None]] = []
        self._next_look: IDelayedCall | None = None
        self._stop_at = 0.0
        #: The server is stopping; clients that connect now, to a port that is still open, are rejected.
        self.draining = False

    def buildProtocol(self, addr: IAddress | None) -> AnyConnection:
        """A connection with the next session number."""
        made = self.protocol(self, next(self._numbers))
        if self.gate is not None:
            put_gate(made, self.gate)
        return made

    def startFactory(self) -> None:
        """A port was opened, maybe again: clients are let in."""
        self.resume()

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def all_connections(self) -> Sequence[AnyConnection]:
        """Those that are there now, oldest first."""
        return list(self._connections)

    def connected(self, connection: AnyConnection) -> None:
        """A connection has its transport."""
        self._connections[connection] = None

    def disconnected(self, connection: AnyConnection) -> None:
        """A connection is gone, and what it held is given back."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._end_drain()

    def drain(self) -> Deferred[None]:
        """Let the sessions end, for a bounded time (``limits.SHUTDOWN_GRACE``).

        Strangers go at once, a session goes as soon as it is silent for
        ``limits.SHUTDOWN_SILENCE`` seconds; what QUIT has begun, or is being delivered, is finished.

        :return: a Deferred that fires when no connection is left, or with :meth:`resume`.
        """
        done: Deferred[None] = Deferred()
        self._when_drained.append(done)
        if not self.draining:
            self.draining = True
            self._stop_at = self.clock.seconds() + limits.SHUTDOWN_GRACE
        if self._next_look is None:
            self._drain_on()
        return done

    def resume(self) -> None:
        """Let clients in again; those that have not ended go on, and :meth:`drain` is over."""
        self.draining = False
        self._end_drain()

    def _drain_on(self) -> None:
        """End the connections that need not be waited for, and look again soon if any are left."""
        self._next_look = None
        late = self.clock.seconds() >= self._stop_at
        for connection in self.all_connections():
            if late or (not connection.ending and connection.at_rest()):
                connection.hang_up("shutdown", at_once=late)
        if self._connections:
            self._next_look = self.clock.callLater(limits.SHUTDOWN_SILENCE / 4, self._drain_on)
        else:
            self._end_drain()

    def _end_drain(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        drained, self._when_drained = self._when_drained, []
        for waiting in drained:
            waiting.callback(None)
