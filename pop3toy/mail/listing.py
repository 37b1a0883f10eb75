"""What a mailbox lists: its messages in a fixed order, with their unique-ids and octets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, overload

from ..interfaces import Entry

__all__ = ["Listing", "Render"]

#: Makes the blocks of a reply out of numbered entries.
Render: TypeAlias = Callable[[Iterable[tuple[int, tuple[bytes, int]]]], Iterator[bytes]]


def _unknown(at: int) -> None:
    """The arrival of a message where the store does not know it."""


class Listing(Sequence[Entry]):
    """An immutable sequence of :class:`~pop3toy.interfaces.Entry` that keeps its sum and its replies.

    A store that keeps the snapshot of an unchanged mailbox between sessions
    gives the same ``Listing`` again, and STAT, LIST and UIDL cost nothing.

    It is kept in two columns, which a store with many messages has already, and a
    function: an entry is made when it is asked for.

    :param entries: in the order in which they are numbered; their unique-ids are not checked.
    """

    __slots__ = ("_arrived", "_rendered", "each", "octets", "uids")

    def __init__(self, entries: Iterable[Entry]) -> None:
        uids, each, *more = tuple(zip(*entries, strict=True)) or ((), ())
        self._fill(uids, each, more[0].__getitem__ if more else _unknown)

    def _fill(
        self, uids: Sequence[bytes], each: Sequence[int], arrived: Callable[[int], float | None]
    ) -> None:
        #: The unique-ids of the messages.
        self.uids = uids
        #: Their octets.
        self.each = each
        #: The sum of the octets of all messages.
        self.octets = sum(each)
        self._arrived = arrived
        self._rendered: dict[Render, tuple[bytes, ...]] = {}

    @classmethod
    def of_columns(
        cls,
        uids: Sequence[bytes],
        octets: Sequence[int],
        arrived: Callable[[int], float | None] = _unknown,
    ) -> Listing:
        """The listing of messages with these unique-ids and octets; neither is changed any more.

        :param uids: a unique-id for each message (RFC 1939 section 7).
        :param octets: as :func:`pop3toy.octets` counts them, in the same order.
        :param arrived: tells when a message came, in seconds since the epoch, given its place in
            that order, from 0 on.  Called each time when the entry is asked for.
        :raises ValueError: if there are more of one than of the other.
        """
        if len(uids) != len(octets):
            raise ValueError("each message has one unique-id and one number of octets")
        listing = cls.__new__(cls)
        listing._fill(uids, octets, arrived)
        return listing

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Listing:
        """The listing of any sequence; a ``Listing`` is its own.

        :param entries: in the order in which they are numbered.
        """
        return entries if isinstance(entries, Listing) else cls(entries)

    def __len__(self) -> int:
        return len(self.uids)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return tuple(map(self.__getitem__, range(*index.indices(len(self)))))
        at = index if index >= 0 else index + len(self)
        return Entry(self.uids[index], self.each[index], self._arrived(at))

    def __iter__(self) -> Iterator[Entry]:
        return map(Entry, self.uids, self.each, map(self._arrived, range(len(self))))

    def rendered(self, render: Render) -> Iterable[bytes]:
        """The blocks that ``render`` makes of all entries, made once, each when it is first asked for.

        :param render: makes blocks of bytes out of ``(number, (uid, octets))``, numbered from 1 on.
        """
        blocks = self._rendered.get(render)
        return blocks if blocks is not None else self._render(render)

    def _render(self, render: Render) -> Iterator[bytes]:
        blocks = []
        for block in render(enumerate(zip(self.uids, self.each, strict=True), 1)):
            blocks.append(block)
            yield block
        self._rendered[render] = tuple(blocks)
