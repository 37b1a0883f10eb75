"""What maildrops hold, for quotas."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from ....errors import OverQuota
from ..engine import Engines
from ..records import UserRecord, messages_prefix

__all__ = ["KEPT", "SURE", "Sum", "Sums"]

#: Seconds for which the sum of a maildrop's octets counts, and after which nobody is refused by it before
#: all was counted again.
KEPT: Final = 30.0
SURE: Final = 2.0

#: Maildrops whose sums are kept.
_MOST: Final = 1000


class Sum:
    """The octets of one maildrop, where nobody can be sure rather too many.  Used under its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counted: int | None = None
        #: When that was.
        self.at = 0.0
        #: Of messages that came since, and of those on their way.
        self.since = self.coming = 0
        #: The time of day from which on it is looked again whether the user has to be told that it is full.
        self.look_again = 0.0

    def refuses(self, octets: int, quota: int) -> bool:
        """Whether so many more may not be added."""
        return self.used >= quota or self.used + octets > quota

    @property
    def used(self) -> int:
        """All of them."""
        return (self.counted or 0) + self.since + self.coming

    def arrived(self, octets: int, *, there: bool) -> None:
        """A message is on its way no more."""
        with self.lock:
            self.coming -= octets
            self.since += octets * there


class Sums:
    """What maildrops hold, for quotas: counted by a listing, which is kept for some time.  Blocks.

    What other servers deliver is seen by the next listing; so much may be used beyond a quota.
    """

    def __init__(self, engines: Engines, seconds: Callable[[], float]) -> None:
        self._engines = engines
        self._seconds = seconds
        self._lock = threading.Lock()
        self._sums: dict[str, Sum] = {}

    def fit(self, record: UserRecord, octets: int, quota: int, *, coming: bool = False) -> Sum:
        """See whether so many more octets may be added.

        :param coming: they are on their way from now on.
        :raises pop3toy.errors.OverQuota: if they may not be.
        """
        known = self._of(record.drop)
        # Who comes while it is counted waits for that listing.
        with known.lock:
            age = self._seconds() - known.at
            if known.counted is None or age > KEPT or (age > SURE and known.refuses(octets, quota)):
                known.counted, known.at, known.since = None, self._seconds(), 0
                listed = self._engines.of(record.bucket).each(messages_prefix(record.drop))
                known.counted = sum(one.octets for one in listed)
            if known.refuses(octets, quota):
                detail = f"{record.login!r} uses {known.used} of {quota} octets"
                raise OverQuota(detail=detail, holds=quota)
            known.coming += octets * coming
        return known

    def _of(self, drop: str) -> Sum:
        with self._lock:
            if len(self._sums) > _MOST and drop not in self._sums:
                now = self._seconds()
                self._sums = {
                    name: known
                    for name, known in self._sums.items()
                    if known.coming or now - known.at <= KEPT or known.lock.locked()
                }
            return self._sums.setdefault(drop, Sum())
