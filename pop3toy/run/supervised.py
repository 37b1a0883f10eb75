"""A server with workers: what the process does that twistd starts.

It puts the same server together as each worker does, so that every mistake is
told before anything runs, opens its ports, and serves nobody itself.  It reads
the certificates for all workers: what was good once is what a worker gets that
is started again, whatever has become of the files, and root may have been able
to read what the workers' user is not.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, Service
from twisted.logger import Logger, globalLogPublisher

from .. import limits
from ..auth.throttle.shared_counts import SharedCounts
from ..config.cmdline import Options
from .access import crowd_limits, server_tls
from .assembly import assemble
from .log_lines import set_observer
from .ports import give_up
from .process import StopSignals
from .process_context import alone
from .service import CannotStart, ListeningService, OrderedService, ReloadService
from .workers.process import Launch
from .workers.sockets import OpenedForOthers
from .workers.supervisor import Supervisor
from .workers.talk import Brief, Word

if TYPE_CHECKING:
    from ..net.tls.contexts import ServerTLS

__all__ = ["supervised"]

log = Logger()

#: Seconds that workers may take to stop behind what their sessions may take.
MARGIN = 10.0


def supervised(options: Options, reactor: Any) -> IService:
    """The supervisor, which has the ports and runs the workers."""
    workers = options["workers"]
    sockets = OpenedForOthers(reactor)
    counts = SharedCounts.create(workers, crowd_limits(options).connections)
    tls = server_tls(options)

    def brief(number: int) -> Brief:
        return Brief(
            number=number,
            workers=workers,
            sockets=len(sockets.descriptors),
            arguments=options.arguments,
            folder=options.folder,
            reactor=options.twistd.get("reactor"),
            material=tls.in_use.dump() if tls is not None else "",
        )

    launch = Launch(
        # -P: the folder in which the server happens to be is no place for modules.
        command=[sys.executable, "-P", "-m", "pop3toy.run.as_worker"],
        environment=_environment(options.folder),
        brief=brief,
        sockets=lambda: sockets.descriptors,
        counts=counts.descriptor,
    )
    supervisor = Supervisor(
        reactor,
        launch,
        workers,
        grace=limits.SHUTDOWN_GRACE + MARGIN,
        ended=counts.clear,
        publish=globalLogPublisher,
        hopeless=lambda why: _end(reactor, why),
        unattended=sockets.turn_away,
    )
    server = OrderedService(partial(set_observer, twistd=options.twistd))
    _Rehearsal(options, reactor, tls).setServiceParent(server)
    StopSignals(reactor).setServiceParent(server)
    # Stopped before it, so that nobody is accepted whom no worker will serve.
    supervisor.setServiceParent(server)
    certificates = [_HandedOn(tls, supervisor)] if tls is not None else []
    ReloadService(reactor, certificates).setServiceParent(server)
    for service in list(assemble(options, reactor, alone(options, sockets, tls))):
        if isinstance(service, ListeningService):
            service.disownServiceParent()
            service.setServiceParent(server)
    return server


class _HandedOn:
    """Certificates that workers get when they are other ones than before."""

    def __init__(self, tls: ServerTLS, supervisor: Supervisor) -> None:
        self._tls = tls
        self._supervisor = supervisor
        self._handed_on = tls.in_use

    def reload(self) -> None:
        """See :class:`~pop3toy.run.service.Reloadable`."""
        self._tls.reload()
        self._hand_on()

    def reload_if_changed(self) -> None:
        """See :class:`~pop3toy.run.service.Reloadable`."""
        self._tls.reload_if_changed()
        self._hand_on()

    def _hand_on(self) -> None:
        if self._tls.in_use is not self._handed_on:
            self._handed_on = self._tls.in_use
            self._supervisor.tell_all(Word.MATERIAL, self._handed_on.dump())


class _Rehearsal(Service):
    """Puts the server together once more as the user that twistd has become.

    What only root may read was read before; workers cannot.
    """

    def __init__(self, options: Options, reactor: Any, tls: ServerTLS | None) -> None:
        self._options = options
        self._reactor = reactor
        self._tls = tls
        self._user = os.geteuid()

    def startService(self) -> None:
        """End with one line if it cannot be done."""
        super().startService()
        if os.geteuid() == self._user:
            return
        # A Python in root's home, say: no worker could be started.
        for needed, how in ((sys.executable, os.X_OK), (__file__, os.R_OK)):
            if not os.access(needed, how):
                give_up(self._options, CannotStart(f"as the user of the workers: no permission for {needed}"))
        try:
            assemble(self._options, self._reactor, alone(self._options, self._reactor, self._tls))
        except SystemExit as end:
            why = str(end.code).removeprefix("pop3toy: ")
            give_up(self._options, CannotStart(f"as the user of the workers: {why}"))


def _environment(folder: str) -> dict[str, str]:
    """The environment in which a process finds the modules that this one has found."""
    here = [os.path.join(folder, entry) for entry in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(here)}


def _end(reactor: Any, why: str, at_exit: Callable[..., Any] = atexit.register) -> None:
    """End with one line and status 1 when twistd runs already."""
    log.critical("{why}", why=why)
    print(f"pop3toy: {why}", file=sys.__stderr__, flush=True)
    # twistd removes its pid file and closes its log, and then ends with status 0.
    at_exit(os._exit, 1)
    reactor.stop()
