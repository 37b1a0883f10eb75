"""A program that lets its users fetch its alerts as mail: a store of one's own.

Run it with ``python docs/examples/embed_own_store.py 2590`` and log in as
``ann`` with the password ``secret``.
"""

import sys
from email.message import EmailMessage

from twisted.cred.portal import Portal
from zope.interface import implementer

from pop3toy import Entry, IMailbox, IMailStore, MailboxRealm, POP3Factory, PortalAuthenticator
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.errors import InUse, MessageGone
from pop3toy.mail.octets import octets
from pop3toy.stores.memory import BytesBody


@implementer(IMailStore)
class Alerts:
    """All alerts of this program; each user sees them, and removes his own copy."""

    def __init__(self):
        self.alerts = {}  # unique-id: message
        self.removed = {}  # user: unique-ids
        self.users = set()  # whose maildrop is open

    def alert(self, subject, text):
        """Something has happened."""
        message = EmailMessage()
        message["From"], message["Subject"] = "program@example.org", subject
        message.set_content(text)
        self.alerts[b"alert-%d" % len(self.alerts)] = message.as_bytes()

    def open(self, user):
        """Open and lock a user's maildrop."""
        if user in self.users:
            raise InUse
        self.users.add(user)
        return Maildrop(self, user)


@implementer(IMailbox)
class Maildrop:
    """What one user has not removed yet, as it was when the session began."""

    def __init__(self, store, user):
        self.store, self.user = store, user
        self.removed = store.removed.setdefault(user, set())
        self.entries = [
            Entry(uid, octets(message)) for uid, message in store.alerts.items() if uid not in self.removed
        ]

    def read(self, uid):
        """A message, to be pulled chunk by chunk."""
        if uid in self.removed:
            raise MessageGone
        return BytesBody(self.store.alerts[uid])

    def remove(self, uids):
        """What QUIT does with deleted messages."""
        self.removed.update(uids)

    def release(self):
        """The session is over."""
        self.store.users.discard(self.user)


def make_factory(clock):
    """The server's factory; ``clock`` is the reactor of the program."""
    store = Alerts()
    store.alert("Coffee is ready", "It is in the kitchen.\n")
    store.alert("Coffee is cold", "You have been slow.\n")
    accounts = MemoryAccounts({"ann": "secret", "bob": "secret too"})
    return POP3Factory(clock, PortalAuthenticator(Portal(MailboxRealm(store), [accounts])))


if __name__ == "__main__":
    from twisted.internet import reactor

    port = int((sys.argv[1:] or ["2590"])[0])
    reactor.listenTCP(port, make_factory(reactor), interface="127.0.0.1")
    reactor.run()
