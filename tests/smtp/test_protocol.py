"""A session on a connection: whole conversations, and what becomes of mail when one end goes away."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits as root_limits
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.events import Connected, Delivered, Ended, InputDiscarded, Observers, Refused
from pop3toy.smtp import limits
from pop3toy.smtp.factory import lmtp_factory, smtp_factory, submission_factory

from ..pop3_world import FakeSocket, Watcher
from ..smtp_world import Accounts, Client, Slow, TLSTransport, world

LOCAL = IPv4Address("TCP", "127.0.0.1", 4711)
ENVELOPE = ("EHLO me", "MAIL FROM:<eve@elsewhere.example>", "RCPT TO:<ann@example.org>")
TWO_MESSAGES = "".join(
    f"{line}\r\n"
    for line in (
        *ENVELOPE, "DATA", "Subject: one", "", "..", ".", *ENVELOPE[1:], "DATA", "Subject: two", ".", "QUIT",
    )
).encode()  # fmt: skip


class ScriptTests(SynchronousTestCase):
    """Conversations as they are written down."""

    def test_submission(self) -> None:
        """A wrong password, a right one, another's name, and a message."""
        factory, store, _ = world(submission_factory, Accounts())
        wrong, right = (b64encode(f"\0ann\0{word}".encode()).decode() for word in ("no", "nna"))
        client = Client(factory, LOCAL)
        client.say("EHLO me")
        client.converse(
            f"""
            C: MAIL FROM:<ann@example.org>
            S: 530 5.7.0 AUTH comes first
            C: AUTH PLAIN {wrong}
            S: 535 5.7.8 ...
            C: AUTH PLAIN
            S: 334 ...
            C: {right}
            S: 235 2.7.0 welcome
            C: AUTH PLAIN {right}
            S: 503 5.5.1 AUTH comes once
            C: MAIL FROM:<bob@example.org>
            S: 553 5.7.1 this address is not yours
            C: MAIL FROM:<ann@example.org>
            S: 250 2.1.0 sender ok
            C: AUTH PLAIN {right}
            S: 503 5.5.1 AUTH has no place within a message; RSET begins anew
            C: RCPT TO:<bob@example.org>
            S: 250 2.1.5 recipient ok
            C: DATA
            S: 354 ...
            C: .
            S: 250 2.0.0 delivered as ...
            """
        )
        self.assertEqual(len(store.messages("bob")), 1)


class VanishTests(SynchronousTestCase):
    """A client or a server that goes away."""

    def test_at_any_octet(self) -> None:
        """Wherever the client is cut off, the messages that it ended are there, once, and no other is."""
        ends = [end for end in range(len(TWO_MESSAGES)) if TWO_MESSAGES[:end].endswith(b"\r\n.\r\n")]
        self.assertEqual(len(ends), 2)
        for cut in range(len(TWO_MESSAGES) + 1):
            watcher = Watcher(Delivered, Ended)
            factory, store, clock = world(smtp_factory, observers=Observers(watcher))
            client = Client(factory)
            client.send(TWO_MESSAGES[:cut])
            client.leave()
            whole = sum(end <= cut for end in ends)
            self.assertEqual(len(store.messages("ann")), whole, cut)
            self.assertEqual(len(watcher.of(Delivered)), whole, cut)
            self.assertEqual(len(watcher.ends), 1)
            self.assertEqual((factory.connections, clock.getDelayedCalls()), (0, []))

    def test_half_closed_within_a_message(self) -> None:
        """A client that ends its side in the middle of a message has sent none."""
        factory, store, _ = world(smtp_factory)
        client = Client(factory)
        client.say(*ENVELOPE, "DATA", "Subject: half")
        IHalfCloseableProtocol(client.protocol).readConnectionLost()
        self.assertTrue(client.closed)
        self.assertEqual(store.messages("ann"), ())

    def test_evicted_while_delivering(self) -> None:
        """What is being made durable is acknowledged before the connection makes room."""
        slow = Slow()
        limiter = ConnectionLimiter(ConnectionLimits(connections=1))
        factory, _, _ = world(smtp_factory, delivery=slow, limiter=limiter)
        client = Client(factory)
        client.say(*ENVELOPE, "DATA", "a: b", ".")
        slow.go_on()
        self.assertEqual(Client(factory).greeting[0][:3], "220")
        self.assertEqual(client.answers(), [])
        slow.go_on()
        self.assertEqual([line[:9] for line in client.answers()], ["250 2.0.0", "421 4.7.0"])
        self.assertTrue(client.closed)

    def test_evicted_while_waiting(self) -> None:
        """One that only waits for an answer makes room at once, and its message comes to nothing."""
        slow = Slow()
        factory, _, _ = world(
            smtp_factory, delivery=slow, limiter=ConnectionLimiter(ConnectionLimits(connections=1))
        )
        client = Client(factory)
        client.say(*ENVELOPE, "DATA", "a: b", "", "x")
        self.assertEqual(Client(factory).greeting[0][:3], "220")
        self.assertEqual([line[:9] for line in client.answers()], ["421 4.7.0"])
        slow.go_on()
        self.assertEqual((client.answers(), slow.log[-1]), ([], "abort ann"))

    def test_stopping_server(self) -> None:
        """A message that is coming when the server stops may end; one whose sender is silent may not."""
        factory, store, clock = world(smtp_factory)
        talks, silent = Client(factory), Client(factory)
        for client in (talks, silent):
            client.say(*ENVELOPE, "DATA", "Subject: one")
        done = factory.drain()
        for _ in range(4):
            clock.advance(root_limits.SHUTDOWN_SILENCE / 2)
            self.assertEqual(talks.say("text"), [])
        self.assertEqual(silent.answers(), ["421 4.3.2 this server is shutting down"])
        self.assertEqual([line[:3] for line in talks.say(".")], ["250"])
        clock.advance(root_limits.SHUTDOWN_SILENCE)
        self.assertEqual([line[:3] for line in talks.answers()], ["421"])
        self.assertEqual(len(store.messages("ann")), 1)
        self.assertEqual(Client(factory).greeting[0][:3], "421")
        self.assertNoResult(done)

    def test_timeout_within_a_message(self) -> None:
        """A client that is silent in the middle of a message hears 421, and none is kept."""
        slow = Slow()
        factory, _, clock = world(smtp_factory, delivery=slow)
        client = Client(factory)
        client.say(*ENVELOPE, "DATA")
        client.send(b"a: b\r\n\r\nx")
        slow.go_on()
        clock.advance(limits.IDLE)
        self.assertEqual([line[:9] for line in client.answers()], ["421 4.4.2"])
        self.assertEqual(slow.log[-1], "abort ann")

    def test_far_too_large(self) -> None:
        """A message without an end is refused, and told of."""
        watcher = Watcher(Refused, Ended)
        factory, _, _ = world(smtp_factory, largest_message=100, observers=Observers(watcher))
        client = Client(factory)
        client.say(*ENVELOPE, "DATA")
        self.assertEqual(client.send(b"x" * 300)[0][:9], "421 4.3.4")
        client.leave()
        refused, ended = watcher.events
        self.assertEqual((refused.code, refused.sender), (421, "eve@elsewhere.example"))
        self.assertEqual(ended.why, "limit")


class SocketTests(SynchronousTestCase):
    """As a socket sees it."""

    def setUp(self) -> None:
        self.factory, self.store, clock = world(smtp_factory)
        self.clock: Clock = clock
        self.socket = FakeSocket(clock)
        protocol: Any = self.factory.buildProtocol(None)
        self.socket.connect(protocol)

    def test_who_does_not_read(self) -> None:
        """The replies of a client that does not read them do not pile up, and it is cut off in the end."""
        self.socket.bufferSize = 1000
        while self.socket.reading:
            self.socket.client_sends(b"HELP\r\n" * 20)
            self.clock.advance(0)
        self.assertLess(self.socket.most_unsent, 10_000)
        self.clock.pump([limits.IDLE] + [root_limits.LINGER] * 4)
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual(self.factory.connections, 0)

    def test_a_live_peer(self) -> None:
        """The kernel is told not to wait with small replies, and to ask now and then who is still there."""
        self.assertTrue(self.socket.no_delay)
        self.clock.advance(limits.IDLE - 1)
        self.assertTrue(self.socket.keep_alive)


class ObserverTests(SynchronousTestCase):
    """What observers are told, whatever is spoken."""

    def test_names(self) -> None:
        """Each port tells what it is."""
        for make, more, name in (
            (smtp_factory, (), "SMTP"), (submission_factory, (Accounts(),), "submission"),
            (lmtp_factory, (), "LMTP"),
        ):  # fmt: skip
            watcher = Watcher(Connected, Ended)
            factory, _, _ = world(make, *more, observers=Observers(watcher))
            Client(factory, LOCAL).leave()
            self.assertEqual([event.protocol for event in watcher.events], [name, name])

    def test_discarded(self) -> None:
        """What was pipelined behind STARTTLS is counted."""
        watcher = Watcher(InputDiscarded)
        factory, _, _ = world(smtp_factory, tls=object(), observers=Observers(watcher))
        TLSTransport(factory).client.say("EHLO me", "STARTTLS", "NOOP", "NOOP")
        self.assertEqual([event.octets for event in watcher.events], [12])

    def test_submission_needs_accounts(self) -> None:
        """A submission port without anybody to let in cannot be made."""
        self.assertRaises(TypeError, world, submission_factory)
