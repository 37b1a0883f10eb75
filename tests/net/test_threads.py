"""Threads for what may wait: results come back on the reactor, and nothing that was begun is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy.errors import StoreTrouble
from pop3toy.net.threads import HANGING, Helpers, Share, WorkerThreads, run_now
from pop3toy.net.threads import PATIENCE as PATIENT_FOR
from pop3toy.net.types import IThreadedReactor

#: Seconds after which a thread that does not answer is a failed test.
PATIENCE = 30.0


@implementer(IThreadedReactor)
class FakeReactor(Clock):
    """A clock, and the part of a reactor that takes results from threads; the test delivers them."""

    def __init__(self) -> None:
        super().__init__()
        self.results: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        """From any thread."""
        self.results.put((function, args))

    def deliver(self, count: int = 1) -> None:
        """Deliver so many results, waiting for them if need be."""
        for _ in range(count):
            function, args = self.results.get(timeout=PATIENCE)
            function(*args)


class WorkerThreadsTests(SynchronousTestCase):
    """The pool as a service."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.running = False

    def threads(self, **options: Any) -> WorkerThreads:
        """A service that has started, and is stopped after the test."""
        threads = WorkerThreads(self.reactor, **options)
        threads.startService()

        def stop() -> None:
            if threads.running:
                threads.stopService()

        self.addCleanup(stop)
        return threads

    def test_result(self) -> None:
        """The function runs in another thread with its arguments, its result comes through the reactor."""
        result = self.threads().run(lambda *args: (args, threading.current_thread()), 1, "two")
        self.assertNoResult(result)
        self.reactor.deliver()
        args, thread = self.successResultOf(result)
        self.assertEqual((1, "two"), args)
        self.assertNotEqual(threading.current_thread(), thread)

    def test_failure(self) -> None:
        """What the function raises is what the Deferred fails with."""

        def fail() -> None:
            raise StoreTrouble(detail="disk")

        result = self.threads().run(fail)
        self.reactor.deliver()
        self.assertEqual("disk", self.failureResultOf(result, StoreTrouble).value.detail)

    def test_no_thread_without_work(self) -> None:
        """Starting the service starts no thread: twistd may fork after it."""
        before = threading.active_count()
        threads = self.threads()
        self.assertEqual(before, threading.active_count())
        threads.run(int)
        self.reactor.deliver()

    def test_names(self) -> None:
        """Its threads are named, so that a debugger shows whose they are."""
        result = self.threads(name="disk").run(lambda: threading.current_thread().name)
        self.reactor.deliver()
        self.assertIn("pop3toy-disk", self.successResultOf(result))

    def test_size(self) -> None:
        """No more threads than allowed work at the same time, and all of them do."""
        threads = self.threads(size=3)
        gate = threading.Event()
        began = threading.Semaphore(0)

        def work() -> str:
            began.release()
            gate.wait(PATIENCE)
            return threading.current_thread().name

        results = [threads.run(work) for _ in range(8)]
        for _ in range(3):
            self.assertTrue(began.acquire(timeout=PATIENCE))
        self.assertFalse(began.acquire(blocking=False))
        gate.set()
        self.reactor.deliver(8)
        self.assertLessEqual(len({self.successResultOf(result) for result in results}), 3)

    def test_stop_finishes_what_was_begun(self) -> None:
        """Stopping is over when running work and all that stands in the queue is done; nobody is held up."""
        threads = self.threads(size=1)
        gate, began = threading.Event(), threading.Event()
        done: list[int] = []

        def first() -> None:
            began.set()
            gate.wait(PATIENCE)
            done.append(0)

        threads.run(first)
        for number in range(1, 6):
            threads.run(done.append, number)
        self.assertTrue(began.wait(PATIENCE))
        stopping = threads.stopService()
        # The reactor's thread goes on: it was not asked to wait for the gate.
        self.assertNoResult(stopping)
        again = threads.stopService()
        gate.set()
        self.reactor.deliver(5)
        self.assertNoResult(stopping)
        self.reactor.deliver()
        self.successResultOf(stopping)
        self.successResultOf(again)
        self.assertEqual([0, 1, 2, 3, 4, 5], done)

    def test_start_again(self) -> None:
        """A pool that has stopped works again when it is started again."""
        threads = self.threads()
        threads.run(int)
        self.reactor.deliver()
        self.successResultOf(threads.stopService())
        threads.startService()
        result = threads.run(int)
        self.reactor.deliver()
        self.assertEqual(0, self.successResultOf(result))

    def test_after_the_end(self) -> None:
        """Work for a pool that has stopped is refused, and not forgotten without a word."""
        threads = self.threads()
        threads.stopService()
        ran: list[int] = []
        self.failureResultOf(threads.run(ran.append, 1), StoreTrouble)
        self.assertEqual([], ran)


class Gate:
    """Work that waits in its thread until it is let through."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self._open = threading.Event()
        self.ran: list[object] = []

    def __call__(self, name: object = None) -> object:
        """Wait at the gate, then give back the name."""
        self.ran.append(name)
        self.began.release()
        assert self._open.wait(PATIENCE)
        return name

    def wait_for(self, count: int) -> None:
        """Until so many more wait there."""
        for _ in range(count):
            assert self.began.acquire(timeout=PATIENCE)

    def open(self) -> None:
        """Let all through, now and later."""
        self._open.set()


class ShareTests(SynchronousTestCase):
    """Work that may have some of the threads only."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.threads = WorkerThreads(self.reactor, size=4)
        self.threads.startService()
        self.gate = Gate()
        self.addCleanup(self.end)

    def end(self) -> None:
        """All that hangs goes on, and the pool stops."""
        self.gate.open()
        stopping = self.threads.stopService()
        while not stopping.called:
            self.reactor.deliver()
        self.assertEqual([], self.reactor.getDelayedCalls())

    def run_for(self, user: str, *, file_system: str = "disk", patient: bool = False) -> Any:
        """What runs a user's work: one thread for a user, two for a file system."""
        return self.threads.shared([Share(user, 1), Share(("on", file_system), 2)], patient=patient)

    def test_one_does_not_stop_others(self) -> None:
        """Work of one key has its share of the threads at the most; that of others goes on."""
        hanging = [self.run_for("ann")(self.gate) for _ in range(20)]
        self.gate.wait_for(1)
        other = self.run_for("bob")(int)
        self.reactor.deliver()
        self.assertEqual(0, self.successResultOf(other))
        self.assertFalse(self.gate.began.acquire(blocking=False))
        self.gate.open()
        self.reactor.deliver(20)
        for one in hanging:
            self.successResultOf(one)

    def test_in_order(self) -> None:
        """What waits for its share is begun in the order in which it came."""
        for number in range(5):
            self.run_for("ann")(self.gate, number)
        self.gate.open()
        self.reactor.deliver(5)
        self.assertEqual([0, 1, 2, 3, 4], self.gate.ran)

    def test_file_system(self) -> None:
        """Several users of a file system that hangs have no more threads than it; others do not notice."""
        hanging = [self.run_for(f"user {number}")(self.gate) for number in range(20)]
        self.gate.wait_for(2)
        for _ in range(3):
            other = self.run_for("bob", file_system="another")(int)
            self.reactor.deliver()
            self.successResultOf(other)
        self.assertEqual(2, len(self.gate.ran))
        self.gate.open()
        self.reactor.deliver(20)
        for one in hanging:
            self.successResultOf(one)

    def test_refused_when_it_has_waited(self) -> None:
        """What has not begun in time fails, and is not run when the others go on."""
        first, second = (self.run_for("ann")(self.gate, number) for number in range(2))
        self.reactor.advance(PATIENT_FOR / 2)
        third = self.run_for("ann")(self.gate, 2)
        self.reactor.advance(PATIENT_FOR / 2)
        self.failureResultOf(second, StoreTrouble)
        self.assertNoResult(third)
        self.reactor.advance(PATIENT_FOR / 2)
        self.failureResultOf(third, StoreTrouble)
        self.assertNoResult(first)
        self.gate.open()
        self.reactor.deliver()
        self.successResultOf(first)
        last = self.run_for("ann")(self.gate, 3)
        self.reactor.deliver()
        self.successResultOf(last)
        self.assertEqual([0, 3], self.gate.ran)

    def test_refused_when_all_threads_hang(self) -> None:
        """The same holds where the share has room, but no thread is free."""
        hanging = [self.threads.run(self.gate) for _ in range(4)]
        self.gate.wait_for(4)
        waiting = self.run_for("ann")(self.gate, "ann")
        self.reactor.advance(PATIENT_FOR)
        self.failureResultOf(waiting, StoreTrouble)
        self.gate.open()
        self.reactor.deliver(4)
        for one in hanging:
            self.successResultOf(one)
        again = self.run_for("ann")(self.gate, "again")
        self.reactor.deliver()
        self.successResultOf(again)
        self.assertNotIn("ann", self.gate.ran)

    def test_refused_at_once(self) -> None:
        """Nothing waits for a share that has given nothing back for so long."""
        self.run_for("ann")(self.gate)
        self.reactor.advance(PATIENT_FOR)
        self.failureResultOf(self.run_for("ann")(self.gate), StoreTrouble)
        self.assertNoResult(self.run_for("ann", patient=True)(self.gate))

    def test_patient(self) -> None:
        """What has to be done waits as long as it takes."""
        self.run_for("ann")(self.gate)
        closing = self.run_for("ann", patient=True)(int)
        self.reactor.advance(100 * PATIENT_FOR)
        self.assertNoResult(closing)
        self.gate.open()
        self.reactor.deliver(2)
        self.assertEqual(0, self.successResultOf(closing))

    def test_given_up(self) -> None:
        """What has to end in time fails while its thread goes on, which keeps its share."""
        run = self.threads.shared([Share("ann", 1)], within=3.0)
        hanging = run(self.gate, 0)
        self.gate.wait_for(1)
        self.reactor.advance(3.0)
        self.failureResultOf(hanging, StoreTrouble)
        waiting = run(self.gate, 1)
        self.reactor.advance(3.0)
        self.failureResultOf(waiting, StoreTrouble)
        self.gate.open()
        self.reactor.deliver(2)
        again = run(self.gate, 2)
        self.reactor.deliver()
        self.assertEqual(2, self.successResultOf(again))

    def test_forgotten(self) -> None:
        """Nothing is kept of those that have no work."""
        for number in range(10):
            self.run_for(f"user {number}")(int)
        self.reactor.deliver(10)
        self.run_for("ann")(self.gate)
        refused = self.run_for("ann")(self.gate)
        self.reactor.advance(PATIENT_FOR)
        self.failureResultOf(refused, StoreTrouble)
        self.gate.open()
        self.reactor.deliver()
        self.assertEqual({}, self.threads._keys)

    def test_stop_does_not_wait_for_ever(self) -> None:
        """A pool whose threads hang stops in bounded time, and can be started again."""
        hanging = self.run_for("ann")(self.gate)
        undone = self.run_for("ann", patient=True)(self.gate, "undone")
        self.gate.wait_for(1)
        self.reactor.advance(HANGING - 1)
        with capturedLogs() as logs:
            stopping = self.threads.stopService()
            self.assertNoResult(stopping)
            self.reactor.advance(1)
        self.successResultOf(stopping)
        self.assertEqual(1, len(logs))
        self.failureResultOf(undone, StoreTrouble)
        self.assertNoResult(hanging)
        self.threads.startService()
        again = self.run_for("ann")(int)
        self.reactor.deliver()
        self.assertEqual(0, self.successResultOf(again))
        self.gate.open()
        self.reactor.deliver()
        self.successResultOf(hanging)
        self.assertNotIn("undone", self.gate.ran)


class HelpersTests(SynchronousTestCase):
    """Threads that take part in what one has begun."""

    def test_at_once(self) -> None:
        """All is done, so much at once and never more; the next one finds the helpers free again."""
        helpers = Helpers("test", 3)
        for _ in range(2):
            together = threading.Barrier(3)
            now: list[int] = []
            most: list[int] = []
            done: list[int] = []

            def do(
                part: int,
                together: threading.Barrier = together,
                now: list[int] = now,
                most: list[int] = most,
                done: list[int] = done,
            ) -> None:
                now.append(part)
                most.append(len(now))
                together.wait(PATIENCE)
                now.remove(part)
                done.append(part)

            helpers.call_each(do, range(12), 3)
            self.assertEqual([*range(12)], sorted(done))
            self.assertEqual(3, max(most))

    def test_alone(self) -> None:
        """Where no helper is free, or there is but one part, the caller does all, in order."""
        for most, parts in ((0, 5), (3, 1), (3, 0)):
            done: list[tuple[int, threading.Thread]] = []
            Helpers("test", most).call_each(
                lambda part, done=done: done.append((part, threading.current_thread())),  # type: ignore[misc]
                range(parts),
                4,
            )
            self.assertEqual([(part, threading.current_thread()) for part in range(parts)], done)

    def test_others_are_busy(self) -> None:
        """Who comes while all helpers are taken does not wait for one."""
        helpers = Helpers("test", 1)
        others: list[str] = []
        together = threading.Barrier(2)

        def do(part: int) -> None:
            if together.wait(PATIENCE) == 0:
                # Both threads of the first are here, and stay.
                helpers.call_each(lambda one: others.append(threading.current_thread().name), range(4), 4)
                self.assertEqual([threading.current_thread().name] * 4, others)
            together.wait(PATIENCE)

        helpers.call_each(do, range(2), 2)
        self.assertEqual(4, len(others))

    def test_failure(self) -> None:
        """Behind one that fails nothing begins; what had begun is waited for, whoever it is that fails."""
        for helper_fails in (True, False):
            helpers = Helpers("test", 1)
            caller = threading.current_thread()
            together = threading.Barrier(2)
            began: list[int] = []
            ended: list[int] = []
            helping: list[threading.Thread] = []

            def do(
                part: int,
                helper_fails: bool = helper_fails,
                helpers: Helpers = helpers,
                caller: threading.Thread = caller,
                together: threading.Barrier = together,
                began: list[int] = began,
                ended: list[int] = ended,
                helping: list[threading.Thread] = helping,
            ) -> None:
                began.append(part)
                mine = threading.current_thread() is not caller
                if mine:
                    helping.append(threading.current_thread())
                together.wait(PATIENCE)
                if mine is helper_fails:
                    raise StoreTrouble(detail="this one")
                if not mine:
                    # The other one has failed, and that is known.
                    helping[0].join(PATIENCE)
                ended.append(part)

            trouble = self.assertRaises(
                StoreTrouble, helpers.call_each, do, range(9 if helper_fails else 2), 2
            )
            self.assertEqual("this one", trouble.detail)
            self.assertEqual((2, 1), (len(began), len(ended)))
            self.assertFalse(helping[0].is_alive())

    def test_no_more_threads(self) -> None:
        """Where the system gives no thread the caller does all; later it gives one."""

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        helpers = Helpers("test", 1)
        done: list[int] = []
        refused = self.patch(threading.Thread, "start", start)
        helpers.call_each(done.append, range(3), 4)
        self.assertEqual([0, 1, 2], done)
        refused.restore()
        together = threading.Barrier(2)
        helpers.call_each(lambda part: together.wait(PATIENCE), range(2), 4)


class RunNowTests(SynchronousTestCase):
    """The one without threads."""

    def test_at_once(self) -> None:
        """The result or the failure is there at once, from the same thread."""
        result = run_now(lambda a: (a, threading.current_thread()), 3)
        self.assertEqual((3, threading.current_thread()), self.successResultOf(result))
        failed: Deferred[int] = run_now(int, "x")
        self.failureResultOf(failed, ValueError)
