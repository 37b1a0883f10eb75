"""Between a proven identity and the realm: for whom the maildrop is opened, and whether it may be now.

The login policy is the realm that logins come to; the Portal's own is behind it.
Every way to log in comes through here, so nothing that must hold for all of them
stands elsewhere: master users, accounts that are barred, sessions of a user, LOGIN-DELAY.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.cred.checkers import ANONYMOUS, ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.python.failure import Failure
from zope.interface import Attribute, implementer
from zope.interface.interface import InterfaceClass

from ..errors import AuthenticationFailed
from ..interfaces import Channel, MaybeDeferred, SessionRecord, is_deferred
from .chain import AnyOf
from .credentials import Named
from .maybe_deferred import map_maybe_deferred, maybe_deferred, resolved
from .names import LoginNames
from .realm import user_name
from .throttle.login_throttle import VISITORS, Attempt, LoginThrottle

__all__ = ["IProvenIdentity", "LoginContext", "LoginPolicy", "ProvenIdentity", "ProvenIdentityChecker"]


class IProvenIdentity(ICredentials):
    """Somebody whose identity a mechanism has proven by itself: SCRAM, a token, a certificate."""

    user: str = Attribute("The user's name.")
    channel: Channel = Attribute("The connection.")


@implementer(IProvenIdentity)
class ProvenIdentity(Named):
    """What such a mechanism brings to the checkers.

    :param account: the account's name, if the mechanism has looked for it already.
    """

    def __init__(self, user: str, channel: Channel, account: str | None = None) -> None:
        self.user = user
        self.channel = channel
        self.account = account

    @property
    def claimed(self) -> str:
        """The name that was proven."""
        return self.user


@implementer(ICredentialsChecker)
class ProvenIdentityChecker:
    """Lets in whom a mechanism has proven, unless the account is barred.

    :param accounts: what is known of the users.
    """

    credentialInterfaces = (IProvenIdentity,)

    def __init__(self, accounts: AnyOf) -> None:
        self._accounts = accounts

    def requestAvatarId(self, credentials: Any) -> Any:
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


@dataclass
class LoginContext:
    """What goes to the realm with the credentials, as its ``mind``."""

    record: SessionRecord
    attempt: Attempt
    #: Whose maildrop is asked for, if not the user's own: RFC 4616's authorization identity.
    authzid: str | None = None
    #: Whose maildrop was opened.
    user: str = ""
    #: Tells that the session with it is ending.
    ending: Callable[[], object] = lambda: None


class _OpenSession:
    """A session of a user, from the opened maildrop to the one that is free again.

    :param logout: gives the maildrop back.
    """

    __slots__ = ("_ending", "_guard", "_logout", "_over", "_user")

    def __init__(self, guard: LoginThrottle, user: str, logout: Callable[[], object]) -> None:
        self._guard = guard
        self._user = user
        self._logout = logout
        self._ending = self._over = False

    def ending(self) -> None:
        """What is begun now is the end of it."""
        if not (self._ending or self._over):
            self._ending = True
            self._guard.lock_queue.ending(self._user)

    def leave(self) -> object:
        """Give the maildrop back, once; a Deferred if that takes a while."""
        if self._over:
            return None
        try:
            released = self._logout()
        except BaseException:
            self._left(None)
            raise
        if released is not None and is_deferred(released):
            self.ending()
            self._over = True
            return released.addBoth(self._left)
        return self._left(None)

    def _left(self, outcome: object) -> object:
        self._over = True
        self._guard.left(self._user)
        if self._ending:
            self._guard.lock_queue.ended(self._user)
        self._guard.lock_queue.released(self._user)
        return outcome


@implementer(IRealm)
class LoginPolicy:
    """A realm before a portal's realm.

    :param portal: a Portal, whose realm opens the maildrops.
    :param masters: who may open the maildrops of others.
    :param exists: whether there can be such a user, as far as anybody can tell.
    :param names: says which account is asked for.
    """

    def __init__(
        self,
        portal: Any,
        guard: LoginThrottle,
        masters: Collection[str],
        exists: Callable[[str], MaybeDeferred[bool]],
        names: LoginNames,
    ) -> None:
        self._portal = portal
        self._guard = guard
        self._queue = guard.lock_queue
        self._exists = exists
        self._names = names
        self._masters = frozenset(masters)

    def requestAvatar(self, avatarId: object, mind: Any, *interfaces: InterfaceClass) -> Any:
        """Ask the realm for the maildrop, if it may be opened now.

        :param mind: a :class:`LoginContext`.
        :raises pop3toy.errors.AuthenticationFailed: if it is somebody else's, or nobody's.
        :raises pop3toy.errors.InUse: (or fails with) if the user has too many sessions, or the
            maildrop is locked, when that was waited for.
        :raises pop3toy.errors.LoginDelay: if the last login is too recent.
        """
        context: LoginContext = mind
        if avatarId == ANONYMOUS:
            context.user = "anonymous"
            context.attempt.succeeded()
            open_demo = partial(self._open, avatarId, context, interfaces, VISITORS)
            return self._queue.open(VISITORS, open_demo, context.record)
        context.user = user = user_name(avatarId)
        if not context.authzid or context.authzid == user:
            return self._enter(avatarId, context, interfaces)
        return self._enter_as(context.authzid, avatarId, context, interfaces)

    @maybe_deferred
    async def _enter_as(
        self, authzid: str, avatarId: object, context: LoginContext, interfaces: Sequence[InterfaceClass]
    ) -> Any:
        user, names = context.user, self._names
        account = await resolved(names.account(authzid))
        if account == user or (account is None and names.key(authzid) == names.key(user)):
            # The user's own name, in another spelling.
            return await resolved(self._enter(avatarId, context, interfaces))
        if user not in self._masters:
            raise AuthenticationFailed(detail="only a master user may ask for another's maildrop")
        context.user = another = account or authzid
        if not await resolved(self._exists(another)):
            # A store might make a maildrop for whomever it is asked.
            raise AuthenticationFailed(detail="a master user asks for a maildrop of nobody's")
        avatar_id = another.encode("utf-8") if isinstance(avatarId, bytes) else another
        return await resolved(self._enter(avatar_id, context, interfaces))

    def _enter(self, avatarId: object, context: LoginContext, interfaces: Sequence[InterfaceClass]) -> Any:
        # The verdict is there; opening the maildrop may take a while yet.
        context.attempt.succeeded()
        attempt = partial(self._open, avatarId, context, interfaces, context.user)
        return self._queue.open(context.user, attempt, context.record)

    def _open(
        self, avatarId: object, context: LoginContext, interfaces: Sequence[InterfaceClass], user: str
    ) -> Any:
        # ``user`` is who is counted: all visitors are one.
        if user == VISITORS:
            self._guard.enter_visitor()
        else:
            self._guard.enter(user)
        try:
            opening: Any = self._portal.realm.requestAvatar(avatarId, context, *interfaces)
        except BaseException:
            self._guard.left(user)
            raise
        if is_deferred(opening):
            return opening.addCallbacks(
                self._opened, self._not_opened, callbackArgs=(context, user), errbackArgs=(user,)
            )
        return self._opened(opening, context, user)

    def _opened(self, admission: Any, context: LoginContext, user: str) -> Any:
        try:
            interface, avatar, logout = admission
        except BaseException:
            # A realm of somebody else's; its user must not count as inside for ever.
            self._guard.left(user)
            raise
        self._guard.opened(user)
        session = _OpenSession(self._guard, user, logout)
        context.ending = session.ending
        return interface, avatar, session.leave

    def _not_opened(self, why: Failure, user: str) -> Failure:
        self._guard.left(user)
        return why
