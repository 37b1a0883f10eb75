"""Taking turns, without a thread that waits for one.

Knows nothing of mail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from twisted.internet.defer import DeferredLock

__all__ = ["Turns"]


class Turns:
    """For each name one at a time."""

    def __init__(self) -> None:
        self._locks: dict[str, DeferredLock] = {}

    @asynccontextmanager
    async def at(self, names: Collection[str]) -> AsyncIterator[None]:
        """Wait until it is our turn at all of them."""
        taken: list[tuple[str, DeferredLock]] = []
        try:
            # In one order for everybody: nobody waits for who waits for him.
            for name in sorted(set(names)):
                lock = self._locks.setdefault(name, DeferredLock())
                await lock.acquire()
                taken.append((name, lock))
            yield
        finally:
            for name, lock in taken:
                lock.release()
                if not lock.locked and self._locks.get(name) is lock:
                    del self._locks[name]
