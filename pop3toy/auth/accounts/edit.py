"""Changing a file that others read and change at the same time.

Readers see the old file or the new one and never a half; of several changes at once
none is lost.  What the text means is not
known here.  Blocks: for a command line or a thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...files import new_file

__all__ = ["edit_file"]

#: A file of secrets is for its owner; a group that could read it may go on.
_PRIVATE = 0o600
_AT_MOST = 0o660
#: Nanoseconds by which a new file is older than its renaming.
_EARLIER = 10_000_000


def edit_file(path: str | Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file's text by what ``change`` makes of it, durably.

    The file is made if it is missing, readable for its owner alone.  If
    ``change`` raises, nothing changes.

    :raises OSError: if it cannot be read or written.
    """
    # The link is followed and stays; what it leads to is replaced.
    target = Path(path).resolve()
    descriptor = _lock(target)
    try:
        before = os.fstat(descriptor)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            old = file.read()
        new = change(old)
        if new != old:
            _replace(target, new, before)
    finally:
        os.close(descriptor)


def _lock(target: Path) -> int:
    """The locked file; the one that has the name now, not one that was replaced while we waited."""
    while True:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(target)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _replace(target: Path, text: bytes, before: os.stat_result) -> None:
    with new_file(target) as file:
        os.fchmod(file.fileno(), before.st_mode & _AT_MOST)
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            # Root edits the mail user's file: it stays the mail user's.
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
        file.write(text)
        file.flush()
        # Who reads it believes a file at once that has its name since after its last write (see
        # net/watched_file.py); both can come within one tick of the file system's clock.
        written = os.fstat(file.fileno())
        os.utime(file.fileno(), ns=(written.st_atime_ns, written.st_mtime_ns - _EARLIER))
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
