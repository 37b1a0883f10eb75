"""What a process gives the server that it runs: where to listen, where to count."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..auth.throttle.connection_limiter import Crowd
from ..auth.throttle.counts import Counts, own_counts
from ..config.cmdline import Options
from ..net.fast.reply_batcher import ReactorTurns
from .access import crowd_limits
from .service import Reloadable

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS, ServerTLS

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
    #: What TLS is made with, if there is TLS.
    tls: GivenTLS | None
    #: The turns of its reactor, if it has any.
    turns: ReactorTurns | None = None
    #: What is read again when it changes.
    reloads: Sequence[Reloadable] = ()
    #: Whether a file that cannot be used ends the start.  Not that of a worker:
    #: its supervisor has told so when it started, and an accident that comes
    #: later must not keep a worker that died from being started again.
    at_once: bool = True


def alone(
    options: Options, listening: Any, tls: ServerTLS | None, *, turns: ReactorTurns | None = None
) -> Premises:
    """A process that shares nothing.

    :param tls: what its TLS is made with.
    """
    counts, limits = own_counts(), crowd_limits(options)
    readers, bringers = Crowd(limits, counts.readers), Crowd(limits, counts.bringers)
    reloads = [tls] if tls is not None else []
    return Premises(listening, counts, readers, bringers, itertools.count(1), tls, turns, reloads)
