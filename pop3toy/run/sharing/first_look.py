"""A look at a store on a network as soon as the server runs: the log tells whether it is there."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clock import steady
from ...errors import Refusal
from ...net.types import IReactor

__all__ = ["FirstLook"]

log = Logger()


class FirstLook(Service):
    """Looks once; nobody waits for it, and a server whose store does not answer goes on trying.

    :param where: the store, for people.
    :param look: looks in a thread; the Deferred fails with a refusal if the store does not answer.
    :param tells: whether what it finds is logged: one of several processes tells it.
    """

    def __init__(
        self, where: str, look: Callable[[], Deferred[object]], reactor: IReactor, *, tells: bool = True
    ) -> None:
        self._where = where
        self._look = look
        self._reactor = reactor
        self._clock = steady(reactor)
        self._tells = tells

    def startService(self) -> None:
        """Look when the reactor runs: then no process forks any more that lives on."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self.running:
            return
        began = self._clock.seconds()

        def there(_: object) -> None:
            if self._tells:
                seconds = self._clock.seconds() - began
                log.info(
                    "mail is in {where}, which answered within {seconds:.2f} s",
                    where=self._where,
                    seconds=seconds,
                )

        def not_there(why: Failure) -> None:
            if not self.running:
                return
            error = why.value
            if not isinstance(error, Refusal):
                log.failure("looking at the store", why)
            elif self._tells:
                log.warn(
                    "mail is in {where}, which does not answer as it should: {why};"
                    " logins and mail are put off",
                    where=self._where,
                    why=error.detail or error.text,
                )

        self._look().addCallbacks(there, not_there).addErrback(
            lambda why: log.failure("looking at the store", why)
        )
