"""The kinds of store: what is said of each, and how it is made.  A new one is an entry here.

What makes a store is loaded when one is wanted; the settings of all kinds are
read by whoever reads options, and need nothing else.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from ..errors import BadSetting, CannotStart
from ..files import check_readable, why_unusable
from ..interfaces import IDelivery, IMailStore, IStoreAdmin, MaybeDeferred
from ..net.threads import Threads
from .maildir.settings import Maildirs
from .toy import Toy

__all__ = ["STORES", "Maildirs", "OpenStore", "StoreContext", "StoreKind", "Toy", "kind_of"]

#: Threads that write mail: the more there are, the more fsyncs the file system can join into one.
DELIVERY_THREADS = 16


@dataclass(frozen=True)
class StoreContext:
    """What a server, or a command, gives the store that it opens.

    A command runs no reactor: its threads do their work at once, and so must what needs no thread.
    """

    #: For timers and durations.
    clock: IReactorTime
    #: ``threads(name, size)`` makes a pool that ends with the server; a size of 0 is its default.
    threads: Callable[[str, int], Threads]
    #: The octets that a user may keep; ``None`` for any number.
    quota: Callable[[str], MaybeDeferred[int | None]]
    #: The users that the settings name themselves.
    users: Sequence[str]
    #: This host's name, which may become part of a message's.
    host: str
    #: The time of day, in seconds since the epoch.
    wall: Callable[[], float] = time.time


class OpenStore(NamedTuple):
    """A store, and the way in for new mail."""

    store: IMailStore
    delivery: IDelivery


@dataclass(frozen=True)
class StoreKind:
    """A kind of store."""

    #: The dataclass whose fields are its options; it has ``for_each_user``, which says whether each user
    #: has a mailbox of their own, and, where there is ``admin``, ``create``: whether a missing one is made.
    settings: type
    #: The option that chooses it; the first kind is the one that nothing chooses.
    key: str
    #: What it is, for a sentence about an option of another kind.
    what: str
    #: Makes it.  Raises :class:`~pop3toy.errors.CannotStart` where that is not possible.
    open: Callable[[Any, StoreContext], OpenStore]
    #: Makes what administers it, and looks at nothing yet; ``None`` where nothing outlives the server.
    admin: Callable[[Any], IStoreAdmin] | None = None
    #: Sees that the place which the settings name can be used, before a server starts or a command looks
    #: for mailboxes.  Raises :class:`~pop3toy.errors.BadSetting` if not.
    check: Callable[[Any], None] = lambda settings: None


def _open_toy(settings: Toy, context: StoreContext) -> OpenStore:
    from .hello import hello_store

    messages = []
    for path in settings.messages:
        try:
            messages.append(Path(path).read_bytes())
        except OSError as error:
            raise CannotStart(f"--message {path}: {error.strerror}") from error
    store: Any = hello_store(context.wall(), context.users, messages or None)
    return OpenStore(store, store)


def _open_maildirs(settings: Maildirs, context: StoreContext) -> OpenStore:
    from .maildir.incoming.delivery import MaildirDelivery
    from .maildir.paths import MaildirPaths
    from .maildir.store import MaildirStore

    paths = MaildirPaths(settings.path, create=settings.create)
    scans = context.threads("scans", 0)
    store: Any = MaildirStore(
        paths,
        context.threads("disk", 0).run,
        scan_in_thread=scans.run,
        max_listed_size=settings.max_listed_size,
        is_over=scans.is_over,
    )
    writing = context.threads("delivery", DELIVERY_THREADS).run
    delivery: Any = MaildirDelivery(paths, writing, context.clock, quota=context.quota, host=context.host)
    return OpenStore(store, delivery)


def _administer_maildirs(settings: Maildirs) -> IStoreAdmin:
    from .maildir.admin import MaildirAdmin

    admin: Any = MaildirAdmin(settings)
    return admin  # type: ignore[no-any-return]


def _check_toy(settings: Toy) -> None:
    for path in settings.messages:
        check_readable("message", path)


def _check_maildirs(settings: Maildirs) -> None:
    from .maildir.paths import MaildirPaths

    root = MaildirPaths(settings.path, create=settings.create).root
    folder = root
    if not settings.for_each_user and not settings.create:
        folder = os.path.abspath(os.path.expanduser(settings.path))
    if why := why_unusable(folder, stat.S_ISDIR, "folder", os.X_OK, "enter"):
        raise BadSetting("maildir", f": {why}")
    if folder != root and not any(
        os.path.isdir(os.path.join(folder, name)) for name in ("new", "cur", "tmp")
    ):
        raise BadSetting(
            "maildir",
            f": {folder} is no Maildir, which has new, cur and tmp in it; if each user has one"
            " in it, {user} goes where the user's name does",
        )


STORES: tuple[StoreKind, ...] = (
    StoreKind(Toy, "", "the built-in mailbox", _open_toy, check=_check_toy),
    StoreKind(Maildirs, "maildir", "Maildirs", _open_maildirs, _administer_maildirs, _check_maildirs),
)


def kind_of(settings: object) -> StoreKind:
    """The kind of store that these settings are of.

    :raises TypeError: if they are of none.
    """
    for kind in STORES:
        if type(settings) is kind.settings:
            return kind
    raise TypeError(f"{settings!r} are the settings of no store")
