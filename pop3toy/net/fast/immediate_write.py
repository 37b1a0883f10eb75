"""Writing to a socket, and closing it, at once instead of in the reactor's next turn.

Twisted's ``transport.write`` asks the reactor to tell when the socket can be written, and writes
then: two ``epoll_ctl`` calls and one more turn of the loop for each reply, although a socket whose
client has read everything can nearly always be written.  What the socket does not take goes the
usual way.  Closing costs the same two calls and a turn, and a write of nothing.

This is the one file that looks at how Twisted's TCP transport buffers.  If that
ever looks different, it falls back to ``transport.write``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from ..sending import Sending
from ..transport import beneath, speaks_tls
from ..types import IStreamTransport

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["ImmediateSending"]

_PLAIN = (tcp.Server, unix.Server)

#: More comes at once; no more than a hint, and not known everywhere.
_MORE = getattr(socket, "MSG_MORE", 0)

# One for all, as the reactor has it.
_DONE = Failure(CONNECTION_DONE)


class ImmediateSending(Sending):
    """Sends to sockets without TLS at once, and counts what they have not taken.

    Order, back-pressure and errors are the transport's own: as soon as anything is buffered in it,
    everything goes through its ``write``.
    """

    def writer_of(self, transport: IStreamTransport) -> Callable[[bytes], None]:
        """What writes to a transport."""
        if not _known(transport):
            return super().writer_of(transport)
        write: Callable[[bytes], None] = transport.write
        send = transport.getHandle().send

        def write_at_once(data: bytes) -> None:
            if transport.dataBuffer or transport._tempDataBuffer or not transport.connected:
                write(data)
                return
            try:
                # All at once: in the transport's own portions half of each chunk of a large body went
                # through its buffers.
                sent = send(data)
            except OSError:
                # No room; or an error, which comes again when the reactor writes, and is dealt with there.
                sent = 0
            if sent < len(data):
                write(data[sent:])

        return write_at_once

    def close(self, transport: IStreamTransport, last: bytes = b"") -> bool:
        """See :meth:`Sending.close`."""
        if (
            not _known(transport)
            or not transport.connected
            or transport.disconnecting
            or transport.dataBuffer
            or transport._tempDataBuffer
        ):
            return super().close(transport, last)
        try:
            # It leaves with the end of the connection, in one packet: the client, whom each
            # packet wakes, is woken once.
            rest = last[transport.getHandle().send(last, _MORE) :] if last else last
        except OSError:
            rest = last
        if rest:
            return super().close(transport, rest)
        transport.connectionLost(_DONE)
        return True

    def unsent(self, transport: object) -> int | None:
        """How many octets a transport has taken and not sent; ``None`` if it cannot tell."""
        lowest = _beneath(transport)
        if not hasattr(lowest, "dataBuffer"):
            return None
        octets: int = len(lowest.dataBuffer) - lowest.offset
        return octets + sum(map(len, getattr(lowest, "_tempDataBuffer", ())))

    def pause_until_sent(self, transport: object) -> bool:
        """See :meth:`Sending.pause_until_sent`; where all is sent, nothing is waited for."""
        return bool(self.unsent(transport)) and self._pause(_beneath(transport))

    def forget_tls(self, transport: Any) -> None:
        """Break the cycles that Twisted's TLS makes: all that belongs to a connection is free at once."""
        if not speaks_tls(transport):
            return
        forget = getattr(transport.getHandle(), "forget", None)
        if forget is not None:
            forget()
        # After startTLS it has methods of the layer that it belongs to.
        lowest = _beneath(transport)
        for name in ("getHandle", "getPeerCertificate"):
            vars(lowest).pop(name, None)


def _known(transport: object) -> TypeIs[tcp.Server | unix.Server]:
    """Whether it is one of Twisted's, without TLS, and looks as expected."""
    if type(transport) not in _PLAIN or getattr(transport, "TLS", True):
        return False
    return hasattr(transport, "dataBuffer") and hasattr(transport, "_tempDataBuffer")


def _beneath(transport: object) -> Any:
    """What has the buffer: of ``StandardIO`` the writing half."""
    lowest = beneath(transport)
    return getattr(lowest, "_writer", None) or lowest
