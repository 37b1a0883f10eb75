"""The conversation, written down as ``C:`` and ``S:`` lines.

:class:`_Transcript` decides what each line looks like; its subclasses write it to memory, to a file or to
a terminal.  Secrets have been masked before: no event holds one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from zope.interface import implementer

from .. import limits
from ..events import (
    Connected,
    ConnectionRejected,
    Ended,
    Event,
    InputDiscarded,
    LineReceived,
    Noted,
    Queued,
    ReplySent,
    TextReceived,
    TLSStarted,
)
from ..interfaces import IObserver
from ..printable import printable
from .line_writer import LineWriter

__all__ = ["MemoryTranscript", "WriterTranscript"]

#: Of a message, the line with the dot that ends it.
_END = len(b".\r\n")

#: In words, for people, how a connection ended (:attr:`pop3toy.events.Ended.why`).
_WHY = {
    "dropped": "dropped by the client",
    "timeout": "timeout: silent for too long",
    "limit": "limit: too many mistakes or connections",
    "rejected": "rejected: no place for one more",
    "administrator": "administrator: closed by hand",
    "shutdown": "shutdown: the server is stopping",
    "store": "store: the message could not be read",
    "fault": "fault: closed as asked for",
    "bug": "bug: the log tells of it",
}


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


class _Progress:
    """How much was shown of what one side of a session says: of a reply, or of a message."""

    __slots__ = ("cut", "hidden_lines", "hidden_octets", "lines", "octets", "partial")

    def __init__(self) -> None:
        self.lines = 0
        self.hidden_lines = 0
        self.hidden_octets = 0
        # All until now.
        self.octets = 0
        # The beginning of a line that a piece ended in the middle of.
        self.partial = b""
        # How many octets of an over-long partial line were thrown away.
        self.cut = 0


@implementer(IObserver)
class _Transcript:
    """Makes the lines; subclasses write them, in ``_write``."""

    wants: Collection[type] = (
        Connected,
        ConnectionRejected,
        LineReceived,
        TextReceived,
        ReplySent,
        InputDiscarded,
        TLSStarted,
        Queued,
        Noted,
        Ended,
    )

    def __init__(self) -> None:
        self._unfinished: dict[tuple[int, str], _Progress] = {}

    def observe(self, event: Event) -> None:
        """Write down what happened."""
        number = event.session
        match event:
            case LineReceived():
                self._write(f"[{number}] C: {_printable(event.line)}")
            case ReplySent():
                self._reply(event)
            case TextReceived():
                self._text(event)
            case Connected():
                protocol = "" if event.protocol == "POP3" else f", {event.protocol}"
                self._note(number, f"connected from {event.peer}{protocol}")
            case ConnectionRejected():
                self._note(number, f"sent away: {event.why}")
            case InputDiscarded():
                self._note(number, f"{event.octets} octets in clear text behind it thrown away")
            case TLSStarted():
                self._note(number, f"encrypted from here on with {event.tls.version}")
            case Queued():
                several = len(event.recipients)
                recipients = f"{several} recipient{'s'[: several != 1]} elsewhere"
                self._note(number, f"queued as {event.queue_id} for {recipients}")
            case Noted():
                self._note(number, event.text)
            case Ended():
                for side in ("C", "S"):
                    self._cut_off(number, side)
                self._note(number, f"closed ({_WHY.get(event.why, event.why)})")

    def _write(self, line: str) -> None:
        raise NotImplementedError

    def _shown(self, number: int, place: int) -> None:
        """A line of many was written.

        :param place: of the lines that end in the event, from 0.
        """

    def _note(self, number: int, text: str) -> None:
        """A line that neither side said."""
        # An address may be text that a proxy has taken from its client.
        self._write(f"[{number}] -- {printable(text)}")

    def _text(self, event: TextReceived) -> None:
        progress = self._progress(event.session, "C")
        progress.octets += event.octets
        if event.data:
            self._many(event.session, "C", event.data, event.last)
        if event.last:
            self._unfinished.pop((event.session, "C"), None)
            # As it was on the wire: a dot that begins a line counts twice (RFC 5321 section 4.5.2).
            self._note(event.session, f"message of {max(progress.octets - _END, 0)} octets")

    def _reply(self, event: ReplySent) -> None:
        if event.handed_over:
            self._many(event.session, "S", event.data, event.last)
            return
        self._cut_off(event.session, "S")
        line, _, rest = event.data.partition(b"\r\n")
        more = f" ... ({event.octets} octets)" if rest else ""
        self._write(f"[{event.session}] S: (not sent) {_printable(line)}{more}")

    def _progress(self, number: int, side: str) -> _Progress:
        progress = self._unfinished.get((number, side))
        if progress is None:
            progress = self._unfinished[number, side] = _Progress()
        return progress

    def _many(self, number: int, side: str, data: bytes, last: bool) -> None:
        """A part of many lines, of which only so many are shown, and the final one."""
        progress = self._progress(number, side)
        lines = (progress.partial + data).split(b"\r\n")
        # A megabyte without a line end is not kept: only its beginning is shown anyway.
        tail = lines.pop()
        progress.partial = tail[: limits.TRANSCRIPT_COLUMNS * 4]
        dropped, progress.cut = progress.cut, len(tail) - len(progress.partial) + progress.cut * (not lines)
        final = len(lines) - 1 if last else -1
        for at, line in enumerate(lines):
            if progress.lines < limits.TRANSCRIPT_LINES or at == final:
                self._count_hidden(number, side, progress)
                # An empty line gets no blank at its end.
                text = f" {_printable(line, dropped)}" if line else ""
                self._write(f"[{number}] {side}:{text}")
                self._shown(number, at)
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
            progress.hidden_lines = progress.hidden_octets = 0

    def _cut_off(self, number: int, side: str) -> None:
        """What one side was saying stops in the middle; tell what was hidden of it, and the half line."""
        progress = self._unfinished.pop((number, side), None)
        if progress is not None:
            self._count_hidden(number, side, progress)
            if progress.partial:
                text = _printable(progress.partial, progress.cut)
                self._write(f"[{number}] {side}: {text} ... (cut off)")


class MemoryTranscript(_Transcript):
    """Keeps the last lines in memory: for tests, and for programs that embed the server.

    An :class:`~pop3toy.IObserver`.  Lines are text without a line end, such as
    ``[1] C: USER ann``: the session's number, and ``C:`` for the client, ``S:`` for the server or
    ``--`` for what is neither's.

    :param size: how many lines it keeps; the oldest go.
    """

    def __init__(self, *, size: int = 1000) -> None:
        super().__init__()
        #: The last lines, oldest first.
        self.lines: deque[str] = deque(maxlen=size)

    def _write(self, line: str) -> None:
        self.lines.append(line)


class WriterTranscript(_Transcript):
    """Writes to a terminal or a file.

    :param writer: may write for others as well, such as the log.
    """

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer

    def _write(self, line: str) -> None:
        self.writer.write(f"{line}\n")
