"""Maildrops in object storage as a store: opening them, and giving back leases that nobody knows to be free.

A maildrop is opened in a thread: the user's record, the lease, and only then a listing, so that nothing that
somebody else removes is in it.  What a session does with it is in ``mailbox``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...clock import steady
from ...errors import Refusal, StoreTrouble
from ...interfaces import ICancellableStore, IMailbox, IViewableStore
from ...net.threads import RunInThread
from .engine import Engine, Engines
from .lease import MARGIN, TTL, Held, Leases, Node
from .mailbox import Contents, LeasedMailbox, ObjectMailbox, list_messages
from .records import UserRecord

__all__ = ["Node", "ObjectStore"]

log = Logger()

#: Seconds after which it is tried for the first time to free a lease that may be held by nobody; then
#: twice as many each time.
FIRST_TRY: Final = 1.0


class Users(Protocol):
    """What :class:`~pop3toy.stores.objects.users.Users` is for a store."""

    def find(self, login: str) -> UserRecord:
        """The record of a user with a maildrop; blocks."""


class _Opened:
    """What a thread has opened."""

    __slots__ = ("contents", "engine", "held", "record")

    def __init__(self, record: UserRecord, engine: Engine, held: Held, contents: Contents) -> None:
        self.record, self.engine, self.held, self.contents = record, engine, held, contents


@implementer(ICancellableStore, IViewableStore)
class ObjectStore:
    """The maildrops of all users, an :class:`~pop3toy.interfaces.IMailStore`.

    :param engines: the object storage.
    :param users: tells where a user's maildrop is.
    :param clock: for renewals.
    :param node: which server this is.
    :param run_for: where one user's work is done: ``run_for(user)``.  It must not end before its thread
        does (``within``): a lease may come of it.
    :param leases: where leases of a bucket are renewed and given back, ``leases(bucket)``: so that neither a
        flood of other work nor another bucket that hangs delays that.
    """

    def __init__(
        self,
        engines: Engines,
        users: Users,
        clock: IReactorTime,
        node: Node,
        *,
        run_for: Callable[[str], RunInThread],
        leases: Callable[[str], RunInThread],
    ) -> None:
        self._engines = engines
        self._users = users
        self._clock = steady(clock)
        self._run_for = run_for
        self._lease_threads_of = leases
        self._leases = Leases(engines, node, self._clock.seconds)

    def open(self, user: str) -> Deferred[IMailbox]:
        """See :class:`~pop3toy.interfaces.IMailStore`; it may be cancelled.

        :param user: whose maildrop.
        :raises pop3toy.errors.InUse: (fails with) if another session has it, on any server.
        :raises pop3toy.errors.NoSuchMailbox: (fails with) if there is none and it may not be made.
        :raises pop3toy.errors.StoreTrouble: (fails with) if the storage does not do it.
        """
        given_up = Event()
        unknown: list[tuple[Held, str]] = []

        def opened(result: _Opened | Failure) -> None:
            for held, bucket in unknown:
                self._abandon(bucket, held)
            if isinstance(result, Failure):
                if not given_up.is_set():
                    opening.errback(result)
                elif result.check(Refusal) is None:
                    log.failure("opening the maildrop of {user!r}, whose session has gone", result, user=user)
                return
            mailbox = self._mailbox(user, result)
            if given_up.is_set():
                mailbox.release()
            elif self._clock.seconds() >= result.held.until:
                mailbox.release()
                opening.errback(StoreTrouble(detail="the lease was over when the maildrop was listed"))
            else:
                opening.callback(mailbox)

        def give_up(opening: Deferred[IMailbox]) -> None:
            given_up.set()
            opening.errback(Refusal("the client has gone"))

        opening: Deferred[IMailbox] = Deferred(give_up)
        self._run_for(user)(self._open, user, given_up.is_set, unknown.append).addBoth(opened)
        return opening

    def _open(
        self, user: str, given_up: Callable[[], bool], unknown: Callable[[tuple[Held, str]], object]
    ) -> _Opened:
        """In a thread: leaves no lease behind when it fails, but what it gives to ``unknown``."""

        def check() -> None:
            if given_up():
                raise Refusal("the client has gone")

        check()
        record = self._users.find(user)
        check()
        engine = self._engines.of(record.bucket)
        held = self._leases.acquire(engine, record.drop, lambda held: unknown((held, record.bucket)))
        try:
            check()
            contents = list_messages(engine, record.drop)
            check()
        except BaseException:
            try:
                held.free()
            except StoreTrouble:
                unknown((held, record.bucket))
            raise
        return _Opened(record, engine, held, contents)

    def _mailbox(self, user: str, opened: _Opened) -> LeasedMailbox:
        return LeasedMailbox(
            opened.engine,
            opened.record.drop,
            opened.contents,
            self._run_for(user),
            held=opened.held,
            clock=self._clock,
            leases=self._lease_threads_of(opened.record.bucket),
            abandoned=partial(self._abandon, opened.record.bucket),
        )

    def view(self, user: str) -> Deferred[IMailbox]:
        """See :class:`~pop3toy.interfaces.IViewableStore`."""
        run = self._run_for(user)

        def viewed() -> ObjectMailbox:
            record = self._users.find(user)
            engine = self._engines.of(record.bucket)
            return ObjectMailbox(engine, record.drop, list_messages(engine, record.drop), run)

        return run(viewed)

    # -- leases that may be held by nobody -----------------------------------------------

    def _abandon(self, bucket: str, held: Held) -> None:
        """Free a lease as soon as that can be done, as long as others may have to wait for it."""
        self._leases.abandoned.add(held.nonce)
        self._try_later(bucket, held, FIRST_TRY, self._clock.seconds() + TTL + MARGIN)

    def _try_later(self, bucket: str, held: Held, seconds: float, end: float) -> None:
        def tried(outcome: object) -> None:
            if not isinstance(outcome, Failure):
                self._leases.abandoned.discard(held.nonce)
                return
            if outcome.check(StoreTrouble) is None:
                log.failure("giving back a lease", outcome)
            self._try_later(bucket, held, seconds * 2, end)

        if self._clock.seconds() + seconds >= end:
            # Others take it by themselves then.
            self._leases.abandoned.discard(held.nonce)
            return
        in_thread = self._lease_threads_of(bucket)
        self._clock.callLater(seconds, lambda: in_thread(held.free).addBoth(tried))
