"""``python -m pop3toy.run.as_worker``: a worker process, as the supervisor starts it."""

from __future__ import annotations

import itertools
import signal
import sys
from typing import TYPE_CHECKING, cast

from twisted.logger import Logger, globalLogBeginner

from ..auth.throttle.connection_limiter import ConnectionLimiter
from ..auth.throttle.peer_workers import PeerWorkers
from ..clock import use_monotonic_time
from ..config.settings import Settings
from ..errors import CannotStart
from ..interfaces import IObserver
from ..net.types import IReactor
from ..observe.log_levels import Levels
from ..stores.registry import ServerProcess
from .assembly import assemble
from .log.choosing import line_of
from .log.lines import from_level, safe_lines
from .process import fitting
from .process_context import ProcessContext
from .speed import batcher_of
from .workers.pipes import LOG, REPORTS, SOCKETS, Command, Report, WorkerConfig
from .workers.sockets import InheritedEndpoint
from .workers.worker import ControlPipe, LogToSupervisor, ReportPipe

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS

__all__ = ["main"]

log = Logger()


def _serve(
    config: WorkerConfig, settings: Settings, reports: ReportPipe, reactor: IReactor, levels: Levels
) -> None:
    # The supervisor has told what was lowered.
    fit = fitting(settings, owned=True)
    peers = PeerWorkers(bytes.fromhex(config.key), lambda events: reports.report(Report.TELL, events))
    process = ServerProcess(config.boot, config.number, config.ended)
    inherited = itertools.count(SOCKETS)
    tls: GivenTLS | None = None
    if config.tls:
        from ..net.tls.certificate_files import Material
        from ..net.tls.contexts import GivenTLS

        tls = GivenTLS(Material.load(config.tls))

    def cannot_listen(why: CannotStart) -> None:
        raise why

    context = ProcessContext(
        endpoint=lambda port: (port.spoken, InheritedEndpoint(reactor, next(inherited))),
        pop3_connections=ConnectionLimiter(fit.pop3),
        smtp_connections=ConnectionLimiter(fit.smtp),
        lmtp_connections=ConnectionLimiter(fit.lmtp),
        # No two sessions have one number, whichever worker has them.
        numbers=itertools.count(config.sessions * config.workers + config.number + 1, config.workers),
        tls=tls,
        cannot_listen=cannot_listen,
        host=config.host,
        process=process,
        peers=peers,
        levels=levels,
        batcher=batcher_of(reactor),
        strict=False,
        warns=config.number == 0,
        owned=True,
        inherits=True,
    )
    if config.metrics:
        from ..observe.metrics.shared import write_into

        write_into(config.metrics, config.number)
    observers: list[IObserver] = []
    if settings.wants_inspector:
        from .inspecting.across import EventsToSupervisor

        observers.append(EventsToSupervisor(lambda told: reports.report(Report.HAPPENED, told), reactor))
    server = assemble(settings, reactor, context, observers=observers)
    peers.hear(config.events)
    stopping = False

    def handle(command: object) -> None:
        match command:
            case [Command.USE_TLS, str(material)] if tls is not None:
                tls.use(Material.load(material))
            case [Command.USE_SETTINGS, str(said)]:
                server.take(Settings.from_json(said))
            case [Command.USE_ENDED, list(ended)]:
                process.ended = ended
            case [Command.REOPEN, _]:
                server.reopen()
            case [Command.NOTE, list(events)]:
                peers.hear(events)
            case [Command.ACT, list(what)]:
                from .inspecting.across import act

                act(server.control, what)

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            reactor.stop()

    def begin() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: reactor.callFromThread(stop))
        ControlPipe(reactor, 0, handle, stop)
        reports.report(Report.READY)

    server.privilegedStartService()
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    reactor.callWhenRunning(begin)


def main() -> None:
    """Serve until the supervisor closes the control pipe, or is gone."""
    # Ctrl-C reaches all processes of the terminal; the supervisor stops the workers in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So does a signal to the whole group; until a worker serves, it waits for the supervisor's order.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    config, reports = WorkerConfig.read(0), ReportPipe(REPORTS)
    if config is None:
        return
    if config.reactor is not None:
        from twisted.application.reactors import installReactor

        installReactor(config.reactor)
    from twisted.internet import reactor

    run = cast(IReactor, reactor)
    # The events that workers tell each other hold times, so all workers need the same clock.
    use_monotonic_time(run)
    settings, levels = Settings.from_json(config.settings), Levels()
    levels.use(settings.log_level)
    observer = LogToSupervisor(ReportPipe(LOG), safe_lines(from_level(line_of(settings), levels)), run)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        _serve(config, settings, reports, run, levels)
    except CannotStart as why:
        reports.report(Report.REFUSED, str(why))
        sys.exit(1)
    except Exception as error:
        log.failure("a worker cannot start")
        reports.report(Report.REFUSED, type(error).__name__)
        sys.exit(1)
    run.run()
    observer.flush()


if __name__ == "__main__":
    main()
