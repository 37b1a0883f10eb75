"""Connections that are ready at the same time are all read, then all answered.

Twisted's reactor reads from one socket after the other, and each client is answered before the
next is read from.  A client that waits for its answer sleeps in the kernel, and to wake it costs
the sender more than the answer does.  Here the sockets that are ready together are all read first
and the answers are sent in one go afterwards, when the clients have hardly fallen asleep.
``benchmarks/README.rst`` has the figures.

This is the one file that knows how Twisted's epoll reactor waits.  Over any other reactor each
connection is answered as soon as it was read.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.log import callWithLogger

__all__ = ["ReplyBatcher", "batcher_of"]

log = Logger()

#: Connections that are read before the first of them is answered: with a thousand the first would wait
#: for long, and more than some dozens gain nothing.
MAX_EVENTS = 64

_CONNECTIONS = (tcp.Server, unix.Server)


class ReplyBatcher(Service):
    """Has the reactor read from all that are ready before they are answered, while this service runs.

    :param reactor: a :class:`twisted.internet.epollreactor.EPollReactor`.

    To embed it, make it a part of your application, or start it yourself, and tell the
    factory: ``POP3Factory(reactor, ..., sending=ImmediateSending(batcher.postpone))``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._batching = False
        self._postponed: list[Callable[[], object]] = []

    def startService(self) -> None:
        """Take over how the reactor waits; if another program has, nothing is ever postponed."""
        super().startService()
        if "doIteration" not in vars(self._reactor):
            self._reactor.doIteration = self._turn

    def stopService(self) -> Deferred[None] | None:
        """Give it back."""
        if vars(self._reactor).get("doIteration") == self._turn:
            del self._reactor.doIteration
        super().stopService()
        return None

    def postpone(self, call: Callable[[], object]) -> bool:
        """See :class:`pop3toy.interfaces.Batcher`."""
        if self._batching:
            self._postponed.append(call)
        return self._batching

    def _turn(self, timeout: float | None) -> None:
        """Wait until a connection is ready, and serve all that are.

        :param timeout: how many seconds to wait at the most; ``None`` for ever.
        """
        # By descriptor.  As in Twisted, a ready one may not be watched any more.
        watched = self._reactor._selectables
        ready = self._reactor._poller.poll(-1 if timeout is None else timeout, MAX_EVENTS)
        if len(ready) < 2:
            for number, events in ready:
                if number in watched:
                    self._serve(watched[number], number, events)
            return
        found = [(watched.get(number), number, events) for number, events in ready]
        self._batching = True
        try:
            for one, number, events in found:
                # One may have ended another, and a new one may have its number.
                if one is not None and watched.get(number) is one:
                    self._serve(one, number, events)
        finally:
            self._answer()

    def _serve(self, one: Any, number: int, events: int) -> None:
        if type(one) not in _CONNECTIONS or not getattr(one.protocol, "logs_by_itself", False):
            callWithLogger(one, self._reactor._doReadOrWrite, one, number, events)
            return
        # Without the prefix for log lines of old, which costs more than a login can spare.
        try:
            self._reactor._doReadOrWrite(one, number, events)
        except Exception:
            # It was told of its end and failed.
            log.failure("a connection failed at its end")

    def _answer(self) -> None:
        try:
            self._call_postponed()
        finally:
            self._batching = False
            # What the answers had to postpone, such as the log lines of all sessions that ended: in one
            # piece they cost much less.
            self._call_postponed()

    def _call_postponed(self) -> None:
        calls, self._postponed = iter(self._postponed), []
        try:
            for call in calls:
                try:
                    call()
                except Exception:
                    log.failure("what was postponed failed")
        finally:
            # If one of them ended the whole process: none of the others is forgotten.
            self._postponed[:0] = calls


def batcher_of(reactor: object) -> ReplyBatcher | None:
    """A batcher for this reactor; ``None`` if it is of another kind."""
    if not hasattr(select, "epoll"):
        return None
    from twisted.internet.epollreactor import EPollReactor

    # One derived from it may wait in its own way.
    return ReplyBatcher(reactor) if type(reactor) is EPollReactor else None
