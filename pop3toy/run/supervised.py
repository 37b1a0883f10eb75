"""A server with workers: the process that twistd starts, which becomes the supervisor.

It looks for mistakes before anything runs, opens the ports, and serves no client
itself.  It reads the certificates for all workers: what was good once is what a
worker gets that is started again, whatever has become of the files, and root may
have been able to read what the workers' user is not.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.interfaces import IListeningPort

from .. import limits
from ..clock import steady
from ..config.settings import Settings
from ..config.source import Source
from ..errors import CannotStart
from ..net.types import IReactor
from ..net.unix_sockets import UnixListening
from ..observe.log_levels import Levels
from ..stores.registry import kind_of
from .checks import check_sources
from .control import Notice
from .log.choosing import chosen_log
from .log.file import Reopening
from .log.workers import WorkersLog
from .monitoring.certificates import CertificateWatch
from .monitoring.supervisor import monitor_workers, workers_folder
from .ports import Port, announce, endpoint_of, ports_of
from .process import StopSignals, TwistdOptions, fitting
from .reloading.again import SettingsAgain
from .service import LinesService, ListeningService, OrderedService, Reloadable, ReloadService
from .sharing.node import node_of
from .starting.twistd_options import owner_of
from .tls import server_tls
from .workers.pipes import WorkerConfig
from .workers.sockets import SharedSockets
from .workers.supervisor import SpawnSpec, Supervisor

__all__ = ["supervised"]

#: Seconds that workers may take to stop behind what their sessions may take.
MARGIN = 10.0
#: More sessions than one worker begins in a second.
SESSIONS_A_SECOND = 20_000


def supervised(
    settings: Settings,
    reactor: IReactor,
    *,
    host: str,
    cannot_start: Callable[[CannotStart], object],
    cannot_go_on: Callable[[str], object],
    twistd: TwistdOptions,
    source: Source | None = None,
) -> OrderedService:
    """The supervisor, which has the ports and runs the workers.

    :param host: this host's full name.
    :param cannot_start: is told why, when twistd starts the service already; does not return.
    :param cannot_go_on: is told why, when no worker can be started any more.
    :param twistd: twistd's own options.
    :param source: of the settings, which are read again from it at SIGHUP.
    :raises pop3toy.errors.CannotStart: for a mistake that is seen at once.
    """
    workers = settings.workers
    assert workers is not None, "the settings ask for workers"
    owner = owner_of(twistd)
    chosen = chosen_log(settings, twistd, Levels())
    sockets, log = SharedSockets(), WorkersLog(chosen)
    key, boot = secrets.token_hex(32), secrets.token_hex(8)
    node = node_of(settings.store, cannot_start)
    clock, began = steady(reactor), 0.0
    tls = server_tls(settings.tls)
    check_sources(settings, reactor)
    folder = os.getcwd()
    in_force = settings
    folder_of_metrics = workers_folder(settings, shown=settings.wants_inspector)

    def config(number: int) -> WorkerConfig:
        nonlocal began
        began = began or clock.seconds()
        return WorkerConfig(
            number=number,
            workers=workers,
            host=host,
            sessions=int((clock.seconds() - began) * SESSIONS_A_SECOND),
            reactor=twistd.get("reactor"),
            settings=in_force.to_json(),
            tls=tls.in_use.dump() if tls is not None else "",
            key=key,
            boot=boot,
            ended=supervisor.ended,
            metrics=folder_of_metrics.path if folder_of_metrics is not None else "",
            events=list(supervisor.events),
        )

    spec = SpawnSpec(
        # -P: the folder in which the server happens to be is no place for modules.
        command=[sys.executable, "-P", "-m", "pop3toy.run.as_worker"],
        environment=_environment(folder),
        config=config,
        # Behind the ports: the name is taken as long as one of the workers is there.
        sockets=lambda: [*sockets.descriptors, *(node.descriptors if node is not None else ())],
    )
    inspection = None
    observing: dict[str, Any] = {}
    if settings.wants_inspector:
        from .inspecting.workers import WorkersInspection

        inspection = WorkersInspection(settings, reactor, lambda number, what: supervisor.act(number, what))
        observing = dict(inspection.observing)
    bury_sessions = observing.pop("buried", None)

    def buried(number: int) -> None:
        if folder_of_metrics is not None:
            folder_of_metrics.bury(number)
        if bury_sessions is not None:
            bury_sessions(number)

    supervisor = Supervisor(
        reactor,
        spec,
        workers,
        grace=limits.SHUTDOWN_GRACE + MARGIN,
        publish=log.publish,
        give_up=cannot_go_on,
        turn_away=sockets.turn_away,
        **observing,
        buried=buried,
    )
    server = OrderedService(partial(log.set_observer, twistd=twistd))
    if chosen.writer is not None:
        # Before all others: it ends behind them.
        LinesService(chosen.writer).setServiceParent(server)
    _AsWorkersUser(settings, reactor, cannot_start).setServiceParent(server)
    notice = Notice(reactor, settings.limits.stop_delay)
    StopSignals(reactor, notice.cut_short).setServiceParent(server)
    if node is not None:
        node.setServiceParent(server)
    if folder_of_metrics is not None:
        # Ends behind the workers, which write into its folder, and is there before them.
        folder_of_metrics.setServiceParent(server)
        pages = monitor_workers(
            settings,
            reactor,
            server,
            folder_of_metrics,
            serving=lambda: supervisor.serving,
            restarts=lambda: supervisor.restarts,
            processes=lambda: supervisor.processes,
            draining=lambda: inspection is not None and inspection.draining,
            tls=tls,
            failed=cannot_start,
            owner=owner,
        )
        if inspection is not None:
            inspection.shows(pages.metrics, pages.look)
    if inspection is not None:
        # Ends behind the workers: it shows how their sessions end.
        inspection.serve(server, cannot_start, owner)
    # The ports, added behind it, are stopped first: no client is accepted that no worker will serve.
    supervisor.setServiceParent(server)
    handed_on = tls.in_use if tls is not None else None

    def hand_on() -> None:
        nonlocal handed_on
        if tls is not None and tls.in_use is not handed_on:
            handed_on = tls.in_use
            supervisor.use_tls(handed_on.dump())

    def take(changed: Settings, token: str | None) -> None:
        nonlocal in_force
        in_force = changed
        chosen.levels.use(changed.log_level)
        hand_on()
        supervisor.use_settings(changed.to_json())
        notice.use(changed.limits.stop_delay)
        fitting(changed, owned=True).tell(asked=changed.limits.max_connections is not None)
        if inspection is not None:
            inspection.take(changed, token)

    if tls is not None:
        CertificateWatch(reactor, tls).setServiceParent(server)
    files = Reopening([chosen.writer] if chosen.writer is not None else [], supervisor.reopen)
    reloads: list[Reloadable] = [files, *([tls] if tls is not None else [])]
    if source is not None:
        reloads.append(SettingsAgain(source, settings, reactor, server, tls=tls, take=take))
    ReloadService(reactor, reloads, after=hand_on, reopen=files.reload).setServiceParent(server)
    limits_of_one = fitting(settings, owned=True)
    limits_of_one.tell(asked=settings.limits.max_connections is not None)
    listening = cast(IReactor, UnixListening(reactor, owner))

    def listen(port: Port) -> ListeningService:
        def ready(name: str, opened: IListeningPort) -> None:
            sockets.add(opened)
            announce(port, opened, name, reactor)

        name, endpoint = endpoint_of(port, settings, listening)
        return ListeningService(
            name,
            endpoint,
            sockets.factory,
            ready=ready,
            failed=cannot_start,
            protocol=port.protocol,
            tls=port.tls,
        )

    for port in ports_of(settings):
        listen(port).setServiceParent(server)
    notice.setServiceParent(server)
    return server


class _AsWorkersUser(Service):
    """Checks the files as the user that twistd has become: what only root may read, workers cannot."""

    def __init__(
        self, settings: Settings, reactor: IReactor, cannot_start: Callable[[CannotStart], object]
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._cannot_start = cannot_start
        self._user = os.geteuid()

    def startService(self) -> None:
        """End with one line if something cannot be read."""
        super().startService()
        if os.geteuid() == self._user:
            return
        try:
            # A Python in root's home, say: no worker could be started.
            for needed, how in ((sys.executable, os.X_OK), (__file__, os.R_OK)):
                if not os.access(needed, how):
                    raise CannotStart(f"no permission for {needed}")
            check_sources(self._settings, self._reactor)
            if kind_of(self._settings.store).on_network:
                # Credentials may be in a file.
                kind_of(self._settings.store).check(self._settings.store)
        except CannotStart as why:
            self._cannot_start(CannotStart(f"as the user of the workers: {why}"))


def _environment(folder: str) -> dict[str, str]:
    """The environment in which a process finds the modules that this one has found."""
    here = [os.path.join(folder, entry) for entry in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(here)}
