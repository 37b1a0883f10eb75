"""EXTERNAL (RFC 4422 appendix A): TLS has verified the client's certificate, its name is the user."""

from __future__ import annotations

from typing import ClassVar

from ...errors import AuthenticationFailed
from ..login import ProvenIdentity
from .exchange import Circumstances, Proof, text

__all__ = ["External"]


class External:
    """The client says whom it wants to act as, or nothing for itself."""

    name: ClassVar[str] = "EXTERNAL"
    client_first: ClassVar[bool] = True

    def __init__(self, here: Circumstances) -> None:
        self._channel = here.channel
        self.user = here.channel.tls.client_name if here.channel.tls is not None else None

    @classmethod
    def offered(cls, here: Circumstances) -> bool:
        """Where certificates count and this client has shown a good one."""
        return here.certificates and here.channel.tls is not None and bool(here.channel.tls.client_name)

    def step(self, response: bytes | None) -> Proof:
        """The authorization identity, or nothing."""
        if not self.user:
            raise AuthenticationFailed
        return Proof(ProvenIdentity(self.user, self._channel), self.user, text(response or b"") or None)
