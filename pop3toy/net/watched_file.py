"""Files that others change: whether one is another than before, and can be believed already."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

__all__ = ["Content", "being_written", "is_unchanged", "read"]

#: Seconds: a file that changed less long ago may be half written, or change again
#: and keep its time; FAT and some network file systems count in twos.
UNSETTLED = 2.0

_signature = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


class Content(NamedTuple):
    """What was read of a file."""

    octets: bytes
    status: os.stat_result
    #: For :func:`is_unchanged`; ``None`` if it may still change unseen.
    signature: object
    #: See :func:`being_written`.
    being_written: bool

    @property
    def whole_lines(self) -> bool:
        """Whether the last line has an end."""
        return self.octets.endswith((b"\n", b"\r"))

    def in_doubt(self, before: Set[object], now: Set[object]) -> bool:
        """Whether it may say half the truth: just being written, it lacks a user or ends within a line."""
        return bool(before) and self.being_written and not (self.whole_lines and before <= now)


def read(path: str | Path, wall: Callable[[], float]) -> Content:
    """Read a file that may be being changed.

    :param wall: the file system's time of day, in seconds.
    :raises OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        # Of before: a change while it is read makes it another file.
        signature = _signature(os.fstat(file.fileno()))
        octets = file.read()
        status = os.fstat(file.fileno())
    now = wall()
    settled = abs(now - status.st_mtime) > UNSETTLED
    return Content(octets, status, signature if settled else None, being_written(status, now))


def is_unchanged(path: str | Path, signature: object) -> bool:
    """Whether a file is the one that was read; no if that cannot be said: reading it says why."""
    try:
        return signature is not None and signature == _signature(os.stat(path))
    except OSError:
        return False


def being_written(status: os.stat_result, now: float) -> bool:
    """Whether a file was written to a moment ago, so that more may follow.

    Writing sets both of a file's times; what comes after the last write, such
    as the renaming by which whole files are put in place, sets ``st_ctime`` alone.  A renaming
    within the same tick of the file system's clock cannot be told from writing: such a file is
    in doubt for :data:`UNSETTLED` seconds.

    :param now: the file system's time of day, in seconds.
    """
    return abs(now - status.st_mtime) <= UNSETTLED and status.st_ctime_ns <= status.st_mtime_ns
