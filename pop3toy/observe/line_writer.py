"""Lines for a terminal or a file, written by a thread of their own."""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from errno import EBADF, EPIPE
from typing import Any, TextIO

from twisted.logger import Logger

from .. import limits
from ..printable import encodable

__all__ = ["LineWriter"]

log = Logger()


class LineWriter:
    """Writes lines in the order in which they come, for several callers.

    A terminal that was stopped with Ctrl-S, or a pipe that nobody reads, must
    not stop the server: lines wait in a bounded queue, and beyond it they are
    counted instead of kept.

    What cannot be written (a disk is full) is counted as well, and writing is
    tried again with the first line that comes some seconds later.

    :param open_stream: opens what is written to; called at the first line (after twistd has become
        a daemon).
    :param started: whether the thread writes from the first line on.  If not, the caller's thread does, until
        :meth:`start` and again behind :meth:`stop`: the lines of a server that cannot start are written
        before its process ends.
    :param lost: the line that tells how many were counted instead of kept.
    :param path: the file that ``open_stream`` opens: closed by :meth:`stop`, and opened again if need be;
        ``None`` for a stream that is not ours to close.
    :param what: what is written, for the log.
    :param also: is told, too, why nothing can be written: where the log itself is what cannot be.
    :param clock: seconds, of a clock that is never set.
    """

    def __init__(
        self,
        open_stream: Callable[[], TextIO],
        *,
        started: bool = True,
        lost: Callable[[int], str] = (
            "-- {} lines lost: the reader of this transcript was too slow, or it could not be written"
        ).format,
        path: str | None = None,
        what: str = "the conversation",
        also: Callable[[str], object] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_stream = open_stream
        self._lost_line = lost
        self._stream: TextIO | None = None
        self._started = started
        # Callers write for themselves before the thread starts and when it has ended.
        self._by_caller = not started
        self._lines: deque[str] = deque()
        # Lines beyond those that wait.
        self._lost = 0
        #: The file; ``None`` for a stream that is not ours to close.
        self.path = path
        self._what, self._also = what, also
        self._clock = clock
        # The file is to be opened again, by its name.
        self._reopen = False
        # Lines that could not be written, and when it is tried again.
        self._unwritten = 0
        self._again = 0.0
        self._stopping = False
        # Nothing is written any more.
        self._over = False
        self._something = threading.Condition()
        self._thread: threading.Thread | None = None

    @classmethod
    def to_file(cls, path: str, **words: Any) -> LineWriter:
        """Append to a file, which only its owner may read."""

        def private(name: str, flags: int) -> int:
            return os.open(name, flags, 0o600)

        # Line buffering: the file may be followed (tail -f).
        return cls(lambda: open(path, "a", buffering=1, encoding="utf-8", opener=private), path=path, **words)

    @classmethod
    def to_terminal(cls) -> LineWriter:
        """Write to standard output, as twistd's log does; see :meth:`write`."""
        return cls(lambda: sys.__stdout__ or sys.stdout, started=False)

    def write(self, text: str) -> None:
        """Write one or more lines, the last with its end as well.

        Also called by the log where that has the same terminal: so its lines stand where they belong.
        """
        with self._something:
            if not self._started and self._thread is None:
                self._put(self._opened(), text)
                return
            if self._over:
                return
            if len(self._lines) >= limits.TRANSCRIPT_BACKLOG:
                self._lost += text.count("\n")
                return
            self._lines.append(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="transcript", daemon=True)
                self._thread.start()
            self._something.notify()

    def reopen(self) -> None:
        """Go on in the file that has the name now; where that cannot be opened, in the old one.

        What was written before may be in either, and is in one of them.
        """
        if self.path is None:
            return
        with self._something:
            if self._thread is None:
                self._open_again()
            else:
                self._reopen = True
                self._something.notify()

    def _open_again(self) -> None:
        if self._stream is None:
            # It is opened at the next line.
            self._again = 0.0
            return
        try:
            new = self._open_stream()
        except Exception as error:
            log.error(
                "{what} goes on in the old file, since {where} cannot be opened: {why}",
                what=self._what,
                where=self.path,
                why=_why(error),
            )
            return
        self._close()
        self._stream = new

    def flush(self) -> None:
        """Nothing: each piece is flushed when it is written."""

    def _opened(self) -> TextIO:
        if self._stream is None:
            self._stream = self._open_stream()
            if self.path is not None and _is_torn(self.path):
                self._put(self._stream, "\n")
        return self._stream

    def _put(self, stream: TextIO, text: str) -> None:
        # A terminal of another alphabet: mail is written in all of them.
        stream.write(encodable(text, stream.encoding))
        stream.flush()

    def _run(self) -> None:
        closed = False
        while True:
            with self._something:
                while not self._lines and not self._stopping and not self._reopen:
                    self._something.wait()
                lines, lost = list(self._lines), self._lost
                self._lines.clear()
                self._lost = 0
                reopen, self._reopen = self._reopen, False
                if not lines and closed and not reopen:
                    self._end()
                    return
            if reopen:
                self._open_again()
                if not lines:
                    continue
            closed = not lines
            if closed:
                # Without the lock, since a file server may take its time.
                self._close()
            elif not self._write_all(lines, lost):
                with self._something:
                    self._end()
                return

    def _end(self) -> None:
        """The thread ends; called with the lock, so that :meth:`start` sees it end or go on."""
        self._over = True
        self._lines.clear()
        self._thread = None

    def _close(self) -> None:
        if self.path is not None and self._stream is not None:
            # The file is closed whatever is said of the octets that it still had.
            with suppress(OSError):
                self._stream.close()
            self._stream = None

    def _write_all(self, lines: Sequence[str], lost: int) -> bool:
        """Write lines, or count them until it is time to try again.

        :param lost: how many are missing behind them.
        :return: whether it makes sense to go on.
        """
        missing = self._unwritten
        self._unwritten += sum(text.count("\n") for text in lines) + lost
        if missing and self._clock() < self._again:
            return True
        where = self.path or "standard output"
        try:
            stream = self._opened()
            if missing:
                # A stream that stays open may still hold the rest of a line, or has lost it.
                stream.flush()
                cut = "\n" if self.path is None else ""
                self._put(stream, f"{cut}{self._lost_line(missing)}\n")
                self._unwritten -= missing
            for piece in _pieces(lines):
                self._put(stream, piece)
                self._unwritten -= piece.count("\n")
            if lost:
                self._put(stream, f"{self._lost_line(lost)}\n")
                self._unwritten -= lost
        except Exception as error:
            # The terminal is gone, or the disk is full; the server goes on.
            self._close()
            self._again = self._clock() + limits.TRANSCRIPT_RETRY
            if not missing:
                log.error(
                    "{what} is not written to {where}: {why}", what=self._what, where=where, why=_why(error)
                )
                self._also(f"{self._what} is not written to {where}: {_why(error)}")
            return isinstance(error, OSError) and error.errno not in (EPIPE, EBADF)
        if missing:
            log.info(
                "{what} is written to {where} again; lines lost: {lost}",
                what=self._what,
                where=where,
                lost=missing,
            )
        return True

    def start(self) -> None:
        """Write with a thread, or on behind :meth:`stop`."""
        with self._something:
            self._started = True
            self._stopping = self._over = False
            self._again = 0.0
        # For a process that ends without stopping its services.
        atexit.register(self.stop)

    def stop(self, patience: float = 1.0) -> bool:
        """Write what is left, and close a file; waits at most ``patience`` seconds for a slow reader.

        :return: whether nothing is left.
        """
        atexit.unregister(self.stop)
        with self._something:
            self._stopping = True
            self._started = not self._by_caller
            self._something.notify()
            thread = self._thread
        if thread is not None:
            thread.join(patience)
        return thread is None or not thread.is_alive()


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Lines in pieces that the system writes as a whole, even into a pipe that others write to as well."""
    piece, octets = "", 0
    for text in texts:
        length = len(text.encode("utf-8", "replace"))
        if piece and octets + length > select.PIPE_BUF:
            yield piece
            piece, octets = "", 0
        piece += text
        octets += length
    if piece:
        yield piece


def _is_torn(path: str) -> bool:
    """Whether a file ends within a line; of one that cannot be read nothing is known."""
    # To open a pipe would take from its reader.
    if os.path.isfile(path) and os.path.getsize(path):
        with suppress(OSError), open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    return False
