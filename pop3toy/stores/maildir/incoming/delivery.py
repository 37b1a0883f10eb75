"""Delivery into Maildirs: a message is written, made durable, and only then visible.

What lives here: whose Maildir, the quota, the names of messages, and what is left
of a server that was killed.  What must not: octets and fsyncs (``spool.py``),
how much is used already (``usage.py``), how a session reads a Maildir
(``stores/maildir/store.py``), and anything of SMTP.

The order, for each message: all octets into ``tmp/``, fsync of the file, its
name in ``new/``, fsync of ``new/``.  After a crash at any moment there is either
nothing in ``new/`` or the whole message; and whoever was told that the delivery
is done finds it there.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ....clock import steady
from ....errors import StoreTrouble
from ....interfaces import Incoming, ISharedDelivery, MaybeDeferred, SharedIncoming
from ....mail.unique_ids import unique_id_is_valid
from ....net.threads import RunInThread
from ..directory_syncs import DirectorySyncs, fsync_names
from ..folders import open_or_refuse
from ..paths import MaildirPaths, explained
from .keyed_locks import Turns
from .spool import Spool
from .spool_file import Target, fit_in

__all__ = ["MaildirDelivery"]

log = Logger()

#: Seconds after which an abandoned file in tmp/ may be removed; the Maildir
#: convention says 36 hours.
STALE: Final = 36 * 3600.0

#: Seconds between two looks at the same tmp/.
SWEEP: Final = 3600.0


@implementer(ISharedDelivery)
class MaildirDelivery:
    """Delivers into the Maildirs of users.

    :param paths: where they are; opened in a thread.
    :param run_in_thread: ``run_in_thread(callable, *args)`` gives a Deferred.
        The more threads it has, the more fsyncs the file system can join.
    :param clock: tells when it is time to look at a ``tmp/`` again.
    :param quota: how many octets a user's Maildir may hold, or ``None``.
    :param host: this host's name as it appears in the names of messages.
    :param wall: the time of day, for the names of messages and the age of files.
    """

    def __init__(
        self,
        paths: MaildirPaths,
        run_in_thread: RunInThread,
        clock: IReactorTime,
        *,
        quota: Callable[[str], MaybeDeferred[int | None]] = lambda user: None,
        host: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths
        self._quota = quota
        self._clock: IReactorTime = steady(clock)
        self._wall = wall
        self._host = _escaped(socket.gethostname() if host is None else host)
        self._own = re.compile(rf"\d+\.M\d+P\d+Q\d+\.{re.escape(self._host)}")
        self._count = itertools.count(1)
        self._swept: dict[str, float] = {}
        self._created: set[str] = set()
        self._run_in_thread = run_in_thread
        self._directories = DirectorySyncs(run_in_thread)
        self._turns = Turns()

    def begin(self, user: str, octets: int = 0) -> Deferred[Incoming]:
        """See :class:`~pop3toy.interfaces.IDelivery`; what does not fit fails with ``OverQuota`` here."""
        return Deferred.fromCoroutine(self._begin(user, octets))

    async def _begin(self, user: str, octets: int) -> Incoming:
        quota = self._quota(user)
        if isinstance(quota, Deferred):
            quota = await quota
        target = Target(self._paths, user, quota, 0)
        await self._run_in_thread(self._look, target)
        if quota is not None:
            async with self._turns.at([target.path]):
                used = await self._run_in_thread(fit_in, target, octets, quota, self._wall)
            target = target._replace(used=used)
        return _Incoming(self, target)

    def share(self, incomings: Sequence[Incoming]) -> SharedIncoming:
        """See :class:`ISharedDelivery`: one file, and a hard link for each further user."""
        targets = []
        for incoming in incomings:
            assert isinstance(incoming, _Incoming), "not begun here"
            targets.append(incoming.target)
        return _Shared(self, targets)

    def spool(self, targets: Sequence[Target]) -> Spool:
        """An empty message on its way to these Maildirs."""
        now, run_in_thread = self._wall, self._run_in_thread
        return Spool(targets, self.new_name, self._turns, now, run_in_thread, self._directories)

    def new_name(self) -> str:
        """A name that no message on this host or another ever had."""
        seconds, fraction = divmod(self._wall(), 1)
        micros, count = int(fraction * 1_000_000), next(self._count)
        # Six digits: names of one second sort in the order of delivery.
        return f"{int(seconds)}.M{micros:06}P{os.getpid()}Q{count}.{self._host}"

    # -- what follows runs in a thread ---------------------------------------------

    def _look(self, target: Target) -> None:
        with target.opened() as maildir:
            if target.path not in self._created:
                # It may be minutes old, and nobody has written its name to disk yet.
                for folder in ("new", ".", ".."):
                    directory = open_or_refuse(maildir, folder)
                    try:
                        fsync_names(directory)
                    finally:
                        os.close(directory)
                self._created.add(target.path)
            # Here already: a message that cannot be written is refused before it comes.
            tmp = open_or_refuse(maildir, "tmp")
            try:
                self._sweep(target.path, tmp)
            finally:
                os.close(tmp)

    def _sweep(self, path: str, tmp: int) -> None:
        """Remove what a server that was killed left in tmp/; other programs' files are theirs."""
        now = self._clock.seconds()
        if now - self._swept.get(path, -SWEEP) < SWEEP:
            return
        self._swept[path] = now
        with os.scandir(tmp) as files:
            for file in files:
                if not self._own.fullmatch(file.name):
                    continue
                try:
                    if self._wall() - file.stat(follow_symlinks=False).st_mtime > STALE:
                        os.unlink(file.name, dir_fd=tmp)
                except FileNotFoundError:
                    # Another process swept it a moment before.
                    continue
                except OSError as error:
                    # No reason to refuse mail.
                    where = os.path.join(path, "tmp", file.name)
                    log.warn("{path!r} cannot be removed: {why}", path=where, why=explained(error))


class _Incoming:
    """A delivery to one user; touches nothing before the first chunk."""

    def __init__(self, store: MaildirDelivery, target: Target) -> None:
        self.target = target
        self._spool = store.spool([target])

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """See :class:`Incoming`."""
        return self._spool.write(chunk)

    def commit(self) -> Deferred[bytes]:
        """See :class:`Incoming`."""
        return Deferred.fromCoroutine(self._commit())

    async def _commit(self) -> bytes:
        (name,) = await self._spool.commit(together=True)
        assert isinstance(name, str)
        return _uid(name)

    def abort(self) -> None:
        """See :class:`Incoming`."""
        self._spool.abort()


class _Shared:
    """A delivery to several users, written once: a hard link for each."""

    def __init__(self, store: MaildirDelivery, targets: Sequence[Target]) -> None:
        self._spool = store.spool(targets)

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """See :class:`SharedIncoming`."""
        return self._spool.write(chunk)

    def commit(self, *, together: bool) -> Deferred[Sequence[bytes | StoreTrouble]]:
        """See :class:`SharedIncoming`."""
        return Deferred.fromCoroutine(self._commit(together))

    async def _commit(self, together: bool) -> Sequence[bytes | StoreTrouble]:
        names = await self._spool.commit(together=together)
        return [_uid(name) if isinstance(name, str) else name for name in names]

    def abort(self) -> None:
        """See :class:`SharedIncoming`."""
        self._spool.abort()


def _uid(name: str) -> bytes:
    """The unique-id that ``scan`` gives to a file of this name."""
    uid = name.encode("ascii")
    return uid if unique_id_is_valid(uid) else hashlib.sha256(uid).hexdigest()[:32].encode("ascii")


def _escaped(host: str) -> str:
    """A host name as the Maildir convention wants it: no slash and no colon."""
    return host.replace("/", r"\057").replace(":", r"\072")
