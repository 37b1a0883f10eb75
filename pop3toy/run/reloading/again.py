"""The file of options read again: checked as a whole, and refused as a whole; then what can change is taken.

Reading and checking look at files, and so happen in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from twisted.application.service import MultiService
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...config.changes import Changes, changes_between
from ...config.settings import Settings
from ...config.source import Source
from ...errors import CannotStart
from ...net.threads import WorkerThreads
from ...net.types import IReactor
from ..checks import check_files, check_sources
from ..tls import server_tls

if TYPE_CHECKING:
    from ...net.tls.contexts import ServerTLS

__all__ = ["Prepared", "SettingsAgain"]

log = Logger()


class Prepared(NamedTuple):
    """What was read and found to be right."""

    changes: Changes
    #: Other certificates, if the settings name others.
    tls: ServerTLS | None
    #: The inspector's token, if a file has it.
    token: str | None


def prepared(source: Source, before: Settings, reactor: IReactor) -> Prepared:
    """Read the settings again, and look whether a server could start with them.

    :raises pop3toy.errors.CannotStart: if not.
    """
    said = source.read()
    after = said.settings
    try:
        check_files(after)
        changes = changes_between(before, after)
        tls = server_tls(after.tls) if after.tls != before.tls else None
        check_sources(after, reactor)
        token = None
        if after.wants_inspector:
            from ..inspecting.serving import token_of

            token = token_of(after)
    except CannotStart as why:
        raise CannotStart(source.located(why, said.in_file)) from None
    return Prepared(changes, tls if changes.settings.tls == after.tls else None, token)


class SettingsAgain:
    """A :class:`~pop3toy.run.service.Reloadable`: takes up what has changed in a file of options.

    :param source: the file, with the command line.
    :param settings: what is in force at first.
    :param parts: the server, which the thread ends with.
    :param tls: what certificates are handed to.
    :param take: is called with the settings that are in force from then on, and the inspector's token.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        reactor: IReactor,
        parts: MultiService,
        *,
        tls: ServerTLS | None,
        take: Callable[[Settings, str | None], object],
    ) -> None:
        self._source = source
        #: What is in force.
        self.settings = settings
        self._reactor = reactor
        self._tls = tls
        self._take = take
        threads = WorkerThreads(reactor, name="settings", size=1)
        threads.setServiceParent(parts)
        self._threads = threads
        self._reading = self._asked_again = False

    def reload(self) -> None:
        """Read the file; what comes of it is in the log a moment later."""
        if self._reading:
            # It may have changed since it was read.
            self._asked_again = True
            return
        self._reading = True
        reading = self._threads.run(prepared, self._source, self.settings, self._reactor)
        reading.addCallback(self._use).addErrback(self._refuse).addBoth(self._done)

    def reload_if_changed(self) -> None:
        """Nothing: half of an edit is no order; SIGHUP is."""

    def _use(self, new: Prepared) -> None:
        changes, file = new.changes, self._source.file
        if new.tls is not None and self._tls is not None:
            self._tls.become(new.tls)
        self.settings = changes.settings
        self._take(changes.settings, new.token)
        if changes.taken:
            log.info("settings of {file}: taken: {names}", file=file, names=", ".join(changes.taken))
        if changes.restart:
            log.warn(
                "settings of {file}: changed, but only a restart takes them: {names}",
                file=file,
                names=", ".join(changes.restart),
            )
        if not changes.taken and not changes.restart:
            log.info("settings of {file}: nothing has changed", file=file)

    def _refuse(self, why: Failure) -> None:
        if why.check(CannotStart):
            log.error("settings not taken, the old ones stay in force: {why}", why=str(why.value))
        else:
            log.failure("reading the settings again", why)

    def _done(self, _: object) -> None:
        self._reading = False
        if self._asked_again:
            self._asked_again = False
            self.reload()
