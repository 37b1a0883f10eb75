"""The lines of the log: logins, failures, ends, and mail that came in or was refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.logger import Logger, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy.events import (
    KINDS,
    NONE,
    Bounced,
    Connected,
    ConnectionRejected,
    Delivered,
    Ended,
    LoggedIn,
    LoginFailed,
    Observers,
    PasswordChanged,
    Queued,
    QueueRemoved,
    Refused,
    SendDeferred,
    Sent,
    TLSFailed,
)
from pop3toy.interfaces import Channel, IObserver, TLSFacts
from pop3toy.observe.log_levels import Levels
from pop3toy.observe.session_log import FIELDS, LINES, SessionLog, fields_of

FAR = Channel("192.0.2.7", False)


def refused(sender: str = "bob@example.org", recipient: str = "", queue_id: str = "", **last: Any) -> Refused:
    """Mail was not taken."""
    last = {"code": 550, "enhanced": "5.1.1", "reason": "no such user", **last}
    return Refused(7, 1.0, "SMTP", FAR, queue_id, sender, recipient, **last)


def of_queue(kind: Any, *what: Any) -> Any:
    """Something has become of a message."""
    return kind(NONE, 1.0, "0A", "ann", "ann@x", *what)


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
        """Fields have a fixed order; the reason is last."""
        kinds = set()
        far, local = FAR, Channel("::1", True, TLSFacts("TLSv1.3", "x"))
        end: Any = ("ann", "USER", "quit", 1.5, 10, 20, 2, 1)
        ended = (
            "info: end: session=7 rip=192.0.2.7 user='ann' mechanism=USER tls=none ended=quit seconds=1.500"
            " received=10 sent=20 retrieved=2 removed=1"
        )
        failed = "warn: login failed: session=7 rip=192.0.2.7 user='ann' mechanism=APOP tls=none"
        mail = "id=0A octets=5 from=<bob@x>"
        going = "id=0A from=<ann@x> to=<dan@y> user='ann' smarthost=smart.example"
        for event, line in (
            (LoggedIn(7, 1.0, "POP3", far, "ann", "USER"),
             "info: login: session=7 rip=192.0.2.7 user='ann' mechanism=USER tls=none protocol=POP3"),
            (LoggedIn(7, 1.0, "submission", local, "ann", "PLAIN"),
             "info: login: session=7 rip=::1 user='ann' mechanism=PLAIN tls=TLSv1.3 protocol=submission"),
            (LoginFailed(7, 1.0, "POP3", far, "ann", "APOP", "AUTH"), f"{failed} protocol=POP3 reason=AUTH"),
            (LoginFailed(NONE, 1.0, "HTTP", far, "ann", "APOP", "AUTH"),
             f"{failed} protocol=HTTP reason=AUTH".replace("session=7", "session=-")),
            (PasswordChanged(NONE, 1.0, "HTTP", far, "ann"),
             "info: password changed: session=- rip=192.0.2.7 protocol=HTTP user='ann'"),
            (Ended(7, 1.0, "POP3", far, *end), f"{ended} protocol=POP3"),
            (Ended(7, 1.0, "submission", far, *end), f"{ended} protocol=submission"),
            (ConnectionRejected(7, 1.0, "POP3", far, "full"),
             "warn: connection refused: session=7 rip=192.0.2.7 protocol=POP3 reason=full"),
            (TLSFailed(7, 1.0, "POP3", far, "http\nrequest"),
             "info: TLS failed: session=7 rip=192.0.2.7 protocol=POP3 reason=http\\nrequest"),
            (Delivered(7, 1.0, "SMTP", far, "0A", "bob@x", 5, [("ann", b"1"), ("eve", b"2")]),
             f"info: delivered: {mail} to=ann,eve session=7 rip=192.0.2.7 protocol=SMTP"),
            (refused(),
             "info: mail refused: session=7 rip=192.0.2.7 protocol=SMTP id=- from=<bob@example.org> to=-"
             " code=550 reason=5.1.1 no such user"),
            (Queued(7, 1.0, "submission", far, "0A", "bob", "bob@x", 5, ["dan@y", "eve@z"]),
             f"info: queued: {mail} to=<dan@y>,<eve@z> user='bob' session=7 rip=192.0.2.7"
             " protocol=submission"),
            (of_queue(Sent, "dan@y", "smart.example", 1.25, "250 ok"),
             f"info: sent: {going} seconds=1.250 reason=250 ok"),
            (of_queue(SendDeferred, ["dan@y"], "smart.example", 2, 299.9, "450 later"),
             f"warn: deferred: {going} attempts=2 wait=300 reason=450 later"),
            (of_queue(Bounced, "dan@y", "smart.example", 301.0, "550 no"),
             f"warn: bounced: {going} seconds=301.000 reason=550 no"),
            (QueueRemoved(NONE, 1.0, "0A"), "info: removed: id=0A"),
        ):  # fmt: skip
            kinds.add(type(event))
            self.assertEqual(self.line(event), line)
        self.assertEqual(kinds, set(LINES))

    def test_fields(self) -> None:
        """By name they are of their types: numbers, lists, and null for what is not there."""
        self.assertEqual(
            fields_of(Ended(7, 1.0, "POP3", FAR, None, None, "timeout", 1.23456, 10, 20, 2, 1)),
            ("end", {
                "session": 7, "rip": "192.0.2.7", "user": None, "mechanism": None, "tls": None,
                "ended": "timeout", "seconds": 1.235, "received": 10, "sent": 20, "retrieved": 2,
                "removed": 1, "protocol": "POP3",
            }),
        )  # fmt: skip
        self.assertEqual(
            fields_of(refused(recipient="x y@z")),
            ("mail refused", {
                "session": 7, "rip": "192.0.2.7", "protocol": "SMTP", "id": None, "from": "bob@example.org",
                "to": ["x y@z"], "code": 550, "reason": "5.1.1 no such user",
            }),
        )  # fmt: skip
        self.assertIsNone(fields_of(Connected(7, 1.0, "POP3", FAR, "peer")))
        self.assertIsNone(fields_of(None))

    def test_same_names(self) -> None:
        """What is the same has one name in all lines, and each name one sentence."""
        for line in LINES.values():
            for field in line.fields:
                self.assertEqual(field.name == "reason", field is line.fields[-1] and "why;" in field.says)
        said = {field.says for line in LINES.values() for field in line.fields}
        # It is users who get it, or addresses.
        self.assertEqual(len(said), len(FIELDS) + 1)

    def test_levels(self) -> None:
        """Of a level that is not written, not even the text is made."""
        levels = Levels("warn")
        quiet = SessionLog(levels=levels)
        quiet.log = self.log.log
        # It has no user whose name could be cut.
        quiet.observe(LoggedIn(7, 1.0, "POP3", FAR, None, "USER"))  # type: ignore[arg-type]
        quiet.observe(LoginFailed(7, 1.0, "POP3", FAR, "ann", "USER", "AUTH"))
        self.assertEqual([one["log_level"].name for one in self.events], ["warn"])
        levels.use("info")
        quiet.observe(LoggedIn(7, 1.0, "POP3", FAR, "ann", "USER"))
        self.assertEqual(len(self.events), 2)

    def test_names_forge_nothing(self) -> None:
        """What a stranger chose writes no line of its own, no field of its own format, no escape."""
        claimed = "x{rip}'\u2028\u202e\x9b2J\nlogin\x1b[2J'\tuser='root"
        hostile = Channel(claimed, False)
        for event in (
            LoginFailed(7, 1.0, "POP3", FAR, claimed, "USER", "AUTH"),
            LoginFailed(7, 1.0, "POP3", hostile, claimed, claimed, "AUTH"),
            LoggedIn(7, 1.0, "POP3", FAR, claimed, claimed),
            Delivered(7, 1.0, "SMTP", FAR, "0A", claimed, 5, [(claimed, b"1"), (f"{claimed},eve", b"2")]),
            Queued(7, 1.0, "submission", FAR, "0A", claimed, claimed, 5, [claimed, f"{claimed}>,<x"]),
            refused(claimed, claimed, reason=claimed),
            Bounced(NONE, 1.0, "0A", claimed, claimed, claimed, "smart", 1.0, claimed),
        ):
            line = self.line(event)
            self.assertEqual(len(line.splitlines()), 1)
            self.assertTrue(line.isprintable())
            self.assertIn("{rip}", line)
            # Blanks stand between fields alone, but in the reason.
            kind, _, rest = line.partition(": ")[2].partition(": ")
            names = [word.partition("=")[0] for word in rest.partition(" reason=")[0].split(" ")]
            known = [one.name for one in LINES[type(event)].fields if one.name != "reason"]
            self.assertEqual((kind, names), (LINES[type(event)].kind, known))
            if isinstance(event, Delivered | Queued):
                self.assertEqual(len(re.findall(" to=([^ ]*)", line)[0].split(",")), 2)

    def test_end(self) -> None:
        """An end without a login has a line only if the server ended it and no other line says so."""
        for why in ("quit", "dropped", "rejected", "shutdown"):
            self.log.observe(Ended(7, 1.0, "POP3", FAR, None, None, why, 1.5, 10, 20, 0, 0))
        self.assertEqual(self.events, [])
        self.assertIn(
            " user=- mechanism=- tls=none ended=timeout seconds=60.0",
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
        self.assertEqual(set(self.log.wants), set(LINES))
        self.assertEqual(set(Observers(SessionLog([Delivered])).told), {Delivered})
        self.assertLess(set(self.log.wants), set(KINDS) - {Connected})


class PageTests(SynchronousTestCase):
    """docs/operating/log.rst tells of the table."""

    def setUp(self) -> None:
        page = (Path(__file__).parent.parent.parent / "docs" / "operating" / "log.rst").read_text("utf-8")
        self.tables = [
            [
                [" ".join(cell.split()) for cell in re.split(r"\n     - ", row)]
                for row in re.split(r"\n   \* - ", table.partition("\n\n")[2].partition("\n\n")[0])[1:]
            ]
            for table in page.split(".. list-table::")[1:]
        ]
        self.examples = re.findall(r"^    ([a-zA-Z ]+): ((?:session|id)=.*)$", page, re.MULTILINE)

    def test_kinds(self) -> None:
        """Each kind of line has its row, with its level, its fields in their order and a sentence."""
        rows = {kind: (level, fields) for kind, level, fields, when in self.tables[0] if when}
        self.assertEqual(
            rows,
            {
                f"``{line.kind}``": (line.level.name, " ".join(f"``{one.name}``" for one in line.fields))
                for line in LINES.values()
            },
        )

    def test_fields(self) -> None:
        """Each field has its row, with what it is."""
        rows = dict(self.tables[1])
        self.assertEqual(set(rows), {f"``{name}``" for name in FIELDS})
        for line in LINES.values():
            for one in line.fields:
                self.assertIn(one.says, rows[f"``{one.name}``"])

    def test_examples(self) -> None:
        """Lines that are shown have the fields of their kind."""
        self.assertGreater(len(self.examples), 8)
        kinds = {line.kind: line for line in LINES.values()}
        for kind, rest in self.examples:
            names = re.findall(r"(?:^| )([a-z]+)=", rest.partition(" reason=")[0])
            self.assertEqual(names, [one.name for one in kinds[kind].fields if one.name != "reason"], kind)
