"""A POP3 server for the tests of programs that fetch mail; docs/testing.rst shows how.

Who tests with pytest needs no import: the fixtures ``pop3_server`` and ``pop3_server_factory`` are there
when pop3toy is installed (``pytest_plugin``).  :func:`running_server` is the same for everybody else, and
:class:`POP3ServerMixin` a server without a thread, a socket or a wait.

What ``__all__`` names is public.  What must not be here: anything that a server in use needs; nobody of
the other packages imports this one.  Names are loaded when they are used, as those of ``pop3toy`` are,
since the plugin is loaded by each run of pytest.  Start reading at ``served``, then ``running``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversation import POP3Conversation
    from .faults.gate import Faults
    from .faults.rules import BadFault, Fault
    from .in_memory import MemoryClient, MemoryServer, POP3ServerMixin
    from .mailboxes import Mailbox, Message
    from .recorder import Session
    from .running import RunningServer, running_server
    from .smtp_trap import SMTPMessage

#: Where each public name is.
_MODULES = {
    "running_server": "running",
    "RunningServer": "running",
    "Session": "recorder",
    "Mailbox": "mailboxes",
    "Message": "mailboxes",
    "SMTPMessage": "smtp_trap",
    "POP3ServerMixin": "in_memory",
    "MemoryServer": "in_memory",
    "MemoryClient": "in_memory",
    "POP3Conversation": "conversation",
    "Faults": "faults.gate",
    "Fault": "faults.rules",
    "BadFault": "faults.rules",
}

__all__ = [
    "BadFault",
    "Fault",
    "Faults",
    "Mailbox",
    "MemoryClient",
    "MemoryServer",
    "Message",
    "POP3Conversation",
    "POP3ServerMixin",
    "RunningServer",
    "SMTPMessage",
    "Session",
    "running_server",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f".{module}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
