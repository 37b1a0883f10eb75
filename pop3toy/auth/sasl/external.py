"""EXTERNAL (RFC 4422 appendix A): TLS has verified the client's certificate, its name is the user."""

from __future__ import annotations

from typing import ClassVar

from ...errors import AuthenticationFailed
from ..login import ProvenIdentity
from .exchange import AuthResult, MechanismContext, text

__all__ = ["External"]


class External:
    """The client says whom it wants to act as, or nothing for itself."""

    name: ClassVar[str] = "EXTERNAL"
    client_first: ClassVar[bool] = True

    def __init__(self, context: MechanismContext) -> None:
        self._channel = context.channel
        self.user = context.channel.tls.client_name if context.channel.tls is not None else None

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Where certificates count and this client has shown a good one."""
        return (
            context.certificates and context.channel.tls is not None and bool(context.channel.tls.client_name)
        )

    async def step(self, response: bytes | None) -> AuthResult:
        """The authorization identity, or nothing."""
        if not self.user:
            raise AuthenticationFailed
        return AuthResult(ProvenIdentity(self.user, self._channel), self.user, text(response or b"") or None)
