"""A daemon that cannot start: somebody waits for it, and is told why in one line.

twistd's own process that waits reads a hundred octets and shows them as Python writes bytes.  So it is
started as a process of its own, whose words are shown only if the daemon has not said why.
"""

from __future__ import annotations

import os
import sys

from twisted.application.service import Service

__all__ = ["AwaitedStart"]

#: Octets that are read of what the processes say.
MOST = 65_536


class AwaitedStart(Service):
    """The daemon's start, and the process that waits for it; a part of the server, as its last one.

    Nothing is different where :meth:`divide` was not called: then there is no daemon.
    """

    def __init__(self) -> None:
        self._why: int | None = None

    def divide(self) -> int | None:
        """Divide the process: into one that waits, and another that goes on to become the daemon.

        :return: in the one that has waited, the status to exit with at once; in the other, ``None``.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        why, to_why = os.pipe()
        words, to_words = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(why)
            os.close(words)
            # twistd's words; a daemon has no standard error any more.
            os.dup2(to_words, 2)
            os.close(to_words)
            self._why = to_why
            return None
        os.close(to_words)
        for pipe in (why, words):
            # Whatever still has its other end: what is to be said has been said.
            os.set_blocking(pipe, False)
        try:
            _, status = os.waitpid(child, 0)
        except KeyboardInterrupt:
            return 130
        said = _read(why) or _read(words)
        if said:
            os.write(2, said)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def cannot_start(self, line: str) -> bool:
        """Say why, in the daemon; whether somebody waits for that."""
        why, self._why = self._why, None
        if why is None:
            return False
        try:
            os.write(why, f"{line}\n".encode("utf-8", "backslashreplace")[: MOST // 16])
        except OSError:
            # Nobody waits any more.
            pass
        os.close(why)
        return True

    def startService(self) -> None:
        """The daemon runs."""
        super().startService()
        why, self._why = self._why, None
        if why is not None:
            os.close(why)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, MOST)
    except BlockingIOError:
        return b""
