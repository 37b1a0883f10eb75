"""The conversation written down: what is masked, what is left out, and what a slow reader costs."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy import limits
from pop3toy.interfaces import Challenge, ITranscript
from pop3toy.observe.transcript import MemoryTranscript, WriterTranscript, shown
from pop3toy.pop3 import commands
from pop3toy.pop3.commands import Response

from ..pop3_world import FakeAuthenticator, ScriptedMailbox, connect
from ..realserver import RealServer, wait_until
from ..strictclient import StrictClient

DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"


def masked(line: bytes) -> str:
    """How a command line is shown where secrets are hidden."""
    return shown(line, commands.parse(line), masked=True)


def plain(line: bytes) -> str:
    """How it is shown in the toy."""
    return shown(line, commands.parse(line), masked=False)


class MaskTests(SynchronousTestCase):
    """Secrets are masked because of which command a line is."""

    def test_commands_with_secrets(self) -> None:
        """PASS, APOP and AUTH show who, and not the secret."""
        for line, text in {
            b"PASS hunter2": "PASS ****",
            b"USER ann hunter2": "USER ann ****",
            b"USER ann:hunter2": "USER ann ****",
            b"user ann:hun ter:2": "USER ann ****",
            b"APOP ann hunter2 " + b"a" * 32: "APOP ann **** ****",
            b"pass hunter2 with spaces": "PASS ****",
            b"APOP ann " + DIGEST: "APOP ann ****",
            b"AUTH PLAIN AGFubgBodW50ZXIy": "AUTH PLAIN ****",
            b"auth plain =": "AUTH PLAIN ****",
        }.items():
            self.assertEqual(masked(line), text)

    def test_commands_without_secrets(self) -> None:
        """Everything else is shown as it came."""
        for line in (b"USER ann", b"user ann", b"RETR 1", b"stat", b"AUTH", b"AUTH PLAIN", b"LIST "):
            self.assertEqual(masked(line), line.decode())

    def test_responses(self) -> None:
        """Within an exchange every line is a secret but the ``*`` that cancels."""
        for line, text in ((b"AGFubgBodW50ZXIy", "****"), (b"", "****"), (b"*", "*"), (b"*x", "****")):
            self.assertEqual(shown(line, Response(line), masked=True), text)

    @given(
        st.sampled_from(
            [
                b"PASS\t%b",
                b"PAS %b",
                b"PASSWORD %b",
                b"%b",
                b" PASS %b",
                b"PASS %b\0",
                b"APOP ann %b",
                b"AUTH %b x y",
                b"AUTH PLAIN %b\x01",
                b"PASS " + b"x" * 300 + b"%b",
                b"QUIT %b",
                b"RETR %b",
                b"NOOP %b",
            ]
        )
    )
    def test_what_is_no_command_is_masked(self, line: bytes) -> None:
        """A line that does not parse may be a password at the wrong moment: nothing of it is shown."""
        self.assertNotIn("hunter2", masked(line % b"hunter2"))
        self.assertIn("****", masked(line % b"hunter2"))

    def test_why_it_is_none(self) -> None:
        """Such a line shows how long it was and what was wrong with it."""
        self.assertEqual(masked(b"FOO bar"), "**** (7 octets, unknown command)")
        self.assertEqual(
            masked(b"RETR x"), "RETR **** (6 octets, RETR takes a message number in decimal digits)"
        )

    @given(st.binary(min_size=8, max_size=60))
    def test_no_password_ever(self, password: bytes) -> None:
        """No password of whatever octets is shown by PASS."""
        self.assertIn(
            masked(b"PASS " + password), ("PASS ****", masked(b"PASS \0" + b"x" * (len(password) - 1)))
        )

    def test_unmasked(self) -> None:
        """The toy shows what crossed the wire: that is the lesson."""
        for line in (b"PASS pass", b"APOP user " + DIGEST, b"FOO bar"):
            self.assertEqual(plain(line), line.decode())

    def test_whole_conversation(self) -> None:
        """A session's transcript has no secret in it, whichever way the client came in."""
        tape = MemoryTranscript()
        authenticator = FakeAuthenticator(timestamp="<1@pop3toy>")
        authenticator.offered = ["PLAIN"]
        authenticator.steps = [Challenge(b""), authenticator.login("PLAIN")]
        protocol, _, _ = connect(authenticator, transcript=tape)
        protocol.dataReceived(b"hunter2\r\nUSER ann\r\nPASS hunter2\r\nAPOP ann " + b"a" * 32 + b"\r\n")
        protocol.dataReceived(b"AUTH PLAIN\r\naHVudGVyMg==\r\nPASS hunter2\r\nQUIT\r\n")
        text = "\n".join(tape.lines)
        for secret in ("hunter2", "aaaa", "aHVudGVyMg"):
            self.assertNotIn(secret, text)
        self.assertIn("[1] C: USER ann", text)


class OddOctetTests(SynchronousTestCase):
    """Nothing a stranger sends can steer a terminal or forge a line."""

    @given(st.binary(max_size=80))
    def test_one_printable_line(self, line: bytes) -> None:
        """Any octets become one line of printable characters."""
        self.assertTrue(plain(line).replace("\t", "").isprintable())
        self.assertTrue(masked(b"USER " + line).isprintable())

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
        tape.sent(1, b"+OK\r\nSubject: \x1b]0;owned\x07\nx\r\n.\r\n", True)
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
            self.tape.sent(3, piece, False)
        self.tape.sent(3, pieces[-1], True)
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
            self.tape.sent(1, b"x" * 100_000, False)
        kept = self.tape._unfinished[1, "S"].partial
        self.assertLess(len(kept), 10_000)

    def test_sessions_apart(self) -> None:
        """Two sessions' replies are counted apart, and a closed one is forgotten."""
        self.tape.sent(1, b"+OK\r\nfirst", False)
        self.tape.sent(2, b"+OK\r\nsecond\r\n.\r\n", True)
        self.tape.closed(1, "dropped")
        self.tape.sent(1, b"+OK new\r\n", True)
        self.assertEqual(
            list(self.tape.lines),
            [
                "[1] S: +OK",
                "[2] S: +OK",
                "[2] S: second",
                "[2] S: .",
                "[1] -- closed (dropped)",
                "[1] S: +OK new",
            ],
        )
        self.assertEqual(self.tape._unfinished, {})

    def test_dropped_in_the_middle(self) -> None:
        """What was hidden of a reply that was never finished is counted as well."""
        self.tape.sent(1, b"z\r\n" * (limits.TRANSCRIPT_LINES + 10), False)
        self.tape.closed(1, "dropped")
        self.assertEqual(
            list(self.tape.lines)[-2:], ["[1] S: ... 10 more lines, 30 octets", "[1] -- closed (dropped)"]
        )

    def test_a_conversation(self) -> None:
        """The lines of a session in their order, from its beginning to its end."""
        protocol, _, _ = connect(
            FakeAuthenticator(ScriptedMailbox({b"one": b"A: b\n\n.c\n"})), transcript=self.tape
        )
        protocol.dataReceived(b"USER ann\r\nPASS pass\r\nRETR 1\r\nQUIT\r\n")
        protocol.connectionLost()
        self.assertEqual(
            list(self.tape.lines),
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

    def test_ring(self) -> None:
        """The memory transcript keeps the last lines."""
        tape = MemoryTranscript(size=3)
        for number in range(10):
            tape.note(number, "x")
        self.assertEqual(list(tape.lines), ["[7] -- x", "[8] -- x", "[9] -- x"])
        verifyObject(ITranscript, tape)


class _Gate(io.StringIO):
    """A stream whose first write waits until the test lets it go on: a terminal after Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.writing.set()
        self.go_on.wait()
        return super().write(text)


class WriterTests(SynchronousTestCase):
    """The transcript on a terminal or in a file."""

    def test_file(self) -> None:
        """Lines are appended to a file that only its owner may read, in UTF-8."""
        path = self.mktemp()
        for name in ("ann", "Jürgen"):
            tape = WriterTranscript.to_file(path)
            line = b"USER " + name.encode()
            tape.received(1, line, commands.parse(line))
            tape.stop()
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "[1] C: USER ann\n[1] C: USER Jürgen\n")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)

    def test_opened_at_the_first_line(self) -> None:
        """Nothing is opened before there is something to write: twistd becomes a daemon in between."""
        opened: list[Any] = []

        def open_stream() -> io.StringIO:
            opened.append(io.StringIO())
            return opened[0]

        tape = WriterTranscript(open_stream)
        tape.stop()
        self.assertEqual(opened, [])
        tape = WriterTranscript(open_stream)
        tape.note(1, "x")
        tape.stop()
        self.assertEqual(opened[0].getvalue(), "[1] -- x\n")

    def test_slow_reader(self) -> None:
        """A terminal that stands still stops nobody: lines wait up to a bound and are counted beyond it."""
        gate = _Gate()
        tape = WriterTranscript(lambda: gate)
        tape.note(0, "first")
        gate.writing.wait()
        for number in range(limits.TRANSCRIPT_BACKLOG + 123):
            tape.note(number, "x")
        self.assertEqual(len(tape._lines), limits.TRANSCRIPT_BACKLOG)
        gate.go_on.set()
        tape.stop(patience=60.0)
        lines = gate.getvalue().splitlines()
        self.assertEqual(lines[:2], ["[0] -- first", "[0] -- x"])
        self.assertEqual(len(lines), 1 + limits.TRANSCRIPT_BACKLOG + 1)
        self.assertEqual(lines[-1], "-- 123 lines lost, the reader of this transcript is too slow")

    def test_stop_does_not_wait_for_ever(self) -> None:
        """A reader that stands still does not keep the server from ending."""
        gate = _Gate()
        self.addCleanup(gate.go_on.set)
        tape = WriterTranscript(lambda: gate)
        tape.note(0, "first")
        gate.writing.wait()
        tape.stop(patience=0.0)
        self.assertEqual(gate.getvalue(), "")

    def test_reader_is_gone(self) -> None:
        """A terminal that was closed costs the transcript, not the server; memory stays bounded."""
        stream = io.StringIO()
        stream.close()
        tape = WriterTranscript(lambda: stream)
        tape.note(0, "first")
        thread = tape._thread
        assert thread is not None
        thread.join()
        for number in range(2 * limits.TRANSCRIPT_BACKLOG):
            tape.note(number, "x")
        self.assertLessEqual(len(tape._lines), limits.TRANSCRIPT_BACKLOG)
        tape.stop()

    def test_another_alphabet(self) -> None:
        """Characters that a terminal has not are escaped, and the conversation goes on behind them."""
        for encoding, text in (
            ("iso-8859-1", "J\xfcrgen: 5 \\u20ac, \\u017c, \\U0001f600"),
            ("ascii", "J\\xfcrgen: 5 \\u20ac, \\u017c, \\U0001f600"),
            ("cp1252", "J\xfcrgen: 5 \u20ac, \\u017c, \\U0001f600"),
            ("utf-8", "J\xfcrgen: 5 \u20ac, \u017c, \U0001f600"),
        ):
            octets = io.BytesIO()
            stream = io.TextIOWrapper(octets, encoding)
            tape = WriterTranscript(lambda stream=stream: stream)  # type: ignore[misc]
            tape.sent(1, "J\xfcrgen: 5 \u20ac, \u017c, \U0001f600\r\n".encode(), True)
            tape.note(1, "next")
            tape.stop(patience=60.0)
            self.assertEqual(octets.getvalue().decode(encoding), f"[1] S: {text}\n[1] -- next\n")

    def test_cannot_be_written(self) -> None:
        """What cannot be opened, or written any more, is told once in the log, and costs no memory then."""

        class Full(io.StringIO):
            def flush(self) -> None:
                raise OSError(28, "No space left on device")

        def missing() -> Any:
            raise FileNotFoundError(2, "No such file or directory")

        gone = io.StringIO()
        gone.close()
        for open_stream, why in (
            (Full, "No space left on device"),
            (missing, "No such file or directory"),
            (lambda: gone, "I/O operation on closed file"),
        ):
            with capturedLogs() as events:
                tape = WriterTranscript(open_stream)
                tape.note(0, "first")
                assert tape._thread is not None
                tape._thread.join()
                for number in range(3):
                    tape.note(number, "x")
                tape.stop()
            self.assertEqual(
                [formatEvent(event) for event in events],
                [f"the conversation is not written down any more: {why}"],
            )
            self.assertEqual(len(tape._lines), 0)

    def test_the_thread_ends(self) -> None:
        """When it is stopped, the thread that waits for lines ends at once."""

        class Waits(threading.Condition):
            waiting = threading.Event()

            def wait(self, timeout: float | None = None) -> bool:
                self.waiting.set()
                return super().wait(timeout)

        tape = WriterTranscript(io.StringIO)
        tape._something = Waits()
        tape.note(1, "x")
        thread = tape._thread
        assert thread is not None
        Waits.waiting.wait()
        tape.stop(patience=10.0)
        self.assertFalse(thread.is_alive())

    def test_interface(self) -> None:
        """It is what the factory asks for."""
        verifyObject(ITranscript, WriterTranscript(io.StringIO))


class TerminalTests(SynchronousTestCase):
    """The server as a user starts it, on a terminal of another alphabet."""

    def test_euro(self) -> None:
        """A message with a euro sign stops nothing: the conversation is shown to its end."""
        message = Path(self.mktemp()).absolute()
        message.write_bytes("Subject: x\n\n5 \u20ac for J\xfcrgen\n".encode())
        launcher = ("env", "PYTHONIOENCODING=iso-8859-1")
        with RealServer("--message", str(message), launcher=launcher) as server:
            with StrictClient(server.port) as client:
                client.login(b"user", b"pass")
                client.retr(1)
                client.quit()
            wait_until(lambda: "-- closed (quit)" in server.words, "the end of the conversation")
            self.assertIn("S: 5 \\u20ac for J\ufffdrgen\n", server.words)
