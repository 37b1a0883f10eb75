"""Threads for what may wait: results come back on the reactor, and nothing that was begun is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import StoreTrouble
from pop3toy.net.threads import WorkerThreads, run_now

#: Seconds after which a thread that does not answer is a failed test.
PATIENCE = 30.0


class FakeReactor:
    """The part of a reactor that takes results from threads; the test delivers them."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        """From any thread."""
        self.calls.put((function, args))

    def deliver(self, count: int = 1) -> None:
        """Deliver so many results, waiting for them if need be."""
        for _ in range(count):
            function, args = self.calls.get(timeout=PATIENCE)
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

    def test_own_pool(self) -> None:
        """It does not use the reactor's threads, of which the fake has none."""
        self.assertFalse(hasattr(self.reactor, "getThreadPool"))
        result = self.threads().run(int)
        self.reactor.deliver()
        self.assertEqual(0, self.successResultOf(result))


class RunNowTests(SynchronousTestCase):
    """The one without threads."""

    def test_result(self) -> None:
        """The result is there at once, from the same thread."""
        self.assertEqual(
            (3, threading.current_thread()),
            self.successResultOf(run_now(lambda a: (a, threading.current_thread()), 3)),
        )

    def test_failure(self) -> None:
        """So is a failure."""
        result: Deferred[int] = run_now(int, "x")
        self.failureResultOf(result, ValueError)
