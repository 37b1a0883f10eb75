"""What supervisor and workers tell each other, and through which descriptors.

Both ways it is one JSON value a line.  Down, on the worker's standard input:
the brief, then words of :class:`Word`; its end means "stop in good order", which
it also is when the supervisor was killed.  Up, on :data:`REPORTS`: lists that
begin with a :class:`Report`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = ["COUNTS", "REPORTS", "SOCKETS", "Brief", "Lines", "Report", "Word", "read", "write"]

#: A worker's descriptors: where it reports, the memory that is shared, and the first listening socket.
REPORTS = 3
COUNTS = 4
SOCKETS = 5


class Word(StrEnum):
    """What a worker is told."""

    #: Read your files again.
    RELOAD = "reload"
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
    #: The command line, and the folder in which it was given.
    arguments: Sequence[str]
    folder: str
    #: The reactor's name, if one was asked for.
    reactor: str | None = None

    def line(self) -> bytes:
        """For the way down."""
        return write(asdict(self))

    @classmethod
    def of(cls, line: bytes) -> Brief:
        """What was meant."""
        fields = json.loads(line)
        return cls(**fields)


def write(value: object) -> bytes:
    """One line."""
    # Options come from the command line, where any octets may be.
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
