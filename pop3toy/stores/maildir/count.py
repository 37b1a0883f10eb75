"""The octets of messages in wire form, counted by reading their files.

The owner of a Maildir can put anything there: files of many TB that take no room on the
disk, files that grow while they are read, links and FIFOs in the place of messages.  So
only regular files are read, and no more of them than fstat told.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from twisted.logger import Logger

from ... import limits
from ...errors import StoreTrouble
from ...mail.octets import OctetCounter
from .beside import sizes
from .beside.sizes import Counted
from .body import OPEN_FLAGS
from .folders import WouldWait, open_folder

__all__ = ["MAX_LISTED_SIZE", "Counter"]

log = Logger()

#: Octets of a file beyond which it is listed by its size on the disk: some seconds of
#: reading, and more than any mail server takes.
MAX_LISTED_SIZE: Final = 2 * 1024**3

# Messages of which it is seen in one go, some milliseconds long, whether they have changed.
_LOOKED_AT_IN_TURN: Final = 1000


class Counter:
    """Knows and counts the octets of messages of one Maildir.  A context manager; blocks.

    :param maildir: the open directory.
    :param before: what this process has counted of them, by unique-id.
    :param max_listed_size: octets of the largest file that is read.
    :param may_read: whether messages may be read, which can take minutes.
    :param wanted: asked again and again, from this thread; where it says no the counting ends.
    :param where: what the log calls the Maildir.
    """

    def __init__(
        self,
        maildir: int,
        before: Mapping[bytes, Counted] | None = None,
        *,
        max_listed_size: int = MAX_LISTED_SIZE,
        may_read: bool = True,
        wanted: Callable[[], bool] = lambda: True,
        where: str = "a Maildir",
    ) -> None:
        self.where = where
        self._maildir = maildir
        self._before = before or {}
        self._cached: dict[bytes, Counted] = {}
        self._max_listed_size = max_listed_size
        self._may_read = may_read
        self._wanted = wanted
        # Opened once: one that is replaced by a link meanwhile leads nowhere.
        self._folders: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in self._folders.values():
            os.close(folder)

    def recall(self, uids: Sequence[bytes], paths: Sequence[str]) -> dict[bytes, Counted]:
        """What was counted before, here or by another process, and is true of the files that are there now.

        A user may have put back an older one of the same name.  What was renamed a moment ago is
        not taken for another message.

        :param uids: the unique-ids of all messages.
        :param paths: theirs, such as ``cur/1700000000.M1P1.host:2,S``.
        :raises pop3toy.errors.StoreTrouble: if the result is not wanted any more.
        """
        self._cached = sizes.load(self._maildir, len(uids))
        known = {**self._cached, **self._before}
        if not known:
            return known
        new, cur = self._folder("new"), self._folder("cur")
        true = {}
        for number, (uid, path) in enumerate(zip(uids, paths, strict=True)):
            if not number % _LOOKED_AT_IN_TURN:
                self._go_on()
            if (counted := known.get(uid)) is None:
                continue
            folder, _, name = path.partition("/")
            try:
                status = os.stat(name, dir_fd=new if folder == "new" else cur, follow_symlinks=False)
            except FileNotFoundError:
                true[uid] = counted
                continue
            if counted[1:] == (status.st_ino, status.st_size, status.st_mtime_ns):
                true[uid] = counted
        return true

    def remember(self, measured: Mapping[bytes, Counted]) -> None:
        """Write the cache file, for the next process, unless all of this is in it."""
        if not measured.items() <= self._cached.items():
            sizes.save(self._maildir, measured)

    def count(self, path: str) -> Counted | None:
        """The octets of a message, by reading it; ``None`` if it has vanished.

        :raises OSError: if it cannot be read.
        :raises WouldWait: if messages may not be read.
        :raises pop3toy.errors.StoreTrouble: if the result is not wanted any more.
        """
        if not self._may_read:
            raise WouldWait
        folder, name = self._place(path)
        try:
            file = os.open(name, OPEN_FLAGS, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                # Something else has its name now.
                return None
            if status.st_size > self._max_listed_size:
                log.warn(
                    "message {path!r} of {where} has {size} octets, more than --max-listed-size: it is"
                    " listed with them, uncounted",
                    path=path,
                    where=self.where,
                    size=status.st_size,
                )
                return Counted.of(status.st_size, status)
            return Counted.of(self._octets(file, status), status)
        finally:
            os.close(file)

    def size_on_disk(self, path: str) -> int | None:
        """The octets of its file, unread; ``None`` if it has vanished."""
        status = self._status(path)
        return status.st_size if status is not None else None

    def _octets(self, file: int, status: os.stat_result) -> int:
        counter = OctetCounter()
        at, size = 0, status.st_size
        has_holes = status.st_blocks * 512 < size
        while at < size:
            self._go_on()
            if has_holes and (data := _next_data(file, at, size)) > at:
                # One NUL for all of them: it is the state that matters, and the number.
                counter.feed(b"\0")
                counter.octets += data - at - 1
                at = data
                continue
            chunk = os.pread(file, min(limits.CHUNK, size - at), at)
            if not chunk:
                break
            counter.feed(chunk)
            at += len(chunk)
        counter.finish()
        return counter.octets

    def _status(self, path: str) -> os.stat_result | None:
        folder, name = self._place(path)
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _place(self, path: str) -> tuple[int, str]:
        self._go_on()
        part, _, name = path.partition("/")
        return self._folder(part), name

    def _folder(self, part: str) -> int:
        folder = self._folders.get(part)
        if folder is None:
            folder = self._folders[part] = open_folder(self._maildir, part)
        return folder

    def _go_on(self) -> None:
        if not self._wanted():
            raise StoreTrouble


def _next_data(file: int, at: int, size: int) -> int:
    """Where a file goes on behind a hole, if there is one here (Linux, macOS, FreeBSD)."""
    try:
        return min(os.lseek(file, at, os.SEEK_DATA), size)
    except OSError as error:
        # ENXIO: nothing comes but the end.
        return size if error.errno == errno.ENXIO else at
    except AttributeError:
        return at
