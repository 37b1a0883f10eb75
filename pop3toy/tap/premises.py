"""What a process gives the server that it runs: where to listen, where to count."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..auth.counts import Counts, own_counts
from ..auth.crowd import Crowd
from ..options import Options
from .access import crowd_limits

__all__ = ["Premises", "alone"]


@dataclass(frozen=True)
class Premises:
    """What differs between a process that is alone and one of several."""

    #: The reactor as far as listening goes.
    listening: Any
    counts: Counts
    #: Who reads mail, and who brings it: a flood of mail must not keep readers out.
    readers: Crowd
    bringers: Crowd
    #: Session numbers: everybody who writes to one transcript counts together.
    numbers: Iterator[int]


def alone(options: Options, listening: Any) -> Premises:
    """A process that shares nothing."""
    counts, limits = own_counts(), crowd_limits(options)
    readers, bringers = Crowd(limits, counts.readers), Crowd(limits, counts.bringers)
    return Premises(listening, counts, readers, bringers, itertools.count(1))
