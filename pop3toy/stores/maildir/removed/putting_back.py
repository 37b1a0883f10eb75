"""Removed messages come back into their Maildir: with their names, so with their unique-ids and places.

No file is overwritten, and no unique-id given that another message has.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import groupby

from ....errors import StoreTrouble
from ..beside import uidl_file
from ..folders import fsync_names, list_files, open_folder, put_in_place
from ..names import base_name, unique_id
from ..paths import explained
from ..snapshot import in_listing_order
from .folder import Kept, opened, tidy

__all__ = ["put_back", "unique_ids_of"]

#: Octets of a name in a folder; no file system of Linux takes more.
_LONGEST = 255


def unique_ids_of(maildir: int, messages: Sequence[Kept]) -> list[bytes]:
    """The unique-ids that messages had, and have when they are back.

    :param maildir: the open directory.
    :raises pop3toy.errors.StoreTrouble: if the file of unique-ids cannot be read.
    """
    bases = [base_name(one.name) for one in messages]
    given = uidl_file.load(maildir, dict.fromkeys(bases)).uids
    return [given.get(base) or unique_id(base) for base in bases]


def put_back(maildir: int, wanted: Sequence[Kept], *, look: bool = False) -> list[str]:
    """Put messages into ``cur``, durably.

    After a crash at any moment each is there, or kept still, or both, which the same call again mends.

    :param maildir: the open directory, whose lock the caller has.
    :param look: only tell what would be told.
    :return: for each why it is kept still; empty if it is back.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read or written to.
    """
    files = list_files(maildir)
    taken = {uid.lower() for uid in in_listing_order(maildir, files)[2]}
    there = dict(files.paths)
    left: list[str] = []
    cur = open_folder(maildir, "cur")
    try:
        for one, uid in zip(wanted, unique_ids_of(maildir, wanted), strict=True):
            base = base_name(one.name)
            if base in there:
                same = _is_same(maildir, one, there[base])
                left.append("" if same else "a message with its name is in the mailbox")
            elif uid.lower() in taken:
                left.append("another message has its unique-id")
            else:
                left.append("" if look else _link(maildir, one, cur))
                if not left[-1]:
                    there[base] = f"cur/{_name_in_cur(one.name)}"
                    taken.add(uid.lower())
        if not look:
            # Only what is surely there is removed here.
            fsync_names(cur)
            _remove(maildir, [one for one, why in zip(wanted, left, strict=True) if not why])
    except OSError as error:
        raise StoreTrouble(detail=f"putting messages back: {explained(error)}") from error
    finally:
        os.close(cur)
    return left


def _name_in_cur(name: str) -> str:
    """With flags, none if it had none, as names in ``cur`` have."""
    return name if ":" in name or len(os.fsencode(name)) > _LONGEST - 3 else f"{name}:2,"


def _is_same(maildir: int, one: Kept, path: str) -> bool:
    """Whether a kept message is in the mailbox too: what put it back was interrupted."""
    part, _, name = path.partition("/")
    folder = open_folder(maildir, part)
    try:
        with opened(maildir, one.folder) as place:
            return os.path.samestat(
                os.stat(name, dir_fd=folder, follow_symlinks=False),
                os.stat(one.name, dir_fd=place, follow_symlinks=False),
            )
    except FileNotFoundError:
        return False
    finally:
        os.close(folder)


def _link(maildir: int, one: Kept, cur: int) -> str:
    """Give a message its name in ``cur``; why not, if that cannot be."""
    try:
        with opened(maildir, one.folder) as place:
            if not stat.S_ISREG(os.stat(one.name, dir_fd=place, follow_symlinks=False).st_mode):
                return "it is no file"
            put_in_place(one.name, place, _name_in_cur(one.name), cur)
    except FileExistsError:
        return "a file with its name is in the mailbox"
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        return explained(error)
    return ""


def _remove(maildir: int, back: Sequence[Kept]) -> None:
    """Remove from where it was kept what is in the mailbox."""
    for folder, messages in groupby(sorted(back), key=lambda one: one.folder):
        with opened(maildir, folder) as place:
            for one in messages:
                try:
                    os.unlink(one.name, dir_fd=place)
                except FileNotFoundError:
                    # Renamed, for want of links.
                    continue
            fsync_names(place)
        tidy(maildir, folder)
