"""Object storage for tests, in memory or elsewhere: others come between two calls, and some calls fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pop3toy.errors import StoreTrouble
from pop3toy.stores.objects.engine import Engine

__all__ = ["Engines", "in_memory"]


def in_memory(bucket: str) -> Any:
    """A bucket in memory."""
    from obstore.store import MemoryStore

    return MemoryStore()


class Engines:
    """As ``pop3toy.stores.objects.connecting.Engines``, with calls that are counted, delayed or lost.

    :param connect: gives obstore's store of a bucket.
    """

    def __init__(self, connect: Callable[[str], Any] = in_memory) -> None:
        self.buckets: tuple[str, ...] = ()
        self.seconds = 1_700_000_000.0
        #: The calls made so far, as obstore names them.
        self.calls: list[str] = []
        #: The call that fails, counted like ``calls`` from 1, and whether it is carried out all the same.
        self.failing: tuple[int, bool] | None = None
        self._hooks: dict[int, Callable[[], object]] = {}
        self._lock = threading.RLock()
        self._connect = connect
        self._engines: dict[str, Engine] = {}

    @property
    def main(self) -> Engine:
        """The first bucket."""
        return self.of("")

    def of(self, bucket: str) -> Engine:
        """Any bucket."""
        with self._lock:
            if bucket not in self._engines:
                self._engines[bucket] = _Watched(self, lambda: self._connect(bucket))
            return self._engines[bucket]

    def wall(self) -> float:
        """The time of day, which the test sets."""
        return self.seconds

    def learn_time(self) -> None:
        """Nothing to learn."""

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """The calls during the block."""
        calls: list[str] = []
        before = len(self.calls)
        yield calls
        calls += self.calls[before:]

    def at(self, number: int, do: Callable[[], object]) -> None:
        """Do something before the call with this number, from 1 on, from now on."""
        self._hooks[len(self.calls) + number] = do

    def fail(self, number: int, *, done: bool) -> None:
        """The call with this number fails, from 1 on, from now on.

        :param done: whether it is carried out, and only its answer is lost.
        """
        self.failing = len(self.calls) + number, done

    def made(self, function: str, do: Callable[[], Any]) -> Any:
        """Make a call."""
        with self._lock:
            self.calls.append(function)
            number = len(self.calls)
            hook = self._hooks.pop(number, None)
        if hook is not None:
            hook()
        if self.failing is None or self.failing[0] != number:
            return do()
        if self.failing[1]:
            do()
        self.failing = None
        raise StoreTrouble(detail="object storage: no answer")


class _Watched(Engine):
    """An engine whose calls are told."""

    def __init__(self, engines: Engines, connect: Callable[[], Any]) -> None:
        super().__init__(connect)
        self._engines = engines

    def call(self, function: str, *args: Any, **named: Any) -> Any:
        """See :class:`Engine`."""
        whole = super().call
        return self._engines.made(function, lambda: whole(function, *args, **named))
