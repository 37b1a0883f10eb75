"""Which log a process writes: by the settings, and by twistd's own options.

This is the one file that knows how twistd chooses its log.  Where ``--logger`` names another one, that stays
as it is; what goes to syslog goes there as Twisted makes it, from the level of the settings on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from twisted.python.runtime import platformType
from zope.interface import directlyProvides

from ...config.settings import Settings
from ...errors import BadSetting
from ...files import give
from ...interfaces import Batcher
from ...observe.line_writer import LineWriter
from ...observe.log_levels import Levels
from ..process import TwistdOptions
from ..starting.twistd_options import owner_of
from .file import check_owner, log_writer
from .lines import FastLines, LinesInTurn, from_level, quiet
from .objects import as_object

__all__ = ["ChosenLog", "check_log", "chosen_log", "line_of", "set_observer"]


class ChosenLog(NamedTuple):
    """The log of a process."""

    levels: Levels
    #: Makes the line of an event, with its end; ``None`` of one whose level is not written.
    line: Callable[[LogEvent], str | None]
    #: Writes to the file of the settings, if they name one.
    writer: LineWriter | None = None


def line_of(settings: Settings) -> Callable[[LogEvent], str | None]:
    """What makes the line of an event, with its end."""
    return as_object if settings.log_format == "json" else FastLines(formatEventAsClassicLogText)


def chosen_log(
    settings: Settings,
    twistd: TwistdOptions,
    levels: Levels,
    wall_clock: Callable[[], float] = time.time,
) -> ChosenLog:
    """What the settings say.

    :param twistd: the options of twistd itself; empty in another program, which has a log of its own.
    :param levels: are set by the settings.
    :param wall_clock: the time of day.
    """
    levels.use(settings.log_level)
    line = from_level(line_of(settings), levels)
    if settings.log_file is None or not twistd:
        return ChosenLog(levels, line)

    def lost(lines: int) -> str:
        event: LogEvent = {
            "log_format": "{text}",
            "text": f"{lines} lines of the log are lost: the disk was too slow, or it could not be written",
            "log_level": LogLevel.error,
            "log_namespace": __name__,
            "log_time": wall_clock(),
        }
        return (line_of(settings)(event) or "").rstrip("\n")

    return ChosenLog(levels, line, log_writer(settings.log_file, owner_of(twistd), lost))


def check_log(settings: Settings, twistd: TwistdOptions) -> None:
    """See that what the settings say of the log goes with twistd's own options.

    :raises pop3toy.errors.BadSetting: if not.
    """
    others = [name for name in ("logfile", "syslog", "logger") if twistd.get(name)]
    for other in others:
        if settings.log_file is not None:
            raise BadSetting("log-file", f" and twistd's --{other} do not go together")
        if settings.log_format == "json" and other != "logfile":
            raise BadSetting("log-format", f" json and twistd's --{other} do not go together")
        if settings.log_level != "info" and other == "logger":
            raise BadSetting("log-level", " and twistd's --logger do not go together: it takes what it wants")
    owner = owner_of(twistd)
    if settings.log_file is not None and owner is not None:
        check_owner(settings.log_file, owner.uid)


def set_observer(
    application: Componentized,
    twistd: TwistdOptions,
    chosen: ChosenLog,
    batcher: Batcher | None = None,
    *,
    starting: Callable[[], bool] | None = None,
    terminal: LineWriter | None = None,
) -> None:
    """Give an application the observer that twistd would make for it, with lines of the settings' form.

    twistd asks an application for one, and makes its own where there is none; ``--logger``
    goes before both.

    :param twistd: the options of twistd itself; empty in another program, which has a log of its own.
    :param batcher: of the reactor, if it has one.
    :param starting: as long as it says so, Twisted's own lines are left out; ``None`` leaves none out.
    :param terminal: writes to standard output.  If the log goes there as well its lines are given
        to it at once, so that each stands between those lines of a conversation where it belongs.
    """
    if not twistd or platformType != "posix" or application.getComponent(ILogObserver, None) is not None:
        return
    if twistd.get("logger"):
        return
    line = chosen.line if starting is None else quiet(chosen.line, starting)
    if chosen.writer is not None:
        application.setComponent(ILogObserver, LinesInTurn(chosen.writer, line, batcher))
        return
    # twistd makes it of the same options a moment later, if this is not what it looks like.
    from twisted.scripts._twistd_unix import UnixAppLogger

    made = UnixAppLogger(twistd)._getLogObserver()
    if twistd.get("syslog"):
        application.setComponent(ILogObserver, _from_level(chosen.levels, made))
        return
    out = getattr(made, "_outFile", None)
    if isinstance(out, LogFile):
        # Else it could not be turned over after the change.
        give(out.path, out._file.fileno(), owner_of(twistd))
    if type(made) is FileLogObserver and out is not None:
        if terminal is not None and out is sys.__stdout__:
            out, batcher = terminal, None
        application.setComponent(ILogObserver, LinesInTurn(out, line, batcher))


def _from_level(levels: Levels, observer: Any) -> ILogObserver:
    """An observer of Twisted's older kind, told of these levels alone."""
    old = LegacyLogObserverWrapper(observer)

    def observe(event: LogEvent) -> None:
        if event.get("log_level", LogLevel.info) in levels.shown:
            old(event)

    directlyProvides(observe, ILogObserver)
    return cast(ILogObserver, observe)
