"""Durations, whatever is done to the time of day: over a reactor whose time is set, in all that waits."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, cast

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import pop3toy
from pop3toy import POP3Factory, limits
from pop3toy.auth.accounts.success_cache import SuccessCache
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.clock import LOOK, STEP, SteadyClock, steady, use_monotonic_time
from pop3toy.errors import LoginDelay
from pop3toy.net.proxied import PATIENCE, ProxiedEndpoint
from pop3toy.routing.aliases import ALIAS_LOOK, AliasFile
from pop3toy.run.service import ReloadService
from pop3toy.smtp import limits as delivery_limits
from pop3toy.smtp.factory import smtp_factory

from .pop3_world import FakeAuthenticator, FakeSocket, ScriptedMailbox
from .smtp_world import Client, world

ROOT = Path(pop3toy.__file__).parent
#: Both ways, and both enough to end or to hold up all that waits.
STEPS = (900.0, -3600.0)
LOGIN = b"USER ann\r\nPASS pass\r\n"


class SetReactor(Clock):
    """A reactor as Twisted's are: its time is the time of day, and somebody sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 1_700_000_000.0
        self.since_boot = 7.0
        self.clock = SteadyClock(cast(Any, self), lambda: self.since_boot, lambda clock: None)

    def advance(self, amount: float) -> None:
        """Time passes."""
        self.since_boot += amount
        super().advance(amount)

    def set(self, by: float) -> None:
        """The time of day jumps; what is due then is called, and the clock looks at it a while later."""
        super().advance(by)
        self.clock.look()

    def callFromThread(self, call: Callable[[], object]) -> None:
        call()


class SteadyClockTests(SynchronousTestCase):
    """A clock over a reactor of another program."""

    def setUp(self) -> None:
        self.reactor = SetReactor()
        self.clock = self.reactor.clock
        self.called: list[Any] = []

    def test_interfaces(self) -> None:
        """It is a clock as Twisted has them."""
        verifyObject(IReactorTime, self.clock)
        verifyObject(IDelayedCall, self.clock.callLater(1, self.called.append, 1))

    def test_call(self) -> None:
        """What is scheduled comes when so much time has passed, with what it was given."""
        self.clock.callLater(2, lambda *args, **names: self.called.append((args, names)), 1, two=2)
        self.reactor.advance(1.9)
        self.assertEqual([], self.called)
        self.reactor.advance(0.2)
        self.assertEqual([((1,), {"two": 2})], self.called)

    def test_set(self) -> None:
        """Also when the time of day was set meanwhile, forward or back, also twice."""
        for steps in ([900.0], [-3600.0], [900.0, -3600.0], [-3600.0, 900.0]):
            with self.subTest(steps=steps):
                self.called.clear()
                self.clock.callLater(10, self.called.append, 1)
                for by in steps:
                    self.reactor.advance(3)
                    self.reactor.set(by)
                self.reactor.advance(10 - 3 * len(steps) - 0.01)
                self.assertEqual([], self.called)
                self.reactor.advance(0.02)
                self.assertEqual([1], self.called)
                self.assertEqual([], self.clock.getDelayedCalls())

    def test_small_steps(self) -> None:
        """A time that is corrected by little moves nothing, and adds up."""
        self.clock.callLater(10, self.called.append, 1)
        for _ in range(100):
            self.reactor.set(-STEP / 4)
        self.reactor.advance(10 + STEP)
        self.assertEqual([1], self.called)

    def test_cancel(self) -> None:
        """A call that is cancelled does not come, and is cancelled once; one that came cannot be."""
        call = self.clock.callLater(1, self.called.append, 1)
        self.assertTrue(call.active())
        call.cancel()
        self.assertFalse(call.active())
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.reactor.set(900)
        self.assertEqual([], self.called)
        call = self.clock.callLater(1, self.called.append, 2)
        self.reactor.advance(1)
        self.assertRaises(AlreadyCalled, call.cancel)
        self.assertFalse(call.active())
        self.assertEqual([2], self.called)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_moved(self) -> None:
        """A call can be moved, before and after the time of day was set."""
        for by in (0.0, *STEPS):
            with self.subTest(by=by):
                self.called.clear()
                call = self.clock.callLater(1, self.called.append, 1)
                call.reset(5)
                call.delay(2)
                self.reactor.set(by)
                self.assertAlmostEqual(7, call.getTime() - self.clock.seconds())
                self.reactor.advance(6.9)
                self.assertEqual([], self.called)
                call.reset(0.5)
                self.reactor.advance(0.6)
                self.assertEqual([1], self.called)

    def test_looks(self) -> None:
        """The clock is looked at by a thread as soon as something waits: the reactor would come too late."""
        watched: list[SteadyClock] = []
        clock = SteadyClock(cast(Any, self.reactor), lambda: 0.0, watched.append)
        self.assertEqual([], watched)
        clock.callLater(1, self.called.append, 1)
        clock.callLater(1, self.called.append, 1)
        self.assertEqual([clock], watched)
        self.assertLessEqual(LOOK, 1)

    def test_steady(self) -> None:
        """A reactor whose time is the time of day gets one clock for all; any other is one itself."""

        class OfTwisted(Clock):
            seconds = staticmethod(time.time)  # type: ignore[assignment]

        reactor = OfTwisted()
        self.assertIsInstance(steady(reactor), SteadyClock)
        clock = steady(reactor)
        self.assertIs(clock, steady(reactor))
        self.assertIs(clock, steady(clock))
        self.assertIs(reactor.seconds, time.time)
        other = Clock()
        self.assertIs(other, steady(other))
        use_monotonic_time(reactor)
        self.assertIs(reactor.seconds, time.monotonic)
        self.assertIs(reactor, steady(reactor))

    def test_scheduled_already(self) -> None:
        """A reactor that has something to do at a time of day keeps its time."""

        class OfTwisted(Clock):
            seconds = staticmethod(time.time)  # type: ignore[assignment]

        reactor = OfTwisted()
        reactor.callLater(1, self.called.append, 1)
        use_monotonic_time(reactor)
        self.assertIs(reactor.seconds, time.time)


def each_step(test: Callable[[EverythingTests, float], None]) -> Callable[[EverythingTests], None]:
    """Run a test with a clock that is set forward, and with one that is set back."""

    @wraps(test)
    def both(case: EverythingTests) -> None:
        for by in STEPS:
            with case.subTest(by=by):
                case.setUp()
                test(case, by)

    return both


class EverythingTests(SynchronousTestCase):
    """Every part that waits, over a reactor whose time is set while it does."""

    def setUp(self) -> None:
        self.reactor = SetReactor()
        self.clock: Any = self.reactor.clock

    def pop3(self, mailbox: ScriptedMailbox | None = None, said: bytes = LOGIN) -> FakeSocket:
        """A client that has said this, and read what was answered."""
        client = FakeSocket(self.reactor)
        client.connect(POP3Factory(self.clock, FakeAuthenticator(mailbox)).buildProtocol(None))
        client.client_sends(said)
        client.client_reads_all()
        return client

    @each_step
    def test_session(self, by: float) -> None:
        """A session goes on, QUIT removes what was marked, and the log tells how long it was."""
        mailbox = ScriptedMailbox({b"one": b"x\r\n"})
        client = self.pop3(mailbox, LOGIN + b"DELE 1\r\n")
        self.reactor.advance(5)
        self.reactor.set(by)
        self.assertTrue(client.connected and not client.disconnecting)
        client.client_sends(b"QUIT\r\n")
        self.assertIn(b"+OK", client.client_reads_all())
        self.assertEqual([[b"one"]], mailbox.removed)
        assert client.protocol is not None
        self.assertAlmostEqual(5, client.protocol.record.seconds)

    @each_step
    def test_idle(self, by: float) -> None:
        """Who says nothing goes when it is time, before login and after."""
        for said, patience in (
            (b"", limits.IDLE_BEFORE_LOGIN),
            (LOGIN, limits.IDLE),
        ):
            client = self.pop3(said=said)
            self.reactor.advance(patience - 1)
            self.reactor.set(by)
            self.assertTrue(client.connected, said)
            self.reactor.advance(2)
            client.client_reads_all()
            self.assertFalse(client.connected, said)

    @each_step
    def test_output(self, by: float) -> None:
        """Answers that wait for the others' turn come."""
        client = self.pop3()
        client.client_sends(b"NOOP\r\n" * 5_000)
        self.assertTrue(self.clock.calls)
        self.reactor.set(by)
        got = b""
        for _ in range(100):
            self.reactor.advance(0.01)
            got += client.client_reads()
        self.assertEqual(5_000, got.count(b"+OK"))

    @each_step
    def test_drain(self, by: float) -> None:
        """A server that stops waits for sessions as long as it should."""
        client = self.pop3()
        assert client.protocol is not None
        done = client.protocol.factory.drain()
        self.reactor.set(by)
        self.assertTrue(client.connected)
        self.assertNoResult(done)
        for _ in range(int(4 * limits.SHUTDOWN_GRACE)):
            self.reactor.advance(0.3)
        client.client_reads_all()
        self.successResultOf(done)

    @each_step
    def test_penalty(self, by: float) -> None:
        """A penalty lasts as long as it should, and failures are forgotten when they should be."""
        guard = LoginThrottle(self.clock)
        for _ in range(4):
            guard.failed("192.0.2.7/32", None)
        sleeping = guard.sleep(2)
        self.reactor.advance(1)
        self.reactor.set(by)
        self.assertEqual(2, guard.penalty("192.0.2.7/32", None))
        self.assertNoResult(sleeping)
        self.reactor.advance(1.1)
        self.successResultOf(sleeping)
        self.reactor.advance(guard.limits.forgotten_after)
        self.assertEqual(0, guard.penalty("192.0.2.7/32", None))

    @each_step
    def test_login_delay(self, by: float) -> None:
        """The delay between two logins is what it should be."""
        guard = LoginThrottle(self.clock, LoginLimits(login_delay=2))
        guard.opened("ann")
        self.reactor.set(by)
        self.assertRaises(LoginDelay, guard.enter, "ann")
        self.reactor.advance(2)
        guard.enter("ann")

    @each_step
    def test_success_cache(self, by: float) -> None:
        """A password that was right is remembered for ten minutes."""
        cache = SuccessCache(self.clock)
        cache.add("ann", b"hash", b"secret")
        self.reactor.set(by)
        self.assertTrue(cache.has("ann", b"hash", b"secret"))
        self.reactor.advance(600)
        self.assertFalse(cache.has("ann", b"hash", b"secret"))

    @each_step
    def test_smtp(self, by: float) -> None:
        """A client of SMTP that is silent goes when it is time, and no message is lost before."""
        factory, store, _ = world(lambda delivery, recipients, _, **more: smtp_factory(
            delivery, recipients, self.clock, **{**more, "wall": self.reactor.seconds}
        ))  # fmt: skip
        client = Client(factory)
        client.say("EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<ann@example.org>")
        self.reactor.advance(5)
        self.reactor.set(by)
        self.assertFalse(client.closed)
        self.assertEqual("250", client.say("DATA", "a: b", "", "c", ".")[-1][:3])
        date = time.strftime("%d %b %Y %H:%M", time.gmtime(self.reactor.seconds()))
        self.assertIn(date.lstrip("0").encode(), store.messages("ann")[0])
        self.reactor.advance(delivery_limits.IDLE - 1)
        self.assertEqual([], client.answers())
        self.reactor.advance(2)
        self.assertEqual("421", client.answers()[-1][:3])

    @each_step
    def test_aliases(self, by: float) -> None:
        """The alias file is looked at again when it is time."""
        path = Path(self.mktemp())
        path.write_text("a: ann\n")
        looked: list[object] = []

        def look(*work: object) -> Any:
            looked.append(work)
            raise ValueError

        in_thread: Any = look
        aliases = AliasFile(
            str(path),
            lambda address: True,
            in_thread,
            self.clock,
            wall=self.reactor.seconds,
        )
        self.reactor.set(by)
        aliases()
        self.assertEqual([], looked)
        self.reactor.advance(ALIAS_LOOK)
        self.assertRaises(ValueError, aliases)

    @each_step
    def test_proxy(self, by: float) -> None:
        """The header of a proxy is waited for as long as it should be."""

        class Port:
            def listen(self, factory: Any) -> Any:
                self.factory = factory

        port: Any = Port()
        ProxiedEndpoint(port, self.clock).listen(world(smtp_factory)[0])
        transport = StringTransport()
        port.factory.buildProtocol(None).makeConnection(transport)
        self.reactor.advance(PATIENCE - 1)
        self.reactor.set(by)
        self.assertFalse(transport.disconnected)
        self.reactor.advance(2)
        self.assertTrue(transport.disconnected)

    @each_step
    def test_reload(self, by: float) -> None:
        """Files are looked at every 30 seconds."""

        class Files:
            looks = 0

            def reload(self) -> None:
                raise AssertionError

            def reload_if_changed(self) -> None:
                self.looks += 1

        files = Files()
        service = ReloadService(self.clock, [files])
        service.startService()
        try:
            self.reactor.advance(15)
            self.reactor.set(by)
            self.assertEqual(0, files.looks)
            for _ in range(3):
                self.reactor.advance(15.5)
            self.assertEqual(2, files.looks)
        finally:
            service.stopService()


class SourceTests(SynchronousTestCase):
    """The same for parts that are yet to come, read from the source."""

    #: Who is given a clock by somebody who has made it steady; a worker's log, which lives in a process
    #: whose reactor has been told another time; and tests, whose clocks are nobody's time of day.
    GIVEN = {
        "net/connection", "net/writer", "run/workers/worker", "clock", "testing/in_memory",
        "testing/late_store", "testing/reactor_thread", "testing/running", "testing/sockets",
        "observe/inspector/stream", "observe/inspector/api", "stores/objects/mailbox",
        "run/monitoring/measured",
    }  # fmt: skip

    def test_every_clock(self) -> None:
        """Whoever asks a clock or schedules something has made it steady, or was given one that is."""
        asking = set()
        for path in ROOT.rglob("*.py"):
            tree = ast.parse(path.read_text())
            name = path.relative_to(ROOT).with_suffix("").as_posix()
            asked = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call)
                     and isinstance(node.func, ast.Attribute)}  # fmt: skip
            called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call)
                      and isinstance(node.func, ast.Name)}  # fmt: skip
            if asked & {"callLater", "seconds", "addTimeout"}:
                asking.add(name)
                if name not in self.GIVEN:
                    self.assertIn("steady", called, name)
        self.assertLessEqual(self.GIVEN, asking)
        self.assertGreater(len(asking), 10)

    def test_time_of_day(self) -> None:
        """``time.time`` is a default for what is called a wall clock, and nowhere else but at the edge."""
        found = 0
        for path in ROOT.rglob("*.py"):
            name = path.relative_to(ROOT).with_suffix("").as_posix()
            if name == "clock" or name.startswith(("tap", "cli")):
                continue
            tree = ast.parse(path.read_text())
            every = [node for node in ast.walk(tree) if ast.unparse(node) == "time.time"]
            walls = [
                default
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef)
                for argument, default in [
                    *zip(reversed(node.args.args), reversed(node.args.defaults), strict=False),
                    *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
                ]
                if argument.arg in ("wall", "wall_clock")
            ] + [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "wall"
            ]
            for one in every:
                found += 1
                self.assertTrue(any(one is wall for wall in walls), f"{name}:{one.lineno}")  # type: ignore[attr-defined]
        self.assertGreater(found, 5)
