"""Mail that is too old is removed by the server, four times a day: what ``EXPIRE n`` in CAPA announces.

So is what clients have removed and is kept aside for so many days.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ...clock import steady
from ...errors import InUse, NoSuchMailbox, Refusal
from ...interfaces import IMailStore, IRemovedMessages, IStoreAdmin
from ...net.threads import RunInThread
from ...stores.expiring import DAY, Rule, expired, forgotten, remove_expired

__all__ = ["FIRST", "INTERVAL", "Expiry"]

log = Logger()

#: Seconds from the start to the first round: mail programs come first.
FIRST: Final = 60.0

#: Seconds from the end of a round to the next.
INTERVAL: Final = 6 * 3600.0


class Expiry(Service):
    """Goes round all mailboxes, one after the other, and removes what came more than so many days ago.

    What was removed before is forgotten in the same round.

    A mailbox is looked at without its lock, and opened only if there is something to remove.  One that a
    session has open is left to the next round.

    :param store: opens mailboxes, with their lock.
    :param admin: lists them.
    :param days: that a message stays; ``None`` until a client removes it.
    :param run_in_thread: where ``admin`` is asked.
    :param undo_days: that a removed message is kept, by an ``admin`` that is an ``IRemovedMessages``;
        ``None`` lets alone what is kept, as by a server that was started beside the one that keeps it.
    :param users: whose mailboxes; ``None`` for all that ``admin`` knows.
    :param wall: the time of day, in seconds since the epoch.
    """

    def __init__(
        self,
        store: IMailStore,
        admin: IStoreAdmin,
        days: int | None,
        run_in_thread: RunInThread,
        clock: IReactorTime,
        *,
        undo_days: int | None = None,
        users: Sequence[str] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._admin = admin
        self._days = days
        self._undo_days = undo_days
        self._run_in_thread = run_in_thread
        self._clock = steady(clock)
        self._users = users
        self._wall = wall
        self._next: IDelayedCall | None = None
        self._round: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin in a minute."""
        super().startService()
        self._next = self._clock.callLater(FIRST, self._begin)

    def stopService(self) -> Deferred[None]:
        """Begin with no other mailbox.

        :return: a Deferred that fires when the one that is being looked at is free.
        """
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        done: Deferred[None] = Deferred()
        self._round.addCallback(done.callback)
        return done

    def _begin(self) -> None:
        self._next = None
        self._round = Deferred.fromCoroutine(self._go_round())
        self._round.addErrback(lambda why: log.failure("removing old mail", why)).addCallback(self._ended)

    def _ended(self, _: object) -> None:
        if self.running:
            self._next = self._clock.callLater(INTERVAL, self._begin)

    async def _go_round(self) -> None:
        users = self._users
        if users is None:
            try:
                users = await self._run_in_thread(self._admin.users)
            except Refusal as error:
                log.warn("no old mail is removed: {why}", why=error.detail or error.text)
                return
        for user in users:
            if not self.running:
                return
            try:
                await self._one(user)
            except (InUse, NoSuchMailbox):
                # The next round comes; or there is nothing.
                pass
            except Refusal as error:
                log.warn("old mail of {user!r}: {why}", user=user, why=error.detail or error.text)
            except Exception:
                log.failure("old mail of {user!r}", user=user)

    async def _one(self, user: str) -> None:
        now = self._wall()
        if self._days is not None:
            await self._expire(user, self._days, now)
        if self.running and self._undo_days is not None:
            before = forgotten(self._undo_days, now)
            keeping = cast(IRemovedMessages, self._admin)
            left: list[str] = []
            removed, octets = await self._run_in_thread(keeping.forget, user, before, left.append)
            for why in left:
                log.warn("old mail of {user!r}: {why}", user=user, why=why)
            if removed:
                log.info(
                    "removed for good: user={user!r} removed={removed} octets={octets} days={days}",
                    user=user,
                    removed=removed,
                    octets=octets,
                    days=self._undo_days,
                )

    async def _expire(self, user: str, days: int, now: float) -> None:
        rule = Rule(older_than=days * DAY)
        if not expired(await self._run_in_thread(self._admin.list, user), rule, now):
            return
        if not self.running:
            return
        removed, octets = await remove_expired(self._store, user, rule, now)
        log.info(
            "expired: user={user!r} removed={removed} octets={octets} days={days}",
            user=user,
            removed=removed,
            octets=octets,
            days=days,
        )
