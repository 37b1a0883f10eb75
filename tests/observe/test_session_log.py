"""The lines of the log: one for each login, each failure and each end."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy.interfaces import Channel, IMeter, SessionRecord, TLSFacts
from pop3toy.observe.session_log import LogMeter
from pop3toy.pop3.factory import SilentMeter


class LogMeterTests(SynchronousTestCase):
    """Lines for people and for fail2ban."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        self.meter = LogMeter()
        self.meter.log = Logger("pop3toy.observe.session_log", observer=LogPublisher(self.events.append))

    def line(self) -> str:
        """The one line that was written."""
        [event] = self.events
        return formatEvent(event)

    def record(self, **facts: object) -> SessionRecord:
        return SessionRecord(7, Channel("192.0.2.7", False), **facts)  # type: ignore[arg-type]

    def test_login(self) -> None:
        """Who came in, from where, how, and with which TLS."""
        self.meter.logged_in(self.record(user="ann", mechanism="USER"))
        self.assertEqual(self.line(), "login: session=7 rip=192.0.2.7 user='ann' mechanism=USER tls=none")

    def test_login_over_tls(self) -> None:
        """The version of TLS stands there."""
        record = SessionRecord(7, Channel("::1", True, TLSFacts("TLSv1.3", "x")), "ann", "PLAIN")
        self.meter.logged_in(record)
        self.assertTrue(self.line().endswith("tls=TLSv1.3"))

    def test_failure(self) -> None:
        """Who failed, from where, and why."""
        self.meter.login_failed(self.record(), "ann", "APOP", "AUTH")
        self.assertTrue(
            self.line().startswith("login failed: session=7 rip=192.0.2.7 user='ann' mechanism=APOP ")
        )
        self.assertTrue(self.line().endswith("reason=AUTH"))

    def test_names_forge_nothing(self) -> None:
        """A name that a stranger chose writes no line of its own, no field of its own format, no escape."""
        claimed = "x{rip}'\u2028\u202e\x9b2J\nlogin\x1b[2J'\tuser='root"
        self.meter.login_failed(self.record(), claimed, "USER", "AUTH")
        line = self.line()
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.isprintable())
        self.assertIn("{rip}", line)

    def test_password_behind_the_name(self) -> None:
        """What stands behind a claimed name may be a password, and is not written."""
        for claimed, shown in (
            ("ann hunter2", "ann ****"), ("ann:hunter2", "ann ****"), ("\0ann\0hunter2", " ****"),
            # A blank that was typed or pasted with it says why nobody is called so.
            ("ann ", "ann "), ("ann  ", "ann  "), ("ann \t", "ann ****"),
        ):  # fmt: skip
            self.meter.login_failed(self.record(), claimed, "USER", "AUTH")
            self.assertIn(f" user={shown!r} mechanism=USER ", self.line())
            self.events.clear()

    def test_end(self) -> None:
        """What a session did, and how it ended; a stranger's end is no news."""
        self.meter.ended(self.record())
        self.assertEqual(self.events, [])
        self.meter.ended(
            self.record(
                user="ann",
                mechanism="USER",
                received=10,
                sent=20,
                retrieved=2,
                removed=1,
                seconds=1.5,
                ended="quit",
            )
        )
        self.assertEqual(
            self.line(),
            "end: session=7 rip=192.0.2.7 user='ann' mechanism=USER tls=none ended=quit seconds=1.500"
            " received=10 sent=20 retrieved=2 removed=1",
        )

    def test_turned_away(self) -> None:
        """A connection that was refused is told with its address."""
        self.meter.turned_away(Channel("192.0.2.7", False), "full")
        self.assertEqual(self.line(), "connection refused: rip=192.0.2.7 reason=full")

    def test_interfaces(self) -> None:
        """Both count as meters, and a connection alone is no news to either."""
        for meter in (self.meter, SilentMeter()):
            verifyObject(IMeter, meter)
            meter.connected(self.record())
        self.assertEqual(self.events, [])
