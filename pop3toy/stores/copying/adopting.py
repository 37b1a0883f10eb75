"""A Maildir whose messages get unique-ids that clients know already.

Blocks.  Whoever changes something has the lock of a session, so that no client is told one unique-id in one
answer and another in the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from ...errors import InUse
from ..maildir.beside import last_session, uidl_file
from ..maildir.beside.cache_file import read_cache, remove_cache, write_cache
from ..maildir.beside.owner import give
from ..maildir.folders import list_files, stat_folders
from ..maildir.incoming.destination import trouble
from ..maildir.names import unique_id
from ..maildir.paths import MaildirPaths
from ..maildir.removed.folder import base_names
from ..maildir.settings import Maildirs
from ..maildir.snapshot import in_listing_order
from .maildirs import MaildirMailboxes
from .messages import Mailbox, Message, Wire

__all__ = ["AdoptedMaildir", "AdoptingMaildirs", "give"]

#: What was read of another server is kept here while it takes more than one run.
_READ: Final = "pop3toy-adopting"
_READ_MAGIC: Final = b"pop3toy-adopting 2"
_READ_LINE: Final = re.compile(rb"([\x21-\x7e]{1,70}) ([0-9]{1,15}) ([0-9a-f]{64})\n")
_READ_MOST: Final = 64 * 1024 * 1024
_HEADER: Final = 1024 * 1024
_HEADER_END: Final = re.compile(rb"\n\r?\n")


class AdoptingMaildirs:
    """The Maildirs of all users.

    :param wall: the time of day, in seconds since the epoch.
    """

    def __init__(self, settings: Maildirs, *, wall: Callable[[], float] = time.time) -> None:
        self._paths = MaildirPaths(settings.path, advice="")
        self._mailboxes = MaildirMailboxes(settings, wall=wall)

    @contextmanager
    def maildir(self, user: str, *, lock: bool) -> Iterator[AdoptedMaildir]:
        """A user's Maildir during the block.

        :param lock: to change something.
        :raises pop3toy.errors.InUse: if a session has it open.
        :raises pop3toy.errors.NoSuchMailbox: if there is none.
        """
        with self._paths.opened(user) as maildir:
            stat_folders(maildir)
            if lock:
                try:
                    fcntl.flock(maildir, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise InUse(detail="a session has it open") from None
                except OSError as error:
                    raise trouble(error) from error
            with self._mailboxes.mailbox(user) as reader:
                yield AdoptedMaildir(maildir, reader)

    def accept(self, user: str) -> bool:
        """Forget what the last session of a user has listed; false if nothing is known of one.

        :raises pop3toy.errors.NoSuchMailbox: if there is no such Maildir.
        """
        with self._paths.opened(user) as maildir:
            known = last_session.load(maildir) is not None
            try:
                last_session.forget(maildir)
            except OSError as error:
                raise trouble(error) from error
        return known


class AdoptedMaildir:
    """One Maildir.

    :param maildir: the open directory.
    :param reader: reads messages of it.
    :raises pop3toy.errors.InUse: if it does not hold still.
    """

    def __init__(self, maildir: int, reader: Mailbox) -> None:
        #: The open directory.
        self.fd = maildir
        files = list_files(maildir)
        if not files.steady:
            raise InUse(detail="another program renames its messages all the while")
        self.duplicates: Sequence[str] = sorted(files.duplicates)
        #: Base names, as they are listed now.
        self.names, paths, self._uids = in_listing_order(maildir, files)
        self._paths = dict(zip(self.names, paths, strict=True))
        self._reader = reader

    def contents(self, name: str) -> tuple[int, str]:
        """Octets of a message in wire form, and their SHA-256.

        :raises pop3toy.errors.MessageGone: if it is gone.
        :raises OSError: if it cannot be read.
        """
        message = Message(b"", name, 0, None, self._paths[name])
        return Wire().read(self._reader.read(message)).is_what

    def header(self, name: str) -> bytes:
        """The header of a message, or its first megabyte.

        :raises pop3toy.errors.MessageGone: if it is gone.
        :raises OSError: if it cannot be read.
        """
        data = b""
        for chunk in self._reader.read(Message(b"", name, 0, None, self._paths[name])):
            data += chunk
            end = _HEADER_END.search(data)
            if end is not None or len(data) > _HEADER:
                return data[: end.start() + 1 if end is not None else _HEADER]
        return data

    def another(self, name: str, taken: Container[bytes]) -> bytes | None:
        """The unique-id that a message needs since its own is taken; ``None`` if it is not.

        :param taken: in lower case.
        """
        return unique_id(name, taken) if unique_id(name).lower() in taken else None

    def adopted(self, uids: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """What the file of unique-ids is to say: these in their order, and what it said of other messages."""
        # Removed ones may be put back.
        names = dict.fromkeys([*self.names, *sorted(base_names(self.fd))])
        before = uidl_file.load(self.fd, names).uids
        return {**uids, **{name: before[name] for name in names if name in before and name not in uids}}

    def is_so(self, uids: Mapping[str, bytes]) -> bool:
        """Whether messages have these unique-ids and this order already."""
        now = dict(zip(self.names, self._uids, strict=True))
        return [(name, now[name]) for name in self.names if name in uids] == list(uids.items()) and (
            list(self.names[: len(uids)]) == list(uids)
        )

    def write(self, uids: Mapping[str, bytes]) -> None:
        """Give messages these unique-ids and this order; mail of which nothing is said follows behind.

        :raises pop3toy.errors.StoreTrouble: if that cannot be; then all is as it was.
        """
        try:
            # That they are others than in the last session is wanted.  First, because a run that is killed
            # behind it is not known from one that has not begun, and one before it would be done.
            last_session.forget(self.fd)
            uidl_file.save(self.fd, uidl_file.Given(self.adopted(uids), ordered=True))
        except OSError as error:
            raise trouble(error) from error
        self.forget_read()

    # -- what was read of the other server -----------------------------------------

    def read_before(self, address: str) -> dict[bytes, tuple[int, str]]:
        """Contents by unique-id that an earlier run has read.

        :param address: where they are from: another server may have the same unique-ids.
        """
        body = read_cache(self.fd, _READ, _read_magic(address), _READ_MOST) or b""
        return {line[1]: (int(line[2]), line[3].decode("ascii")) for line in _READ_LINE.finditer(body)}

    def keep_read(self, address: str, read: Mapping[bytes, tuple[int, str]]) -> None:
        """Keep what was read for a later run; it does nothing if that is not possible."""
        body = b"".join(
            b"%b %d %b\n" % (uid, octets, digest.encode()) for uid, (octets, digest) in read.items()
        )
        write_cache(self.fd, _READ, _read_magic(address), body)

    def forget_read(self) -> None:
        """Remove it."""
        try:
            remove_cache(self.fd, _READ)
        except OSError as error:
            raise trouble(error) from error


def _read_magic(address: str) -> bytes:
    digest = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()
    return b"%b %b" % (_READ_MAGIC, digest.encode("ascii"))
