"""What the inspector keeps, and how much; the gate that holds; what workers tell."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy.events import (
    KINDS,
    NONE,
    Connected,
    Delivered,
    Ended,
    LineReceived,
    LoggedIn,
    LoginFailed,
    QueueRemoved,
    ReplySent,
    Sent,
    TLSStarted,
)
from pop3toy.interfaces import Channel, GateAnswer, IGate, SessionRecord, TLSFacts
from pop3toy.observe.explain.explainer import Explainer
from pop3toy.observe.inspector.hub import MOMENT, TURN, Bounds, Hub
from pop3toy.observe.inspector.stepping import Stepping
from pop3toy.observe.inspector.told import event_as_json, session_as_dict
from pop3toy.run.inspecting.across import EventsToSupervisor, WorkersControl, act, take

from ..inspector_world import checked

CHANNEL = Channel("127.0.0.1", True)
TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "ann")
BOUNDS = Bounds(ended=3, events=10, octets=100_000, last_events=50, last_octets=50_000, line=100, waiting=30)


def connected(number: int) -> Connected:
    """A client."""
    return Connected(number, 1.0, "POP3", CHANNEL, "127.0.0.1:5")


def line(number: int, text: bytes = b"NOOP") -> LineReceived:
    """A line of it."""
    return LineReceived(number, 2.0, text, len(text) + 2, "NOOP", "TRANSACTION")


def ended(number: int) -> Ended:
    """It goes."""
    return Ended(number, 3.0, "POP3", CHANNEL, None, None, "quit", 2.0, 10, 20, 0, 0)


class HubCase(SynchronousTestCase):
    """A small hub."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hub = Hub(self.clock, Explainer(), lambda: 1_700_000_000.0, BOUNDS)

    def tell(self, *events: Any) -> None:
        """Something has happened, and is kept."""
        for event in events:
            self.hub.observe(event)
            self.hub.flush()


class NoSessionTests(HubCase):
    """What is of no connection."""

    def test_queue_and_page(self) -> None:
        """Followers are told of the queue and of the page for passwords, and no session comes of it."""
        self.tell(
            QueueRemoved(NONE, 1.0, "0A"),
            Sent(NONE, 1.0, "0B", "ann", "ann@x", "dan@y", "smart", 1.0, "250 ok"),
            LoginFailed(NONE, 1.0, "HTTP", CHANNEL, "ann", "PASSWORD", "AUTH"),
        )
        self.assertEqual((list(self.hub.sessions()), self.hub.total, self.hub.live), ([], 0, 0))
        told = [checked(json.loads(event_as_json(one)), "Event") for one in self.hub._last]
        self.assertEqual([one["event"] for one in told], ["QueueRemoved", "Sent", "LoginFailed"])


class BoundsTests(HubCase):
    """Memory stays bounded, whatever clients do."""

    def test_ended(self) -> None:
        """The sessions that ended first are forgotten, and those that are live are not."""
        self.tell(connected(100))
        for number in range(1, 6):
            self.tell(connected(number), ended(number))
        self.assertEqual([one.number for one in self.hub.sessions()], [3, 4, 5, 100])
        self.assertEqual((self.hub.total, self.hub.live), (6, 1))

    def test_events(self) -> None:
        """Of a session the last events are kept, and how many are not is told."""
        self.tell(connected(1), *[line(1, b"NOOP %d" % at) for at in range(20)])
        session = self.hub.session(1)
        assert session is not None
        self.assertEqual((len(session.records), session.dropped), (10, 11))
        self.assertEqual(session.records[-1].event.line, b"NOOP 19")

    def test_long_lines(self) -> None:
        """A long line, or a reply, is cut, and that is told; octets are counted in full."""
        self.tell(connected(1), line(1, b"x" * 1000), ReplySent(1, 2.0, b"y" * 500, 500, True, True))
        _, first, second = self.hub.session(1).records
        told = checked(json.loads(event_as_json(first)), "Event")
        self.assertEqual((len(told["line"]), told["cut"], told["octets"]), (100, 900, 1002))
        self.assertEqual((len(second.event.data), second.cut), (100, 400))

    def test_octets(self) -> None:
        """All sessions together have a bound: what has ended goes first, then old events."""
        for number in range(1, 4):
            self.tell(connected(number), *[line(number, b"z" * 100)] * 9, ended(number))
        for number in range(10, 200):
            self.tell(connected(number), *[line(number, b"z" * 100)] * 9)
        kept = list(self.hub.sessions())
        self.assertEqual([one.number for one in kept], list(range(10, 200)))
        self.assertLessEqual(sum(one.octets for one in kept), BOUNDS.octets + 190 * 2000)
        self.assertEqual(self.hub._octets, sum(one.octets for one in kept))
        self.assertGreaterEqual(min(len(one.records) for one in kept), 1)

    def test_last(self) -> None:
        """Of all events the last are there for followers; how many are missing is told."""
        self.tell(connected(1), *[line(1)] * 99)
        missed, records = self.hub.behind(0)
        self.assertEqual((missed + len(records), records[-1].seq), (100, 100))
        self.assertLessEqual(len(records), 50)
        self.assertEqual([one.seq for one in self.hub.behind(98)[1]], [99, 100])
        self.assertEqual(self.hub.behind(100), (0, []))

    def test_flood(self) -> None:
        """What comes faster than it is kept is dropped, but for what changes a session."""
        for event in (connected(1), *[line(1)] * 100, connected(2), ended(1)):
            self.hub.observe(event)
        self.assertEqual(len(self.hub._waiting), 32)
        self.hub.flush()
        session = self.hub.session(1)
        self.assertEqual(session.ended, "quit")
        # 71 never were kept, 21 more than a session's ten are not kept any more.
        self.assertEqual(session.dropped, 71 + 21)

    def test_turns(self) -> None:
        """It works in turns of its own, and none of them is long."""
        hub: Any = Hub(self.clock, Explainer(), lambda: 0.0, BOUNDS)
        keep = hub._keep

        def slowly(*what: Any) -> None:
            # Each event takes half of a turn.
            self.clock.rightNow += TURN / 2
            keep(*what)

        hub._keep = slowly
        for event in (connected(1), *[line(1)] * 25):
            hub.observe(event)
        self.assertEqual(hub.seq, 0)
        self.clock.advance(MOMENT)
        self.assertEqual(hub.seq, 10)
        self.clock.advance(TURN)
        self.clock.advance(TURN)
        self.assertEqual(hub.seq, 26)

    def test_late(self) -> None:
        """What comes behind the end belongs to the session, and makes no new one."""
        self.tell(connected(1), ended(1), LoginFailed(1, 4.0, "POP3", CHANNEL, "ann", "USER", "AUTH"))
        self.assertEqual((self.hub.total, self.hub.live, len(self.hub.session(1).records)), (1, 0, 3))


class StateTests(HubCase):
    """What is known of a session from its events alone."""

    def test_session(self) -> None:
        """User, mechanism, TLS, state and octets."""
        self.tell(
            connected(1),
            TLSStarted(1, 2.0, TLS),
            line(1),
            ReplySent(1, 2.5, b"+OK\r\n", 5, True, True),
            LoggedIn(1, 3.0, "POP3", CHANNEL, "ann", "USER"),
        )
        session: Any = self.hub.session(1)
        told = checked(session_as_dict(session, 4.0, None, held=False), "Session")
        self.assertEqual(told["tls"], {"version": TLS.version, "cipher": TLS.cipher})
        self.assertEqual((told["user"], told["state"], told["mechanism"]), ("ann", "TRANSACTION", "USER"))
        self.assertEqual((told["received"], told["sent"], told["seconds"], told["idle"]), (6, 5, 3.0, 1.0))
        self.assertEqual((self.hub.holder("ann"), self.hub.holder("bob")), (1, None))


@implementer(IGate)
class Shouting:
    """Another gate."""

    def command(self, record: SessionRecord, line: bytes) -> GateAnswer | bytes:
        return GateAnswer(b"-ERR no\r\n") if line == b"CAPA" else line.upper()

    def reply(self, record: SessionRecord, line: bytes, reply: bytes) -> bytes:
        return reply.upper()


class SteppingTests(SynchronousTestCase):
    """The gate that holds."""

    def test_with_another(self) -> None:
        """What is let go is asked of the other gate, as what is not held; and so are replies."""
        gate, record = Stepping(Shouting()), SessionRecord(1, CHANNEL)
        self.assertEqual(gate.command(record, b"noop"), b"NOOP")
        self.assertEqual(gate.reply(record, b"noop", b"+ok"), b"+OK")
        gate.hold(1)
        waiting: Any = gate.command(record, b"noop")
        self.assertNoResult(waiting)
        self.assertEqual(gate.command(SessionRecord(2, CHANNEL), b"CAPA"), GateAnswer(b"-ERR no\r\n"))
        self.assertTrue(gate.step(1))
        self.assertEqual(self.successResultOf(waiting), b"NOOP")
        self.assertFalse(gate.step(1))
        self.assertTrue(gate.held(1))

    def test_forgotten(self) -> None:
        """Of a session that has ended nothing is carried out."""
        gate = Stepping()
        gate.hold(1)
        waiting: Any = gate.command(SessionRecord(1, CHANNEL), b"DELE 1")
        gate.forget(1)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertFalse(gate.held(1))


class AcrossTests(HubCase):
    """Over workers: what goes up, and what goes down."""

    def across(self, *events: Any) -> list[str]:
        """What a worker's pipe carries of events, each a line of JSON."""
        lines: list[str] = []
        observer = EventsToSupervisor(lambda told: lines.append(json.dumps(told)), self.clock)
        for event in events:
            observer.observe(event)
        self.clock.advance(1)
        return lines

    def test_same(self) -> None:
        """Events are the same on the other side, octets, TLS and uids too; many go at once."""
        secure = Channel("192.0.2.1", False, TLS)
        told = [
            connected(3)._replace(channel=secure),
            line(3, b"\xff\x00USER"),
            TLSStarted(3, 1.0, TLS),
            Delivered(3, 1.5, "LMTP", secure, "q", "a@b", 5, [("ann", b"u1"), ("bob", b"u2")]),
            ended(3),
        ]
        [written] = self.across(*told)
        take(self.hub, json.loads(written))
        self.assertEqual([one.event for one in self.hub.session(3).records], told)
        self.assertEqual(EventsToSupervisor.wants, KINDS)

    def test_many(self) -> None:
        """A flood goes in portions, and nothing is lost."""
        written = self.across(connected(1), *[line(1)] * 999)
        self.assertEqual(sum(len(json.loads(one)) for one in written), 1000)
        self.assertEqual(len(written), 5)

    def control(self) -> WorkersControl:
        self.sent: list[tuple[int, Any]] = []
        return WorkersControl(self.hub, 3, lambda *sent: self.sent.append(sent), lambda: None)

    def test_orders(self) -> None:
        """An order goes to the worker that has the session, if there is such a session."""
        control = self.control()
        self.tell(connected(8))
        self.assertTrue(control.close(8))
        self.assertFalse(control.close(9))
        self.assertTrue(control.note(8, "x"))
        self.assertEqual(self.sent, [(1, ["close", 8, "administrator", False]), (1, ["note", 8, "x"])])

    def test_drain(self) -> None:
        """Draining goes to all, to one that is started again too, and ends with the last session."""
        control = self.control()
        self.tell(connected(8))
        drained: Deferred[None] = control.drain()
        self.assertTrue(control.draining)
        control.serves(2)
        self.assertEqual([number for number, _ in self.sent], [0, 1, 2, 2])
        self.assertNoResult(drained)
        self.tell(ended(8))
        self.successResultOf(drained)
        control.resume()
        control.serves(2)
        self.assertEqual(self.sent[4:], [(0, ["resume"]), (1, ["resume"]), (2, ["resume"])])

    def test_buried(self) -> None:
        """Sessions of a worker that died have ended."""
        control = self.control()
        self.tell(connected(1), connected(2), connected(4))
        self.hub.end(lambda session: control.worker_of(session) == 0, "dropped")
        self.assertEqual(
            {one.number: one.ended for one in self.hub.sessions()}, {1: "dropped", 4: "dropped", 2: None}
        )

    def test_carried_out(self) -> None:
        """A worker does what was sent, and what it does not know not at all."""
        done: list[Any] = []

        class Control:
            def close(self, *what: Any, **more: Any) -> None:
                done.append((*what, more))

            def drain(self) -> None:
                done.append("drain")

        control: Any = Control()
        for what in (["close", 1, "administrator", True], ["drain"], ["rm", "-rf"], []):
            act(control, what)
        self.assertEqual(done, [(1, {"why": "administrator", "at_once": True}), "drain"])
