"""A Maildir that a message goes to, and what is said when that cannot be.

Everything here blocks.  What must not live here: the message (``message.py``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from twisted.logger import Logger

from ....errors import OverQuota, StoreFull, StoreTrouble
from ....net.threads import RunInThread
from ..folders import stat_folders
from ..paths import MaildirPaths
from .directory_syncs import Directory
from .usage import Usage

__all__ = ["DeliveryThreads", "Destination", "Published", "remove", "roll_back", "trouble"]

log = Logger()


class DeliveryThreads(NamedTuple):
    """Where the work for one user is done that may wait for a disk."""

    #: Where the Maildir is looked at.  May be refused, or given up while it is running.
    look: RunInThread
    #: Where messages are written and published.  May be refused; once begun it is waited for, because
    #: somebody has to know what became of the message.
    write: RunInThread
    #: Where that is made durable, or removed again.  Waits as long as it takes.
    finish: RunInThread


class Destination(NamedTuple):
    """One user's Maildir."""

    paths: MaildirPaths
    user: str
    #: The Maildir's path, to tell it from others; never opened by it.
    path: str
    #: Octets that it may hold, or ``None``.
    quota: int | None
    threads: DeliveryThreads
    #: Is told, in a thread, that the user has to know that the Maildir is nearly full: user, octets, quota.
    nearly_full: Callable[[str, int, int], object] | None = None

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The Maildir's directory during the block, if a session would read it, too.

        :raises pop3toy.errors.StoreTrouble: if not, and for any error of the file system.
        """
        with self.paths.opened(self.user) as maildir:
            try:
                stat_folders(maildir)
                yield maildir
            except OSError as error:
                raise trouble(error) from error

    def fit(self, octets: int, quota: int, now: Callable[[], float]) -> int:
        """What it holds, if so much more may be added.

        :raises pop3toy.errors.OverQuota: if not.
        :raises pop3toy.errors.StoreTrouble: if nobody can say.
        """
        with self.opened() as maildir, Usage(maildir, now) as usage:
            return usage.fit(octets, quota, self.user)


class Published(NamedTuple):
    """A message that is in ``new/``."""

    name: str
    #: That ``new/``, open: who has this closes it.
    folder: Directory
    place: Destination


def roll_back(messages: Sequence[Published]) -> None:
    """Remove messages, as far as they are there; what stays is told in the log."""
    for message in messages:
        remove(message.name, message.folder.handle)


def remove(name: str, folder: int) -> None:
    """Remove a file that may be gone already; never fails, but tells in the log."""
    try:
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ENOENT:
            log.error("cannot remove {name}: {why}", name=name, why=error.strerror)


def trouble(error: OSError) -> StoreTrouble:
    """What a delivery says about an error of the file system."""
    detail = f"{error.strerror}: {error.filename or 'a file in tmp/'}"
    if error.errno == errno.EDQUOT:
        return OverQuota(detail=detail)
    if error.errno == errno.ENOSPC:
        return StoreFull(detail=detail)
    return StoreTrouble("the mailbox cannot be written to at the moment", detail=detail)
