"""Following symbolic links that their owners may exchange at any moment.

Knows nothing of mail.  The kernel follows a link of whomever; here each one is
held first, and the answer is about what was held, whatever has its name since.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from ...files import check_regular

__all__ = ["LeadsOut", "NotTrusted", "Path", "open_named"]

#: Links that are followed on one way, as Linux has it.
MOST_LINKS: Final = 40

# Linux: holds what has a name, a link too, without opening it.  Elsewhere no link is followed.
_HOLD = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLD_FOLDER = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(Exception):
    """A link leads out of the folder that it was to stay in."""


class NotTrusted(Exception):
    """A link belongs to somebody whose links are not followed; the text is its name."""


class Path:
    """A way down from a folder, one name after the other.  A context manager.

    :param root: a folder, which may be reached through links: whoever names it is trusted.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        # The folders on the way, each held: ``..`` goes back to the one before, whatever
        # that is called by now.
        self._folders: list[int] = []
        #: The links on the way, and their owners.
        self._links: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        self._folders.append(os.open(self._root, _HOLD_FOLDER))
        self._identity = self._identity_of(self._folders[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._folders:
            os.close(self._folders.pop())

    def open(self, names: Sequence[str]) -> int:
        """Open the folder at the end of a way; the caller closes the descriptor.

        A link is followed if root, this process or the owner of the folder at the end owns it.
        Otherwise a user could have what belongs to another opened by a link to it.  Apache has
        the same rule (SymLinksIfOwnerMatch).

        :raises LeadsOut: if the end is not below the root.
        :raises NotTrusted: if it leads through a link of somebody else's.
        :raises OSError: if there is nothing, or no folder.
        """
        try:
            self._follow(names)
        except FileNotFoundError:
            self._stay_below()
            raise
        self._stay_below()
        self._trust()
        return os.open(".", _OPEN_FOLDER, dir_fd=self._folders[-1])

    def open_end(self, names: Sequence[str], flags: int) -> int:
        """Open what is at the end of a way, a folder or a regular file, wherever that is.

        :param flags: as for ``os.open``.
        :raises NotTrusted: as :meth:`open`.
        :raises OSError: if it cannot be opened, or is something else or another's.
        """
        self._follow(names)
        self._trust()
        end = self._folders[-1]
        if not stat.S_ISDIR(os.fstat(end).st_mode):
            # A file is always within a folder.
            check_regular(end, self._folders[-2], names[-1])
        return os.open(f"/proc/self/fd/{end}", flags)

    def _trust(self) -> None:
        owner = os.fstat(self._folders[-1]).st_uid
        for name, links_owner in self._links:
            if links_owner not in (0, os.geteuid(), owner):
                raise NotTrusted(name)

    def _follow(self, names: Sequence[str]) -> None:
        left = list(reversed(names))
        while left:
            name = left.pop()
            if name in ("", "."):
                continue
            if name == "..":
                self._go_back()
                continue
            held = os.open(name, _HOLD, dir_fd=self._folders[-1])
            status = os.fstat(held)
            if not stat.S_ISLNK(status.st_mode):
                self._folders.append(held)
                continue
            try:
                # Of the very link that is held.
                target = os.readlink("", dir_fd=held)
            finally:
                os.close(held)
            self._links.append((name, status.st_uid))
            if len(self._links) > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                while self._folders:
                    os.close(self._folders.pop())
                self._folders.append(os.open("/", _HOLD_FOLDER))
            left += reversed(target.split("/"))

    def _go_back(self) -> None:
        if len(self._folders) == 1:
            # Above where it began: what the administrator made, and no user can move.
            self._folders.insert(0, os.open("..", _HOLD_FOLDER, dir_fd=self._folders[0]))
        os.close(self._folders.pop())

    def _stay_below(self) -> None:
        if self._identity not in map(self._identity_of, self._folders):
            raise LeadsOut

    @staticmethod
    def _identity_of(folder: int) -> tuple[int, int]:
        status = os.fstat(folder)
        return status.st_dev, status.st_ino


def open_named(path: str, flags: int) -> int:
    """Open a file or folder that an administrator has named, with rights that its owner may not have.

    Users can put links in the place of what is theirs on the way, so that another's mail is read or a secret:
    links are followed as by :meth:`Path.open`, but may lead anywhere.

    :param flags: as for ``os.open``.
    :raises OSError: if it cannot be opened, or a link is not followed.
    """
    if not hasattr(os, "O_PATH"):
        return os.open(path, flags)
    try:
        with Path("/" if path.startswith("/") else ".") as way:
            return way.open_end(path.split("/"), flags)
    except NotTrusted:
        why = "a link to somebody else's files is not followed"
        raise PermissionError(errno.EPERM, why, path) from None
    except OSError as error:
        # Of the way a part alone is named there.
        raise type(error)(error.errno, error.strerror, path) from None
