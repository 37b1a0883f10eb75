"""Mail in files: mbox, Maildir, MH and eml, found out and read.

Maildir and MH are read through the standard library's ``mailbox``, mbox by ``mbox.py``.
What lives here knows no command and no store.
"""

from __future__ import annotations

import codecs
import mailbox
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .mbox import Mbox

__all__ = ["FORMATS", "Source", "UnknownFormat", "open_source"]

FORMATS = ("mbox", "maildir", "mh", "eml")


class UnknownFormat(ValueError):
    """A file or folder in which no mail is found; the text says why."""


class Source(NamedTuple):
    """Messages to import."""

    kind: str
    total: int
    #: Each message as it is, with a name for it; one that cannot be read is an error.
    messages: Callable[[], Iterator[tuple[str, bytes | OSError]]]
    #: Folders within it that are not looked into.
    folders: Sequence[str] = ()


def open_source(path: Path, kind: str | None = None) -> Source:
    """Look at a file or folder of mail.

    :param kind: one of ``FORMATS``; found out if not given.
    :raises UnknownFormat: if it is none of these.
    :raises OSError: if it cannot be read.
    """
    found = _kind_of(path) if kind in (None, "mbox") else kind
    if kind == "mbox" and found != kind:
        # What stands before the first separator would be lost.
        raise UnknownFormat(f"{path} does not begin like an mbox")
    kind = found
    if kind == "eml":
        named = sorted(file for file in path.iterdir() if _is_eml(file.name)) if path.is_dir() else [path]
        files = [file for file in named if not file.is_dir()]
        folders = [file.name for file in named if file.is_dir()]
        return Source(kind, len(files), lambda: ((file.name, _octets(file)) for file in files), folders)
    if kind == "mbox":
        mbox = Mbox(path)
        return Source(kind, len(mbox), lambda: ((str(n), message) for n, message in enumerate(mbox, 1)))
    box: mailbox.Maildir | mailbox.MH
    box = mailbox.Maildir(path, create=False) if kind == "maildir" else mailbox.MH(path, create=False)
    return Source(kind, len(box), lambda: _messages(box), sorted(box.list_folders()))


def _kind_of(path: Path) -> str:
    if path.is_dir():
        if (path / "cur").is_dir() and (path / "new").is_dir():
            return "maildir"
        names = os.listdir(path)
        if ".mh_sequences" in names or any(name.isdigit() for name in names):
            return "mh"
        if any(_is_eml(name) for name in names):
            return "eml"
        raise UnknownFormat(f"{path} is no Maildir, no MH folder, and holds no .eml files")
    with path.open("rb") as file:
        beginning = file.read(1000).removeprefix(codecs.BOM_UTF8)
    # An mbox from which everything was removed is empty.
    if not beginning or beginning.startswith(b"From "):
        return "mbox"
    if re.match(rb"[!-9;-~]+[ \t]*:", beginning):
        return "eml"
    raise UnknownFormat(f"{path} is no mbox, and does not begin like a message")


def _is_eml(name: str) -> bool:
    return name.lower().endswith(".eml")


def _messages(box: mailbox.Maildir | mailbox.MH) -> Iterator[tuple[str, bytes | OSError]]:
    # By key: in the order of MH's numbers, of the Maildir's times.
    for key in sorted(box.keys(), key=_order):
        try:
            yield str(key), box.get_bytes(key)
        except (OSError, KeyError) as error:
            yield str(key), error if isinstance(error, OSError) else OSError(f"{key} has vanished")


def _order(key: str) -> tuple[int, str]:
    number = re.match(r"\d+", str(key))
    return int(number[0]) if number else 0, str(key)


def _octets(file: Path) -> bytes | OSError:
    try:
        # Some programs put a byte order mark before the first header.
        return file.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        return error
