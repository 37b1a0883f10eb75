"""The numbered snapshot of one session: what RFC 1939 calls the maildrop.

Here live the message numbers, the deletion marks and the sums; a store never
sees a number, a session never sees how a store names its messages.  Nothing
here reads, removes or writes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import NoSuchMessage
from ..interfaces import Entry
from ..mail.listing import Listing, Render

__all__ = ["Maildrop"]


class Maildrop:
    """The messages of one session, their numbers from 1 on and their deletion marks.

    RFC 1939 section 4: numbers are fixed when the maildrop is opened.  They
    do not move when a message is marked or when new mail arrives.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._listing = listing = Listing.of(entries)
        self._size = len(listing.uids)
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
        count = self.count
        return f"{count} message{'s'[: count != 1]} ({self.octets} octets)"

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
        # No command tells when a message came, and finding out costs more than all of this.
        return Entry(self._listing.uids[number - 1], self._listing.each[number - 1])

    def mark_deleted(self, number: int) -> None:
        """Mark a message as deleted.

        :raises pop3toy.errors.NoSuchMessage: if there is none or it is marked.
        """
        self._marked_octets += self.entry(number).octets
        self._marked[number] = None

    def unmark_all(self) -> None:
        """Take back all deletion marks (RSET)."""
        self._marked.clear()
        self._marked_octets = 0

    def deleted_uids(self) -> list[bytes]:
        """The unique-ids of the marked messages: what UPDATE removes."""
        return [self._listing.uids[number - 1] for number in self._marked]

    def listing(self, render: Render) -> Iterable[bytes]:
        """What ``render`` makes of the messages that are not marked, in blocks."""
        if not self._marked:
            return self._listing.rendered(render)
        entries = zip(self._listing.uids, self._listing.each, strict=True)
        return render(
            (number, entry) for number, entry in enumerate(entries, 1) if number not in self._marked
        )
