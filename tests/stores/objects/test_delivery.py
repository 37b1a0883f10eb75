"""Delivery into object storage: one request makes a message visible; faults and others come at any moment."""

from __future__ import annotations

import contextlib
import gc
import re
import tempfile
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import NoSuchMailbox, OverQuota, StoreFull, StoreTrouble
from pop3toy.interfaces import MaybeDeferred
from pop3toy.net.threads import run_now
from pop3toy.stores.objects.admin import ObjectAdmin
from pop3toy.stores.objects.engine import NoSuchObject
from pop3toy.stores.objects.incoming import delivery as module
from pop3toy.stores.objects.incoming import sums
from pop3toy.stores.objects.incoming.delivery import IN_MEMORY, PIECE, ObjectDelivery
from pop3toy.stores.objects.incoming.sums import KEPT, SURE
from pop3toy.stores.objects.records import messages_prefix, told_key, user_key
from pop3toy.stores.objects.users import Users

from ...corpus import wire_form
from ...objects_world import Server, World, WorldMixin, stored
from ...store_contract import DeliveryContract
from ...store_world import open_descriptors

A, B = b"Subject: a\n\na\n", b"Subject: b\r\n\r\nb b\r\n"
LARGE = b"Subject: large\n\n" + b"0123456789abcde\n" * (3 * IN_MEMORY // 16)


class ObjectDeliveryContract(WorldMixin, DeliveryContract):
    """The contract, over any object storage: a class that mixes it in says which one."""

    def new_world(self, *users: str) -> World:
        """A storage without mail, and users with maildrops in it."""
        raise NotImplementedError

    def delivery(self) -> tuple[Any, Any]:
        """See :class:`DeliveryContract`."""
        self.world = self.new_world()
        server = self.world.server()
        for user in self.USERS:
            Users(server.engines).make(user)
        return server.store, delivery_of(server)

    def break_maildrop(self, store: Any, user: str) -> None:
        """See :class:`DeliveryContract`: the record cannot be read any more."""
        main = self.world.engine()
        main.delete([user_key(user)])
        main.create(user_key(user), b"{")


def delivery_of(server: Server, **named: Any) -> ObjectDelivery:
    """The delivery of a server."""
    users = Users(server.engines, clock=server.clock.seconds)
    return ObjectDelivery(
        server.engines, users, server.clock, run_for=lambda user: server.threads, host="mx", **named
    )


class MemoryContractTests(ObjectDeliveryContract, SynchronousTestCase):
    """The contract, over obstore's storage in memory."""

    def new_world(self, *users: str) -> World:
        """See :class:`ObjectDeliveryContract`."""
        return World(*users)


class RemovedContractTests(MemoryContractTests):
    """The contract, where maildrops break by being removed."""

    def break_maildrop(self, store: Any, user: str) -> None:
        """See :class:`DeliveryContract`."""
        users = Users(self.world.server().engines)
        users.forget_maildrop(users.find(user))


class _Case(WorldMixin, SynchronousTestCase):
    """Users, and a delivery."""

    USERS = ("ann", "bob", "cat")

    def setUp(self) -> None:
        """Three maildrops without mail."""
        # What other tests have left behind has descriptors.
        gc.collect()
        self.new()

    def new(self, **named: Any) -> None:
        """Another storage, with a server."""
        self.world = World(*self.USERS)
        self.server = self.world.server()
        self.delivery = delivery_of(self.server, **named)

    def quota(self, user: str) -> MaybeDeferred[int | None]:
        """A quota of each."""
        return 1000

    def begun(self, *users: str, message: bytes = A) -> Any:
        """A message that is written."""
        incoming = self.wait(self.delivery.begin(users or ("ann",)))
        for at in range(0, len(message), 50_000):
            self.wait(incoming.write(message[at : at + 50_000]))
        return incoming

    def deliver(self, *users: str, message: bytes = A, **how: Any) -> Sequence[Any]:
        """Deliver a message."""
        uids: Sequence[Any] = self.wait(self.begun(*users, message=message).commit(**how))
        return uids

    def kept(self, user: str = "ann") -> list[bytes]:
        """The messages of a user as they are kept, wherever the user's record leads to."""
        record = self.world.record(user)
        engine = self.world.engine(record.bucket)
        prefix = messages_prefix(record.drop)
        return [engine.get(f"{prefix}/{one.name}").body for one in engine.list(prefix)]

    def everything(self) -> int:
        """The number of messages in the whole storage."""
        return len(self.world.engine().list("m"))

    def at(self, number: int, **what: Any) -> None:
        """Something happens to the call with this number from now on, from 1 on."""
        self.world.fault("", at=len(self.world.calls) + number, **what)


class RequestTests(_Case):
    """What a delivery asks of the storage."""

    def test_requests(self) -> None:
        """A delivery and its check are two GETs and a PUT for each user; one GET more if it comes late."""
        self.wait(self.delivery.check("ann"))
        self.assertEqual(["get"], self.world.calls)
        self.deliver()
        self.assertEqual(["get", "put", "get"], self.world.calls)
        self.world.calls.clear()
        self.wait(self.delivery.check("ann"))
        self.world.passes(30)
        self.deliver()
        self.assertEqual(["get", "get", "put", "get"], self.world.calls)

    def test_check_asks_each_time(self) -> None:
        """A check does not believe an earlier one."""
        self.wait(self.delivery.check("ann"))
        users = Users(self.server.engines)
        users.forget_maildrop(users.find("ann"))
        self.fails(NoSuchMailbox, self.delivery.check, "ann")

    def test_name(self) -> None:
        """A message is called by the storage's time and a hash, and sorts behind all before it."""
        self.assertEqual(b"%016x" % int(self.world.now * 1e6), self.deliver()[0][:16])
        uids = [self.deliver()[0] for _ in range(5)]
        self.assertEqual(sorted(uids), uids)
        self.assertEqual(5, len({uid[16:] for uid in uids}))
        self.assertTrue(all(re.fullmatch(rb"[0-9a-f]{32}", uid) for uid in uids))
        # The clock is set back.
        self.server.engines.ahead = -3600
        self.assertTrue(uids[-1] < self.deliver()[0])

    def test_time_is_learned(self) -> None:
        """The storage's time is asked for before a message gets its name."""
        self.deliver()
        self.assertEqual(1, self.server.engines.learnt)

    def test_made(self) -> None:
        """Where that is allowed a check makes a maildrop; several servers at once make one."""
        others = [self.world.server() for _ in range(3)]
        deliveries = [
            ObjectDelivery(
                server.engines,
                Users(server.engines, create=True),
                server.clock,
                run_for=lambda user, server=server: server.threads,
            )
            for server in others
        ]
        checks = [one.check("new") for one in deliveries]
        for check in checks:
            self.wait(check)
        for one in deliveries:
            self.wait(self.wait(one.begin(["new"])).commit())
        self.assertEqual(3, len(self.kept("new")))

    def test_buckets(self) -> None:
        """A message goes where the maildrop is."""
        self.server.engines.buckets = ("other",)
        Users(self.server.engines).make("dan")
        self.deliver("ann", "dan")
        self.assertEqual(1, len(self.world.engine("other").list("m")))
        self.assertEqual([wire_form(A)], self.kept("dan"))

    def test_bug(self) -> None:
        """A programming error is told as that, and nothing is left of the message."""
        self.at(3, error=lambda: ZeroDivisionError("bug"))
        incoming = self.begun("ann", "bob")
        self.fails(ZeroDivisionError, lambda: incoming.commit(together=False))
        self.assertEqual(0, self.everything())


class FaultTests(_Case):
    """Whatever goes wrong at whatever moment."""

    def test_lost_answer(self) -> None:
        """A message that the storage has already by our own request is delivered, once."""

        def twice(function: str, *args: Any, **named: Any) -> Any:
            # As the library repeats a request whose answer was lost.
            if function == "put":
                put(function, *args, **named)
            return put(function, *args, **named)

        engine = self.world.engine()
        put = engine.call
        self.patch(engine, "call", twice)
        (uid,) = self.deliver()
        self.assertEqual([wire_form(A)], self.kept())
        self.assertEqual([uid.decode()], self.world.names("ann"))

    def test_faults(self) -> None:
        """Whichever call fails, before or behind: delivered once, or refused and not there."""
        for users in (["ann"], ["ann", "bob", "cat"]):
            for together in (True, False):
                for after in (False, True):
                    for call in range(1, 13):
                        self.fault(users, together, after, call)

    def fault(self, users: Sequence[str], together: bool, after: bool, call: int) -> None:
        """One fault."""
        self.new()
        incoming = None
        self.at(call, after=after)
        try:
            incoming = self.wait(self.delivery.begin(users))
            self.wait(incoming.write(A))
            uids = self.wait(incoming.commit(together=together))
        except StoreTrouble:
            uids = [StoreTrouble()] * len(users)
        self.world.faults.clear()
        for user, uid in zip(users, uids, strict=True):
            self.assertEqual([] if isinstance(uid, StoreTrouble) else [uid.decode()], self.world.names(user))
        if together:
            self.assertEqual(1, len({isinstance(uid, StoreTrouble) for uid in uids}))

    def test_storage_goes_away(self) -> None:
        """What cannot be taken back, because the storage has gone, is told in the log; nothing is lost."""
        for after in (False, True):
            for call in range(1, 4):
                self.new()
                self.at(call, after=after)
                for later in range(call + 1, 20):
                    self.at(later)
                told = False
                with capturedLogs() as logs, contextlib.suppress(StoreTrouble):
                    self.deliver()
                    told = True
                self.world.faults.clear()
                names = self.world.names("ann")
                said = [formatEvent(event) for event in logs]
                self.assertFalse(told)
                self.assertTrue(not names or any(names[0] in line for line in said), (call, after))

    def test_killed(self) -> None:
        """When the process ends at any moment, what the sender sends again is there once, or twice."""

        class Killed(BaseException):
            """SIGKILL: nothing is done any more."""

        for after in (False, True):
            for call in range(1, 4):
                self.new()
                for later in range(call, 20):
                    self.at(later, after=after and later == call, error=Killed)
                begun = self.delivery.begin(["ann"])
                ends: list[Any] = []

                async def delivered(begun: Any = begun) -> None:
                    incoming = await begun
                    incoming.write(A)
                    await incoming.commit()

                Deferred.fromCoroutine(delivered()).addBoth(ends.append)
                self.world.run()
                self.assertIsInstance(ends[0], Failure)
                self.world.faults.clear()
                self.server = self.world.server()
                self.delivery = delivery_of(self.server)
                self.deliver()
                self.assertIn(len(self.world.names("ann")), (1, 2))
                self.assertEqual({wire_form(A)}, {*self.kept()})

    def test_together(self) -> None:
        """When one of several cannot have it nobody keeps it; without that the others do."""
        self.world.fault("put", messages_prefix(self.world.record("bob").drop))
        self.fails(StoreTrouble, self.begun(*self.USERS).commit)
        self.assertEqual(0, self.everything())
        uids = self.deliver(*self.USERS, together=False)
        self.assertIsInstance(uids[1], StoreTrouble)
        self.assertEqual([uids[0].decode()], self.world.names("ann"))
        self.assertEqual([uids[2].decode()], self.world.names("cat"))

    def test_looked_at_twice(self) -> None:
        """When the last look at the record fails it is tried again: the message is there."""
        incoming = self.begun()
        self.at(2)
        (uid,) = self.wait(incoming.commit())
        self.assertEqual([uid.decode()], self.world.names("ann"))

    def test_no_bucket(self) -> None:
        """A bucket that is not there is trouble."""
        incoming = self.begun()
        self.world.fault("put", error=NoSuchObject)
        self.fails(StoreTrouble, incoming.commit)


class RaceTests(_Case):
    """Others who remove the mailbox, or make one, between any two calls."""

    def test_removed(self) -> None:
        """A mailbox that is removed at any moment takes its mail with it, and the sender knows."""
        for call in range(1, 4):
            self.new()
            incoming = None
            # Its own calls come in between.
            admin = ObjectAdmin(self.server.engines, Users(self.server.engines))
            self.at(call, error=None, do=lambda admin=admin: admin.remove("ann"))
            try:
                incoming = self.begun()
                self.wait(incoming.commit())
            except NoSuchMailbox:
                pass
            else:
                self.fail("it was delivered")
            self.assertEqual([], self.world.faults[1:])
            self.assertEqual(0, self.everything())
            self.assertEqual([], self.world.engine().list("m"))

    def test_removed_and_made_again(self) -> None:
        """A message follows a user whose mailbox was removed and made again, at any moment."""

        def again() -> None:
            users = Users(self.server.engines)
            ObjectAdmin(self.server.engines, users).remove("ann")
            users.make("ann")

        for call in range(1, 4):
            self.new()
            self.at(call, error=None, do=again)
            uids = self.deliver("ann", "bob")
            self.assertEqual([uids[0].decode()], self.world.names("ann"))
            self.assertEqual(2, self.everything())

    @given(st.data())
    def test_any_order(self, data: st.DataObject) -> None:
        """Whatever happens between the calls of several deliveries: what was told is true."""
        self.new()
        threads = self.server.threads
        deliveries: list[tuple[str, Deferred[Any], list[Any]]] = []
        engines = self.server.engines
        users = Users(engines)
        removed: set[str] = set()

        def others() -> None:
            """What happens at the next call."""
            what = data.draw(st.sampled_from(["", "", "", "remove", "make", "fail", "lose"]))
            user = data.draw(st.sampled_from(self.USERS))
            calls, faults = len(self.world.calls), list(self.world.faults)
            self.world.faults.clear()
            try:
                if what == "remove" and users.get(user)[0].drop:  # type: ignore[index]
                    ObjectAdmin(engines, users).remove(user)
                    removed.add(user)
                elif what == "make":
                    users.make(user)
            finally:
                del self.world.calls[calls:]
                self.world.faults.extend(faults)
            if what == "fail":
                raise StoreTrouble(detail="no answer")
            if what == "lose":
                self.world.faults.clear()
                self.world.fault("", after=True, once=True)

        async def deliver(user: str) -> Any:
            incoming = await self.delivery.begin([user])
            incoming.write(A)
            return (await incoming.commit())[0]

        for user in data.draw(st.lists(st.sampled_from(self.USERS), min_size=1, max_size=4)):
            outcome: list[Any] = []
            result = Deferred.fromCoroutine(deliver(user))
            result.addBoth(outcome.append)
            deliveries.append((user, result, outcome))
        for call in range(1, 12):
            self.at(call, error=None, do=others, once=True)
        threads.run()
        self.world.faults.clear()
        for user in self.USERS:
            told = {
                outcome[0].decode()
                for to, _, outcome in deliveries
                if to == user and isinstance(outcome[0], bytes)
            }
            try:
                names = set(self.world.names(user)) if self.world.record(user).drop else set()
            except StoreTrouble:
                names = set()
            if user not in removed:
                # No mail is lost.
                self.assertTrue(told <= names)
            self.assertTrue(names <= told, "somebody has what the sender was told that it is not there")


class QuotaTests(_Case):
    """What fits, and what does not."""

    def setUp(self) -> None:
        """Users with quotas."""
        self.quotas: dict[str, int | None] = {"ann": 1000, "bob": 2000, "cat": None}
        self.new(quota=lambda user: succeed(self.quotas[user]))

    def of(self, octets: int) -> bytes:
        """A message of so many octets in wire form."""
        return b"Subject: x\r\n\r\n".ljust(octets - 2, b"x") + b"\r\n"

    def test_check(self) -> None:
        """A check tells what will not fit, with what the mailbox may hold in all."""
        self.wait(self.delivery.check("ann", 1000))
        refused = self.fails(OverQuota, self.delivery.check, "ann", 1001)
        self.assertEqual(1000, refused.holds)
        self.assertEqual("'ann' uses 0 of 1000 octets", refused.detail)
        self.wait(self.delivery.check("bob", 1001))
        self.wait(self.delivery.check("cat", 10**9))

    def test_full(self) -> None:
        """What is delivered counts at once; a mailbox that is full takes not even an unknown size."""
        self.deliver(message=self.of(600))
        self.assertEqual(600, ObjectAdmin(self.server.engines, Users(self.server.engines)).usage("ann"))
        self.fails(OverQuota, self.delivery.check, "ann", 401)
        self.fails(OverQuota, self.begun(message=self.of(401)).commit)
        self.deliver(message=self.of(400))
        self.fails(OverQuota, self.delivery.check, "ann")
        self.assertEqual([600, 400], [len(one) for one in self.kept()])

    def test_counted_now_and_then(self) -> None:
        """A listing counts for a while; for nobody who is refused, unless it is of the last seconds."""
        self.deliver(message=self.of(100))
        self.assertEqual(1, self.world.calls.count("list"))
        for _ in range(3):
            self.deliver(message=self.of(100))
        self.assertEqual(1, self.world.calls.count("list"))
        self.world.passes(KEPT + 1)
        self.deliver(message=self.of(100))
        self.assertEqual(2, self.world.calls.count("list"))
        for _ in range(5):
            self.fails(OverQuota, self.delivery.check, "ann", 900)
        self.assertEqual(2, self.world.calls.count("list"))
        # Its owner makes room, and hears of it soon.
        for name in self.world.names("ann"):
            self.world.take_away("ann", name)
        self.world.passes(SURE + 1)
        self.wait(self.delivery.check("ann", 900))

    def test_without_quotas(self) -> None:
        """Who has no quota has nothing counted."""
        self.deliver("cat")
        self.assertNotIn("list", self.world.calls)

    def test_larger_than_all(self) -> None:
        """What is larger than the largest mailbox is refused while it comes; with one unlimited it is not."""
        incoming = self.wait(self.delivery.begin(["ann", "bob"]))
        self.wait(incoming.write(self.of(1500)))
        refused = self.fails(OverQuota, incoming.write, b"x" * 1000)
        self.assertEqual(2000, refused.holds)
        self.fails(OverQuota, incoming.write, b"x")
        self.fails(OverQuota, incoming.commit)
        uids = self.deliver("ann", "bob", "cat", message=self.of(1500), together=False)
        self.assertEqual([True, False, False], [isinstance(uid, OverQuota) for uid in uids])
        self.assertEqual(0, self.delivery.in_memory)

    def test_taken_back(self) -> None:
        """What was not delivered in the end does not count."""
        self.world.fault("put", "m/")
        for _ in range(3):
            self.fails(StoreTrouble, self.begun(message=self.of(600)).commit)
        self.world.faults.clear()
        self.deliver(message=self.of(1000))

    def test_at_once(self) -> None:
        """Messages that come at the same time do not fit into the same room."""
        one, other = self.begun(message=self.of(600)), self.begun(message=self.of(600))
        results: list[Any] = []
        # The other one is committed while the first is on its way.
        fault = {"error": None, "do": lambda: self.server.threads.run(), "once": True}
        committing = [one.commit(), other.commit()]
        self.world.fault("put", "m/", **fault)
        self.world.run()
        for result in committing:
            result.addBoth(results.append)
        self.assertEqual(1, len(self.kept()))
        self.assertEqual(1, sum(not isinstance(result, list) for result in results))

    def test_unreadable_quota(self) -> None:
        """A quota that cannot be read is trouble of that user alone."""

        def quota(user: str) -> int | None:
            if user == "ann":
                raise StoreTrouble(detail="no quota")
            return None

        self.new(quota=quota)
        self.fails(StoreTrouble, self.delivery.check, "ann")
        uids = self.deliver("ann", "bob", together=False)
        self.assertEqual([True, False], [isinstance(uid, StoreTrouble) for uid in uids])

    def test_bounded(self) -> None:
        """What is known of maildrops is forgotten in time."""
        self.patch(sums, "_MOST", 2)
        for user in ("ann", "bob", "ann", "bob"):
            self.deliver(user)
            self.world.passes(KEPT + 1)
        self.quotas["cat"] = 500
        self.deliver("cat")
        self.assertTrue(len(self.delivery._sums._sums) <= 3)
        for number in range(5):
            Users(self.server.engines).make(str(number))
            self.quotas[str(number)] = 500
            self.deliver(str(number))
            self.world.passes(KEPT + 1)
        self.assertTrue(len(self.delivery._sums._sums) <= 3)


class LargeTests(_Case):
    """Messages that are not kept in memory."""

    def test_large(self) -> None:
        """A large message arrives whole, for several; nothing is left open, and nothing counted."""
        before = open_descriptors()
        self.deliver("ann", "bob", message=LARGE)
        self.assertEqual([wire_form(LARGE)], self.kept("ann"))
        self.assertEqual([wire_form(LARGE)], self.kept("bob"))
        self.assertEqual(0, self.delivery.in_memory)
        # The storage in memory goes on to use what it was given.
        self.new()
        gc.collect()
        self.assertEqual(before.keys(), open_descriptors().keys())

    def test_in_memory(self) -> None:
        """No message has more than its share in memory, and all together have theirs."""
        incoming = self.begun(message=LARGE)
        self.assertTrue(self.delivery.in_memory <= PIECE)
        incoming.abort()
        self.patch(module, "ALL_IN_MEMORY", 2 * IN_MEMORY)
        many = [self.begun(message=b"x" * (IN_MEMORY - 100)) for _ in range(10)]
        self.assertTrue(self.delivery.in_memory <= 2 * IN_MEMORY + 10 * PIECE + IN_MEMORY)
        for one in many:
            self.wait(one.commit())
        self.assertEqual(10, len(self.kept()))
        self.assertEqual(0, self.delivery.in_memory)

    def test_given_up(self) -> None:
        """A message that is given up, at rest or while it is written, leaves no file."""
        before = open_descriptors()
        self.begun(message=LARGE).abort()
        self.assertEqual(before, open_descriptors())
        for first in (b"", LARGE):
            incoming = self.begun(message=first)
            writing = incoming.write(LARGE)
            incoming.abort()
            self.wait(writing)
            self.assertEqual(before, open_descriptors())
        self.assertEqual(0, self.delivery.in_memory)

    def test_cancelled(self) -> None:
        """A commit that is cancelled leaves no file either."""
        before = open_descriptors()
        incoming = self.begun(message=LARGE)
        committing = incoming.commit()
        committing.cancel()
        self.failureResultOf(committing)
        self.server.threads.jobs.clear()
        gc.collect()
        self.assertEqual(before, open_descriptors())
        self.assertEqual(0, self.delivery.in_memory)
        self.deliver(message=LARGE)

    def test_refused_in_the_end(self) -> None:
        """Nor does one that nobody can have."""
        before = open_descriptors()
        incoming = self.begun(message=LARGE)
        self.world.fault("put", "m/")
        self.fails(StoreTrouble, incoming.commit)
        gc.collect()
        self.assertEqual(before, open_descriptors())

    def test_disk_is_full(self) -> None:
        """Without room for a temporary file a message is refused, and may come again."""

        def full() -> Any:
            return open("/dev/full", "wb")

        before = open_descriptors()
        self.patch(tempfile, "TemporaryFile", full)
        incoming = self.wait(self.delivery.begin(["ann"]))
        self.fails(StoreFull, incoming.write, LARGE)
        self.fails(StoreFull, incoming.write, A)
        self.fails(StoreFull, incoming.commit)
        self.assertEqual(before, open_descriptors())
        self.assertEqual(0, self.delivery.in_memory)

    def test_few_at_once(self) -> None:
        """Of large messages only some are sent at once; small ones do not wait for them."""
        begun = [self.begun(message=LARGE) for _ in range(module.FILES + 3)]
        small = self.begun()
        many = [one.commit() for one in begun]
        self.assertEqual(module.FILES, len(self.server.threads.jobs))
        committing = small.commit()
        self.assertEqual(module.FILES + 1, len(self.server.threads.jobs))
        self.world.run()
        self.successResultOf(committing)
        for one in many:
            self.successResultOf(one)
        self.assertEqual(module.FILES + 4, len(self.kept()))

    def test_many_users(self) -> None:
        """A message for very many users does not take all threads."""
        users = [str(number) for number in range(30)]
        for user in users:
            Users(self.server.engines).make(user)
        incoming = self.begun(*users)
        committing = incoming.commit()
        self.assertTrue(len(self.server.threads.jobs) <= 8)
        self.world.run()
        self.assertEqual(30, len(self.successResultOf(committing)))
        self.assertEqual(30, self.everything())

    def test_stored(self) -> None:
        """What is kept is what POP3 sends, however it came."""
        for message in (A, B, LARGE):
            self.deliver(message=message)
        self.assertEqual([stored(A), stored(B), stored(LARGE)], self.kept())


class CommandTests(_Case):
    """Without threads, as a command delivers."""

    def test_at_once(self) -> None:
        """All results are there at once, also of a large message; its host's name is this one's."""
        users = Users(self.server.engines)
        delivery = ObjectDelivery(self.server.engines, users, self.server.clock, run_for=lambda user: run_now)
        self.successResultOf(delivery.check("ann"))
        for message in (A, LARGE):
            incoming: Any = self.successResultOf(delivery.begin(["ann", "bob"]))
            written = incoming.write(message)
            if written is not None:
                self.successResultOf(written)
            self.assertEqual(2, len(self.successResultOf(incoming.commit())))
        self.assertEqual([wire_form(A), wire_form(LARGE)], self.kept())
        self.assertTrue(delivery._host)


class NearlyFullTests(_Case):
    """Who is told that a maildrop is nearly full, and how often."""

    def test_once_a_week(self) -> None:
        """From 90 % on, once a week, by one of several servers; the storage's trouble keeps no mail out."""
        told: list[tuple[str, int, int]] = []
        options: Any = {"quota": lambda user: 100, "nearly_full": lambda *words: told.append(words)}
        self.new(**options)

        def deliver(text: bytes, *, by: Any = None) -> None:
            incoming = self.wait((by or self.delivery).begin(["ann"]))
            self.wait(incoming.write(text))
            self.wait(incoming.commit())

        deliver(b"a: b\r\n\r\n" + b"x" * 78 + b"\r\n")
        self.assertEqual(told, [])
        deliver(b"\r\n")
        self.assertEqual(told, [("ann", 90, 100)])
        deliver(b"\r\n")
        another = delivery_of(self.server, **options)
        deliver(b"\r\n", by=another)
        self.assertEqual(len(told), 1)
        self.world.engine().delete([told_key(self.world.record("ann").drop)])
        deliver(b"\r\n", by=delivery_of(self.server, **options))
        self.assertEqual(told[1:], [("ann", 96, 100)])
        notice = self.wait(self.delivery.notice("ann"))
        self.wait(notice.write(b"x" * 200))
        self.wait(notice.commit())
        self.assertEqual(len(told), 2)
