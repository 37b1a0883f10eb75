"""The folders of a Maildir: their stamp, and which files are there, each message once.

Plain functions over a directory's file descriptor; they may wait for the disk.
Other programs rename and remove files meanwhile, and that is most of what is
told here.  What the files hold and what their names mean is told elsewhere
(``scan``, ``names``).
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, overload

from ...errors import StoreTrouble
from .names import base_name
from .paths import explained

__all__ = [
    "OPEN_FOLDER",
    "PATIENCE",
    "Files",
    "Paths",
    "Stamp",
    "list_by_name",
    "list_files",
    "locate_all",
    "look",
    "open_folder",
    "open_or_refuse",
]

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

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


def look(maildir: int) -> Stamp:
    """The stamp of a Maildir given as an open directory.

    :raises pop3toy.errors.StoreTrouble: if it is half-made, or a folder of it
        leads elsewhere.
    """
    found = []
    # Nothing is read in tmp; but what deliveries refuse is refused here, too.
    for folder in ("new", "cur", "tmp"):
        try:
            status = os.stat(folder, dir_fd=maildir, follow_symlinks=False)
        except OSError as error:
            if folder == "tmp" and isinstance(error, FileNotFoundError):
                # As in a copy made by a program that leaves out what is empty.
                break
            raise _refused(folder, error) from error
        if not stat.S_ISDIR(status.st_mode):
            raise _refused(folder, NotADirectoryError())
        found.append(status)
    new, cur = found[:2]
    return Stamp(
        new.st_ino,
        new.st_mtime_ns,
        new.st_ctime_ns,
        cur.st_ino,
        cur.st_mtime_ns,
        cur.st_ctime_ns,
        new.st_size + cur.st_size,
    )


class NoFolder(StoreTrouble):
    """A Maildir has not all of its folders."""


def _refused(folder: str, error: OSError) -> StoreTrouble:
    """What is said of ``new``, ``cur`` or ``tmp`` that cannot be used, whoever wanted to."""
    if isinstance(error, FileNotFoundError):
        return NoFolder(detail=f"half-made Maildir: it has no folder {folder}/; make new, cur and tmp")
    # ENOTDIR is what O_NOFOLLOW says of a link to a folder, too.
    if isinstance(error, NotADirectoryError) or error.errno == errno.ELOOP:
        return StoreTrouble(
            detail=f"{folder} in a Maildir is not a folder of its own (links are not followed);"
            " put a folder in its place"
        )
    return StoreTrouble(detail=f"folder {folder}/ of a Maildir: {explained(error)}")


def open_or_refuse(maildir: int, folder: str) -> int:
    """Open ``new``, ``cur`` or ``tmp``; never through a link.

    :raises pop3toy.errors.StoreTrouble: if it is none, or cannot be opened.
    """
    try:
        return open_folder(maildir, folder)
    except OSError as error:
        raise _refused(folder, error) from error


def open_folder(maildir: int, folder: str) -> int:
    """The same, for who tells errors apart.

    :raises OSError: as ``os.open`` does.
    """
    return os.open(folder, OPEN_FOLDER, dir_fd=maildir)


def _file_names(maildir: int, folder: str, opener: Callable[[int, str], int] = open_or_refuse) -> list[str]:
    """The message files of a folder, sorted: regular files that do not begin with a dot.

    :raises pop3toy.errors.StoreTrouble: if it cannot be read.
    """
    fd = opener(maildir, folder)
    try:
        with os.scandir(fd) as found:
            names = [item.name for item in found if item.is_file(follow_symlinks=False)]
    except OSError as error:
        raise _refused(folder, error) from error
    finally:
        os.close(fd)
    names.sort()
    # The slash, which no name holds, comes next to the dot.
    del names[bisect_left(names, ".") : bisect_left(names, "/")]
    return names


class Paths(Sequence[str]):
    """The paths of message files, such as ``cur/1700000000.M1P1.host:2,S``, made when somebody asks.

    :param names: the files' names.
    :param new: those that are in ``new``; the others are in ``cur``.
    """

    def __init__(self, names: Sequence[str], new: Collection[str]) -> None:
        self.names = names
        self._new = new

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Paths(self.names[index], self._new)
        name = self.names[index]
        return f"new/{name}" if name in self._new else f"cur/{name}"

    def by_base_name(self) -> dict[str, str]:
        """Each path by its base name; fewer than there are files if a base name comes up twice."""
        # base_name() written out: a call for each of 100,000 names is a tenth of the time.
        return {
            name.partition(":")[0]: f"new/{name}" if name in self._new else f"cur/{name}"
            for name in self.names
        }


def _all_paths(maildir: int, opener: Callable[[int, str], int] = open_or_refuse) -> Paths:
    """The message files of both folders, sorted by their names."""
    new, cur = (_file_names(maildir, folder, opener) for folder in FOLDERS)
    return Paths(sorted(new + cur), frozenset(new))


def list_by_name(
    maildir: int, opener: Callable[[int, str], int] = open_or_refuse
) -> tuple[Paths, Stamp] | None:
    """The message files that are there now, sorted by their names.

    :param opener: opens the folders.
    :return: ``None`` if something changed meanwhile.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """
    stamp = look(maildir)
    paths = _all_paths(maildir, opener)
    return (paths, stamp) if look(maildir) == stamp else None


class Files(NamedTuple):
    """The message files of a Maildir, by base name."""

    #: Such as ``cur/1700000000.M1P1.host:2,S``.
    paths: dict[str, str]
    #: All messages of each base name that more than one has, in an order that
    #: stays when flags change: by the time of delivery, as far as the file tells it.
    twins: dict[str, list[str]]
    #: Base names of messages that are in both folders at once.
    linked: set[str]
    stamp: Stamp
    #: Whether nothing changed while they were listed.
    steady: bool


def list_files(maildir: int) -> Files:
    """The message files that are there now.

    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """
    # readdir may miss a file that is renamed meanwhile.  A message that is
    # missing from one listing only would be fetched again after the next.
    stamp = look(maildir)
    paths: dict[str, str] = {}
    for _ in range(PATIENCE):
        earlier = paths
        paths, twins, linked = _list_once(maildir)
        before, stamp = stamp, look(maildir)
        if before == stamp:
            return Files(paths, twins, linked, stamp, steady=True)
    # It never holds still.  What was there a moment ago is taken to be there: a
    # message that cannot be read does less harm than one that comes and goes.
    return Files({**earlier, **paths}, twins, linked, stamp, steady=False)


def _list_once(maildir: int) -> tuple[dict[str, str], dict[str, list[str]], set[str]]:
    files = _all_paths(maildir)
    paths = files.by_base_name()
    if len(paths) < len(files):
        return _list_doubles(maildir)
    return paths, {}, set()


def _list_doubles(maildir: int) -> tuple[dict[str, str], dict[str, list[str]], set[str]]:
    """As ``_list_once``, for a Maildir in which base names come up twice."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for name in _file_names(maildir, folder):
            found.setdefault(base_name(name), []).append(f"{folder}/{name}")
    paths = {}
    twins = {}
    linked = set()
    for base, doubles in found.items():
        # Where one message is that was moved while the folders were read, or is
        # linked in both: cur is read last.
        paths[base] = doubles[-1]
        if len(doubles) == 1:
            continue
        files: dict[tuple[int, int], list[str]] = {}
        for path in doubles:
            if (identity := _identity(maildir, path)) is not None:
                files.setdefault(identity, []).append(path)
        if any(len(names) > 1 for names in files.values()):
            linked.add(base)
        if len(files) > 1:
            twins[base] = [files[identity][-1] for identity in sorted(files)]
        elif files:
            (paths[base],) = (names[-1] for names in files.values())
    return paths, twins, linked


def _identity(maildir: int, path: str) -> tuple[int, int] | None:
    """What tells two files of one base name apart whatever they are called: time of writing, inode."""
    part, _, name = path.partition("/")
    folder = open_or_refuse(maildir, part)
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)
    return status.st_mtime_ns, status.st_ino


def locate_all(maildir: int) -> dict[str, str]:
    """The path of each message now, by base name; without those whose base name is not unique.

    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """
    files = list_files(maildir)
    for base in files.twins:
        files.paths.pop(base, None)
    return files.paths
