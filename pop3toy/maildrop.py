"""The numbered snapshot of one session: what RFC 1939 calls the maildrop.

Here live the message numbers, the deletion marks and the sums; a store never
sees a number, a session never sees how a store names its messages.  Nothing
here reads, removes or writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from .errors import NoSuchMessage
from .interfaces import Entry

__all__ = ["Listing", "Maildrop"]

_Render = Callable[[Iterable[tuple[int, Entry]]], Iterator[bytes]]


class Listing(Sequence[Entry]):
    """An immutable list of entries that remembers its sum and its rendered listings.

    A store that keeps the snapshot of an unchanged mailbox between sessions
    gives the same ``Listing`` again, and STAT, LIST and UIDL cost nothing.
    """

    __slots__ = ("_entries", "_rendered", "octets")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)
        #: The sum of the octets of all messages.
        self.octets = sum([entry[1] for entry in self._entries])
        self._rendered: dict[_Render, tuple[bytes, ...]] = {}

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Listing:
        """The listing of any sequence; a ``Listing`` is its own."""
        return entries if isinstance(entries, Listing) else cls(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        return self._entries[index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def rendered(self, render: _Render) -> tuple[bytes, ...]:
        """The blocks that ``render`` makes of all entries, made once."""
        blocks = self._rendered.get(render)
        if blocks is None:
            blocks = self._rendered[render] = tuple(render(enumerate(self._entries, 1)))
        return blocks


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
        return [self._listing[number - 1].uid for number in self._marked]

    def listing(self, render: _Render) -> Iterable[bytes]:
        """What ``render`` makes of the messages that are not marked, in blocks."""
        if not self._marked:
            return self._listing.rendered(render)
        return render(
            (number, entry) for number, entry in enumerate(self._listing, 1) if number not in self._marked
        )
