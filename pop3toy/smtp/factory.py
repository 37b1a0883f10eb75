"""Factories for SMTP, submission and LMTP ports: what connections share, and how they end.

:func:`smtp_factory`, :func:`submission_factory` and :func:`lmtp_factory` are what ``run.assembly``
uses, and what other programs may.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory

from ..interfaces import Authenticator, Gatekeeper, IDelivery, IMeter, ITranscript
from ..routing.recipients import Recipients
from . import limits
from .connection import Connection
from .lmtp import LMTPServer
from .session import Settings
from .smtp import SMTPServer
from .submission import SubmissionServer

__all__ = ["DeliveryFactory", "lmtp_factory", "smtp_factory", "submission_factory"]


class DeliveryFactory(ServerFactory):
    """Makes connections of one kind, and ends them in good order.

    :param make: makes one, of its settings, its number and who is told of its end.
    :param numbers: session numbers, shared with other factories whose transcript
        is the same.
    """

    noisy = False

    def __init__(
        self,
        make: Callable[[Settings, int, Callable[[Connection], None]], Connection],
        settings: Settings,
        *,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._make = make
        self._settings = settings
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._open: set[Connection] = set()
        self._when_empty: list[Deferred[None]] = []
        self._draining = False

    def startFactory(self) -> None:
        """A port was opened, maybe again: whoever comes is let in."""
        self._draining = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See :class:`twisted.internet.interfaces.IProtocolFactory`."""
        connection = self._make(self._settings, next(self._numbers), self._lost)
        # Behind a proxy it may never hear of a connection.
        connection.made = self._made
        return connection

    def _made(self, connection: Connection) -> None:
        self._open.add(connection)
        if self._draining:
            connection.end()

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            when_empty, self._when_empty = self._when_empty, []
            for waiting in when_empty:
                waiting.callback(None)

    def drain(self) -> Deferred[None]:
        """End all connections: what is being made durable is finished and acknowledged.

        :return: fires when the last one is gone.
        """
        self._draining = True
        if not self._open:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._when_empty.append(done)
        for connection in list(self._open):
            connection.end()
        return done


def smtp_factory(
    delivery: IDelivery,
    recipients: Recipients,
    clock: IReactorTime,
    *,
    host: str = "localhost",
    tls: object | None = None,
    transcript: ITranscript | None = None,
    gatekeeper: Gatekeeper | None = None,
    numbers: Iterator[int] | None = None,
    largest_message: int = limits.MESSAGE,
    smtputf8: bool = True,
    original_to: bool = False,
    wall: Callable[[], float] = time.time,
) -> DeliveryFactory:
    """An SMTP port: takes mail from anybody, for our own users (RFC 5321).

    :param delivery: where the mail goes.
    :param recipients: whose an address is.
    :param clock: the reactor.
    :param host: this server's name.
    :param tls: a context factory, to offer STARTTLS.
    :param transcript: writes the conversation down.
    :param gatekeeper: counts connections and turns some away; ``None`` lets all in.
    :param numbers: session numbers, shared by all who write to one transcript.
    :param largest_message: in octets.
    :param smtputf8: whether the store and who reads from it can bear UTF-8 in headers.
    :param original_to: write the recipients of a message into it, for a mail trap.
    :param wall: the time of day in seconds, for Received headers.
    """
    settings = Settings(
        delivery,
        recipients,
        clock,
        host,
        tls=tls,
        transcript=transcript,
        gatekeeper=gatekeeper,
        largest_message=largest_message,
        smtputf8=smtputf8,
        original_to=original_to,
        wall=wall,
    )
    return DeliveryFactory(SMTPServer, settings, numbers=numbers)


def submission_factory(
    delivery: IDelivery,
    recipients: Recipients,
    clock: IReactorTime,
    authenticator: Authenticator,
    *,
    host: str = "localhost",
    tls: object | None = None,
    transcript: ITranscript | None = None,
    meter: IMeter | None = None,
    gatekeeper: Gatekeeper | None = None,
    numbers: Iterator[int] | None = None,
    largest_message: int = limits.MESSAGE,
    smtputf8: bool = True,
    original_to: bool = False,
    wall: Callable[[], float] = time.time,
) -> DeliveryFactory:
    """A submission port: takes mail from users who log in, for our own users (RFC 6409).

    :param authenticator: over a portal with :class:`~pop3toy.smtp.submission.SenderRealm`,
        which opens no maildrop.
    :param meter: is told of failed logins.

    The other parameters are those of :func:`smtp_factory`.
    """
    settings = Settings(
        delivery,
        recipients,
        clock,
        host,
        tls=tls,
        transcript=transcript,
        gatekeeper=gatekeeper,
        largest_message=largest_message,
        smtputf8=smtputf8,
        original_to=original_to,
        wall=wall,
    )
    return DeliveryFactory(
        lambda settings, number, lost: SubmissionServer(settings, number, lost, authenticator, meter),
        settings,
        numbers=numbers,
    )


def lmtp_factory(
    delivery: IDelivery,
    recipients: Recipients,
    clock: IReactorTime,
    *,
    host: str = "localhost",
    transcript: ITranscript | None = None,
    gatekeeper: Gatekeeper | None = None,
    numbers: Iterator[int] | None = None,
    largest_message: int = limits.MESSAGE,
    smtputf8: bool = True,
    original_to: bool = False,
    wall: Callable[[], float] = time.time,
) -> DeliveryFactory:
    """An LMTP port for a mail server that hands over mail, such as Postfix or Exim (RFC 2033).

    Whoever can connect is trusted: a Unix socket, or loopback.  The parameters are
    those of :func:`smtp_factory`.
    """
    settings = Settings(
        delivery,
        recipients,
        clock,
        host,
        transcript=transcript,
        gatekeeper=gatekeeper,
        largest_message=largest_message,
        smtputf8=smtputf8,
        original_to=original_to,
        wall=wall,
    )
    return DeliveryFactory(LMTPServer, settings, numbers=numbers)
