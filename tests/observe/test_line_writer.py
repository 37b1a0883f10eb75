"""Lines written by a thread: in order, and what a slow or broken reader costs."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.observe.line_writer import LineWriter

from ..realserver import DEADLINE, run_command


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
    """Lines on a terminal or in a file."""

    def test_opened_at_the_first_line(self) -> None:
        """Nothing is opened before there is something to write: twistd becomes a daemon in between."""
        opened: list[Any] = []

        def open_stream() -> io.StringIO:
            opened.append(io.StringIO())
            return opened[0]

        writer = LineWriter(open_stream)
        writer.stop()
        self.assertEqual(opened, [])
        writer = LineWriter(open_stream)
        writer.write("x\n")
        writer.stop()
        self.assertEqual(opened[0].getvalue(), "x\n")

    def test_slow_reader(self) -> None:
        """A terminal that stands still stops nobody: lines wait up to a bound and are counted beyond it."""
        gate = _Gate()
        writer = LineWriter(lambda: gate)
        writer.write("first\n")
        gate.writing.wait()
        for _ in range(limits.TRANSCRIPT_BACKLOG + 123):
            writer.write("x\n")
        self.assertEqual(len(writer._lines), limits.TRANSCRIPT_BACKLOG)
        gate.go_on.set()
        writer.stop(patience=60.0)
        lines = gate.getvalue().splitlines()
        self.assertEqual(lines[:2], ["first", "x"])
        self.assertEqual(len(lines), 1 + limits.TRANSCRIPT_BACKLOG + 1)
        self.assertEqual(lines[-1], "-- 123 lines lost, the reader of this transcript is too slow")

    def test_stop_does_not_wait_for_ever(self) -> None:
        """A reader that stands still does not keep the server from ending."""
        gate = _Gate()
        self.addCleanup(gate.go_on.set)
        writer = LineWriter(lambda: gate)
        writer.write("first\n")
        gate.writing.wait()
        writer.stop(patience=0.0)
        self.assertEqual(gate.getvalue(), "")

    def test_reader_is_gone(self) -> None:
        """A terminal that was closed costs the transcript, not the server; memory stays bounded."""
        stream = io.StringIO()
        stream.close()
        writer = LineWriter(lambda: stream)
        writer.write("first\n")
        thread = writer._thread
        assert thread is not None
        thread.join()
        for _ in range(2 * limits.TRANSCRIPT_BACKLOG):
            writer.write("x\n")
        self.assertLessEqual(len(writer._lines), limits.TRANSCRIPT_BACKLOG)
        writer.stop()

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
            writer = LineWriter(lambda stream=stream: stream)  # type: ignore[misc]
            writer.write("J\xfcrgen: 5 \u20ac, \u017c, \U0001f600\n")
            writer.write("next\n")
            writer.stop(patience=60.0)
            self.assertEqual(octets.getvalue().decode(encoding), f"{text}\nnext\n")

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
                writer = LineWriter(open_stream)
                writer.write("first\n")
                assert writer._thread is not None
                writer._thread.join()
                for _ in range(3):
                    writer.write("x\n")
                writer.stop()
            self.assertEqual(
                [formatEvent(event) for event in events],
                [f"the conversation is not written down any more: {why}"],
            )
            self.assertEqual(len(writer._lines), 0)

    def test_the_thread_ends(self) -> None:
        """When it is stopped, the thread that waits for lines ends at once."""

        class Waits(threading.Condition):
            waiting = threading.Event()

            def wait(self, timeout: float | None = None) -> bool:
                self.waiting.set()
                return super().wait(timeout)

        writer = LineWriter(io.StringIO)
        writer._something = Waits()
        writer.write("x\n")
        thread = writer._thread
        assert thread is not None
        Waits.waiting.wait()
        writer.stop(patience=10.0)
        self.assertFalse(thread.is_alive())

    def test_without_a_thread(self) -> None:
        """A terminal's lines are out when they are written, until the server runs and when it has stopped."""
        out = io.StringIO()
        writer = LineWriter(lambda: out, started=False)
        for times in (1, 2):
            writer.write("before\n")
            self.assertEqual(out.getvalue(), "before\nwithin\nbehind\n" * (times - 1) + "before\n")
            writer.start()
            writer.write("within\n")
            self.assertIsNotNone(writer._thread)
            self.assertTrue(writer.stop(patience=60.0))
            writer.write("behind\n")
            self.assertEqual(out.getvalue(), "before\nwithin\nbehind\n" * times)
            self.assertIsNone(writer._thread)

    def test_slow_reader_at_the_end(self) -> None:
        """While the thread hangs on, nobody overtakes it, and nobody waits for it."""
        gate = _Gate()
        writer = LineWriter(lambda: gate, started=False)
        writer.start()
        writer.write("one\n")
        gate.writing.wait()
        self.assertFalse(writer.stop(patience=0.0))
        writer.write("two\n")
        thread = writer._thread
        assert thread is not None
        gate.go_on.set()
        thread.join(DEADLINE)
        self.assertEqual(gate.getvalue(), "one\ntwo\n")

    def test_process_ends(self) -> None:
        """A process that ends without stopping it writes what is left."""
        program = (
            "import sys\n"
            "from pop3toy.observe.line_writer import LineWriter\n"
            "writer = LineWriter.to_terminal()\n"
            "writer.start()\n"
            "for number in range(5000):\n"
            "    writer.write(f'{number}\\n')\n"
            "sys.exit(3)\n"
        )
        done = run_command(sys.executable, "-c", program, folder=Path(self.mktemp()))
        self.assertEqual((done.returncode, done.stderr), (3, ""))
        self.assertEqual(done.stdout.splitlines(), [str(number) for number in range(5000)])
