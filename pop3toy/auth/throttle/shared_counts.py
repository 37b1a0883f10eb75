"""Counts that several processes share, in memory that all of them have mapped.

No locks: each process has a column of its own and writes nowhere else; whoever
reads looks at all columns.  So two processes that count at the same instant
may each not see the other: a limit can be passed by as many as there are other
processes, for that instant.  When a process dies, its column of what *is there*
is cleared; what *happened* stays.

What is there is counted in a count-min sketch: nothing is ever evicted, and the
number of connections bounds how full it gets.  What happened is kept in buckets
of eight; a ninth evicts the oldest of them.  Keys are hashed with a secret, so
that nobody can choose an address or name that meets another one's.

This is the one file that knows the layout.
"""

from __future__ import annotations

import itertools
import mmap
import os
import secrets
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar

from .counts import Counts, make_counts

__all__ = ["Crowds", "SharedCounts"]

#: Three numbers of 64 bits for a key: a place in each row of a sketch, and what it is known by in a bucket.
_Hashed = tuple[int, int, int]
#: Typed loosely: a memoryview of floats takes floats, whatever its stub says.
_Floats = Any
_SECRET = 32
_TALLIES = 8
_RECENTS = 4
#: Entries of a bucket, and buckets: 32,768 entries are what a process remembers alone, and half as much
#: again, because buckets do not fill evenly.  Some 3 MB a column, if all of it is used.
_WAYS = 8
_BUCKETS = 4096
_ENTRIES = _WAYS * _BUCKETS
#: Numbers of a column besides the counts: the last session's number; and of readers and of bringers, what
#: :meth:`SharedCounts.to_spare` says.
_NUMBERS = 5


def _slots(connections: int) -> int:
    """Counters in one row of a sketch.

    Eight for each possible connection: that both counters of an address are
    used by others as well happens to one address in sixty when the server is
    full, and then it takes their connections for its own.  A million at the
    most, which is 64 MB a column.
    """
    return 1 << min((8 * max(connections, 128) - 1).bit_length(), 20)


@dataclass(frozen=True)
class _Layout:
    """Where things are, in octets from the start."""

    workers: int
    slots: int

    #: Counters of a tally: the total, and two rows.
    @property
    def tally(self) -> int:
        return 4 * (2 + 2 * self.slots)

    @property
    def present(self) -> int:
        """The part of a column that is cleared when its process dies."""
        return _TALLIES * self.tally

    @property
    def column(self) -> int:
        return 8 * _NUMBERS + self.present + _RECENTS * 3 * 8 * _ENTRIES

    @property
    def size(self) -> int:
        return _SECRET + self.workers * self.column

    def start(self, worker: int) -> int:
        return _SECRET + worker * self.column


class _SharedTally:
    """A :class:`~pop3toy.auth.throttle.counts.Tally` over the columns of all; see the top of the file."""

    def __init__(self, columns: list[memoryview], own: int, slots: int, hashed: Callable[[str], _Hashed]):
        self._columns = columns
        self._own = columns[own]
        self._slots = slots
        self._hashed = hashed

    @property
    def total(self) -> int:
        return sum([column[0] for column in self._columns])

    def _places(self, key: str) -> tuple[int, int]:
        first, second, _ = self._hashed(key)
        return 2 + first % self._slots, 2 + self._slots + second % self._slots

    def count(self, key: str) -> int:
        first, second = self._places(key)
        return min(
            sum([column[first] for column in self._columns]),
            sum([column[second] for column in self._columns]),
        )

    def add(self, key: str) -> None:
        for place in (0, *self._places(key)):
            self._own[place] += 1

    def remove(self, key: str) -> None:
        for place in (0, *self._places(key)):
            self._own[place] -= 1


class _SharedRecent:
    """A :class:`~pop3toy.auth.throttle.counts.Recent` over the columns of all: what was written last holds.

    :param columns: for each process the keys, numbers and times of its entries.
    """

    def __init__(
        self,
        columns: list[tuple[memoryview, memoryview, _Floats]],
        own: int,
        hashed: Callable[[str], _Hashed],
    ) -> None:
        self._columns = columns
        self._own = columns[own]
        self._hashed = hashed

    def get(self, key: str) -> tuple[int, float]:
        first, _, known_by = self._hashed(key)
        start = first % _BUCKETS * _WAYS
        number, latest = 0, 0.0
        for keys, numbers, times in self._columns:
            # Buckets fill from the front, so most of them are passed by here.
            if not keys[start]:
                continue
            bucket = keys[start : start + _WAYS].tolist()
            if known_by in bucket:
                at = start + bucket.index(known_by)
                if times[at] > latest:
                    number, latest = numbers[at], times[at]
        return number, latest

    def put(self, key: str, number: int, seconds: float) -> None:
        first, _, known_by = self._hashed(key)
        start = first % _BUCKETS * _WAYS
        keys, numbers, times = self._own
        bucket = keys[start : start + _WAYS].tolist()
        for wanted in (known_by, 0):
            if wanted in bucket:
                at = start + bucket.index(wanted)
                break
        else:
            ages = times[start : start + _WAYS].tolist()
            at = start + ages.index(min(ages))
        if keys[at] != known_by:
            # Nobody may read another one's number as this one's meanwhile, nor the other way.
            keys[at] = _NOBODY
        numbers[at], times[at] = number, seconds
        keys[at] = known_by


#: Stands in a bucket for an entry that is being written; no key has it.
_NOBODY = 1


class Crowds(IntEnum):
    """Whose strangers."""

    READERS = 0
    BRINGERS = 1


class SharedCounts:
    """The memory, as one process sees it.

    :param descriptor: of a file that all of them have mapped; see :meth:`create`.
    :param workers: how many processes there are, each with a number from 0.
    :param connections: how many connections there may be in all.
    """

    #: Where in a column's numbers.
    _SESSION: ClassVar[int] = 0
    _SPARE: ClassVar[int] = 1

    def __init__(self, descriptor: int, workers: int, connections: int) -> None:
        self.descriptor = descriptor
        self._layout = layout = _Layout(workers, _slots(connections))
        self._memory = memoryview(mmap.mmap(descriptor, layout.size))
        secret = bytes(self._memory[:_SECRET])

        @lru_cache(maxsize=8192)
        def hashed(key: str) -> _Hashed:
            digest = blake2b(key.encode("utf-8", "surrogatepass"), key=secret, digest_size=24).digest()
            first, second, known_by = struct.unpack("=QQQ", digest)
            # 0 is an entry that is free.
            return first, second, max(known_by, _NOBODY + 1)

        self._hashed: Callable[[str], _Hashed] = hashed

    @classmethod
    def create(cls, workers: int, connections: int) -> SharedCounts:
        """New ones, all zero; ``descriptor`` is what other processes inherit."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("pop3toy-counts")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _Layout(workers, _slots(connections)).size)
        os.pwrite(descriptor, secrets.token_bytes(_SECRET), 0)
        return cls(descriptor, workers, connections)

    def _part(self, offset: int, octets: int, kind: str) -> memoryview:
        return self._memory[offset : offset + octets].cast(kind)  # type: ignore[call-overload,no-any-return]

    def of(self, worker: int) -> Counts:
        """The counts of all, for one process to write in its column."""
        everybody, layout = range(self._layout.workers), self._layout
        tallies, recents = itertools.count(), itertools.count()

        def tally() -> _SharedTally:
            index = next(tallies)
            starts = [layout.start(each) + 8 * _NUMBERS + index * layout.tally for each in everybody]
            columns = [self._part(start, layout.tally, "I") for start in starts]
            return _SharedTally(columns, worker, layout.slots, self._hashed)

        def recent() -> _SharedRecent:
            index, octets = next(recents), 8 * _ENTRIES
            columns = []
            for each in everybody:
                start = layout.start(each) + 8 * _NUMBERS + layout.present + index * 3 * octets
                keys, numbers = (self._part(start + part * octets, octets, "Q") for part in (0, 1))
                columns.append((keys, numbers, self._part(start + 2 * octets, octets, "d")))
            return _SharedRecent(columns, worker, self._hashed)

        return make_counts(tally, recent)

    def clear(self, worker: int) -> None:
        """A process is dead: nothing of what it counted is there any more."""
        start = self._layout.start(worker) + 8 * _NUMBERS
        self._memory[start : start + self._layout.present] = bytes(self._layout.present)
        for whose in Crowds:
            spare = self.to_spare(whose)[worker]
            spare[0] = spare[1] = 0.0

    def numbers(self, worker: int) -> Iterator[int]:
        """Session numbers that no other process gives, and none that had this column before."""
        given = self._part(self._layout.start(worker) + 8 * self._SESSION, 8, "Q")
        while True:
            given[0] += 1
            yield (given[0] - 1) * self._layout.workers + worker + 1

    def to_spare(self, whose: Crowds) -> list[_Floats]:
        """For each process, to be written by that one: how many strangers it has of one network at the
        most, and since when the first of those that would go before them is idle; 0 if there is none.
        """
        starts = [self._layout.start(worker) for worker in range(self._layout.workers)]
        return [self._part(start + 8 * (self._SPARE + 2 * whose), 16, "d") for start in starts]
