"""The ports hold for a store on a network: late, failing, and losing its lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import obstore
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from twisted.cred.portal import Portal
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import LoginThrottle, MailboxRealm, MemoryAccounts, POP3Factory, PortalAuthenticator, limits
from pop3toy.errors import InUse, StoreTrouble
from pop3toy.events import Observers

from ..corpus import wire_form
from ..pop3_world import FakeSocket, Watcher
from ..store_contract import AdminContract, DeliveryContract, StoreContract
from ..store_world import Threads
from .objects_spike import MARGIN, RENEWAL, TTL, Found, ObjectAdmin, Objects, ObjectStore

T = TypeVar("T")
A, B = b"Subject: a\n\na\n", b"Subject: b\n\n.b\n"


class FailingObjects(Objects):
    """An object store that fails as the test says.

    :ivar before: a call that is among them fails, and is not carried out.
    :ivar after: a call that is among them is carried out, and its answer is lost.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(MemoryStore())
        self._clock = clock
        # The object store's own clock cannot be turned: when each object was written, by the test's.
        self._written: dict[str, float] = {}
        self.before: set[str] = set()
        self.after: set[str] = set()
        self.calls: list[str] = []

    def call(self, function: Callable[..., T], *args: Any, **named: Any) -> T:
        self.calls.append(function.__name__)
        if function is obstore.put and function.__name__ not in self.before:
            self._written[args[0]] = self._clock.seconds()
        if function.__name__ in self.before:
            raise StoreTrouble(detail="nobody answers")
        result = super().call(function, *args, **named)
        if function.__name__ in self.after:
            raise StoreTrouble(detail="the answer was lost")
        return result

    def get(self, key: str) -> Found:
        found = super().get(key)
        return found._replace(modified=found.modified + self._written[key])


class World:
    """An object store, and the threads and the time of those who use it."""

    def __init__(self, *users: str) -> None:
        self.clock = Clock()
        self.objects = FailingObjects(self.clock)
        self.threads = Threads()
        for user in users:
            self.store().add_account(user)

    def store(self, ahead: float = 0.0) -> ObjectStore:
        """As one more server has it, whose clock is ahead by so many seconds."""
        return ObjectStore(
            self.objects, self.threads, self.clock, lambda: time.time() + self.clock.seconds() + ahead
        )

    def deliver(self, store: ObjectStore, user: str, message: bytes) -> None:
        """New mail."""
        incoming = self.threads.wait(store.begin([user]))
        incoming.write(message)
        self.threads.wait(incoming.commit())


class LateCase(SynchronousTestCase):
    """Each answer comes when a thread has been there."""

    USER = "ann"

    def setUp(self) -> None:
        self.world = World()

    def wait(self, result: Any) -> Any:
        return self.world.threads.wait(result)

    def fails(self, kind: Any, function: Any, *args: Any) -> Any:
        failing = maybeDeferred(function, *args)
        self.world.threads.run()
        return self.failureResultOf(failing, kind).value


class ObjectStoreContractTests(LateCase, StoreContract):
    """The contract of a store."""

    def store(self, messages: Sequence[bytes]) -> ObjectStore:
        self.world = World(self.USER)
        store = self.world.store()
        for message in messages:
            self.arrive(store, message)
        return store

    def arrive(self, store: ObjectStore, message: bytes) -> None:
        self.world.deliver(store, self.USER, message)

    def take_away(self, store: ObjectStore, index: int) -> None:
        drop = store.drop(self.USER)
        uid, _ = store.objects.list(f"m/{drop}")[index]
        store.objects.delete([f"m/{drop}/{uid}"])


class ObjectDeliveryContractTests(LateCase, DeliveryContract):
    """The contract of a delivery."""

    def delivery(self) -> tuple[ObjectStore, ObjectStore]:
        self.world = World(*self.USERS)
        store = self.world.store()
        return store, store

    def break_maildrop(self, store: ObjectStore, user: str) -> None:
        ObjectAdmin(store).remove(user)


class ObjectAdminContractTests(LateCase, AdminContract):
    """The contract of administration."""

    def administered(self, mail: Mapping[str, Sequence[bytes]]) -> tuple[Any, Any, Any]:
        self.world = World(*mail)
        store = self.world.store()
        for user, messages in mail.items():
            for message in messages:
                self.world.deliver(store, user, message)
        return store, store, ObjectAdmin(store)


class LeaseTests(LateCase):
    """The lock of a maildrop, among servers."""

    def setUp(self) -> None:
        self.world = World("ann")
        self.one, self.other = self.world.store(), self.world.store()
        for message in (A, B):
            self.world.deliver(self.one, "ann", message)
        self.lost: list[str] = []
        self.mailbox = self.open(self.one)
        self.mailbox.when_lost(self.lost.append)

    def open(self, store: ObjectStore) -> Any:
        return self.wait(store.open("ann"))

    def uids(self, mailbox: Any) -> list[bytes]:
        return [entry.uid for entry in mailbox.entries]

    def passes(self, seconds: float) -> None:
        """Time goes on, and what it brings is done."""
        for _ in range(round(seconds)):
            self.world.clock.advance(1)
            self.world.threads.run()

    def freezes(self, seconds: float) -> None:
        """Time goes on for others."""
        calls, self.world.clock.calls = self.world.clock.calls, []
        self.world.clock.advance(seconds)
        self.world.clock.calls = calls

    def test_renewed(self) -> None:
        """A session may last."""
        for _ in range(5):
            self.passes(TTL + MARGIN + 1)
            self.assertEqual([], self.lost)
            self.fails(InUse, self.other.open, "ann")
        self.wait(self.mailbox.release())
        self.assertEqual([], self.world.clock.getDelayedCalls())
        self.assertEqual(2, len(self.open(self.other).entries))

    def test_taken_over(self) -> None:
        """The lease of a server that has died is another's after a while, and not before."""
        self.freezes(TTL + MARGIN - 5)
        self.fails(InUse, self.other.open, "ann")
        self.freezes(10)
        self.assertEqual(2, len(self.open(self.other).entries))

    def test_frozen(self) -> None:
        """Who comes to himself with a lease that is another's removes nothing, and gives nothing away."""
        self.freezes(TTL + MARGIN + 1)
        theirs = self.open(self.other)
        self.fails(StoreTrouble, self.mailbox.remove, self.uids(self.mailbox))
        self.wait(self.mailbox.release())
        self.fails(InUse, self.world.store().open, "ann")
        self.assertEqual([wire_form(A)], [self.whole(theirs, theirs.entries[0].uid)])

    def test_tells(self) -> None:
        """It is found by the next renewal."""
        self.open(self.world.store(ahead=TTL + MARGIN + 1))
        self.world.clock.advance(RENEWAL)
        self.assertEqual([], self.lost)
        self.world.threads.run()
        self.assertEqual(["somebody else has taken the lease"], self.lost)
        self.fails(StoreTrouble, self.mailbox.remove, self.uids(self.mailbox))

    def test_unreachable(self) -> None:
        """A lease that cannot be renewed is lost before somebody else may take it, but not at once."""
        for how in ("fails", "hangs"):
            self.setUp()
            with capturedLogs() as logs:
                self.passes(1)
                if how == "fails":
                    self.world.objects.before.add("put")
                    self.passes(TTL / 2)
                    self.assertEqual([], self.lost)
                    self.passes(TTL / 2 + 1)
                else:
                    self.world.clock.pump([1] * round(TTL))
            self.assertEqual(["the lease could not be renewed"], self.lost)
            self.assertEqual([], logs)
            self.world.objects.before.clear()
            self.fails(StoreTrouble, self.mailbox.remove, self.uids(self.mailbox))

    def test_answer_lost(self) -> None:
        """A change of which no answer came has been made, or not: who looks again knows."""
        self.world.objects.after.add("put")
        mine = self.uids(self.mailbox)
        self.wait(self.mailbox.remove(mine[:1]))
        self.wait(self.mailbox.release())
        again = self.open(self.other)
        self.assertEqual(mine[1:], self.uids(again))

    def whole(self, mailbox: Any, uid: bytes) -> bytes:
        body = self.wait(mailbox.read(uid))
        chunks = []
        while not body.done:
            chunks.append(self.wait(body.pull()))
        body.close(None)
        return b"".join(chunks)

    def test_requests(self) -> None:
        """A login is three requests and a listing; a message one; QUIT one, and one that removes."""
        self.wait(self.mailbox.release())
        calls = self.world.objects.calls
        calls.clear()
        mailbox = self.open(self.other)
        self.assertEqual(["get", "get", "put", "list"], calls)
        calls.clear()
        self.whole(mailbox, mailbox.entries[0].uid)
        self.assertEqual(["get_range"], calls)
        calls.clear()
        self.wait(mailbox.remove(self.uids(mailbox)))
        self.wait(mailbox.release())
        self.assertEqual(["put", "delete", "put"], calls)

    def test_errors(self) -> None:
        """What the library raises is trouble, without the address that it tells."""

        def broken(objects: object) -> None:
            raise GenericError("no route\n\nhttp://10.0.0.1/secret")

        trouble = self.assertRaises(StoreTrouble, Objects(None).call, broken)
        self.assertEqual("no route", trouble.detail)


class ServedTests(LateCase):
    """Sessions of POP3 over such a store."""

    def setUp(self) -> None:
        self.world = World("ann")
        self.store = self.world.store()
        for message in (A, B):
            self.world.deliver(self.store, "ann", message)
        self.watcher = Watcher()
        portal = Portal(MailboxRealm(self.store), [MemoryAccounts({"ann": "pass"})])
        self.factory = POP3Factory(
            self.world.clock,
            PortalAuthenticator(portal, throttle=LoginThrottle(self.world.clock)),
            observers=Observers(self.watcher),
        )

    def connect(self) -> FakeSocket:
        socket = FakeSocket(self.world.clock)
        socket.connect(self.factory.buildProtocol(None))  # type: ignore[arg-type]
        socket.client_reads_all()
        return socket

    def says(self, socket: FakeSocket, *lines: bytes) -> bytes:
        """All that comes back when threads are done."""
        for line in lines:
            socket.client_sends(line + b"\r\n")
        said = socket.client_reads_all()
        while self.world.threads.run():
            said += socket.client_reads_all()
        return said

    def log_in(self) -> FakeSocket:
        socket = self.connect()
        self.assertIn(b"+OK maildrop has 2 messages", self.says(socket, b"USER ann", b"PASS pass"))
        return socket

    def test_session(self) -> None:
        """All in one piece: what is told and sent is what was delivered, and what is deleted is gone."""
        socket = self.connect()
        said = self.says(
            socket, b"USER ann", b"PASS pass", b"LIST", b"RETR 2", b"TOP 1 0", b"DELE 1", b"QUIT"
        )
        self.assertIn(b"\r\n1 17\r\n2 18\r\n.\r\n", said)
        self.assertIn(b"+OK 18 octets\r\nSubject: b\r\n\r\n..b\r\n.\r\n", said)
        self.assertTrue(said.endswith(b"+OK bye, 1 message removed\r\n"), said)
        (left,) = ObjectAdmin(self.store).list("ann")
        self.assertEqual(18, left.octets)

    def test_next_session(self) -> None:
        """QUIT is answered when the lease is given back: the next login finds it free, on any server."""
        socket = self.log_in()
        socket.client_sends(b"QUIT\r\n")
        self.assertEqual(b"", socket.client_reads_all())
        self.world.threads.run()
        self.assertEqual(b"+OK bye\r\n", socket.client_reads_all())
        self.wait(self.world.store().open("ann"))

    def test_waits_behind_one_that_vanished(self) -> None:
        """The user's next login waits while the lease of the last session is given back."""
        first = self.log_in()
        first.vanish()
        self.assertEqual([], self.watcher.ends)
        second = self.connect()
        for line in (b"USER ann", b"PASS pass"):
            second.client_sends(line + b"\r\n")
        # Longer than a lock is waited for: that one is ending.
        jobs, self.world.threads.jobs = self.world.threads.jobs[:1], self.world.threads.jobs[1:]
        for _ in range(20):
            self.world.clock.advance(0.5)
            self.world.threads.run()
        self.assertEqual(b"+OK send PASS\r\n", second.client_reads_all())
        self.world.threads.jobs[:0] = jobs
        self.world.threads.run()
        self.world.clock.advance(0)
        self.world.threads.run()
        self.assertIn(b"+OK maildrop has 2 messages", second.client_reads_all())
        self.assertEqual(1, len(self.watcher.ends))

    def test_leaves_while_it_is_opened(self) -> None:
        """Who leaves while the maildrop is being opened leaves no lease behind, whenever that is."""
        for steps in range(2):
            socket = self.connect()
            socket.client_sends(b"USER ann\r\nPASS pass\r\n")
            if steps:
                # The thread has done its work; that is known when the reactor gets to it.
                result, function, _ = self.world.threads.jobs.pop()
                outcome = function()
                self.world.threads.jobs.append((result, lambda outcome=outcome: outcome, ()))
            socket.vanish()
            self.assertEqual(0, self.factory.connections)
            # In one go where that is possible: threads that are stopping take no more work.
            self.assertEqual(1 + steps, self.world.threads.run())
            self.wait(self.wait(self.world.store().open("ann")).release())

    def test_lost(self) -> None:
        """A session whose lease is another's removes nothing, and ends."""
        socket = self.log_in()
        self.says(socket, b"DELE 1")
        self.world.objects.before.add("put")
        with capturedLogs() as logs:
            for _ in range(round(TTL)):
                self.world.clock.advance(1)
                self.world.threads.run()
        self.assertEqual(["the lease could not be renewed"], [event["why"] for event in logs])
        self.assertIsNotNone(socket.lost)
        self.assertEqual(["store"], [event.why for event in self.watcher.ends])
        self.assertEqual(2, len(ObjectAdmin(self.store).list("ann")))

    def test_trouble(self) -> None:
        """Whatever fails is trouble that passes, and never an empty maildrop or half a message."""
        self.world.objects.before.add("list")
        refused = self.says(self.connect(), b"USER ann", b"PASS pass")
        self.assertIn(b"-ERR [SYS/TEMP]", refused)
        self.world.objects.before.clear()
        socket = self.log_in()
        self.world.objects.before.update(("get_range", "delete"))
        self.assertTrue(self.says(socket, b"RETR 1").startswith(b"-ERR [SYS/TEMP]"))
        self.assertIn(b"-ERR [SYS/TEMP]", self.says(socket, b"DELE 1", b"QUIT"))
        self.world.objects.before.clear()
        self.assertIn(b"+OK bye", self.says(self.log_in(), b"QUIT"))

    def test_slow_release(self) -> None:
        """QUIT is answered after a while even if the object store does not answer."""
        socket = self.log_in()
        socket.client_sends(b"QUIT\r\n")
        with capturedLogs() as logs:
            self.world.clock.advance(limits.RELEASE)
        self.assertEqual(1, len(logs))
        self.assertEqual(b"+OK bye\r\n", socket.client_reads_all())
        drained = self.factory.drain()
        self.assertNoResult(drained)
        self.world.threads.run()
        self.successResultOf(drained)
