"""A store whose every answer comes late, in front of another one that answers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from .. import limits
from ..interfaces import IMailbox, IMailStore

__all__ = ["LateStore"]


@implementer(IMailStore)
class LateStore:
    """Another store, each answer of which comes only when the clock has moved on.

    :ivar pending: how many answers are on their way.
    """

    def __init__(self, clock: Clock, store: Any) -> None:
        self._clock = clock
        self._store = store
        self.pending = 0

    def open(self, user: str) -> Deferred[object]:
        """See :class:`~pop3toy.interfaces.IMailStore`; fires later.

        :param user: whose maildrop.
        """
        return self.late(lambda: _LateMailbox(self, self._store.open(user)))

    def late(self, action: Callable[[], Any]) -> Deferred[Any]:
        """The result of ``action``, carried out later."""
        result: Deferred[Any] = Deferred()

        def now() -> None:
            self.pending -= 1
            maybeDeferred(action).chainDeferred(result)

        self.pending += 1
        self._clock.callLater(0.01, now)
        return result


@implementer(IMailbox)
class _LateMailbox:
    read_only = False

    def __init__(self, store: LateStore, mailbox: Any) -> None:
        self._store = store
        self._mailbox = mailbox
        self.entries = mailbox.entries

    def read(self, uid: bytes) -> Deferred[Any]:
        return self._store.late(lambda: _LateBody(self._store, self._mailbox.read(uid)))

    def remove(self, uids: Sequence[bytes]) -> Deferred[None]:
        return self._store.late(lambda: self._mailbox.remove(uids))

    def release(self) -> None:
        self._mailbox.release()


class _LateBody:
    def __init__(self, store: LateStore, body: Any) -> None:
        self._store = store
        self._body = body
        self.done = False

    def pull(self, most: int = limits.CHUNK) -> Deferred[bytes]:
        def chunk() -> Any:
            data = self._body.pull(most)
            self.done = self._body.done
            return data

        return self._store.late(chunk)

    def close(self, octets: int | None) -> None:
        self._body.close(octets)
