"""A store on object storage, as far as it takes to prove that the ports are right for one; it is not shipped.

Mail is in an object store with an S3 interface (here obstore's ``MemoryStore``), reached by calls that block
and therefore run in threads::

    a/<2 hex>/<sha256 of the login>     account: JSON with the login and the name of the maildrop
    m/<drop>/<uid>                      a message as it is on the wire, never changed
    l/<drop>                            lease: the lock of the maildrop, changed by compare-and-swap alone

A uid is 16 hex of microseconds and 16 of chance: it sorts by arrival, and tells it. What LIST tells of an
object is all that a listing needs.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from io import BytesIO
from threading import Event
from typing import Any, BinaryIO, NamedTuple, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pop3toy import limits
from pop3toy.errors import InUse, MessageGone, NoSuchMailbox, Refusal, StoreTrouble
from pop3toy.interfaces import (
    Entry,
    ICancellableStore,
    IDelivery,
    ILeasedMailbox,
    IMailbox,
    Incoming,
    IStoreAdmin,
    IViewableStore,
    MaybeDeferred,
    MessageBody,
    StoredMessage,
)
from pop3toy.mail.listing import Listing
from pop3toy.mail.octets import Encoder
from pop3toy.net.threads import RunInThread

__all__ = ["MARGIN", "RENEWAL", "TTL", "ObjectAdmin", "ObjectStore", "Objects", "Taken"]

log = Logger()
_T = TypeVar("_T")

#: Seconds after which a lease that was not renewed is not held any more, what clocks and networks may add
#: before somebody else takes it, and seconds between renewals.
TTL, MARGIN, RENEWAL = 60.0, 15.0, 20.0
#: Octets of one request for a message, and keys of one request for a removal.
RANGE, KEYS = 1024 * 1024, 1000


class Taken(Exception):
    """The object is there already, or is another one than was seen."""


class Found(NamedTuple):
    """An object, and what tells this version of it from others."""

    body: bytes
    tag: str
    #: Seconds since the epoch, by the store's clock.
    modified: float


class Objects:
    """What is asked of the object store; each call blocks.

    :raises FileNotFoundError: if there is no such object.
    :raises StoreTrouble: if the store cannot be reached, or does not do it.
    """

    def __init__(self, objects: Any) -> None:
        self._objects = objects

    def call(self, function: Callable[..., _T], *args: Any, **named: Any) -> _T:
        """Call a function of obstore."""
        try:
            return function(self._objects, *args, **named)
        except (AlreadyExistsError, PreconditionError):
            raise Taken from None
        except BaseError as error:
            # Further lines hold the address.
            raise StoreTrouble(detail=str(error).partition("\n")[0]) from error

    def get(self, key: str) -> Found:
        result = self.call(obstore.get, key)
        meta = result.meta
        return Found(bytes(result.bytes()), str(meta["e_tag"]), _seconds(meta["last_modified"]))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return bytes(self.call(obstore.get_range, key, start=start, length=length))

    def create(self, key: str, body: bytes) -> str:
        return str(self.call(obstore.put, key, body, mode="create")["e_tag"])

    def swap(self, key: str, body: bytes, tag: str) -> str:
        return str(self.call(obstore.put, key, body, mode={"e_tag": tag})["e_tag"])

    def list(self, prefix: str) -> list[tuple[str, int]]:
        """Keys below a prefix without it, and octets, in the order of the keys."""
        found = [(one["path"], one["size"]) for part in self.call(obstore.list, prefix) for one in part]
        return sorted((key[len(prefix) + 1 :], size) for key, size in found)

    def delete(self, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), KEYS):
            self.call(obstore.delete, keys[at : at + KEYS])


def _seconds(time: datetime) -> float:
    return time.timestamp()


class Lease(NamedTuple):
    """A lease as it is kept; its body is another one at each change, because the tag may be made of it."""

    held: bool
    nonce: str
    number: int

    def encoded(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decoded(cls, body: bytes) -> Lease:
        return cls(**json.loads(body))


@implementer(ICancellableStore, IViewableStore, IDelivery)
class ObjectStore:
    """Maildrops in an object store.

    :param run: runs what blocks.
    :param clock: for renewals.
    :param wall: the time of day by the object store's clock.
    """

    def __init__(
        self, objects: Objects, run: RunInThread, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self.objects = objects
        self.run = run
        self.clock = clock
        self.wall = wall
        self._last = 0

    def add_account(self, user: str) -> None:
        """Make a maildrop; blocks."""
        drop = secrets.token_hex(16)
        # First, because no session makes one: a maildrop that is removed would be an empty one then.
        self.objects.create(f"l/{drop}", Lease(False, secrets.token_hex(8), 0).encoded())
        self.objects.create(_account(user), json.dumps({"login": user, "drop": drop}).encode())

    def drop(self, user: str) -> str:
        """The name of a user's maildrop; blocks.

        :raises NoSuchMailbox: if there is none.
        """
        try:
            return str(json.loads(self.objects.get(_account(user)).body)["drop"])
        except FileNotFoundError:
            raise NoSuchMailbox(detail=f"there is no account {user!r}") from None

    def listing(self, drop: str) -> Listing:
        """What a maildrop holds; blocks."""
        return Listing(
            Entry(uid.encode("ascii"), octets, int(uid[:16], 16) / 1e6)
            for uid, octets in self.objects.list(f"m/{drop}")
        )

    def new_uid(self) -> str:
        """A uid behind all others of this process."""
        self._last = max(int(self.wall() * 1e6), self._last + 1)
        return f"{self._last:016x}{secrets.token_hex(8)}"

    # -- the lease ---------------------------------------------------------------------

    def acquire(self, drop: str) -> tuple[Lease, str]:
        """Take the lease; blocks.

        :raises InUse: if somebody has it.
        """
        key = f"l/{drop}"
        try:
            found = self.objects.get(key)
            lease = Lease.decoded(found.body)
            if lease.held and self.wall() - found.modified < TTL + MARGIN:
                raise InUse
            mine = Lease(True, secrets.token_hex(8), lease.number + 1)
            return mine, self.swap(key, mine, found.tag)
        except FileNotFoundError:
            raise NoSuchMailbox(detail="a maildrop is being removed") from None
        except Taken:
            raise InUse from None

    def swap(self, key: str, lease: Lease, tag: str) -> str:
        """Change a lease; blocks.

        :raises Taken: if somebody else has changed it.
        """
        try:
            return self.objects.swap(key, lease.encoded(), tag)
        except (Taken, StoreTrouble):
            # A request whose answer was lost may have been carried out, and repeated by the library.
            found = self.objects.get(key)
            if Lease.decoded(found.body) != lease:
                raise
            return found.tag

    # -- ICancellableStore, IViewableStore ----------------------------------------------------------

    def open(self, user: str) -> Deferred[IMailbox]:
        asked = self.clock.seconds()

        def opened() -> tuple[str, Lease, str, Listing]:
            drop = self.drop(user)
            lease, tag = self.acquire(drop)
            try:
                listing = self.listing(drop)
                if given_up.is_set():
                    raise Refusal("the client has gone")
            except BaseException:
                self.swap(f"l/{drop}", lease._replace(held=False), tag)
                raise
            return drop, lease, tag, listing

        def give_up(opening: Deferred[IMailbox]) -> None:
            given_up.set()
            opening.errback(Refusal("the client has gone"))

        def done(result: Any) -> None:
            failed = isinstance(result, Failure)
            if not given_up.is_set():
                opening.callback(result if failed else _Leased(self, asked, *result))
            elif not failed:
                _Leased(self, asked, *result).release()

        given_up = Event()
        opening: Deferred[IMailbox] = Deferred(give_up)
        self.run(opened).addBoth(done)
        return opening

    def view(self, user: str) -> Deferred[IMailbox]:
        def viewed() -> Any:
            drop = self.drop(user)
            return _Mailbox(self, drop, self.listing(drop))

        return self.run(viewed)

    # -- IDelivery ------------------------------------------------------------------------------

    def check(self, user: str, octets: int = 0) -> Deferred[None]:
        return self.run(self.drop, user).addCallback(lambda _: None)

    def begin(self, users: Sequence[str], octets: int = 0) -> Deferred[Incoming]:
        def begun() -> Incoming:
            refused = []
            for user in users:
                try:
                    self.drop(user)
                except StoreTrouble as error:
                    refused.append(error)
            if len(refused) == len(users):
                raise refused[0]
            return _Incoming(self, users)

        return self.run(begun)


@implementer(IStoreAdmin)
class ObjectAdmin:
    """What the command asks of the same maildrops; all of it blocks."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.objects = store.objects

    def users(self) -> Sequence[str]:
        keys = self.objects.list("a")
        return sorted(json.loads(self.objects.get(f"a/{key}").body)["login"] for key, _ in keys)

    def exists(self, user: str) -> bool:
        try:
            self.store.drop(user)
        except NoSuchMailbox:
            return False
        return True

    def list(self, user: str) -> Sequence[StoredMessage]:
        drop = self.store.drop(user)
        return [
            StoredMessage(one.uid, one.octets, f"m/{drop}/{one.uid.decode()}", one.arrived)
            for one in self.store.listing(drop)
        ]

    def read(self, user: str, message: StoredMessage) -> BinaryIO:
        self.store.drop(user)
        try:
            return BytesIO(self.objects.get(message.where).body)
        except FileNotFoundError:
            raise MessageGone from None

    def problems(self, user: str, *, read: bool = True) -> Iterable[str]:
        self.store.drop(user)
        return ()

    def usage(self, user: str) -> int:
        return sum(octets for _, octets in self.objects.list(f"m/{self.store.drop(user)}"))

    def remove(self, user: str) -> None:
        drop = self.store.drop(user)
        self.store.acquire(drop)
        # Whoever delivers looks for the account when the message is there.
        self.objects.delete([_account(user)])
        self.objects.delete([f"m/{drop}/{uid}" for uid, _ in self.objects.list(f"m/{drop}")])
        self.objects.delete([f"l/{drop}"])


def _account(user: str) -> str:
    digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
    return f"a/{digest[:2]}/{digest}"


@implementer(IMailbox)
class _Mailbox:
    """A maildrop that is looked at."""

    read_only = True

    def __init__(self, store: ObjectStore, drop: str, listing: Listing) -> None:
        self.store = store
        self.drop = drop
        self.entries = listing
        self._octets = dict(zip(listing.uids, listing.each, strict=True))

    def key(self, uid: bytes) -> str:
        return f"m/{self.drop}/{uid.decode('ascii')}"

    def read(self, uid: bytes) -> MessageBody:
        # No request: how much is wanted is known when the first chunk is.
        return _Body(self.store, self.key(uid), self._octets[uid])

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        raise StoreTrouble(detail="a maildrop that is looked at")

    def release(self) -> MaybeDeferred[None]:
        return None


class _Body:
    """A message, fetched in ranges: a slow client would run into the time limit of one request."""

    def __init__(self, store: ObjectStore, key: str, octets: int) -> None:
        self._store = store
        self._key = key
        self._left = octets
        self._at = 0
        self._buffer = b""
        self.done = octets == 0

    def pull(self, most: int = limits.CHUNK) -> MaybeDeferred[bytes]:
        if self._buffer:
            return self._take(most)
        # For RETR larger ranges than are sent at once; TOP asks for little, and gets that.
        length = min(self._left, RANGE if most >= limits.CHUNK else most)
        fetched = self._store.run(self._store.objects.get_range, self._key, self._at, length)
        return fetched.addCallbacks(self._came, _gone, callbackArgs=(most,))

    def _came(self, data: bytes, most: int) -> bytes:
        self._at += len(data)
        self._left -= len(data)
        self._buffer = data
        return self._take(most)

    def _take(self, most: int) -> bytes:
        chunk, self._buffer = self._buffer[:most], self._buffer[most:]
        self.done = not (self._buffer or self._left)
        return chunk

    def close(self, octets: int | None) -> None:
        self._buffer = b""


def _gone(why: Failure) -> bytes:
    why.trap(FileNotFoundError)
    raise MessageGone


@implementer(ILeasedMailbox)
class _Leased(_Mailbox):
    """A maildrop that is open and leased.

    :param asked: when the lease was asked for, in the clock's seconds: it lasts from then on.
    """

    read_only = False

    def __init__(
        self, store: ObjectStore, asked: float, drop: str, lease: Lease, tag: str, listing: Listing
    ) -> None:
        super().__init__(store, drop, listing)
        self._lease = lease
        self._tag = tag
        self._until = asked + TTL
        self._tell: Callable[[str], object] = lambda why: None
        self._lost = False
        self._renewing = False
        self._released: Deferred[None] | None = None
        # One change of the lease at a time: each needs the tag of the one before.
        self._changes = DeferredLock()
        self._renewal: IDelayedCall | None = store.clock.callLater(RENEWAL, self._tick)

    def when_lost(self, call: Callable[[str], object]) -> None:
        self._tell = call

    def _change(self, *, held: bool, doing: Callable[[], None] = lambda: None) -> Deferred[None]:
        """Renew the lease, or give it back, and do something with it."""
        asked = self.store.clock.seconds()

        def change() -> None:
            lease = self._lease._replace(held=held, number=self._lease.number + 1)
            self._tag = self.store.swap(f"l/{self.drop}", lease, self._tag)
            self._lease, self._until = lease, asked + TTL
            doing()

        changing: Deferred[None] = self._changes.run(self.store.run, change)
        return changing

    def _tick(self) -> None:
        """Renew the lease; a store that does not answer has lost it when its time is over."""
        if self.store.clock.seconds() >= self._until:
            self._is_lost("the lease could not be renewed")
            return
        self._renewal = self.store.clock.callLater(RENEWAL, self._tick)
        if self._renewing:
            return
        self._renewing = True

        def renewed(outcome: object) -> None:
            self._renewing = False
            if isinstance(outcome, Failure):
                if outcome.check(Taken, FileNotFoundError):
                    self._is_lost("somebody else has taken the lease")
                elif not outcome.check(StoreTrouble):
                    log.failure("renewing a lease", outcome)

        self._change(held=True).addBoth(renewed)

    def _is_lost(self, why: str) -> None:
        self._stop()
        if self._released is None:
            self._lost = True
            self._tell(why)

    def _stop(self) -> None:
        if self._renewal is not None and self._renewal.active():
            self._renewal.cancel()

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        if not uids:
            return None
        if self._lost:
            raise StoreTrouble(detail="the lease was lost; nothing was removed")
        keys = [self.key(uid) for uid in uids]

        def failed(why: Failure) -> None:
            if why.check(Taken, FileNotFoundError):
                raise StoreTrouble(detail="somebody else has taken the lease; nothing was removed")
            why.raiseException()

        return self._change(held=True, doing=lambda: self.store.objects.delete(keys)).addErrback(failed)

    def release(self) -> MaybeDeferred[None]:
        if self._released is not None:
            # Who asks twice waits for the same.
            again: Deferred[None] = Deferred()
            self._released.addBoth(lambda _: again.callback(None))
            return again
        self._stop()

        def failed(why: Failure) -> None:
            # It is somebody else's, or will be, in a minute.
            if why.check(Taken, FileNotFoundError, StoreTrouble) is None:
                log.failure("giving back a lease", why)

        self._released = self._change(held=False).addErrback(failed)
        return self._released


class _Incoming:
    """A message on its way, in memory until it is whole: it is one request then."""

    def __init__(self, store: ObjectStore, users: Sequence[str]) -> None:
        self._store = store
        self._users = users
        self._encoder = Encoder(stuffed=False)
        self._pieces: list[bytes] = []
        self._over = False

    def write(self, chunk: bytes) -> None:
        self._pieces.append(self._encoder.feed(chunk))

    def commit(self, *, together: bool = True) -> Deferred[Sequence[bytes | StoreTrouble]]:
        if self._over:
            raise RuntimeError("this delivery is over")
        self._over = True
        message = b"".join([*self._pieces, self._encoder.finish()])
        # Fixed before the first try: whoever repeats a request and finds the key there has succeeded.
        uids = [self._store.new_uid() for _ in self._users]
        return self._store.run(self._put, message, uids, together)

    def _put(self, message: bytes, uids: Sequence[str], together: bool) -> Sequence[bytes | StoreTrouble]:
        outcome: list[bytes | StoreTrouble] = []
        put = []
        for user, uid in zip(self._users, uids, strict=True):
            try:
                put.append(self._put_one(user, uid, message))
                outcome.append(uid.encode("ascii"))
            except StoreTrouble as error:
                outcome.append(error)
        refused = [one for one in outcome if isinstance(one, StoreTrouble)]
        if refused and (together or not put):
            self._store.objects.delete(put)
            raise refused[0]
        return outcome

    def _put_one(self, user: str, uid: str, message: bytes) -> str:
        key = f"m/{self._store.drop(user)}/{uid}"
        try:
            self._store.objects.create(key, message)
        except Taken:
            pass
        try:
            # Whoever removes the mailbox removes the account first, and then what is there.
            self._store.drop(user)
        except NoSuchMailbox:
            self._store.objects.delete([key])
            raise
        return key

    def abort(self) -> None:
        self._over = True
        self._pieces.clear()
