"""Maildrops in object storage as their administrator sees them.  Blocks; takes no lease but to remove one."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Final

from zope.interface import implementer

from ...errors import MessageGone, NoSuchMailbox, StoreTrouble
from ...interfaces import IMailboxRenaming, IMailboxUnlocking, IStoreAdmin, StoredMessage
from ...mail.unique_ids import unique_id_is_valid
from ..same_letter import HEADER, look_at
from ..server_process import ServerProcess
from .engine import Engine, Engines, NoSuchObject
from .lease import GONE, Lease, Leases, Lost, Node, mend_lease
from .mailbox import list_messages
from .records import (
    UserRecord,
    is_message_name,
    journal_prefix,
    lease_key,
    message_key,
    messages_prefix,
    uid_of,
)
from .users import Users

__all__ = ["RANGE", "ObjectAdmin"]

#: Octets of one request for a message.
RANGE: Final = HEADER

#: How often it is looked whether a maildrop that is removed is empty.
_TIMES: Final = 3


@implementer(IStoreAdmin, IMailboxRenaming, IMailboxUnlocking)
class ObjectAdmin:
    """See :class:`~pop3toy.interfaces.IStoreAdmin`.

    :param engines: where the maildrops are.
    :param users: tells which is whose.  What it makes for others it does not make here.
    :param seconds: of a clock that only goes forward.
    """

    def __init__(
        self, engines: Engines, users: Users, *, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._engines = engines
        self._users = users
        # Without a name: what a server of this machine holds is not ours.
        self._leases = Leases(engines, Node("", ServerProcess()), seconds)

    def users(self) -> Sequence[str]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        return sorted(record.login for record in self._users.logins() if record.drop)

    def exists(self, user: str) -> bool:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        found = self._users.get(user)
        return found is not None and bool(found[0].drop)

    def _find(self, user: str) -> tuple[UserRecord, Engine]:
        found = self._users.get(user)
        if found is None or not found[0].drop:
            raise NoSuchMailbox(detail=f"there is no mailbox of {user!r} in the object store")
        return found[0], self._engines.of(found[0].bucket)

    def list(self, user: str) -> Sequence[StoredMessage]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`; messages are where their keys say."""
        record, engine = self._find(user)
        contents = list_messages(engine, record.drop)
        return [
            StoredMessage(entry.uid, entry.octets, message_key(record.drop, contents.name(at)), entry.arrived)
            for at, entry in enumerate(contents.listing)
        ]

    def read(self, user: str, message: StoredMessage) -> BinaryIO:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`; it is fetched piece by piece."""
        record, engine = self._find(user)
        if not message.where.startswith(f"{messages_prefix(record.drop)}/"):
            # The mailbox was removed and made again.
            raise MessageGone
        ranges = _Ranges(engine, message)
        # What is gone is found here.
        ranges.fill()
        return io.BufferedReader(ranges)

    def problems(self, user: str, *, read: bool = True) -> Iterator[str]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        record, engine = self._find(user)
        yield from _lease_problems(engine, record)
        seen: dict[bytes, str] = {}
        contents: dict[tuple[bytes, bytes], str] = {}
        prefix = messages_prefix(record.drop)
        for one in engine.list(prefix):
            where = f"{prefix}/{one.name}"
            if not is_message_name(one.name):
                yield f"{where}: no message of ours; it is not listed"
                continue
            uid = uid_of(one.name)
            if not unique_id_is_valid(uid):
                yield f"{where}: its unique-id is none, another takes its place"
            if seen.setdefault(uid.lower(), where) != where:
                yield f"{where}: has the same unique-id as {seen[uid.lower()]}; another takes its place"
            if read:
                message = StoredMessage(uid, one.octets, where)
                yield from _content_problems(engine, message, contents)

    def usage(self, user: str) -> int:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`: the octets of the messages as they are kept."""
        record, engine = self._find(user)
        return sum(one.octets for one in engine.each(messages_prefix(record.drop)))

    def rename(self, user: str, new: str, then: Callable[[], object]) -> None:
        """See :class:`~pop3toy.interfaces.IMailboxRenaming`: another record leads to the same maildrop.

        First both do, and then the new one alone.
        """
        record, engine = self._find(user)
        held = self._leases.acquire(engine, record.drop)
        try:

            def take(now: UserRecord) -> UserRecord:
                if now.drop not in ("", record.drop):
                    other = self._engines.of(now.bucket)
                    if next(iter(other.each(messages_prefix(now.drop))), None) is not None:
                        raise StoreTrouble(detail=f"there is mail in a mailbox of {new!r} already")
                return now._replace(drop=record.drop, bucket=record.bucket)

            self._users.edit(new, take)
            try:
                then()
            except BaseException:
                self._users.forget_maildrop(record._replace(login=new))
                raise
            self._users.forget_maildrop(record)
        finally:
            held.free()

    def unlock(self, user: str) -> bool:
        """See :class:`~pop3toy.interfaces.IMailboxUnlocking`."""
        record, engine = self._find(user)
        return mend_lease(engine, record.drop)

    def remove(self, user: str) -> None:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        record, engine = self._find(user)
        held = self._leases.acquire(engine, record.drop)
        try:
            # Before the messages: a delivery looks for the record when its message is there.
            self._users.forget_maildrop(record)
        except BaseException:
            with contextlib.suppress(StoreTrouble):
                held.free()
            raise
        try:
            try:
                # Before the messages as well: nobody opens what is being emptied.
                held.bury()
            except Lost:
                # It took minutes.  Whoever has it by now is a session that had read the record before.
                pass
            prefix = messages_prefix(record.drop)
            for _ in range(_TIMES):
                # Again, for what came by a delivery that finds only now that it is too late.
                if not (names := [one.name for one in engine.each(prefix)]):
                    break
                engine.delete([f"{prefix}/{name}" for name in names])
            journal = journal_prefix(record.drop)
            engine.delete([f"{journal}/{one.name}" for one in engine.each(journal)])
        except StoreTrouble as error:
            left = f"it is gone, but not all that was below {messages_prefix(record.drop)} and its lease"
            raise StoreTrouble(detail=f"{left}: {error.detail}") from error


def _lease_problems(engine: Engine, record: UserRecord) -> Iterator[str]:
    where = lease_key(record.drop)
    try:
        lease = Lease.decoded(engine.get(where).body)
    except NoSuchObject:
        yield f"{where}: there is no lease; nobody can open the mailbox"
    except StoreTrouble as error:
        yield f"{where}: {error.detail}"
    else:
        if lease.state == GONE:
            yield f"{where}: it says that the mailbox was removed; nobody can open it"


def _content_problems(
    engine: Engine, message: StoredMessage, contents: dict[tuple[bytes, bytes], str]
) -> Iterator[str]:
    where = message.where
    try:
        octets, letter = look_at(iter(_Ranges(engine, message).fill, b""))
    except MessageGone:
        return
    except StoreTrouble as error:
        yield f"{where}: {error.detail}"
        return
    if octets != message.octets:
        yield f"{where}: it has {message.octets} octets, but {octets} as POP3 sends it"
    first = contents.setdefault(letter, where)
    if first != where:
        yield f"{where}: the same message as {first}"


class _Ranges(io.RawIOBase):
    """A message, fetched piece by piece.

    :param message: as it was listed.
    """

    def __init__(self, engine: Engine, message: StoredMessage) -> None:
        super().__init__()
        self._engine = engine
        self._message = message
        self._at = 0
        self._buffer = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def fill(self) -> bytes:
        """Fetch the next piece, of which :meth:`readinto` gives; empty at the end.

        :raises pop3toy.errors.MessageGone: if it is there no more.
        :raises pop3toy.errors.StoreTrouble: if it cannot be read, or has fewer octets than was listed.
        """
        length = min(RANGE, self._message.octets - self._at)
        if length <= 0:
            return b""
        try:
            data = self._engine.get_range(self._message.where, self._at, length)
        except NoSuchObject:
            raise MessageGone from None
        if len(data) != length:
            raise StoreTrouble(detail=f"{self._message.where} has fewer octets than were listed")
        self._at += length
        self._buffer = memoryview(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """See :class:`io.RawIOBase`."""
        if not self._buffer:
            self.fill()
        count = min(len(buffer), len(self._buffer))
        buffer[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count
