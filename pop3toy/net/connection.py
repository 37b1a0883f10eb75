"""The life of a connection: a LineReceiver between a transport and a conversation.

It translates and decides nothing.  Its business is order and patience: one
command at a time, answers strictly in turn, input paused beyond a small bound,
idle connections closed, TLS started.  The way out is in ``net.writer``; what is
said, a :class:`Conversation` knows, of which POP3 and SMTP each have one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from twisted.internet import interfaces
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from .. import limits
from ..errors import Refusal, StoreTrouble
from ..events import (
    Connected,
    ConnectionRejected,
    Ended,
    InputDiscarded,
    LineReceived,
    Observers,
    ReplySent,
    TextReceived,
    TLSFailed,
    TLSStarted,
)
from ..interfaces import (
    LATER,
    After,
    Channel,
    ConnectionSlot,
    Limiter,
    SessionInfo,
    SessionRecord,
    Stream,
    is_deferred,
)
from .conversation import Conversation, Reply
from .sending import Sending, abort, takes_octets
from .transport import channel_of, handshake_error, hung_up, peer_name, prepare
from .types import IStreamTransport
from .writer import ReplyWriter

__all__ = ["AnyConnection", "Connection", "Shared"]

# A global is looked up faster than a member of an Enum.
_GO_ON = After.GO_ON

log = Logger()

# What a line is, and what is replied.
_P = TypeVar("_P")
_R = TypeVar("_R", bound=Reply)


class Shared(Protocol):
    """What the connections of one factory share; see :class:`~pop3toy.net.factory.ConnectionFactory`."""

    clock: interfaces.IReactorTime
    observers: Observers
    limiter: Limiter | None
    tls_context: object | None
    sending: Sending
    #: The server is stopping.
    draining: bool

    def connected(self, connection: AnyConnection) -> None:
        """A connection has its transport."""

    def disconnected(self, connection: AnyConnection) -> None:
        """A connection is gone, and what it held is given back."""


@implementer(interfaces.IHalfCloseableProtocol)
class Connection(LineReceiver, Generic[_P, _R]):
    """One connection of a client.

    How it lives:

    ============= ============================================= =================================
    it is         when                                          what may happen
    ============= ============================================= =================================
    rejected      too many are there, or the server is stopping one reply, then closing
    shaking hands TLS was begun, nothing came through it        nothing that counts
    listening     nothing is pending                            a line or text is carried out
    waiting       ``_waiting``: an answer is pending            input waits
    full          the writer is: a stream, a slow reader, a     input waits
                  rest for the others
    half closed   ``_end_of_input``                             what came is answered, then closing
    ending        ``_ending``: closed by us, when that which    nothing more is begun
                  is pending is finished
    closing       ``_closing``: the last reply is said          it is sent; at most ``LINGER``
    gone          ``_gone``: no transport                       what was begun is finished
    ended         ``_told_end``                                 nothing; the factory forgets it
    ============= ============================================= =================================

    While it waits or is full, ``LineReceiver.paused`` is true and lines stay in the receiver's buffer;
    when more than :attr:`PENDING_INPUT` came meanwhile the transport stops reading.

    A subclass sets :attr:`conversation` and :attr:`encode`.
    """

    # A bare LF ends a line too: people type into telnet and netcat.  The CR
    # before it is taken off in lineReceived.
    delimiter = b"\n"
    # The longest line of all; which line may be how long, the conversation knows.
    MAX_LENGTH = limits.SASL_LINE - 1

    #: Octets of input that are kept while an answer is pending.
    PENDING_INPUT: ClassVar[int] = limits.PENDING_INPUT

    #: Nothing it says needs the prefix that Twisted puts before log lines of old; see
    #: ``net.fast.reply_batcher``.
    logs_by_itself = True

    #: Every stream transport of Twisted's.
    transport: IStreamTransport
    #: What is said here.
    conversation: Conversation[_P, _R]
    #: From a reply to bytes, or to the stream that pulls them; given whether the first piece may be pulled.
    encode: Callable[[_R, bool], bytes | Stream]

    # Values that most connections never change are the class's: an object with more than 30 attributes of its
    # own is slower.
    _pending_input = 0
    _reading_paused = False
    _waiting = False
    _ending: str | None = None
    _closing = False
    _gone = False
    _told_end = False
    _end_of_input = False
    # Within a line that is too long.
    _skipping = False
    _scan_again = False
    _unsent: int | None = None
    # What a client that reads slowly has left unread, and since when as much.
    _left: int | None = None
    _left_since = 0.0

    def __init__(self, factory: Shared, number: int) -> None:
        self.factory = factory
        self._clock = factory.clock
        self.record = SessionRecord(number, Channel("unknown", local=False))
        observers = factory.observers
        self._sending = factory.sending
        self.writer = ReplyWriter(self, self.record, self._clock, observers, self._sending)
        self._wants_lines = LineReceived in observers.told
        self._shows_all = observers.secrets
        # Secrets in replies are looked for only if an observer wants replies and may not see secrets.
        self._hides_replies = ReplySent in observers.told and not observers.secrets
        # TLS was begun; what it agreed on is known when the first octets came through it.
        self._handshaking = False
        self._slot: ConnectionSlot | None = None
        self._timer: interfaces.IDelayedCall | None = None
        self._keep_alive: Callable[[], None] | None = None
        self._began = self._text_came = self._clock.seconds()

    # -- coming and going -----------------------------------------------------------

    def connectionMade(self) -> None:
        """Greet the client, or refuse it in one reply: there are too many, or the server is stopping."""
        transport, conversation, factory = self.transport, self.conversation, self.factory
        self.record.channel = channel = channel_of(transport)
        self._handshaking = channel.tls is not None
        self._keep_alive = prepare(transport)
        self.writer.attach(transport)
        self.record.protocol = conversation.name
        conversation.can_start_tls = (
            factory.tls_context is not None
            and not self._handshaking
            and interfaces.ITLSTransport.providedBy(transport)
        )
        factory.connected(self)
        if Connected in factory.observers.told:
            self.writer.happened(Connected, conversation.name, channel, peer_name(transport))
        timer = self._timer = self._clock.callLater(limits.IDLE_BEFORE_LOGIN, self._look_at_the_clock)
        try:
            if factory.draining:
                raise StoreTrouble("the server is stopping, try again later")
            if factory.limiter is not None:
                self._slot = conversation.slot = factory.limiter.acquire(
                    channel.host, lambda: self.hang_up("limit")
                )
        except Refusal as refusal:
            self.record.ended = "rejected"
            self.writer.happened(ConnectionRejected, conversation.name, channel, refusal.text)
            timer.reset(limits.LINGER)
            self._await(conversation.turned_away(refusal))
            return
        self._await(conversation.greet())
        self._in_turn(self.writer.flush)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone: all that was not finished comes to nothing, and what was held is free."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.paused = True
        self._closing = self._gone = True
        self.writer.abandon()
        if self._handshaking and (why := handshake_error(reason)):
            self.writer.happened(TLSFailed, self.conversation.name, self.record.channel, why)
        ending = self.conversation.end()
        if self._slot is not None:
            self._slot.release()
        if ending is None:
            self._tell_end()
        else:
            ending.addBoth(lambda _: self._tell_end())
        # No reference cycle is left: all is freed at once, and the garbage collector, which
        # would cost a good part of a login, has nothing to do.
        self._slot = self.conversation.slot = None
        self._keep_alive = None
        if self._handshaking or self.record.channel.tls is not None:
            self._sending.forget_tls(self.transport)

    def _tell_end(self) -> None:
        """It has ended, or what it finishes is not waited for any longer: tell the observers, once."""
        if self._told_end:
            return
        self._told_end = True
        record = self.record
        record.seconds = self._clock.seconds() - self._began
        if Ended in self.factory.observers.told:
            self.writer.happened(
                Ended,
                self.conversation.name,
                record.channel,
                record.user,
                record.mechanism,
                record.ended,
                record.seconds,
                record.received,
                record.sent,
                record.retrieved,
                record.removed,
            )
        self.writer.tell_no_more()
        self.factory.disconnected(self)

    def readConnectionLost(self) -> None:
        """The client will send no more (``printf ... | nc -N``): answer what it has sent, then close."""
        self._end_of_input = True
        # Over TLS something could still come; it would count for nothing.
        self.transport.pauseProducing()
        self._watch_waiting_client()
        self._close_if_all_is_said()

    def _watch_waiting_client(self) -> None:
        """An answer is pending: see that a client is noticed that goes away, or cannot use the answer."""
        if self._end_of_input and self._waiting and self.delimiter not in self._buffer:
            # It will send no more, and this is its last command: a login would be of no use to it.
            self.record.leave()
        if self._unwatched and self._timer is not None:
            self._timer.reset(limits.HUNG_UP)

    @property
    def _unwatched(self) -> bool:
        """Whether an answer is pending and the client could hang up unnoticed, as the reactor does not read.

        What is being made durable is finished anyway, so the client is not looked for then.
        """
        unread = self._reading_paused or self._end_of_input
        return self._waiting and unread and not self.conversation.finishing

    def writeConnectionLost(self) -> None:
        """The client reads no more, as only a pipe can tell: nothing more is carried out."""
        self.writer.paused = True
        self.hang_up("dropped")

    def hang_up(self, why: str, at_once: bool = False) -> None:
        """The server ends the connection.

        :param why: what is written down: ``limit``, ``shutdown``, ``timeout`` ...
        :param at_once: wait no longer for what is pending.
        """
        if self._gone:
            # What is finished goes on, and is not waited for any longer.
            self._tell_end()
            return
        if not self._closing:
            last = self.conversation.closing(why, self._waiting)
            if last is LATER:
                self._ending = why
                if not at_once:
                    return
                if self.conversation.finishing:
                    self._tell_end()
                    return
            self.record.ended = why
            if last is not None and last is not LATER and not self.writer.paused:
                self._reply(last)
                return
        self.writer.discard()
        if self.writer.paused or self._closing:
            # It does not read; there is no waiting for it.
            self._closing = self.paused = True
            abort(self.transport)
        else:
            self._close()

    def silence(self) -> float:
        """Seconds since the last line, text or reply; 0 while the server itself is busy."""
        writer = self.writer
        busy = (self._waiting and not writer.awaited) or (writer.streaming and not writer.paused)
        # Behind the end of the conversation no answer is sent.
        if busy and not self.conversation.over:
            return 0.0
        return self._clock.seconds() - max(self._text_came, writer.last_sent)

    def info(self) -> SessionInfo:
        """The connection as it is now."""
        record, conversation = self.record, self.conversation
        return SessionInfo(
            record.number,
            conversation.name,
            record.channel,
            record.user,
            record.mechanism,
            conversation.state_name,
            self._clock.seconds() - self._began,
            self.silence(),
            record.received,
            record.sent,
            record.retrieved,
        )

    @property
    def logged_in(self) -> bool:
        """Whether a user is logged in, or something has to be finished."""
        conversation = self.conversation
        return bool(conversation.logged_in or conversation.finishing)

    def at_rest(self) -> bool:
        """Whether a server that stops need not wait for it: a stranger, or nothing moves any more.

        To be asked every now and then: a client that reads slowly shows it by what is left to be sent.
        """
        if not self.logged_in:
            return True
        now, left = self._clock.seconds(), self._sending.unsent(self.transport)
        if left != self._left:
            self._left, self._left_since = left, now
        still = not left or now - self._left_since >= limits.SHUTDOWN_SILENCE
        return still and self.silence() >= limits.SHUTDOWN_SILENCE

    @property
    def ending(self) -> bool:
        """Whether nothing is left but that the client reads the last line."""
        return self._closing

    def _look_at_the_clock(self) -> None:
        """The timer for silent clients: close the connection, or look again when its deadline comes.

        A command does not move the timer, which would cost more than the command.
        """
        if self._keep_alive is not None:
            self._keep_alive()
            self._keep_alive = None
        self._timer = None
        unwatched = self._unwatched and not self._closing
        if unwatched and hung_up(self.transport):
            self.hang_up("dropped")
            return
        if self._closing:
            left = limits.LINGER - self.silence()
        else:
            now = self._clock.seconds()
            last = now - self.silence()
            shaking_hands, waiting = self._handshaking, self._waiting
            left = (
                self.conversation.deadline(
                    now, self._began, last, shaking_hands=shaking_hands, waiting=waiting
                )
                - now
            )
        if left <= 0 and (self._closing or self.logged_in):
            # The transport tells only when all is sent.  A client that has read some of what waits for it
            # since the last look is slow, not gone; at the first look there is nothing to compare with.
            before, self._unsent = self._unsent, self._sending.unsent(self.transport)
            if self._unsent and self._unsent != before:
                left = limits.LINGER
        if left <= 0:
            self.hang_up("timeout")
            return
        if unwatched:
            left = min(left, limits.HUNG_UP)
        self._timer = self._clock.callLater(left, self._look_at_the_clock)

    # -- in ---------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        if self._closing:
            return
        if self._handshaking:
            self._tls_is_on()
        self.record.received += len(data)
        if (
            0 <= data.find(b"\n") == len(data) - 1 <= self.MAX_LENGTH
            and self.line_mode
            and not (self._buffer or self.paused or self._busyReceiving)
        ):
            # One line and no more, from a client that waits for each answer: what LineReceiver would do
            # with it, by a shorter way.
            self.lineReceived(data[:-1])
        else:
            self._scan(data)
        if self._closing:
            return
        if self.paused:
            self._pending_input += len(data)
            if self._pending_input > self.PENDING_INPUT and not self._reading_paused:
                self._reading_paused = True
                self.transport.pauseProducing()
                self._watch_waiting_client()
        else:
            self._pending_input = 0
        self._in_turn(self.writer.flush)

    def _in_turn(self, call: Callable[[], None]) -> None:
        """Call this when the other connections that are ready have been read, or now if there are none."""
        postpone = self._sending.postpone
        if postpone is None or not postpone(call):
            call()

    def _scan(self, data: bytes) -> None:
        """Take the buffered lines, as far as nothing holds them back."""
        super().dataReceived(data)
        while self._scan_again and not self.paused:
            self._scan_again = False
            super().dataReceived(b"")

    def lineReceived(self, line: bytes) -> None:
        """One line without its LF."""
        crlf = line.endswith(b"\r")
        if crlf:
            line = line[:-1]
        parsed = self.conversation.parse(line, crlf)
        if self._wants_lines:
            self._tell_line(line, len(line) + 1 + crlf, parsed, len(self._buffer))
        self._await(self.conversation.handle(parsed))

    def _tell_line(self, line: bytes, octets: int, parsed: _P, behind: int) -> None:
        shown, keyword = self.conversation.masked_line(line, parsed)
        if self._shows_all:
            shown = line
        self.writer.happened(LineReceived, shown, octets, keyword, self.conversation.state_name, behind)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Too much of one line: answer once and throw the rest of it away."""
        # Its end may be there already, and other lines behind it.
        line, end, rest = line.partition(self.delimiter)
        parsed = self.conversation.too_long()
        if self._wants_lines:
            self._tell_line(line.removesuffix(b"\r"), len(line) + len(end), parsed, len(rest))
        if not end:
            self._skipping = True
            self.setRawMode()
        self._await(self.conversation.handle(parsed))
        # LineReceiver gives up its buffer and its loop here; put the one back
        # and let _scan take up the other.
        super().dataReceived(rest)
        self._scan_again = True

    def rawDataReceived(self, data: bytes) -> None:
        """The rest of a line that is too long, or text."""
        if self._skipping:
            skipped, end, rest = data.partition(self.delimiter)
            self.writer.happened(InputDiscarded, len(skipped) + len(end))
            if end:
                self._skipping = False
                self.line_mode = 1
                super().dataReceived(rest)
            return
        self._text_came = self._clock.seconds()
        tell = TextReceived in self.factory.observers.told
        if tell:
            # Where the text ends is known behind it, when the message may be delivered already.
            self.writer.expect_cause()
        behind, answer = self.conversation.text_received(data)
        if tell:
            text = data if behind is None else data[: len(data) - len(behind)]
            self.writer.cause(TextReceived, text if self._shows_all else b"", len(text), behind is not None)
        if behind is not None:
            self.line_mode = 1
            # Back into the receiver's buffer; these octets were counted as received already.
            super().dataReceived(behind)
        if answer is not None:
            self._await(answer)

    # -- answers, strictly in turn ------------------------------------------------------

    def _await(self, answer: _R | Deferred[_R] | Deferred[_R | None]) -> None:
        """Reply, now or when the Deferred fires; until then lines wait."""
        if is_deferred(answer):
            self._waiting = self.paused = True
            # What was answered before must not wait for what is not.
            self.writer.flush()
            answer.addCallback(self._answered).addErrback(self.bug)
            self._watch_waiting_client()
        else:
            self._reply(answer)

    def _answered(self, reply: _R | None) -> None:
        self._waiting = False
        if self._is_over():
            if reply is not None:
                # Too late; but a body that was opened must be closed.
                encoded = self.encode(reply, False)
                if not isinstance(encoded, bytes):
                    encoded.close()
            return
        if reply is not None:
            self._reply(reply)
        if self._ending is not None and not self._closing:
            self.hang_up(self._ending)
            return
        self._go_on()

    def _reply(self, reply: _R) -> None:
        """Put one reply into the writer, and do what it says comes after."""
        try:
            encoded = self.encode(reply, not self.writer.paused)
        except Exception:
            self.stream_failed(Failure(), began=False)
            return
        if not isinstance(encoded, bytes):
            usual = reply.after is _GO_ON
            self.writer.stream(encoded, reply.done if usual else lambda: self._go_after(reply.after))
            return
        if self._hides_replies:
            self.writer.send(encoded, True, self.conversation.masked_reply(reply, encoded))
        else:
            self.writer.send(encoded)
        if reply.done is not None:
            reply.done()
        if reply.after is not _GO_ON:
            self._go_after(reply.after)

    def _go_after(self, after: After) -> None:
        """What comes when a reply was given to the writer."""
        if after is After.CLOSE:
            self._close()
        elif after is After.READ_TEXT:
            self.setRawMode()
        elif after is After.START_TLS:
            self.writer.flush()
            # What was pipelined behind the command in clear text is thrown away (RFC 2595 section 4).
            discarded = self.clearLineBuffer()
            if discarded:
                self.writer.happened(InputDiscarded, len(discarded))
            self._pending_input = 0
            self.transport.startTLS(self.factory.tls_context)
            self.writer.rewire(self.transport)
            self._handshaking = True

    def _tls_is_on(self) -> None:
        """The first octets have come through TLS, so its handshake is done."""
        self._handshaking = False
        channel = channel_of(self.transport)
        self.conversation.restart(channel)
        if channel.tls is not None:
            self.writer.happened(TLSStarted, channel.tls)

    def _go_on(self) -> None:
        """Take up the lines again that had to wait."""
        writer = self.writer
        self.paused = self._is_over() or self._waiting or writer.full
        if self.paused:
            writer.flush()
            return
        if self._busyReceiving:
            # The Deferred had fired already, in the middle of the receiver's loop,
            # which goes on by itself with the lines that are left in its buffer.
            return
        # Lines that wait in the receiver's buffer.
        self._scan(b"")
        if not self.paused:
            # Only now the buffer is known to be empty: a client that gets one
            # answer may not send another bufferful for it.
            self._pending_input = 0
            if self._reading_paused:
                self._reading_paused = False
                if not self._end_of_input:
                    self.transport.resumeProducing()
        writer.flush()
        self._close_if_all_is_said()

    def writer_full(self) -> None:
        """No further line now."""
        self.paused = True

    def writer_ready(self) -> None:
        """There is room again."""
        if not self._closing and not self._waiting:
            self._go_on()

    def writer_lost(self) -> None:
        """Nothing that is said now arrives."""
        self._is_over()

    def _is_over(self) -> bool:
        """Whether nothing more is carried out, because the answer could not be sent.

        A transport that was closed by others does not tell: a TLS layer may have taken the
        peer's ``close_notify`` for the end of both directions.
        """
        if not self._closing and not takes_octets(self.transport):
            self.writer.discard()
            self._close()
        return self._closing

    def stream_failed(self, why: Failure, began: bool) -> None:
        """A store failed in the middle of a reply.

        Before the first octet it is an ordinary refusal.  Afterwards there is no
        honest answer: the connection is closed without the final dot, so that
        half a message never looks whole.
        """
        if self._closing:
            return
        if not began:
            self._reply(self.conversation.refused(why))
            self._go_on()
            return
        number = self.record.number
        if isinstance(why.value, Refusal):
            detail = why.value.detail or why.value.text
            log.warn(
                "session {number}: dropped in the middle of a message: {detail}", number=number, detail=detail
            )
        else:
            log.failure("session {number}: a bug, dropped in the middle of a message", why, number=number)
        self.hang_up("store")

    def bug(self, why: Failure) -> None:
        """Something failed that should not: write it down, and end."""
        log.failure("session {number}: a bug in the protocol", why, number=self.record.number)
        self.hang_up("bug")

    # -- the end --------------------------------------------------------------------------

    def _close(self) -> None:
        """Flush the last line, then close (over TLS with a close_notify)."""
        self._closing = self.paused = True
        # Nothing more can be asked: what is held is free, however long the
        # client takes to read its last line.
        self.writer.stop()
        self.conversation.end()
        self._in_turn(self._close_transport)

    def _close_transport(self) -> None:
        if self._gone:
            return
        transport = self.transport
        # A transport with a paused producer would wait for it for ever.
        transport.unregisterProducer()
        if self._sending.close(transport, self.writer.drain()):
            return
        if self._timer is not None:
            self._timer.reset(limits.LINGER)
        else:
            # It was the idle timer that led here.
            self._timer = self._clock.callLater(limits.LINGER, self._look_at_the_clock)
        self._unsent = self._sending.unsent(transport)

    def _close_if_all_is_said(self) -> None:
        if self._end_of_input and not (self._closing or self._waiting or self.writer.full):
            self._close()


#: A connection, whatever is spoken on it.
AnyConnection: TypeAlias = Connection[Any, Any]
