"""The spool file of a delivery: a message in ``tmp/`` and its way to ``new/``.

What lives here: the octets of one message, on the disk once whoever gets it,
its final names and the fsyncs, and the conversion to the line ends of a Maildir.
What must not: who gets it and why (``maildir_delivery.py``).

Methods named in the lower half run in a thread; at most one for each spool.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..errors import OverQuota, StoreFull, StoreTrouble
from ..interfaces import MaybeDeferred
from ..threads import RunInThread
from ..wire import Encoder
from .directory_syncs import DirectorySyncs

__all__ = ["Spool", "Target", "octets_used", "trouble"]

#: Octets that gather in memory before they go to the file: a message of the
#: usual size costs one trip to a thread, a large one is bounded by this.
SPILL: Final = 256 * 1024

_SIZE_IN_NAME = re.compile(r",S=(\d+)")
_CRLF_ALONE = re.compile(rb"(?<!\r)\r\n")

log = Logger()


class Target(NamedTuple):
    """One Maildir that a message is on its way to."""

    maildir: str
    #: Octets that it may hold, or ``None``.
    quota: int | None
    #: Octets that it held when the delivery began; 0 without a quota.
    used: int


class Spool:
    """One message in ``tmp/``.  What is small stays in memory; the disk is touched in threads only.

    :param targets: the Maildirs that it goes to, at least one.
    :param new_name: gives a name that no message ever had.
    :param naming: between the look at a quota and the new name nobody else may
        add one; shared by all spools of a store.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        new_name: Callable[[], str],
        naming: threading.Lock,
        run_in_thread: RunInThread,
        directories: DirectorySyncs,
    ) -> None:
        self._targets = targets
        self._new_name = new_name
        self._naming = naming
        self._run_in_thread = run_in_thread
        self._directories = directories
        # What is left of the largest quota: what does not fit there fits nowhere.
        rooms = [None if target.quota is None else target.quota - target.used for target in targets]
        self._room = None if None in rooms else max(room for room in rooms if room is not None)
        self._path = ""
        self._name = ""
        self._file: int | None = None
        self._pending: list[bytes] = []
        self._pending_octets = 0
        self._held = b""
        self._size = 0
        self._wire = Encoder()
        self._working = False
        self._over = False

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """Take a chunk; a Deferred asks to wait.

        :raises pop3toy.errors.OverQuota: when it is more than any target may hold.
        """
        assert not self._over, "written to after its end"
        chunk, self._held = _line_feeds(self._held + chunk)
        self._add(chunk)
        if self._room is not None and self._size > self._room:
            raise OverQuota
        if self._pending_octets < SPILL:
            return None
        return Deferred.fromCoroutine(self._in_thread(self._spill))

    def _add(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_octets += len(data)
        self._size += len(data)
        self._wire.feed(data)

    async def commit(self, *, together: bool) -> list[str | StoreTrouble]:
        """Write, fsync, give it its names, fsync those.

        :param together: if one Maildir cannot have it, none gets it.
        :return: for each target the file's name, or why it is not there.
        :raises pop3toy.errors.StoreTrouble: when it is nowhere.
        """
        assert not self._over, "ended twice"
        self._over = True
        self._add(self._held)
        self._wire.finish()
        names: list[str | StoreTrouble] = await self._in_thread(self._finish, together)
        # All at once: the fsyncs of several directories run in several threads.
        syncs = [
            self._directories.sync(os.path.join(target.maildir, "new"))
            for target, name in zip(self._targets, names, strict=True)
            if isinstance(name, str)
        ]
        results = list(names)
        for number, name in enumerate(names):
            if isinstance(name, str):
                try:
                    await syncs.pop(0)
                except OSError as error:
                    # Visible, but perhaps gone after a crash: nobody may be told that it is there.
                    results[number] = trouble(error)
                    await self._run_in_thread(_take_back, [self._final_path(number, name)])
        refused = [result for result in results if isinstance(result, StoreTrouble)]
        if refused and (together or len(refused) == len(results)):
            paths = [self._final_path(n, name) for n, name in enumerate(results) if isinstance(name, str)]
            await self._run_in_thread(_take_back, paths)
            raise refused[0]
        return results

    def abort(self) -> None:
        """Leave nothing behind."""
        if not self._over:
            self._over = True
            self._pending.clear()
            if not self._working:
                self._discard_later()

    def _discard_later(self) -> None:
        if self._file is not None:
            self._run_in_thread(self._discard).addErrback(
                lambda failure: log.failure("a file was left in tmp/", failure=failure)
            )

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        self._working = True
        try:
            return await self._run_in_thread(work, *args)
        finally:
            self._working = False
            if self._over:
                # Aborted while the thread was writing; after a commit there is nothing left.
                self._discard_later()

    def _final_path(self, number: int, name: str) -> str:
        return os.path.join(self._targets[number].maildir, "new", name)

    # -- what follows runs in a thread ---------------------------------------------

    def _spill(self) -> None:
        pending, self._pending, self._pending_octets = self._pending, [], 0
        try:
            if self._file is None:
                self._name = self._new_name()
                path = os.path.join(self._targets[0].maildir, "tmp", self._name)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._path = path
            for data in pending:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._file, view) :]
        except OSError as error:
            raise trouble(error) from error

    def _finish(self, together: bool) -> list[str | StoreTrouble]:
        try:
            self._spill()
            assert self._file is not None
            try:
                os.fsync(self._file)
            except OSError as error:
                raise trouble(error) from error
            with self._naming:
                return self._give_names(together)
        finally:
            self._discard()

    def _give_names(self, together: bool) -> list[str | StoreTrouble]:
        names: list[str | StoreTrouble] = []
        paths: list[str] = []
        for number, target in enumerate(self._targets):
            # A name of its own for each: one unique-id in two Maildirs would be a
            # trap for whoever moves a message from one to the other.
            name = self._name if number == 0 else self._new_name()
            name = f"{name},S={self._size},W={self._wire.octets}"
            try:
                if target.quota is not None and octets_used(target.maildir) + self._size > target.quota:
                    raise OverQuota
                path = self._final_path(number, name)
                self._link(path, target, last=number == len(self._targets) - 1)
                paths.append(path)
                names.append(name)
            except (OSError, StoreTrouble) as error:
                why = trouble(error) if isinstance(error, OSError) else error
                if together:
                    _take_back(
                        [self._final_path(n, name) for n, name in enumerate(names) if isinstance(name, str)]
                    )
                    raise why from error
                names.append(why)
        return names

    def _link(self, path: str, target: Target, *, last: bool) -> None:
        try:
            if last:
                os.rename(self._path, path)
                self._path = ""
            else:
                os.link(self._path, path)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
                raise
            self._copy(path, target)

    def _copy(self, path: str, target: Target) -> None:
        """For a Maildir on another file system, or on one without hard links."""
        own = os.path.join(target.maildir, "tmp", self._new_name())
        try:
            with open(self._path, "rb") as source, open(own, "xb", opener=_private) as copy:
                shutil.copyfileobj(source, copy, SPILL)
                copy.flush()
                os.fsync(copy.fileno())
            os.rename(own, path)
        except BaseException:
            _take_back([own])
            raise

    def _discard(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
        path, self._path = self._path, ""
        if path:
            _take_back([path])


def octets_used(maildir: str) -> int:
    """Octets of all messages of a Maildir, from their names where those say it.  Blocks."""
    total = 0
    for part in ("new", "cur"):
        with os.scandir(os.path.join(maildir, part)) as files:
            for file in files:
                told = _SIZE_IN_NAME.search(file.name)
                if told:
                    total += int(told[1])
                elif not file.name.startswith("."):
                    try:
                        total += file.stat().st_size
                    except FileNotFoundError:
                        # Read and removed meanwhile.
                        continue
    return total


def _line_feeds(data: bytes) -> tuple[bytes, bytes]:
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


def _take_back(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.error("cannot remove {path}: {why}", path=path, why=error.strerror)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def trouble(error: OSError) -> StoreTrouble:
    """What a delivery says about an error of the file system."""
    detail = f"{error.strerror}: {error.filename or 'spool file'}"
    if error.errno == errno.EDQUOT:
        return OverQuota(detail=detail)
    if error.errno == errno.ENOSPC:
        return StoreFull(detail=detail)
    return StoreTrouble("the mailbox cannot be written to at the moment", detail=detail)
