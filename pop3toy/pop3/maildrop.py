"""The numbered snapshot of one session: what RFC 1939 calls the maildrop.

Here live the message numbers, the deletion marks and the sums; a store never
sees a number, a session never sees how a store names its messages.  Nothing
here reads, removes or writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from ..errors import NoSuchMessage
from ..interfaces import Entry

__all__ = ["Listing", "Maildrop"]

_Render = Callable[[Iterable[tuple[int, tuple[bytes, int]]]], Iterator[bytes]]


class Listing(Sequence[Entry]):
    """An immutable list of entries that remembers its sum and its rendered listings.

    A store that keeps the snapshot of an unchanged mailbox between sessions
    gives the same ``Listing`` again, and STAT, LIST and UIDL cost nothing.

    It is kept in two columns, which a store with many messages has already: an
    entry is made when somebody looks at it.
    """

    __slots__ = ("_rendered", "each", "octets", "uids")

    def __init__(self, entries: Iterable[Entry]) -> None:
        uids, each = tuple(zip(*entries, strict=True))[:2] or ((), ())
        self._fill(uids, each)

    def _fill(self, uids: Sequence[bytes], each: Sequence[int]) -> None:
        #: The unique-ids of the messages.
        self.uids = uids
        #: Their octets.
        self.each = each
        #: The sum of the octets of all messages.
        self.octets = sum(each)
        self._rendered: dict[_Render, tuple[bytes, ...]] = {}

    @classmethod
    def of_columns(cls, uids: Sequence[bytes], octets: Sequence[int]) -> Listing:
        """The listing of messages with these unique-ids and octets; neither is changed any more.

        :raises ValueError: if there are more of one than of the other.
        """
        if len(uids) != len(octets):
            raise ValueError("each message has one unique-id and one number of octets")
        listing = cls.__new__(cls)
        listing._fill(uids, octets)
        return listing

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Listing:
        """The listing of any sequence; a ``Listing`` is its own."""
        return entries if isinstance(entries, Listing) else cls(entries)

    def __len__(self) -> int:
        return len(self.uids)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return tuple(map(Entry, self.uids[index], self.each[index]))
        return Entry(self.uids[index], self.each[index])

    def __iter__(self) -> Iterator[Entry]:
        return map(Entry, self.uids, self.each)

    def rendered(self, render: _Render) -> Iterable[bytes]:
        """The blocks that ``render`` makes of all entries, made once, each when it is first asked for."""
        blocks = self._rendered.get(render)
        return blocks if blocks is not None else self._render(render)

    def _render(self, render: _Render) -> Iterator[bytes]:
        blocks = []
        for block in render(enumerate(zip(self.uids, self.each, strict=True), 1)):
            blocks.append(block)
            yield block
        self._rendered[render] = tuple(blocks)


class Maildrop:
    """The messages of one session, their numbers from 1 on and their deletion marks.

    RFC 1939 section 4: numbers are fixed when the maildrop is opened.  They
    do not move when a message is marked or when new mail arrives.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._listing = listing = Listing.of(entries)
        self._size = len(listing)
        self._marked: dict[int, None] = {}
        self._marked_octets = 0

    @property
    def count(self) -> int:
        """Messages that are not marked as deleted."""
        return self._size - len(self._marked)

    @property
    def octets(self) -> int:
        """The sum of their octets, equal to the sum of LIST."""
        return self._listing.octets - self._marked_octets

    def summary(self) -> str:
        """Both in words, for the replies that people read: ``2 messages (320 octets)``."""
        return f"{self.count} message{'s'[: self.count != 1]} ({self.octets} octets)"

    def entry(self, number: int) -> Entry:
        """The entry of a message that is not marked.

        :raises pop3toy.errors.NoSuchMessage: with a sentence that says why.
        """
        if number < 1:
            raise NoSuchMessage("message numbers start at 1")
        if number > self._size:
            raise NoSuchMessage(f"no such message, only {self._size} in maildrop")
        if number in self._marked:
            raise NoSuchMessage(f"message {number} is already deleted")
        return self._listing[number - 1]

    def mark(self, number: int) -> None:
        """Mark a message as deleted.

        :raises pop3toy.errors.NoSuchMessage: if there is none or it is marked.
        """
        self._marked_octets += self.entry(number).octets
        self._marked[number] = None

    def unmark_all(self) -> None:
        """Take back all deletion marks (RSET)."""
        self._marked.clear()
        self._marked_octets = 0

    def doomed(self) -> list[bytes]:
        """The unique-ids of the marked messages: what UPDATE removes."""
        return [self._listing.uids[number - 1] for number in self._marked]

    def listing(self, render: _Render) -> Iterable[bytes]:
        """What ``render`` makes of the messages that are not marked, in blocks."""
        if not self._marked:
            return self._listing.rendered(render)
        return render(
            (number, entry) for number, entry in enumerate(self._listing, 1) if number not in self._marked
        )
