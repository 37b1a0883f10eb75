"""PLAIN (RFC 4616) and LOGIN (never standardised): a name and a password in clear text."""

from __future__ import annotations

from typing import ClassVar

from twisted.cred.credentials import IUsernamePassword

from ...errors import BadCommand
from ...interfaces import Challenge
from ..credentials import ClearPassword
from .exchange import AuthResult, MechanismContext, text

__all__ = ["LoginMechanism", "Plain"]


class _ClearText:
    def __init__(self, context: MechanismContext) -> None:
        self.user: str | None = None
        self._channel = context.channel

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Where secrets may be sent and a checker takes passwords."""
        return context.clear_text and IUsernamePassword in context.credentials

    def _proof(self, user: bytes, password: bytes, authzid: str | None = None) -> AuthResult:
        self.user = text(user)
        return AuthResult(ClearPassword(user, password, self._channel), self.user, authzid)


class Plain(_ClearText):
    """PLAIN: all in one response."""

    name: ClassVar[str] = "PLAIN"
    client_first: ClassVar[bool] = True

    async def step(self, response: bytes | None) -> AuthResult:
        """``[authzid] NUL authcid NUL password``."""
        parts = (response or b"").split(b"\0")
        # RFC 4616 section 2: neither name nor password is empty.
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise BadCommand("this is not a PLAIN response")
        authzid, user, password = parts
        return self._proof(user, password, text(authzid) or None)


class LoginMechanism(_ClearText):
    """LOGIN: a prompt for each; an initial response is the name."""

    name: ClassVar[str] = "LOGIN"
    client_first: ClassVar[bool] = False

    def __init__(self, context: MechanismContext) -> None:
        super().__init__(context)
        self._name: bytes | None = None

    async def step(self, response: bytes | None) -> Challenge | AuthResult:
        """First the name, then the password."""
        if response is None:
            # Outlook looks for exactly these prompts.
            return Challenge(b"Username:")
        if self._name is not None:
            return self._proof(self._name, response)
        self.user = text(response)
        self._name = response
        return Challenge(b"Password:")
