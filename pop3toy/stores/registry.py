"""The kinds of store: what is said of each, and how it is made.  A new one is an entry here.

What makes a store is loaded when one is wanted; the settings of all kinds are read
with the options, and need nothing else.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..errors import BadSetting
from ..files import check_readable, why_unusable
from ..interfaces import IDelivery, IMailStore, Incoming, IStoreAdmin, MaybeDeferred
from ..net.threads import RunInThread, Share, Threads
from .maildir.settings import Maildirs
from .objects.settings import Objects
from .server_process import ServerProcess
from .toy import Toy

if TYPE_CHECKING:
    from .copying.adopting import AdoptingMaildirs
    from .copying.messages import Store
    from .objects.accounts import AccountObjects
    from .objects.connecting import Engines
    from .objects.users import Users

__all__ = [
    "STORES",
    "Maildirs",
    "Objects",
    "OpenStore",
    "ServerProcess",
    "StoreContext",
    "StoreKind",
    "Toy",
    "kind_of",
]

#: Threads of one file system at the most: for reading and removing, and as many for counting; and for
#: writing mail: the more there are, the more fsyncs the file system can join into one.
READING_THREADS, WRITING_THREADS = 8, 16

#: Threads of one user, of each kind: a session, and one more that comes while that one's disk hangs.
USER_THREADS = 2

#: Threads that write one user's mail: of a Maildir that a link leads to, the file system is not known.
USER_WRITING_THREADS = 8

#: Seconds that a look at a Maildir may take before mail for it.
LOOKING = 10.0

#: Threads of each kind in all: so many that some file systems may hang, and the others do not feel it.
#: They are started when there is work for them.
ALL_THREADS = 64

#: Requests to object storage at once, and renewals of leases, which a flood of the others must not hold up;
#: of these those of one bucket, so that one that hangs leaves threads to the others.
REQUESTS, LEASES = 48, 32
LEASES_OF_BUCKET = 8
#: Requests to one bucket of several: what is left serves users of others when it hangs.
REQUESTS_OF_BUCKET = 32


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
    #: Which of a server's processes this is; that of a command is one of no other server.
    process: ServerProcess = field(default_factory=ServerProcess)
    #: Is told which user has to know that the mailbox is nearly full, with its octets and the quota: in any
    #: thread, behind a delivery.  ``None`` where nobody is told.
    nearly_full: Callable[[str, int, int], object] | None = None
    #: What :attr:`StoreKind.share` has made, if others have it too.
    shared: Any = None


class OpenStore(NamedTuple):
    """A store, and the way in for new mail."""

    store: IMailStore
    delivery: IDelivery
    #: What administers it by the same connections, if it has any.
    admin: IStoreAdmin | None = None
    #: Sees that it answers, as soon as the server runs; the Deferred fails with
    #: :class:`~pop3toy.errors.StoreTrouble` if not.
    look: Callable[[], Deferred[object]] | None = None
    #: Where it is, for people.
    where: str = ""
    #: Begins a message of the server's own to a user, which no quota keeps out, if there is such a thing.
    notice: Callable[[str], Deferred[Incoming]] | None = None


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
    #: Whether it is reached by a network: then nothing asks it before the server runs, since the process
    #: may fork until then, and whoever asks does so in a thread.
    on_network: bool = False
    #: Options besides :attr:`key` that a command needs to find it.
    found_by: tuple[str, ...] = ()
    #: Makes what several parts of a process share, such as connections, and looks at nothing yet.
    share: Callable[[Any], Any] = lambda settings: None
    #: Makes what keeps accounts beside the mail (``auth.accounts.records``), given the settings and what
    #: ``share`` has made, if anything has, and looks at nothing yet; ``None`` where there is no such thing.
    accounts: Callable[[Any, Any], Any] | None = None
    #: Makes what is copied from and to (``copying``), given the settings, and looks at nothing yet; ``None``
    #: where nothing outlives the server.
    copied: Callable[[Any], Store] | None = None
    #: Makes what gives messages the unique-ids that clients know (``copying.adopting``), given the settings,
    #: and looks at nothing yet; ``None`` where messages are kept by their unique-ids.
    adopting: Callable[[Any], AdoptingMaildirs] | None = None
    #: This server among those that share the store, in words that no other on its machine may have, with
    #: the option that says them; ``None`` where there are no such words.
    alone: Callable[[Any], tuple[str, str] | None] = lambda settings: None
    #: Says why it cannot be had by several processes; empty if it can.
    one_process: Callable[[Any], str] = lambda settings: ""


def _open_toy(settings: Toy, context: StoreContext) -> OpenStore:
    from .hello import hello_store

    messages = []
    for path in settings.messages:
        try:
            messages.append(Path(path).read_bytes())
        except OSError as error:
            raise BadSetting("message", f" {path}: {error.strerror}") from error
    memory = hello_store(context.wall(), context.users, messages or None)
    store: IMailStore = memory
    delivery: IDelivery = memory
    return OpenStore(store, delivery)


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

    store: IMailStore = MaildirStore(
        paths,
        reads.run,
        scan_in_thread=counts.run,
        threads_of=threads_of,
        clock=context.clock,
        max_listed_size=settings.max_listed_size,
        keep_removed=bool(settings.undo_days),
        is_over=counts.is_over,
    )
    delivery = MaildirDelivery(
        paths,
        writes.run,
        context.clock,
        threads_of=delivery_threads_of,
        quota=context.quota,
        nearly_full=context.nearly_full,
        host=context.host,
    )
    return OpenStore(store, cast(IDelivery, delivery), notice=delivery.notice)


def _administer_maildirs(settings: Maildirs) -> IStoreAdmin:
    from .maildir.admin import MaildirAdmin

    admin: IStoreAdmin = MaildirAdmin(settings)
    return admin


class SharedObjects(NamedTuple):
    """What the parts of a process share that know an object store."""

    engines: Engines
    users: Users


def _share_objects(settings: Objects) -> SharedObjects:
    from .objects.connecting import Engines
    from .objects.users import Users

    engines = Engines(settings)
    return SharedObjects(engines, Users(engines, create=settings.create))


def _open_objects(settings: Objects, context: StoreContext) -> OpenStore:
    from .objects.incoming.delivery import ObjectDelivery
    from .objects.lease import Node
    from .objects.store import ObjectStore

    engines, users = shared = context.shared or _share_objects(settings)
    requests, leases = context.threads("objects", REQUESTS), context.threads("leases", LEASES)

    def of_user(whose: str, user: str) -> RunInThread:
        own = Share((whose, user), USER_THREADS)
        # Known from the last time that the user came.
        bucket = users.bucket(user) if settings.buckets else None
        return requests.shared(
            (own,) if bucket is None else (own, Share(("bucket", bucket), REQUESTS_OF_BUCKET))
        )

    def of_leases(bucket: str) -> RunInThread:
        return leases.shared((Share(("bucket", bucket), LEASES_OF_BUCKET),), patient=True)

    store: IMailStore = ObjectStore(
        engines,
        users,
        context.clock,
        Node(settings.node or "", context.process),
        run_for=partial(of_user, "user"),
        leases=of_leases,
    )
    delivery = ObjectDelivery(
        engines,
        users,
        context.clock,
        run_for=partial(of_user, "mail for"),
        quota=context.quota,
        nearly_full=context.nearly_full,
        host=context.host,
    )
    return OpenStore(
        store,
        cast(IDelivery, delivery),
        _administer_shared(shared),
        lambda: requests.run(engines.learn_time),
        f"{settings.url}{f' at {settings.endpoint}' if settings.endpoint else ''}",
        delivery.notice,
    )


def _administer_objects(settings: Objects) -> IStoreAdmin:
    return _administer_shared(_share_objects(settings))


def _administer_shared(shared: SharedObjects) -> IStoreAdmin:
    from .objects.admin import ObjectAdmin

    admin: IStoreAdmin = ObjectAdmin(*shared)
    return admin


def _accounts_in_objects(settings: Objects, shared: SharedObjects | None) -> AccountObjects:
    from .objects.accounts import AccountObjects

    return AccountObjects(*(shared or _share_objects(settings)), settings.url)


def _copied_objects(settings: Objects) -> Store:
    from .copying.objects import ObjectMailboxes

    engines, users = _share_objects(settings)
    return ObjectMailboxes(engines, users, settings.url)


def _copied_maildirs(settings: Maildirs) -> Store:
    from .copying.maildirs import MaildirMailboxes

    return MaildirMailboxes(settings)


def _adopting_maildirs(settings: Maildirs) -> AdoptingMaildirs:
    from .copying.adopting import AdoptingMaildirs

    return AdoptingMaildirs(settings)


def _check_objects(settings: Objects) -> None:
    from .objects.connecting import Engines

    # Its credentials can be read, and obstore is installed.
    Engines(settings)


def _alone_objects(settings: Objects) -> tuple[str, str] | None:
    return ("store-node", f"{settings.url} {settings.node}") if settings.node is not None else None


def _one_process_of_objects(settings: Objects) -> str:
    return "memory:// is in one process alone" if settings.place.scheme == "memory" else ""


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
    StoreKind(
        Maildirs,
        "maildir",
        "Maildirs",
        _open_maildirs,
        _administer_maildirs,
        _check_maildirs,
        copied=_copied_maildirs,
        adopting=_adopting_maildirs,
    ),
    StoreKind(
        Objects,
        "store",
        "object storage",
        _open_objects,
        _administer_objects,
        _check_objects,
        on_network=True,
        found_by=("store-endpoint", "store-credentials", "store-region"),
        share=_share_objects,
        accounts=_accounts_in_objects,
        copied=_copied_objects,
        alone=_alone_objects,
        one_process=_one_process_of_objects,
    ),
)


def kind_of(settings: object) -> StoreKind:
    """The kind of store that these settings are of.

    :raises TypeError: if they are of none.
    """
    for kind in STORES:
        if type(settings) is kind.settings:
            return kind
    raise TypeError(f"{settings!r} are the settings of no store")
