"""The life of a connection: a LineReceiver between a transport and a conversation.

It translates and decides nothing.  Its business is order and patience: one
command at a time, answers strictly in turn, input paused beyond a small bound,
idle connections closed, TLS started.  The way out is in ``net.writer``; what is
said, a :class:`Conversation` knows, of which POP3 and SMTP each have one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from twisted.internet import interfaces
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
    TLSStarted,
)
from ..interfaces import (
    LATER,
    After,
    Channel,
    Gatekeeper,
    MaybeDeferred,
    SessionInfo,
    SessionRecord,
    Stream,
    Turns,
    Visit,
    is_deferred,
)
from .fast.immediate_write import abort, close, forget_tls, takes_octets, unsent
from .transport import channel_of, hung_up, peer_name, prepare
from .writer import ReplyWriter

__all__ = ["Connection", "Conversation", "Shared"]

# A member of an Enum is dear to look up, before Python 3.12.
_GO_ON = After.GO_ON

log = Logger()


class Conversation(Protocol):
    """What is said on a connection: the pure part of a protocol.

    A *reply* is a value of the protocol's own, which the connection's ``encode`` makes bytes of; what
    the connection knows of it is ``after``, an :class:`~pop3toy.interfaces.After`, and ``done``: called,
    unless it is ``None``, when the last octet was handed to the writer.
    """

    #: ``POP3``, ``SMTP``, ``submission`` or ``LMTP``.
    name: str
    #: Whether TLS can be started here; the connection says so when it has its transport.
    can_start_tls: bool
    #: The place of this connection among those that are counted, where they are.
    visit: Visit | None

    def greet(self) -> MaybeDeferred[Any]:
        """The first reply."""

    def turned_away(self, refusal: Refusal) -> MaybeDeferred[Any]:
        """The only reply, to one connection too many."""

    def parse(self, line: bytes, crlf: bool) -> Any:
        """What a line is.

        :param line: without its end.
        :param crlf: whether that was CRLF, and not a bare LF.
        """

    def too_long(self) -> Any:
        """What stands for a line of which too much came to keep it."""

    def handle(self, parsed: Any) -> MaybeDeferred[Any]:
        """Carry out what :meth:`parse` gave, and answer it.  Never raises, never fails.

        A Deferred may fire with ``None``: then nothing is answered.
        """

    def text_received(self, data: bytes) -> tuple[bytes | None, MaybeDeferred[Any]]:
        """Octets of a message, behind a reply with ``After.READ_TEXT``.

        :return: what stands behind the message's end, or ``None`` while it goes on; and a reply, or
            ``None`` for none, or a Deferred of either, which has to be waited for.
        """

    def shown(self, line: bytes, parsed: Any) -> tuple[bytes, str]:
        """What of a line is no secret, and the command's keyword (empty for what is none)."""

    def reply_shown(self, reply: Any, encoded: bytes) -> bytes:
        """What of a reply is no secret."""

    def refused(self, why: Failure) -> Any:
        """The reply in the place of one that failed before its first octet."""

    def restart(self, channel: Channel) -> None:
        """TLS is on: ``record.channel`` is this one; forget all that was learned before."""

    def closing(self, why: str, waiting: bool) -> Any:
        """The last reply where the server ends the connection; ``None`` for none.

        :param why: see :attr:`~pop3toy.interfaces.SessionRecord.ended`.
        :param waiting: whether an answer is pending.
        :return: :data:`~pop3toy.interfaces.LATER` if what is pending has to be finished; then this is
            asked again.
        """

    def deadline(self, now: float, began: float, last: float, *, shaking_hands: bool, waiting: bool) -> float:
        """When the connection is to be closed if nothing more happens; before that it is asked again.

        :param began: when the connection was made, in seconds of the clock, like all times here.
        :param last: when the last reply or text was sent or came; ``now`` while the server is busy.
        """

    def end(self) -> MaybeDeferred[None]:
        """Nothing more is asked.  Finish what must be, give back what is held.

        :return: fires when that is done.  May be called twice.
        """

    @property
    def logged_in(self) -> bool:
        """Whether somebody is in, whom a stopping server gives the time to finish."""

    @property
    def finishing(self) -> bool:
        """Whether something is being made durable that goes on even if the client goes away."""

    @property
    def over(self) -> bool:
        """Whether nothing that is answered now is answered to anybody."""

    @property
    def state_name(self) -> str:
        """The state, for who watches."""


class Shared(Protocol):
    """What the connections of one factory share; see :class:`~pop3toy.net.factory.ConnectionFactory`."""

    clock: interfaces.IReactorTime
    observers: Observers
    gatekeeper: Gatekeeper | None
    tls_context: object | None
    turns: Turns | None
    #: The server is stopping.
    draining: bool

    def connected(self, connection: Any) -> None:
        """A connection has its transport."""

    def disconnected(self, connection: Any) -> None:
        """A connection is gone, and what it held is given back."""


@implementer(interfaces.IHalfCloseableProtocol)
class Connection(LineReceiver):
    """One connection of a client.

    How it lives:

    ============= ============================================= =================================
    it is         when                                          what may happen
    ============= ============================================= =================================
    rejected      ``_admit`` raised                             one reply, then closing
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

    #: What is said here.
    conversation: Any
    #: From a reply to bytes, or to the stream that pulls them; given whether the first piece may be pulled.
    encode: Callable[[Any, bool], bytes | Stream]

    # What every connection begins with stands here, and becomes its own when it changes: few live long
    # enough for most of it, and beyond 30 attributes of its own Python takes the slow way to an object's.
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
        self.writer = ReplyWriter(self, self.record, self._clock, observers)
        self._tell_line = LineReceived in observers.told
        self._shows_all = observers.secrets
        # Replies are looked at only if somebody sees them and must not see all.
        self._hides_replies = ReplySent in observers.told and not observers.secrets
        # TLS was begun; what it agreed on is known when the first octets came through it.
        self._handshaking = False
        self._turns = factory.turns
        self._visit: Visit | None = None
        self._timer: interfaces.IDelayedCall | None = None
        self._if_it_lasts: Callable[[], None] | None = None
        self._began = self._text_came = self._clock.seconds()

    # -- coming and going -----------------------------------------------------------

    def connectionMade(self) -> None:
        """Greet, or send away."""
        transport = self._transport()
        self.record.channel = channel = channel_of(transport)
        self._handshaking = channel.tls is not None
        self._if_it_lasts = prepare(transport)
        self.writer.attach(transport)
        conversation = self.conversation
        self.record.protocol = conversation.name
        conversation.can_start_tls = (
            self.factory.tls_context is not None
            and not self._handshaking
            and interfaces.ITLSTransport.providedBy(transport)
        )
        self.factory.connected(self)
        if Connected in self.factory.observers.told:
            self.writer.happened(Connected, conversation.name, channel, peer_name(transport))
        self._timer = self._clock.callLater(limits.IDLE_BEFORE_LOGIN, self._look_at_the_clock)
        try:
            self._visit = self._admit()
        except Refusal as refusal:
            self._reject(refusal)
            return
        conversation.visit = self._visit
        self._await(conversation.greet())
        self._in_turn(self.writer.flush)

    def _admit(self) -> Visit | None:
        """Ask whether there is room for one more."""
        if self.factory.draining:
            raise StoreTrouble("the server is stopping, try again later")
        if self.factory.gatekeeper is None:
            return None
        visit: Visit = self.factory.gatekeeper.arrive(self.record.channel.host, lambda: self.hang_up("limit"))
        return visit

    def _reject(self, refusal: Refusal) -> None:
        """One connection too many: say so at once, and close."""
        self.record.ended = "rejected"
        self.writer.happened(ConnectionRejected, self.conversation.name, self.record.channel, refusal.text)
        if self._timer is not None:
            self._timer.reset(limits.LINGER)
        self._await(self.conversation.turned_away(refusal))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone: all that was not finished comes to nothing, and what was held is free."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.paused = True
        self._closing = self._gone = True
        self.writer.abandon()
        ending = self.conversation.end()
        if self._visit is not None:
            self._visit.left()
        if ending is None:
            self._tell_end()
        else:
            ending.addBoth(lambda _: self._tell_end())
        # No reference cycle is left: all is freed at once, and the garbage collector, which
        # took 7 % of a login, has nothing to do.
        self._visit = self.conversation.visit = None
        self._if_it_lasts = None
        if self._handshaking or self.record.channel.tls is not None:
            forget_tls(self.transport)

    def _tell_end(self) -> None:
        """It is over, or not waited for any longer: tell of it, once."""
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
        self._transport().pauseProducing()
        self._see_whether_all_is_begun()
        self._close_if_all_is_said()

    def _see_whether_all_is_begun(self) -> None:
        """A client that will send no more has no use of a login with nothing behind it."""
        if self._end_of_input and self._waiting and self.delimiter not in self._buffer:
            self.record.leave()
        if self._unwatched and self._timer is not None:
            self._timer.reset(limits.HUNG_UP)

    @property
    def _unwatched(self) -> bool:
        """Whether the client waits, and the reactor would not notice that it hangs up.

        What is being made durable is finished and written down anyway.
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
            abort(self._transport())
        else:
            self._close()

    def silence(self) -> float:
        """Seconds since the last line, text or reply; 0 while the server itself is busy."""
        writer = self.writer
        busy = (self._waiting and not writer.awaited) or (writer.streaming and not writer.paused)
        # What is answered after the end is answered to nobody.
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
        """Whether somebody is in, or something has to be finished."""
        conversation = self.conversation
        return bool(conversation.logged_in or conversation.finishing)

    def at_rest(self) -> bool:
        """Whether a server that stops need not wait for it: a stranger, or nothing moves any more.

        To be asked every now and then: a client that reads slowly shows it by what is left to be sent.
        """
        if not self.logged_in:
            return True
        now, left = self._clock.seconds(), unsent(self._transport())
        if left != self._left:
            self._left, self._left_since = left, now
        still = not left or now - self._left_since >= limits.SHUTDOWN_SILENCE
        return still and self.silence() >= limits.SHUTDOWN_SILENCE

    @property
    def ending(self) -> bool:
        """Whether nothing is left but that the client reads the last line."""
        return self._closing

    def _look_at_the_clock(self) -> None:
        """The idle timer.

        It is not moved at every command, which would cost more than the
        command; it looks when it fires and sleeps for what is left.
        """
        if self._if_it_lasts is not None:
            self._if_it_lasts()
            self._if_it_lasts = None
        unwatched = self._unwatched and not self._closing
        if unwatched and hung_up(self._transport()):
            self._timer = None
            self.hang_up("dropped")
            return
        now = self._clock.seconds()
        if self._closing:
            left = limits.LINGER - self.silence()
        else:
            left = self.conversation.deadline(
                now,
                self._began,
                now - self.silence(),
                shaking_hands=self._handshaking,
                waiting=self._waiting,
            )
            left -= now
        if left <= 0 and (self._closing or self.logged_in) and self._still_reads():
            left = limits.LINGER
        if left > 0:
            if unwatched:
                left = min(left, limits.HUNG_UP)
            self._timer = self._clock.callLater(left, self._look_at_the_clock)
            return
        self._timer = None
        self.hang_up("timeout")

    def _still_reads(self) -> bool:
        """Whether the client has read something of what waits for it since this was asked last.

        A transport tells when all is sent, which a slow client may need longer
        for.  The first time there is nothing to compare with yet.
        """
        before, self._unsent = self._unsent, unsent(self._transport())
        return bool(self._unsent) and self._unsent != before

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
            # One line and no more, from a client that waits for each answer:
            # LineReceiver would do the same in three times the time.
            self.lineReceived(data[:-1])
        else:
            self._scan(data)
        if self._closing:
            return
        if self.paused:
            self._pending_input += len(data)
            if self._pending_input > self.PENDING_INPUT and not self._reading_paused:
                self._reading_paused = True
                self._transport().pauseProducing()
                self._see_whether_all_is_begun()
        else:
            self._pending_input = 0
        self._in_turn(self.writer.flush)

    def _in_turn(self, call: Callable[[], None]) -> None:
        """Write when the others who are ready have been heard, or now if there are none."""
        if self._turns is None or not self._turns.postpone(call):
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
        if self._tell_line:
            self._heard(line, len(line) + 1 + crlf, parsed)
        self._await(self.conversation.handle(parsed))

    def _heard(self, line: bytes, octets: int, parsed: Any) -> None:
        shown, keyword = self.conversation.shown(line, parsed)
        if self._shows_all:
            shown = line
        self.writer.happened(LineReceived, shown, octets, keyword, self.conversation.state_name)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Too much of one line: answer once and throw the rest of it away."""
        # Its end may be there already, and other lines behind it.
        line, end, rest = line.partition(self.delimiter)
        parsed = self.conversation.too_long()
        if self._tell_line:
            self._heard(line.removesuffix(b"\r"), len(line) + len(end), parsed)
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
            self.writer.hold()
        rest, answer = self.conversation.text_received(data)
        if tell:
            text = data if rest is None else data[: len(data) - len(rest)]
            self.writer.cause(TextReceived, text if self._shows_all else b"", len(text), rest is not None)
        if rest is not None:
            self.line_mode = 1
            # Back into the receiver's buffer; they were counted as received already.
            super().dataReceived(rest)
        if answer is not None:
            self._await(answer)

    # -- answers, strictly in turn ------------------------------------------------------

    def _await(self, answer: MaybeDeferred[Any]) -> None:
        if is_deferred(answer):
            self._waiting = self.paused = True
            # What was answered before must not wait for what is not.
            self.writer.flush()
            answer.addCallback(self._answered).addErrback(self.bug)
            self._see_whether_all_is_begun()
        else:
            self._reply(answer)

    def _answered(self, reply: Any) -> None:
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

    def _reply(self, reply: Any) -> None:
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
            self.writer.send(encoded, True, self.conversation.reply_shown(reply, encoded))
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
        elif after is After.START_TLS:
            self._start_tls()
        else:
            self.setRawMode()

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
                    self._transport().resumeProducing()
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
        if not self._closing and not takes_octets(self._transport()):
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
        self._in_turn(self._say_goodbye)

    def _say_goodbye(self) -> None:
        if self._gone:
            return
        transport = self._transport()
        # A transport with a paused producer would wait for it for ever.
        transport.unregisterProducer()
        if close(transport, self.writer.drain()):
            return
        if self._timer is not None:
            self._timer.reset(limits.LINGER)
        else:
            # It was the idle timer that led here.
            self._timer = self._clock.callLater(limits.LINGER, self._look_at_the_clock)
        self._unsent = unsent(transport)

    def _close_if_all_is_said(self) -> None:
        if self._end_of_input and not (self._closing or self._waiting or self.writer.full):
            self._close()

    def _start_tls(self) -> None:
        """What was pipelined behind the command in clear text is thrown away (RFC 2595 section 4)."""
        self.writer.flush()
        discarded = self.clearLineBuffer()
        if discarded:
            self.writer.happened(InputDiscarded, len(discarded))
        self._pending_input = 0
        transport = self._transport()
        transport.startTLS(self.factory.tls_context)
        self.writer.rewire(transport)
        self._handshaking = True

    def _tls_is_on(self) -> None:
        self._handshaking = False
        channel = channel_of(self._transport())
        self.conversation.restart(channel)
        if channel.tls is not None:
            self.writer.happened(TLSStarted, channel.tls)

    def _transport(self) -> Any:
        # ITransport, IConsumer, IPushProducer and abortConnection in one: no
        # interface of Twisted's has them all, every stream transport does.
        return self.transport
