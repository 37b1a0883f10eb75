"""Measures one process that serves clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import MultiService

from ...clock import steady
from ...config.settings import Settings
from ...errors import CannotStart
from ...files import Owner
from ...interfaces import IMailStore, IObserver, IStoreAdmin
from ...net.threads import WorkerThreads
from ...net.types import IReactor
from ...stores.registry import kind_of
from ..service import Repeatedly
from .endpoint import MetricsEndpoint, Pages, are_wanted
from .measured import MeasuredThreads
from .troubles import ask_store, check_accounts, expired, expiring, expiry, login_refused

if TYPE_CHECKING:
    from ...net.tls.contexts import GivenTLS
    from ...observe.metrics.metrics import Metrics
    from ...outgoing.service import Told

__all__ = ["Monitoring", "monitoring_of"]


def monitoring_of(settings: Settings, reactor: IReactor, *, shown: bool = False) -> Monitoring | None:
    """What measures a server, if its settings ask for it.

    :param shown: whether a page of another site shows it as well.
    :raises pop3toy.errors.CannotStart: where prometheus_client is not installed.
    """
    if not are_wanted(settings, shown=shown):
        return None
    return Monitoring(settings, reactor)


#: Seconds between two looks of a worker at its threads.
INTERVAL: Final = 5.0


class Monitoring:
    """Measures one process that serves clients.

    :param settings: which ask for it.
    """

    def __init__(self, settings: Settings, reactor: IReactor) -> None:
        from ...observe.metrics.metrics import Metrics, Registry

        self._settings = settings
        self._reactor = reactor
        self._clock = steady(reactor)
        self._registry = Registry(auto_describe=False)
        self._metrics: Metrics = Metrics(self._registry)
        self._pools: dict[str, WorkerThreads] = {}
        self._login_refused = False

    @property
    def observers(self) -> Sequence[IObserver]:
        """What is to be told of all that happens."""
        return [self._metrics]

    def threads(self, reactor: IReactor, *, name: str, **more: Any) -> WorkerThreads:
        """A pool whose work is measured; in the place of ``WorkerThreads``."""
        took = partial(self._metrics.measured, "pop3toy_thread_job_seconds")
        pool = self._pools[name] = MeasuredThreads(
            reactor, name=name, took=lambda seconds: took(seconds, name), **more
        )
        return pool

    def store(self, store: IMailStore) -> IMailStore:
        """The same, measured."""
        from ...observe.metrics.timed import TimedStore

        took = partial(self._metrics.measured, "pop3toy_store_open_seconds")
        timed: IMailStore = TimedStore(store, self._clock.seconds, took)
        return timed

    def outgoing(self) -> Told:
        """What tells of the queue for mail that goes out."""
        from ...outgoing.service import Told

        return Told(self._queue_is, self._login_is)

    def _queue_is(self, messages: int, seconds: float) -> None:
        self._metrics.now("pop3toy_queue_messages", messages)
        self._metrics.now("pop3toy_queue_oldest_seconds", seconds)

    def _login_is(self, refused: bool) -> None:
        self._login_refused = refused
        self._metrics.now("pop3toy_smarthost_login_refused", refused)

    def look_at_threads(self) -> None:
        """Set what is not counted as it happens."""
        for name, pool in self._pools.items():
            load = pool.load
            self._metrics.now("pop3toy_threads", load.threads, name)
            self._metrics.now("pop3toy_thread_jobs", load.running, name, "running")
            self._metrics.now("pop3toy_thread_jobs", load.waiting, name, "waiting")

    def worker(self, parts: MultiService) -> None:
        """Serve nothing: this is a worker, whose supervisor does."""
        Repeatedly(self._reactor, self.look_at_threads, INTERVAL).setServiceParent(parts)

    def serve(
        self,
        parts: MultiService,
        draining: Callable[[], bool],
        tls: GivenTLS | None,
        admin: Callable[[], IStoreAdmin | None],
        *,
        own_store: bool,
        failed: Callable[[CannotStart], object],
        owner: Owner | None = None,
    ) -> Pages:
        """Serve it at the endpoint of the settings, if there is one, which ends behind the mail's ports.

        :param draining: whether no more connections are taken.
        :param own_store: whether the store is that of the settings.
        :param failed: is told why the port cannot be opened.
        :param owner: the user that the process becomes when it is open.
        :return: the same, for a site that shows other things as well.
        """
        threads = WorkerThreads(self._reactor, name="health", size=2)
        threads.setServiceParent(parts)

        def leaving() -> bool:
            return not parts.running or draining()

        settings = self._settings
        looks: list[Callable[[], object]] = []
        if settings.accounts_file is not None:
            looks.append(lambda: check_accounts(settings))
        if not own_store:
            looks.append(lambda: ask_store(admin()))
        elif not settings.is_toy:
            # The toy's messages were read at the start.
            looks.append(lambda: kind_of(settings.store).check(settings.store))
            if kind_of(settings.store).on_network:
                looks.append(lambda: ask_store(admin()))
        endpoint = MetricsEndpoint(self._settings, self._reactor, self._registry, threads)
        endpoint.asked(
            {
                "pop3toy_draining": lambda: [(leaving(), ())],
                "pop3toy_certificate_expiry_timestamp_seconds": lambda: expiry(tls),
            }
        )
        return endpoint.listen(
            parts,
            [lambda: ["the server takes no more connections"] if leaving() else [], lambda: expired(tls)],
            looks,
            failed,
            before=self.look_at_threads,
            warnings=lambda: [*expiring(tls), *login_refused(self._login_refused)],
            owner=owner,
        )
