"""Logins that wait for a maildrop which another session has open (RFC 2449 section 8.1.2).

A store tells at once that a maildrop is locked, and a mail program that hears of it puts up
a dialogue, although the other session is mostly over in a moment.  So the login is tried
again, for a bounded time: at once when a session of the user ends in this process, and at
short intervals, because another process may have the lock.

For each user the logins of a process come in their order.  Where several processes serve, all
of them keep to the intervals, so that none of them is always the first.

A lock whose session is ending (it removes messages, or its client has gone) is waited for to
its end, however long that takes; of sessions of other processes nothing is known.

A store may answer a try at once or later.  A try that was begun in time is waited for, also
when the time is over meanwhile: to refuse a maildrop that is just being opened would have the
client come back and find it locked by its own last login.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ...clock import steady
from ...errors import InUse
from ...interfaces import MaybeDeferred, SessionRecord, is_deferred
from .counts import Tally

__all__ = ["LockQueue"]

_T = TypeVar("_T")

#: Seconds between two tries.  A try is cheap: an open, a lock and a close.
INTERVAL = 0.05


@dataclass(eq=False, slots=True)
class _Waiter(Generic[_T]):
    """One login that waits."""

    user: str
    attempt: Callable[[], MaybeDeferred[_T]]
    record: SessionRecord
    #: Until when, in the clock's seconds.
    until: float
    #: What it is told in the end if the lock does not become free.
    refusal: InUse
    done: Deferred[_T] = field(default_factory=Deferred)


class _Line(Generic[_T]):
    """The logins of one user that wait in this process, in their order."""

    def __init__(self) -> None:
        self.waiters: deque[_Waiter[_T]] = deque()
        #: The one that was the first and is being tried, while the store has not answered yet.
        self.tried: _Waiter[_T] | None = None
        self.call: IDelayedCall | None = None


class LockQueue(Generic[_T]):
    """Opens maildrops, and waits for those that are locked.

    :param seconds: how long a login waits; 0 waits for sessions that are ending alone.
    :param per_user: logins of one user that may wait at once.
    :param most: logins that may wait at once in all.
    :param waiting: logins that wait, by user.
    :param ending: sessions that are ending, by user.
    :param alone: whether no other process serves the same users.
    """

    def __init__(
        self,
        clock: IReactorTime,
        seconds: float,
        per_user: int,
        most: int,
        waiting: Tally,
        ending: Tally,
        *,
        alone: bool = True,
    ) -> None:
        self._clock: IReactorTime = steady(clock)
        #: How long a login waits that begins to now.
        self.seconds = seconds
        self._per_user = per_user
        self._most = most
        self._waiting = waiting
        self._ending = ending
        self._alone = alone
        self._lines: dict[str, _Line[_T]] = {}

    def open(
        self, user: str, attempt: Callable[[], MaybeDeferred[_T]], record: SessionRecord
    ) -> MaybeDeferred[_T]:
        """What the attempt gives, now or when the maildrop is not locked any more.

        :param attempt: opens the maildrop; called again as long as it raises (or fails
            with) :class:`~pop3toy.errors.InUse`.
        :param record: of the session that wants it; given up when its client has gone.
        :raises pop3toy.errors.InUse: (or fails with) when the time is over, or at once if it
            may not wait.
        """
        if user in self._waiting:
            until = self._until()
            if self._may_wait(user, record, until):
                # Not before those who came first.
                return self._wait(_Waiter(user, attempt, record, until, InUse()))
        try:
            opening = attempt()
        except InUse as refusal:
            return self._in_use(_Waiter(user, attempt, record, self._until(), refusal))
        if is_deferred(opening):
            until = self._until()

            def failed(why: Failure) -> Failure | Deferred[_T]:
                if isinstance(why.value, InUse):
                    return self._in_use(_Waiter(user, attempt, record, until, why.value))
                return why

            opening.addErrback(failed)
        return opening

    def ending(self, user: str) -> None:
        """A session of the user is ending; :meth:`ended` must follow."""
        self._ending.add(user)

    def ended(self, user: str) -> None:
        """It has ended."""
        self._ending.remove(user)

    def released(self, user: str) -> None:
        """A maildrop of the user was given back in this process."""
        line = self._lines.get(user)
        if line is not None and self._alone:
            self._look_in(user, line, 0)

    def _until(self) -> float:
        return self._clock.seconds() + self.seconds

    def _may_wait(self, user: str, record: SessionRecord, until: float) -> bool:
        return bool(
            not record.client_left
            and (self._clock.seconds() < until or user in self._ending)
            and sum(self._waiting.values()) < self._most
            and self._waiting.get(user, 0) < self._per_user
        )

    def _in_use(self, waiter: _Waiter[_T]) -> Deferred[_T]:
        if not self._may_wait(waiter.user, waiter.record, waiter.until):
            raise waiter.refusal
        return self._wait(waiter)

    def _wait(self, waiter: _Waiter[_T]) -> Deferred[_T]:
        user = waiter.user
        line = self._lines.setdefault(user, _Line())
        line.waiters.append(waiter)
        self._waiting.add(user)
        waiter.record.when_client_leaves = partial(self._give_up, line, waiter)
        self._look_in(user, line, INTERVAL)
        return waiter.done

    def _look_in(self, user: str, line: _Line[_T], seconds: float) -> None:
        """Have a look in so many seconds, or sooner if that is to be anyway."""
        if line.call is None:
            line.call = self._clock.callLater(seconds, self._look, user, line)
        elif not seconds:
            line.call.reset(0)

    def _look(self, user: str, line: _Line[_T]) -> None:
        line.call = None
        if line.waiters and line.tried is None:
            first = line.tried = line.waiters.popleft()
            trying = cast("Deferred[_T]", maybeDeferred(first.attempt))
            trying.addBoth(self._answered, line, first)
        while line.waiters and self._is_late(line.waiters[0]):
            late = line.waiters.popleft()
            self._leave(late)
            late.done.errback(late.refusal)
        self._go_on(user, line)

    def _is_late(self, waiter: _Waiter[_T]) -> bool:
        return waiter.until <= self._clock.seconds() and waiter.user not in self._ending

    def _answered(self, outcome: _T | Failure, line: _Line[_T], waiter: _Waiter[_T]) -> None:
        """The store has answered a try."""
        if line.tried is not waiter:
            # It was given up; a maildrop is given back by the session, which knows that it is over.
            waiter.done.callback(outcome)
            return
        line.tried = None
        if (
            isinstance(outcome, Failure)
            and isinstance(outcome.value, InUse)
            and not (waiter.record.client_left or self._is_late(waiter))
        ):
            waiter.refusal = outcome.value
            line.waiters.appendleft(waiter)
        else:
            self._leave(waiter)
            waiter.done.callback(outcome)
        self._go_on(waiter.user, line)

    def _go_on(self, user: str, line: _Line[_T]) -> None:
        if line.waiters:
            self._look_in(user, line, INTERVAL)
        elif line.tried is None:
            if line.call is not None:
                line.call.cancel()
                line.call = None
            self._lines.pop(user, None)

    def _give_up(self, line: _Line[_T], waiter: _Waiter[_T]) -> None:
        """The client has gone: its place is free, also while the store does not answer its try."""
        self._leave(waiter)
        if line.tried is waiter:
            line.tried = None
        else:
            line.waiters.remove(waiter)
            waiter.done.errback(waiter.refusal)
        self._go_on(waiter.user, line)

    def _leave(self, waiter: _Waiter[_T]) -> None:
        self._waiting.remove(waiter.user)
        waiter.record.when_client_leaves = None
