"""``twistd pop3toy``: the command line, and how its process ends when the server cannot start.

twistd finds :class:`Options` and :func:`makeService` here.  Only this module and ``cli`` exit.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, cast

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from .clock import use_monotonic_time
from .config import cmdline, toml
from .errors import CannotStart
from .net.types import IReactor
from .run.assembly import assemble
from .run.checks import check_files
from .run.log.choosing import check_log
from .run.ports import check_ports
from .run.process import TwistdOptions
from .run.process_context import single_process
from .run.speed import batcher_of
from .run.starting.daemon import AwaitedStart
from .run.starting.pid_file import PidFile
from .run.starting.twistd_options import check_twistd, owner_of
from .run.supervised import supervised
from .run.tls import server_tls

__all__ = ["Options", "makeService"]

log = Logger()

#: The commands that run twistd in the foreground: then they are the program's name, and it has no options
#: before ours.
FOREGROUND = ("pop3toy serve", "python -m pop3toy")
#: What getopt says of an option that there is none of.
_UNKNOWN = re.compile(r"option --(\S+) not recognized")


class Options(cmdline.Options):
    """The command line; a mistake in it is one line and exit status 1, where twistd would print the help."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read it, and look at the files that it names."""
        try:
            super().parseOptions(options)
            check_twistd(self.twistd)
            check_ports(self.settings)
            check_files(self.settings, owner=owner_of(self.twistd))
            if self.settings.faults is not None:
                from .testing.faults.server import check_faults

                check_faults(self.settings.faults)
            if self.settings.workers is not None and self.twistd.get("chroot"):
                raise CannotStart("--workers does not go with twistd's --chroot")
            check_log(self.settings, self.twistd)
        except (usage.UsageError, CannotStart) as why:
            line = self.located(why) if isinstance(why, CannotStart) else str(why)
            sys.exit(f"pop3toy: {line} ({self._hint(line)})")

    def located(self, why: CannotStart) -> str:
        """What is wrong, with its place if that is in the file."""
        return toml.located(why, self.file, self.in_file, self.given)

    def _hint(self, why: str) -> str:
        """What to do about a mistake that the line itself does not tell."""
        of_twistd = {one.rstrip("=") for one in getattr(self.parent, "longOpt", ())}
        unknown = _UNKNOWN.fullmatch(why)
        if unknown is not None and unknown[1] in of_twistd:
            return f"it is one of twistd's own, before our name: twistd --{unknown[1]} ... pop3toy ..."
        return f"{'twistd' if why.startswith('twistd ') else _command()} --help tells more"

    def getSynopsis(self) -> str:
        """How it is called, for the help."""
        return f"Usage: {sys.argv[0]} [options]" if sys.argv[0] in FOREGROUND else super().getSynopsis()

    @property
    def twistd(self) -> TwistdOptions:
        """The options of twistd itself, those before our name."""
        return cast(TwistdOptions, self.parent or {})


def _command() -> str:
    """The command that was given, without its options."""
    return sys.argv[0] if sys.argv[0] in FOREGROUND else "twistd pop3toy"


def makeService(options: Options, reactor: IReactor | None = None) -> IService:
    """The whole server as one service.

    :param options: parsed options.
    :param reactor: the global one if not given.

    Where ``twistd pop3toy`` runs, the reactor is told to measure durations by the monotonic
    clock; in another program it is left as it is.
    """
    settings, twistd = options.settings, options.twistd
    start = AwaitedStart()
    becomes_daemon = reactor is None and not twistd.get("nodaemon", True)
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = cast(IReactor, installed)
        if options.parent is not None:
            use_monotonic_time(reactor)
    if settings.transcript_to == "-" and not twistd.get("nodaemon", True):
        log.warn(
            "nobody will see the conversation: a daemon has no terminal; use twistd -n, or --transcript FILE"
        )
    # Asking for the full name may wait for the network.
    host = socket.getfqdn() if settings.wants_mail and settings.hostname is None else socket.gethostname()
    cannot_start = partial(_exit_in_twistd, twistd, start, log_file=settings.log_file)
    try:
        service = _assembled(options, reactor, host, cannot_start)
    except CannotStart as why:
        sys.exit(f"pop3toy: {options.located(why)}")
    if pid_file := twistd.get("pidfile"):
        PidFile(pid_file, owner_of(twistd)).setServiceParent(service)
    if becomes_daemon:
        start.setServiceParent(service)
        # Everything that is wrong so far was told; no port is open and no thread runs yet.
        status = start.divide()
        if status is not None:
            os._exit(status)
    return service


def _assembled(
    options: Options, reactor: IReactor, host: str, cannot_start: Callable[[CannotStart], object]
) -> MultiService:
    """The server, as one process or with workers.

    :raises pop3toy.errors.CannotStart: for a mistake that is seen at once.
    """
    settings, twistd = options.settings, options.twistd
    if settings.workers is not None:
        return supervised(
            settings,
            reactor,
            host=host,
            cannot_start=cannot_start,
            cannot_go_on=partial(_end, reactor),
            twistd=twistd,
            source=options.source,
        )
    context = single_process(
        settings,
        reactor,
        server_tls(settings.tls),
        cannot_start,
        host=host,
        batcher=batcher_of(reactor),
        owned=True,
        source=options.source,
        owner=owner_of(twistd),
    )
    if settings.faults is not None:
        from .testing.faults.server import assemble_with_faults

        return assemble_with_faults(settings, reactor, context, twistd=twistd)
    return assemble(settings, reactor, context, twistd=twistd)


def _exit_in_twistd(
    twistd: TwistdOptions, start: AwaitedStart, why: CannotStart, *, log_file: str | None
) -> NoReturn:
    """End the process with one line and exit status 1, when twistd starts the service already.

    twistd would print a traceback for an exception, and forget its pid file
    for a SystemExit; so both are done here.
    """
    if log_file or twistd.get("logfile") or twistd.get("syslog") or not twistd.get("nodaemon"):
        # Else the log is on the terminal, and it would stand there twice.
        log.critical("{why}", why=str(why))
    if not start.cannot_start(f"pop3toy: {why}"):
        print(f"pop3toy: {why}", file=sys.__stderr__, flush=True)
    pid_file = twistd.get("pidfile")
    if pid_file:
        try:
            os.unlink(pid_file)
        except OSError:
            pass
    pipe = twistd.get("statusPipe")
    if pipe is not None:
        # twistd's process that waits for the daemon exits with 1; then somebody may try again at once.
        os.write(pipe, b"1")
        os.close(pipe)
    raise SystemExit(1)


def _end(reactor: IReactor, why: str) -> None:
    """End with one line and status 1 when twistd runs already."""
    log.critical("{why}", why=why)
    print(f"pop3toy: {why}", file=sys.__stderr__, flush=True)
    # twistd removes its pid file and closes its log, and then ends with status 0.
    atexit.register(os._exit, 1)
    reactor.stop()
