"""Mail in files: mbox, Maildir, MH and eml, read and written for import and export.

Read through the standard library's ``mailbox``.  What lives here knows no
command and no store.
"""

from __future__ import annotations

import mailbox
import os
import re
from collections.abc import Callable, Iterator
from email.parser import BytesHeaderParser
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path
from time import asctime, gmtime
from typing import BinaryIO, NamedTuple

__all__ = ["FORMATS", "Source", "UnknownFormat", "open_source", "separator", "write_mbox"]

FORMATS = ("mbox", "maildir", "mh", "eml")

# An mbox quotes lines that look like its separators; mboxrd, and only it, can be
# read back exactly (RFC 4155 leaves it open; qmail's mbox(5) describes it).
_TO_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)


class UnknownFormat(ValueError):
    """A file or folder in which no mail is found; the text says why."""


class Source(NamedTuple):
    """Messages to import."""

    kind: str
    total: int
    #: Each message as it is, with a name for it; one that cannot be read is an error.
    messages: Callable[[], Iterator[tuple[str, bytes | OSError]]]


def open_source(path: Path, kind: str | None = None) -> Source:
    """Look at a file or folder of mail.

    :param kind: one of ``FORMATS``; found out if not given.
    :raises UnknownFormat: if it is none of these.
    :raises OSError: if it cannot be read.
    """
    kind = kind or _kind_of(path)
    if kind == "eml":
        files = sorted(path.glob("*.eml")) if path.is_dir() else [path]
        return Source(kind, len(files), lambda: ((file.name, _octets(file)) for file in files))
    if kind == "mbox":
        mbox = mailbox.mbox(path, create=False)
        return Source(kind, len(mbox), lambda: _messages(mbox, lambda data: _QUOTED.sub(rb"\1", data)))
    box: mailbox.Maildir | mailbox.MH
    box = mailbox.Maildir(path, create=False) if kind == "maildir" else mailbox.MH(path, create=False)
    return Source(kind, len(box), lambda: _messages(box, lambda data: data))


def _kind_of(path: Path) -> str:
    if path.is_dir():
        if (path / "cur").is_dir() and (path / "new").is_dir():
            return "maildir"
        names = os.listdir(path)
        if ".mh_sequences" in names or any(name.isdigit() for name in names):
            return "mh"
        if any(name.endswith(".eml") for name in names):
            return "eml"
        raise UnknownFormat(f"{path} is no Maildir, no MH folder, and holds no .eml files")
    with path.open("rb") as file:
        beginning = file.read(1000)
    if beginning.startswith(b"From "):
        return "mbox"
    if re.match(rb"[!-9;-~]+[ \t]*:", beginning):
        return "eml"
    raise UnknownFormat(f"{path} is no mbox, and does not begin like a message")


def _messages(
    box: mailbox.Mailbox[mailbox.Message], clean: Callable[[bytes], bytes]
) -> Iterator[tuple[str, bytes | OSError]]:
    # By key: in the order of the file, of MH's numbers, of the Maildir's times.
    keys = list(box.keys()) if isinstance(box, mailbox.mbox) else sorted(box.keys(), key=_order)
    for key in keys:
        try:
            yield str(key), clean(box.get_bytes(key))
        except (OSError, KeyError) as error:
            yield str(key), error if isinstance(error, OSError) else OSError(f"{key} has vanished")


def _order(key: str) -> tuple[int, str]:
    number = re.match(r"\d+", str(key))
    return int(number[0]) if number else 0, str(key)


def _octets(file: Path) -> bytes | OSError:
    try:
        return file.read_bytes()
    except OSError as error:
        return error


def separator(message: bytes, fallback: float) -> bytes:
    """The line that stands before a message in an mbox (RFC 4155): its sender, and its time in UTC.

    :param fallback: the time if its Date header tells none.
    """
    header = BytesHeaderParser().parsebytes(message)
    senders = getaddresses([str(header.get("Return-Path") or header.get("From") or "")])
    sender = senders[0][1] if senders and re.fullmatch(r"[!-~]+", senders[0][1]) else "MAILER-DAEMON"
    try:
        when = parsedate_to_datetime(str(header["Date"])).timestamp()
    except (ValueError, TypeError, OverflowError):
        when = fallback
    return f"From {sender} {asctime(gmtime(when))}\n".encode()


def write_mbox(file: BinaryIO, message: bytes, fallback: float) -> None:
    """Add a message to an mbox, in the form mboxrd."""
    message = message.replace(b"\r\n", b"\n")
    end = b"" if message.endswith(b"\n") or not message else b"\n"
    file.write(separator(message, fallback) + _TO_QUOTE.sub(rb">\1", message) + end + b"\n")
