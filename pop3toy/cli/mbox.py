"""mbox: many messages in one file, read and written.

The standard library's reader takes every line that begins with ``From `` for a
separator, also within a message whose writer did not quote it, and drops it.  Here a
separator stands at the start of the file or behind an empty line, and ends in a date;
or it stands where a Content-Length header says that the message ends.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from email.parser import BytesHeaderParser
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path
from time import asctime, gmtime
from typing import BinaryIO

__all__ = ["Mbox", "sender_of", "separator", "write_mbox"]

# An mbox quotes lines that look like its separators; mboxrd, and only it, can be
# read back exactly (RFC 4155 leaves it open; qmail's mbox(5) describes it).
_TO_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_UNQUOTED = re.compile(rb"^From ", re.MULTILINE)

#: As asctime() writes it, with a time zone before or behind the year if somebody likes.
_DATE = (
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) +(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d{1,2}"
    rb" +\d{1,2}:\d\d(?::\d\d)?(?: +[A-Za-z0-9+-]{1,6})? +\d{4}(?: +[A-Za-z0-9+() -]{1,20})?"
)
_SEPARATOR = re.compile(rb"From (?:(?P<sender>[^\r\n]*?\S) +)?" + _DATE + rb"\s*")
#: RFC 5322 section 2.1.1; a longer line is none.
_LONGEST = 998
_CONTENT_LENGTH = re.compile(rb"content-length:\s*(\d{1,12})\s*", re.IGNORECASE)
_EMPTY = (b"\n", b"\r\n")


def sender_of(line: bytes) -> bytes | None:
    """The sender that a separator names, perhaps ``b""``; ``None`` if the line is none."""
    match = _SEPARATOR.fullmatch(line) if len(line) <= _LONGEST else None
    return None if match is None else match["sender"] or b""


class Mbox:
    """The messages of a file, in its order.

    :raises OSError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._places = list(_places(file))

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            for start, end in self._places:
                file.seek(start)
                message = file.read(end - start)
                # Whoever leaves one such line as it is has quoted none.
                yield message if _UNQUOTED.search(message) else _QUOTED.sub(rb"\1", message)


def _places(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where each message begins and ends, without separators and the empty lines before them."""
    start: int | None = None
    # Where the empty line before this one begins.
    empty: int | None = 0
    in_header = False
    length = 0
    at = 0
    while line := file.readline():
        # Some editors put a byte order mark before the first line.
        first = start is None and line.removeprefix(codecs.BOM_UTF8 if not at else b"").startswith(b"From ")
        if empty is not None and (first or sender_of(line) is not None):
            if start is not None:
                yield start, empty
            start, empty, in_header, length = at + len(line), None, True, 0
        elif line not in _EMPTY:
            empty = None
            if in_header and (told := _CONTENT_LENGTH.fullmatch(line)):
                length = int(told[1])
        elif in_header and length and _is_end(file, at + len(line) + length):
            in_header = False
            at = empty = at + len(line) + length
            file.seek(at)
            continue
        else:
            empty, in_header = at, False
        at += len(line)
    if start is not None:
        yield start, at if empty is None else empty


def _is_end(file: BinaryIO, end: int) -> bool:
    """Whether a message can end here: a line does, and a separator or nothing follows."""
    here = file.tell()
    file.seek(end - 1)
    before, line = file.read(1), file.readline()
    if line in _EMPTY:
        line = file.readline()
    file.seek(here)
    return before == b"\n" and (not line or sender_of(line) is not None)


def separator(message: bytes, fallback: float) -> bytes:
    """The line that stands before a message in an mbox (RFC 4155): its sender, and its time in UTC.

    :param fallback: the time if its Date header tells none.
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
    message = message.replace(b"\r\n", b"\n")
    end = b"" if message.endswith(b"\n") or not message else b"\n"
    file.write(separator(message, fallback) + _TO_QUOTE.sub(rb">\1", message) + end + b"\n")
