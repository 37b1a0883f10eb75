"""What is asked of object storage: six calls, which block, and three ways in which they fail.

Through ``obstore``, whose errors and oddities end here.  Nothing here knows a message or a lease.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

from ...errors import StoreFull, StoreTrouble

__all__ = [
    "AT_ONCE",
    "KEYS",
    "LARGE",
    "Denied",
    "Engine",
    "Engines",
    "Found",
    "Listed",
    "NoSuchBucket",
    "NoSuchObject",
    "Tag",
    "Taken",
]

_T = TypeVar("_T")

#: Keys of one part of a listing.
LISTED = 1000
#: Keys of one request for a removal.  S3 takes 1,000, but Ceph removes each on its own, on three replicas: 16
#: at once (``rgw_multi_obj_del_max_aio``), older versions one after the other.  And such a request has to be
#: answered as soon as any other.
KEYS = 50
#: Requests of one removal at once: where each takes long although the storage has little to do, several are
#: done in the time of one.  Where it has much to do they take longer: hence few, and few keys in each.
AT_ONCE = 4
#: Octets of a body that is sent with more patience.
LARGE = 1024 * 1024


class Taken(Exception):
    """The object is there already, or is another one than was seen."""


class NoSuchObject(Exception):
    """There is no such object."""


class Denied(StoreTrouble):
    """The store does not take the credentials, or they do not suffice for what was asked."""


class NoSuchBucket(StoreTrouble):
    """There is nothing that an object could be put into."""


class Tag(NamedTuple):
    """What tells one version of an object from others: S3 has the first, Google both."""

    e_tag: str | None
    version: str | None = None


class Found(NamedTuple):
    """An object."""

    body: bytes
    tag: Tag
    #: Seconds since the epoch, by the store's clock; S3 tells whole seconds.
    modified: float


class Listed(NamedTuple):
    """An object as a listing has it."""

    #: Behind the prefix that was asked for.
    name: str
    octets: int
    #: As :attr:`Found.modified`.
    modified: float


class Engine:
    """One bucket (with a prefix) of object storage.  Each call blocks; any thread may make it.

    What goes wrong is :class:`StoreTrouble`, in bounded time, with a detail that holds neither credentials
    nor addresses.

    :param connect: makes obstore's store; called in the thread of the first call, and never before: its
        threads do not survive a fork.
    :param tag: how a tag is spelled in a condition, which a look at the store has to tell (``probe``).
    :param for_large: makes a store with more time for a request, for bodies over :data:`LARGE` octets: a
        request's time is that until its answer, and a message of 50 MB takes some on a slow line.
    :param at_once: how many requests a removal of very many objects makes at once at the most.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        tag: Callable[[Tag], Tag] = lambda tag: tag,
        for_large: Callable[[], Any] | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self.tag = tag
        self._connect = connect
        self._for_large = for_large
        self._large: Any = None
        self._at_once = at_once
        self._connecting = threading.Lock()
        self._store: Any = None
        self._process = 0

    def call(self, function: str, *args: Any, store: Any = None, **named: Any) -> Any:
        """Call a function of obstore, by its name.

        :param store: if not the usual one.
        :raises NoSuchObject: if there is no such object.
        :raises Taken: if a condition did not hold; or did not any more, when the library tried again.
        :raises pop3toy.errors.StoreTrouble: for whatever else went wrong.
        """
        import obstore
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            NotFoundError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        try:
            return getattr(obstore, function)(store or self._connected(), *args, **named)
        except (AlreadyExistsError, PreconditionError):
            raise Taken from None
        except (NotFoundError, FileNotFoundError):
            raise NoSuchObject from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise _trouble(error, Denied) from None
        except (BaseError, NotImplementedError) as error:
            raise _trouble(error, StoreTrouble) from None

    def _connected(self) -> Any:
        if self._store is None or self._process != os.getpid():
            with self._connecting:
                if self._store is None or self._process != os.getpid():
                    self._large = None
                    self._store, self._process = self._connect(), os.getpid()
        return self._store

    def _connected_for_large(self) -> Any:
        usual = self._connected()
        if self._for_large is None:
            return usual
        if self._large is None:
            # Two at once make two, and one is kept.
            self._large = self._for_large()
        return self._large

    def get(self, key: str) -> Found:
        """An object as a whole.

        :raises NoSuchObject: if it is not there.
        """
        result = self.call("get", key)
        try:
            body = bytes(result.bytes())
        except Exception as error:
            # It ends before its end: the connection was cut.
            raise StoreTrouble(detail=f"object storage: {first_line(error)}") from None
        meta = result.meta
        return Found(body, Tag(meta["e_tag"], meta["version"]), meta["last_modified"].timestamp())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Some of an object's octets; fewer, if it ends before.

        :raises NoSuchObject: if it is not there.
        """
        return bytes(self.call("get_range", key, start=start, length=length))

    def create(self, key: str, body: Any) -> Tag:
        """Make an object that is not there yet.

        :param body: bytes, or what has their buffer.
        :raises Taken: if it is there; that may be by this very call, of which an answer was lost.
        """
        try:
            return self._put(key, body, "create")
        except NoSuchObject:
            raise NoSuchBucket(detail="object storage: there is no such bucket") from None

    def swap(self, key: str, body: bytes, tag: Tag) -> Tag:
        """Put another body in the place of the one that was seen.

        :raises Taken: if it is another one by now, or gone; that may be by this very call.
        """
        known = {name: value for name, value in self.tag(tag)._asdict().items() if value is not None}
        try:
            return self._put(key, body, known)
        except NoSuchObject:
            raise Taken from None

    def _put(self, key: str, body: Any, mode: object) -> Tag:
        # In one request: a message is there as a whole, or not.
        store = self._connected_for_large() if len(body) > LARGE else None
        put = self.call("put", key, body, store=store, mode=mode, use_multipart=False)
        return Tag(put["e_tag"], put["version"])

    def list(self, prefix: str) -> list[Listed]:
        """The objects whose keys begin with the prefix and a slash, in the order of their keys."""
        return sorted(self.each(prefix))

    def each(self, prefix: str) -> Iterator[Listed]:
        """The same one by one, in any order: some thousands of them are in memory, not all."""
        start = len(prefix) + 1
        listing = self.call("list", prefix, chunk_size=LISTED)
        try:
            for part in listing:
                for one in part:
                    yield Listed(one["path"][start:], one["size"], one["last_modified"].timestamp())
        except Exception as error:
            # Half a listing would be a mailbox that has lost mail.
            raise StoreTrouble(detail=f"object storage: {first_line(error)}") from None

    def delete(self, keys: Sequence[str], request: Callable[[Sequence[str]], object] | None = None) -> None:
        """Remove objects; those that are gone count as removed.

        Not more than :data:`KEYS` by one request, and :data:`AT_ONCE` of these at once.  When one has failed
        no other begins.

        :param request: removes so many, in any thread; what else is to be done at each of them it does, too.
        :raises pop3toy.errors.StoreTrouble: whose ``removed`` tells how many are known to be removed.
        """
        removed: list[int] = []
        failed = threading.Event()

        def remove(part: Sequence[str]) -> None:
            if failed.is_set():
                return
            try:
                (request or self._delete)(part)
            except BaseException:
                failed.set()
                raise
            removed.append(len(part))

        parts = [keys[at : at + KEYS] for at in range(0, len(keys), KEYS)]
        at_once = min(self._at_once, len(parts))
        try:
            if at_once <= 1:
                [*map(remove, parts)]
            else:
                with ThreadPoolExecutor(at_once, "pop3toy-removal") as threads:
                    [*threads.map(remove, parts)]
        except StoreTrouble as error:
            error.removed = sum(removed)
            raise

    def _delete(self, keys: Sequence[str]) -> None:
        try:
            self.call("delete", keys)
        except NoSuchObject:
            # Some stores tell; of the others in the list it is not known then.
            for key in keys:
                self._delete_one(key)

    def _delete_one(self, key: str) -> None:
        try:
            self.call("delete", key)
        except NoSuchObject:
            pass


#: Where the library's long description of an error has its reason, if its first line has none.
_REASON = re.compile(
    r'\b(?:message|error): "([A-Za-z][A-Za-z ,:-]{1,80})"|\b(InvalidCertificate\(\s*\w+)|\b(TimedOut)\b'
)
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")


def _trouble(error: BaseException, kind: type[StoreTrouble]) -> StoreTrouble:
    line = first_line(error)
    if "QuotaExceeded" in line:
        # With the status of credentials that do not suffice (Ceph, for quotas of its users and buckets).
        return StoreFull(detail="object storage: it is full, by a quota of its own (QuotaExceeded)")
    return kind(detail=f"object storage: {line}")


def first_line(error: BaseException) -> str:
    """What an error of the library says, in one line without addresses.

    Of an answer the status and S3's code for the error are kept, and nothing else: in its text some servers
    repeat the access key, and what was signed.
    """
    first, _, rest = str(error).strip().partition("\n")
    line = re.sub(r"\b[a-z]+://\S*", "", first)
    line = re.sub(r"(status code: \d+[^:<]*).*", r"\1", line)
    line = re.sub(r", max_retries: .*? -", " -", line)
    said = _CODE.search(f"{first}{rest.partition('Debug source:')[0]}")
    why = said or ("HTTP error" in line and _REASON.search(rest))
    # Which request it was, and how often it was tried, helps nobody.
    line, unreached = re.subn(r".* - HTTP error: error sending request\.?", "it cannot be reached", line)
    reason = ""
    if why:
        reason = " ({})".format(re.sub(r"\(\s*", ": ", why[why.lastindex or 0]))
    elif unreached:
        reason = " (is the endpoint right, and is it http or https?)"
    return " ".join(line.split())[: 200 - len(reason)] + reason or type(error).__name__


class Engines(Protocol):
    """What :class:`~pop3toy.stores.objects.connecting.Engines` is for maildrops."""

    def of(self, bucket: str) -> Engine:
        """The engine of a bucket."""

    def wall(self) -> float:
        """The time of day by the storage's clock, in seconds since the epoch."""

    def learn_time(self) -> None:
        """Compare our clock with the storage's, if that was long ago; blocks."""
