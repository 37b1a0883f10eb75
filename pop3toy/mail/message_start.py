"""The start of a message that comes in: what other programs left there, and the headers put before it.

A mailbox file (RFC 4155) has a separator line ``From SENDER DATE`` before each message, and some
editors write a byte order mark.  Behind the headers that a delivery adds either of them would end the
header, and the reader would see a mail without a subject.  Pure: no store, no protocol.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

__all__ = [
    "HeldStart",
    "form_of",
    "header_follows",
    "may_separate",
    "sender_of",
    "take_off",
    "with_headers",
    "without_return_path",
]

#: Octets at the start of a message within which its header has to end to be looked at as
#: a whole; as many are held in memory for each message that is coming.
HEADER: Final = 64 * 1024

# RFC 5322 section 2.2: a field name is printable ASCII without a colon.  What goes on
# like a URL is the beginning of a text.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:(?!//)")
# A line that is empty but for CRs; at the very start there is no header.
_HEADER_END = re.compile(rb"\n\r*\n")
_NO_HEADER = re.compile(rb"\r*\n")
# Where a field ends and another one has begun (RFC 5322 section 2.2.3: white space goes on with a field).
_NEXT_FIELD = re.compile(rb"\n(?=[^ \t])")
_RETURN_PATH = re.compile(
    rb"^return-path[ \t]*:[^\n]*(?:\n|\Z)(?:[ \t][^\n]*(?:\n|\Z))*", re.IGNORECASE | re.MULTILINE
)

_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME = rb"\d{1,2}:\d\d(?::\d\d)?"
_ZONE = rb"[A-Za-z0-9+() :-]{1,20}"
#: As asctime() writes it, perhaps with a time zone before or behind the year;
#: with the year before the time; or as in a header (RFC 5322 section 3.3).
_DATE = (
    rb"(?:" + _DAY + rb" +" + _MONTH + rb" +\d{1,2} +(?:"
    + _TIME + rb"(?: +[A-Za-z0-9+:-]{1,9})? +\d{4}|\d{4} +" + _TIME + rb")"
    rb"|(?:" + _DAY + rb", *)?\d{1,2} +" + _MONTH + rb" +\d{4} +" + _TIME + rb")(?: +" + _ZONE + rb")?"
)  # fmt: skip
_DATED = re.compile(rb"From (?:(?P<sender>[^\r\n]*?\S) +| *)" + _DATE + rb"(?: +remote from \S+)?\s*")
_HOLDS_DATE = re.compile(rb"From (?:.* )?" + _DATE)
#: Without a date: nothing, or one word that ends like one.  Counts only where a header follows.
_UNDATED = re.compile(rb"From +(?P<sender>(?:[^\s:]\S*(?<![:;,.!?]))?)\s*")
_RUNS = re.compile(rb"([0-9]+)|([A-Za-z]+)")
#: RFC 5322 section 2.1.1, without the line's end; a longer line is no separator.
_LONGEST = 998


def sender_of(line: bytes) -> bytes | None:
    """The sender that a separator with a date names, perhaps ``b""``; ``None`` if the line is none."""
    line = line.rstrip(b"\r\n")
    match = _DATED.fullmatch(line) if len(line) <= _LONGEST else None
    return None if match is None else match["sender"] or b""


def may_separate(line: bytes) -> bool:
    """Whether a line is a separator where a header follows: behind ``From`` nothing, one word, or a date."""
    line = line.rstrip(b"\r\n")
    return len(line) <= _LONGEST and bool(_HOLDS_DATE.match(line) or _UNDATED.fullmatch(line))


def form_of(line: bytes) -> bytes:
    """How a line ``From`` is built: the sender left out, ``0`` for any number, ``a`` for any letters."""
    return _RUNS.sub(lambda run: b"0" if run[1] else b"a", b" ".join(line.split()[2:]))


def header_follows(text: bytes) -> bool:
    """Whether a header field stands here, perhaps behind a byte order mark and one line ``>From``."""
    text = text.removeprefix(codecs.BOM_UTF8)
    if text.startswith(b">From "):
        text = text.partition(b"\n")[2]
    return _FIELD.match(text) is not None


def take_off(start: bytes) -> tuple[bytes | None, bytes]:
    """Remove byte order mark and separators.

    :return: the sender that the first separator names, or ``None`` if there is none; and the rest.
    """
    sender: bytes | None = None
    while True:
        start = start.removeprefix(codecs.BOM_UTF8)
        if not start.startswith((b"From ", b">From ")):
            return sender, start
        line, _, rest = start.partition(b"\n")
        found = sender_of(line)
        if found is None and header_follows(rest):
            # A text may begin with "From now on"; it has no header behind that.
            if undated := _UNDATED.fullmatch(line):
                found = undated["sender"]
            elif line.startswith(b">From "):
                found = b""
        if found is None:
            return sender, start
        sender, start = found if sender is None else sender, rest


def without_return_path(start: bytes, *, cut: bool = False) -> bytes:
    """The start of a message without the Return-Path fields of its header.

    RFC 5321 section 4.4: one should be there, and the final delivery may remove others.

    :param cut: whether more of the message follows.  If the header goes on in there, its last field
        here stays, because the rest of that field would stay in any case.
    """
    end = _HEADER_END.search(start)
    if end:
        header = start[: end.start() + 1]
    elif cut:
        header = start[: max((found.end() for found in _NEXT_FIELD.finditer(start)), default=0)]
    else:
        header = start
    if b"return-path" not in header.lower() or not _FIELD.match(header):
        return start
    return _RETURN_PATH.sub(b"", header) + start[len(header) :]


def with_headers(headers: bytes, start: bytes, *, cut: bool = False) -> bytes:
    """The start of a message with these headers before it, the first of which is a Return-Path.

    :param cut: whether more of the message follows.

    What begins with its body (people on telnet write such) gets an empty line before
    it, or it would be read as a part of the headers.
    """
    _, start = take_off(start)
    first = start.partition(b"\n")[0]
    if first.strip(b"\r") and not _FIELD.match(first):
        return headers + b"\r\n" + start
    return headers + without_return_path(start, cut=cut)


class HeldStart:
    """A message's start, held back until its header is complete.

    :param headers: what is put before it.
    """

    def __init__(self, headers: bytes) -> None:
        self._headers = headers
        self._held = b""
        self._over = False

    def feed(self, text: bytes, *, last: bool) -> bytes:
        """What may go on to the store: nothing, or with the headers all that came so far."""
        if self._over:
            return text
        searched = max(self._held.rfind(b"\n"), 0)
        self._held += text
        ended = _HEADER_END.search(self._held, searched) or _NO_HEADER.match(self._held)
        if not ended and not last and len(self._held) < HEADER:
            return b""
        self._over = True
        held, self._held = self._held, b""
        return with_headers(self._headers, held, cut=not last)
