"""How many connections a process can bear: each needs open files, which ``RLIMIT_NOFILE`` bounds."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from typing import Final

from twisted.logger import Logger, LogLevel

from ..auth.throttle.connection_limiter import ConnectionLimits
from ..auth.throttle.origins import Networks
from ..config.settings import Settings

__all__ = ["Fitting", "fitting", "most_open_files"]

log = Logger()

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
