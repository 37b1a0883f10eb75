"""The files for fail2ban in docs/: they find wrong passwords in the log, and nobody gets others banned."""

from __future__ import annotations

import base64
import configparser
import re
import shutil
import smtplib
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from twisted.logger import Logger, LogPublisher, formatEventAsClassicLogText
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import pop3toy
from pop3toy.auth.accounts.admin import add_user
from pop3toy.events import NONE, ConnectionRejected, Delivered, Ended, LoggedIn, LoginFailed, Refused
from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.observe.session_log import SessionLog
from pop3toy.run.log.objects import as_object

from .folders import new_folder
from .realserver import DEADLINE, RealServer, maildir_options, wait_until

FILES = Path(pop3toy.__file__).parent.parent / "docs" / "fail2ban"
HOST = r"(?:::f{4,6}:)?(?P<host>[0-9a-fA-F:.]+)"


class FilterTests(SynchronousTestCase):
    """Lines as SessionLog writes them, as text and as JSON."""

    def setUp(self) -> None:
        parser = configparser.ConfigParser(interpolation=configparser.BasicInterpolation())
        parser.read(FILES / "pop3toy.filter")
        expressions = parser["Definition"]["failregex"].replace("<HOST>", HOST).split("\n")
        self.expressions = [re.compile(one) for one in expressions]
        self.assertEqual(len(self.expressions), 2)

    def found(self, line: str) -> str | None:
        """Whom to count for a line."""
        found = [one for one in (each.search(line) for each in self.expressions) if one is not None]
        return found[0]["host"] if found else None

    def lines(self, form: Any = formatEventAsClassicLogText) -> list[tuple[str, str | None]]:
        """Lines of the log as twistd writes them, and whom to count for each."""
        written: list[str] = []
        publisher = LogPublisher(lambda event: written.append(form(event) or ""))  # type: ignore[arg-type]
        sessions = SessionLog()
        sessions.log = Logger(namespace=sessions.log.namespace, source=sessions, observer=publisher)
        expected: list[str | None] = []
        tls = TLSFacts("TLSv1.3", "x")
        claimed = "x' mechanism=USER tls=none protocol=POP3 reason=AUTH"
        forged = f"login failed: session=1 rip=203.0.113.1 user='{claimed}"
        begun = '{"time":"2026-11-30T05:52:47.192+00:00","level":"warn","kind":"login failed","session":1,'
        ends = (
            '"rip":"203.0.113.1","user":"x","mechanism":"USER","tls":null,"protocol":"POP3","reason":"AUTH",'
        )
        for host in ("192.0.2.7", "2001:db8::7"):
            json = (f'x","{ends}', f"\n{begun}{ends}", 'x\\","rip":"203.0.113.1', begun, "\\", '"')
            for user in ("ann", "", claimed, f"\n[{forged}", forged, "\u2028\xff", *json):
                reasons = [(tls, "SYS/TEMP"), (None, "IN-USE"), (None, "refused")]
                for facts, why in [(None, "AUTH"), (tls, "AUTH"), *reasons]:
                    channel = Channel(host, False, facts)
                    sessions.observe(LoginFailed(7, 0.0, "POP3", channel, user, "SCRAM-SHA-256-PLUS", why))
                    expected.append(host if why == "AUTH" else None)
            channel = Channel(host, False)
            sessions.observe(LoginFailed(NONE, 0.0, "HTTP", channel, "ann", "PASSWORD", "AUTH"))
            expected.append(host)
            for event in (
                LoggedIn(8, 0.0, "POP3", channel, forged, "USER"),
                Ended(8, 0.0, "POP3", channel, forged, "USER", "quit", 1.0, 1, 1, 1, 1),
                ConnectionRejected(8, 0.0, "POP3", channel, "too many connections from your address"),
                Delivered(9, 0.0, "SMTP", channel, "0A", f"\n[{forged}", 5, [(forged, b"1")]),
                Delivered(9, 0.0, "SMTP", channel, "0A", f'"{begun}{ends}', 5, [(f'"{begun}{ends}', b"1")]),
                Refused(9, 0.0, "SMTP", channel, "", forged, f"\n[{forged}", 550, "5.1.1", forged),
                Refused(
                    9, 0.0, "SMTP", channel, "", ends, f"\n{begun}{ends}", 550, "5.1.1", f"{begun}{ends}"
                ),
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
                self.assertEqual(self.found(seen), host, seen)

    def test_counted_in_json(self) -> None:
        """The same holds for lines of JSON."""
        for line, host in self.lines(as_object):
            self.assertEqual(line.count("\n"), 1)
            rest = re.sub(r'\A\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00', "", line)
            self.assertTrue(rest.startswith('","'))
            for seen in (rest, f"mail twistd[17]: {line}"):
                self.assertEqual(self.found(seen), host, seen)

    def test_fail2ban_itself(self) -> None:
        """fail2ban reads the filter and finds as many lines, with their times."""
        if shutil.which("fail2ban-regex") is None:
            raise SkipTest("fail2ban is not installed (Debian package fail2ban)")
        of_text = (formatEventAsClassicLogText, "^Year-Month-DayT24hour:Minute:SecondZone offset")
        of_json = (
            as_object,
            '^\\{"time":"Year-Month-DayT24hour:Minute:Second(?:\\.Microseconds)?Zone offset',
        )
        for form, date in (of_text, of_json):
            lines = self.lines(form)
            log = Path(self.mktemp()).absolute()
            log.write_text("".join(line for line, _ in lines))
            done = subprocess.run(
                ["fail2ban-regex", "--out", "ip", str(log), str(FILES / "pop3toy.filter")],
                capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            self.assertEqual(done.stdout.split(), [host for _, host in lines if host is not None])
            done = subprocess.run(
                ["fail2ban-regex", str(log), str(FILES / "pop3toy.filter")],
                capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            matched = sum(host is not None for _, host in lines)
            self.assertIn(
                f"Lines: {len(lines)} lines, 0 ignored, {matched} matched, {len(lines) - matched} missed",
                done.stdout,
            )
            self.assertIn(f"[{len(lines)}] {date}", done.stdout)

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
        self.assertEqual(self.found(line.partition(" ")[2]), "127.0.0.1")

    def test_password_page(self) -> None:
        """A wrong password counts at the page where passwords are changed, and in JSON."""
        folder = new_folder(self)
        (folder / "mail").mkdir()
        add_user(folder / "accounts", "ann", "right", scheme="SCRAM-SHA-256")
        options = [f"--accounts={folder}/accounts", f"--maildir={folder}/mail/{{user}}"]
        with RealServer(*options, "--password-port=0", "--log-format=json", folder=folder) as server:
            url = f"http://127.0.0.1:{server.port_for('password page')}/"
            token = "0" * 32
            form = urlencode(
                {"token": token, "user": "ann", "old": "wrong", "new": "x" * 9, "again": "x" * 9}
            )
            cookie = {"Cookie": f"pop3toy-password={token}"}
            with self.assertRaises(HTTPError) as raised:
                urlopen(Request(url, form.encode(), cookie), timeout=DEADLINE)
            self.assertEqual(raised.exception.code, 403)
            raised.exception.close()
            wait_until(lambda: "login failed" in server.log, "the failure is told")
            [line] = [line for line in server.log.splitlines() if "login failed" in line]
        self.assertEqual(self.found(line), "127.0.0.1")
        self.assertNotIn("wrong", line)
