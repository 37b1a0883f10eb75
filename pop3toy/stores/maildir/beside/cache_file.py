"""Small files beside a Maildir's folders that remember what was counted.

A cache file may be deleted at any time, a damaged one counts as none, and that it cannot be
written is never a reason to fail.  If two processes write at once, what one of them knew is lost:
the checksum in the first line tells a whole file from a part.  The owner of a Maildir can put
anything in its place.
"""

from __future__ import annotations

import os
import stat
import zlib

from .owner import give

__all__ = ["read_cache", "remove_cache", "write_cache"]


def read_cache(maildir: int, name: str, magic: bytes, most: int) -> bytes | None:
    """What a cache file says; ``None`` if it is missing or damaged.

    :param maildir: the open directory.
    :param magic: what its first line begins with: which format in which version.
    :param most: octets of the largest file that is read.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=maildir)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        with open(fd, "rb", closefd=False) as file:
            head, _, body = file.read(status.st_size).partition(b"\n")
    except OSError:
        return None
    finally:
        os.close(fd)
    # Written without fsync, so that a crash of the machine may leave anything
    # here: the checksum tells.
    return body if head == _head(magic, body) else None


def write_cache(maildir: int, name: str, magic: bytes, body: bytes) -> None:
    """Replace a cache file in one step, for the Maildir's owner; does nothing if that is not possible."""
    temporary = f"{name}.tmp"
    # EXCL, so that nothing that lies there is opened: a link, or a FIFO that would wait for ever.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        remove_cache(maildir, temporary)
        fd = os.open(temporary, flags, 0o600, dir_fd=maildir)
        try:
            with open(fd, "wb") as file:
                give(fd, maildir)
                file.write(_head(magic, body) + b"\n" + body)
            os.replace(temporary, name, src_dir_fd=maildir, dst_dir_fd=maildir)
        except OSError:
            # Perhaps the disk is full; the part that was written would not help.
            remove_cache(maildir, temporary)
    except OSError:
        return


def remove_cache(maildir: int, name: str) -> None:
    """Remove a cache file.

    :raises OSError: if it is there and stays.
    """
    try:
        os.unlink(name, dir_fd=maildir)
    except FileNotFoundError:
        return


def _head(magic: bytes, body: bytes) -> bytes:
    return magic + b" %08x" % zlib.crc32(body)
