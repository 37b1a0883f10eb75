"""A store whose openings are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import directlyProvides, implementer, providedBy

from ...interfaces import IMailStore, MaybeDeferred, is_deferred

__all__ = ["TimedStore"]


@implementer(IMailStore)
class TimedStore:
    """Opens what another store has; all else is the other's.

    :param seconds: tells the time.
    :param took: is told how many seconds an opening took, whether it came to something or not.
    """

    def __init__(
        self, store: IMailStore, seconds: Callable[[], float], took: Callable[[float], object]
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._took = took
        directlyProvides(self, providedBy(store))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(self, user: str) -> MaybeDeferred[object]:
        """See :class:`~pop3toy.interfaces.IMailStore`."""
        began = self._seconds()

        def done(result: Any) -> Any:
            self._took(self._seconds() - began)
            return result

        try:
            opening = self._store.open(user)
        except BaseException:
            done(None)
            raise
        # The same Deferred: it may be cancelled.
        return opening.addBoth(done) if is_deferred(opening) else done(opening)
