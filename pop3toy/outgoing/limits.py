"""How many recipients elsewhere a user may write to within an hour: counted in files, over restarts.

A file for each user in a folder beside the queue's messages, a line for each message: when, and to how many.
All processes of a server count there, each with the file's lock, so that many workers allow no more than one.
Nothing of it is made durable: what a loss of power takes with it is an hour's count, and no mail.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "HOUR", "PER_HOUR", "HourlyLimit"]

HOUR: Final = 3600.0

#: Recipients of one user within an hour, unless --smarthost-limit says otherwise: more than people write to,
#: and few enough that a stolen password does not ruin the name of the smarthost in a night.
PER_HOUR: Final = 200

#: The folder's name, in the queue's.
FOLDER: Final = "sent"

_Sent = list[tuple[float, int]]


class HourlyLimit:
    """Counts what each user has sent within the last hour.  Its methods wait for the disk.

    :param queue: the folder of the queue, which has to be there when it is asked.
    :param most: recipients of one user.
    :param wall: the time of day, in seconds since the epoch: it has to be true after a restart.
    """

    def __init__(self, queue: str | Path, most: int, wall: Callable[[], float]) -> None:
        self.most = most
        self._folder = Path(queue) / FOLDER
        self._wall = wall

    def left(self, user: str) -> int:
        """How many more recipients the user may have now.

        :raises OSError: if that cannot be read.
        """
        try:
            with self._locked(self._file(user)) as fd:
                return max(self.most - _number(self._read(fd)), 0)
        except FileNotFoundError:
            return self.most

    def count(self, user: str, recipients: int) -> bool:
        """The user writes to so many more.

        :return: whether that is allowed; if not, nothing is counted.
        :raises OSError: if it cannot be written down; then nothing is counted.
        """
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        with self._locked(self._file(user), os.O_CREAT) as fd:
            sent = self._read(fd)
            allowed = _number(sent) + recipients <= self.most
            if allowed:
                sent.append((self._wall(), recipients))
            _write(fd, sent)
        return allowed

    def sweep(self) -> None:
        """Remove the files of those who have sent nothing within the hour."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                path = self._folder / name
                with suppress(FileNotFoundError), self._locked(path) as fd:
                    if not self._read(fd):
                        os.unlink(path)

    def _file(self, user: str) -> Path:
        # A digest: a user's name can have any length, and characters that no file may have.
        return self._folder / hashlib.sha256(user.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    @contextmanager
    def _locked(self, path: Path, flags: int = 0) -> Iterator[int]:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # It may have been swept away between the two.
                if os.fstat(fd).st_nlink:
                    yield fd
                    return
            finally:
                os.close(fd)

    def _read(self, fd: int) -> _Sent:
        """What was sent within the hour."""
        now = self._wall()
        found = list(_parsed(os.pread(fd, os.fstat(fd).st_size, 0)))
        if any(when > now for when, _ in found):
            # The clock was set back: nobody waits for longer than an hour from now on.
            found = [(min(when, now), count) for when, count in found]
            _write(fd, found)
        return [(when, count) for when, count in found if when > now - HOUR]


def _number(sent: Sequence[tuple[float, int]]) -> int:
    return sum(count for _, count in sent)


def _parsed(data: bytes) -> Iterator[tuple[float, int]]:
    for line in data.splitlines():
        # A line that was cut off is of a process that was killed in the middle of a few octets.
        with suppress(ValueError):
            when, count = line.split()
            yield float(when), int(count)


def _write(fd: int, sent: Sequence[tuple[float, int]]) -> None:
    """In place, first and foremost: of one that was cut off, what stood there before is behind it."""
    data = b"".join(b"%.3f %d\n" % one for one in sent)
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))
