"""One session: the states of RFC 5321, what is known in each, and how a mistake is answered.

A session is pure: it takes parsed lines and text and gives replies (or Deferreds of them), and knows no
transport, no reactor and no clock.  What the commands do stands in ``greeting``, ``authentication`` and
``transaction``; which there are in which state, its :class:`Policy` says (``policies``).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import Enum
from math import inf
from types import CoroutineType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import AuthenticationFailed, Refusal, StoreTrouble
from ..events import Delivered, LoggedIn, LoginFailed, Refused
from ..interfaces import (
    LATER,
    After,
    Authenticator,
    Challenge,
    Channel,
    ConnectionSlot,
    Exchange,
    IDelivery,
    Later,
    Login,
    MaybeDeferred,
    Recipients,
    SessionRecord,
    is_deferred,
)
from ..masking import name_alone
from . import commands, limits
from .commands import Command, Parsed, Response
from .message import BUG, Message
from .replies import Answer, Replies, Reply

__all__ = ["Handler", "Options", "Policy", "Session", "State"]

log = Logger()

_T = TypeVar("_T")


class State(Enum):
    """Where a session is (RFC 5321 section 4.1.4)."""

    BEFORE_HELLO = "before hello"
    READY = "ready"
    MAIL = "mail begun"
    RECIPIENTS = "recipients given"
    TEXT = "text"
    #: The message has ended and is being made durable, which goes on whatever the client does.
    DELIVERING = "delivering"
    CLOSED = "closed"

    # Each command looks one up in a table; Enum's own is a call of Python's.
    __hash__ = object.__hash__


#: What a command does: gives its answer, or a coroutine or Deferred of it.
Handler: TypeAlias = "Callable[[Session, Command], Answer | Coroutine[Any, Any, Answer]]"


class Policy(NamedTuple):
    """What makes a port one of SMTP, of submission or of LMTP; the three are in ``policies``."""

    #: As events tell it.
    name: str
    #: What each command does in each state.
    tables: Mapping[State, Mapping[str, Handler]]
    #: The verbs that there are in some state.
    verbs: frozenset[str]
    #: What is spoken here, in the greeting.
    speaks: str = "ESMTP"
    #: The command that comes first.
    hello: str = "EHLO"
    #: What Received calls the protocol, without and with extensions (RFC 3848).
    protocols: tuple[str, str] = ("SMTP", "ESMTP")
    #: What carries out a line within a SASL exchange.
    respond: Callable[[Session, Response], Coroutine[Any, Any, Answer]] | None = None
    #: One reply for all recipients of a message: they stand and fall together.
    together: bool = True
    #: Who has not logged in sends nothing.
    login_required: bool = False
    #: Many unknown recipients look as if somebody tried names.
    unknown_is_mistake: bool = True


class Options(NamedTuple):
    """What all sessions of one port have in common."""

    delivery: IDelivery
    recipients: Recipients
    #: This server's name, in the greeting and in Received headers.
    host: str
    #: The time of day, for Received headers.
    wall: Callable[[], float]
    largest_message: int = limits.MESSAGE
    smtputf8: bool = True
    #: Write the recipients of a message into it: for a mail trap, where one user gets what is for everybody.
    original_to: bool = False
    authenticator: Authenticator | None = None
    #: Seconds of silence after which a connection ends.
    idle: float = limits.IDLE


#: What a client is told whose connection the server ends (RFC 5321 section 3.8).
_LAST_WORDS = {
    "timeout": Reply(421, "you were silent for too long", "4.4.2", After.CLOSE),
    "limit": Reply(421, "too many connections", "4.7.0", After.CLOSE),
    "administrator": Reply(421, "closed by the administrator", "4.3.2", After.CLOSE),
    "shutdown": Reply(421, "this server is shutting down", "4.3.2", After.CLOSE),
    "store": BUG._replace(code=421, after=After.CLOSE),
    "bug": BUG._replace(code=421, after=After.CLOSE),
}


class Session:
    """The server's side of one conversation: a :class:`~pop3toy.net.connection.Conversation`.

    :param record: what is written down about this session, kept up to date.
    :param happened: is told of events: the kind, and the fields behind ``session`` and ``at``.
    """

    def __init__(
        self,
        policy: Policy,
        options: Options,
        record: SessionRecord,
        *,
        happened: Callable[..., object] = lambda *what: None,
    ) -> None:
        self.policy = policy
        self.options = options
        self.record = record
        self.happened = happened
        self.name = policy.name
        #: Whether TLS can be started on this connection.
        self.can_start_tls = False
        self.slot: ConnectionSlot | None = None
        #: The server's address on this connection, in text, where it has one.
        self.own_address: str | None = None
        self.state = State.BEFORE_HELLO
        #: What the client calls itself, once it has said so; and whether it knows extensions.
        self.client_name: bytes | None = None
        self.extended = False
        #: The message on its way.
        self.message: Message | None = None
        #: The SASL exchange in progress, and who has logged in.
        self.exchange: Exchange | None = None
        self.user: str | None = None
        self.failed_logins = 0
        # The client's mistakes, and its commands, since it last brought a message or logged in.
        self._mistakes = self._commands = 0
        # Whether it has brought a message, or its client has logged in.
        self._useful = False
        # Since when, at least, it has a message on its way and keeps its place; begun anew by a message that
        # arrives, not by RSET and MAIL.
        self._message_seen: float | None = None
        self._gone = False
        # Who waits for the end: see end().
        self._when_ended: list[Deferred[None]] = []

    @property
    def channel(self) -> Channel:
        """The connection as it is now."""
        return self.record.channel

    def greet(self) -> Answer:
        """The greeting (RFC 5321 section 4.2)."""
        return Reply(220, f"{self.options.host} {self.policy.speaks} pop3toy")

    def turned_away(self, refusal: Refusal) -> Answer:
        """The only reply, to one connection too many; RFC 5321 section 3.8 allows 421 at any time."""
        return Reply(421, refusal.text, "4.7.0", After.CLOSE)

    # -- lines in, replies out ---------------------------------------------------

    def parse(self, line: bytes, crlf: bool = True) -> Parsed:
        """What a line is: within a SASL exchange a response, else a command."""
        if self.exchange is not None:
            return Response(line)
        return commands.parse(line, self.policy.verbs, crlf=crlf)

    def too_long(self) -> Parsed:
        """What stands for a line of which too much came to keep it."""
        return commands.TOO_LONG

    def shown(self, line: bytes, parsed: Parsed) -> tuple[bytes, str]:
        """What of a line is no secret, and its verb."""
        return commands.shown(line, parsed), "" if isinstance(parsed, Response) else parsed.verb

    def reply_shown(self, reply: Answer, encoded: bytes) -> bytes:
        """What of a reply is no secret: with what SCRAM asks passwords can be tried out."""
        return b"334 ****\r\n" if isinstance(reply, Challenge) and reply.data else encoded

    def handle(self, parsed: Parsed) -> MaybeDeferred[Answer]:
        """Carry out one line and answer it.  Never raises, never fails."""
        self._commands += 1
        if self._commands > limits.COMMANDS:
            return self.close("limit", Reply(421, "too many commands without a message", "4.7.0"))
        try:
            answer = self._carried_out(parsed)
            if type(answer) is CoroutineType:
                answer = _at_hand(answer)
        except Exception:
            return self.refused(Failure())
        return answer.addErrback(self.refused) if is_deferred(answer) else answer

    def _carried_out(self, parsed: Parsed) -> Any:
        if isinstance(parsed, Command):
            handler = self.policy.tables[self.state].get(parsed.verb)
            if handler is None:
                return self.mistake(Reply(503, self._what_comes_first(parsed.verb), "5.5.1"))
            return handler(self, parsed)
        if isinstance(parsed, Response):
            assert self.policy.respond is not None
            return self.policy.respond(self, parsed)
        # Within an exchange it ends that, and has a code of its own (RFC 4954 section 4).
        enhanced = parsed.enhanced if self.exchange is None else "5.5.6"
        self._cancel_exchange()
        return self.mistake(Reply(parsed.code, parsed.reason, enhanced))

    def _what_comes_first(self, verb: str) -> str:
        """Why a command that there is has no place in this state."""
        if self.state is State.BEFORE_HELLO:
            return f"{self.policy.hello} comes first"
        if verb == "DATA":
            return "RCPT comes first" if self.state is State.MAIL else "MAIL and RCPT come first"
        if verb == "RCPT":
            return "MAIL comes first"
        if verb == "MAIL":
            return "one sender for each message; RSET begins anew"
        return f"{verb} has no place within a message; RSET begins anew"

    def text_received(self, data: bytes) -> tuple[bytes | None, MaybeDeferred[Answer | None]]:
        """Octets of a message, behind DATA."""
        message = self.message
        assert message is not None
        rest, waiting = message.feed(data, self.options.largest_message)
        if message.text.octets > 2 * self.options.largest_message:
            # Its end may never come.
            far = Reply(421, f"message is far larger than {self.options.largest_message} octets", "4.3.4")
            return rest, self.close("limit", self.refuse(far))
        if waiting is None and rest is None:
            return None, None
        return rest, _at_hand(self._text_taken(message, waiting))

    async def _text_taken(self, message: Message, waiting: Deferred[None] | None) -> Answer | None:
        if waiting is not None:
            await message.written(waiting)
        # Not if the connection was lost meanwhile.
        if message.dropped or not message.text.finished:
            return None
        # From here on a lost connection takes nothing back.
        self.state = State.DELIVERING
        outcome = await message.commit(together=self.policy.together)
        uids = [(user, result) for user, result in outcome.items() if isinstance(result, bytes)]
        if uids:
            octets = message.text.octets
            self.happened(
                Delivered, self.name, self.channel, message.queue_id, message.from_whom, octets, uids
            )
        answer = self._how_it_went(message, outcome)
        self._message_over(delivered=bool(uids))
        return answer

    def _how_it_went(self, message: Message, outcome: Mapping[str, bytes | StoreTrouble]) -> Answer:
        taken = f"delivered as {message.queue_id}"
        if self.policy.together:
            [*others, (recipient, refusal)] = message.fates(outcome)
            if refusal is None:
                return Reply(250, taken, "2.0.0")
            return self.refuse(refusal, "" if others else recipient)
        # RFC 2033 section 4.2: one reply for each RCPT that was accepted, in their order.
        return Replies(
            tuple(
                Reply(250, taken, "2.1.5") if refusal is None else self.refuse(refusal, recipient)
                for recipient, refusal in message.fates(outcome)
            )
        )

    def mistake(self, reply: Reply) -> Answer:
        """Answer a mistake of the client's; too many of them end the connection."""
        self._mistakes += 1
        if self._mistakes < limits.ERRORS:
            return reply
        last = reply._replace(text=f"{reply.text}; too many errors, goodbye")
        return self.close("limit", last, Reply(421, "too many errors", "4.7.0"))

    def refuse(self, reply: Reply, recipient: str = "", sender: str = "") -> Reply:
        """Tell that mail is not taken, which is answered so.

        :param sender: where there is no message yet.
        """
        message = self.message
        of = (message.queue_id, message.from_whom) if message is not None else ("", sender)
        why = (reply.code, reply.enhanced, reply.text)
        self.happened(Refused, self.name, self.channel, *of, recipient, *why)
        return reply

    def refused(self, failure: Failure) -> Answer:
        """What nobody foresaw: it is written down in full, and the client hears that it may try again."""
        log.failure("session {number}: a bug, answered with 451", failure, number=self.record.number)
        self._cancel_exchange()
        self.forget_message()
        return BUG

    # -- who it is -----------------------------------------------------------------

    def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms that can work here and now."""
        authenticator = self.options.authenticator
        if authenticator is None or self.user is not None:
            return ()
        return authenticator.mechanisms(self.channel)

    def login_succeeded(self, login: Login) -> Answer:
        """The client is who it says; nothing is opened for it."""
        self.exchange = None
        login.logout()
        if self.state is not State.CLOSED:
            self.user = self.record.user = login.user
            self.record.mechanism = login.mechanism
            self._prove_useful()
            self.happened(LoggedIn, self.name, self.channel, login.user, login.mechanism)
        return Reply(235, "welcome", "2.7.0")

    def login_failed(self, exchange: Exchange, why: Refusal) -> None:
        """An authentication failed."""
        self.failed_logins += isinstance(why, AuthenticationFailed)
        user = name_alone((exchange.user or "").encode("utf-8", "replace")).decode("utf-8")
        self.happened(LoginFailed, self.name, self.channel, user, exchange.mechanism, why.code or "refused")

    def _cancel_exchange(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()

    # -- messages ------------------------------------------------------------------

    def begin_message(self, message: Message) -> None:
        """MAIL: who is no stranger need not make room meanwhile."""
        self.message = message
        self.state = State.MAIL
        if self._useful and self.slot is not None and self._message_seen != inf:
            self.slot.logged_in()

    def forget_message(self) -> None:
        """No message is on its way any more; one that was is dropped (RFC 5321 section 4.1.1.5)."""
        message, self.message = self.message, None
        if message is not None:
            message.drop()
            self._between_messages()
        if self.state is not State.CLOSED:
            self.state = State.READY if self.client_name is not None else State.BEFORE_HELLO

    def _message_over(self, *, delivered: bool) -> None:
        self.message = None
        self.state = State.CLOSED if self._gone else State.READY
        if delivered:
            self._prove_useful()
        else:
            self._between_messages()
        when_ended, self._when_ended = self._when_ended, []
        for waiting in when_ended:
            waiting.callback(None)

    def _prove_useful(self) -> None:
        """The client is no stranger any more: its mistakes are forgiven."""
        self._mistakes = self._commands = 0
        self._message_seen = None
        self._useful = True
        self._between_messages()

    def _between_messages(self) -> None:
        """Who is no stranger makes room before strangers, but hears 421."""
        if self._useful and self.slot is not None:
            self.slot.idle()

    # -- coming and going ----------------------------------------------------------

    def restart(self, channel: Channel) -> None:
        """TLS is on: forget all that was learned before (RFC 3207 section 4.2)."""
        self.record.channel = channel
        self.can_start_tls = False
        self._cancel_exchange()
        self.client_name = self.user = self.record.user = self.record.mechanism = None
        self.forget_message()

    def closing(self, why: str, waiting: bool) -> Answer | Later | None:
        """The server ends the connection: it says so, when what is being made durable is acknowledged."""
        return LATER if self.finishing else _LAST_WORDS.get(why)

    def deadline(self, now: float, began: float, last: float, *, shaking_hands: bool, waiting: bool) -> float:
        """When patience ends (RFC 5321 section 4.5.3.2.7); and until then whether a message takes too long.

        A message that takes longer than ``limits.MESSAGE_TIME`` loses its place among those that need not
        make room; that is found out up to ``idle`` seconds late, as rarely as this is asked.
        """
        end = last + self.options.idle
        if not self._useful or self.message is None:
            return end
        if self._message_seen is None:
            self._message_seen = now
        end_of_message = self._message_seen + limits.MESSAGE_TIME
        if now < end_of_message:
            return min(end, end_of_message)
        self._between_messages()
        self._message_seen = inf
        return end

    def close(self, why: str, *replies: Reply) -> Answer:
        """The session ends with these replies."""
        self.record.ended = why
        self._finish()
        if len(replies) == 1:
            return replies[0]._replace(after=After.CLOSE)
        return Replies(replies, After.CLOSE)

    def _finish(self) -> None:
        self.state = State.CLOSED
        self._cancel_exchange()
        self.forget_message()

    def end(self) -> MaybeDeferred[None]:
        """Nothing more is asked.  What is being made durable is finished, all else dropped.

        :return: fires when that is done.
        """
        self._gone = True
        self.record.leave()
        if not self.finishing:
            self._finish()
            return None
        ended: Deferred[None] = Deferred()
        self._when_ended.append(ended)
        return ended

    @property
    def logged_in(self) -> bool:
        """Whether a message is coming in: its sender has the time to finish when the server stops."""
        return self.state is State.TEXT

    @property
    def finishing(self) -> bool:
        """Whether a message is being made durable."""
        return self.state is State.DELIVERING

    @property
    def over(self) -> bool:
        """Whether nothing that is answered now is answered to anybody."""
        return self._gone or self.state is State.CLOSED

    @property
    def state_name(self) -> str:
        """The state, for who watches."""
        return self.state.value


def _at_hand(coroutine: Coroutine[Any, Any, _T]) -> MaybeDeferred[_T]:
    """What a coroutine gives, if it has waited for nothing; else a Deferred of it."""
    waiting = Deferred.fromCoroutine(coroutine)
    if waiting.called and not waiting.paused and not isinstance(waiting.result, Failure):
        at_hand: Any = waiting.result
        result: _T = at_hand
        return result
    return waiting
