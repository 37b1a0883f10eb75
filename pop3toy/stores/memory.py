"""Mail in memory: for tests, for embedding, and beneath the toy.

It keeps every promise of a store except to survive the process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import BinaryIO, NamedTuple

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from .. import limits
from ..errors import InUse, MessageGone, NoSuchMailbox, StoreTrouble
from ..interfaces import (
    Entry,
    IDelivery,
    IMailbox,
    Incoming,
    IStoreAdmin,
    IViewableStore,
    MessageBody,
    StoredMessage,
)
from ..mail.listing import Listing
from ..mail.octets import octets
from ..mail.unique_ids import unique_id_is_valid

__all__ = ["BytesBody", "MemoryStore"]


def _new_uid() -> str:
    return secrets.token_hex(16)


class BytesBody:
    """A :class:`~pop3toy.interfaces.MessageBody` of octets that are at hand: nothing waits, nothing fails.

    :param message: the whole message, with LF or CRLF line ends, dots not stuffed.
    """

    def __init__(self, message: bytes) -> None:
        self.done = False
        self._message = message
        self._at = 0

    def pull(self, most: int = limits.CHUNK) -> bytes:
        """The next chunk, at once: bytes, never a Deferred.

        :param most: octets at the most.
        """
        chunk = self._message[self._at : self._at + most]
        self._at += len(chunk)
        self.done = self._at >= len(self._message)
        return chunk

    def close(self, octets: int | None) -> None:
        """Nothing to let go of.

        :param octets: see :class:`~pop3toy.interfaces.MessageBody`.
        """


class _Stored(NamedTuple):
    """A message, counted once: counting large ones at every login would hold up the reactor."""

    message: bytes
    octets: int
    arrived: float


@implementer(IViewableStore, IDelivery, IStoreAdmin)
class MemoryStore:
    """Maildrops that live as long as the process: an ``IMailStore`` and ``IDelivery`` that waits for nothing.

    A maildrop is locked while a session has it open.

    :param mail: messages for each user, with any line ends, oldest first.
    :param create: make an empty maildrop for a user that has none, instead of
        refusing.
    :param new_uid: makes a unique-id that was never used before.
    :param wall: the time of day, in seconds since the epoch: when messages arrive.
    """

    def __init__(
        self,
        mail: Mapping[str, Iterable[bytes]] | None = None,
        *,
        create: bool = False,
        new_uid: Callable[[], str] = _new_uid,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._new_uid = new_uid
        self._wall = wall
        self._create = create
        self._mail: dict[str, dict[bytes, _Stored]] = {}
        self._locked: set[str] = set()
        for user, messages in (mail or {}).items():
            self._mail[user] = {}
            for message in messages:
                self.add(user, message)

    def add(self, user: str, message: bytes, uid: str | None = None) -> bytes:
        """Put a message into a maildrop, which is made if need be; an open session does not see it.

        :param user: whose maildrop.
        :param message: with LF or CRLF line ends.
        :param uid: its unique-id, never used before in this maildrop; one is made up without it.
        :return: its unique-id.
        :raises ValueError: if there is a message with this unique-id, or it cannot be one.
        """
        if uid is not None and not unique_id_is_valid(uid.encode("utf-8", "replace")):
            raise ValueError(f"{uid!r} is no unique-id (RFC 1939 section 7)")
        if uid is not None and uid.encode("ascii") in self._mail.get(user, {}):
            raise ValueError(f"there is a message with the unique-id {uid!r} already")
        return self._add(user, _Stored(message, octets(message), self._wall()), uid)

    def _add(self, user: str, stored: _Stored, uid: str | None = None) -> bytes:
        key = (self._new_uid() if uid is None else uid).encode("ascii")
        self._mail.setdefault(user, {})[key] = stored
        return key

    def discard(self, user: str, uid: str) -> None:
        """Take a message away, as nobody does who keeps the lock: a session that has it open finds it gone.

        :param user: whose maildrop.
        :param uid: its unique-id.
        :raises KeyError: if it is not there.
        """
        del self._mail[user][uid.encode("ascii")]

    def messages(self, user: str) -> Sequence[bytes]:
        """The messages that are in a user's maildrop now, oldest first; none for an unknown user.

        :param user: whose maildrop.
        """
        return tuple([stored.message for stored in self._mail.get(user, {}).values()])

    def open(self, user: str) -> IMailbox:
        """See :class:`~pop3toy.interfaces.IMailStore`; answers at once.

        :param user: whose maildrop.
        :raises pop3toy.errors.NoSuchMailbox: if the user has none.
        :raises pop3toy.errors.InUse: if a session has it open.
        """
        mail = self._mail_of(user, create=self._create)
        if user in self._locked:
            raise InUse
        self._locked.add(user)
        mailbox: IMailbox = _MemoryMailbox(mail, lambda: self._locked.discard(user))
        return mailbox

    def view(self, user: str) -> IMailbox:
        """See :class:`~pop3toy.interfaces.IViewableStore`; answers at once."""
        mailbox: IMailbox = _MemoryMailbox(self._mail_of(user, create=self._create), lambda: None)
        return mailbox

    def check(self, user: str, octets: int = 0) -> None:
        """See :class:`~pop3toy.interfaces.IDelivery`; answers at once.

        :param user: whose mail it would be.
        :param octets: does not matter here.
        :raises pop3toy.errors.NoSuchMailbox: if the user has no maildrop.
        """
        if not self._create:
            self._mail_of(user)

    def begin(self, users: Sequence[str], octets: int = 0) -> Incoming:
        """See :class:`~pop3toy.interfaces.IDelivery`; answers at once.

        :param users: whose maildrops.
        :param octets: do not matter here.
        :raises pop3toy.errors.NoSuchMailbox: if none of the users has one.
        """
        refused = self._refused(users)
        if len(refused) == len(users):
            raise refused[users[0]]
        return _MemoryIncoming(lambda message, together: self._keep(users, message, together))

    def _keep(self, users: Sequence[str], message: bytes, together: bool) -> Sequence[bytes | StoreTrouble]:
        # Maildrops may have been removed meanwhile.
        refused = self._refused(users)
        if refused and (together or len(refused) == len(users)):
            raise next(iter(refused.values()))
        stored = _Stored(message, octets(message), self._wall())
        return [refused[user] if user in refused else self._add(user, stored) for user in users]

    def _refused(self, users: Sequence[str]) -> dict[str, NoSuchMailbox]:
        return {user: _nobody(user) for user in users if not (self._create or user in self._mail)}

    def users(self) -> Sequence[str]:
        """See :class:`IStoreAdmin`."""
        return sorted(self._mail)

    def exists(self, user: str) -> bool:
        """See :class:`IStoreAdmin`."""
        return user in self._mail

    def list(self, user: str) -> Sequence[StoredMessage]:
        """See :class:`IStoreAdmin`."""
        return tuple(
            StoredMessage(uid, stored.octets, f"memory, {uid.decode('ascii')}", stored.arrived)
            for uid, stored in self._mail_of(user).items()
        )

    def read(self, user: str, message: StoredMessage) -> BinaryIO:
        """See :class:`IStoreAdmin`."""
        stored = self._mail_of(user).get(message.uid)
        if stored is None:
            raise MessageGone
        return BytesIO(stored.message)

    def problems(self, user: str, *, read: bool = True) -> Iterable[str]:
        """See :class:`IStoreAdmin`; nothing can be wrong."""
        self._mail_of(user)
        return ()

    def usage(self, user: str) -> int:
        """See :class:`IStoreAdmin`: the octets of the messages as they are kept."""
        return sum(len(stored.message) for stored in self._mail_of(user).values())

    def remove(self, user: str) -> None:
        """See :class:`IStoreAdmin`."""
        self._mail_of(user)
        if user in self._locked:
            raise InUse
        del self._mail[user]

    def _mail_of(self, user: str, *, create: bool = False) -> dict[bytes, _Stored]:
        if user not in self._mail:
            if not create:
                raise _nobody(user)
            self._mail[user] = {}
        return self._mail[user]


def _nobody(user: str) -> NoSuchMailbox:
    return NoSuchMailbox(detail=f"there is no maildrop for {user!r} in memory")


@implementer(IMailbox)
class _MemoryMailbox:
    read_only = False

    def __init__(self, mail: dict[bytes, _Stored], unlock: Callable[[], None]) -> None:
        self._mail = mail
        self._unlock: Callable[[], None] | None = unlock
        self.entries = Listing(Entry(uid, stored.octets, stored.arrived) for uid, stored in mail.items())

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
    def __init__(self, keep: Callable[[bytes, bool], Sequence[bytes | StoreTrouble]]) -> None:
        self._keep: Callable[[bytes, bool], Sequence[bytes | StoreTrouble]] | None = keep
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def commit(self, *, together: bool = True) -> Deferred[Sequence[bytes | StoreTrouble]]:
        keep, self._keep = self._keep, None
        if keep is None:
            raise RuntimeError("this delivery is over")
        return execute(keep, b"".join(self._chunks), together)

    def abort(self) -> None:
        self._keep = None
        self._chunks.clear()
