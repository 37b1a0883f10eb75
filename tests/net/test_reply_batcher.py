"""Connections that are ready together: all are heard, then all are answered."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.application.service import Application, IService
from twisted.internet import tcp
from twisted.internet.endpoints import serverFromString
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.logger import ILogObserver
from twisted.python import context
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy import POP3Factory, limits
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.events import Observers
from pop3toy.interfaces import Login
from pop3toy.net.fast.immediate_write import ImmediateSending
from pop3toy.net.fast.reply_batcher import MAX_EVENTS, ReplyBatcher, batcher_of
from pop3toy.net.tls.certificate_files import CertificateFiles
from pop3toy.net.tls.contexts import ServerTLS
from pop3toy.tap import makeService

from ..config.test_cmdline import parsed
from ..memory_world import LOOPBACK
from ..pop3_world import (
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
MESSAGE = b"Subject: hello\r\n\r\n" + b"body\r\n" * 20_000
LOGGED_IN = b"+OK send PASS\r\n+OK maildrop has 1 message (120018 octets)\r\n"
RETRIEVED = b"+OK 120018 octets\r\n" + MESSAGE + b".\r\n"
BYE = b"+OK bye\r\n"
#: More than all the buffers between two sockets of loopback hold.
BIG = bytes(range(256)) * (16 << 12)


class Peer(Protocol):
    """Notes what comes and does something for each octets that it hears."""

    logs_by_itself = True

    def __init__(self, name: int, case: SocketCase, does: Callable[[Peer], object]) -> None:
        self.name = name
        self.heard = b""
        self.lost: list[Failure] = []
        self._case = case
        self._does = does

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self._case.events.append(("heard", self.name))
        self._does(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.lost.append(reason)


class FailsAtItsEnd(Peer):
    """One that raises when it is told of its end."""

    error: type[BaseException] = ValueError

    def connectionLost(self, reason: Failure | None = None) -> None:
        raise self.error("a bug")


class KillsTheServer(FailsAtItsEnd):
    """One that ends the process."""

    error = SystemExit


class SocketCase(SynchronousTestCase):
    """Sockets of loopback whose server's ends are watched by a reactor that the test calls."""

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.reactor: Any = EPollReactor()
        self.addCleanup(self.clean_up)
        self.batcher = ReplyBatcher(self.reactor)
        self.batcher.startService()
        self.events: list[tuple[str, Any]] = []

    def clean_up(self) -> None:
        for one in [*self.reactor.removeAll(), *self.reactor._internalReaders]:
            self.reactor.removeReader(one)
            one.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()
        self.flushLoggedErrors(ValueError)

    def dials(self, address: Any = None) -> socket.socket:
        """A client that connects; to Peers unless told otherwise."""
        client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.addCleanup(client.close)
        client.settimeout(DEADLINE)
        client.connect(address or self.listening.getsockname())
        return client

    def accepts(self, peer: Peer) -> Any:
        """The server's transport for the client that has waited longest."""
        skt, address = self.listening.accept()
        port: Any = None
        transport = tcp.Server(skt, peer, address, port, 1, self.reactor)
        peer.makeConnection(transport)
        return transport

    def peers(self, count: int, does: Any = None, kind: type[Peer] = Peer) -> list[tuple[socket.socket, Any]]:
        """Clients, each with its peer, numbered from one; unless told otherwise it postpones its answer."""
        found = []
        for name in range(1, count + 1):
            client, peer = self.dials(), kind(name, self, does or self.answers_later)
            self.accepts(peer)
            found.append((client, peer))
        return found

    def answers_later(self, peer: Peer) -> None:
        """What a peer does that postpones its answer."""
        postponed = self.batcher.postpone(lambda: self.events.append(("answered", peer.name)))
        self.events.append(("postponed", postponed))

    def wait(self, *ready: Any, events: int = select.POLLIN) -> None:
        """Until all of these peers or ports have something to tell, as the system sees it."""
        for one in ready:
            poll = select.poll()
            poll.register((one.transport if isinstance(one, Protocol) else one).fileno(), events)
            self.assertTrue(poll.poll(DEADLINE * 1000), "nothing comes")

    def served(self, peers: list[tuple[socket.socket, Any]]) -> None:
        """One turn in which all of these are ready."""
        for client, _ in peers:
            client.sendall(b"x")
        self.wait(*(peer for _, peer in peers))
        self.reactor.doIteration(0)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn by turn until a condition holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it goes on for ever")
            self.reactor.iterate(0)

    def named(self, what: str) -> list[Any]:
        """Whom something happened to, in order."""
        return [name for event, name in self.events if event == what]

    def reset(self, client: socket.socket) -> None:
        """The client's machine says that there is no such connection."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


class TurnTests(SocketCase):
    """Who is heard when, and who is answered when."""

    def test_heard_then_answered(self) -> None:
        """All are heard before the first is answered; each is answered once, in the same order."""
        peers = self.peers(5)
        for _ in range(2):
            self.events.clear()
            self.served(peers)
            self.assertEqual([kind for kind, _ in self.events], ["heard", "postponed"] * 5 + ["answered"] * 5)
            self.assertEqual(self.named("answered"), self.named("heard"))
        self.assertEqual(self.named("postponed"), [True] * 5)
        # Outside of a turn nothing is.
        self.assertFalse(self.batcher.postpone(self.fail))

    def test_behind_the_answers(self) -> None:
        """What an answer postpones comes behind all answers of the turn; after that nothing is postponed."""

        def last() -> None:
            self.events.append(("last", self.batcher.postpone(self.fail)))

        self.served(
            self.peers(3, lambda _: self.batcher.postpone(lambda: self.batcher.postpone(last) or self.fail()))
        )
        self.assertEqual(self.named("last"), [False] * 3)

    def test_alone(self) -> None:
        """Who is ready alone need not wait, though others are connected; nobody at all is no harm."""
        peers = self.peers(3)
        self.reactor.doIteration(0)
        self.served(peers[:1])
        self.assertEqual(self.events, [("heard", 1), ("postponed", False)])

    def test_nobody_starves(self) -> None:
        """So many are heard in one go, the rest in the next."""
        peers = self.peers(MAX_EVENTS + 6)
        self.served(peers)
        self.assertEqual(len(set(self.named("heard"))), MAX_EVENTS)
        self.assertEqual(self.named("answered"), self.named("heard"))
        self.reactor.doIteration(0)
        self.assertEqual(sorted(self.named("answered")), list(range(1, MAX_EVENTS + 7)))

    def test_ended_by_another(self) -> None:
        """Who is ended by another one that is ready is not heard; what was postponed is done."""

        def does(peer: Peer) -> None:
            self.answers_later(peer)
            for _, other in peers:
                ImmediateSending().close(other.transport)

        peers = self.peers(3, does)
        self.served(peers)
        self.assertEqual([kind for kind, _ in self.events], ["heard", "postponed", "answered"])

    def test_number_taken_over(self) -> None:
        """A new connection that got the descriptor of one that was ended is not taken for that one."""
        newcomers: list[Peer] = []

        def does(peer: Peer) -> None:
            number = doomed.transport.fileno()
            doomed.transport.connectionLost(Failure(ConnectionDone()))
            taken = None
            # The lowest that is free is taken first.
            while taken != number:
                newcomers.append(Peer(0, self, self.answers_later))
                taken = self.accepts(newcomers[-1]).fileno()

        [(waker, its_peer)] = self.peers(1, does)
        [(client, doomed)] = self.peers(1)
        doomed.transport.write(BIG)
        doomed.transport.pauseProducing()
        # Until the sockets are full: who can be written to might be called before the other.
        self.until(lambda: not self.reactor._poller.poll(0))
        waker.sendall(b"x")
        waiting = [self.dials() for _ in range(20)]
        self.reset(client)
        self.wait(its_peer)
        self.wait(doomed, events=0)
        self.reactor.doIteration(0)
        for client in waiting:
            client.sendall(b"y")
        self.wait(*newcomers)
        self.reactor.doIteration(0)
        self.assertEqual([(one.heard, one.lost) for one in newcomers], [(b"y", [])] * len(newcomers))

    def test_reset(self) -> None:
        """Who is gone is told so among others who are ready, also while it is not read from."""
        [(client, gone), *others] = self.peers(3)
        gone.transport.write(BIG)
        gone.transport.pauseProducing()
        self.until(lambda: not self.reactor._poller.poll(0))
        self.reset(client)
        self.wait(gone, events=0)
        self.served(others)
        self.assertIsNotNone(gone.lost[0].check(ConnectionLost))
        self.assertEqual(len(self.named("answered")), 2)

    def test_both_ways_at_once(self) -> None:
        """Who has much to send is heard meanwhile; all of it arrives, and then nobody is called any more."""
        [(client, peer)] = self.peers(1)
        peer.transport.write(BIG)
        self.until(lambda: not self.reactor._poller.poll(0))
        self.served([(client, peer)])
        self.assertEqual(peer.heard, b"x")
        client.setblocking(False)
        got = bytearray()

        def all_came() -> bool:
            try:
                got.extend(client.recv(1 << 20))
            except BlockingIOError:
                pass
            return len(got) >= len(BIG)

        self.until(all_came)
        self.assertEqual(got, BIG)
        self.reactor.iterate(0)
        self.assertEqual(self.reactor._poller.poll(0), [])

    def test_exceptions(self) -> None:
        """What fails for one is logged and its own alone: the others are answered, now and later."""

        def raises(peer: Peer) -> None:
            raise ValueError("a bug")

        def postpones_a_bug(peer: Peer) -> None:
            self.batcher.postpone(lambda: raises(peer))

        for does, kind, lost in ((raises, Peer, 1), (postpones_a_bug, Peer, 0), (None, FailsAtItsEnd, 0)):
            [(client, bad)] = self.peers(1, does, kind)
            good = self.peers(3)
            self.events.clear()
            if does:
                client.sendall(b"x")
            else:
                client.close()
            self.wait(bad)
            self.served(good)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
            if does:
                self.assertEqual(len(bad.lost), lost)
            self.assertEqual(sorted(self.named("answered")), [1, 2, 3])
            self.assertFalse(self.batcher.postpone(self.fail))
            self.served(good)
            self.assertEqual(sorted(self.named("answered")), [1, 1, 2, 2, 3, 3])

    def test_end_of_the_process(self) -> None:
        """If one ends the process, those who were heard are answered, and nothing is postponed any more."""
        for at_its_end in (False, True):
            kind = KillsTheServer if at_its_end else Peer
            [(client, bad)] = self.peers(1, lambda peer: self.batcher.postpone(sys.exit), kind)
            if at_its_end:
                client.close()
            else:
                client.sendall(b"x")
            self.wait(bad)
            self.events.clear()
            self.assertRaises(SystemExit, self.served, self.peers(3))
            heard = [name for kind, name in self.events if kind == "heard"]
            self.assertEqual(self.named("answered"), heard[0 if at_its_end else 1 :])
            self.assertFalse(self.batcher.postpone(self.fail))

    def test_prefix_of_log_lines(self) -> None:
        """What others watch is called with its prefix for the log, ours without; what it raises is logged."""
        said: list[str] = []

        def does(peer: Peer) -> None:
            said.append(context.get(ILogContext)["system"])

        class Other(Peer):
            logs_by_itself = False

        class Pipe:
            def __init__(self) -> None:
                self.ours, self.theirs = os.pipe()
                os.write(self.theirs, b"x")

            def fileno(self) -> int:
                return self.ours

            def logPrefix(self) -> str:
                return "a pipe"

            def doRead(self) -> None:
                does(peers[0][1])
                raise ValueError("a bug")

            def connectionLost(self, reason: Failure) -> None:
                os.close(self.ours)
                os.close(self.theirs)

        peers = [*self.peers(1, does), *self.peers(1, does, Other)]
        self.served(peers[:1])
        self.served(peers[1:])
        self.reactor.addReader(Pipe())
        self.reactor.doIteration(0)
        self.assertEqual(("Peer" in said[0], *said[1:]), (False, "Other,1,127.0.0.1", "a pipe"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class ServiceTests(SocketCase):
    """Whose turns there are, and when."""

    def test_other_reactors(self) -> None:
        """What is no epoll reactor of Twisted's has no turns; nor has one that waits in its own way."""

        class Odd(EPollReactor):
            def __init__(self) -> None:
                """Without anything that would have to be closed."""

        for reactor in (Clock(), MemoryReactor(), Odd()):
            self.assertIsNone(batcher_of(reactor))
        self.assertIsInstance(batcher_of(self.reactor), ReplyBatcher)

    def test_stop_gives_the_reactor_back(self) -> None:
        """Between start and stop, each time; a second one changes nothing, whenever it starts and stops."""
        second = ReplyBatcher(self.reactor)
        for _ in range(2):
            second.startService()
            second.stopService()
            self.assertEqual((vars(self.reactor)["doIteration"], second.running), (self.batcher._turn, False))
        self.batcher.stopService()
        self.assertFalse(self.batcher.running)
        self.served(self.peers(2))
        self.assertEqual(self.named("postponed"), [False, False])
        second.startService()
        self.assertEqual((vars(self.reactor)["doIteration"], second.running), (second._turn, 1))

    def test_waits(self) -> None:
        """It waits as long as the reactor says: not at all, for a time, or until somebody is ready."""
        waited: list[Any] = []

        class Poller:
            def poll(self, timeout: float, most: int) -> list[Any]:
                waited.append(timeout)
                return []

        poller, self.reactor._poller = self.reactor._poller, Poller()
        for timeout in (0, 1.5, None):
            self.reactor.doIteration(timeout)
        self.reactor._poller = poller
        self.assertEqual(waited, [0, 1.5, -1])

    def test_of_a_server(self) -> None:
        """The reactor, the factory and the log of a server take part, from start to stop."""
        self.batcher.stopService()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        options = parsed("--port=0", f"--maildir={folder}/{{user}}", "--user=ann:pass")
        options.parent = {"nodaemon": True, "logfile": str(folder / "log")}  # type: ignore[assignment]
        application = Application("pop3toy")
        server: Any = makeService(options, self.reactor)
        server.setServiceParent(application)
        started: Any = IService(application)  # type: ignore[call-overload]
        started.privilegedStartService()
        started.startService()
        [port] = [one for one in self.reactor.getReaders() if isinstance(one, tcp.Port)]
        batcher = port.factory.sending.postpone.__self__
        self.assertEqual(vars(self.reactor)["doIteration"], batcher._turn)
        self.assertIs(application.getComponent(ILogObserver)._batcher, batcher)
        stopped: list[Any] = []
        started.stopService().addCallback(stopped.append)
        self.until(lambda: stopped)
        self.assertNotIn("doIteration", vars(self.reactor))


class Houses(FakeAuthenticator):
    """A mailbox for each login."""

    def login(self, mechanism: str = "USER") -> Login:
        self.mailbox = ScriptedMailbox({b"one": MESSAGE})
        return super().login(mechanism)


class SessionTests(SocketCase):
    """POP3 through it."""

    def setUp(self) -> None:
        super().setUp()
        self.watcher, self.clock = Watcher(), Clock()
        self.factory = POP3Factory(
            self.clock,
            Houses(),
            observers=Observers(self.watcher),
            sending=ImmediateSending(self.batcher.postpone),
        )

    def listens(self, description: str) -> Any:
        """A port from its description."""
        endpoint: Any = serverFromString(self.reactor, description)
        return self.successResultOf(endpoint.listen(self.factory))

    def address(self, port: Any) -> Any:
        """Where it can be dialled."""
        host = port.getHost()
        return host.name.decode() if hasattr(host, "name") else (host.host, host.port)

    def test_many_at_once(self) -> None:
        """Twenty sessions at once, over TCP and a Unix socket, half of them pipelined, to the octet."""
        ports = [self.listens("tcp:0:interface=127.0.0.1"), self.listens(f"unix:{self.mktemp()}")]
        clients = [self.dials(self.address(ports[at % 2])) for at in range(20)]
        said = [LOGIN, b"STAT\r\n", b"RETR 1\r\n", b"NOOP\r\nUIDL\r\n", b"DELE 1\r\n", b"QUIT\r\n"]
        scripts = [said if at % 4 < 2 else [b"".join(said)] for at in range(20)]
        got = [bytearray() for _ in clients]

        def quiet() -> bool:
            came = False
            for client, octets in zip(clients, got, strict=True):
                client.setblocking(False)
                try:
                    data = client.recv(1 << 20)
                except BlockingIOError:
                    continue
                octets += data
                came = came or bool(data)
            return not came and not self.reactor._poller.poll(0)

        for step in range(len(said)):
            self.until(quiet)
            for client, script in zip(clients, scripts, strict=True):
                if step < len(script):
                    client.sendall(script[step])
        self.until(lambda: quiet() and len(self.watcher.ends) == 20)
        expected = GREETING + LOGGED_IN + b"+OK 1 120018\r\n" + RETRIEVED
        expected += b"+OK\r\n+OK unique-id listing follows\r\n1 one\r\n.\r\n"
        expected += b"+OK message 1 deleted\r\n+OK bye, 1 message removed\r\n"
        for octets in got:
            self.assertEqual(bytes(octets), expected)
        self.assertEqual([end.why for end in self.watcher.ends], ["quit"] * 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tls(self) -> None:
        """TLS from the first octet on, and STLS, for several clients at once."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        authority = Authority(folder)
        pair = authority.issue("localhost").write(folder / "localhost.pem")
        self.factory.tls_context = ServerTLS(lambda: [CertificateFiles(str(pair), str(pair))])
        plain = self.listens("tcp:0:interface=127.0.0.1").getHost().port
        secret = self.listens(f"ssl:0:interface=127.0.0.1:privateKey={pair}:certKey={pair}").getHost().port
        got: list[bytes] = []

        def session(at_once: bool, settings: ssl.SSLContext) -> None:
            with Wire(secret if at_once else plain) as wire:
                if not at_once:
                    wire.line()
                    wire.ask(b"STLS")
                wire.starttls(settings)
                if at_once:
                    wire.line()
                said = [wire.ask(line) + b"\r\n" for line in LOGIN.splitlines()]
                wire.send(b"RETR 1\r\nQUIT\r\n")
                got.append(b"".join(said) + wire.rest())

        threads = [Thread(target=session, args=(bool(at % 2), trusting(authority))) for at in range(6)]
        for thread in threads:
            thread.start()
        self.until(lambda: not any(thread.is_alive() for thread in threads))
        self.assertEqual(got, [LOGGED_IN + RETRIEVED + BYE] * 6)

    def test_connecting_while_others_talk(self) -> None:
        """Who connects while another is ready is greeted in the same turn, and neither is lost."""
        port = self.listens("tcp:0:interface=127.0.0.1")
        first = self.dials(self.address(port))
        self.wait(port)
        self.reactor.doIteration(0)
        self.assertEqual(first.recv(100), GREETING)
        first.sendall(b"USER ann\r\n")
        second = self.dials(self.address(port))
        self.wait(port, *self.factory._connections)
        self.reactor.doIteration(0)
        self.assertEqual((first.recv(100), second.recv(100)), (b"+OK send PASS\r\n", GREETING))

    def test_limits_make_room(self) -> None:
        """Strangers who have to make room, while ready, for those who come in the same turn end in order."""
        self.factory.limiter = ConnectionLimiter(
            ConnectionLimits(unauthenticated=2), choose=lambda visits: visits[0]
        )
        port = self.listens("tcp:0:interface=127.0.0.1")
        strangers = [self.dials(self.address(port)) for _ in range(2)]
        self.wait(port)
        self.reactor.doIteration(0)
        for client in strangers:
            self.assertEqual(client.recv(100), GREETING)
            client.sendall(b"CAPA\r\n")
        newcomers = [self.dials(self.address(port)) for _ in range(2)]
        self.wait(port, *self.factory._connections)
        self.reactor.doIteration(0)
        for client in strangers:
            said = b"".join(iter(lambda client=client: client.recv(65536), b""))
            self.assertIn(said[:3], (b"", b"+OK"))
        for client in newcomers:
            client.sendall(b"QUIT\r\n")
            self.assertEqual(client.recv(len(GREETING)), GREETING)
        self.wait(*self.factory._connections)
        self.reactor.doIteration(0)
        self.assertEqual([client.recv(100) for client in newcomers], [BYE, BYE])
        self.assertEqual(sorted(end.why for end in self.watcher.ends), ["limit"] * 2 + ["quit"] * 2)


class FakeBatcher:
    """A turn that ends when the test says so."""

    def __init__(self, crowded: bool) -> None:
        self.calls: list[Callable[[], object]] = []
        self.crowded = crowded

    def postpone(self, call: Callable[[], object]) -> bool:
        if self.crowded:
            self.calls.append(call)
        return self.crowded

    def end(self) -> None:
        """Do what was postponed, and begin the next turn."""
        crowded, self.crowded = self.crowded, False
        calls, self.calls = self.calls, []
        for call in calls:
            call()
        self.crowded = crowded


@implementer(ITLSTransport)
class SecretTransport(WriteCounter):
    """A transport that begins TLS when told, and knows what was written before."""

    in_clear_text: bytes | None = None

    def startTLS(self, context: object) -> None:
        self.in_clear_text = b"".join(self.writes)


MAIL = {b"one": b"Subject: hello\r\n\r\nbody\r\n"}
LONG = {b"one": [b"A: b\n\n", *[b"y" * 1022 + b"\n"] * 900]}
FULL = {"limiter": ConnectionLimiter(ConnectionLimits(connections=0))}


class ProtocolTests(SynchronousTestCase):
    """What a protocol does with its turn."""

    def setUp(self) -> None:
        self.start(MAIL)

    def start(self, messages: Any, crowded: bool = True) -> None:
        """Everything anew, with these messages."""
        self.batcher, self.clock, self.watcher = FakeBatcher(crowded), Clock(), Watcher()
        self.sending = ImmediateSending(self.batcher.postpone)
        self.mailbox = ScriptedMailbox(messages)
        self.authenticator = FakeAuthenticator(self.mailbox)

    def after(self, *said: bytes, **arguments: Any) -> tuple[Any, WriteCounter, POP3Factory]:
        """One connection that heard this, each in a turn of its own; then the next turn begins."""
        found = connect(
            self.authenticator,
            self.clock,
            sending=self.sending,
            watcher=self.watcher,
            **arguments,
        )
        for data in said:
            self.batcher.end()
            found[0].dataReceived(data)
        return found

    def slow(self, said: bytes) -> FakeSocket:
        """A client that decides what it reads; after login it says this in the next turn."""
        factory = POP3Factory(
            self.clock,
            self.authenticator,
            sending=self.sending,
            observers=Observers(self.watcher),
        )
        client = FakeSocket(self.clock)
        client.connect(factory.buildProtocol(LOOPBACK))
        client.client_sends(LOGIN)
        self.batcher.end()
        client.client_reads_all()
        client.got.clear()
        client.client_sends(said)
        return client

    def assert_over(self, why: str) -> None:
        """The connection ended, which was told once; it is not waited for."""
        self.assertEqual([end.why for end in self.watcher.ends], [why])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def conversation(self, said: list[bytes], messages: Any, arguments: Any, crowded: bool) -> Any:
        """All that comes of saying this, each in a turn of its own: what is written and what is done."""
        self.start(messages, crowded)
        protocol, transport, _ = self.after(**arguments)
        for data in (b"", *said):
            before = len(transport.writes)
            protocol.dataReceived(data)
            if crowded and messages is MAIL:
                self.assertEqual(
                    (len(transport.writes), transport.disconnecting), (before, False), (said, data)
                )
                self.batcher.end()
                self.assertLessEqual(len(transport.writes), before + 1)
        self.batcher.end()
        got = b"".join(transport.writes), transport.disconnecting, self.mailbox.removed, self.mailbox.released
        protocol.connectionLost(Failure(ConnectionLost()))
        return *got, self.watcher.turned, [end.why for end in self.watcher.ends], self.clock.getDelayedCalls()

    def test_same_as_without(self) -> None:
        """The answers of a turn leave at its end, in one write; it is the same octets as without turns."""
        for said, messages, arguments, why in (
            ([LOGIN, b"RETR 1\r\n", b"QUIT\r\n"], MAIL, {}, "quit"),
            ([LOGIN + b"STAT\r\nWHAT\r\nDELE 1\r\nQUIT\r\nSTAT\r\n"], MAIL, {}, "quit"),
            ([LOGIN, b"ST", b"AT\r\nST", b"AT\r\n"], MAIL, {}, "dropped"),
            ([b"WHAT\r\n" * 100], MAIL, {}, "limit"),
            ([], MAIL, FULL, "rejected"),
            # What is larger than replies are gathered leaves before.
            ([LOGIN + b"STAT\r\nRETR 1\r\nNOOP\r\nQUIT\r\n"], LONG, {}, "quit"),
        ):
            with_turns, without = (self.conversation(said, messages, arguments, one) for one in (True, False))
            self.assertEqual(with_turns, without, said)
            self.assertEqual(with_turns[-2:], ([why], []))

    def test_done_at_once(self) -> None:
        """What is asked is done and the maildrop free before the goodbye leaves; what comes then is lost."""
        protocol, transport, _ = self.after(LOGIN, b"DELE 1\r\nQUIT\r\n")
        self.assertEqual((self.mailbox.removed, self.mailbox.released), ([[b"one"]], 1))
        protocol.dataReceived(b"STAT\r\n")
        self.batcher.end()
        self.assertEqual(transport.writes[-1], b"+OK message 1 deleted\r\n+OK bye, 1 message removed\r\n")

    def test_gone_before(self) -> None:
        """Who goes, or has to make room, before its answer leaves gets none, and nothing is left of it."""
        for said, arguments, removed, why in (
            ((), {}, [], "dropped"),
            ((), FULL, [], "rejected"),
            ((LOGIN, b"DELE 1\r\nSTAT\r\n"), {}, [], "dropped"),
            ((LOGIN, b"DELE 1\r\nQUIT\r\n"), {}, [[b"one"]], "quit"),
        ):
            for hung_up in (False, True):
                self.start(MAIL)
                protocol, transport, factory = self.after(*said, **arguments)
                before = len(transport.writes)
                if hung_up:
                    protocol.hang_up("limit")
                else:
                    protocol.connectionLost(Failure(ConnectionLost()))
                self.batcher.end()
                self.assertEqual(self.mailbox.removed, removed)
                self.assertEqual(self.mailbox.released, bool(said))
                if hung_up:
                    protocol.connectionLost(Failure(ConnectionLost()))
                else:
                    self.assertFalse(transport.disconnecting)
                if not hung_up or why == "dropped":
                    self.assertEqual(len(transport.writes), before)
                self.assertEqual(factory.connections, 0)
                self.assert_over("limit" if hung_up and why == "dropped" else why)

    def test_hung_up_within_a_body(self) -> None:
        """Who has to make room in the middle of a message gets no final dot; the body is closed."""
        self.start({b"one": [b"x" * 70_000 + b"\n"] * 9})
        client = self.slow(b"RETR 1\r\nSTAT\r\n")
        client.protocol.hang_up("limit")
        self.batcher.end()
        client.client_reads_all()
        self.clock.advance(0)
        self.assertNotIn(b"\r\n.\r\n", client.got)
        self.assertEqual((self.mailbox.bodies[0].closed, self.mailbox.released), ([None], 1))
        self.assert_over("limit")

    def test_slow_client(self) -> None:
        """Who reads a large message in several turns gets all answers in order, and little waits for it."""
        self.start(LONG)
        client = self.slow(b"STAT\r\nRETR 1\r\nSTAT\r\nQUIT\r\n")
        got = bytearray()
        while client.connected:
            self.batcher.end()
            got += client.client_reads(50_000)
            self.clock.advance(0)
        first, _, rest = bytes(got).partition(b"A: b\r\n\r\n" + (b"y" * 1022 + b"\r\n") * 900)
        self.assertTrue(first.startswith(b"+OK 1 100\r\n+OK"), first)
        self.assertEqual(rest, b".\r\n+OK 1 100\r\n" + BYE)
        self.assertLess(client.most_unsent, 3 * limits.GATHER)

    def test_bye_unread(self) -> None:
        """Who does not read the goodbye is cut; the time for it begins with the turn's end."""
        client = self.slow(b"QUIT\r\n")
        self.clock.advance(1)
        self.batcher.end()
        self.assertEqual(bytes(client.unsent), BYE)
        self.clock.advance(limits.LINGER - 0.5)
        self.assertTrue(client.connected)
        self.clock.pump([0.5, 0])
        self.assertFalse(client.connected)
        self.assert_over("quit")

    def test_hung_up_after_quit(self) -> None:
        """Who has said goodbye and has to make room before the turn's end ends once, as one who quit."""
        client = self.slow(b"DELE 1\r\nQUIT\r\n")
        client.protocol.hang_up("limit")
        self.batcher.end()
        self.clock.advance(0)
        self.assertFalse(client.connected)
        self.assertEqual((self.mailbox.removed, self.mailbox.released), ([[b"one"]], 1))
        self.assert_over("quit")

    def test_half_closed(self) -> None:
        """Who sends no more gets all answers at the turn's end, and then the end."""
        protocol, transport, _ = self.after(LOGIN, b"STAT\r\n")
        protocol.readConnectionLost()
        self.assertEqual((transport.disconnecting, self.mailbox.released), (False, 1))
        self.batcher.end()
        self.assertEqual((transport.writes[-1], transport.disconnecting), (b"+OK 1 24\r\n", True))

    def test_stls(self) -> None:
        """The answer to STLS, and what was answered before, leaves in clear text before TLS begins."""
        factory = POP3Factory(
            self.clock,
            self.authenticator,
            sending=self.sending,
            tls_context=object(),
        )
        protocol = factory.buildProtocol(LOOPBACK)
        transport = SecretTransport(peerAddress=LOOPBACK, lenient=True)
        protocol.makeConnection(transport)
        self.batcher.end()
        protocol.dataReceived(b"USER ann\r\nSTLS\r\nNOOP\r\n")
        clear = transport.in_clear_text
        assert clear is not None
        self.assertTrue(clear.startswith(GREETING + b"+OK send PASS\r\n+OK begin TLS"), clear)
        self.batcher.end()
        # What was pipelined behind it was thrown away.
        self.assertEqual(b"".join(transport.writes), clear)
        protocol.dataReceived(b"USER ann\r\n")
        self.assertEqual(b"".join(transport.writes), clear)
        self.batcher.end()
        self.assertEqual(b"".join(transport.writes), clear + b"+OK send PASS\r\n")

    def test_answers_that_come_later(self) -> None:
        """What was answered does not wait for an answer that comes later, nor that one for a turn."""
        self.authenticator.later = True
        _, transport, _ = self.after(LOGIN + b"STAT\r\n")
        self.assertEqual(transport.writes, [GREETING, b"+OK send PASS\r\n"])
        self.authenticator.let_in()
        answered = b"+OK send PASS\r\n+OK maildrop has 1 message (24 octets)\r\n+OK 1 24\r\n"
        self.assertEqual(b"".join(transport.writes), GREETING + answered)
        self.batcher.end()
        self.assertEqual(b"".join(transport.writes), GREETING + answered)
