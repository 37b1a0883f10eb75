"""From a user's name to the directory of a Maildir: the one place that makes a path of a name.

The administrator's pattern is trusted, the user's name is not: it cannot climb
out of its place, and a symbolic link that leads out of the tree is refused.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from ...errors import NoSuchMailbox, StoreTrouble
from ...files import owner_of_new
from . import links
from .file_systems import HOLD_FOLDER, is_local, open_folder_cached

__all__ = ["MaildirPaths", "explained"]

_PLACEHOLDER = "{user}"
_ADVICE = {
    errno.EACCES: "the server's user needs to read, write and search it",
    errno.EPERM: "the server's user needs to read, write and search it",
    errno.ENOTDIR: "something that is no folder lies in its place; move it away",
    errno.ELOOP: "a link in its place is not followed; put the folder itself there",
    errno.EMFILE: "the server has too many files open; allow it more (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "the whole system has too many files open",
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is mounted read-only",
    errno.EIO: "the disk does not answer; look at the kernel's log",
}
#: What a file system says of a name that it cannot have: no user of this name has mail here.
_NO_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
#: Octets of a name in a folder; no file system of Linux takes more.
_LONGEST = 255
_FOLDERS = ("tmp", "new", "cur")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def explained(error: OSError) -> str:
    """What an error means, for the administrator's log, and what to do about it."""
    advice = _ADVICE.get(error.errno or 0)
    return f"{error.strerror}; {advice}" if advice else f"{error.strerror}"


@lru_cache(maxsize=4096)
def _relative(pattern: tuple[str, ...], user: str) -> tuple[str, ...]:
    # A leading dot would name a Maildir++ sub-folder or a hidden file.
    if not user or user.startswith(".") or "/" in user or "\0" in user or not user.isprintable():
        raise _no_name()
    parts = tuple(part.replace(_PLACEHOLDER, user) for part in pattern)
    try:
        if any(len(os.fsencode(part)) > _LONGEST for part in parts):
            raise _no_name()
    except UnicodeEncodeError:
        # The locale's encoding has not all letters.
        raise _no_name() from None
    return parts


def _no_name() -> NoSuchMailbox:
    return NoSuchMailbox(detail="a user name that cannot be part of a path was refused")


def _trouble(error: OSError, what: str) -> StoreTrouble:
    return _no_name() if error.errno in _NO_NAME else StoreTrouble(detail=f"{what}: {explained(error)}")


class MaildirPaths:
    """Where each user's Maildir is.

    :param pattern: a path with ``{user}`` in it, such as ``/srv/mail/{user}/Maildir``;
        without it, all users share one Maildir.
    :param create: make a missing Maildir when it is first asked for.
    :param advice: what is said behind that there is none.
    """

    def __init__(
        self,
        pattern: str,
        *,
        create: bool = False,
        advice: str = "; make it (with new, cur and tmp in it) or start with --create",
    ) -> None:
        pattern = os.path.abspath(os.path.expanduser(pattern))
        parts = pattern.split(os.sep)
        first = next((at for at, part in enumerate(parts) if _PLACEHOLDER in part), len(parts) - 1)
        #: The directory above the first part that depends on the user.
        self.root = os.sep.join(parts[:first]) or os.sep
        self._beneath_root = os.path.join(self.root, "")
        self._parts = tuple(parts[first:])
        self._create = create
        self._advice = advice
        self._root_in_octets = os.fsencode(self.root)
        # Whether that is on a local disk; false until it was looked at.
        self._root_is_local = False

    def path(self, user: str) -> str:
        """The path of a user's Maildir, whether it exists or not.

        :raises pop3toy.errors.NoSuchMailbox: if the name cannot be part of a path.
        """
        return os.path.join(self.root, *_relative(self._parts, user))

    def open(self, user: str) -> int:
        """Open the directory of a user's Maildir; the caller closes the descriptor.

        Reading, delivery, counting and checks all work below it: what the owner puts in the
        place of the Maildir meanwhile, or of a folder above it, has not been looked at here.

        :raises pop3toy.errors.NoSuchMailbox: if there is none, or the name
            cannot be part of a path.
        :raises pop3toy.errors.StoreTrouble: if it cannot be reached.
        """
        parts = _relative(self._parts, user)
        try:
            return self._descend(parts)
        except FileNotFoundError:
            if not os.path.isdir(self.root):
                # A disk that is not mounted must not look like users who are gone, nor
                # be replaced by a folder in its place.
                raise StoreTrouble(
                    detail=f"there is no folder {self.root!r} for the Maildirs; is its disk mounted?"
                ) from None
            if not self._create:
                raise NoSuchMailbox(detail=f"no Maildir at {self.path(user)!r}{self._advice}") from None
        except OSError as error:
            raise _trouble(error, f"Maildir {self.path(user)!r}") from error
        try:
            self._make(parts)
            return self._descend(parts)
        except OSError as error:
            raise _trouble(error, f"making Maildir {self.path(user)!r}") from error

    def open_cached(self, user: str) -> int | None:
        """The same as far as nothing has to be waited for; for the reactor's thread.

        :return: ``None`` if :meth:`open` has to be asked, in a thread: whatever is not a folder at hand on
            the local disk that the root is on.
        :raises pop3toy.errors.NoSuchMailbox: if the name cannot be part of a path.
        """
        parts = _relative(self._parts, user)
        if not self._root_is_local:
            return None
        return open_folder_cached(self._root_in_octets, "/".join(parts))

    def look_at_root(self) -> None:
        """See whether the root is on a local disk, for :meth:`open_cached`.  Blocks."""
        try:
            root = os.open(self.root, HOLD_FOLDER)
        except OSError:
            self._root_is_local = False
            return
        try:
            self._root_is_local = is_local(root)
        finally:
            os.close(root)

    @contextmanager
    def parent(self, user: str) -> Iterator[tuple[int, str]]:
        """The directory that a user's Maildir is in, open during the block, and the Maildir's name there.

        :raises pop3toy.errors.NoSuchMailbox: if the name cannot be part of a path.
        :raises pop3toy.errors.StoreTrouble: if it cannot be reached.
        """
        *above, name = _relative(self._parts, user)
        try:
            parent = self._descend(above)
        except OSError as error:
            raise _trouble(error, f"the folder of {self.path(user)!r}") from error
        try:
            yield parent, name
        finally:
            os.close(parent)

    @contextmanager
    def parent_made(self, user: str) -> Iterator[tuple[int, str]]:
        """As :meth:`parent`; the folders on the way are made.

        :raises OSError: if they cannot be.
        """
        parts = _relative(self._parts, user)
        parent = self._made_above(parts)
        try:
            yield parent, parts[-1]
        finally:
            os.close(parent)

    @contextmanager
    def opened(self, user: str) -> Iterator[int]:
        """The directory of a user's Maildir, open during the block; trouble within it is told with its path.

        :raises pop3toy.errors.NoSuchMailbox: if there is none.
        :raises pop3toy.errors.StoreTrouble: if it cannot be reached.
        """
        maildir = self.open(user)
        try:
            yield maildir
        except StoreTrouble as error:
            self.say_where(user, error)
            raise
        finally:
            os.close(maildir)

    def say_where(self, user: str, error: BaseException) -> None:
        """Put the Maildir's path, for the log, before what was said by code that knows a descriptor only."""
        if isinstance(error, StoreTrouble) and error.detail:
            error.detail = f"Maildir {self.path(user)!r}: {error.detail}"

    def _descend(self, parts: Sequence[str]) -> int:
        """Open part by part, so that no link on the way is followed without a look at it."""
        if len(parts) == 1:
            # The root is the administrator's; nothing but the last part needs a look.
            try:
                return os.open(self._beneath_root + parts[0], _DIRECTORY)
            except NotADirectoryError:
                return self._through_link(parts)
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                try:
                    deeper = os.open(part, _DIRECTORY, dir_fd=fd)
                except NotADirectoryError:
                    # What O_NOFOLLOW says of a link to a directory, too.
                    return self._through_link(parts)
                os.close(fd)
                fd = deeper
            opened, fd = fd, -1
            return opened
        finally:
            if fd >= 0:
                os.close(fd)

    def _through_link(self, parts: Sequence[str]) -> int:
        with links.Path(self.root) as path:
            try:
                return path.open(parts)
            except links.LeadsOut:
                raise StoreTrouble(
                    detail=f"a symbolic link leads out of {self.root!r} and was not followed: move the"
                    " Maildir there, or name where it is with --maildir"
                ) from None
            except links.NotTrusted as error:
                raise StoreTrouble(
                    detail=f"the symbolic link {str(error)!r} belongs to neither root, nor this server's"
                    " user, nor the owner of what it leads to; it was not followed"
                ) from None

    def _make(self, parts: Sequence[str]) -> None:
        """Make a Maildir and the folders above it."""
        parent = self._made_above(parts)
        try:
            _make_maildir(parent, parts[-1])
        finally:
            os.close(parent)

    def _made_above(self, parts: Sequence[str]) -> int:
        """Make the folders above a Maildir, each in what was opened: no link is followed unseen.

        :return: the last of them, open.
        """
        parent = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for depth, part in enumerate(parts[:-1], 1):
                try:
                    os.mkdir(part, 0o700, dir_fd=parent)
                    made = True
                except FileExistsError:
                    made = False
                deeper = self._descend(parts[:depth])
                try:
                    if made and (owner := owner_of_new(deeper, parent)) is not None:
                        os.fchown(deeper, *owner)
                finally:
                    os.close(parent)
                    parent = deeper
            return parent
        except BaseException:
            os.close(parent)
            raise


def _make_maildir(parent: int, name: str) -> None:
    """Make a whole Maildir in one step: it is never seen half-made."""
    staging = f".new-{secrets.token_hex(8)}"
    os.mkdir(staging, 0o700, dir_fd=parent)
    made = os.open(staging, _DIRECTORY, dir_fd=parent)
    try:
        owner = owner_of_new(made, parent)
        for folder in _FOLDERS:
            os.mkdir(folder, 0o700, dir_fd=made)
            if owner is not None:
                os.chown(folder, *owner, dir_fd=made, follow_symlinks=False)
        if owner is not None:
            # Last: until then nobody else can reach what is in it.
            os.fchown(made, *owner)
        os.rename(staging, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as error:
        for folder, where in (*((folder, made) for folder in _FOLDERS), (staging, parent)):
            try:
                os.rmdir(folder, dir_fd=where)
            except OSError:
                # It was not made yet, or is not what was made.
                pass
        # Somebody else made it at the same moment.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    finally:
        os.close(made)
