"""The file that says which unique-ids messages have that their names do not tell.

For mail that had a unique-id before it came here, from another store or another server: without the file
the unique-id of a message follows from its name (``names``).  It is ``pop3toy-uidl`` in the Maildir, text::

    pop3toy-uidl 1
    <unique-id> <base name>

with a line for each message: the unique-id, a blank, and the file's name without its flags, to the end of
the line.  Where the first line is ``pop3toy-uidl 1 ordered``, these messages are listed in the order of
their lines and all others behind them, in place of the order that names tell.  Lines of messages that are
gone do no harm.

It is no cache: without it clients would fetch mail again.  So it is written in one step and to the disk,
and a Maildir in which it cannot be read is not opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from ....errors import StoreTrouble
from ....files import by_its_name, open_regular
from ....mail.unique_ids import unique_id_is_valid
from .owner import give

__all__ = ["FILE_NAME", "Given", "Mark", "load", "look", "save"]

#: Not a dot file: Maildir++ takes those for sub-folders.
FILE_NAME: Final = "pop3toy-uidl"

_HEAD: Final = b"pop3toy-uidl 1"
_ORDERED: Final = b" ordered"
#: Octets of the largest file that is read, for some million messages: its owner can put anything there.
MOST: Final = 512 * 1024 * 1024

#: What changes when the file does; ``None`` if there is none.
Mark: TypeAlias = tuple[int, int, int] | None


class Given(NamedTuple):
    """What the file says."""

    #: Unique-ids by base name, in the order of the lines.
    uids: Mapping[str, bytes]
    #: Whether that is the order of the messages.
    ordered: bool = False


def look(maildir: int) -> Mark:
    """The file's mark.

    :param maildir: the open directory.
    """
    try:
        status = os.stat(FILE_NAME, dir_fd=maildir, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _trouble(error.strerror or "error") from error
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def load(maildir: int, wanted: Mapping[str, object] | None = None) -> Given:
    """Read the file; of a Maildir without one, nothing is given.

    :param maildir: the open directory.
    :param wanted: only lines of these base names are kept; all if not given.
    :raises pop3toy.errors.StoreTrouble: if it cannot be read.
    """
    try:
        file = open_regular(FILE_NAME, maildir)
    except FileNotFoundError:
        return Given({})
    except OSError as error:
        raise _trouble(error.strerror or "error") from error
    with file:
        if os.fstat(file.fileno()).st_size > MOST:
            raise _trouble("it is too large")
        try:
            head = file.readline(100).rstrip(b"\n")
            if head not in (_HEAD, _HEAD + _ORDERED):
                raise _trouble("its first line is not known here")
            uids = {base: uid for base, uid in _lines(file) if wanted is None or base in wanted}
        except OSError as error:
            raise _trouble(error.strerror or "error") from error
    return Given(uids, head != _HEAD)


def _lines(file: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(file, 2):
        uid, blank, base = line.partition(b" ")
        if not blank or not unique_id_is_valid(uid) or not base.endswith(b"\n"):
            raise _trouble(f"line {number} is not a unique-id and a name")
        yield os.fsdecode(base[:-1]), uid


def save(maildir: int, given: Given) -> None:
    """Replace the file in one step, durably; whoever does that sees to it that nobody else does.

    :param maildir: the open directory, whose owner gets it.
    :param given: base names without line ends; what has one is left out.
    :raises OSError: if that cannot be; then the former one is there.
    """
    temporary = f"{FILE_NAME}.tmp"
    with by_its_name(FILE_NAME, temporary):
        _save(maildir, given, temporary)
    try:
        os.fsync(maildir)
    except OSError:
        # Some file systems know no fsync of a directory.
        pass


def _save(maildir: int, given: Given, temporary: str) -> None:
    # EXCL, so that nothing that lies there is opened: a link, or a FIFO that would wait for ever.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.unlink(temporary, dir_fd=maildir)
    except FileNotFoundError:
        pass
    with open(os.open(temporary, flags, 0o600, dir_fd=maildir), "wb") as file:
        give(file.fileno(), maildir)
        file.write(_HEAD + (_ORDERED if given.ordered else b"") + b"\n")
        file.writelines(
            b"%b %b\n" % (uid, os.fsencode(base)) for base, uid in given.uids.items() if "\n" not in base
        )
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, FILE_NAME, src_dir_fd=maildir, dst_dir_fd=maildir)


def _trouble(why: str) -> StoreTrouble:
    return StoreTrouble(detail=f"{FILE_NAME}, which tells the unique-ids, cannot be used: {why}")
