"""Delivery into object storage: one request makes a message visible as a whole, or not at all.

The name of a message is chosen before the first try and is nobody else's, so that what is there already under
that name is the same message, by a try whose answer was lost.  Behind it the user's record is read once more:
whoever removes a maildrop changes the record first and the messages then, so nothing is left in one that is
removed.  After a crash between the two a message may be there whose sender was told nothing, and sends it
again.

What must not live here: whose a maildrop is (``users``), what it holds (``sums``), and anything of SMTP.
"""

from __future__ import annotations

import errno
import mmap
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, NamedTuple

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ....clock import steady
from ....errors import NoSuchMailbox, OverQuota, StoreFull, StoreTrouble
from ....interfaces import IDelivery, Incoming, MaybeDeferred
from ....mail.octets import Encoder
from ....net.threads import RunInThread
from ...fullness import is_nearly_full, is_time
from ..engine import Engines, NoSuchObject, Taken
from ..records import UserRecord, message_key, new_name, told_key
from ..users import Users
from .sums import Sum, Sums

__all__ = ["IN_MEMORY", "ObjectDelivery"]

log = Logger()

#: Octets of one message that are kept in memory; what is larger goes to a temporary file.  And of all
#: messages on their way: beyond that files are used for all that is larger than a piece.
IN_MEMORY: Final = 1024 * 1024
ALL_IN_MEMORY: Final = 64 * 1024 * 1024
#: Octets that are written to such a file at once.
PIECE: Final = 256 * 1024

#: Files that are sent to the storage at once by the whole process, and users of one message at once.
FILES: Final = 8
_USERS: Final = 8

#: Seconds between two looks whether a user was told that the maildrop is nearly full.
LOOK_AGAIN: Final = 3600.0

#: How often a delivery follows a user to another maildrop, and how often a removal is tried.
_TRIES: Final = 3


class _Place(NamedTuple):
    """A user who gets a message."""

    record: UserRecord
    #: Octets that the maildrop may hold, or ``None``.
    quota: int | None


class _Put(NamedTuple):
    """A message that is there."""

    record: UserRecord
    name: str

    @property
    def key(self) -> str:
        """Where."""
        return message_key(self.record.drop, self.name)


@implementer(IDelivery)
class ObjectDelivery:
    """Delivers into the maildrops of users.

    :param engines: where these are.
    :param users: tells which is whose.
    :param clock: for what is kept some seconds.
    :param run_for: where the work for a user is done that may wait for the storage.
    :param quota: how many octets a user's maildrop may hold, or ``None``.
    :param nearly_full: is told, in a thread, who has to know that the maildrop is nearly full, with its
        octets and the quota.
    :param host: this host's name, which goes into the names of messages, as a hash.
    """

    def __init__(
        self,
        engines: Engines,
        users: Users,
        clock: IReactorTime,
        *,
        run_for: Callable[[str], RunInThread],
        quota: Callable[[str], MaybeDeferred[int | None]] = lambda user: None,
        nearly_full: Callable[[str, int, int], object] | None = None,
        host: str | None = None,
    ) -> None:
        self.run_for = run_for
        #: Octets of all messages on their way that are in memory.
        self.in_memory = 0
        self.files = DeferredSemaphore(FILES)
        self._engines = engines
        self._users = users
        self._quota = quota
        self._nearly_full = nearly_full
        self._host = socket.gethostname() if host is None else host
        self._sums = Sums(engines, steady(clock).seconds)
        self._lock = threading.Lock()
        self._last = 0

    def check(self, user: str, octets: int = 0) -> Deferred[None]:
        """See :class:`~pop3toy.interfaces.IDelivery`; one request, and a listing for a quota now and then."""
        return Deferred.fromCoroutine(self._check(user, octets))

    async def _check(self, user: str, octets: int) -> None:
        await self.run_for(user)(self._look, user, octets, await self._quota_of(user))

    async def _quota_of(self, user: str) -> int | None:
        quota = self._quota(user)
        return await quota if isinstance(quota, Deferred) else quota

    def begin(self, users: Sequence[str], octets: int = 0) -> Deferred[Incoming]:
        """See :class:`~pop3toy.interfaces.IDelivery`; no request for users who were just checked.

        :param octets: do not matter here.
        """
        return Deferred.fromCoroutine(self._begin(users))

    async def _begin(self, users: Sequence[str]) -> Incoming:
        places: list[_Place | StoreTrouble] = []
        for user in users:
            try:
                quota = await self._quota_of(user)
                record = self._users.recall(user)
                if record is None or not record.drop:
                    record = await self.run_for(user)(self._find, user)
                places.append(_Place(record, quota))
            except StoreTrouble as error:
                places.append(error)
        refused = [place for place in places if isinstance(place, StoreTrouble)]
        if len(refused) == len(places):
            raise refused[0]
        return _Message(self, places)

    def notice(self, user: str) -> Deferred[Incoming]:
        """As :meth:`begin`, for one user and a message of the server's own, which no quota keeps out."""
        return Deferred.fromCoroutine(self._notice(user))

    async def _notice(self, user: str) -> Incoming:
        return _Message(self, [_Place(await self.run_for(user)(self._find, user), None)])

    # -- what follows runs in a thread ---------------------------------------------

    def _find(self, user: str) -> UserRecord:
        return self._users.find(user, fresh=True)

    def _look(self, user: str, octets: int, quota: int | None) -> None:
        record = self._find(user)
        if quota is not None:
            self._sums.fit(record, octets, quota)
        # For ``begin``, which comes soon.
        self._users.remember(record)

    def _new_name(self, *chance: str) -> str:
        """A name behind all others of this process."""
        with self._lock:
            self._last = max(int(self._engines.wall() * 1e6), self._last + 1)
            return new_name(self._last, self._host, *chance)

    def put(self, place: _Place, body: Any, chance: str) -> _Put:
        """Put a message into a user's maildrop.

        :param body: bytes, or what has their buffer: all of the message.
        :param chance: what no other message has.
        :raises pop3toy.errors.StoreTrouble: if the user cannot have it; then it is not there, as far as the
            storage can be reached.
        """
        record = place.record
        # Seldom: for the names of messages of several servers to sort by arrival.
        self._engines.learn_time()
        for _ in range(_TRIES):
            known = None
            if place.quota is not None:
                known = self._sums.fit(record, len(body), place.quota, coming=True)
            there = False
            try:
                put = _Put(record, self._new_name(chance, record.login))
                now = self._put_and_look(put, body)
                there = now.drop == record.drop
            finally:
                if known is not None:
                    known.arrived(len(body), there=there)
            if there:
                if known is not None and place.quota is not None and self._nearly_full is not None:
                    self._consider_telling(record, known, place.quota)
                return put
            # Another one was made in its place.
            record = now
        raise StoreTrouble(detail=f"the mailbox of {record.login!r} is removed and made all the time")

    def _consider_telling(self, record: UserRecord, known: Sum, quota: int) -> None:
        """Have the user told that the maildrop is nearly full, unless some server has done it this week."""
        now = self._engines.wall()
        with known.lock:
            octets = known.used
            if not is_nearly_full(octets, quota) or now < known.look_again:
                return
            known.look_again = now + LOOK_AGAIN
        engine, key = self._engines.of(record.bucket), told_key(record.drop)
        try:
            try:
                found = engine.get(key)
            except NoSuchObject:
                engine.create(key, b"%d" % now)
            else:
                if not is_time(found.body, now):
                    return
                engine.swap(key, b"%d" % now, found.tag)
        except (Taken, StoreTrouble):
            # Another server tells, or it is told another time; the message itself is there.
            return
        if self._nearly_full is not None:
            self._nearly_full(record.login, octets, quota)

    def _put_and_look(self, put: _Put, body: Any) -> UserRecord:
        """The user's record as it is when the message is there; if that is another one, it is gone again."""
        try:
            try:
                self._engines.of(put.record.bucket).create(put.key, body)
            except Taken:
                # By this very call.
                pass
            now = self._look_again(put.record.login)
        except BaseException:
            # It may have come all the same.
            self.take_back(put)
            raise
        if now is None or now.drop != put.record.drop:
            self.take_back(put)
        if now is None or not now.drop:
            raise NoSuchMailbox(detail=f"the mailbox of {put.record.login!r} was removed meanwhile")
        return now

    def _look_again(self, user: str) -> UserRecord | None:
        try:
            found = self._users.get(user)
        except StoreTrouble:
            # The message is there: once more, because it would have to come once more.
            found = self._users.get(user)
        return found[0] if found is not None else None

    def take_back(self, put: _Put) -> None:
        """Remove a message that nobody was told of.  Never fails, but tells in the log."""
        for _ in range(_TRIES):
            try:
                self._engines.of(put.record.bucket).delete([put.key])
                return
            except StoreTrouble as error:
                trouble = error
        left(put, trouble)


def left(put: _Put, trouble: StoreTrouble) -> None:
    """A message could not be taken back."""
    log.error(
        "{key} may be there, though its sender was told that it is not: {why}",
        key=put.key,
        why=trouble.detail or trouble.text,
    )


class _Message:
    """One message on its way, an :class:`~pop3toy.interfaces.Incoming`: in memory, or in a file with no name.

    Its octets are gathered as they will be kept: as they are on the wire.

    :param places: for each user the maildrop, or why the user cannot have the message; at least one maildrop.
    """

    def __init__(self, delivery: ObjectDelivery, places: Sequence[_Place | StoreTrouble]) -> None:
        self._delivery = delivery
        self._places = places
        there = [place for place in places if isinstance(place, _Place)]
        self._run = delivery.run_for(there[0].record.login)
        quotas = [place.quota for place in there if place.quota is not None]
        #: What is larger than this fits nowhere.
        self._most = max(quotas) if len(quotas) == len(there) else None
        self._encoder = Encoder(stuffed=False)
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._file: IO[bytes] | None = None
        self._spilling = self._over = False
        # Why octets are missing, or nobody can have them.
        self._failed: BaseException | None = None

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.Incoming`.

        :raises pop3toy.errors.OverQuota: when it is more than any of the maildrops may hold.
        """
        assert not self._over, "written to after its end"
        if self._failed is not None:
            raise self._failed
        self._gather(self._encoder.feed(chunk))
        if self._most is not None and self._encoder.octets > self._most:
            self._failed = OverQuota(detail="the message is larger than its mailboxes", holds=self._most)
            raise self._failed
        crowded = self._delivery.in_memory > ALL_IN_MEMORY
        if self._gathered <= (PIECE if crowded or self._file is not None else IN_MEMORY):
            return None
        return Deferred.fromCoroutine(self._spill())

    def _gather(self, data: bytes) -> None:
        self._pieces.append(data)
        self._count(len(data))

    def _count(self, octets: int) -> None:
        self._gathered += octets
        self._delivery.in_memory += octets

    def _taken(self) -> Sequence[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces

    async def _spill(self) -> None:
        octets, self._spilling = self._gathered, True
        try:
            self._file = await self._run(_append, self._file, self._taken())
        except BaseException as error:
            # Some of it may be in the file and some not.
            self._failed = error
            raise
        finally:
            self._spilling = False
            self._count(-octets)
            if self._over:
                # Given up meanwhile.
                self._close()

    def commit(self, *, together: bool = True) -> Deferred[Sequence[bytes | StoreTrouble]]:
        """See :class:`~pop3toy.interfaces.Incoming`."""
        return Deferred.fromCoroutine(self._commit(together))

    async def _commit(self, together: bool) -> Sequence[bytes | StoreTrouble]:
        assert not self._over, "ended twice"
        self._over = True
        try:
            if self._failed is not None:
                raise self._failed
            refused = [place for place in self._places if isinstance(place, StoreTrouble)]
            if together and refused:
                raise refused[0]
            self._gather(self._encoder.finish())
            if self._file is None:
                return await self._put(b"".join(self._taken()), together)
            await self._delivery.files.acquire()
            try:
                return await self._put(await self._run(_mapped, self._file, self._taken()), together)
            finally:
                self._delivery.files.release()
        finally:
            self._close()

    async def _put(self, body: Any, together: bool) -> Sequence[bytes | StoreTrouble]:
        chance = secrets.token_hex(16)
        failed: list[Exception] = []

        async def put(place: _Place | StoreTrouble) -> _Put | StoreTrouble:
            if isinstance(place, StoreTrouble):
                return place
            if together and failed:
                return StoreTrouble(detail="others could not have it")
            try:
                run = self._delivery.run_for(place.record.login)
                return await run(self._delivery.put, place, body, chance)
            except Exception as error:
                failed.append(error)
                return error if isinstance(error, StoreTrouble) else StoreTrouble()

        def begun(place: _Place | StoreTrouble) -> Deferred[_Put | StoreTrouble]:
            return Deferred.fromCoroutine(put(place))

        turns = DeferredSemaphore(_USERS)
        results = await gatherResults([turns.run(begun, place) for place in self._places], consumeErrors=True)
        there = [result for result in results if isinstance(result, _Put)]
        bugs = [error for error in failed if not isinstance(error, StoreTrouble)]
        if bugs or not there or (together and failed):
            await self._take_back(there)
            raise (bugs or failed)[0]
        return [result.name.encode("ascii") if isinstance(result, _Put) else result for result in results]

    async def _take_back(self, there: Sequence[_Put]) -> None:
        for put in there:
            try:
                await self._delivery.run_for(put.record.login)(self._delivery.take_back, put)
            except StoreTrouble as error:
                left(put, error)

    def abort(self) -> None:
        """See :class:`~pop3toy.interfaces.Incoming`: leave nothing behind."""
        if not self._over:
            self._over = True
            if not self._spilling:
                self._close()

    def _close(self) -> None:
        self._pieces.clear()
        self._count(-self._gathered)
        if self._file is not None:
            self._file.close()
            self._file = None


# -- what follows runs in a thread -------------------------------------------------


def _append(file: IO[bytes] | None, pieces: Sequence[bytes]) -> IO[bytes]:
    """Add octets to a file that has no name, and that is made first if there is none.

    :raises pop3toy.errors.StoreTrouble: if that cannot be; then it is closed.
    """
    try:
        if file is None:
            file = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            file.writelines(pieces)
            file.flush()
        except BaseException:
            _drop(file)
            raise
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreTrouble
        raise kind(detail=f"a temporary file: {error.strerror}") from error
    return file


def _drop(file: IO[bytes]) -> None:
    try:
        file.close()
    except OSError:
        # It tries to write once more.
        pass


def _mapped(file: IO[bytes], pieces: Sequence[bytes]) -> mmap.mmap:
    """All of a file, which the kernel reads as it is sent; it stays as long as somebody has it."""
    return mmap.mmap(_append(file, pieces).fileno(), 0, access=mmap.ACCESS_READ)
