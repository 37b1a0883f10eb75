"""The queue of a server: made of its settings, with the server's store for notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from twisted.application.service import MultiService

from ...addresses import parse_address
from ...config.settings import Settings
from ...errors import NoSuchMailbox, NotOurs, StoreTrouble
from ...events import Observers
from ...interfaces import IDelivery, IRecipientResolver, is_deferred
from ...net.threads import WorkerThreads
from ...net.types import IReactor
from ...outgoing.client import Handing
from ...outgoing.limits import HourlyLimit
from ...outgoing.queue_files import Folder
from ...outgoing.service import OutgoingQueue, Told
from ...outgoing.smarthost import smarthost
from .credentials import credentials_again, credentials_of, tls_of

__all__ = ["queue_of"]

#: Threads for the queue: small files, and mail that is read while it goes out.
THREADS = 4


def queue_of(
    settings: Settings,
    reactor: IReactor,
    parts: MultiService,
    delivery: IDelivery,
    resolver: IRecipientResolver,
    host: str,
    *,
    threads: Callable[..., WorkerThreads] = WorkerThreads,
    observers: Observers,
    told: Told | None = None,
    wall: Callable[[], float] = time.time,
) -> OutgoingQueue | None:
    """The queue that the settings ask for, as a part of the server.

    :param parts: the server; the store's threads are among its parts already, and ports are not.
    :param delivery: of the store, for what senders are told.
    :param host: this server's name.
    :param observers: are told what becomes of messages.
    :param wall: the time of day, in seconds since the epoch.
    :raises pop3toy.errors.BadSetting: for files that cannot be used.
    """
    if settings.smarthost is None or settings.queue is None:
        return None
    where = smarthost(settings.smarthost)
    pool = threads(reactor, name="queue", size=THREADS)
    pool.setServiceParent(parts)
    queue = OutgoingQueue(
        Folder(settings.queue),
        Handing(where, credentials_of(settings), tls_of(where, settings.smarthost_ca), host),
        partial(credentials_again, settings, wall),
        reactor,
        pool.run,
        HourlyLimit(settings.queue, settings.smarthost_limit, wall),
        partial(_deliver, delivery, resolver),
        wall,
        observers,
        told or Told(),
    )
    queue.setServiceParent(parts)
    return queue


async def _deliver(
    delivery: IDelivery, resolver: IRecipientResolver, address: str, user: str, message: bytes
) -> None:
    """Put a notice into the mailbox of whoever an address here belongs to.

    :param user: who had handed the message in.
    :raises pop3toy.errors.NotOurs: if it is an address here no more.
    :raises pop3toy.errors.StoreTrouble: if it cannot be delivered now.
    """
    try:
        users = await resolver.resolve(parse_address(address))
    except (NoSuchMailbox, ValueError):
        raise NotOurs from None
    whole = b"Return-Path: <>\r\n" + message
    try:
        begun = delivery.begin(users, len(whole))
        incoming = await begun if is_deferred(begun) else begun
        try:
            written = incoming.write(whole)
            if is_deferred(written):
                await written
            await incoming.commit(together=True)
        except BaseException:
            incoming.abort()
            raise
    except StoreTrouble as error:
        raise StoreTrouble(detail=f"the notice for {user!r} waits: {error.detail or error.text}") from error
