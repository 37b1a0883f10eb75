"""Metrics and health of a running server: what is measured where, and the port that tells of it.

With ``--metrics`` alone; else no module of ``observe.metrics`` is loaded and nothing is measured.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

import twisted

from .._version import __version__
from ..clock import steady
from ..config.settings import Settings
from ..errors import CannotStart
from ..files import check_readable
from ..installation import install_hint
from ..interfaces import IMailStore, IObserver, IStoreAdmin
from ..net.factory import ConnectionFactory
from ..net.threads import RunInThread, Share, WorkerThreads
from ..net.types import IReactor
from ..net.unix_sockets import UnixListening
from ..stores.registry import kind_of
from .ports import Port, announce, endpoint_of
from .service import ListeningService

if TYPE_CHECKING:
    from twisted.web.resource import IResource

    from ..net.tls.contexts import GivenTLS
    from ..observe.metrics.metrics import Metrics

__all__ = ["Monitoring", "WorkersFolder", "monitor_workers", "monitoring_of", "workers_folder"]

log = Logger()

_T = TypeVar("_T")

#: Days before its end from which a certificate is a problem: who renews it by a program does so long before.
EXPIRING: Final = 7
#: Seconds that a look at the disk may take.
PATIENCE: Final = 5.0
#: Seconds between two looks at the threads of a worker, which nobody asks.
INTERVAL: Final = 5.0


def monitoring_of(settings: Settings, reactor: IReactor) -> Monitoring | None:
    """What measures a server, if its settings ask for it.

    :raises pop3toy.errors.CannotStart: where prometheus_client is not installed.
    """
    if settings.metrics is None:
        return None
    _check_installed()
    return Monitoring(settings, reactor)


def _check_installed() -> None:
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise CannotStart(f"--metrics needs more than is installed: {install_hint('metrics')}") from error


class Monitoring:
    """Measures one process that serves clients.

    :param settings: which ask for it.
    """

    def __init__(self, settings: Settings, reactor: IReactor) -> None:
        from ..observe.metrics.metrics import Metrics, Registry

        self._settings = settings
        self._reactor = reactor
        self._clock = steady(reactor)
        self._registry = Registry(auto_describe=False)
        self._metrics: Metrics = Metrics(self._registry)
        self._pools: dict[str, WorkerThreads] = {}

    @property
    def observers(self) -> Sequence[IObserver]:
        """What is to be told of all that happens."""
        return [self._metrics]

    def threads(self, reactor: IReactor, *, name: str, **more: Any) -> WorkerThreads:
        """A pool whose work is measured; in the place of ``WorkerThreads``."""
        took = partial(self._metrics.measured, "pop3toy_thread_job_seconds")
        pool = self._pools[name] = _MeasuredThreads(
            reactor, name=name, took=lambda seconds: took(seconds, name), **more
        )
        return pool

    def store(self, store: IMailStore) -> IMailStore:
        """The same, measured."""
        from ..observe.metrics.timed import TimedStore

        took = partial(self._metrics.measured, "pop3toy_store_open_seconds")
        timed: IMailStore = TimedStore(store, self._clock.seconds, took)
        return timed

    def look_at_threads(self) -> None:
        """Set what is not counted as it happens."""
        for name, pool in self._pools.items():
            load = pool.load
            self._metrics.now("pop3toy_threads", load.threads, name)
            self._metrics.now("pop3toy_thread_jobs", load.running, name, "running")
            self._metrics.now("pop3toy_thread_jobs", load.waiting, name, "waiting")

    def worker(self, parts: MultiService) -> None:
        """Serve nothing: this is a worker, whose supervisor does."""
        _Repeatedly(self._reactor, self.look_at_threads).setServiceParent(parts)

    def serve(
        self,
        parts: MultiService,
        factories: Iterable[ConnectionFactory],
        tls: GivenTLS | None,
        admin: Callable[[], IStoreAdmin | None],
        *,
        own_store: bool,
        failed: Callable[[CannotStart], object],
    ) -> None:
        """Serve it at the endpoint of the settings, as a part that ends behind the mail's ports.

        :param factories: of all connections.
        :param own_store: whether the store is that of the settings.
        :param failed: is told why the port cannot be opened.
        """
        threads = WorkerThreads(self._reactor, name="health", size=2)
        threads.setServiceParent(parts)
        connections = list(factories)

        def draining() -> bool:
            return not parts.running or any(one.draining for one in connections)

        looks: list[Callable[[], object]] = [lambda: _check_accounts(self._settings)]
        if own_store:
            looks.append(lambda: kind_of(self._settings.store).check(self._settings.store))
        else:
            looks.append(lambda: _ask(admin()))
        endpoint = _Endpoint(self._settings, self._reactor, self._registry, threads)
        endpoint.asked(
            {
                "pop3toy_draining": lambda: [(draining(), ())],
                "pop3toy_certificate_expiry_timestamp_seconds": lambda: _expiry(tls),
            }
        )
        endpoint.listen(
            parts,
            [lambda: ["the server is stopping"] if draining() else [], lambda: _expiring(tls)],
            looks,
            failed,
            before=self.look_at_threads,
        )


class _MeasuredThreads(WorkerThreads):
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


class _Repeatedly(Service):
    """Calls something every few seconds."""

    def __init__(self, reactor: IReactor, call: Callable[[], object]) -> None:
        self._clock = steady(reactor)
        self._call = call
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
        self._call()
        self._next = self._clock.callLater(INTERVAL, self._again)


class _Endpoint:
    """Where metrics and health are told, and what is worked out when somebody asks."""

    def __init__(
        self,
        settings: Settings,
        reactor: IReactor,
        registry: Any,
        threads: WorkerThreads,
        processes: Callable[[], Sequence[int]] = lambda: [os.getpid()],
    ) -> None:
        from ..observe.metrics.asked import Asked

        self._settings = settings
        self._reactor = reactor
        self._registry = registry
        self._threads = threads
        self._asked = Asked(registry, processes)
        versions = __version__, platform.python_version(), twisted.__version__
        self.asked({"pop3toy_build_info": lambda: [(1, versions)]})

    def asked(self, values: Mapping[str, Callable[[], Iterable[tuple[float, Sequence[str]]]]]) -> None:
        """Metrics that are worked out when somebody asks."""
        self._asked.values.update(values)

    def resources(
        self,
        at_once: Sequence[Callable[[], Sequence[str]]],
        looks: Sequence[Callable[[], object]],
        before: Callable[[], object],
    ) -> Mapping[bytes, IResource]:
        """``metrics`` and ``healthz``, for whatever site has room for them."""
        from ..observe.metrics.health import Health
        from ..observe.metrics.site import HealthResource, MetricsResource

        within = self._threads.shared((), within=PATIENCE)

        def in_thread(look: Callable[[], object]) -> Callable[[], Deferred[object]]:
            return lambda: within(look)

        health = Health(self._reactor, at_once, [in_thread(look) for look in looks])
        self.asked({"pop3toy_healthy": lambda: [(health.known == [], ())]})
        return {
            b"metrics": MetricsResource(self._registry, health, before),
            b"healthz": HealthResource(health),
        }

    def listen(
        self,
        parts: MultiService,
        at_once: Sequence[Callable[[], Sequence[str]]],
        looks: Sequence[Callable[[], object]],
        failed: Callable[[CannotStart], object],
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """Serve them where the settings say."""
        from ..observe.metrics.site import site_of

        assert self._settings.metrics is not None, "the settings ask for it"
        site = site_of(self._reactor, self.resources(at_once, looks, before))
        port = Port("metrics", "metrics", self._settings.metrics)

        def ready(name: str, opened: IListeningPort) -> None:
            announce(port, opened, name, self._reactor)

        name, endpoint = _opened_here(port, self._settings, self._reactor)
        ListeningService(name, endpoint, site, ready=ready, failed=failed).setServiceParent(parts)


def _opened_here(port: Port, settings: Settings, reactor: IReactor) -> tuple[str, IStreamServerEndpoint]:
    return endpoint_of(port, settings, cast(IReactor, UnixListening(reactor)))


# -- what is looked at ------------------------------------------------------------------


def _check_accounts(settings: Settings) -> None:
    if settings.accounts is not None:
        check_readable("accounts", settings.accounts)


def _ask(admin: IStoreAdmin | None) -> None:
    """See that a store answers, where it can be asked."""
    if admin is not None:
        admin.exists("postmaster")


def _ends(tls: GivenTLS | None) -> Iterator[tuple[str, float]]:
    """The certificates' files, and when each expires, in seconds since the epoch."""
    if tls is not None:
        for pair in tls.in_use.pairs:
            yield pair.files.certificate, pair.chain()[0].not_valid_after_utc.timestamp()


def _expiry(tls: GivenTLS | None) -> Iterable[tuple[float, Sequence[str]]]:
    first = min((end for _, end in _ends(tls)), default=None)
    return [] if first is None else [(first, ())]


def _expiring(tls: GivenTLS | None) -> list[str]:
    now = time.time()
    problems = []
    for path, end in _ends(tls):
        days = int((end - now) // 86400)
        if end <= now:
            problems.append(f"the certificate in {path} has expired")
        elif days < EXPIRING:
            problems.append(f"the certificate in {path} expires in {days} {'day' if days == 1 else 'days'}")
    return problems


# -- several processes ------------------------------------------------------------------


class WorkersFolder(Service):
    """The folder in which workers write their numbers: as long as the supervisor runs, for its user alone."""

    def __init__(self) -> None:
        #: Its path; empty before the start.
        self.path = ""
        #: Called with its path when it is there.
        self.when_made: Callable[[str], object] = lambda path: None

    def startService(self) -> None:
        """Make it, as the user that twistd has become."""
        super().startService()
        self.path = tempfile.mkdtemp(prefix="pop3toy-metrics-")
        self.when_made(self.path)

    def stopService(self) -> None:
        """Remove it."""
        super().stopService()
        path, self.path = self.path, ""
        shutil.rmtree(path, ignore_errors=True)

    def bury(self, number: int) -> None:
        """A worker is dead."""
        from ..observe.metrics.shared import bury

        if self.path:
            bury(self.path, number)


def workers_folder(settings: Settings) -> WorkersFolder | None:
    """The folder for the numbers of workers, if the settings ask for it.

    :raises pop3toy.errors.CannotStart: where prometheus_client is not installed.
    """
    if settings.metrics is None:
        return None
    _check_installed()
    return WorkersFolder()


def monitor_workers(
    settings: Settings,
    reactor: IReactor,
    parts: MultiService,
    folder: WorkersFolder,
    *,
    serving: Callable[[], int],
    restarts: Callable[[], int],
    processes: Callable[[], Sequence[int]],
    tls: GivenTLS | None,
    failed: Callable[[CannotStart], object],
) -> None:
    """Serve the metrics of all workers together, and whether all is well, in the supervisor.

    :param folder: where they write, added to ``parts`` before.
    :param serving: how many workers serve.
    :param restarts: how often one was started again.
    :param processes: their process ids.
    """
    from ..observe.metrics.metrics import Registry
    from ..observe.metrics.shared import add_up

    registry = Registry(auto_describe=False)
    threads = WorkerThreads(reactor, name="health", size=2)
    threads.setServiceParent(parts)
    endpoint = _Endpoint(settings, reactor, registry, threads, lambda: [os.getpid(), *processes()])
    endpoint.asked(
        {
            "pop3toy_workers": lambda: [(serving(), ())],
            "pop3toy_worker_restarts_total": lambda: [(restarts(), ())],
            "pop3toy_draining": lambda: [(not parts.running, ())],
            "pop3toy_certificate_expiry_timestamp_seconds": lambda: _expiry(tls),
        }
    )

    def at_once() -> list[str]:
        if not parts.running:
            return ["the server is stopping"]
        return [] if serving() else ["no worker serves"]

    endpoint.listen(
        parts,
        [at_once, lambda: _expiring(tls)],
        [lambda: _check_accounts(settings), lambda: kind_of(settings.store).check(settings.store)],
        failed,
    )
    folder.when_made = partial(add_up, registry=registry)
