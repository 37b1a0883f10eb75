"""Maildrops in object storage that are copied from and to.

What was written down of copying is in objects of its own, of which each has some of the lines::

    i/<drop>/<12 hex of a hash of the other store's address>/<number>
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Final

from ...errors import InUse, MessageGone, NoSuchMailbox, StoreTrouble
from ..objects.body import RANGE
from ..objects.connecting import Engines
from ..objects.engine import Engine, NoSuchObject, Taken
from ..objects.mailbox import list_messages
from ..objects.records import UserRecord, journal_prefix, message_key, message_name, uid_of
from ..objects.users import Users
from .fence import Fence
from .messages import Message, Wanted, Wire

__all__ = ["ObjectMailboxes"]

#: Octets of a message that is in memory while it is sent; a larger one is in a file without a name.
IN_MEMORY: Final = 1024 * 1024
_OURS: Final = re.compile(rb"[0-9a-f]{32}")


class ObjectMailboxes:
    """The maildrops of all users, a ``messages.Store``.

    :param address: of the store.
    """

    def __init__(self, engines: Engines, users: Users, address: str) -> None:
        self.address = address
        self._engines = engines
        self._users = users

    def users(self) -> Sequence[str]:
        """See ``messages.Store``."""
        return sorted(record.login for record in self._users.logins() if record.drop)

    @contextmanager
    def mailbox(self, user: str, *, make: bool = False) -> Iterator[_Maildrop]:
        """See ``messages.Store``: whoever was copying to it stops."""
        if make:
            record = self._users.make(user)
        else:
            found = self._users.get(user)
            if found is None or not found[0].drop:
                raise NoSuchMailbox(detail=f"there is no mailbox of {user!r} in {self.address}")
            record = found[0]
        engine = self._engines.of(record.bucket)
        fence = Fence(engine, record.drop) if make else None
        yield _Maildrop(engine, self._users, record, fence)


class _Maildrop:
    """One maildrop, a ``messages.Mailbox``."""

    wire = True

    def __init__(self, engine: Engine, users: Users, record: UserRecord, fence: Fence | None) -> None:
        self._engine = engine
        self._users = users
        self._record = record
        # Where it is copied to.
        self._fence = fence

    def list(self) -> Sequence[Message]:
        """See ``messages.Mailbox``."""
        contents = list_messages(self._engine, self._record.drop)
        listing = contents.listing
        found = []
        for at, (uid, octets) in enumerate(zip(listing.uids, listing.each, strict=True)):
            name = contents.name(at)
            renamed = uid_of(name) != uid
            where = message_key(self._record.drop, name)
            found.append(Message(uid, name, int(name[:16], 16), octets, where, renamed))
        return found

    def read(self, message: Message) -> Iterator[bytes]:
        """See ``messages.Mailbox``."""
        return self._read(message.where, message.octets)

    def _read(self, key: str, octets: int | None) -> Iterator[bytes]:
        try:
            if octets is None:
                yield self._engine.get(key).body
                return
            for start in range(0, octets, RANGE):
                length = min(RANGE, octets - start)
                data = self._engine.get_range(key, start, length)
                if len(data) != length:
                    raise StoreTrouble(detail=f"{key} is shorter than it was listed")
                yield data
        except NoSuchObject:
            raise MessageGone from None

    # -- copying to it -------------------------------------------------------------

    def names(self, wanted: Sequence[Wanted]) -> Iterator[str]:
        """See ``messages.Mailbox``."""
        under_way = self._fence.under_way if self._fence is not None else {}
        given = [one.name or under_way.get(one.uid) for one in wanted]
        # Before the next one that has a name, from the last to the first.
        bounds: list[int] = []
        bound = 1 << 63
        for name in reversed(given):
            bounds.append(bound)
            if name is not None:
                bound = min(bound, int(name[:16], 16))
        last = 0
        for one, name, bound in zip(wanted, given, reversed(bounds), strict=True):
            if name is not None:
                last = max(last, int(name[:16], 16))
            else:
                last = max(one.message.micros if one.message.micros < bound else 0, last + 1)
                name = message_name(last, one.uid)
            if one.name is None:
                yield name

    def announce(self, coming: Mapping[str, bytes]) -> None:
        """See ``messages.Mailbox``: names tell unique-ids."""

    def begin(self, coming: Mapping[str, bytes]) -> None:
        """See ``messages.Mailbox``."""
        assert self._fence is not None, "it was opened to copy to it"
        try:
            self._fence.begin(coming)
        except InUse:
            self.settle()
            raise

    def end(self) -> None:
        """See ``messages.Mailbox``."""
        assert self._fence is not None, "it was opened to copy to it"
        self._fence.end()

    def put(self, name: str, message: Message, chunks: Iterable[bytes], *, wire: bool) -> bool:
        """See ``messages.Mailbox``."""
        key = message_key(self._record.drop, name)
        sent = Wire()
        with _gathered(sent.encoded(chunks)) as body:
            try:
                tag = self._engine.create(key, body)
            except Taken:
                # By this very call, of which an answer was lost; by somebody else who copies; or by nobody
                # whom one could know.
                if Wire().read(self._engine_chunks(key)).is_what != sent.is_what:
                    raise FileExistsError(errno.EEXIST, "another message has its name", key) from None
                return True
        return (tag.e_tag or "").strip('"') == sent.md5

    def _engine_chunks(self, key: str) -> Iterator[bytes]:
        return self._read(key, None)

    def read_name(self, name: str, message: Message) -> Iterator[bytes]:
        """See ``messages.Mailbox``."""
        return self._read(message_key(self._record.drop, name), None)

    def remove(self, messages: Sequence[Message]) -> None:
        """See ``messages.Mailbox``."""
        self._engine.delete([message.where for message in messages])

    def remove_name(self, name: str, message: Message) -> None:
        """See ``messages.Mailbox``."""
        self._engine.delete([message_key(self._record.drop, name)])

    def settle(self) -> None:
        """See ``messages.Mailbox``: what was put is durable, unless somebody removes the maildrop."""
        found = self._users.get(self._record.login)
        if found is None or found[0].drop != self._record.drop:
            raise NoSuchMailbox(detail=f"the mailbox of {self._record.login!r} was removed meanwhile")

    def journal(self, source: str) -> bytes:
        """See ``messages.Mailbox``."""
        prefix = self._journal(source)
        return b"".join(self._engine.get(f"{prefix}/{one.name}").body for one in self._engine.list(prefix))

    def write_down(self, source: str, text: bytes) -> None:
        """See ``messages.Mailbox``."""
        prefix = self._journal(source)
        numbers = [int(one.name) for one in self._engine.list(prefix) if one.name.isdigit()]
        number = max(numbers, default=0)
        while True:
            number += 1
            try:
                self._engine.create(f"{prefix}/{number:08}", text)
                return
            except Taken:
                # By this very call, and twice does no harm; or by somebody else.
                continue

    def _journal(self, source: str) -> str:
        digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        return f"{journal_prefix(self._record.drop)}/{digest}"


@contextmanager
def _gathered(chunks: Iterable[bytes]) -> Iterator[Any]:
    """All octets of a message: bytes, or a file that the kernel reads as it is sent."""
    pieces: list[bytes] = []
    octets = 0
    file: IO[bytes] | None = None
    try:
        for chunk in chunks:
            pieces.append(chunk)
            octets += len(chunk)
            if octets > IN_MEMORY:
                file = file or _temporary()
                file.write(b"".join(pieces))
                pieces, octets = [], 0
        if file is None:
            yield b"".join(pieces)
            return
        file.write(b"".join(pieces))
        file.flush()
        yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    finally:
        if file is not None:
            file.close()


def _temporary() -> IO[bytes]:
    return tempfile.TemporaryFile()
