"""A message in object storage: fetched in ranges, of which the next is asked for while one is sent.

A slow client would run into the time limit of one long request, and a quick one would wait for each short
one.  So a body holds one range and the next, at most; and a client who fetches one message after the other
finds the next ones asked for already (``Ahead``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Final, TypeAlias

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ... import limits
from ...errors import MessageGone, StoreTrouble
from ...interfaces import MaybeDeferred
from .engine import Engine, NoSuchObject

__all__ = ["RANGE", "SEVERAL", "TOGETHER", "Ahead", "Fetch", "FetchSeveral", "ObjectBody", "get_several"]

#: Octets of one request for a message.
RANGE: Final = 1024 * 1024

#: Messages that are asked for ahead in one go to a thread, and the octets of more than one: each way there
#: and back costs a third of what a small message does.
SEVERAL: Final = 4
TOGETHER: Final = 256 * 1024

_NOTHING: Final = memoryview(b"")

#: Asks for octets of a message: given its place in the listing, where they begin, and how many they are.
Fetch: TypeAlias = Callable[[int, int, int], Deferred[bytes]]

#: Asks for messages as a whole, given the place in the listing and the octets of each, and whether they are
#: not wanted any more, asked between them; fires with what :func:`get_several` returns.
FetchSeveral: TypeAlias = Callable[[Mapping[int, int], Callable[[], bool]], Deferred[list[bytes | Exception]]]


def get_several(
    engine: Engine, wanted: Sequence[tuple[str, int]], given_up: Callable[[], bool]
) -> list[bytes | Exception]:
    """Messages one after the other; blocks.

    :param wanted: the key and the octets of each.
    :return: each one, or why it could not be had: fewer if they are given up, and behind the first one that
        the storage did not give, which will not give the next one either.
    """
    found: list[bytes | Exception] = []
    for key, octets in wanted:
        if given_up():
            break
        try:
            found.append(engine.get_range(key, 0, octets))
        except NoSuchObject as gone:
            found.append(gone)
        except StoreTrouble as trouble:
            found.append(trouble)
            break
    return found


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
    """What is fetched for one session, and the messages that it will probably ask for next.

    :param fetch: asks for octets of a message.
    :param fetch_several: asks for some messages.
    :param octets: of the messages, in the order of the listing.
    """

    def __init__(
        self, fetch: Fetch, fetch_several: FetchSeveral, octets: Callable[[int], int], count: int
    ) -> None:
        self.fetch = fetch
        self._fetch_several = fetch_several
        self._octets = octets
        self._count = count
        # The last message that was fetched, and whether it came behind the one before.
        self._last = -1
        self._in_order = False
        # How many are asked for next: whoever goes on is believed to go on further.
        self._several = 1
        # Those that were, but for those that were wanted since, in order; and whether they are given up.
        self._kept: dict[int, Deferred[bytes]] = {}
        self._given_up = Event()

    def begin(self, at: int, octets: int) -> tuple[Deferred[bytes], int]:
        """All of a message is wanted: its first range, and how many octets that is.

        :param at: its place in the listing.
        """
        self._in_order = self._last >= 0 and at == self._last + 1
        self._last = at
        if not self._in_order:
            self._several = 1
        length = min(octets, RANGE)
        if next(iter(self._kept), None) == at:
            return self._kept.pop(at), length
        self._forget_kept()
        return self.fetch(at, 0, length), length

    def look_ahead(self, at: int) -> None:
        """All of a message is here: ask for the next, if the client fetches one after the other."""
        if self._kept or not self._in_order or at != self._last:
            return
        wanted: dict[int, int] = {}
        room = RANGE
        for after in range(at + 1, min(at + 1 + self._several, self._count)):
            octets = self._octets(after)
            if not 0 < octets <= room:
                break
            wanted[after] = octets
            room = TOGETHER - sum(wanted.values())
        if not wanted:
            return
        self._several = min(self._several * 2, SEVERAL)
        asked = {after: Deferred[bytes]() for after in wanted}
        self._kept = dict(asked)
        self._given_up = Event()
        self._fetch_several(wanted, self._given_up.is_set).addBoth(self._came, asked)

    def _came(self, found: list[bytes | Exception] | Failure, asked: dict[int, Deferred[bytes]]) -> None:
        results = [found] if isinstance(found, Failure) else found
        for after in list(asked)[len(results) :]:
            waiting = asked.pop(after)
            if self._kept.get(after) is waiting:
                # Asked for anew by who wants it.
                del self._kept[after]
        for waiting, result in zip(asked.values(), results, strict=True):
            # An exception is one for errbacks.
            waiting.callback(Failure(result) if isinstance(result, Exception) else result)

    def _forget_kept(self) -> None:
        self._given_up.set()
        kept, self._kept = self._kept, {}
        for coming in kept.values():
            _forget(coming)

    def close(self) -> None:
        """Nothing more is wanted."""
        self._in_order = False
        self._forget_kept()


def _failed(why: Failure) -> Deferred[bytes]:
    if why.check(NoSuchObject):
        return fail(MessageGone())
    return fail(why)


def _forget(coming: Deferred[bytes]) -> None:
    coming.addErrback(lambda _: None)
