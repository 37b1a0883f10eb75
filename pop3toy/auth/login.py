"""From a proven identity to the opened maildrop: for whom it is opened, and whether it may be now.

Every way to log in comes through :class:`LoginPolicy`, so nothing that must hold for all of
them stands elsewhere: master users, sessions of a user, LOGIN-DELAY, locked maildrops.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from importlib import import_module
from typing import Any

from twisted.cred.checkers import ANONYMOUS, ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.mail.interfaces import IMailboxPOP3 as ITwistedMailbox
from twisted.python.failure import Failure
from zope.interface import Attribute, implementer

from ..errors import AuthenticationFailed
from ..interfaces import Channel, IMailbox, Login, MaybeDeferred, SessionRecord, is_deferred
from .chain import AnyOf
from .credentials import AvatarId, Named
from .maybe_deferred import map_maybe_deferred, maybe_deferred, resolved
from .names import LoginNames
from .realm import Admission, user_name
from .throttle.login_throttle import VISITORS, Attempt, LoginThrottle

__all__ = ["IProvenIdentity", "LoginContext", "LoginPolicy", "ProvenIdentity", "ProvenIdentityChecker"]


class IProvenIdentity(ICredentials):
    """An identity that a mechanism has proven by itself: SCRAM, a token, a certificate."""

    user: str = Attribute("The user's name.")
    channel: Channel = Attribute("The connection.")


@implementer(IProvenIdentity)
class ProvenIdentity(Named):
    """What such a mechanism brings to the checkers.

    :param account: the account's name, if the mechanism has looked for it already.
    """

    def __init__(self, user: str, channel: Channel, account: str | None = None) -> None:
        self.user = self.claimed = user
        self.channel = channel
        self.account = account


@implementer(ICredentialsChecker)
class ProvenIdentityChecker:
    """Takes an identity that a mechanism has proven, unless the account is barred.

    :param accounts: what is known of the users.
    """

    credentialInterfaces = (IProvenIdentity,)

    def __init__(self, accounts: AnyOf) -> None:
        self._accounts = accounts

    def requestAvatarId(self, credentials: ProvenIdentity) -> AvatarId:
        """The user's name, at once or as a Deferred.

        :raises twisted.cred.error.UnauthorizedLogin: (or fails with) if the
            account may not be used from there.
        """
        user: str = credentials.user if credentials.account is None else credentials.account

        def decide(allowed: bool) -> bytes:
            if not allowed:
                self._accounts.be_sure()
                raise UnauthorizedLogin
            return user.encode("utf-8")

        return map_maybe_deferred(self._accounts.login_allowed(user, credentials.channel), decide)


class LoginContext:
    """One login, and the session that comes of it; what the realm gets as its ``mind``.

    :param authzid: whose maildrop is asked for, if not the user's own: RFC 4616's authorization identity.
    """

    def __init__(
        self,
        throttle: LoginThrottle,
        record: SessionRecord,
        attempt: Attempt,
        mechanism: str,
        authzid: str | None = None,
    ) -> None:
        self.record = record
        self.attempt = attempt
        self.mechanism = mechanism
        self.authzid = authzid
        #: Whose maildrop is opened, and as whose session that is counted: all visitors are one.
        self.user = self.counted_as = ""
        self._throttle = throttle
        self._logout: Callable[[], object] | None = None
        #: Whether the session is counted.
        self.counted = False
        # Whether other logins of the user wait for its end.
        self._is_ending = False

    def opened(self, logout: Callable[[], object]) -> None:
        """The maildrop is open; ``logout`` gives it back."""
        self._logout = logout
        self._throttle.opened(self.counted_as)

    def not_opened(self) -> None:
        """The maildrop could not be opened: the session counts no more, unless its end is waited for."""
        if self.counted and not self._is_ending:
            self.counted = False
            self._throttle.left(self.counted_as)

    def ending(self) -> None:
        """The session is ending: logins of the user wait for its maildrop, however long that takes."""
        if self._logout is not None and not self._is_ending:
            self._is_ending = True
            self._throttle.lock_queue.ending(self.counted_as)

    def leave(self) -> object:
        """Give the maildrop back, once; a Deferred if that takes a while."""
        logout = self._logout
        if logout is None:
            return None
        try:
            released = logout()
        except BaseException:
            self._left(None)
            raise
        if released is not None and is_deferred(released):
            self.ending()
            self._logout = None
            return released.addBoth(self._left)
        return self._left(None)

    def _left(self, outcome: object) -> object:
        self._logout = None
        self.counted = False
        self._throttle.left(self.counted_as)
        if self._is_ending:
            self._throttle.lock_queue.ended(self.counted_as)
        self._throttle.lock_queue.released(self.counted_as)
        return outcome


class LoginPolicy:
    """Decides whether a user may log in, and opens the maildrop.

    :param realm: opens the maildrops.
    :param masters: who may open the maildrops of others.
    :param exists: whether there can be such a user, as far as anybody can tell.
    :param names: says which account is asked for.
    """

    def __init__(
        self,
        realm: IRealm,
        throttle: LoginThrottle,
        masters: Collection[str],
        exists: Callable[[str], MaybeDeferred[bool]],
        names: LoginNames,
    ) -> None:
        self._realm: Any = realm
        self._throttle = throttle
        self._exists = exists
        self._names = names
        self._masters = frozenset(masters)

    def log_in(self, avatar_id: object, context: LoginContext) -> MaybeDeferred[Login]:
        """Open the maildrop, if it may be opened now.

        :param avatar_id: who it is that logs in, as a checker says it.
        :raises pop3toy.errors.AuthenticationFailed: (or fails with) if it is another user's, or no user's.
        :raises pop3toy.errors.InUse: (or fails with) if the user has too many sessions, or the
            maildrop is locked, when that was waited for.
        :raises pop3toy.errors.LoginDelay: (or fails with) if the last login is too recent.
        """
        if avatar_id == ANONYMOUS:
            context.user = "anonymous"
            return self._open(avatar_id, context, VISITORS)
        context.user = user = user_name(avatar_id)
        if context.authzid and context.authzid != user:
            return self._log_in_as(context.authzid, avatar_id, context)
        return self._open(avatar_id, context, user)

    @maybe_deferred
    async def _log_in_as(self, authzid: str, avatar_id: object, context: LoginContext) -> Login:
        user, names = context.user, self._names
        account = await resolved(names.account(authzid))
        if account == user or (account is None and names.key(authzid) == names.key(user)):
            # The user's own name, in another spelling.
            return await resolved(self._open(avatar_id, context, user))
        if user not in self._masters:
            raise AuthenticationFailed(detail="only a master user may ask for another's maildrop")
        context.user = another = str(account or authzid)
        if not await resolved(self._exists(another)):
            # A store might make a maildrop for any user that it is asked for.
            raise AuthenticationFailed(
                detail="a master user asks for the maildrop of a user that does not exist"
            )
        avatar_id = another.encode("utf-8") if isinstance(avatar_id, bytes) else another
        return await resolved(self._open(avatar_id, context, another))

    def _open(self, avatar_id: object, context: LoginContext, counted_as: str) -> MaybeDeferred[Login]:
        # The verdict is there; opening the maildrop may take a while yet.
        context.attempt.succeeded()
        context.counted_as = counted_as
        return self._throttle.lock_queue.open(
            counted_as, partial(self._try, avatar_id, context), context.record
        )

    def _try(self, avatar_id: object, context: LoginContext) -> MaybeDeferred[Login]:
        self._throttle.enter(context.counted_as)
        context.counted = True
        try:
            opening = self._realm.requestAvatar(avatar_id, context, IMailbox, ITwistedMailbox)
            if is_deferred(opening):
                login: Deferred[Login] = opening.addCallback(_login, context)
                return login.addErrback(_not_opened, context)
            return _login(opening, context)
        except BaseException:
            # A realm of another program's may raise anything; its user must not be counted for ever.
            context.not_opened()
            raise


def _login(admission: Admission, context: LoginContext) -> MaybeDeferred[Login]:
    _, avatar, logout = admission
    context.opened(logout)
    if IMailbox.providedBy(avatar):
        return Login(context.user, avatar, context.leave, context.mechanism, context.ending)
    return _adapted(avatar, context)


def _not_opened(why: Failure, context: LoginContext) -> Failure:
    context.not_opened()
    return why


@maybe_deferred
async def _adapted(avatar: object, context: LoginContext) -> Login:
    # Only other programs' realms need it.
    adapter = import_module("pop3toy.auth.twisted_mailbox")
    adapt = adapter.adapted if ITwistedMailbox.providedBy(avatar) else IMailbox
    try:
        mailbox = await resolved(adapt(avatar))
    except BaseException:
        context.leave()
        raise
    return Login(context.user, mailbox, context.leave, context.mechanism, context.ending)
