"""What goes out: replies are gathered, streams pulled, and both stop when the transport has enough.

The producer of one connection's transport.  It knows order and amounts, not
what a reply means; whose turn it is stays with the connection.

It also tells the observers, because the order is here: a line that was heard
while an answer waits to be written is told of behind that answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .. import limits
from ..errors import Refusal
from ..events import LATE, Event, MessageRetrieved, Observers, ReplySent
from ..interfaces import MaybeDeferred, SessionRecord, Stream, is_deferred
from .sending import Sending, takes_octets
from .types import IStreamTransport

__all__ = ["ReplyWriter"]

log = Logger()


class Owner(Protocol):
    """What a writer calls of its connection."""

    def writer_full(self) -> None:
        """No further line may be answered now; :meth:`writer_ready` will come."""

    def writer_ready(self) -> None:
        """The next line may be answered."""

    def writer_lost(self) -> None:
        """The transport takes nothing any more."""

    def stream_failed(self, why: Failure, began: bool) -> None:
        """A stream failed; ``began`` if some of it is out already."""

    def bug(self, why: Failure) -> None:
        """Something failed that should not."""


def _nowhere(data: bytes) -> None:
    """Where octets go when the connection is lost."""


class _NoOwner:
    """In the owner's place when the connection is lost: only failures are told, to the log."""

    def __init__(self, record: SessionRecord) -> None:
        self._number = record.number

    def writer_full(self) -> None:
        """Nothing waits."""

    writer_ready = writer_lost = writer_full

    def stream_failed(self, why: Failure, began: bool) -> None:
        """Nothing was going out."""

    def bug(self, why: Failure) -> None:
        """Write it down."""
        log.failure("session {number}: a bug behind its end", why, number=self._number)


@implementer(IPushProducer)
class ReplyWriter:
    """The way out of one connection.

    :param owner: the connection.
    :param record: its ``sent`` is kept up to date.
    :param observers: are told of events, in the order of the conversation.
    """

    def __init__(
        self,
        owner: Owner,
        record: SessionRecord,
        clock: IReactorTime,
        observers: Observers,
        sending: Sending,
    ) -> None:
        self._owner: Owner = owner
        self._record = record
        self._clock = clock
        self._sending = sending
        self._told = observers.told
        self._tell_sent = observers.told.get(ReplySent)
        # Events that are told when the gathered octets have left: what to call, the kind, and the
        # fields behind number and time.
        self._untold: list[tuple[Callable[[Event], object], type[Event], tuple[object, ...]]] = []
        # Where in it belongs what :meth:`cause` is going to tell.
        self._cause_at: int | None = None
        self._transport: IStreamTransport | None = None
        self._write: Callable[[bytes], None]
        self._gathered: list[bytes] = []
        self._gathered_octets = 0
        self._stream: Stream | None = None
        self._done: Callable[[], object] | None = None
        self._began = False
        # A pull is under way, or its Deferred is waited for: no other may begin.
        self._pulling = False
        # A client that takes all as fast as it comes must leave the others their turn: one that
        # sends commands by the thousand would keep all others waiting.
        self._rest: IDelayedCall | None = None
        self._until_rest: int = limits.TURN
        self._until_sent: Deferred[bool] | None = None
        #: The transport has enough to send.
        self.paused = False
        #: When octets went out last, in the clock's seconds.
        self.last_sent = clock.seconds()

    @property
    def streaming(self) -> bool:
        """Whether a reply is out in part."""
        return self._stream is not None

    @property
    def awaited(self) -> bool:
        """Whether QUIT waits for the client to take what was sent; see :meth:`handed_over`."""
        return self._until_sent is not None

    @property
    def full(self) -> bool:
        """Whether the next answer has to wait."""
        return self.paused or self._rest is not None or self._stream is not None

    def attach(self, transport: IStreamTransport) -> None:
        """Send through this transport, and be its producer."""
        transport.registerProducer(self, True)
        self.rewire(transport)

    def rewire(self, transport: IStreamTransport) -> None:
        """Look at the transport again, which has changed its nature (TLS)."""
        self._transport = transport
        self._write = self._sending.writer_of(transport)

    # -- replies ---------------------------------------------------------------------

    def send(self, data: bytes, last: bool = True, shown: bytes | None = None) -> None:
        """Add a whole reply, or a piece of one; it leaves at the next flush at the latest.

        :param shown: what observers see of it, if that is not all.
        """
        self._gathered.append(data)
        self._gathered_octets += len(data)
        if self._tell_sent is not None:
            self._untold.append(
                (self._tell_sent, ReplySent, (data if shown is None else shown, len(data), last))
            )
        if self._gathered_octets >= limits.GATHER:
            self.flush()
        self._until_rest -= len(data) + (limits.REPLY if last else 0)
        if self._until_rest < 0 and self._rest is None:
            self._rest = self._clock.callLater(0, self._rested)
            self._owner.writer_full()

    def flush(self) -> None:
        """Write all that was gathered, in one go."""
        if self._gathered:
            self._write(self.drain())

    def drain(self) -> bytes:
        """All that was gathered, for the caller to write now."""
        gathered = self._gathered
        if not gathered:
            return b""
        data = gathered[0] if len(gathered) == 1 else b"".join(gathered)
        self._gathered = []
        self._gathered_octets = 0
        self._record.sent += len(data)
        self.last_sent = self._clock.seconds()
        if self._untold:
            self._tell_all(takes_octets(self._transport))
        return data

    def handed_over(self) -> MaybeDeferred[bool]:
        """Whether the kernel has all that was said; false if the connection ended before.

        A Deferred while something waits in the transport.
        """
        self.flush()
        if not takes_octets(self._transport):
            return False
        if not (self.paused or self._sending.pause_until_sent(self._transport)):
            return True
        self._until_sent = Deferred()
        return self._until_sent

    def _tell_handed_over(self, yes: bool) -> None:
        waiting, self._until_sent = self._until_sent, None
        if waiting is not None:
            waiting.callback(yes)

    def _rested(self) -> None:
        self._rest = None
        self._until_rest = limits.TURN
        self._pump_on()

    def stream(self, stream: Stream, done: Callable[[], object] | None = None) -> None:
        """Send a reply piece by piece; perhaps all of it at once.

        :param done: is called when its last piece was sent.
        """
        self._stream = stream
        self._done = done
        self._began = False
        self._pump()

    def discard(self) -> None:
        """Forget what was gathered, and let go of the stream."""
        self._gathered.clear()
        self._gathered_octets = 0
        self._tell_all(False)
        self.stop()

    def abandon(self) -> None:
        """The connection is lost: forget everything, owner and transport included, which know this object."""
        self._owner = _NoOwner(self._record)
        self._transport, self._write = None, _nowhere
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self.discard()
        self._tell_handed_over(False)

    def stop(self) -> None:
        """Let go of the stream; what was gathered can still leave."""
        stream, self._stream = self._stream, None
        self._done = None
        if stream is not None:
            stream.close()

    def _pump(self) -> None:
        """Move pieces to the transport until it has enough."""
        stream = self._stream
        assert stream is not None
        self._pulling = True
        try:
            while self._stream is not None and not (self.paused or self._rest is not None):
                piece = stream.pull()
                if is_deferred(piece):
                    if not (piece.called and not piece.paused and isinstance(piece.result, bytes)):
                        self._owner.writer_full()
                        self.flush()
                        piece.addCallbacks(self._piece_came, self._broke).addErrback(self._owner.bug)
                        return
                    # It has come already; a callback would recurse once for each chunk.
                    piece = piece.result
                self._piece(piece)
        except Exception:
            self._broke(Failure())
            return
        self._pulling = False
        if self._stream is not None:
            self._owner.writer_full()

    def _piece(self, piece: bytes) -> None:
        assert self._stream is not None
        self._began = True
        last = self._stream.done
        self.send(piece, last)
        if last:
            done = self._done
            self.stop()
            if done is not None:
                done()

    def _piece_came(self, piece: bytes) -> None:
        self._pulling = False
        if self._stream is not None:
            self._piece(piece)
            self._pump_on()

    def _pump_on(self) -> None:
        if not takes_octets(self._transport):
            self._owner.writer_lost()
            return
        if self._stream is not None and not self.paused:
            self._pump()
        if self._stream is None:
            self._owner.writer_ready()

    def _broke(self, why: Failure) -> None:
        self._pulling = False
        if self._stream is None:
            # All is out, or was given up: that the store is in trouble does not matter any more.
            if not isinstance(why.value, Refusal):
                self._owner.bug(why)
            return
        self.stop()
        self._owner.stream_failed(why, self._began)

    # -- events -------------------------------------------------------------------

    def happened(self, kind: type[Event], *what: object) -> None:
        """Tell the observers that want this kind of event, when what was sent before is out.

        :param what: its fields behind ``session`` and ``at``.
        """
        tell = self._told.get(kind)
        if tell is None:
            return
        if self._gathered or self._cause_at is not None:
            self._untold.append((tell, kind, what))
        else:
            # What kind(...) does, by a shorter way.
            tell(tuple.__new__(kind, (self._record.number, self._clock.seconds(), *what)))

    def tell_no_more(self) -> None:
        """The end was told: nothing comes behind it but what the log has to have."""
        self._told = {kind: tell for kind, tell in self._told.items() if kind in LATE}
        self._tell_sent = None
        self._untold.clear()

    def expect_cause(self) -> None:
        """Something is carried out whose event is made afterwards: events that follow from it wait."""
        self._cause_at = len(self._untold)

    def cause(self, kind: type[Event], *what: object) -> None:
        """Tell of what was carried out since :meth:`expect_cause`, and then of what followed."""
        at, self._cause_at = self._cause_at, None
        tell = self._told.get(kind)
        if tell is not None:
            self._untold.insert(at or 0, (tell, kind, what))
        if not self._gathered:
            self._tell_all(True)

    def _tell_all(self, handed_over: bool) -> None:
        untold, self._untold = self._untold, []
        for tell, kind, what in untold:
            if kind is ReplySent:
                what = (*what, handed_over)
            elif kind is MessageRetrieved and not handed_over:
                continue
            tell(tuple.__new__(kind, (self._record.number, self._clock.seconds(), *what)))

    # -- the transport's side (IPushProducer) ------------------------------------------

    def pauseProducing(self) -> None:
        """The transport has enough to send."""
        self.paused = True
        self._owner.writer_full()

    def resumeProducing(self) -> None:
        """The transport has sent what it had: go on with the body or the next line."""
        self.paused = False
        self.last_sent = self._clock.seconds()
        self._tell_handed_over(takes_octets(self._transport))
        if not self._pulling:
            self._pump_on()

    def stopProducing(self) -> None:
        """The connection is lost; ``connectionLost`` says so as well."""
