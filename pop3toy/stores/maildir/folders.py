"""The folders of a Maildir: whether they have changed, and which message files are in them.

Plain functions over a directory's file descriptor, which block.  Other programs rename
and remove files meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...errors import InUse, StoreTrouble
from .file_systems import cached_opener
from .names import base_name
from .paths import explained

__all__ = [
    "FOLDERS",
    "MAX_LISTINGS",
    "MTIME_GRANULARITY",
    "Files",
    "Stamp",
    "WouldWait",
    "fsync_names",
    "list_files",
    "locate_all",
    "lock",
    "open_folder",
    "open_folder_cached",
    "put_in_place",
    "stat_folders",
]

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: The folders that hold messages.  ``new`` is read first: a message that another
#: program moves to ``cur`` in the meantime is then seen twice, not missed.
FOLDERS: Final = ("new", "cur")

#: Listings of a Maildir that changes during each of them, before the last is believed.
MAX_LISTINGS: Final = 5

#: Seconds within which two changes of a directory may leave the same time on it.  Linux file systems
#: are exact to some milliseconds, but FAT and some network file systems count in twos.
MTIME_GRANULARITY: Final = 2.0


class WouldWait(Exception):
    """What was asked for may have to wait for the disk, and the caller must not."""


class NoFolder(StoreTrouble):
    """A Maildir has not all of its folders."""


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

    def is_old(self, now: float) -> bool:
        """Whether a change from now on leaves another stamp, as it does not if the last one was too fresh.

        :param now: seconds since the epoch.
        """
        changed = max(self.new_modified, self.new_changed, self.cur_modified, self.cur_changed)
        return now - changed / 1e9 > MTIME_GRANULARITY


def stat_folders(maildir: int) -> Stamp:
    """The stamp of a Maildir given as an open directory.

    :raises pop3toy.errors.StoreTrouble: if it is half-made, or a folder of it
        leads elsewhere.
    """
    new, cur = _folder_status(maildir, "new"), _folder_status(maildir, "cur")
    try:
        # Nothing is read there; but what deliveries refuse is refused here, too.
        _folder_status(maildir, "tmp")
    except NoFolder:
        # As in a copy made by a program that leaves out what is empty.
        pass
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
    except OSError as error:
        raise _refused(folder, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise _refused(folder, NotADirectoryError())
    return status


def _refused(folder: str, error: OSError) -> StoreTrouble:
    """Why ``new``, ``cur`` or ``tmp`` cannot be used, for reading and delivery alike."""
    if isinstance(error, FileNotFoundError):
        return NoFolder(detail=f"half-made Maildir: it has no folder {folder}/; make new, cur and tmp")
    # ENOTDIR is what O_NOFOLLOW says of a link to a folder, too.
    if isinstance(error, NotADirectoryError) or error.errno == errno.ELOOP:
        return StoreTrouble(
            detail=f"{folder} in a Maildir is not a folder of its own (links are not followed);"
            " put a folder in its place"
        )
    return StoreTrouble(detail=f"folder {folder}/ of a Maildir: {explained(error)}")


def open_folder(maildir: int, folder: str) -> int:
    """Open ``new``, ``cur`` or ``tmp``; never through a link.

    :raises pop3toy.errors.StoreTrouble: if it is none, or cannot be opened.
    """
    try:
        return os.open(folder, _OPEN_FOLDER, dir_fd=maildir)
    except OSError as error:
        raise _refused(folder, error) from error


#: The same, for the reactor's thread: ``None`` if the kernel has it not at hand.
open_folder_cached = cached_opener(_OPEN_FOLDER)


def lock(maildir: int) -> None:
    """Take the lock of a session, which goes with the descriptor.

    :raises pop3toy.errors.InUse: if another session or process has it.
    :raises pop3toy.errors.StoreTrouble: if there are no locks.
    """
    try:
        fcntl.flock(maildir, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse from None
    except OSError as error:
        raise StoreTrouble(detail=f"locking a Maildir: {explained(error)}") from error


def fsync_names(directory: int) -> None:
    """Make the names in an open directory durable.  Blocks."""
    try:
        os.fsync(directory)
    except OSError as error:
        # Some file systems (FUSE, SMB) know no fsync of a directory and say so
        # with EINVAL; what they do is all that they can do.  Postfix takes it so too.
        if error.errno != errno.EINVAL:
            raise


def put_in_place(old: str, source: int, new: str, target: int) -> None:
    """Give a file a name in an open folder, and overwrite nothing; it may have its old name still.

    :raises FileExistsError: if something has that name.
    """
    try:
        os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "something else has its name", new) from None
    except OSError:
        # A file system without links, or a file that this process may not link.
        try:
            os.stat(new, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
        else:
            raise FileExistsError(errno.EEXIST, "something else has its name", new) from None


class Files(NamedTuple):
    """The message files of a Maildir."""

    #: Paths such as ``cur/1700000000.M1P1.host:2,S``, by base name.
    paths: dict[str, str]
    #: All messages of each base name that more than one has, in an order that
    #: stays when flags change: by the time of writing.
    duplicates: dict[str, list[str]]
    #: Base names of messages that are linked in both folders: one message each.
    linked: set[str]
    #: Of before they were listed.
    stamp: Stamp
    #: Whether nothing changed while they were listed.
    steady: bool


def list_files(maildir: int, *, may_wait: bool = True) -> Files:
    """The message files that are there now.

    :param may_wait: whether the disk may be waited for.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    :raises WouldWait: if that would be necessary and must not be.
    """
    # readdir may miss a file that is renamed meanwhile.  A message that is
    # missing from one listing only would be fetched again after the next.
    stamp = stat_folders(maildir)
    paths: dict[str, str] = {}
    for _ in range(MAX_LISTINGS):
        earlier = paths
        new, cur = (_file_names(maildir, folder, may_wait) for folder in FOLDERS)
        # Of a message that was moved meanwhile, and is in both, the path in cur stays.
        paths = {name.partition(":")[0]: f"new/{name}" for name in new}
        paths |= {name.partition(":")[0]: f"cur/{name}" for name in cur}
        duplicates: dict[str, list[str]] = {}
        linked: set[str] = set()
        if len(paths) < len(new) + len(cur):
            if not may_wait:
                raise WouldWait
            found = [f"new/{name}" for name in sorted(new)] + [f"cur/{name}" for name in sorted(cur)]
            duplicates, linked = _sort_out(maildir, paths, found)
        before, stamp = stamp, stat_folders(maildir)
        if before == stamp:
            return Files(paths, duplicates, linked, stamp, steady=True)
    # It never holds still.  What was there a moment ago is taken to be there: a
    # message that cannot be read does less harm than one that comes and goes.
    return Files({**earlier, **paths}, duplicates, linked, stamp, steady=False)


def _sort_out(
    maildir: int, paths: dict[str, str], found: Sequence[str]
) -> tuple[dict[str, list[str]], set[str]]:
    """Which base names are several messages', and which one's that has several names; corrects ``paths``."""
    by_base: dict[str, list[str]] = {}
    for path in found:
        by_base.setdefault(base_name(path), []).append(path)
    duplicates, linked = {}, set()
    for base, same in by_base.items():
        files: dict[tuple[int, int], str] = {}
        for path in same if len(same) > 1 else ():
            if (identity := _identity(maildir, path)) is not None:
                if identity in files:
                    linked.add(base)
                files[identity] = path
        if len(files) > 1:
            duplicates[base] = [files[identity] for identity in sorted(files)]
        elif files:
            (paths[base],) = files.values()
    return duplicates, linked


def locate_all(maildir: int) -> dict[str, str]:
    """The path of each message now, by base name; without those whose base name is not unique.

    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """
    files = list_files(maildir)
    return {base: path for base, path in files.paths.items() if base not in files.duplicates}


def _file_names(maildir: int, folder: str, may_wait: bool) -> Sequence[str]:
    """The message files of a folder: regular files that do not begin with a dot."""
    fd = open_folder(maildir, folder) if may_wait else open_folder_cached(maildir, folder)
    if fd is None:
        raise WouldWait
    try:
        with os.scandir(fd) as found:
            return [
                item.name for item in found if item.is_file(follow_symlinks=False) and item.name[0] != "."
            ]
    except OSError as error:
        raise _refused(folder, error) from error
    finally:
        os.close(fd)


def _identity(maildir: int, path: str) -> tuple[int, int] | None:
    """What tells two files of one base name apart whatever they are called: time of writing, inode."""
    part, _, name = path.partition("/")
    folder = open_folder(maildir, part)
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)
    return status.st_mtime_ns, status.st_ino
