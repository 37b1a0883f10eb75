"""Several observers in the place of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import Interface, directlyProvides

__all__ = ["all_of"]


class _Several:
    """Has the methods of an interface, and passes each call on to all of them, in their order."""

    def __init__(self, interface: type[Interface], observers: Sequence[Any]) -> None:
        for name in interface:
            setattr(self, name, _each([getattr(one, name) for one in observers]))
        directlyProvides(self, interface)


def _each(calls: Sequence[Callable[..., object]]) -> Callable[..., None]:
    def tell(*args: object) -> None:
        for call in calls:
            call(*args)

    return tell


def all_of(interface: Any, observers: Sequence[Any]) -> Any:
    """One observer for all of these: the very one if it is one, so that it costs nothing; ``None`` for none.

    :param interface: :class:`~pop3toy.interfaces.ITranscript` or :class:`~pop3toy.interfaces.IMeter`.
    """
    return _Several(interface, observers) if len(observers) > 1 else next(iter(observers), None)
