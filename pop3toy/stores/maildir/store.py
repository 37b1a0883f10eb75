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
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...clock import steady
from ...errors import InUse, MessageGone, Refusal, StoreTrouble
from ...interfaces import ICancellableStore, IMailbox, IViewableStore, MaybeDeferred, MessageBody
from ...net.threads import RunInThread
from . import sizes
from .body import OPEN_FLAGS, FileBody
from .count import MAX_LISTED_SIZE
from .directory_syncs import fsync_names
from .file_systems import cached_opener, is_local
from .folders import OPEN_FOLDER, Stamp, locate_all, look, open_folder
from .names import base_name
from .paths import MaildirPaths, explained
from .scan import Snapshot, Uncounted, list_at_once, scan
from .settings import Maildirs
from .sizes import Counted

__all__ = ["MaildirStore", "UserThreads"]

log = Logger()

_T = TypeVar("_T")

_open_folder_cached = cached_opener(OPEN_FOLDER)
_open_message_cached = cached_opener(OPEN_FLAGS)

#: Seconds within which two changes of a directory may leave the same time on
#: it.  Linux file systems are exact to a tick of some milliseconds, but FAT and
#: some network file systems count in twos.
TICK = 2.0

#: Octets of the two directories below which reading them on the reactor thread
#: costs less than going to another: some hundred names.
SMALL = 64 * 1024

#: Seconds after which the opening of a Maildir is given up; counting its messages may take longer.
OPENING = 10.0

#: Messages of which snapshots are kept between sessions, at about 300 octets each.
KEPT_MESSAGES = 500_000

#: Times that messages which other programs rename all the while are looked for,
#: before their removal is given up.
SEARCHES = 5


class UserThreads(NamedTuple):
    """Where one user's work is done that may wait for a disk."""

    #: What may be refused while the disk hangs.
    work: RunInThread
    #: Where large directories are read and messages counted.
    scan: RunInThread
    #: Where files are closed.  Waits as long as it takes.
    close: RunInThread


@implementer(ICancellableStore, IViewableStore)
class MaildirStore:
    """The Maildirs of all users, an :class:`~pop3toy.interfaces.IMailStore`.

    :param paths: where they are: ``Maildirs("/srv/mail/{user}")``, whose ``max_listed_size`` holds then.
    :param run_in_thread: where cold messages are read and files removed: ``run_in_thread(function,
        *args)`` gives a Deferred, as :func:`twisted.internet.threads.deferToThread` does.
    :param scan_in_thread: where large directories are read and messages counted, which can take
        minutes at the first visit; nobody's QUIT should have to wait behind it.
    :param threads_of: both, and a place for closing files, for one user each: so that a disk which hangs
        costs its own users alone.
    :param clock: with it the opening of a Maildir whose disk does not answer is given up
        (``IReactorTime``).
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
        threads_of: Callable[[str], UserThreads] | None = None,
        clock: IReactorTime | None = None,
        wall_clock: Callable[[], float] = time.time,
        kept_messages: int = KEPT_MESSAGES,
        max_listed_size: int = MAX_LISTED_SIZE,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        if isinstance(paths, Maildirs):
            max_listed_size = paths.max_listed_size
            paths = MaildirPaths(paths.path, create=paths.create)
        self.paths = paths
        same = UserThreads(run_in_thread, scan_in_thread or run_in_thread, run_in_thread)
        self.threads_of = threads_of or (lambda user: same)
        self.clock: IReactorTime | None = steady(clock) if clock is not None else None
        self._wall_clock = wall_clock
        self._room = kept_messages
        self._max_listed_size = max_listed_size
        self.is_over = is_over
        # Whose Maildir is being scanned in a thread, and whether with its lock.
        self.scanned: set[tuple[str, bool]] = set()
        self._kept: OrderedDict[str, Snapshot] = OrderedDict()

    def open(self, user: str, *, lock: bool = True) -> MaybeDeferred[IMailbox]:
        """See :class:`~pop3toy.interfaces.IMailStore`; a Deferred of it may be cancelled.

        :param user: whose Maildir.
        :param lock: take its lock; without it the mailbox may only be read.
        :return: the mailbox, or a Deferred of it where counting takes a thread.
        :raises pop3toy.errors.InUse: (or fails with) if another session or process has it locked.
        :raises pop3toy.errors.NoSuchMailbox: (or fails with) if there is none and it may not be made.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot be read.
        """
        fd = self.paths.open_cached(user)
        before = self._kept.get(user)
        if fd is not None:
            # It is on a local disk.  If it was looked at before, that is at hand still.
            try:
                if before is not None:
                    if lock:
                        _lock(fd)
                    if (snapshot := self._look_at_once(fd, before)) is not None:
                        return self.mailbox(user, fd, snapshot, local=True)
            except BaseException as error:
                os.close(fd)
                self.paths.say_where(user, error)
                raise
            os.close(fd)
        return _Opening(self, user, before, lock=lock).begin()

    def view(self, user: str) -> MaybeDeferred[IMailbox]:
        """See :class:`IViewableStore`."""
        return self.open(user, lock=False)

    def _look_at_once(self, fd: int, before: Snapshot) -> Snapshot | None:
        stamp = look(fd)
        if before.trusted and before.stamp == stamp:
            return before
        if before.measured or stamp.weight > SMALL or sizes.size(fd):
            return None
        return list_at_once(fd, _open_folder_cached, now=self._wall_clock(), tick=TICK)

    def look(self, user: str, fd: int, before: Snapshot | None, *, lock: bool) -> Snapshot | None:
        """Lock a Maildir, and take a snapshot if that is soon done; from any thread.

        :raises pop3toy.errors.InUse: if it is locked.
        :raises pop3toy.errors.StoreTrouble: if it cannot be read.
        """
        if lock:
            _lock(fd)
        stamp = look(fd)
        if before is not None and before.trusted and before.stamp == stamp:
            return before
        if stamp.weight + sizes.size(fd) <= SMALL:
            try:
                return self.scan(user, fd, before, may_wait=False)
            except Uncounted:
                pass
        return None

    def scan(
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
            where=f"Maildir {self.paths.path(user)!r}",
        )
        if not snapshot.measured.items() <= remembered.items():
            if not may_wait:
                raise Uncounted
            sizes.save(fd, snapshot.measured)
        return snapshot

    def mailbox(self, user: str, fd: int, snapshot: Snapshot, *, local: bool) -> IMailbox:
        """A session's mailbox of what was opened, and locked if need be."""
        self.keep(user, snapshot)
        mailbox: IMailbox = _Maildir(user, fd, snapshot, self.threads_of, local)
        return mailbox

    def keep(self, user: str, snapshot: Snapshot) -> None:
        """Remember a snapshot for the next session."""
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


class _Opening:
    """A Maildir that is being opened in threads, as long as the result is wanted and the server is there."""

    def __init__(self, store: MaildirStore, user: str, before: Snapshot | None, *, lock: bool) -> None:
        self._store = store
        self._user = user
        self._before = before
        self._lock = lock
        self._given_up = threading.Event()
        self._result: Deferred[IMailbox] = Deferred(lambda _: self._give_up(Refusal("the client has gone")))
        self._timer: IDelayedCall | None = None

    def begin(self) -> Deferred[IMailbox]:
        """Open it; counting its messages may come after."""
        opening = self._store.threads_of(self._user).work(self._open)
        if self._store.clock is not None and not opening.called:
            self._timer = self._store.clock.callLater(OPENING, self._too_late)
        opening.addBoth(self._answered).addCallbacks(self._opened, self._failed)
        return self._result

    def _open(self) -> tuple[int, bool, Snapshot | None]:
        """In a thread: the descriptor, whether it is of a local disk, and the snapshot if that is there."""
        paths = self._store.paths
        paths.look_at_root()
        fd = paths.open(self._user)
        try:
            if self._given_up.is_set():
                raise StoreTrouble
            return fd, is_local(fd), self._store.look(self._user, fd, self._before, lock=self._lock)
        except BaseException:
            os.close(fd)
            raise

    def _answered(self, result: _T) -> _T:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        return result

    def _opened(self, result: tuple[int, bool, Snapshot | None]) -> None:
        fd, local, snapshot = result
        if snapshot is not None:
            self._done(snapshot, fd, local)
        elif self._given_up.is_set():
            self._close(fd, local)
        else:
            try:
                self._scan(fd, local=local)
            except Refusal:
                self._close(fd, local)
                self._failed(Failure())

    def _scan(self, fd: int, *, local: bool) -> None:
        """Count the messages, which may take minutes.

        :raises pop3toy.errors.InUse: if that is being done already; the descriptor is the caller's still.
        :raises pop3toy.errors.StoreTrouble: the same for who needs no lock.
        """
        scanned, this = self._store.scanned, (self._user, self._lock)
        if this in scanned:
            if not self._lock:
                raise StoreTrouble("the messages are being counted, try later")
            # Of another folder that had this name: whoever moves them about waits for the first.
            raise InUse
        scan = self._store.threads_of(self._user).scan
        scanning = scan(self._store.scan, self._user, fd, self._before, True, self._wanted)
        scanned.add(this)

        def over(result: _T) -> _T:
            scanned.discard(this)
            return result

        def failed(why: Failure) -> None:
            self._close(fd, local)
            self._failed(why)

        scanning.addBoth(over).addCallbacks(self._done, failed, callbackArgs=(fd, local))

    def _wanted(self) -> bool:
        return not (self._given_up.is_set() or self._store.is_over())

    def _done(self, snapshot: Snapshot, fd: int, local: bool) -> None:
        if self._given_up.is_set():
            self._store.keep(self._user, snapshot)
            self._close(fd, local)
        else:
            self._result.callback(self._store.mailbox(self._user, fd, snapshot, local=local))

    def _failed(self, why: Failure) -> None:
        assert why.value is not None
        if not self._given_up.is_set():
            self._store.paths.say_where(self._user, why.value)
            self._result.errback(why)
        elif why.check(Refusal) is None:
            log.failure("opening a Maildir of {user!r}, which nobody waits for", why, user=self._user)

    def _too_late(self) -> None:
        trouble = StoreTrouble(detail=f"its disk has not answered for {OPENING:.0f} s")
        self._store.paths.say_where(self._user, trouble)
        self._give_up(trouble)

    def _give_up(self, why: Refusal) -> None:
        self._given_up.set()
        self._answered(None)
        self._result.errback(why)

    def _close(self, fd: int, local: bool) -> None:
        if local:
            os.close(fd)
        else:
            _close_in_thread([fd], self._store.threads_of(self._user).close)


def _weight(snapshot: Snapshot) -> int:
    """An empty one costs as much as a message or two, and there may be many."""
    return len(snapshot.listing) + 2


def _close_in_thread(fds: Sequence[int], in_thread: RunInThread) -> Deferred[None]:
    """Close descriptors, and give up the lock with them, where that may wait: not so with a local disk."""

    def not_begun(why: Failure) -> None:
        # The server is stopping.
        why.trap(StoreTrouble)
        _close_all(fds)

    return in_thread(_close_all, fds).addErrback(not_begun)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


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
    :param local: whether it is on a local disk: only then anything is done on the reactor's thread, and
        only what the kernel has at hand.
    """

    read_only = False

    def __init__(
        self, user: str, fd: int, snapshot: Snapshot, threads_of: Callable[[str], UserThreads], local: bool
    ) -> None:
        self.entries = snapshot.listing
        self._user = user
        self._fd = fd
        self._snapshot = snapshot
        self._threads_of = threads_of
        self._local = local
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
        self._when_unlocked: Deferred[None] | None = None
        self._is_unlocked = False

    # -- reading -----------------------------------------------------------------

    def read(self, uid: bytes) -> MaybeDeferred[MessageBody]:
        at = self._snapshot.position(uid)
        path = self._path(at)
        if self._local:
            part, _, name = path.partition("/")
            folder = self._folders.get(part)
            if folder is None and (folder := _open_folder_cached(self._fd, part)) is not None:
                self._folders[part] = folder
            if folder is not None and (fd := _open_message_cached(folder, name)) is not None:
                return self._body(at, fd)
        return self._in_thread(self._open, at, path).addCallback(self._if_wanted)

    def _open(self, at: int, path: str) -> FileBody:
        """In a thread: find a message, though another program may have renamed it (flags).

        :raises pop3toy.errors.MessageGone: if it is gone.
        """
        now: str | None = path
        for _ in range(2):
            if now is not None:
                part, _, name = now.partition("/")
                try:
                    return self._body(at, os.open(name, OPEN_FLAGS, dir_fd=self._folder(part)))
                except FileNotFoundError:
                    now = self._look_again(path)
                except OSError as error:
                    raise StoreTrouble(
                        "message cannot be read at the moment", detail=f"message {now!r}: {explained(error)}"
                    ) from error
        raise MessageGone

    def _body(self, at: int, fd: int) -> FileBody:
        announced, measured = self._snapshot.listing.each[at], partial(self._measured, at)
        close = os.close if self._local else self._close_in_thread
        return FileBody(fd, self._run_in_thread, announced, measured, close)

    def _run_in_thread(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        return self._threads_of(self._user).work(function, *args)

    def _close_in_thread(self, fd: int) -> None:
        _close_in_thread([fd], self._threads_of(self._user).close)

    def _if_wanted(self, body: FileBody) -> MessageBody:
        if self._released:
            body.close(None)
            raise MessageGone
        return body

    def _path(self, at: int) -> str:
        """Where a message is, as far as is known."""
        path = self._snapshot.paths[at]
        if self._moved is not None:
            base = base_name(path)
            if base not in self._snapshot.twins:
                return self._moved.get(base, path)
        return path

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
        self._let_go_if_idle()
        if self._is_unlocked:
            return None
        self._when_unlocked = Deferred()
        return self._when_unlocked

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
            if self._local:
                # The next session need not wait for this.
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                self._unlocked()
            self._in_thread(sizes.save, self._fd, dict(self._snapshot.measured)).addErrback(
                lambda why: log.failure("remembering the sizes of {user!r}", why, user=self._user)
            )
            return
        fds = [*self._folders.values(), self._fd]
        self._folders.clear()
        if self._local:
            _close_all(fds)
            self._unlocked()
        else:
            closing = _close_in_thread(fds, self._threads_of(self._user).close)
            closing.addCallback(lambda _: self._unlocked())

    def _unlocked(self) -> None:
        self._is_unlocked = True
        when_unlocked, self._when_unlocked = self._when_unlocked, None
        if when_unlocked is not None:
            when_unlocked.callback(None)
