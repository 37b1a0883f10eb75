"""Maildirs as their administrator sees them.  Blocks; takes no lock but to remove one."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from zope.interface import implementer

from ...errors import InUse, MessageGone, Refusal, StoreTrouble
from ...interfaces import IStoreAdmin, StoredMessage, Usage
from .check import check_maildir
from .paths import MaildirPaths
from .scan import Snapshot, scan
from .settings import Maildirs

__all__ = ["MaildirAdmin"]


@implementer(IStoreAdmin)
class MaildirAdmin:
    """See :class:`~pop3toy.interfaces.IStoreAdmin`.

    :param settings: where the Maildirs are; none is ever made here.
    """

    def __init__(self, settings: Maildirs) -> None:
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
            maildir = self._paths.locate(user)
        except Refusal:
            return False
        # Other folders may be there as well, such as lost+found.
        return any(os.path.isdir(os.path.join(maildir, folder)) for folder in ("new", "cur"))

    def list(self, user: str) -> Sequence[StoredMessage]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`; where a message is is its file's path."""
        snapshot, folder = self._scan(user), Path(self._paths.path(user))
        return [
            StoredMessage(entry.uid, entry.octets, str(folder / path))
            for entry, path in zip(snapshot.listing, snapshot.paths, strict=True)
        ]

    def read(self, user: str, uid: bytes) -> bytes:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        for message in self.list(user):
            if message.uid == uid:
                try:
                    return Path(message.where).read_bytes()
                except FileNotFoundError:
                    break
        raise MessageGone

    def check(self, user: str, *, read: bool = True) -> Iterable[str]:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        return check_maildir(self._paths.locate(user), read=read, now=time.time())

    def usage(self, user: str) -> Usage:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        sizes = [os.stat(message.where).st_size for message in self.list(user)]
        return Usage(len(sizes), sum(sizes))

    def remove(self, user: str) -> None:
        """See :class:`~pop3toy.interfaces.IStoreAdmin`."""
        maildir = self._paths.open(user)
        try:
            fcntl.flock(maildir, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self._paths.path(user))
        except BlockingIOError:
            raise InUse from None
        except OSError as error:
            raise StoreTrouble(detail=f"{error.filename}: {error.strerror}") from error
        finally:
            os.close(maildir)

    def _scan(self, user: str) -> Snapshot:
        maildir = self._paths.open(user)
        try:
            return scan(maildir, lambda messages: {}, now=time.time(), tick=1.0, may_read=True)
        finally:
            os.close(maildir)
