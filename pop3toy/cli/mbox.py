"""mbox: many messages in one file, read and written.

The standard library's reader takes every line that begins with ``From `` for a
separator, also within a message whose writer did not quote it, and drops it.  Here a
separator stands

- at the start of the file;
- behind an empty line, if it is one with a date; or if a header field comes next and it says
  nothing more, holds a date, is an address or one word, or is built like the file's first line;
- without one, if it has a sender and a date, and a header field comes next;
- where a Content-Length header says that the message ends.

Lines end with LF or CRLF, or with CR as on the Macs of before 2001.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from email.parser import BytesHeaderParser
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path
from time import asctime, gmtime
from typing import TYPE_CHECKING, BinaryIO

from ..mail.message_start import form_of, header_follows, may_separate, sender_of, take_off

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Mbox", "separator", "with_line_feeds", "write_mbox"]

# An mbox quotes lines that look like its separators; mboxrd, and only it, can be
# read back exactly (RFC 4155 leaves it open; qmail's mbox(5) describes it).
_TO_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_UNQUOTED = re.compile(rb"^From ", re.MULTILINE)
#: Octets of a line that are looked at to see whether it is a header field.
_LOOK = 1000
#: Octets at the start of a file that are looked at to see how its lines end.
_START = 64 * 1024

_CONTENT_LENGTH = re.compile(rb"content-length:\s*(\d{1,12})\s*", re.IGNORECASE)
# A CR before a CRLF is data (see stores/maildir/incoming/message.py); as CR LF it would be lost.
_CRLF_ALONE = re.compile(rb"(?<!\r)\r\n")


def with_line_feeds(message: bytes) -> bytes:
    """The message with LF for CRLF; it is the same message."""
    return _CRLF_ALONE.sub(b"\n", message)


class Mbox:
    """The messages of a file, in its order.

    :param opener: as :func:`open` has it.
    :raises OSError: if it cannot be read.
    """

    def __init__(self, path: Path, opener: Callable[[str, int], int] | None = None) -> None:
        self._path = path
        self._opener = opener
        #: Lines of text that begin like a separator, in the messages read so far.
        self.kept_as_text = 0
        with self._open() as file:
            self._places = list(_places(file))

    def _open(self) -> BinaryIO:
        file = open(self._path, "rb", opener=self._opener)  # noqa: SIM115
        # As long as the first line with something in it goes on, its ends are CRs.
        start = file.read(_START).lstrip(b"\r\n").partition(b"\n")[0]
        file.seek(0)
        return io.BufferedReader(_EndsInCR(file)) if b"\r" in start.rstrip(b"\r") else file

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        with self._open() as file:
            for start, end in self._places:
                file.seek(start)
                _, message = take_off(file.read(end - start))
                # A program that left one such line as it is has quoted none.
                unquoted = len(_UNQUOTED.findall(message))
                self.kept_as_text += unquoted
                yield message if unquoted else _QUOTED.sub(rb"\1", message)


class _EndsInCR(io.RawIOBase):
    """A file read with LF for each CR."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._file.read(len(view)).replace(b"\r", b"\n")
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def close(self) -> None:
        self._file.close()
        super().close()


def _places(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """The start and end of each message, without separators and the empty lines before them."""
    start: int | None = None
    # How the file's first separator is built, if it is none of the known ones.
    form: bytes | None = None
    # Where the empty line before this one begins.
    empty: int | None = 0
    in_header = False
    length = 0
    at = 0
    while line := file.readline():
        # Some editors put a byte order mark before the first line.
        first = start is None and line.removeprefix(codecs.BOM_UTF8 if not at else b"").startswith(b"From ")
        if first or (start != at and _separates(file, line, form, behind_empty=empty is not None)):
            if first:
                form = None if may_separate(line) else form_of(line)
            if start is not None:
                yield start, at if empty is None else empty
            start, empty, in_header, length = at + len(line), None, True, 0
        elif not _is_empty(line):
            empty = None
            if in_header and (told := _CONTENT_LENGTH.fullmatch(line)):
                length = int(told[1])
        elif in_header and length and _is_end(file, at + len(line) + length, form):
            in_header = False
            at = empty = at + len(line) + length
            file.seek(at)
            continue
        else:
            empty, in_header = at, False
        at += len(line)
    if start is not None:
        yield start, at if empty is None else empty


def _is_empty(line: bytes) -> bool:
    return not line.strip(b"\r\n")


def _separates(file: BinaryIO, line: bytes, form: bytes | None, *, behind_empty: bool) -> bool:
    """Whether a line of a file that stands behind it is a separator.

    :param form: that of the file's first separator, if it is none of the known ones.
    """
    # "From :" is a header field, in the form of RFC 822.
    if not line.startswith(b"From ") or header_follows(line):
        return False
    sender = sender_of(line)
    if behind_empty and sender is not None:
        return True
    known = may_separate(line) or (form is not None and form_of(line) == form)
    if not (sender or (behind_empty and known)):
        return False
    here = file.tell()
    follows = file.readline(_LOOK) + file.readline(_LOOK)
    file.seek(here)
    return header_follows(follows)


def _is_end(file: BinaryIO, end: int, form: bytes | None) -> bool:
    """Whether a message can end here: a line does, and a separator or nothing follows."""
    here = file.tell()
    file.seek(end - 1)
    before, line = file.read(1), file.readline()
    if line and _is_empty(line):
        line = file.readline()
    ended = before == b"\n" and (not line or _separates(file, line, form, behind_empty=True))
    file.seek(here)
    return ended


def separator(message: bytes, fallback: float) -> bytes:
    """The line that stands before a message in an mbox (RFC 4155): its sender, and its time in UTC.

    :param fallback: the time if it has no Date header that can be read.
    """
    header = BytesHeaderParser().parsebytes(message)
    senders = getaddresses([str(header.get("Return-Path") or header.get("From") or "")])
    sender = senders[0][1] if senders and re.fullmatch(r"[!-~]+", senders[0][1]) else "MAILER-DAEMON"
    try:
        when = parsedate_to_datetime(str(header["Date"])).timestamp()
        written = asctime(gmtime(when))
    except (ValueError, TypeError, OverflowError, OSError):
        written = asctime(gmtime(fallback))
    return f"From {sender} {written}\n".encode()


def write_mbox(file: BinaryIO, message: bytes, fallback: float) -> None:
    """Add a message to an mbox, in the form mboxrd."""
    message = with_line_feeds(message)
    end = b"" if message.endswith(b"\n") or not message else b"\n"
    if message.endswith(b"\r"):
        # As CR LF the CR would be lost.
        end = b"\r\n"
    file.write(separator(message, fallback) + _TO_QUOTE.sub(rb">\1", message) + end + b"\n")
