"""Whose maildrop is where: the records of users.

Blocks.  A record is changed by compare-and-swap alone and never removed, because there is no removal on a
condition.  Leases are made here, and used elsewhere (``lease``).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from ...errors import NoSuchMailbox, StoreTrouble
from .engine import Engine, NoSuchObject, Tag, Taken
from .lease import create_lease
from .records import UserRecord, new_drop, user_key

__all__ = ["REMEMBERED", "Users"]

#: Seconds for which a record counts that somebody else has fetched, and how many are kept at the most.
REMEMBERED: Final = 5.0
_MOST: Final = 10_000

#: How often a change is tried.  Each failure means that somebody else has changed the record.
_TRIES: Final = 20

#: Records that are fetched at once when all are wanted, and that are asked for before the first is used.
_AT_ONCE: Final = 8
_SOME: Final = 200


class Engines(Protocol):
    """What :class:`~pop3toy.stores.objects.connecting.Engines` is for records."""

    @property
    def main(self) -> Engine:
        """Where they are."""

    @property
    def buckets(self) -> tuple[str, ...]:
        """Where new maildrops are; with none there, too."""

    def of(self, bucket: str) -> Engine:
        """The engine of a bucket."""


class Users:
    """The records of all users; every method blocks, and any thread may call it.

    All raise :class:`~pop3toy.errors.StoreTrouble` when the storage is in trouble, or a record unreadable.

    :param engines: where the records are, and where new maildrops can be.
    :param create: whether ``find`` makes the maildrop of a user who has none.
    :param clock: seconds that only grow, for ``remember``.
    """

    def __init__(
        self, engines: Engines, *, create: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engines = engines
        self._create = create
        self._clock = clock
        self._lock = threading.Lock()
        # In the order in which they came.
        self._remembered: dict[str, tuple[float, UserRecord]] = {}
        self._buckets: dict[str, str] = {}

    def get(self, login: str) -> tuple[UserRecord, Tag] | None:
        """What is kept of a user, in one request; it may be of one who has neither maildrop nor account.

        :param login: exactly as it is kept.
        """
        try:
            found = self._engines.main.get(user_key(login))
        except NoSuchObject:
            return None
        record = UserRecord.decoded(found.body, login)
        if record.drop:
            with self._lock:
                self._buckets.pop(login, None)
                self._buckets[login] = record.bucket
                if len(self._buckets) > _MOST:
                    del self._buckets[next(iter(self._buckets))]
        return record, found.tag

    def bucket(self, login: str) -> str | None:
        """In which bucket a user's maildrop was when it was last looked for, if known; does not block.

        Good for dividing threads among buckets, and for nothing else.
        """
        with self._lock:
            return self._buckets.get(login)

    def find(self, login: str, *, fresh: bool = False) -> UserRecord:
        """The record of a user who has a maildrop, in one request; or in none, if it was just remembered.

        :param login: exactly as it is kept.
        :param fresh: it is asked for in any case.
        :raises pop3toy.errors.NoSuchMailbox: if there is no maildrop, and none may be made.
        """
        record = None if fresh else self.recall(login)
        if record is None or not record.drop:
            found = self.get(login)
            record = found[0] if found is not None else None
        if record is not None and record.drop:
            return record
        if self._create:
            return self.make(login)
        raise NoSuchMailbox(detail=f"there is no mailbox of {login!r} in the object store")

    def remember(self, record: UserRecord) -> None:
        """Keep a record that was fetched a moment ago for the next ``find`` of this user; does not block.

        :param record: as it was read.
        """
        now = self._clock()
        with self._lock:
            self._remembered.pop(record.login, None)
            self._remembered[record.login] = now, record
            while self._remembered:
                oldest, (since, _) = next(iter(self._remembered.items()))
                if now - since <= REMEMBERED and len(self._remembered) <= _MOST:
                    break
                del self._remembered[oldest]

    def recall(self, login: str) -> UserRecord | None:
        """What was remembered within the last :data:`REMEMBERED` seconds, once; does not block."""
        with self._lock:
            since, record = self._remembered.pop(login, (0.0, None))
        return record if self._clock() - since <= REMEMBERED else None

    def make(self, login: str) -> UserRecord:
        """Make a user's maildrop, unless there is one; several may do that at once.

        Who loses that race, or is killed, leaves a lease behind which no record names.

        :param login: exactly as it is to be kept.
        :return: the record as it is now.
        """
        made: list[UserRecord] = []

        def with_maildrop(record: UserRecord) -> UserRecord:
            if record.drop:
                return record
            if not made:
                made.append(self._new_maildrop(login))
            return record._replace(drop=made[0].drop, bucket=made[0].bucket)

        return self.edit(login, with_maildrop)

    def _new_maildrop(self, login: str) -> UserRecord:
        drop = new_drop()
        buckets = self._engines.buckets
        bucket = buckets[int(drop, 16) % len(buckets)] if buckets else ""
        # Before the record, because nobody else makes one: a maildrop without a lease has been removed.
        create_lease(self._engines.of(bucket), drop)
        return UserRecord(login, drop, bucket)

    def edit(self, login: str, change: Callable[[UserRecord], UserRecord]) -> UserRecord:
        """Change a user's record, or make it.

        :param login: exactly as it is kept.
        :param change: gives the new record for the one that is there, or for one with a login only.  Called
            again when somebody else has changed it meanwhile.  What it raises goes through, and nothing is
            changed then.
        :return: the record as it is now.
        :raises pop3toy.errors.StoreTrouble: if it cannot be done, or nobody can say whether it was.
        """
        found = self.get(login)
        for _ in range(_TRIES):
            before = found[0] if found is not None else UserRecord(login)
            after = change(before)
            if after == before:
                return after
            trouble = None
            try:
                if found is None:
                    self._engines.main.create(user_key(login), after.encoded())
                else:
                    self._engines.main.swap(user_key(login), after.encoded(), found[1])
                return after
            except Taken:
                pass
            except StoreTrouble as error:
                # It may have been done all the same.
                trouble = error
            found = self.get(login)
            if found is not None and found[0] == after:
                return after
            if trouble is not None:
                raise trouble
        raise StoreTrouble(detail=f"the record of user {login!r} is changed all the time by others")

    def forget_maildrop(self, record: UserRecord) -> None:
        """Let a user have no maildrop any more, unless it is another one by now.

        :param record: with the maildrop that is being removed.
        """

        def without(now: UserRecord) -> UserRecord:
            return now._replace(drop="", bucket="") if now.drop == record.drop else now

        self.edit(record.login, without)

    def logins(self) -> Iterator[UserRecord]:
        """The records of all users, in no order, also of those without a maildrop.

        :raises pop3toy.errors.StoreTrouble: behind all others, if some record is no record.
        """
        trouble: list[StoreTrouble] = []

        def read(keys: Iterable[str]) -> Iterator[UserRecord]:
            for record in threads.map(self._read, keys):
                if isinstance(record, StoreTrouble):
                    trouble.append(record)
                elif record is not None:
                    yield record

        with ThreadPoolExecutor(_AT_ONCE, "records") as threads:
            some: list[str] = []
            for one in self._engines.main.each("a"):
                some.append(f"a/{one.name}")
                if len(some) == _SOME:
                    yield from read(some)
                    some.clear()
            yield from read(some)
        if trouble:
            raise trouble[0]

    def _read(self, key: str) -> UserRecord | StoreTrouble | None:
        try:
            body = self._engines.main.get(key).body
        except NoSuchObject:
            return None
        try:
            login = json.loads(body).get("login", "")
            if user_key(login) != key:
                return StoreTrouble(detail=f"the record {key} is that of {login!r}, and not in its place")
            return UserRecord.decoded(body, login)
        except (ValueError, AttributeError, RecursionError, StoreTrouble):
            return StoreTrouble(detail=f"the record {key} cannot be read")
