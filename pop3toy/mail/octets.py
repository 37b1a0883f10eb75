"""The canonical form of a message: line ends, dot-stuffing, TOP, and the count of octets.

The one place that says what a message is on the wire (RFC 1939 sections 3, 5, 7 and
11).  Stores count with it, replies are made with it.  Nothing here knows a reply, a
store or a socket.
"""

from __future__ import annotations

import re
from typing import cast

__all__ = ["CRLF", "Encoder", "OctetCounter", "encode_whole", "octets"]

CRLF = b"\r\n"


class Encoder:
    """Turns a message, chunk by chunk, into its wire form.

    The canonical form (what ``octets`` counts, RFC 1939 section 11): a bare LF
    and a CRLF are both a line end and become CRLF; a CR elsewhere is data; a
    missing last line end is added; and if no empty line ends the header, one is
    added at the end, because some clients wait for it.  A line of nothing but
    CRs is an empty one: programs that write CRLF for the LF of a CRLF leave
    them.  On the wire every line that begins with a dot gets one dot more
    (RFC 1939 section 3).

    :param body_lines: stop after so many lines of the body, as TOP asks
        (RFC 1939 section 7); ``None`` sends everything.
    :param stuffed: without it what comes out is the canonical form itself.
    """

    def __init__(self, body_lines: int | None = None, *, stuffed: bool = True) -> None:
        #: Octets of the canonical form so far.
        self.octets = 0
        #: True once TOP has all it wants.
        self.enough = False
        self._lines_left = body_lines
        self._stuff = stuffed
        # True between header and body, that is after the first empty line.
        self._in_body = False
        self._at_line_start = True
        # A CR at the end of a chunk waits here for its LF.
        self._held_cr = False
        # Whether the line of the header that began in an earlier chunk is empty so far, CRs aside.
        self._empty_so_far = True

    def feed(self, chunk: bytes) -> bytes:
        """The wire form of the next chunk; perhaps empty."""
        # Up to the end of the header and for TOP there is more to look at; the
        # rest of a message takes the short way.
        data = self._canonical(chunk)
        if not data:
            return b""
        if not self._in_body:
            data = self._through_header(data)
        elif self._lines_left is not None:
            data = self._count_lines(data, 0)
        return self._stuffed(data)

    def finish(self) -> bytes:
        """What is missing at the end of the message, without the termination line."""
        tail = b""
        if self._held_cr:
            self._held_cr = False
            tail = self._stuffed(b"\r")
        if self.enough:
            return tail
        ending = b"" if self._at_line_start else CRLF
        if not self._in_body:
            # Unless the last line is one of CRs alone.
            if not (ending and self._empty_so_far):
                ending += CRLF
            self._in_body = True
        if ending:
            self.octets += len(ending)
            self._at_line_start = True
        return tail + ending

    def _canonical(self, chunk: bytes) -> bytes:
        """CRLF for every line end; by ``replace``, which is many times as fast as a loop over lines."""
        if self._held_cr:
            chunk = b"\r" + chunk
            self._held_cr = False
        if b"\r" not in chunk:
            return chunk.replace(b"\n", CRLF)
        if chunk.endswith(b"\r"):
            self._held_cr = True
            chunk = chunk[:-1]
        return chunk.replace(CRLF, b"\n").replace(b"\n", CRLF)

    def _through_header(self, data: bytes) -> bytes:
        """Look for the empty line that ends the header (RFC 5322 section 2.1)."""
        # The LF of the line before; without one the line was not empty in an earlier chunk.
        text = b"\n" + data if self._empty_so_far else data
        found = _empty_line(text)
        if found is None:
            self._empty_so_far = not text[text.rfind(b"\n") + 1 :].strip(b"\r") if b"\n" in text else False
            return data
        end = found.end() - (len(text) - len(data))
        self._in_body = True
        if self._lines_left is None:
            return data
        return self._count_lines(data, end)

    def _count_lines(self, data: bytes, start: int) -> bytes:
        """Cut ``data`` behind as many body lines as TOP still wants, from ``start`` on."""
        wanted = cast(int, self._lines_left)
        here = data.count(CRLF, start)
        if here < wanted:
            self._lines_left = wanted - here
            return data
        end = start
        for _ in range(wanted):
            end = data.index(CRLF, end) + 2
        self._lines_left = 0
        self._held_cr = False
        self.enough = True
        return data[:end]

    def _stuffed(self, data: bytes) -> bytes:
        self.octets += len(data)
        if not data:
            return data
        at_start, self._at_line_start = self._at_line_start, data.endswith(CRLF)
        return _stuffed(data, at_start) if self._stuff else data


class OctetCounter:
    """Counts the octets of a message, chunk by chunk, as :class:`Encoder` would, and builds none of them.

    For messages that are kept and not sent.
    """

    def __init__(self) -> None:
        #: Octets of the canonical form; of the whole message behind ``finish``.
        self.octets = 0
        self._in_body = False
        self._last = b"\n"
        # Whether the line that began in an earlier chunk is empty so far, CRs aside.
        self._empty_so_far = True

    def feed(self, chunk: bytes) -> None:
        """Count the next chunk."""
        if not chunk:
            return
        self.octets += len(chunk) + chunk.count(b"\n")
        if b"\r" in chunk:
            self.octets -= chunk.count(CRLF)
        if self._last == b"\r" and chunk.startswith(b"\n"):
            self.octets -= 1
        self._last = chunk[-1:]
        if not self._in_body:
            # The LF of the line before; without one the line was not empty in an earlier chunk.
            text = b"\n" + chunk if self._empty_so_far else chunk
            self._in_body = _empty_line_as_kept(text) is not None
            self._empty_so_far = b"\n" in text and not text[text.rfind(b"\n") + 1 :].strip(b"\r")

    def finish(self) -> None:
        """Count what is missing at the end of the message."""
        unended = self._last != b"\n"
        # The last line may be the empty one.
        self.octets += 2 * unended + 2 * (not self._in_body and not (unended and self._empty_so_far))


# An empty line in the canonical form, behind the line end of another: as many CRs as there are.
_empty_line = re.compile(rb"\n\r++\n").search
# The same where an LF may stand for a CRLF.
_empty_line_as_kept = re.compile(rb"\n\r*+\n").search


# A regular expression looks for its first octet with memchr, which is faster than ``bytes.replace`` here.
_dots_doubled = re.compile(rb"\n\.").sub


def _stuffed(data: bytes, at_line_start: bool) -> bytes:
    """One dot more before every line that begins with one (RFC 1939 section 3)."""
    # Cheap, and most chunks of base64 have no dot.
    if b"." not in data:
        return data
    stuffed = _dots_doubled(b"\n..", data)
    return b"." + stuffed if at_line_start and data.startswith(b".") else stuffed


def encode_whole(message: bytes) -> tuple[bytes, int]:
    """What :class:`Encoder` makes of a message, faster, for one that is there in one piece.

    :return: the wire form, and its octets before dot-stuffing.
    """
    if b"\r" in message:
        message = message.replace(CRLF, b"\n")
    data = message.replace(b"\n", CRLF)
    if data and not data.endswith(CRLF):
        data += CRLF
    if b"\r\n\r\n" not in data and _empty_line(b"\n" + data) is None:
        data += CRLF
    return _stuffed(data, True), len(data)


def octets(message: bytes) -> int:
    """Octets of a message in wire form before dot-stuffing: what LIST announces.

    CRLF line ends, a final CRLF, and an empty line behind a header that has
    none; an empty message is 2 octets (RFC 1939 section 11).  Stores that count while
    they read or write use :class:`OctetCounter` chunk by chunk and get the same number.

    :param message: the whole message, with LF or CRLF line ends.
    """
    counter = OctetCounter()
    counter.feed(message)
    counter.finish()
    return counter.octets
