"""The folder of a Maildir in which removed messages are kept until their time is over.

``pop3toy-removed`` has a folder for each UPDATE in which something was removed, called by when that was::

    pop3toy-removed/20261130T050102.123456Z/1700000000.M1P1.host,S=5,W=6:2,S

in UTC, to the microsecond.  So the time of removal is in a name, which copies and backups keep, and the
message has its own name with its flags, and the time of its file, as it had them.  A second folder with
``-2`` behind the time is for a message whose name another one had, in ``new`` and ``cur``.

Moving a file is one step for whoever looks: after a kill at any moment a message is here or there.  Nothing
here is mail for POP3, quotas, or other programs: Maildir++ takes for folders what begins with a dot.
"""

from __future__ import annotations

import calendar
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeAlias

from ....errors import StoreTrouble
from ....files import owner_of_new
from ..beside.owner import give
from ..folders import fsync_names, open_folder
from ..names import base_name, delivery_time
from ..paths import explained

__all__ = [
    "FOLDER",
    "Keeper",
    "Kept",
    "Tell",
    "base_names",
    "forget",
    "is_due",
    "kept",
    "opened",
    "size",
    "tidy",
]

#: Not a dot file: Maildir++ takes those for sub-folders.
FOLDER: Final = "pop3toy-removed"

#: Is told in a sentence what is left alone.
Tell: TypeAlias = Callable[[str], object]

_NAME: Final = re.compile(r"([0-9]{8}T[0-9]{6})\.([0-9]{6})Z(?:-[0-9]+)?", re.ASCII)
_FORMAT: Final = "%Y%m%dT%H%M%S"


class Kept(NamedTuple):
    """A message that was removed."""

    #: In :data:`FOLDER`.
    folder: str
    name: str
    #: In seconds since the epoch.
    removed: float


class Keeper:
    """Where one UPDATE keeps what it removes.  Made when the first message comes; blocks.

    :param maildir: the open directory, whose lock the session has.
    :param now: the time of day, in seconds since the epoch.
    """

    def __init__(self, maildir: int, now: float) -> None:
        self._maildir = maildir
        self._micros = int(now * 1_000_000)
        self._top: int | None = None
        self._first = ""
        # Open folders by name, and the names of the messages in each.
        self._folders: dict[str, tuple[int, set[str]]] = {}

    def put(self, name: str, folder: int) -> None:
        """Move a message here; none is overwritten.

        :param name: of its file.
        :param folder: the open folder that it is in.
        :raises FileNotFoundError: if it is not there.
        :raises OSError: if it cannot be moved; then it is where it was.
        :raises pop3toy.errors.StoreTrouble: if something else is in the place of the folder.
        """
        place, names = (
            next((one for one in self._folders.values() if name not in one[1]), None) or self._new()
        )
        os.rename(name, name, src_dir_fd=folder, dst_dir_fd=place)
        names.add(name)

    def _new(self) -> tuple[int, set[str]]:
        if self._top is None:
            self._top = _made(self._maildir, FOLDER, exist_ok=True)
        while True:
            # A new one each time: what lies there has names that are free.
            name = f"{self._first}-{len(self._folders) + 1}" if self._first else _name(self._micros)
            try:
                place = _made(self._top, name)
            except FileExistsError:
                if self._first:
                    raise
                self._micros += 1
                continue
            self._first = self._first or name
            self._folders[name] = place, set()
            return self._folders[name]

    def sync(self) -> None:
        """Make durable what was put here.

        :raises OSError: if that cannot be.
        """
        if self._top is not None:
            for place in (*(place for place, _ in self._folders.values()), self._top, self._maildir):
                fsync_names(place)

    def close(self) -> None:
        """Close what is open; folders that got nothing go."""
        for name, (place, names) in self._folders.items():
            os.close(place)
            if not names and self._top is not None:
                _remove_empty(name, self._top)
        self._folders.clear()
        if self._top is not None:
            os.close(self._top)
            self._top = None


def _made(parent: int, name: str, *, exist_ok: bool = False) -> int:
    """Make a folder for the Maildir's owner, and open it."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not exist_ok:
            raise
        return open_folder(parent, name)
    folder = open_folder(parent, name)
    try:
        if owner_of_new(folder, parent) is not None:
            give(folder, parent)
        return folder
    except BaseException:
        os.close(folder)
        raise


def _name(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    return f"{time.strftime(_FORMAT, time.gmtime(seconds))}.{fraction:06}Z"


def _when(name: str) -> float | None:
    """When what is in a folder was removed; ``None`` if that is no folder of ours."""
    match = _NAME.fullmatch(name)
    try:
        return calendar.timegm(time.strptime(match[1], _FORMAT)) + int(match[2]) / 1e6 if match else None
    except ValueError:
        return None


@contextmanager
def _top_of(maildir: int) -> Iterator[int | None]:
    """The folder, open during the block; ``None`` if there is none."""
    try:
        os.stat(FOLDER, dir_fd=maildir, follow_symlinks=False)
    except FileNotFoundError:
        yield None
        return
    top = open_folder(maildir, FOLDER)
    try:
        yield top
    finally:
        os.close(top)


@contextmanager
def opened(maildir: int, folder: str) -> Iterator[int]:
    """A folder of :class:`Kept` messages, open during the block.

    :raises pop3toy.errors.StoreTrouble: if it is none, or cannot be opened.
    """
    top = open_folder(maildir, FOLDER)
    try:
        found = open_folder(top, folder)
    finally:
        os.close(top)
    try:
        yield found
    finally:
        os.close(found)


def _folders(top: int) -> list[tuple[float, str]]:
    """The folders of removals, first the oldest."""
    try:
        return sorted((when, name) for name in os.listdir(top) if (when := _when(name)) is not None)
    except OSError as error:
        raise _trouble(error) from error


def kept(maildir: int, tell: Tell | None = None) -> list[Kept]:
    """What is kept, in the order of its removal, and what was removed together in the order of delivery.

    :param maildir: the open directory.
    :param tell: told of each folder that cannot be read; without it that is trouble.
    :raises pop3toy.errors.StoreTrouble: if that cannot be told.
    """
    found = []
    with _top_of(maildir) as top:
        for when, folder in _folders(top) if top is not None else ():
            with (
                _left_alone(f"/{folder}", tell),
                opened(maildir, folder) as place,
                os.scandir(place) as files,
            ):
                found += [Kept(folder, file.name, when) for file in files if _is_message(file)]
    return sorted(found, key=lambda one: (one.removed, delivery_time(one.name), one.name))


def _is_message(file: os.DirEntry[str]) -> bool:
    return file.is_file(follow_symlinks=False) and file.name[0] != "."


def size(maildir: int, one: Kept) -> int:
    """Octets of a message's file; 0 if it is gone.

    :raises pop3toy.errors.StoreTrouble: if that cannot be told.
    """
    try:
        with opened(maildir, one.folder) as place:
            return os.stat(one.name, dir_fd=place, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _trouble(error, f"/{one.folder}") from error


def base_names(maildir: int) -> set[str]:
    """The base names of what is kept: what is told of these is needed still.

    :raises pop3toy.errors.StoreTrouble: if that cannot be told.
    """
    return {base_name(one.name) for one in kept(maildir)}


def is_due(maildir: int, before: float) -> bool:
    """Whether something was removed at this time or before it.

    :param before: seconds since the epoch.
    :raises pop3toy.errors.StoreTrouble: if that cannot be told.
    """
    with _top_of(maildir) as top:
        return top is not None and any(when <= before for when, _ in _folders(top))


def forget(maildir: int, before: float, tell: Tell | None = None) -> tuple[int, int]:
    """Remove for good what was removed at this time or before it.

    :param before: seconds since the epoch.
    :param tell: told of what cannot be removed; without it that is trouble.
    :return: how many messages that were, and the octets of their files.
    :raises pop3toy.errors.StoreTrouble: if something cannot be removed.
    """
    count = octets = 0
    with _top_of(maildir) as top:
        if top is None:
            return 0, 0
        for when, folder in _folders(top):
            if when > before:
                break
            with _left_alone(f"/{folder}", tell), opened(maildir, folder) as place:
                for name in os.listdir(place):
                    with _left_alone(f"/{folder}/{name}", tell):
                        status = os.stat(name, dir_fd=place, follow_symlinks=False)
                        os.unlink(name, dir_fd=place)
                        if stat.S_ISREG(status.st_mode):
                            count, octets = count + 1, octets + status.st_size
            # What is left in it was told.
            _remove_empty(folder, top)
    _remove_empty(FOLDER, maildir)
    return count, octets


def tidy(maildir: int, folder: str) -> None:
    """Remove a folder of messages if nothing is left in it."""
    with _top_of(maildir) as top:
        if top is not None:
            _remove_empty(folder, top)
    _remove_empty(FOLDER, maildir)


def _remove_empty(folder: str, parent: int) -> None:
    try:
        os.rmdir(folder, dir_fd=parent)
    except OSError:
        # Something is in it, or it is gone.
        pass


@contextmanager
def _left_alone(where: str, tell: Tell | None) -> Iterator[None]:
    """One thing that cannot be used, and is told of: the Maildir's owner may have put anything there."""
    try:
        yield
    except (OSError, StoreTrouble) as error:
        if tell is None:
            if isinstance(error, OSError):
                raise _trouble(error, where) from error
            raise
        why = explained(error) if isinstance(error, OSError) else error.detail
        tell(f"{FOLDER}{where} is left alone: {why}")


def _trouble(error: OSError, where: str = "") -> StoreTrouble:
    return StoreTrouble(detail=f"{FOLDER}{where}: {explained(error)}")
