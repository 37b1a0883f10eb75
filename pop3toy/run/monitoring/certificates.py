"""Says in the log when a certificate soon expires, so that nobody learns of it from their mail program."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from ..service import Repeatedly
from .troubles import DAY, days_left, ends_of, in_days

if TYPE_CHECKING:
    from ...net.tls.contexts import GivenTLS

__all__ = ["THRESHOLDS", "CertificateWatch"]

log = Logger()

#: Days before the end of a certificate: within each it is told once a day, within the last as an error.
THRESHOLDS: Final = (14, 7, 2)

#: Seconds between two looks: of the dates alone, which are in memory.
INTERVAL: Final = 3600.0


class CertificateWatch(Repeatedly):
    """Looks at the certificates in use every hour.

    :param clock: measures the time between two looks.
    :param tls: has the certificates.
    :param wall: the time of day, in seconds since the epoch.
    """

    def __init__(self, clock: IReactorTime, tls: GivenTLS, wall: Callable[[], float] = time.time) -> None:
        super().__init__(clock, self.look, INTERVAL)
        self._tls = tls
        self._wall = wall
        #: Of today: which file was told of for which threshold.
        self._told: set[tuple[str, int]] = set()
        self._today = -1

    def look(self) -> None:
        """Tell of certificates that soon expire, each once a day for each threshold."""
        now = self._wall()
        today = int(now // DAY)
        if today != self._today:
            self._today, self._told = today, set()
        for path, end in ends_of(self._tls):
            days = days_left(end, now)
            within = min((most for most in THRESHOLDS if days < most), default=None)
            if within is None or (path, within) in self._told:
                continue
            self._told.add((path, within))
            log.emit(
                LogLevel.error if within == THRESHOLDS[-1] else LogLevel.warn,
                "the certificate in {path} {when}: renew it; the files are read again by themselves",
                path=path,
                when=in_days(end, now),
            )
