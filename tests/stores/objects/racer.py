"""A process that asks for the same as others at the same moment, for ``test_ceph_races``.

Each line of its standard input is a command and a key, or what goes before keys::

    create KEY   make it, in each thread
    look KEY     see which version of it there is, in each thread
    swap KEY     replace what was seen, in each thread
    fill PREFIX  make an object in each thread, and look for it in a listing, remove it, and look again

and is answered by a line of JSON: the bodies by which something was changed, or what is wrong.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pop3toy.stores.objects.connecting import Engines
from pop3toy.stores.objects.engine import Engine, Tag, Taken
from pop3toy.stores.objects.settings import Objects

#: Threads of a process.
THREADS = 4


class Racer:
    """One thread's part; each has connections of its own through two gateways.

    :param engine: by which it changes things.
    :param other: by which it looks after them.
    """

    def __init__(self, engine: Engine, other: Engine) -> None:
        self._engine = engine
        self._other = other
        self._seen: Tag | None = None

    def create(self, key: str) -> list[str]:
        """Make it; one's own name, unless another did."""
        return self._tried(lambda body: self._engine.create(key, body))

    def look(self, key: str) -> list[str]:
        """See which version there is."""
        self._seen = self._other.get(key).tag
        return []

    def swap(self, key: str) -> list[str]:
        """Replace it, unless another did."""
        seen = self._seen
        assert seen is not None
        return self._tried(lambda body: self._engine.swap(key, body, seen))

    def _tried(self, change: Callable[[bytes], object]) -> list[str]:
        body = secrets.token_hex(8)
        try:
            change(body.encode())
        except Taken:
            return []
        return [body]

    def fill(self, prefix: str) -> list[str]:
        """Whether listings show what is there, and nothing that is gone; what is wrong."""
        name = secrets.token_hex(8)
        wrong = []
        self._engine.create(f"{prefix}/{name}", b"x")
        if name not in [one.name for one in self._other.list(prefix)]:
            wrong.append(f"{name} is not listed")
        self._engine.delete([f"{prefix}/{name}"])
        if name in [one.name for one in self._other.list(prefix)]:
            wrong.append(f"{name} is listed")
        return wrong


def main(url: str, credentials: str, *endpoints: str) -> None:
    """Do what standard input says, until it ends."""
    settings = [Objects(url=url, endpoint=one, credentials=credentials) for one in endpoints]
    engines = [Engines(one).main for one in settings]
    racers = [Racer(engines[at % 2], engines[(at + 1) % 2]) for at in range(THREADS)]
    start = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        for line in sys.stdin:
            command, key = line.split()

            def do(racer: Racer, command: str = command, key: str = key) -> list[str]:
                work: Callable[[str], list[str]] = getattr(racer, command)
                start.wait(60)
                return work(key)

            print(json.dumps([word for words in pool.map(do, racers) for word in words]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
