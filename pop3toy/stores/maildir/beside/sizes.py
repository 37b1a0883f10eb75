"""The cache file beside a Maildir's folders that remembers counted octets.

Only for messages whose names do not tell their size on the wire, or tell it
wrongly.  With each goes what tells its file from another of the same name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from .cache_file import read_cache, write_cache

__all__ = ["FILE_NAME", "Counted", "load", "save", "size"]

#: Not a dot file: Maildir++ takes those for sub-folders.
FILE_NAME = "pop3toy-sizes"
# Version 1 did not tell files of one name apart, and counted doubled line ends in another way.
_MAGIC = b"pop3toy-sizes 2"
_LINE = re.compile(rb"([0-9]{1,15}) ([0-9]{1,20}) ([0-9]{1,19}) (-?[0-9]{1,20}) ([\x21-\x7e]+)\n")

#: Octets of a line: its numbers, blanks, a unique-id of 70, a line end.
_LONGEST_LINE = 15 + 20 + 19 + 21 + 70 + 5
#: Octets that a file may have behind those of the messages that are there:
#: lines of some that were removed since it was written.
_SLACK = 1024 * 1024


class Counted(NamedTuple):
    """A message that was counted, and of which file that is true."""

    #: In wire form.
    octets: int
    inode: int
    #: Octets of the file.
    size: int
    #: When it was written, in nanoseconds.
    modified: int

    @classmethod
    def of(cls, octets: int, status: os.stat_result) -> Self:
        """What was counted of a file."""
        return cls(octets, status.st_ino, status.st_size, status.st_mtime_ns)


def size(maildir: int) -> int:
    """Octets of the file; 0 if there is none: a hint how long reading it takes."""
    try:
        return os.stat(FILE_NAME, dir_fd=maildir, follow_symlinks=False).st_size
    except OSError:
        return 0


def load(maildir: int, messages: int) -> dict[bytes, Counted]:
    """What the file remembers, by unique-id; nothing if it is missing or damaged.

    :param messages: how many there are.  A file that is much larger than they
        need is none of ours: the owner of a Maildir can put anything there,
        and it is read into memory.
    """
    body = read_cache(maildir, FILE_NAME, _MAGIC, messages * _LONGEST_LINE + _SLACK) or b""
    # One by one: other threads get their turn, which findall() would not give them.
    return {line[5]: Counted(*map(int, line.groups()[:4])) for line in _LINE.finditer(body)}


def save(maildir: int, sizes: Mapping[bytes, Counted]) -> None:
    """Replace the file in one step; does nothing if that is not possible."""
    body = b"".join(b"%d %d %d %d %b\n" % (*counted, uid) for uid, counted in sizes.items())
    write_cache(maildir, FILE_NAME, _MAGIC, body)
