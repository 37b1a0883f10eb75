"""How many recipients elsewhere a user may write to within an hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["HOUR", "PER_HOUR", "HourlyLimit"]

HOUR: Final = 3600.0

#: Recipients of one user within an hour, unless --smarthost-limit says otherwise: more than people write to,
#: and few enough that a stolen password does not ruin the name of the smarthost in a night.
PER_HOUR: Final = 200


class HourlyLimit:
    """Counts what each user has sent within the last hour, in this process.

    :param most: recipients of one user.
    :param seconds: a clock for durations.
    """

    def __init__(self, most: int, seconds: Callable[[], float]) -> None:
        self.most = most
        self._seconds = seconds
        # When, and to how many.
        self._sent: dict[str, deque[tuple[float, int]]] = {}

    def left(self, user: str) -> int:
        """How many more recipients the user may have now."""
        sent = self._sent.get(user)
        if sent is None:
            return self.most
        since = self._seconds() - HOUR
        while sent and sent[0][0] <= since:
            sent.popleft()
        if not sent:
            # So that it holds none but those who have sent within the hour, once they are asked for.
            del self._sent[user]
            return self.most
        return max(self.most - sum(count for _, count in sent), 0)

    def count(self, user: str, recipients: int) -> None:
        """The user has written to so many."""
        self._sent.setdefault(user, deque()).append((self._seconds(), recipients))
