"""Services: order of start and stop, signals, and what is read again at SIGHUP and when files change."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.run.control import Notice
from pop3toy.run.process import StopSignals
from pop3toy.run.service import OrderedService, ReloadService


class Part(Service):
    """Writes down what happens to it; stops when it is told."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name_ = name
        self.diary = diary
        self.stopped: Deferred[None] | None = None
        self.later = False

    def privilegedStartService(self) -> None:
        self.diary.append(f"{self.name_} privileged")

    def startService(self) -> None:
        super().startService()
        self.diary.append(f"{self.name_} starts")

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self.diary.append(f"{self.name_} stops")
        if self.later:
            self.stopped = Deferred()
        return self.stopped


class OrderTests(SynchronousTestCase):
    """``OrderedService``."""

    def setUp(self) -> None:
        self.diary: list[str] = []
        self.server = OrderedService()
        self.parts = [Part(name, self.diary) for name in "abc"]
        for part in self.parts:
            part.setServiceParent(self.server)

    def test_order(self) -> None:
        """Parts start in the order in which they were added, and stop in the other."""
        self.server.privilegedStartService()
        self.server.startService()
        self.successResultOf(self.server.stopService())
        self.assertEqual(
            self.diary,
            ["a privileged", "b privileged", "c privileged", "a starts", "b starts", "c starts",
             "c stops", "b stops", "a stops"],
        )  # fmt: skip

    def test_one_after_another(self) -> None:
        """A part stops only when the one that stops before it is done."""
        self.server.startService()
        self.parts[1].later = True
        stopping = self.server.stopService()
        self.assertEqual(self.diary[3:], ["c stops", "b stops"])
        self.assertNoResult(stopping)
        assert self.parts[1].stopped is not None
        self.parts[1].stopped.callback(None)
        self.assertEqual(self.diary[-1], "a stops")
        self.successResultOf(stopping)

    def test_failure(self) -> None:
        """A part that fails to stop is told in the log, and the others stop all the same."""
        self.server.startService()
        self.parts[1].later = True
        stopping = self.server.stopService()
        assert self.parts[1].stopped is not None
        self.parts[1].stopped.errback(ValueError("stuck"))
        self.assertEqual(self.diary[-1], "a stops")
        self.successResultOf(stopping)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class NoticeTests(SynchronousTestCase):
    """``Notice``: the time between saying that no more connections are taken and taking no more."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.notice = self.started(5)

    def started(self, seconds: float) -> Notice:
        notice = Notice(self.clock, seconds)
        notice.startService()
        return notice

    def test_stop(self) -> None:
        """A server that stops waits for it before its ports are closed."""
        diary: list[str] = []
        server = OrderedService()
        Part("port", diary).setServiceParent(server)
        Notice(self.clock, 5).setServiceParent(server)
        server.startService()
        stopping = server.stopService()
        self.assertFalse(server.running)
        self.clock.advance(4.9)
        self.assertNoResult(stopping)
        self.assertEqual(diary, ["port starts"])
        self.clock.advance(0.1)
        self.successResultOf(stopping)
        self.assertEqual(diary, ["port starts", "port stops"])

    def test_none(self) -> None:
        """Without a time nothing waits, and no timer is set."""
        self.successResultOf(self.started(0).stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_once(self) -> None:
        """Who stops behind a drain waits for what is left of the notice that the drain gave."""
        self.notice.give()
        self.clock.advance(3)
        stopping = self.notice.stopService()
        self.clock.advance(1.9)
        self.assertNoResult(stopping)
        self.clock.advance(0.1)
        self.successResultOf(stopping)
        self.notice.startService()
        self.assertNoResult(self.notice.give())
        self.clock.advance(5)
        self.successResultOf(self.notice.stopService())

    def test_withdrawn(self) -> None:
        """A server that stays after all has nobody wait, and gives the whole notice the next time."""
        given = self.notice.give()
        self.clock.advance(3)
        self.notice.withdraw()
        self.successResultOf(given)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        again = self.notice.give()
        self.clock.advance(4.9)
        self.assertNoResult(again)
        self.clock.advance(0.1)
        self.successResultOf(again)

    def test_withdrawn_too_late(self) -> None:
        """A server that stops does not close its ports earlier because somebody resumes it."""
        stopping = self.notice.stopService()
        self.notice.withdraw()
        self.assertNoResult(stopping)
        self.clock.advance(5)
        self.successResultOf(stopping)

    def test_cut_short(self) -> None:
        """Who says twice that the server is to stop need not wait; without a notice nothing happens."""
        self.notice.cut_short()
        stopping = self.notice.stopService()
        self.assertNoResult(stopping)
        self.notice.cut_short()
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_served(self) -> None:
        """A server that could not start ends at once."""
        self.successResultOf(Notice(self.clock, 5).stopService())


class Files:
    """Something that is read from files."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def reload(self) -> None:
        self.calls.append("reload")

    def reload_if_changed(self) -> None:
        self.calls.append("look")


class Reactor(Clock):
    """A clock that takes calls from signal handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.queued: list[Callable[[], Any]] = []

    def callFromThread(self, function: Callable[[], Any]) -> None:
        self.queued.append(function)


class ReloadTests(SynchronousTestCase):
    """``ReloadService``."""

    def setUp(self) -> None:
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        self.before = before
        self.reactor = Reactor()
        self.files = [Files(), Files()]
        self.service = ReloadService(self.reactor, self.files, interval=30)

    def test_hang_up(self) -> None:
        """SIGHUP reads everything again, in the reactor's turn and not in the signal's."""
        self.service.startService()
        self.addCleanup(self.service.stopService)
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual([one.calls for one in self.files], [[], []])
        for function in self.reactor.queued:
            function()
        self.assertEqual([one.calls for one in self.files], [["reload"], ["reload"]])

    def test_user_1(self) -> None:
        """SIGUSR1 opens files again where there are any, and whoever had it before has it, too."""
        before: list[int] = []
        kept = signal.signal(signal.SIGUSR1, lambda number, frame: before.append(number))
        self.addCleanup(signal.signal, signal.SIGUSR1, kept)
        handler = signal.getsignal(signal.SIGUSR1)
        self.service.startService()
        self.assertIs(signal.getsignal(signal.SIGUSR1), handler)
        self.service.stopService()
        reopened: list[bool] = []
        service = ReloadService(self.reactor, self.files, reopen=lambda: reopened.append(True))
        service.startService()
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual((before, reopened), ([signal.SIGUSR1], []))
        for function in self.reactor.queued:
            function()
        self.assertEqual(reopened, [True])
        service.stopService()
        self.assertIs(signal.getsignal(signal.SIGUSR1), handler)
        self.assertEqual([one.calls for one in self.files], [[], []])

    def test_before_the_ports(self) -> None:
        """SIGHUP harms nobody from the moment on at which ports may be open."""
        self.service.privilegedStartService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.service.startService()
        self.assertEqual(len(self.reactor.queued), 1)
        self.service.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), self.before)

    def test_looks(self) -> None:
        """Every now and then it looks, and no more when it has stopped; SIGHUP is given back."""
        self.service.startService()
        self.reactor.advance(29)
        self.assertEqual(self.files[0].calls, [])
        self.reactor.pump([1, 30, 30])
        self.assertEqual(self.files[0].calls, ["look"] * 3)
        self.service.stopService()
        self.reactor.advance(300)
        self.assertEqual(self.files[0].calls, ["look"] * 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(signal.getsignal(signal.SIGHUP), self.before)


class Signalled(Clock):
    """A reactor that sets its handlers when it starts, as Twisted's do."""

    def __init__(self) -> None:
        super().__init__()
        self.when_running: list[Callable[[], Any]] = []
        self.queued: list[Callable[[], Any]] = []
        self.ended: list[int] = []

    def callWhenRunning(self, function: Callable[[], Any]) -> None:
        self.when_running.append(function)

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self.queued.append(lambda: function(*args))

    def sigTerm(self, number: int, frame: object = None) -> None:
        self.ended.append(number)

    def run(self, **handlers: Any) -> None:
        for name, handler in handlers.items():
            signal.signal(signal.Signals[name], handler)
        for function in self.when_running:
            function()


class StopSignalsTests(SynchronousTestCase):
    """``StopSignals``."""

    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.reactor = Signalled()
        self.again: list[str] = []
        service = StopSignals(self.reactor, lambda: self.again.append("again"))
        service.privilegedStartService()
        service.startService()

    def test_in_turn(self) -> None:
        """What the reactor does about a signal it does in its own turn, never in the middle of a log line."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.setUp()
            self.reactor.run(SIGTERM=self.reactor.sigTerm, SIGINT=self.reactor.sigTerm)
            os.kill(os.getpid(), number)
            self.assertEqual(self.reactor.ended, [])
            self.reactor.queued.pop()()
            self.assertEqual((self.reactor.ended, self.again), ([number], []))

    def test_again(self) -> None:
        """A second signal, whichever, does not stop a reactor that stops already."""
        self.reactor.run(SIGTERM=self.reactor.sigTerm, SIGINT=self.reactor.sigTerm)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        for function in self.reactor.queued:
            function()
        self.assertEqual((self.reactor.ended, self.again), ([signal.SIGTERM], ["again"]))

    def test_before_ports_tell(self) -> None:
        """It comes before whatever is told when ports, which are opened while privileged, are open."""
        reactor = Signalled()
        StopSignals(reactor).privilegedStartService()
        self.assertEqual(len(reactor.when_running), 1)

    def test_of_others(self) -> None:
        """A handler that is not the reactor's stays."""
        seen: list[int] = []
        self.reactor.run(SIGTERM=lambda number, frame: seen.append(number), SIGINT=signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGTERM)
        self.assertEqual(seen, [signal.SIGTERM])
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_IGN)
