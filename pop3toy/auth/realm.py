"""The realm: opens the maildrop of a user whose identity is proven.

What twisted.cred calls the avatar is the opened mailbox, and its logout is the
mailbox's release.  Nothing here knows a password or a mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from ..errors import AuthenticationFailed, Refusal
from ..interfaces import (
    Entry,
    ICancellableStore,
    IMailbox,
    IMailStore,
    IViewableStore,
    MaybeDeferred,
    MessageBody,
    SessionRecord,
    is_deferred,
)
from .maybe_deferred import map_maybe_deferred

__all__ = ["Admission", "MailboxRealm", "user_name"]

#: What a realm answers: the interface, the avatar, and how to log out.
Admission: TypeAlias = tuple[InterfaceClass, object, Callable[[], object]]


def user_name(avatar_id: object) -> str:
    """The user as text, from whatever a checker calls an avatar id.

    :raises pop3toy.errors.AuthenticationFailed: if the bytes are not UTF-8:
        no store knows such a user.
    """
    if isinstance(avatar_id, bytes):
        try:
            return avatar_id.decode("utf-8")
        except UnicodeDecodeError:
            raise AuthenticationFailed(detail="the user name is not UTF-8") from None
    return str(avatar_id)


@implementer(IRealm)
class MailboxRealm:
    """Opens the maildrop of the user that a portal has let in.

    :param store: an :class:`~pop3toy.interfaces.IMailStore`.
    :param anonymous: whose maildrop an anonymous visitor may read but not
        change; ``None`` if there is none for visitors.  Visitors and the owner do not lock
        one another out, if the store is an :class:`~pop3toy.interfaces.IViewableStore`.
    """

    def __init__(self, store: IMailStore, *, anonymous: str | None = None) -> None:
        self._store = store
        self._anonymous = anonymous

    def requestAvatar(self, avatarId: object, mind: object, *interfaces: InterfaceClass) -> Any:
        """Open the maildrop: ``(IMailbox, mailbox, release)`` or a Deferred of it.

        :param avatarId: the user's name, text or UTF-8, or
            :data:`twisted.cred.checkers.ANONYMOUS`.
        :raises NotImplementedError: if the caller does not take an
            :class:`~pop3toy.interfaces.IMailbox`.
        :raises pop3toy.errors.Refusal: (or fails with) what the store says.
        """
        if IMailbox not in interfaces:
            raise NotImplementedError("this realm opens pop3toy.interfaces.IMailbox and nothing else")
        if avatarId == ANONYMOUS:
            if self._anonymous is None:
                raise AuthenticationFailed
            view = self._store.view if IViewableStore.providedBy(self._store) else self._store.open
            opening: Any = map_maybe_deferred(view(self._anonymous), _ReadOnly)
        else:
            opening = self._store.open(user_name(avatarId))
        if is_deferred(opening):
            record = getattr(mind, "record", None)
            if record is not None and ICancellableStore.providedBy(self._store):
                _give_up_with(record, opening)
            return opening.addCallback(lambda mailbox: (IMailbox, mailbox, mailbox.release))
        return IMailbox, opening, opening.release


def _give_up_with(record: SessionRecord, opening: Deferred[object]) -> None:
    """Give up what is being opened when its session has gone."""

    def opened(result: object) -> object:
        record.give_up_opening = None
        return result

    record.give_up_opening = opening.cancel
    opening.addBoth(opened)


@implementer(IMailbox)
class _ReadOnly:
    """A mailbox of which everything can be read and nothing removed: what an anonymous visitor gets."""

    read_only = True

    def __init__(self, mailbox: Any) -> None:
        self.entries: Sequence[Entry] = mailbox.entries
        self.read: Callable[[bytes], MaybeDeferred[MessageBody]] = mailbox.read
        self.release: Callable[[], MaybeDeferred[None]] = mailbox.release

    def remove(self, uids: Sequence[bytes]) -> None:
        if uids:
            raise Refusal("this maildrop is read-only")
