"""Which server is looked at, as whom, and what it announces."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

__all__ = ["Capabilities", "Target"]


@dataclass(frozen=True)
class Target:
    """Which server, and as whom.

    :ivar tls: ``none``, ``stls`` or ``implicit``.
    :ivar context: what certificates are trusted; not looked at without TLS.
    :ivar timeout: seconds for each answer.
    :ivar patience: seconds that a login is tried again while the mailbox is in use.
    :ivar idle: seconds that a session is left alone to see whether it lasts; 0 to leave it out.
    :ivar safe: whether nobody can overhear the network between here and there, as on loopback.
    :ivar destructive: whether messages may be removed.
    :ivar smtp: where messages can be brought by SMTP, and for which address.
    """

    host: str
    port: int
    tls: str
    user: str
    password: str = field(repr=False)
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context, repr=False)
    timeout: float = 10.0
    patience: float = 10.0
    idle: float = 0.0
    safe: bool = False
    destructive: bool = False
    smtp: tuple[str, int] | None = None
    deliver_to: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What CAPA says: names in capitals with their arguments, and the lines as they came."""

    named: dict[bytes, list[bytes]]
    lines: list[bytes]

    def __contains__(self, name: object) -> bool:
        return name in self.named

    @property
    def mechanisms(self) -> list[bytes]:
        """Those of SASL, in capitals."""
        return [one.upper() for one in self.named.get(b"SASL", [])]
