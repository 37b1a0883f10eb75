"""The small file beside a Maildir's folders that remembers counted octets.

Only for messages whose names do not tell their size on the wire, or tell it
wrongly.  The file is a cache: it may be deleted at any time, a damaged one
counts as none, and that it cannot be written is never a reason to fail.  Two
that write at once cost the knowledge of one of them: the sum in the first line
tells a whole file from a part.
"""

from __future__ import annotations

import os
import re
import stat
import zlib

__all__ = ["FILE_NAME", "load", "save", "size"]

#: Not a dot file: Maildir++ takes those for sub-folders.
FILE_NAME = "pop3toy-sizes"
_TEMPORARY = "pop3toy-sizes.tmp"
_MAGIC = b"pop3toy-sizes 1 "
_LINE = re.compile(rb"([0-9]{1,15}) ([\x21-\x7e]+)\n")

#: Octets of a line: 15 digits, a blank, a unique-id of 70, a line end.
_LONGEST_LINE = 87
#: Octets that a file may have behind those of the messages that are there:
#: lines of some that were removed since it was written.
_SLACK = 1024 * 1024


def size(maildir: int) -> int:
    """Octets of the file; 0 if there is none: a hint how long reading it takes."""
    try:
        return os.stat(FILE_NAME, dir_fd=maildir, follow_symlinks=False).st_size
    except OSError:
        return 0


def load(maildir: int, messages: int) -> dict[bytes, int]:
    """What the file remembers: octets by unique-id; nothing if it is missing or damaged.

    :param messages: how many there are.  A file that is much larger than they
        need is none of ours: the owner of a Maildir can put anything there,
        and it is read into memory.
    """
    largest = messages * _LONGEST_LINE + _SLACK
    try:
        fd = os.open(FILE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=maildir)
    except OSError:
        return {}
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
            return {}
        with open(fd, "rb", closefd=False) as file:
            head, _, body = file.read(status.st_size).partition(b"\n")
    except OSError:
        return {}
    finally:
        os.close(fd)
    # Written without fsync, so that a crash of the machine may leave anything
    # here: the sum tells.
    if head != _MAGIC + b"%08x" % zlib.crc32(body):
        return {}
    # One by one: other threads get their turn, which findall() would not give them.
    return {line[2]: int(line[1]) for line in _LINE.finditer(body)}


def save(maildir: int, sizes: dict[bytes, int]) -> None:
    """Replace the file in one step; without a word if that is not possible."""
    body = b"".join(b"%d %b\n" % (octets, uid) for uid, octets in sizes.items())
    # EXCL, so that nothing that lies there is opened: a link, or a FIFO that would wait for ever.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        _discard(maildir)
        fd = os.open(_TEMPORARY, flags, 0o600, dir_fd=maildir)
        try:
            with open(fd, "wb") as file:
                file.write(_MAGIC + b"%08x\n" % zlib.crc32(body) + body)
            os.replace(_TEMPORARY, FILE_NAME, src_dir_fd=maildir, dst_dir_fd=maildir)
        except OSError:
            # Perhaps the disk is full; the part that was written would not help.
            _discard(maildir)
    except OSError:
        return


def _discard(maildir: int) -> None:
    try:
        os.unlink(_TEMPORARY, dir_fd=maildir)
    except FileNotFoundError:
        return
