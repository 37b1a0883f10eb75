"""Whose a new file of a Maildir is: its owner's, who could not read one that root has made."""

from __future__ import annotations

import os

__all__ = ["give", "is_for_another"]


def is_for_another(file: int, maildir: int) -> bool:
    """Whether a Maildir's owner has to be given an open file; of all processes root alone can give one."""
    return os.geteuid() == 0 and os.fstat(file).st_uid != os.fstat(maildir).st_uid


def give(file: int, maildir: int) -> None:
    """Give a new file, or folder, to the owner of the Maildir that it is in.

    :param file: open, and made by this process: what an owner puts in its place is not given away.
    :param maildir: its open directory.
    :raises OSError: if the file system does not let root do that.
    """
    if is_for_another(file, maildir):
        owner = os.fstat(maildir)
        os.fchown(file, owner.st_uid, owner.st_gid)
