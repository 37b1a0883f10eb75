"""What can be wrong in a Maildir, found by looking; nothing is changed.  Blocks."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import partial

from ...errors import StoreTrouble
from ...files import open_regular
from ..same_letter import HEADER, look_at
from .beside import uidl_file
from .count import MAX_LISTED_SIZE
from .folders import open_folder
from .names import base_name

__all__ = ["check_maildir"]

_SAID = re.compile(r",([SW])=(\d+)")
_STALE = 36 * 3600.0


def check_maildir(
    maildir: int, *, read: bool, now: float, max_listed_size: int = MAX_LISTED_SIZE
) -> Iterator[str]:
    """Each problem, as a sentence that begins with the file that has it.

    :param maildir: the open directory, which stays open until all are told.
    :param read: read every message, to compare sizes and to find doubles.
    :param now: the time of day, in seconds.
    :param max_listed_size: octets of a file beyond which it is not read.
    """
    bases: dict[str, str] = {}
    contents: dict[tuple[bytes, bytes], str] = {}
    try:
        uidl_file.load(maildir)
    except StoreTrouble as error:
        yield error.detail
    for part in ("new", "cur", "tmp"):
        try:
            folder = open_folder(maildir, part)
        except StoreTrouble as error:
            yield f"{part}/: {error.detail}"
            continue
        try:
            for name in sorted(os.listdir(folder)):
                where = f"{part}/{name}"
                try:
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if part == "tmp":
                        if now - status.st_mtime > _STALE:
                            yield f"{where}: left there by a delivery that did not end; it can be removed"
                    elif name.startswith("."):
                        continue
                    elif not stat.S_ISREG(status.st_mode):
                        yield f"{where}: not a file"
                    else:
                        yield from _check_name(where, status.st_size, bases)
                        if read and status.st_size > max_listed_size:
                            yield f"{where}: it has {status.st_size} octets, and was not read"
                        elif read:
                            yield from _check_content(folder, name, where, contents)
                except FileNotFoundError:
                    # Fetched and removed meanwhile.
                    continue
                except OSError as error:
                    yield f"{where}: {_why(error)}"
        except OSError as error:
            yield f"{part}/: {_why(error)}"
        finally:
            os.close(folder)


def _check_name(where: str, size: int, bases: dict[str, str]) -> Iterator[str]:
    base = base_name(where)
    first = bases.setdefault(base, where)
    if first != where:
        yield f"{where}: has the same name as {first}; when one is gone the other takes its unique-id"
    for letter, said in _SAID.findall(base):
        if letter == "S" and int(said) != size:
            yield f"{where}: its name says {said} octets on the disk, it has {size}"


def _check_content(
    folder: int, name: str, where: str, contents: dict[tuple[bytes, bytes], str]
) -> Iterator[str]:
    with open_regular(name, folder) as message:
        octets, letter = look_at(iter(partial(message.read, HEADER), b""))
    for kind, said in _SAID.findall(base_name(name)):
        if kind == "W" and int(said) != octets:
            yield f"{where}: its name says {said} octets in POP3, it has {octets}"
    first = contents.setdefault(letter, where)
    if first != where:
        yield f"{where}: the same message as {first}"


def _why(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()
