"""What the connections of one port share, and how all of them end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory

from .. import limits
from ..clock import steady
from ..events import Observers
from ..interfaces import IGate, Limiter, Turns
from .connection import Connection
from .gated import put_gate

__all__ = ["ConnectionFactory"]


class ConnectionFactory(ServerFactory):
    """Makes connections of one kind, and ends them in good order.

    :param reactor: the clock of all timers (``IReactorTime``); they do not mind that the time
        of day is set.
    :param observers: who is told of what happens.
    :param limiter: counts connections and turns some away; ``None`` lets all in.
    :param tls_context: offers STLS or STARTTLS with this context factory.
    :param numbers: session numbers, shared with other factories whose observers are the same.
    :param turns: the :class:`pop3toy.net.fast.reply_batcher.ReactorTurns` of the reactor, if it has turns.
    :param gate: holds, changes or drops commands and replies.
    """

    #: Makes a connection of this factory and a number.
    protocol: Any = Connection
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        observers: Observers | None = None,
        limiter: Limiter | None = None,
        tls_context: object | None = None,
        numbers: Iterator[int] | None = None,
        turns: Turns | None = None,
        gate: IGate | None = None,
    ) -> None:
        self.clock: IReactorTime = steady(reactor)
        self.observers = observers if observers is not None else Observers()
        self.limiter = limiter
        self.tls_context = tls_context
        self.turns = turns
        self.gate = gate
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._connections: dict[Connection, None] = {}
        self._when_empty: list[Deferred[None]] = []
        self._stop_at = 0.0
        #: The server is stopping; whoever comes now, by a port that is still open, is turned away.
        self.draining = False

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """A connection with the next session number."""
        made: Connection = self.protocol(self, next(self._numbers))
        if self.gate is not None:
            put_gate(made, self.gate)
        return made

    def startFactory(self) -> None:
        """A port was opened, maybe again: whoever comes is let in."""
        self.resume()

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def all_connections(self) -> Sequence[Connection]:
        """Those that are there now, oldest first."""
        return list(self._connections)

    def connected(self, connection: Connection) -> None:
        """A connection has its transport."""
        self._connections[connection] = None

    def disconnected(self, connection: Connection) -> None:
        """A connection is gone, and what it held is given back."""
        self._connections.pop(connection, None)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self._connections:
            when_empty, self._when_empty = self._when_empty, []
            for waiting in when_empty:
                waiting.callback(None)

    def drain(self) -> Deferred[None]:
        """Let the sessions end, for a bounded time (``limits.SHUTDOWN_GRACE``).

        Strangers go at once, a session goes as soon as it is silent for
        ``limits.SHUTDOWN_SILENCE`` seconds; what QUIT has begun, or is being delivered, is finished.

        :return: a Deferred that fires when no connection is left.
        """
        done: Deferred[None] = Deferred()
        self._when_empty.append(done)
        if not self.draining:
            self.draining = True
            self._stop_at = self.clock.seconds() + limits.SHUTDOWN_GRACE
        if len(self._when_empty) == 1:
            self._drain_on()
        return done

    def resume(self) -> None:
        """Let clients in again, and those that have not ended yet go on."""
        self.draining = False

    def _drain_on(self) -> None:
        if not self.draining:
            return
        late = self.clock.seconds() >= self._stop_at
        for connection in self.all_connections():
            if late or (not connection.ending and connection.at_rest()):
                connection.hang_up("shutdown", at_once=late)
        self._tell_if_empty()
        if self._when_empty:
            self.clock.callLater(limits.SHUTDOWN_SILENCE / 4, self._drain_on)
