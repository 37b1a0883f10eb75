"""The lock of a maildrop among servers that share nothing but the object storage: a lease.

An object says who has the maildrop.  It changes by compare-and-swap alone, and no two of its versions are
alike, so that a request which is late changes nothing that somebody else has changed before.  A lease lasts
for :data:`TTL` seconds from the moment at which its last change was asked for, by the holder's clock that
only goes forward; others take it over :data:`MARGIN` seconds later, by the age that the storage's clock
gives it.  A holder who comes to himself after a long pause finds it over, or finds another's.

What a dead process held is taken at once where its death is certain: the supervisor of several workers
has seen one of them end, or the server was started anew under its name.  What such a process has asked for
may reach the storage later: a change of the lease does nothing any more when another has changed it, and a
removal takes what its own user had marked.

An answer that is lost leaves open whether a change was made.  So after each error the object is looked at:
a nonce is written by one session alone, and a number by one request alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from ...errors import InUse, NoSuchMailbox, StoreTrouble
from ..server_process import ServerProcess
from .engine import Engine, Engines, NoSuchObject, Tag, Taken
from .records import lease_key

__all__ = [
    "FREE",
    "GONE",
    "HELD",
    "MARGIN",
    "PROMPT",
    "RENEWAL",
    "TTL",
    "Held",
    "Lease",
    "Leases",
    "Lost",
    "Node",
    "create_lease",
    "may_take",
    "mend_lease",
]

#: Seconds for which a lease lasts after its last change was asked for.
TTL: Final = 60.0
#: Seconds after that for which nobody else takes it: clocks differ, and storage may tell whole seconds.
MARGIN: Final = 15.0
#: Seconds between renewals.
RENEWAL: Final = 20.0

#: Seconds after which storage that has not answered is not asked once more by who is waited for.
PROMPT: Final = 5.0

#: Times that a change is tried whose lease is another version than was seen.
TRIES: Final = 3

#: The states: somebody has it; nobody has; the maildrop is removed, for good.
HELD, FREE, GONE = "held", "free", "gone"


class Lost(Exception):
    """The lease is another's, or is not there any more."""


class Node(NamedTuple):
    """A server among those that share the storage."""

    #: Which no other has; empty if it was given none.
    name: str
    #: The one of its processes that takes leases here.
    process: ServerProcess


class Lease(NamedTuple):
    """What the object says."""

    state: str
    #: Written by one session alone.
    nonce: str
    #: One more at each try of a change.
    seq: int
    #: See :class:`Node`, and :class:`~pop3toy.stores.server_process.ServerProcess`.
    node: str = ""
    boot: str = ""
    worker: int = 0
    process: int = 0

    def encoded(self) -> bytes:
        """As it is kept."""
        return json.dumps(self._asdict()).encode("ascii")

    @classmethod
    def decoded(cls, body: bytes) -> Lease:
        """Read it.

        :raises pop3toy.errors.StoreTrouble: if it is none.
        """
        try:
            # A server that was not updated yet says nothing of its processes.
            said = {"worker": 0, "process": 0} | json.loads(body)
            lease = cls(*(said[name] for name in cls._fields))
            if lease.state not in (HELD, FREE, GONE) or [*map(type, lease)] != _TYPES:
                raise ValueError
        except (ValueError, LookupError, TypeError, RecursionError):
            raise StoreTrouble(detail="the lease of a maildrop cannot be read") from None
        return lease


#: Of a lease's values; ``bool`` is none of them.
_TYPES: Final = [str, str, int, str, str, int, int]


def may_take(lease: Lease, age: float, node: Node) -> bool:
    """Whether a lease that somebody holds may be taken over.

    :param lease: that is held.
    :param age: seconds since its last change, by the storage's clock.
    :param node: who asks: what this server held before it was started anew is nobody's, and what those of its
        processes hold that are dead.
    """
    if lease.boot == node.process.boot:
        if node.process.is_dead(lease.worker, lease.process):
            return True
    elif node.name and lease.node == node.name:
        return True
    return age >= TTL + MARGIN


class _Seen(NamedTuple):
    """A version of the object."""

    lease: Lease
    tag: Tag
    modified: float


def _look(engine: Engine, key: str) -> _Seen:
    found = engine.get(key)
    return _Seen(Lease.decoded(found.body), found.tag, found.modified)


def create_lease(engine: Engine, drop: str) -> None:
    """Make the lease of a new maildrop, which nobody has; blocks.  It may be there already.

    :raises pop3toy.errors.StoreTrouble: if that is not known to be done.
    """
    try:
        engine.create(lease_key(drop), Lease(FREE, secrets.token_hex(8), 0).encoded())
    except Taken:
        pass


def mend_lease(engine: Engine, drop: str) -> bool:
    """Make the lease of a maildrop anew if it is lost, cannot be read or says that there is none; blocks.

    Whoever holds the former one finds it lost, and removes nothing.

    :param drop: which some user has.
    :return: whether that was needed.
    :raises pop3toy.errors.StoreTrouble: if that is not known to be done.
    """
    try:
        found = engine.get(lease_key(drop))
    except NoSuchObject:
        create_lease(engine, drop)
        return True
    with suppress(StoreTrouble):
        if Lease.decoded(found.body).state != GONE:
            return False
    try:
        engine.swap(lease_key(drop), Lease(FREE, secrets.token_hex(8), 0).encoded(), found.tag)
    except Taken:
        raise StoreTrouble(detail="the lease is another one by now") from None
    return True


class Held:
    """A lease that a session holds, or may hold.  What it does blocks, and is done one after the other.

    :param lease: what was written.
    :param tag: of the version that is known.
    :param asked: when it was asked for, by ``seconds``.
    """

    def __init__(
        self, engine: Engine, key: str, lease: Lease, tag: Tag, asked: float, seconds: Callable[[], float]
    ) -> None:
        self.nonce = lease.nonce
        self._engine = engine
        self._key = key
        self._lease = lease
        self._tag = tag
        self._asked = asked
        self._seconds = seconds

    def prompt(self, asked: float) -> bool:
        """Whether storage that was asked then has failed so soon that it may be asked once more.

        :param asked: by the clock of the lease.
        """
        return self._seconds() - asked < PROMPT

    @property
    def until(self) -> float:
        """When it is over unless it is renewed, by the clock that only goes forward."""
        return self._asked + TTL

    def renew(self) -> None:
        """Begin anew.

        :raises Lost: if it is another's.
        :raises pop3toy.errors.StoreTrouble: if that is not known to be done; then it lasts as long as before.
        """
        self._change(HELD)

    def keep(self) -> None:
        """Renew it if that is due; what takes long asks now and then.

        :raises Lost: and StoreTrouble, as :meth:`renew` does; Lost also if it is over.
        """
        now = self._seconds()
        if now >= self.until:
            raise Lost
        if now >= self._asked + RENEWAL:
            self.renew()

    def free(self) -> None:
        """Give it back, if it is ours still; a request of ours that is late does nothing any more.

        :raises pop3toy.errors.StoreTrouble: if that is not known to be done; try again.
        """
        try:
            self._change(FREE)
        except Lost:
            pass

    def bury(self) -> None:
        """Say for good that there is no such maildrop any more.

        :raises Lost: if it is another's.
        :raises pop3toy.errors.StoreTrouble: if that is not known to be done; try again.
        """
        self._change(GONE)

    def _change(self, state: str) -> None:
        for _ in range(TRIES):
            # A number is used once, done or not: else an older request could pass for a newer one.
            self._lease = wanted = self._lease._replace(state=state, seq=self._lease.seq + 1)
            asked = self._seconds()
            trouble: StoreTrouble | None = None
            try:
                self._tag = self._engine.swap(self._key, wanted.encoded(), self._tag)
                self._asked = asked
                return
            except Taken:
                pass
            except StoreTrouble as error:
                if not self.prompt(asked):
                    # It hangs, and a client waits.  The next change finds out what came of this one.
                    raise
                trouble = error
            try:
                found = _look(self._engine, self._key)
            except NoSuchObject:
                raise Lost from None
            if found.lease.nonce != self.nonce:
                if trouble is not None and found.tag == self._tag:
                    # Not ours yet: what was asked for when it was taken may be under way still.
                    raise trouble
                raise Lost
            # Ours: of this try, or of an earlier one that was late.
            self._tag = found.tag
            if found.lease == wanted:
                self._asked = asked
                return
            if found.lease.state != HELD:
                # An earlier try has ended it.
                if found.lease.state == state:
                    return
                raise Lost
            if trouble is not None:
                raise trouble
        raise StoreTrouble(detail="a lease is another one all the while")


class Leases:
    """Leases as one server takes them.  What it does blocks, in any thread.

    :param times: tells how old a lease is.
    :param node: who we are.
    :param seconds: a clock that only goes forward, also while the process is stopped.
    """

    def __init__(self, times: Engines, node: Node, seconds: Callable[[], float]) -> None:
        self._times = times
        self._node = node
        self._seconds = seconds
        #: Nonces of leases that this server may have written and that no session of it holds.
        self.abandoned: set[str] = set()

    def acquire(
        self, engine: Engine, drop: str, unknown: Callable[[Held], object] = lambda held: None
    ) -> Held:
        """Take the lease of a maildrop.

        :param unknown: is given what may be ours though this fails, to be freed when that can be done.
        :raises pop3toy.errors.InUse: if somebody has it.
        :raises pop3toy.errors.NoSuchMailbox: if the maildrop was removed.
        :raises pop3toy.errors.StoreTrouble: if that is not known, or there is no lease.
        """
        key = lease_key(drop)
        try:
            seen = _look(engine, key)
            for _ in range(TRIES):
                self._judge(seen)
                lease = self._of_ours(seen.lease.seq + 1)
                held = Held(engine, key, lease, seen.tag, self._seconds(), self._seconds)
                try:
                    held._tag = engine.swap(key, lease.encoded(), seen.tag)
                    return held
                except (Taken, StoreTrouble) as error:
                    seen = self._look_after(error, held, unknown)
                if seen.lease == lease:
                    held._tag = seen.tag
                    return held
        except NoSuchObject:
            raise StoreTrouble(detail=f"maildrop {drop} has no lease") from None
        raise InUse

    def _of_ours(self, seq: int) -> Lease:
        """What to write to have it."""
        process = self._node.process
        return Lease(
            HELD,
            secrets.token_hex(8),
            seq,
            node=self._node.name,
            boot=process.boot,
            worker=process.worker,
            process=process.number,
        )

    def _look_after(
        self, error: Taken | StoreTrouble, held: Held, unknown: Callable[[Held], object]
    ) -> _Seen:
        """What there is after a request of which it is not known what it did; it may do nothing later."""
        try:
            seen = _look(held._engine, held._key)
            if isinstance(error, Taken) or seen.lease.nonce == held.nonce:
                return seen
            # It may be under way still: with another version in its place it does nothing.
            held.free()
        except StoreTrouble:
            unknown(held)
            if isinstance(error, Taken):
                raise
        raise error

    def _judge(self, seen: _Seen) -> None:
        """Refuse what may not be taken.

        :raises pop3toy.errors.InUse: see :meth:`acquire`.
        """
        lease = seen.lease
        if lease.state == GONE:
            raise NoSuchMailbox(detail="the maildrop was removed")
        if lease.state == FREE or lease.nonce in self.abandoned:
            return
        self._times.learn_time()
        if not may_take(lease, self._times.wall() - seen.modified, self._node):
            raise InUse
