"""A program that was written for Twisted's own POP3 server: its realm and mailboxes work as they are.

Run it with ``python docs/examples/embed_twisted_mailbox.py 2590`` and log in as
``ann`` with the password ``secret``.
"""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.mail import pop3
from zope.interface import implementer

from pop3toy import ConnectionLimiter, LoginThrottle, POP3Factory, PortalAuthenticator

#: A unique-id and a message.
Item = tuple[bytes, bytes]


class OldMailbox(pop3.Mailbox):
    """A ``twisted.mail.pop3.IMailbox`` over a list."""

    def __init__(self, mail: list[Item]) -> None:
        self.mail = mail
        self.session = list(mail)
        self.deleted: list[Item] = []

    def listMessages(self, index: int | None = None) -> Any:
        """Sizes, 0 for deleted messages."""
        sizes = [0 if item in self.deleted else len(item[1]) for item in self.session]
        return sizes if index is None else sizes[index]

    def getMessage(self, index: int) -> Any:
        """A message as a file."""
        return BytesIO(self.session[index][1])

    def getUidl(self, index: int) -> bytes:
        """Its unique-id."""
        return self.session[index][0]

    def deleteMessage(self, index: int) -> None:
        """Mark it."""
        self.deleted.append(self.session[index])

    def undeleteMessages(self) -> None:
        """Unmark all."""
        self.deleted.clear()

    def sync(self) -> None:
        """Remove what is marked."""
        self.mail[:] = [item for item in self.mail if item not in self.deleted]


@implementer(IRealm)
class OldRealm:
    """Gives each user Twisted's mailbox."""

    def __init__(self) -> None:
        self.mail = {b"ann": [(b"first", b"Subject: one\n\n1\n"), (b"second", b"Subject: two\n\n2\n")]}

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        """The mailbox of a user who has logged in."""
        if pop3.IMailbox not in interfaces:
            raise NotImplementedError
        return pop3.IMailbox, OldMailbox(self.mail[avatarId]), lambda: None


def make_factory(reactor: Any) -> POP3Factory:
    """The server's factory, with what ``pop3toy.server`` has by itself: penalties and limits."""
    portal = Portal(OldRealm(), [InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")])
    authenticator = PortalAuthenticator(portal, throttle=LoginThrottle(reactor))
    return POP3Factory(reactor, authenticator, limiter=ConnectionLimiter())


def main(reactor: Any, port: str = "2590") -> Deferred[None]:
    """Serve until Ctrl-C."""
    factory = make_factory(reactor)
    reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    # Sessions may end before the program does.
    reactor.addSystemEventTrigger("before", "shutdown", factory.drain)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
