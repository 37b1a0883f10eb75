"""What a server says, as it came: a first line, and the rest of a multi-line answer.

Read liberally: ``+ok`` is a yes.  Whether it should have been ``+OK`` is for the checks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Block", "Reply", "shown"]

_CODE = re.compile(rb"\[([^\]\r\n]*)\]")


class Reply(NamedTuple):
    """The first line of an answer.

    :ivar asked: the command that it answers, without secrets; ``(greeting)`` for none.
    :ivar raw: the octets, with the end of the line.
    """

    asked: str
    raw: bytes

    @property
    def line(self) -> bytes:
        """Without the end of the line."""
        return self.raw.rstrip(b"\r\n")

    @property
    def ok(self) -> bool:
        """Whether it is a yes, if need be in small letters."""
        return self.raw[:3].upper() == b"+OK"

    @property
    def refused(self) -> bool:
        """Whether it is a no, if need be in small letters."""
        return self.raw[:4].upper() == b"-ERR"

    @property
    def challenge(self) -> bool:
        """Whether the server waits for a line of SASL (RFC 5034)."""
        return self.raw[:1] == b"+" and not self.ok

    @property
    def text(self) -> bytes:
        """What stands behind the status."""
        return self.line[4 if self.refused else 3 if self.ok else 0 :].strip(b" ")

    @property
    def code(self) -> bytes:
        """The response code (RFC 2449 section 8) without its brackets; empty if there is none."""
        found = _CODE.match(self.text)
        return found[1] if found else b""

    @property
    def later(self) -> bool:
        """Whether a login is refused for now (RFC 2449 section 8): in use, or too soon behind another."""
        return self.refused and self.code.upper() in (b"IN-USE", b"LOGIN-DELAY")

    def __str__(self) -> str:
        return f"{self.asked} is answered by {shown(self.line)}"


class Block(NamedTuple):
    """The rest of a multi-line reply.

    :ivar raw: as it came, without the line of the final dot.
    :ivar end: that line.
    """

    raw: bytes
    end: bytes

    @property
    def lines(self) -> list[bytes]:
        """Its lines without their ends, a stuffed dot taken off."""
        return [line[1:] if line[:1] == b"." else line for line in self.stuffed_lines]

    @property
    def stuffed_lines(self) -> list[bytes]:
        """Its lines without their ends, as they came."""
        return [line.removesuffix(b"\r") for line in self.raw.split(b"\n")[:-1]]

    @property
    def message(self) -> bytes:
        """The octets of a message: as they came, stuffed dots taken off."""
        return re.sub(rb"(?m)^\.", b"", self.raw) if b"." in self.raw else self.raw


def shown(line: bytes) -> str:
    """What the server said, in a sentence."""
    return f'"{line[:100].decode("utf-8", "backslashreplace")}"'
