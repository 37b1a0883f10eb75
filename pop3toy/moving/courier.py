"""The unique-ids of Courier's POP3 server: ``courierpop3dsizelist``.

Pure.  Courier writes the file in the Maildir at each session that finds something changed::

    /2 3 1700000000
    1700000001.M1P1.host:2,S 44 1:1700000000
    1700000002.M2P2.host 61 0:0

In the first line version, next number, UIDVALIDITY; then the name that a file had, octets, and number and
UIDVALIDITY of its unique-id.  Version 1 has no UIDVALIDITY, and a number alone behind the octets; version
3 a mark for UTF-8 behind them; files of before version 1 have no such first line, and name and octets only.
The unique-id is ``UID<number>-<UIDVALIDITY>``, ``UID<number>`` where that is 0, and the file's name where
the number is 0: as it was in the first versions of Courier.
"""

from __future__ import annotations

import re
from typing import Final

from .dovecot import NotRead
from .matching import Known

__all__ = ["FILE_NAME", "listed"]

FILE_NAME: Final = "courierpop3dsizelist"

_HEAD: Final = re.compile(r"/([123]) ([0-9]+)(?: ([0-9]+))?")
_LINES: Final = {
    0: re.compile(r"(.+) ([0-9]+)"),
    1: re.compile(r"(.+) ([0-9]+) ([0-9]+)(?::([0-9]+))?"),
    2: re.compile(r"(.+) ([0-9]+) ([0-9]+):([0-9]+)"),
    3: re.compile(r"(.+) ([0-9]+) ([0-9]+):([0-9]+):[01]"),
}
_NUMBER: Final = re.compile(r"[0-9]*")


def listed(text: bytes) -> list[Known]:
    """The messages as Courier lists them.

    :raises NotRead: if one line is not understood: none is believed then.
    """
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    if lines.pop():
        raise NotRead(f"{FILE_NAME}: its last line is cut off")
    version, number = 0, 1
    if lines and lines[0].startswith("/"):
        head = _HEAD.fullmatch(lines[0])
        if head is None:
            raise NotRead(f"{FILE_NAME}: its first line is of no version that is known")
        version, number = int(head[1]), 2
        lines = lines[1:]
    found = []
    for at, line in enumerate(lines, number):
        parts = _LINES[version].fullmatch(line)
        if parts is None:
            raise NotRead(f"{FILE_NAME}: line {at} is not understood")
        name, octets, of_message, uidvalidity = (*parts.groups(), None, None)[:4]
        base = str(name).partition(":")[0]
        found.append(Known(_uidl(base, int(of_message or 0), int(uidvalidity or 0)), base, int(str(octets))))
    # As Courier sorts names; its file has them so, unless an old version wrote it.
    return sorted(found, key=lambda one: _place(one.name or ""))


def _place(base: str) -> tuple[int, bytes]:
    digits = _NUMBER.match(base)
    return int(digits[0] or 0) if digits else 0, base.encode("utf-8", "surrogateescape")


def _uidl(base: str, number: int, uidvalidity: int) -> bytes:
    if number:
        return b"UID%d-%d" % (number, uidvalidity) if uidvalidity else b"UID%d" % number
    written = b""
    for octet in base.encode("utf-8", "surrogateescape"):
        plain = 0x21 <= octet <= 0x7E and octet not in b"'\"+"
        written += bytes([octet]) if plain else b"+%02X" % octet
    return written
