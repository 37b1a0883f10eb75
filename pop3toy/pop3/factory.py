"""The factory: one protocol for each connection, and how all of them end.

It holds what the connections share, and knows who is connected.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from .. import limits
from ..clock import steady
from ..interfaces import Authenticator, Channel, Gatekeeper, IMeter, ITranscript, SessionRecord, Turns
from .protocol import POP3Protocol

__all__ = ["POP3Factory"]


@implementer(IMeter)
class SilentMeter:
    """Counts nothing."""

    def connected(self, record: SessionRecord) -> None:
        """See :class:`IMeter`."""

    def turned_away(self, channel: Channel, why: str) -> None:
        """See :class:`IMeter`."""

    def login_failed(self, record: SessionRecord, user: str, mechanism: str, why: str) -> None:
        """See :class:`IMeter`."""

    def logged_in(self, record: SessionRecord) -> None:
        """See :class:`IMeter`."""

    def ended(self, record: SessionRecord) -> None:
        """See :class:`IMeter`."""


class POP3Factory(ServerFactory):
    """Makes a :class:`POP3Protocol` for each connection.

    :param reactor: the clock of all timers (``IReactorTime``); they do not mind that the time
        of day is set.
    :param authenticator: decides who may come in and opens the maildrop; see
        :class:`pop3toy.auth.authenticator.PortalAuthenticator` for one over a
        ``twisted.cred`` portal.
    :param transcript: where the conversation is written down, or ``None``.
    :param meter: who is told of logins and ends.
    :param gatekeeper: counts connections and turns some away; ``None`` lets all in.
    :param tls_context: offers STLS with this context factory.
    :param numbers: session numbers, shared with others who write to one transcript.
    :param turns: the :class:`pop3toy.net.fast.reply_batcher.ReactorTurns` of the reactor, if it has turns.
    """

    protocol = POP3Protocol  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        authenticator: Authenticator,
        *,
        transcript: ITranscript | None = None,
        meter: IMeter | None = None,
        gatekeeper: Gatekeeper | None = None,
        tls_context: object | None = None,
        numbers: Iterator[int] | None = None,
        turns: Turns | None = None,
    ) -> None:
        if isinstance(authenticator, Portal):
            raise TypeError(
                "a portal needs an authenticator: POP3Factory(reactor, PortalAuthenticator(portal))"
            )
        self.clock: IReactorTime = steady(reactor)
        self.authenticator = authenticator
        self.transcript = transcript
        self.meter: IMeter = meter if meter is not None else SilentMeter()
        self.gatekeeper = gatekeeper
        self.tls_context = tls_context
        self.turns = turns
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._connections: dict[POP3Protocol, None] = {}
        self._when_empty: list[Deferred[None]] = []
        self._stop_at = 0.0
        #: The server is stopping; whoever comes now, by a port that is still open, is turned away.
        self.draining = False

    def buildProtocol(self, addr: IAddress | None) -> POP3Protocol:  # type: ignore[override]
        """A protocol with the next session number."""
        return POP3Protocol(self, next(self._numbers))

    def startFactory(self) -> None:
        """A port was opened, maybe again: whoever comes is let in."""
        self.draining = False

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def connected(self, protocol: POP3Protocol) -> None:
        """A protocol has its transport."""
        self._connections[protocol] = None

    def disconnected(self, protocol: POP3Protocol) -> None:
        """A protocol has lost its transport."""
        self._connections.pop(protocol, None)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self._connections:
            when_empty, self._when_empty = self._when_empty, []
            for waiting in when_empty:
                waiting.callback(None)

    def drain(self) -> Deferred[None]:
        """Let the sessions end, for a bounded time (``limits.SHUTDOWN_GRACE``).

        Strangers go at once, a session goes as soon as it is silent for
        ``limits.SHUTDOWN_SILENCE`` seconds; what QUIT has begun is finished.

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

    def _drain_on(self) -> None:
        late = self.clock.seconds() >= self._stop_at
        for protocol in list(self._connections):
            idle = not protocol.logged_in or protocol.silence() >= limits.SHUTDOWN_SILENCE
            if late or (idle and not protocol.ending):
                protocol.hang_up("shutdown")
        self._tell_if_empty()
        if self._when_empty:
            self.clock.callLater(limits.SHUTDOWN_SILENCE / 4, self._drain_on)
