"""Hands in what is there for speed alone: ``net.fast`` may be deleted, and the server works without it."""

from __future__ import annotations

from typing import Protocol

from ..interfaces import Batcher
from ..net.sending import Sending
from ..net.types import IReactor

__all__ = ["BatcherService", "batcher_of", "sending_of"]


class BatcherService(Batcher, Protocol):
    """A batcher that works while the service does that it is."""

    def setServiceParent(self, parent: object) -> object:
        """See ``twisted.application.service.IService``."""


def batcher_of(reactor: IReactor) -> BatcherService | None:
    """The batcher of a reactor; ``None`` where it can have none."""
    try:
        from ..net.fast.reply_batcher import batcher_of
    except ModuleNotFoundError:
        return None
    return batcher_of(reactor)


def sending_of(batcher: Batcher | None) -> Sending:
    """How connections send, with or without a batcher."""
    postpone = batcher.postpone if batcher is not None else None
    try:
        from ..net.fast.immediate_write import ImmediateSending
    except ModuleNotFoundError:
        return Sending(postpone)
    return ImmediateSending(postpone)
