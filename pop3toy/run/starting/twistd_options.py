"""twistd's own options: what it would end with a traceback for, and whom the process becomes.

What twistd reads before it looks for our name cannot be caught here: a user or group that is not there,
a umask and a reactor.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator

from twisted.python.reflect import namedAny

from ...errors import CannotStart
from ...files import Owner, acting_as, may, why_unusable
from ..process import TwistdOptions
from .pid_file import why_taken

__all__ = ["check_twistd", "owner_of"]


def owner_of(twistd: TwistdOptions) -> Owner | None:
    """The user that twistd becomes when the ports are open; ``None`` if the user stays the same.

    :raises pop3toy.errors.CannotStart: if there is none of that number, whose groups twistd would not find.
    """
    user, group = twistd.get("uid"), twistd.get("gid")
    if user is None or user == os.geteuid():
        return None
    try:
        known = pwd.getpwuid(user)
    except KeyError:
        raise CannotStart(f"twistd --uid {user}: there is no user of this number") from None
    return Owner(user, known.pw_gid if group is None else group)


def check_twistd(twistd: TwistdOptions) -> None:
    """See that twistd can do what its options ask for.

    :param twistd: its options; its ``postOptions`` has not been called yet.
    :raises pop3toy.errors.CannotStart: with the option that it cannot do.
    """
    for option, path, why in _troubles(twistd):
        raise CannotStart(f"twistd --{option} {path}: {why}")
    logger = twistd.get("logger")
    if isinstance(logger, str):
        try:
            made = callable(namedAny(logger))
        except Exception as error:
            raise CannotStart(f"twistd --logger {logger}: it cannot be imported: {error}") from error
        if not made:
            raise CannotStart(f"twistd --logger {logger}: it cannot be called to make an observer of the log")


def _troubles(twistd: TwistdOptions) -> Iterator[tuple[str, object, str]]:
    """Option, value and what is wrong with it."""
    is_root = os.geteuid() == 0
    if owner_of(twistd) is not None and not is_root:
        yield "uid", twistd["uid"], "only root can become another user"
    try:
        with acting_as(owner_of(twistd)):
            pass
    except OSError as error:
        # As in a container that may not.
        yield "uid", twistd["uid"], (error.strerror or str(error)).lower()
    group = twistd.get("gid")
    if not is_root and group not in (None, os.getegid()):
        yield "gid", group, "only root can change the group"
    root = twistd.get("chroot")
    if root is not None:
        if why := why_unusable(root, stat.S_ISDIR, "folder", os.X_OK, "enter"):
            yield "chroot", root, why
        if not is_root:
            yield "chroot", root, "only root can do that"
    above = "" if root is None else os.path.abspath(root)
    folder = twistd.get("rundir") or "."
    within = _below(above, "/" if above and folder == "." else folder)
    if why := why_unusable(within, stat.S_ISDIR, "folder", os.X_OK, "enter"):
        yield "rundir", folder, why
    log, pid_file, profile = twistd.get("logfile"), twistd.get("pidfile"), twistd.get("profile")
    if log and log != "-":
        yield from _not_written("logfile", log, os.path.abspath(log))
    if pid_file:
        # Looked for where twistd is started, and written below the new root.
        yield from _not_written("pidfile", pid_file, _below(above, os.path.abspath(pid_file)))
        if why := why_taken(pid_file):
            yield "pidfile", pid_file, why
    if profile:
        yield from _not_written("profile", profile, os.path.join(within, profile))


def _below(root: str, path: str) -> str:
    return root + os.path.abspath(path) if root else path


def _not_written(option: str, path: str, where: str) -> Iterator[tuple[str, str, str]]:
    folder, name = os.path.split(where)
    if why := why_unusable(folder, stat.S_ISDIR, "folder", os.W_OK, f"write {name} into"):
        yield option, path, f"{why}: start elsewhere, or say where it goes, twistd --{option} FILE pop3toy"
    elif os.path.isdir(where):
        yield option, path, "this is a folder; name a file in it"
    elif os.path.exists(where) and not may(where, os.W_OK):
        yield option, path, f"no permission to write {where}"
