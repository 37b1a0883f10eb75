"""From a reply to bytes: the one place that makes what goes on the wire.

Status lines, multi-line replies, CRLF, dot-stuffing, TOP, the count of octets
and the alphabet of unique-ids (RFC 1939 sections 3, 5, 7 and 11).  A long reply
is a :class:`Stream`, pulled piece by piece by the writer, so that a
listing or a body of any size costs a session no more than one piece.

Nothing here knows a state, a command, a store or a transport.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, TypeAlias

from .. import limits
from ..errors import StoreTrouble
from ..interfaces import After, Challenge, MaybeDeferred, MessageBody, Stream, is_deferred
from ..mail.octets import CRLF, Encoder, encode_whole

__all__ = [
    "Lines",
    "Message",
    "Reply",
    "Status",
    "encode",
    "scan_listing",
    "unique_id_listing",
]

#: RFC 1939 section 3: "a line consisting of the termination octet and a CRLF pair".
END = b".\r\n"


# -- replies -------------------------------------------------------------------


class Status(NamedTuple):
    """A reply of one line."""

    ok: bool
    text: str
    #: A response code without brackets (RFC 2449 section 8), or "".
    code: str = ""
    after: After = After.GO_ON
    #: Called when the last octet was handed to the writer.
    done: Callable[[], object] | None = None


class Lines(NamedTuple):
    """A reply of many lines that this server made itself: LIST, UIDL, CAPA, AUTH."""

    text: str
    #: Lines with their CRLF, any number of them in a block; none begins with a dot.
    blocks: Iterable[bytes]
    after: After = After.GO_ON
    done: Callable[[], object] | None = None


class Message(NamedTuple):
    """The reply to RETR, or to TOP with its number of body lines."""

    text: str
    body: MessageBody
    body_lines: int | None = None
    #: Called when the last octet was handed to the writer.
    done: Callable[[], object] | None = None
    after: After = After.GO_ON


Reply: TypeAlias = "Status | Lines | Message | Challenge"


def encode(reply: Reply, at_once: bool = False) -> bytes | Stream:
    """Make the bytes of a reply, or the stream that pulls them.

    :param at_once: pull the first piece of a message here and now; then it raises what the
        store raises, and the body is closed.
    """
    if isinstance(reply, Status):
        return _status_line(reply.ok, reply.text, reply.code)
    if isinstance(reply, Message):
        return _begun(reply) if at_once and reply.body_lines is None else _MessageStream(reply)
    if isinstance(reply, Lines):
        return _LinesStream(reply)
    # RFC 5034 section 4: plus, a space, base64, CRLF; an empty challenge keeps the space.
    return b"+ " + binascii.b2a_base64(reply.data, newline=False) + CRLF


# The same few are sent again and again.
@lru_cache(maxsize=1024)
def _status_line(ok: bool, text: str, code: str = "") -> bytes:
    if not (text.isascii() and text.isprintable()):
        # Another program's store may have raised it; a line end in it would be a reply of its own.
        text = "".join([c if " " <= c <= "~" else "?" for c in text])
    word = "+OK" if ok else "-ERR"
    if code:
        word = f"{word} [{code}]"
    # RFC 2449 section 6.4: a text that begins with a bracket would be a response code.
    # RFC 2449 section 4: at most 512 octets with the CRLF.
    line = f"{word} {text.lstrip(' [')}"[: limits.REPLY_LINE - 2].rstrip(" ")
    return line.encode("ascii") + CRLF


# -- listings --------------------------------------------------------------------


def scan_listing(numbered: Iterable[tuple[int, tuple[bytes, int]]]) -> Iterator[bytes]:
    """The scan listings of LIST in blocks (RFC 1939 section 5)."""
    source = iter(numbered)
    while block := b"".join(
        [b"%d %d\r\n" % (number, entry[1]) for number, entry in islice(source, limits.LISTING_BLOCK)]
    ):
        yield block


def unique_id_listing(numbered: Iterable[tuple[int, tuple[bytes, int]]]) -> Iterator[bytes]:
    """The unique-id listings of UIDL in blocks (RFC 1939 section 7)."""
    source = iter(numbered)
    while block := b"".join(
        [b"%d %b\r\n" % (number, entry[0]) for number, entry in islice(source, limits.LISTING_BLOCK)]
    ):
        yield block


class _LinesStream:
    """A multi-line reply, block by block; the end leaves with the last block."""

    def __init__(self, reply: Lines) -> None:
        self.done = False
        self._blocks = iter(reply.blocks)
        self._head = _status_line(True, reply.text)
        self._next = next(self._blocks, b"")

    def pull(self) -> bytes:
        piece = self._head + self._next if self._head else self._next
        self._head = b""
        self._next = next(self._blocks, b"")
        if self._next:
            return piece
        self.done = True
        return piece + END

    def close(self) -> None:
        self.done = True


# -- bodies ----------------------------------------------------------------------


_NO_CHUNK = "a store handed out None instead of a chunk"


def _begun(reply: Message) -> bytes | Stream:
    """The reply to RETR, whole if the message is at hand in one piece.

    Most are, and this is cheaper than a stream.
    """
    body = reply.body
    try:
        chunk = body.pull()
        if chunk is None:
            raise StoreTrouble(detail=_NO_CHUNK)
        if type(chunk) is not bytes or not body.done:
            return _MessageStream(reply, chunk)
        data, octets = encode_whole(chunk)
    except BaseException:
        body.close(None)
        raise
    body.close(octets)
    return b"".join((_status_line(True, reply.text), data, END))


class _MessageStream:
    """The reply to RETR or TOP: status line, encoded body, end.

    :param first: what was pulled of the body already.
    """

    __slots__ = ("_body", "_body_lines", "_closed", "_encoder", "_first", "_head", "_octets", "done")

    def __init__(self, reply: Message, first: MaybeDeferred[bytes] | None = None) -> None:
        self.done = False
        self._body = reply.body
        self._body_lines = reply.body_lines
        self._first = first
        self._head = _status_line(True, reply.text)
        # Made for the first piece, if that is not all.
        self._encoder: Encoder | None = None
        # Of the whole message, when it is out.
        self._octets: int | None = None
        self._closed = False

    def pull(self) -> MaybeDeferred[bytes]:
        # The header is what TOP is asked for; most fit into little.  A client that
        # fetches with TOP gets the rest as fast as with RETR.
        small = self._body_lines is not None and self._encoder is None
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = self._body.pull(limits.TOP_CHUNK) if small else self._body.pull()
        if is_deferred(chunk):
            return chunk.addCallback(self._piece)
        return self._piece(chunk)

    def _piece(self, chunk: bytes) -> bytes:
        if chunk is None:
            raise StoreTrouble(detail=_NO_CHUNK)
        encoder = self._encoder
        if encoder is None:
            if self._body_lines is None and self._body.done:
                self.done = True
                data, self._octets = encode_whole(chunk)
                return b"".join((self._head, data, END))
            encoder = self._encoder = Encoder(self._body_lines)
        data = self._head + encoder.feed(chunk)
        self._head = b""
        if encoder.enough or self._body.done:
            # The termination leaves in one write with the end of the body.
            data += encoder.finish() + END
            self.done = True
            # TOP with more lines than there are is the whole message, too.
            if not encoder.enough:
                self._octets = encoder.octets
        return data

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._body.close(self._octets)
