"""The note beside a Maildir's folders that remembers counted octets.

Only for messages whose names do not tell their size on the wire, or tell it
wrongly.
"""

from __future__ import annotations

import re

from .maildir_notes import read_note, write_note

__all__ = ["FILE_NAME", "load", "save"]

#: Not a dot file: Maildir++ takes those for sub-folders.
FILE_NAME = "pop3toy-sizes"
_MAGIC = b"pop3toy-sizes 1"
_LINE = re.compile(rb"([0-9]{1,15}) ([\x21-\x7e]+)\n")

#: Octets of the largest file that is read: half a million messages.  The owner
#: of a Maildir can put anything there, and it is read into memory.
LARGEST = 64 * 1024 * 1024


def load(maildir: int) -> dict[bytes, int]:
    """What the file remembers: octets by unique-id; nothing if it is missing or damaged."""
    body = read_note(maildir, FILE_NAME, _MAGIC, LARGEST) or b""
    return {uid: int(octets) for octets, uid in _LINE.findall(body)}


def save(maildir: int, sizes: dict[bytes, int]) -> None:
    """Replace the file in one step; without a word if that is not possible."""
    body = b"".join(b"%d %b\n" % (octets, uid) for uid, octets in sizes.items())
    write_note(maildir, FILE_NAME, _MAGIC, body)
