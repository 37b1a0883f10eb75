"""A store before which faults stand."""

from __future__ import annotations

from typing import Any

from zope.interface import directlyProvides, implementer, providedBy

from ...interfaces import IMailStore, MaybeDeferred
from .rules import Faults

__all__ = ["FaultyStore"]


@implementer(IMailStore)
class FaultyStore:
    """Opens what another store has, unless a fault refuses it; all else is the other's."""

    def __init__(self, store: IMailStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        directlyProvides(self, providedBy(store))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(self, user: str) -> MaybeDeferred[object]:
        """See :class:`~pop3toy.interfaces.IMailStore`.

        :raises pop3toy.errors.Refusal: as a fault says.
        """
        self._faults.refuse_login(user)
        return self._store.open(user)
