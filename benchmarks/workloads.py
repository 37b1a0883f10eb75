"""The rows of the table: what the clients do, on which mail, how many at once.

Lives here: the list, and nothing that runs.  ``README.rst`` says what each row
stands for in life.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Figure(Enum):
    """What a row is compared by."""

    RATE = "sessions a second"
    MEMORY = "memory for an idle session"


@dataclass(frozen=True)
class Workload:
    """One row.

    :param data: name of the data set.
    :param script: L login, S STAT, T LIST, U UIDL, R RETR of all, H hold, Q QUIT.
    :param connections: sessions at once.
    :param fresh: the server is started anew before, and one session is all.
    :param held: how many sessions stay idle; only for :attr:`Figure.MEMORY`.
    """

    name: str
    title: str
    data: str
    script: str
    connections: int = 1
    pipelined: bool = False
    tls: bool = False
    fresh: bool = False
    held: int = 0
    figure: Figure = Figure.RATE

    def heading(self) -> str:
        """The title with the numbers that belong to it."""
        if self.figure is Figure.MEMORY:
            return f"{self.title}, {self.held:,} at once"
        if self.fresh:
            return self.title
        many = f"{self.connections} at once" if self.connections > 1 else "one after another"
        return f"{self.title}, {many}"

    def at_most(self, held: int) -> Workload:
        """The same with no more idle sessions than the machine allows open files for."""
        return replace(self, held=min(self.held, held))

    def quick(self) -> Workload:
        """The same with fewer at once, for small data sets."""
        return replace(self, connections=min(self.connections, 8), held=min(self.held, 50))


WORKLOADS: dict[str, Workload] = {
    row.name: row
    for row in (
        Workload("memory", "memory of an idle session", "idle", "LSHQ", 32, held=500, figure=Figure.MEMORY),
        Workload("10k", "memory of an idle session", "idle", "LSHQ", 32, held=10_000, figure=Figure.MEMORY),
        Workload("first", "large mailbox, first visit after start", "many", "LSUQ", fresh=True),
        Workload("many", "large mailbox, unchanged: STAT UIDL", "many", "LSUQ"),
        Workload("login", "login: STAT", "small", "LSQ", 32),
        Workload("login-1", "login: STAT", "small", "LSQ"),
        Workload("full", "full: LIST UIDL RETR of 20", "small", "LSTURQ", 32),
        Workload("full-1", "full: LIST UIDL RETR of 20", "small", "LSTURQ"),
        Workload("pipelined", "full, pipelined", "small", "LSTURQ", 32, pipelined=True),
        Workload("bulk", "bulk: RETR of large messages", "big", "LSRQ"),
        Workload("tls-full", "full over TLS", "small", "LSTURQ", 32, tls=True),
        Workload("tls-bulk", "bulk over TLS", "big", "LSRQ", tls=True),
    )
}
