"""A program that was written for Twisted's own POP3 server: its realm and mailboxes work as they are.

Run it with ``python docs/examples/embed_twisted_mailbox.py 2590`` and log in as
``ann`` with the password ``secret``.
"""

import sys
from io import BytesIO

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.mail import pop3
from zope.interface import implementer

from pop3toy import POP3Factory, PortalAuthenticator


class OldMailbox(pop3.Mailbox):
    """A ``twisted.mail.pop3.IMailbox`` over a list of ``[unique-id, message]``."""

    def __init__(self, mail):
        self.mail = mail
        self.session = list(mail)
        self.deleted = []

    def listMessages(self, index=None):
        """Sizes, 0 for deleted messages."""
        sizes = [0 if item in self.deleted else len(item[1]) for item in self.session]
        return sizes if index is None else sizes[index]

    def getMessage(self, index):
        """A message as a file."""
        return BytesIO(self.session[index][1])

    def getUidl(self, index):
        """Its unique-id."""
        return self.session[index][0]

    def deleteMessage(self, index):
        """Mark it."""
        self.deleted.append(self.session[index])

    def undeleteMessages(self):
        """Unmark all."""
        self.deleted.clear()

    def sync(self):
        """Remove what is marked."""
        self.mail[:] = [item for item in self.mail if item not in self.deleted]


@implementer(IRealm)
class OldRealm:
    """Gives each user Twisted's mailbox."""

    def __init__(self):
        self.mail = {b"ann": [(b"first", b"Subject: one\n\n1\n"), (b"second", b"Subject: two\n\n2\n")]}

    def requestAvatar(self, avatar_id, mind, *interfaces):
        """The mailbox of a user who has logged in."""
        if pop3.IMailbox not in interfaces:
            raise NotImplementedError
        return pop3.IMailbox, OldMailbox(self.mail[avatar_id]), lambda: None


def make_factory(clock):
    """The server's factory; ``clock`` is the reactor of the program."""
    checker = InMemoryUsernamePasswordDatabaseDontUse(ann="secret")
    return POP3Factory(clock, PortalAuthenticator(Portal(OldRealm(), [checker])))


if __name__ == "__main__":
    from twisted.internet import reactor

    port = int((sys.argv[1:] or ["2590"])[0])
    reactor.listenTCP(port, make_factory(reactor), interface="127.0.0.1")
    reactor.run()
