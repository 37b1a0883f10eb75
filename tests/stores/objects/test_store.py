"""Maildrops in object storage keep the contract of a store, late as they answer."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from array import array
from collections.abc import Callable
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy import limits
from pop3toy.errors import NoSuchMailbox, Refusal, StoreTrouble
from pop3toy.interfaces import ICancellableStore, ILeasedMailbox, IViewableStore
from pop3toy.stores.objects.engine import AT_ONCE, KEYS, Taken
from pop3toy.stores.objects.lease import FREE, RENEWAL, TTL, Lease
from pop3toy.stores.objects.mailbox import Contents
from pop3toy.stores.objects.records import lease_key, message_key, message_name
from pop3toy.stores.objects.users import Users

from ...objects_world import Fault, ObjectStoreContract, World, WorldEngines, WorldMixin

A, B, C = b"Subject: a\n\na\n", b"Subject: b\n\n.b\n", b"Subject: c\n\nc\n"


class WorldCase(WorldMixin, SynchronousTestCase):
    """Each answer comes when a thread has been there."""

    def others_take_it(self) -> None:
        """The lease is another's, whoever has it."""
        key, engine = lease_key(self.world.record(self.USER).drop), self.world.engine()
        engine.swap(key, self.lease()._replace(nonce="other").encoded(), engine.get(key).tag)


class MemoryContractTests(ObjectStoreContract, SynchronousTestCase):
    """The contract, over obstore's storage in memory."""

    def new_world(self, *users: str) -> World:
        """See :class:`ObjectStoreContract`."""
        return World(*users)


class OpeningTests(WorldCase):
    """How a maildrop is opened: nothing stays locked that nobody has."""

    def setUp(self) -> None:
        self.world = World("ann")
        for message in (A, B):
            self.world.deliver("ann", message)
        self.server = self.world.server()
        self.store = self.server.store

    def test_interfaces(self) -> None:
        """What it opens can lose its lock; the store can be looked at, and given up."""
        self.assertTrue(verifyObject(ICancellableStore, self.store))
        self.assertTrue(verifyObject(IViewableStore, self.store))
        mailbox = self.wait(self.store.open("ann"))
        self.assertTrue(verifyObject(ILeasedMailbox, mailbox))
        self.assertFalse(mailbox.read_only)
        view = self.wait(self.store.view("ann"))
        self.assertTrue(view.read_only)
        self.fails(StoreTrouble, view.remove, [view.entries[0].uid])

    def test_requests(self) -> None:
        """A login is three requests and a listing; QUIT one; who looks needs no lease."""
        self.world.calls.clear()
        mailbox = self.wait(self.store.open("ann"))
        self.assertEqual(["get", "get", "put", "list"], self.world.calls)
        self.world.calls.clear()
        self.wait(mailbox.release())
        self.assertEqual(["put"], self.world.calls)
        self.world.calls.clear()
        self.wait(self.wait(self.store.view("ann")).release())
        self.assertEqual(["get", "list"], self.world.calls)

    def test_listed_behind_the_lease(self) -> None:
        """What another session has removed before is not listed."""
        other = self.wait(self.store.open("ann"))

        def others_end() -> None:
            # Of the same moment as the acquisition, which therefore comes behind it.
            self.wait(other.remove([other.entries[0].uid]))
            self.wait(other.release())

        self.world.fault("get", "l/", error=None, do=others_end, once=True)
        mailbox = self.wait(self.world.server().store.open("ann"))
        self.assertEqual([other.entries[1].uid], [entry.uid for entry in mailbox.entries])

    def test_listing_fails(self) -> None:
        """Without a listing there is no session, and the lease is free again."""
        for error in (StoreTrouble, RuntimeError):
            self.world.faults = [Fault("list", error=error)]
            self.fails(error, self.store.open, "ann")
            self.assertEqual(FREE, self.lease().state)
        self.world.faults = []
        self.wait(self.store.open("ann"))

    def test_given_up(self) -> None:
        """Who leaves leaves no lease behind, wherever the opening is; and is told at once."""
        for function, prefix in (("get", "a/"), ("get", "l/"), ("put", "l/"), ("list", "")):
            for after in (False, True):
                opening = self.store.open("ann")
                told = self.failureResultOf  # when the client has gone
                self.world.faults = [Fault(function, prefix, after, None, opening.cancel, once=True)]
                self.world.run()
                self.assertEqual([], self.world.faults)
                self.assertNotIsInstance(told(opening, Refusal).value, StoreTrouble)
                self.assertEqual(FREE, self.lease().state)
        for begun in (False, True):
            self.world.calls.clear()
            opening = self.store.open("ann")
            if begun:
                # The thread has done its work; that is known when the reactor gets to it.
                result, work, args = self.server.threads.jobs.pop()
                outcome = work(*args)
                self.server.threads.jobs.append((result, lambda outcome=outcome: outcome, ()))
            opening.cancel()
            self.failureResultOf(opening, Refusal)
            self.world.run()
            self.assertEqual(5 if begun else 0, len(self.world.calls))
            self.assertEqual(FREE, self.lease().state)
        self.assertEqual([], self.server.clock.getDelayedCalls())

    def test_bug_behind_one_who_left(self) -> None:
        """It is for the log: nobody else hears of it."""
        opening = self.store.open("ann")
        self.world.fault("list", error=RuntimeError)
        opening.cancel()
        self.failureResultOf(opening, Refusal)
        self.world.run()
        again = self.store.open("ann")
        self.world.faults = [Fault("get", "a/", error=RuntimeError, do=again.cancel)]
        with capturedLogs() as logs:
            self.world.run()
        self.assertEqual(1, len(logs))
        self.failureResultOf(again, Refusal)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_slow_listing(self) -> None:
        """A listing that takes longer than the lease lasts is no session."""
        self.world.fault("list", error=None, do=lambda: self.server.clock.advance(TTL))
        trouble = self.fails(StoreTrouble, self.store.open, "ann")
        self.assertIn("over", trouble.detail)
        self.assertEqual(FREE, self.lease().state)

    def test_no_maildrop(self) -> None:
        """One that was removed is none; one without its lease is in trouble, and never an empty one."""
        record = self.world.record("ann")
        key = lease_key(record.drop)
        engine = self.world.engine()
        found = engine.get(key)
        engine.swap(key, Lease("gone", "n", 1).encoded(), found.tag)
        self.fails(NoSuchMailbox, self.store.open, "ann")
        engine.swap(key, b"[]", engine.get(key).tag)
        self.fails(StoreTrouble, self.store.open, "ann")
        engine.delete([key])
        trouble = self.fails(StoreTrouble, self.store.open, "ann")
        self.assertNotIsInstance(trouble, NoSuchMailbox)
        self.assertIn("no lease", trouble.detail)

    def test_another_bucket(self) -> None:
        """A maildrop is where its record says, with its lease."""
        server = self.world.server()
        record = Users(WorldEngines(self.world, buckets=("other",))).make("bob")
        self.world.deliver("bob", A)
        mailbox = self.wait(server.store.open("bob"))
        self.assertEqual(1, len(mailbox.entries))
        self.assertEqual(
            "held", Lease.decoded(self.world.engine("other").get(lease_key(record.drop)).body).state
        )

    def test_lease_threads_of_its_bucket(self) -> None:
        """Leases are renewed, given back and tried again where those of their bucket are."""
        server = self.world.server()
        Users(WorldEngines(self.world, buckets=("other",))).make("bob")
        asked: list[str] = []

        def leases(bucket: str) -> Any:
            asked.append(bucket)
            return server.leases

        server.store._lease_threads_of = leases
        mailbox = self.wait(server.store.open("bob"))
        self.assertEqual(asked, ["other"])
        self.world.fault("put")
        self.wait(mailbox.release())
        self.world.passes(2)
        self.assertEqual(asked[:2], ["other", "other"])
        self.assertEqual({*asked}, {"other"})


class RemovingTests(WorldCase):
    """What QUIT does with messages that are marked."""

    def setUp(self) -> None:
        self.world = World("ann")
        self.server = self.world.server()

    def opened(self, count: int) -> Any:
        """A maildrop with so many messages."""
        for _ in range(count):
            self.world.deliver("ann", A)
        mailbox = self.wait(self.server.store.open("ann"))
        self.world.calls.clear()
        return mailbox

    def uids(self, mailbox: Any) -> list[bytes]:
        return [entry.uid for entry in mailbox.entries]

    def test_requests(self) -> None:
        """The lease is renewed; so many at a time are one request; then the lease is free."""
        mailbox = self.opened(2 * KEYS + 1)
        self.wait(mailbox.remove(self.uids(mailbox)))
        self.wait(mailbox.release())
        self.assertEqual(["put", "delete", "delete", "delete", "put"], self.world.calls)
        self.assertEqual([], self.world.names("ann"))

    def test_nothing_marked(self) -> None:
        """Nothing is asked for nothing."""
        mailbox = self.opened(1)
        self.assertIs(None, mailbox.remove([]))
        self.assertEqual([], self.world.calls)

    def test_repeated(self) -> None:
        """A request of which no answer came is made once more."""
        for after in (False, True):
            mailbox = self.opened(3)
            self.world.fault("delete", after=after, once=True)
            self.wait(mailbox.remove(self.uids(mailbox)[:1]))
            self.assertEqual(["put", "delete", "delete"], self.world.calls)
            self.wait(mailbox.release())
            self.assertEqual(self.uids(mailbox)[1:], [name.encode() for name in self.world.names("ann")])
            self.setUp()

    def test_fails(self) -> None:
        """What fails twice has failed; as many as are known are removed."""
        mailbox = self.opened(KEYS + 50)

        def second_fails() -> None:
            self.world.faults = [Fault("delete")]

        self.world.fault("delete", after=True, error=None, do=second_fails)
        trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
        self.assertEqual(KEYS, trouble.removed)
        self.assertEqual(50, len(self.world.names("ann")))
        self.wait(mailbox.release())
        self.assertEqual(FREE, self.lease().state)

    def test_renewed_meanwhile(self) -> None:
        """A removal that takes long does not outlast its lease."""
        mailbox = self.opened(3 * KEYS + 1)
        self.world.fault("delete", after=True, error=None, do=lambda: self.server.clock.advance(25))
        self.wait(mailbox.remove(self.uids(mailbox)))
        self.assertEqual(["put", "delete"] * 4, self.world.calls)

    def test_lost_before_it_is_repeated(self) -> None:
        """A request that failed is not made once more when the lease is another's by then."""
        mailbox = self.opened(2 * KEYS)

        def second_fails() -> None:
            self.server.clock.advance(RENEWAL - 1)
            self.world.fault("delete", do=others_take_it)

        def others_take_it() -> None:
            self.others_take_it()
            self.server.clock.advance(2)

        self.world.fault("delete", after=True, error=None, do=second_fails, once=True)
        trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
        self.assertEqual((KEYS, 2), (trouble.removed, self.world.calls.count("delete")))
        self.assertIn("another's by now", trouble.detail)

    def test_over_meanwhile(self) -> None:
        """When the lease is over in the middle, no more is removed."""
        mailbox = self.opened(3 * KEYS)
        self.world.fault("delete", after=True, error=None, do=lambda: self.server.clock.advance(TTL))
        trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
        self.assertEqual(KEYS, trouble.removed)
        self.assertEqual(2 * KEYS, len(self.world.names("ann")))

    def test_not_renewed(self) -> None:
        """Without a renewal nothing is removed, whatever is wrong."""
        for error in (StoreTrouble, Taken):
            mailbox = self.opened(1)
            self.world.faults = [Fault("put", error=error), Fault("get")]
            trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
            self.assertEqual(0, trouble.removed)
            self.assertNotIn("delete", self.world.calls)
            self.setUp()


#: Seconds after which requests that are not made at once are a failed test.
PATIENCE = 30.0


class AtOnceTests(WorldCase):
    """A removal of very many messages, several requests at once."""

    def setUp(self) -> None:
        self.world = World("ann", at_once=AT_ONCE)
        self.server = self.world.server()

    def opened(self, requests: int) -> Any:
        """A maildrop whose removal takes so many requests."""
        for _ in range(requests * KEYS):
            self.world.deliver("ann", A)
        mailbox = self.wait(self.server.store.open("ann"))
        self.world.calls.clear()
        return mailbox

    def uids(self, mailbox: Any) -> list[bytes]:
        return [entry.uid for entry in mailbox.entries]

    def together(self, do: Callable[[], None] = lambda: None, error: Any = None) -> threading.Barrier:
        """As many requests as may be at once wait for each other, and something is done when all are there.

        They are carried out before that.
        """
        barrier = threading.Barrier(AT_ONCE, do)
        self.world.fault("delete", after=True, error=error, do=lambda: barrier.wait(PATIENCE))
        return barrier

    def test_at_once(self) -> None:
        """So many requests are made at once, and never more; the lease is renewed before and given back."""
        mailbox = self.opened(3 * AT_ONCE)
        rounds: list[int] = []
        self.together(lambda: rounds.append(self.world.calls.count("delete")))
        self.wait(mailbox.remove(self.uids(mailbox)))
        self.wait(mailbox.release())
        self.assertEqual([AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE], rounds)
        self.assertEqual(["put", *["delete"] * 3 * AT_ONCE, "put"], self.world.calls)
        self.assertEqual([], self.world.names("ann"))
        self.assertEqual(FREE, self.lease().state)

    def test_renewed_once(self) -> None:
        """When a renewal is due for all of them, one makes it, and none asks for more before."""
        mailbox = self.opened(3 * AT_ONCE)
        self.together(lambda: self.server.clock.advance(25))
        self.wait(mailbox.remove(self.uids(mailbox)))
        self.assertEqual((["put"] + ["delete"] * AT_ONCE) * 3, self.world.calls)

    def test_over(self) -> None:
        """When the lease is over in the middle nothing more is asked for; what was, is known."""
        mailbox = self.opened(2 * AT_ONCE)
        self.together(lambda: self.server.clock.advance(TTL))
        trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
        self.assertEqual(AT_ONCE * KEYS, trouble.removed)
        self.assertEqual(AT_ONCE * KEYS, len(self.world.names("ann")))
        self.assertEqual(AT_ONCE, self.world.calls.count("delete"))
        self.assertIn("another's by now, or over", trouble.detail)

    def test_taken_over(self) -> None:
        """Nor when it is another's by then, which is seen at its renewal."""
        mailbox = self.opened(2 * AT_ONCE)

        def others_take_it() -> None:
            self.others_take_it()
            self.server.clock.advance(25)

        self.together(others_take_it)
        trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
        self.assertEqual(AT_ONCE * KEYS, trouble.removed)
        self.assertEqual(AT_ONCE, self.world.calls.count("delete"))
        self.assertEqual("other", self.lease().nonce)

    def test_one_fails(self) -> None:
        """Of several requests one fails, twice: as many as the others have removed are known to be."""
        mailbox = self.opened(AT_ONCE)
        last = message_key(self.world.record("ann").drop, self.uids(mailbox)[-KEYS].decode())
        self.world.fault("delete", last)
        trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
        self.assertEqual((AT_ONCE - 1) * KEYS, trouble.removed)
        self.assertEqual(self.uids(mailbox)[-KEYS:], [name.encode() for name in self.world.names("ann")])
        self.assertEqual(AT_ONCE + 1, self.world.calls.count("delete"))
        self.assertIn(f"of {AT_ONCE * KEYS} messages {trouble.removed} are known", trouble.detail)

    def test_killed(self) -> None:
        """All answers are lost, with what comes behind; the next session removes what is left."""
        mailbox = self.opened(2 * AT_ONCE)
        self.together(error=StoreTrouble)
        trouble = self.fails(StoreTrouble, mailbox.remove, self.uids(mailbox))
        self.assertEqual(0, trouble.removed)
        self.assertEqual(2 * AT_ONCE, self.world.calls.count("delete"))
        self.wait(mailbox.release())
        self.world.faults.clear()
        again = self.wait(self.world.server().store.open("ann"))
        self.assertEqual(self.uids(mailbox)[AT_ONCE * KEYS :], self.uids(again))
        self.wait(again.remove(self.uids(again)))
        self.assertEqual([], self.world.names("ann"))


class ContentsTests(SynchronousTestCase):
    """What a maildrop lists: unique-ids, wherever they come from."""

    def uids(self, *names: str) -> list[bytes]:
        contents = Contents(names, [1] * len(names))
        uids = list(contents.listing.uids)
        for at, (name, uid) in enumerate(zip(names, uids, strict=True)):
            self.assertEqual((at, name), (contents.place(uid), contents.name(contents.place(uid))))
            self.assertEqual(at + 1.0, contents.listing[at].arrived)
        return uids

    def test_from_elsewhere(self) -> None:
        """A message keeps the unique-id that it had."""
        names = [
            message_name(1_000_000, b"zebra.host"),
            f"{2_000_000:016x}{'0' * 16}",
            message_name(3_000_000, b"a"),
        ]
        self.assertEqual([b"zebra.host", names[1].encode(), b"a"], self.uids(*names))

    def test_alike(self) -> None:
        """Of unique-ids that differ by case alone the second is another, always the same; none vanishes."""
        ours = f"{4_000_000:016x}{'a' * 16}"
        names = [
            *(
                message_name(at * 1_000_000, uid)
                for at, uid in enumerate((b"Abc", b"abc", ours.upper().encode()), 1)
            ),
            ours,
        ]
        uids = self.uids(*names)
        self.assertEqual((b"Abc", ours.encode()), (uids[0], uids[3]))
        self.assertEqual(4, len({uid.lower() for uid in uids}))
        self.assertEqual(uids, self.uids(*names))

    def test_invalid(self) -> None:
        """What is no unique-id becomes one."""
        for uid in (b"a b", b"x" * 71, b"\xff"):
            (shown,) = self.uids(message_name(1_000_000, uid))
            self.assertRegex(shown.decode(), "^[0-9a-f]{40}$")

    def test_no_messages(self) -> None:
        """Objects that are none of ours are told of, and are no messages."""
        world = World("ann")
        world.deliver("ann", A)
        world.deliver("ann", B, name="README")
        with capturedLogs() as logs:
            mailbox = world.wait(world.server().store.view("ann"))
        self.assertEqual(1, len(mailbox.entries))
        self.assertEqual([1], [event["count"] for event in logs])

    def test_memory(self) -> None:
        """A session with very many messages holds their unique-ids and octets, and little else."""
        count = 20_000
        names = [f"{at:016x}{'0' * 16}" for at in range(count)]
        gc.collect()
        tracemalloc.start()
        try:
            contents = Contents(names, array("Q", range(count)))
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(count, len(contents.listing))
        self.assertLess(held, 100 * count)

    def test_many(self) -> None:
        """The chunk of a listing is no bound."""
        world = World("ann")
        for _ in range(2100):
            world.deliver("ann", A)
        self.assertEqual(2100, len(world.wait(world.server().store.view("ann")).entries))
        self.assertLess(limits.UID, 71)
