"""Mail in files: tells mbox (read by ``mbox.py``), Maildir, MH and eml apart, and reads their messages.

The files are read with the administrator's rights, and a user who owns them can exchange them for something
else meanwhile: so only regular files are read, no link within a folder is followed, and on the way to one
only those of whoever owns what is at the end.  Knows no command and no store, but for how
links are followed.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from ..files import check_regular
from ..mail.message_start import header_follows, may_separate, take_off
from ..stores.maildir.links import open_named
from .mbox import Mbox

__all__ = ["FORMATS", "Source", "UnknownFormat", "is_expunged", "open_source"]

FORMATS = ("mbox", "maildir", "mh", "eml")

# A FIFO is opened without waiting for its other end, to be refused then.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_HEADER_END = re.compile(rb"\n\r*\n")
_EXPUNGED = re.compile(rb"^x-mozilla-status:[ \t]*([0-9a-f]{1,4})\b", re.IGNORECASE | re.MULTILINE)


class UnknownFormat(ValueError):
    """A file or folder in which no mail is found; the text says why."""


class Source(NamedTuple):
    """Messages to import."""

    kind: str
    total: int
    #: Each message with a name for it; an error in the place of one that cannot be read.
    messages: Callable[[], Iterator[tuple[str, bytes | OSError]]]
    #: Folders within it, which are not read.
    folders: Sequence[str] = ()
    #: Files among the messages that are none: links, FIFOs, names with a dot.
    left_out: Sequence[str] = ()
    #: Lines like an mbox's separators that were kept as text, in the messages read so far.
    kept_as_text: Callable[[], int] = lambda: 0


def open_source(path: Path, kind: str | None = None) -> Source:
    """Look at a file or folder of mail.

    :param kind: one of ``FORMATS``; found out if not given.
    :raises UnknownFormat: if it is none of these.
    :raises OSError: if it cannot be read.
    """
    found = _kind_of(path) if kind is None or kind == "mbox" else kind
    if kind == "mbox" and found != kind:
        # What stands before the first separator would be lost.
        raise UnknownFormat(f"{path} does not begin like an mbox")
    if found == "mbox":
        mbox = Mbox(path, _opener)
        return Source(
            found,
            len(mbox),
            lambda: ((str(number), message) for number, message in enumerate(mbox, 1)),
            kept_as_text=lambda: mbox.kept_as_text,
        )
    if found == "eml" and not path.is_dir():
        return Source(found, 1, lambda: iter([(path.name, _octets(path, _opener))]))
    with _folder(path) as folder:
        files, folders, left_out = _LOOKS[found](folder)
    return Source(found, len(files), lambda: _messages(path, files), sorted(folders), sorted(left_out))


def is_expunged(message: bytes) -> bool:
    """Whether its owner has deleted it, and Thunderbird has not taken it out of the file yet."""
    end = _HEADER_END.search(message)
    told = _EXPUNGED.search(message, 0, end.start() + 1 if end else len(message))
    return told is not None and bool(int(told[1], 16) & 0x0008)


def _kind_of(path: Path) -> str:
    if path.is_dir():
        with _folder(path) as folder:
            names = os.listdir(folder)
        if "cur" in names and "new" in names:
            return "maildir"
        if ".mh_sequences" in names or any(_is_mh(name) for name in names):
            return "mh"
        if any(_is_eml(name) for name in names):
            return "eml"
        raise UnknownFormat(f"{path} is no Maildir, no MH folder, and holds no .eml files")
    if not path.is_file():
        raise UnknownFormat(f"{path} is neither a regular file nor a folder")
    with open(path, "rb", opener=_opener) as file:
        beginning = _with_line_ends(file.read(1000).removeprefix(codecs.BOM_UTF8))
    # An mbox from which everything was removed is empty; empty lines may stand before the first separator.
    if not beginning or _begins_mbox(beginning.lstrip(b"\r\n")):
        return "mbox"
    if header_follows(beginning):
        return "eml"
    raise UnknownFormat(f"{path} is no mbox, and does not begin like a message")


def _begins_mbox(text: bytes) -> bool:
    """Whether a separator stands here, and no sentence, which would be lost."""
    line, _, rest = text.partition(b"\n")
    return line.startswith(b"From ") and (may_separate(line) or header_follows(rest))


def _is_eml(name: str) -> bool:
    return name.lower().endswith(".eml")


def _is_mh(name: str) -> bool:
    return name.isascii() and name.isdigit()


class _Found(NamedTuple):
    """The files and folders in a folder, as paths within it."""

    files: list[str]
    folders: list[str]
    left_out: list[str]


def _look(folder: int, wanted: Callable[[str], bool]) -> _Found:
    """The files with a message's name, those that are no messages apart, and all folders."""
    found = _Found([], [], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.folders.append(entry.name)
            elif wanted(entry.name):
                is_message = not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
                (found.files if is_message else found.left_out).append(entry.name)
    return found


def _look_at_eml(folder: int) -> _Found:
    files, folders, left_out = _look(folder, _is_eml)
    return _Found(sorted(files), list(filter(_is_eml, folders)), left_out)


def _look_at_mh(folder: int) -> _Found:
    files, folders, left_out = _look(folder, _is_mh)
    return _Found(sorted(files, key=int), folders, left_out)


def _look_at_maildir(folder: int) -> _Found:
    # Maildir++: the folders of a Maildir have a dot.
    folders = [name[1:] for name in _look(folder, lambda name: False).folders if name.startswith(".")]
    files, left_out = [], []
    for part in ("new", "cur"):
        try:
            deeper = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except NotADirectoryError:
            # What O_NOFOLLOW says of a link to a folder, too: that is no part of this Maildir.
            left_out.append(part)
            continue
        try:
            found = _look(deeper, lambda name: True)
        finally:
            os.close(deeper)
        files += [f"{part}/{name}" for name in found.files]
        left_out += [f"{part}/{name}" for name in found.left_out + found.folders]
    # By the times at which they came.
    return _Found(sorted(files, key=_order), folders, left_out)


_LOOKS: Final = {"eml": _look_at_eml, "mh": _look_at_mh, "maildir": _look_at_maildir}


def _order(path: str) -> tuple[int, str]:
    name = os.path.basename(path)
    number = re.match(r"\d+", name)
    return int(number[0]) if number else 0, name


def _messages(path: Path, files: Sequence[str]) -> Iterator[tuple[str, bytes | OSError]]:
    with _folder(path) as folder:
        opener = partial(_open_within, folder)
        for file in files:
            octets = _octets(file, opener)
            if isinstance(octets, FileNotFoundError) and (renamed := _find_again(folder, file)):
                octets = _octets(renamed, opener)
            yield file, octets


def _find_again(folder: int, file: str) -> str | None:
    """The new path of a Maildir's message that a mail program has renamed in the meantime."""
    base = os.path.basename(file).partition(":")[0]
    candidates = _look_at_maildir(folder).files if "/" in file else []
    return next((name for name in candidates if os.path.basename(name).partition(":")[0] == base), None)


def _with_line_ends(text: bytes) -> bytes:
    """The text with LF for CR if all its lines end so, as on the Macs of before 2001."""
    return text if b"\n" in text else text.replace(b"\r", b"\n")


def _octets(path: str | Path, opener: Callable[[str, int], int]) -> bytes | OSError:
    try:
        with open(path, "rb", opener=opener) as file:
            return take_off(_with_line_ends(file.read()))[1]
    except OSError as error:
        return error


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    folder = open_named(str(path), _FOLDER)
    try:
        yield folder
    finally:
        os.close(folder)


def _opener(path: str, flags: int) -> int:
    """Open a file that the administrator has named."""
    return open_named(path, flags | _FILE)


def _open_within(folder: int, path: str, flags: int) -> int:
    """Open a file in a folder, or in a folder within that; no link is followed."""
    part, _, name = path.rpartition("/")
    if not part:
        opened = os.open(name, flags | _FILE | os.O_NOFOLLOW, dir_fd=folder)
        try:
            check_regular(opened, folder, path)
        except OSError:
            os.close(opened)
            raise
        return opened
    deeper = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    try:
        return _open_within(deeper, name, flags)
    finally:
        os.close(deeper)
