"""What supervisor and workers write to each other, and through which descriptors.

Down, on the worker's standard input: the :class:`WorkerConfig`, then lists of a :class:`Command` and its
value.  The end of the input means "stop in good order"; it comes as well when the supervisor was killed.
Up, on :data:`REPORTS`: lists that begin with a :class:`Report`.  Each is one JSON value a line.  Lines for
the log go up on :data:`LOG`, as they are to be written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

__all__ = ["LOG", "REPORTS", "SOCKETS", "Command", "LineBuffer", "Report", "WorkerConfig", "read", "write"]

#: A worker's descriptors: where it reports, its lines for the log, and the first listening socket.
REPORTS = 3
LOG = 4
SOCKETS = 5


class Command(StrEnum):
    """What the supervisor tells a worker."""

    #: Serve with this TLS material from now on.
    USE_TLS = "tls"
    #: Serve by these settings from now on: JSON, with passwords in it.
    USE_SETTINGS = "settings"
    #: Know which workers are dead from now on: :attr:`WorkerConfig.ended`.
    USE_ENDED = "ended"
    #: What other workers have told: a list of events.
    NOTE = "note"
    #: What is to be done with its sessions.
    ACT = "act"
    #: Open the files again that conversations are written to.
    REOPEN = "reopen"


class Report(StrEnum):
    """What a worker tells the supervisor."""

    #: It serves now.
    READY = "ready"
    #: It cannot serve; with the line that says why.
    REFUSED = "refused"
    #: A list of events for all other workers, those that are started later as well.
    TELL = "tell"
    #: A list of what has happened in its sessions, for the supervisor.
    HAPPENED = "happened"


@dataclass(frozen=True)
class WorkerConfig:
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
    #: The server's settings as JSON; hold passwords.
    settings: str = field(default="", repr=False)
    #: Certificates and keys as JSON, which the worker may not be able to read for itself.  A secret:
    #: never on a disk, on a command line or in an environment.
    tls: str = field(default="", repr=False)
    #: A key that all workers of this supervisor have, in hexadecimal digits.
    key: str = field(default="", repr=False)
    #: What tells this start of the server from others.
    boot: str = ""
    #: How many processes of each worker have ended before, its own among them.
    ended: Sequence[int] = field(default_factory=list)
    #: The folder for numbers that the supervisor adds up; empty where there are none.
    metrics: str = ""
    #: The events that workers have told each other before.
    events: Sequence[Sequence[object]] = ()

    def octets(self) -> bytes:
        """For the pipe: a line with the number of octets that follow, and these."""
        body = write(asdict(self))
        return b"%d\n" % len(body) + body

    @classmethod
    def read(cls, descriptor: int) -> WorkerConfig | None:
        """Read it from the pipe, and not an octet more.  Waits; ``None`` if the end comes first."""
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


def read(line: bytes) -> object:
    """The JSON value of a line; ``None`` if it is none."""
    try:
        value: object = json.loads(line)
    except ValueError:
        return None
    return value


class LineBuffer:
    """Makes lines of the pieces in which they come."""

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
