"""Writing to a socket, and closing it, at once instead of in the reactor's next turn.

Twisted's ``transport.write`` asks the reactor to tell when the socket can be
written, and writes then: two ``epoll_ctl`` calls and one more turn of the loop
for each reply, although a socket whose client has read everything can always
be written.  A login (four replies) took 0.33 ms at the median that way and 0.19
when written at once.  What the socket does not take goes the usual way.  Closing
costs the same two calls and a turn, and a write of nothing.

This is the one file that looks at how Twisted's TCP transport buffers.  If that
ever looks different, it falls back to ``transport.write``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionAborted
from twisted.internet.main import CONNECTION_DONE
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from ..transport import speaks_tls
from ..types import IStreamTransport

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["abort", "close", "forget_tls", "pause_until_sent", "takes_octets", "unsent", "writer_of"]

_PLAIN = (tcp.Server, unix.Server)


def writer_of(transport: IStreamTransport) -> Callable[[bytes], None]:
    """The fastest way to write to a transport that keeps its promises.

    Order, back-pressure and errors are the transport's own: as soon as
    anything is buffered in it, everything goes through its ``write``.
    """
    write: Callable[[bytes], None] = transport.write
    if not _known(transport):
        return _tls_writer(transport) if speaks_tls(transport) else write
    send = transport.getHandle().send

    def write_at_once(data: bytes) -> None:
        if transport.dataBuffer or transport._tempDataBuffer or not transport.connected:
            write(data)
            return
        try:
            # All at once: in the transport's own portions of 128 KiB, half of each
            # chunk of a large body went through its buffers.
            sent = send(data)
        except OSError:
            # No room; or an error, which comes again when the reactor writes, and is dealt with there.
            sent = 0
        if sent < len(data):
            write(data[sent:])

    return write_at_once


def _tls_writer(transport: IStreamTransport) -> Callable[[bytes], None]:
    """Encrypts at once.

    Twisted keeps small writes back until the reactor's next turn; what the peer's
    ``close_notify`` overtakes meanwhile is lost, and nobody is told.
    """
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    layer: Any = transport
    while layer is not None:
        # After startTLS the transport's protocol is the one that speaks TLS.
        for tls in (layer, getattr(layer, "protocol", None)):
            if isinstance(tls, TLSMemoryBIOProtocol):
                return partial(TLSMemoryBIOProtocol.write, tls)
        # Past a wrapper that only passes things on, and no other.
        layer = layer.transport if getattr(type(layer), "write", None) is ProtocolWrapper.write else None
    write: Callable[[bytes], None] = transport.write
    return write


def close(transport: IStreamTransport, last: bytes = b"") -> bool:
    """Write for the last time and close when all is sent, as ``loseConnection`` does.

    The transport has no producer any more.

    :return: whether that was now, and the protocol's ``connectionLost`` has been called.
    """
    if (
        _known(transport)
        and transport.connected
        and not (transport.disconnecting or transport.dataBuffer or transport._tempDataBuffer)
    ):
        try:
            # It leaves with the end of the connection, in one packet: the client, whom each
            # packet wakes, is woken once (4 % more logins a second).
            last = last[transport.getHandle().send(last, _MORE) :] if last else last
        except OSError:
            pass
        if not last:
            transport.connectionLost(_DONE)
            return True
    if last:
        writer_of(transport)(last)
    transport.loseConnection()
    return False


#: More comes at once; no more than a hint, and not known everywhere.
_MORE = getattr(socket, "MSG_MORE", 0)

# One for all, as the reactor has it.
_DONE = Failure(CONNECTION_DONE)


def _known(transport: object) -> TypeIs[tcp.Server | unix.Server]:
    """Whether it is one of Twisted's, without TLS, and looks as expected."""
    if type(transport) not in _PLAIN or getattr(transport, "TLS", True):
        return False
    return hasattr(transport, "dataBuffer") and hasattr(transport, "_tempDataBuffer")


def unsent(transport: object) -> int | None:
    """How many octets a transport has taken and not sent; ``None`` if it cannot be known.

    Looked at twice, it tells a client that reads slowly from one that does not
    read at all.  Under TLS it counts what is encrypted already.
    """
    lowest = _lowest(transport)
    if not hasattr(lowest, "dataBuffer"):
        return None
    octets: int = len(lowest.dataBuffer) - lowest.offset
    return octets + sum(map(len, getattr(lowest, "_tempDataBuffer", ())))


def pause_until_sent(transport: object) -> bool:
    """If anything is not sent, pause the producer until all is, however little it is.

    :return: whether it was paused; not if all is sent, or the transport cannot tell.
    """
    lowest = _lowest(transport)
    if not unsent(lowest) or not hasattr(lowest, "producerPaused"):
        return False
    producer = lowest.producer
    if producer is None:
        return False
    # What the transport itself does when more than its ``bufferSize`` waits.
    lowest.producerPaused = True
    producer.pauseProducing()
    return True


def takes_octets(transport: object) -> bool:
    """Whether what is written now will be sent.

    Not if somebody has closed the transport, or a layer beneath: Twisted's TLS does so at
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


def forget_tls(transport: Any) -> None:
    """Break the cycles that Twisted's TLS makes, when the connection is lost.

    All that belongs to it, 50 kB, would stay until the garbage collector comes.
    """
    if not speaks_tls(transport):
        return
    forget = getattr(transport.getHandle(), "forget", None)
    if forget is not None:
        forget()
    # After startTLS it has methods of the layer that it belongs to.
    lowest = _lowest(transport)
    for name in ("getHandle", "getPeerCertificate"):
        vars(lowest).pop(name, None)


def _lowest(transport: object) -> Any:
    """What is beneath all layers (TLS, a proxy's header), and has the buffer."""
    # The halves of Twisted's StandardIO are transports of their own.
    while beneath := getattr(transport, "transport", None) or getattr(transport, "_writer", None):
        transport = beneath
    return transport
