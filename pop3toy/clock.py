"""A clock for durations, which goes on steadily when the time of day is set.

Twisted's ``reactor.seconds()`` is the time of day, and its delayed calls are due at a time of day: when
that is set forward they come early, when it is set back, late.  In a process of its own the server has the
reactor use the monotonic clock (:func:`use_monotonic_time`).  Another program's reactor is left alone: over
it there is a second clock (:func:`steady`).

Dates do not belong here.  They are ``time.time``, passed in as ``wall``.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from zope.interface import implementer

__all__ = ["SteadyClock", "steady", "use_monotonic_time"]

#: Seconds between two looks whether the time of day was set.
LOOK = 1.0
#: Seconds by which it was set, for it to matter: NTP's small steps do not.
STEP = 0.1


def use_monotonic_time(reactor: IReactorTime) -> None:
    """Let a reactor measure durations by the system's monotonic clock, in whatever it schedules.

    Only the owner of the process may do that.  A reactor for which something is scheduled already stays as it
    is: what is due at a time of day would never come.
    """
    if reactor.seconds is time.time and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic  # type: ignore[method-assign]


class _IReactor(IReactorTime, IReactorFromThreads):
    """What a clock stands on."""


@implementer(IDelayedCall)
class _Call:
    """A call that comes neither too early nor much too late, over a delayed call of the reactor's."""

    def __init__(self, clock: SteadyClock, delay: float, work: Callable[[], object]) -> None:
        self._clock = clock
        self._due = clock.seconds() + delay
        self._work = work
        self._timer = clock.reactor.callLater(delay, self._fire)
        clock.calls.add(self)

    def _fire(self) -> None:
        if (left := self._due - self._clock.seconds()) > 0:
            # The time of day was set forward.
            self._timer = self._clock.reactor.callLater(left, self._fire)
            return
        self._clock.calls.discard(self)
        work, self._work = self._work, _nothing
        work()

    def getTime(self) -> float:
        """See ``IDelayedCall``."""
        return self._due

    def active(self) -> bool:
        """See ``IDelayedCall``."""
        active: bool = self._timer.active()
        return active

    def cancel(self) -> None:
        """See ``IDelayedCall``."""
        self._timer.cancel()
        self._clock.calls.discard(self)
        self._work = _nothing

    def reset(self, secondsFromNow: float) -> None:
        """See ``IDelayedCall``."""
        self._timer.reset(secondsFromNow)
        self._due = self._clock.seconds() + secondsFromNow

    def delay(self, secondsLater: float) -> None:
        """See ``IDelayedCall``."""
        self.reset(max(self._due + secondsLater - self._clock.seconds(), 0))

    def adjust(self) -> None:
        """The time of day was set: tell the reactor anew how long it is from now."""
        self.delay(0)


def _nothing() -> None:
    """In place of work that is done, or was called off."""


@implementer(IReactorTime)
class SteadyClock:
    """The clock of a reactor whose own time is the time of day, without its jumps.

    :param reactor: schedules (``IReactorTime``), and takes calls from other threads.
    :param monotonic: seconds from any moment on.
    :param watch: has :meth:`look` called now and then, whatever the reactor is doing.
    """

    def __init__(
        self,
        reactor: _IReactor,
        monotonic: Callable[[], float] = time.monotonic,
        watch: Callable[[SteadyClock], object] | None = None,
    ) -> None:
        self.reactor = reactor
        self.seconds = monotonic
        self.calls: set[_Call] = set()
        self._offset = self._offset_now()
        self._watch = watch if watch is not None else _watch_in_thread
        # In which process: a daemon is forked without the thread.
        self._watched_in = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> _Call:
        """See ``IReactorTime``."""
        if self._watched_in != (process := os.getpid()):
            self._watched_in = process
            self._watch(self)
        return _Call(self, delay, lambda: callable(*args, **kw))

    def getDelayedCalls(self) -> list[_Call]:
        """See ``IReactorTime``; those that were made through this clock."""
        return list(self.calls)

    def _offset_now(self) -> float:
        return float(self.reactor.seconds() - self.seconds())

    def look(self) -> None:
        """See whether the time of day was set since the last look; may be called in any thread.

        The reactor itself would notice a time that was set back when it is reached again.
        """
        offset = self._offset_now()
        if abs(offset - self._offset) > STEP:
            self._offset = offset
            self.reactor.callFromThread(self._adjust)

    def _adjust(self) -> None:
        for call in list(self.calls):
            call.adjust()


def _watch_in_thread(clock: SteadyClock) -> None:
    """In a thread of its own, because nothing that the reactor schedules comes in time."""
    threading.Thread(target=_look, args=(weakref.ref(clock),), name="pop3toy-clock", daemon=True).start()


def _look(reference: weakref.ref[SteadyClock]) -> None:
    pause = threading.Event()
    while (clock := reference()) is not None:
        clock.look()
        del clock
        pause.wait(LOOK)


#: One for each reactor, by its ``id``, as long as it is used; a clock keeps its reactor, so ids are unique.
_clocks: weakref.WeakValueDictionary[int, SteadyClock] = weakref.WeakValueDictionary()


def steady(reactor: IReactorTime) -> IReactorTime:
    """A clock for durations: the reactor itself, or one over it if its time is the time of day."""
    if reactor.seconds is not time.time:
        return reactor
    clock = _clocks.get(id(reactor))
    if clock is None:
        clock = _clocks[id(reactor)] = SteadyClock(cast(_IReactor, reactor))
    return clock
