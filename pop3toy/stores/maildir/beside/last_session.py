"""What the last session of a Maildir listed, so that a mailbox is noticed in which all mail seems new.

A client that leaves mail on the server knows it by unique-ids.  If these change while the messages stay -
files were renamed by a program that moved them, the file of unique-ids is lost - every client fetches all of
them again.  Such a mailbox is not opened before somebody has looked at it.

``pop3toy-last`` in the Maildir says how many messages there were, and of all of them or of some the
unique-id, the octets and a hash of how their files begin.  It is a cache file: if it is missing, there was no
last session.  It is written when too much of what it says is past, at the end of a session.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final, NamedTuple

from .cache_file import read_cache, remove_cache, write_cache

__all__ = [
    "FEWEST", "FILE_NAME", "HEAD", "Note", "are_alike", "digest", "forget", "is_outdated", "load",
    "renamed", "sample", "save",
]  # fmt: skip

#: Not a dot file: Maildir++ takes those for sub-folders.
FILE_NAME: Final = "pop3toy-last"
_MAGIC: Final = b"pop3toy-last 1"
_LINE: Final = re.compile(rb"([\x21-\x7e]{1,70}) ([0-9]{1,15}) ([0-9a-f]{32})\n")
_COUNT: Final = re.compile(rb"([0-9]{1,9})\n")
#: Octets of the largest file that is read: far more than a sample has.
_MOST: Final = 64 * 1024

#: Messages of the smallest mailbox that is looked after: to fetch fewer again is no flood.
FEWEST: Final = 10
#: Messages of which the unique-ids are kept: whether it is half of a mailbox they tell well enough.
SAMPLE: Final = 200
#: Octets of a file that are read for its hash.
HEAD: Final = 16 * 1024


class Note(NamedTuple):
    """What the file says."""

    #: How many there were.
    messages: int
    #: Octets in wire form and hash by unique-id.
    sample: Mapping[bytes, tuple[int, bytes]]


def load(maildir: int) -> Note | None:
    """Read the file; ``None`` if it is missing or damaged.

    :param maildir: the open directory.
    """
    body = read_cache(maildir, FILE_NAME, _MAGIC, _MOST)
    count = _COUNT.match(body or b"")
    if body is None or count is None:
        return None
    lines = _LINE.finditer(body, count.end())
    return Note(int(count[1]), {line[1]: (int(line[2]), line[3]) for line in lines})


def save(maildir: int, note: Note) -> None:
    """Replace the file in one step; does nothing if that is not possible."""
    lines = [b"%b %d %b\n" % (uid, *contents) for uid, contents in note.sample.items()]
    write_cache(maildir, FILE_NAME, _MAGIC, b"%d\n%b" % (note.messages, b"".join(lines)))


def forget(maildir: int) -> None:
    """Remove the file: whatever the next session lists will do.

    :raises OSError: if it is there and stays.
    """
    remove_cache(maildir, FILE_NAME)


def digest(head: bytes) -> bytes:
    """What tells messages of the same octets apart, whatever line ends their files have.

    :param head: the first :data:`HEAD` octets of the file.
    """
    same = head.replace(b"\r\n", b"\n")[: HEAD // 2]
    return hashlib.blake2b(same, digest_size=16).hexdigest().encode("ascii")


def are_alike(before: Sequence[bytes], uids: Set[bytes]) -> bool:
    """Whether a listing can be the one before with some mail more or less; else one has to look closer."""
    return len(uids) < FEWEST or 2 * len(uids - set(before)) <= len(uids)


def is_outdated(note: Note | None, uids: Set[bytes]) -> bool:
    """Whether a note is to be written: there is none, or more than a fifth of it is past."""
    if len(uids) < FEWEST:
        return False
    if note is None or not note.sample or 5 * abs(len(uids) - note.messages) > note.messages:
        return True
    return 5 * len(note.sample.keys() - uids) > len(note.sample)


def sample(
    uids: Sequence[bytes],
    octets: Sequence[int],
    digest_of: Callable[[int], bytes | None],
    before: Note | None,
) -> Note:
    """Make a note of a listing.

    :param digest_of: the hash of the message at a place; ``None`` if it cannot be read.
    :param before: the note so far, whose hashes are true still.
    """
    known = before.sample if before is not None else {}
    step = max(len(uids) / SAMPLE, 1.0)
    taken: dict[bytes, tuple[int, bytes]] = {}
    for at in sorted({int(number * step) for number in range(min(len(uids), SAMPLE))}):
        uid = uids[at]
        hashed = known[uid][1] if uid in known else digest_of(at)
        if hashed is not None:
            taken[uid] = octets[at], hashed
    return Note(len(uids), taken)


def renamed(
    note: Note, uids: Sequence[bytes], octets: Sequence[int], digest_of: Callable[[int], bytes | None]
) -> bool:
    """Whether more than half of what is listed has other unique-ids than in the note, and the same contents.

    Files are read only if octets leave that possible.

    :param digest_of: the hash of the message at a place; ``None`` if it cannot be read.
    """
    if len(uids) < FEWEST or not note.sample:
        return False

    def is_too_much(count: int) -> bool:
        # As many of all as of the sample.
        return 2 * count * note.messages > len(uids) * len(note.sample)

    gone = note.sample.keys() - set(uids)
    if not is_too_much(len(gone)):
        return False
    places: dict[int, list[int]] = {}
    for at, uid in enumerate(uids):
        if uid not in note.sample:
            places.setdefault(octets[at], []).append(at)
    # Each message once: of several that are the same some may have been removed.
    left = {size: min(len(places[size]), count) for size, count in _sizes(note, gone) if size in places}
    if not is_too_much(sum(left.values())):
        return False
    count = 0
    for size in left:
        wanted = [note.sample[uid][1] for uid in gone if note.sample[uid][0] == size]
        for at in places[size]:
            if (found := digest_of(at)) in wanted:
                assert found is not None
                wanted.remove(found)
                count += 1
                if is_too_much(count):
                    return True
    return False


def _sizes(note: Note, uids: Set[bytes]) -> list[tuple[int, int]]:
    counts: dict[int, int] = {}
    for uid in uids:
        size = note.sample[uid][0]
        counts[size] = counts.get(size, 0) + 1
    return list(counts.items())
