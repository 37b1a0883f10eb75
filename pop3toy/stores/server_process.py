"""Which process of a server this is, and which of its processes are dead: what those had locked is nobody's.

A server with workers starts one again that dies.  So a process is told from all others by its worker's number
and by how many processes of that worker had ended before; all of these are dead.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["ServerProcess"]


@dataclass
class ServerProcess:
    """One process of a server, of which there is only one unless the server has workers."""

    #: What tells this start of the server from others: the same for all of its processes.
    boot: str = field(default_factory=lambda: secrets.token_hex(8))
    #: The number of its worker, from 0.
    worker: int = 0
    #: How many processes of each worker have ended.  Another list takes its place when one more has, as
    #: threads read it.
    ended: Sequence[int] = (0,)
    #: How many of its own worker had ended before it.
    number: int = field(init=False)

    def __post_init__(self) -> None:
        """Remember which one this is."""
        self.number = self.ended[self.worker]

    def is_dead(self, worker: int, number: int) -> bool:
        """Whether this process of the same start is known to be gone: not slow, and not stopped either."""
        ended = self.ended
        return 0 <= worker < len(ended) and number < ended[worker]
