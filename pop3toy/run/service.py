"""Services: what is started, what is stopped, and in which order.

Nothing here knows what the parts are for; ``assembly`` puts them together.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from ..clock import steady
from ..errors import CannotStart
from ..interfaces import IServerControl
from ..net.types import IReactor
from ..observe.line_writer import LineWriter

__all__ = [
    "Drainable",
    "LinesService",
    "Listening",
    "ListeningService",
    "OrderedService",
    "ReloadService",
    "Reloadable",
    "Server",
]

log = Logger()


class Drainable(Protocol):
    """A factory whose sessions can be let end."""

    def drain(self) -> Deferred[None]:
        """Fires when the last session has ended."""


class OrderedService(MultiService):
    """Starts its parts in order and stops them one after another, last first.

    ``MultiService`` stops all at once; here a thread pool has to outlive the
    sessions that use it.  A part that cannot start has all others stopped again.

    :param prepare: is given the application that this becomes a part of, before it does.
    """

    def __init__(self, prepare: Callable[[Componentized], object] | None = None) -> None:
        super().__init__()
        self._prepare = prepare
        #: Fired when all parts have stopped; there are some while they stop.
        self._when_stopped: list[Deferred[None]] = []

    def setServiceParent(self, parent: Any) -> None:
        """See :class:`twisted.application.service.IService`."""
        if self._prepare is not None and isinstance(parent, Componentized):
            self._prepare(parent)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Open what may need privileges.

        :raises pop3toy.errors.CannotStart: as :meth:`startService`.
        """
        self._each(Service.privilegedStartService, "privilegedStartService")

    def startService(self) -> None:
        """Start part by part.

        :raises pop3toy.errors.CannotStart: if one of them cannot; all are stopped then, without
            waiting for it, and :meth:`stopService` tells when that is done.
        """
        self._each(Service.startService, "startService")

    def _each(self, own: Callable[[Service], object], step: str) -> None:
        if self._when_stopped:
            raise CannotStart("the server is still stopping: start it when stopService's Deferred has fired")
        if self.running:
            # Somebody has started it, and given it a parent that starts as well.
            return
        own(self)
        try:
            for service in self:
                getattr(service, step)()
        except Exception:
            Service.stopService(self)
            # Nobody has connected yet: all ports are closed at once, none waits for another.
            self._ended(gatherResults([self._stopped(service) for service in reversed(list(self))]))
            raise

    def stopService(self) -> Deferred[None]:
        """Stop part by part; a part that fails is logged and does not keep the others.

        :return: a Deferred that fires when all have stopped; never fails.
        """
        Service.stopService(self)
        if self._when_stopped:
            done: Deferred[None] = Deferred()
            self._when_stopped.append(done)
            return done

        async def one_after_another() -> None:
            for service in reversed(list(self)):
                await self._stopped(service)

        return self._ended(Deferred.fromCoroutine(one_after_another()))

    def _stopped(self, service: Any) -> Deferred[Any]:
        stopping: Deferred[Any] = maybeDeferred(service.stopService)
        return stopping.addErrback(lambda why: log.failure("while stopping", why))

    def _ended(self, ending: Deferred[Any]) -> Deferred[None]:
        """Whoever asks from now on is told when it has ended."""
        done: Deferred[None] = Deferred()
        self._when_stopped.append(done)

        def tell(_: object) -> None:
            when_stopped, self._when_stopped = self._when_stopped, []
            for waiting in when_stopped:
                waiting.callback(None)

        ending.addCallback(tell)
        return done


class Listening(NamedTuple):
    """A port that is open."""

    #: What is spoken there: ``POP3``, ``SMTP``, ``submission`` or ``LMTP``.
    protocol: str
    #: Whether with TLS from the first octet on.
    tls: bool
    #: ``IPv4Address`` or ``IPv6Address`` with ``host`` and ``port``, ``UNIXAddress`` with ``name``
    #: (:mod:`twisted.internet.address`).
    address: Any


class Server(OrderedService):
    """A whole server: what :func:`pop3toy.server` returns."""

    #: What may be done to it while it runs.
    control: IServerControl

    @property
    def listening(self) -> Sequence[Listening]:
        """The ports that are open now, with the real numbers where 0 was asked for.

        POP3 comes first, then POP3 over TLS, SMTP, submission, LMTP.  Empty before the start and
        after the stop; a server that is started again may have got other numbers.
        """
        return [
            Listening(part.protocol, part.tls, port.getHost())
            for part in self
            if isinstance(part, ListeningService)
            for port in part.ports
        ]


class ListeningService(Service):
    """Listens on endpoints for one factory; when stopped, lets its sessions end.

    Ports are opened while the process may still be root.

    :param endpoints: where to listen, each with a name for people.
    :param factory: of the protocol.
    :param drained: the factory whose sessions are let end, if there is one.
    :param ready: is told the name and the port of each endpoint that listens.
    :param failed: is called with a :class:`CannotStart` if one cannot be
        opened; it should not return.
    :param protocol: what is spoken there.
    :param tls: whether with TLS from the first octet on.
    """

    def __init__(
        self,
        endpoints: Sequence[tuple[str, IStreamServerEndpoint]],
        factory: IProtocolFactory,
        *,
        ready: Callable[[str, IListeningPort], None],
        failed: Callable[[CannotStart], object],
        drained: Drainable | None = None,
        protocol: str = "",
        tls: bool = False,
    ) -> None:
        self.protocol = protocol
        self.tls = tls
        #: Those that are open.
        self.ports: list[IListeningPort] = []
        self._endpoints = endpoints
        self._factory = factory
        self._ready = ready
        self._failed = failed
        self._drained = drained
        self._opened: list[Deferred[IListeningPort]] = []
        # What keeps a port from being opened, while that is asked for.
        self._trouble: CannotStart | None = None
        self._asked = False

    def privilegedStartService(self) -> None:
        """Open the ports."""
        for name, endpoint in self._endpoints:
            self._asked, self._trouble = True, None
            opening: Deferred[Any] = maybeDeferred(endpoint.listen, self._factory)
            opening.addCallbacks(
                self._listening, self._not_listening, callbackArgs=(name,), errbackArgs=(name,)
            )
            self._opened.append(opening)
            self._asked = False
            # Outside of the callback, where a SystemExit would get lost.
            if self._trouble is not None:
                self._failed(self._trouble)

    def startService(self) -> None:
        """Open the ports, unless that was done while privileged."""
        super().startService()
        if not self._opened:
            self.privilegedStartService()

    def _listening(self, port: IListeningPort, name: str) -> IListeningPort:
        self.ports.append(port)
        self._ready(name, port)
        return port

    def _not_listening(self, why: Failure, name: str) -> None:
        error = why.value
        if isinstance(error, CannotListenError):
            reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
        elif isinstance(error, OSError):
            reason = error.strerror or str(error)
        elif isinstance(error, OverflowError):
            reason = "a port is a number from 0 to 65535"
        else:
            log.failure("opening {name}", why, name=name)
            reason = str(error)
        self._trouble = CannotStart(f"cannot listen on {name}: {reason.lower()}")
        if not self._asked:
            # An endpoint that took its time, as one that asks another machine does.
            log.critical("{why}", why=str(self._trouble))

    def stopService(self) -> Deferred[None]:
        """Take no more connections, then let the sessions end."""
        super().stopService()
        opened, self._opened = self._opened, []
        self.ports.clear()

        def close(port: IListeningPort | None) -> object:
            if port in self.ports:
                # It was opened late.
                self.ports.remove(port)
            return port.stopListening() if port is not None else None

        closing = gatherResults([maybeDeferred(lambda one: one.addCallback(close), one) for one in opened])
        drained = self._drained
        if drained is not None:
            closing.addCallback(lambda _: drained.drain())
        return closing.addCallback(lambda _: None)


class Reloadable(Protocol):
    """Something that is read from files and can be read again."""

    def reload(self) -> None:
        """Read it again now; never raises."""

    def reload_if_changed(self) -> None:
        """Read it again if the files have changed; never raises."""


class ReloadService(Service):
    """Reads files again at SIGHUP, and looks every now and then whether they have changed.

    :param reactor: whose signals and timers are used.
    :param reloadables: what is read again.
    :param interval: seconds between two looks.
    :param signals: whether SIGHUP is ours.
    """

    def __init__(
        self,
        reactor: IReactor,
        reloadables: Sequence[Reloadable],
        *,
        interval: float = 30.0,
        signals: bool = True,
    ) -> None:
        self._reactor = reactor
        self._signals = signals
        self._reloadables = reloadables
        self._interval = interval
        # A LoopingCall would import the reactor of the process, which may be another one or none.
        self._clock: IReactorTime = steady(reactor)
        self._next_look: IDelayedCall | None = None
        self._handler_before: Any = None
        self._listening = False

    def privilegedStartService(self) -> None:
        """Take over SIGHUP, which would otherwise end the process, before any port is open."""
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Take over SIGHUP, unless that was done while privileged, and begin to look."""
        super().startService()
        self._listen()
        self._next_look = self._clock.callLater(self._interval, self._look)

    def stopService(self) -> None:
        """Give SIGHUP back."""
        super().stopService()
        next_look, self._next_look = self._next_look, None
        if next_look is not None:
            next_look.cancel()
        if self._listening:
            self._listening = False
            signal.signal(signal.SIGHUP, self._handler_before)

    def _listen(self) -> None:
        if self._signals and not self._listening:
            self._listening = True
            self._handler_before = signal.signal(signal.SIGHUP, self._hang_up)

    def _hang_up(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _reload(self) -> None:
        for reloadable in self._reloadables:
            reloadable.reload()

    def _look(self) -> None:
        self._next_look = self._clock.callLater(self._interval, self._look)
        for reloadable in self._reloadables:
            reloadable.reload_if_changed()


class LinesService(Service):
    """Lets a thread write its last lines before the process, or the service, ends.

    :param clock: with which it waits for a slow reader (``IReactorTime``), where others live on
        the reactor's thread; ``None`` stops the thread.
    """

    def __init__(self, lines: LineWriter, clock: IReactorTime | None = None) -> None:
        self._lines = lines
        self._clock: IReactorTime | None = steady(clock) if clock is not None else None

    def startService(self) -> None:
        """Write, again if need be."""
        super().startService()
        self._lines.start()

    def stopService(self) -> Deferred[None]:
        """Write what is left; for a second at the most.

        :return: a Deferred that fires then.
        """
        super().stopService()
        done: Deferred[None] = Deferred()
        if self._clock is None:
            self._lines.stop()
            done.callback(None)
        else:
            self._wait(self._clock, done, 20)
        return done

    def _wait(self, clock: IReactorTime, done: Deferred[None], tries: int) -> None:
        if self._lines.stop(0.005) or not tries:
            done.callback(None)
        else:
            clock.callLater(0.05, self._wait, clock, done, tries - 1)
