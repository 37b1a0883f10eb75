"""A reactor of its own in a thread, with a clock that can be moved on, and nothing left of it in the end.

It is not the process's reactor and is never installed, so another one, or an event loop of asyncio, may
run beside it, and any number of these.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

__all__ = ["ReactorThread"]

_T = TypeVar("_T")

#: Turns of the reactor after which all that a client can know of has been told, its end too: what was
#: answered in this one, the end of the connection in the next.
_TURNS = 3


def _make_reactor() -> Any:
    """The best that this system has; making one installs nothing."""
    try:
        from twisted.internet.epollreactor import EPollReactor

        return EPollReactor()
    except ImportError:
        pass
    try:
        from twisted.internet.pollreactor import PollReactor

        return PollReactor()
    except ImportError:
        from twisted.internet.selectreactor import SelectReactor

        return SelectReactor()


#: The reactor of a thread that has one of its own.
_here = threading.local()
_adapting = threading.Lock()


def adapt_tls() -> None:
    """Let Twisted's TLS go by the reactor of its thread.

    It would import the reactor of the process to send what it has gathered, and so install one there,
    that nobody runs.  Nothing changes in other threads.
    """
    from twisted.protocols import tls

    with _adapting:
        default = getattr(tls, "_get_default_clock", None)
        if default is not None and not hasattr(default, "adapted"):

            def clock() -> Any:
                own = getattr(_here, "reactor", None)
                return own if own is not None else default()

            clock.adapted = True  # type: ignore[attr-defined]
            tls._get_default_clock = clock


class ReactorThread:
    """Runs from :meth:`start` to :meth:`stop`; the other methods may be called in any thread.

    :param name: of the thread.
    :param make_reactor: without a reactor that is installed.
    :param monotonic: seconds from any moment on.
    """

    def __init__(
        self,
        name: str,
        make_reactor: Callable[[], Any] = _make_reactor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._ahead = 0.0
        self.reactor = reactor = make_reactor()
        # A time of day would be taken for one that somebody may set.
        reactor.seconds = self._seconds
        # Which is for the reactor of the process alone.
        reactor._registerAsIOThread = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._stopped = False

    def _seconds(self) -> float:
        return self._monotonic() + self._ahead

    def start(self) -> None:
        """Start the thread; the reactor runs when this returns."""
        running = threading.Event()
        self.reactor.callWhenRunning(running.set)
        self._thread.start()
        running.wait()

    def _run(self) -> None:
        _here.reactor = self.reactor
        try:
            self.reactor.run(installSignalHandlers=False)
        finally:
            self._close()

    def _close(self) -> None:
        """Close what Twisted's reactors keep for the life of the process."""
        self.reactor.waker.connectionLost(Failure(ConnectionDone()))
        close = getattr(getattr(self.reactor, "_poller", None), "close", None)
        if close is not None:
            close()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function in the thread; what it returns, or what its Deferred fires with.

        :raises Exception: what it raises, or fails with.
        """
        if threading.current_thread() is self._thread or self._stopped:
            # There is nobody else whom it could disturb.
            return function()
        done = threading.Event()
        results: list[Any] = []

        def came(result: Any) -> None:
            results.append(result)
            done.set()

        self.reactor.callFromThread(lambda: maybeDeferred(function).addBoth(came))
        done.wait()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def settle(self) -> None:
        """Return when the reactor has looked at all connections again, and done what was to be done."""
        if threading.current_thread() is not self._thread and not self._stopped:
            settled = threading.Event()
            self.reactor.callFromThread(self._in_turns, _TURNS, settled.set)
            settled.wait()

    def _in_turns(self, turns: int, call: Callable[[], object]) -> None:
        if turns:
            self.reactor.callLater(0, self._in_turns, turns - 1, call)
        else:
            call()

    def advance(self, seconds: float) -> None:
        """Let the time go on; what was due on the way is done, in order, when this returns.

        :raises RuntimeError: in the reactor's own thread, where nothing else can happen meanwhile.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("time cannot go on while the reactor waits for it")
        if self._stopped:
            return
        arrived = threading.Event()
        self.reactor.callFromThread(self._advance_to, self._seconds() + seconds, arrived.set)
        arrived.wait()

    def _advance_to(self, target: float, arrived: Callable[[], object]) -> None:
        due = min((call.getTime() for call in self.reactor.getDelayedCalls()), default=target)
        reached = due > target or self._seconds() >= target
        # To the next call alone: it may ask for the time, and for another call before the target.
        self._ahead += max(0.0, (target if reached else due) - self._seconds())
        if reached:
            self._in_turns(_TURNS, arrived)
        else:
            self.reactor.callLater(0, self._advance_to, target, arrived)

    def stop(self) -> None:
        """Stop the reactor and end the thread; nothing is left of it.

        Also when it was never started, or has stopped already.
        """
        if self._stopped:
            return
        if self._thread.ident is None:
            self._close()
        else:
            self.reactor.callFromThread(self.reactor.stop)
            self._thread.join()
        self._stopped = True
