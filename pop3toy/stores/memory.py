"""Mail in memory: for tests, for embedding, and beneath the toy.

It keeps every promise of a store except to survive the process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from .. import limits
from ..errors import InUse, MessageGone, NoSuchMailbox
from ..interfaces import Entry, IDelivery, IMailbox, Incoming, IViewableStore, MessageBody
from ..mail.listing import Listing
from ..mail.octets import octets

__all__ = ["BytesBody", "MemoryStore"]


def _new_uid() -> str:
    return secrets.token_hex(16)


class BytesBody:
    """A :class:`~pop3toy.interfaces.MessageBody` of octets that are at hand."""

    def __init__(self, message: bytes) -> None:
        self.done = False
        self._message = message
        self._at = 0

    def pull(self, most: int = limits.CHUNK) -> bytes:
        """The next chunk, at most so many octets."""
        chunk = self._message[self._at : self._at + most]
        self._at += len(chunk)
        self.done = self._at >= len(self._message)
        return chunk

    def close(self, octets: int | None) -> None:
        """Nothing to let go of."""


class _Stored(NamedTuple):
    """A message, counted once: counting large ones at every login would hold up the reactor."""

    message: bytes
    octets: int


@implementer(IViewableStore, IDelivery)
class MemoryStore:
    """Maildrops that live as long as the process.

    :param mail: messages for each user, with any line ends, oldest first.
    :param create: make an empty maildrop for a user that has none, instead of
        refusing.
    :param new_uid: makes a unique-id that was never used before.
    """

    def __init__(
        self,
        mail: Mapping[str, Iterable[bytes]] | None = None,
        *,
        create: bool = False,
        new_uid: Callable[[], str] = _new_uid,
    ) -> None:
        self._new_uid = new_uid
        self._create = create
        self._mail: dict[str, dict[bytes, _Stored]] = {}
        self._locked: set[str] = set()
        for user, messages in (mail or {}).items():
            self._mail[user] = {}
            for message in messages:
                self.add(user, message)

    def add(self, user: str, message: bytes) -> bytes:
        """Put a message into a maildrop; an open session does not see it.

        :return: its unique-id.
        """
        uid = self._new_uid().encode("ascii")
        self._mail.setdefault(user, {})[uid] = _Stored(message, octets(message))
        return uid

    def messages(self, user: str) -> Sequence[bytes]:
        """The messages that are in a user's maildrop now."""
        return tuple([stored.message for stored in self._mail.get(user, {}).values()])

    def open(self, user: str) -> IMailbox:
        """See :class:`IMailStore`."""
        mail = self._mail_of(user)
        if user in self._locked:
            raise InUse
        self._locked.add(user)
        mailbox: IMailbox = _MemoryMailbox(mail, lambda: self._locked.discard(user))
        return mailbox

    def view(self, user: str) -> IMailbox:
        """See :class:`IViewableStore`."""
        mailbox: IMailbox = _MemoryMailbox(self._mail_of(user), lambda: None)
        return mailbox

    def _mail_of(self, user: str) -> dict[bytes, _Stored]:
        if user not in self._mail:
            if not self._create:
                raise NoSuchMailbox(detail=f"there is no maildrop for {user!r} in memory")
            self._mail[user] = {}
        return self._mail[user]

    def begin(self, user: str, octets: int = 0) -> Incoming:
        """See :class:`IDelivery`."""
        if user not in self._mail and not self._create:
            raise NoSuchMailbox(detail=f"there is no maildrop for {user!r} in memory")
        return _MemoryIncoming(lambda message: self.add(user, message))


@implementer(IMailbox)
class _MemoryMailbox:
    def __init__(self, mail: dict[bytes, _Stored], unlock: Callable[[], None]) -> None:
        self._mail = mail
        self._unlock: Callable[[], None] | None = unlock
        self.entries = Listing(Entry(uid, stored.octets) for uid, stored in mail.items())

    def read(self, uid: bytes) -> MessageBody:
        stored = self._mail.get(uid)
        if stored is None:
            raise MessageGone
        return BytesBody(stored.message)

    def remove(self, uids: Sequence[bytes]) -> None:
        for uid in uids:
            self._mail.pop(uid, None)

    def release(self) -> None:
        unlock, self._unlock = self._unlock, None
        if unlock is not None:
            unlock()


class _MemoryIncoming:
    def __init__(self, keep: Callable[[bytes], bytes]) -> None:
        self._keep: Callable[[bytes], bytes] | None = keep
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def commit(self) -> Deferred[bytes]:
        keep, self._keep = self._keep, None
        if keep is None:
            raise RuntimeError("this delivery is over")
        return succeed(keep(b"".join(self._chunks)))

    def abort(self) -> None:
        self._keep = None
        self._chunks.clear()
