"""A message in object storage: fetched in ranges, of which the next is asked for while one is sent.

A slow client would run into the time limit of one long request, and a quick one would wait for each short
one.  So a body holds one range and the next, at most; and a client who fetches one message after the other
finds the next one asked for already (``Ahead``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ... import limits
from ...errors import MessageGone, StoreTrouble
from ...interfaces import MaybeDeferred
from .engine import NoSuchObject

__all__ = ["RANGE", "Ahead", "Fetch", "ObjectBody"]

#: Octets of one request for a message.
RANGE: Final = 1024 * 1024

_NOTHING: Final = memoryview(b"")

#: Asks for octets of a message: given its place in the listing, where they begin, and how many they are.
Fetch: TypeAlias = Callable[[int, int, int], Deferred[bytes]]


class ObjectBody:
    """A :class:`~pop3toy.interfaces.MessageBody` of an object.

    :param at: its place in the listing.
    :param octets: that it has.
    :param ahead: of the mailbox.
    """

    __slots__ = ("_ahead", "_asked", "_at", "_buffer", "_closed", "_coming", "_octets", "_whole", "done")

    def __init__(self, at: int, octets: int, ahead: Ahead) -> None:
        self._at = at
        self._octets = octets
        self._ahead = ahead
        # Octets that were asked for.
        self._asked = 0
        self._buffer = _NOTHING
        # The next range, with what was asked.
        self._coming: tuple[Deferred[bytes], int] | None = None
        # Whether all of it is wanted: known with the first chunk.
        self._whole: bool | None = None
        self._closed = False
        self.done = octets == 0

    def pull(self, most: int = limits.CHUNK) -> MaybeDeferred[bytes]:
        """The next chunk; see :class:`~pop3toy.interfaces.MessageBody`.

        :param most: octets at the most; for RETR larger ranges are asked for.
        """
        if self._buffer or self.done:
            return self._take(most)
        if self._whole is None:
            # TOP asks for less.
            self._whole = most >= limits.CHUNK
            if self._whole:
                self._coming = self._ahead.begin(self._at, self._octets)
                self._asked = self._coming[1]
        if self._coming is None:
            self._ask(RANGE if self._whole else most)
        assert self._coming is not None
        (coming, length), self._coming = self._coming, None
        return coming.addCallbacks(self._came, _failed, callbackArgs=(length, most))

    def _ask(self, most: int) -> None:
        length = min(self._octets - self._asked, most)
        self._coming = self._ahead.fetch(self._at, self._asked, length), length
        self._asked += length

    def _came(self, data: bytes, length: int, most: int) -> bytes:
        if len(data) != length:
            # It must not look whole.
            raise StoreTrouble(detail="a message in object storage is shorter than it was listed")
        if self._closed:
            return b""
        self._buffer = memoryview(data)
        if self._whole:
            if self._asked < self._octets:
                self._ask(RANGE)
            else:
                self._ahead.look_ahead(self._at)
        return self._take(most)

    def _take(self, most: int) -> bytes:
        chunk, rest = bytes(self._buffer[:most]), self._buffer[most:]
        # An empty rest would keep all of it.
        self._buffer = rest if rest else _NOTHING
        self.done = not self._buffer and self._asked == self._octets and self._coming is None
        return chunk

    def close(self, octets: int | None) -> None:
        """Let go of it; what is under way is forgotten when it comes."""
        self._closed = True
        self._buffer = _NOTHING
        coming, self._coming = self._coming, None
        if coming is not None:
            _forget(coming[0])


class Ahead:
    """What is fetched for one session, and the message that it will probably ask for next.

    :param fetch: asks for octets of a message.
    :param octets: of the messages, in the order of the listing.
    """

    def __init__(self, fetch: Fetch, octets: Callable[[int], int], count: int) -> None:
        self.fetch = fetch
        self._octets = octets
        self._count = count
        # The last message that was fetched, and whether it came behind the one before.
        self._last = -1
        self._in_order = False
        # One small message that nobody has asked for yet.
        self._kept: tuple[int, Deferred[bytes]] | None = None

    def begin(self, at: int, octets: int) -> tuple[Deferred[bytes], int]:
        """All of a message is wanted: its first range, and how many octets that is.

        :param at: its place in the listing.
        """
        self._in_order = self._last >= 0 and at == self._last + 1
        self._last = at
        length = min(octets, RANGE)
        kept, self._kept = self._kept, None
        if kept is not None:
            if kept[0] == at:
                return kept[1], length
            _forget(kept[1])
        return self.fetch(at, 0, length), length

    def look_ahead(self, at: int) -> None:
        """All of a message is here: ask for the next, if the client fetches one after the other."""
        after = at + 1
        if self._kept is None and self._in_order and at == self._last and after < self._count:
            octets = self._octets(after)
            if 0 < octets <= RANGE:
                self._kept = after, self.fetch(after, 0, octets)

    def close(self) -> None:
        """Nothing more is wanted."""
        self._in_order = False
        kept, self._kept = self._kept, None
        if kept is not None:
            _forget(kept[1])


def _failed(why: Failure) -> Deferred[bytes]:
    if why.check(NoSuchObject):
        return fail(MessageGone())
    return fail(why)


def _forget(coming: Deferred[bytes]) -> None:
    coming.addErrback(lambda _: None)
