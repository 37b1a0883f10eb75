"""The file of a message that comes in: its octets in ``tmp/``, and its names in ``new/``.

Everything here blocks, and is for one thread at a time.  When it is called, and for
whom, says ``maildir_spool.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.logger import Logger

from ..errors import OverQuota, StoreFull, StoreTrouble
from .maildir_usage import Usage

__all__ = ["SpoolFile", "Target", "fit_in", "take_back", "trouble"]

log = Logger()


class Target(NamedTuple):
    """One Maildir that a message is on its way to."""

    maildir: str
    #: Octets that it may hold, or ``None``.
    quota: int | None
    #: Octets that it held when the delivery began; 0 without a quota.
    used: int

    def path(self, name: str) -> str:
        """Where a message of this name lies."""
        return os.path.join(self.maildir, "new", name)


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
        self._path = ""
        self._name = ""
        self._file: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is something to discard."""
        return self._file is not None

    def append(self, pieces: Sequence[bytes]) -> None:
        """Add octets; makes the file at the first call.

        :raises pop3toy.errors.StoreTrouble: if it cannot be written.
        """
        try:
            if self._file is None:
                self._name = self._new_name()
                path = os.path.join(self._targets[0].maildir, "tmp", self._name)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._path = path
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

    def give_names(self, ending: str, octets: int, together: bool) -> list[str | StoreTrouble]:
        """Make the message visible; its octets have to be durable.

        :param ending: what all names end with.
        :param octets: the size of the file.
        :param together: if one Maildir cannot have it, none gets it.
        :return: for each target the file's name, or why it is not there.
        :raises pop3toy.errors.StoreTrouble: if one cannot have it, and all stand together.
        """
        names: list[str | StoreTrouble] = []
        try:
            for target in self._targets:
                # A name of its own for each: one unique-id in two Maildirs would be a
                # trap for whoever moves a message from one to the other.
                name = (self._new_name() if names else self._name) + ending
                try:
                    self._put(name, target, octets, last=len(names) == len(self._targets) - 1)
                    names.append(name)
                except (OSError, StoreTrouble) as error:
                    why = trouble(error) if isinstance(error, OSError) else error
                    if together:
                        take_back(
                            [
                                t.path(n)
                                for t, n in zip(self._targets, names, strict=False)
                                if isinstance(n, str)
                            ]
                        )
                        raise why from error
                    names.append(why)
            return names
        finally:
            self.discard()

    def _put(self, name: str, target: Target, octets: int, *, last: bool) -> None:
        if target.quota is None:
            self._link(target.path(name), target, last=last)
            return
        with Usage(target.maildir, self._now) as usage:
            usage.fit(octets, target.quota)
            self._link(target.path(name), target, last=last)
            usage.add(octets)

    def _link(self, path: str, target: Target, *, last: bool) -> None:
        try:
            if last:
                os.rename(self._path, path)
                self._path = ""
            else:
                os.link(self._path, path)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
                raise
            self._copy(path, target)

    def _copy(self, path: str, target: Target) -> None:
        """For a Maildir on another file system, or on one without hard links."""
        own = os.path.join(target.maildir, "tmp", self._new_name())
        try:
            with open(self._path, "rb") as source, open(own, "xb", opener=_private) as copy:
                shutil.copyfileobj(source, copy)
                copy.flush()
                os.fsync(copy.fileno())
            os.rename(own, path)
        except BaseException:
            take_back([own])
            raise

    def discard(self) -> None:
        """Leave nothing in ``tmp/``."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
        path, self._path = self._path, ""
        if path:
            take_back([path])


def fit_in(maildir: str, octets: int, quota: int, now: Callable[[], float]) -> int:
    """What a Maildir holds, if so much more may be added.

    :raises pop3toy.errors.OverQuota: if not.
    :raises pop3toy.errors.StoreTrouble: if nobody can say.
    """
    try:
        with Usage(maildir, now) as usage:
            return usage.fit(octets, quota)
    except OSError as error:
        raise trouble(error) from error


def take_back(paths: Sequence[str]) -> None:
    """Remove files, as far as they are there; what stays is told in the log."""
    for path in paths:
        try:
            os.unlink(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.error("cannot remove {path}: {why}", path=path, why=error.strerror)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def trouble(error: OSError) -> StoreTrouble:
    """What a delivery says about an error of the file system."""
    detail = f"{error.strerror}: {error.filename or 'spool file'}"
    if error.errno == errno.EDQUOT:
        return OverQuota(detail=detail)
    if error.errno == errno.ENOSPC:
        return StoreFull(detail=detail)
    return StoreTrouble("the mailbox cannot be written to at the moment", detail=detail)
