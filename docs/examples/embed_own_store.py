"""A program that lets its users fetch its alerts as mail: a store of one's own.

Run it with ``python docs/examples/embed_own_store.py 2590`` and log in as
``ann`` with the password ``secret``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from zope.interface import implementer

from pop3toy import BytesBody, Entry, IMailbox, IMailStore, Settings, errors, octets, server


@implementer(IMailStore)
class Alerts:
    """All alerts of this program; each user sees them, and removes his own copy."""

    def __init__(self) -> None:
        #: By unique-id.
        self.alerts: dict[bytes, bytes] = {}
        #: Unique-ids that a user has removed.
        self.removed: dict[str, set[bytes]] = {}
        #: Whose maildrop is open.
        self.users: set[str] = set()

    def alert(self, subject: str, text: str) -> None:
        """Something has happened."""
        message = EmailMessage()
        message["From"], message["Subject"] = "program@example.org", subject
        message.set_content(text)
        self.alerts[b"alert-%d" % len(self.alerts)] = message.as_bytes()

    def open(self, user: str) -> IMailbox:
        """Open and lock a user's maildrop."""
        if user in self.users:
            raise errors.InUse
        self.users.add(user)
        return Maildrop(self, user)


@implementer(IMailbox)
class Maildrop:
    """What one user has not removed yet, as it was when the session began."""

    read_only = False

    def __init__(self, store: Alerts, user: str) -> None:
        self.store, self.user = store, user
        self.removed = store.removed.setdefault(user, set())
        self.entries = [
            Entry(uid, octets(message)) for uid, message in store.alerts.items() if uid not in self.removed
        ]

    def read(self, uid: bytes) -> BytesBody:
        """A message, to be pulled chunk by chunk."""
        if uid in self.removed:
            raise errors.MessageGone
        return BytesBody(self.store.alerts[uid])

    def remove(self, uids: Sequence[bytes]) -> None:
        """What QUIT does with deleted messages."""
        self.removed.update(uids)

    def release(self) -> None:
        """The session is over."""
        self.store.users.discard(self.user)


def make_service(reactor: Any, port: int) -> IService:
    """The whole server; nothing is open before it is started."""
    store = Alerts()
    store.alert("Coffee is ready", "It is in the kitchen.\n")
    store.alert("Coffee is cold", "You have been slow.\n")
    settings = Settings(port=port, users=(("ann", "secret"), ("bob", "secret too")))
    return server(reactor, settings, store=store)


def main(reactor: Any, port: str = "2590") -> Deferred[None]:
    """Serve until Ctrl-C."""
    service = make_service(reactor, int(port))
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
