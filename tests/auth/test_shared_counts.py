"""Counts in one process and in several: the same promises, and what only several can break."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.auth.throttle.counts import Counts, own_counts
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.auth.throttle.peer_workers import Neighbours
from pop3toy.auth.throttle.shared_counts import _SECRET, Crowds, SharedCounts
from pop3toy.errors import InUse, LoginDelay, StoreTrouble

EVIL, GOOD = "198.51.100.66", "192.0.2.7"


class CountsContract:
    """What every provider of counts promises."""

    assertEqual: Any

    def make(self) -> Counts:
        raise NotImplementedError

    def test_tally(self) -> None:
        """What was added and not removed is there, by key and in all."""
        tally = self.make().readers.connections
        for key in (EVIL, EVIL, GOOD):
            tally.add(key)
        tally.remove(EVIL)
        self.assertEqual((1, 1, 0, 2), (*map(tally.count, (EVIL, GOOD, "::1")), tally.total))

    def test_tallies_apart(self) -> None:
        """One kind of thing is not another."""
        counts = self.make()
        counts.readers.connections.add("x")
        counts.sessions.add("x")
        counts.sessions.add("x")
        self.assertEqual(
            [1, 0, 0, 2],
            [
                each.total
                for each in (
                    counts.readers.connections,
                    counts.readers.strangers,
                    counts.under_way,
                    counts.sessions,
                )
            ],
        )
        self.assertEqual(
            (1, 0, 2),
            (counts.readers.connections.count("x"), counts.under_way.count("x"), counts.sessions.count("x")),
        )

    def test_recent(self) -> None:
        """The last number that was written holds, with its time; 0 is as good as nothing."""
        recent = self.make().friends
        self.assertEqual(0, recent.get("ann")[0])
        recent.put("ann", 3, 10.0)
        recent.put("bob", 1, 11.5)
        recent.put("ann", 7, 12.0)
        self.assertEqual([(7, 12.0), (1, 11.5)], [recent.get("ann"), recent.get("bob")])
        recent.put("ann", 0, 13.0)
        self.assertEqual(0, recent.get("ann")[0])

    def test_recents_apart(self) -> None:
        """One memory is not another."""
        counts = self.make()
        counts.logins.put("ann", 1, 1.0)
        for other in (counts.friends, counts.user_failures, counts.address_failures):
            self.assertEqual(0, other.get("ann")[0])

    def test_flood(self) -> None:
        """Whoever is written down again and again is not forgotten for a flood of others."""
        recent = self.make().address_failures
        evil = [f"198.51.100.{number}" for number in range(100)]
        for number in range(60_000):
            recent.put(f"2001:db8:{number:x}::/64", 1, float(number))
            if number % 1000 == 0:
                for address in evil:
                    recent.put(address, number + 1, float(number))
        self.assertEqual({(59_001, 59_000.0)}, set(map(recent.get, evil)))
        self.assertEqual(1, recent.get(f"2001:db8:{59_999:x}::/64")[0])
        self.assertEqual(0, recent.get("2001:db8:0::/64")[0])

    def test_any_name(self) -> None:
        """Whatever a stranger claims to be called can be counted."""
        counts = self.make()
        for name in ("", "\udcff", "é" * 200, "a\0b"):
            counts.sessions.add(name)
            counts.user_failures.put(name, 2, 1.0)
            self.assertEqual((1, 2), (counts.sessions.count(name), counts.user_failures.get(name)[0]))


class OwnCountsTests(CountsContract, SynchronousTestCase):
    """One process."""

    def make(self) -> Counts:
        return own_counts()


class SharedCase(SynchronousTestCase):
    """Memory for three processes, all of them this one."""

    def shared(self, workers: int = 3, connections: int = 1000) -> SharedCounts:
        """New memory."""
        shared = SharedCounts.create(workers, connections)
        self.addCleanup(os.close, shared.descriptor)
        return shared

    def again(self, shared: SharedCounts, workers: int = 3, connections: int = 1000) -> SharedCounts:
        """The same as another process has it, which mapped it for itself."""
        return SharedCounts(shared.descriptor, workers, connections)


class SharedCountsTests(CountsContract, SharedCase):
    """One of several processes that is alone in counting."""

    def make(self) -> Counts:
        return self.shared().of(1)


class SeveralTests(SharedCase):
    """Several processes that count together."""

    def setUp(self) -> None:
        self.memory = self.shared()
        self.first, self.second, self.third = (self.again(self.memory).of(worker) for worker in range(3))

    def test_sum(self) -> None:
        """Each sees what all have counted."""
        self.first.readers.connections.add(EVIL)
        self.second.readers.connections.add(EVIL)
        self.second.readers.connections.add(GOOD)
        for counts in (self.first, self.second, self.third):
            self.assertEqual(
                (2, 1, 3),
                (
                    counts.readers.connections.count(EVIL),
                    counts.readers.connections.count(GOOD),
                    counts.readers.connections.total,
                ),
            )

    def test_last_word(self) -> None:
        """Of what several wrote the last holds, whoever wrote it, and 0 is a last word as well."""
        self.first.friends.put("ann", 3, 1.0)
        self.second.friends.put("ann", 2, 2.0)
        self.assertEqual(
            {(2, 2.0)}, {each.friends.get("ann") for each in (self.first, self.second, self.third)}
        )
        self.first.friends.put("ann", 0, 3.0)
        self.assertEqual(0, self.third.friends.get("ann")[0])

    def test_clear(self) -> None:
        """When a process is dead, what it had is not there any more; what happened stays."""
        for counts in (self.first, self.second):
            counts.readers.connections.add(EVIL)
            counts.sessions.add("ann")
        self.first.address_failures.put(EVIL, 5, 1.0)
        self.memory.to_spare(Crowds.READERS)[0][1] = 7.0
        self.memory.clear(0)
        self.assertEqual(
            (1, 1, 1),
            (
                self.third.readers.connections.count(EVIL),
                self.third.readers.connections.total,
                self.third.sessions.count("ann"),
            ),
        )
        self.assertEqual(5, self.third.address_failures.get(EVIL)[0])
        told = [list(one) for one in self.memory.to_spare(Crowds.READERS)]
        self.assertEqual([[0.0, 0.0]] * 3, told)

    def test_numbers(self) -> None:
        """No two sessions have one number, also after a process has died and another has taken its place."""
        given = []
        for worker in (0, 1, 2):
            numbers = self.again(self.memory).numbers(worker)
            given += [next(numbers) for _ in range(5)]
        self.memory.clear(1)
        numbers = self.again(self.memory).numbers(1)
        given += [next(numbers) for _ in range(5)]
        self.assertEqual(20, len(set(given)))
        self.assertEqual(1, min(given))

    def test_nobody_is_taken_for_another(self) -> None:
        """With a full server's 1,000 addresses, each has its own count."""
        addresses = [f"192.0.{number // 250}.{number % 250}" for number in range(1000)]
        for number, address in enumerate(addresses):
            (self.first, self.second)[number % 2].readers.connections.add(address)
        wrong = sum(self.third.readers.connections.count(address) != 1 for address in addresses)
        # One in sixty may share both of its counters with others.
        self.assertLess(wrong, 60)
        self.assertEqual(1000, self.third.readers.connections.total)

    def test_areas_apart(self) -> None:
        """No octet belongs to two things: what fills one of them to its edges is in no other."""
        secret = bytes(self.memory._memory[:_SECRET])
        numbers = [self.memory.numbers(worker) for worker in range(3)]
        given = [next(each) for each in numbers]
        for worker in range(3):
            for whose in Crowds:
                spare = self.memory.to_spare(whose)[worker]
                spare[0], spare[1] = 10.0 * worker + whose, 100.0 * worker + whose
        areas: list[memoryview] = []
        for counts in (self.first, self.second, self.third):
            heads = (counts.readers, counts.bringers)
            tallies = [tally for each in heads for tally in (each.connections, each.strangers)]
            areas.extend(tally._own for tally in (*tallies, counts.under_way, counts.sessions))  # type: ignore[attr-defined]
            for recent in (counts.address_failures, counts.user_failures, counts.friends, counts.logins):
                areas.extend(recent._own)  # type: ignore[attr-defined]
        self.assertEqual(3 * (6 + 4 * 3), len(areas))
        for mark, area in enumerate(areas, 1):
            area.cast("B")[:] = bytes([mark]) * area.nbytes
        for mark, area in enumerate(areas, 1):
            self.assertEqual(bytes([mark]) * area.nbytes, bytes(area.cast("B")), mark)
        self.assertEqual(secret, bytes(self.memory._memory[:_SECRET]))
        for whose in Crowds:
            told = [list(one) for one in self.memory.to_spare(whose)]
            self.assertEqual([[10.0 * w + whose, 100.0 * w + whose] for w in range(3)], told)
        self.assertEqual([number + 3 for number in given], [next(each) for each in numbers])

    def test_keyed(self) -> None:
        """Where a key is counted cannot be known beforehand."""
        keys = [f"192.0.2.{number}" for number in range(8)]
        one, other = (self.shared(1)._hashed for _ in range(2))
        self.assertNotEqual([one(key) for key in keys], [other(key) for key in keys])

    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.booleans()), max_size=40))
    def test_like_one(self, steps: list[tuple[int, str, bool]]) -> None:
        """Whoever counts what, all see what one process would have counted."""
        memory = SharedCounts.create(3, 1000)
        try:
            shared, own = [memory.of(worker) for worker in range(3)], own_counts()
            there: dict[tuple[int, str], int] = {}
            for time, (worker, key, come) in enumerate(steps, 1):
                if come:
                    shared[worker].sessions.add(key)
                    own.sessions.add(key)
                    there[worker, key] = there.get((worker, key), 0) + 1
                elif there.get((worker, key)):
                    shared[worker].sessions.remove(key)
                    own.sessions.remove(key)
                    there[worker, key] -= 1
                shared[worker].logins.put(key, time, float(time))
                own.logins.put(key, time, float(time))
                for name in "abc":
                    for counts in shared:
                        self.assertEqual(own.sessions.count(name), counts.sessions.count(name))
                        self.assertEqual(own.logins.get(name), counts.logins.get(name))
        finally:
            os.close(memory.descriptor)


class GuardsTests(SharedCase):
    """Guards of several processes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.memory = self.shared()

    def guards(self, **limits: Any) -> list[LoginThrottle]:
        """One for each process."""
        return [
            LoginThrottle(self.clock, LoginLimits(**limits), self.memory.of(worker)) for worker in range(3)
        ]

    def test_penalty(self) -> None:
        """Failures at whichever process make the next attempt wait at all, as long as at one."""
        guards, waits = self.guards(), []
        for number in range(10):
            waits.append({guard.penalty(EVIL, "x") for guard in guards})
            guards[number % 3].attempt(EVIL, f"user{number}").failed()
            self.clock.advance(1)
        self.assertEqual([{float(wait)} for wait in (0, 0, 0, 1, 2, 4, 8, 15, 15, 15)], waits)
        self.clock.advance(900)
        self.assertEqual([0.0] * 3, [guard.penalty(EVIL, "x") for guard in guards])

    def test_friend(self) -> None:
        """Who came in at one process is a friend at all, until he fails three times, wherever."""
        guards = self.guards()
        guards[0].attempt(GOOD, "ann").succeeded()
        for _ in range(9):
            self.clock.advance(1)
            guards[1].attempt(GOOD, "bob").failed()
        self.assertEqual((0, 15), (guards[2].penalty(GOOD, "ann"), guards[2].penalty(GOOD, "carl")))
        for guard in guards:
            self.assertEqual(0, guard.penalty(GOOD, "ann"))
            self.clock.advance(1)
            guard.attempt(GOOD, "ann").failed()
        self.assertEqual([15] * 3, [guard.penalty(GOOD, "ann") for guard in guards])

    def test_turns(self) -> None:
        """One address has only so many attempts under way, at whichever processes."""
        guards = self.guards(attempts_per_address=4)
        attempts = [guards[number % 3].attempt(EVIL, "ann") for number in range(4)]
        for attempt in attempts:
            attempt.start()
        for guard in guards:
            with self.assertRaises(StoreTrouble):
                guard.attempt(EVIL, "ann").start()
        attempts[0].dropped()
        self.assertIsNone(guards[2].attempt(EVIL, "ann").start())

    def test_sessions(self) -> None:
        """A user has only so many sessions, at whichever processes; those of a dead one are given back."""
        guards = self.guards(sessions_per_user=3)
        for guard in guards:
            guard.enter("ann")
        for guard in guards:
            self.assertRaises(InUse, guard.enter, "ann")
            guard.enter("bob")
            guard.left("bob")
        self.memory.clear(1)
        guards[0].enter("ann")
        self.assertRaises(InUse, guards[2].enter, "ann")

    def test_login_delay(self) -> None:
        """LOGIN-DELAY is from the last login at whichever process."""
        guards = self.guards(login_delay=60)
        guards[0].enter("ann")
        guards[0].opened("ann")
        guards[0].left("ann")
        self.clock.advance(59)
        self.assertRaises(LoginDelay, guards[1].enter, "ann")
        self.clock.advance(1)
        guards[1].enter("ann")


class CrowdsTests(SharedCase):
    """Crowds of several processes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = self.shared()
        self.turned_out: list[str] = []

    def crowds(self, **limits: int) -> list[ConnectionLimiter]:
        """One for each process."""
        crowds: list[ConnectionLimiter] = []

        def ask(other: int) -> None:
            # At once, where processes send a word.
            crowds[other].make_room()

        for worker in range(3):
            neighbours = Neighbours(self.memory, worker, Crowds.READERS, self.clock.seconds, ask)
            crowds.append(
                ConnectionLimiter(ConnectionLimits(**limits), self.memory.of(worker).readers, neighbours)  # type: ignore[arg-type]
            )
        return crowds

    def arrive(self, crowd: ConnectionLimiter, host: str) -> Any:
        """One more, a second later."""
        self.clock.advance(1)
        return crowd.arrive(host, lambda: self.turned_out.append(host))

    def test_per_address(self) -> None:
        """One address has only so many, through whichever processes; a dead one's are given back."""
        crowds = self.crowds(per_address=3)
        visits = [self.arrive(crowd, EVIL) for crowd in crowds]
        for crowd in crowds:
            with self.assertRaises(StoreTrouble):
                self.arrive(crowd, EVIL)
        self.arrive(crowds[0], GOOD)
        visits[0].left()
        self.arrive(crowds[2], EVIL)
        with self.assertRaises(StoreTrouble):
            self.arrive(crowds[0], EVIL)
        self.memory.clear(1)
        self.arrive(crowds[0], EVIL)

    def test_most_of_all(self) -> None:
        """When there are too many strangers, one of the network with the most has to go, wherever it is."""
        crowds = self.crowds(strangers=6)
        for worker, number in enumerate((1, 2, 3, 1, 1)):
            self.arrive(crowds[worker % 3], f"192.0.{number}.1")
        self.arrive(crowds[2], "192.0.3.2")
        self.arrive(crowds[0], "198.51.100.1")
        self.assertEqual(crowds[0].strangers, 6)
        [gone] = self.turned_out
        self.assertRegex(gone, r"192\.0\.[13]\.")

    def test_idle_go_first(self) -> None:
        """Before any stranger goes the longest idle of all processes; not where strangers are too many."""
        crowds = self.crowds(connections=6, strangers=4)
        idle = [self.arrive(crowds[worker], f"198.51.100.{worker}") for worker in (2, 1, 0)]
        for visit in (idle[1], idle[2], idle[0]):
            self.clock.advance(1)
            visit.logged_in()
            visit.idle()
        for number in range(3):
            self.arrive(crowds[0], f"192.0.{number}.1")
        for number in range(3, 5):
            self.arrive(crowds[number - 2], f"192.0.{number}.1")
        self.assertEqual(self.turned_out[0], "198.51.100.1")
        self.assertEqual((len(self.turned_out), crowds[0].strangers), (2, 4))
        self.assertNotIn("198.51.100.0", self.turned_out)

    def test_idle_elsewhere(self) -> None:
        """Idle strangers at one process neither keep a user out who comes to another nor send him away."""
        crowds = self.crowds(connections=5)
        for number in range(5):
            self.arrive(crowds[0], f"192.0.2.{number}")
        for number in range(5):
            self.arrive(crowds[1], f"198.51.100.{number}").logged_in()
        self.assertEqual([f"192.0.2.{number}" for number in range(5)], sorted(self.turned_out))
        self.assertEqual((5, 0), (crowds[2].connections, crowds[2].strangers))

    def test_readers_and_bringers(self) -> None:
        """A flood of mail at one process takes no reader's place at another."""
        crowds = self.crowds(connections=1)
        reader = self.arrive(crowds[0], GOOD)
        bringers = Neighbours(self.memory, 1, Crowds.BRINGERS, self.clock.seconds, self.fail)
        mail = ConnectionLimiter(ConnectionLimits(connections=1), self.memory.of(1).bringers, bringers)
        for _ in range(3):
            self.arrive(mail, EVIL)
        self.assertEqual([EVIL, EVIL], self.turned_out)
        reader.logged_in()

    def test_full_of_users(self) -> None:
        """When all places are taken by users of all processes, the next one is turned away everywhere."""
        crowds = self.crowds(connections=3)
        for crowd in crowds:
            self.arrive(crowd, GOOD).logged_in()
        for crowd in crowds:
            with self.assertRaises(StoreTrouble):
                self.arrive(crowd, EVIL)
        self.assertEqual([], self.turned_out)
