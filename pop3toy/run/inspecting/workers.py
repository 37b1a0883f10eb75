"""The inspector beside a supervisor: it shows the sessions of all workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ...config.settings import Settings
from ...errors import CannotStart
from ...files import Owner
from ...interfaces import IServerControl, MaybeDeferred
from ...net.types import IReactor
from ...stores.registry import kind_of
from ..service import OrderedService
from .across import WorkersControl, take
from .serving import Inspection

if TYPE_CHECKING:
    from twisted.web.resource import IResource

__all__ = ["WorkersInspection"]

log = Logger()


class WorkersInspection:
    """See :class:`~pop3toy.run.inspecting.serving.Inspection`.

    :param act: has the worker of a number do something with its sessions.
    """

    def __init__(
        self, settings: Settings, reactor: IReactor, act: Callable[[int, Sequence[object]], object]
    ) -> None:
        assert settings.workers is not None, "there are workers"
        self._inspection = Inspection(settings, reactor)
        administer = kind_of(settings.store).admin
        self._control = WorkersControl(
            self._inspection.hub,
            settings.workers,
            act,
            cache(lambda: administer(settings.store) if administer is not None else None),
        )
        #: What the supervisor is to call.
        self.observing: dict[str, Any] = {
            "happened": self._happened,
            "buried": self._buried,
            "served": self._control.serves,
        }

    def shows(self, metrics: IResource, problems: Callable[[], MaybeDeferred[Sequence[str]]]) -> None:
        """See :class:`~pop3toy.run.inspecting.serving.Inspection`."""
        self._inspection.shows(metrics, problems)

    def serve(
        self, parts: OrderedService, cannot_listen: Callable[[CannotStart], object], owner: Owner | None
    ) -> None:
        """Add it to the supervisor's server."""
        control: IServerControl = self._control
        self._inspection.serve(parts, lambda: control, cannot_listen, owner=owner)

    def take(self, settings: Settings, token: str | None) -> None:
        """See :class:`~pop3toy.run.inspecting.serving.Inspection`."""
        self._inspection.take(settings, token)

    @property
    def draining(self) -> bool:
        """Whether the workers take no more connections."""
        return self._control.draining

    def _happened(self, told: list[object]) -> None:
        try:
            take(self._inspection.hub, told)
        except Exception:
            log.failure("what a worker tells of its sessions cannot be read")

    def _buried(self, number: int) -> None:
        """A worker's process is gone, and its sessions with it."""
        control = self._control
        self._inspection.hub.end(lambda session: control.worker_of(session) == number, "dropped")
