"""pop3toy, a POP3 server on Twisted.

As a program: ``twistd -n pop3toy --port 2590`` serves one built-in message and
shows every line of the conversation; with ``--maildir`` it serves real mail.

As a library: a whole server, as a service of your own program::

    from twisted.internet import reactor
    from pop3toy import Maildirs, Settings, server

    settings = Settings(port=2590, store=Maildirs("/srv/mail/{user}"), users=(("ann", "secret"),))
    service = server(reactor, settings)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()

or its parts: :class:`POP3Factory` over a ``twisted.cred`` portal, over any :class:`IMailStore`.
docs/embedding.rst tells more.

What ``__all__`` names is public: it stays, or is announced in NEWS.rst before it goes.
Everything else, modules and all that is in them, may move from one release to the next.
Names are loaded when they are first used (PEP 562), so that importing this package
loads neither TLS nor a store.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import errors, events
    from .auth.accounts.memory import MemoryAccounts
    from .auth.authenticator import PortalAuthenticator
    from .auth.realm import MailboxRealm
    from .auth.throttle.connection_limiter import ConnectionLimiter
    from .auth.throttle.login_throttle import LoginThrottle
    from .config.settings import TLS, Limits, Settings
    from .errors import CannotStart
    from .events import Observers
    from .interfaces import (
        Entry,
        GateAnswer,
        ICancellableStore,
        IDelivery,
        IGate,
        ILeasedMailbox,
        IMailbox,
        IMailStore,
        IObserver,
        IServerControl,
        IStoreAdmin,
        IViewableStore,
        MessageBody,
        SessionInfo,
    )
    from .mail.listing import Listing
    from .mail.octets import octets
    from .mail.unique_ids import unique_id_is_valid
    from .observe.transcript import MemoryTranscript
    from .pop3.factory import POP3Factory
    from .run.assembly import server
    from .stores.maildir.body import FileBody
    from .stores.maildir.settings import Maildirs
    from .stores.maildir.store import MaildirStore
    from .stores.memory import BytesBody, MemoryStore
    from .stores.toy import Toy

#: Where each public name is.
_HOMES = {
    "run.assembly": ("server",),
    "config.settings": ("Settings", "TLS", "Limits"),
    "stores.maildir.settings": ("Maildirs",),
    "stores.toy": ("Toy",),
    "errors": ("CannotStart", "errors"),
    "pop3.factory": ("POP3Factory",),
    "auth.authenticator": ("PortalAuthenticator",),
    "auth.realm": ("MailboxRealm",),
    "auth.accounts.memory": ("MemoryAccounts",),
    "auth.throttle.login_throttle": ("LoginThrottle",),
    "auth.throttle.connection_limiter": ("ConnectionLimiter",),
    "interfaces": (
        "IMailStore",
        "ICancellableStore",
        "IViewableStore",
        "IMailbox",
        "ILeasedMailbox",
        "IDelivery",
        "IStoreAdmin",
        "IGate",
        "IObserver",
        "IServerControl",
        "GateAnswer",
        "SessionInfo",
        "MessageBody",
        "Entry",
    ),
    "stores.memory": ("BytesBody", "MemoryStore"),
    "stores.maildir.body": ("FileBody",),
    "stores.maildir.store": ("MaildirStore",),
    "mail.listing": ("Listing",),
    "mail.octets": ("octets",),
    "mail.unique_ids": ("unique_id_is_valid",),
    "events": ("Observers", "events"),
    "observe.transcript": ("MemoryTranscript",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "TLS",
    "BytesBody",
    "CannotStart",
    "ConnectionLimiter",
    "Entry",
    "FileBody",
    "GateAnswer",
    "ICancellableStore",
    "IDelivery",
    "IGate",
    "ILeasedMailbox",
    "IMailStore",
    "IMailbox",
    "IObserver",
    "IServerControl",
    "IStoreAdmin",
    "IViewableStore",
    "Limits",
    "Listing",
    "LoginThrottle",
    "MailboxRealm",
    "MaildirStore",
    "Maildirs",
    "MemoryAccounts",
    "MemoryStore",
    "MemoryTranscript",
    "MessageBody",
    "Observers",
    "POP3Factory",
    "PortalAuthenticator",
    "SessionInfo",
    "Settings",
    "Toy",
    "errors",
    "events",
    "octets",
    "server",
    "unique_id_is_valid",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    loaded = import_module(f".{module}", __name__)
    # Kept, so that this is called once for each name.
    globals()[name] = found = loaded if name == module else getattr(loaded, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
