"""What the worker processes of one server tell each other about logins.

Told is what is rare: a failure, the first success of a user from an address, and where there
is a LOGIN-DELAY each login.  What is in flight and who is connected is told to nobody: those
limits are divided by the number of workers.  What follows of an event, ``login_throttle`` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

__all__ = ["PeerWorkers"]


class PeerWorkers:
    """The other workers.

    :param key: of all workers of one server and of nobody else; see :meth:`pseudonym`.
    :param send: takes events for all others: JSON values.
    """

    def __init__(self, key: bytes, send: Callable[[Sequence[Sequence[object]]], object]) -> None:
        self._send = send
        #: Is called with each event of another worker.
        self.note: Callable[..., object] = lambda *event: None

        @lru_cache(maxsize=4096)
        def pseudonym(name: str) -> str:
            return blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()

        #: What a name is known by among workers.  What clients claim as their names is now and
        #: then a password, and what is told stays in the memory of all.
        self.pseudonym: Callable[[str], str] = pseudonym

    def tell(self, *event: object) -> None:
        """Tell all others of an event."""
        self._send([event])

    def hear(self, events: Iterable[Sequence[object]]) -> None:
        """What others have told."""
        for event in events:
            self.note(*event)
