"""Factories for SMTP, submission and LMTP ports: one protocol for each connection.

:func:`smtp_factory`, :func:`submission_factory` and :func:`lmtp_factory` are what ``run.assembly`` uses,
and what other programs may.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ..events import Observers
from ..interfaces import Authenticator, IDelivery, IGate, IRecipientResolver, Limiter, Outgoing
from ..net.factory import ConnectionFactory
from ..net.sending import Sending
from . import limits
from .policies import LMTP, SMTP, SUBMISSION
from .protocol import SMTPProtocol
from .session import Options, Policy

__all__ = ["SMTPFactory", "lmtp_factory", "smtp_factory", "submission_factory"]


class SMTPFactory(ConnectionFactory):
    """Makes an :class:`SMTPProtocol` for each connection.

    :param policy: what is spoken: one of those in ``policies``.
    :param delivery: where the mail goes.
    :param resolver: whose an address is.
    :param reactor: the clock of all timers (``IReactorTime``).
    :param authenticator: over a portal with :class:`~pop3toy.smtp.submission.SenderRealm`, which opens no
        maildrop; submission needs one, and no other asks it.
    :param host: this server's name.
    :param tls: a context factory, to offer STARTTLS.
    :param observers: are given the events.
    :param limiter: counts connections and turns some away; ``None`` lets all in.
    :param numbers: session numbers, shared with others whose observers are the same.
    :param sending: how octets reach the transports; the plain way, if none is given.
    :param gate: holds, changes or drops commands and replies.
    :param largest_message: in octets.
    :param smtputf8: whether SMTPUTF8 is offered: store and readers can have UTF-8 in headers.
    :param original_to: write the recipients of a message into it, for a mail trap.
    :param wall: the time of day in seconds, for Received headers.
    :param idle: seconds of silence after which a connection ends.
    :param outgoing: takes what users who have logged in send elsewhere; for submission alone.
    """

    protocol = SMTPProtocol

    def __init__(
        self,
        policy: Policy,
        delivery: IDelivery,
        resolver: IRecipientResolver,
        reactor: IReactorTime,
        authenticator: Authenticator | None = None,
        *,
        host: str = "localhost",
        tls: object | None = None,
        observers: Observers | None = None,
        limiter: Limiter | None = None,
        numbers: Iterator[int] | None = None,
        sending: Sending | None = None,
        gate: IGate | None = None,
        largest_message: int = limits.MESSAGE,
        smtputf8: bool = True,
        original_to: bool = False,
        wall: Callable[[], float] = time.time,
        idle: float = limits.IDLE,
        outgoing: Outgoing | None = None,
    ) -> None:
        if policy.login_required and authenticator is None:
            raise TypeError(f"{policy.name} needs an authenticator")
        super().__init__(
            reactor,
            observers=observers,
            limiter=limiter,
            tls_context=tls,
            numbers=numbers,
            sending=sending,
            gate=gate,
        )
        self.policy = policy
        self.options = Options(
            delivery,
            resolver,
            host,
            wall,
            largest_message=largest_message,
            smtputf8=smtputf8,
            original_to=original_to,
            authenticator=authenticator if policy.login_required else None,
            idle=idle,
            # Whoever need not log in is relayed for by nobody.
            outgoing=outgoing if policy.login_required else None,
        )


#: An SMTP port: takes mail from anybody, for users of this server (RFC 5321).  Parameters as of
#: :class:`SMTPFactory`, without the first.
smtp_factory: Final = partial(SMTPFactory, SMTP)

#: A submission port: takes mail from users who log in, for users of this server (RFC 6409).
submission_factory: Final = partial(SMTPFactory, SUBMISSION)

#: An LMTP port for a mail server that hands over mail, such as Postfix or Exim (RFC 2033).  Every client that
#: can connect is trusted, so it belongs on a Unix socket, or on loopback.
lmtp_factory: Final = partial(SMTPFactory, LMTP)
