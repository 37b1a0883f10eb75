"""A message on its way into Maildirs: gathered, written in threads, made durable, named.

What lives here: when the disk is touched, who takes turns, the fsyncs of directories,
and the conversion to the line ends of a Maildir.  What must not: files
(``spool_file.py``), and who gets the message and why (``delivery.py``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ....errors import OverQuota, StoreTrouble
from ....interfaces import MaybeDeferred
from ....mail.octets import Encoder
from ....net.threads import RunInThread
from ..directory_syncs import DirectorySyncs
from .keyed_locks import Turns
from .spool_file import Named, SpoolFile, Target, fit_in, take_back, trouble

__all__ = ["Spool"]

#: Octets that gather in memory before they go to the file: a message of the
#: usual size costs one trip to a thread, a large one is bounded by this.
SPILL: Final = 256 * 1024

_CRLF_ALONE = re.compile(rb"(?<!\r)\r\n")

log = Logger()


class Spool:
    """One message.  What is small stays in memory; the disk is touched in threads only, one at a time.

    :param targets: the Maildirs that it goes to, at least one.
    :param new_name: gives a name that no message ever had.
    :param turns: whose it is to use up a quota; shared by all spools of a store.
    :param now: the time of day, in seconds.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        new_name: Callable[[], str],
        turns: Turns,
        now: Callable[[], float],
        run_in_thread: RunInThread,
        directories: DirectorySyncs,
    ) -> None:
        self._targets = targets
        self._file = SpoolFile(targets, new_name, now)
        self._turns = turns
        self._now = now
        self._run_in_thread = run_in_thread
        self._directories = directories
        #: Those that have a quota, and what is left of it; what does not fit into the
        #: largest one fits nowhere.
        self._quotas = [(target, target.quota) for target in targets if target.quota is not None]
        self._limited = len(self._quotas) == len(targets)
        self._room = max((target.quota or 0) - target.used for target in targets)
        self._pending: list[bytes] = []
        self._pending_octets = 0
        self._held = b""
        self._size = 0
        self._wire = Encoder()
        self._working = False
        self._over = False
        self._given_up = False

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """Take a chunk; a Deferred asks to wait.

        :raises pop3toy.errors.OverQuota: (or fails with) when it is more than any
            target may hold.
        """
        assert not self._over, "written to after its end"
        chunk, self._held = _line_feeds(self._held + chunk)
        self._add(chunk)
        if self._limited and self._size > self._room:
            largest = max(quota for _, quota in self._quotas)
            if self._size > largest:
                whose = ", ".join(repr(target.user) for target, _ in self._quotas)
                raise OverQuota(detail=f"the message is larger than all of {whose}", holds=largest)
            return Deferred.fromCoroutine(self._look_for_room())
        if self._pending_octets < SPILL:
            return None
        return Deferred.fromCoroutine(self._in_thread(self._file.append, self._gathered()))

    def _add(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_octets += len(data)
        self._size += len(data)
        self._wire.feed(data)

    def _gathered(self) -> Sequence[bytes]:
        pending, self._pending, self._pending_octets = self._pending, [], 0
        return pending

    async def _look_for_room(self) -> None:
        """There was too little when it began; somebody may have removed mail since."""
        refused: OverQuota | None = None
        for target, quota in self._quotas:
            try:
                async with self._turns.at([target.path]):
                    used = await self._in_thread(fit_in, target, self._size, quota, self._now)
                self._room = max(self._room, quota - used)
            except OverQuota as error:
                refused = error
        if refused is not None and self._size > self._room:
            raise OverQuota(detail=refused.detail, holds=max(quota for _, quota in self._quotas))

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
        names = await self._named(together)
        there = [named for named in names if isinstance(named, Named)]
        try:
            return await self._made_durable(names, there, together)
        finally:
            for named in there:
                os.close(named.folder.handle)

    async def _made_durable(
        self, names: Sequence[Named | StoreTrouble], there: Sequence[Named], together: bool
    ) -> list[str | StoreTrouble]:
        # All at once: the fsyncs of several directories run in several threads.
        syncs = [self._directories.sync(named.folder) for named in there]
        lost = {}
        for named, sync in zip(there, syncs, strict=True):
            try:
                await sync
            except (OSError, StoreTrouble) as error:
                # Visible, but perhaps gone after a crash: nobody may be told that it is there.
                lost[named.name] = trouble(error) if isinstance(error, OSError) else error
        results = [lost.get(named.name, named.name) if isinstance(named, Named) else named for named in names]
        refused = [result for result in results if isinstance(result, StoreTrouble)]
        none = bool(refused) and (together or len(refused) == len(results))
        back = [named for named in there if none or named.name in lost]
        if back:
            await self._run_in_thread(take_back, back)
        if none:
            raise refused[0]
        return results

    async def _named(self, together: bool) -> list[Named | StoreTrouble]:
        names: list[Named | StoreTrouble]
        how = (f",S={self._size},W={self._wire.octets}", self._size, together)
        if not self._quotas:
            names = await self._in_thread(self._at_once, self._gathered(), *how)
            return names
        # Its octets need not wait for others' turns, only its names do.
        await self._in_thread(self._file.make_durable, self._gathered())
        async with self._turns.at([target.path for target, _ in self._quotas]):
            names = await self._in_thread(self._file.give_names, *how)
        return names

    def _at_once(
        self, pieces: Sequence[bytes], ending: str, octets: int, together: bool
    ) -> list[Named | StoreTrouble]:
        """In a thread: one trip to it where nobody has to wait for a turn."""
        self._file.make_durable(pieces)
        return self._file.give_names(ending, octets, together)

    def abort(self) -> None:
        """Leave nothing behind."""
        if not self._over:
            self._over = self._given_up = True
            self._pending.clear()
            if not self._working:
                self._discard_later()

    def _discard_later(self) -> None:
        if self._file.exists:
            self._run_in_thread(self._file.discard).addErrback(
                lambda failure: log.failure("a file was left in tmp/", failure=failure)
            )

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        self._working = True
        try:
            return await self._run_in_thread(work, *args)
        finally:
            self._working = False
            if self._given_up:
                # While the thread was writing.
                self._discard_later()


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
