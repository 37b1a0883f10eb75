"""The note beside a Maildir's folders that remembers counted octets.

Only for messages whose names do not tell their size on the wire, or tell it
wrongly.
"""

from __future__ import annotations

import os
import re

from .maildir_notes import read_note, write_note

__all__ = ["FILE_NAME", "load", "save", "size"]

#: Not a dot file: Maildir++ takes those for sub-folders.
FILE_NAME = "pop3toy-sizes"
_MAGIC = b"pop3toy-sizes 1"
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
    body = read_note(maildir, FILE_NAME, _MAGIC, messages * _LONGEST_LINE + _SLACK) or b""
    # One by one: other threads get their turn, which findall() would not give them.
    return {line[2]: int(line[1]) for line in _LINE.finditer(body)}


def save(maildir: int, sizes: dict[bytes, int]) -> None:
    """Replace the file in one step; without a word if that is not possible."""
    body = b"".join(b"%d %b\n" % (octets, uid) for uid, octets in sizes.items())
    write_note(maildir, FILE_NAME, _MAGIC, body)
