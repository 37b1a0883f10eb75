"""X-PAIR: a name and a password with a blank between them."""

from __future__ import annotations

from typing import ClassVar

from twisted.cred.credentials import IUsernamePassword

from ...errors import BadCommand
from ..credentials import ClearPassword
from .exchange import AuthResult, MechanismContext, text


class Pair:
    """One response, from the client."""

    name: ClassVar[str] = "X-PAIR"
    client_first: ClassVar[bool] = True

    def __init__(self, context: MechanismContext) -> None:
        self.user: str | None = None
        self._channel = context.channel

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Where secrets may be sent and a checker takes passwords."""
        return context.clear_text and IUsernamePassword in context.credentials

    async def step(self, response: bytes | None) -> AuthResult:
        """``name SP password``."""
        name, blank, password = (response or b"").partition(b" ")
        if not blank:
            raise BadCommand("this is not an X-PAIR response")
        self.user = text(name)
        return AuthResult(ClearPassword(name, password, self._channel), self.user)
