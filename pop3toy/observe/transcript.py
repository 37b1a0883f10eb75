"""The conversation, written down as ``C:`` and ``S:`` lines.

Four providers of :class:`~pop3toy.interfaces.ITranscript`: one that writes to a
file or terminal, an in-memory ring for tests and embedding, and ``None`` for
none at all (which costs nothing).  What each line looks like is decided once,
in :class:`_Transcript`; where it goes is decided by the provider.

Secrets are masked because of *which command* a line is, never by looking for
something that looks like a secret.  A line that is no command is masked as a
whole: it may be a password typed at the wrong moment.
"""

from __future__ import annotations

import re
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from twisted.logger import Logger
from zope.interface import implementer

from .. import limits
from ..interfaces import ITranscript
from ..pop3.commands import Command, Malformed, Public, Response, mechanism_alone, name_alone
from ..printable import encodable, printable

__all__ = ["MemoryTranscript", "WriterTranscript", "shown"]

log = Logger()

_MASK = "****"
#: A reply that is a SASL challenge (RFC 5034 section 4, RFC 4954 section 4).  With what SCRAM says
#: there, passwords can be tried out by whoever reads it.
_CHALLENGE = re.compile(rb"\A(\+ |334 )[^\r\n]+")


def _printable(data: bytes, cut: int = 0) -> str:
    """A line as text: UTF-8 where it is UTF-8, everything that could steer a terminal escaped.

    :param cut: how many octets of the line are missing already.
    """
    # A tab stays: folded header lines begin with one.
    text = printable(data.decode("utf-8", "backslashreplace"), keep="\t")
    if len(text) > limits.TRANSCRIPT_COLUMNS:
        rest = len(text) - limits.TRANSCRIPT_COLUMNS + cut
        text = f"{text[: limits.TRANSCRIPT_COLUMNS]} ... ({rest} more)"
    return text


def shown(line: bytes, parsed: object, *, masked: bool) -> str:
    """How a client's line is shown.

    :param line: the line without its line end.
    :param parsed: what :func:`pop3toy.pop3.commands.parse` made of it.
    :param masked: whether secrets are hidden.
    """
    if not masked:
        return _printable(line)
    if isinstance(parsed, Response):
        return "*" if parsed.line == b"*" else _MASK
    if isinstance(parsed, Malformed):
        return f"{parsed.keyword or ''} {_MASK}".lstrip() + f" ({len(line)} octets, {parsed.reason})"
    if isinstance(parsed, Public):
        return _printable(parsed.text)
    if isinstance(parsed, Command):
        if not parsed.args or all(isinstance(argument, int) for argument in parsed.args):
            return _printable(line)
        rest = _PUBLIC.get(parsed.keyword, _nothing)(parsed.args)
        # As it came, where that says the same.
        as_it_came = line[len(parsed.keyword) :].strip(b" ") == rest
        return _printable(line) if as_it_came else f"{parsed.keyword} {_printable(rest)}"
    return _MASK


def _nothing(args: tuple[Any, ...]) -> bytes:
    return _MASK.encode("ascii")


#: What may be shown of the arguments that are no numbers; of those of other commands nothing is.
_PUBLIC: dict[str, Callable[[tuple[Any, ...]], bytes]] = {
    "APOP": lambda args: name_alone(args[0]) + b" ****",
    "AUTH": lambda args: mechanism_alone(b" ".join(args)),
    "USER": lambda args: name_alone(args[0]),
}


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """Lines in pieces that the system writes as a whole, even into a pipe that others write to as well."""
    piece, octets = "", 0
    for line in lines:
        length = len(line.encode("utf-8", "replace")) + 1
        if piece and octets + length > select.PIPE_BUF:
            yield piece
            piece, octets = "", 0
        piece += line + "\n"
        octets += length
    if piece:
        yield piece


class _Progress:
    """How much was shown of what one side of a session says: of a reply, or of a message."""

    __slots__ = ("cut", "hidden_lines", "hidden_octets", "lines", "partial")

    def __init__(self) -> None:
        self.lines = 0
        self.hidden_lines = 0
        self.hidden_octets = 0
        # The beginning of a line that a piece ended in the middle of.
        self.partial = b""
        # How many octets of an over-long partial line were thrown away.
        self.cut = 0


@implementer(ITranscript)
class _Transcript:
    """What a transcript says; subclasses say where, in ``_write``.

    :param masked: hide passwords, digests and SASL responses.  Only the
        built-in account of the toy, which is public, is shown unmasked.
    """

    def __init__(self, *, masked: bool = True) -> None:
        self.masked = masked
        self._unfinished: dict[tuple[int, str], _Progress] = {}

    def _write(self, line: str) -> None:
        raise NotImplementedError

    def opened(self, number: int, peer: str) -> None:
        """See :class:`ITranscript`."""
        self.note(number, f"connected from {peer}")

    def received(self, number: int, line: bytes, command: object) -> None:
        """See :class:`ITranscript`."""
        self._write(f"[{number}] C: {shown(line, command, masked=self.masked)}")

    def sent(self, number: int, data: bytes, last: bool) -> None:
        """See :class:`ITranscript`."""
        if self.masked and (number, "S") not in self._unfinished:
            data = _CHALLENGE.sub(rb"\1****", data)
        self._many(number, "S", data, last)

    def message(self, number: int, data: bytes, last: bool) -> None:
        """See :class:`ITranscript`."""
        if not self.masked:
            self._many(number, "C", data, last)

    def _many(self, number: int, side: str, data: bytes, last: bool) -> None:
        """A part of many lines, of which only so many are shown, and the final one."""
        progress = self._unfinished.get((number, side))
        if progress is None:
            progress = self._unfinished[number, side] = _Progress()
        lines = (progress.partial + data).split(b"\r\n")
        # A megabyte without a line end is not kept: only its beginning is shown anyway.
        tail = lines.pop()
        progress.partial = tail[: limits.TRANSCRIPT_COLUMNS * 4]
        dropped, progress.cut = (
            progress.cut,
            len(tail) - len(progress.partial) + (0 if lines else progress.cut),
        )
        final = len(lines) - 1 if last else -1
        for at, line in enumerate(lines):
            if progress.lines < limits.TRANSCRIPT_LINES or at == final:
                self._count_hidden(number, side, progress)
                # Without a blank at the end of an empty line, which nobody sees.
                text = f" {_printable(line, dropped)}" if line else ""
                self._write(f"[{number}] {side}:{text}")
                progress.lines += 1
            else:
                progress.hidden_lines += 1
                progress.hidden_octets += len(line) + 2 + dropped
            dropped = 0
        if last:
            del self._unfinished[number, side]

    def _count_hidden(self, number: int, side: str, progress: _Progress) -> None:
        if progress.hidden_lines:
            more = f"{progress.hidden_lines} more lines, {progress.hidden_octets} octets"
            self._write(f"[{number}] {side}: ... {more}")
            progress.hidden_lines = 0

    def note(self, number: int, text: str) -> None:
        """See :class:`ITranscript`."""
        # An address can be what a proxy's client made of it.
        self._write(f"[{number}] -- {printable(text)}")

    def closed(self, number: int, why: str) -> None:
        """See :class:`ITranscript`."""
        for side in ("C", "S"):
            progress = self._unfinished.pop((number, side), None)
            if progress is not None:
                self._count_hidden(number, side, progress)
        self.note(number, f"closed ({why})")


class MemoryTranscript(_Transcript):
    """Keeps the last lines in memory: for tests, and for programs that embed the server.

    An :class:`~pop3toy.interfaces.ITranscript`.  Lines are text without a line end, such as
    ``[1] C: USER ann``: the session's number, and ``C:`` for the client, ``S:`` for the server or
    ``--`` for what is neither's.

    :param masked: hide passwords, digests, SASL responses and messages that come in.
    :param size: how many lines it keeps; the oldest go.
    """

    def __init__(self, *, masked: bool = True, size: int = 1000) -> None:
        super().__init__(masked=masked)
        #: The last lines, oldest first.
        self.lines: deque[str] = deque(maxlen=size)

    def _write(self, line: str) -> None:
        self.lines.append(line)


class WriterTranscript(_Transcript):
    """Writes to a terminal or a file, from a thread of its own.

    A terminal that was stopped with Ctrl-S, or a pipe that nobody reads, must
    not stop the server: lines wait in a bounded queue, and beyond it they are
    counted instead of kept.

    :param open_stream: opens what is written to; called in the thread, at the
        first line (after twistd has become a daemon).
    """

    def __init__(self, open_stream: Callable[[], TextIO], *, masked: bool = True) -> None:
        super().__init__(masked=masked)
        self._open_stream = open_stream
        self._lines: deque[str] = deque()
        self._lost = 0
        self._stopping = False
        # Nothing is written any more.
        self._over = False
        self._something = threading.Condition()
        self._thread: threading.Thread | None = None

    @classmethod
    def to_file(cls, path: str, *, masked: bool = True) -> WriterTranscript:
        """Append to a file, which only its owner may read."""

        def private(name: str, flags: int) -> int:
            import os

            return os.open(name, flags, 0o600)

        # Line buffering: somebody may follow the file.
        return cls(lambda: open(path, "a", buffering=1, encoding="utf-8", opener=private), masked=masked)

    @classmethod
    def to_terminal(cls, *, masked: bool = True) -> WriterTranscript:
        """Write to standard output, past twistd's own log."""
        return cls(lambda: sys.__stdout__ or sys.stdout, masked=masked)

    def _write(self, line: str) -> None:
        with self._something:
            if self._over:
                return
            if len(self._lines) >= limits.TRANSCRIPT_BACKLOG:
                self._lost += 1
                return
            self._lines.append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="transcript", daemon=True)
                self._thread.start()
            self._something.notify()

    def _run(self) -> None:
        try:
            self._write_all(self._open_stream())
        except Exception as error:
            # The terminal is gone, or the disk is full; the server is not.
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            log.error("the conversation is not written down any more: {why}", why=why)
            with self._something:
                self._end()

    def _end(self) -> None:
        """The thread ends; called with the lock, so that :meth:`start` sees it end or go on."""
        self._over = True
        self._lines.clear()
        self._thread = None

    def _write_all(self, stream: TextIO) -> None:
        """Write until there is nothing more.

        :raises OSError: or ValueError, if it cannot be written.
        """
        while True:
            with self._something:
                while not self._lines and not self._stopping:
                    self._something.wait()
                batch = list(self._lines)
                self._lines.clear()
                lost, self._lost = self._lost, 0
                if lost:
                    batch.append(f"-- {lost} lines lost, the reader of this transcript is too slow")
                if not batch:
                    self._end()
                    return
            for piece in _pieces(batch):
                # A terminal of another alphabet: mail is written in all of them.
                stream.write(encodable(piece, stream.encoding))
                stream.flush()

    def start(self) -> None:
        """Write on, after :meth:`stop`."""
        with self._something:
            self._stopping = self._over = False

    def stop(self, patience: float = 1.0) -> bool:
        """Write what is left; waits at most ``patience`` seconds for a slow reader.

        :return: whether nothing is left.
        """
        with self._something:
            self._stopping = True
            self._something.notify()
            thread = self._thread
        if thread is not None:
            thread.join(patience)
        return thread is None or not thread.is_alive()
