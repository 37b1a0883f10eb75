"""What is written down of sessions, told of events by hand."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.events import Connected, Ended, LineReceived, ReplySent
from pop3toy.interfaces import Channel
from pop3toy.testing.recorder import Recorder, Session

CHANNEL = Channel("127.0.0.1", local=True)


class RecorderTests(SynchronousTestCase):
    """Sessions of one server."""

    def setUp(self) -> None:
        self.synced = 0
        self.recorder = Recorder(self.sync)
        self.recorder.observe(Connected(1, 0.0, "POP3", CHANNEL, "127.0.0.1:50110"))
        [self.session] = self.recorder.sessions

    def sync(self) -> None:
        self.synced += 1

    def test_new(self) -> None:
        """Of a session that has just begun nothing is known."""
        session = self.session
        self.assertEqual((session.user, session.mechanism, session.tls, session.ended), (None,) * 4)
        self.assertEqual(session.commands + session.replies + session.retrieved + session.removed, [])
        self.assertEqual(repr(session), "<Session 1 of nobody, under way>")

    def test_synced(self) -> None:
        """Whatever a test asks a session, the server has written down before what clients know."""
        for name, what in vars(Session).items():
            if isinstance(what, property):
                before = self.synced
                getattr(self.session, name)
                self.assertEqual(self.synced, before + 1, name)

    def test_replies(self) -> None:
        """A reply is one however many pieces it has; one that was not sent, or lost by a gate, is none."""
        for data, last, handed_over in (
            (b"+OK 10 octets\r\nx", False, True),
            (b"\r\n", False, True),
            (b".\r\n", True, True),
            (b"", True, True),
            (b"+OK 1 10\r\n", True, True),
            (b"+OK too late\r\n", True, False),
        ):
            self.recorder.observe(ReplySent(1, 0.0, data, len(data), last, handed_over))
        self.assertEqual(self.session.replies, ["+OK 10 octets", "+OK 1 10"])

    def test_odd_lines(self) -> None:
        """What is no UTF-8 or would steer a terminal is shown, and does not."""
        self.recorder.observe(LineReceived(1, 0.0, b"USER \xff\x1b\xc3\xab", 11, "USER", "AUTHORIZATION"))
        self.assertEqual(self.session.commands, ["USER \\xff\\x1b\u00eb"])
        self.assertTrue(self.session.transcript.endswith("\nC: USER \\xff\\x1b\u00eb"))

    def test_strangers(self) -> None:
        """What is told of a connection of which nothing is known is nobody's."""
        self.recorder.observe(LineReceived(2, 0.0, b"NOOP", 6, "NOOP", "TRANSACTION"))
        self.assertEqual(len(self.recorder.sessions), 1)

    def test_long(self) -> None:
        """The beginning of a very long conversation is not kept for ever."""
        for _ in range(11_000):
            self.recorder.observe(LineReceived(1, 0.0, b"NOOP", 6, "NOOP", "TRANSACTION"))
        self.assertEqual(len(self.session.transcript.splitlines()), 10_000)
        self.assertEqual(len(self.session.commands), 11_000)

    def test_ended(self) -> None:
        """An end is given once, and stands in the repr."""
        self.assertIsNone(self.recorder.next_ended(0))
        end = Ended(1, 0.0, "POP3", CHANNEL, None, None, "dropped", 0.0, 0, 0, 0, 0)
        self.recorder.observe(end)
        self.assertEqual(repr(self.recorder.next_ended(0)), "<Session 1 of nobody, dropped>")
        self.assertIsNone(self.recorder.next_ended(0))
