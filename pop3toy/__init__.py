"""pop3toy, a POP3 server on Twisted.

As a program: ``twistd -n pop3toy --port 2590`` serves one built-in message and
shows every line of the conversation; with ``--maildir`` it serves real mail.

As a library: :class:`POP3Factory` over a ``twisted.cred`` portal::

    from twisted.cred.portal import Portal
    from pop3toy import MailboxRealm, POP3Factory, PortalAuthenticator

    factory = POP3Factory(reactor, PortalAuthenticator(Portal(MailboxRealm(store), [checker])))

``store`` is any :class:`~pop3toy.interfaces.IMailStore`;
:class:`~pop3toy.stores.memory.MemoryStore` is one to begin with.
"""

from __future__ import annotations

from ._version import __version__
from .auth.authenticator import PortalAuthenticator
from .auth.realm import MailboxRealm
from .interfaces import Entry, IDelivery, IMailbox, IMailStore, IMeter, ITranscript, MessageBody
from .pop3.factory import POP3Factory
from .pop3.protocol import POP3Protocol

__all__ = [
    "Entry",
    "IDelivery",
    "IMailStore",
    "IMailbox",
    "IMeter",
    "ITranscript",
    "MailboxRealm",
    "MessageBody",
    "POP3Factory",
    "POP3Protocol",
    "PortalAuthenticator",
    "__version__",
]
