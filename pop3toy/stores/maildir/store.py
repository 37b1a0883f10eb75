"""Maildirs as a store: opening them, and keeping their snapshots between sessions.

A Maildir is opened at once where the kernel has it at hand, else in a thread.  Its lock is the
kernel's (``flock`` on the Maildir's directory): exclusive among sessions and among processes of the
host, left nowhere as a file, and gone with the process that held it.  What is listed comes from the
snapshot of the session before, if the folders have not changed since, else from a new one
(``snapshot``).  What a session does with an open Maildir is in ``mailbox``.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...clock import steady
from ...errors import InUse, Refusal, StoreTrouble
from ...interfaces import ICancellableStore, IMailbox, IViewableStore, MaybeDeferred
from ...net.threads import RunInThread
from .beside import sizes
from .count import MAX_LISTED_SIZE, Counter
from .file_systems import is_local
from .folders import Stamp, WouldWait, stat_folders
from .folders import lock as take_lock
from .mailbox import MaildirMailbox, UserThreads, close_in_thread
from .paths import MaildirPaths
from .same_mail import follows, look_at
from .settings import Maildirs
from .snapshot import Snapshot, take_snapshot

__all__ = ["MaildirStore", "UserThreads"]

log = Logger()

#: Octets of the two directories, and of the cache file of sizes, up to which a Maildir is small: some hundred
#: messages. To read these on the reactor's thread costs less than going to another.
SMALL = 64 * 1024

#: Seconds after which the opening of a Maildir is given up; counting its messages may take longer.
OPENING = 10.0

#: Messages of which snapshots are kept between sessions, at about 300 octets each.
KEPT_MESSAGES = 500_000


@implementer(ICancellableStore, IViewableStore)
class MaildirStore:
    """The Maildirs of all users, an :class:`~pop3toy.interfaces.IMailStore`.

    :param paths: where they are: ``Maildirs("/srv/mail/{user}")``, whose ``max_listed_size`` and
        ``undo_days`` hold then.
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
    :param keep_removed: whether what sessions remove is kept aside, in the Maildir (``removed``).
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
        keep_removed: bool = False,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        if isinstance(paths, Maildirs):
            max_listed_size, keep_removed = paths.max_listed_size, bool(paths.undo_days)
            paths = MaildirPaths(paths.path, create=paths.create)
        self._paths = paths
        same = UserThreads(run_in_thread, scan_in_thread or run_in_thread, run_in_thread)
        self._threads_of = threads_of or (lambda user: same)
        self._clock: IReactorTime | None = steady(clock) if clock is not None else None
        self._wall_clock = wall_clock
        self._room = kept_messages
        self._max_listed_size = max_listed_size
        self._keep_at = wall_clock if keep_removed else None
        self._is_over = is_over
        # Whose Maildir is being scanned in a thread, and whether with its lock.
        self._scanned: set[tuple[str, bool]] = set()
        self._kept: OrderedDict[str, Snapshot] = OrderedDict()

    def open(self, user: str) -> MaybeDeferred[IMailbox]:
        """See :class:`~pop3toy.interfaces.IMailStore`; a Deferred of it may be cancelled.

        :param user: whose Maildir.
        :return: the mailbox, or a Deferred of it where that takes a thread.
        :raises pop3toy.errors.InUse: (or fails with) if another session or process has it locked.
        :raises pop3toy.errors.NoSuchMailbox: (or fails with) if there is none and it may not be made.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot be read.
        """
        return self._open(user, lock=True)

    def view(self, user: str) -> MaybeDeferred[IMailbox]:
        """See :class:`~pop3toy.interfaces.IViewableStore`."""
        return self._open(user, lock=False)

    def _open(self, user: str, *, lock: bool) -> MaybeDeferred[IMailbox]:
        before = self._kept.get(user)
        fd = self._paths.open_cached(user)
        if fd is not None:
            # It is on a local disk.  What this process has read of it before, the kernel has at hand still.
            try:
                if before is not None:
                    if lock:
                        take_lock(fd)
                    stamp = stat_folders(fd)
                    if before.is_current(fd, stamp) and (before.looked_at or not lock):
                        return self._mailbox(user, fd, before, local=True)
                    if not before.measured and _is_small(fd, stamp):
                        snapshot = take_snapshot(fd, self._wall_clock())
                        if follows(before, snapshot) or not lock:
                            return self._mailbox(user, fd, snapshot, local=True)
            except WouldWait:
                pass
            except BaseException as error:
                os.close(fd)
                self._paths.say_where(user, error)
                raise
            os.close(fd)
        return self._open_in_thread(user, before, lock)

    def _open_in_thread(self, user: str, before: Snapshot | None, lock: bool) -> Deferred[IMailbox]:
        """Open a Maildir as long as the result is wanted and the server goes on.

        No thread can be stopped: one that comes to its end later closes what it has opened.
        """
        given_up = threading.Event()
        timer: IDelayedCall | None = None

        def give_up(why: Refusal) -> None:
            given_up.set()
            stop_timer()
            result.errback(why)

        def too_late() -> None:
            trouble = StoreTrouble(detail=f"its disk has not answered for {OPENING:.0f} s")
            self._paths.say_where(user, trouble)
            give_up(trouble)

        def stop_timer() -> None:
            if timer is not None and timer.active():
                timer.cancel()

        async def open_it() -> None:
            nonlocal timer
            threads = self._threads_of(user)
            opening = threads.work(self._open_now, user, before, lock, given_up.is_set)
            if self._clock is not None and not opening.called:
                timer = self._clock.callLater(OPENING, too_late)
            try:
                fd, local, snapshot = await opening
            finally:
                stop_timer()
            try:
                if snapshot is None and not given_up.is_set():
                    snapshot = await self._scan(user, fd, before, lock, given_up.is_set)
                if snapshot is not None:
                    self._keep(user, snapshot)
                if snapshot is None or given_up.is_set():
                    raise StoreTrouble
            except BaseException:
                if local:
                    os.close(fd)
                else:
                    close_in_thread([fd], threads.close)
                raise
            result.callback(self._mailbox(user, fd, snapshot, local=local))

        def failed(why: Failure) -> None:
            if not given_up.is_set():
                self._paths.say_where(user, cast(BaseException, why.value))
                result.errback(why)
            elif why.check(Refusal) is None:
                log.failure("opening a Maildir of {user!r}, whose session has gone", why, user=user)

        result: Deferred[IMailbox] = Deferred(lambda _: give_up(Refusal("the client has gone")))
        Deferred.fromCoroutine(open_it()).addErrback(failed)
        return result

    async def _scan(
        self, user: str, fd: int, before: Snapshot | None, lock: bool, given_up: Callable[[], bool]
    ) -> Snapshot:
        """Count the messages in a thread, which may take minutes.

        :raises pop3toy.errors.InUse: if that is being done already.
        :raises pop3toy.errors.StoreTrouble: the same for a caller that needs no lock.
        """
        this = user, lock
        if this in self._scanned:
            if not lock:
                raise StoreTrouble("the messages are being counted, try later")
            # Of another folder that had this name: an owner who moves folders about waits for the first.
            raise InUse
        self._scanned.add(this)
        try:
            scan = self._threads_of(user).scan
            return await scan(
                self._snapshot, user, fd, before, True, lambda: not (given_up() or self._is_over()), lock
            )
        finally:
            self._scanned.discard(this)

    def _mailbox(self, user: str, fd: int, snapshot: Snapshot, *, local: bool) -> IMailbox:
        """A session's mailbox of what was opened, and locked if need be."""
        self._keep(user, snapshot)
        mailbox: IMailbox = MaildirMailbox(user, fd, snapshot, self._threads_of, local, self._keep_at)
        return mailbox

    def _keep(self, user: str, snapshot: Snapshot) -> None:
        """Keep a snapshot for the next session."""
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

    # -- what follows runs in a thread ---------------------------------------------

    def _open_now(
        self, user: str, before: Snapshot | None, lock: bool, given_up: Callable[[], bool]
    ) -> tuple[int, bool, Snapshot | None]:
        """Open and lock a Maildir: its descriptor, whether it is on a local disk, and what is soon listed."""
        self._paths.look_at_root()
        fd = self._paths.open(user)
        try:
            if given_up():
                raise StoreTrouble
            if lock:
                take_lock(fd)
            stamp, snapshot = stat_folders(fd), None
            if before is not None and before.is_current(fd, stamp):
                snapshot = before
            elif _is_small(fd, stamp):
                try:
                    snapshot = self._snapshot(user, fd, before, may_read=False)
                except WouldWait:
                    pass
            if snapshot is not None and lock:
                look_at(user, fd, snapshot)
            return fd, is_local(fd), snapshot
        except BaseException:
            os.close(fd)
            raise

    def _snapshot(
        self,
        user: str,
        fd: int,
        before: Snapshot | None,
        may_read: bool,
        wanted: Callable[[], bool] = lambda: True,
        look: bool = False,
    ) -> Snapshot:
        """Take a snapshot, and write down for the next process what had to be counted.

        :param look: whether to compare it with the last session.

        :raises WouldWait: if messages have to be read and may not be.
        """
        with Counter(
            fd,
            before.measured if before is not None else None,
            max_listed_size=self._max_listed_size,
            may_read=may_read,
            wanted=wanted,
            where=f"Maildir {self._paths.path(user)!r}",
        ) as counter:
            snapshot = take_snapshot(fd, self._wall_clock(), counter)
            counter.remember(snapshot.measured)
        if look:
            look_at(user, fd, snapshot)
        return snapshot


def _is_small(fd: int, stamp: Stamp) -> bool:
    return stamp.weight + sizes.size(fd) <= SMALL


def _weight(snapshot: Snapshot) -> int:
    """An empty one costs as much as a message or two, and there may be many."""
    return len(snapshot.listing) + 2
