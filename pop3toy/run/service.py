"""Services: what is started, what is stopped, and in which order.

Nothing here knows what the parts are for; ``assembly`` puts them together.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.application.service import IService, IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from ..clock import steady
from ..config.settings import Settings
from ..errors import CannotStart
from ..interfaces import IServerControl
from ..net.factory import ConnectionFactory
from ..net.types import IReactor
from ..observe.line_writer import LineWriter

__all__ = [
    "LinesService",
    "Listening",
    "ListeningService",
    "OrderedService",
    "ReloadService",
    "Reloadable",
    "Repeatedly",
    "Server",
    "listening_of",
]

log = Logger()

_T = TypeVar("_T")


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

    def setServiceParent(self, parent: IServiceCollection) -> None:
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
            # An embedding program has started it, and given it a parent that starts its parts as well.
            return
        own(self)
        try:
            for service in self:
                getattr(service, step)()
        except Exception:
            Service.stopService(self)
            # No client has connected yet: all ports are closed at once, none waits for another.
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

    def _stopped(self, service: IService) -> Deferred[object]:
        stopping: Deferred[object] = maybeDeferred(service.stopService)
        return stopping.addErrback(lambda why: log.failure("while stopping", why))

    def _ended(self, ending: Deferred[_T]) -> Deferred[None]:
        """A Deferred that fires when all parts have ended, as do those of later calls of stopService."""
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


def listening_of(service: OrderedService) -> Sequence[Listening]:
    """The ports of a service that are open now."""
    return [
        Listening(part.protocol, part.tls, part.port.getHost())
        for part in service
        if isinstance(part, ListeningService) and part.protocol and part.port is not None
    ]


class Server(OrderedService):
    """A whole server: what :func:`pop3toy.server` returns."""

    #: What may be done to it while it runs.
    control: IServerControl

    #: Is called with settings that are in force from then on, and differ in nothing that needs a restart.
    take: Callable[[Settings], object]

    #: Opens the files again that it writes what happens to: somebody has renamed them.
    reopen: Callable[[], object]

    #: Where a browser finds the inspector, with the token, once it listens; empty if there is none.
    inspector: str = ""

    @property
    def listening(self) -> Sequence[Listening]:
        """The ports that are open now, with the real numbers where 0 was asked for.

        POP3 comes first, then POP3 over TLS, SMTP, submission, LMTP.  Empty before the start and
        after the stop; a server that is started again may have got other numbers.
        """
        return listening_of(self)


class ListeningService(Service):
    """Listens at an endpoint for a factory; when stopped, lets its sessions end.

    The port is opened while the process may still be root.

    :param name: of the endpoint, for people.
    :param ready: is told the name and the port when that listens.
    :param failed: is called with a :class:`CannotStart` if it cannot be opened; it should not return.
    :param drained: the factory whose sessions are let end, if there is one.
    :param protocol: what is spoken there; empty where no mail is served.
    :param tls: whether with TLS from the first octet on.
    """

    def __init__(
        self,
        name: str,
        endpoint: IStreamServerEndpoint,
        factory: IProtocolFactory,
        *,
        ready: Callable[[str, IListeningPort], None],
        failed: Callable[[CannotStart], object],
        drained: ConnectionFactory | None = None,
        protocol: str = "",
        tls: bool = False,
    ) -> None:
        self.protocol = protocol
        self.tls = tls
        #: Once it is open.
        self.port: IListeningPort | None = None
        self._name = name
        self._endpoint = endpoint
        self._factory = factory
        self._ready = ready
        self._failed = failed
        self._drained = drained
        self._opening: Deferred[IListeningPort | None] | None = None

    def privilegedStartService(self) -> None:
        """Open the port."""
        trouble: list[CannotStart] = []
        late = False

        def not_listening(why: Failure) -> None:
            trouble.append(self._trouble(why))
            if late:
                # The endpoint took its time, as one that asks another machine does.
                log.critical("{why}", why=str(trouble[0]))

        opening: Deferred[IListeningPort] = maybeDeferred(self._endpoint.listen, self._factory)
        self._opening = opening.addCallbacks(self._listening, not_listening)
        # Outside of the callback, where a SystemExit would get lost.
        if trouble:
            self._failed(trouble[0])
        late = True

    def startService(self) -> None:
        """Open the port, unless that was done while privileged."""
        super().startService()
        if self._opening is None:
            self.privilegedStartService()

    def _listening(self, port: IListeningPort) -> IListeningPort:
        self.port = port
        self._ready(self._name, port)
        return port

    def _trouble(self, why: Failure) -> CannotStart:
        error = why.value
        if isinstance(error, CannotListenError):
            reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
        elif isinstance(error, OSError):
            reason = error.strerror or str(error)
        elif isinstance(error, OverflowError):
            reason = "a port is a number from 0 to 65535"
        else:
            log.failure("opening {name}", why, name=self._name)
            reason = str(error)
        reason = reason[:1].lower() + reason[1:]
        refused = getattr(error, "socketError", error)
        if isinstance(refused, PermissionError) and not self._name.startswith("unix:"):
            reason += "; only root may open it: let systemd, or start as root with twistd --uid"
        return CannotStart(f"cannot listen on {self._name}: {reason}")

    def stopService(self) -> Deferred[None]:
        """Take no more connections, then let the sessions end."""
        super().stopService()
        opening, self._opening = self._opening, None
        self.port = None

        async def close() -> None:
            port = await opening if opening is not None else None
            # It may have been opened only now.
            self.port = None
            if port is not None:
                await maybeDeferred(port.stopListening)
            if self._drained is not None:
                await self._drained.drain()

        return Deferred.fromCoroutine(close())


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
    :param after: is called after each look and each reading.
    :param reopen: is called at SIGUSR1; without it that signal is not ours.
    """

    def __init__(
        self,
        reactor: IReactor,
        reloadables: Sequence[Reloadable],
        *,
        interval: float = 30.0,
        signals: bool = True,
        after: Callable[[], object] = lambda: None,
        reopen: Callable[[], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._signals = signals
        self._reopen = reopen
        self._after = after
        self._reloadables = reloadables
        self._interval = interval
        # A LoopingCall would import the reactor of the process, which may be another one or none.
        self._clock: IReactorTime = steady(reactor)
        self._next_look: IDelayedCall | None = None
        self._handlers_before: dict[int, Any] = {}

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
        handlers, self._handlers_before = self._handlers_before, {}
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def _listen(self) -> None:
        if not self._signals or self._handlers_before:
            return
        self._handlers_before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        if self._reopen is not None:
            self._handlers_before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._user_1)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._reload)

    def _user_1(self, number: int, frame: FrameType | None) -> None:
        if self._reopen is not None:
            self._reactor.callFromThread(self._reopen)
        before = self._handlers_before.get(number)
        if callable(before):
            # Twisted's, which turns over the file of twistd's --logfile.
            before(number, frame)

    def _reload(self) -> None:
        for reloadable in self._reloadables:
            reloadable.reload()
        self._after()

    def _look(self) -> None:
        self._next_look = self._clock.callLater(self._interval, self._look)
        for reloadable in self._reloadables:
            reloadable.reload_if_changed()
        self._after()


class LinesService(Service):
    """Lets a thread write its last lines before the process, or the service, ends.

    :param clock: with which it waits for a slow reader, where others live on the reactor's thread;
        ``None`` stops the thread.
    """

    def __init__(self, lines: LineWriter, clock: IReactorTime | None = None) -> None:
        self._lines = lines
        self._clock = steady(clock) if clock is not None else None

    def startService(self) -> None:
        """Write, again if need be."""
        super().startService()
        self._lines.start()

    def stopService(self) -> Deferred[None]:
        """Write what is left; for a second at the most.

        :return: a Deferred that fires then.
        """
        super().stopService()
        if self._clock is None:
            self._lines.stop()
            return succeed(None)
        return Deferred.fromCoroutine(self._stop(self._clock))

    async def _stop(self, clock: IReactorTime) -> None:
        for _ in range(20):
            if self._lines.stop(0.005):
                return
            await deferLater(clock, 0.05)
        self._lines.stop(0.005)


class Repeatedly(Service):
    """Calls something at once and again every few seconds.

    :param interval: seconds between two calls.
    """

    def __init__(self, reactor: IReactorTime, call: Callable[[], object], interval: float) -> None:
        self._clock = steady(reactor)
        self._call = call
        self._interval = interval
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._again()

    def stopService(self) -> None:
        """End."""
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _again(self) -> None:
        self._next = self._clock.callLater(self._interval, self._again)
        self._call()
