"""What supervisor and workers tell each other, and through which descriptors.

Both ways it is one JSON value a line.  Down, on the worker's standard input:
the brief, then words of :class:`Word`, or lists of one and a value; its end
means "stop in good order", which it also is when the supervisor was killed.
Up, on :data:`REPORTS`: lists that begin with a :class:`Report`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["COUNTS", "REPORTS", "SOCKETS", "Brief", "Lines", "Report", "Word", "read", "write"]

#: A worker's descriptors: where it reports, the memory that is shared, and the first listening socket.
REPORTS = 3
COUNTS = 4
SOCKETS = 5


class Word(StrEnum):
    """What a worker is told."""

    #: Serve with this from now on, in place of the brief's material.
    MATERIAL = "material"
    #: Send away the oldest stranger of those who read mail, or of those who bring it.
    FEWER_READERS = "fewer readers"
    FEWER_BRINGERS = "fewer bringers"


class Report(StrEnum):
    """What a worker tells."""

    #: It serves now.
    READY = "ready"
    #: It cannot serve; with the line that says why.
    REFUSED = "refused"
    #: A line for the log: level, system, time in seconds, text.
    LOG = "log"
    #: Another worker, by its number, should be told a word.
    TELL = "tell"


@dataclass(frozen=True)
class Brief:
    """What a worker has to know when it starts."""

    #: Its number, from 0, and of how many.
    number: int
    workers: int
    #: Listening sockets that it has from :data:`SOCKETS` on.
    sockets: int
    #: This host's full name.
    host: str
    #: The reactor's name, if one was asked for.
    reactor: str | None = None
    #: What the server is told, as JSON; holds passwords.
    settings: str = field(default="", repr=False)
    #: What it serves with and may not be able to read for itself.  A secret:
    #: never on a disk, on a command line or in an environment.
    material: str = field(default="", repr=False)

    def octets(self) -> bytes:
        """For the way down: a line, and behind it as many octets of material as it says."""
        fields = asdict(self)
        material: bytes = fields.pop("material").encode("ascii")
        line: bytes = write([len(material), fields])
        return line + material

    @classmethod
    def of(cls, line: bytes, take: Callable[[int], bytes]) -> Brief:
        """What was meant.

        :param take: gives so many of the octets behind the line.
        """
        length, fields = json.loads(line)
        return cls(**fields, material=take(length).decode("ascii"))


def write(value: object) -> bytes:
    """One line."""
    # Settings come from a command line, where any octets may be.
    return json.dumps(value).encode("ascii") + b"\n"


def read(line: bytes) -> Any:
    """What a line holds; ``None`` if it is none of ours."""
    try:
        return json.loads(line)
    except ValueError:
        return None


class Lines:
    """Puts lines together from pieces."""

    def __init__(self) -> None:
        self._partial = b""

    def add(self, data: bytes) -> Iterator[bytes]:
        """The lines that are whole now, without their ends."""
        *whole, self._partial = (self._partial + data).split(b"\n")
        return iter(whole)

    def rest(self, give: Callable[[bytes], object]) -> None:
        """The end has come: a last line without its end."""
        if self._partial:
            give(self._partial)
        self._partial = b""
