"""A message on its way into Maildirs: gathered, written to one ``tmp/``, made durable, published.

What lives here: the file, when the disk is touched and in which thread, the order of the
fsyncs, the names in ``new/``, and the line ends of a Maildir.  What must not: who gets the
message and why (``delivery.py``), and what a Maildir is (``destination.py``).

The owner of a Maildir can rename what is in it: all is done below descriptors, and what
has got its name is compared with what was written.  Root gives a message to the Maildir's
owner, as ``pop3toy deliver`` may be root; but nobody gets a file that is to be another's, too.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ....errors import OverQuota, StoreTrouble
from ....interfaces import MaybeDeferred
from ....mail.octets import OctetCounter
from ....net.threads import RunInThread
from ..beside.owner import give, is_for_another
from ..folders import open_folder
from ..names import unique_id
from .destination import DeliveryThreads, Destination, Published, remove, roll_back, trouble
from .directory_syncs import Directory, DirectorySyncs
from .keyed_locks import KeyedLocks
from .usage import Usage, must_tell

__all__ = ["SPILL", "DeliveryThreads", "Message", "line_feeds"]

#: Octets that gather in memory before they go to the file: a message of the
#: usual size costs one trip to a thread, a large one is bounded by this.
SPILL: Final = 256 * 1024

_CRLF_ALONE = re.compile(rb"(?<!\r)\r\n")

# Read as well: for a Maildir on another file system.
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# What links cannot do, or the file has lost its name: then it is copied.
_NO_LINK = frozenset(
    (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.ENOENT),
)

log = Logger()

_T = TypeVar("_T")


class Message:
    """One message for one or several users: an :class:`~pop3toy.interfaces.Incoming`.

    What is small stays in memory until the end; the disk is touched in threads only, one at a
    time.  There is one file, in the ``tmp/`` of the first Maildir that can be written to, and
    in the end a hard link of it for each user.

    :param places: for each user the Maildir, or why the user cannot have the message; at
        least one Maildir.
    :param new_name: gives a name that no message ever had.
    :param locks: held, by a Maildir's path, while its quota is used up; shared by all messages.
    :param now: the time of day, in seconds.
    """

    def __init__(
        self,
        places: Sequence[Destination | StoreTrouble],
        *,
        new_name: Callable[[], str],
        locks: KeyedLocks,
        now: Callable[[], float],
        directories: DirectorySyncs,
    ) -> None:
        self._places = list(places)
        self._new_name = new_name
        self._locks = locks
        self._now = now
        self._directories = directories
        there = [place for place in places if isinstance(place, Destination)]
        #: In whose tmp/ the file is, or will be if that can be.
        self._home = there[0]
        #: Those that have a quota; where all have one, what does not fit into the largest
        #: fits nowhere.
        self._quotas = [(place, place.quota) for place in there if place.quota is not None]
        self._limited = len(self._quotas) == len(there)
        self._largest = max([quota for _, quota in self._quotas], default=0)
        # What is left of the quota with the most left.  Before the disk is touched nobody looks.
        self._room = SPILL
        self._pending: list[bytes] = []
        self._pending_octets = 0
        self._held = b""
        self._size = 0
        self._wire = OctetCounter()
        self._working = False
        self._over = False
        self._given_up = False
        # Why octets are missing, or nobody can have them.
        self._failed: BaseException | None = None
        # The file, that tmp/, and what it is called there, while it is.
        self._file: int | None = None
        self._folder: int | None = None
        self._name = ""
        self._in_tmp = False

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.Incoming`.

        :raises pop3toy.errors.OverQuota: (or fails with) when it is more than any
            of the Maildirs may hold.
        """
        assert not self._over, "written to after its end"
        if self._failed is not None:
            raise self._failed
        chunk, self._held = line_feeds(self._held + chunk)
        self._add(chunk)
        beyond = self._limited and self._size > self._room
        if self._limited and self._size > self._largest:
            whose = ", ".join(repr(place.user) for place, _ in self._quotas)
            detail = f"the message is larger than all of {whose}"
            self._failed = OverQuota(detail=detail, holds=self._largest)
            raise self._failed
        if not beyond and self._pending_octets < SPILL:
            return None
        return Deferred.fromCoroutine(self._written(beyond))

    def _add(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_octets += len(data)
        self._size += len(data)
        self._wire.feed(data)

    def _gathered(self) -> Sequence[bytes]:
        pending, self._pending, self._pending_octets = self._pending, [], 0
        return pending

    async def _written(self, beyond: bool) -> None:
        try:
            if beyond:
                await self._look_for_room()
            if self._pending_octets >= SPILL:
                await self._in_thread(self._home.threads.write, self._append, self._gathered())
        except BaseException as error:
            # Some of it may be on the disk and some not.
            self._failed = error
            raise

    async def _look_for_room(self) -> None:
        """Nobody has looked yet, or there was too little; somebody may have removed mail since."""
        refused: OverQuota | None = None
        rooms = []
        for place, quota in self._quotas:
            try:
                async with self._locks.hold([place.path]):
                    used = await self._in_thread(place.threads.look, place.fit, self._size, quota, self._now)
                rooms.append(quota - used)
            except OverQuota as error:
                refused = error
        if rooms:
            self._room = max(rooms)
        elif refused is not None:
            raise OverQuota(detail=refused.detail, holds=self._largest)

    def commit(self, *, together: bool = True) -> Deferred[Sequence[bytes | StoreTrouble]]:
        """See :class:`~pop3toy.interfaces.Incoming`: write, fsync, publish, fsync the names."""
        return Deferred.fromCoroutine(self._commit(together))

    async def _commit(self, together: bool) -> Sequence[bytes | StoreTrouble]:
        assert not self._over, "ended twice"
        self._over = True
        if self._failed is not None:
            self._discard_later()
            raise self._failed
        self._add(self._held)
        self._wire.finish()
        ending = f",S={self._size},W={self._wire.octets}"
        write = self._home.threads.write
        try:
            if len(self._places) == 1 and not self._quotas:
                work = self._finish_and_publish
                results: list[Published | StoreTrouble] = [
                    await self._in_thread(write, work, self._gathered(), ending)
                ]
            else:
                # Its octets need not wait for others, only its names do.
                await self._in_thread(write, self._finish, self._gathered())
                results = await self._published(ending, together)
        except StoreTrouble:
            # The thread leaves nothing, but it may not have begun.
            self._discard_later()
            raise
        try:
            return await self._made_durable(results, together)
        finally:
            for result in results:
                if isinstance(result, Published):
                    os.close(result.folder.handle)

    async def _published(self, ending: str, together: bool) -> list[Published | StoreTrouble]:
        results: list[Published | StoreTrouble] = []
        try:
            if together and (refused := self._refused()):
                raise refused[0]
            for place in self._places:
                try:
                    results.append(
                        await self._put_in_turn(place, ending, last=len(results) == len(self._places) - 1)
                        if isinstance(place, Destination)
                        else place
                    )
                except StoreTrouble as error:
                    if together:
                        raise
                    results.append(error)
            return results
        except BaseException:
            there = [result for result in results if isinstance(result, Published)]
            try:
                await self._roll_back(there)
            finally:
                for published in there:
                    os.close(published.folder.handle)
            raise
        finally:
            self._discard_later()

    async def _put_in_turn(self, place: Destination, ending: str, *, last: bool) -> Published:
        """A call for each user, so that one whose disk hangs keeps neither threads nor locks of another."""
        async with self._locks.hold([place.path] if place.quota is not None else []):
            published: Published = await self._in_thread(place.threads.write, self._put, place, ending, last)
        return published

    async def _roll_back(self, there: Sequence[Published]) -> None:
        for published in there:
            await published.place.threads.finish(roll_back, [published])

    async def _made_durable(
        self, results: Sequence[Published | StoreTrouble], together: bool
    ) -> list[bytes | StoreTrouble]:
        # All at once: the fsyncs of several directories run in several threads.
        syncs = {
            result.name: self._directories.sync(result.folder, result.place.threads.finish)
            for result in results
            if isinstance(result, Published)
        }
        uids: list[bytes | StoreTrouble] = []
        for result in results:
            if isinstance(result, Published):
                try:
                    await syncs[result.name]
                    uids.append(unique_id(result.name))
                except (OSError, StoreTrouble) as error:
                    # Visible, but perhaps gone after a crash: nobody may be told that it is there.
                    uids.append(trouble(error) if isinstance(error, OSError) else error)
            else:
                uids.append(result)
        refused = [uid for uid in uids if isinstance(uid, StoreTrouble)]
        if refused:
            none = together or len(refused) == len(uids)
            await self._roll_back(
                [
                    result
                    for result, uid in zip(results, uids, strict=True)
                    if isinstance(result, Published) and (none or isinstance(uid, StoreTrouble))
                ]
            )
            if none:
                raise refused[0]
        return uids

    def abort(self) -> None:
        """See :class:`~pop3toy.interfaces.Incoming`: leave nothing behind."""
        if not self._over:
            self._over = self._given_up = True
            self._gathered()
            if not self._working:
                self._discard_later()

    def _discard_later(self) -> None:
        if self._folder is not None:
            self._home.threads.finish(self._discard).addErrback(
                lambda failure: log.failure("a file was left in tmp/", failure=failure)
            )

    async def _in_thread(self, run: RunInThread, work: Callable[..., _T], *args: object) -> _T:
        self._working = True
        try:
            return await run(work, *args)
        finally:
            self._working = False
            if self._given_up:
                # While the thread was writing.
                self._discard_later()

    # -- what follows runs in a thread, one call at a time ---------------------------------

    def _append(self, pieces: Sequence[bytes]) -> None:
        """Add octets; makes the file at the first call."""
        if self._file is None:
            self._create()
        assert self._file is not None
        try:
            for data in pieces:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._file, view) :]
        except OSError as error:
            raise trouble(error) from error

    def _create(self) -> None:
        """Make the file where it can be; who has no place for it is out."""
        for at, place in enumerate(self._places):
            if isinstance(place, StoreTrouble):
                continue
            try:
                with place.opened() as maildir:
                    self._folder = open_folder(maildir, "tmp")
                    self._name = self._new_name()
                    self._file = os.open(self._name, _NEW_FILE, 0o600, dir_fd=self._folder)
                    self._in_tmp = True
                    if len(self._places) == 1:
                        give(self._file, maildir)
                    self._home = place
                    return
            except StoreTrouble as error:
                self._discard()
                self._places[at] = error
        raise self._refused()[0]

    def _refused(self) -> list[StoreTrouble]:
        return [place for place in self._places if isinstance(place, StoreTrouble)]

    def _finish_and_publish(self, pieces: Sequence[bytes], ending: str) -> Published:
        """One trip to a thread where there is one user, and no lock has to be waited for."""
        self._finish(pieces)
        place = self._places[0]
        assert isinstance(place, Destination)
        try:
            return self._put(place, ending, True)
        finally:
            self._discard()

    def _finish(self, pieces: Sequence[bytes]) -> None:
        """Add the last octets and fsync; if that cannot be, nothing is left."""
        try:
            self._append(pieces)
            assert self._file is not None
            try:
                os.fsync(self._file)
            except OSError as error:
                raise trouble(error) from error
        except BaseException:
            self._discard()
            raise

    def _put(self, place: Destination, ending: str, last: bool) -> Published:
        # A name of its own for each: one unique-id in two Maildirs would be a trap for
        # whoever moves a message from one to the other.
        name = (self._name if place is self._places[0] else self._new_name()) + ending
        with place.opened() as maildir:
            folder = open_folder(maildir, "new")
            try:
                if place.quota is None:
                    self._link(name, folder, maildir, last=last)
                else:
                    with Usage(maildir, self._now) as usage:
                        octets = usage.fit(self._size, place.quota, place.user) + self._size
                        self._link(name, folder, maildir, last=last)
                        usage.add(self._size)
                        # In the same turn, so that of several processes one tells.
                        if place.nearly_full is not None and must_tell(
                            maildir, octets, place.quota, self._now()
                        ):
                            place.nearly_full(place.user, octets, place.quota)
                return Published(name, Directory.of(folder), place)
            except BaseException:
                os.close(folder)
                raise

    def _link(self, name: str, folder: int, maildir: int, *, last: bool) -> None:
        assert self._file is not None
        if is_for_another(self._file, maildir):
            self._copy(name, folder, maildir)
            return
        try:
            if last:
                os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=folder)
                self._in_tmp = False
            else:
                os.link(self._name, name, src_dir_fd=self._folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self._copy(name, folder, maildir)
        else:
            placed, written = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(self._file)
            if not os.path.samestat(placed, written):
                os.unlink(name, dir_fd=folder)
                raise StoreTrouble(detail="somebody has put another file in the place of a new message")

    def _copy(self, name: str, folder: int, maildir: int) -> None:
        """For another owner's Maildir, or another file system, or without hard links, or the file."""
        assert self._file is not None
        tmp = open_folder(maildir, "tmp")
        try:
            own = self._new_name()
            try:
                os.lseek(self._file, 0, os.SEEK_SET)
                with (
                    open(self._file, "rb", closefd=False) as source,
                    open(os.open(own, _NEW_FILE, 0o600, dir_fd=tmp), "wb") as copy,
                ):
                    give(copy.fileno(), maildir)
                    shutil.copyfileobj(source, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
                os.rename(own, name, src_dir_fd=tmp, dst_dir_fd=folder)
            except BaseException:
                remove(own, tmp)
                raise
        finally:
            os.close(tmp)

    def _discard(self) -> None:
        """Leave nothing in ``tmp/``."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
        folder, self._folder = self._folder, None
        if folder is not None:
            if self._in_tmp:
                self._in_tmp = False
                remove(self._name, folder)
            os.close(folder)


def line_feeds(data: bytes) -> tuple[bytes, bytes]:
    """LF for each CRLF, as Maildirs have it; and the CRs at the end, which wait for what follows.

    A CR before a CRLF is data.  The CRLF stays one there: CR LF alone would be
    read as a line end, and the CR would be lost.
    """
    held = b""
    if data.endswith(b"\r"):
        # Two of them, to see whether the last one follows another.
        end = len(data) - (2 if data.endswith(b"\r\r") else 1)
        data, held = data[:end], data[end:]
    if b"\r" not in data:
        return data, held
    if b"\r\r\n" in data:
        return _CRLF_ALONE.sub(b"\n", data), held
    return data.replace(b"\r\n", b"\n"), held
