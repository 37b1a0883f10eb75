"""TLS in memory: OpenSSL as a client on one side of a :class:`FakeSocket`, a server's protocol on the other.

Nothing here waits; what the "kernel" has taken of the server's octets is what the
client has read.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet import _newtls
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, ITLSTransport
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pop3toy.net.proxied import _ProxiedFactory
from pop3toy.net.tls.contexts import ServerTLS

from .pop3_world import FakeSocket

__all__ = ["SecurableSocket", "TLSClient", "TwistedsOwn"]


@implementer(ITLSTransport)
class SecurableSocket(FakeSocket):
    """A transport that can start TLS, the way Twisted's do."""

    _tlsClientDefault = False
    streamingProducer = True
    TLS = False

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        _newtls.startTLS(self, contextFactory, normal, FakeSocket)
        # Else it is the global reactor's, which stands still here.
        tls: Any = self.protocol
        tls._aggregator._clock = self._clock

    def _top(self) -> Any:
        return self.protocol if self.TLS else super()

    def write(self, data: bytes) -> None:
        self._top().write(data)

    def loseConnection(self) -> None:
        if not self.TLS or (self.connected and not self.disconnecting):
            self._top().loseConnection()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self._top().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._top().unregisterProducer()


@implementer(IOpenSSLServerConnectionCreator)
class TwistedsOwn:
    """TLS as it is with contexts of others: a ``close_notify`` ends both directions."""

    def __init__(self, tls: ServerTLS) -> None:
        self._tls = tls

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._tls.serverConnectionForTLS(tlsProtocol).get_context(), None)


class TLSClient:
    """A client that has shaken hands.

    :param factory: of the protocol that it talks to.
    :param tls: the server's side of TLS.
    :param version: of TLS, as in ``SSL.TLS1_3_VERSION``.
    :param command: what begins TLS within the connection, as ``STLS``; else it begins with TLS.
    :param header: what a proxy says before; then the server is behind one.
    :ivar got: what it has read.
    :ivar closed: whether the server's ``close_notify`` came.
    """

    def __init__(
        self,
        factory: Any,
        tls: Any,
        clock: Clock,
        version: int = SSL.TLS1_3_VERSION,
        command: bytes = b"",
        header: bytes = b"",
    ) -> None:
        self.socket = SecurableSocket(clock)
        self.got = b""
        self.closed = False
        outer = factory if command else TLSMemoryBIOFactory(tls, False, factory, clock)  # type: ignore[arg-type]
        if header:
            outer = _ProxiedFactory(outer, clock, None)
        self.socket.connect(outer.buildProtocol(None))
        if header:
            self.socket.client_sends(header)
        if command:
            self.socket.client_reads_all()
            self.socket.client_sends(command)
            self.socket.client_reads_all()
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self.socket.client_sends(self.output())
                self.tls.bio_write(self.socket.client_reads_all())
            else:
                break
        if last := self.output():
            self.socket.client_sends(last)
        self.reads()

    def output(self) -> bytes:
        """The octets of TLS that are to be sent."""
        octets = b""
        try:
            while True:
                octets += self.tls.bio_read(1 << 16)
        except SSL.WantReadError:
            return octets

    def sends(self, *said: bytes, close: bool = False) -> None:
        """Send each in a record of its own, all in one packet; ``close`` with a ``close_notify`` behind."""
        for one in said:
            self.tls.sendall(one)
        if close:
            self.tls.shutdown()
        self.socket.client_sends(self.output())

    def reads(self, most: int | None = None) -> int:
        """Read what comes, up to so many octets of TLS.

        :return: how many there were.
        """
        count = 0
        while most is None or count < most:
            octets = self.socket.client_reads(None if most is None else most - count)
            octets = octets or self.socket._next_turn() if most is None else octets
            if not octets:
                break
            count += len(octets)
            self.tls.bio_write(octets)
        try:
            while True:
                self.got += self.tls.recv(1 << 16)
        except SSL.ZeroReturnError:
            self.closed = True
        except SSL.WantReadError:
            pass
        return count
