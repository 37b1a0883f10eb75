"""What the server changes in a process of its own: memory, open files, garbage collector, signals."""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import Callable
from types import FrameType
from typing import TypedDict

from twisted.application.service import Service
from twisted.logger import Logger

from ..net.types import IReactor

__all__ = ["ProcessTuning", "StopSignals", "TwistdOptions"]

log = Logger()

#: Objects that are made before the garbage collector looks for cycles among them.
#: With Python's default, which is for small programs, it takes as long as listing a
#: large mailbox itself.
GARBAGE_THRESHOLD = 20_000

#: Octets that are taken and given back once, so that the C library (glibc) keeps
#: memory of this size instead of asking the system for each chunk of a body: it
#: adapts to the largest block that was freed.  Large bodies are sent much faster.
LARGEST_BLOCK = 16 * 1024 * 1024


class TwistdOptions(TypedDict, total=False):
    """Those of twistd's own options that matter to a server; empty in another program."""

    nodaemon: bool
    pidfile: str | None
    logfile: str | None
    syslog: bool
    logger: object
    chroot: str | None
    reactor: str | None
    #: Where the process that waits for the daemon is told how its start went.
    statusPipe: int


class ProcessTuning(Service):
    """Done once, when the server starts; a part of ``tap``'s service, not of an embedded server."""

    def startService(self) -> None:
        """Tune the process."""
        super().startService()
        block = bytearray(LARGEST_BLOCK)
        del block
        # What was imported stays for ever; no need to look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD, 10, 10)

    def privilegedStartService(self) -> None:
        """Allow as many open files as the system lets this process have.

        A session has its socket, its maildrop, and a message that is being read.
        """
        super().privilegedStartService()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            log.warn("no more than {soft} open files allowed, hence fewer connections", soft=soft)


class StopSignals(Service):
    """Lets the reactor's own answer to SIGTERM and SIGINT wait for the reactor's next turn.

    Twisted writes a line to the log within the signal handler.  A log file has a lock that
    is not made for that: where the signal came while another line was being written, the
    process waited for itself for ever.

    :param reactor: its handlers are replaced; those of others stay as they are.
    """

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor

    def privilegedStartService(self) -> None:
        """Take over as soon as the reactor has set its handlers, before anything else is told."""
        super().privilegedStartService()
        self._reactor.callWhenRunning(self._take_over)

    def _take_over(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler) and getattr(handler, "__self__", None) is self._reactor:
                signal.signal(number, self._in_turn(handler))

    def _in_turn(
        self, handler: Callable[[int, FrameType | None], object]
    ) -> Callable[[int, FrameType | None], object]:
        return lambda number, frame: self._reactor.callFromThread(handler, number)
