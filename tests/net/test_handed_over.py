"""Mail is removed when it was handed over, and not before: every way in which a client can go away."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from itertools import product
from typing import Any, ClassVar

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.stdio import StandardIO
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import POP3Factory, limits
from pop3toy.events import Observers
from pop3toy.net.fast.immediate_write import ImmediateSending
from pop3toy.net.sending import Sending
from pop3toy.net.tls.contexts import ServerTLS
from pop3toy.net.tls.self_signed import self_signed
from pop3toy.run.recipients import recipients_of_all
from pop3toy.smtp.factory import smtp_factory
from pop3toy.stores.memory import MemoryStore

from ..pop3_world import FakeAuthenticator, FakeSocket, ScriptedMailbox, Watcher
from ..smtp_world import Slow
from ..tls_memory import SecurableSocket, TLSClient, TwistedsOwn

IMMEDIATE = ImmediateSending()
COMMANDS = [b"USER ann\r\n", b"PASS pass\r\n", b"RETR 1\r\n", b"DELE 1\r\n", b"QUIT\r\n"]
SMALL = b"A: b\r\n\r\n" + b"x" * 70 + b"\r\n"
LARGE = b"A: b\r\n\r\n" + (b"x" * 98 + b"\r\n") * 4000


def replies(message: bytes) -> list[bytes]:
    """What is said to the commands, one by one."""
    return [
        b"+OK send PASS\r\n",
        b"+OK maildrop has 1 message (%d octets)\r\n" % len(message),
        b"+OK %d octets\r\n%b.\r\n" % (len(message), message),
        b"+OK message 1 deleted\r\n",
        b"+OK bye, 1 message removed\r\n",
    ]


def octets_kept(connection: SSL.Connection) -> int:
    """Octets of TLS that have come and are not read."""
    pyopenssl: Any = SSL
    kept: int = pyopenssl._lib.BIO_get_mem_data(connection._into_ssl, pyopenssl._ffi.new("char **"))
    return kept


def close_quietly(descriptor: int) -> None:
    """Close what the server may have closed."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


class IdleReactor:
    """A reactor that does nothing by itself."""

    addReader = removeReader = addWriter = removeWriter = lambda self, one: None


class World:
    """A server with one message for one client."""

    def __init__(self, message: bytes, tls: Any = None, sending: Sending = IMMEDIATE) -> None:
        self.clock = Clock()
        # In pieces, as large messages come.
        pieces = [message[at : at + limits.CHUNK] for at in range(0, len(message), limits.CHUNK)]
        self.mailbox = ScriptedMailbox({b"one": message})
        self.mailbox._messages[b"one"] = lambda: self.mailbox.body(pieces)
        self.watcher = Watcher()
        self.authenticator = FakeAuthenticator(self.mailbox)
        self.factory = POP3Factory(
            self.clock,
            self.authenticator,
            observers=Observers(self.watcher),
            tls_context=tls,
            sending=sending,
        )

    @property
    def removed(self) -> bool:
        """Whether the message was removed."""
        assert self.mailbox.removed in ([], [[b"one"]])
        return bool(self.mailbox.removed)


class PlainTests(SynchronousTestCase):
    """Without TLS, on a transport whose client takes so many octets and no more."""

    def taken(
        self, message: bytes, count: int, *, one_by_one: bool = False, sending: Sending = IMMEDIATE
    ) -> World:
        """The client takes so many octets of what is said, and is gone."""
        world = World(message, sending=sending)
        socket = FakeSocket(world.clock)
        socket.connect(world.factory.buildProtocol(None))  # type: ignore[arg-type]
        commands = COMMANDS if one_by_one else [b"".join(COMMANDS)]
        left = count
        for command in commands:
            if not socket.reading:
                break
            socket.client_sends(command)
            world.clock.advance(0)
            while left and (piece := socket.client_reads(left)):
                left -= len(piece)
                world.clock.advance(0)
        socket.vanish()
        world.clock.advance(0)
        self.assertEqual(world.mailbox.released, 1)
        self.assertEqual(world.watcher.ends[0].why, "quit" if world.removed else "dropped")
        return world

    def test_every_octet(self) -> None:
        """Wherever the client vanishes, the message is removed if all up to QUIT was taken, and only then."""
        before = len(b"+OK pop3toy ready\r\n" + b"".join(replies(SMALL)[:-1]))
        for count in range(before + 30):
            for one_by_one, sending in product((False, True), (Sending(), IMMEDIATE)):
                removed = self.taken(SMALL, count, one_by_one=one_by_one, sending=sending).removed
                # Who sends one by one has not said QUIT before.
                self.assertEqual(removed, count >= before, (count, one_by_one, sending))

    def test_large(self) -> None:
        """The same with a message of several pieces, and far less in the transport than makes it pause."""
        before = len(b"+OK pop3toy ready\r\n" + b"".join(replies(LARGE)[:-1]))
        for count in (0, 100, 70_000, *range(before - 70_000, before + 40, 8_999), before - 1, before):
            self.assertEqual(self.taken(LARGE, count).removed, count >= before, count)

    def test_never_fetched(self) -> None:
        """A client that deletes what it did not fetch need not take anything."""
        world = World(SMALL)
        socket = FakeSocket(world.clock)
        socket.connect(world.factory.buildProtocol(None))  # type: ignore[arg-type]
        socket.client_sends(b"".join(COMMANDS[:2] + COMMANDS[3:]))
        self.assertTrue(world.removed)

    def test_top(self) -> None:
        """Who fetches with TOP, as fetchmail does, has fetched."""
        world = World(SMALL)
        socket = FakeSocket(world.clock)
        socket.connect(world.factory.buildProtocol(None))  # type: ignore[arg-type]
        socket.client_sends(b"".join([*COMMANDS[:2], b"TOP 1 99999999\r\n", *COMMANDS[3:]]))
        self.assertFalse(world.removed)
        socket.client_reads_all()
        self.assertTrue(world.removed)

    def waiting(self) -> tuple[World, FakeSocket]:
        """A client whose QUIT waits for its taking what was said."""
        world = World(SMALL)
        socket = FakeSocket(world.clock)
        socket.connect(world.factory.buildProtocol(None))  # type: ignore[arg-type]
        socket.client_sends(b"".join(COMMANDS))
        self.assertFalse(world.removed)
        return world, socket

    def test_timeout(self) -> None:
        """A client that never takes it is timed out, and nothing is removed."""
        world, socket = self.waiting()
        world.clock.pump([1] * (int(limits.IDLE) - 1))
        self.assertIsNone(socket.lost)
        world.clock.pump([1] * int(limits.LINGER + 2))
        self.assertIsNotNone(socket.lost)
        self.assertFalse(world.removed)
        self.assertEqual(world.watcher.ends[0].why, "timeout")

    def test_drain(self) -> None:
        """When the server stops, such a client is not waited for, and nothing is removed."""
        world, _ = self.waiting()
        done = world.factory.drain()
        world.clock.pump([0.25] * 8)
        self.successResultOf(done)
        self.assertFalse(world.removed)
        self.assertEqual(world.watcher.ends[0].why, "shutdown")

    def test_half_closed(self) -> None:
        """A client that sends no more and reads gets all, and its message is removed."""
        world, socket = self.waiting()
        socket.client_half_closes()
        self.assertFalse(world.removed)
        self.assertTrue(socket.client_reads_all().endswith(b"".join(replies(SMALL))))
        self.assertTrue(world.removed)

    def test_closed_by_others(self) -> None:
        """From when somebody else has closed the transport on nothing is carried out."""
        for abort in (False, True):
            world = World(SMALL)
            world.authenticator.later = True
            socket = FakeSocket(world.clock)
            socket.connect(world.factory.buildProtocol(None))  # type: ignore[arg-type]
            socket.client_sends(b"".join(COMMANDS))
            socket.abortConnection() if abort else socket.loseConnection()
            world.authenticator.let_in()
            socket.client_reads_all()
            world.clock.advance(1)
            self.assertFalse(world.removed)
            self.assertEqual(world.mailbox.bodies, [])
            self.assertIsNotNone(socket.lost)
            self.assertEqual(world.watcher.ends[0].why, "dropped")


class TLSCase(SynchronousTestCase):
    """Each test with TLS from the first octet on, by two versions, and with STLS."""

    WAYS: ClassVar = [(SSL.TLS1_2_VERSION, b""), (SSL.TLS1_3_VERSION, b""), (SSL.TLS1_3_VERSION, b"STLS\r\n")]
    _tls: ClassVar[ServerTLS | None] = None

    def setUp(self) -> None:
        if TLSCase._tls is None:
            files = self_signed(self.mktemp())
            TLSCase._tls = ServerTLS(lambda: [files])
        self.tls = TLSCase._tls

    def world(
        self, message: bytes, way: tuple[int, bytes], tls: Any = None, header: bytes = b""
    ) -> tuple[World, TLSClient]:
        """A client that has been greeted."""
        tls = tls if tls is not None else self.tls
        world = World(message, tls)
        client = TLSClient(world.factory, tls, world.clock, *way, header)
        client.got = b""
        return world, client


class VanishTests(TLSCase):
    """A client that takes so many octets of TLS and is gone."""

    def vanished(self, message: bytes, way: tuple[int, bytes], count: int) -> bool:
        """Whether the message is removed then, if all commands came at once."""
        world, client = self.world(message, way)
        client.sends(b"".join(COMMANDS))
        client.reads(count)
        client.socket.vanish()
        world.clock.advance(1)
        told = b"".join(replies(message)[:-1])
        if world.removed:
            self.assertTrue(client.got.startswith(told), count)
        self.assertEqual(world.mailbox.released, 1)
        self.assertEqual(world.watcher.ends[0].why, "quit" if world.removed else "dropped")
        return world.removed

    def test_every_octet(self) -> None:
        """Wherever it vanishes, the message is removed if all up to QUIT was taken, and only then."""
        for way in self.WAYS:
            outcomes = [self.vanished(SMALL, way, count) for count in range(1, 350)]
            self.assertEqual(outcomes, sorted(outcomes))
            self.assertEqual(set(outcomes), {False, True})

    def test_large(self) -> None:
        """The same with a message of many records."""
        for way in self.WAYS:
            size = len(LARGE)
            for count in (1, 100_000, *range(size - 70_000, size, 13_999)):
                self.assertFalse(self.vanished(LARGE, way, count), count)
            self.assertTrue(self.vanished(LARGE, way, 2 * size))


class CloseNotifyTests(TLSCase):
    """A client that says its last word, a ``close_notify``, and reads on (RFC 8446 section 6.1)."""

    def test_everything_answered(self) -> None:
        """All that was said before is answered in full, then comes the server's ``close_notify``."""
        for way in self.WAYS:
            for message in (SMALL, LARGE):
                for said in ([b"".join(COMMANDS)], COMMANDS):
                    for later in (False, True):
                        world, client = self.world(message, way)
                        world.authenticator.later = later
                        client.sends(*said, close=True)
                        if later:
                            client.reads()
                            world.authenticator.let_in()
                        client.reads()
                        self.assertEqual(client.got, b"".join(replies(message)))
                        self.assertTrue(client.closed)
                        self.assertTrue(world.removed)
                        self.assertIsNotNone(client.socket.lost)
                        self.assertEqual(world.watcher.ends[0].why, "quit")

    def test_every_octet(self) -> None:
        """After so many octets of what it says, each command that is whole is answered, and no other."""
        said = b"".join(COMMANDS)
        for way in self.WAYS:
            for count in range(len(said) + 1):
                world, client = self.world(SMALL, way)
                client.sends(said[:count], close=True)
                client.reads()
                whole = said[:count].count(b"\n")
                self.assertEqual(client.got, b"".join(replies(SMALL)[:whole]), count)
                self.assertTrue(client.closed)
                self.assertEqual(world.removed, count == len(said))
                self.assertIsNotNone(client.socket.lost)

    def test_behind_a_proxy(self) -> None:
        """The same through a proxy; and until all has left nothing is removed."""
        for way in self.WAYS:
            for message in (SMALL, LARGE):
                world, client = self.world(message, way, header=b"PROXY UNKNOWN\r\n")
                client.sends(b"".join(COMMANDS), close=True)
                self.assertFalse(world.removed)
                client.reads()
                self.assertEqual(client.got, b"".join(replies(message)))
                self.assertTrue(client.closed)
                self.assertTrue(world.removed)

    def test_nothing_behind_it(self) -> None:
        """What comes behind a ``close_notify`` is ignored and not kept."""
        world, client = self.world(SMALL, self.WAYS[1])
        world.authenticator.later = True
        client.sends(*COMMANDS[:2], close=True)
        protocol: Any = client.socket.protocol
        protocol.dataReceived(b"\x17\x03\x03" * 10_000)
        self.assertEqual(octets_kept(protocol.getHandle()), 0)
        self.assertFalse(client.socket.reading)
        world.authenticator.let_in()
        client.reads()
        self.assertEqual(client.got, b"".join(replies(SMALL)[:2]))
        self.assertTrue(client.closed)

    def test_half_read(self) -> None:
        """A client that then does not read costs nothing but its time, and nothing is removed."""
        world, client = self.world(LARGE, self.WAYS[1])
        client.sends(*COMMANDS, close=True)
        client.reads(1000)
        world.clock.pump([1] * int(limits.IDLE + limits.LINGER + 2))
        self.assertIsNotNone(client.socket.lost)
        self.assertFalse(world.removed)
        self.assertEqual(world.watcher.ends[0].why, "timeout")

    def test_after_quit(self) -> None:
        """A client that answers the server's ``close_notify`` with its own is let go."""
        world, client = self.world(SMALL, self.WAYS[1])
        client.sends(b"QUIT\r\n")
        client.reads()
        self.assertTrue(client.closed)
        self.assertIsNone(client.socket.lost)
        client.tls.shutdown()
        protocol: Any = client.socket.protocol
        protocol.dataReceived(client.output())
        client.reads()
        self.assertIsNotNone(client.socket.lost)
        self.assertEqual(world.clock.getDelayedCalls(), [])


class TwistedsTLSTests(TLSCase):
    """Over TLS that an embedding program brought, a ``close_notify`` ends both directions."""

    def test_nothing_carried_out(self) -> None:
        """Nothing is removed, nothing more is read, and the session has not ended with QUIT."""
        own = TwistedsOwn(self.tls)
        for way in self.WAYS:
            for message in (SMALL, LARGE):
                for said in ([b"".join(COMMANDS)], COMMANDS):
                    for later in (False, True):
                        world, client = self.world(message, way, own)
                        world.authenticator.later = later
                        client.sends(*said, close=True)
                        if later:
                            client.reads()
                            world.authenticator.let_in()
                        client.reads()
                        world.clock.pump([1] * int(limits.LINGER + 1))
                        self.assertFalse(world.removed)
                        self.assertNotIn(b"bye", client.got)
                        self.assertEqual(world.mailbox.released, 1)
                        self.assertIsNotNone(client.socket.lost)
                        self.assertEqual(world.watcher.ends[0].why, "dropped")
                        # Before the close_notify was seen; behind it nothing is read any more.
                        self.assertLessEqual(sum(body.pulls for body in world.mailbox.bodies), 1)

    def test_quit_in_order(self) -> None:
        """Without a ``close_notify`` all is as ever."""
        for way in self.WAYS:
            world, client = self.world(LARGE, way, TwistedsOwn(self.tls))
            client.sends(b"".join(COMMANDS))
            client.reads()
            self.assertEqual(client.got, b"".join(replies(LARGE)))
            self.assertTrue(world.removed)


class UpdateTests(TLSCase):
    """What QUIT has begun."""

    def test_goes_on(self) -> None:
        """A removal that was begun is finished, whatever the client does; the mailbox is free then."""
        world, client = self.world(SMALL, self.WAYS[1])
        world.mailbox.removal = removal = Deferred[None]()
        client.sends(b"".join(COMMANDS))
        client.reads()
        self.assertTrue(world.removed)
        client.socket.vanish()
        self.assertEqual(world.mailbox.released, 0)
        removal.callback(None)
        self.assertEqual(world.mailbox.released, 1)


class StandardIOTests(SynchronousTestCase):
    """On standard input and output, as inetd starts a server: two pipes, and no abortConnection."""

    def setUp(self) -> None:
        self.world = World(LARGE)
        stdin, self.to_server = os.pipe()
        self.from_server, stdout = os.pipe()
        self.reactor = IdleReactor()
        self.protocol: Any = self.world.factory.buildProtocol(None)
        self.transport: Any = StandardIO(self.protocol, stdin, stdout, reactor=self.reactor)  # type: ignore[arg-type, call-arg]
        for descriptor in (self.to_server, self.from_server):
            self.addCleanup(os.close, descriptor)
        for descriptor in (stdin, stdout):
            self.addCleanup(close_quietly, descriptor)

    def say(self, data: bytes) -> None:
        """The client's octets arrive."""
        os.write(self.to_server, data)
        self.transport._reader.doRead()

    def test_drain(self) -> None:
        """A client that does not read is let go when the server stops."""
        self.say(b"".join(COMMANDS))
        done = self.world.factory.drain()
        self.world.clock.pump([0.25] * 8)
        self.successResultOf(done)
        self.assertFalse(self.world.removed)
        self.assertEqual(self.world.watcher.ends[0].why, "shutdown")

    def test_timeout(self) -> None:
        """A client that does not read is let go in the end."""
        self.say(b"".join(COMMANDS))
        self.world.clock.pump([1] * int(limits.IDLE + limits.LINGER + 2))
        self.assertEqual(self.world.factory.connections, 0)
        self.assertEqual(self.world.watcher.ends[0].why, "timeout")

    def test_reads_no_more(self) -> None:
        """When the pipe to the client is closed, nothing more is carried out, though commands have come."""
        self.world.authenticator.later = True
        self.say(b"".join(COMMANDS))
        self.transport._writer.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.world.factory.connections, 0)
        self.world.authenticator.let_in()
        self.assertFalse(self.world.removed)
        self.assertEqual(self.world.watcher.ends[0].why, "dropped")

    def test_what_waits_in_the_pipe(self) -> None:
        """A message that is not in the pipe to its end is not removed, however small it is."""
        message = SMALL[:-2] + (b"y" * 98 + b"\r\n") * 300
        self.world.mailbox._messages[b"one"] = lambda: self.world.mailbox.body([message])
        self.say(b"".join(COMMANDS))
        self.assertFalse(self.world.removed)
        self.transport._writer.doWrite()
        self.assertTrue(self.world.removed)
        self.assertIn(b"x" * 70, os.read(self.from_server, 1 << 16))

    def test_no_stls(self) -> None:
        """TLS cannot be begun there, so it is not offered."""
        world = World(SMALL, tls=object())
        protocol: Any = world.factory.buildProtocol(None)
        transport: Any = StandardIO(protocol, os.dup(0), os.dup(1), reactor=self.reactor)  # type: ignore[arg-type, call-arg]
        self.assertFalse(protocol.session.can_start_tls)
        transport.connectionLost(Failure(ConnectionLost()))

    def test_smtp(self) -> None:
        """By SMTP, a client that does not read its replies is let go as well, and one that cannot."""
        for lost in (False, True):
            factory = smtp_factory(MemoryStore({}), recipients_of_all(["ann"]), self.world.clock)
            ends = [os.pipe(), os.pipe()]
            protocol: Any = factory.buildProtocol(None)
            transport: Any = StandardIO(protocol, ends[0][0], ends[1][1], reactor=self.reactor)  # type: ignore[arg-type, call-arg]
            os.write(ends[0][1], b"NOOP\r\n" * 1000)
            transport._reader.doRead()
            if lost:
                transport._writer.connectionLost(Failure(ConnectionLost()))
            done = factory.drain()
            self.world.clock.pump([1] * 40)
            self.successResultOf(done)
            os.close(ends[0][1])
            os.close(ends[1][0])


class SMTPTests(TLSCase):
    """What SMTP does when TLS ends before its replies are said."""

    def text(self, ident: int) -> bytes:
        """One message and its commands."""
        return (
            b"MAIL FROM:<a@example.org>\r\nRCPT TO:<ann@localhost>\r\nDATA\r\nSubject: %d\r\n\r\nx\r\n.\r\n"
            % ident
        )

    def served(self, tls: Any, way: tuple[int, bytes]) -> tuple[Slow, Clock, TLSClient]:
        """A client behind EHLO, and a delivery that takes its time."""
        slow, clock = Slow(), Clock()
        factory = smtp_factory(slow, recipients_of_all(["ann"]), clock, tls=tls)
        command = b"EHLO x\r\nSTARTTLS\r\n" if way[1] else b""
        client = TLSClient(factory, tls, clock, way[0], command)
        client.sends(b"EHLO x\r\n")
        client.reads()
        client.got = b""
        return slow, clock, client

    def test_everything_answered(self) -> None:
        """A client that ends its side behind two messages hears of both."""
        for way in self.WAYS:
            slow, _, client = self.served(self.tls, way)
            client.sends(self.text(1), self.text(2) + b"QUIT\r\n", close=True)
            client.reads()
            while slow.waiting:
                slow.go_on(b"1")
                client.reads()
            codes = [line[:3] for line in client.got.splitlines()]
            self.assertEqual(codes, [b"250", b"250", b"354", b"250"] * 2 + [b"221"])
            self.assertTrue(client.closed)
            self.assertIsNotNone(client.socket.lost)

    def test_nothing_carried_out(self) -> None:
        """Where the end of one direction is the end of both, nothing is taken that cannot be acknowledged."""
        for way in self.WAYS:
            slow, clock, client = self.served(TwistedsOwn(self.tls), way)
            client.sends(self.text(1), self.text(2) + b"QUIT\r\n", close=True)
            while slow.waiting:
                slow.go_on(b"1")
            self.assertEqual(slow.begun, [("ann",)])
            client.reads()
            clock.advance(60)
            self.assertIsNotNone(client.socket.lost)


class FreedTests(TLSCase):
    """A connection that is over leaves nothing to the garbage collector, however it ended."""

    def setUp(self) -> None:
        super().setUp()
        if gc.isenabled():
            self.addCleanup(gc.enable)

    def ended(self, factory: Any, clock: Clock, how: str, command: bytes) -> list[weakref.ref[Any]]:
        """What belonged to a connection that ended in this way."""
        bad = how.startswith("no TLS")
        if bad and not command:
            socket = SecurableSocket(clock)
            wrapped = TLSMemoryBIOFactory(self.tls, False, factory, clock)  # type: ignore[arg-type]
            socket.connect(wrapped.buildProtocol(None))  # type: ignore[arg-type]
        elif bad or how == "clear text":
            socket = SecurableSocket(clock)
            socket.connect(factory.buildProtocol(None))
            socket.client_reads_all()
            if bad:
                socket.client_sends(command)
                socket.client_reads_all()
        else:
            client = TLSClient(factory, self.tls, clock, command=command)
            socket = client.socket
            if how == "QUIT":
                client.sends(b"QUIT\r\n", close=True)
                client.reads()
        tops: list[Any] = [socket.protocol]
        while (inner := getattr(tops[-1], "wrappedProtocol", None)) is not None:
            tops.append(inner)
        if bad:
            socket.client_sends(b"GET / HTTP/1.0\r\n\r\n")
            socket.client_reads_all()
        found = [weakref.ref(one) for one in (socket, *tops)]
        socket.vanish()
        clock.advance(0)
        # As Twisted's transports do.
        socket.protocol = socket.lost = None
        return found

    def test_freed_at_once(self) -> None:
        """Broken handshakes, connections cut off within TLS, and those that end in order."""
        clock = Clock()
        pop3 = POP3Factory(clock, FakeAuthenticator(), tls_context=self.tls, sending=IMMEDIATE)
        smtp = smtp_factory(Slow(), recipients_of_all(["ann"]), clock, tls=self.tls, sending=IMMEDIATE)
        for factory, command in ((pop3, b"STLS\r\n"), (smtp, b"EHLO x\r\nSTARTTLS\r\n")):
            for how in ("no TLS", "cut off", "QUIT", "clear text"):
                for begin in (b"", command):
                    gc.disable()
                    left = [one() for one in self.ended(factory, clock, how, begin)]
                    gc.enable()
                    self.assertEqual(set(left), {None}, (factory, how, begin))
