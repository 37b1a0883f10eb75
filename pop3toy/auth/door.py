"""Between a proven identity and the realm: for whom the maildrop is opened, and whether it may be now.

The door is the realm that logins come to; the Portal's own is behind it.  Every
way to log in comes through here, so nothing that must hold for all of them
stands elsewhere: master users, accounts that are barred, sessions of a user, LOGIN-DELAY.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
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
from .guard import Attempt, Guard
from .later import then
from .realm import user_name

__all__ = ["Door", "IProvenIdentity", "ProvenIdentity", "ProvenIdentityChecker", "Visitor"]


class IProvenIdentity(ICredentials):
    """Somebody whose identity a mechanism has proven by itself: SCRAM, a token, a certificate."""

    user: str = Attribute("The user's name.")
    channel: Channel = Attribute("The connection.")


@implementer(IProvenIdentity)
class ProvenIdentity:
    """What such a mechanism brings to the checkers."""

    def __init__(self, user: str, channel: Channel) -> None:
        self.user = user
        self.channel = channel


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

        def decide(admitted: bool) -> bytes:
            if not admitted:
                self._accounts.be_sure()
                raise UnauthorizedLogin
            return credentials.user.encode("utf-8")  # type: ignore[no-any-return]

        return then(self._accounts.admits(credentials.user, credentials.channel), decide)


@dataclass
class Visitor:
    """The mind that goes to the realm with the credentials.

    Realms see it as their ``mind``.
    """

    record: SessionRecord
    attempt: Attempt
    #: Whose maildrop he asks for, if not his own (RFC 4616's authorization identity).
    act_as: str | None = None
    #: Whose maildrop was opened.
    user: str = ""


@implementer(IRealm)
class Door:
    """A realm before a portal's realm.

    :param portal: a Portal, whose realm opens the maildrops.
    :param masters: who may open the maildrops of others.
    :param exists: whether there can be such a user, as far as anybody can tell.
    """

    def __init__(
        self,
        portal: Any,
        guard: Guard,
        masters: Collection[str],
        exists: Callable[[str], MaybeDeferred[bool]],
    ) -> None:
        self._portal = portal
        self._guard = guard
        self._exists = exists
        self._masters = frozenset(masters)

    def requestAvatar(self, avatarId: object, mind: Any, *interfaces: InterfaceClass) -> Any:
        """Ask the realm for the maildrop, if it may be opened now.

        :param mind: a :class:`Visitor`.
        :raises pop3toy.errors.AuthenticationFailed: if it is somebody else's, or nobody's.
        :raises pop3toy.errors.InUse: if the user has too many sessions.
        :raises pop3toy.errors.LoginDelay: if the last login is too recent.
        """
        visitor: Visitor = mind
        if avatarId == ANONYMOUS:
            visitor.user = "anonymous"
            visitor.attempt.succeeded()
            return self._portal.realm.requestAvatar(avatarId, mind, *interfaces)
        visitor.user = user = user_name(avatarId)
        if not visitor.act_as or visitor.act_as == user:
            return self._enter(avatarId, visitor, interfaces)
        if user not in self._masters:
            raise AuthenticationFailed(detail="only a master user may ask for another's maildrop")
        visitor.user = user = visitor.act_as
        another = user.encode("utf-8") if isinstance(avatarId, bytes) else user

        def found(there: bool) -> Any:
            if not there:
                # A store might make a maildrop for whomever it is asked.
                raise AuthenticationFailed(detail="a master user asks for a maildrop of nobody's")
            return self._enter(another, visitor, interfaces)

        return then(self._exists(user), found)

    def _enter(self, avatarId: object, visitor: Visitor, interfaces: Sequence[InterfaceClass]) -> Any:
        user = visitor.user
        # The verdict is there; opening the maildrop may take a while yet.
        visitor.attempt.succeeded()
        self._guard.enter(user)
        try:
            opening: Any = self._portal.realm.requestAvatar(avatarId, visitor, *interfaces)
        except BaseException:
            self._guard.left(user)
            raise
        if is_deferred(opening):
            return opening.addCallbacks(
                self._opened, self._not_opened, callbackArgs=(user,), errbackArgs=(user,)
            )
        return self._opened(opening, user)

    def _opened(self, admission: Any, user: str) -> Any:
        try:
            interface, avatar, logout = admission
        except BaseException:
            # A realm of somebody else's; its user must not count as inside for ever.
            self._guard.left(user)
            raise
        self._guard.opened(user)
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._guard.left(user)
                logout()

        return interface, avatar, leave

    def _not_opened(self, why: Failure, user: str) -> Failure:
        self._guard.left(user)
        return why
