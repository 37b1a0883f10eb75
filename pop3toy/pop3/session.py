"""One session: the states of RFC 1939, what is known in each, and how an error becomes ``-ERR``.

A session is pure: it takes parsed lines and gives replies (or Deferreds of
them) and knows no transport, no reactor and no clock.  What the commands do
stands in ``authorization`` and ``transaction``, named after the RFC's chapters;
which command there is in which state, and how a line is carried out, in ``dispatch``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import limits
from ..errors import AuthenticationFailed, BadCommand, Refusal, StoreTrouble
from ..events import LoggedIn, LoginFailed, MessageRetrieved
from ..interfaces import (
    LATER,
    After,
    Authenticator,
    Challenge,
    Channel,
    ConnectionSlot,
    Delayed,
    Entry,
    Exchange,
    ILeasedMailbox,
    Later,
    Login,
    MaybeDeferred,
    SessionRecord,
    is_deferred,
)
from ..masking import name_alone
from . import commands
from .commands import Command, Malformed, Parsed, Response
from .maildrop import Maildrop
from .replies import Reply, Status

__all__ = ["Session", "State"]

log = Logger()

#: The maildrop before login.
_NOTHING = Maildrop(())

#: What a login that waits is told when its connection ends before that.
_SAID = {
    "shutdown": "the server is stopping, try again later",
    "limit": "too many connections",
    "administrator": "closed by the administrator",
}


def _nothing(why: str) -> None:
    """A session without a connection."""


class State(Enum):
    """RFC 1939 section 3; CLOSED is behind UPDATE and behind every last reply."""

    AUTHORIZATION = "AUTHORIZATION"
    TRANSACTION = "TRANSACTION"
    UPDATE = "UPDATE"
    CLOSED = "CLOSED"

    # Each command looks one up in a table; Enum's own is a call of Python's.
    __hash__ = object.__hash__


class Session:
    """The server's side of one conversation; its part of :class:`~pop3toy.net.connection.Conversation`.

    :param authenticator: decides who may come in.
    :param record: what is written down about this session, kept up to date.
    :param happened: is told of events: the kind, and the fields behind ``session`` and ``at``.
    :param handed_over: asks the writer whether the kernel has all that was said; false if the
        connection takes nothing any more.
    :param call_later: calls something in so many seconds, as ``IReactorTime.callLater`` does; without
        it what takes too long is waited for.
    :param hang_up: ends the connection without a word; is told why, as ``SessionRecord.ended`` has it.
    :param before_login: seconds of silence at least that a client may take before it has logged in.
    :param expire_days: how many days messages stay; ``None`` until they are deleted.
    """

    name = "POP3"

    def __init__(
        self,
        authenticator: Authenticator,
        record: SessionRecord,
        *,
        happened: Callable[..., object] = lambda *what: None,
        handed_over: Callable[[], MaybeDeferred[bool]] = lambda: True,
        hang_up: Callable[[str], object] = _nothing,
        call_later: Callable[..., Delayed] | None = None,
        before_login: float = limits.IDLE_BEFORE_LOGIN,
        expire_days: int | None = None,
    ) -> None:
        self.authenticator: Authenticator = authenticator
        self.record = record
        self.happened = happened
        self.before_login = before_login
        self.expire_days = expire_days
        #: Whether TLS can be started on this connection.
        self.can_start_tls = False
        self.slot: ConnectionSlot | None = None
        self.state = State.AUTHORIZATION
        #: The name that USER brought, until PASS.
        self.user: bytes | None = None
        #: The APOP timestamp of the greeting.
        self.timestamp: str | None = None
        #: The SASL exchange in progress.
        self.exchange: Exchange | None = None
        #: The user's login, and the maildrop, in TRANSACTION.
        self.login: Login | None = None
        self.maildrop = _NOTHING
        self.handed_over: Callable[[], MaybeDeferred[bool]] = handed_over
        self._hang_up = hang_up
        self._call_later = call_later
        #: Whether the lock of the maildrop was lost: there is no UPDATE then.
        self.lock_lost = False
        #: Whether QUIT waits for what was fetched to be handed over.
        self.quitting = False
        #: Whether a message was asked for in this session.
        self.fetched = False
        self.failed_logins = 0
        #: Whether the client has shown that it speaks POP3.
        self.speaks_pop3 = False
        self._bad_in_a_row = 0
        # Whom the last failed authentication was about, for the log.
        self._claimed = ""
        self._gone = False
        # Fire when the session has ended: see end().
        self._when_ended: list[Deferred[None]] = []
        # The mailbox is being given back.
        self._releasing = False
        # Says what QUIT is answered, while it waits for that; and when it waits no longer.
        self._say_goodbye: Callable[[], object] | None = None
        self._late: Delayed | None = None

    @property
    def channel(self) -> Channel:
        """The connection as it is now."""
        return self.record.channel

    def greet(self) -> Reply:
        """The greeting, with a timestamp where APOP works (RFC 1939 sections 4 and 7)."""
        self.timestamp = self.authenticator.timestamp(self.channel)
        return Status(True, f"pop3toy ready {self.timestamp or ''}")

    def turned_away(self, refusal: Refusal) -> Reply:
        """The only reply, to one connection too many."""
        return Status(False, refusal.text, refusal.code, After.CLOSE)

    # -- lines in, replies out ---------------------------------------------------

    def parse(self, line: bytes, crlf: bool = True) -> Parsed:
        """What a line is: within a SASL exchange a response, else a command."""
        return Response(line) if self.exchange is not None else commands.parse(line)

    def too_long(self) -> Parsed:
        """What stands for a line of which too much came to keep it."""
        return commands.TOO_LONG

    def text_received(self, data: bytes) -> tuple[bytes | None, MaybeDeferred[Reply | None]]:
        """Never asked for: POP3 sends messages, and takes none."""
        raise NotImplementedError

    def masked_line(self, line: bytes, parsed: Parsed) -> tuple[bytes, str]:
        """What of a line is no secret, and its keyword."""
        keyword = parsed.keyword if isinstance(parsed, Command | Malformed) else ""
        return commands.masked(line, parsed), keyword or ""

    def masked_reply(self, reply: Reply, encoded: bytes) -> bytes:
        """What of a reply is no secret: with what SCRAM asks passwords can be tried out."""
        return b"+ ****\r\n" if isinstance(reply, Challenge) and reply.data else encoded

    @property
    def asks_for_secret(self) -> bool:
        """Whether USER or AUTH has begun a login, so that a password or the like comes next."""
        return self.user is not None or self.exchange is not None

    def went_well(self, reply: Reply) -> Reply:
        """A line was carried out: mistakes before it are forgotten."""
        self.speaks_pop3 = True
        # A challenge is no success yet: AUTH and "*" for ever is no way to stay.
        if self.exchange is None:
            self._bad_in_a_row = 0
        return reply

    def refused(self, failure: Failure) -> Reply:
        """The one place that turns an error into ``-ERR``."""
        error = failure.value
        if not isinstance(error, Refusal):
            self.log_bug(failure)
            error = StoreTrouble("internal error, the administrator has been told")
        elif error.detail:
            log.warn(
                "session {number}, user {user!r}: {text}: {detail}",
                number=self.record.number,
                user=self.record.user or self._claimed[: limits.COMMAND_LINE],
                text=error.text,
                detail=error.detail,
            )
        text, after = error.text, After.GO_ON
        if isinstance(error, BadCommand):
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= self._patience():
                text, after = f"{text}; too many bad commands, goodbye", self.close("limit")
        else:
            self.speaks_pop3 = True
        if isinstance(error, AuthenticationFailed):
            self.failed_logins += 1
            if self.failed_logins >= limits.FAILED_LOGINS:
                text, after = f"{text}; too many failed logins, goodbye", self.close("limit")
        return Status(False, text, error.code, after)

    def login_failed(self, user: str, mechanism: str, failure: Failure) -> None:
        """An authentication failed; ``user`` is what the client claimed."""
        self._claimed = user = name_alone(user.encode("utf-8", "replace")).decode("utf-8")
        why = failure.value.code if isinstance(failure.value, Refusal) else "SYS/TEMP"
        self.happened(LoginFailed, self.name, self.channel, user, mechanism, why or "refused")

    def log_bug(self, failure: Failure) -> None:
        """Log an unforeseen exception in full."""
        log.failure("session {number}: a bug, answered with [SYS/TEMP]", failure, number=self.record.number)

    def _patience(self) -> int:
        if self.state is State.AUTHORIZATION:
            return limits.BAD_COMMANDS_BEFORE_LOGIN
        return limits.BAD_COMMANDS

    # -- coming and going ----------------------------------------------------------

    def login_succeeded(self, login: Login) -> Reply:
        """A user is in: AUTHORIZATION becomes TRANSACTION (RFC 1939 section 4)."""
        if self._gone:
            # The client left while the password was being looked at.
            self._log_out(login)
            return Status(False, "too late", after=After.CLOSE)
        self.exchange = None
        try:
            self.maildrop = Maildrop(login.mailbox.entries)
        except Exception:
            self._log_out(login)
            raise
        self.login = login
        self.user = None
        self.record.user = login.user
        self.record.mechanism = login.mechanism
        self.state = State.TRANSACTION
        if self.slot is not None:
            if login.mechanism == "ANONYMOUS":
                # An anonymous visitor: users and unauthenticated connections go before.
                self.slot.idle()
            else:
                self.slot.logged_in()
        if ILeasedMailbox.providedBy(login.mailbox):
            login.mailbox.when_lost(self._lock_is_lost)
        self.happened(LoggedIn, self.name, self.record.channel, login.user, login.mechanism)
        return Status(True, f"maildrop has {self.maildrop.summary()}")

    def retrieved(self, number: int, entry: Entry) -> None:
        """All of a message was handed to the writer."""
        self.record.retrieved += 1
        self.happened(MessageRetrieved, number, entry.uid, entry.octets)

    def _lock_is_lost(self, why: str) -> None:
        """Another session may have the maildrop by now: end without UPDATE."""
        if self.state is not State.TRANSACTION:
            # It is over, or the store finds out itself while it removes.
            return
        self.lock_lost = True
        log.warn(
            "session {number}, user {user!r}: lock lost: {why}",
            number=self.record.number,
            user=self.record.user,
            why=why,
        )
        if not self.quitting:
            self._hang_up("store")

    def begin_update(self) -> None:
        """QUIT: from here on the session finishes even if the client goes away."""
        self.state = State.UPDATE
        if self.login is not None:
            self.login.ending()

    def close(self, how: str) -> After:
        """The session ends with the reply that is being made."""
        self.record.ended = how
        self.release()
        self._finish()
        return After.CLOSE

    def quit(self, how: str, reply: Reply) -> MaybeDeferred[Reply]:
        """The session ends with QUIT: its answer, when the maildrop is free for the client's next session.

        :param reply: what it is answered; its ``after`` is ``CLOSE``.
        :return: the answer at once unless giving back takes a while; then not later than
            ``limits.RELEASE``, and giving back goes on behind it.
        """
        self.record.ended = how
        self.release()
        if not self._releasing:
            self._finish()
            return reply
        # It is a part of UPDATE (RFC 1939 section 6).
        self.state = State.UPDATE
        answer: Deferred[Reply] = Deferred()
        self._say_goodbye = partial(answer.callback, reply)
        if self._call_later is not None:
            self._late = self._call_later(limits.RELEASE, self._is_late)
        return answer

    def _is_late(self) -> None:
        log.warn(
            "session {number}, user {user!r}: the maildrop is not free after {seconds:g} seconds;"
            " QUIT is answered, and giving it back goes on",
            number=self.record.number,
            user=self.record.user,
            seconds=limits.RELEASE,
        )
        self._late = None
        self._finish()

    def _finish(self) -> None:
        """Nothing is said any more, but what QUIT is answered."""
        self.state = State.CLOSED
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
        say_goodbye, self._say_goodbye = self._say_goodbye, None
        if say_goodbye is not None:
            say_goodbye()
        self._tell_ended()

    def release(self) -> None:
        """Give the mailbox back.  Commits nothing: only QUIT does (RFC 1939 section 6)."""
        login, self.login = self.login, None
        if login is not None:
            self._log_out(login)

    def _log_out(self, login: Login) -> None:
        """The realm may be another program's: its mistakes must not keep a session from ending."""
        try:
            leaving = login.logout()
        except Exception:
            self.log_bug(Failure())
        else:
            if leaving is not None and is_deferred(leaving):
                self._releasing = True
                leaving.addErrback(self.log_bug).addCallback(self._released)

    def _released(self, _: object) -> None:
        self._releasing = False
        if self._say_goodbye is not None:
            self._finish()
        else:
            self._tell_ended()

    def restart(self, channel: Channel) -> None:
        """TLS is on: forget all that was learned before (RFC 2595 section 4)."""
        self.record.channel = channel
        self.can_start_tls = False
        self.user = None
        self._bad_in_a_row = 0

    def closing(self, why: str, waiting: bool) -> Reply | Later | None:
        """The server ends the connection: in silence (RFC 1939 section 3), but a login that waits is told.

        QUIT that is being carried out is answered before.
        """
        if self.finishing:
            return LATER
        if waiting and self.state is State.AUTHORIZATION and why in _SAID:
            return Status(False, _SAID[why], StoreTrouble.code, After.CLOSE)
        return None

    def deadline(self, now: float, began: float, last: float, *, shaking_hands: bool, waiting: bool) -> float:
        """When patience ends: the autologout timer of RFC 1939 section 3, and less before login.

        A stranger who asks for CAPA now and then is cut as well, but not who is looking for
        the password that he was asked for in time.
        """
        if self.state is not State.AUTHORIZATION:
            return last + limits.IDLE
        # A handshake needs no time for looking things up.
        knows = self.speaks_pop3 and not shaking_hands
        patience = limits.IDLE_WITHIN_AUTH if knows else limits.IDLE_BEFORE_LOGIN
        end = last + max(patience, self.before_login)
        in_all = max(limits.STRANGER, self.before_login)
        if waiting or (self.asks_for_secret and last - began < in_all):
            return end
        return min(end, began + in_all)

    @property
    def logged_in(self) -> bool:
        """Whether a user is logged in."""
        return self.state is State.TRANSACTION

    @property
    def finishing(self) -> bool:
        """Whether QUIT is removing messages, or giving the maildrop back."""
        return self.state is State.UPDATE

    @property
    def over(self) -> bool:
        """Whether the session has ended."""
        return self.state is State.CLOSED

    @property
    def state_name(self) -> str:
        """The state's name in RFC 1939."""
        return self.state.value

    def end(self) -> MaybeDeferred[None]:
        """Nothing more is asked.  What UPDATE has begun it finishes; the mailbox is given back.

        :return: fires when both is done; ``None`` if it is.
        """
        self._gone = True
        # It is the connection's, which shall not be known by what it knows.
        self._hang_up = _nothing
        if self.record.give_up_opening is not None:
            self.record.give_up_opening()
        if self.exchange is not None:
            self.exchange.cancel()
            self.exchange = None
        self.record.leave()
        if self.state is not State.UPDATE:
            self.release()
            self.state = State.CLOSED
        elif self._say_goodbye is not None:
            # The client is gone.
            self._finish()
        if self.state is State.UPDATE or self._releasing:
            ended: Deferred[None] = Deferred()
            self._when_ended.append(ended)
            return ended
        return None

    def _tell_ended(self) -> None:
        if self.state is State.CLOSED and not self._releasing:
            when_ended, self._when_ended = self._when_ended, []
            for waiting in when_ended:
                waiting.callback(None)
