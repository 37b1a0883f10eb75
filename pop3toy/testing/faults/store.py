"""A store before which faults stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import directlyProvides, implementer, providedBy

from ...interfaces import IMailStore, MaybeDeferred

__all__ = ["FaultyStore"]


@implementer(IMailStore)
class FaultyStore:
    """Opens what another store has, unless it is refused; all else is the other's.

    :param refuse: raises what refuses a user, if it is time for that.
    """

    def __init__(self, store: IMailStore, refuse: Callable[[str], object]) -> None:
        self._store = store
        self._refuse = refuse
        directlyProvides(self, providedBy(store))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(self, user: str) -> MaybeDeferred[object]:
        """See :class:`~pop3toy.interfaces.IMailStore`.

        :raises pop3toy.errors.Refusal: as a fault says.
        """
        self._refuse(user)
        return self._store.open(user)
