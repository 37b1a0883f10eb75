"""How a session over a store on a network ends: its lock is lost, giving it back takes a while."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy import POP3Factory, limits
from pop3toy.errors import StoreTrouble
from pop3toy.events import Observers
from pop3toy.interfaces import Channel, ILeasedMailbox, SessionRecord
from pop3toy.pop3.dispatch import handle
from pop3toy.pop3.replies import encode
from pop3toy.pop3.session import Session, State

from ..pop3_world import FakeAuthenticator, FakeSocket, ScriptedMailbox, Watcher

MESSAGE = b"A: b\r\n\r\n" + b"x" * 70 + b"\r\n"
LARGE = b"A: b\r\n\r\n" + (b"x" * 98 + b"\r\n") * 4000
IN = b"USER ann\r\nPASS pass\r\n"


@implementer(ILeasedMailbox)
class LeasedMailbox(ScriptedMailbox):
    """A mailbox whose lock the test loses, and which is given back when the test says so."""

    read_only = False

    def __init__(self, messages: dict[bytes, Any], *, later: bool = False) -> None:
        super().__init__(messages)
        self.lose: Callable[[str], object] | None = None
        self.releasing: Deferred[None] | None = Deferred() if later else None

    def when_lost(self, call: Callable[[str], object]) -> None:
        assert self.lose is None
        self.lose = call

    def release(self) -> Any:
        super().release()
        return self.releasing


class EndCase(SynchronousTestCase):
    """A client at a session with a leased mailbox."""

    def start(self, messages: dict[bytes, Any] | None = None, *, later: bool = False) -> None:
        self.clock = Clock()
        self.mailbox = LeasedMailbox(messages or {b"one": MESSAGE, b"two": LARGE}, later=later)
        self.watcher = Watcher()
        self.factory = POP3Factory(
            self.clock, FakeAuthenticator(self.mailbox), observers=Observers(self.watcher)
        )
        self.socket = FakeSocket(self.clock)
        self.socket.connect(self.factory.buildProtocol(None))  # type: ignore[arg-type]
        self.assertIn(b"+OK maildrop", self.says(IN))

    def says(self, data: bytes) -> bytes:
        """What comes back, to a client that reads all."""
        self.socket.client_sends(data)
        return self.socket.client_reads_all()

    def quit_waits(self) -> None:
        """The client has said QUIT, and not read yet what came before the answer."""
        self.socket.client_sends(b"RETR 2\r\nDELE 2\r\nQUIT\r\n")
        while b"deleted" not in self.socket.unsent:
            self.socket.client_reads(10_000)

    def lost(self, why: str = "somebody else has it") -> list[str]:
        """The lock is lost; what is logged."""
        assert self.mailbox.lose is not None
        with capturedLogs() as logs:
            self.mailbox.lose(why)
        return [formatEvent(event) or "" for event in logs]

    def ended(self, why: str) -> None:
        """The connection is gone, nothing was removed, and the mailbox was given back once."""
        self.clock.advance(0)
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual([why], [event.why for event in self.watcher.ends])
        self.assertEqual(([], 1), (self.mailbox.removed, self.mailbox.released))
        self.assertEqual([], self.clock.getDelayedCalls())


class LostLockTests(EndCase):
    """The session ends without UPDATE."""

    def test_between_commands(self) -> None:
        """The connection is closed without a word, and one line in the log says why."""
        self.start()
        self.assertIn(b"+OK", self.says(b"DELE 1\r\n"))
        self.assertEqual(["session 1, user 'ann': lock lost: somebody else has it"], self.lost())
        self.assertEqual(b"", self.socket.client_reads_all())
        self.ended("store")

    def test_in_a_message(self) -> None:
        """A message that is on its way is cut, and never looks whole."""
        self.start({b"one": MESSAGE, b"two": [LARGE, LARGE, LARGE]})
        self.socket.client_sends(b"DELE 1\r\nRETR 2\r\nQUIT\r\n")
        self.socket.client_reads(200)
        self.lost()
        self.socket.client_reads_all()
        self.assertIn(LARGE[:100], bytes(self.socket.got))
        self.assertFalse(self.socket.got.endswith(b".\r\n"))
        self.ended("store")
        self.assertEqual([None], self.mailbox.bodies[0].closed)

    def test_while_a_message_is_opened(self) -> None:
        """What comes too late is closed, and not sent."""
        opening: Deferred[Any] = Deferred()
        self.start({b"one": lambda: opening})
        self.socket.client_sends(b"RETR 1\r\n")
        self.lost()
        self.ended("store")
        body = self.mailbox.body([MESSAGE])
        opening.callback(body)
        self.assertEqual(([None], 0), (body.closed, body.pulls))

    def test_while_quit_waits(self) -> None:
        """QUIT behind a message that is not sent yet removes nothing, and hears of it."""
        self.start()
        self.quit_waits()
        self.lost()
        said = self.socket.client_reads_all()
        self.assertIn(b"+OK message 2 deleted\r\n-ERR [SYS/TEMP] the lock", said)
        self.ended("store")

    def test_in_update(self) -> None:
        """What is being removed is not stopped: the store knows best, and says what came of it."""
        self.start()
        self.mailbox.removal = removal = Deferred[None]()
        self.assertEqual(b"+OK message 1 deleted\r\n", self.says(b"DELE 1\r\nQUIT\r\n"))
        self.assertEqual([], self.lost())
        self.assertIsNone(self.socket.lost)
        with capturedLogs():
            removal.errback(StoreTrouble(detail="the lease is another's"))
        self.assertIn(b"-ERR [SYS/TEMP] some deleted messages not removed", self.socket.client_reads_all())
        self.assertEqual(["quit"], [event.why for event in self.watcher.ends])

    def test_afterwards(self) -> None:
        """Behind the end of the session it means nothing."""
        self.start()
        self.assertEqual(b"+OK bye\r\n", self.says(b"QUIT\r\n"))
        self.assertEqual([], self.lost())
        self.ended("quit")

    def test_without_a_connection(self) -> None:
        """Whatever comes before the connection is closed: nothing is removed."""
        for lines in ([b"DELE 1", b"QUIT"], [b"QUIT"]):
            mailbox = LeasedMailbox({b"one": MESSAGE})
            record = SessionRecord(7, Channel("127.0.0.1", local=True))
            session = Session(FakeAuthenticator(mailbox), record)
            for line in (b"USER ann", b"PASS pass"):
                handle(session, session.parse(line))
            for line in lines:
                if line == b"QUIT":
                    assert mailbox.lose is not None
                    mailbox.lose("it is gone")
                reply: Any = handle(session, session.parse(line))
            self.assertIn(b"-ERR [SYS/TEMP] the lock of", cast(bytes, encode(reply)))
            self.assertEqual(("store", State.CLOSED, []), (record.ended, session.state, mailbox.removed))

    def test_freed(self) -> None:
        """A mailbox that is kept by its store keeps no connection."""
        self.start()
        self.socket.vanish()
        connection = weakref.ref(self.socket.protocol)
        gc.disable()
        self.addCleanup(gc.enable)
        self.socket.protocol = None
        self.assertIsNone(connection())


class ReleaseTests(EndCase):
    """The end of a session waits until the mailbox is given back."""

    def gives_back(self) -> bytes:
        """The store has given the mailbox back; what the client hears."""
        assert self.mailbox.releasing is not None
        self.mailbox.releasing.callback(None)
        return self.socket.client_reads_all()

    def test_nothing_to_remove(self) -> None:
        """QUIT is answered when the client's next session finds the mailbox free."""
        self.start(later=True)
        self.assertEqual(b"", self.says(b"QUIT\r\nNOOP\r\n"))
        self.clock.advance(limits.RELEASE - 0.1)
        self.assertEqual([], self.lost(), "whose lock is given back has no lock to lose")
        self.assertEqual(b"", self.socket.client_reads_all())
        self.assertEqual(b"+OK bye\r\n", self.gives_back())
        self.ended("quit")

    def test_removed(self) -> None:
        """The same behind a removal."""
        self.start(later=True)
        self.assertEqual(b"+OK message 1 deleted\r\n", self.says(b"DELE 1\r\nQUIT\r\n"))
        self.assertEqual(([[b"one"]], 1), (self.mailbox.removed, self.mailbox.released))
        self.assertEqual(b"+OK bye, 1 message removed\r\n", self.gives_back())
        self.assertEqual(1, self.watcher.ends[0].removed)

    def test_not_removed(self) -> None:
        """The same where the removal has failed, at once or later."""
        for trouble in (StoreTrouble(), Deferred[None]()):
            self.start(later=True)
            self.mailbox.removal = trouble
            self.assertEqual(b"+OK message 1 deleted\r\n", self.says(b"DELE 1\r\nQUIT\r\n"))
            if isinstance(trouble, Deferred):
                trouble.errback(StoreTrouble())
            self.assertEqual(1, self.mailbox.released)
            self.assertEqual(b"", self.socket.client_reads_all())
            self.assertTrue(self.gives_back().startswith(b"-ERR [SYS/TEMP] some deleted messages"))

    def test_lost_lock(self) -> None:
        """The same without UPDATE."""
        self.start(later=True)
        self.quit_waits()
        self.lost()
        self.assertNotIn(b"-ERR", self.socket.client_reads_all())
        self.assertTrue(self.gives_back().startswith(b"-ERR [SYS/TEMP] the lock of this maildrop"))
        self.ended("store")

    def test_bounded(self) -> None:
        """After some seconds QUIT is answered all the same; the server knows of the rest."""
        self.start(later=True)
        self.assertEqual(b"", self.says(b"QUIT\r\n"))
        with capturedLogs() as logs:
            self.clock.advance(limits.RELEASE)
        self.assertIn("session 1, user 'ann': the maildrop is not free", formatEvent(logs[0]) or "")
        self.assertEqual(b"+OK bye\r\n", self.socket.client_reads_all())
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual(([], 1), (self.watcher.ends, self.factory.connections))
        self.gives_back()
        self.ended("quit")
        self.assertEqual(0, self.factory.connections)

    def test_client_leaves(self) -> None:
        """However a session ends: it lasts until the mailbox is given back, and a server that stops waits."""
        for line in (b"QUIT\r\n", b"DELE 1\r\n", b"x\r\n" * limits.BAD_COMMANDS):
            self.start(later=True)
            self.says(line)
            self.socket.vanish()
            self.assertEqual(([], 1, 1), (self.watcher.ends, self.factory.connections, self.mailbox.released))
            self.assertEqual([], self.clock.getDelayedCalls())
            drained = self.factory.drain()
            self.clock.advance(limits.SHUTDOWN_GRACE / 2)
            self.assertNoResult(drained)
            self.gives_back()
            self.assertEqual((1, 0), (len(self.watcher.ends), self.factory.connections))
            self.successResultOf(drained)

    def test_client_leaves_before_update(self) -> None:
        """A QUIT that waits when the client leaves is answered to nobody, and removes nothing."""
        self.start(later=True)
        self.quit_waits()
        self.socket.vanish()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.gives_back()
        self.ended("dropped")

    def test_server_stops(self) -> None:
        """A server that stops waits for a QUIT that is being answered; not for ever."""
        self.start(later=True)
        self.says(b"DELE 1\r\nQUIT\r\n")
        drained = self.factory.drain()
        self.clock.pump([limits.SHUTDOWN_SILENCE] * 5)
        self.assertNoResult(drained)
        self.assertEqual(b"+OK bye, 1 message removed\r\n", self.gives_back())
        self.successResultOf(drained)
        self.start(later=True)
        self.says(b"QUIT\r\n")
        drained = self.factory.drain()
        self.clock.pump([limits.SHUTDOWN_SILENCE] * int(limits.SHUTDOWN_GRACE / limits.SHUTDOWN_SILENCE + 2))
        self.successResultOf(drained)

    def test_given_back_with_a_mistake(self) -> None:
        """What fails there is logged, and no reason to tell the client that QUIT did not work."""
        self.start(later=True)
        self.says(b"QUIT\r\n")
        assert self.mailbox.releasing is not None
        self.mailbox.releasing.errback(ZeroDivisionError())
        self.assertEqual(b"+OK bye\r\n", self.socket.client_reads_all())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.ended("quit")
