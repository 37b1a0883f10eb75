"""The last hour in minutes: what is counted, and where."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.events import Connected, Ended, LineReceived, LoggedIn, LoginFailed, ReplySent, TextReceived
from pop3toy.interfaces import Channel
from pop3toy.observe.inspector import history
from pop3toy.observe.inspector.history import MINUTES, History

HERE = Channel("127.0.0.1", local=True)
#: A minute's start.
NOON = 1_000_000_020.0


def line(at: float, session: int = 1) -> LineReceived:
    """A command of six octets."""
    return LineReceived(session, at, b"NOOP", 6, "NOOP", "TRANSACTION")


def reply(at: float, session: int = 1, *, last: bool = True, left: bool = True) -> ReplySent:
    """A reply of five octets."""
    return ReplySent(session, at, b"+OK\r\n", 5, last, left)


class HistoryTests(SynchronousTestCase):
    """Events by the minute."""

    def setUp(self) -> None:
        self.history = History()

    def count(self, *events: Any, wall: float = NOON, live: int = 1) -> None:
        """Events of one moment."""
        for event in events:
            self.history.count(event, wall, live)

    def last(self, wall: float = NOON, live: int = 0) -> dict[str, Any]:
        """The minute that is going on."""
        return self.history.as_list(wall, live)[-1]

    def test_one_of_each(self) -> None:
        """Sessions, logins by result, and octets of lines, texts and replies that left."""
        self.count(
            Connected(1, 0.0, "SMTP", HERE, "127.0.0.1:1"),
            line(0.0),
            reply(0.0),
            reply(0.0, left=False),
            TextReceived(1, 0.0, b"", 100, False),
            LoggedIn(1, 0.0, "SMTP", HERE, "mary", "PLAIN"),
            LoginFailed(1, 0.0, "SMTP", HERE, "mary", "PLAIN", "AUTH"),
            live=7,
        )
        minute = self.last()
        self.assertEqual(
            [minute[name] for name in ("sessions", "live", "logins", "failed", "received", "sent")],
            [1, 7, 1, 1, 106, 5],
        )

    def test_time_to_answer(self) -> None:
        """From a line, or a message's last, to the end of its reply; a greeting answers nothing."""
        self.count(reply(1.0), line(2.0), reply(2.5, last=False), reply(3.0))
        self.count(TextReceived(1, 4.0, b"", 9, True), reply(6.0))
        minute = self.last()
        self.assertEqual((minute["answers"], minute["answer_mean"], minute["answer_max"]), (2, 1.5, 2.0))

    def test_no_answer(self) -> None:
        """Of no answer there is no time; an end leaves nothing to be measured."""
        self.count(line(1.0), Ended(1, 2.0, "POP3", HERE, None, None, "", 1.0, 0, 0, 0, 0), reply(9.0))
        self.assertEqual(self.last()["answer_mean"], None)

    def test_an_hour(self) -> None:
        """Sixty minutes, also those in which nothing happened; the oldest go."""
        self.count(line(0.0))
        minutes = self.history.as_list(NOON + 60 * 3 + 59, 2)
        self.assertEqual([one["received"] for one in minutes], [6, 0, 0, 0])
        self.assertEqual([one["live"] for one in minutes], [1, 2, 2, 2])
        self.assertEqual(minutes[1]["time"], "2001-09-09T01:48:00.000+00:00")
        minutes = self.history.as_list(NOON + 86400 * 9, 0)
        self.assertEqual(len(minutes), MINUTES)
        self.assertEqual(sum(one["received"] for one in minutes), 0)

    def test_clock_set_back(self) -> None:
        """What happens then belongs to the last minute that there was."""
        self.count(line(0.0))
        self.count(line(1.0), wall=NOON - 7200)
        self.assertEqual([one["received"] for one in self.history.as_list(NOON - 7200, 0)], [12])

    def test_bounded(self) -> None:
        """Lines without an answer are forgotten, the oldest first."""
        self.patch(history, "_WAITING", 2)
        self.count(line(1.0, 1), line(1.0, 2), line(1.0, 3), reply(2.0, 1), reply(2.0, 2), reply(2.0, 3))
        self.assertEqual(self.last()["answers"], 2)
