"""Results that are at hand or come later, without paying for a Deferred when they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import MaybeDeferred, is_deferred

__all__ = ["at_hand", "then"]

_T = TypeVar("_T")
_U = TypeVar("_U")


def then(result: MaybeDeferred[_T], function: Callable[[_T], MaybeDeferred[_U]]) -> MaybeDeferred[_U]:
    """What the function makes of the result, now or later."""
    if is_deferred(result):
        return result.addCallback(function)
    return function(result)


def at_hand(result: Deferred[_T]) -> MaybeDeferred[_T]:
    """What a Deferred holds if it has fired (raised if that is a failure), else the Deferred."""
    if not result.called or result.paused:
        return result
    outcome: Any = result.result
    if isinstance(outcome, Failure):
        result.addErrback(lambda _: None)
        outcome.raiseException()
    value: _T = outcome
    return value
