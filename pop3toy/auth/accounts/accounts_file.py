"""The checker of an accounts file: slow hashes in threads, a failure equally long for everybody.

What the file means is in ``passwd_file``, when it is read again in
``watched``, what a hash means in ``schemes``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

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
from ..credentials import AvatarId, ClearPassword, Credentials, account_name
from ..maybe_deferred import maybe_deferred
from ..sasl.cram import CramDigest
from ..sources import IAccountSource, make_dummy_verifier
from .edit import edit_file
from .hashing_queue import HashingQueue
from .passwd_file import Account, Accounts, with_password_renewed
from .schemes import StoredPassword, make
from .success_cache import SuccessCache
from .verifier import ITERATIONS, Verifier, derive
from .watched import WatchedFile, not_now

__all__ = ["AccountsFile"]


@implementer(ICredentialsChecker, IAccountSource)
class AccountsFile:
    """A twisted.cred checker for the users of an accounts file.

    Reads the file at once, and again in a thread when a login finds it changed.

    :param path: the file (see :mod:`~pop3toy.auth.accounts.passwd_file`).
    :param queue: where slow checks are done.
    :param clock: tells how long a success is remembered.
    :param renew: write a better hash into the file when a user with an
        outdated one logs in.
    :param strict: whether the file must be readable now; else that is a
        trouble that may pass, as it is later on.
    :param wall: the file system's idea of now, in seconds.
    :raises OSError: if the file cannot be read, and must be.
    :raises MissingLibrary: if it holds hashes whose library is not installed, then too.
    """

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    _log = Logger()

    def __init__(
        self,
        path: str | Path,
        queue: HashingQueue,
        clock: IReactorTime,
        *,
        renew: bool = False,
        strict: bool = True,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cache = SuccessCache(clock)
        #: For which users it was found that what is kept for SCRAM is not the empty password's.
        self._not_empty = SuccessCache(clock, seconds=86400.0)
        self._file = WatchedFile(path, queue, wall=wall, changed=self._cache.clear, strict=strict)
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
        return self._file.use(self._check, credentials)

    def _check(self, accounts: Accounts, credentials: Credentials) -> MaybeDeferred[bytes]:
        check = partial(self._check_digest, accounts, credentials)
        if IUsernamePassword.providedBy(credentials):
            check = partial(self._check_password, accounts, cast(ClearPassword, credentials))
        if not self._file.in_doubt:
            return check()
        sure = self._file.sure_of(account_name(credentials))

        def judged(outcome: bytes | Failure) -> bytes | Failure:
            # With the same work for all users.  No login is refused as wrong, and a right one is accepted
            # only if the user's line is whole: else it may lack what bars the account.
            if not sure or (isinstance(outcome, Failure) and outcome.check(UnauthorizedLogin)):
                raise not_now("the accounts file is being written")
            return outcome

        return cast("Deferred[bytes]", maybeDeferred(check)).addBoth(judged)

    def _check_digest(self, accounts: Accounts, credentials: Credentials) -> MaybeDeferred[bytes]:
        account = _allowed_account(accounts, credentials)
        secret = account.password.secret if account is not None else None
        matches = (
            credentials.checkPassword(self._key if secret is None else secret) is True and secret is not None
        )
        if accounts.cram_contexts and isinstance(credentials, CramDigest):
            # Done for every user too.
            kept = account.password.cram_md5 if account is not None else None
            fits = credentials.check_contexts(self._key if kept is None else kept)
            matches = matches or (fits and kept is not None)
        if account is None or not matches:
            raise UnauthorizedLogin
        return self._let_in(account, credentials)

    def _check_password(self, accounts: Accounts, credentials: ClearPassword) -> MaybeDeferred[bytes]:
        account = _allowed_account(accounts, credentials)
        password = credentials.password
        if account is None:
            return self._refuse_after(accounts.dummy_passwords, password)
        stored = account.password
        fits = stored.verify if stored.cheap else partial(self._cache.has, account.name, stored.encoded)
        if fits(password):
            return self._let_in(account, credentials)
        if stored.cheap:
            return self._refuse_after(accounts.dummy_passwords, password)
        # One's own password takes the place of the dummy of its kind.
        dummies = [dummy for dummy in accounts.dummy_passwords if dummy.cost != stored.cost]
        return self._compute(accounts, account, dummies, credentials)

    @maybe_deferred
    async def _compute(
        self,
        accounts: Accounts,
        account: Account,
        dummies: Sequence[StoredPassword],
        credentials: ClearPassword,
    ) -> bytes:
        if not await self._queue.run(_judge, account.password, dummies, credentials.password):
            raise UnauthorizedLogin
        if accounts is self._file.accounts:
            self._cache.add(account.name, account.password.encoded, credentials.password)
        return self._let_in(account, credentials)

    @maybe_deferred
    async def _refuse_after(self, dummies: Sequence[StoredPassword], password: bytes) -> bytes:
        if dummies:
            await self._queue.run(_spend_time, dummies, password)
        raise UnauthorizedLogin

    def _let_in(self, account: Account, credentials: Credentials) -> bytes:
        if self._renew and IUsernamePassword.providedBy(credentials):
            self._consider_renewal(account, cast(ClearPassword, credentials).password)
        return account.name.encode("utf-8")

    # -- what SCRAM and deliveries ask ---------------------------------------------------

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self._file.certain.by_name)

    def unsupported_mechanisms(self, *, also_others: bool) -> dict[str, int]:
        """See :meth:`~pop3toy.auth.accounts.passwd_file.Accounts.unsupported_mechanisms`."""
        return self._file.certain.unsupported_mechanisms(also_others=also_others)

    def has_plaintext(self) -> bool:
        """Whether some user's password is kept in clear text."""
        return self._file.certain.has_plaintext

    def cram_md5(self) -> bool:
        """Whether CRAM-MD5 can work for some user."""
        return self._file.certain.has_plaintext or self._file.certain.cram_contexts

    def scram_hashes(self) -> frozenset[str]:
        """The hashes with which SCRAM can work for some user."""
        return self._file.certain.scram_hashes

    def verifier(self, user: str, hash_name: str) -> MaybeDeferred[Verifier | None]:
        """What SCRAM needs to check a user; ``None`` if the user cannot use SCRAM."""
        return self._file.use(self._verifier, user, hash_name)

    def _verifier(self, accounts: Accounts, user: str, hash_name: str) -> MaybeDeferred[Verifier | None]:
        account = accounts.by_name.get(user)
        secret = account.password.secret if account is not None else None
        kept = account.password.verifier(hash_name) if account is not None else None
        if kept is not None:
            kept = replace(kept, is_empty=partial(self._is_empty, user, kept, hash_name))
        if not accounts.has_plaintext:
            return kept
        # Some verifiers must be made from passwords.  The work is done for every user, so that
        # the time does not tell which.
        dummy = self.dummy_verifier(user, hash_name)
        made = self._queue.run(derive, secret or self._key, hash_name, dummy.salt, dummy.iterations)
        return made.addCallback(lambda verifier: verifier if secret is not None else kept)

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
        accounts = self._file.certain
        iterations, salt_length = accounts.scram_example(hash_name) or (ITERATIONS, 16)
        return make_dummy_verifier(accounts.dummy_key or self._key, user, hash_name, iterations, salt_length)

    def canonical_name(self, user: str) -> MaybeDeferred[str | None]:
        """See :class:`IAccountSource`."""

        def look(accounts: Accounts) -> str | None:
            found = accounts.names.find(user)
            if found is None and self._file.certain.names.find(user) is not None:
                self._be_sure()
            return found

        return self._file.use(look)

    def canonical_name_at_start(self, user: str) -> str | None:
        """The same, as the file said when it was last read."""
        return self._file.accounts.names.find(user)

    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address, as the file said when it was last read."""
        return self._file.accounts.names.has_addresses

    def find(self, user: str) -> MaybeDeferred[Account | None]:
        """A user's account, with its settings, or ``None``."""

        def look(accounts: Accounts) -> Account | None:
            if not self._file.sure_of(user):
                self._be_sure()
            return accounts.by_name.get(user)

        return self._file.use(look)

    def in_doubt(self) -> bool:
        """See :class:`IAccountSource`."""
        return self._file.in_doubt

    def _be_sure(self) -> None:
        if self._file.in_doubt:
            raise not_now("the accounts file is being written")

    def login_allowed(self, user: str, channel: Channel | None) -> MaybeDeferred[bool]:
        """Whether the user's ``nologin`` and ``allow_nets`` let it in from here."""

        def look(accounts: Accounts) -> bool:
            account = accounts.by_name.get(user)
            return self._file.sure_of(user) and (account is None or _login_allowed(account, channel))

        return self._file.use(look)

    # -- renewal ---------------------------------------------------------------------------

    def _consider_renewal(self, account: Account, password: bytes) -> None:
        if account.name in self._renewing or not account.password.outdated:
            return
        try:
            renewing = self._queue.run(_renew, self._file.path, account, password)
        except StoreTrouble:
            # Too busy: the next login will do.
            return
        self._renewing.add(account.name)
        renewing.addCallbacks(self._renewed, self._not_renewed, callbackArgs=(account.name,))

    def _renewed(self, _: None, name: str) -> None:
        self._renewing.discard(name)
        self._log.info(
            "accounts file {path}: password hash of {user} renewed", path=str(self._file.path), user=name
        )

    def _not_renewed(self, why: Failure) -> None:
        # The name stays in the set: once is enough to be told.
        self._log.warn(
            "accounts file {path}: a password hash could not be renewed: {why}",
            path=str(self._file.path),
            why=why.getErrorMessage(),
        )


def _login_allowed(account: Account, channel: Channel | None) -> bool:
    return account.login_allowed(channel.host if channel is not None else None)


def _allowed_account(accounts: Accounts, credentials: Credentials) -> Account | None:
    """The account that the credentials claim; ``None`` if there is none, or if it is barred.

    Asked before anything is computed: the work that follows must not tell of
    an account that may not log in whether the password is right.
    """
    account = accounts.by_name.get(account_name(credentials))
    if account is None or not _login_allowed(account, getattr(credentials, "channel", None)):
        return None
    return account


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


def _renew(path: Path, account: Account, password: bytes) -> None:
    """In a thread: write a new hash, unless the password was changed meanwhile."""
    made = make(password)
    edit_file(path, lambda text: with_password_renewed(text, account, made))
