"""What the worker processes of one server tell each other about logins.

Told is what is rare: a failure, the first success of a user from an address, and where there
is a LOGIN-DELAY each login.  Connections and logins in flight are not told: those limits are divided
by the number of workers.  What an event changes is in ``login_throttle``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

__all__ = ["PeerWorkers"]


class PeerWorkers:
    """The other workers.

    :param key: a secret that the workers of one server share; see :meth:`pseudonym`.
    :param send: takes events for all others: JSON values.
    """

    def __init__(self, key: bytes, send: Callable[[Sequence[Sequence[object]]], object]) -> None:
        self._send = send
        #: Is called with each event of another worker.
        self.note: Callable[..., object] = lambda *event: None

        @lru_cache(maxsize=4096)
        def pseudonym(name: str) -> str:
            return blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()

        #: What a name is called among workers: a keyed digest, because clients now and then send a
        #: password as their name, and what is told stays in the memory of all workers.
        self.pseudonym: Callable[[str], str] = pseudonym

    def tell(self, *event: object) -> None:
        """Tell all others of an event."""
        self._send([event])

    def hear(self, events: Iterable[Sequence[object]]) -> None:
        """Take the events of other workers."""
        for event in events:
            self.note(*event)
