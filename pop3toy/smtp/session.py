"""One session: the states of RFC 5321, what is known in each, and how a mistake is answered.

A session is pure: it takes parsed lines and text and gives replies (or Deferreds of them), and knows no
transport, no reactor and no clock.  What the commands do stands in ``greeting``, ``authentication`` and
``mail_commands``; which there are in which state, its :class:`Policy` says (``policies``).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import Enum
from math import inf
from typing import NamedTuple, TypeAlias, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import AuthenticationFailed, Refusal
from ..events import Delivered, LoggedIn, LoginFailed, Queued, Refused
from ..interfaces import (
    LATER,
    After,
    Authenticator,
    Challenge,
    Channel,
    ConnectionSlot,
    Exchange,
    IDelivery,
    IRecipientResolver,
    Later,
    Login,
    MaybeDeferred,
    Outgoing,
    SessionRecord,
)
from ..masking import name_alone
from . import commands, limits
from .commands import Command, Parsed, Response
from .replies import Answer, Replies, Reply
from .transaction import BUG, Transaction

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

    # Each command looks its state up in a table, and Enum's own hash is a function in Python.
    __hash__ = object.__hash__


_Coroutine: TypeAlias = Coroutine[Deferred[object], object, _T]
#: What a command does: gives its answer, or a coroutine of it.
Handler: TypeAlias = "Callable[[Session, Command], Answer | _Coroutine[Answer]]"


class Policy(NamedTuple):
    """What makes a port one of SMTP, of submission or of LMTP; the three are in ``policies``."""

    #: The protocol's name in events.
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
    #: Answers a line within a SASL exchange.
    respond: Callable[[Session, bytes | None], _Coroutine[Answer]] | None = None
    #: One reply for all recipients of a message: they stand and fall together.
    together: bool = True
    #: Only users who have logged in may send.
    login_required: bool = False
    #: Unknown recipients count as mistakes: a client with many of them is guessing names.
    unknown_is_mistake: bool = True


class Options(NamedTuple):
    """What all sessions of one port have in common."""

    delivery: IDelivery
    resolver: IRecipientResolver
    #: This server's name, in the greeting and in Received headers.
    host: str
    #: The time of day, for Received headers.
    wall: Callable[[], float]
    largest_message: int = limits.MESSAGE
    smtputf8: bool = True
    #: Write the recipients of a message into it: for a mail trap, where one user gets everybody's mail.
    original_to: bool = False
    authenticator: Authenticator | None = None
    #: Seconds of silence after which a connection ends.
    idle: float = limits.IDLE
    #: Takes what users hand in for addresses elsewhere; ``None`` where such mail is refused.
    outgoing: Outgoing | None = None


#: The last reply where the server ends the connection (RFC 5321 section 3.8), by the reason.
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

    :param record: what observers and the log show of this session; kept up to date here.
    :param happened: called for each event with its kind, and its fields behind ``session`` and ``at``.
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
        #: The name in HELO, EHLO or LHLO, and whether the client knows extensions.
        self.client_name: bytes | None = None
        self.extended = False
        self.transaction: Transaction | None = None
        #: The SASL exchange in progress, and the user who has logged in.
        self.exchange: Exchange | None = None
        self.user: str | None = None
        self.failed_logins = 0
        # The client's mistakes, and its commands, since a message was accepted or the client logged in.
        self._mistakes = self._commands = 0
        # Whether a message was accepted, or the client has logged in.
        self._known_good = False
        # When the idle timer first saw a transaction since a message was accepted (RSET and MAIL do not begin
        # this anew); infinite once that took longer than limits.MESSAGE_TIME.
        self._transaction_seen: float | None = None
        self._gone = False
        # Fire when what is being made durable is done: see end().
        self._when_ended: list[Deferred[None]] = []

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
        """In the place of a line that is too long to be kept."""
        return commands.TOO_LONG

    def masked_line(self, line: bytes, parsed: Parsed) -> tuple[bytes, str]:
        """The line without secrets, and its verb."""
        return commands.masked(line, parsed), "" if isinstance(parsed, Response) else parsed.verb

    def masked_reply(self, reply: Answer, encoded: bytes) -> bytes:
        """The reply without secrets: against a challenge of SCRAM passwords can be tried offline."""
        return b"334 ****\r\n" if isinstance(reply, Challenge) and reply.data else encoded

    def handle(self, parsed: Parsed) -> MaybeDeferred[Answer]:
        """Carry out one line and answer it.  Never raises, never fails."""
        self._commands += 1
        if self._commands > limits.COMMANDS:
            return self.close("limit", Reply(421, "too many commands without a message", "4.7.0"))
        try:
            if isinstance(parsed, Command):
                handler = self.policy.tables[self.state].get(parsed.verb)
                if handler is None:
                    return self.mistake(Reply(503, self._what_comes_first(parsed.verb), "5.5.1"))
                answer = handler(self, parsed)
            elif isinstance(parsed, Response):
                assert self.policy.respond is not None
                answer = self.policy.respond(self, parsed.line)
            else:
                # Within an exchange it ends that, and has a code of its own (RFC 4954 section 4).
                enhanced = parsed.enhanced if self.exchange is None else "5.5.6"
                self._cancel_exchange()
                return self.mistake(Reply(parsed.code, parsed.reason, enhanced))
            if isinstance(answer, (Reply, Replies, Challenge)):
                return answer
            return _at_hand(answer, self.refused)
        except Exception:
            return self.refused(Failure())

    def _what_comes_first(self, verb: str) -> str:
        """Why a known command is out of place in this state."""
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
        transaction = self.transaction
        assert transaction is not None
        rest, waiting = transaction.feed(data, self.options.largest_message)
        if transaction.text.octets > 2 * self.options.largest_message:
            # Its end may never come.
            far = Reply(421, f"message is far larger than {self.options.largest_message} octets", "4.3.4")
            return rest, self.close("limit", self.refuse(far))
        if waiting is None and rest is None:
            return None, None
        return rest, _at_hand(self._text_taken(transaction, waiting))

    async def _text_taken(self, transaction: Transaction, waiting: Deferred[None] | None) -> Answer | None:
        """Wait until the store has taken the text; at its end make the message durable, and answer."""
        if waiting is not None:
            await waiting
        # The connection may have been lost meanwhile.
        if transaction.dropped or not transaction.text.finished:
            return None
        # From here on a lost connection takes nothing back.
        self.state = State.DELIVERING
        together = self.policy.together
        outcome = await transaction.commit(together=together)
        uids = [(user, result) for user, result in outcome.items() if isinstance(result, bytes)]
        queue_id, octets = transaction.queue_id, transaction.text.octets
        if uids:
            channel, sender = self.record.channel, transaction.written_sender
            self.happened(Delivered, self.name, channel, queue_id, sender, octets, uids)
        answer: Answer
        if not together:
            # RFC 2033 section 4.2: one reply for each RCPT that was accepted, in their order.
            fates = transaction.fates(outcome)
            replies = [self._fate(refusal, recipient, queue_id, "2.1.5") for recipient, refusal in fates]
            answer = Replies(tuple(replies))
        else:
            addresses = [one.written for one, _ in transaction.recipients]
            addresses += [one.address for one in transaction.elsewhere]
            recipient = addresses[0] if len(addresses) == 1 else ""
            refusal = None if outcome else transaction.refusal
            answer = self._fate(refusal, recipient, queue_id, "2.0.0", transaction.taken_as)
        self.transaction = None
        self.state = State.CLOSED if self._gone else State.READY
        if transaction.queued and (mail := transaction.outgoing) is not None:
            elsewhere = [one.address for one in mail.recipients if not one.here]
            who = (mail.user, mail.sender)
            self.happened(Queued, self.name, self.record.channel, queue_id, *who, octets, elsewhere)
        if uids or transaction.queued:
            self._reset_error_count()
        else:
            self._between_messages()
        when_ended, self._when_ended = self._when_ended, []
        for ended in when_ended:
            ended.callback(None)
        return answer

    def _fate(
        self, refusal: Reply | None, recipient: str, queue_id: str, enhanced: str, taken: str = "delivered"
    ) -> Reply:
        """The reply behind a message, for one recipient or for all."""
        if refusal is None:
            return Reply(250, f"{taken} as {queue_id}", enhanced)
        return self.refuse(refusal, recipient)

    def mistake(self, reply: Reply) -> Answer:
        """Answer a mistake of the client's; too many of them end the connection."""
        self._mistakes += 1
        if self._mistakes < limits.ERRORS:
            return reply
        last = reply._replace(text=f"{reply.text}; too many errors, goodbye")
        return self.close("limit", last, Reply(421, "too many errors", "4.7.0"))

    def refuse(self, reply: Reply, recipient: str = "", sender: str = "") -> Reply:
        """Tell observers that mail is not taken; gives the reply back.

        :param sender: the sender where no transaction has begun.
        """
        queue_id = ""
        if self.transaction is not None:
            queue_id, sender = self.transaction.queue_id, self.transaction.written_sender
        why = (reply.code, reply.enhanced, reply.text)
        self.happened(Refused, self.name, self.record.channel, queue_id, sender, recipient, *why)
        return reply

    def refused(self, failure: Failure) -> Answer:
        """A bug: the log has it in full, the client hears that it may try again."""
        log.failure("session {number}: a bug, answered with 451", failure, number=self.record.number)
        self._cancel_exchange()
        self.abort_transaction()
        return BUG

    # -- login ---------------------------------------------------------------------

    def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms that can work here and now."""
        authenticator = self.options.authenticator
        if authenticator is None or self.user is not None:
            return ()
        return authenticator.mechanisms(self.record.channel)

    def login_succeeded(self, login: Login) -> Answer:
        """AUTH has succeeded; the avatar is given back, since nothing is opened to send."""
        self.exchange = None
        login.logout()
        if self.state is not State.CLOSED:
            self.user = self.record.user = login.user
            self.record.mechanism = login.mechanism
            self._reset_error_count()
            self.happened(LoggedIn, self.name, self.record.channel, login.user, login.mechanism)
        return Reply(235, "welcome", "2.7.0")

    def login_failed(self, exchange: Exchange, why: Refusal) -> None:
        """An authentication failed."""
        self.failed_logins += isinstance(why, AuthenticationFailed)
        user = name_alone((exchange.user or "").encode("utf-8", "replace")).decode("utf-8")
        self.happened(
            LoginFailed, self.name, self.record.channel, user, exchange.mechanism, why.code or "refused"
        )

    def _cancel_exchange(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()

    # -- transactions --------------------------------------------------------------

    def begin_transaction(self, transaction: Transaction) -> None:
        """MAIL: while it lasts, a known-good client is not closed to make room for others."""
        self.transaction = transaction
        self.state = State.MAIL
        if self._known_good and self.slot is not None and self._transaction_seen != inf:
            self.slot.logged_in()

    def abort_transaction(self) -> None:
        """Drop the transaction, if there is one (RFC 5321 section 4.1.1.5)."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            transaction.drop()
            self._between_messages()
        if self.state is not State.CLOSED:
            self.state = State.READY if self.client_name is not None else State.BEFORE_HELLO

    def _reset_error_count(self) -> None:
        """A message was accepted, or the client has logged in: it is known to be good."""
        self._mistakes = self._commands = 0
        self._transaction_seen = None
        self._known_good = True
        self._between_messages()

    def _between_messages(self) -> None:
        """A known-good client without a transaction may be closed, with 421, to make room."""
        if self._known_good and self.slot is not None:
            self.slot.idle()

    # -- coming and going ----------------------------------------------------------

    def restart(self, channel: Channel) -> None:
        """TLS is on: forget all that was learned before (RFC 3207 section 4.2)."""
        self.record.channel = channel
        self.can_start_tls = False
        self._cancel_exchange()
        self.client_name = self.user = self.record.user = self.record.mechanism = None
        self.abort_transaction()

    def closing(self, why: str, waiting: bool) -> Answer | Later | None:
        """The last reply where the server ends the connection; later if a message is being made durable."""
        return LATER if self.finishing else _LAST_WORDS.get(why)

    def deadline(self, now: float, began: float, last: float, *, shaking_hands: bool, waiting: bool) -> float:
        """When the connection is idle for too long (RFC 5321 section 4.5.3.2.7).

        Also finds out whether a transaction takes longer than ``limits.MESSAGE_TIME``, up to ``idle`` seconds
        late; from then on its connection may be closed to make room.
        """
        end = last + self.options.idle
        if self.transaction is None:
            return end
        if self._transaction_seen is None:
            self._transaction_seen = now
        end_of_transaction = self._transaction_seen + limits.MESSAGE_TIME
        if now < end_of_transaction:
            return min(end, end_of_transaction)
        self._between_messages()
        self._transaction_seen = inf
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
        self.abort_transaction()

    def end(self) -> MaybeDeferred[None]:
        """No more lines come.  A message that is being made durable is finished, all else dropped.

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
        """Whether text is coming in: a server that stops gives the client the time to finish it."""
        return self.state is State.TEXT

    @property
    def finishing(self) -> bool:
        """Whether a message is being made durable."""
        return self.state is State.DELIVERING

    @property
    def over(self) -> bool:
        """Whether no answer reaches the client any more."""
        return self._gone or self.state is State.CLOSED

    @property
    def state_name(self) -> str:
        """The state, for observers."""
        return self.state.value


def _at_hand(coroutine: _Coroutine[_T], failed: Callable[[Failure], _T] | None = None) -> MaybeDeferred[_T]:
    """The result of a coroutine if it has waited for nothing; else a Deferred of it.

    :param failed: gives the result if the coroutine raises.
    """
    waiting = Deferred.fromCoroutine(coroutine)
    if waiting.called and not waiting.paused and not isinstance(waiting.result, Failure):
        return cast(_T, waiting.result)
    return waiting if failed is None else waiting.addErrback(failed)
