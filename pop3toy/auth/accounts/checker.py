"""The checker of accounts: slow hashes in threads, a failure equally long for everybody.

Where the accounts are is the business of a source: an accounts file (``watched``), or a record for each
user (``records``).  What is said of a user means the same in both (``passwd_file``), what a hash means
is in ``schemes``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Concatenate, NoReturn, ParamSpec, Protocol, TypeVar, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import StoreTrouble
from ...interfaces import Channel, MaybeDeferred
from ..app_passwords.kept import find as find_app_password
from ..credentials import AvatarId, ClearPassword, Credentials, MainPassword, account_name
from ..maybe_deferred import map_maybe_deferred, maybe_deferred, resolved
from ..sasl.cram import CramDigest
from ..sources import IAccountSource, make_dummy_verifier
from .hashing_queue import HashingQueue
from .passwd_file import Account, with_password_renewed
from .schemes import StoredPassword, make
from .success_cache import SuccessCache
from .verifier import ITERATIONS, Verifier, derive
from .watched import not_now

__all__ = ["AccountsChecker", "Facts", "UserSource", "utc_day"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: App passwords of which is remembered that their use was noted.
_MOST_NOTED = 100_000


def utc_day() -> str:
    """Today in UTC, as ``2026-11-30``."""
    return datetime.now(UTC).date().isoformat()


class Facts(Protocol):
    """What has to be known of all users, so that nobody sees of one user whether there is such a user.

    An accounts file has it by itself (:class:`~pop3toy.auth.accounts.passwd_file.Accounts`, which says
    what each means).
    """

    @property
    def dummy_passwords(self) -> Sequence[StoredPassword]:
        """One password of each slow kind."""

    @property
    def has_plaintext(self) -> bool:
        """Whether some password is kept in clear text."""

    @property
    def cram_contexts(self) -> bool:
        """Whether some password is kept for CRAM-MD5 alone."""

    @property
    def scram_hashes(self) -> frozenset[str]:
        """The hashes for which SCRAM can work for somebody."""

    @property
    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address."""

    @property
    def dummy_key(self) -> bytes | None:
        """A secret, from which SCRAM makes the salts of users that do not exist."""

    def scram_example(self, hash_name: str) -> tuple[int, int] | None:
        """Iterations and length of the salt (octets) of a verifier for this hash."""


class UserSource(Protocol):
    """Where accounts are kept, as the checker asks for them."""

    #: What it is called in the log.
    where: str

    @property
    def facts(self) -> Facts:
        """What is known of all users without a look."""

    @property
    def in_doubt(self) -> bool:
        """Whether the accounts are just being written, so that no refusal by them is certain."""

    def sure_of(self, user: str) -> bool:
        """Whether what is said of the user now can be relied on."""

    def is_current(self, facts: Facts) -> bool:
        """Whether no later look has found other accounts."""

    def look(
        self,
        user: str,
        function: Callable[Concatenate[Facts, Account | None, _P], MaybeDeferred[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> MaybeDeferred[_T]:
        """Call with what is known of all, and with the account that has exactly this name.

        :raises pop3toy.errors.StoreTrouble: (or fails with) if the accounts cannot be read.
        """

    def find_name(self, name: str) -> MaybeDeferred[str | None]:
        """See :meth:`IAccountSource.canonical_name`."""

    def even_out(self, user: str) -> MaybeDeferred[None]:
        """Take the time that a look for a user takes who is not there, if this one took less.

        Called before a refusal.
        """

    def accepted(self, user: str) -> None:
        """The user whom :meth:`look` found last may log in."""

    def edit(self, user: str, change: Callable[[bytes], bytes]) -> None:
        """Change the text in which the user's line stands.  Blocks."""

    def note_use(self, user: str, name: str, day: str) -> None:
        """Take down that an app password of a user was used on this day.  Blocks.

        :param day: as ``2026-11-30``.
        """


@implementer(ICredentialsChecker, IAccountSource)
class AccountsChecker:
    """A twisted.cred checker for the users of a source.

    :param source: makes it, given what to call when its accounts are other ones than before.
    :param queue: where slow checks are done.
    :param clock: tells how long a success is remembered.
    :param renew: write a better hash to the source when a user with an outdated one logs in.
    :param today: tells the day, as ``2026-11-30``.
    """

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    _log = Logger()

    def __init__(
        self,
        source: Callable[[Callable[[], None]], UserSource],
        queue: HashingQueue,
        clock: IReactorTime,
        *,
        renew: bool = False,
        today: Callable[[], str] = utc_day,
    ) -> None:
        self._today = today
        #: On which day the use of an app password was noted last.
        self._noted: dict[tuple[str, str], str] = {}
        #: On which day it was told last that a mechanism is not for a user's app passwords.
        self._told: dict[str, str] = {}
        self._cache = SuccessCache(clock)
        #: For which users it was found that what is kept for SCRAM is not the empty password's.
        self._not_empty = SuccessCache(clock, seconds=86400.0)
        self._source = source(self._cache.clear)
        self._queue = queue
        self._renew = renew
        self._key = secrets.token_bytes(32)
        self._renewing: set[str] = set()

    # -- twisted.cred ------------------------------------------------------------------

    def requestAvatarId(self, credentials: Credentials) -> AvatarId:
        """The user's name in UTF-8, if the credentials fit; at once or as a Deferred.

        :raises twisted.cred.error.UnauthorizedLogin: (or fails with) for bad
            credentials.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if the file cannot
            be read, is just being written, or too many logins wait.
        """
        return self._source.look(account_name(credentials), self._check, credentials)

    def _check(self, facts: Facts, account: Account | None, credentials: Credentials) -> MaybeDeferred[bytes]:
        if account is not None and not _login_allowed(account, getattr(credentials, "channel", None)):
            # Before anything is computed: the work that follows must not tell of
            # an account that may not log in whether the password is right.
            account = None
        check = partial(self._check_digest, facts, account, credentials)
        if IUsernamePassword.providedBy(credentials):
            check = partial(self._check_password, facts, account, cast(ClearPassword, credentials))
        if not self._source.in_doubt:
            return check()
        sure = self._source.sure_of(account_name(credentials))

        def judged(outcome: bytes | Failure) -> bytes | Failure:
            # With the same work for all users.  No login is refused as wrong, and a right one is accepted
            # only if the user's line is whole: else it may lack what bars the account.
            if not sure or (isinstance(outcome, Failure) and outcome.check(UnauthorizedLogin)):
                raise not_now("the accounts file is being written")
            return outcome

        return cast("Deferred[bytes]", maybeDeferred(check)).addBoth(judged)

    def _check_digest(
        self, facts: Facts, account: Account | None, credentials: Credentials
    ) -> MaybeDeferred[bytes]:
        has_others = account if account is not None and account.app_passwords else None
        if account is not None and account.app_passwords_only:
            # These mechanisms need the main password.
            account = None
        secret = account.password.secret if account is not None else None
        matches = (
            credentials.checkPassword(self._key if secret is None else secret) is True and secret is not None
        )
        if facts.cram_contexts and isinstance(credentials, CramDigest):
            # Done for every user too.
            kept = account.password.cram_md5 if account is not None else None
            fits = credentials.check_contexts(self._key if kept is None else kept)
            matches = matches or (fits and kept is not None)
        if account is None or not matches:
            if has_others is not None:
                self._cannot_use(has_others.name)
            return self._refuse(credentials)
        return self._let_in(account, credentials)

    def _cannot_use(self, user: str) -> None:
        """Tell, once a day, why the login of one who has app passwords failed, if it was with one of them."""
        day = self._today()
        if self._told.get(user) != day:
            if len(self._told) >= _MOST_NOTED:
                self._told.clear()
            self._told[user] = day
            self._log.warn(
                "{where}: {user} has app passwords, which APOP and CRAM-MD5 cannot use: let the mail program"
                " send the password, over TLS, or leave these two out of --mechanisms",
                where=self._source.where,
                user=user,
            )

    def _check_password(
        self, facts: Facts, account: Account | None, credentials: ClearPassword
    ) -> MaybeDeferred[bytes]:
        main_only = isinstance(credentials, MainPassword)
        # The same work for every user, a microsecond's.
        app = find_app_password(account.app_passwords if account is not None else (), credentials.password)
        if account is not None and app is not None and not main_only:
            self._note_use(account.name, app.name)
            return self._let_in(account, credentials, renew=False)
        if account is None or (account.app_passwords_only and not main_only):
            return self._refuse_after(facts.dummy_passwords, credentials)
        stored = account.password
        fits = stored.verify if stored.cheap else partial(self._cache.has, account.name, stored.encoded)
        if fits(credentials.password):
            return self._let_in(account, credentials)
        if stored.cheap:
            return self._refuse_after(facts.dummy_passwords, credentials)
        # One's own password takes the place of the dummy of its kind.
        dummies = [dummy for dummy in facts.dummy_passwords if dummy.cost != stored.cost]
        return self._compute(facts, account, dummies, credentials)

    @maybe_deferred
    async def _compute(
        self,
        facts: Facts,
        account: Account,
        dummies: Sequence[StoredPassword],
        credentials: ClearPassword,
    ) -> bytes:
        if not await self._queue.run(_judge, account.password, dummies, credentials.password):
            return await resolved(self._refuse(credentials))
        if self._source.is_current(facts):
            self._cache.add(account.name, account.password.encoded, credentials.password)
        return self._let_in(account, credentials)

    @maybe_deferred
    async def _refuse_after(self, dummies: Sequence[StoredPassword], credentials: ClearPassword) -> bytes:
        if dummies:
            await self._queue.run(_spend_time, dummies, credentials.password)
        return await resolved(self._refuse(credentials))

    def _refuse(self, credentials: Credentials) -> MaybeDeferred[bytes]:
        return map_maybe_deferred(self._source.even_out(account_name(credentials)), _refused)

    def _let_in(self, account: Account, credentials: Credentials, *, renew: bool = True) -> bytes:
        if renew and self._renew and IUsernamePassword.providedBy(credentials):
            self._consider_renewal(account, cast(ClearPassword, credentials).password)
        self._source.accepted(account_name(credentials))
        return account.name.encode("utf-8")

    # -- what SCRAM and deliveries ask ---------------------------------------------------

    def has_plaintext(self) -> bool:
        """Whether some user's password is kept in clear text, as far as is known without a look."""
        return self._source.facts.has_plaintext

    def cram_md5(self) -> bool:
        """Whether CRAM-MD5 can work for some user, as far as is known without a look."""
        facts = self._source.facts
        return facts.has_plaintext or facts.cram_contexts

    def scram_hashes(self) -> frozenset[str]:
        """The hashes with which SCRAM can work for some user, as far as is known without a look."""
        return self._source.facts.scram_hashes

    @maybe_deferred
    async def verifier(self, user: str, hash_name: str) -> Verifier | None:
        """What SCRAM needs to check a user; ``None`` if the user cannot use SCRAM."""
        found = await resolved(self._source.look(user, self._verifier, hash_name))
        # It is not known yet whether it will be a refusal.
        await resolved(self._source.even_out(user))
        return found

    def _verifier(
        self, facts: Facts, account: Account | None, hash_name: str
    ) -> MaybeDeferred[Verifier | None]:
        main = account if account is not None and not account.app_passwords_only else None
        secret = main.password.secret if main is not None else None
        kept = main.password.verifier(hash_name) if main is not None else None
        if kept is not None and main is not None:
            kept = replace(kept, is_empty=partial(self._is_empty, main.name, kept, hash_name))
        apps = self._app_verifiers(account) if account is not None and hash_name == "sha256" else ()
        if not facts.has_plaintext:
            return _together(kept, apps)
        # Some verifiers must be made from passwords.  The work is done for every user, so that
        # the time does not tell which.
        salted = self.dummy_verifier(account.name if account is not None else "", hash_name)
        if secret is not None and apps:
            salted = apps[0]
        made = self._queue.run(derive, secret or self._key, hash_name, salted.salt, salted.iterations)
        found: Deferred[Verifier | None] = made.addCallback(
            lambda verifier: _together(verifier if secret is not None else kept, apps)
        )
        return found

    def _app_verifiers(self, account: Account) -> Sequence[Verifier]:
        """What SCRAM needs for each of the user's app passwords."""
        return [
            replace(one.verifier, used=partial(self._note_use, account.name, one.name))
            for one in account.app_passwords
        ]

    @maybe_deferred
    async def _is_empty(self, user: str, kept: Verifier, hash_name: str) -> bool:
        if self._not_empty.has(user, kept.stored_key, b""):
            return False
        empty = await self._queue.run(kept.fits, b"", hash_name)
        if not empty:
            self._not_empty.add(user, kept.stored_key, b"")
        return empty

    def dummy_verifier(self, user: str, hash_name: str) -> Verifier:
        """What SCRAM shows of a user that does not exist."""
        facts = self._source.facts
        iterations, salt_length = facts.scram_example(hash_name) or (ITERATIONS, 16)
        return make_dummy_verifier(facts.dummy_key or self._key, user, hash_name, iterations, salt_length)

    def canonical_name(self, user: str) -> MaybeDeferred[str | None]:
        """See :class:`IAccountSource`."""
        return self._source.find_name(user)

    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address, as far as is known without a look."""
        return self._source.facts.has_addresses

    def find(self, user: str) -> MaybeDeferred[Account | None]:
        """A user's account, with its settings, or ``None``."""

        def look(facts: Facts, account: Account | None) -> Account | None:
            if self._source.in_doubt and not self._source.sure_of(user):
                raise not_now("the accounts file is being written")
            return account

        return self._source.look(user, look)

    def in_doubt(self) -> bool:
        """See :class:`IAccountSource`."""
        return self._source.in_doubt

    def login_allowed(self, user: str, channel: Channel | None) -> MaybeDeferred[bool]:
        """Whether the user's ``nologin`` and ``allow_nets`` let it in from here."""

        def look(facts: Facts, account: Account | None) -> bool:
            allowed = self._source.sure_of(user) and (account is None or _login_allowed(account, channel))
            if allowed:
                # The last that is asked of a user who has proven an identity.
                self._source.accepted(user)
            return allowed

        return self._source.look(user, look)

    # -- app passwords ---------------------------------------------------------------------

    def _note_use(self, user: str, name: str) -> None:
        """Take down that an app password was used, once a day, behind the login."""
        day = self._today()
        if self._noted.get((user, name)) == day:
            return
        try:
            noting = self._queue.run(self._source.note_use, user, name, day)
        except StoreTrouble:
            # Too busy: the next login will do.
            return
        if len(self._noted) >= _MOST_NOTED:
            self._noted.clear()
        # A failure counts too: once a day is enough to be told.
        self._noted[user, name] = day
        noting.addErrback(
            lambda why: self._log.warn(
                "{where}: the use of an app password of {user} could not be noted: {why}",
                where=self._source.where,
                user=user,
                why=why.getErrorMessage(),
            )
        )

    # -- renewal ---------------------------------------------------------------------------

    def _consider_renewal(self, account: Account, password: bytes) -> None:
        if account.name in self._renewing or not account.password.outdated:
            return
        try:
            renewing = self._queue.run(_renew, self._source, account, password)
        except StoreTrouble:
            # Too busy: the next login will do.
            return
        self._renewing.add(account.name)
        renewing.addCallbacks(self._renewed, self._not_renewed, callbackArgs=(account.name,))

    def _renewed(self, _: None, name: str) -> None:
        self._renewing.discard(name)
        self._log.info("{where}: password hash of {user} renewed", where=self._source.where, user=name)

    def _not_renewed(self, why: Failure) -> None:
        # The name stays in the set: once is enough to be told.
        self._log.warn(
            "{where}: a password hash could not be renewed: {why}",
            where=self._source.where,
            why=why.getErrorMessage(),
        )


def _login_allowed(account: Account, channel: Channel | None) -> bool:
    return account.login_allowed(channel.host if channel is not None else None)


def _together(main: Verifier | None, apps: Sequence[Verifier]) -> Verifier | None:
    """One verifier for all of a user's passwords that have the same salt."""
    first, *others = (*((main,) if main is not None else ()), *apps) or (None,)
    if first is None:
        return None
    same = (one for one in others if one and (one.salt, one.iterations) == (first.salt, first.iterations))
    together: Verifier = replace(first, others=tuple(same))
    return together


def _refused(_: None) -> NoReturn:
    raise UnauthorizedLogin


def _judge(stored: StoredPassword, dummies: Sequence[StoredPassword], password: bytes) -> bool:
    """In a thread: whether it fits; if not, the dummies take their time too."""
    if stored.verify(password):
        return True
    _spend_time(dummies, password)
    return False


def _spend_time(passwords: Sequence[StoredPassword], password: bytes) -> None:
    # The dummy may be the very account that is barred: even its own password
    # must be a wrong one here, because a failure takes a little longer.
    wrong = bytes(octet ^ 1 for octet in password[:1]) + password[1:]
    for dummy in passwords:
        dummy.verify(wrong)


def _renew(source: UserSource, account: Account, password: bytes) -> None:
    """In a thread: write a new hash, unless the password was changed meanwhile."""
    made = make(password)
    source.edit(account.name, lambda text: with_password_renewed(text, account, made))
