"""A server in memory: clients that are typed by a test, clients that are protocols, and time."""

from __future__ import annotations

import sys
import threading
import unittest
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy import IGate
from pop3toy.testing import MemoryServer, POP3ServerMixin

MESSAGE = "Subject: one\n\n1\n"


class Listener(Protocol):
    """A client that keeps what it hears and says what it is told."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


@implementer(IGate)
class LaterGate:
    """Holds each command until it is let go."""

    def __init__(self) -> None:
        self.held: list[Deferred[bytes]] = []

    def command(self, record: object, line: bytes) -> Deferred[bytes]:
        self.held.append(Deferred())
        return self.held[-1]

    def reply(self, record: object, line: bytes, reply: Any) -> Any:
        return reply


class ClientTests(POP3ServerMixin, SynchronousTestCase):
    """A client whose part the test plays."""

    def test_session(self) -> None:
        """Lines go there, answers come back at once, and the session is written down."""
        server = self.pop3_server({"ann": [MESSAGE]}, {"ann": "secret"})
        client = server.connect()
        self.assertRegex(client.greeting, r"^\+OK pop3toy ready <")
        self.assertEqual(
            client.say("USER ann", b"PASS secret"),
            ["+OK send PASS", "+OK maildrop has 1 message (19 octets)"],
        )
        self.assertEqual(client.send(b"RETR "), [])
        self.assertEqual(client.send(b"1\r\n"), ["+OK 19 octets", "Subject: one", "", "1", "."])
        self.assertFalse(client.closed)
        client.say("DELE 1")
        self.assertEqual(client.say("QUIT"), ["+OK bye, 1 message removed"])
        self.assertTrue(client.closed)
        self.assertRaises(ConnectionError, client.say, "NOOP")
        session = server.wait_for_session()
        self.assertEqual(session.commands, ["USER ann", "PASS ****", "RETR 1", "DELE 1", "QUIT"])
        self.assertEqual((session.ended, session.removed), ("quit", server.mailbox("ann").deleted))
        self.assertEqual(server.mailbox("ann").messages, [])
        self.assertIn("session 1", str(self.assertRaises(AssertionError, server.wait_for_session, 100)))

    def test_long_reply(self) -> None:
        """An answer that is larger than any buffer comes as a whole."""
        server = self.pop3_server({"ann": [b"Subject: x\n\n" + b"x\n" * 500_000]})
        client = server.connect()
        client.say("USER ann", "PASS pass")
        self.assertEqual(len(client.say("RETR 1")), 500_004)

    def test_dropped(self) -> None:
        """A client that vanishes removes nothing, and its mailbox is free."""
        server = self.pop3_server({"ann": [MESSAGE]})
        first, second = server.connect(), server.connect()
        first.say("USER ann", "PASS pass", "DELE 1")
        self.assertIn("[IN-USE]", second.say("USER ann", "PASS pass")[1])
        first.drop()
        self.assertIn("1 message", second.say("USER ann", "PASS pass")[1])
        self.assertEqual(server.sessions[0].ended, "dropped")

    def test_clock(self) -> None:
        """Time goes on when it is told to, not before, and what is due on the way happens."""
        server = self.pop3_server({"ann": []}, login_delay=30)
        for _ in range(2):
            client = server.connect()
            client.say("USER ann", "PASS pass", "QUIT")
            refused = server.connect().say("USER ann", "PASS pass")[1]
            self.assertIn("[LOGIN-DELAY]", refused)
            server.clock.advance(30)
        client = server.connect()
        client.say("USER ann", "PASS pass")
        server.clock.advance(599)
        self.assertFalse(client.closed)
        server.clock.advance(1)
        self.assertTrue(client.closed)
        self.assertEqual(server.sessions[-1].ended, "timeout")
        self.assertEqual(server.clock.seconds(), 660)

    def test_faults(self) -> None:
        """Faults, and their time, which is the clock's."""
        server = self.pop3_server({"ann": ["Subject: one\n\n1\n"]})
        fault = server.faults.add("delay", command="STAT", seconds=2.0)
        client = server.connect()
        client.say("USER ann", "PASS pass")
        self.assertEqual(client.say("STAT"), [])
        server.clock.advance(2)
        self.assertEqual(client.read(), ["+OK 1 19"])
        server.faults.remove(fault)
        server.faults.add("drop-before-dot")
        self.assertEqual(client.say("RETR 1")[-1], "1")
        self.assertTrue(client.closed)
        self.assertIn("-- fault drop-before-dot", server.sessions[0].transcript)

    def test_late(self) -> None:
        """What is answered later is read later."""
        gate = LaterGate()
        server = self.pop3_server(gate=gate)
        client = server.connect()
        self.assertEqual(client.say("CAPA"), [])
        gate.held[0].callback(b"QUIT")
        self.assertEqual(client.read(), ["+OK bye"])

    def test_no_thread(self) -> None:
        """There is no thread more and no reactor that would have to run."""
        before = threading.active_count()
        client = self.pop3_server().connect()
        client.say("USER user", "PASS pass", "RETR 1", "QUIT")
        self.assertEqual(threading.active_count(), before)


class ProtocolTests(POP3ServerMixin, SynchronousTestCase):
    """A client that is a protocol of Twisted's."""

    def test_protocol(self) -> None:
        """It is connected, both sides talk when they are pumped, and it hears of the end."""
        server = self.pop3_server()
        client = Listener()
        server.connect_protocol(client)
        self.assertTrue(client.heard.startswith(b"+OK"))
        client.transport.write(b"USER user\r\nPASS pass\r\n")
        self.assertEqual(client.heard.count(b"\r\n"), 1)
        server.pump()
        self.assertEqual(client.heard.count(b"\r\n"), 3)
        client.transport.write(b"QUIT\r\n")
        server.pump()
        self.assertTrue(client.lost)
        self.assertEqual(server.sessions[0].ended, "quit")

    def test_logged_out(self) -> None:
        """It hears of the end that comes with time."""
        server = self.pop3_server()
        client = Listener()
        server.connect_protocol(client)
        client.transport.write(b"USER user\r\nPASS pass\r\n")
        server.clock.advance(599)
        self.assertFalse(client.lost)
        server.clock.advance(2)
        self.assertTrue(client.lost)
        self.assertIn(b"+OK maildrop has 1 message", client.heard)

    def test_hangs_up(self) -> None:
        """A client that closes has left."""
        server = self.pop3_server()
        for way in ("loseConnection", "abortConnection"):
            client = Listener()
            server.connect_protocol(client)
            getattr(client.transport, way)()
            server.pump()
            self.assertTrue(client.lost)
        self.assertEqual([one.ended for one in server.sessions], ["dropped", "dropped"])

    def test_reactor(self) -> None:
        """A client that connects with the server's reactor gets there, whatever address it names."""
        server = self.pop3_server()
        made: list[Listener] = []

        class Factory(ClientFactory):
            def buildProtocol(self, addr: object) -> Listener:
                made.append(Listener())
                return made[-1]

        server.reactor.connectTCP("pop.example.org", 110, Factory())
        server.pump()
        server.reactor.connectTCP("pop.example.org", 110, Factory())
        self.assertEqual(len(server.sessions), 2)
        self.assertEqual([one.heard[:3] for one in made], [b"+OK", b"+OK"])

    def test_large(self) -> None:
        """Large messages pass through, in pieces."""
        server = self.pop3_server({"ann": [b"Subject: x\n\n" + b"x\n" * 500_000]})
        client = Listener()
        server.connect_protocol(client)
        client.transport.write(b"USER ann\r\nPASS pass\r\nRETR 1\r\n")
        server.pump()
        self.assertTrue(client.heard.endswith(b"\r\n.\r\n"))
        self.assertEqual(client.heard.count(b"x\r\n"), 500_001)


class EndTests(SynchronousTestCase):
    """The end of a server in memory."""

    def test_stop(self) -> None:
        """Whoever is connected is disconnected, and nothing is scheduled any more."""
        server = MemoryServer()
        client, listener = server.connect(), Listener()
        server.connect_protocol(listener)
        client.say("USER user", "PASS pass")
        server.stop()
        server.stop()
        self.assertTrue(client.closed and listener.lost)
        self.assertEqual({one.ended for one in server.sessions}, {"shutdown"})
        self.assertEqual(server.reactor.getDelayedCalls(), [])
        self.assertIn("the server is stopping", server.connect().greeting)
        self.assertEqual(len(server.mailbox("user")), 1)

    def test_no_time(self) -> None:
        """Time neither stands still for ever nor goes back."""
        server = MemoryServer()
        self.addCleanup(server.stop)
        for seconds in (float("nan"), float("inf"), -1):
            self.assertRaises(ValueError, server.clock.advance, seconds)

    def test_stops_with_the_test(self) -> None:
        """A test's servers end with it, with unittest as with trial."""
        servers: list[MemoryServer] = []

        class Tests(POP3ServerMixin, unittest.TestCase):
            def test(self) -> None:
                servers.append(self.pop3_server())
                servers[0].connect()

        result = unittest.TestResult()
        Tests("test").run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (1, [], []))
        self.assertEqual(servers[0].sessions[0].ended, "shutdown")

    def test_options(self) -> None:
        """An option that does not exist is told."""
        self.assertRaises(TypeError, MemoryServer, tls="stls")
        self.assertIn("pop3toy.testing.in_memory", sys.modules)
