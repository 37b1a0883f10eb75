"""Root, and the user that it becomes: what is opened before the change belongs to that user.

A name in a folder into which another user may write can lead anywhere.  So root opens things there as
that user, or gives away only what it has looked at once it was open.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .files import may

__all__ = ["Owner", "acting_as", "give", "opening_in"]


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
