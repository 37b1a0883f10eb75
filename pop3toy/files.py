"""Whether a file or folder that the settings name can be used, and why not; files of others, and for others.

Root opens some for the user that it becomes.  A name in a folder into which another user may write can
lead anywhere; so root opens things there as that user, or gives away only what it has looked at once it
was open.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from .errors import BadSetting

__all__ = [
    "READING",
    "Owner",
    "acting_as",
    "check_readable",
    "give",
    "may",
    "open_regular",
    "opening_in",
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
    :raises OSError: if it cannot be opened, or is a link, a folder, a FIFO or a device.
    """
    fd = os.open(name, READING, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", name)
        return open(fd, "rb", buffering=buffering)
    except BaseException:
        # Python's open, which refuses a folder, does not close a descriptor that it was given.
        os.close(fd)
        raise


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
