"""Files and folders that somebody has named: whether one can be used, and why not.

Besides: reading files that others own, writing one that has its name when it is whole, and opening some as
root for the user that it becomes.  A name in a folder into which another user may write can lead anywhere;
so root opens things there as that user, or gives away only what it has looked at once it was open.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import BadSetting

__all__ = [
    "READING",
    "Owner",
    "acting_as",
    "by_its_name",
    "check_readable",
    "check_regular",
    "give",
    "may",
    "new_file",
    "open_regular",
    "opening_in",
    "owner_of_new",
    "why_unusable",
]

#: How a file is opened that others own.  NONBLOCK because opening a FIFO would wait for ever.
READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def check_readable(option: str, path: str) -> None:
    """See that an option names a file that can be read.

    :raises pop3toy.errors.BadSetting: if not.
    """
    if why := why_unusable(path, stat.S_ISREG, "file", os.R_OK, "read"):
        raise BadSetting(option, f": {why}")


def may(path: str, access: int) -> bool:
    """Whether this process may read, write or enter a path, as the user that it is now.

    :param access: as for ``os.access``.
    """
    return os.access(path, access, effective_ids=os.access in os.supports_effective_ids)


def why_unusable(path: str, is_one: Callable[[int], bool], kind: str, access: int, verb: str) -> str | None:
    """Why a path cannot be used, in words; ``None`` if it can.

    :param is_one: tells by a mode whether it is of the kind that is wanted.
    :param access: as for ``os.access``; ``verb`` says it in a word.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return f"there is no {kind} {path}"
    except OSError as error:
        # A folder above it may not be entered, for instance; whether it is there is not known then.
        return f"{path}: {(error.strerror or str(error)).lower()}"
    if not is_one(mode):
        return f"{path} is no {kind}"
    return None if may(path, access) else f"no permission to {verb} {path}"


def open_regular(name: str, folder: int, *, buffering: int = -1) -> BinaryIO:
    """Open a file in a folder whose owner may have put anything in its place, for reading octets.

    :param folder: the open folder.
    :param buffering: as for ``open``.
    :raises OSError: if it cannot be opened, or :func:`check_regular` raises it.
    """
    fd = os.open(name, READING, dir_fd=folder)
    try:
        check_regular(fd, folder, name)
        return open(fd, "rb", buffering=buffering)
    except BaseException:
        # Python's open, which refuses a folder, does not close a descriptor that it was given.
        os.close(fd)
        raise


def check_regular(fd: int, folder: int, name: str) -> None:
    """See that an open file is one of the folder's owner, and not another's that was put there to be read.

    Whoever may write to a folder can give it a second name there (a hard link), if the system lets them.

    :param folder: the open folder.
    :raises OSError: if it is no regular file, or has a second name and another owner than the folder.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", name)
    if status.st_nlink > 1 and status.st_uid != os.fstat(folder).st_uid:
        raise PermissionError(errno.EPERM, "it is somebody else's file, which has another name too", name)


@contextmanager
def new_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Write a file that has its name when it is whole and durable; until then it lies beside.

    Nobody but its owner may read it, unless the block changes that.

    :param path: its name, by which trouble with it is told, too.
    :param replace: whether it takes the place of what is there.
    :raises OSError: if it cannot be written; then nothing is left of it.  ``FileExistsError`` if something
        is there by now.
    """
    with by_its_name(path):
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with by_its_name(path, beside):
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            if not replace:
                try:
                    os.link(beside, path)
                    return
                except FileExistsError:
                    raise
                except OSError:
                    # A file system without links.
                    if os.path.lexists(path):
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), beside) from None
            os.replace(beside, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside)


@contextmanager
def by_its_name(path: str | Path, beside: str | None = None) -> Iterator[None]:
    """Tell what goes wrong in the block by the name that somebody knows, and not by one of the way there.

    :param path: that name.
    :param beside: the other one; trouble with other files is told as it is, and ``None`` stands for all.
    """
    try:
        yield
    except OSError as error:
        if beside is not None and error.filename not in (None, beside):
            raise
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def owner_of_new(made: int, parent: int) -> tuple[int, int] | None:
    """Whose a folder should be that root has just made: of the owner of the folder that it is in.

    Neither the server nor its users could open one of root's.  The parent's owner may have put another of
    root's folders in the place of the new one: what is given away has to be empty.

    :return: user and group; ``None`` for another process than root's, which can give nothing away.
    :raises OSError: if it is not empty.
    """
    owner = os.fstat(parent)
    if os.geteuid() != 0 or owner.st_uid == 0:
        return None
    if os.fstat(made).st_uid != 0 or os.listdir(made):
        raise PermissionError(errno.EPERM, "something else was put in the place of a new folder")
    return owner.st_uid, owner.st_gid


class Owner(NamedTuple):
    """The user and the group that a process becomes which root has started."""

    uid: int
    gid: int


def _is_root_for(owner: Owner | None) -> bool:
    return owner is not None and owner.uid != 0 and os.geteuid() == 0


@contextmanager
def acting_as(owner: Owner | None) -> Iterator[None]:
    """Be that user within the block, with the groups that it will have; nothing for one who is not root.

    :raises OSError: if this process may not.
    """
    if owner is None or not _is_root_for(owner):
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        # What initgroups(3) will set.
        theirs = os.getgrouplist(pwd.getpwuid(owner.uid).pw_name, owner.gid)
    except KeyError:
        theirs = [owner.gid]
    try:
        os.setgroups(theirs)
        os.setegid(owner.gid)
        os.seteuid(owner.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


@contextmanager
def opening_in(folder: str, owner: Owner | None) -> Iterator[bool]:
    """Act as the owner within the block where that user may make files in a folder.

    :return: whether what is made there has to be given to the owner: root makes it, and nobody else can have
        put something in its place.
    """
    with acting_as(owner):
        theirs = may(folder, os.W_OK | os.X_OK)
        if theirs:
            yield False
    if not theirs:
        yield _is_root_for(owner)


def give(path: str, file: int, owner: Owner | None) -> None:
    """Give a file that root has made in a folder of the owner's to the owner, who can replace it anyway.

    Of one in a folder of root's nothing is changed: others may trust what stands in it.

    :param path: its name.
    :param file: the same, open.
    """
    if owner is None or not _is_root_for(owner):
        return
    found = os.fstat(file)
    try:
        named, folder = os.lstat(path), os.stat(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return
    # Neither a link, nor a file of root's that has another name elsewhere.
    alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and os.path.samestat(found, named)
    if alone and found.st_uid == 0 and folder.st_uid == owner.uid:
        os.fchown(file, *owner)
