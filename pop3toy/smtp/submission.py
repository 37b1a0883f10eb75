"""Submission (RFC 6409): SMTP for our own users, who log in as they do for POP3.

The same accounts, mechanisms and limits, by the same authenticator.

SMTP wants to know who somebody is and opens no maildrop, so that a mail program
can send while it fetches: :class:`SenderRealm` is the realm for that.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import (
    AuthenticationCancelled,
    AuthenticationFailed,
    BadCommand,
    MessageGone,
    NoSuchMailbox,
    NotBase64,
    Refusal,
)
from ..interfaces import (
    Authenticator,
    Challenge,
    Channel,
    Entry,
    Exchange,
    IMailbox,
    IMeter,
    MessageBody,
    SessionRecord,
)
from ..net.transport import channel_of
from ..pop3.commands import Response
from . import limits
from .connection import Connection
from .envelope import Sender
from .session import Settings
from .smtp import SMTPServer
from .transaction import Answer

__all__ = ["SenderRealm", "SubmissionServer"]

log = Logger()

_CANCELLED = "authentication is cancelled"


class _Login:
    """Who is sending on one connection, and how that is found out (RFC 4954).

    :param record: says from where; the authenticator limits failures by it.
    """

    def __init__(self, authenticator: Authenticator, record: SessionRecord, meter: IMeter | None) -> None:
        self._authenticator = authenticator
        self._record = record
        self._meter = meter
        self._mechanism = ""
        self._exchange: Exchange | None = None
        self._counted: AuthenticationFailed | None = None
        #: Who it is, once that is proven.
        self.user: str | None = None
        self.failures = 0

    @property
    def in_exchange(self) -> bool:
        """Whether the next line is a response."""
        return self._exchange is not None

    def mechanisms(self, channel: Channel) -> Sequence[str]:
        """What can work here and now."""
        self._record.channel = channel
        return () if self.user is not None else self._authenticator.mechanisms(channel)

    async def begin(self, mechanism: str, initial: bytes | None) -> Answer | Challenge:
        """AUTH; ``initial`` is the initial response as it came, or ``None``."""
        self._mechanism = mechanism
        try:
            self._exchange = self._authenticator.begin(mechanism, self._record)
        except Refusal as error:
            return self._refused(error)
        return await self.respond(initial, not_base64="that is not base64")

    async def respond(self, line: bytes | None, not_base64: str = _CANCELLED) -> Answer | Challenge:
        """The client's next line."""
        assert self._exchange is not None
        try:
            result = self._exchange.respond(line)
            if isinstance(result, Deferred):
                result = await result
        except NotBase64:
            self._exchange = None
            return 501, "5.5.2", not_base64
        except Refusal as error:
            return self._refused(error)
        if isinstance(result, Challenge):
            if result.refusal is not None:
                # It counts when it is certain; what the client answers may never come.
                self._count(result.refusal)
            return result
        self._exchange = None
        self.user = result.user
        result.logout()
        return 235, "2.7.0", "welcome"

    def _refused(self, error: Refusal) -> Answer:
        if isinstance(error, AuthenticationFailed):
            self._count(error)
        self._exchange = None
        # RFC 4954 section 4: 501 for "*", also where a refusal was still to be said.
        if isinstance(error, AuthenticationCancelled) or isinstance(error.__cause__, AuthenticationCancelled):
            return 501, "5.7.0", _CANCELLED
        if isinstance(error, BadCommand):
            return 501, "5.5.2", error.text
        if isinstance(error, AuthenticationFailed):
            return 535, "5.7.8", error.text
        log.warn("AUTH cannot be answered: {text} {detail}", text=error.text, detail=error.detail)
        # RFC 4954 section 4: the client keeps its password and tries again.
        return 454, "4.7.0", "login is not available at the moment"

    def _count(self, error: AuthenticationFailed) -> None:
        if error is self._counted:
            return
        self._counted = error
        self.failures += 1
        claimed = self._exchange.user if self._exchange is not None else None
        if self._meter is not None:
            self._meter.login_failed(self._record, claimed or "", self._mechanism, error.code)

    def cancel(self) -> None:
        """The client gave up, or is gone."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()


class SubmissionServer(SMTPServer):
    """One connection to a submission port (RFC 6409).

    :param authenticator: over a portal whose realm is :class:`SenderRealm`.
    :param meter: is told of failed logins, if given.
    """

    name = "submission"

    def __init__(
        self,
        settings: Settings,
        number: int,
        lost: Callable[[Connection], None],
        authenticator: Authenticator,
        meter: IMeter | None,
    ) -> None:
        super().__init__(settings, number, lost)
        self._login = _Login(authenticator, SessionRecord(number, Channel("unknown", local=False)), meter)
        self.commands[b"AUTH"] = self.do_AUTH

    @property
    def line_limit(self) -> int:
        """See :class:`Connection`; an initial response can be long as well."""
        return limits.AUTH_LINE

    def command_received(self, line: bytes, *, crlf: bool) -> None:
        """See :class:`Connection`."""
        if self._login.in_exchange:
            self.heard(line, Response(line))
            self.hold(self._answer(self._login.respond(line)))
        else:
            super().command_received(line, crlf=crlf)

    def line_too_long(self) -> None:
        """See :class:`Connection`; within an exchange it ends that (RFC 4954 section 4)."""
        self._login.cancel()
        super().line_too_long()

    def abandon(self) -> None:
        """See :class:`Connection`."""
        self._login.cancel()
        super().abandon()

    def forget(self) -> None:
        """See :class:`SMTPServer`."""
        super().forget()
        self._login.user = None
        self.authenticated = False

    def extensions(self) -> dict[bytes, list[bytes] | None]:
        """See :class:`SMTPServer`."""
        offered = super().extensions()
        # With nothing behind it, it is left out.
        offered[b"AUTH"] = [name.encode("ascii") for name in self._mechanisms()]
        return offered

    def _mechanisms(self) -> Sequence[str]:
        return self._login.mechanisms(channel_of(self.transport))

    def do_AUTH(self, rest: bytes) -> None:
        """RFC 4954 section 4."""
        name, _, initial = rest.partition(b" ")
        mechanism = name.upper().decode("ascii", "replace")
        if not name:
            self.error(501, "5.5.4", "AUTH needs the name of a mechanism")
        elif not self.may_log_in or self._login.user is not None:
            self.error(503, "5.5.1", "AUTH comes behind EHLO, before MAIL, once")
        elif mechanism in self._mechanisms():
            self.hold(self._answer(self._login.begin(mechanism, initial or None)))
        elif channel_of(self.transport).private:
            self.error(504, "5.5.4", "this mechanism is not available here")
        else:
            self.error(538, "5.7.11", "no login in clear text: STARTTLS comes first")

    async def _answer(self, step: Awaitable[Answer | Challenge]) -> None:
        answer = await step
        if isinstance(answer, Challenge):
            self.sendCode(334, b2a_base64(answer.data, newline=False))
            return
        self.authenticated = self._login.user is not None
        if self.authenticated:
            self.prove_useful()
        if answer[0] == 501:
            self.error(*answer)
            return
        code, enhanced, text = answer
        last = code == 535 and self._login.failures >= limits.FAILED_LOGINS
        self.reply(code, enhanced, f"{text}; too many failed logins, goodbye" if last else text)
        if last:
            self.reply(421, "4.7.0", "too many failed logins")
            self.close("limit")

    async def refuse_sender(self, sender: Sender) -> Answer | None:
        """Who has not logged in sends nothing; who has does not write in another's name."""
        if self._login.user is None:
            return 530, "5.7.0", "AUTH comes first"
        recipients = self.settings.recipients
        if sender.address is None:
            return None
        address = recipients.at_home(sender.address, self._names_of_this_host())
        # An address elsewhere may well be the user's own, and nothing here knows it.
        if recipients.ours(address):
            try:
                users: Sequence[str] = await recipients.resolve(address)
            except NoSuchMailbox:
                users = ()
            if self._login.user not in users:
                return 553, "5.7.1", "this address is not yours"
        return None

    def _names_of_this_host(self) -> list[str]:
        # A Unix socket has no address.
        own = getattr(self.transport.getHost(), "host", None)
        return [self.settings.host, own] if isinstance(own, str) else [self.settings.host]


@implementer(IMailbox)
class _NoMailbox:
    """What somebody gets who came to send: an avatar with nothing in it."""

    entries: Sequence[Entry] = ()

    def read(self, uid: bytes) -> MessageBody:
        raise MessageGone

    def remove(self, uids: Sequence[bytes]) -> None:
        return None

    def release(self) -> None:
        return None


@implementer(IRealm)
class SenderRealm:
    """The realm of a portal for :class:`~pop3toy.auth.authenticator.PortalAuthenticator`
    behind a submission port: lets in, and opens nothing.
    """

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: Any
    ) -> tuple[Any, object, Callable[[], None]]:
        """See :class:`twisted.cred.portal.IRealm`."""
        if IMailbox not in interfaces:
            raise NotImplementedError("this realm knows IMailbox only")
        return IMailbox, _NoMailbox(), lambda: None
