"""A connection: a LineReceiver between a transport and a session.

It translates and decides nothing.  Its business is order and patience: one
command at a time, answers strictly in turn, input paused beyond a small bound,
idle connections closed, TLS started.  The way out is in ``net.writer``.

How it waits.  Two things can hold the next line back: an answer that is not
there yet (``_waiting``) and a writer that is full.  While either is so,
``LineReceiver.paused`` is true and lines stay in the receiver's buffer; when
that grows beyond ``limits.PENDING_INPUT`` the transport stops reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import interfaces
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from .. import limits
from ..errors import Refusal, StoreTrouble
from ..interfaces import (
    Authenticator,
    Channel,
    Gatekeeper,
    IMeter,
    ITranscript,
    SessionRecord,
    Turns,
    Visit,
    is_deferred,
)
from ..net.fast.immediate_write import abort, close, forget_tls, takes_octets, unsent
from ..net.transport import channel_of, hung_up, peer_name, prepare
from ..net.writer import Outflow
from .dispatch import handle
from .replies import After, Reply, Status, encode
from .session import Session, State

__all__ = ["POP3Protocol"]

# A member of an Enum is dear to look up, before Python 3.12.
_AUTHORIZATION = State.AUTHORIZATION
_LOGGED_IN = (State.TRANSACTION, State.UPDATE)
_GO_ON = After.GO_ON

#: What a login that waits is told when its connection ends before that.
_SAID = {"shutdown": "the server is stopping, try again later", "limit": "too many connections"}

log = Logger()


class ConnectionFactory(Protocol):
    """What connections share: :class:`~pop3toy.pop3.factory.POP3Factory`, of whose parameters these are."""

    clock: interfaces.IReactorTime
    authenticator: Authenticator
    transcript: ITranscript | None
    meter: IMeter
    gatekeeper: Gatekeeper | None
    tls_context: object | None
    turns: Turns | None
    #: The server is stopping.
    draining: bool

    def connected(self, protocol: POP3Protocol) -> None:
        """A protocol has its transport."""

    def disconnected(self, protocol: POP3Protocol) -> None:
        """A protocol has lost its transport."""


@implementer(interfaces.IHalfCloseableProtocol)
class POP3Protocol(LineReceiver):
    """One connection of a client."""

    # A bare LF ends a line too: people type into telnet and netcat.  The CR
    # before it is taken off in lineReceived.
    delimiter = b"\n"
    # The longest line of all; which line may be how long, commands.py knows.
    MAX_LENGTH = limits.SASL_LINE - 1

    #: Nothing it says needs the prefix that Twisted puts before log lines of old; see
    #: ``net.fast.reply_batcher``.
    logs_by_itself = True

    factory: ConnectionFactory

    def __init__(self, factory: ConnectionFactory, number: int) -> None:
        self.factory = factory
        self._clock = factory.clock
        self._record = SessionRecord(number, Channel("unknown", local=False))
        self._tape = factory.transcript
        self._outflow = Outflow(self, self._record, self._clock, self._tape)
        self.session = Session(
            factory.authenticator,
            self._record,
            factory.meter,
            offer_stls=factory.tls_context is not None,
            handed_over=self._outflow.handed_over,
        )
        self._pending_input = 0
        self._reading_paused = False
        self._waiting = False
        self._closing = False
        self._gone = False
        self._end_of_input = False
        # TLS was begun; what it agreed on is known when the first octets came through it.
        self._handshaking = False
        self._scan_again = False
        self._unsent: int | None = None
        self._turns = factory.turns
        self._visit: Visit | None = None
        self._turned_away = False
        self._told_end = False
        self._known = False
        self._timer: interfaces.IDelayedCall | None = None
        self._if_it_lasts: Callable[[], None] | None = None
        self._began = self._heard = self._clock.seconds()

    # -- coming and going -----------------------------------------------------------

    def connectionMade(self) -> None:
        """Greet, or send away (RFC 1939 section 4)."""
        transport = self._transport()
        self._record.channel = channel_of(transport)
        self._handshaking = self._record.channel.tls is not None
        self._if_it_lasts = prepare(transport)
        self._outflow.attach(transport)
        if self.session.offer_stls:
            self.session.offer_stls = interfaces.ITLSTransport.providedBy(transport)
        self.factory.connected(self)
        if self._tape is not None:
            self._tape.opened(self._record.number, peer_name(transport))
        try:
            self._visit = self._admit()
        except Refusal as refusal:
            self._turn_away(refusal)
            return
        self.factory.meter.connected(self._record)
        self._timer = self._clock.callLater(limits.IDLE_BEFORE_LOGIN, self._look_at_the_clock)
        self._reply(self.session.greet())
        self._in_turn(self._outflow.flush)

    def _admit(self) -> Visit | None:
        """Ask whether there is room for one more."""
        if self.factory.draining:
            raise StoreTrouble("the server is stopping, try again later")
        if self.factory.gatekeeper is None:
            return None
        return self.factory.gatekeeper.arrive(self._record.channel.host, lambda: self.hang_up("limit"))

    def _turn_away(self, refusal: Refusal) -> None:
        """One connection too many: say so at once, and close."""
        self._turned_away = True
        self._record.ended = "limit"
        self.factory.meter.turned_away(self._record.channel, refusal.text)
        self._timer = self._clock.callLater(limits.LINGER, self._look_at_the_clock)
        self._reply(Status(False, refusal.text, refusal.code, After.CLOSE))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone: nothing is removed, the maildrop is free at once (RFC 1939 section 3)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.paused = True
        self._closing = self._gone = True
        self._outflow.abandon()
        self.session.lost()
        if self._visit is not None:
            self._visit.left()
        # What QUIT removes is known, and the server may stop, when UPDATE is over.
        if self.session.state is not State.UPDATE:
            self._tell_end()
        # What knows this protocol is not known by it any more: all is freed at
        # once, and the garbage collector, which took 7 % of a login, has nothing to do.
        self._visit = None
        self._if_it_lasts = None
        if self._handshaking or self._record.channel.tls is not None:
            forget_tls(self.transport)

    def _tell_end(self) -> None:
        """The session is over: write it down, once."""
        if self._told_end:
            return
        self._told_end = True
        record = self._record
        record.seconds = self._clock.seconds() - self._began
        if self._tape is not None:
            self._tape.closed(record.number, record.ended)
        if not self._turned_away:
            self.factory.meter.ended(record)
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
            self.session.client_left()
        if self._unwatched and self._timer is not None:
            self._timer.reset(limits.HUNG_UP)

    @property
    def _unwatched(self) -> bool:
        """Whether the client waits, and the reactor would not notice that it hangs up.

        What QUIT has begun is finished and written down anyway.
        """
        unread = self._reading_paused or self._end_of_input
        return self._waiting and unread and self.session.state is not State.UPDATE

    def writeConnectionLost(self) -> None:
        """The client reads no more, as only a pipe can tell: nothing more is carried out."""
        self._outflow.choked = True
        self.hang_up("dropped")

    def hang_up(self, how: str) -> None:
        """End the connection without a word (RFC 1939 section 3); a login that waits gets one."""
        if self._gone:
            # UPDATE goes on, and is not waited for any longer.
            self._tell_end()
            return
        if not self._closing:
            self._record.ended = how
            waits = self._waiting and self.session.state is _AUTHORIZATION and not self._outflow.choked
            if waits and how in _SAID:
                self._reply(Status(False, _SAID[how], StoreTrouble.code, After.CLOSE))
                return
        self._outflow.drop()
        if self._outflow.choked or self._closing:
            # It does not read; there is no waiting for it.
            self._closing = self.paused = True
            abort(self._transport())
        else:
            self._close()

    def silence(self) -> float:
        """Seconds since the last octet either way; 0 while the server itself is busy."""
        outflow = self._outflow
        busy = (self._waiting and not outflow.awaited) or (outflow.streaming and not outflow.choked)
        # What is answered after the end is answered to nobody.
        if busy and self.session.state is not State.CLOSED:
            return 0.0
        return self._clock.seconds() - max(self._heard, self._outflow.moved)

    @property
    def logged_in(self) -> bool:
        """Whether somebody is in, or what QUIT began is not finished."""
        return self.session.state in _LOGGED_IN

    @property
    def ending(self) -> bool:
        """Whether nothing is left but that the client reads the last line."""
        return self._closing

    def _look_at_the_clock(self) -> None:
        """The idle timer (RFC 1939 section 3).

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
        if self._closing:
            patience = limits.LINGER
        elif self.session.state is State.AUTHORIZATION:
            # Nobody needs to look anything up for a handshake.
            knows = self.session.speaks_pop3 and not self._handshaking
            patience = limits.IDLE_WITHIN_AUTH if knows else limits.IDLE_BEFORE_LOGIN
        else:
            patience = limits.IDLE
        left = patience - self.silence()
        # A stranger who asks for CAPA now and then is cut as well, but not who is looking for
        # the password that he was asked for in time.
        if self.session.state is State.AUTHORIZATION and not self._waiting:
            asked_in_time = self._outflow.moved - self._began < limits.STRANGER
            if not (self.session.asks_for_secret and asked_in_time):
                left = min(left, limits.STRANGER - (self._clock.seconds() - self._began))
        if left <= 0 and self.session.state is not State.AUTHORIZATION and self._still_reads():
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
        if self.session.state is not _AUTHORIZATION:
            # Before login only whole lines count (as their replies do),
            # so that nobody can hold a connection with an octet now and then.
            self._heard = self._clock.seconds()
        self._record.received += len(data)
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
            if self._pending_input > limits.PENDING_INPUT and not self._reading_paused:
                self._reading_paused = True
                self._transport().pauseProducing()
                self._see_whether_all_is_begun()
        else:
            self._pending_input = 0
        self._in_turn(self._outflow.flush)

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
        if line.endswith(b"\r"):
            line = line[:-1]
        parsed = self.session.parse(line)
        if self._tape is not None:
            self._tape.received(self._record.number, line, parsed)
        self._await(handle(self.session, parsed))

    def lineLengthExceeded(self, line: bytes) -> None:
        """Too much of one line: answer once and throw the rest of it away."""
        parsed = self.session.too_long()
        if self._tape is not None:
            self._tape.received(self._record.number, line[: limits.COMMAND_LINE], parsed)
        self.setRawMode()
        self._await(handle(self.session, parsed))
        # LineReceiver gives up its buffer and its loop here; put the one back
        # and let _scan take up the other.
        super().dataReceived(line)
        self._scan_again = True

    def rawDataReceived(self, data: bytes) -> None:
        """The rest of a line that is too long."""
        _, end, rest = data.partition(self.delimiter)
        if end:
            self.setLineMode()
            super().dataReceived(rest)

    # -- answers, strictly in turn ------------------------------------------------------

    def _await(self, answer: Reply | Deferred[Reply]) -> None:
        if is_deferred(answer):
            self._waiting = self.paused = True
            # What was answered before must not wait for what is not.
            self._outflow.flush()
            answer.addCallback(self._answered).addErrback(self.bug)
            self._see_whether_all_is_begun()
        else:
            self._reply(answer)

    def _answered(self, reply: Reply) -> None:
        self._waiting = False
        if self._is_over():
            # Too late; but a body that was opened must be closed.
            encoded = encode(reply)
            if not isinstance(encoded, bytes):
                encoded.close()
            if self._gone:
                self._tell_end()
            return
        self._reply(reply)
        self._go_on()

    def _reply(self, reply: Reply) -> None:
        """Put one reply into the outflow, and do what it says comes after."""
        if not self._known and self.logged_in:
            self._known = True
            if self._visit is not None:
                if self._record.mechanism == "ANONYMOUS":
                    # Nobody in particular: users and whoever may become one go before.
                    self._visit.idle()
                else:
                    self._visit.logged_in()
        try:
            encoded = encode(reply, at_once=not self._outflow.choked)
        except Exception:
            self.outflow_broke(Failure(), began=False)
            return
        if not isinstance(encoded, bytes):
            self._outflow.stream(encoded)
            return
        self._outflow.send(encoded)
        if isinstance(reply, Status) and reply.after is not _GO_ON:
            if reply.after is After.CLOSE:
                self._close()
            else:
                self._start_tls()

    def _go_on(self) -> None:
        """Take up the lines again that had to wait."""
        outflow = self._outflow
        self.paused = self._is_over() or self._waiting or outflow.full
        if self.paused:
            outflow.flush()
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
        outflow.flush()
        self._close_if_all_is_said()

    def outflow_full(self) -> None:
        """No further line now."""
        self.paused = True

    def outflow_ready(self) -> None:
        """There is room again."""
        if not self._closing and not self._waiting:
            self._go_on()

    def outflow_lost(self) -> None:
        """Nothing that is said now arrives."""
        self._is_over()

    def _is_over(self) -> bool:
        """Whether nothing more is carried out, because the answer could not be sent.

        A transport that was closed by others does not tell: a TLS layer may have taken the
        peer's ``close_notify`` for the end of both directions.
        """
        if not self._closing and not takes_octets(self._transport()):
            self._outflow.drop()
            self._close()
        return self._closing

    def outflow_broke(self, why: Failure, began: bool) -> None:
        """A store failed in the middle of a reply.

        Before the first octet it is an ``-ERR``.  Afterwards there is no honest
        answer: the connection is closed without the final dot, so that half a
        message never looks whole.
        """
        if self._closing:
            return
        if not began:
            self._reply(self.session.refused(why))
            self._go_on()
            return
        number = self._record.number
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
        log.failure("session {number}: a bug in the protocol", why, number=self._record.number)
        self.hang_up("bug")

    # -- the end --------------------------------------------------------------------------

    def _close(self) -> None:
        """Flush the last line, then close (over TLS with a close_notify)."""
        self._closing = self.paused = True
        # Nothing more can be asked: the maildrop is free, however long the
        # client takes to read its last line.
        self._outflow.stop()
        self.session.lost()
        self._in_turn(self._say_goodbye)

    def _say_goodbye(self) -> None:
        if self._gone:
            return
        transport = self._transport()
        # A transport with a paused producer would wait for it for ever.
        transport.unregisterProducer()
        if close(transport, self._outflow.take()):
            return
        if self._timer is not None:
            self._timer.reset(limits.LINGER)
        else:
            # It was the idle timer that led here.
            self._timer = self._clock.callLater(limits.LINGER, self._look_at_the_clock)
        self._unsent = unsent(transport)

    def _close_if_all_is_said(self) -> None:
        if self._end_of_input and not (self._closing or self._waiting or self._outflow.full):
            self._close()

    def _start_tls(self) -> None:
        """STLS: what was pipelined behind it in clear text is thrown away (RFC 2595 section 4)."""
        self._outflow.flush()
        self.clearLineBuffer()
        self._pending_input = 0
        transport = self._transport()
        transport.startTLS(self.factory.tls_context)
        self._outflow.rewire(transport)
        self._handshaking = True

    def _tls_is_on(self) -> None:
        self._handshaking = False
        channel = channel_of(self._transport())
        self.session.restart(channel)
        if self._tape is not None and channel.tls is not None:
            self._tape.note(self._record.number, f"encrypted from here on with {channel.tls.version}")

    def _transport(self) -> Any:
        # ITransport, IConsumer, IPushProducer and abortConnection in one: no
        # interface of Twisted's has them all, every stream transport does.
        return self.transport
