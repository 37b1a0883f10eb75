"""``python -m pop3toy.run.as_worker``: one worker; the supervisor starts it and nobody else."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger, globalLogBeginner

from ..auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from ..auth.throttle.counts import Heads
from ..auth.throttle.peer_workers import Neighbours
from ..auth.throttle.shared_counts import Crowds, SharedCounts
from ..clock import use_monotonic_time
from ..config.settings import Settings
from ..errors import CannotStart
from ..net.fast.reply_batcher import turns_of
from ..net.types import IReactor
from .assembly import assemble
from .descriptors import fitting
from .process_context import ProcessContext, connection_limits
from .workers.sockets import Inheritance
from .workers.talk import COUNTS, REPORTS, SOCKETS, Brief, Report, Word
from .workers.worker import Lifeline, LogToSupervisor, Reports, read_line, read_octets

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS

__all__ = ["main"]

log = Logger()

_FEWER = {Crowds.READERS: Word.FEWER_READERS, Crowds.BRINGERS: Word.FEWER_BRINGERS}


def _tls(material: str) -> tuple[GivenTLS | None, Callable[[str], object]]:
    """TLS with what the supervisor has read, and what is done with what it reads later."""
    if not material:
        return None, lambda later: None
    from ..net.tls.certificate_files import Material
    from ..net.tls.contexts import GivenTLS

    tls = GivenTLS(Material.load(material))
    return tls, lambda later: tls.use(Material.load(later))


def _serve(brief: Brief, reports: Reports, reactor: IReactor) -> None:
    settings = Settings.from_json(brief.settings)
    wanted = connection_limits(settings)
    shared = SharedCounts(COUNTS, brief.workers, wanted.connections)
    counts = shared.of(brief.number)
    # The supervisor has told of it.
    fit = fitting(wanted, settings, owned=True)

    def crowd(limits: ConnectionLimits, heads: Heads, whose: Crowds) -> ConnectionLimiter:
        def ask(other: int) -> None:
            reports.send(Report.TELL, other, _FEWER[whose])

        return ConnectionLimiter(limits, heads, Neighbours(shared, brief.number, whose, reactor.seconds, ask))

    readers = crowd(fit.pop3, counts.readers, Crowds.READERS)
    bringers = crowd(fit.smtp, counts.bringers, Crowds.BRINGERS)
    listening = Inheritance(reactor, range(SOCKETS, SOCKETS + brief.sockets))
    numbers = shared.numbers(brief.number)
    tls, renew = _tls(brief.material)

    def cannot_listen(why: CannotStart) -> None:
        raise why

    context = ProcessContext(
        listening,
        counts,
        readers,
        bringers,
        ConnectionLimiter(fit.lmtp),
        numbers,
        tls,
        cannot_listen,
        brief.host,
        turns_of(reactor),
        strict=False,
        warns=brief.number == 0,
        owned=True,
        inherits=True,
    )
    server = assemble(settings, reactor, context)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            reactor.stop()

    def begin() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: reactor.callFromThread(stop))
        does: dict[Word, Callable[..., object]] = {
            Word.MATERIAL: renew,
            Word.FEWER_READERS: readers.make_room,
            Word.FEWER_BRINGERS: bringers.make_room,
        }
        Lifeline(reactor, 0, does, stop)
        reports.send(Report.READY)

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
    line = read_line(0)
    if not line:
        return
    brief, reports = Brief.of(line, partial(read_octets, 0)), Reports(REPORTS)
    if brief.reactor is not None:
        from twisted.application.reactors import installReactor

        installReactor(brief.reactor)
    from twisted.internet import reactor

    run: Any = reactor
    # What workers share tells when something happened, so all of them have one clock.
    use_monotonic_time(run)
    observer = LogToSupervisor(reports, run)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        _serve(brief, reports, run)
    except CannotStart as why:
        reports.send(Report.REFUSED, str(why))
        sys.exit(1)
    except Exception as error:
        log.failure("a worker cannot start")
        reports.send(Report.REFUSED, type(error).__name__)
        sys.exit(1)
    run.run()
    observer.flush()


if __name__ == "__main__":
    main()
