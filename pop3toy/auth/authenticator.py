"""What a session asks about coming in, answered by a twisted.cred Portal.

Translates between the session's :class:`~pop3toy.interfaces.Authenticator` and
twisted.cred: credentials go in, an opened mailbox or a refusal comes out.  No
password is compared here and no mailbox opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from typing import Any

from twisted.cred.credentials import ICredentials, IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import maybeDeferred
from twisted.mail.interfaces import IMailboxPOP3 as ITwistedMailbox
from twisted.python.failure import Failure

from ..errors import AuthenticationFailed, BadCommand
from ..interfaces import Channel, Exchange, IMailbox, Login, MaybeDeferred, SessionRecord, is_deferred
from .chain import AnyOf
from .credentials import ApopDigest, ClearPassword, Named
from .login import IProvenIdentity, LoginContext, LoginPolicy, ProvenIdentityChecker
from .maybe_deferred import available_result, map_maybe_deferred, maybe_deferred, resolved
from .names import LoginNames
from .sasl.exchange import AuthResult, MechanismContext, SASLExchange
from .sasl.mechanisms import MECHANISMS
from .strcred import repaired_checkers
from .throttle.login_throttle import Attempt, LoginThrottle, unguarded

__all__ = ["PortalAuthenticator"]


def _random_nonce() -> str:
    return secrets.token_hex(16)


class PortalAuthenticator:
    """An :class:`~pop3toy.interfaces.Authenticator` over a twisted.cred Portal.

    :param portal: its realm gives :class:`pop3toy.interfaces.IMailbox` or
        :class:`twisted.mail.pop3.IMailbox`; its checkers, which are all
        registered by now, decide what is offered.  A checker for identities
        that a mechanism has proven is added.
    :param guard: keeps penalties, sessions per user and LOGIN-DELAY, and has logins wait
        for a locked maildrop; without one there is none of that.
    :param allow_cleartext: take passwords and tokens from a network without TLS too.
    :param masters: users who may open others' maildrops with PLAIN's, SCRAM's
        or a token's authorization identity.
    :param mechanisms: offer none but these, ``APOP`` and ``USER`` among them;
        ``None`` for all that can work.
    :param certificates: the verified name in a client's certificate is a user
        (EXTERNAL).
    :param channel_binding: offer SCRAM's ``-PLUS`` mechanisms over TLS.  Clients
        of GNU SASL such as neomutt choose them, have no channel binding, and
        then cannot log in at all.
    :param tokens: an :class:`~pop3toy.auth.sasl.oauth.ITokenChecker`.
    :param domains: mail domains of the users: ``ann@example.org`` is the account
        ``ann`` then, if no account is called by the whole address.
    :param nonce: a fresh random word each time, for challenges.
    """

    def __init__(
        self,
        portal: Portal,
        *,
        guard: LoginThrottle | None = None,
        allow_cleartext: bool = False,
        masters: Collection[str] = (),
        mechanisms: Collection[str] | None = None,
        certificates: bool = False,
        channel_binding: bool = False,
        tokens: object = None,
        domains: Collection[str] = (),
        nonce: Callable[[], str] = _random_nonce,
    ) -> None:
        self._checkers = checkers = repaired_checkers(portal)
        self._accounts = AnyOf(dict.fromkeys(checkers.values()))
        checkers[IProvenIdentity] = ProvenIdentityChecker(self._accounts)
        self._names = LoginNames(self._accounts.canonical_name, self._accounts.has_addresses, domains)
        self._guard = guard = guard if guard is not None else unguarded()
        self._policy = LoginPolicy(portal, guard, masters, self._may_exist, self._names)
        self._allow_cleartext = allow_cleartext
        self._only = None if mechanisms is None else frozenset(name.upper() for name in mechanisms)
        self._certificates = certificates
        self._channel_binding = channel_binding
        self._tokens = tokens
        self._nonce = nonce

    def clear_text(self, channel: Channel) -> bool:
        """Whether USER and PASS are offered and taken on this connection."""
        return self._private(channel) and self._wanted("USER") and IUsernamePassword in self._checkers

    def timestamp(self, channel: Channel) -> str | None:
        """A fresh APOP timestamp, or ``None`` where APOP cannot work.

        RFC 1939 section 7 suggests process id, clock and host name; random
        octets are as unique and tell nothing.
        """
        if not self._wanted("APOP") or IUsernameHashedPassword not in self._checkers:
            return None
        return f"<{self._nonce()}@pop3toy>" if self._accounts.has_plaintext() else None

    def mechanisms(self, channel: Channel) -> Sequence[str]:
        """The SASL mechanisms that can work here now, best first."""
        context = self._mechanism_context(channel)
        return [name for name, made in MECHANISMS.items() if self._wanted(name) and made.available(context)]

    def login_delay(self) -> int:
        """Seconds that LOGIN-DELAY announces; 0 for none (RFC 2449 section 6.5)."""
        return self._guard.limits.login_delay

    def password(self, user: bytes, password: bytes, record: SessionRecord) -> MaybeDeferred[Login]:
        """Check a clear-text password and open the maildrop.

        :raises pop3toy.errors.Refusal: (or fails with) ``AuthenticationFailed``,
            ``InUse``, ``LoginDelay`` or ``StoreTrouble``.
        """
        if not self.clear_text(record.channel):
            raise BadCommand("clear-text passwords are not taken here")
        return self._begin(ClearPassword(user, password, record.channel), user, record, "USER")

    def apop(self, user: bytes, digest: bytes, timestamp: str, record: SessionRecord) -> MaybeDeferred[Login]:
        """The same for APOP: ``digest`` is the MD5 of timestamp and secret in hex."""
        return self._begin(ApopDigest(user, digest, timestamp, record.channel), user, record, "APOP")

    def begin(self, mechanism: str, record: SessionRecord) -> Exchange:
        """Start a SASL exchange.

        :raises pop3toy.errors.BadCommand: if the mechanism is not offered here.
        """
        name = mechanism.upper()
        context = self._mechanism_context(record.channel)
        if name not in MECHANISMS or not self._wanted(name) or not MECHANISMS[name].available(context):
            raise BadCommand("this mechanism is not available here")

        def log_in(result: AuthResult, attempt: Attempt) -> MaybeDeferred[Login]:
            return self._log_in(result.credentials, LoginContext(record, attempt, result.authzid), name)

        attempt = self._guard.attempt(record.channel.host, key=self._names.key)
        return SASLExchange(MECHANISMS[name](context), attempt, log_in)

    def _may_exist(self, user: str) -> MaybeDeferred[bool]:
        # Tokens and certificates speak of users whom nobody here needs to know.
        if self._certificates or self._tokens is not None or not self._accounts.knows_all:
            return True
        return map_maybe_deferred(self._accounts.canonical_name(user), lambda name: name == user)

    def _private(self, channel: Channel) -> bool:
        return channel.private or self._allow_cleartext

    def _wanted(self, name: str) -> bool:
        if name.endswith("-PLUS") and not self._channel_binding:
            return False
        return self._only is None or name in self._only

    def _mechanism_context(self, channel: Channel) -> MechanismContext:
        return MechanismContext(
            channel=channel,
            clear_text=self._private(channel),
            credentials=self._checkers,
            accounts=self._accounts,
            names=self._names,
            nonce=self._nonce,
            wanted=self._wanted,
            tokens=self._tokens,
            certificates=self._certificates,
        )

    def _begin(
        self, credentials: ICredentials, user: bytes, record: SessionRecord, mechanism: str
    ) -> MaybeDeferred[Login]:
        attempt = self._guard.attempt(record.channel.host, user.decode("utf-8", "replace"), self._names.key)
        return self._log_in(credentials, LoginContext(record, attempt), mechanism)

    def _log_in(self, credentials: Any, context: LoginContext, mechanism: str) -> MaybeDeferred[Login]:
        def failed(why: Failure) -> Failure:
            return _failed(why, context.attempt)

        def admitted(avatar_id: Any) -> Any:
            opening = self._policy.requestAvatar(avatar_id, context, IMailbox, ITwistedMailbox)
            return map_maybe_deferred(opening, lambda admission: _login(admission, context, mechanism))

        def named(account: str | None) -> Any:
            credentials.account = account
            return map_maybe_deferred(self._identify(credentials), admitted)

        def go_on(_: None) -> MaybeDeferred[Login]:
            try:
                if isinstance(credentials, Named) and credentials.account is None:
                    login = map_maybe_deferred(self._names.account(credentials.claimed), named)
                else:
                    login = map_maybe_deferred(self._identify(credentials), admitted)
            except BaseException:
                # As a Deferred does; the attempt must not stay under way for ever.
                failed(Failure()).raiseException()
            return available_result(login.addErrback(failed)) if is_deferred(login) else login

        return map_maybe_deferred(context.attempt.start(), go_on)

    def _identify(self, credentials: ICredentials) -> Any:
        """Who it is that brings these credentials.

        With the realm's turn behind it this is ``Portal.login``, without four Deferreds for
        what is at hand.
        """
        if isinstance(credentials, ClearPassword) and not credentials.password:
            # Others' checkers may look at the password themselves.
            raise UnauthorizedLogin
        for interface, checker in self._checkers.items():
            if interface.providedBy(credentials):
                found = checker.requestAvatarId(credentials)
                if isinstance(found, bytes | str):
                    return found
                # A Deferred, a Failure, a coroutine.
                return maybeDeferred(lambda result: result, found)
        raise UnhandledCredentials("no checker for these credentials")


def _login(
    admission: tuple[object, Any, Callable[[], object]], context: LoginContext, mechanism: str
) -> MaybeDeferred[Login]:
    _, avatar, logout = admission
    if IMailbox.providedBy(avatar):
        return Login(context.user, avatar, logout, mechanism, context.ending)
    return _adapted(avatar, logout, context, mechanism)


@maybe_deferred
async def _adapted(avatar: Any, logout: Callable[[], object], context: LoginContext, mechanism: str) -> Login:
    # Only other programs' realms need it.
    adapter = import_module("pop3toy.auth.twisted_mailbox")
    adapt = adapter.adapted if ITwistedMailbox.providedBy(avatar) else IMailbox
    try:
        mailbox = await resolved(adapt(avatar))
    except BaseException:
        logout()
        raise
    return Login(context.user, mailbox, logout, mechanism, context.ending)


def _failed(why: Failure, attempt: Attempt) -> Failure:
    if why.check(UnauthorizedLogin, LoginDenied, AuthenticationFailed) is None:
        attempt.dropped()
        return why
    attempt.failed()
    if why.check(AuthenticationFailed) is None:
        raise AuthenticationFailed
    return why
