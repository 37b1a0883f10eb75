"""Delivery into Maildirs: a message is written, made durable, and only then visible.

What lives here: whose Maildir, the quota, the names of messages, and what is left
of a server that was killed.  What must not: octets and fsyncs (``message.py``),
how much is used already (``usage.py``), how a session reads a Maildir
(``stores/maildir/store.py``), and anything of SMTP.

The order, for each message: all octets into ``tmp/``, fsync of the file, its
name in ``new/``, fsync of ``new/``.  After a crash at any moment there is either
nothing in ``new/`` or the whole message; and what was said to be delivered is there.
"""

from __future__ import annotations

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
from ....interfaces import IDelivery, Incoming, MaybeDeferred
from ....net.threads import RunInThread
from ..folders import fsync_names, open_folder
from ..paths import MaildirPaths, explained
from .destination import DeliveryThreads, Destination
from .directory_syncs import DirectorySyncs
from .keyed_locks import KeyedLocks
from .message import Message

__all__ = ["MaildirDelivery"]

log = Logger()

#: Seconds after which an abandoned file in tmp/ may be removed; the Maildir
#: convention says 36 hours.
STALE: Final = 36 * 3600.0

#: Seconds between two looks at the same tmp/.
SWEEP: Final = 3600.0


@implementer(IDelivery)
class MaildirDelivery:
    """Delivers into the Maildirs of users.

    :param paths: where they are; opened in a thread.
    :param run_in_thread: ``run_in_thread(callable, *args)`` gives a Deferred.
        The more threads it has, the more fsyncs the file system can join.
    :param threads_of: the same for one user each: so that a disk which hangs holds up mail of its own
        users alone.
    :param clock: tells when it is time to look at a ``tmp/`` again.
    :param quota: how many octets a user's Maildir may hold, or ``None``.
    :param nearly_full: is told, in a thread, which user has to know that the Maildir is nearly full, with its
        octets and the quota.
    :param host: this host's name as it appears in the names of messages.
    :param wall: the time of day, for the names of messages and the age of files.
    """

    def __init__(
        self,
        paths: MaildirPaths,
        run_in_thread: RunInThread,
        clock: IReactorTime,
        *,
        threads_of: Callable[[str], DeliveryThreads] | None = None,
        quota: Callable[[str], MaybeDeferred[int | None]] = lambda user: None,
        nearly_full: Callable[[str, int, int], object] | None = None,
        host: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths
        self._quota = quota
        self._nearly_full = nearly_full
        self._clock: IReactorTime = steady(clock)
        self._wall = wall
        self._host = _escaped(socket.gethostname() if host is None else host)
        self._own = re.compile(rf"\d+\.M\d+P\d+Q\d+\.{re.escape(self._host)}")
        self._count = itertools.count(1)
        self._swept: dict[str, float] = {}
        # The Maildirs whose own names are on the disk, by path.
        self._durable: dict[str, tuple[int, ...]] = {}
        same = DeliveryThreads(run_in_thread, run_in_thread, run_in_thread)
        self._threads_of = threads_of or (lambda user: same)
        self._directories = DirectorySyncs()
        self._locks = KeyedLocks()

    def check(self, user: str, octets: int = 0) -> Deferred[None]:
        """See :class:`~pop3toy.interfaces.IDelivery`."""
        return Deferred.fromCoroutine(self._check(user, octets))

    async def _check(self, user: str, octets: int) -> None:
        place = await self._destination(user)
        await place.threads.look(self._look, place)
        if place.quota is not None:
            async with self._locks.hold([place.path]):
                await place.threads.look(place.fit, octets, place.quota, self._wall)

    def begin(self, users: Sequence[str], octets: int = 0) -> Deferred[Incoming]:
        """See :class:`~pop3toy.interfaces.IDelivery`: one file, and a hard link for each further user.

        :param octets: do not matter here.
        """
        return Deferred.fromCoroutine(self._begin(users))

    async def _begin(self, users: Sequence[str]) -> Incoming:
        places: list[Destination | StoreTrouble] = []
        for user in users:
            try:
                place = await self._destination(user)
                # Else ``check`` has looked, or an earlier delivery; the disk has the last word in the end.
                if place.path not in self._durable:
                    await place.threads.look(self._look, place)
                places.append(place)
            except StoreTrouble as error:
                places.append(error)
        refused = [place for place in places if isinstance(place, StoreTrouble)]
        if len(refused) == len(places):
            raise refused[0]
        return self._message(places)

    def _message(self, places: list[Destination | StoreTrouble]) -> Message:
        return Message(
            places,
            new_name=self.new_name,
            locks=self._locks,
            now=self._wall,
            directories=self._directories,
        )

    def notice(self, user: str) -> Deferred[Incoming]:
        """As :meth:`begin`, for one user and a message of the server's own, which no quota keeps out."""
        return Deferred.fromCoroutine(self._notice(user))

    async def _notice(self, user: str) -> Incoming:
        place = (await self._destination(user))._replace(quota=None)
        await place.threads.look(self._look, place)
        return self._message([place])

    async def _destination(self, user: str) -> Destination:
        quota = self._quota(user)
        if isinstance(quota, Deferred):
            quota = await quota
        path, threads = self._paths.path(user), self._threads_of(user)
        return Destination(self._paths, user, path, quota, threads, self._nearly_full)

    def new_name(self) -> str:
        """A name that no message on this host or another ever had."""
        seconds, fraction = divmod(self._wall(), 1)
        micros, count = int(fraction * 1_000_000), next(self._count)
        # Six digits: names of one second sort in the order of delivery.
        return f"{int(seconds)}.M{micros:06}P{os.getpid()}Q{count}.{self._host}"

    # -- what follows runs in a thread ---------------------------------------------

    def _look(self, place: Destination) -> None:
        with place.opened() as maildir:
            if self._durable.get(place.path) != (identity := _identity(maildir)):
                # It may be minutes old, and nobody has written its name to disk yet.
                for folder in ("new", ".", ".."):
                    directory = open_folder(maildir, folder)
                    try:
                        fsync_names(directory)
                    finally:
                        os.close(directory)
                self._durable[place.path] = identity
            # Here already: a message that cannot be written is refused before it comes.
            tmp = open_folder(maildir, "tmp")
            try:
                self._sweep(place.path, tmp)
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


def _identity(maildir: int) -> tuple[int, ...]:
    """What changes when a Maildir is removed and another made in its place.

    That may get the inodes of the first, but the folder that it is in has changed then.
    """
    there, above = os.fstat(maildir), os.stat("..", dir_fd=maildir)
    return there.st_dev, there.st_ino, above.st_ino, above.st_ctime_ns


def _escaped(host: str) -> str:
    """A host name as the Maildir convention wants it: no slash and no colon."""
    return host.replace("/", r"\057").replace(":", r"\072")
