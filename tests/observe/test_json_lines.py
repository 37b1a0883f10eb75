"""Events as JSON Lines: what a line holds, that the schema says so, and that no secret is in it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import pop3toy
from pop3toy import POP3Factory, events
from pop3toy.events import KINDS, Event, LineReceived, Observers, ReplySent
from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.observe.json_lines import JSONLines, as_json, lost
from pop3toy.observe.json_schema import json_schema
from pop3toy.observe.line_writer import LineWriter

from ..pop3_world import FakeAuthenticator, FakeSocket, ScriptedMailbox

SCHEMA = jsonschema.Draft202012Validator(json_schema())  # type: ignore[no-untyped-call]

_TLS = st.builds(TLSFacts, st.text(), st.text(), st.none() | st.text())
#: Anything of a type that a field may have.
_ANY: dict[object, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(),
    bytes: st.binary(),
    bool: st.booleans(),
    str | None: st.none() | st.text(),
    Sequence[str]: st.lists(st.text()),
    Channel: st.builds(Channel, st.text(), st.booleans(), st.none() | _TLS),
    TLSFacts: _TLS,
    Sequence[tuple[str, bytes]]: st.lists(st.tuples(st.text(), st.binary())),
}


def _events(kind: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, *(_ANY[hint] for hint in get_type_hints(kind, vars(events)).values()))


class JSONTests(SynchronousTestCase):
    """One event, one line."""

    @given(st.one_of(*map(_events, KINDS)), st.floats(0, 4e9))
    def test_every_event(self, event: Event, now: float) -> None:
        """Whatever is in an event, it is one line that fits the schema and lacks nothing."""
        line = as_json(event, now)
        self.assertTrue(line.isascii())
        self.assertNotIn("\n", line)
        read = json.loads(line)
        SCHEMA.validate(read)
        for name, value in zip(event._fields, event, strict=True):
            if isinstance(value, bytes):
                self.assertEqual(read[name].encode("utf-8", "surrogateescape"), value)

    def test_time(self) -> None:
        line = json.loads(as_json(LineReceived(1, 2.5, b"QUIT", 6, "QUIT", "TRANSACTION"), 1_700_000_000.25))
        self.assertEqual((line["time"], line["at"]), ("2023-11-14T22:13:20.250+00:00", 2.5))

    def test_lost(self) -> None:
        SCHEMA.validate(json.loads(lost(7)))

    def test_schema_is_current(self) -> None:
        """docs/transcript.schema.json is what the events say, and refuses what is none."""
        page = Path(pop3toy.__file__).parent.parent / "docs" / "transcript.schema.json"
        self.assertEqual(json.loads(page.read_text(encoding="utf-8")), json_schema())
        for wrong in ({}, {"event": "LineReceived"}, {"event": "Lost", "events": "7"}):
            self.assertFalse(SCHEMA.is_valid(wrong))

    def test_conversation(self) -> None:
        """A session of real mail: what was said is there in its order, and the password is not."""
        clock, stream = Clock(), io.StringIO()
        writer = JSONLines(LineWriter(lambda: stream, started=False), lambda: 0.0)
        mailbox = ScriptedMailbox({b"one": b"Subject: one\n\nHello\n"})
        factory = POP3Factory(clock, FakeAuthenticator(mailbox), observers=Observers(writer))
        socket = FakeSocket(clock)
        socket.connect(factory.buildProtocol(None))
        for line in (b"USER ann", b"PASS pass", b"RETR 1", b"QUIT"):
            socket.client_sends(line + b"\r\n")
            socket.client_reads_all()
        self.assertNotIn("pass", stream.getvalue())
        seen = [json.loads(line) for line in stream.getvalue().splitlines()]
        for event in seen:
            SCHEMA.validate(event)
        said = [event["line"] for event in seen if event["event"] == LineReceived.__name__]
        self.assertEqual(said, ["USER ann", "PASS ****", "RETR 1", "QUIT"])
        sent = "".join(event["data"] for event in seen if event["event"] == ReplySent.__name__)
        self.assertIn("\r\nSubject: one\r\n\r\nHello\r\n.\r\n", sent)
        self.assertEqual([seen[0]["event"], seen[-1]["event"]], ["Connected", "Ended"])
