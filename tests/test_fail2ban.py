"""The files for fail2ban in docs/: they find wrong passwords in the log, and nobody gets others banned."""

from __future__ import annotations

import base64
import configparser
import re
import shutil
import smtplib
import subprocess
from pathlib import Path

from twisted.logger import Logger, LogPublisher, formatEventAsClassicLogText
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import pop3toy
from pop3toy.events import ConnectionRejected, Delivered, Ended, LoggedIn, LoginFailed, Refused
from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.observe.session_log import SessionLog

from .folders import new_folder
from .realserver import DEADLINE, RealServer, maildir_options, wait_until

FILES = Path(pop3toy.__file__).parent.parent / "docs" / "fail2ban"
HOST = r"(?:::f{4,6}:)?(?P<host>[0-9a-fA-F:.]+)"


class FilterTests(SynchronousTestCase):
    """Lines as SessionLog writes them."""

    def setUp(self) -> None:
        parser = configparser.ConfigParser(interpolation=configparser.BasicInterpolation())
        parser.read(FILES / "pop3toy.filter")
        self.expression = re.compile(parser["Definition"]["failregex"].replace("<HOST>", HOST))

    def lines(self) -> list[tuple[str, str | None]]:
        """Lines of the log as twistd writes them, and whom to count for each."""
        written: list[str] = []
        publisher = LogPublisher(lambda event: written.append(formatEventAsClassicLogText(event) or ""))  # type: ignore[arg-type]
        sessions = SessionLog()
        sessions.log = Logger(namespace=sessions.log.namespace, source=sessions, observer=publisher)
        expected: list[str | None] = []
        tls = TLSFacts("TLSv1.3", "x")
        forged = "login failed: session=1 rip=203.0.113.1 user='x' mechanism=USER tls=none reason=AUTH"
        for host in ("192.0.2.7", "2001:db8::7"):
            claimed = "x' mechanism=USER tls=none reason=AUTH"
            for user in ("ann", "", claimed, f"\n[{forged}", forged, "\u2028\xff"):
                reasons = [(tls, "SYS/TEMP"), (None, "IN-USE"), (None, "refused")]
                for facts, why in [(None, "AUTH"), (tls, "AUTH"), *reasons]:
                    channel = Channel(host, False, facts)
                    sessions.observe(LoginFailed(7, 0.0, "POP3", channel, user, "SCRAM-SHA-256-PLUS", why))
                    expected.append(host if why == "AUTH" else None)
            channel = Channel(host, False)
            for event in (
                LoggedIn(8, 0.0, "POP3", channel, forged, "USER"),
                Ended(8, 0.0, "POP3", channel, forged, "USER", "quit", 1.0, 1, 1, 1, 1),
                ConnectionRejected(8, 0.0, "POP3", channel, "too many connections from your address"),
                Delivered(9, 0.0, "SMTP", channel, "0A", f"\n[{forged}", 5, [(forged, b"1")]),
                Refused(9, 0.0, "SMTP", channel, "", forged, f"\n[{forged}", 550, "5.1.1", forged),
            ):
                sessions.observe(event)
                expected.append(None)
        self.assertEqual(len(written), len(expected))
        return list(zip(written, expected, strict=True))

    def test_counted(self) -> None:
        """A wrong password counts for the address that it came from, and nothing else counts for anybody."""
        for line, host in self.lines():
            self.assertEqual(line.count("\n"), 1)
            stamp, text = line.rstrip("\n").split(" ", 1)
            self.assertRegex(stamp, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}\Z")
            # fail2ban takes the time off; the journal puts something in front.
            for seen in (f" {text}", f"mail twistd[17]: {stamp} {text}"):
                found = self.expression.search(seen)
                self.assertEqual(found["host"] if found else None, host, seen)

    def test_fail2ban_itself(self) -> None:
        """fail2ban reads the filter and finds as many lines, with their times."""
        if shutil.which("fail2ban-regex") is None:
            raise SkipTest("fail2ban is not installed (Debian package fail2ban)")
        lines = self.lines()
        log = Path(self.mktemp()).absolute()
        log.write_text("".join(line for line, _ in lines))
        done = subprocess.run(
            ["fail2ban-regex", str(log), str(FILES / "pop3toy.filter")],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        matched = sum(host is not None for _, host in lines)
        self.assertIn(
            f"Lines: {len(lines)} lines, 0 ignored, {matched} matched, {len(lines) - matched} missed",
            done.stdout,
        )
        self.assertIn(f"[{len(lines)}] ^Year-Month-DayT24hour:Minute:SecondZone offset", done.stdout)

    def test_jail(self) -> None:
        """The jail names the filter, and the ports of the systemd unit: all where people log in."""
        parser = configparser.ConfigParser()
        parser.read(FILES / "pop3toy.jail")
        self.assertEqual(parser["pop3toy"]["filter"], "pop3toy")
        sockets = (FILES.parent / "systemd" / "pop3toy.socket").read_text()
        ports = re.findall(r"^ListenStream=(\d+)$", sockets, re.MULTILINE)
        self.assertEqual(parser["pop3toy"]["port"].split(","), ports)

    def test_submission(self) -> None:
        """A wrong password counts by submission as by POP3."""
        folder = new_folder(self)
        (folder / "mail").mkdir()
        options = maildir_options(folder / "mail")
        with RealServer(*options, "--submission=tcp:0:interface=127.0.0.1", folder=folder) as server:
            with smtplib.SMTP("127.0.0.1", server.port_for("submission"), timeout=DEADLINE) as client:
                client.ehlo()
                wrong = base64.b64encode(b"\0ann\0wrong").decode()
                self.assertEqual(client.docmd("AUTH", f"PLAIN {wrong}")[0], 535)
            wait_until(lambda: "login failed" in server.log, "the failure is told")
            [line] = [line for line in server.log.splitlines() if "login failed" in line]
        found = self.expression.search(line.partition(" ")[2])
        assert found is not None, line
        self.assertEqual(found["host"], "127.0.0.1")
