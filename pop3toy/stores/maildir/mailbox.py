"""An open Maildir: what a session reads, removes and releases."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import MessageGone, StoreTrouble
from ...interfaces import IKeepingMailbox, IMailbox, MaybeDeferred, MessageBody
from ...net.threads import RunInThread
from .beside import sizes
from .beside.sizes import Counted
from .body import OPEN_FLAGS, FileBody
from .file_systems import cached_opener
from .folders import Stamp, fsync_names, locate_all, open_folder, open_folder_cached, stat_folders
from .names import base_name
from .paths import explained
from .removed.folder import Keeper
from .same_mail import write_note
from .snapshot import Snapshot

__all__ = ["SEARCHES", "MaildirMailbox", "UserThreads", "close_all", "close_in_thread"]

log = Logger()

_T = TypeVar("_T")

_open_message_cached = cached_opener(OPEN_FLAGS)

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


@implementer(IMailbox, IKeepingMailbox)
class MaildirMailbox:
    """One Maildir, open and, unless it is only looked at, locked for one session.

    :param fd: the open directory, on which the lock is; now ours to close.
    :param local: whether it is on a local disk: only then anything is done on the reactor's thread, and
        only what the kernel has at hand.
    :param keep_at: where what is removed is kept for a while, tells the time of that: seconds since the
        epoch.  ``None`` where it is not kept.
    """

    read_only = False

    def __init__(
        self,
        user: str,
        fd: int,
        snapshot: Snapshot,
        threads_of: Callable[[str], UserThreads],
        local: bool,
        keep_at: Callable[[], float] | None = None,
    ) -> None:
        self.entries = snapshot.listing
        self._user = user
        self._fd = fd
        self._snapshot = snapshot
        self._threads_of = threads_of
        self._local = local
        self._keep_at = keep_at
        # Folders are opened when the first message is read, once a session: a
        # folder that is replaced by a link meanwhile leads nowhere.
        self._folders: dict[str, int] = {}
        # Where messages are, by base name, once one was not where the snapshot says; and when that was so.
        self._moved: dict[str, str] = {}
        self._moved_stamp: Stamp | None = None
        # Whether octets were announced wrongly, and are to be written down.
        self._corrected = False
        # Calls that run in a thread and need the descriptors.
        self._busy = 0
        self._released = False
        self._when_idle: Deferred[None] | None = None

    # -- reading -----------------------------------------------------------------

    def read(self, uid: bytes) -> MaybeDeferred[MessageBody]:
        """See :class:`~pop3toy.interfaces.IMailbox`: at once if the kernel has the file at hand."""
        at = self._snapshot.position(uid)
        path = self._path(at)
        if self._local:
            part, _, name = path.partition("/")
            folder = self._folders.get(part)
            if folder is None and (folder := open_folder_cached(self._fd, part)) is not None:
                self._folders[part] = folder
            if folder is not None and (fd := _open_message_cached(folder, name)) is not None:
                return self._body(at, fd)
        return self._in_thread(self._open, at, path).addCallback(self._if_wanted)

    def _open(self, at: int, path: str) -> FileBody:
        """In a thread: open a message, though another program may have renamed it (flags).

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
        close = os.close if self._local else (lambda fd: self._close_files([fd]))
        return FileBody(fd, self._run_in_thread, self.entries.each[at], partial(self._measured, at), close)

    def _run_in_thread(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        # Asked for at the last moment: most messages are read without a thread.
        return self._threads_of(self._user).work(function, *args)

    def _if_wanted(self, body: FileBody) -> MessageBody:
        if self._released:
            body.close(None)
            raise MessageGone
        return body

    def _measured(self, at: int, octets: int, status: os.stat_result) -> None:
        """What went out was counted; if it was announced wrongly, the next session is told right."""
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
        if base_name(snapshot.paths[at]) in snapshot.duplicates:
            # Its unique-id can be the other's tomorrow.
            return
        snapshot.measured[uid] = counted
        snapshot.trusted = False
        self._corrected = True

    # -- where messages are --------------------------------------------------------

    def _path(self, at: int) -> str:
        """Where a message is, as far as is known."""
        path = self._snapshot.paths[at]
        return self._moved.get(base_name(path), path) if self._moved else path

    def _folder(self, name: str) -> int:
        fd = self._folders.get(name)
        if fd is None:
            fd = self._folders[name] = open_folder(self._fd, name)
        return fd

    def _look_again(self, path: str) -> str | None:
        """In a thread: where a message is now that is not where it was; all are found by one look."""
        stamp = stat_folders(self._fd)
        if stamp != self._moved_stamp:
            self._list_again()
            self._moved_stamp = stamp
        return self._moved.get(base_name(path))

    def _list_again(self) -> None:
        found = locate_all(self._fd)
        # One of two messages that had the same base name could be the other one.
        self._moved = {base: path for base, path in found.items() if base not in self._snapshot.duplicates}

    # -- removing ----------------------------------------------------------------

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.IMailbox`: unlinked or kept, and folders synced, in a thread."""
        return self._removed(uids, Keeper(self._fd, self._keep_at()) if self._keep_at is not None else None)

    def remove_for_good(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.IKeepingMailbox`."""
        return self._removed(uids, None)

    def _removed(self, uids: Sequence[bytes], keeper: Keeper | None) -> MaybeDeferred[None]:
        if not uids:
            return None
        paths = [self._path(self._snapshot.position(uid)) for uid in uids]
        return self._in_thread(self._remove, paths, keeper)

    def _remove(self, paths: Sequence[str], keeper: Keeper | None) -> None:
        try:
            self._remove_all(paths, keeper)
        finally:
            if keeper is not None:
                keeper.close()

    def _remove_all(self, paths: Sequence[str], keeper: Keeper | None) -> None:
        errors: list[str] = []
        touched: set[str] = set()
        # Base names of linked messages that are kept by their first name.
        kept: set[str] = set()
        left = paths
        for search in range(SEARCHES + 1):
            if search:
                # They were renamed.  What is nowhere is gone, which is all that was wanted.
                try:
                    self._list_again()
                except StoreTrouble as error:
                    errors += [error.detail] * len(left)
                    break
                left = [now for path in left if (now := self._moved.get(base_name(path))) is not None]
            missing = []
            for path in left:
                folder, _, name = path.partition("/")
                try:
                    if keeper is None or base_name(name) in kept:
                        os.unlink(name, dir_fd=self._folder(folder))
                    else:
                        keeper.put(name, self._folder(folder))
                    touched.add(folder)
                    if base_name(path) in self._snapshot.linked:
                        # It has another name, which may have changed as well.
                        missing.append(path)
                        kept.add(base_name(path))
                except FileNotFoundError:
                    missing.append(path)
                except OSError as error:
                    errors.append(explained(error))
                except StoreTrouble as error:
                    errors.append(error.detail)
            if not (left := missing):
                break
        else:
            errors += ["another program renames it all the while"] * len(left)
        if keeper is not None:
            try:
                # First: a message is in both places rather than in none.
                keeper.sync()
            except OSError as error:
                errors.append(f"fsync of what is kept: {explained(error)}")
        for folder in touched:
            try:
                fsync_names(self._folder(folder))
            except OSError as error:
                errors.append(f"fsync of {folder}/: {explained(error)}")
        if errors:
            trouble = StoreTrouble(
                detail=f"removing {len(paths)} messages of {self._user!r}: {len(errors)} errors,"
                f" the first: {errors[0]}"
            )
            trouble.removed = max(len(paths) - len(errors), 0)
            raise trouble

    # -- the end -----------------------------------------------------------------

    def release(self) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.IMailbox`: close and unlock, once no thread works here."""
        if self._released:
            return None
        self._released = True
        if self._busy:
            self._when_idle = Deferred()
            return self._when_idle.addCallback(lambda _: self._close())
        return self._close()

    def _close(self) -> MaybeDeferred[None]:
        fds = [*self._folders.values(), self._fd]
        if not self._corrected and not self._snapshot.note_due:
            return self._close_files(fds)
        if self._local:
            # The next session need not wait for what is written.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        saving = self._threads_of(self._user).close(self._write_down, dict(self._snapshot.measured))
        saving.addErrback(lambda why: log.failure("remembering the mail of {user!r}", why, user=self._user))
        saving.addCallback(lambda _: self._close_files(fds))
        return None if self._local else saving

    def _write_down(self, measured: dict[bytes, Counted]) -> None:
        """In a thread: what the next session, or process, need not find out again."""
        if self._corrected:
            sizes.save(self._fd, measured)
        if self._snapshot.note_due:
            write_note(self._fd, self._snapshot)

    def _close_files(self, fds: Sequence[int]) -> MaybeDeferred[None]:
        if self._local:
            close_all(fds)
            return None
        return close_in_thread(fds, self._threads_of(self._user).close)

    def _in_thread(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        self._busy += 1

        def done(result: _T) -> _T:
            self._busy -= 1
            if not self._busy and self._when_idle is not None:
                self._when_idle.callback(None)
            return result

        return self._run_in_thread(function, *args).addBoth(done)


def close_in_thread(fds: Sequence[int], in_thread: RunInThread) -> Deferred[None]:
    """Close descriptors, and give up a lock with them, where that may wait: not on a local disk."""

    def refused(why: Failure) -> None:
        # The server is stopping.
        why.trap(StoreTrouble)
        close_all(fds)

    return in_thread(close_all, fds).addErrback(refused)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
