"""How octets reach a transport, and what it tells about those that it has not sent.

Here is the plain way, through what Twisted documents of its transports; ``net.fast.immediate_write`` is a
faster one.  ``run`` hands one of them to the factories.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.error import ConnectionAborted
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from .transport import beneath, speaks_tls
from .types import IStreamTransport

__all__ = ["Sending", "abort", "takes_octets"]


class Sending:
    """Writes and closes as ``transport.write`` and ``loseConnection`` do.

    :param postpone: :meth:`pop3toy.interfaces.Batcher.postpone` of the reactor's batcher; without one, each
        connection is answered as soon as it was read.
    """

    def __init__(self, postpone: Callable[[Callable[[], object]], bool] | None = None) -> None:
        self.postpone = postpone

    def writer_of(self, transport: IStreamTransport) -> Callable[[bytes], None]:
        """What writes to a transport.

        With TLS it encrypts at once.  Twisted keeps small writes back until the reactor's next turn; what the
        peer's ``close_notify`` overtakes meanwhile is lost without an error.
        """
        write: Callable[[bytes], None] = transport.write
        if not speaks_tls(transport):
            return write
        from twisted.protocols.tls import TLSMemoryBIOProtocol

        layer: object = transport
        while layer is not None:
            # After startTLS the transport's protocol is the one that speaks TLS.
            for tls in (layer, getattr(layer, "protocol", None)):
                if isinstance(tls, TLSMemoryBIOProtocol):
                    return partial(TLSMemoryBIOProtocol.write, tls)
            # Past a wrapper that only passes things on, and no other.
            passes_on = getattr(type(layer), "write", None) is ProtocolWrapper.write
            layer = getattr(layer, "transport", None) if passes_on else None
        return write

    def close(self, transport: IStreamTransport, last: bytes = b"") -> bool:
        """Write for the last time and close when all is sent; the transport has no producer any more.

        :return: whether that was now, and the protocol's ``connectionLost`` has been called.
        """
        if last:
            self.writer_of(transport)(last)
        transport.loseConnection()
        return False

    def unsent(self, transport: object) -> int | None:
        """How many octets the reactor has still to send; ``None`` if the transport cannot tell.

        Looked at twice, it tells a client that reads slowly from one that does not read at all.  What was
        written in this turn of the reactor may be missing.  Under TLS it counts what is encrypted already.
        """
        lowest = beneath(transport)
        buffer: bytes | None = getattr(lowest, "dataBuffer", None)
        return None if buffer is None else len(buffer) - int(getattr(lowest, "offset", 0))

    def pause_until_sent(self, transport: object) -> bool:
        """If anything may not be sent, pause the producer until all is, however little it is.

        :return: whether it was paused; not if all is sent, or the transport cannot tell.
        """
        if not self._pause(beneath(transport)):
            return False
        # If nothing was left, the reactor finds that out in its next turn, and resumes the producer.
        beneath(transport).startWriting()
        return True

    @staticmethod
    def _pause(lowest: object) -> bool:
        """Do what a transport itself does when more than its ``bufferSize`` waits."""
        producer = getattr(lowest, "producer", None)
        if producer is None or not hasattr(lowest, "producerPaused"):
            return False
        lowest.producerPaused = True
        producer.pauseProducing()
        return True

    def forget_tls(self, transport: IStreamTransport) -> None:
        """The connection is lost: what TLS has kept may go.  Here the garbage collector finds it."""


def takes_octets(transport: object) -> bool:
    """Whether what is written now will be sent.

    Not if something has closed the transport, or a layer beneath: Twisted's TLS does so at
    the peer's ``close_notify``, and what is written then vanishes.
    """
    while transport is not None:
        if getattr(transport, "disconnecting", False):
            return False
        transport = getattr(transport, "transport", None)
    return True


def abort(transport: IStreamTransport) -> None:
    """End a connection now; what is not sent will not be.

    ``abortConnection`` is TCP's and TLS's (``ITCPTransport``); standard input and output have none.
    """
    if hasattr(transport, "abortConnection"):
        transport.abortConnection()
    elif hasattr(transport, "connectionLost") and not getattr(transport, "disconnected", False):
        transport.connectionLost(Failure(ConnectionAborted()))
    else:
        transport.loseConnection()
