"""The lines of the log: logins, failures, ends, and mail that came in or was refused."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy.events import (
    KINDS,
    Connected,
    ConnectionRejected,
    Delivered,
    Ended,
    LoggedIn,
    LoginFailed,
    Observers,
    Refused,
    TLSFailed,
)
from pop3toy.interfaces import Channel, IObserver, TLSFacts
from pop3toy.observe.session_log import SessionLog

FAR = Channel("192.0.2.7", False)


def refused(sender: str = "bob@example.org", recipient: str = "", queue_id: str = "", **last: Any) -> Refused:
    """Mail was not taken."""
    last = {"code": 550, "enhanced": "5.1.1", "reason": "no such user", **last}
    return Refused(7, 1.0, "SMTP", FAR, queue_id, sender, recipient, **last)


class SessionLogTests(SynchronousTestCase):
    """Lines for people and for fail2ban."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        self.log = SessionLog()
        self.log.log = Logger(self.log.log.namespace, observer=LogPublisher(self.events.append))  # type: ignore[arg-type]

    def line(self, event: Any) -> str:
        """The one line that is written of something, with its level."""
        self.log.observe(event)
        [written] = self.events
        self.assertIs(written["event"], event)
        self.events.clear()
        return f"{written['log_level'].name}: {formatEvent(written)}"

    def test_namespace(self) -> None:
        """Under this name the filters look for it that people have installed."""
        self.assertEqual(self.log.log.namespace, "pop3toy.session")

    def test_lines(self) -> None:
        """Fields have a fixed order; all but POP3 say their protocol; the reason of a failure is last."""
        far, local = FAR, Channel("::1", True, TLSFacts("TLSv1.3", "x"))
        end: Any = ("ann", "USER", "quit", 1.5, 10, 20, 2, 1)
        ended = (
            "info: end: session=7 rip=192.0.2.7 user='ann' mechanism=USER tls=none ended=quit seconds=1.500"
            " received=10 sent=20 retrieved=2 removed=1"
        )
        failed = "warn: login failed: session=7 rip=192.0.2.7 user='ann' mechanism=APOP tls=none"
        for event, line in (
            (LoggedIn(7, 1.0, "POP3", far, "ann", "USER"),
             "info: login: session=7 rip=192.0.2.7 user='ann' mechanism=USER tls=none"),
            (LoggedIn(7, 1.0, "submission", local, "ann", "PLAIN"),
             "info: login: session=7 rip=::1 user='ann' mechanism=PLAIN tls=TLSv1.3 protocol=submission"),
            (LoginFailed(7, 1.0, "POP3", far, "ann", "APOP", "AUTH"), f"{failed} reason=AUTH"),
            (LoginFailed(7, 1.0, "submission", far, "ann", "APOP", "AUTH"),
             f"{failed} protocol=submission reason=AUTH"),
            (Ended(7, 1.0, "POP3", far, *end), ended),
            (Ended(7, 1.0, "submission", far, *end), f"{ended} protocol=submission"),
            (ConnectionRejected(7, 1.0, "POP3", far, "full"),
             "warn: connection refused: rip=192.0.2.7 reason=full"),
            (TLSFailed(7, 1.0, "POP3", far, "http\nrequest"),
             "info: TLS failed: session=7 rip=192.0.2.7 protocol=POP3 reason=http\\nrequest"),
            (Delivered(7, 1.0, "SMTP", far, "0A", "bob@x", 5, [("ann", b"1"), ("eve", b"2")]),
             "info: message 0A delivered: 5 octets from <bob@x> for ann, eve"
             " session=7 rip=192.0.2.7 protocol=SMTP"),
            (refused(),
             "info: mail refused: session=7 rip=192.0.2.7 protocol=SMTP id=- from=<bob@example.org> to=<>"
             " code=550 reason=5.1.1 no such user"),
        ):  # fmt: skip
            self.assertEqual(self.line(event), line)

    def test_names_forge_nothing(self) -> None:
        """What a stranger chose writes no line of its own, no field of its own format, no escape."""
        claimed = "x{rip}'\u2028\u202e\x9b2J\nlogin\x1b[2J'\tuser='root"
        for event in (
            LoginFailed(7, 1.0, "POP3", FAR, claimed, "USER", "AUTH"),
            Delivered(7, 1.0, "SMTP", FAR, "0A", claimed, 5, [(claimed, b"1")]),
            refused(claimed, claimed, reason=claimed),
        ):
            line = self.line(event)
            self.assertEqual(len(line.splitlines()), 1)
            self.assertTrue(line.isprintable())
            self.assertIn("{rip}", line)

    def test_end(self) -> None:
        """An end without a login has a line only if the server ended it and no other line says so."""
        for why in ("quit", "dropped", "rejected", "shutdown"):
            self.log.observe(Ended(7, 1.0, "POP3", FAR, None, None, why, 1.5, 10, 20, 0, 0))
        self.assertEqual(self.events, [])
        self.assertIn(
            " user=None mechanism=None tls=none ended=timeout seconds=60.0",
            self.line(Ended(7, 1.0, "POP3", FAR, None, None, "timeout", 60.0, 10, 20, 0, 0)),
        )

    def test_refused(self) -> None:
        """A refused address adds no field, and a long one is cut."""
        line = self.line(refused("", "x> code=250 y\n" + "z" * 300, "0A"))
        self.assertIn(" id=0A from=<> to=<x>\\x20code=250\\x20y\\nzz", line)
        self.assertIn("z> code=550 reason=5.1.1 no such user", line)
        self.assertLess(len(line), 400)

    def test_wants(self) -> None:
        """All that it has lines for, or what it is told."""
        verifyObject(IObserver, self.log)
        self.assertEqual(
            set(self.log.wants),
            {LoggedIn, LoginFailed, Ended, ConnectionRejected, TLSFailed, Delivered, Refused},
        )
        self.assertEqual(set(Observers(SessionLog([Delivered])).told), {Delivered})
        self.assertLess(set(self.log.wants), set(KINDS) - {Connected})
