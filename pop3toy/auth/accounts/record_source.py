"""Looks for users in records, at a login.

In the storage an account's look costs one request at a login that succeeds.  A name that nobody has costs
:data:`REQUESTS`, and so does every refusal, so that the time does not tell which users there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Concatenate, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clock import steady
from ...errors import StoreTrouble
from ...interfaces import MaybeDeferred
from ..credentials import Unknown
from ..maybe_deferred import maybe_deferred, resolved
from .hashing_queue import HashingQueue
from .passwd_file import Account
from .records import AccountRecords, AccountsInRecords, KnownFacts, Record

__all__ = ["RecordSource"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Seconds for which what is known of all users counts.
KEPT: Final = 30.0
#: Seconds for which a record that was found at the beginning of a login counts until its end.
FRESH: Final = 5.0
#: Requests that a look for a name costs that nobody has, and every refusal: as it is written, its other
#: spellings, and one of these.
REQUESTS: Final = 3


@dataclass(frozen=True)
class _Found:
    """What a look has found, and when."""

    record: Record | None
    account: Account | None
    since: float
    #: Requests that a look would have cost more if there were no such user.
    owed: int = 0


class _Name(str):
    """An account's name with what was found of it: a login asks once."""

    __slots__ = ("found",)
    found: _Found

    @classmethod
    def of(cls, name: str, found: _Found) -> _Name:
        made = cls(name)
        made.found = found
        return made


class RecordSource:
    """Looks for users in records, as the checker asks for them (``checker.UserSource``).

    Asks nothing before it is asked, and knows nothing then: until what is known of all users was read once,
    none of the mechanisms is announced that do not work with every kind of password (APOP, CRAM-MD5, SCRAM).

    :param queue: where the storage is asked: of threads for this alone, since it may be slow.
    :param clock: tells the time.
    """

    in_doubt = False
    _log = Logger()

    def __init__(self, records: AccountRecords, queue: HashingQueue, clock: IReactorTime) -> None:
        self.where = f"accounts in {records.where}"
        self._records = records
        self._place = AccountsInRecords(records)
        self._queue = queue
        self._clock = steady(clock)
        self._facts: KnownFacts | None = None
        #: When they were read, or asked for.
        self._since = 0.0
        self._waiting: list[Deferred[KnownFacts]] | None = None
        self._told = False

    @property
    def facts(self) -> KnownFacts:
        """What is known of all users; read again later, if that was long ago."""
        self._look_again()
        return self._facts if self._facts is not None else KnownFacts()

    def begin(self) -> None:
        """Read what is known of all users, for those who come."""
        self._read().addErrback(lambda why: None)

    def _look_again(self) -> None:
        if self._waiting is None and (self._facts is None or self._clock.seconds() - self._since >= KEPT):
            self._read().addErrback(lambda why: None)

    def _read(self) -> Deferred[KnownFacts]:
        turn: Deferred[KnownFacts] = Deferred()
        if self._waiting is not None:
            self._waiting.append(turn)
            return turn
        self._waiting = [turn]
        try:
            reading = self._queue.run(self._read_facts)
        except StoreTrouble:
            self._tell_waiting(Failure())
        else:
            reading.addCallbacks(self._take, self._not_read).addBoth(self._tell_waiting)
        return turn

    def _read_facts(self) -> KnownFacts:
        return KnownFacts.decoded(self._records.facts())

    def _take(self, facts: KnownFacts) -> KnownFacts:
        self._facts, self._since = facts, self._clock.seconds()
        if facts.dummy_key is None and not self._told:
            self._told = True
            self._log.warn("{where}: there are no users yet", where=self.where)
        return facts

    def _not_read(self, why: Failure) -> Failure:
        if why.check(StoreTrouble) is None:
            self._log.failure("{where}: a bug", why, where=self.where)
            return Failure(StoreTrouble(detail=why.getErrorMessage()))
        return why

    def _tell_waiting(self, outcome: KnownFacts | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        for turn in waiting:
            turn.callback(outcome)

    # -- a user ------------------------------------------------------------------------

    def look(
        self,
        user: str,
        function: Callable[Concatenate[KnownFacts, Account | None, _P], MaybeDeferred[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> MaybeDeferred[_T]:
        """Call with what is known of all, and the account of exactly this name.

        :raises pop3toy.errors.StoreTrouble: (or fails with) if that cannot be read now.
        """
        self._look_again()
        found = self._known(user)
        if self._facts is not None and found is not None:
            return function(self._facts, found.account, *args, **kwargs)
        return self._look(user, found, function, *args, **kwargs)

    @maybe_deferred
    async def _look(
        self,
        user: str,
        found: _Found | None,
        function: Callable[Concatenate[KnownFacts, Account | None, _P], MaybeDeferred[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        facts = self._facts if self._facts is not None else await self._read()
        if found is None:
            found = await self._queue.run(self._get, user)
        return await resolved(function(facts, found.account, *args, **kwargs))

    def find_name(self, name: str) -> MaybeDeferred[str | None]:
        """The user's name as it is kept, however it is spelled."""
        return self._queue.run(self._find, name)

    def sure_of(self, user: str) -> bool:
        """True: a record is whole."""
        return True

    def is_current(self, facts: object) -> bool:
        """True: what was found of a user says which password was checked."""
        return True

    def even_out(self, user: str) -> MaybeDeferred[None]:
        """Ask what is left to be asked, for nothing."""
        owed = user.found.owed if isinstance(user, _Name) else 0
        return self._queue.run(self._spend, owed) if owed else None

    def accepted(self, user: str) -> None:
        """Whoever opens the user's mailbox gets the record that was just found."""
        found = self._known(user)
        if found is not None and found.record is not None:
            self._records.remember(found.record)

    def edit(self, user: str, change: Callable[[bytes], bytes]) -> None:
        """Change the user's line.  Blocks."""
        self._place.edit(user, change)

    def note_use(self, user: str, name: str, day: str) -> None:
        """Take down, in the user's record, that an app password was used.  Blocks."""
        self._place.note_use(user, name, day)

    def _known(self, user: str) -> _Found | None:
        """What is known of a user without a look."""
        if isinstance(user, Unknown):
            return _Found(None, None, self._clock.seconds())
        if isinstance(user, _Name) and self._clock.seconds() - user.found.since <= FRESH:
            return user.found
        return None

    # In threads.

    def _get(self, login: str) -> _Found:
        record, account = self._place.get(login)
        return _Found(record, account, self._clock.seconds())

    def _find(self, name: str) -> str | None:
        found = self._get(name)
        if found.account is not None:
            return _Name.of(name, replace(found, owed=REQUESTS - 1))
        spelled = self._place.spelled(name)
        others = [other for other in map(self._get, spelled) if other.account is not None]
        self._spend(1 - len(spelled))
        if len(others) != 1 or others[0].account is None:
            return None
        return _Name.of(others[0].account.name, others[0])

    def _spend(self, requests: int) -> None:
        for _ in range(requests):
            # No user is called so.
            self._records.get("")
