"""Maildirs: mail in files, one for each message, as most mail systems keep it.

The lock is the kernel's (``flock`` on the Maildir's directory): exclusive among
sessions and among processes of the host, left nowhere as a file, and gone with
the process that held it.  The snapshot of a mailbox is kept between sessions and
used again while both folders carry the same stamp.  Listing files is in
``folders``, what their names mean in ``names``, counting octets in ``scan``,
remembering them in ``sizes``, reading bodies in ``body``, user names in ``paths``.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import InUse, MessageGone, Refusal, StoreTrouble
from ...interfaces import ICancellableStore, IMailbox, IViewableStore, MaybeDeferred, MessageBody
from ...net.threads import RunInThread
from . import sizes
from .body import OPEN_FLAGS, FileBody
from .count import MAX_LISTED_SIZE
from .directory_syncs import fsync_names
from .folders import Stamp, locate_all, look, open_folder
from .names import base_name
from .paths import MaildirPaths, explained
from .scan import Snapshot, Uncounted, scan
from .settings import Maildirs
from .sizes import Counted

__all__ = ["MaildirStore"]

log = Logger()

_T = TypeVar("_T")

#: Seconds within which two changes of a directory may leave the same time on
#: it.  Linux file systems are exact to a tick of some milliseconds, but FAT and
#: some network file systems count in twos.
TICK = 2.0

#: Octets of the two directories below which reading them on the reactor thread
#: costs less than going to another: some hundred names.
SMALL = 64 * 1024

#: Messages of which snapshots are kept between sessions, at about 300 octets each.
KEPT_MESSAGES = 500_000

#: Times that messages which other programs rename all the while are looked for,
#: before their removal is given up.
SEARCHES = 5


@implementer(ICancellableStore, IViewableStore)
class MaildirStore:
    """The Maildirs of all users, an :class:`~pop3toy.interfaces.IMailStore`.

    :param paths: where they are: ``Maildirs("/srv/mail/{user}")``, whose ``max_listed_size`` holds then.
    :param run_in_thread: where cold messages are read and files removed: ``run_in_thread(function,
        *args)`` gives a Deferred, as :func:`twisted.internet.threads.deferToThread` does.
    :param scan_in_thread: where large directories are read and messages counted, which can take
        minutes at the first visit; nobody's QUIT should have to wait behind it.
    :param wall_clock: seconds since the epoch, to be compared with file times.
    :param kept_messages: of how many messages snapshots are kept between sessions; a larger
        mailbox is kept alone, until another is opened.
    :param max_listed_size: octets of a message's file beyond which it is not counted, but listed
        by its size.
    :param is_over: whether the server is stopping, and all scans with it; asked from their threads.
    """

    def __init__(
        self,
        paths: MaildirPaths | Maildirs,
        run_in_thread: RunInThread,
        *,
        scan_in_thread: RunInThread | None = None,
        wall_clock: Callable[[], float] = time.time,
        kept_messages: int = KEPT_MESSAGES,
        max_listed_size: int = MAX_LISTED_SIZE,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        if isinstance(paths, Maildirs):
            max_listed_size = paths.max_listed_size
            paths = MaildirPaths(paths.path, create=paths.create)
        self._paths = paths
        self._run_in_thread = run_in_thread
        self._scan_in_thread = run_in_thread if scan_in_thread is None else scan_in_thread
        self._wall_clock = wall_clock
        self._room = kept_messages
        self._max_listed_size = max_listed_size
        self._is_over = is_over
        # Whose Maildir is being scanned in a thread, and whether with its lock.
        self._scanned: set[tuple[str, bool]] = set()
        self._kept: OrderedDict[str, Snapshot] = OrderedDict()

    def open(self, user: str) -> MaybeDeferred[IMailbox]:
        """See :class:`~pop3toy.interfaces.IMailStore`; a Deferred of it may be cancelled.

        :param user: whose Maildir.
        :return: the mailbox, or a Deferred of it where counting takes a thread.
        :raises pop3toy.errors.InUse: (or fails with) if another session or process has it locked.
        :raises pop3toy.errors.NoSuchMailbox: (or fails with) if there is none and it may not be made.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot be read.
        """
        return self._open(user, lock=True)

    def view(self, user: str) -> MaybeDeferred[IMailbox]:
        """See :class:`IViewableStore`."""
        return self._open(user, lock=False)

    def _open(self, user: str, *, lock: bool) -> MaybeDeferred[IMailbox]:
        fd = self._paths.open(user)
        try:
            if lock:
                _lock(fd)
            snapshot = self._kept.get(user)
            stamp = look(fd)
            if snapshot is not None and snapshot.trusted and snapshot.stamp == stamp:
                return self._mailbox(user, fd, snapshot)
            if stamp.weight + sizes.size(fd) <= SMALL:
                try:
                    return self._mailbox(user, fd, self._scan(user, fd, snapshot, may_wait=False))
                except Uncounted:
                    pass
            if (user, lock) in self._scanned:
                if not lock:
                    raise StoreTrouble("the messages are being counted, try later")
                # Of another folder that had this name: whoever moves them about waits for the first.
                raise InUse
            return self._scan_later(user, fd, snapshot, lock=lock)
        except BaseException as error:
            os.close(fd)
            self._paths.say_where(user, error)
            raise

    def _scan_later(self, user: str, fd: int, before: Snapshot | None, *, lock: bool) -> Deferred[IMailbox]:
        """Scan in a thread, as long as the result is wanted and the server is there."""
        given_up = threading.Event()

        def give_up(opening: Deferred[IMailbox]) -> None:
            given_up.set()
            opening.errback(Refusal("the client has gone"))

        def wanted() -> bool:
            return not (given_up.is_set() or self._is_over())

        def scanned(snapshot: Snapshot) -> None:
            if given_up.is_set():
                self._keep(user, snapshot)
                os.close(fd)
            else:
                opening.callback(self._mailbox(user, fd, snapshot))

        def failed(why: Failure) -> None:
            os.close(fd)
            if not given_up.is_set():
                assert why.value is not None
                self._paths.say_where(user, why.value)
                opening.errback(why)
            elif why.check(StoreTrouble) is None:
                log.failure("scanning a Maildir of {user!r}, which nobody waits for", why, user=user)

        opening: Deferred[IMailbox] = Deferred(give_up)
        scanning = self._scan_in_thread(self._scan, user, fd, before, True, wanted)
        self._scanned.add((user, lock))

        def over(result: Snapshot | Failure) -> Snapshot | Failure:
            self._scanned.discard((user, lock))
            return result

        scanning.addBoth(over).addCallbacks(scanned, failed)
        return opening

    def _scan(
        self,
        user: str,
        fd: int,
        before: Snapshot | None,
        may_wait: bool,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Snapshot:
        """Read the Maildir, and remember what had to be counted.  Runs in a thread if it may wait.

        :raises Uncounted: if it has to read messages or to write, and may not wait.
        """
        remembered: dict[bytes, Counted] = {}

        def recall(messages: int) -> dict[bytes, Counted]:
            remembered.update(sizes.load(fd, messages))
            return {**remembered, **before.measured} if before is not None else dict(remembered)

        snapshot = scan(
            fd,
            recall,
            now=self._wall_clock(),
            tick=TICK,
            may_read=may_wait,
            max_listed_size=self._max_listed_size,
            wanted=wanted,
            where=f"Maildir {self._paths.path(user)!r}",
        )
        if not snapshot.measured.items() <= remembered.items():
            if not may_wait:
                raise Uncounted
            sizes.save(fd, snapshot.measured)
        return snapshot

    def _mailbox(self, user: str, fd: int, snapshot: Snapshot) -> IMailbox:
        self._keep(user, snapshot)
        mailbox: IMailbox = _Maildir(user, fd, snapshot, self._run_in_thread)
        return mailbox

    def _keep(self, user: str, snapshot: Snapshot) -> None:
        before = self._kept.get(user)
        if before is snapshot:
            self._kept.move_to_end(user)
            return
        self._kept.pop(user, None)
        self._room += _weight(before) if before is not None else 0
        self._kept[user] = snapshot
        self._room -= _weight(snapshot)
        while self._room < 0 and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._room += _weight(oldest)


def _weight(snapshot: Snapshot) -> int:
    """An empty one costs as much as a message or two, and there may be many."""
    return len(snapshot.listing) + 2


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse from None
    except OSError as error:
        raise StoreTrouble(detail=f"locking a Maildir: {explained(error)}") from error


@implementer(IMailbox)
class _Maildir:
    """One Maildir, open and locked for one session.

    :param fd: the open directory, on which the lock is; now ours to close.
    """

    read_only = False

    def __init__(self, user: str, fd: int, snapshot: Snapshot, run_in_thread: RunInThread) -> None:
        self.entries = snapshot.listing
        self._user = user
        self._fd = fd
        self._snapshot = snapshot
        self._run_in_thread = run_in_thread
        # Folders are opened when the first message is read, once a session: a
        # folder that is replaced by a link meanwhile leads nowhere.
        self._folders: dict[str, int] = {}
        # Where messages are, by base name, as far as it is known to be elsewhere than in the snapshot.
        self._moved: dict[str, str] | None = None
        self._moved_stamp: Stamp | None = None
        self._corrected = False
        # What still runs in a thread and needs the descriptors.
        self._busy = 0
        self._released = False
        # Fires when the lock is free, if somebody waits for that.
        self._unlocked: Deferred[None] | None = None

    # -- reading -----------------------------------------------------------------

    def read(self, uid: bytes) -> MaybeDeferred[MessageBody]:
        at = self._snapshot.position(uid)
        path = self._path(at)
        try:
            return self._body(at, path)
        except FileNotFoundError:
            # Renamed by another program (flags), or gone.
            looking = self._in_thread(self._look_again, path)
            return looking.addCallback(lambda found: self._body_if_found(at, found))

    def _body_if_found(self, at: int, path: str | None) -> MessageBody:
        # After the release the descriptors may be somebody else's.
        if path is not None and not self._released:
            try:
                return self._body(at, path)
            except FileNotFoundError:
                pass
        raise MessageGone

    def _path(self, at: int) -> str:
        """Where a message is, as far as is known."""
        path = self._snapshot.paths[at]
        if self._moved is not None:
            base = base_name(path)
            if base not in self._snapshot.twins:
                return self._moved.get(base, path)
        return path

    def _body(self, at: int, path: str) -> MessageBody:
        folder, _, name = path.partition("/")
        try:
            fd = os.open(name, OPEN_FLAGS, dir_fd=self._folder(folder))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreTrouble(
                "message cannot be read at the moment", detail=f"message {path!r}: {explained(error)}"
            ) from error
        return FileBody(fd, self._run_in_thread, self._snapshot.listing.each[at], partial(self._measured, at))

    def _folder(self, name: str) -> int:
        fd = self._folders.get(name)
        if fd is None:
            fd = self._folders[name] = open_folder(self._fd, name)
        return fd

    def _look_again(self, path: str) -> str | None:
        """Where a message is now that is not where it was.  Runs in a thread."""
        base = base_name(path)
        if base in self._snapshot.twins:
            return None
        stamp = look(self._fd)
        if self._moved is None or stamp != self._moved_stamp:
            self._moved, self._moved_stamp = locate_all(self._fd), stamp
        return self._moved.get(base)

    def _measured(self, at: int, octets: int, status: os.stat_result) -> None:
        """What went out was counted; if it was announced wrongly, know better next time."""
        snapshot = self._snapshot
        uid, announced = snapshot.listing.uids[at], snapshot.listing.each[at]
        counted = Counted.of(octets, status)
        if snapshot.measured.get(uid) == counted:
            return
        log.warn(
            "a message of {user!r} has {octets} octets where its name or the size cache says {announced};"
            " corrected for the next session",
            user=self._user,
            octets=octets,
            announced=announced,
        )
        if base_name(snapshot.paths[at]) in snapshot.twins:
            # Its unique-id can be the other's tomorrow.
            return
        snapshot.measured[uid] = counted
        snapshot.trusted = False
        self._corrected = True

    # -- removing ----------------------------------------------------------------

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        if not uids:
            return None
        return self._in_thread(self._remove, [self._path(self._snapshot.position(uid)) for uid in uids])

    def _remove(self, doomed: list[str]) -> None:
        """Unlink, then make it durable.  Runs in a thread."""
        failed: list[str] = []
        touched: set[str] = set()
        missing = self._unlink(doomed, touched, failed)
        linked = self._snapshot.linked
        if linked:
            # They have another name each, which is looked for like one that was renamed, until none is left.
            missing += [one for one in doomed if base_name(one) in linked and one not in missing]
        for _ in range(SEARCHES):
            if not missing:
                break
            try:
                found = [now for path in missing if (now := self._look_again(path)) is not None]
            except StoreTrouble as error:
                failed += [error.detail] * len(missing)
                break
            # The others are gone, which is all that was wanted.
            missing = self._unlink(found, touched, failed)
            missing += [one for one in found if base_name(one) in linked and one not in missing]
        else:
            failed += ["another program renames it all the while"] * len(missing)
        for folder in touched:
            try:
                fsync_names(self._folder(folder))
            except OSError as error:
                failed.append(f"fsync of {folder}/: {explained(error)}")
        if failed:
            trouble = StoreTrouble(
                detail=f"removing {len(doomed)} messages of {self._user!r}: {len(failed)} errors,"
                f" the first: {failed[0]}"
            )
            trouble.removed = max(len(doomed) - len(failed), 0)
            raise trouble

    def _unlink(self, doomed: list[str], touched: set[str], failed: list[str]) -> list[str]:
        """Unlink each; return those that are not where they were."""
        missing = []
        for path in doomed:
            folder, _, name = path.partition("/")
            try:
                os.unlink(name, dir_fd=self._folder(folder))
                touched.add(folder)
            except FileNotFoundError:
                missing.append(path)
            except OSError as error:
                failed.append(explained(error))
        return missing

    # -- the end -----------------------------------------------------------------

    def release(self) -> MaybeDeferred[None]:
        if self._released:
            return None
        self._released = True
        if self._busy:
            self._unlocked = Deferred()
            return self._unlocked
        self._let_go_if_idle()
        return None

    def _in_thread(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        self._busy += 1

        def idle(result: _T) -> _T:
            self._busy -= 1
            self._let_go_if_idle()
            return result

        return self._run_in_thread(function, *args).addBoth(idle)

    def _let_go_if_idle(self) -> None:
        """Unlock and close; not while a thread still works in the Maildir."""
        if not self._released or self._busy:
            return
        if self._corrected:
            self._corrected = False
            # The next session need not wait for this.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._in_thread(sizes.save, self._fd, dict(self._snapshot.measured)).addErrback(
                lambda why: log.failure("remembering the sizes of {user!r}", why, user=self._user)
            )
        else:
            for fd in (*self._folders.values(), self._fd):
                os.close(fd)
            self._folders.clear()
        unlocked, self._unlocked = self._unlocked, None
        if unlocked is not None:
            unlocked.callback(None)
