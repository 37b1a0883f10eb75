"""Whom a submission port lets in (RFC 6409): our own users, who log in as they do for POP3.

The same accounts, mechanisms and limits, by the same authenticator.  SMTP wants to know who somebody is
and opens no maildrop, so that a mail program can send while it fetches: :class:`SenderRealm` is the realm
for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.portal import IRealm
from zope.interface import implementer

from ..errors import MessageGone
from ..interfaces import Entry, IMailbox, MessageBody

__all__ = ["SenderRealm"]


@implementer(IMailbox)
class _NoMailbox:
    """What somebody gets who came to send: an avatar with nothing in it."""

    entries: Sequence[Entry] = ()
    read_only = True

    def read(self, uid: bytes) -> MessageBody:
        raise MessageGone

    def remove(self, uids: Sequence[bytes]) -> None:
        return None

    def release(self) -> None:
        return None


@implementer(IRealm)
class SenderRealm:
    """The realm of a portal for :class:`~pop3toy.auth.authenticator.PortalAuthenticator`
    behind a submission port: lets in, and opens nothing.
    """

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: Any
    ) -> tuple[Any, object, Callable[[], None]]:
        """See :class:`twisted.cred.portal.IRealm`."""
        if IMailbox not in interfaces:
            raise NotImplementedError("this realm knows IMailbox only")
        return IMailbox, _NoMailbox(), lambda: None
