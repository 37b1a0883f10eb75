"""Whether a file or folder that the settings name can be used, and why not; reading files that others own."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

from .errors import BadSetting

__all__ = ["READING", "check_readable", "may", "open_regular", "why_unusable"]

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
