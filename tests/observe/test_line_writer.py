"""Lines written by a thread: in order, and what a slow or broken reader costs."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.observe.line_writer import LineWriter

from ..realserver import DEADLINE, run_command
from ..store_world import tmpfs, watched_descriptors

LOST = "lines lost: the reader of this transcript was too slow, or it could not be written"


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


class _SmallDisk(io.RawIOBase):
    """A file that takes so many octets and no more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.octets = b""

    def writable(self) -> bool:
        return True

    def write(self, octets: Any) -> int:
        taken = bytes(octets[: self.room])
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(taken)
        self.octets += taken
        return len(taken)


class _Ticks:
    """A clock, by which a test sees that the thread has come to a decision: it asks once for each."""

    def __init__(self) -> None:
        self.now = 0.0
        self._asked: SimpleQueue[None] = SimpleQueue()

    def __call__(self) -> float:
        self._asked.put(None)
        return self.now

    def wait(self) -> None:
        self._asked.get(timeout=DEADLINE)


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
        self.assertEqual(lines[-1], f"-- 123 {LOST}")

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
        """What cannot be opened, or written, is told once in the log, and costs no memory then."""

        class Full(io.StringIO):
            def flush(self) -> None:
                raise OSError(28, "No space left on device")

        class Gone(io.StringIO):
            def flush(self) -> None:
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def missing() -> Any:
            raise FileNotFoundError(2, "No such file or directory")

        gone = io.StringIO()
        gone.close()
        for open_stream, why in (
            (Full, "No space left on device"),
            (missing, "No such file or directory"),
            (lambda: gone, "I/O operation on closed file"),
            (Gone, "Broken pipe"),
        ):
            with capturedLogs() as events:
                writer = LineWriter(open_stream)
                writer.write("first\n")
                for _ in range(3):
                    writer.write("x\n")
                self.assertTrue(writer.stop(patience=DEADLINE))
            self.assertEqual(
                [formatEvent(event) for event in events],
                [f"the conversation is not written to standard output: {why}"],
            )
            self.assertEqual(len(writer._lines), 0)

    def test_full_disk(self) -> None:
        """A full disk costs the lines until it has room again; they are counted, and the log says both."""
        ticks = _Ticks()
        with tmpfs("size=64k") as root, watched_descriptors(), capturedLogs() as events:
            path, other = root / "transcript", root / "other"
            path.write_text("before\n")
            with contextlib.suppress(OSError), other.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            writer = LineWriter.to_file(str(path), clock=ticks)
            writer.write("x" * 5000 + "\n")
            ticks.wait()
            written = path.read_text()
            self.assertRegex(written, r"\Abefore\nx{1,4999}\Z")
            # It is tried in vain, and not at every line.
            for now in (limits.TRANSCRIPT_RETRY - 1, limits.TRANSCRIPT_RETRY):
                ticks.now = now
                writer.write("lost\n")
                ticks.wait()
            ticks.wait()
            other.unlink()
            writer.write("lost\n")
            ticks.wait()
            ticks.now = 2 * limits.TRANSCRIPT_RETRY
            writer.write("after\n")
            self.assertTrue(writer.stop(patience=DEADLINE))
            self.assertEqual(path.read_text(), f"{written}\n-- 4 {LOST}\nafter\n")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                f"the conversation is not written to {path}: No space left on device",
                f"the conversation is written to {path} again; lines lost: 4",
            ],
        )

    def test_full_standard_output(self) -> None:
        """What is not ours to open again goes on where it was cut, whatever it still holds of a line."""
        for length, held, tries in ((12, "yyyy\n", 200), (20_000, "", 0)):
            disk, ticks = _SmallDisk(8), _Ticks()
            stream = io.TextIOWrapper(io.BufferedWriter(disk), "utf-8")
            writer = LineWriter(lambda stream=stream: stream, clock=ticks)  # type: ignore[misc]
            writer.write("y" * length + "\n")
            ticks.wait()
            for _ in range(tries):
                ticks.now += limits.TRANSCRIPT_RETRY
                writer.write("lost\n")
                ticks.wait()
                ticks.wait()
            disk.room = 1_000_000
            ticks.now += limits.TRANSCRIPT_RETRY
            writer.write("after\n")
            self.assertTrue(writer.stop(patience=DEADLINE))
            self.assertEqual(disk.octets.decode(), f"{'y' * 8}{held}\n-- {1 + tries} {LOST}\nafter\n")

    def test_gone_for_good(self) -> None:
        """Where nobody reads any more, it is not tried again."""

        class Gone(io.StringIO):
            tried = 0

            def flush(self) -> None:
                self.tried += 1
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        stream, now = Gone(), iter(range(0, 1_000_000, 1_000))
        writer = LineWriter(lambda: stream, clock=lambda: next(now))
        writer.write("first\n")
        assert writer._thread is not None
        writer._thread.join(DEADLINE)
        writer.write("x\n")
        self.assertTrue(writer.stop(patience=DEADLINE))
        self.assertEqual((stream.tried, len(writer._lines)), (1, 0))

    def test_tried_at_a_start(self) -> None:
        """A server that starts again does not wait, and tells once what was lost before."""
        folder = Path(self.mktemp())
        writer = LineWriter.to_file(str(folder / "transcript"), clock=lambda: 1.0)
        for text in ("lost\n", "one\n", "two\n"):
            writer.start()
            writer.write(text)
            self.assertTrue(writer.stop(patience=DEADLINE))
            folder.mkdir(exist_ok=True)
        self.assertEqual((folder / "transcript").read_text(), f"-- 1 {LOST}\none\ntwo\n")

    def test_half_a_line(self) -> None:
        """What is appended to a file begins a line, however the file ends."""
        path = Path(self.mktemp())
        for before, then in (("", ""), ("whole\n", ""), ("half", "\n")):
            path.write_text(before)
            writer = LineWriter.to_file(str(path))
            writer.write("x\n")
            writer.stop(patience=DEADLINE)
            self.assertEqual(path.read_text(), f"{before}{then}x\n")

    def test_file_is_closed(self) -> None:
        """A file is open between its first line and the end, and again when it all starts again."""
        path = Path(self.mktemp())
        writer = LineWriter.to_file(str(path))
        with watched_descriptors():
            for _ in range(2):
                writer.start()
                writer.write("x\n")
                self.assertTrue(writer.stop(patience=DEADLINE))
        self.assertEqual(path.read_text(), "x\nx\n")

    def test_reopened(self) -> None:
        """A file that was renamed is left when its writer is told so; one that cannot be had is not."""
        path = Path(self.mktemp())
        old = path.with_suffix(".old")
        writer = LineWriter.to_file(str(path), started=False)
        # There is nothing to open again before the first line.
        writer.reopen()
        self.assertFalse(path.exists())
        writer.write("one\n")
        path.rename(old)
        writer.reopen()
        writer.write("two\n")
        self.assertEqual((old.read_text(), path.read_text()), ("one\n", "two\n"))
        path.rename(old)
        path.mkdir()
        with capturedLogs() as events:
            writer.reopen()
            writer.write("three\n")
        why = f"since {path} cannot be opened: Is a directory"
        self.assertEqual(
            [formatEvent(event) for event in events], [f"the conversation goes on in the old file, {why}"]
        )
        self.assertEqual(old.read_text(), "two\nthree\n")
        writer.stop()
        # A terminal stays what it is.
        out = io.StringIO()
        terminal = LineWriter(lambda: out, started=False)
        terminal.write("x\n")
        terminal.reopen()
        terminal.write("y\n")
        self.assertEqual(out.getvalue(), "x\ny\n")

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
