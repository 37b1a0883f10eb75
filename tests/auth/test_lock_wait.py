"""Waiting for a maildrop that another session has open: in turn, for a bounded time, and over processes."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock, deferLater
from twisted.mail.pop3 import IMailbox as ITwistedMailbox
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy import MailboxRealm, POP3Factory, PortalAuthenticator, limits
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.throttle.counts import Counts
from pop3toy.auth.throttle.lock_queue import INTERVAL, LockQueue
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.errors import InUse, LoginDelay, Refusal, StoreTrouble
from pop3toy.events import Observers
from pop3toy.interfaces import Login, SessionRecord
from pop3toy.stores.memory import MemoryStore

from ..auth_world import FakeStore, say, session
from ..corpus import awkward_messages, fill_maildir
from ..pop3_world import FakeSocket, Watcher
from ..realserver import RealServer, maildir_options, wait_until
from ..strictclient import Refused, StrictClient, logged_in

LOGIN = b"USER ann\r\nPASS secret\r\n"
IN_USE = b"-ERR [IN-USE] maildrop is locked by another session\r\n"
WELCOME = b"+OK maildrop has 1 message (30 octets)\r\n"


class Lock:
    """What is opened: one at a time."""

    def __init__(self) -> None:
        self.held = False
        self.tries = 0
        self.order: list[str] = []

    def taker(self, name: str) -> Callable[[], str]:
        """An attempt of somebody's."""

        def attempt() -> str:
            self.tries += 1
            if self.held:
                raise InUse
            self.held = True
            self.order.append(name)
            return name

        return attempt


class QueueCase(SynchronousTestCase):
    """Queues of some processes, and a lock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lock = Lock()
        self.counts = Counts()

    def queue(
        self, seconds: float = 5, counts: Counts | None = None, most: int = 256, *, alone: bool = True
    ) -> LockQueue[Any]:
        """A queue of one process."""
        counts = counts or self.counts
        return LockQueue(self.clock, seconds, 10, most, counts.waiting, counts.ending, alone=alone)

    def waits(
        self, queue: LockQueue[Any], name: str = "x", record: SessionRecord | None = None
    ) -> Deferred[str]:
        """A login that has to wait."""
        opening = queue.open("ann", self.lock.taker(name), record or session())
        assert isinstance(opening, Deferred)
        self.assertNoResult(opening)
        return opening

    def free(self, *queues: LockQueue[Any]) -> None:
        """The session ends; the queue of its process, if there is one here, is told."""
        self.lock.held = False
        for queue in queues:
            queue.released("ann")
        self.clock.advance(0)


class QueueTests(QueueCase):
    """One process."""

    def tearDown(self) -> None:
        self.assertEqual((len(self.counts.waiting), len(self.counts.ending)), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_free(self) -> None:
        """What is not locked is opened at once, without a Deferred."""
        self.assertEqual(self.queue().open("ann", self.lock.taker("x"), session()), "x")

    def test_in_turn(self) -> None:
        """Whoever came first is the first, each as soon as the one before has ended."""
        queue = self.queue()
        self.lock.held = True
        records = [session() for _ in "abcd"]
        waiting = [self.waits(queue, name, record) for name, record in zip("abcd", records, strict=True)]
        for at in range(4):
            self.free(queue)
            self.assertEqual(self.lock.order, list("abcd"[: at + 1]))
            self.assertEqual(self.successResultOf(waiting[at]), "abcd"[at])
            self.assertIsNone(records[at].when_client_leaves, "there is nothing to give up any more")
            self.clock.pump([INTERVAL] * 3)

    def test_nobody_tells(self) -> None:
        """A lock that another program gives back is found soon, by who came first."""
        queue = self.queue()
        self.lock.held = True
        first = self.waits(queue, "first")
        self.clock.advance(1)
        self.lock.held = False
        second = self.waits(queue, "second")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.successResultOf(first), "first")
        self.free(queue)
        self.assertEqual(self.successResultOf(second), "second")

    def test_few_tries(self) -> None:
        """However many wait for one user, one of them tries."""
        queue = self.queue()
        self.lock.held = True
        waiting = [self.waits(queue) for _ in range(10)]
        before = self.lock.tries
        self.clock.pump([INTERVAL] * 10)
        self.assertEqual(self.lock.tries - before, 10)
        self.clock.pump([INTERVAL] * 100)
        for one in waiting:
            self.failureResultOf(one, InUse)

    def test_time_is_over(self) -> None:
        """Each is refused after its own five seconds, with what the store said."""
        queue = self.queue()

        def attempt() -> None:
            raise InUse(f"locked by session {self.clock.seconds():.0f}")

        self.lock.held = True
        first = queue.open("ann", attempt, session())
        self.clock.pump([INTERVAL] * 20)
        second = self.waits(queue)
        self.clock.pump([INTERVAL] * 79)
        self.assertNoResult(first)
        self.clock.pump([INTERVAL] * 2)
        self.assertEqual(self.failureResultOf(first, InUse).value.text, "locked by session 5")
        self.clock.pump([INTERVAL] * 18)
        self.assertNoResult(second)
        self.clock.pump([INTERVAL] * 2)
        self.failureResultOf(second, InUse)

    def test_not_waited_for(self) -> None:
        """Nobody waits with 0 seconds, for a client that has gone, or for what is no lock."""
        self.lock.held = True
        gone = session()
        gone.client_left = True
        for seconds, record in ((0, session()), (5, gone)):
            with self.assertRaises(InUse):
                self.queue(seconds).open("ann", self.lock.taker("x"), record)
        self.assertEqual(self.lock.tries, 2)

        def broken() -> None:
            raise StoreTrouble

        self.assertRaises(StoreTrouble, self.queue().open, "ann", broken, session())
        self.failureResultOf(self.queue().open("ann", lambda: fail(StoreTrouble()), session()), StoreTrouble)

    def test_many_of_one_user(self) -> None:
        """An eleventh login of one user is refused at once; another user's waits."""
        queue = self.queue()
        self.lock.held = True
        records = [session() for _ in range(10)]
        waiting = [self.waits(queue, record=record) for record in records]
        with self.assertRaises(InUse):
            queue.open("ann", self.lock.taker("x"), session())
        other = queue.open("bob", self.lock.taker("bob"), session())
        records[4].when_client_leaves()
        self.failureResultOf(waiting.pop(4), InUse)
        waiting.append(self.waits(queue))
        self.clock.advance(6)
        for one in (*waiting, other):
            self.failureResultOf(one, InUse)

    def test_many_of_all(self) -> None:
        """So many wait in all, and no more."""
        queue = self.queue(most=3)
        self.lock.held = True
        waiting = [queue.open(f"user{n}", self.lock.taker("x"), session()) for n in range(3)]
        with self.assertRaises(InUse):
            queue.open("ann", self.lock.taker("x"), session())
        self.lock.held = False
        self.assertEqual(queue.open("bob", self.lock.taker("bob"), session()), "bob", "nobody waits for his")
        self.clock.advance(6)
        for one in waiting:
            self.failureResultOf(one, InUse)

    def test_client_leaves(self) -> None:
        """A client that has gone is not waited for, wherever it stands, and nothing is opened for it."""
        for of, leaves in ((3, 0), (3, 1), (3, 2), (1, 0)):
            queue = self.queue()
            self.lock = Lock()
            self.lock.held = True
            records = [session() for _ in range(of)]
            waiting = [self.waits(queue, str(at), record) for at, record in enumerate(records)]
            records[leaves].client_left = True
            records[leaves].when_client_leaves()
            self.failureResultOf(waiting[leaves], InUse)
            self.assertEqual(len(self.clock.getDelayedCalls()), of > 1)
            for _ in range(2):
                self.free(queue)
            self.assertEqual(self.lock.order, [str(at) for at in range(of) if at != leaves])

    def test_ending(self) -> None:
        """A session that is ending is waited for to its end, well or not, also where nobody else is."""
        for seconds, well in ((5, True), (0, True), (5, False)):
            queue = self.queue(seconds)
            self.lock = Lock()
            self.lock.held = True
            queue.ending("ann")
            waiting = [self.waits(queue, name) for name in "ab"]
            self.clock.pump([1.0] * 60)
            queue.ended("ann")
            if well:
                self.free(queue)
                self.assertEqual(self.successResultOf(waiting.pop(0)), "a")
            self.clock.pump([INTERVAL] * 2)
            # The second waited for that session, not for the first.
            for one in waiting:
                self.failureResultOf(one, InUse)

    def test_other_refusals(self) -> None:
        """Any other answer of a later try is the answer."""
        queue = self.queue()
        for trouble in (LoginDelay(), StoreTrouble(), ZeroDivisionError()):
            answers: list[Any] = [InUse(), InUse(), trouble]

            def attempt(answers: list[Any] = answers) -> Deferred[str]:
                return fail(answers.pop(0))

            waiting = queue.open("ann", attempt, session())
            self.assertNoResult(waiting)
            self.clock.pump([INTERVAL] * 2)
            self.failureResultOf(waiting, type(trouble))

    def test_slow_store(self) -> None:
        """While the store opens it for the first, the others are refused in time, and none is tried."""
        for gone in (False, True):
            queue = self.queue()
            self.lock = Lock()
            answers: list[Deferred[str]] = [fail(InUse()), Deferred()]
            slow = answers[1]
            record = session()
            first = queue.open("ann", lambda answers=answers: answers.pop(0), record)
            self.lock.held = True
            second = self.waits(queue)
            self.clock.advance(INTERVAL)
            self.assertEqual(answers, [])
            self.clock.pump([INTERVAL] * 50)
            if gone:
                # It is not put back into the queue.
                record.client_left = True
                slow.errback(InUse())
                self.failureResultOf(first, InUse)
            self.clock.pump([INTERVAL] * 60)
            self.failureResultOf(second, InUse)
            if not gone:
                self.assertEqual(self.lock.tries, 0)
                record.when_client_leaves()
                self.assertNoResult(first)
                slow.callback("opened for it")
                self.assertEqual(self.successResultOf(first), "opened for it", "so somebody can give it back")

    def asks(
        self, queue: LockQueue[Any], takes: float, name: str = "x", record: SessionRecord | None = None
    ) -> Deferred[str]:
        """A login at a store that takes so many seconds to answer."""
        take = self.lock.taker(name)
        opening = queue.open("ann", lambda: deferLater(self.clock, takes, take), record or session())
        assert isinstance(opening, Deferred)
        return opening

    def answered_at(self, opening: Deferred[str], step: float = INTERVAL / 4) -> float:
        """The second at which a login is refused; the clock goes on until then."""
        times: list[float] = []
        opening.addBoth(lambda result: (times.append(self.clock.seconds()), result)[1])  # type: ignore[call-overload]
        while not times and self.clock.seconds() < 100:
            self.clock.advance(step)
        self.failureResultOf(opening, InUse)
        return times[0]

    def test_refused_later(self) -> None:
        """A store that refuses after a while makes nobody wait longer, alone or one after another."""
        for takes in (0.001, 0.02, INTERVAL, 3 * INTERVAL):
            with self.subTest(takes=takes):
                queue = self.queue()
                self.lock.held = True
                began = self.clock.seconds()
                first = self.asks(queue, takes)
                self.clock.pump([INTERVAL] * 20)
                second = self.asks(queue, takes)
                self.assertApproximates(self.answered_at(first) - began, 5, 2 * INTERVAL + takes)
                self.assertApproximates(self.answered_at(second) - began, 6, 2 * INTERVAL + takes)

    def test_refused_later_than_the_wait(self) -> None:
        """A store that needs longer for its refusal than the wait is asked once, alone and behind others."""
        queue = self.queue(seconds=1)
        self.lock.held = True
        first = self.asks(queue, 8)
        self.assertApproximates(self.answered_at(first), 8, INTERVAL)
        self.assertEqual(self.lock.tries, 1)
        # One that is told at once that it has to wait, and whose next try takes so long.
        takes = iter([0.0, 8.0, 8.0])
        take = self.lock.taker("x")
        second = queue.open("ann", lambda: deferLater(self.clock, next(takes), take), session())
        assert isinstance(second, Deferred)
        self.clock.advance(0)
        third = self.asks(queue, 0)
        began = self.clock.seconds()
        self.assertApproximates(self.answered_at(third) - began, 1, 2 * INTERVAL)
        self.assertApproximates(self.answered_at(second) - began, 8, 2 * INTERVAL)

    def test_opened_later_than_the_wait(self) -> None:
        """What the store began to open in time is opened, also when the time is over meanwhile."""
        queue = self.queue(seconds=1)
        self.lock.held = True
        takes = iter([0.0, 8.0])
        take = self.lock.taker("x")
        opening = queue.open("ann", lambda: deferLater(self.clock, next(takes), take), session())
        self.clock.advance(0)
        self.lock.held = False
        self.clock.pump([INTERVAL] * 170)
        self.assertEqual(self.successResultOf(opening), "x")  # type: ignore[arg-type]

    def test_fails_late(self) -> None:
        """Any other failure of the store is the answer, however late, and the next has its turn."""
        queue = self.queue()
        answers: list[Deferred[str]] = [fail(InUse()), Deferred()]
        slow = answers[1]
        first = queue.open("ann", lambda: answers.pop(0), session())
        self.lock.held = True
        self.clock.pump([INTERVAL] * 90)
        second = self.waits(queue, "second")
        self.clock.pump([INTERVAL] * 60)
        self.lock.held = False
        slow.errback(StoreTrouble())
        self.failureResultOf(first, StoreTrouble)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.successResultOf(second), "second")

    def test_never_answered_and_gone(self) -> None:
        """A try that the store never answers keeps nobody else out when its client has gone."""
        queue = self.queue()
        for ends in (None, "opened", InUse()):
            self.lock = Lock()
            answers: list[Deferred[str]] = [fail(InUse()), Deferred()]
            never = answers[1]
            record = session()
            first = queue.open("ann", lambda answers=answers: answers.pop(0), record)
            self.clock.advance(INTERVAL)
            self.assertEqual(answers, [])
            second = self.waits(queue, "second")
            record.client_left = True
            record.when_client_leaves()
            self.assertNoResult(first)
            self.clock.advance(INTERVAL)
            self.assertEqual(self.successResultOf(second), "second")
            self.assertEqual(len(self.counts.waiting), 0)
            third = self.waits(queue, "third")
            if isinstance(ends, InUse):
                never.errback(ends)
                self.failureResultOf(first, InUse)
            elif ends:
                never.callback(ends)
                self.assertEqual(self.successResultOf(first), ends, "and so its session can give it back")
            self.assertNoResult(third)
            self.free(queue)
            self.assertEqual(self.successResultOf(third), "third")


class ProcessesTests(QueueCase):
    """Several processes."""

    def test_equal_chances(self) -> None:
        """The process whose session ends has no more of the turns than the other."""
        here, there = (self.queue(counts=Counts(), alone=False) for _ in range(2))
        self.lock.held = True
        for _ in range(5):
            self.waits(here, "here")
        self.clock.advance(INTERVAL / 2)
        for _ in range(5):
            self.waits(there, "there")
        while len(self.lock.order) < 6:
            # All sessions end here; without the intervals this process would always be the first.
            self.free(here)
            self.clock.advance(0.7 * INTERVAL)
        self.assertGreaterEqual(min(map(self.lock.order.count, ("here", "there"))), 2, self.lock.order)


class LoginTests(SynchronousTestCase):
    """Every way to log in, and what is counted meanwhile."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counts = Counts()
        self.store = FakeStore()

    def authenticator(self, **options: Any) -> PortalAuthenticator:
        """One over a store with a lock."""
        portal = Portal(
            MailboxRealm(self.store, anonymous="demo"),
            [MemoryAccounts({"ann": "x", "demo": "x", "root": "x"})],
        )
        portal.registerChecker(AllowAnonymousAccess())
        throttle = LoginThrottle(self.clock, LoginLimits(**options), self.counts)
        return PortalAuthenticator(portal, throttle=throttle, masters=("root",))

    def test_every_way(self) -> None:
        """A password, SASL, a master user and an anonymous visitor wait for the maildrop that they want."""
        auth = self.authenticator()

        def sasl(mechanism: str, response: bytes) -> Any:
            return say(auth.begin(mechanism, session()), response)

        for user, log_in in (
            ("ann", lambda: auth.password(b"ann", b"x", session())),
            ("ann", lambda: sasl("PLAIN", b"\0ann\0x")),
            ("ann", lambda: sasl("PLAIN", b"ann\0root\0x")),
            ("demo", lambda: sasl("ANONYMOUS", b"")),
        ):
            holder = auth.password(user.encode(), b"x", session())
            assert isinstance(holder, Login)
            waiting = log_in()
            self.assertNoResult(waiting)
            self.clock.advance(1)
            holder.logout()
            self.clock.advance(INTERVAL)
            login = self.successResultOf(waiting)
            self.assertIn(user, self.store.open_now)
            login.logout()
            self.assertEqual(self.store.open_now, set())

    def test_counts(self) -> None:
        """A login that waits is no session, no attempt under way and no failure."""
        auth = self.authenticator(sessions_per_user=2)
        holder = auth.password(b"ann", b"x", session())
        waiting = [auth.password(b"ann", b"x", session()) for _ in range(5)]
        self.assertEqual(self.counts.sessions["ann"], 1)
        self.assertEqual(len(self.counts.in_flight), 0)
        self.clock.pump([1.0] * 6)
        for one in waiting:
            self.failureResultOf(one, InUse)
        self.assertEqual(self.counts.sessions["ann"], 1)
        self.assertNotIn("127.0.0.1", self.counts.address_failures)
        self.assertNotIn("ann", self.counts.user_failures)
        holder.logout()
        self.assertEqual(len(self.counts.sessions), 0)
        self.assertEqual((len(self.counts.waiting), len(self.counts.ending)), (0, 0))

    def test_too_many_sessions(self) -> None:
        """Where a store lets several in, the limit of a user's sessions is waited for as well."""
        self.store.open_now = _Shared()
        auth = self.authenticator(sessions_per_user=1)
        holder = auth.password(b"ann", b"x", session())
        waiting = auth.password(b"ann", b"x", session())
        holder.logout()
        self.clock.advance(0)
        self.successResultOf(waiting).logout()
        self.assertEqual(len(self.counts.sessions), 0)

    def test_login_delay(self) -> None:
        """LOGIN-DELAY is said at once, and when the lock is free; it begins with the opening."""
        auth = self.authenticator(login_delay=3)
        holder = auth.password(b"ann", b"x", session())
        self.assertRaises(LoginDelay, auth.password, b"ann", b"x", session())
        self.clock.advance(3)
        first, second = (auth.password(b"ann", b"x", session()) for _ in range(2))
        self.clock.advance(2)
        holder.logout()
        self.clock.advance(0)
        self.successResultOf(first).logout()
        self.clock.advance(INTERVAL)
        self.failureResultOf(second, LoginDelay)

    def test_wrong_password(self) -> None:
        """Who has the wrong password does not wait, and learns of no lock."""
        auth = self.authenticator()
        auth.password(b"ann", b"x", session())
        self.assertRaises(Refusal, auth.password, b"ann", b"wrong", session())
        self.assertEqual(len(self.counts.waiting), 0)

    def test_slow_release(self) -> None:
        """A maildrop that takes a while to be given back counts as a session that is ending until it is."""
        auth = self.authenticator(lock_wait=0)
        login = auth.password(b"ann", b"x", session())
        slow: Deferred[None] = Deferred()
        give_back = login.logout
        door_stay: Any = give_back.__self__  # type: ignore[attr-defined]
        release, door_stay._logout = door_stay._logout, lambda: slow.addCallback(lambda _: release())
        leaving = login.logout()
        self.assertIsNone(login.logout(), "once is enough")
        self.assertEqual(self.counts.sessions["ann"], 1)
        waiting = auth.password(b"ann", b"x", session())
        self.clock.pump([1.0] * 60)
        self.assertNoResult(waiting)
        slow.callback(None)
        self.successResultOf(leaving)
        self.clock.advance(0)
        self.successResultOf(waiting).logout()
        self.assertEqual((len(self.counts.sessions), len(self.counts.ending)), (0, 0))

    def test_ending(self) -> None:
        """A session ends once, however often it says so, also with a mailbox of Twisted's."""

        @implementer(ITwistedMailbox)
        class Empty:
            def listMessages(self) -> list[int]:
                return []

        @implementer(IRealm)
        class Foreign:
            def requestAvatar(self, *args: Any) -> Any:
                return ITwistedMailbox, Empty(), lambda: None

        for realm in (MailboxRealm(self.store), Foreign()):
            portal = Portal(realm, [MemoryAccounts({"ann": "x"})])
            auth = PortalAuthenticator(portal, throttle=LoginThrottle(self.clock, counts=self.counts))
            opening = auth.password(b"ann", b"x", session())
            login = self.successResultOf(opening) if isinstance(opening, Deferred) else opening
            self.assertEqual(len(self.counts.ending), 0)
            login.ending()
            login.ending()
            self.assertEqual(self.counts.ending["ann"], 1)
            login.logout()
            login.ending()
            self.assertEqual((len(self.counts.ending), len(self.counts.sessions)), (0, 0))

    def test_without_a_guard(self) -> None:
        """An authenticator that was given no throttle has no clock to wait on, and refuses at once."""
        auth = PortalAuthenticator(Portal(MailboxRealm(self.store), [MemoryAccounts({"ann": "x"})]))
        login = auth.password(b"ann", b"x", session())
        login.ending()
        self.assertRaises(InUse, auth.password, b"ann", b"x", session())
        login.logout()
        self.assertIsInstance(auth.password(b"ann", b"x", session()), Login)


class _Shared(set[str]):
    def __contains__(self, user: object) -> bool:
        return False


class SocketWithNumber(FakeSocket):
    """One with something that can be looked at beneath it."""

    def __init__(self, clock: Clock, beneath: socket.socket) -> None:
        super().__init__(clock)
        self.fileno = beneath.fileno


class SlowRemoval(MemoryStore):
    """A store that opens and removes when the test says so."""

    removal: Deferred[None] | None = None
    #: What opens the mailbox.
    opening: Deferred[None] | None = None

    def open(self, user: str) -> Any:
        if self.opening is not None:
            return self.opening.addCallback(lambda _: self.open(user))
        mailbox: Any = super().open(user)
        remove = mailbox.remove

        def slowly(uids: Sequence[bytes]) -> Any:
            return self.removal.addCallback(lambda _: remove(uids)) if self.removal else remove(uids)

        mailbox.remove = slowly
        return mailbox


class WaitTests(SynchronousTestCase):
    """Whole connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = SlowRemoval({"ann": [b"Subject: hello\r\n\r\n" + b"x" * 10 + b"\r\n"]})
        self.counts = Counts()
        self.watcher = Watcher()
        self.serve()

    def serve(self, **options: Any) -> None:
        """A server with these limits."""
        authenticator = PortalAuthenticator(
            Portal(MailboxRealm(self.store), [MemoryAccounts({"ann": "secret"})]),
            throttle=LoginThrottle(self.clock, LoginLimits(**options), self.counts),
        )
        self.factory = POP3Factory(self.clock, authenticator, observers=Observers(self.watcher))

    def connect(self, said: bytes = b"") -> FakeSocket:
        """A client that says this, and has read what was answered."""
        client = FakeSocket(self.clock)
        client.connect(self.factory.buildProtocol(None))
        client.client_reads_all()
        client.got.clear()
        if said:
            client.client_sends(said)
        return client

    def heard(self, client: FakeSocket) -> bytes:
        """What a client hears now."""
        client.client_reads_all()
        said = bytes(client.got)
        client.got.clear()
        return said.removeprefix(b"+OK send PASS\r\n")

    def nothing_left(self) -> None:
        """Nobody holds anything any more."""
        self.clock.advance(limits.LINGER)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(
            (len(self.counts.waiting), len(self.counts.sessions), len(self.counts.ending)), (0, 0, 0)
        )
        self.store.open("ann").release()

    def test_two_devices(self) -> None:
        """The second of two devices gets in as soon as the first is out, with what it pipelined."""
        first = self.connect(LOGIN)
        second = self.connect(LOGIN + b"STAT\r\n")
        self.clock.advance(2)
        self.assertEqual(self.heard(second), b"")
        first.client_sends(b"QUIT\r\n")
        self.assertEqual(self.heard(first), WELCOME + b"+OK bye\r\n")
        self.assertEqual(self.heard(second), WELCOME + b"+OK 1 30\r\n")
        second.client_sends(b"QUIT\r\n")
        self.heard(second)
        self.nothing_left()

    def test_refused_in_the_end(self) -> None:
        """After five seconds it is ``[IN-USE]`` with the word lock; the client may try again."""
        first, second = self.connect(LOGIN), self.connect(LOGIN)
        self.clock.pump([INTERVAL] * 99)
        self.assertEqual(self.heard(second), b"")
        self.clock.pump([INTERVAL] * 2)
        self.assertEqual(self.heard(second), IN_USE)
        self.assertIn(b"lock", IN_USE)
        self.assertEqual(self.watcher.failures, [("ann", "USER", "IN-USE")])
        first.vanish()
        second.client_sends(LOGIN)
        self.assertEqual(self.heard(second), WELCOME)

    def test_vanishes(self) -> None:
        """A client that vanishes gives up its place, within SASL too; the next gets in."""
        for log_in in (LOGIN, b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"):
            first, second, third = (self.connect(said) for said in (LOGIN, log_in, LOGIN))
            self.assertEqual(sum(self.counts.waiting.values()), 2)
            second.vanish()
            self.assertEqual(sum(self.counts.waiting.values()), 1)
            first.vanish()
            self.assertEqual(self.heard(third), WELCOME)
            third.vanish()
            self.nothing_left()

    def test_vanishes_while_it_is_opened(self) -> None:
        """So does one whose maildrop is being opened; what comes late is given back."""
        first, second = self.connect(LOGIN), self.connect(LOGIN)
        self.store.opening = opening = Deferred()
        first.vanish()
        self.clock.advance(0)
        self.store.opening = None
        second.vanish()
        self.assertEqual(len(self.counts.waiting), 0)
        third = self.connect(LOGIN)
        self.assertEqual(self.heard(third), WELCOME)
        third.vanish()
        opening.callback(None)
        self.nothing_left()

    def test_hangs_up(self) -> None:
        """So does one that hangs up when it is not read from: it has sent too much, or all that it will."""
        first = self.connect(LOGIN)
        too_much = b"NOOP\r\n" * (limits.PENDING_INPUT // 6 + 1)
        for before, behind, half_closes in (
            (b"", too_much, False),
            (b"CAPA\r\n" * 20_000, b"", False),
            (b"", b"STAT\r\nQUIT\r\n", True),
        ):
            with self.subTest(before=before[:6], behind=behind[:6]):
                ours, theirs = socket.socketpair()
                self.addCleanup(ours.close)
                second = SocketWithNumber(self.clock, ours)
                second.connect(self.factory.buildProtocol(None))
                second.client_sends(before + LOGIN + behind)
                while len(self.counts.waiting) == 0:
                    second.client_reads_all()
                if half_closes:
                    second.client_half_closes()
                self.assertFalse(second.reading)
                self.clock.pump([0.1] * 20)
                self.assertEqual(sum(self.counts.waiting.values()), 1)
                theirs.close()
                self.clock.pump([0.1] * 5)
                self.assertEqual(len(self.counts.waiting), 0)
                self.clock.advance(limits.LINGER)
                self.assertIsNotNone(second.lost)
        first.vanish()
        self.nothing_left()

    def test_will_say_nothing_more(self) -> None:
        """Who has closed its side with nothing behind the login is refused at once, whatever came before."""
        wrong = b"USER ann\r\nPASS wrong\r\n"
        # Three and more wrong passwords have a penalty: its end comes before the lock is looked at.
        for said, waits in ((LOGIN, 1), (LOGIN + b"STA", 1), (wrong * 3 + LOGIN, 0), (wrong * 4 + LOGIN, 0)):
            self.setUp()
            first = self.connect(LOGIN)
            second = self.connect(said)
            self.assertEqual(sum(self.counts.waiting.values()), waits)
            second.client_half_closes()
            self.clock.pump([1.0] * 3 if not waits else [])
            self.assertEqual(self.heard(second).splitlines()[-1] + b"\r\n", IN_USE)
            self.assertIsNotNone(second.lost)
            first.vanish()
            self.nothing_left()

    def test_has_said_all(self) -> None:
        """Who has closed its side with commands behind the login waits, and gets their answers."""
        first = self.connect(LOGIN)
        second = self.connect(LOGIN + b"STAT\r\nQUIT\r\n")
        second.client_half_closes()
        self.assertEqual(self.heard(second), b"")
        first.vanish()
        self.assertEqual(self.heard(second), WELCOME + b"+OK 1 30\r\n+OK bye\r\n")
        self.nothing_left()

    def test_hasty_quit(self) -> None:
        """A client that says DELE and QUIT and has gone is waited for until its messages are removed.

        Whoever waits is not timed out meanwhile, and has its own time afterwards.
        """
        for seconds in (5, 0):
            self.setUp()
            self.serve(lock_wait=seconds)
            self.store.removal = removal = Deferred()
            hasty = self.connect(LOGIN + b"DELE 1\r\nQUIT\r\n")
            hasty.vanish()
            self.store.removal = None
            second = self.connect(LOGIN)
            self.clock.pump([10.0] * 100)
            self.assertEqual((self.heard(second), second.lost), (b"", None))
            removal.callback(None)
            self.assertEqual(self.heard(second), b"+OK maildrop has 0 messages (0 octets)\r\n")
            self.clock.pump([10.0] * 59)
            self.assertIsNone(second.lost)
            second.vanish()
            self.nothing_left()

    def test_sent_away(self) -> None:
        """A login that waits is told when it has to make room or the server stops, and leaves its place."""
        for send_away, said in (
            (lambda protocol: protocol.hang_up("limit"), b"too many connections"),
            (lambda protocol: self.factory.drain(), b"the server is stopping, try again later"),
        ):
            for log_in in (LOGIN + b"STAT\r\n", b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"):
                self.setUp()
                first = self.connect(LOGIN)
                # One that was asked nothing is told nothing.
                silent = self.connect(b"USER ann\r\n")
                second = self.connect(log_in)
                self.assertEqual(sum(self.counts.waiting.values()), 1)
                send_away(second.protocol)
                self.assertEqual(len(self.counts.waiting), 0)
                self.assertEqual(self.heard(second), b"-ERR [SYS/TEMP] " + said + b"\r\n")
                self.assertIsNotNone(second.lost)
                send_away(silent.protocol)
                self.assertEqual(self.heard(silent), b"")
                first.vanish()
                self.nothing_left()

    def test_logout_that_fails_late(self) -> None:
        """A realm whose logout fails late is logged, and keeps nobody from anything but waiting for it."""
        late: Deferred[None] = Deferred()
        client = self.connect(LOGIN)
        login = client.protocol.session.login  # type: ignore[union-attr]
        client.protocol.session.login = login._replace(  # type: ignore[union-attr]
            logout=lambda: (login.logout(), late)[1]  # type: ignore[union-attr]
        )
        client.client_sends(b"QUIT\r\n")
        self.assertEqual(self.heard(client), WELCOME)
        late.errback(ZeroDivisionError())
        self.assertEqual(self.heard(client), b"+OK bye\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.nothing_left()


class HastyTests(SynchronousTestCase):
    """Real clients, one of which does not wait for the answer to its QUIT."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        fill_maildir(self.root / "ann", awkward_messages(large=False)[:30])

    def served(self, *options: str) -> RealServer:
        """A server of the Maildir."""
        server = RealServer(*maildir_options(self.root), *options)
        self.addCleanup(server.terminate)
        return server

    def quit_and_log_in(self, server: RealServer) -> None:
        """Twenty times: one deletes a message, says QUIT and is gone; the next logs in at once."""
        with logged_in(server.port) as first:
            messages = first.stat().messages
        for number in range(1, 21):
            hasty = StrictClient(server.port)
            hasty.login()
            hasty.send(b"DELE 1\r\nQUIT\r\n")
            hasty.close()
            with logged_in(server.port) as second:
                self.assertEqual(second.stat().messages, messages - number)

    def test_one_process(self) -> None:
        """All of twenty logins succeed."""
        self.quit_and_log_in(self.served())

    def test_workers(self) -> None:
        """So they do with workers, whichever of them has the one and the other."""
        server = self.served("--workers=2")
        wait_until(lambda: server.log.count(" serves (process") == 2, "all workers serve")
        self.quit_and_log_in(server)

    def test_end_in_the_log(self) -> None:
        """Who is gone before UPDATE is over has in the log what was removed, with workers and without."""
        for options in ((), ("--workers=2",)):
            server = self.served(*options)
            hasty = StrictClient(server.port)
            hasty.login()
            # Closing resets the connection, as it does where an answer is not read.
            hasty.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            hasty.send(b"DELE 1\r\nDELE 2\r\nQUIT\r\n")
            hasty.close()
            wait_until(lambda server=server: " end: session=" in server.log, "the log tells of the end")  # type: ignore[misc]
            self.assertRegex(server.log, r" end: .* ended=quit .* removed=2 protocol=POP3\n")
            server.terminate()

    def test_many_devices(self) -> None:
        """Ten clients that poll at the same moment all get in, with workers and without."""
        for options in ((), ("--workers=2",)):
            server = self.served(*options)
            clients = [StrictClient(server.port) for _ in range(10)]
            for client in clients:
                client.send(LOGIN + b"STAT\r\nQUIT\r\n")
            for client in clients:
                answers = [client.status() for _ in range(4)]
                self.assertEqual(len(answers), 4)
                client.close()
            server.terminate()

    def test_gone(self) -> None:
        """Ten that have closed keep nobody out, however much they said before."""
        server = self.served("--lock-wait=60")
        with StrictClient(server.port) as first:
            first.login()
            for pipelined in (b"", b"STAT\r\nQUIT\r\n", b"NOOP\r\n" * 20_000):
                ten = [StrictClient(server.port) for _ in range(10)]
                for one in ten:
                    one.send(LOGIN + pipelined)
                for one in ten:
                    # It is there, and not taken.
                    one.socket.recv(1, socket.MSG_PEEK)
                StrictClient(server.port).close()
                for one in ten:
                    one.close()

                def waits() -> bool:
                    with StrictClient(server.port) as one:
                        one.command(b"USER ann")
                        one.socket.settimeout(0.1)
                        try:
                            one.command(b"PASS secret")
                        except Refused:
                            return False
                        except TimeoutError:
                            return True
                    raise AssertionError("not locked")

                wait_until(waits, "there is room for another")

    def test_refused(self) -> None:
        """``--lock-wait`` says how long it is waited; 0 is not at all."""
        for seconds in (0, 1):
            server = self.served(f"--lock-wait={seconds}")
            with StrictClient(server.port) as first, StrictClient(server.port) as second:
                first.login()
                second.command(b"USER ann")
                began = time.monotonic()
                refusal = self.assertRaises(Refused, second.command, b"PASS secret")
                self.assertGreaterEqual(time.monotonic() - began, seconds)
                self.assertEqual(refusal.code, b"IN-USE")
                self.assertIn(b"lock", refusal.text)
            server.terminate()
