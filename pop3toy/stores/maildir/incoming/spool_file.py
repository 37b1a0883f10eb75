"""The file of a message that comes in: its octets in ``tmp/``, and its names in ``new/``.

Everything here blocks, and is for one thread at a time.  When it is called, and for
whom, says ``spool.py``.  The owner of a Maildir can rename what is in it: all
is done below descriptors, and what has got its name is compared with what was written.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from twisted.logger import Logger

from ....errors import OverQuota, StoreFull, StoreTrouble
from ..directory_syncs import Directory
from ..folders import look, open_or_refuse
from ..paths import MaildirPaths
from .usage import Usage

__all__ = ["Named", "SpoolFile", "Target", "fit_in", "take_back", "trouble"]

log = Logger()

# Read as well: for a Maildir on another file system.
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Target(NamedTuple):
    """One Maildir that a message is on its way to."""

    paths: MaildirPaths
    user: str
    #: Octets that it may hold, or ``None``.
    quota: int | None
    #: Octets that it held when the delivery began; 0 without a quota.
    used: int

    @property
    def path(self) -> str:
        """The Maildir's path, to tell it from others; never opened by it."""
        return self.paths.path(self.user)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The Maildir's directory during the block, if a session would read it, too.

        :raises pop3toy.errors.StoreTrouble: if not, and for any error of the file system.
        """
        with self.paths.opened(self.user) as maildir:
            try:
                look(maildir)
                yield maildir
            except OSError as error:
                raise trouble(error) from error


class Named(NamedTuple):
    """A message that is in ``new/``."""

    name: str
    #: That ``new/``, open: who has this closes it.
    folder: Directory


class SpoolFile:
    """A message in the first target's ``tmp/``, and its way to all of them.

    :param new_name: gives a name that no message ever had.
    :param now: the time of day, in seconds.
    """

    def __init__(
        self, targets: Sequence[Target], new_name: Callable[[], str], now: Callable[[], float]
    ) -> None:
        self._targets = targets
        self._new_name = new_name
        self._now = now
        # That tmp/, and what the file is called there, while it is.
        self._folder: int | None = None
        self._name = ""
        self._in_tmp = False
        self._file: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is something to discard."""
        return self._folder is not None

    def append(self, pieces: Sequence[bytes]) -> None:
        """Add octets; makes the file at the first call.

        :raises pop3toy.errors.StoreTrouble: if it cannot be written.
        """
        if self._file is None:
            with self._targets[0].opened() as maildir:
                self._folder = open_or_refuse(maildir, "tmp")
                self._name = self._new_name()
                self._file = os.open(self._name, _NEW_FILE, 0o600, dir_fd=self._folder)
                self._in_tmp = True
        try:
            for data in pieces:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._file, view) :]
        except OSError as error:
            raise trouble(error) from error

    def make_durable(self, pieces: Sequence[bytes]) -> None:
        """Add the last octets and fsync.

        :raises pop3toy.errors.StoreTrouble: if that cannot be; nothing is left then.
        """
        try:
            self.append(pieces)
            assert self._file is not None
            try:
                os.fsync(self._file)
            except OSError as error:
                raise trouble(error) from error
        except BaseException:
            self.discard()
            raise

    def give_names(self, ending: str, octets: int, together: bool) -> list[Named | StoreTrouble]:
        """Make the message visible; its octets have to be durable.

        :param ending: what all names end with.
        :param octets: the size of the file.
        :param together: if one Maildir cannot have it, none gets it.
        :return: for each target where it is, or why it is not there.
        :raises pop3toy.errors.StoreTrouble: if one cannot have it, and all stand together.
        """
        names: list[Named | StoreTrouble] = []
        try:
            for target in self._targets:
                # A name of its own for each: one unique-id in two Maildirs would be a
                # trap for whoever moves a message from one to the other.
                name = (self._new_name() if names else self._name) + ending
                try:
                    names.append(self._put(name, target, octets, last=len(names) == len(self._targets) - 1))
                except StoreTrouble as error:
                    if together:
                        there = [named for named in names if isinstance(named, Named)]
                        take_back(there)
                        for named in there:
                            os.close(named.folder.handle)
                        raise
                    names.append(error)
            return names
        finally:
            self.discard()

    def _put(self, name: str, target: Target, octets: int, *, last: bool) -> Named:
        with target.opened() as maildir:
            folder = open_or_refuse(maildir, "new")
            try:
                if target.quota is None:
                    self._link(name, folder, maildir, last=last)
                else:
                    with Usage(maildir, self._now) as usage:
                        usage.fit(octets, target.quota, target.user)
                        self._link(name, folder, maildir, last=last)
                        usage.add(octets)
                return Named(name, Directory.of(folder))
            except BaseException:
                os.close(folder)
                raise

    def _link(self, name: str, folder: int, maildir: int, *, last: bool) -> None:
        assert self._file is not None
        try:
            if last:
                os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=folder)
                self._in_tmp = False
            else:
                os.link(self._name, name, src_dir_fd=self._folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
                raise
            self._copy(name, folder, maildir)
        else:
            placed, written = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(self._file)
            if not os.path.samestat(placed, written):
                os.unlink(name, dir_fd=folder)
                raise StoreTrouble(detail="somebody has put another file in the place of a new message")

    def _copy(self, name: str, folder: int, maildir: int) -> None:
        """For a Maildir on another file system, or on one without hard links."""
        assert self._file is not None
        tmp = open_or_refuse(maildir, "tmp")
        try:
            own = self._new_name()
            try:
                os.lseek(self._file, 0, os.SEEK_SET)
                with (
                    open(self._file, "rb", closefd=False) as source,
                    open(os.open(own, _NEW_FILE, 0o600, dir_fd=tmp), "wb") as copy,
                ):
                    shutil.copyfileobj(source, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
                os.rename(own, name, src_dir_fd=tmp, dst_dir_fd=folder)
            except BaseException:
                _remove(own, tmp)
                raise
        finally:
            os.close(tmp)

    def discard(self) -> None:
        """Leave nothing in ``tmp/``."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
        folder, self._folder = self._folder, None
        if folder is not None:
            if self._in_tmp:
                self._in_tmp = False
                _remove(self._name, folder)
            os.close(folder)


def fit_in(target: Target, octets: int, quota: int, now: Callable[[], float]) -> int:
    """What a Maildir holds, if so much more may be added.

    :raises pop3toy.errors.OverQuota: if not.
    :raises pop3toy.errors.StoreTrouble: if nobody can say.
    """
    with target.opened() as maildir, Usage(maildir, now) as usage:
        return usage.fit(octets, quota, target.user)


def take_back(messages: Sequence[Named]) -> None:
    """Remove messages, as far as they are there; what stays is told in the log."""
    for message in messages:
        _remove(message.name, message.folder.handle)


def _remove(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ENOENT:
            log.error("cannot remove {name}: {why}", name=name, why=error.strerror)


def trouble(error: OSError) -> StoreTrouble:
    """What a delivery says about an error of the file system."""
    detail = f"{error.strerror}: {error.filename or 'spool file'}"
    if error.errno == errno.EDQUOT:
        return OverQuota(detail=detail)
    if error.errno == errno.ENOSPC:
        return StoreFull(detail=detail)
    return StoreTrouble("the mailbox cannot be written to at the moment", detail=detail)
