"""The realm behind a submission port (RFC 6409), whose users log in as they do for POP3.

Accounts, mechanisms and limits are those of POP3, and so is the authenticator; but its portal has
:class:`SenderRealm`, which opens no maildrop, so that a mail program can send while it fetches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.cred.portal import IRealm
from zope.interface import Interface, implementer

from ..errors import MessageGone
from ..interfaces import Entry, IMailbox, MessageBody

__all__ = ["SenderRealm"]


@implementer(IMailbox)
class _NoMailbox:
    """The avatar of a user who logs in to send."""

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
        self, avatarId: object, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        """See :class:`twisted.cred.portal.IRealm`."""
        if IMailbox not in interfaces:
            raise NotImplementedError("this realm knows IMailbox only")
        return IMailbox, _NoMailbox(), lambda: None
