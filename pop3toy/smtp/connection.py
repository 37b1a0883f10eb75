"""One SMTP connection as octets: its beginning, its end, and what comes in, in order.

Not on :class:`twisted.mail.smtp.ESMTP`: importing that installs a reactor, and what is
needed of it is a greeting, a timeout and STARTTLS.  What is done differently, and why:

- Octets are cut by ``framing.py``: Twisted's receiver cannot pause between two
  lines, and knows no line of a message longer than 16 KiB.
- A command is begun only when the one before has its reply, so that pipelined
  commands meet the state that they should; further input waits in the transport.
- A client that does not read its replies is not read from either.

What must not live here: what is said (``replies.py``), and what a command means
(``session.py``, ``smtp.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITLSTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import Refusal
from ..interfaces import Gatekeeper, ITranscript, Visit
from ..net.fast.immediate_write import abort, forget_tls, takes_octets
from ..net.transport import channel_of, peer_name, speaks_tls
from ..pop3.commands import Malformed
from . import limits
from .framing import CommandLines
from .replies import Replies

__all__ = ["Connection"]

log = Logger()


@implementer(IPushProducer, IHalfCloseableProtocol)
class Connection(Replies, TimeoutMixin):
    """A connection that waits where it must.

    :param number: under which transcript and log know it.
    :param host: this server's name.
    :param tls: a context factory for STARTTLS, or ``None``.
    :param gatekeeper: counts connections and turns some away; ``None`` lets all in.
    :param lost: called when it is over.
    """

    #: What is spoken here, for people.
    name: ClassVar[str] = "SMTP"

    def __init__(
        self,
        number: int,
        host: str,
        clock: IReactorTime,
        *,
        idle: int,
        tls: object | None,
        transcript: ITranscript | None,
        gatekeeper: Gatekeeper | None,
        lost: Callable[[Connection], None],
    ) -> None:
        super().__init__(number, transcript=transcript)
        self.host = host.encode("ascii")
        self._idle = idle
        self._tls = tls
        #: Whether STARTTLS can begin here, and whether TLS is on, by that or from the first octet.
        self.can_start_tls = self.started_tls = False
        #: Whether the client has logged in.
        self.authenticated = False
        self.clock = clock
        self.lines = CommandLines()
        self._gatekeeper = gatekeeper
        self._visit: Visit | None = None
        # Whether it has brought a message, or its client has logged in.
        self._useful = False
        # Commands since the last message, and until when the one that was begun keeps its place.
        self._commands = 0
        self._message_time: IDelayedCall | None = None
        self._lost = lost
        #: Called when it has its transport.
        self.made: Callable[[Connection], None] | None = None
        # Why nothing is begun: a reply is pending, or replies pile up unread.
        self._busy = False
        self._choked = False
        # Between the connection and the first octets that came through TLS.
        self._shaking_hands = False
        self._advancing = False
        # A client that sends commands by the thousand leaves the others their turn.
        self._rest: IDelayedCall | None = None
        # Why it ends as soon as nothing is pending.
        self._ending: str | None = None
        # The client will send no more.
        self._input_over = False
        # A message is at its end and being made durable: that is finished in any case, and the
        # factory waits for it.
        self.committing = False
        self._gone = False
        self._why = "dropped"
        self._linger: IDelayedCall | None = None

    # -- for smtp.py ---------------------------------------------------------------

    def greeting(self) -> bytes:
        """What stands behind 220 (RFC 5321 section 4.2)."""
        raise NotImplementedError

    @property
    def line_limit(self) -> int:
        """Octets of the longest line that can come next."""
        return limits.COMMAND_LINE

    def command_received(self, line: bytes, *, crlf: bool) -> None:
        """A line came, without its end; ``crlf`` says whether that was CRLF and not LF."""
        raise NotImplementedError

    def line_too_long(self) -> None:
        """A line was longer than ``line_limit``, and thrown away."""
        self.error(500, "5.5.2", "line too long")

    @property
    def in_text(self) -> bool:
        """Whether a message is coming in, and no commands."""
        raise NotImplementedError

    def text_received(self, data: bytes) -> None:
        """Octets of a message came; puts what is behind its end back with ``lines.feed``."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Forget what was begun: it will not be finished."""
        raise NotImplementedError

    def met_a_bug(self) -> None:
        """Something failed that cannot fail; it is logged already."""
        raise NotImplementedError

    # -- coming and going ------------------------------------------------------------

    def callLater(self, period: float, work: Callable[[], None]) -> IDelayedCall:
        """Twisted's timeouts, on the clock that was given."""
        return self.clock.callLater(period, work)

    def connectionMade(self) -> None:
        """Greet."""
        # Behind an endpoint that speaks TLS from the start.
        self.started_tls = self._shaking_hands = speaks_tls(self.transport)
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            # Otherwise a small reply can wait 40 ms for the client's delayed ACK.
            set_no_delay(True)
        if self.transcript is not None:
            self.transcript.opened(self.number, f"{peer_name(self.transport)}, {self.name}")
        self.transport.registerProducer(self, True)
        if self.made is not None:
            self.made(self)
        if self.closing:
            return
        if self._gatekeeper is not None:
            try:
                self._visit = self._gatekeeper.arrive(channel_of(self.transport).host, self.turn_out)
            except Refusal as error:
                # RFC 5321 section 3.8 allows 421 at any time, also in place of the greeting.
                self.reply(421, "4.7.0", error.text)
                self.close("limit")
                return
        self.can_start_tls = self._tls is not None and ITLSTransport.providedBy(self.transport)
        self.sendCode(220, self.greeting())
        self.setTimeout(self._idle)

    def start_tls(self) -> None:
        """Begin with TLS at once (RFC 3207); :attr:`can_start_tls` said that it can be."""
        self.transport.startTLS(self._tls)
        self.started_tls = True

    def timeoutConnection(self) -> None:
        """RFC 5321 section 4.5.3.2.7."""
        self.reply(421, "4.4.2", "you were silent for too long")
        self.close("timeout")

    def end(self) -> None:
        """The server shuts down: what is being made durable is finished, then 421 (RFC 5321 section 3.8)."""
        self._end_with("4.3.2 this server is shutting down", "shutdown")

    def turn_out(self) -> None:
        """It has to make room for others."""
        self._end_with("4.7.0 too many connections", "limit")

    def _end_with(self, goodbye: str, why: str) -> None:
        self._ending, self._why = goodbye, why
        if not self._busy:
            self._say_goodbye(goodbye)

    def _say_goodbye(self, goodbye: str) -> None:
        self.sendCode(421, goodbye.encode("ascii"))
        self.close(self._why)

    def close(self, why: str) -> None:
        """End the connection when the replies are out."""
        if self.closing:
            return
        self.closing = True
        self._why = why
        self.abandon()
        self.setTimeout(None)
        # TLS waits for its producers before it says goodbye.
        self.transport.unregisterProducer()
        if not self._input_over:
            # Whoever closes has to read: the peer's close_notify comes that way.
            self.transport.resumeProducing()
        self.transport.loseConnection()
        self._linger = self.clock.callLater(limits.LINGER, abort, self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over: nothing that is not at its end is delivered."""
        if not self.closing:
            # What knows this protocol does not know it any more: all is freed at once.
            self.transport.unregisterProducer()
        self.closing = True
        for call in (self._linger, self._rest, self._message_time):
            if call is not None and call.active():
                call.cancel()
        self.abandon()
        self.setTimeout(None)
        if self._visit is not None:
            self._visit.left()
        if self.transcript is not None:
            self.transcript.closed(self.number, self._why)
        self._gone = True
        if not self.committing:
            self._lost(self)
        forget_tls(self.transport)

    def readConnectionLost(self) -> None:
        """The client will send no more (``printf ... | nc -N``): answer what it has sent, then close."""
        self._input_over = True
        # Over TLS something could still come; it would count for nothing.
        self.transport.pauseProducing()
        self._advance()

    def writeConnectionLost(self) -> None:
        """The client reads no more, as only a pipe can tell: nothing more is carried out."""
        self.close("dropped")
        abort(self.transport)

    # -- in ----------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        self._shaking_hands = False
        if not self.closing:
            self.lines.feed(data)
            self._advance()

    def _advance(self) -> None:
        """Begin what can be begun."""
        if self._advancing:
            return
        if not (self.closing or takes_octets(self.transport)):
            # A TLS layer has taken the client's close_notify for the end of both directions:
            # what cannot be acknowledged is not carried out.
            self.close("dropped")
            return
        self._advancing = True
        left = limits.COMMANDS_IN_TURN
        try:
            while not (self._busy or self._choked or self._rest is not None or self.closing):
                if left == 0:
                    self._rest = self.clock.callLater(0, self._rested)
                    self.transport.pauseProducing()
                    return
                left -= 1
                try:
                    if not self._begin_next():
                        if self._input_over:
                            self.close("dropped")
                        return
                except Exception:
                    self._broken(Failure())
        finally:
            self._advancing = False

    def _rested(self) -> None:
        self._rest = None
        self._read_on()
        self._advance()

    def _begin_next(self) -> bool:
        if self.in_text:
            data = self.lines.take()
            if data:
                self.resetTimeout()
                self.text_received(data)
            return bool(data)
        try:
            found = self.lines.next(self.line_limit)
        except ValueError:
            self.heard(b"", Malformed("line too long"))
            self.line_too_long()
            return True
        if found is None:
            return False
        self.resetTimeout()
        line, crlf = found
        self._commands += 1
        if self._commands > limits.COMMANDS:
            self.reply(421, "4.7.0", "too many commands without a message")
            self.close("limit")
            return True
        self.command_received(line, crlf=crlf)
        return True

    def hold(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Begin nothing, and read nothing, until this is done."""
        self._busy = True
        Deferred.fromCoroutine(work).addErrback(self._broken).addCallback(self._ready)
        if self._busy:
            self.setTimeout(None)
            if not self.closing:
                self.transport.pauseProducing()

    def _ready(self, _: object) -> None:
        self._busy = False
        if self.closing:
            if self.committing and self._gone:
                self._lost(self)
            self.committing = False
            return
        self.committing = False
        if self._ending is not None:
            self._say_goodbye(self._ending)
            return
        self.setTimeout(self._idle)
        self._read_on()
        self._advance()

    def _broken(self, failure: Failure) -> None:
        log.failure("SMTP connection {number} met a bug", failure, number=self.number)
        self.met_a_bug()

    def pauseProducing(self) -> None:
        """The transport has enough to send (IPushProducer)."""
        self._choked = True
        # The greeting waits for TLS's handshake, which has to be read.
        if not self.closing and not self._shaking_hands:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It has been read (IPushProducer)."""
        self._choked = False
        self._read_on()
        self._advance()

    def stopProducing(self) -> None:
        """The connection is lost (IPushProducer); ``connectionLost`` says so as well."""

    def _read_on(self) -> None:
        if not (self.closing or self._busy or self._choked or self._input_over or self._rest is not None):
            self.transport.resumeProducing()

    def prove_useful(self) -> None:
        """The client is no stranger any more: its mistakes are forgiven."""
        self.errors = self._commands = 0
        self._useful = True
        self.between_messages()

    def begin_message(self) -> None:
        """A message has begun: who is no stranger need not make room meanwhile."""
        if self._useful and self._visit is not None:
            self._visit.logged_in()
            self._message_time = self.clock.callLater(limits.MESSAGE_TIME, self.between_messages)

    def between_messages(self) -> None:
        """No message is on its way: who is no stranger makes room before strangers, but hears 421."""
        if self._message_time is not None and self._message_time.active():
            self._message_time.cancel()
        self._message_time = None
        if self._useful and self._visit is not None:
            self._visit.idle()
