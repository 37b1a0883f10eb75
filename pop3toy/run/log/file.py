"""The file of ``--log-file``: it is added to, and opened again by its name when somebody has renamed it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence

from ...errors import BadSetting
from ...observe.line_writer import LineWriter

__all__ = ["Reopening", "check_owner", "log_writer"]

#: Of a new file: for its group, so that others may be let read it.
MODE = 0o640


def log_writer(path: str, owner: tuple[int, int] | None, lost: Callable[[int], str]) -> LineWriter:
    """Writes to the file; until it is started, and behind its stop, at once.

    :param owner: user and group that the process will be, where it is still root: a new file is theirs, so
        that they can open it again.
    :param lost: the line that tells how many could not be written.
    """

    def opener(name: str, flags: int) -> int:
        try:
            made = os.open(name, flags | os.O_EXCL, MODE)
        except FileExistsError:
            # In a folder of another user's, root follows no link.
            return os.open(name, (flags & ~os.O_CREAT) | (os.O_NOFOLLOW if _is_others(owner) else 0))
        # Whatever the umask is, a daemon's being 077.
        os.fchmod(made, MODE)
        if owner is not None and _is_others(owner):
            os.fchown(made, *owner)
        return made

    return LineWriter(
        lambda: open(path, "a", buffering=1, encoding="utf-8", opener=opener),
        started=False,
        lost=lost,
        path=path,
        what="the log",
        # The log cannot tell of itself.
        also=lambda text: print(f"pop3toy: {text}", file=sys.__stderr__, flush=True),
    )


def _is_others(owner: tuple[int, int] | None) -> bool:
    return owner is not None and os.geteuid() == 0 and owner[0] != 0


def check_owner(path: str, user: int) -> None:
    """See that a file that is there can be opened again by the user that root will become.

    :raises pop3toy.errors.BadSetting: if not.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise BadSetting("log-file", f": {path} is a link: as root, name the file that it leads to")
    if found.st_uid != user:
        raise BadSetting("log-file", f": {path} belongs to another user than --uid: chown it, or remove it")


class Reopening:
    """Opens files again, as one of the things that SIGHUP asks for.

    :param also: has other processes do so.
    """

    def __init__(self, writers: Sequence[LineWriter], also: Callable[[], object] = lambda: None) -> None:
        self._writers = writers
        self._also = also

    def reload(self) -> None:
        """Go on in the files that have the names now."""
        for writer in self._writers:
            writer.reopen()
        self._also()

    def reload_if_changed(self) -> None:
        """Nothing: somebody who has renamed a file says so."""
