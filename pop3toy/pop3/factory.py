"""The factory: one protocol for each connection."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.cred.portal import Portal
from twisted.internet.interfaces import IReactorTime

from .. import limits
from ..events import Observers
from ..interfaces import Authenticator, IGate, Limiter
from ..net.factory import ConnectionFactory
from ..net.sending import Sending
from .protocol import POP3Protocol

__all__ = ["POP3Factory"]


class POP3Factory(ConnectionFactory):
    """Makes a :class:`POP3Protocol` for each connection.

    :param reactor: the clock of all timers (``IReactorTime``); they do not mind that the time
        of day is set.
    :param authenticator: decides who may come in and opens the maildrop; see
        :class:`pop3toy.auth.authenticator.PortalAuthenticator` for one over a
        ``twisted.cred`` portal.
    :param observers: are told of events: ``Observers(MemoryTranscript())``.
    :param limiter: counts connections and turns some away; ``None`` lets all in.
    :param tls_context: offers STLS with this context factory.
    :param numbers: session numbers, shared with others whose observers are the same.
    :param sending: how octets reach the transports; the plain way, if none is given.
    :param gate: holds, changes or drops commands and replies.
    :param before_login: seconds of silence at least that a client may take before it has logged in.
    :param expire_days: how many days messages stay, for CAPA; ``None`` until they are deleted.
    """

    protocol = POP3Protocol

    def __init__(
        self,
        reactor: IReactorTime,
        authenticator: Authenticator,
        *,
        observers: Observers | None = None,
        limiter: Limiter | None = None,
        tls_context: object | None = None,
        numbers: Iterator[int] | None = None,
        sending: Sending | None = None,
        gate: IGate | None = None,
        before_login: float = limits.IDLE_BEFORE_LOGIN,
        expire_days: int | None = None,
    ) -> None:
        if isinstance(authenticator, Portal):
            raise TypeError(
                "a portal needs an authenticator: POP3Factory(reactor, PortalAuthenticator(portal))"
            )
        super().__init__(
            reactor,
            observers=observers,
            limiter=limiter,
            tls_context=tls_context,
            numbers=numbers,
            sending=sending,
            gate=gate,
        )
        self.authenticator = authenticator
        self.before_login = before_login
        self.expire_days = expire_days
