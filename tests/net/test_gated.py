"""A gate holds, changes and drops what is said; without one nothing is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy import POP3Factory
from pop3toy.errors import StoreTrouble
from pop3toy.events import LineReceived, Observers, ReplySent
from pop3toy.interfaces import IGate, MaybeDeferred, SessionRecord, Stream
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.smtp.factory import smtp_factory
from pop3toy.stores.memory import MemoryStore

from ..pop3_world import FakeAuthenticator, FakeSocket, ScriptedMailbox, Watcher

MESSAGE = b"Subject: one\n\nHello\n"
WHOLE = b"+OK 23 octets\r\nSubject: one\r\n\r\nHello\r\n.\r\n"


@implementer(IGate)
class Gate:
    """Does with lines and replies what a test says."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str | None, bytes]] = []
        self.on_line: Callable[[bytes], MaybeDeferred[bytes | None]] = lambda line: line
        self.on_reply: Callable[[bytes, Any], Any] = lambda line, reply: reply

    def command(self, record: SessionRecord, line: bytes) -> MaybeDeferred[bytes | None]:
        self.seen.append((record.number, record.user, line))
        return self.on_line(line)

    def reply(
        self, record: SessionRecord, line: bytes, reply: bytes | Stream
    ) -> MaybeDeferred[bytes | Stream]:
        changed: MaybeDeferred[bytes | Stream] = self.on_reply(line, reply)
        return changed


class Pieces:
    """A stream of these pieces; an exception among them is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)
        self.closed = 0

    @property
    def done(self) -> bool:
        return not self._pieces

    def pull(self) -> bytes:
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1


class GateTests(SynchronousTestCase):
    """One client, somebody at the gate."""

    def setUp(self) -> None:
        self.gate = Gate()
        self.watcher = Watcher(LineReceived, ReplySent)
        self.mailbox = ScriptedMailbox({b"one": MESSAGE})
        self.clock = Clock()
        self.factory = POP3Factory(
            self.clock, FakeAuthenticator(self.mailbox), gate=self.gate, observers=Observers(self.watcher)
        )
        self.socket = FakeSocket(self.clock)

    def connect(self) -> bytes:
        self.socket.connect(self.factory.buildProtocol(None))
        return self.socket.client_reads_all()

    def say(self, line: bytes) -> bytes:
        self.socket.client_sends(line + b"\r\n")
        return self.socket.client_reads_all()

    def come_in(self) -> None:
        self.connect()
        self.say(b"USER ann")
        self.assertTrue(self.say(b"PASS pass").startswith(b"+OK"))

    def test_passes(self) -> None:
        """A gate that is open changes nothing, and sees lines as they came with whose they are."""
        self.assertTrue(self.connect().startswith(b"+OK pop3toy ready"))
        self.come_in_again()
        self.assertEqual(self.say(b"RETR 1"), WHOLE)
        self.assertEqual(self.say(b"DELE 1"), b"+OK message 1 deleted\r\n")
        self.assertTrue(self.say(b"QUIT").startswith(b"+OK bye"))
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual(self.gate.seen[1:3], [(1, None, b"PASS pass"), (1, "ann", b"RETR 1")])
        self.assertNotIn(b"pass", repr(self.watcher.events).encode())

    def come_in_again(self) -> None:
        self.say(b"USER ann")
        self.say(b"PASS pass")

    def test_dropped(self) -> None:
        """A line that is dropped is neither carried out nor answered; the next one is."""
        self.come_in()
        self.gate.on_line = lambda line: None if line == b"DELE 1" else line
        self.assertEqual(self.say(b"DELE 1"), b"")
        self.assertEqual(self.say(b"STAT"), b"+OK 1 23\r\n")

    def test_changed(self) -> None:
        """Another line is carried out in its place; who watches is told what the client said."""
        self.come_in()
        self.gate.on_line = lambda line: b"NOOP" if line == b"DELE 1" else line
        self.assertEqual(self.say(b"DELE 1"), b"+OK\r\n")
        self.assertEqual(self.say(b"STAT"), b"+OK 1 23\r\n")
        self.assertIn(b"DELE 1", [event.line for event in self.watcher.of(LineReceived)])

    def test_held(self) -> None:
        """While one is held the next ones wait, and come in order; in the end both are answered."""
        self.come_in()
        held: list[Deferred[bytes | None]] = []

        def hold(line: bytes) -> MaybeDeferred[bytes | None]:
            if line != b"NOOP":
                return line
            held.append(Deferred())
            return held[0]

        self.gate.on_line = hold
        self.assertEqual(self.say(b"NOOP\r\nSTAT"), b"")
        held[0].callback(b"NOOP")
        self.assertEqual(self.socket.client_reads_all(), b"+OK\r\n+OK 1 23\r\n")

    def test_client_goes_while_held(self) -> None:
        """Nothing is carried out for a client that has gone, and its maildrop is free."""
        self.come_in()
        held: Deferred[bytes | None] = Deferred()
        self.gate.on_line = lambda line: held
        self.say(b"DELE 1")
        self.socket.vanish()
        self.assertEqual(self.mailbox.released, 1)
        held.callback(b"QUIT")
        self.assertEqual(self.mailbox.removed, [])
        self.assertEqual(self.factory.connections, 0)

    def test_reply_changed(self) -> None:
        """A reply is changed; a long one in whose place comes a short one is closed."""
        self.come_in()
        replies: list[Any] = []

        def change(line: bytes, reply: Any) -> bytes:
            replies.append(reply)
            return b"-ERR no\r\n"

        self.gate.on_reply = change
        self.assertEqual(self.say(b"STAT"), b"-ERR no\r\n")
        self.assertEqual(self.say(b"LIST"), b"-ERR no\r\n")
        self.assertTrue(replies[1].done)

    def test_reply_late(self) -> None:
        """A reply is held back."""
        self.come_in()
        late: Deferred[bytes] = Deferred()
        self.gate.on_reply = lambda line, reply: late
        self.assertEqual(self.say(b"STAT"), b"")
        late.callback(b"+OK at last\r\n")
        self.assertEqual(self.socket.client_reads_all(), b"+OK at last\r\n")

    def test_cut(self) -> None:
        """A reply that breaks in the middle ends the connection there, without the final dot."""
        self.come_in()
        pieces = Pieces(b"+OK 22 octets\r\nSubj", StoreTrouble("broken"))
        self.gate.on_reply = lambda line, reply: pieces
        self.assertEqual(self.say(b"RETR 1"), b"")
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual(pieces.closed, 1)

    def test_closes_behind_a_stream(self) -> None:
        """QUIT's reply may come in pieces; the connection is closed behind it."""
        self.come_in()
        self.gate.on_reply = lambda line, reply: Pieces(b"+O", b"K\r\n")
        self.assertEqual(self.say(b"QUIT"), b"+OK\r\n")
        self.assertIsNotNone(self.socket.lost)

    def test_greeting(self) -> None:
        """The greeting goes through the gate as well."""
        self.gate.on_reply = lambda line, reply: b"+OK hello\r\n" if not line else reply
        self.assertEqual(self.connect(), b"+OK hello\r\n")

    def test_fails(self) -> None:
        """A gate that fails is logged, and is as if it were not there."""
        self.come_in()

        def fail(*what: object) -> Any:
            raise ZeroDivisionError

        self.gate.on_line = self.gate.on_reply = fail
        self.assertEqual(self.say(b"STAT"), b"+OK 1 23\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_nothing_in_its_place(self) -> None:
        """A reply may be dropped, and a message that was is not retrieved; nonsense changes nothing."""
        self.come_in()
        self.gate.on_reply = lambda line, reply: None if line == b"RETR 1" else reply
        self.assertEqual(self.say(b"RETR 1"), b"")
        self.assertEqual(self.say(b"STAT"), b"+OK 1 23\r\n")
        [connection] = self.factory.all_connections()
        self.assertEqual(connection.record.retrieved, 0)
        self.gate.on_reply = lambda line, reply: "text"
        self.assertEqual(self.say(b"STAT"), b"+OK 1 23\r\n")
        self.gate.on_line = lambda line: "text"  # type: ignore[assignment,return-value]
        self.assertEqual(self.say(b"STAT"), b"+OK 1 23\r\n")
        self.assertEqual(self.say(b"RETR 1"), WHOLE)
        self.assertEqual(connection.record.retrieved, 1)

    def test_behind_a_message(self) -> None:
        """What is said behind a message that came in goes through the gate: a lost acknowledgement."""
        store = MemoryStore({"ann": []})
        factory = smtp_factory(store, RecipientResolver({"ann": "ann"}.get), self.clock, gate=self.gate)
        self.socket.connect(factory.buildProtocol(None))
        self.socket.client_reads_all()
        for line in (b"EHLO me", b"MAIL FROM:<>", b"RCPT TO:<ann>", b"DATA"):
            said = self.say(line)
        self.assertTrue(said.startswith(b"354"), said)
        seen: list[bytes] = []

        def drop(line: bytes, reply: Any) -> Any:
            seen.append(line)
            return None if line == b"." else reply

        self.gate.on_reply = drop
        self.assertEqual(self.say(b"Subject: x\r\n\r\nx\r\n."), b"")
        self.assertEqual((len(store.messages("ann")), seen), (1, [b"."]))
        self.assertTrue(self.say(b"QUIT").startswith(b"221"))

    def test_server_ends_it(self) -> None:
        """Who is held can be sent away."""
        self.come_in()
        self.gate.on_line = lambda line: Deferred()
        self.say(b"STAT")
        [connection] = self.factory.all_connections()
        connection.hang_up("limit")
        self.socket.client_reads_all()
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual(self.mailbox.released, 1)
