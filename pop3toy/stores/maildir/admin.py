"""Maildirs as their administrator sees them.  Blocks; takes no lock but to remove one."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from zope.interface import implementer

from ...errors import MessageGone, NoSuchMailbox, StoreTrouble
from ...files import open_regular
from ...interfaces import IMailboxRenaming, IRemovedMessages, IStoreAdmin, RemovedMessage, StoredMessage
from .check import check_maildir
from .count import Counter
from .folders import FOLDERS, lock, open_folder
from .incoming.usage import octets_used
from .names import arrival, base_name, wire_sizes
from .paths import MaildirPaths, explained
from .removed.folder import FOLDER, Kept, Tell, forget, is_due, kept, size
from .removed.putting_back import put_back, unique_ids_of
from .settings import Maildirs
from .snapshot import take_snapshot

__all__ = ["MaildirAdmin"]


@implementer(IStoreAdmin, IMailboxRenaming, IRemovedMessages)
class MaildirAdmin:
    """See :class:`~pop3toy.interfaces.IStoreAdmin`.

    :param settings: where the Maildirs are; none is ever made here.
    :param wall: the time of day, in seconds.
    """

    def __init__(self, settings: Maildirs, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._pattern = os.path.abspath(os.path.expanduser(settings.path))
        self._paths = MaildirPaths(settings.path, advice="")
        self._max_listed_size = settings.max_listed_size

    def users(self) -> Sequence[str]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`; who has a folder with ``new`` or ``cur`` in it."""
        before, placeholder, after = self._pattern.partition("{user}")
        if not placeholder:
            raise StoreTrouble(detail="all users share one Maildir: name one")
        root, beginning = os.path.split(before)
        ending = after.partition("/")[0]
        try:
            names = sorted(os.listdir(root))
        except OSError as error:
            raise StoreTrouble(detail=f"{root}: {explained(error)}") from error
        users = [
            name[len(beginning) : len(name) - len(ending)]
            for name in names
            if name.startswith(beginning) and name.endswith(ending) and not name.startswith(".")
        ]
        # Nothing is opened: a link in one user's folder must not hide the others.
        return [user for user in users if self._seems_to_be_there(user)]

    def _seems_to_be_there(self, user: str) -> bool:
        path = self._pattern.replace("{user}", user)
        # Other folders may be there as well, such as lost+found.
        return any(os.path.lexists(os.path.join(path, part)) for part in ("new", "cur"))

    def exists(self, user: str) -> bool:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        try:
            with self._paths.opened(user) as maildir:
                return not {"new", "cur"}.isdisjoint(os.listdir(maildir))
        except NoSuchMailbox:
            return False

    def list(self, user: str) -> Sequence[StoredMessage]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`; messages are at ``new/NAME`` or ``cur/NAME``."""
        with (
            self._paths.opened(user) as maildir,
            Counter(maildir, max_listed_size=self._max_listed_size) as counter,
        ):
            snapshot = take_snapshot(maildir, self._wall(), counter)
        return [
            StoredMessage(entry.uid, entry.octets, path, entry.arrived)
            for entry, path in zip(snapshot.listing, snapshot.paths, strict=True)
        ]

    def read(self, user: str, message: StoredMessage) -> BinaryIO:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        *folders, name = message.where.split("/")
        with self._paths.opened(user) as maildir, ExitStack() as stack:
            parent = maildir
            for folder in folders:
                parent = open_folder(parent, folder)
                stack.callback(os.close, parent)
            try:
                return open_regular(name, parent)
            except FileNotFoundError:
                raise MessageGone from None
            except OSError as error:
                raise StoreTrouble(detail=f"{message.where}: {explained(error)}") from error

    def problems(self, user: str, *, read: bool = True) -> Iterator[str]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        with self._paths.opened(user) as maildir:
            size = self._max_listed_size
            yield from check_maildir(maildir, read=read, now=self._wall(), max_listed_size=size)

    def usage(self, user: str) -> int:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`: the octets of the files."""
        with self._paths.opened(user) as maildir:
            return octets_used(maildir)

    def removed(self, user: str, tell: Tell | None = None) -> Sequence[RemovedMessage]:
        """See :class:`~pop3toy.interfaces.IRemovedMessages`; octets are the file's if its name tells none."""
        found = []
        with self._paths.opened(user) as maildir:
            messages = kept(maildir, tell)
            octets = wire_sizes([base_name(one.name) for one in messages])
            for one, uid, told in zip(messages, unique_ids_of(maildir, messages), octets, strict=True):
                where = f"{FOLDER}/{one.folder}/{one.name}"
                if told is None:
                    told = size(maildir, one)
                found.append(RemovedMessage(StoredMessage(uid, told, where, arrival(one.name)), one.removed))
        return found

    def put_back(self, user: str, messages: Sequence[RemovedMessage], *, look: bool = False) -> Sequence[str]:
        """See :class:`~pop3toy.interfaces.IRemovedMessages`: into ``cur``, with their flags."""
        wanted = []
        for message, when in messages:
            _, folder, name = message.where.split("/")
            wanted.append(Kept(folder, name, when))
        with self._paths.opened(user) as maildir:
            if not look:
                lock(maildir)
            return put_back(maildir, wanted, look=look)

    def forget(self, user: str, before: float, tell: Tell | None = None) -> tuple[int, int]:
        """See :class:`~pop3toy.interfaces.IRemovedMessages`."""
        with self._paths.opened(user) as maildir:
            if not is_due(maildir, before):
                return 0, 0
            lock(maildir)
            return forget(maildir, before, tell)

    def rename(self, user: str, new: str, then: Callable[[], object]) -> None:
        """See :class:`~pop3toy.interfaces.IMailboxRenaming`: the folder gets another name."""
        if "{user}" not in self._pattern:
            raise StoreTrouble(detail="all users share one Maildir, and it is not renamed")
        with self._paths.opened(user) as maildir, self._paths.parent(user) as (parent, name):
            try:
                lock(maildir)
                here = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not os.path.samestat(os.fstat(maildir), here):
                    raise StoreTrouble(detail="a link leads to it: rename the Maildir by hand")
                if self.exists(new):
                    with self._paths.opened(new) as other:
                        if any(os.listdir(os.path.join(f"/proc/self/fd/{other}", part)) for part in FOLDERS):
                            raise StoreTrouble(detail=f"there is mail in a mailbox of {new!r} already")
                        if kept(other):
                            raise StoreTrouble(
                                detail=f"there is removed mail in a mailbox of {new!r} that can be put back"
                            )
                    # Made by a login or a delivery behind a renaming that was cut short.
                    self.remove(new)
                with self._paths.parent_made(new) as (new_parent, new_name):
                    then()
                    os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=new_parent)
                    for folder in (new_parent, parent):
                        os.fsync(folder)
            except OSError as error:
                raise StoreTrouble(detail=f"renaming it: {explained(error)}") from error

    def remove(self, user: str) -> None:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        with self._paths.opened(user) as maildir, self._paths.parent(user) as (parent, name):
            try:
                lock(maildir)
                here = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not os.path.samestat(os.fstat(maildir), here):
                    raise StoreTrouble(detail="a link leads to it: remove the link and the Maildir by hand")
                # Out of the way in one step, then emptied: nobody finds half of it.
                gone = f".removed-{secrets.token_hex(8)}"
                os.rename(name, gone, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as error:
                raise StoreTrouble(detail=f"removing it: {explained(error)}") from error
            try:
                # What was opened, whatever its owner puts into its place meanwhile.
                for part in os.listdir(maildir):
                    if stat.S_ISDIR(os.stat(part, dir_fd=maildir, follow_symlinks=False).st_mode):
                        shutil.rmtree(part, dir_fd=maildir)
                    else:
                        os.unlink(part, dir_fd=maildir)
                os.rmdir(gone, dir_fd=parent)
            except OSError as error:
                left = f"it is gone, but not all of its folder, which is called {gone} now"
                raise StoreTrouble(detail=f"{left}: {explained(error)}") from error
