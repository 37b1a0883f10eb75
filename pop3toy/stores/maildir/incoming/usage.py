"""How much a Maildir holds, for quotas: counted once, and kept up to date from then on.

To count means to read all names.  So the sum lies in a cache file beside the folders, with the
stamp that these had, for all processes that deliver: those of a server, and ``pop3toy deliver``.

A delivery that adds a message writes the new sum and the new stamp.  Another stamp than the one
in the cache file means that somebody else has changed the Maildir (a session that removed messages,
another program), and all is counted again.  But two changes within the granularity of the file
system's times leave the same stamp.  So nobody is refused because of a sum that is not *sure*, which
it is if it was counted while the folders had been at rest for a while.  What another program adds
at the same moment as a delivery, and does not write down, may be used beyond the quota, until all is
counted again.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from twisted.logger import Logger

from ....errors import OverQuota, StoreTrouble
from ...fullness import is_nearly_full, is_time
from ..beside.cache_file import read_cache, remove_cache, write_cache
from ..folders import FOLDERS, Stamp, open_folder, stat_folders

__all__ = ["FILE_NAME", "Usage", "must_tell", "octets_used"]

log = Logger()

FILE_NAME = "pop3toy-usage"
_MAGIC = b"pop3toy-usage 1"
_MOST = 1000
#: When the owner was told that it is nearly full.
_TOLD = "pop3toy-quota-told"
_TOLD_MAGIC = b"pop3toy-quota-told 1"
_SIZE_IN_NAME = re.compile(r",S=(\d+)")

#: Seconds after which a sum that is not sure is counted again, as Maildir++ does it.
RECOUNT: Final = 900.0

#: Seconds that another process may keep us waiting.  Its turn is short, unless it
#: counts; and the owner of a Maildir must not be able to stop deliveries.
PATIENCE: Final = 1.0
_PAUSE: Final = 0.005


class _Cached(NamedTuple):
    octets: int
    stamp: Stamp
    #: Whether nothing can have changed unseen.
    sure: bool
    #: How often all was counted so far.
    counts: int
    #: When it was counted last, in seconds.
    counted: int


class Usage:
    """A turn at one Maildir: between the look at a quota and the new name nobody adds another.

    A context manager.  Blocks; and of one process only one at a time may be at the
    same Maildir, or they keep each other waiting.

    :param maildir: its open directory, which stays open.
    :param now: the time of day, in seconds.
    """

    def __init__(self, maildir: int, now: Callable[[], float]) -> None:
        self._maildir = maildir
        self._now = now
        self._octets = 0

    def __enter__(self) -> Self:
        cached = self._load()
        self._counts_before = cached.counts if cached is not None else 0
        self._lock = open_folder(self._maildir, "new")
        self._locked = _lock(self._lock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def fit(self, octets: int, quota: int, user: str = "") -> int:
        """See whether so many more may be added.

        :param user: whose it is, for the log.
        :return: the octets that are there already.
        :raises pop3toy.errors.OverQuota: if not.
        """
        cached = self._current()
        if _over(cached, octets, quota) and not (cached.sure or self._counted_meanwhile(cached)):
            cached = self._count()
        if _over(cached, octets, quota):
            raise OverQuota(detail=f"{user!r} uses {cached.octets} of {quota} octets", holds=quota)
        self._octets = cached.octets
        return cached.octets

    def add(self, octets: int) -> None:
        """Take down that so many were added, behind ``fit``.  Never fails: they are there."""
        try:
            cached = self._load() if self._locked else None
            if cached is not None:
                now = stat_folders(self._maildir)
                self._save(cached._replace(octets=self._octets + octets, stamp=now, sure=False))
            else:
                # Somebody else may be writing as well: then let it be counted.
                remove_cache(self._maildir, FILE_NAME)
        except (OSError, StoreTrouble) as error:
            why = getattr(error, "detail", "") or str(error)
            log.warn("what a Maildir holds cannot be noted: {why}", why=why)

    def _current(self) -> _Cached:
        cached = self._load() if self._locked else None
        if cached is None or cached.stamp != stat_folders(self._maildir):
            return self._count()
        if not cached.sure and abs(self._now() - cached.counted) > RECOUNT:
            return self._count()
        return cached

    def _counted_meanwhile(self, cached: _Cached) -> bool:
        # One that was under way when we came may have begun before.
        return cached.counts >= self._counts_before + 2

    def _count(self) -> _Cached:
        before = stat_folders(self._maildir)
        octets = octets_used(self._maildir)
        at_rest = before.is_old(self._now())
        known = self._load()
        cached = _Cached(
            octets,
            before,
            sure=at_rest and stat_folders(self._maildir) == before,
            counts=(known.counts if known is not None else 0) + 1,
            counted=int(self._now()),
        )
        if self._locked:
            self._save(cached)
        return cached

    def _load(self) -> _Cached | None:
        body = read_cache(self._maildir, FILE_NAME, _MAGIC, _MOST)
        try:
            octets, sure, counts, counted, *stamp = map(int, (body or b"").split())
            return _Cached(octets, Stamp(*stamp), bool(sure), counts, counted)
        except (ValueError, TypeError):
            return None

    def _save(self, cached: _Cached) -> None:
        numbers = (cached.octets, cached.sure, cached.counts, cached.counted, *cached.stamp)
        body = b" ".join(b"%d" % number for number in numbers) + b"\n"
        write_cache(self._maildir, FILE_NAME, _MAGIC, body)


def must_tell(maildir: int, octets: int, quota: int, now: float) -> bool:
    """Whether the owner of a Maildir has to be told that it is nearly full; then that is written down.

    :param maildir: its open directory.
    :param now: the time of day, in seconds.
    """
    if not is_nearly_full(octets, quota) or not is_time(read_cache(maildir, _TOLD, _TOLD_MAGIC, _MOST), now):
        return False
    write_cache(maildir, _TOLD, _TOLD_MAGIC, b"%d" % now)
    # Where that cannot be written, each message would bring a warning with it.
    return not is_time(read_cache(maildir, _TOLD, _TOLD_MAGIC, _MOST), now)


def _over(cached: _Cached, octets: int, quota: int) -> bool:
    return cached.octets >= quota or cached.octets + octets > quota


def _lock(folder: int) -> bool:
    """Take turns with other processes; false if one does not let go, or the file system has no locks."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / _PAUSE)):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause.wait(_PAUSE)
        except OSError:
            return False
        else:
            return True
    return False


def octets_used(maildir: int) -> int:
    """Octets of all messages of a Maildir on the disk, from their names where those say it.  Blocks.

    :param maildir: a descriptor of it.
    """
    total = 0
    for part in FOLDERS:
        folder = open_folder(maildir, part)
        try:
            with os.scandir(folder) as files:
                for file in files:
                    told = _SIZE_IN_NAME.search(file.name)
                    if told:
                        total += int(told[1])
                    elif not file.name.startswith("."):
                        try:
                            total += file.stat(follow_symlinks=False).st_size
                        except FileNotFoundError:
                            # Read and removed meanwhile.
                            continue
        finally:
            os.close(folder)
    return total
