"""Which passwords were found right a moment ago, so that a polling client costs no argon2 each time.

Knows no password: only a digest of it under a key that dies with the process.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b

from twisted.internet.interfaces import IReactorTime

from ...clock import steady

__all__ = ["SuccessCache"]


class SuccessCache:
    """A bounded memory of right passwords.

    :param clock: tells the time.
    :param seconds: how long a success counts: longer than the minute or five
        that clients wait between two polls, short enough that the digest of a
        password is not in memory for long.
    :param most: successes that are kept; the oldest go first.
    """

    def __init__(self, clock: IReactorTime, *, seconds: float = 600.0, most: int = 10_000) -> None:
        self._clock: IReactorTime = steady(clock)
        self._seconds = seconds
        self._most = most
        self._key = secrets.token_bytes(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, user: str, stored: bytes, password: bytes) -> None:
        """This password was just found to fit what is stored of the user's."""
        self._until[self._digest(user, stored, password)] = self._clock.seconds() + self._seconds
        if len(self._until) > self._most:
            self._until.popitem(last=False)

    def has(self, user: str, stored: bytes, password: bytes) -> bool:
        """Whether it was found so not long ago."""
        digest = self._digest(user, stored, password)
        until = self._until.get(digest)
        if until is None:
            return False
        if until > self._clock.seconds():
            return True
        del self._until[digest]
        return False

    def clear(self) -> None:
        """Forget all."""
        self._until.clear()

    def _digest(self, user: str, stored: bytes, password: bytes) -> bytes:
        digest = blake2b(key=self._key, digest_size=32)
        for part in (user.encode("utf-8", "surrogatepass"), stored, password):
            digest.update(len(part).to_bytes(4, "big"))
            digest.update(part)
        return digest.digest()
