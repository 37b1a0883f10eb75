"""Locks by name, without a thread that waits for one.

Knows nothing of mail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from twisted.internet.defer import DeferredLock

__all__ = ["KeyedLocks"]


class KeyedLocks:
    """A lock for each key; none is kept that nobody holds."""

    def __init__(self) -> None:
        self._locks: dict[str, DeferredLock] = {}

    @asynccontextmanager
    async def hold(self, keys: Collection[str]) -> AsyncIterator[None]:
        """Wait for the locks of all these keys, and hold them during the block."""
        held: list[tuple[str, DeferredLock]] = []
        try:
            # In one order for everybody: no two wait for each other.
            for key in sorted(set(keys)):
                lock = self._locks.setdefault(key, DeferredLock())
                await lock.acquire()
                held.append((key, lock))
            yield
        finally:
            for key, lock in held:
                lock.release()
                if not lock.locked and self._locks.get(key) is lock:
                    del self._locks[key]
