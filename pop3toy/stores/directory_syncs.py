"""Making the names in directories durable, with one fsync for all who wait at the same time.

Knows nothing of mail.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred

from ..threads import RunInThread

__all__ = ["DirectorySyncs", "fsync_directory", "fsync_names"]


class DirectorySyncs:
    """Fsyncs of directories: who asks while one is running shares the next one.

    The one that is running may have begun before the asker's file had its name,
    so it does not count for the asker.
    """

    def __init__(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._running: set[str] = set()

    def sync(self, directory: str) -> Deferred[None]:
        """Fires when every name that is in the directory now is durable."""
        waiting: Deferred[None] = Deferred()
        self._waiting.setdefault(directory, []).append(waiting)
        if directory not in self._running:
            self._start(directory)
        return waiting

    def _start(self, directory: str) -> None:
        self._running.add(directory)
        waiting = self._waiting.pop(directory)
        self._run_in_thread(fsync_directory, directory).addBoth(self._done, directory, waiting)

    def _done(self, result: Any, directory: str, waiting: list[Deferred[None]]) -> None:
        self._running.discard(directory)
        if directory in self._waiting:
            self._start(directory)
        for each in waiting:
            each.callback(result)


def fsync_directory(directory: str) -> None:
    """Make the names in a directory durable.  Blocks."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync_names(handle)
    finally:
        os.close(handle)


def fsync_names(directory: int) -> None:
    """The same for a directory that is open."""
    try:
        os.fsync(directory)
    except OSError as error:
        # Some file systems (FUSE, SMB) know no fsync of a directory and say so
        # with EINVAL; what they do is all that they can do.  Postfix takes it so too.
        if error.errno != errno.EINVAL:
            raise
