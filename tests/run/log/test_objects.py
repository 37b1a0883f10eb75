"""The log as JSON: objects for programs, and events for Twisted again."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, LogPublisher, eventsFromJSONLogFile, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.events import Bounced, Delivered, LoginFailed
from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.observe.session_log import SessionLog
from pop3toy.run.log.objects import as_object

SECRET = "the password"


def trouble(secret: str) -> Failure:
    """A failure with everything in it that Twisted can keep."""
    try:
        raise ValueError("went wrong\x1b[2J")
    except ValueError:
        return Failure(captureVars=True)


class ObjectCase(SynchronousTestCase):
    """Events, and their lines."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.publisher = LogPublisher(lambda event: self.lines.append(as_object(event) or ""))  # type: ignore[arg-type]
        self.sessions = SessionLog(wall_clock=lambda: 1_700_000_000.25)
        self.sessions.log = Logger(self.sessions.log.namespace, observer=self.publisher)

    def said(self) -> dict[str, Any]:
        """The one object that was written."""
        [line] = self.lines
        self.lines.clear()
        self.assertTrue(line.endswith("}\n"))
        self.assertTrue(line[:-1].isascii() and line[:-1].isprintable(), line)
        found: dict[str, Any] = json.loads(line)
        return found


class ObjectTests(ObjectCase):
    """What stands in an object."""

    def test_login_failed(self) -> None:
        """Time, level, kind and the fields, then the line of text; what Twisted reads stands behind it."""
        channel = Channel("192.0.2.7", False, TLSFacts("TLSv1.3", "x"))
        self.sessions.observe(LoginFailed(7, 1.0, "POP3", channel, "ann", "USER", "AUTH"))
        said = self.said()
        self.assertEqual(
            list(said.items())[:11],
            [
                ("time", "2023-11-14T22:13:20.250+00:00"), ("level", "warn"), ("kind", "login failed"),
                ("session", 7), ("rip", "192.0.2.7"), ("user", "ann"), ("mechanism", "USER"),
                ("tls", "TLSv1.3"), ("protocol", "POP3"), ("reason", "AUTH"),
                ("message", "login failed: session=7 rip=192.0.2.7 user='ann' mechanism=USER tls=TLSv1.3"
                 " protocol=POP3 reason=AUTH"),
            ],
        )  # fmt: skip
        self.assertEqual(list(said)[11:], ["log_time", "log_level", "log_namespace", "log_format"])
        self.assertEqual(said["log_namespace"], "pop3toy.session")

    def test_types(self) -> None:
        """Recipients are a list, numbers are numbers, and what is not there is null."""
        uids = [("ann", b"1"), ("e,ve", b"2")]
        self.sessions.observe(Delivered(7, 1.0, "SMTP", Channel("unix", True), "0A", "", 5, uids))
        said = self.said()
        self.assertEqual((said["to"], said["from"], said["octets"]), (["ann", "e,ve"], "", 5))
        self.sessions.observe(LoginFailed(0, 1.0, "HTTP", Channel("unix", True), "", "PASSWORD", "AUTH"))
        said = self.said()
        self.assertEqual((said["session"], said["tls"], said["user"]), (None, None, ""))
        self.sessions.observe(Bounced(0, 1.0, "0A", "ann", "ann@x", "dan@y", "smart", 1.23456, "550 no"))
        self.assertEqual(self.said()["seconds"], 1.235)

    def test_other_events(self) -> None:
        """What is no line of sessions has no kind; the text of others steers nothing, and is no format."""
        log = Logger("twisted.x", observer=self.publisher)
        log.warn("{what} is {{odd}}", what="\x1b[2J{what}\x7f\u2028\xe4")
        said = self.said()
        text = "\\x1b[2J{what}\\x7f\\u2028\xe4 is {odd}"
        self.assertEqual((said["level"], said["message"]), ("warn", text))
        self.assertNotIn("kind", said)
        log.info("")
        self.assertEqual(self.lines, [""])

    def test_failure(self) -> None:
        """A traceback is text, and variables are in none of it."""
        Logger("x", observer=self.publisher).failure("it failed", trouble(SECRET))
        [line] = self.lines
        self.assertNotIn(SECRET, line)
        said = self.said()
        self.assertEqual((said["level"], said["message"]), ("critical", "it failed"))
        self.assertIn("builtins.ValueError: went wrong\\x1b[2J", said["traceback"])
        self.assertIn(", in trouble\n", said["traceback"])


class ReadBackTests(ObjectCase):
    """:func:`twisted.logger.eventsFromJSONLogFile` makes events of the lines."""

    @given(st.lists(st.text(), min_size=1, max_size=5), st.sampled_from(list(LogLevel.iterconstants())))
    def test_any_text(self, texts: list[str], level: Any) -> None:
        """Whatever the text is, the event has it, with level, namespace and time; failures are failures."""
        self.setUp()
        log = Logger("some.where", observer=self.publisher)
        for text in texts:
            log.emit(level, "{text}", text=f"x{text}")
        log.failure("failed", trouble(SECRET))
        file = StringIO("".join(self.lines))
        *events, failed = eventsFromJSONLogFile(file)
        self.assertEqual(len(events), len(texts))
        for event, line in zip(events, self.lines, strict=False):
            self.assertEqual(formatEvent(event), json.loads(line)["message"])
            self.assertIs(event["log_level"], level)
            self.assertEqual((event["log_namespace"], type(event["log_time"])), ("some.where", float))
        self.assertIsInstance(failed["log_failure"], Failure)
        self.assertIn("ValueError", failed["log_failure"].getTraceback())

    @given(st.text(), st.text(), st.text())
    def test_any_names(self, user: str, host: str, sender: str) -> None:
        """Names and addresses come out as they were."""
        self.setUp()
        channel = Channel(host, False)
        self.sessions.observe(LoginFailed(7, 1.0, "POP3", channel, user, "USER", "AUTH"))
        self.sessions.observe(Delivered(7, 1.0, "SMTP", channel, "0A", sender, 5, [(user, b"1")]))
        failed, delivered = [json.loads(line) for line in self.lines]
        self.assertEqual((failed["user"], failed["rip"]), (user[:200], host))
        self.assertEqual((delivered["from"], delivered["to"]), (sender[:200], [user[:200]]))
