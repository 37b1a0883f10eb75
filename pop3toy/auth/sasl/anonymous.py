"""ANONYMOUS (RFC 4505): a visitor to a read-only maildrop, if there is one for visitors."""

from __future__ import annotations

from typing import ClassVar

from twisted.cred.credentials import Anonymous, IAnonymous

from ...errors import BadCommand
from .exchange import AuthResult, MechanismContext

__all__ = ["AnonymousMechanism"]


class AnonymousMechanism:
    """The client may send trace information, which is neither checked nor kept."""

    name: ClassVar[str] = "ANONYMOUS"
    client_first: ClassVar[bool] = True

    def __init__(self, context: MechanismContext) -> None:
        self.user: str | None = None

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Where the Portal takes visitors."""
        return IAnonymous in context.credentials

    async def step(self, response: bytes | None) -> AuthResult:
        """Trace information of 1 to 255 characters, or nothing (RFC 4505 section 2)."""
        if len(response or b"") > 1020:
            raise BadCommand("the trace information is too long")
        return AuthResult(Anonymous(), "anonymous")
