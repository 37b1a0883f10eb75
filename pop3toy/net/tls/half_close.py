"""TLS that goes on writing when the client has said its last word.

RFC 8446 section 6.1: a ``close_notify`` ends one direction, and the other side may
finish what it is sending.  Twisted's TLS answers it with its own at once and drops,
without a word, all that is written afterwards.  Here the protocol is told of the end
of its input, as it is over TCP (``IHalfCloseableProtocol``), and closes when it has
answered; then ``loseConnection`` sends our ``close_notify``.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from OpenSSL import SSL
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["HalfCloseableConnection"]


class HalfCloseableConnection(SSL.Connection):
    """The server's side of one TLS connection.

    :param tls: the protocol that Twisted speaks TLS with; the protocol within it is told.
    :param alpn: the names of what is spoken there, of which a client may agree on one (RFC 7301).
    """

    def __init__(self, context: SSL.Context, tls: TLSMemoryBIOProtocol, alpn: Sequence[bytes]) -> None:
        super().__init__(context, None)
        self.alpn = alpn
        # Twisted forgets this object when the connection is lost, so it is no cycle then.
        self._tls = tls
        self._input_over = False
        self._error: SSL.Error | None = None

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """What has come.

        :raises SSL.WantReadError: also if no more will come, when the protocol can live with that.
        :raises SSL.ZeroReturnError: if both directions are closed, or the protocol cannot.
        """
        try:
            return super().recv(bufsiz, flags)
        except SSL.ZeroReturnError:
            protocol: object = self._tls.wrappedProtocol
            if self.get_shutdown() & SSL.SENT_SHUTDOWN or not IHalfCloseableProtocol.providedBy(protocol):
                raise
            if not self._input_over:
                self._input_over = True
                protocol.readConnectionLost()
            raise SSL.WantReadError from None
        except SSL.WantReadError:
            raise
        except SSL.Error as error:
            self._error = error
            raise

    def forget(self) -> None:
        """The connection is lost.

        Twisted keeps the failure of a broken connection in a variable of a frame that the failure's
        own traceback knows: a cycle, and with it all that belongs to the connection, 50 kB.
        """
        error, self._error = self._error, None
        if error is not None:
            traceback.clear_frames(error.__traceback__)

    def bio_write(self, buf: bytes | bytearray | memoryview) -> int:
        """Octets from the client; those behind a close_notify "MUST be ignored" (RFC 8446 section 6.1)."""
        return len(buf) if self._input_over else super().bio_write(buf)
