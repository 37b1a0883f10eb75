"""An open maildrop: what a session reads, removes and gives back, and what it has to renew meanwhile."""

from __future__ import annotations

import hashlib
import re
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import StoreTrouble
from ...interfaces import ILeasedMailbox, IMailbox, MaybeDeferred, MessageBody
from ...mail.listing import Listing
from ...mail.unique_ids import unique_id_is_valid
from ...net.threads import RunInThread
from .body import Ahead, ObjectBody, get_several
from .engine import Engine
from .lease import RENEWAL, Held, Lost
from .records import arrival_of, is_message_name, message_key, messages_prefix, uid_of

__all__ = ["Contents", "LeasedMailbox", "ObjectMailbox", "list_messages"]

log = Logger()

#: Seconds after which a renewal that failed is tried again.
RETRY: Final = 5.0

#: The name of a message that came here first: it is its unique-id.
_OURS = re.compile(r"[0-9a-f]{32}")


class Contents:
    """What a maildrop held when it was listed.

    The names of most messages are their unique-ids; only others are kept beside them.

    :param names: of the messages' objects, sorted.
    :param octets: of the messages, in the same order.
    """

    __slots__ = ("_others", "_places", "listing")

    def __init__(self, names: Sequence[str], octets: Sequence[int]) -> None:
        self._others = {at: name for at, name in enumerate(names) if not _OURS.fullmatch(name)}
        uids = [name.encode("ascii") for name in names]
        if self._others:
            taken = set(uids).difference(uids[at] for at in self._others)
            for at, name in self._others.items():
                uids[at] = uid = _unique_id(name, taken)
                taken.add(uid.lower())
        self._places: dict[bytes, int] | None = None
        self.listing = Listing.of_columns(uids, octets, self._arrived)

    def name(self, at: int) -> str:
        """The name of the message at this place in the listing."""
        return self._others.get(at) or self.listing.uids[at].decode("ascii")

    def _arrived(self, at: int) -> float:
        return arrival_of(self.name(at))

    def place(self, uid: bytes) -> int:
        """The place of a message in the listing.

        :param uid: its unique-id.
        """
        uids = self.listing.uids
        if not self._others:
            # They are sorted.
            return bisect_left(uids, uid)
        if self._places is None:
            self._places = {uid: at for at, uid in enumerate(uids)}
        return self._places[uid]


def _unique_id(name: str, taken: set[bytes]) -> bytes:
    """The unique-id of a message with one from elsewhere, or a hash in place of one that will not do.

    Whoever brings messages here sees to it that no two have the same: when the other one is gone, it is
    given again.

    :param taken: unique-ids of other messages in lower case (RFC 1939 section 7).
    """
    uid = uid_of(name)
    if uid.lower() in taken or not unique_id_is_valid(uid):
        # No other message has its name.
        uid = hashlib.sha256(name.encode("ascii")).hexdigest()[:40].encode("ascii")
    return uid


def list_messages(engine: Engine, drop: str) -> Contents:
    """What a maildrop holds; blocks.

    :raises pop3toy.errors.StoreTrouble: if that cannot be told as a whole.
    """
    found, strange = [], 0
    for one in engine.each(messages_prefix(drop)):
        if is_message_name(one.name):
            found.append((one.name, one.octets))
        else:
            strange += 1
    found.sort()
    if strange:
        log.warn("maildrop {drop}: {count} objects in it are no messages of ours", drop=drop, count=strange)
    return Contents([name for name, _ in found], array("Q", [octets for _, octets in found]))


@implementer(IMailbox)
class ObjectMailbox:
    """A maildrop that is looked at.

    :param run: where messages are fetched.
    """

    read_only = True

    def __init__(self, engine: Engine, drop: str, contents: Contents, run: RunInThread) -> None:
        self.entries = contents.listing
        self._engine = engine
        self._drop = drop
        self._contents = contents
        self._run = run
        entries = self.entries
        self._ahead = Ahead(self._fetch, self._fetch_several, entries.each.__getitem__, len(entries))

    def _key(self, at: int) -> str:
        return message_key(self._drop, self._contents.name(at))

    def _fetch(self, at: int, start: int, length: int) -> Deferred[bytes]:
        return self._run(self._engine.get_range, self._key(at), start, length)

    def _fetch_several(
        self, wanted: Mapping[int, int], given_up: Callable[[], bool]
    ) -> Deferred[list[bytes | Exception]]:
        keys = [(self._key(at), octets) for at, octets in wanted.items()]
        return self._run(get_several, self._engine, keys, given_up)

    def read(self, uid: bytes) -> MessageBody:
        """See :class:`~pop3toy.interfaces.IMailbox`: nothing is asked before the first chunk."""
        at = self._contents.place(uid)
        return ObjectBody(at, self.entries.each[at], self._ahead)

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """Refused."""
        raise StoreTrouble(detail="a maildrop that is only looked at")

    def release(self) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.IMailbox`."""
        self._ahead.close()
        return None


@implementer(ILeasedMailbox)
class LeasedMailbox(ObjectMailbox):
    """A maildrop that a session holds by its lease.

    :param held: the lease.
    :param clock: for renewals.
    :param leases: where the lease is renewed and given back, behind no other work.
    :param abandoned: is given a lease of which it is not known whether it was given back.
    """

    read_only = False

    def __init__(
        self,
        engine: Engine,
        drop: str,
        contents: Contents,
        run: RunInThread,
        *,
        held: Held,
        clock: IReactorTime,
        leases: RunInThread,
        abandoned: Callable[[Held], object],
    ) -> None:
        super().__init__(engine, drop, contents, run)
        self._held = held
        self._clock = clock
        self._leases = leases
        self._abandoned = abandoned
        # One change of the lease at a time: each needs to know what came of the one before.
        self._changes = DeferredLock()
        # A removal has several threads.
        self._keeping = threading.Lock()
        self._tell: Callable[[str], object] | None = None
        self._why_lost: str | None = None
        self._released: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._wait(RENEWAL)

    # -- the lease ---------------------------------------------------------------------

    def when_lost(self, call: Callable[[str], object]) -> None:
        """See :class:`~pop3toy.interfaces.ILeasedMailbox`."""
        self._tell = call
        if self._why_lost is not None:
            self._clock.callLater(0, call, self._why_lost)

    def _wait(self, seconds: float) -> None:
        """Look after the lease in so many seconds, and when it is over."""
        self._stop_waiting()
        left = self._held.until - self._clock.seconds()
        self._timer = self._clock.callLater(max(min(seconds, left), 0), self._look_after)

    def _stop_waiting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _look_after(self) -> None:
        if self._clock.seconds() >= self._held.until:
            # Also while a request for a renewal is without an answer.
            self._is_lost("the lease could not be renewed")
            return
        self._wait(RENEWAL)
        if not self._changes.locked:
            self._changes.run(self._leases, self._held.renew).addCallbacks(self._renewed, self._not_renewed)

    def _renewed(self, _: object) -> None:
        if self._timer is not None:
            self._wait(RENEWAL)

    def _not_renewed(self, why: Failure) -> None:
        if why.check(Lost):
            self._is_lost("somebody else has taken the lease")
            return
        if why.check(StoreTrouble) is None:
            log.failure("renewing the lease of maildrop {drop}", why, drop=self._drop)
        if self._timer is not None:
            self._wait(RETRY)

    def _is_lost(self, why: str) -> None:
        self._stop_waiting()
        self._ahead.close()
        if self._released is None and self._why_lost is None:
            self._why_lost = why
            if self._tell is not None:
                self._tell(why)

    # -- the end -----------------------------------------------------------------------

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.IMailbox`: first the lease is renewed, if it is ours still."""
        if not uids:
            return None
        if self._why_lost is not None:
            raise StoreTrouble(detail=f"{self._why_lost}: nothing was removed")
        keys = [self._key(self._contents.place(uid)) for uid in uids]
        removing: Deferred[None] = self._changes.run(self._run, self._remove, keys)
        return removing

    def _remove(self, keys: Sequence[str]) -> None:
        try:
            self._keep(anew=True)
            self._engine.delete(keys, self._delete)
        except StoreTrouble as error:
            error.detail = f"{error.detail}; of {len(keys)} messages {error.removed} are known to be removed"
            raise

    def _keep(self, *, anew: bool = False) -> None:
        """See that the lease lasts for a while.

        :param anew: begin it anew, whether that is due or not.
        :raises pop3toy.errors.StoreTrouble: if it is not ours any more, or that is not known.
        """
        with self._keeping:
            try:
                self._held.keep()
                if anew:
                    self._held.renew()
            except Lost:
                raise StoreTrouble(detail="the lease is another's by now, or over") from None

    def _delete(self, keys: Sequence[str]) -> None:
        """In one of several threads: one request."""
        self._keep()
        asked = self._clock.seconds()
        try:
            self._engine.delete(keys)
        except StoreTrouble:
            if not self._held.prompt(asked):
                raise
            # What was carried out is so twice.
            self._keep()
            self._engine.delete(keys)

    def release(self) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.IMailbox`: fires when the lease is free, or not ours to free."""
        if self._released is not None:
            # Who asks twice waits for the same.
            again: Deferred[None] = Deferred()
            self._released.addBoth(lambda _: again.callback(None))
            return again
        self._stop_waiting()
        super().release()
        freeing: Deferred[None] = self._changes.run(self._leases, self._held.free)
        self._released = freeing.addErrback(self._not_freed)
        return self._released

    def _not_freed(self, why: Failure) -> None:
        if why.check(StoreTrouble) is None:
            log.failure("giving back the lease of maildrop {drop}", why, drop=self._drop)
        self._abandoned(self._held)
