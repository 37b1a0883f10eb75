"""The lock of a maildrop among servers: who has it, how long, and what is known when an answer is lost."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import InUse, StoreTrouble
from pop3toy.stores.objects.connecting import Patience
from pop3toy.stores.objects.engine import Taken
from pop3toy.stores.objects.lease import (
    FREE,
    GONE,
    HELD,
    MARGIN,
    RENEWAL,
    TTL,
    Lease,
    Leases,
    Lost,
    Node,
    may_take,
)
from pop3toy.stores.objects.records import lease_key
from pop3toy.stores.server_process import ServerProcess

from ...objects_world import Fault, Server, World, WorldMixin

A, B = b"Subject: a\n\na\n", b"Subject: b\n\n.b\n"
#: As obstore's own second try tells it, whose first was carried out.
OWN_RETRY = {"after": True, "error": Taken}
ANSWER_LOST = {"after": True}


class JudgingTests(SynchronousTestCase):
    """Whose lease may be taken over."""

    def test_by_age(self) -> None:
        """One that was not renewed for as long as it lasts, and some more."""
        lease = Lease(HELD, "n", 1, "", "x")
        for age, may in ((-1e6, False), (0, False), (TTL + MARGIN - 0.1, False), (TTL + MARGIN, True)):
            self.assertEqual(may, may_take(lease, age, Node("", ServerProcess("y"))))

    def test_by_node(self) -> None:
        """That of the same node before it was started anew; of those without a name none is the same."""
        for theirs, (name, boot), may in (
            (("mx1", "x"), ("mx1", "y"), True),
            (("mx1", "x"), ("mx1", "x"), False),
            (("mx1", "x"), ("mx2", "y"), False),
            (("", "x"), ("", "y"), False),
        ):
            node = Node(name, ServerProcess(boot))
            self.assertEqual(may, may_take(Lease(HELD, "n", 1, *theirs), 0, node))

    def test_by_process(self) -> None:
        """Those of the same start that are dead, with a name and without; of others nothing is known."""
        process = ServerProcess("x", worker=1, ended=[2, 1])
        for worker, number, may in (
            (0, 0, True),
            (0, 1, True),
            # Alive, the asking one itself, and such as have been never.
            (0, 2, False),
            (1, 0, True),
            (1, 1, False),
            (2, 0, False),
            (-1, 0, False),
        ):
            for name in ("", "mx1"):
                lease = Lease(HELD, "n", 1, name, "x", worker, number)
                self.assertEqual(may, may_take(lease, 0, Node(name, process)), lease)
            self.assertFalse(may_take(lease._replace(node="", boot="y"), 0, Node("", process)))
        self.assertFalse(may_take(Lease(HELD, "n", 1, "", "x", 0, 2), 0, Node("", process)))
        process.ended = [3, 1]
        self.assertTrue(may_take(Lease(HELD, "n", 1, "", "x", 0, 2), 0, Node("", process)))

    def test_encoded(self) -> None:
        """What is written can be read; what is no lease is trouble."""
        lease = Lease(HELD, "n", 7, "mx1", "x", 1, 3)
        self.assertEqual(lease, Lease.decoded(lease.encoded()))
        of_old = b'{"state": "held", "nonce": "n", "seq": 7, "node": "mx1", "boot": "x"}'
        self.assertEqual(lease._replace(worker=0, process=0), Lease.decoded(of_old))
        for body in (
            b"",
            b"[]",
            b"{}",
            b"\xff",
            lease._replace(state="lent").encoded(),
            lease.encoded().replace(b"7", b'"7"'),
            lease.encoded().replace(b"7", b"true"),
            lease.encoded().replace(b"3", b'"3"'),
            b"[" * 100_000,
        ):
            self.assertRaises(StoreTrouble, Lease.decoded, body)


class LeaseCase(WorldMixin, SynchronousTestCase):
    """A maildrop with two messages, two servers, and a session on the first of them."""

    def setUp(self) -> None:
        self.world = World("ann")
        self.one, self.other = self.world.server("mx1", "x"), self.world.server("mx2", "y")
        self.names = [self.world.deliver("ann", message) for message in (A, B)]
        self.lost: list[str] = []
        self.mailbox = self.open(self.one)
        self.mailbox.when_lost(self.lost.append)
        self.world.calls.clear()

    def open(self, server: Server) -> Any:
        """A session on a server."""
        return self.wait(server.store.open("ann"))

    def refused(self, server: Server) -> None:
        """On this server the maildrop is in use."""
        self.fails(InUse, server.store.open, "ann")

    def remove(self) -> Any:
        """The session removes its first message."""
        return self.mailbox.remove([self.mailbox.entries[0].uid])

    def removes_nothing(self) -> None:
        """The session cannot remove anything any more."""
        self.assertEqual(0, self.fails(StoreTrouble, self.remove).removed)
        self.assertNotIn("delete", self.world.calls)
        self.assertEqual(self.names, self.world.names("ann"))


class LifeTests(LeaseCase):
    """From one end to the other."""

    def test_renewed(self) -> None:
        """A session may last, by one request each 20 seconds; others are told that it does."""
        for _ in range(5):
            self.world.calls.clear()
            self.world.passes(3 * RENEWAL)
            self.assertEqual(["put"] * 3, self.world.calls)
            self.refused(self.other)
        self.assertEqual([], self.lost)
        self.wait(self.mailbox.release())
        self.assertEqual([], self.one.clock.getDelayedCalls())
        self.assertEqual(2, len(self.open(self.other).entries))

    def test_released_twice(self) -> None:
        """Who asks twice waits for the same, and there is one request."""
        first, second = self.mailbox.release(), self.mailbox.release()
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.world.run()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(["put"], self.world.calls)

    def test_released_during_a_renewal(self) -> None:
        """Giving back waits for the renewal, and comes behind it."""
        self.one.hangs = True
        self.world.passes(RENEWAL)
        released = self.mailbox.release()
        self.assertNoResult(released)
        self.one.hangs = False
        self.world.run()
        self.successResultOf(released)
        self.assertEqual(["put", "put"], self.world.calls)
        self.assertEqual((FREE, 2), (self.lease().state, self.lease().seq - 1))
        self.assertEqual([], self.one.clock.getDelayedCalls())

    def test_removal_during_a_renewal(self) -> None:
        """A removal waits for the renewal too."""
        self.one.hangs = True
        self.world.passes(RENEWAL)
        removed = self.remove()
        self.one.hangs = False
        self.world.run()
        self.successResultOf(removed)
        self.assertEqual(["put", "put", "delete"], self.world.calls)

    def test_dead(self) -> None:
        """The lease of a server that has died is another's after a while, and not before."""
        self.one.stop()
        self.world.passes(TTL + MARGIN - 1)
        self.refused(self.other)
        self.world.passes(1)
        self.assertEqual(2, len(self.open(self.other).entries))

    def test_started_anew(self) -> None:
        """A server with a name gets what was its own back at once, and only that."""
        self.one.stop()
        self.refused(self.world.server("mx2", "z"))
        self.refused(self.world.server("", "z"))
        # Another of its workers.
        self.refused(self.world.server("mx1", "x"))
        self.assertEqual(2, len(self.open(self.world.server("mx1", "z")).entries))

    def test_worker_dead(self) -> None:
        """What a worker held that died is another's, and its own next one's, once that is told; of one that
        is stopped it is not."""
        for name in ("", "mx1"):
            dies, sibling = (ServerProcess("s", worker, [0, 0]) for worker in range(2))
            for next_one in (False, True):
                self.wait(self.mailbox.release())
                first = self.world.server(name, process=dies)
                second = self.world.server(name, process=sibling)
                self.mailbox = self.open(first)
                first.stop()
                self.refused(second)
                sibling.ended = [sibling.ended[0] + 1, 0]
                dies = ServerProcess("s", 0, sibling.ended)
                # Other servers know nothing of it.
                self.refused(self.world.server("mx2"))
                self.mailbox = self.open(self.world.server(name, process=dies) if next_one else second)
                self.refused(self.world.server("mx2"))

    def test_worker_of_a_new_start(self) -> None:
        """A server that is started anew takes what any of its workers held, but nothing of the new ones."""
        self.wait(self.mailbox.release())
        old = self.world.server("mx1", process=ServerProcess("s", 1, [4, 4]))
        self.open(old)
        old.stop()
        new, sibling = (
            self.world.server("mx1", process=ServerProcess("t", worker, [0, 0])) for worker in range(2)
        )
        self.open(new)
        self.refused(sibling)

    def test_late_renewal_of_a_dead_worker(self) -> None:
        """What a dead worker has asked for delays who takes its lease, or does nothing any more."""
        for before in (True, False):
            self.setUp()
            dead, sibling = (ServerProcess("s", worker, [0, 0]) for worker in range(2))
            self.wait(self.mailbox.release())
            first, second = (self.world.server(process=one) for one in (dead, sibling))
            self.open(first)
            late: list[Any] = []
            engine: Any = self.world.engine()
            swap = engine.swap

            def asked(*args: Any, late: list[Any] = late) -> Any:
                late.append(args)
                raise StoreTrouble(detail="on its way")

            engine.swap = asked
            self.world.passes(RENEWAL)
            engine.swap = swap
            first.stop()
            sibling.ended = [1, 0]
            if before:
                # Between the other's look and its change.
                self.world.fault("put", error=None, do=partial(swap, *late[0]), once=True)
            self.world.calls.clear()
            mailbox = self.open(second)
            self.assertEqual(3 if before else 1, self.world.calls.count("put"))
            self.assertRaises(Taken, swap, *late[0])
            self.assertEqual(("s", 1, 0), (self.lease().boot, self.lease().worker, self.lease().process))
            self.wait(mailbox.release())

    def test_knows_the_time(self) -> None:
        """Before a lease is called old, the storage's clock is looked at; for a free one it is not."""
        self.refused(self.other)
        self.assertEqual((0, 1), (self.one.engines.learnt, self.other.engines.learnt))


class LosingTests(LeaseCase):
    """When the lease is another's."""

    def test_stopped(self) -> None:
        """Who comes to himself with a lease that is another's removes nothing, and gives nothing away."""
        self.one.stop()
        self.world.passes(TTL + MARGIN)
        theirs = self.open(self.other)
        self.one.go_on()
        self.world.run()
        self.assertEqual(["the lease could not be renewed"], self.lost)
        self.removes_nothing()
        self.wait(self.mailbox.release())
        self.refused(self.world.server())
        self.wait(theirs.release())
        self.assertEqual(FREE, self.lease().state)

    def test_stopped_with_its_clock(self) -> None:
        """A machine that was frozen knows nothing of the time: the renewal before UPDATE tells it."""
        self.one.stop()
        self.world.passes(TTL + MARGIN)
        self.open(self.other)
        self.one.stopped = None
        self.removes_nothing()

    def test_over_and_nobody_came(self) -> None:
        """A lease that is over is over, though nobody has taken it."""
        self.one.stop()
        self.world.passes(TTL)
        self.one.stopped, slept = None, self.one.stopped or 0.0
        # The timer has not come yet.
        self.one.clock.rightNow += slept
        self.removes_nothing()
        self.assertNotIn("put", self.world.calls)

    def test_told(self) -> None:
        """It is found by the next renewal; once, and not by who only asks."""
        self.open(self.world.server("mx1", "z"))
        self.world.passes(RENEWAL - 1)
        self.assertEqual([], self.lost)
        self.world.passes(1)
        self.assertEqual(["somebody else has taken the lease"], self.lost)
        self.removes_nothing()
        self.world.passes(200)
        self.assertEqual(1, len(self.lost))
        self.assertEqual([], self.one.clock.getDelayedCalls())

    def test_told_to_one_who_asks_later(self) -> None:
        """What was lost before anybody asked is told, and not within the asking."""
        self.world.server()
        mailbox = self.mailbox
        mailbox.when_lost(lambda why: None)
        self.one.hangs = True
        self.world.passes(TTL)
        later: list[str] = []
        mailbox.when_lost(later.append)
        self.assertEqual([], later)
        self.one.clock.advance(0)
        self.assertEqual(["the lease could not be renewed"], later)

    def test_lost_while_it_is_released(self) -> None:
        """Whoever gives it back need not hear of it."""
        self.open(self.world.server("mx1", "z"))
        self.wait(self.mailbox.release())
        self.world.passes(TTL)
        self.assertEqual([], self.lost)
        self.assertEqual(HELD, self.lease().state)

    def test_removed_by_an_administrator(self) -> None:
        """A lease that is not there, or gone, is lost as well."""
        for gone in (False, True):
            key = lease_key(self.world.record("ann").drop)
            engine = self.world.engine()
            if gone:
                engine.swap(key, Lease(GONE, "n", 1).encoded(), engine.get(key).tag)
            else:
                engine.delete([key])
            self.world.passes(RENEWAL)
            self.assertEqual(["somebody else has taken the lease"], self.lost)
            self.setUp()


class TroubleTests(LeaseCase):
    """Requests that fail, hang, or lose their answers."""

    def test_fails(self) -> None:
        """A renewal that fails is tried again soon; the lease is lost when its time is over."""
        with capturedLogs() as logs:
            self.world.passes(1)
            self.world.fault("put")
            self.world.passes(RENEWAL)
            self.world.faults.clear()
            self.world.passes(5)
            self.world.fault("put")
            self.world.passes(TTL - 6)
            self.assertEqual([], self.lost)
            self.world.passes(10)
        self.assertEqual(["the lease could not be renewed"], self.lost)
        self.assertEqual([], logs)
        self.world.faults.clear()
        self.world.calls.clear()
        self.removes_nothing()

    def test_hangs(self) -> None:
        """A renewal without an answer is no renewal; there is one at a time."""
        self.one.hangs = True
        self.world.passes(TTL - 1)
        self.assertEqual([], self.lost)
        self.assertEqual(1, len(self.one.leases.jobs))
        self.world.passes(1)
        self.assertEqual(["the lease could not be renewed"], self.lost)
        released = self.mailbox.release()
        self.one.hangs = False
        self.world.run()
        self.successResultOf(released)
        self.assertEqual(FREE, self.lease().state)

    def test_hangs_at_quit(self) -> None:
        """What hangs when a session ends is asked once, since a client waits; what fails at once, again."""

        def hang() -> None:
            self.one.clock.advance(Patience().request)

        for function, requests in (("put", ["put"]), ("delete", ["put", "delete"])):
            for do, asked in (
                (hang, requests),
                (lambda: None, [*requests, {"put": "get"}.get(function, function)]),
            ):
                self.setUp()
                mine = [entry.uid for entry in self.mailbox.entries]
                self.world.fault(function, do=do)
                self.world.calls.clear()
                self.fails(StoreTrouble, self.mailbox.remove, mine)
                self.assertEqual(asked, self.world.calls)
                self.world.faults.clear()
                self.wait(self.mailbox.release())
                self.assertEqual(FREE, self.lease().state)

    def test_bug(self) -> None:
        """What is no trouble of the storage is for the log, and the lease is renewed all the same later."""
        self.world.fault("put", error=RuntimeError, once=True)
        self.world.passes(3 * TTL)
        self.assertEqual([], self.lost)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_answers_lost(self) -> None:
        """A change of which no answer came has been made, or not: who looks again knows."""
        for how in (ANSWER_LOST, OWN_RETRY):
            self.world.fault("put", **how)
            self.world.passes(2 * TTL)
            self.assertEqual([], self.lost)
            self.wait(self.remove())
            self.wait(self.mailbox.release())
            self.assertEqual(FREE, self.lease().state)
            again = self.open(self.other)
            self.assertEqual(self.names[1:], [entry.uid.decode() for entry in again.entries])
            self.setUp()

    def test_nothing_known(self) -> None:
        """A change of which nothing can be known counts when it is seen later, and not as a renewal."""
        self.world.fault("put", after=True)
        self.world.fault("get")
        self.world.passes(RENEWAL)
        self.world.faults.clear()
        self.world.calls.clear()
        self.world.passes(5)
        # Its own renewal is in the way; the second try is from that on.
        self.assertEqual(["put", "get", "put"], self.world.calls)
        self.world.passes(2 * TTL)
        self.assertEqual([], self.lost)

    def test_late(self) -> None:
        """A renewal that takes effect when it is given back already does nothing."""
        key = lease_key(self.world.record("ann").drop)
        late: list[Any] = []
        engine: Any = self.world.engine()
        swap = engine.swap

        def delayed(*args: Any) -> Any:
            late.append(args)
            engine.swap = swap
            raise StoreTrouble(detail="too late")

        engine.swap = delayed
        self.world.passes(RENEWAL)
        self.wait(self.mailbox.release())
        self.assertRaises(Taken, swap, *late[0])
        self.assertEqual((FREE, key), (self.lease().state, late[0][0]))

    def test_acquisition_unknown(self) -> None:
        """An acquisition without an answer is one, if it was made."""
        self.wait(self.mailbox.release())
        for how in (ANSWER_LOST, OWN_RETRY):
            self.world.fault("put", once=True, **how)
            mailbox = self.open(self.other)
            self.refused(self.one)
            self.world.passes(2 * TTL)
            self.refused(self.one)
            self.wait(mailbox.release())

    def test_acquisition_fails(self) -> None:
        """One that was not made may not be made later, when nobody waits for it."""
        self.wait(self.mailbox.release())
        before = self.lease()
        self.world.fault("put", once=True)
        self.fails(StoreTrouble, self.other.store.open, "ann")
        self.assertEqual(FREE, self.lease().state)
        self.assertNotEqual(before, self.lease())

    def test_held_by_nobody(self) -> None:
        """What may be held by nobody is freed as soon as that can be done; here it is free at once."""
        self.wait(self.mailbox.release())
        for seconds in (2, 50):
            self.world.faults = [
                Fault("put", "l/", after=True, do=lambda: self.world.fault("get", "l/"), once=True),
            ]
            self.fails(StoreTrouble, self.other.store.open, "ann")
            self.world.faults = [Fault("put")]
            self.assertEqual(HELD, self.lease().state)
            self.world.passes(seconds)
            self.world.faults = []
            if seconds == 2:
                self.refused(self.one)
                self.wait(self.open(self.other).release())
            self.world.passes(20)
            self.wait(self.open(self.one).release())
            self.assertEqual([], self.other.clock.getDelayedCalls())

    def test_release_unknown(self) -> None:
        """A release that fails is tried again behind the session's back, as long as that matters."""
        self.world.fault("put")
        self.wait(self.mailbox.release())
        self.assertEqual(HELD, self.lease().state)
        self.refused(self.other)
        self.world.passes(10)
        self.world.faults.clear()
        self.world.passes(10)
        self.assertEqual(FREE, self.lease().state)
        self.assertEqual([], self.one.clock.getDelayedCalls())

    def test_never_released(self) -> None:
        """When others take it by themselves, it is left alone."""
        self.world.fault("put")
        self.wait(self.mailbox.release())
        self.world.passes(TTL + MARGIN)
        self.assertEqual([], self.one.clock.getDelayedCalls())
        self.assertEqual(6, self.world.calls.count("put") - 1)

    def test_taken_in_between(self) -> None:
        """Who was not the first looks again: in use, or free by then."""
        self.wait(self.mailbox.release())
        third = self.world.server()

        def and_back() -> None:
            self.wait(third.store.open("ann"))

        self.world.fault("put", error=None, do=and_back, once=True)
        self.refused(self.other)
        self.setUp()
        self.wait(self.mailbox.release())
        third = self.world.server()
        self.world.fault("put", error=None, do=lambda: self.wait(self.open(third).release()), once=True)
        self.assertEqual(2, len(self.open(self.other).entries))

    def test_taken_all_the_while(self) -> None:
        """It is not tried for ever."""
        self.wait(self.mailbox.release())
        self.world.fault("put", error=Taken)
        self.world.calls.clear()
        self.refused(self.other)
        self.assertEqual(3, self.world.calls.count("put"))


class BuryingTests(SynchronousTestCase):
    """What the administration does with a lease."""

    def setUp(self) -> None:
        self.world = World("ann")
        server = self.world.server()
        self.leases = Leases(server.engines, Node("", ServerProcess("x")), server.clock.seconds)
        self.engine = self.world.engine()
        self.drop = self.world.record("ann").drop

    def test_buried(self) -> None:
        """A maildrop that is gone stays so; saying it twice is harmless."""
        held = self.leases.acquire(self.engine, self.drop)
        self.world.fault("put", after=True, do=lambda: self.world.fault("get"), once=True)
        self.assertRaises(StoreTrouble, held.bury)
        self.world.faults.clear()
        held.bury()
        self.assertEqual(GONE, Lease.decoded(self.engine.get(lease_key(self.drop)).body).state)
        self.assertRaises(StoreTrouble, self.leases.acquire, self.engine, self.drop)

    def test_lost(self) -> None:
        """Not by one whose lease is another's."""
        held = self.leases.acquire(self.engine, self.drop)
        held.free()
        self.leases.acquire(self.engine, self.drop)
        self.assertRaises(Lost, held.bury)
        self.assertRaises(Lost, held.renew)
        held.free()
        self.assertRaises(InUse, self.leases.acquire, self.engine, self.drop)
