"""What can be wrong in a Maildir, found by looking; nothing is changed.  Blocks."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..wire import Encoder
from .maildir_names import base_name

__all__ = ["check_maildir"]

_SAID = re.compile(r",([SW])=(\d+)")
_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>]*>)", re.IGNORECASE | re.MULTILINE)
_STALE = 36 * 3600.0
_CHUNK = 256 * 1024
#: Octets in which a header ends, as far as anybody looks for its Message-ID; what is
#: no message may have no end of a header at all.
_HEADER = 1024 * 1024


def check_maildir(maildir: str | Path, *, read: bool, now: float) -> Iterator[str]:
    """Each problem, as a sentence that begins with the file that has it.

    :param read: read every message, to compare sizes and to find doubles.
    :param now: the time of day, in seconds.
    """
    root = Path(maildir)
    bases: dict[str, str] = {}
    contents: dict[tuple[bytes, bytes], str] = {}
    for folder in ("new", "cur", "tmp"):
        try:
            files = sorted(os.scandir(root / folder), key=lambda file: file.name)
        except OSError as error:
            yield f"{folder}/: {_why(error)}"
            continue
        for file in files:
            where = f"{folder}/{file.name}"
            try:
                if folder == "tmp":
                    if now - file.stat(follow_symlinks=False).st_mtime > _STALE:
                        yield f"{where}: left there by a delivery that did not end; it can be removed"
                elif not file.name.startswith("."):
                    yield from _check_name(file, where, bases)
                    if read:
                        yield from _check_content(file, where, contents)
            except FileNotFoundError:
                # Fetched and removed meanwhile.
                continue
            except OSError as error:
                yield f"{where}: {_why(error)}"


def _check_name(file: os.DirEntry[str], where: str, bases: dict[str, str]) -> Iterator[str]:
    if not file.is_file(follow_symlinks=False):
        yield f"{where}: not a file"
        return
    first = bases.setdefault(base_name(file.name), where)
    if first != where:
        yield f"{where}: has the same name as {first}; when one is gone the other takes its unique-id"
    size = file.stat(follow_symlinks=False).st_size
    for letter, said in _SAID.findall(base_name(file.name)):
        if letter == "S" and int(said) != size:
            yield f"{where}: its name says {said} octets on the disk, it has {size}"


def _check_content(
    file: os.DirEntry[str], where: str, contents: dict[tuple[bytes, bytes], str]
) -> Iterator[str]:
    if not file.is_file(follow_symlinks=False):
        return
    wire, whole, body = Encoder(), hashlib.sha256(), hashlib.sha256()
    with open(file.path, "rb") as message:
        start = message.read(_HEADER)
        end = re.search(rb"\n\r*+\n", start)
        header = start[: end.start()] if end else start
        body.update(start[end.end() :] if end else b"")
        chunk = start
        while chunk:
            wire.feed(chunk)
            whole.update(chunk)
            if chunk := message.read(_CHUNK):
                body.update(chunk)
    wire.finish()
    for letter, said in _SAID.findall(base_name(file.name)):
        if letter == "W" and int(said) != wire.octets:
            yield f"{where}: its name says {said} octets in POP3, it has {wire.octets}"
    ident = _MESSAGE_ID.search(header)
    # The same letter that came twice differs in Received; without a Message-ID only
    # what is the same octet for octet is taken for that.
    same = (ident[1], body.digest()) if ident is not None else (b"", whole.digest())
    first = contents.setdefault(same, where)
    if first != where:
        yield f"{where}: the same message as {first}"


def _why(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()
