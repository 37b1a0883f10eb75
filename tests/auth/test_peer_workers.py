"""Throttles of several workers, which tell each other what is rare and divide what is in flight."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.throttle.connection_limiter import ConnectionLimits
from pop3toy.auth.throttle.lock_queue import INTERVAL, LockQueue
from pop3toy.auth.throttle.login_throttle import VISITORS, LoginLimits, LoginThrottle
from pop3toy.auth.throttle.peer_workers import PeerWorkers
from pop3toy.errors import InUse, LoginDelay, StoreTrouble

from ..auth_world import session

EVIL, GOOD = "198.51.100.66", "192.0.2.7"
KEY = b"k" * 32


class PeersTests(SynchronousTestCase):
    """``LoginThrottle`` of each of three workers, whose events arrive as JSON."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.told: list[str] = []
        self.peers: list[PeerWorkers] = []

    def worker(self, **limits: Any) -> LoginThrottle:
        """One more."""

        def send(events: Any) -> None:
            text = json.dumps(events)
            self.told.append(text)
            for other in self.peers:
                if other is not own:
                    other.hear(json.loads(text))

        own = PeerWorkers(KEY, send)
        throttle = LoginThrottle(self.clock, LoginLimits(**limits).shared_by(3), peers=own)
        self.peers.append(own)
        return throttle

    def workers(self, **limits: Any) -> list[LoginThrottle]:
        """Three of them."""
        return [self.worker(**limits) for _ in range(3)]

    def test_penalty(self) -> None:
        """Failures at whichever worker make the next attempt wait at all, as long as at one."""
        throttles, waits = self.workers(), []
        for number in range(10):
            waits.append({throttle.penalty(EVIL, "x") for throttle in throttles})
            throttles[number % 3].attempt(EVIL, f"user{number}").failed()
            self.clock.advance(1)
        self.assertEqual([{float(wait)} for wait in (0, 0, 0, 1, 2, 4, 8, 15, 15, 15)], waits)
        self.clock.advance(900)
        self.assertEqual([0.0] * 3, [throttle.penalty(EVIL, "x") for throttle in throttles])

    def test_penalty_of_user(self) -> None:
        """So do failures of one user from many addresses."""
        throttles = self.workers()
        for number in range(11):
            throttles[number % 3].attempt(f"198.51.100.{number}", "Ann").failed()
        for throttle in throttles:
            self.assertIsNotNone(throttle.attempt(GOOD, "ann").start())
            self.assertIsNone(throttle.attempt(GOOD, "bob").start())

    def test_senders(self) -> None:
        """A password that is guessed at submission costs time at another worker's POP3, and counts once."""
        first, second, _ = self.workers()
        for _ in range(4):
            first.for_senders().attempt(EVIL, None).failed()
        self.assertEqual((2, 2), (first.penalty(EVIL, None), second.penalty(EVIL, None)))

    def test_friend(self) -> None:
        """Who came in at one worker is a friend at all, until he fails three times, wherever."""
        throttles = self.workers()
        throttles[0].attempt(GOOD, "ann").succeeded()
        for _ in range(9):
            self.clock.advance(1)
            throttles[1].attempt(GOOD, "bob").failed()
        for throttle in throttles:
            self.assertIsNone(throttle.attempt(GOOD, "ann").start())
            self.assertIsNotNone(throttle.attempt(GOOD, "carl").start())
            self.clock.advance(1)
            throttle.attempt(GOOD, "ann").failed()
        for throttle in throttles:
            self.assertIsNotNone(throttle.attempt(GOOD, "ann").start())

    def test_once(self) -> None:
        """Of logins that succeed only the first of a user from an address is told."""
        throttles = self.workers()
        for throttle in throttles * 2:
            throttle.attempt(GOOD, "ann").succeeded()
            throttle.enter("ann")
            throttle.opened("ann")
            throttle.left("ann")
        self.assertEqual(1, len(self.told))
        throttles[2].attempt(GOOD, "ann").failed()
        throttles[1].attempt(GOOD, "ann").succeeded()
        self.assertEqual(3, len(self.told))

    def test_login_delay(self) -> None:
        """LOGIN-DELAY is from the last login at whichever worker."""
        throttles = self.workers(login_delay=60)
        throttles[0].enter("ann")
        throttles[0].opened("ann")
        throttles[0].left("ann")
        self.clock.advance(59)
        self.assertRaises(LoginDelay, throttles[1].enter, "ann")
        self.clock.advance(1)
        throttles[1].enter("ann")

    def test_started_later(self) -> None:
        """What was told before a worker was started holds there as well, and for as long."""
        throttles = self.workers()
        for number in range(4):
            throttles[number % 3].attempt(EVIL, "ann").failed()
        self.clock.advance(899)
        late = self.worker()
        for text in self.told:
            self.peers[-1].hear(json.loads(text))
        self.assertEqual(2, late.penalty(EVIL, None))
        self.clock.advance(1)
        self.assertEqual(0, late.penalty(EVIL, None))

    def test_locks(self) -> None:
        """A login that waits for a lock tries in intervals, so that those at other workers have a chance."""
        [throttle, *_] = self.workers()
        tries: list[float] = []

        def attempt() -> str:
            tries.append(self.clock.seconds())
            if len(tries) == 1:
                raise InUse
            return "open"

        queue: LockQueue[Any] = throttle.lock_queue
        waiting = queue.open("ann", attempt, session())
        assert isinstance(waiting, Deferred)
        queue.released("ann")
        self.clock.advance(0)
        self.assertNoResult(waiting)
        self.clock.advance(INTERVAL)
        self.assertEqual("open", self.successResultOf(waiting))

    def test_no_names(self) -> None:
        """What clients claim as their names, which may be passwords, is not told; one key, one pseudonym."""
        throttle, *_ = self.workers(login_delay=60)
        for end in ("failed", "succeeded"):
            getattr(throttle.attempt(GOOD, "hunter2-\udcff"), end)()
        throttle.opened("hunter2-\udcff")
        self.assertEqual(3, len(self.told))
        self.assertNotIn("hunter2", "".join(self.told))
        names = [PeerWorkers(key, self.fail).pseudonym("ann") for key in (KEY, KEY, b"another")]
        self.assertEqual((names[0] == names[1], names[0] == names[2]), (True, False))

    def most(self, take: Callable[[LoginThrottle], object], throttles: list[LoginThrottle]) -> int:
        """How many are let in before each worker has refused one."""
        let_in = 0
        for throttle in throttles:
            for _ in range(100):
                try:
                    take(throttle)
                except StoreTrouble:
                    break
                let_in += 1
        return let_in

    def test_in_flight(self) -> None:
        """Of what may be in flight each worker has its part, rounded up: an address, a user, visitors."""

        def attempt(host: str, user: str) -> Callable[[LoginThrottle], object]:
            return lambda throttle: throttle.attempt(host, user).start()

        limits = {"attempts_per_address": 9, "attempts_per_user": 4, "visitors": 1}
        users = iter(map(str, range(1000)))
        throttles = self.workers(**limits)
        self.assertEqual(9, self.most(lambda throttle: attempt(GOOD, next(users))(throttle), throttles))
        hosts = (f"203.0.113.{number}" for number in range(1, 200))
        self.assertEqual(6, self.most(lambda throttle: attempt(next(hosts), "ann")(throttle), throttles))
        self.assertEqual(3, self.most(lambda throttle: throttle.enter(VISITORS), throttles))

    def test_in_flight_under_penalty(self) -> None:
        """So has it while the address has to wait, wherever the failures were."""
        throttles = self.workers(attempts_under_penalty=6)
        for _ in range(4):
            throttles[0].attempt(EVIL, None).failed()
        users = iter(map(str, range(1000)))
        self.assertEqual(
            6, self.most(lambda throttle: throttle.attempt(EVIL, next(users)).start(), throttles)
        )


class DividedTests(SynchronousTestCase):
    """``ConnectionLimits.shared_by``."""

    def test_parts(self) -> None:
        """Each worker has a part of each limit, rounded up: all together have as many, and each has some."""
        limits = ConnectionLimits(100, 7, 3, 2)
        self.assertEqual(ConnectionLimits(34, 3, 1, 1), limits.shared_by(3))
        self.assertEqual(limits, limits.shared_by(1))
        self.assertGreater(ConnectionLimits().shared_by(64).per_local_address, 10**9)
