"""Connections that are ready together: all are heard, then all are answered."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService
from twisted.internet import tcp
from twisted.internet.endpoints import serverFromString
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort, IReadDescriptor, ITLSTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver
from twisted.python import context
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from pop3toy import POP3Factory, limits
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.errors import AuthenticationFailed
from pop3toy.events import Observers
from pop3toy.interfaces import Login, MaybeDeferred, SessionRecord
from pop3toy.net.fast.immediate_write import close
from pop3toy.net.fast.reply_batcher import CROWD, ReactorTurns, turns_of
from pop3toy.net.tls.certificate_files import CertificateFiles
from pop3toy.net.tls.contexts import ServerTLS
from pop3toy.pop3.protocol import POP3Protocol
from pop3toy.tap import makeService

from ..config.test_cmdline import parsed
from ..pop3_world import (
    LOOPBACK,
    FakeAuthenticator,
    FakeSocket,
    ScriptedMailbox,
    Watcher,
    WriteCounter,
    connect,
)
from ..realserver import DEADLINE
from ..tls_world import Authority, Wire, trusting

GREETING = b"+OK pop3toy ready\r\n"
LOGIN = b"USER ann\r\nPASS pass\r\n"
MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"
RETRIEVED = b"+OK 24 octets\r\n" + MESSAGE + b".\r\n"
LOGGED_IN = b"+OK send PASS\r\n+OK maildrop has 1 message (24 octets)\r\n"
BYE = b"+OK bye\r\n"
#: More than all the buffers between two sockets of loopback hold.
BIG = bytes(range(256)) * (16 << 12)


def a_reactor(case: SynchronousTestCase) -> Any:
    """A reactor of a test's own, beside the one that runs; gone when the test is over."""
    reactor = EPollReactor()

    def clean_up() -> None:
        for one in reactor.removeAll():
            one.connectionLost(Failure(ConnectionDone()))
        for one in list(reactor._internalReaders):
            reactor.removeReader(one)
            one.connectionLost(Failure(ConnectionDone()))
        reactor._poller.close()

    case.addCleanup(clean_up)
    return reactor


class Peer(Protocol):
    """Notes what comes and when its answers leave.

    :param events: where it notes that; shared by the peers of a test.
    :param does: done for each octets that it hears.
    """

    logs_by_itself = True

    def __init__(self, name: int, events: list[Any], does: Callable[[Peer], object]) -> None:
        self.name = name
        self.heard = b""
        self.lost: list[Failure] = []
        self._events = events
        self._does = does

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self._events.append(("heard", self.name))
        self._does(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.lost.append(reason)


@implementer(IHalfCloseableProtocol)
class PatientPeer(Peer):
    """One that may be told that the client sends no more."""

    ends = 0

    def readConnectionLost(self) -> None:
        self.ends += 1

    def writeConnectionLost(self) -> None:
        """Never happens."""


class SocketCase(SynchronousTestCase):
    """Sockets of loopback whose server's ends are watched by a reactor that the test calls."""

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.listening.settimeout(DEADLINE)
        self.reactor = a_reactor(self)
        self.turns = ReactorTurns(self.reactor)
        self.turns.startService()
        self.addCleanup(self.turns.stopService)
        self.events: list[Any] = []

    def turn(self) -> None:
        """One turn of the reactor, for whoever is ready now."""
        self.reactor.iterate(0)

    def pair(self, protocol: Protocol) -> tuple[socket.socket, Any]:
        """A client's socket, and the server's transport with this protocol."""
        return self.dials(), self.accepts(protocol)

    def dials(self) -> socket.socket:
        """A client that connects."""
        client = socket.create_connection(self.listening.getsockname())
        self.addCleanup(client.close)
        client.settimeout(DEADLINE)
        return client

    def accepts(self, protocol: Protocol) -> Any:
        """The server's transport for the client that has waited longest."""
        skt, address = self.listening.accept()
        port: Any = None
        transport = tcp.Server(skt, protocol, address, port, 1, self.reactor)
        protocol.makeConnection(transport)

        def clean_up() -> None:
            if transport.connected:
                transport.stopReading()
                transport.stopWriting()
            skt.close()

        self.addCleanup(clean_up)
        return transport

    def peer(
        self, does: Callable[[Peer], object] = lambda peer: None, kind: type[Peer] = Peer
    ) -> tuple[socket.socket, Any, Any]:
        """The same with a new peer, which comes third."""
        self._names = getattr(self, "_names", 0) + 1
        peer = kind(self._names, self.events, does)
        client, transport = self.pair(peer)
        return client, transport, peer

    def answers_later(self, peer: Peer) -> None:
        """What a peer does that postpones its answer."""

        def answer() -> None:
            self.events.append(("answered", peer.name))

        self.events.append(("postponed", self.turns.postpone(answer)))

    def wait(self, *transports: Any, events: int = select.POLLIN) -> None:
        """Until all of these have something to tell, as the system sees it."""
        for transport in transports:
            poll = select.poll()
            poll.register(transport.fileno(), events)
            self.assertTrue(poll.poll(DEADLINE * 1000), "nothing comes")

    def served(self, *peers: tuple[socket.socket, Any, Any]) -> None:
        """One turn in which all of these are ready."""
        for client, _, _ in peers:
            client.sendall(b"x")
        self.wait(*(transport for _, transport, _ in peers))
        self.turn()

    def calls(self) -> bool:
        """Whether anybody is ready, as the reactor sees it."""
        poll = select.poll()
        poll.register(self.reactor._poller.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def watched(self) -> int:
        """How many connections and ports the reactor watches."""
        return len(self.reactor._selectables) - len(self.reactor._internalReaders)

    def called_until(self, condition: Callable[[], bool]) -> None:
        """Turn by turn until a condition holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it goes on for ever")
            self.turn()

    def named(self, what: str) -> list[int]:
        """Whom something happened to, in order."""
        return [name for event, name in self.events if event == what]

    def received(self, client: socket.socket, count: int) -> bytes:
        """So many octets that come to a client, turn by turn."""
        client.setblocking(False)
        got = bytearray()
        deadline = time.monotonic() + DEADLINE
        while len(got) < count:
            self.assertLess(time.monotonic(), deadline, f"only {len(got)} octets")
            self.turn()
            try:
                got += client.recv(1 << 20)
            except BlockingIOError:
                pass
        return bytes(got)

    def reset(self, client: socket.socket) -> None:
        """The client's machine says that there is no such connection."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


class TurnTests(SocketCase):
    """Who is heard when, and who is answered when."""

    def test_heard_then_answered(self) -> None:
        """All who are ready are heard before the first is answered; they are answered in the same order."""
        peers = [self.peer(self.answers_later) for _ in range(5)]
        for client, _, _ in peers:
            client.sendall(b"x")
        self.wait(*(transport for _, transport, _ in peers))
        self.turn()
        self.assertEqual(
            [event for event, _ in self.events], ["heard", "postponed"] * 5 + ["answered"] * 5, self.events
        )
        self.assertEqual(sorted(self.named("heard")), [1, 2, 3, 4, 5])
        self.assertEqual(self.named("answered"), self.named("heard"))
        self.assertEqual(self.named("postponed"), [True] * 5)

    def test_behind_the_answers(self) -> None:
        """What an answer postpones comes behind all answers of the turn; after that nothing is postponed."""

        def last(peer: Peer) -> None:
            self.events.append(("last", peer.name))
            self.events.append(("postponed", self.turns.postpone(self.fail)))

        def answer(peer: Peer) -> None:
            self.events.append(("answered", peer.name))
            self.events.append(("postponed", self.turns.postpone(lambda: last(peer))))

        peers = [self.peer(lambda peer: self.turns.postpone(lambda: answer(peer))) for _ in range(3)]
        self.served(*peers)
        self.assertEqual(
            [event for event, _ in self.events if event != "heard"],
            ["answered", "postponed"] * 3 + ["last", "postponed"] * 3,
            self.events,
        )
        self.assertEqual(self.named("last"), self.named("answered"))
        self.assertEqual(self.named("postponed"), [True] * 3 + [False] * 3)

    def test_each_once(self) -> None:
        """What was postponed is done once."""
        peers = [self.peer(self.answers_later) for _ in range(2)]
        for _ in range(3):
            for client, _, _ in peers:
                client.sendall(b"x")
            self.wait(*(transport for _, transport, _ in peers))
            self.turn()
        self.turn()
        self.assertEqual(sorted(self.named("answered")), [1, 1, 1, 2, 2, 2])

    def test_alone(self) -> None:
        """Who is ready alone need not wait, though others are connected."""
        client, transport, _ = self.peer(self.answers_later)
        self.peer()
        client.sendall(b"x")
        self.wait(transport)
        self.turn()
        self.assertEqual(self.events, [("heard", 1), ("postponed", False)])

    def test_nobody(self) -> None:
        """Being called when nobody is ready does no harm."""
        self.peer()
        self.turn()
        self.assertEqual(self.events, [])

    def test_outside(self) -> None:
        """Outside of a turn nothing is postponed, neither before it nor after it."""
        self.assertFalse(self.turns.postpone(self.fail))
        peers = [self.peer(self.answers_later) for _ in range(2)]
        self.served(*peers)
        self.assertEqual(self.named("postponed"), [True, True])
        self.assertFalse(self.turns.postpone(self.fail))
        self.turn()

    def test_others_connections(self) -> None:
        """A protocol of another program is called with its prefix for the log; ours without."""
        said: list[Any] = []

        def does(peer: Peer) -> None:
            system = context.get(ILogContext)["system"]
            said.append((type(peer).__name__, system.partition(",")[0] if "Other" in system else "none"))

        class OtherPeer(Peer):
            logs_by_itself = False

        for client, _, _ in (self.peer(does), self.peer(does, kind=OtherPeer)):
            client.sendall(b"x")
        self.called_until(lambda: len(said) == 2)
        self.assertEqual(sorted(said), [("OtherPeer", "OtherPeer"), ("Peer", "none")])

    def test_crowd(self) -> None:
        """So many are heard in one go, the rest in the next."""
        peers = [self.peer(self.answers_later) for _ in range(CROWD + 6)]
        for client, _, _ in peers:
            client.sendall(b"x")
        self.wait(*(transport for _, transport, _ in peers))
        self.turn()
        self.assertEqual(len(set(self.named("heard"))), CROWD)
        self.assertEqual(self.named("answered"), self.named("heard"))
        self.turn()
        self.assertEqual(sorted(self.named("heard")), list(range(1, CROWD + 7)))
        self.assertEqual(self.named("answered"), self.named("heard"))
        self.turn()
        self.assertEqual(len(self.events), 3 * (CROWD + 6))

    def test_ended_by_another(self) -> None:
        """A connection that another one has ended is not called any more, although it was ready."""

        def does(peer: Peer) -> None:
            for _, transport, other in peers:
                if other is not peer:
                    close(transport)

        peers = [self.peer(does) for _ in range(3)]
        for client, _, _ in peers:
            client.sendall(b"x")
        self.wait(*(transport for _, transport, _ in peers))
        self.turn()
        self.assertEqual(len(self.events), 1, self.events)
        self.assertEqual(sorted(len(peer.lost) for _, _, peer in peers), [0, 1, 1])

    def test_last_one_ended(self) -> None:
        """When all connections end within a turn, what was postponed is done nevertheless."""

        def does(peer: Peer) -> None:
            self.answers_later(peer)
            for _, transport, _ in peers:
                close(transport)

        peers = [self.peer(does) for _ in range(2)]
        for client, _, _ in peers:
            client.sendall(b"x")
        self.wait(*(transport for _, transport, _ in peers))
        self.turn()
        self.assertEqual([event for event, _ in self.events], ["heard", "postponed", "answered"])
        self.assertEqual(self.watched(), 0)

    def test_came_in_the_same_turn(self) -> None:
        """A connection that is made within a turn is heard in the next."""
        newcomers: list[tuple[socket.socket, Any, Any]] = []

        def does(peer: Peer) -> None:
            newcomers.append(self.peer())

        peers = [self.peer(does) for _ in range(2)]
        for client, _, _ in peers:
            client.sendall(b"x")
        self.wait(*(transport for _, transport, _ in peers))
        self.turn()
        for client, transport, _ in newcomers:
            client.sendall(b"y")
            self.wait(transport)
        self.turn()
        self.assertEqual([peer.heard for _, _, peer in newcomers], [b"y", b"y"])


class TroubleTests(SocketCase):
    """What goes wrong with one connection is that one's alone."""

    def test_exception_in_a_protocol(self) -> None:
        """It ends that connection; the others are heard and answered, now and later."""

        def does(peer: Peer) -> None:
            raise ValueError("a bug")

        bad = self.peer(does)
        good = [self.peer(self.answers_later) for _ in range(3)]
        self.served(good[0], bad, *good[1:])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIsNotNone(bad[2].lost[0].check(ValueError))
        self.assertEqual(bad[0].recv(1), b"")
        self.assertEqual(sorted(self.named("answered")), [2, 3, 4])
        self.served(*good)
        self.assertEqual(sorted(self.named("answered")), [2, 2, 3, 3, 4, 4])

    def test_exception_in_what_was_postponed(self) -> None:
        """It is logged, and the others are answered."""

        def does(peer: Peer) -> None:
            self.turns.postpone(lambda: 1 // 0)
            self.answers_later(peer)

        peers = [self.peer(does) for _ in range(3)]
        self.served(*peers)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual(sorted(self.named("answered")), [1, 2, 3])
        self.assertEqual([peer.lost for _, _, peer in peers], [[], [], []])

    def test_exception_at_the_end(self) -> None:
        """A protocol that fails when it is told of its end takes nobody with it, and no turn."""

        class Sore(Peer):
            def connectionLost(self, reason: Failure | None = None) -> None:
                raise ValueError("a bug")

        sore = self.peer(kind=Sore)
        good = [self.peer(self.answers_later) for _ in range(3)]
        for client, _, _ in good:
            client.sendall(b"x")
        sore[0].close()
        self.wait(sore[1], *(transport for _, transport, _ in good))
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(sorted(self.named("answered")), [2, 3, 4])
        self.assertFalse(self.turns.postpone(self.fail))
        self.served(*good)
        self.assertEqual(sorted(self.named("answered")), [2, 2, 3, 3, 4, 4])

    def test_end_of_everything(self) -> None:
        """If one ends the whole process, what was postponed is done, and nothing is postponed any more."""

        class Fatal(Peer):
            def connectionLost(self, reason: Failure | None = None) -> None:
                raise SystemExit

        fatal = self.peer(kind=Fatal)
        good = [self.peer(self.answers_later) for _ in range(3)]
        for client, _, _ in good:
            client.sendall(b"x")
        fatal[0].close()
        self.wait(fatal[1], *(transport for _, transport, _ in good))
        self.assertRaises(SystemExit, self.reactor.doIteration, 0)
        self.assertEqual(self.named("answered"), self.named("heard"))
        self.assertFalse(self.turns.postpone(self.fail))

    def test_end_of_everything_in_an_answer(self) -> None:
        """The same if it is what was postponed that ends the process."""

        def dies(peer: Peer) -> None:
            self.turns.postpone(sys.exit)

        peers = [self.peer(dies), self.peer(self.answers_later), self.peer(self.answers_later)]
        for client, _, _ in peers:
            client.sendall(b"x")
        self.wait(*(transport for _, transport, _ in peers))
        self.assertRaises(SystemExit, self.reactor.doIteration, 0)
        self.assertEqual(sorted(self.named("answered")), [2, 3])
        self.assertFalse(self.turns.postpone(self.fail))

    def test_number_taken_over(self) -> None:
        """A new connection that got the descriptor of one that was ended is not taken for that one."""
        newcomers: list[Peer] = []

        def does(peer: Peer) -> None:
            number = doomed[1].fileno()
            doomed[1].connectionLost(Failure(ConnectionDone()))
            taken = None
            # The lowest that is free is taken first.
            while taken != number:
                newcomers.append(Peer(0, self.events, self.answers_later))
                taken = self.accepts(newcomers[-1]).fileno()

        waker = self.peer(does)
        doomed = self.peer()
        doomed[1].write(BIG)
        doomed[1].pauseProducing()
        # Until the sockets are full: who can be written to might be called before the other.
        self.called_until(lambda: not self.calls())
        waker[0].sendall(b"x")
        self.wait(waker[1])
        waiting = [self.dials() for _ in range(20)]
        self.reset(doomed[0])
        self.wait(doomed[1], events=0)
        self.turn()
        self.assertEqual(self.named("heard"), [1])
        self.assertEqual([peer.lost for peer in newcomers], [[]] * len(newcomers))
        for client in waiting[: len(newcomers)]:
            client.sendall(b"y")
        for peer in newcomers:
            self.wait(peer.transport)
        self.turn()
        self.assertEqual([peer.heard for peer in newcomers], [b"y"] * len(newcomers))


class ConnectionTests(SocketCase):
    """Reading, writing and ending, as in the reactor's own turns."""

    def test_large_write(self) -> None:
        """What a client reads later arrives whole, and reading goes on behind it."""
        client, transport, peer = self.peer()
        transport.write(BIG)
        self.turn()
        self.assertEqual(self.received(client, len(BIG)), BIG)
        # Nothing is left to write, and nobody is told any more that it could be.
        self.turn()
        self.assertFalse(self.calls())
        client.sendall(b"x")
        self.wait(transport)
        self.turn()
        self.assertEqual(peer.heard, b"x")

    def test_both_ways_at_once(self) -> None:
        """A connection that has much to send is heard meanwhile."""
        client, transport, peer = self.peer()
        transport.write(BIG)
        self.turn()
        client.sendall(b"x")
        self.wait(transport)
        self.turn()
        self.assertEqual(peer.heard, b"x")
        self.assertEqual(self.received(client, len(BIG)), BIG)

    def test_half_close(self) -> None:
        """A client that sends no more is known as such, once, and can still be written to."""
        client, transport, peer = self.peer(kind=PatientPeer)
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        self.wait(transport)
        self.called_until(lambda: peer.ends > 0)
        self.assertEqual((peer.heard, peer.ends, peer.lost), (b"x", 1, []))
        transport.write(BIG)
        transport.loseConnection()
        self.assertEqual(self.received(client, len(BIG)), BIG)
        self.called_until(lambda: bool(peer.lost))
        self.assertEqual((peer.ends, len(peer.lost)), (1, 1))
        self.assertEqual(client.recv(1), b"")

    def test_end(self) -> None:
        """A client that goes is the end for a protocol that knows no half-close."""
        client, transport, peer = self.peer()
        client.close()
        self.wait(transport)
        self.turn()
        self.assertIsNotNone(peer.lost[0].check(ConnectionDone))
        self.assertEqual(self.watched(), 0)

    def test_reset(self) -> None:
        """A reset ends the connection, alone and in a crowd, also while reading is paused."""
        for others in (0, 2):
            peers = [self.peer(self.answers_later) for _ in range(others)]
            client, transport, peer = self.peer()
            transport.write(BIG)
            self.turn()
            transport.pauseProducing()
            self.reset(client)
            for other, _, _ in peers:
                other.sendall(b"x")
            self.wait(transport, events=0)
            self.wait(*(other for _, other, _ in peers))
            self.turn()
            self.assertIsNotNone(peer.lost[0].check(ConnectionLost))
            self.assertEqual(len(self.named("answered")), others)


class WhereTests(SynchronousTestCase):
    """Whose turns there are, and when."""

    def test_others(self) -> None:
        """What is no epoll reactor of Twisted's has none; nor has one that waits in its own way."""

        class Odd(EPollReactor):
            def __init__(self) -> None:
                """Without anything that would have to be closed."""

        for reactor in (Clock(), MemoryReactor(), Odd()):
            self.assertIsNone(turns_of(reactor))

    def test_real(self) -> None:
        """An epoll reactor has turns, which change nothing before they start."""
        reactor = a_reactor(self)
        self.assertIsInstance(turns_of(reactor), ReactorTurns)
        self.assertNotIn("doIteration", vars(reactor))

    def test_start_and_stop(self) -> None:
        """It is between start and stop that the reactor waits that way, each time."""
        reactor = a_reactor(self)
        turns = ReactorTurns(reactor)
        for _ in range(2):
            turns.startService()
            self.assertEqual(vars(reactor)["doIteration"], turns._turn)
            turns.stopService()
            self.assertNotIn("doIteration", vars(reactor))
            self.assertFalse(turns.running)

    def test_two(self) -> None:
        """Only one is in charge; another one postpones nothing and takes nothing away when it stops."""
        reactor = a_reactor(self)
        first, second = ReactorTurns(reactor), ReactorTurns(reactor)
        first.startService()
        second.startService()
        second.stopService()
        self.assertEqual(vars(reactor)["doIteration"], first._turn)
        first.stopService()
        self.assertNotIn("doIteration", vars(reactor))
        second.startService()
        self.assertEqual(vars(reactor)["doIteration"], second._turn)

    def test_waits(self) -> None:
        """It waits as long as the reactor says: not at all, for a time, or until somebody is ready."""
        reactor = a_reactor(self)
        turns = ReactorTurns(reactor)
        turns.startService()
        waited: list[Any] = []

        class Poller:
            def __init__(self, poller: Any) -> None:
                self._poller = poller

            def poll(self, timeout: float, most: int) -> Any:
                waited.append((timeout, most))
                return self._poller.poll(0, most)

        poller = reactor._poller
        reactor._poller = Poller(poller)
        for timeout in (0, 1.5, None, False):
            reactor.doIteration(timeout)
        reactor._poller = poller
        self.assertEqual(waited, [(0, CROWD), (1.5, CROWD), (-1, CROWD), (False, CROWD)])

    def test_calls_of_the_reactor(self) -> None:
        """What is to be called later, and what comes from a thread, is called as ever."""
        reactor = a_reactor(self)
        turns = ReactorTurns(reactor)
        turns.startService()
        called: list[str] = []
        reactor.callLater(0, called.append, "later")
        reactor.callFromThread(called.append, "thread")
        reactor.iterate(0)
        reactor.iterate(0)
        self.assertEqual(sorted(called), ["later", "thread"])

    def test_others_than_connections(self) -> None:
        """What is watched besides is called with its prefix for the log, and what it raises is logged."""
        reactor = a_reactor(self)
        turns = ReactorTurns(reactor)
        turns.startService()
        ours, theirs = os.pipe()
        self.addCleanup(os.close, theirs)
        said: list[Any] = []

        @implementer(IReadDescriptor)
        class Pipe:
            def fileno(self) -> int:
                return ours

            def logPrefix(self) -> str:
                return "a pipe"

            def doRead(self) -> None:
                said.append(context.get(ILogContext)["system"])
                raise ValueError("a bug")

            def connectionLost(self, reason: Failure) -> None:
                said.append(reason.type)
                os.close(ours)

        reactor.addReader(Pipe())
        os.write(theirs, b"x")
        reactor.iterate(0)
        self.assertEqual(said, ["a pipe", ValueError])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class ServerTests(SynchronousTestCase):
    """Who takes part in the turns of a server that twistd starts."""

    def test_everybody(self) -> None:
        """The reactor, the factory and the log, from start to stop."""
        reactor = a_reactor(self)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        options = parsed("--port=0", f"--maildir={folder}/{{user}}", "--user=ann:pass")
        options.parent = {"nodaemon": True, "logfile": str(folder / "log")}
        application = Application("pop3toy")
        server: Any = makeService(options, reactor)
        server.setServiceParent(application)
        started: Any = IService(application)  # type: ignore[call-overload]
        started.privilegedStartService()
        started.startService()
        turn = vars(reactor)["doIteration"]
        [port] = [one for one in reactor.getReaders() if isinstance(one, tcp.Port)]
        turns = port.factory.turns
        self.assertEqual(turn, turns._turn)
        self.assertIs(application.getComponent(ILogObserver)._turns, turns)
        stopped: list[object] = []
        started.stopService().addCallback(stopped.append)
        deadline = time.monotonic() + DEADLINE
        while not stopped:
            self.assertLess(time.monotonic(), deadline, "it does not stop")
            reactor.iterate(0.01)
        self.assertNotIn("doIteration", vars(reactor))


class ListenTests(SocketCase):
    """Ports of all kinds, and POP3 through them."""

    def setUp(self) -> None:
        super().setUp()
        self.watcher = Watcher()
        self.factory = POP3Factory(
            Clock(),
            FakeAuthenticator(ScriptedMailbox({b"one": MESSAGE})),
            observers=Observers(self.watcher),
            turns=self.turns,
        )

    def one_session(self, port: IListeningPort, family: int = socket.AF_INET) -> None:
        """Two clients at once, which come, talk and leave; then the port is closed."""
        address: Any = port.getHost()
        where = address.name if family == socket.AF_UNIX else (address.host, address.port)
        clients = [socket.socket(family) for _ in range(2)]
        for client in clients:
            self.addCleanup(client.close)
            client.settimeout(DEADLINE)
            client.connect(where)
        self.wait(port)
        self.turn()
        self.assertEqual([client.recv(100) for client in clients], [GREETING] * 2)
        for client in clients:
            client.sendall(LOGIN + b"RETR 1\r\nQUIT\r\n")
        got = [b"", b""]
        self.called_until(lambda: len(self.watcher.ends) == 2)
        for number, client in enumerate(clients):
            while data := client.recv(65536):
                got[number] += data
        self.assertEqual(got, [LOGGED_IN + RETRIEVED + BYE] * 2)
        self.assertEqual(self.watched(), 1)
        closed: Any = port.stopListening()
        self.turn()
        self.successResultOf(closed)
        self.assertEqual(self.watched(), 0)

    def listens(self, description: str) -> IListeningPort:
        """A port from its description."""
        endpoint: Any = serverFromString(self.reactor, description)
        port: IListeningPort = self.successResultOf(endpoint.listen(self.factory))
        return port

    def test_tcp(self) -> None:
        """A TCP port."""
        self.one_session(self.listens("tcp:0:interface=127.0.0.1"))

    def test_unix(self) -> None:
        """A Unix socket."""
        # The name of one may not be long.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.one_session(self.listens(f"unix:{folder.name}/pop3"), socket.AF_UNIX)

    def test_adopted(self) -> None:
        """A socket that somebody else has opened, as a worker and a service of systemd's have it."""
        with socket.create_server(("127.0.0.1", 0)) as theirs:
            theirs.setblocking(False)
            port = self.reactor.adoptStreamPort(theirs.fileno(), socket.AF_INET, self.factory)
        self.one_session(port)

    def test_connecting_while_others_talk(self) -> None:
        """Who connects while another is ready is greeted after that one was heard, and neither is lost."""
        port: Any = self.listens("tcp:0:interface=127.0.0.1")
        address = port.getHost()
        first = socket.create_connection((address.host, address.port), DEADLINE)
        self.addCleanup(first.close)
        self.wait(port)
        self.turn()
        self.assertEqual(first.recv(100), GREETING)
        [protocol] = self.factory._connections
        first.sendall(b"USER ann\r\n")
        second = socket.create_connection((address.host, address.port), DEADLINE)
        self.addCleanup(second.close)
        self.wait(port, protocol.transport)
        self.turn()
        self.assertEqual((first.recv(100), second.recv(100)), (b"+OK send PASS\r\n", GREETING))

    def test_making_room(self) -> None:
        """A stranger who has to make room, while ready, for one who comes in the same turn ends in order."""
        self.factory.gatekeeper = ConnectionLimiter(
            ConnectionLimits(strangers=2), choose=lambda visits: visits[0]
        )
        port: Any = self.listens("tcp:0:interface=127.0.0.1")
        address = port.getHost()

        def came() -> socket.socket:
            client = socket.create_connection((address.host, address.port), DEADLINE)
            self.addCleanup(client.close)
            self.wait(port)
            return client

        strangers = [came() for _ in range(2)]
        self.turn()
        transports = [protocol.transport for protocol in self.factory._connections]
        for client in strangers:
            self.assertEqual(client.recv(100), GREETING)
            client.sendall(b"CAPA\r\n")
        newcomers = [came() for _ in range(2)]
        self.wait(*transports)
        self.turn()
        self.assertEqual(self.factory.connections, 2)
        for client in strangers:
            said = b""
            while data := client.recv(65536):
                said += data
            self.assertIn(said[:3], (b"", b"+OK"))
        for client in newcomers:
            client.sendall(b"QUIT\r\n")
            self.assertEqual(client.recv(len(GREETING)), GREETING)
        self.wait(*(protocol.transport for protocol in self.factory._connections))
        self.turn()
        self.assertEqual([client.recv(100) for client in newcomers], [BYE, BYE])
        self.assertEqual(self.factory.connections, 0)
        self.assertEqual(sorted(end.why for end in self.watcher.ends), ["limit"] * 2 + ["quit"] * 2)


class Turns:
    """A turn that ends when the test says so."""

    def __init__(self) -> None:
        self.crowded = True
        self.calls: list[Callable[[], object]] = []

    def postpone(self, call: Callable[[], object]) -> bool:
        if self.crowded:
            self.calls.append(call)
        return self.crowded

    def end(self) -> None:
        """Do what was postponed; nothing is postponed any more."""
        self.crowded = False
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def begin(self) -> None:
        """The next turn."""
        assert not self.calls
        self.crowded = True


@implementer(ITLSTransport)
class SecretTransport(WriteCounter):
    """A transport that begins TLS when told, and knows what was written before."""

    before: list[bytes] | None = None

    def startTLS(self, context: object) -> None:
        assert self.before is None
        self.before = list(self.writes)


class ProtocolTests(SynchronousTestCase):
    """What a protocol does with its turn."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.clock = Clock()
        self.watcher = Watcher()
        self.mailbox = ScriptedMailbox({b"one": MESSAGE})
        self.authenticator = FakeAuthenticator(self.mailbox)

    def connect(self, **arguments: Any) -> tuple[POP3Protocol, WriteCounter, POP3Factory]:
        """One connection, within a turn."""
        return connect(self.authenticator, self.clock, turns=self.turns, watcher=self.watcher, **arguments)

    def greeted(self, **arguments: Any) -> tuple[POP3Protocol, WriteCounter, POP3Factory]:
        """One connection that was greeted, in the next turn."""
        found = self.connect(**arguments)
        self.next_turn(found[1])
        return found

    def next_turn(self, transport: WriteCounter) -> None:
        """End a turn, forget what was written in it, and begin another."""
        self.turns.end()
        transport.writes.clear()
        self.turns.begin()

    def logged_in(self, **arguments: Any) -> tuple[POP3Protocol, WriteCounter, POP3Factory]:
        """One connection after login, in the next turn."""
        found = self.greeted(**arguments)
        found[0].dataReceived(LOGIN)
        self.next_turn(found[1])
        return found

    def slow(self) -> tuple[POP3Protocol, FakeSocket]:
        """One whose client decides what it reads, after login, in the next turn."""
        factory = POP3Factory(
            self.clock, self.authenticator, turns=self.turns, observers=Observers(self.watcher)
        )
        protocol = factory.buildProtocol(LOOPBACK)
        client = FakeSocket(self.clock)
        client.connect(protocol)
        client.client_sends(LOGIN)
        self.turns.end()
        client.client_reads_all()
        self.assertTrue(client.got.startswith(GREETING + b"+OK send PASS\r\n+OK maildrop has 1 "), client.got)
        client.got.clear()
        self.turns.begin()
        return protocol, client

    def assert_over(self, factory: POP3Factory, how: str) -> None:
        """One connection ended, in this way, which was told once; nothing is left of it."""
        self.assertEqual(factory.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([end.why for end in self.watcher.ends], [how])

    def lose(self, protocol: POP3Protocol) -> None:
        """The connection is lost."""
        protocol.connectionLost(Failure(ConnectionLost()))

    def test_greeting(self) -> None:
        """The greeting leaves at the turn's end, once."""
        _, transport, _ = self.connect()
        self.assertEqual(transport.writes, [])
        self.turns.end()
        self.assertEqual(transport.writes, [GREETING])

    def test_alone(self) -> None:
        """Who is alone is answered at once."""
        self.turns.crowded = False
        protocol, transport, _ = self.connect()
        for line in (b"USER ann\r\n", b"PASS pass\r\n"):
            protocol.dataReceived(line)
        self.assertEqual(transport.writes, [GREETING, *LOGGED_IN.splitlines(keepends=True)])
        self.assertEqual(self.turns.calls, [])

    def test_one_line(self) -> None:
        """The answer to one line leaves at the turn's end; what was asked is done before."""
        protocol, transport, _ = self.logged_in()
        protocol.dataReceived(b"RETR 1\r\n")
        self.assertEqual(len(self.mailbox.bodies), 1)
        self.assertEqual(transport.writes, [])
        self.turns.end()
        self.assertEqual(transport.writes, [RETRIEVED])

    def test_pipelined(self) -> None:
        """Commands that came together leave together, in one write."""
        protocol, transport, _ = self.greeted()
        protocol.dataReceived(LOGIN + b"STAT\r\nRETR 1\r\nNOOP\r\nWHAT\r\n")
        self.assertEqual(transport.writes, [])
        self.turns.end()
        [data] = transport.writes
        self.assertTrue(data.startswith(LOGGED_IN + b"+OK 1 24\r\n" + RETRIEVED + b"+OK"), data)
        self.assertEqual(data.count(b"-ERR"), 1)

    def test_pieces(self) -> None:
        """Half a line is not answered, and no harm to the turn."""
        protocol, transport, _ = self.logged_in()
        protocol.dataReceived(b"ST")
        self.next_turn(transport)
        self.assertEqual(transport.writes, [])
        protocol.dataReceived(b"AT\r\nST")
        self.turns.end()
        self.assertEqual(transport.writes, [b"+OK 1 24\r\n"])

    def test_two_connections(self) -> None:
        """The answers of two connections leave when both were heard."""
        protocol, transport, factory = self.logged_in()
        other = factory.buildProtocol(LOOPBACK)
        theirs = WriteCounter(peerAddress=LOOPBACK, lenient=True)
        other.makeConnection(theirs)
        protocol.dataReceived(b"STAT\r\n")
        self.assertEqual((transport.writes, theirs.writes), ([], []))
        self.turns.end()
        self.assertEqual((transport.writes, theirs.writes), ([b"+OK 1 24\r\n"], [GREETING]))

    def test_quit(self) -> None:
        """QUIT is done and the maildrop free at once; the goodbye leaves, and all ends, at the turn's end."""
        protocol, transport, factory = self.logged_in()
        protocol.dataReceived(b"DELE 1\r\nQUIT\r\nSTAT\r\n")
        self.assertEqual((self.mailbox.removed, self.mailbox.released), ([[b"one"]], 1))
        self.assertEqual((transport.writes, transport.disconnecting), ([], False))
        # What comes later is for nobody.
        protocol.dataReceived(b"STAT\r\n")
        self.turns.end()
        [data] = transport.writes
        self.assertEqual(data, b"+OK message 1 deleted\r\n+OK bye, 1 message removed\r\n")
        self.assertTrue(transport.disconnecting)
        self.lose(protocol)
        self.assert_over(factory, "quit")

    def test_too_many_mistakes(self) -> None:
        """So are the last answer to mistakes and its close."""
        protocol, transport, factory = self.greeted()
        protocol.dataReceived(b"WHAT\r\n" * 100)
        self.assertEqual((transport.writes, transport.disconnecting), ([], False))
        self.turns.end()
        self.assertEqual(len(transport.writes), 1)
        self.assertEqual(transport.writes[0].count(b"-ERR"), limits.BAD_COMMANDS_BEFORE_LOGIN)
        self.assertTrue(transport.disconnecting)
        self.lose(protocol)
        self.assert_over(factory, "limit")

    def test_bye_unread(self) -> None:
        """Who does not read the goodbye is cut; the time for it begins with the turn's end."""
        protocol, client = self.slow()
        client.client_sends(b"QUIT\r\n")
        self.clock.advance(1)
        self.turns.end()
        self.assertEqual(bytes(client.unsent), BYE)
        self.clock.advance(limits.LINGER - 0.5)
        self.assertTrue(client.connected)
        self.clock.advance(0.5)
        self.clock.advance(0)
        self.assertFalse(client.connected)
        self.assert_over(protocol.factory, "quit")

    def test_half_closed(self) -> None:
        """Who sends no more gets all answers at the turn's end, and then the end."""
        protocol, transport, factory = self.logged_in()
        protocol.dataReceived(b"STAT\r\n")
        protocol.readConnectionLost()
        self.assertEqual((transport.writes, transport.disconnecting), ([], False))
        self.assertEqual(self.mailbox.released, 1)
        self.turns.end()
        self.assertEqual((transport.writes, transport.disconnecting), ([b"+OK 1 24\r\n"], True))
        self.lose(protocol)
        self.assert_over(factory, "dropped")

    def test_turned_away(self) -> None:
        """Who is turned away hears why at the turn's end; that it ended is told as of every connection."""
        protocol, transport, factory = self.connect(
            gatekeeper=ConnectionLimiter(ConnectionLimits(connections=0))
        )
        self.assertEqual((transport.writes, transport.disconnecting), ([], False))
        self.turns.end()
        [data] = transport.writes
        self.assertTrue(data.startswith(b"-ERR "), data)
        self.assertTrue(transport.disconnecting)
        self.lose(protocol)
        self.assertEqual((len(self.watcher.turned), self.watcher.ends[0].why), (1, "rejected"))
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))

    def test_lost_before_the_greeting(self) -> None:
        """Who goes before the turn's end is not greeted, and leaves nothing behind."""
        protocol, transport, factory = self.connect()
        self.lose(protocol)
        self.turns.end()
        self.assertEqual((transport.writes, transport.disconnecting), ([], False))
        self.assert_over(factory, "dropped")

    def test_lost_before_the_answer(self) -> None:
        """Who goes before the answer leaves gets none."""
        protocol, transport, factory = self.logged_in()
        protocol.dataReceived(b"STAT\r\nDELE 1\r\n")
        self.lose(protocol)
        self.assertEqual(self.mailbox.released, 1)
        self.turns.end()
        self.assertEqual((transport.writes, transport.disconnecting), ([], False))
        self.assertEqual(self.mailbox.removed, [])
        self.assert_over(factory, "dropped")

    def test_lost_before_the_goodbye(self) -> None:
        """Who goes before the goodbye gets none, and no timer is left; QUIT is done nevertheless."""
        protocol, transport, factory = self.logged_in()
        protocol.dataReceived(b"DELE 1\r\nQUIT\r\n")
        self.lose(protocol)
        self.turns.end()
        self.assertEqual((transport.writes, transport.disconnecting), ([], False))
        self.assertEqual((self.mailbox.removed, self.mailbox.released), ([[b"one"]], 1))
        self.assert_over(factory, "quit")

    def test_lost_before_being_turned_away(self) -> None:
        """So does who would have been turned away."""
        protocol, transport, factory = self.connect(
            gatekeeper=ConnectionLimiter(ConnectionLimits(connections=0))
        )
        self.lose(protocol)
        self.turns.end()
        self.assertEqual(transport.writes, [])
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))

    def test_hung_up(self) -> None:
        """Who has to make room before the turn's end gets no answer but the end."""
        protocol, transport, factory = self.greeted()
        protocol.dataReceived(b"USER ann\r\n")
        protocol.hang_up("limit")
        self.turns.end()
        self.assertEqual((transport.writes, transport.disconnecting), ([], True))
        self.lose(protocol)
        self.assert_over(factory, "limit")

    def test_hung_up_within_a_body(self) -> None:
        """So does who is in the middle of a message: it is closed, and no final dot comes."""
        self.authenticator.mailbox = mailbox = ScriptedMailbox({b"one": [b"x" * 70_000 + b"\n"] * 9})
        protocol, client = self.slow()
        client.client_sends(b"RETR 1\r\nSTAT\r\n")
        self.assertGreater(len(client.unsent), 0)
        protocol.hang_up("limit")
        self.turns.end()
        client.client_reads_all()
        self.clock.advance(0)
        self.assertNotIn(b"\r\n.\r\n", client.got)
        self.assertEqual((mailbox.bodies[0].closed, mailbox.released), ([None], 1))
        self.assert_over(protocol.factory, "limit")

    def test_hung_up_after_quit(self) -> None:
        """Who has said goodbye and is to make room before the turn's end ends once, as one who quit."""
        protocol, client = self.slow()
        client.client_sends(b"DELE 1\r\nQUIT\r\n")
        protocol.hang_up("limit")
        self.turns.end()
        self.clock.advance(0)
        self.assertFalse(client.connected)
        self.assertEqual((self.mailbox.removed, self.mailbox.released), ([[b"one"]], 1))
        self.assert_over(protocol.factory, "quit")

    def test_stls(self) -> None:
        """The answer to STLS, and what was answered before, leaves in clear text before TLS begins."""
        factory = POP3Factory(
            self.clock,
            self.authenticator,
            turns=self.turns,
            observers=Observers(self.watcher),
            tls_context=object(),
        )
        protocol = factory.buildProtocol(LOOPBACK)
        transport = SecretTransport(peerAddress=LOOPBACK, lenient=True)
        protocol.makeConnection(transport)
        self.next_turn(transport)
        protocol.dataReceived(b"USER ann\r\nSTLS\r\nNOOP\r\n")
        assert transport.before is not None
        clear = b"".join(transport.before)
        self.assertTrue(clear.startswith(b"+OK send PASS\r\n+OK begin TLS"), clear)
        self.turns.end()
        # What was pipelined behind it was thrown away.
        self.assertEqual(b"".join(transport.writes), clear)
        self.turns.begin()
        transport.writes.clear()
        protocol.dataReceived(b"USER ann\r\n")
        self.assertEqual(transport.writes, [])
        self.turns.end()
        self.assertEqual(transport.writes, [b"+OK send PASS\r\n"])

    def test_deferred(self) -> None:
        """What was answered does not wait for an answer that comes later, nor that one for a turn."""
        self.authenticator.later = True
        protocol, transport, _ = self.greeted()
        protocol.dataReceived(LOGIN + b"STAT\r\n")
        self.assertEqual(transport.writes, [b"+OK send PASS\r\n"])
        self.authenticator.let_in()
        self.assertEqual(b"".join(transport.writes), LOGGED_IN + b"+OK 1 24\r\n")
        self.turns.end()
        self.assertEqual(b"".join(transport.writes), LOGGED_IN + b"+OK 1 24\r\n")

    def test_large_body(self) -> None:
        """What is larger than replies are gathered leaves in order, before and at the turn's end."""
        chunk = b"y" * 1022 + b"\n"
        body = b"A: b\r\n\r\n" + chunk.replace(b"\n", b"\r\n") * 300
        self.authenticator.mailbox = ScriptedMailbox({b"one": [b"A: b\n\n", *[chunk] * 300]})
        protocol, transport, _ = self.greeted()
        protocol.dataReceived(LOGIN + b"STAT\r\nRETR 1\r\nNOOP\r\n")
        early = b"".join(transport.writes)
        self.assertGreater(len(early), limits.GATHER)
        self.turns.end()
        got = b"".join(transport.writes)
        self.assertTrue(got.startswith(early))
        head, _, rest = got.partition(body)
        self.assertTrue(head.startswith(b"+OK send PASS\r\n+OK maildrop"), head[:100])
        self.assertIn(b"+OK 1 100\r\n", head)
        self.assertTrue(rest.startswith(b".\r\n+OK"), rest[:100])

    def test_large_body_to_a_slow_client(self) -> None:
        """The same with a client that reads in several turns; further lines are answered in order."""
        chunk = b"y" * 1022 + b"\n"
        self.authenticator.mailbox = ScriptedMailbox({b"one": [b"A: b\n\n", *[chunk] * 900]})
        _, client = self.slow()
        client.client_sends(b"STAT\r\nRETR 1\r\nSTAT\r\nQUIT\r\n")
        got = bytearray()
        for _ in range(200):
            self.turns.end()
            got += client.client_reads(50_000)
            self.clock.advance(0)
            self.turns.begin()
        self.assertFalse(client.connected)
        body = b"A: b\r\n\r\n" + chunk.replace(b"\n", b"\r\n") * 900
        first, _, rest = bytes(got).partition(body)
        self.assertTrue(first.startswith(b"+OK 1 100\r\n+OK"), first)
        self.assertEqual(rest, b".\r\n+OK 1 100\r\n" + BYE)
        self.assertLess(client.most_unsent, 3 * limits.GATHER)


class CountingTurns(ReactorTurns):
    """Counts what was postponed."""

    postponed = 0

    def postpone(self, call: Callable[[], object]) -> bool:
        postponed = super().postpone(call)
        self.postponed += postponed
        return postponed


class Houses(FakeAuthenticator):
    """An authenticator with a mailbox for each user."""

    def __init__(self, mailboxes: dict[bytes, ScriptedMailbox]) -> None:
        super().__init__()
        self.mailboxes = mailboxes

    def password(self, user: bytes, password: bytes, record: SessionRecord) -> MaybeDeferred[Login]:
        mailbox = self.mailboxes[user]
        if password != b"pass":
            raise AuthenticationFailed
        return Login(user.decode(), mailbox, mailbox.release, "USER")


class WholeTests(TestCase):
    """On the reactor that runs."""

    USERS = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.turns = CountingTurns(reactor)
        self.turns.startService()
        self.addCleanup(self.turns.stopService)
        self.watcher = Watcher()
        self.clock = Clock()
        names = [b"user%d" % number for number in range(self.USERS)]
        self.messages = {
            name: [
                b"Subject: %b\r\n\r\n.dot\r\n" % name,
                b"Subject: long\r\n\r\n" + b"%b\r\n" % (name * 10) * (1000 * (at % 5) + 1),
            ]
            for at, name in enumerate(names)
        }
        self.mailboxes = {
            name: ScriptedMailbox({b"a" + name: short, b"b" + name: long})
            for name, (short, long) in self.messages.items()
        }
        self.factory = POP3Factory(
            self.clock, Houses(self.mailboxes), observers=Observers(self.watcher), turns=self.turns
        )

    async def listens(self, description: str) -> IListeningPort:
        """A port, until the test ends."""
        endpoint: Any = serverFromString(self.reactor, description)
        port: IListeningPort = await endpoint.listen(self.factory)

        self.addCleanup(port.stopListening)
        return port

    def conversation(self, name: bytes) -> list[tuple[bytes, bytes]]:
        """What a user says, and every octet that is to be answered."""
        short, long = self.messages[name]
        total = len(short) + len(long)
        listing = b"+OK 2 messages (%d octets)\r\n1 %d\r\n2 %d\r\n.\r\n" % (total, len(short), len(long))
        stuffed = short.replace(b"\r\n.", b"\r\n..")
        return [
            (b"", GREETING),
            (b"USER " + name + b"\r\n", b"+OK send PASS\r\n"),
            (b"PASS pass\r\n", b"+OK maildrop has 2 messages (%d octets)\r\n" % total),
            (b"STAT\r\n", b"+OK 2 %d\r\n" % total),
            (b"LIST\r\n", listing),
            (b"UIDL 2\r\n", b"+OK 2 b" + name + b"\r\n"),
            (b"RETR 1\r\n", b"+OK %d octets\r\n%b.\r\n" % (len(short), stuffed)),
            (b"RETR 2\r\n", b"+OK %d octets\r\n%b.\r\n" % (len(long), long)),
            (b"DELE 1\r\n", b"+OK message 1 deleted\r\n"),
            (b"QUIT\r\n", b"+OK bye, 1 message removed\r\n"),
        ]

    async def test_many_at_once(self) -> None:
        """Twenty sessions at once, half of them pipelined, are answered to the octet."""
        port: Any = await self.listens("tcp:0:interface=127.0.0.1")
        address = port.getHost()
        clients = []
        for at, name in enumerate(self.messages):
            client = socket.create_connection((address.host, address.port), DEADLINE)
            self.addCleanup(client.close)
            steps = self.conversation(name)
            if at % 2:
                rest = steps[1:]
                steps = [steps[0], (b"".join(one for one, _ in rest), b"".join(one for _, one in rest))]
            clients.append((client, steps))

        def hears(client: socket.socket, count: int) -> bytes:
            got = b""
            while len(got) < count:
                data = client.recv(count - len(got))
                if not data:
                    break
                got += data
            return got

        def answers(expected: list[tuple[socket.socket, bytes]]) -> list[bytes]:
            return [hears(client, len(answer)) for client, answer in expected]

        while any(steps for _, steps in clients):
            # All of them within one of the reactor's calls, so that all are ready together.
            expected = []
            for client, steps in clients:
                if steps:
                    said, answer = steps.pop(0)
                    client.sendall(said)
                    expected.append((client, answer))
            got: list[bytes] = await deferToThread(answers, expected)
            self.assertEqual(got, [answer for _, answer in expected])
        ends: list[bytes] = await deferToThread(answers, [(client, b"x") for client, _ in clients])
        self.assertEqual(ends, [b""] * self.USERS)
        self.assertEqual([end.why for end in self.watcher.ends], ["quit"] * self.USERS)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for name, mailbox in self.mailboxes.items():
            self.assertEqual((mailbox.removed, mailbox.released), ([[b"a" + name]], 1))
        self.assertGreater(self.turns.postponed, self.USERS)

    async def test_tls(self) -> None:
        """TLS from the first octet on, and STLS, work through it for several clients at once."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        authority = Authority(folder)
        pair = authority.issue("localhost").write(folder / "localhost.pem")
        self.factory.tls_context = ServerTLS(lambda: [CertificateFiles(str(pair), str(pair))])
        plain: Any = await self.listens("tcp:0:interface=127.0.0.1")
        secret: Any = await self.listens(f"ssl:0:interface=127.0.0.1:privateKey={pair}:certKey={pair}")

        def session(name: bytes, at_once: bool, context: ssl.SSLContext) -> None:
            with Wire((secret if at_once else plain).getHost().port) as wire:
                if at_once:
                    wire.starttls(context)
                self.assertEqual(wire.line() + b"\r\n", GREETING)
                if not at_once:
                    self.assertTrue(wire.ask(b"STLS").startswith(b"+OK begin TLS"))
                    wire.starttls(context)
                for said, answered in self.conversation(name)[1:]:
                    wire.send(said)
                    got = b""
                    while len(got) < len(answered):
                        got += wire.receive()
                    self.assertEqual(got, answered)
                self.assertEqual(wire.rest(), b"")

        running = [
            deferToThread(session, name, bool(at % 2), trusting(authority))
            for at, name in enumerate(list(self.messages)[:6])
        ]
        for one in running:
            await one
