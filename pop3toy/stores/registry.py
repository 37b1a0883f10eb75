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
from ..net.threads import Share, Threads
from .maildir.settings import Maildirs
from .toy import Toy

__all__ = ["STORES", "Maildirs", "OpenStore", "StoreContext", "StoreKind", "Toy", "kind_of"]

#: Threads of one file system at the most: for reading and removing, and as many for counting; and for
#: writing mail: the more there are, the more fsyncs the file system can join into one.
READING_THREADS, WRITING_THREADS = 8, 16

#: Threads of one user, of each kind: a session, and one more that comes while that one's disk hangs.
USER_THREADS = 2

#: Threads that write one user's mail: of a Maildir that a link leads to, the file system is not known.
USER_WRITING_THREADS = 8

#: Seconds that a look at a Maildir may take which mail is for.
LOOKING = 10.0

#: Threads of each kind in all: so many that some file systems may hang, and the others do not feel it.
#: They are started when there is work for them.
ALL_THREADS = 64


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
    from .maildir.file_systems import Mounts
    from .maildir.incoming.delivery import MaildirDelivery
    from .maildir.incoming.message import DeliveryThreads
    from .maildir.paths import MaildirPaths
    from .maildir.store import MaildirStore, UserThreads

    paths = MaildirPaths(settings.path, create=settings.create)
    mounts = Mounts(context.clock)
    reads, counts, writes = (context.threads(name, ALL_THREADS) for name in ("disk", "scans", "delivery"))

    def threads_of(user: str) -> UserThreads:
        place = Share(("file system", mounts.point(paths.path(user))), READING_THREADS)
        shares = Share(("user", user), USER_THREADS), place
        return UserThreads(
            reads.shared(shares),
            # Opened before, so the disk did answer; there may be much to count for all.
            counts.shared(shares, patient=True),
            reads.shared(shares, patient=True),
        )

    def delivery_threads_of(user: str) -> DeliveryThreads:
        # All of a file system have one share: when its messages hang, nobody looks at it any more.
        place = Share(("file system", mounts.point(paths.path(user))), WRITING_THREADS)
        writing = Share(("mail for", user), USER_WRITING_THREADS), place
        return DeliveryThreads(
            writes.shared((Share(("user", user), USER_THREADS), place), within=LOOKING),
            writes.shared(writing),
            writes.shared(writing, patient=True),
        )

    store: Any = MaildirStore(
        paths,
        reads.run,
        scan_in_thread=counts.run,
        threads_of=threads_of,
        clock=context.clock,
        max_listed_size=settings.max_listed_size,
        is_over=counts.is_over,
    )
    delivery: Any = MaildirDelivery(
        paths,
        writes.run,
        context.clock,
        threads_of=delivery_threads_of,
        quota=context.quota,
        host=context.host,
    )
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
