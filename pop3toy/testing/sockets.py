"""A connection in memory: a transport as Twisted's, read by a client that decides when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["LOOPBACK", "FakeSocket"]

#: Where clients in memory come from: this machine, from which passwords are taken.
LOOPBACK = IPv4Address("TCP", "127.0.0.1", 50110)


@implementer(ITransport, IConsumer, IPushProducer)
class FakeSocket:
    """A transport with the behaviour of Twisted's ``FileDescriptor``, read by a client who decides when.

    What is written waits in ``unsent`` until :meth:`client_reads`; a producer
    is paused above ``bufferSize`` and resumed when all is sent; while it is
    paused, ``loseConnection`` waits for it.

    :ivar got: what the client has read.
    :ivar most_unsent: the most that ever waited to be sent.
    :ivar lost: why the connection ended, or ``None``.
    """

    bufferSize = 64 * 1024
    offset = 0

    def __init__(self, clock: Clock, *, keep: bool = True) -> None:
        self._clock = clock
        self._keep = keep
        self.protocol: Any = None
        self.producer: Any = None
        self.producerPaused = False
        self.reading = True
        self.connected = True
        self.disconnecting = False
        self.unsent = bytearray()
        self.got = bytearray()
        self.count = 0
        self.most_unsent = 0
        self.lost: Failure | None = None
        self.no_delay = False

    @property
    def dataBuffer(self) -> bytearray:
        """Where Twisted's transports have what is not sent."""
        return self.unsent

    def connect(self, protocol: Any) -> None:
        """Give a protocol of the server this transport."""
        self.protocol = protocol
        protocol.makeConnection(self)

    # -- the client's side --------------------------------------------------------

    def client_sends(self, data: bytes) -> None:
        """Octets arrive; only where the server reads."""
        assert self.reading, "the server does not read"
        assert self.protocol is not None
        self.protocol.dataReceived(data)

    def client_reads(self, most: int | None = None) -> bytes:
        """The client takes up to so many octets of what waits: one ``doWrite`` of the reactor."""
        data = bytes(self.unsent[:most])
        del self.unsent[: len(data)]
        self.count += len(data)
        if self._keep:
            self.got += data
        self._look()
        return data

    def _look(self) -> None:
        """If all is sent, what a reactor does in the turn in which it finds that out."""
        if not self.unsent:
            if self.producer is not None and self.producerPaused:
                self.producerPaused = False
                self.producer.resumeProducing()
            elif self.disconnecting:
                self.vanish(ConnectionDone())

    def client_reads_all(self) -> bytes:
        """The client reads until nothing comes any more, turn after turn."""
        read = bytearray()
        while piece := self.client_reads() or self._next_turn():
            read += piece
        return bytes(read)

    def _next_turn(self) -> bytes:
        self._clock.advance(0)
        return self.client_reads()

    def client_half_closes(self) -> None:
        """The client will send no more, but reads on."""
        self.reading = False
        IHalfCloseableProtocol(self.protocol).readConnectionLost()

    def vanish(self, why: Exception | None = None) -> None:
        """The connection is gone."""
        if self.connected:
            self.connected = self.reading = False
            self.lost = Failure(why if why is not None else ConnectionLost())
            producer, self.producer = self.producer, None
            if producer is not None:
                producer.stopProducing()
            assert self.protocol is not None
            self.protocol.connectionLost(self.lost)

    # -- what the protocol calls ----------------------------------------------------

    def write(self, data: bytes) -> None:
        """See ``ITransport``."""
        if not self.connected or not data:
            return
        self.unsent += data
        self.most_unsent = max(self.most_unsent, len(self.unsent))
        if self.producer is not None and len(self.unsent) > self.bufferSize:
            self.producerPaused = True
            self.producer.pauseProducing()

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """See ``ITransport``."""
        self.write(b"".join(pieces))

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """See ``IConsumer``."""
        assert self.producer is None
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self.producer = None

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self.reading = False

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        if self.connected and not self.disconnecting:
            self.reading = True

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """See ``ITransport``."""
        if self.connected and not self.disconnecting:
            self.reading = False
            self.disconnecting = True
            self.startWriting()

    def startWriting(self) -> None:
        """See ``twisted.internet.abstract.FileDescriptor``."""
        if not self.unsent:
            # The reactor finds out in its next turn.
            self._clock.callLater(0, self._look)

    def abortConnection(self) -> None:
        """See ``ITCPTransport``."""
        if self.connected:
            self.disconnecting = True
            self.reading = False
            self._clock.callLater(0, self.vanish, ConnectionAborted())

    def getPeer(self) -> IPv4Address:
        """See ``ITransport``."""
        return LOOPBACK

    def getHost(self) -> IPv4Address:
        """See ``ITransport``."""
        return IPv4Address("TCP", "127.0.0.1", 2590)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ``ITCPTransport``."""
        self.no_delay = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See ``ITCPTransport``."""
        self.keep_alive = enabled

    def getHandle(self) -> None:
        """No socket beneath."""
