"""Authentication as the settings say: checkers, portal, throttle, tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import cast

from twisted.application.service import MultiService, Service
from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import InvalidAuthType, makeChecker
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..auth.accounts.accounts_file import AccountsFile
from ..auth.accounts.admin import Where, set_password
from ..auth.accounts.checker import AccountsChecker
from ..auth.accounts.hashing_queue import HashingQueue
from ..auth.accounts.memory import MemoryAccounts
from ..auth.accounts.record_source import RecordSource
from ..auth.accounts.records import AccountRecords
from ..auth.accounts.schemes import MissingLibrary
from ..auth.authenticator import PortalAuthenticator
from ..auth.chain import AnyOf
from ..auth.names import NameIndex
from ..auth.realm import MailboxRealm
from ..auth.sasl.introspection import Introspection, treq_client
from ..auth.strcred import of_auth_option
from ..auth.throttle.login_throttle import LoginLimits, LoginThrottle, without_penalties
from ..auth.throttle.origins import Networks
from ..auth.throttle.peer_workers import PeerWorkers
from ..config.settings import Settings
from ..errors import BadSetting, StoreTrouble
from ..interfaces import IMailStore
from ..net.threads import WorkerThreads
from ..net.types import IReactor
from ..stores import hello
from ..stores.registry import kind_of

__all__ = ["Access"]

log = Logger()

#: Threads that check passwords: as many as half the cores would be busy with,
#: but two at least, so that one slow hash does not hold up all others.
PASSWORD_THREADS = max(2, (os.cpu_count() or 2) // 2)

#: Threads that ask a store for accounts: they wait for a network, and do not compute.
LOOKING_THREADS = 16

#: What a checker has to take to be of use here.
_SUPPORTED = {IUsernamePassword, IUsernameHashedPassword}


class Access:
    """The accounts of one server, and authenticators over them.

    :param settings: a server's.
    :param server: whose parts the threads become.
    :param peers: other processes of the same server.
    :param checkers: of ``twisted.cred``, besides those that the settings name.
    :param strict: whether an accounts file that cannot be read ends the start.
    :param threads: makes a pool of threads, as ``WorkerThreads`` does.
    :param shared: what ``StoreKind.share`` has made for the store, where others have it too.
    :raises pop3toy.errors.CannotStart: if something that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: IReactor,
        server: MultiService,
        peers: PeerWorkers | None = None,
        *,
        checkers: Sequence[ICredentialsChecker] = (),
        strict: bool = True,
        threads: Callable[..., WorkerThreads] = WorkerThreads,
        shared: object = None,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._server = server
        self._strict = strict
        self._threads = threads
        #: Names and passwords that the settings hold, the toy's public account among them.
        self.users = dict(settings.users)
        if settings.is_toy:
            self.users = self.users or {hello.USER: hello.PASSWORD}
        self._throttle = LoginThrottle(reactor, _login_limits(settings), peers=peers)
        self._of_settings = MemoryAccounts(self.users) if self.users else None
        asked: list[ICredentialsChecker] = [self._of_settings] if self._of_settings is not None else []
        #: The accounts file, or the accounts in the store, if there are any; they know quotas.
        self.accounts = self._accounts(settings.accounts, shared) if settings.accounts is not None else None
        if self.accounts is not None:
            asked.append(self.accounts)
        asked += [_checker(description) for description in settings.auth]
        asked += checkers
        # A Portal takes one checker for each kind of credentials.
        self._checker = asked[0] if len(asked) == 1 else AnyOf(asked)
        #: Tells which users there are, as far as the checkers can.
        self.sources = AnyOf(asked)
        #: Whether all checkers can tell.
        self.sources_know_all = not settings.auth and (not checkers or AnyOf(checkers).knows_all)
        self._tokens = self._introspection(settings.introspection) if settings.introspection else None
        if strict:
            self._warn_of_nobody()

    def take(self, settings: Settings) -> None:
        """From now on these settings, for limits, users and authenticators that are made from then on.

        :param settings: differ in nothing that needs a restart (``config.changes``).
        """
        self._settings = settings
        self._throttle.use(_login_limits(settings))
        if self._of_settings is not None and settings.users:
            self.users = dict(settings.users)
            self._of_settings.keep(self.users)

    def knows(self, user: str) -> bool:
        """Whether there is this user now, as far as that can be said before anything runs."""
        accounts = self.accounts
        if NameIndex(self.users).find(user) is not None:
            return True
        if isinstance(accounts, AccountsFile):
            return accounts.canonical_name_at_start(user) is not None
        # A store may be on a network, which is not asked before the server runs.
        return accounts is not None

    def for_maildrops(self, store: IMailStore) -> PortalAuthenticator:
        """For POP3: a login opens the user's maildrop."""
        anonymous = self._settings.anonymous
        portal = Portal(MailboxRealm(store, anonymous=anonymous), [self._checker])
        if anonymous is not None:
            portal.registerChecker(AllowAnonymousAccess())
        return self._authenticator(portal, self._throttle)

    def for_senders(self, realm: IRealm) -> PortalAuthenticator:
        """For submission: a login may send; no maildrop is opened."""
        return self._authenticator(Portal(realm, [self._checker]), self._throttle.for_senders())

    def for_owners(self, realm: IRealm) -> PortalAuthenticator:
        """For the page where users change their password: those of the accounts alone."""
        assert self.accounts is not None, "the settings were checked"
        return self._authenticator(Portal(realm, [self.accounts]), self._throttle.for_senders())

    def change_password(self, user: str, password: str) -> Deferred[None]:
        """Give a user of the accounts another password, in a thread.

        :raises pop3toy.errors.StoreTrouble: (or fails with) if that is not possible now; fails with OSError
            or ValueError for other trouble.
        """
        return self._queue_of_accounts.run(set_password, self._place, user, password)

    def _authenticator(self, portal: Portal, throttle: LoginThrottle) -> PortalAuthenticator:
        settings = self._settings
        return PortalAuthenticator(
            portal,
            throttle=throttle,
            allow_cleartext=settings.allow_cleartext,
            masters=settings.masters,
            mechanisms=frozenset(settings.mechanisms) if settings.mechanisms is not None else None,
            certificates=settings.tls.client_ca is not None,
            channel_binding=settings.channel_binding,
            tokens=self._tokens,
            domains=settings.mail_domains,
        )

    def _queue(self, name: str, size: int) -> HashingQueue:
        # A pool of its own: a flood of logins must not stop the sessions.
        threads = self._threads(self._reactor, name=name, size=size)
        threads.setServiceParent(self._server)
        return HashingQueue(threads.run)

    def _accounts(self, path: str, shared: object) -> AccountsChecker:
        self._queue_of_accounts = queue = self._queue("passwords", PASSWORD_THREADS)
        self._place: Where = path
        renew = self._settings.renew_hashes
        if self._settings.accounts_in_store:
            store = self._settings.store
            records = cast("Callable[..., AccountRecords]", kind_of(store).accounts)(store, shared)
            source = RecordSource(records, self._queue("accounts", LOOKING_THREADS), self._reactor)
            _Beginning(source, self._reactor).setServiceParent(self._server)
            return AccountsChecker(lambda changed: source, queue, self._reactor, renew=renew)
        try:
            file = AccountsFile(path, queue, self._reactor, renew=renew, strict=self._strict)
        except (OSError, MissingLibrary) as error:
            why = getattr(error, "strerror", None) or error
            raise BadSetting("accounts", f" {path}: {why}") from error
        self._warn_of_mixture(file)
        return file

    def _warn_of_nobody(self) -> None:
        """Say where users are meant and there are none, as far as that can be told."""
        settings = self._settings
        if isinstance(self.accounts, AccountsFile) and not self.accounts.users:
            log.warn("accounts file {path}: there are no users in it", path=settings.accounts)
        if not self.sources_know_all:
            return
        for master in settings.masters:
            if not self.knows(master):
                log.warn("--master {user}: there is no such user", user=master)
        anonymous = settings.anonymous
        if anonymous is not None and not self.knows(anonymous) and not _may_have_mailbox(settings, anonymous):
            log.warn("--anonymous {user}: there is no such user, and no such mailbox", user=anonymous)

    def _warn_of_mixture(self, file: AccountsFile) -> None:
        """Warn of mechanisms that are announced, but do not work for some users."""
        wanted = self._settings.mechanisms
        unsupported = file.unsupported_mechanisms(also_others=bool(self._settings.users))
        mixed = [
            f"{name} (not for {count} of {file.users})"
            for name, count in unsupported.items()
            if wanted is None or name in wanted or f"{name}-PLUS" in wanted
        ]
        if mixed:
            log.warn(
                "accounts file {path}: not every user can use {mixed}, announced because some can. Mail"
                " programs that take the best that is announced fail for the others: keep all passwords in"
                " one scheme, or name what all can use with --mechanisms",
                path=self._settings.accounts,
                mixed=", ".join(mixed),
            )

    def _introspection(self, url: str) -> Introspection:
        settings = self._settings
        if settings.introspection_audience is None and settings.introspection_scope is None:
            log.warn(
                "--introspection without --introspection-audience or --introspection-scope: a token that its"
                " owner gave to any other service opens his mailbox to that service too"
            )
        client, secret = (os.environ.get(f"POP3TOY_OAUTH_{what}") for what in ("CLIENT", "SECRET"))
        try:
            return Introspection(
                treq_client(self._reactor),
                url,
                self._reactor,
                credentials=(client, secret) if client and secret else None,
                claim=settings.introspection_claim or "username",
                scope=settings.introspection_scope,
                audience=settings.introspection_audience,
            )
        except (MissingLibrary, ValueError) as error:
            raise BadSetting("introspection", f": {error}") from error


class _Beginning(Service):
    """Has a source of accounts look around as soon as the reactor runs: until then the process may fork."""

    def __init__(self, source: RecordSource, reactor: IReactor) -> None:
        self._source = source
        self._reactor = reactor

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(lambda: self._source.begin() if self.running else None)


def _login_limits(settings: Settings) -> LoginLimits:
    """The limits of one process."""
    limits = LoginLimits(
        login_delay=settings.limits.login_delay,
        lock_wait=settings.limits.lock_wait,
        sessions_per_user=settings.limits.max_per_user or LoginLimits().sessions_per_user,
        trusted=Networks.of(settings.limits.trusted),
    ).shared_by(settings.workers or 1)
    # The toy has no mail to guard, and is there for trying wrong passwords too.
    return without_penalties(limits) if settings.is_toy else limits


def _may_have_mailbox(settings: Settings, user: str) -> bool:
    try:
        kind = kind_of(settings.store)
        if kind.on_network:
            # It is not asked before the server runs.
            return True
        return kind.admin is not None and kind.admin(settings.store).exists(user)
    except (TypeError, StoreTrouble):
        # A store that another program brings, or one in trouble: it is not known.
        return True


def _checker(description: str) -> ICredentialsChecker:
    """The checker that ``--auth`` describes."""
    kind, _, arguments = description.partition(":")
    try:
        checker = of_auth_option(makeChecker(description))
    except Exception as error:
        # Checkers raise whatever comes to them, and what stands behind the colon may be a secret.
        why = str(error)
        if isinstance(error, InvalidAuthType) or not why or (arguments and arguments in why):
            why = "there is no such checker, or it cannot use this; --help-auth tells more"
        raise BadSetting("auth", f" {kind}: {why}") from None
    if not set(checker.credentialInterfaces) & _SUPPORTED:
        raise BadSetting("auth", f" {kind}: this checker takes no names and passwords")
    return checker
