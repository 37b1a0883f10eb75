"""A maildrop that many may read at once and nobody may change: the anonymous visitors' demo.

The first visitor opens it, the others share what he opened, the last one
gives it back.  Who may be a visitor is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import Refusal
from ..interfaces import Entry, IMailbox, IMailStore, MaybeDeferred, MessageBody

__all__ = ["ReadOnlyMailbox", "SharedMailbox"]


class SharedMailbox:
    """One user's maildrop, opened while there are visitors.

    :param store: an :class:`~pop3toy.interfaces.IMailStore`.
    :param user: whose maildrop is shown.
    """

    def __init__(self, store: IMailStore, user: str) -> None:
        self._store = store
        self._user = user
        self._mailbox: Any = None
        self._visitors = 0
        self._waiting: list[Deferred[object]] | None = None

    def open(self) -> MaybeDeferred[object]:
        """A :class:`ReadOnlyMailbox` of one's own, or a Deferred of it.

        :raises pop3toy.errors.Refusal: (or fails with) what the store says to
            the first visitor; the next one asks the store again.
        """
        if self._mailbox is not None:
            return self._visit()
        if self._waiting is not None:
            turn: Deferred[object] = Deferred()
            self._waiting.append(turn)
            return turn
        opening = self._store.open(self._user)
        if not isinstance(opening, Deferred):
            self._mailbox = opening
            return self._visit()
        self._waiting = [turn := Deferred()]
        opening.addCallbacks(self._opened, self._failed)
        return turn

    def _opened(self, mailbox: object) -> None:
        self._mailbox = mailbox
        waiting, self._waiting = self._waiting or [], None
        # Everybody is counted before anybody is told, so that one who leaves
        # at once does not close it on the next.
        for turn, visit in [(turn, self._visit()) for turn in waiting]:
            turn.callback(visit)

    def _failed(self, why: Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        for turn in waiting:
            turn.errback(why)

    def _visit(self) -> ReadOnlyMailbox:
        self._visitors += 1
        return ReadOnlyMailbox(self._mailbox, self._left)

    def _left(self) -> MaybeDeferred[None]:
        self._visitors -= 1
        if self._visitors:
            return None
        mailbox, self._mailbox = self._mailbox, None
        released: MaybeDeferred[None] = mailbox.release()
        return released


@implementer(IMailbox)
class ReadOnlyMailbox:
    """One visitor's view of a shared maildrop: everything can be read, nothing removed."""

    read_only = True

    def __init__(self, mailbox: Any, left: Any) -> None:
        self._mailbox = mailbox
        self._left = left
        self.entries: Sequence[Entry] = mailbox.entries

    def read(self, uid: bytes) -> MaybeDeferred[MessageBody]:
        """Open a message for reading."""
        body: MaybeDeferred[MessageBody] = self._mailbox.read(uid)
        return body

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """Refuse: a visitor removes nothing.

        :raises pop3toy.errors.Refusal: unless there is nothing to remove.
        """
        if uids:
            raise Refusal("this maildrop is read-only")
        return None

    def release(self) -> MaybeDeferred[None]:
        """Leave; the last visitor gives the maildrop back."""
        left, self._left = self._left, None
        released: MaybeDeferred[None] = left() if left is not None else None
        return released
