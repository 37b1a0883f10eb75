"""A maildrop of which everything can be read and nothing changed: what an anonymous visitor gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from ..errors import Refusal
from ..interfaces import Entry, IMailbox, MaybeDeferred, MessageBody

__all__ = ["ReadOnlyMailbox"]


@implementer(IMailbox)
class ReadOnlyMailbox:
    """One visitor's view of a maildrop.

    :param mailbox: an :class:`~pop3toy.interfaces.IMailbox`.
    """

    read_only = True

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
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
        """Leave."""
        released: MaybeDeferred[None] = self._mailbox.release()
        return released
