"""Maildirs as their administrator sees them.  Blocks; takes no lock but to remove one."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from zope.interface import implementer

from ...errors import InUse, MessageGone, NoSuchMailbox, StoreTrouble
from ...interfaces import IStoreAdmin, StoredMessage
from .body import OPEN_FLAGS
from .check import check_maildir
from .folders import open_or_refuse
from .incoming.usage import octets_used
from .paths import MaildirPaths
from .scan import scan
from .settings import Maildirs

__all__ = ["MaildirAdmin"]


@implementer(IStoreAdmin)
class MaildirAdmin:
    """See :class:`~pop3toy.interfaces.IStoreAdmin`.

    :param settings: where the Maildirs are; none is ever made here.
    :param now: the time of day, in seconds.
    """

    def __init__(self, settings: Maildirs, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._pattern = os.path.abspath(os.path.expanduser(settings.path))
        self._paths = MaildirPaths(settings.path)

    def users(self) -> Sequence[str]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        before, placeholder, after = self._pattern.partition("{user}")
        if not placeholder:
            raise StoreTrouble(detail="all users share one Maildir: name one")
        root, beginning = os.path.split(before)
        ending = after.partition("/")[0]
        try:
            names = sorted(os.listdir(root))
        except OSError as error:
            raise StoreTrouble(detail=f"{root}: {error.strerror}") from error
        return [
            user
            for name in names
            if name.startswith(beginning) and name.endswith(ending) and not name.startswith(".")
            for user in [name[len(beginning) : len(name) - len(ending)]]
            if self.exists(user)
        ]

    def exists(self, user: str) -> bool:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        try:
            with self._paths.opened(user) as maildir:
                # Other folders may be there as well, such as lost+found.
                return not {"new", "cur"}.isdisjoint(os.listdir(maildir))
        except NoSuchMailbox:
            return False

    def list(self, user: str) -> Sequence[StoredMessage]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`; messages are at ``new/NAME`` or ``cur/NAME``."""
        with self._paths.opened(user) as maildir:
            snapshot = scan(maildir, lambda messages: {}, now=self._now(), tick=1.0, may_read=True)
        return [
            StoredMessage(entry.uid, entry.octets, path)
            for entry, path in zip(snapshot.listing, snapshot.paths, strict=True)
        ]

    def read(self, user: str, message: StoredMessage) -> BinaryIO:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        folder, _, name = message.where.partition("/")
        with self._paths.opened(user) as maildir:
            parent = open_or_refuse(maildir, folder)
            try:
                return open(os.open(name, OPEN_FLAGS, dir_fd=parent), "rb")
            except FileNotFoundError:
                raise MessageGone from None
            except OSError as error:
                raise StoreTrouble(detail=f"{message.where}: {error.strerror}") from error
            finally:
                os.close(parent)

    def check(self, user: str, *, read: bool = True) -> Iterator[str]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        with self._paths.opened(user) as maildir:
            yield from check_maildir(maildir, read=read, now=self._now())

    def usage(self, user: str) -> int:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`: the octets of the files."""
        with self._paths.opened(user) as maildir:
            return octets_used(maildir)

    def remove(self, user: str) -> None:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        with self._paths.opened(user) as maildir:
            try:
                fcntl.flock(maildir, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for name in os.listdir(maildir):
                    # Below the descriptor, and through no link.
                    if stat.S_ISDIR(os.stat(name, dir_fd=maildir, follow_symlinks=False).st_mode):
                        shutil.rmtree(name, dir_fd=maildir)
                    else:
                        os.unlink(name, dir_fd=maildir)
                os.rmdir(self._paths.path(user))
            except BlockingIOError:
                raise InUse from None
            except OSError as error:
                raise StoreTrouble(detail=f"{error.filename}: {error.strerror}") from error
