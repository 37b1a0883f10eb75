"""Which levels of the log are written: one value for a process, which may change while it runs."""

from __future__ import annotations

from collections.abc import Collection

from twisted.logger import LogLevel

__all__ = ["Levels"]


class Levels:
    """The levels from one of them on.

    :param least: ``debug``, ``info``, ``warn``, ``error`` or ``critical``.
    """

    #: Those that are written, as constants of :class:`twisted.logger.LogLevel`.
    shown: Collection[object]

    def __init__(self, least: str = "debug") -> None:
        self.use(least)

    def use(self, least: str) -> None:
        """From now on these."""
        lowest = LogLevel.levelWithName(least)
        self.shown = frozenset(one for one in LogLevel.iterconstants() if one >= lowest)
