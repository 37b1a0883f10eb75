"""Results that are available now or come later, without paying for a Deferred when they are available.

On the way of USER and PASS use :func:`map_maybe_deferred`; elsewhere coroutines read better.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import MaybeDeferred, is_deferred

__all__ = ["available_result", "map_maybe_deferred", "maybe_deferred", "resolved"]

_T = TypeVar("_T")
_U = TypeVar("_U")
_P = ParamSpec("_P")


def map_maybe_deferred(
    result: MaybeDeferred[_T], function: Callable[[_T], MaybeDeferred[_U]]
) -> MaybeDeferred[_U]:
    """What the function makes of the result, now or later."""
    if is_deferred(result):
        return result.addCallback(function)
    return function(result)


def available_result(result: Deferred[_T]) -> MaybeDeferred[_T]:
    """What a Deferred holds if it has fired (raised if that is a failure), else the Deferred."""
    if not result.called or result.paused:
        return result
    outcome = result.result
    if isinstance(outcome, Failure):
        result.addErrback(lambda _: None)
        outcome.raiseException()
    return cast(_T, outcome)


def maybe_deferred(
    function: Callable[_P, Coroutine[Deferred[object], object, _T]],
) -> Callable[_P, MaybeDeferred[_T]]:
    """Make an ``async def`` one that returns (or raises) at once if it has waited for nothing."""

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> MaybeDeferred[_T]:
        return available_result(Deferred.fromCoroutine(function(*args, **kwargs)))

    return called


async def resolved(result: MaybeDeferred[_T]) -> _T:
    """The result, waited for if it comes later."""
    if is_deferred(result):
        value: _T = await result
        return value
    return result
