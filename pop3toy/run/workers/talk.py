"""What supervisor and workers tell each other, and through which descriptors.

Down, on the worker's standard input: the brief, then lists of a :class:`Word` and a value; the
end means "stop in good order", which it also is when the supervisor was killed.  Up, on
:data:`REPORTS`: lists that begin with a :class:`Report`.  Each is one JSON value a line.  Lines
for the log go up on :data:`LOG`, as they are to be written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["LOG", "REPORTS", "SOCKETS", "Brief", "Lines", "Report", "Word", "read", "write"]

#: A worker's descriptors: where it reports, its lines for the log, and the first listening socket.
REPORTS = 3
LOG = 4
SOCKETS = 5


class Word(StrEnum):
    """What a worker is told."""

    #: Serve with this from now on, in place of the brief's material.
    MATERIAL = "material"
    #: What another worker has told: a list of events.
    TOLD = "told"


class Report(StrEnum):
    """What a worker tells."""

    #: It serves now.
    READY = "ready"
    #: It cannot serve; with the line that says why.
    REFUSED = "refused"
    #: A list of events that all others should hear of, those that are started later as well.
    TELL = "tell"


@dataclass(frozen=True)
class Brief:
    """What a worker has to know when it starts."""

    #: Its number, from 0, and of how many.
    number: int
    workers: int
    #: This host's full name.
    host: str
    #: More than the sessions that a worker of this number can have had before.
    sessions: int = 0
    #: The reactor's name, if one was asked for.
    reactor: str | None = None
    #: What the server is told, as JSON; holds passwords.
    settings: str = field(default="", repr=False)
    #: What it serves with and may not be able to read for itself.  A secret:
    #: never on a disk, on a command line or in an environment.
    material: str = field(default="", repr=False)
    #: A key that all workers of this supervisor have, in hexadecimal digits.
    key: str = field(default="", repr=False)
    #: What workers have told each other before.
    told: Sequence[Any] = ()

    def octets(self) -> bytes:
        """For the way down: a line that says how many octets are behind it."""
        body = write(asdict(self))
        return b"%d\n" % len(body) + body

    @classmethod
    def read(cls, descriptor: int) -> Brief | None:
        """The brief, and not an octet of what is behind it.  Waits; ``None`` if the end comes before."""
        length = b""
        while not length.endswith(b"\n"):
            octet = os.read(descriptor, 1)
            if not octet:
                return None
            length += octet
        body, count = b"", int(length)
        while len(body) < count:
            piece = os.read(descriptor, count - len(body))
            if not piece:
                return None
            body += piece
        return cls(**json.loads(body))


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

    def whole(self, data: bytes) -> bytes:
        """The lines that are whole now, with their ends, in one piece."""
        whole, end, rest = data.rpartition(b"\n")
        if not end:
            self._partial += rest
            return b""
        whole, self._partial = self._partial + whole + end, rest
        return whole

    def add(self, data: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends."""
        return self.whole(data).split(b"\n")[:-1]

    def rest(self, give: Callable[[bytes], object]) -> None:
        """The end has come: a last line without its end."""
        if self._partial:
            give(self._partial)
        self._partial = b""
