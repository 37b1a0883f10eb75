"""The port where metrics and health are told, and what is worked out when somebody asks."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort

from twisted import __version__ as twisted_version

from ..._version import __version__
from ...config.settings import Settings
from ...errors import BadSetting, CannotStart
from ...files import Owner
from ...installation import install_hint
from ...net.threads import WorkerThreads
from ...net.types import IReactor
from ...net.unix_sockets import UnixListening
from ..ports import Port, announce, endpoint_of
from ..service import ListeningService

if TYPE_CHECKING:
    from twisted.web.resource import IResource

__all__ = ["MetricsEndpoint", "Pages", "are_wanted"]

#: Seconds that a look at the disk may take.
PATIENCE: Final = 5.0


class Pages(NamedTuple):
    """What is told, for another site than that of the settings."""

    metrics: IResource
    healthz: IResource
    #: Gives what is wrong, a sentence each.
    look: Callable[[], Deferred[Sequence[str]]]


def are_wanted(settings: Settings, *, shown: bool) -> bool:
    """Whether there are to be metrics.

    :param shown: whether another site shows them, if what they need is installed.
    :raises pop3toy.errors.CannotStart: if the settings ask for them and that is not installed.
    """
    if settings.metrics is None:
        return shown and find_spec("prometheus_client") is not None
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise BadSetting("metrics", f" needs more than is installed: {install_hint('metrics')}") from error
    return True


class MetricsEndpoint:
    """Where metrics and health are told, and what is worked out when somebody asks."""

    def __init__(
        self,
        settings: Settings,
        reactor: IReactor,
        registry: Any,
        threads: WorkerThreads,
        processes: Callable[[], Sequence[int]] = lambda: [os.getpid()],
    ) -> None:
        from ...observe.metrics.asked import Asked

        self._settings = settings
        self._reactor = reactor
        self._registry = registry
        self._threads = threads
        self._asked = Asked(registry, processes)
        versions = __version__, platform.python_version(), twisted_version
        self.asked({"pop3toy_build_info": lambda: [(1, versions)]})

    def asked(self, values: Mapping[str, Callable[[], Iterable[tuple[float, Sequence[str]]]]]) -> None:
        """Metrics that are worked out when somebody asks."""
        self._asked.values.update(values)

    def pages(
        self,
        at_once: Sequence[Callable[[], Sequence[str]]],
        looks: Sequence[Callable[[], object]],
        before: Callable[[], object],
        warnings: Callable[[], Sequence[str]] = lambda: (),
    ) -> Pages:
        """``metrics`` and ``healthz``, for whatever site has room for them."""
        from ...observe.metrics.health import Health
        from ...observe.metrics.site import HealthResource, MetricsResource

        within = self._threads.shared((), within=PATIENCE)

        def in_thread(look: Callable[[], object]) -> Callable[[], Deferred[object]]:
            return lambda: within(look)

        health = Health(self._reactor, at_once, [in_thread(look) for look in looks], warnings)
        self.asked({"pop3toy_healthy": lambda: [(health.known == [], ())]})
        metrics, healthz = MetricsResource(self._registry, health, before), HealthResource(health)
        return Pages(metrics, healthz, health.look)

    def listen(
        self,
        parts: MultiService,
        at_once: Sequence[Callable[[], Sequence[str]]],
        looks: Sequence[Callable[[], object]],
        failed: Callable[[CannotStart], object],
        before: Callable[[], object] = lambda: None,
        warnings: Callable[[], Sequence[str]] = lambda: (),
        owner: Owner | None = None,
    ) -> Pages:
        """Serve them where the settings say, if they do.

        :param owner: the user that the process becomes when it listens.
        :return: the same for another site, which must not be served any longer than ``parts`` run.
        """
        from ...observe.metrics.site import site_of

        pages = self.pages(at_once, looks, before, warnings)
        if self._settings.metrics is None:
            return pages
        site = site_of(self._reactor, {b"metrics": pages.metrics, b"healthz": pages.healthz})
        port = Port("metrics", "metrics", self._settings.metrics)

        def ready(name: str, opened: IListeningPort) -> None:
            announce(port, opened, name, self._reactor)

        listening = cast(IReactor, UnixListening(self._reactor, owner))
        name, endpoint = endpoint_of(port, self._settings, listening)
        ListeningService(name, endpoint, site, ready=ready, failed=failed).setServiceParent(parts)
        return pages
