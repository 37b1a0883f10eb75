"""Threads whose work is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred

from ...net.threads import RunInThread, Share, WorkerThreads
from ...net.types import IReactor

__all__ = ["MeasuredThreads"]

_T = TypeVar("_T")


class MeasuredThreads(WorkerThreads):
    """Threads whose work is measured, from when it is asked for to its result.

    :param took: is told how many seconds it took, whatever came of it.
    """

    def __init__(self, reactor: IReactor, *, took: Callable[[float], object], **more: Any) -> None:
        super().__init__(reactor, **more)
        self._took = took

    def run(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        """See :class:`WorkerThreads`."""
        return self._measured(super().run, function, *args)

    def shared(
        self, shares: Sequence[Share], *, patient: bool = False, within: float | None = None
    ) -> RunInThread:
        """See :class:`WorkerThreads`."""
        return cast(
            RunInThread, partial(self._measured, super().shared(shares, patient=patient, within=within))
        )

    def _measured(self, run: RunInThread, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        began = self._clock.seconds()

        def done(result: Any) -> Any:
            self._took(self._clock.seconds() - began)
            return result

        return run(function, *args).addBoth(done)
