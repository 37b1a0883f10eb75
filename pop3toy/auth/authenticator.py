"""The session's :class:`~pop3toy.interfaces.Authenticator`, over a twisted.cred Portal.

Credentials go in, an opened mailbox or a refusal comes out.  No password is compared here
and no mailbox opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from ..errors import AuthenticationFailed, BadCommand
from ..interfaces import Channel, Exchange, Login, MaybeDeferred, SessionRecord, is_deferred
from .chain import AnyOf
from .credentials import ApopDigest, ClearPassword, MainPassword, Named, Unknown
from .login import IProvenIdentity, LoginContext, LoginPolicy, ProvenIdentityChecker
from .maybe_deferred import available_result, map_maybe_deferred
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
    :param throttle: keeps penalties, sessions per user and LOGIN-DELAY, and has logins wait
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
        throttle: LoginThrottle | None = None,
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
        self._throttle = throttle = throttle if throttle is not None else unguarded()
        self._policy = LoginPolicy(portal.realm, throttle, masters, self._may_exist, self._names)
        self._allow_cleartext = allow_cleartext
        self._only = None if mechanisms is None else frozenset(name.upper() for name in mechanisms)
        self._certificates = certificates
        self._channel_binding = channel_binding
        self._tokens = tokens
        self._nonce = nonce
        self._takes_passwords = self._wanted("USER") and IUsernamePassword in checkers
        self._takes_apop = self._wanted("APOP") and IUsernameHashedPassword in checkers

    def clear_text(self, channel: Channel) -> bool:
        """Whether USER and PASS are offered and taken on this connection."""
        return self._takes_passwords and (self._allow_cleartext or channel.private)

    def timestamp(self, channel: Channel) -> str | None:
        """A fresh APOP timestamp, or ``None`` where APOP cannot work.

        RFC 1939 section 7 suggests process id, clock and host name; random
        octets are as unique and tell nothing.
        """
        if self._takes_apop and self._accounts.has_plaintext():
            return f"<{self._nonce()}@pop3toy>"
        return None

    def mechanisms(self, channel: Channel) -> Sequence[str]:
        """The SASL mechanisms that can work here now, best first."""
        context = self._mechanism_context(channel)
        return [name for name, made in MECHANISMS.items() if self._wanted(name) and made.available(context)]

    def login_delay(self) -> int:
        """Seconds that LOGIN-DELAY announces; 0 for none (RFC 2449 section 6.5)."""
        return self._throttle.limits.login_delay

    def password(self, user: bytes, password: bytes, record: SessionRecord) -> MaybeDeferred[Login]:
        """Check a clear-text password and open the maildrop.

        :raises pop3toy.errors.Refusal: (or fails with) ``AuthenticationFailed``,
            ``InUse``, ``LoginDelay`` or ``StoreTrouble``.
        """
        if not self.clear_text(record.channel):
            raise BadCommand("clear-text passwords are not taken here")
        return self._begin(ClearPassword(user, password, record.channel), record, "USER")

    def main_password(self, user: bytes, password: bytes, record: SessionRecord) -> MaybeDeferred[Login]:
        """As :meth:`password`, for what no app password opens; whoever asks sees that nobody listens."""
        return self._begin(MainPassword(user, password, record.channel), record, "PASSWORD")

    def apop(self, user: bytes, digest: bytes, timestamp: str, record: SessionRecord) -> MaybeDeferred[Login]:
        """The same for APOP: ``digest`` is the MD5 of timestamp and secret in hex."""
        return self._begin(ApopDigest(user, digest, timestamp, record.channel), record, "APOP")

    def begin(self, mechanism: str, record: SessionRecord) -> Exchange:
        """Start a SASL exchange.

        :raises pop3toy.errors.BadCommand: if the mechanism is not offered here.
        """
        name = mechanism.upper()
        context = self._mechanism_context(record.channel)
        if name not in MECHANISMS or not self._wanted(name) or not MECHANISMS[name].available(context):
            raise BadCommand("this mechanism is not available here")

        def log_in(result: AuthResult, attempt: Attempt) -> MaybeDeferred[Login]:
            context = LoginContext(self._throttle, record, attempt, name, result.authzid)
            return self._log_in(result.credentials, context)

        attempt = self._throttle.attempt(record.channel.host, key=self._names.key)
        return SASLExchange(MECHANISMS[name](context), attempt, log_in)

    def _may_exist(self, user: str) -> MaybeDeferred[bool]:
        # Tokens and certificates may name users of whom no checker knows.
        if self._certificates or self._tokens is not None or not self._accounts.knows_all:
            return True
        return map_maybe_deferred(self._accounts.canonical_name(user), lambda name: name == user)

    def _wanted(self, name: str) -> bool:
        if name.endswith("-PLUS") and not self._channel_binding:
            return False
        return self._only is None or name in self._only

    def _mechanism_context(self, channel: Channel) -> MechanismContext:
        return MechanismContext(
            channel=channel,
            clear_text=self._allow_cleartext or channel.private,
            credentials=self._checkers,
            accounts=self._accounts,
            names=self._names,
            nonce=self._nonce,
            wanted=self._wanted,
            tokens=self._tokens,
            certificates=self._certificates,
        )

    def _begin(self, credentials: Named, record: SessionRecord, mechanism: str) -> MaybeDeferred[Login]:
        attempt = self._throttle.attempt(record.channel.host, credentials.claimed, self._names.key)
        return self._log_in(credentials, LoginContext(self._throttle, record, attempt, mechanism))

    # Without coroutines, and with a Deferred only where something is waited for: this is at each login.

    def _log_in(self, credentials: object, context: LoginContext) -> MaybeDeferred[Login]:
        """The penalty, then the account's name, then the password, then the maildrop."""
        attempt = context.attempt
        try:
            penalty = attempt.start()
            if penalty is not None:
                login: MaybeDeferred[Login] = penalty.addCallback(
                    lambda _: self._find_account(credentials, context)
                )
            else:
                login = self._find_account(credentials, context)
        except BaseException:
            _failed(Failure(), attempt).raiseException()
        return available_result(login.addErrback(_failed, attempt)) if is_deferred(login) else login

    def _find_account(self, credentials: object, context: LoginContext) -> MaybeDeferred[Login]:
        if not isinstance(credentials, Named) or credentials.account is not None:
            return self._check(None, credentials, context)
        account = self._names.account(credentials.claimed)
        if is_deferred(account):
            return account.addCallback(self._check, credentials, context)
        return self._check(account, credentials, context)

    def _check(self, account: str | None, credentials: object, context: LoginContext) -> MaybeDeferred[Login]:
        """What ``Portal.login`` does, with the policy before its realm."""
        if isinstance(credentials, Named) and credentials.account is None:
            credentials.account = Unknown(credentials.claimed) if account is None else account
        if isinstance(credentials, ClearPassword) and not credentials.password:
            # Others' checkers may look at the password themselves.
            raise UnauthorizedLogin
        for interface, checker in self._checkers.items():
            if interface.providedBy(credentials):
                found = checker.requestAvatarId(credentials)
                if isinstance(found, bytes | str):
                    return self._policy.log_in(found, context)
                # A Deferred, a Failure, a coroutine.
                later: Deferred[object] = maybeDeferred(lambda result: result, found)
                return later.addCallback(self._policy.log_in, context)
        raise UnhandledCredentials("no checker for these credentials")


def _failed(why: Failure, attempt: Attempt) -> Failure:
    if why.check(UnauthorizedLogin, LoginDenied, AuthenticationFailed) is None:
        attempt.dropped()
        return why
    attempt.failed()
    if why.check(AuthenticationFailed) is None:
        raise AuthenticationFailed
    return why
