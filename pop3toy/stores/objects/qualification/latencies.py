"""How long the requests of an object storage take, one at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Final, NamedTuple

from ..engine import Engine

__all__ = ["Figure", "figure", "measured"]

#: Octets of a message as most are; of a large one, and of what is asked of it at once.
SMALL: Final = 6 * 1024
RANGE: Final = 1024 * 1024
LARGE: Final = 4 * RANGE
#: Objects of a listing, how often it is asked for at the most, and how many are made at once.
LISTED: Final = 1000
LISTINGS: Final = 10
AT_ONCE: Final = 16


class Figure(NamedTuple):
    """How long one kind of request took, in milliseconds."""

    name: str
    requests: int
    median: float
    p95: float
    max: float


def figure(name: str, seconds: Sequence[float]) -> Figure:
    """Sum up measurements, at least one."""
    taken = sorted(1000 * one for one in seconds)
    p95 = taken[math.ceil(0.95 * len(taken)) - 1]
    return Figure(name, len(taken), *(round(one, 2) for one in (median(taken), p95, taken[-1])))


def measured(
    engine: Engine, prefix: str, rounds: int, clock: Callable[[], float], listed: int = LISTED
) -> Iterator[Figure]:
    """Measure; blocks.

    :param prefix: under which objects are made; they stay.
    :param rounds: how often each request is made.
    :param listed: how many objects a listing has.
    :raises pop3toy.errors.StoreTrouble: if a request fails.
    """

    def times(function: Callable[[int], object], rounds: int = rounds) -> Iterator[float]:
        for number in range(rounds):
            begun = clock()
            function(number)
            yield clock() - begun

    small, lease = [os.urandom(SMALL) for _ in range(rounds)], engine.create(f"{prefix}/lease", b"-")

    def swap(number: int) -> None:
        nonlocal lease
        lease = engine.swap(f"{prefix}/lease", b"%d" % number, lease)

    put = list(times(lambda number: engine.create(f"{prefix}/small/{number}", small[number])))
    yield figure("GET 6 KB", list(times(lambda number: engine.get(f"{prefix}/small/{number}"))))
    yield figure("PUT 6 KB", put)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda number: engine.create(f"{prefix}/many/{number}", b"-"), range(listed)))
    yield figure(
        f"LIST {listed}", list(times(lambda number: engine.list(f"{prefix}/many"), min(rounds, LISTINGS)))
    )
    engine.create(f"{prefix}/large", os.urandom(LARGE))
    yield figure(
        "GET 1 MiB of 4",
        list(times(lambda number: engine.get_range(f"{prefix}/large", number % 4 * RANGE, RANGE))),
    )
    yield figure("swap", list(times(swap)))
