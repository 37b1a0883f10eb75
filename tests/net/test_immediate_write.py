"""Writing to a socket at once, and what Twisted's transports must look like for it."""

from __future__ import annotations

import gc
import socket
import weakref
from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import POP3Factory, limits
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.events import Observers
from pop3toy.net.fast.immediate_write import ImmediateSending
from pop3toy.net.sending import takes_octets

from ..pop3_world import FakeAuthenticator, ScriptedMailbox, Watcher

SENDING = ImmediateSending()


class IdleReactor:
    """Notes who wants to write."""

    def __init__(self) -> None:
        self.writers: list[object] = []

    def addWriter(self, writer: object) -> None:
        self.writers.append(writer)

    def removeWriter(self, writer: object) -> None:
        if writer in self.writers:
            self.writers.remove(writer)

    addReader = removeReader = lambda self, reader: None


class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        """Nothing is made."""


class DirectTests(SynchronousTestCase):
    """A socket that has room is written to at once, in order."""

    def setUp(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        self.client = socket.create_connection(listening.getsockname())
        self.addCleanup(self.client.close)
        self.client.settimeout(10)
        skt, address = listening.accept()
        self.addCleanup(skt.close)
        self.reactor: Any = IdleReactor()
        port: Any = None
        self.transport = tcp.Server(skt, Protocol(), address, port, 1, self.reactor)
        self.write = SENDING.writer_of(self.transport)

    def received(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.client.recv(1 << 20)
        return data

    def sent(self, count: int) -> bytes:
        """So many octets, which the reactor sends as far as there is room."""
        self.client.setblocking(False)
        got = bytearray()
        while len(got) < count:
            self.transport.doWrite()
            try:
                got += self.client.recv(1 << 20)
            except BlockingIOError:
                pass
        return bytes(got)

    def test_at_once(self) -> None:
        """What fits into the socket is out without a turn of the reactor."""
        self.write(b"+OK\r\n")
        self.assertEqual(self.received(5), b"+OK\r\n")
        self.assertEqual(self.reactor.writers, [])
        self.assertEqual(SENDING.unsent(self.transport), 0)

    def test_larger_than_one_send(self) -> None:
        """More than a transport sends at once goes out as far as there is room."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        data = bytes(range(256)) * 1024
        self.write(data)
        waiting = SENDING.unsent(self.transport)
        assert waiting is not None
        self.assertEqual(self.received(len(data) - waiting), data[: len(data) - waiting])

    def test_in_order_when_full(self) -> None:
        """What does not fit is sent by the reactor, and nothing overtakes it."""
        big = b"x" * (16 << 20)
        self.write(big)
        waiting = SENDING.unsent(self.transport)
        self.assertGreater(waiting, 0)
        self.assertEqual(self.reactor.writers[:1], [self.transport])
        self.write(b"end")
        self.assertEqual(SENDING.unsent(self.transport), waiting + 3)  # type: ignore[operator]
        self.assertEqual(self.sent(len(big) + 3), big + b"end")

    def test_in_order_when_there_is_room_again(self) -> None:
        """While something waits in the transport nothing is written past it, although the socket has room."""
        big = b"x" * (16 << 20)
        self.write(big)
        waiting = SENDING.unsent(self.transport)
        assert waiting is not None
        # All that the socket holds is read; what waits in the transport is more than nothing.
        got = self.received(len(big) - waiting)
        self.assertGreater(waiting, 0)
        self.write(b"end")
        self.assertEqual(SENDING.unsent(self.transport), waiting + 3)
        self.transport.doWrite()
        self.assertLess(SENDING.unsent(self.transport), waiting + 3)
        self.assertEqual(got + self.sent(waiting + 3), big + b"end")

    def test_paused_until_sent(self) -> None:
        """While an octet waits, a producer is paused that asked for it, and resumed when all is sent."""
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.assertFalse(SENDING.pause_until_sent(self.transport))
        self.transport.write(b"x")
        self.assertEqual(producer.told, [])
        self.assertTrue(SENDING.pause_until_sent(self.transport))
        self.assertEqual(producer.told, ["pause"])
        self.transport.doWrite()
        self.assertEqual(producer.told, ["pause", "resume"])
        self.assertFalse(SENDING.pause_until_sent(self.transport))
        self.transport.write(b"y")
        self.transport.unregisterProducer()
        self.assertFalse(SENDING.pause_until_sent(self.transport))
        self.assertFalse(SENDING.pause_until_sent(StringTransport()))

    def test_takes_octets(self) -> None:
        """Not when it, or what is beneath it, was closed."""
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.makeConnection(self.transport)
        self.assertTrue(takes_octets(self.transport))
        self.assertTrue(takes_octets(wrapper))
        self.transport.loseConnection()
        self.assertFalse(takes_octets(self.transport))
        self.assertFalse(takes_octets(wrapper))

    def test_client_gone(self) -> None:
        """An error is left to the reactor, which ends the connection for it."""
        self.client.close()
        for _ in range(3):
            self.write(b"+OK\r\n")
        self.assertIn(self.transport, self.reactor.writers)

    def test_closed_at_once(self) -> None:
        """A connection with nothing left to send is closed without a turn of the reactor, in order."""
        lost: list[Any] = []
        self.transport.protocol.connectionLost = lost.append  # type: ignore[assignment, attr-defined, method-assign]
        self.write(b"+OK\r\n")
        self.assertTrue(SENDING.close(self.transport, b""))
        self.assertIsNotNone(lost[0].check(ConnectionDone))
        self.assertEqual(self.received(5), b"+OK\r\n")
        self.assertEqual(self.client.recv(1), b"")
        self.assertEqual(self.reactor.writers, [])
        # Whoever closes or writes once more does no harm.
        self.assertFalse(SENDING.close(self.transport, b""))
        self.write(b"late")
        self.assertEqual(len(lost), 1)

    def test_closed_when_all_is_sent(self) -> None:
        """While something waits in the transport it stays open."""
        big = b"x" * (16 << 20)
        self.write(big)
        self.assertFalse(SENDING.close(self.transport, b""))
        self.assertEqual(self.sent(len(big)), big)

    def test_others_close_for_themselves(self) -> None:
        """A transport of another kind closes as it does."""
        transport = StringTransport()
        self.assertFalse(SENDING.close(transport, b""))
        self.assertTrue(transport.disconnecting)

    def test_others_write_for_themselves(self) -> None:
        """A transport of another kind, or with TLS, is not looked into."""
        transport = StringTransport()
        self.assertEqual(SENDING.writer_of(transport), transport.write)
        self.assertIsNone(SENDING.unsent(transport))
        self.transport.TLS = True
        self.assertEqual(SENDING.writer_of(self.transport), self.transport.write)

    def test_twisted_still_buffers_so(self) -> None:
        """Twisted's transports have the buffers that are looked at; without them all is slower, but right."""
        for name in ("dataBuffer", "_tempDataBuffer", "offset", "producer", "producerPaused"):
            self.assertTrue(hasattr(FileDescriptor(self.reactor), name), name)


class SessionTests(SynchronousTestCase):
    """Sessions on real sockets, whose connection ends within the call that answers."""

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.clock = Clock()
        self.mailbox = ScriptedMailbox({b"one": b"A: b\n\nx\n"})
        self.watcher = Watcher()
        self.factory = POP3Factory(
            self.clock,
            FakeAuthenticator(self.mailbox),
            observers=Observers(self.watcher),
            sending=SENDING,
            limiter=ConnectionLimiter(ConnectionLimits(unauthenticated=2), choose=lambda visits: visits[0]),
        )

    def connected(self) -> tuple[socket.socket, tcp.Server]:
        """A client's socket and the server's transport."""
        client = socket.create_connection(self.listening.getsockname())
        self.addCleanup(client.close)
        client.settimeout(10)
        skt, address = self.listening.accept()
        self.addCleanup(skt.close)
        protocol = self.factory.buildProtocol(None)
        reactor: Any = IdleReactor()
        port: Any = None
        transport = tcp.Server(skt, protocol, address, port, 1, reactor)
        protocol.makeConnection(transport)
        return client, transport

    def sent_to_the_end(self, client: socket.socket) -> bytes:
        """All that a client gets until the connection ends."""
        got = b""
        while data := client.recv(65536):
            got += data
        return got

    def assert_over(self, connections: int = 1) -> None:
        """Nothing is left of the connections, and each end was told once."""
        self.assertEqual(self.factory.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.watcher.ends), connections)

    def test_pipelined(self) -> None:
        """Everything is answered in order up to QUIT, nothing behind it, and the maildrop is free."""
        client, transport = self.connected()
        client.sendall(b"USER ann\r\nPASS pass\r\nRETR 1\r\nQUIT\r\nNOOP\r\n")
        transport.doRead()
        answers = self.sent_to_the_end(client)
        self.assertTrue(answers.endswith(b"\r\nx\r\n.\r\n+OK bye\r\n"), answers)
        self.assertEqual(self.mailbox.released, 1)
        self.assert_over()

    def test_freed_at_once(self) -> None:
        """A session that is over leaves nothing to the garbage collector."""
        if gc.isenabled():
            self.addCleanup(gc.enable)
        gc.disable()
        client, transport = self.connected()
        protocol = weakref.ref(transport.protocol)
        client.sendall(b"USER ann\r\nPASS pass\r\nRETR 1\r\nQUIT\r\n")
        transport.doRead()
        self.assertTrue(self.sent_to_the_end(client).endswith(b"+OK bye\r\n"))
        del transport
        self.assertIsNone(protocol())

    def test_one_by_one(self) -> None:
        """The same from a client that waits for each answer."""
        client, transport = self.connected()
        for line in (b"USER ann\r\n", b"PASS pass\r\n", b"QUIT\r\n"):
            client.sendall(line)
            transport.doRead()
        self.assertTrue(self.sent_to_the_end(client).endswith(b"+OK bye\r\n"))
        self.assertEqual(self.mailbox.released, 1)
        self.assert_over()

    def test_too_many_mistakes(self) -> None:
        """The answer to the last mistake is the last there is."""
        client, transport = self.connected()
        client.sendall(b"WHAT\r\n" * 100)
        transport.doRead()
        self.assertEqual(self.sent_to_the_end(client).count(b"-ERR"), limits.BAD_COMMANDS_BEFORE_LOGIN)
        self.assert_over()

    def test_half_closed(self) -> None:
        """A client that sends no more gets its answers, then the end."""
        client, transport = self.connected()
        client.sendall(b"USER ann\r\nPASS pass\r\nSTAT\r\n")
        client.shutdown(socket.SHUT_WR)
        transport.doRead()
        transport.readConnectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.sent_to_the_end(client).endswith(b"+OK 1 11\r\n"))
        self.assertEqual(self.mailbox.released, 1)
        self.assert_over()

    def test_crowd(self) -> None:
        """A stranger who makes room ends while another comes."""
        clients = [self.connected()[0] for _ in range(4)]
        self.assertEqual(self.factory.connections, 2)
        for client in clients[:2]:
            self.assertTrue(self.sent_to_the_end(client).startswith(b"+OK"))
        self.successResultOf(self.factory.drain())
        late, _ = self.connected()
        self.assertTrue(self.sent_to_the_end(late).startswith(b"-ERR [SYS/TEMP]"))
        for client in clients[2:]:
            self.assertTrue(self.sent_to_the_end(client).startswith(b"+OK"))
        self.assert_over(5)

    def test_idle(self) -> None:
        """Who is silent for too long is cut by the timer."""
        client, _ = self.connected()
        self.clock.advance(limits.IDLE_BEFORE_LOGIN + 1)
        self.assertTrue(self.sent_to_the_end(client).startswith(b"+OK"))
        self.assert_over()
