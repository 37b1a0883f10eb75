"""``python -m pop3toy.run.as_worker``: one worker; the supervisor starts it and nobody else."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger, formatEventAsClassicLogText, globalLogBeginner

from ..auth.throttle.connection_limiter import ConnectionLimiter
from ..auth.throttle.peer_workers import PeerWorkers
from ..clock import use_monotonic_time
from ..config.settings import Settings
from ..errors import CannotStart
from ..net.types import IReactor
from .assembly import assemble
from .descriptors import fitting
from .log_lines import FastLines, safe_lines
from .ports import Port
from .process_context import ProcessContext, connection_limits
from .speed import batcher_of
from .workers.sockets import InheritedEndpoint
from .workers.talk import LOG, REPORTS, SOCKETS, Brief, Report, Word
from .workers.worker import Lifeline, LogToSupervisor, Pipe

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS

__all__ = ["main"]

log = Logger()


def _tls(material: str) -> tuple[GivenTLS | None, Callable[[str], object]]:
    """TLS with what the supervisor has read, and what is done with what it reads later."""
    if not material:
        return None, lambda later: None
    from ..net.tls.certificate_files import Material
    from ..net.tls.contexts import GivenTLS

    tls = GivenTLS(Material.load(material))
    return tls, lambda later: tls.use(Material.load(later))


def _serve(brief: Brief, reports: Pipe, reactor: IReactor) -> None:
    settings = Settings.from_json(brief.settings)
    # The supervisor has told of it.
    fit = fitting(connection_limits(settings), settings, owned=True)
    peers = PeerWorkers(bytes.fromhex(brief.key), lambda events: reports.report(Report.TELL, events))
    inherited = itertools.count(SOCKETS)

    def endpoint(port: Port) -> tuple[str, InheritedEndpoint]:
        return port.spoken, InheritedEndpoint(reactor, next(inherited))

    # No two sessions have one number, whichever worker has them.
    numbers = itertools.count((brief.sessions * brief.workers) + brief.number + 1, brief.workers)
    tls, renew = _tls(brief.material)

    def cannot_listen(why: CannotStart) -> None:
        raise why

    context = ProcessContext(
        endpoint,
        ConnectionLimiter(fit.pop3),
        ConnectionLimiter(fit.smtp),
        ConnectionLimiter(fit.lmtp),
        numbers,
        tls,
        cannot_listen,
        brief.host,
        peers,
        batcher_of(reactor),
        strict=False,
        warns=brief.number == 0,
        owned=True,
        inherits=True,
    )
    server = assemble(settings, reactor, context)
    peers.hear(brief.told)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            reactor.stop()

    def begin() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: reactor.callFromThread(stop))
        Lifeline(reactor, 0, {Word.MATERIAL: renew, Word.TOLD: peers.hear}, stop)
        reports.report(Report.READY)

    server.privilegedStartService()
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    reactor.callWhenRunning(begin)


def main() -> None:
    """Serve until the supervisor says that it is enough, or is gone."""
    # Ctrl-C reaches everybody in the terminal; the supervisor says what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So does a signal to the whole group; until it serves, a worker waits for that word.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    brief, reports = Brief.read(0), Pipe(REPORTS)
    if brief is None:
        return
    if brief.reactor is not None:
        from twisted.application.reactors import installReactor

        installReactor(brief.reactor)
    from twisted.internet import reactor

    run: Any = reactor
    # What workers tell each other says when something happened, so all of them have one clock.
    use_monotonic_time(run)
    observer = LogToSupervisor(Pipe(LOG), safe_lines(FastLines(formatEventAsClassicLogText)), run)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        _serve(brief, reports, run)
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
