"""What is in a Maildir: its files, in a fixed order, with their unique-ids and octets.

Plain functions over a directory's file descriptor; they may wait for the disk,
so the store calls them in a thread unless the directory is small.  What names
mean is in ``maildir_names``; names of messages are never changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from twisted.logger import Logger

from .. import limits
from ..errors import StoreTrouble
from ..interfaces import Entry
from ..maildrop import Listing
from ..wire import Encoder
from .maildir_names import BaseNames, base_name
from .maildir_paths import explained

__all__ = [
    "Location",
    "Snapshot",
    "Stamp",
    "Uncounted",
    "base_name",
    "locate_all",
    "look",
    "open_folder",
    "scan",
]

log = Logger()

#: The folders that hold messages.  ``new`` is read first: a message that another
#: program moves to ``cur`` in the meantime is then seen twice, not missed.
FOLDERS = ("new", "cur")

#: Listings of a Maildir that changes all the while, before the last is believed.
PATIENCE = 5


class Stamp(NamedTuple):
    """What changes when a file is added to, removed from or renamed in a Maildir."""

    new_inode: int
    new_modified: int
    new_changed: int
    cur_inode: int
    cur_modified: int
    # Unlike the other time, nobody can set this one back, as rsync does.
    cur_changed: int
    #: Octets of both directories themselves: a hint how many files there are.
    weight: int

    @property
    def changed(self) -> int:
        """The latest of the times, in nanoseconds."""
        return max(self.new_modified, self.new_changed, self.cur_modified, self.cur_changed)


class Location(NamedTuple):
    """Where a message's file was seen."""

    folder: str
    name: str

    @classmethod
    def of(cls, path: str) -> Location:
        """From a path such as ``cur/1700000000.M1P1.host:2,S``."""
        folder, _, name = path.partition("/")
        return cls(folder, name)


class Snapshot:
    """A Maildir at one moment.

    :param stamp: of before the scan.
    :param trusted: whether an equal stamp later on proves that nothing has
        changed since; not so if the last change was too fresh.
    """

    __slots__ = ("_positions", "linked", "listing", "measured", "paths", "stamp", "trusted", "twins")

    def __init__(
        self,
        listing: Listing,
        paths: Sequence[str],
        measured: dict[bytes, int],
        twins: frozenset[str],
        linked: frozenset[str],
        stamp: Stamp,
        trusted: bool,
    ) -> None:
        self.listing = listing
        #: As many as entries, in the same order, such as ``new/NAME``: 100,000
        #: strings cost less than as many objects.
        self.paths = paths
        #: Octets that were counted, by unique-id: what the names do not tell or tell wrongly.
        self.measured = measured
        #: Base names that more than one message has; such a message is not
        #: looked for under another name, because it could be the other one.
        self.twins = twins
        #: Base names of messages that are linked in both folders: what links and
        #: unlinks instead of renaming was interrupted.  Both names are one message.
        self.linked = linked
        self.stamp = stamp
        self.trusted = trusted
        self._positions: dict[bytes, int] | None = None

    @property
    def locations(self) -> list[Location]:
        """Where each message was, in the order of the listing."""
        return [Location.of(path) for path in self.paths]

    def location(self, uid: bytes) -> Location:
        """Where a message was."""
        return Location.of(self.paths[self._position(uid)])

    def entry(self, uid: bytes) -> Entry:
        """What was announced of a message."""
        return self.listing[self._position(uid)]

    def _position(self, uid: bytes) -> int:
        # A session that only asks for STAT, LIST and UIDL never needs it.
        if self._positions is None:
            self._positions = {entry.uid: at for at, entry in enumerate(self.listing)}
        return self._positions[uid]


# -- directories -------------------------------------------------------------------


def look(maildir: int) -> Stamp:
    """The stamp of a Maildir given as an open directory.

    :raises pop3toy.errors.StoreTrouble: if it is half-made, or a folder of it
        leads elsewhere.
    """
    new, cur = (_folder_status(maildir, folder) for folder in FOLDERS)
    return Stamp(
        new.st_ino,
        new.st_mtime_ns,
        new.st_ctime_ns,
        cur.st_ino,
        cur.st_mtime_ns,
        cur.st_ctime_ns,
        new.st_size + cur.st_size,
    )


def _folder_status(maildir: int, folder: str) -> os.stat_result:
    try:
        status = os.stat(folder, dir_fd=maildir, follow_symlinks=False)
    except FileNotFoundError:
        raise StoreTrouble(
            detail=f"half-made Maildir: it has no folder {folder}/; make new, cur and tmp"
        ) from None
    except OSError as error:
        raise StoreTrouble(detail=f"folder {folder}/ of a Maildir: {explained(error)}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise StoreTrouble(
            detail=f"{folder} in a Maildir is not a folder of its own (links are not followed);"
            " put a folder in its place"
        )
    return status


def open_folder(maildir: int, folder: str) -> int:
    """Open ``new`` or ``cur``; never through a link.

    :raises OSError: as ``os.open`` does.
    """
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=maildir)


def _file_paths(maildir: int, folder: str) -> list[str]:
    """The message files of a folder: regular files that do not begin with a dot.

    :raises pop3toy.errors.StoreTrouble: if it cannot be read.
    """
    try:
        fd = open_folder(maildir, folder)
        try:
            with os.scandir(fd) as found:
                return [
                    f"{folder}/{item.name}"
                    for item in found
                    if item.is_file(follow_symlinks=False) and item.name[0] != "."
                ]
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreTrouble(detail=f"folder {folder}/ of a Maildir: {explained(error)}") from error


class _Files(NamedTuple):
    """The message files of a Maildir, by base name."""

    paths: dict[str, str]
    #: Further messages that have the same base name as one of ``paths``.
    twins: list[tuple[str, str]]
    #: Base names of messages that are in both folders at once.
    linked: set[str]
    stamp: Stamp
    #: Whether nothing changed while they were listed.
    steady: bool


def _list(maildir: int) -> _Files:
    # readdir may miss a file that is renamed meanwhile.  A message that is
    # missing from one listing only would be fetched again after the next.
    stamp = look(maildir)
    paths: dict[str, str] = {}
    for _ in range(PATIENCE):
        earlier = paths
        paths, twins, linked = _list_once(maildir)
        before, stamp = stamp, look(maildir)
        if before == stamp:
            return _Files(paths, twins, linked, stamp, steady=True)
    # It never holds still.  What was there a moment ago is taken to be there: a
    # message that cannot be read does less harm than one that comes and goes.
    return _Files({**earlier, **paths}, twins, linked, stamp, steady=False)


def _list_once(maildir: int) -> tuple[dict[str, str], list[tuple[str, str]], set[str]]:
    paths: dict[str, str] = {}
    count = 0
    for folder in FOLDERS:
        listed = _file_paths(maildir, folder)
        start = len(folder) + 1
        # base_name() written out: a call for each of 100,000 names is a tenth of the time.
        found = {path[start:].partition(":")[0]: path for path in listed}
        count += len(listed)
        if len(paths) + len(found) < count or not paths.keys().isdisjoint(found):
            return _list_doubles(maildir)
        paths.update(found)
    return paths, [], set()


def _list_doubles(maildir: int) -> tuple[dict[str, str], list[tuple[str, str]], set[str]]:
    """As ``_list_once``, for a Maildir in which base names come up twice."""
    paths: dict[str, str] = {}
    doubles: list[tuple[str, str]] = []
    for folder in FOLDERS:
        for path in _file_paths(maildir, folder):
            base = base_name(Location.of(path).name)
            if paths.setdefault(base, path) is not path:
                doubles.append((base, path))
    twins = []
    linked = set()
    for base, path in doubles:
        one, other = _inode(maildir, paths[base]), _inode(maildir, path)
        if None not in (one, other) and one != other:
            twins.append((base, path))
            continue
        # One message, that was moved while the folders were read, or is linked in both.
        # cur is read last, so this is where it is now.
        paths[base] = path
        if one == other:
            linked.add(base)
    return paths, twins, linked


def _inode(maildir: int, path: str) -> int | None:
    try:
        return os.stat(path, dir_fd=maildir, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def locate_all(maildir: int) -> dict[str, Location]:
    """Where each message is now, by base name; without those whose base name is not unique.

    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """
    files = _list(maildir)
    for base, _ in files.twins:
        files.paths.pop(base, None)
    return {base: Location.of(path) for base, path in files.paths.items()}


# -- snapshots ---------------------------------------------------------------------


class Uncounted(Exception):
    """A message would have to be read to know its octets."""


def scan(maildir: int, measured: dict[bytes, int], *, now: float, tick: float, may_read: bool) -> Snapshot:
    """Take a snapshot.

    :param maildir: the open directory.
    :param measured: octets that are known from before, by unique-id.
    :param now: seconds since the epoch.
    :param tick: seconds within which two changes may leave the same time on a
        directory.
    :param may_read: count the octets of messages whose names do not tell them.
    :raises Uncounted: if that is necessary and not allowed.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """
    known = dict(measured)
    for _ in range(PATIENCE):
        files = _list(maildir)
        bases = BaseNames([*files.paths, *(base for base, _ in files.twins)])
        paths: Sequence[str] = _paths(bases.ordered, files)
        uids = bases.unique_ids()
        octets = bases.wire_sizes()
        if known or None in octets:
            octets = [known.get(uid, told) for uid, told in zip(uids, octets, strict=True)]
        uncounted = [at for at, told in enumerate(octets) if told is None] if None in octets else []
        if uncounted and not may_read:
            raise Uncounted
        guessed: set[bytes] = set()
        for at in uncounted:
            try:
                counted = _count_octets(maildir, paths[at])
            except OSError as error:
                # One message that cannot be read must not take the others hostage:
                # it is listed, and RETR of it is refused.
                counted = _size_on_disk(maildir, paths[at])
                guessed.add(uids[at])
                log.warn("message {path} of a Maildir: {why}", path=paths[at], why=explained(error))
            if counted is not None:
                known[uids[at]] = counted
        # What vanished while it was counted may have been renamed: look again.
        vanished = [at for at in uncounted if uids[at] not in known]
        if not vanished:
            break
    if uncounted:
        octets = [known.get(uid, told) for uid, told in zip(uids, octets, strict=True)]
    if vanished:
        there = [at for at, told in enumerate(octets) if told is not None]
        uids, paths = [uids[at] for at in there], [paths[at] for at in there]
        octets = [octets[at] for at in there]
    return Snapshot(
        Listing(map(Entry._make, zip(uids, octets, strict=True))),
        paths,
        {uid: known[uid] for uid in uids if uid in known and uid not in guessed} if known else {},
        frozenset(base for base, _ in files.twins),
        frozenset(files.linked),
        files.stamp,
        trusted=files.steady and not vanished and not guessed and now - files.stamp.changed / 1e9 > tick,
    )


def _paths(bases: list[str], files: _Files) -> list[str]:
    """The path of each, in the order of ``bases``; twins by path."""
    twins: dict[str, list[str]] = {}
    for base, path in files.twins:
        twins.setdefault(base, [files.paths[base]]).append(path)
    for paths in twins.values():
        paths.sort(reverse=True)
    if not twins:
        return list(map(files.paths.__getitem__, bases))
    return [twins[base].pop() if base in twins else files.paths[base] for base in bases]


def _count_octets(maildir: int, path: str) -> int | None:
    """The octets of a message in wire form, by reading it; ``None`` if it has vanished.

    :raises OSError: if it cannot be read.
    """
    encoder = Encoder()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, dir_fd=maildir)
    except FileNotFoundError:
        return None
    try:
        while chunk := os.read(fd, limits.CHUNK):
            encoder.feed(chunk)
    finally:
        os.close(fd)
    encoder.finish()
    return encoder.octets


def _size_on_disk(maildir: int, path: str) -> int | None:
    try:
        return os.stat(path, dir_fd=maildir, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None
