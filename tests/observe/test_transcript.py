"""The conversation written down: what is shown, and what is left out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy import limits
from pop3toy.errors import StoreTrouble
from pop3toy.events import (
    Connected,
    ConnectionRejected,
    Ended,
    InputDiscarded,
    LineReceived,
    Observers,
    ReplySent,
    TextReceived,
    TLSStarted,
)
from pop3toy.interfaces import Challenge, Channel, IObserver, TLSFacts
from pop3toy.observe.line_writer import LineWriter
from pop3toy.observe.transcript import MemoryTranscript, WriterTranscript

from ..pop3_world import FakeAuthenticator, ScriptedMailbox, connect
from ..realserver import RealServer, wait_until
from ..strictclient import logged_in

PRIVATE = Channel("127.0.0.1", local=True)


def heard(line: bytes) -> LineReceived:
    """The client of session 1 says a line."""
    return LineReceived(1, 0.0, line, len(line) + 2, "", "AUTHORIZATION")


def said(data: bytes, last: bool = True, number: int = 1, handed_over: bool = True) -> ReplySent:
    """The server answers."""
    return ReplySent(number, 0.0, data, len(data), last, handed_over)


def ended(why: str, number: int = 1) -> Ended:
    """A connection is gone."""
    return Ended(number, 0.0, "POP3", PRIVATE, None, None, why, 0.0, 0, 0, 0, 0)


def discarded(number: int) -> InputDiscarded:
    """Something that makes one line."""
    return InputDiscarded(number, 0.0, 7)


DISCARDED = "[1] -- 7 octets in clear text behind it thrown away"


def plain(line: bytes) -> str:
    """How a line is shown."""
    tape = MemoryTranscript()
    tape.observe(heard(line))
    return tape.lines[0].removeprefix("[1] C: ")


class ConversationTests(SynchronousTestCase):
    """What a transcript shows of a session, in order."""

    def setUp(self) -> None:
        self.tape = MemoryTranscript()

    def talk(
        self, *pieces: bytes, secrets: bool = False, mailbox: ScriptedMailbox | None = None
    ) -> list[str]:
        """What is written down of a POP3 session in which the client says this and leaves."""
        mailbox = mailbox or ScriptedMailbox({b"one": b"A: b\n\n.c\n"})
        protocol, _, _ = connect(FakeAuthenticator(mailbox), observers=Observers(self.tape, secrets=secrets))
        for piece in pieces:
            protocol.dataReceived(piece)
        protocol.connectionLost()
        return list(self.tape.lines)

    def test_whole(self) -> None:
        """From its beginning to its end."""
        self.assertEqual(
            self.talk(b"USER ann\r\nPASS pass\r\nRETR 1\r\nQUIT\r\n"),
            [
                "[1] -- connected from 127.0.0.1:50110",
                "[1] S: +OK pop3toy ready",
                "[1] C: USER ann",
                "[1] S: +OK send PASS",
                "[1] C: PASS ****",
                "[1] S: +OK maildrop has 1 message (12 octets)",
                "[1] C: RETR 1",
                "[1] S: +OK 12 octets",
                "[1] S: A: b",
                "[1] S:",
                "[1] S: ..c",
                "[1] S: .",
                "[1] C: QUIT",
                "[1] S: +OK bye",
                "[1] -- closed (quit)",
            ],
        )

    def test_toy(self) -> None:
        """With secrets everything stands there as it was said."""
        lines = self.talk(b"USER ann\r\nPASS pass\r\nnonsense\r\n", secrets=True)
        self.assertIn("[1] C: PASS pass", lines)
        self.assertIn("[1] C: nonsense", lines)

    def test_whole_conversation_has_no_secret(self) -> None:
        """Whichever way the client came in."""
        authenticator = FakeAuthenticator(timestamp="<1@pop3toy>")
        authenticator.offered = ["PLAIN"]
        authenticator.steps = [Challenge(b"nonce"), authenticator.login("PLAIN")]
        protocol, _, _ = connect(authenticator, observers=Observers(self.tape))
        protocol.dataReceived(b"hunter2\r\nUSER ann\r\nPASS hunter2\r\nAPOP ann " + b"a" * 32 + b"\r\n")
        protocol.dataReceived(b"AUTH PLAIN\r\naHVudGVyMg==\r\nPASS hunter2\r\nQUIT\r\n")
        text = "\n".join(self.tape.lines)
        for secret in ("hunter2", "aaaa", "aHVudGVyMg", "bm9uY2U"):
            self.assertNotIn(secret, text)
        self.assertIn("[1] C: USER ann", text)
        self.assertIn("[1] S: + ****", text)

    def test_reading_fails_at_once(self) -> None:
        """Nothing of a message that could not be read is shown as sent."""
        mailbox = ScriptedMailbox({b"one": [StoreTrouble("no")]})
        self.assertEqual(
            self.talk(b"USER ann\r\nPASS pass\r\nRETR 1\r\n", mailbox=mailbox)[6:],
            ["[1] C: RETR 1", "[1] S: -ERR [SYS/TEMP] no", "[1] -- closed (dropped by the client)"],
        )

    def test_reading_fails_later(self) -> None:
        """What was handed over is shown, to the octet, and why the connection was dropped."""
        for first, failing in (
            (b"Subject: x\r\n\r\nhal", StoreTrouble("no")),
            (b"Subject: x\r\n\r\nhal", ZeroDivisionError()),
        ):
            self.tape.lines.clear()
            mailbox = ScriptedMailbox({b"one": [first, failing]})
            lines = self.talk(b"USER ann\r\nPASS pass\r\nRETR 1\r\n", mailbox=mailbox)
            self.flushLoggedErrors(ZeroDivisionError)
            self.assertEqual(
                lines[6:],
                [
                    "[1] C: RETR 1",
                    "[1] S: (not sent) +OK 100 octets ... (33 octets)",
                    "[1] -- closed (store: the message could not be read)",
                ],
            )

    def test_reading_fails_behind_a_part(self) -> None:
        """Of a long message that part stands there which has left, and no end of it."""
        part = b"x\r\n" * limits.GATHER
        mailbox = ScriptedMailbox({b"one": [part, StoreTrouble("no")]})
        lines = self.talk(b"USER ann\r\nPASS pass\r\nRETR 1\r\n", mailbox=mailbox)
        hidden = limits.GATHER - limits.TRANSCRIPT_LINES + 1
        self.assertEqual(
            lines[6:],
            [
                "[1] C: RETR 1",
                "[1] S: +OK 100 octets",
                *["[1] S: x"] * (limits.TRANSCRIPT_LINES - 1),
                f"[1] S: ... {hidden} more lines, {3 * hidden} octets",
                "[1] -- closed (store: the message could not be read)",
            ],
        )

    def test_cut_off(self) -> None:
        """What left before stands there, the half line as well, and what did not as not sent."""
        self.tape.observe(said(b"+OK 100 octets\r\nSubject: x\r\n\r\nhal", last=False))
        self.tape.observe(said(b"f a line\r\nmore\r\n", last=False, handed_over=False))
        self.tape.observe(ended("store"))
        self.assertEqual(
            list(self.tape.lines),
            [
                "[1] S: +OK 100 octets",
                "[1] S: Subject: x",
                "[1] S:",
                "[1] S: hal ... (cut off)",
                "[1] S: (not sent) f a line ... (16 octets)",
                "[1] -- closed (store: the message could not be read)",
            ],
        )
        self.assertEqual(self.tape._unfinished, {})

    def test_ends(self) -> None:
        """Every end says why in words."""
        for why, text in (
            ("quit", "quit"),
            ("dropped", "dropped by the client"),
            ("timeout", "timeout: silent for too long"),
            ("limit", "limit: too many mistakes or connections"),
            ("shutdown", "shutdown: the server is stopping"),
            ("store", "store: the message could not be read"),
            ("bug", "bug: the log tells of it"),
        ):
            self.tape.observe(ended(why))
            self.assertEqual(self.tape.lines[-1], f"[1] -- closed ({text})")

    def test_mail_that_comes_in(self) -> None:
        """In the toy all of it is shown, elsewhere how much it was."""
        text = b"A: b\r\n\r\n..c\r\n.\r\n"
        for secrets, shown in ((True, ["[1] C: A: b", "[1] C:", "[1] C: ..c", "[1] C: ."]), (False, [])):
            self.tape.lines.clear()
            for data, last in ((text[:5], False), (text[5:], True)):
                self.tape.observe(TextReceived(1, 0.0, data if secrets else b"", len(data), last))
            self.assertEqual(list(self.tape.lines), [*shown, "[1] -- message of 13 octets"])
            self.assertEqual(self.tape._unfinished, {})

    def test_notes(self) -> None:
        """What is neither side's line."""
        for event, text in (
            (Connected(1, 0.0, "SMTP", PRIVATE, "127.0.0.1:5"), "connected from 127.0.0.1:5, SMTP"),
            (Connected(1, 0.0, "POP3", PRIVATE, "x\n"), "connected from x\\n"),
            (ConnectionRejected(1, 0.0, "POP3", PRIVATE, "too many"), "sent away: too many"),
            (TLSStarted(1, 0.0, TLSFacts("TLSv1.3", "x")), "encrypted from here on with TLSv1.3"),
            (discarded(1), "7 octets in clear text behind it thrown away"),
        ):
            self.tape.observe(event)
            self.assertEqual(self.tape.lines[-1], f"[1] -- {text}")


class OddOctetTests(SynchronousTestCase):
    """Nothing a stranger sends can steer a terminal or forge a line."""

    @given(st.binary(max_size=80))
    def test_one_printable_line(self, line: bytes) -> None:
        """Any octets become one line of printable characters."""
        self.assertTrue(plain(line).replace("\t", "").isprintable())

    def test_terminal_escapes(self) -> None:
        """Escape sequences, line ends and characters that turn the writing direction are escaped."""
        for octets, text in {
            b"\x1b[2J": "\\x1b[2J",
            b"a\rb\nc": "a\\rb\\nc",
            b"\x9b31m": "\\x9b31m",
            "\x9b31m".encode(): "\\x9b31m",
            "\u202egnp".encode(): "\\u202egnp",
            b"\0\x07\x7f": "\\x00\\x07\\x7f",
            b"J\xc3\xbcrgen": "Jürgen",
            b"J\xfcrgen": "J\\xfcrgen",
        }.items():
            self.assertEqual(plain(octets), text)

    def test_body_with_escapes(self) -> None:
        """The same holds for the lines of a message."""
        tape = MemoryTranscript()
        tape.observe(said(b"+OK\r\nSubject: \x1b]0;owned\x07\nx\r\n.\r\n"))
        self.assertEqual(list(tape.lines)[1], "[1] S: Subject: \\x1b]0;owned\\x07\\nx")

    def test_long_lines(self) -> None:
        """A long line is cut, and how much is left out stands there."""
        self.assertEqual(plain(b"x" * 1000), "x" * 512 + " ... (488 more)")
        self.assertEqual(plain(b"x" * 512), "x" * 512)


class ElisionTests(SynchronousTestCase):
    """A long reply is shown in part; the lines and octets that are not shown are counted."""

    def setUp(self) -> None:
        self.tape = MemoryTranscript()

    def shown_of(self, *pieces: bytes) -> list[str]:
        for piece in pieces[:-1]:
            self.tape.observe(said(piece, False, 3))
        self.tape.observe(said(pieces[-1], True, 3))
        return [line.removeprefix("[3] S:").removeprefix(" ") for line in self.tape.lines]

    def test_short(self) -> None:
        """A reply of as many lines as fit is shown whole."""
        lines = [b"line %d" % n for n in range(limits.TRANSCRIPT_LINES - 2)]
        data = b"\r\n".join([b"+OK", *lines, b".", b""])
        self.assertEqual(self.shown_of(data), ["+OK", *[line.decode() for line in lines], "."])

    @given(st.integers(0, 200), st.lists(st.integers(0, 10_000), max_size=6))
    def test_counts_add_up(self, count: int, places: list[int]) -> None:
        """Shown and hidden lines and octets are together those that were sent, however they were cut."""
        self.tape = MemoryTranscript()
        lines = [b"+OK", *[b"y" * (n % 70) for n in range(count)], b"."]
        data = b"".join(line + b"\r\n" for line in lines)
        edges = sorted({place % (len(data) - 1) for place in places})
        pieces = [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]
        text = self.shown_of(*pieces)
        elided = [line for line in text if line.startswith("... ")]
        visible = [line for line in text if not line.startswith("... ")]
        self.assertEqual(visible[-1], ".")
        self.assertEqual(visible[:-1], [line.decode() for line in lines[: len(visible) - 1]])
        hidden = lines[len(visible) - 1 : -1]
        self.assertEqual(
            elided,
            [f"... {len(hidden)} more lines, {sum(len(line) + 2 for line in hidden)} octets"]
            if hidden
            else [],
        )
        self.assertLessEqual(len(visible), limits.TRANSCRIPT_LINES + 1)

    def test_a_line_of_megabytes(self) -> None:
        """A line without end is not kept, and its real length is told."""
        pieces = [b"+OK\r\n", *[b"x" * 100_000] * 30, b"\r\n.\r\n"]
        text = self.shown_of(*pieces)
        self.assertEqual(text, ["+OK", "x" * 512 + f" ... ({3_000_000 - 512} more)", "."])

    def test_a_hidden_line_of_megabytes(self) -> None:
        """The same among the lines that are not shown."""
        lines = [b"z\r\n"] * limits.TRANSCRIPT_LINES
        text = self.shown_of(b"".join(lines), *[b"x" * 100_000] * 30, b"\r\n.\r\n")
        self.assertEqual(text[-2], "... 1 more lines, 3000002 octets")

    def test_memory(self) -> None:
        """Between two pieces no more than the beginning of a line is kept."""
        for _ in range(50):
            self.tape.observe(said(b"x" * 100_000, False, 1))
        kept = self.tape._unfinished[1, "S"].partial
        self.assertLess(len(kept), 10_000)

    def test_sessions_apart(self) -> None:
        """Two sessions' replies are counted apart, and a closed one is forgotten."""
        self.tape.observe(said(b"+OK\r\nfirst", False, 1))
        self.tape.observe(said(b"+OK\r\nsecond\r\n.\r\n", True, 2))
        self.tape.observe(ended("dropped"))
        self.tape.observe(said(b"+OK new\r\n", True, 1))
        self.assertEqual(
            list(self.tape.lines),
            [
                "[1] S: +OK",
                "[2] S: +OK",
                "[2] S: second",
                "[2] S: .",
                "[1] S: first ... (cut off)",
                "[1] -- closed (dropped by the client)",
                "[1] S: +OK new",
            ],
        )
        self.assertEqual(self.tape._unfinished, {})

    def test_dropped_in_the_middle(self) -> None:
        """What was hidden of a reply that was never finished is counted as well."""
        self.tape.observe(said(b"z\r\n" * (limits.TRANSCRIPT_LINES + 10), False, 1))
        self.tape.observe(ended("dropped"))
        self.assertEqual(
            list(self.tape.lines)[-2:],
            ["[1] S: ... 10 more lines, 30 octets", "[1] -- closed (dropped by the client)"],
        )

    def test_ring(self) -> None:
        """The memory transcript keeps the last lines."""
        tape = MemoryTranscript(size=3)
        for number in range(10):
            tape.observe(discarded(number))
        self.assertEqual([line[:3] for line in tape.lines], ["[7]", "[8]", "[9]"])
        verifyObject(IObserver, tape)


class WriterTests(SynchronousTestCase):
    """The transcript in a file."""

    def test_file(self) -> None:
        """Lines are appended to a file that only its owner may read, in UTF-8."""
        path = self.mktemp()
        for name in ("ann", "Jürgen"):
            tape = WriterTranscript(LineWriter.to_file(path))
            tape.observe(heard(b"USER " + name.encode()))
            tape.writer.stop()
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "[1] C: USER ann\n[1] C: USER Jürgen\n")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        verifyObject(IObserver, tape)


class TerminalTests(SynchronousTestCase):
    """The server as a user starts it, on a terminal of another alphabet."""

    def test_euro(self) -> None:
        """A message with a euro sign stops nothing: the conversation is shown to its end."""
        message = Path(self.mktemp()).absolute()
        message.write_bytes("Subject: x\n\n5 \u20ac for J\xfcrgen\n".encode())
        launcher = ("env", "PYTHONIOENCODING=iso-8859-1")
        with RealServer("--message", str(message), launcher=launcher) as server:
            with logged_in(server.port, b"user", b"pass") as client:
                client.retr(1)
            wait_until(lambda: "-- closed (quit)" in server.words, "the end of the conversation")
            self.assertIn("S: 5 \\u20ac for J\ufffdrgen\n", server.words)
