"""Making the names in directories durable, with one fsync for all deliveries that wait at the same time.

Knows nothing of mail.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, Self

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ....net.threads import RunInThread
from ..folders import fsync_names

__all__ = ["Directory", "DirectorySyncs"]


class Directory(NamedTuple):
    """A directory that is open; the holder closes it."""

    handle: int
    #: Device and inode: the same however often it was opened.
    identity: tuple[int, int]

    @classmethod
    def of(cls, handle: int) -> Self:
        """The directory of a descriptor."""
        status = os.fstat(handle)
        return cls(handle, (status.st_dev, status.st_ino))


class _Waiting(NamedTuple):
    result: Deferred[None]
    handle: int
    run_in_thread: RunInThread


class DirectorySyncs:
    """Fsyncs of directories: deliveries that ask for one while one is running share the next one.

    The one that is running may have begun before a delivery's file had its name, so
    it does not count for that delivery.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], list[_Waiting]] = {}
        self._running: set[tuple[int, int]] = set()

    def sync(self, directory: Directory, run_in_thread: RunInThread) -> Deferred[None]:
        """Fires when every name that is in the directory now is durable; it stays open until then.

        :param run_in_thread: where that may be done, unless another delivery's thread does it.
        """
        result: Deferred[None] = Deferred()
        waiting = _Waiting(result, directory.handle, run_in_thread)
        self._waiting.setdefault(directory.identity, []).append(waiting)
        if directory.identity not in self._running:
            self._start(directory.identity)
        return result

    def _start(self, identity: tuple[int, int]) -> None:
        self._running.add(identity)
        waiting = self._waiting.pop(identity)
        # All wait, so any of their descriptors is open.
        first = waiting[0]
        first.run_in_thread(fsync_names, first.handle).addBoth(self._done, identity, waiting)

    def _done(self, result: Failure | None, identity: tuple[int, int], waiting: Sequence[_Waiting]) -> None:
        self._running.discard(identity)
        if identity in self._waiting:
            self._start(identity)
        for each in waiting:
            each.result.callback(result)
