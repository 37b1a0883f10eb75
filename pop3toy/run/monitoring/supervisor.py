"""Tells of all workers together, in the process that serves no client."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from twisted.application.service import MultiService, Service

from ...config.settings import Settings
from ...errors import CannotStart
from ...files import Owner
from ...net.threads import WorkerThreads
from ...net.types import IReactor
from ...stores.registry import kind_of
from .endpoint import MetricsEndpoint, Pages, are_wanted
from .troubles import ask_store, check_accounts, expired, expiring, expiry, login_refused

if TYPE_CHECKING:
    from ...net.tls.contexts import GivenTLS

__all__ = ["WorkersFolder", "monitor_workers", "workers_folder"]


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
        self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        # tmpfiles.d(5): what is old is removed from such places, but not from a folder that is locked.
        fcntl.flock(self._folder, fcntl.LOCK_EX)
        self.when_made(self.path)

    def stopService(self) -> None:
        """Remove it."""
        super().stopService()
        path, self.path = self.path, ""
        if path:
            os.close(self._folder)
            shutil.rmtree(path, ignore_errors=True)

    def bury(self, number: int) -> None:
        """A worker is dead."""
        from ...observe.metrics.shared import bury

        if self.path:
            bury(self.path, number)


def workers_folder(settings: Settings, *, shown: bool = False) -> WorkersFolder | None:
    """The folder for the numbers of workers, if the settings ask for them.

    :param shown: whether a page of another site shows them as well.
    :raises pop3toy.errors.CannotStart: where prometheus_client is not installed.
    """
    return WorkersFolder() if are_wanted(settings, shown=shown) else None


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
    draining: Callable[[], bool] = lambda: False,
    owner: Owner | None = None,
) -> Pages:
    """Serve the metrics of all workers together, and whether all is well, in the supervisor.

    :param folder: where they write, added to ``parts`` before.
    :param serving: how many workers serve.
    :param restarts: how often one was started again.
    :param processes: their process ids.
    :param draining: whether they take no more connections.
    :param owner: the user that the process becomes when the port is open.
    """
    from ...observe.metrics.metrics import Registry
    from ...observe.metrics.shared import add_up

    registry = Registry(auto_describe=False)
    threads = WorkerThreads(reactor, name="health", size=2)
    threads.setServiceParent(parts)
    endpoint = MetricsEndpoint(settings, reactor, registry, threads, lambda: [os.getpid(), *processes()])
    endpoint.asked(
        {
            "pop3toy_workers": lambda: [(serving(), ())],
            "pop3toy_worker_restarts_total": lambda: [(restarts(), ())],
            "pop3toy_draining": lambda: [(not parts.running or draining(), ())],
            "pop3toy_certificate_expiry_timestamp_seconds": lambda: expiry(tls),
        }
    )

    def at_once() -> list[str]:
        if not parts.running:
            return ["the server is stopping"]
        if draining():
            return ["the server takes no more connections, as it was asked to"]
        return [] if serving() else ["no worker serves"]

    kind = kind_of(settings.store)
    looks: list[Callable[[], object]] = [
        lambda: check_accounts(settings),
        lambda: kind.check(settings.store),
    ]
    if kind.on_network and kind.admin is not None:
        # Its connections are kept from one look to the next.
        admin = cache(kind.admin)
        looks.append(lambda: ask_store(admin(settings.store)))
    told = Registry(auto_describe=False)

    def made(path: str) -> None:
        add_up(path, registry)
        if settings.smarthost is not None:
            add_up(path, told)

    folder.when_made = made

    def warnings() -> list[str]:
        # Of all workers one runs the queue, and tells it by its metric alone.
        refused = told.get_sample_value("pop3toy_smarthost_login_refused") or 0
        return [*expiring(tls), *login_refused(refused)]

    return endpoint.listen(
        parts,
        [at_once, lambda: expired(tls)],
        looks,
        failed,
        warnings=warnings,
        owner=owner,
    )
