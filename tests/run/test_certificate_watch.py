"""Certificates that soon expire: a line in the log, once a day for each threshold, and a warning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.installation import install_hint

try:
    from pop3toy.net.tls.certificate_files import CertificateFiles, Material, Pair
    from pop3toy.net.tls.contexts import GivenTLS
except ImportError:
    raise SkipTest(f"no TLS: {install_hint('tls')}") from None

from pop3toy.run.monitoring.certificates import INTERVAL, CertificateWatch
from pop3toy.run.monitoring.troubles import expired, expiring

from ..folders import new_folder
from ..tls_world import Authority

DAY = 86400


class WatchTests(SynchronousTestCase):
    """A certificate, and a wall clock that moves with the other."""

    def setUp(self) -> None:
        self.authority = Authority(new_folder(self))
        self.clock = Clock()
        self.began = datetime.now(UTC).timestamp() // DAY * DAY + DAY

    def wall(self) -> float:
        """The time of day."""
        return self.began + self.clock.seconds()

    def tls(self, *days: float) -> GivenTLS:
        """Certificates that are good for so many days from when the clock begins."""
        now, pairs = datetime.now(UTC).timestamp(), []
        for number, each in enumerate(days):
            # Those that have ended did begin before that, whatever time of day it is.
            ends = timedelta(seconds=self.began - now, days=each)
            made = self.authority.issue("localhost", begins=timedelta(days=-30), ends=ends)
            files = CertificateFiles(f"/etc/{number}.pem", f"/etc/{number}.pem")
            pairs.append(Pair(files, made.certificate, made.key))
        return GivenTLS(Material(tuple(pairs)))

    def told(self, watch: CertificateWatch, hours: int) -> list[tuple[float, LogLevel, str]]:
        """What is told in these hours: after how many days, how loud, and what."""
        found = []
        for _ in range(hours):
            with capturedLogs() as events:
                self.clock.advance(INTERVAL)
            for event in events:
                found.append((self.clock.seconds() / DAY, event["log_level"], formatEvent(event) or ""))
        return found

    def test_thresholds(self) -> None:
        """It is told once a day from 14 days on, and once more on a day on which the next threshold comes."""
        watch = CertificateWatch(self.clock, self.tls(16.5), self.wall)
        with capturedLogs() as events:
            watch.startService()
        self.assertEqual(events, [])
        found = self.told(watch, 17 * 24)
        self.assertTrue(found[0][2].startswith("the certificate in /etc/0.pem expires in 13 days: renew it"))
        self.assertLess(abs(found[0][0] - 2.5), 0.1)
        days = [int(when) for when, _, _ in found]
        self.assertEqual(set(days), set(range(2, 18)))
        # Within 7 days from the middle of the tenth on, within 2 from that of the fifteenth.
        self.assertEqual(sorted(day for day in set(days) if days.count(day) == 2), [9, 14])
        errors = [when for when, level, _ in found if level is LogLevel.error]
        self.assertLess(abs(errors[0] - 14.5), 0.1)
        self.assertIn("expires in 1 day:", found[-4][2] + found[-3][2])
        self.assertIn("has expired", found[-1][2])
        watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_start(self) -> None:
        """A server that starts late tells at once, of each file."""
        watch = CertificateWatch(self.clock, self.tls(3.5, 60, 1.5), self.wall)
        with capturedLogs() as events:
            watch.startService()
        self.addCleanup(watch.stopService)
        self.assertEqual(
            [(formatEvent(event) or "").partition(":")[0] for event in events],
            [
                "the certificate in /etc/0.pem expires in 3 days",
                "the certificate in /etc/2.pem expires in 1 day",
            ],
        )
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn, LogLevel.error])

    def test_health(self) -> None:
        """For /healthz it is a warning from 14 days on, and a problem once it has expired."""
        tls = self.tls(20, 13.5, 0.5, -0.5)
        self.assertEqual(
            expiring(tls, self.wall),
            [
                "the certificate in /etc/1.pem expires in 13 days",
                "the certificate in /etc/2.pem expires in 0 days",
            ],
        )
        self.assertEqual(expired(tls, self.wall), ["the certificate in /etc/3.pem has expired"])
