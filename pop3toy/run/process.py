"""What a process can bear, and what the server changes in one of its own: open files, memory, signals.

Each connection needs open files, which ``RLIMIT_NOFILE`` bounds.
"""

from __future__ import annotations

import gc
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Final, TypedDict

from twisted.application.service import Service
from twisted.logger import Logger, LogLevel

from ..auth.throttle.connection_limiter import ConnectionLimits
from ..auth.throttle.origins import Networks
from ..config.settings import Settings
from ..net.types import IReactor

__all__ = ["Fitting", "ProcessTuning", "StopSignals", "TwistdOptions", "fitting", "most_open_files"]

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
    profile: str | None
    chroot: str | None
    rundir: str
    uid: int | None
    gid: int | None
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
    :param again: is called when another signal comes, while the server stops.
    """

    def __init__(self, reactor: IReactor, again: Callable[[], object] = lambda: None) -> None:
        self._reactor = reactor
        self._again = again
        self._told = False

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
        return lambda number, frame: self._reactor.callFromThread(self._stop, handler, number)

    def _stop(self, handler: Callable[[int], object], number: int) -> None:
        if self._told:
            # A reactor that stops already would only complain.
            self._again()
        else:
            self._told = True
            handler(number)


#: Open files besides those of connections: a dozen of Python's, Twisted's and the log's, the listening
#: sockets, and what threads open for moments.
RESERVE: Final = 40
#: Open files of one connection.  POP3: the socket, the Maildir with its lock, ``new`` and ``cur``, a message.
POP3_FILES: Final = 5
#: SMTP and LMTP: the socket, a folder and the message in it, and a Maildir for a moment.
SMTP_FILES: Final = 4
#: Where mail is in memory: the socket.
TOY_FILES: Final = 1


def most_open_files(*, owned: bool) -> int:
    """Files that this process may have open.

    :param owned: whether the process is the server's own: it raises the limit as far as it may then.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = hard if owned else soft
    return sys.maxsize if files == resource.RLIM_INFINITY else files


class Fitting:
    """The limits of each protocol's connections in one process, lowered to what open files allow.

    Each protocol has its share of the files, so that none can take another's.

    :param limits: what was asked for, of all processes.
    :param files: that one process may have open.
    :param workers: processes that serve.
    :param lmtp: whether there is LMTP besides SMTP.
    :param toy: whether mail is in memory.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        files: int,
        *,
        workers: int = 1,
        smtp: bool = False,
        lmtp: bool = False,
        toy: bool = False,
    ) -> None:
        share = max(files - RESERVE, 0) // (1 + smtp + lmtp)
        of_mail = max(share // (TOY_FILES if toy else SMTP_FILES), 1)
        self._wanted, self._workers = limits.connections, workers
        part = limits.shared_by(workers)
        self.pop3 = _lowered(part, max(share // (TOY_FILES if toy else POP3_FILES), 1))
        self.smtp = _lowered(part, of_mail)
        # Few mail servers connect to it, and they are trusted: nothing but the files bounds them.
        never = sys.maxsize
        self.lmtp = ConnectionLimits(of_mail, never, never, never)
        self._files = files
        self._told = {"POP3": self.pop3} | ({"SMTP": self.smtp} if smtp else {})

    def tell(self, *, asked: bool) -> None:
        """One line, if something had to be lowered.

        :param asked: whether the settings give the number; then it is a warning.
        """
        lowered = [
            f"{limits.connections * self._workers:,} of {protocol}"
            for protocol, limits in self._told.items()
            if limits.connections * self._workers < self._wanted
        ]
        if lowered:
            log.emit(
                LogLevel.warn if asked else LogLevel.info,
                "{files:,} open files are allowed, hence {lowered} connections at once instead of {wanted:,}:"
                " raise LimitNOFILE= of the unit, or ulimit -n",
                files=self._files,
                lowered=" and ".join(lowered),
                wanted=self._wanted,
            )


def fitting(settings: Settings, *, owned: bool) -> Fitting:
    """The limits that these settings ask for, as they fit into this process."""
    limits, default = settings.limits, ConnectionLimits()
    most = limits.max_connections or default.connections
    asked_for = ConnectionLimits(
        connections=most,
        unauthenticated=min(default.unauthenticated, most),
        per_address=limits.max_per_address or default.per_address,
        # A number that was given is meant for clients on this machine, too.
        per_local_address=limits.max_per_address or default.per_local_address,
        trusted=Networks.of(limits.trusted),
    )
    return Fitting(
        asked_for,
        most_open_files(owned=owned),
        workers=settings.workers or 1,
        smtp=settings.wants_mail,
        lmtp=bool(settings.lmtp),
        toy=settings.is_toy,
    )


def _lowered(limits: ConnectionLimits, most: int) -> ConnectionLimits:
    most = min(limits.connections, most)
    return replace(limits, connections=most, unauthenticated=min(limits.unauthenticated, most))
