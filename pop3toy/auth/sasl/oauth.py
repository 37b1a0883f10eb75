"""OAUTHBEARER (RFC 7628) and Google's and Microsoft's XOAUTH2: a bearer token instead of a password.

Whether a token is good is decided by an :class:`ITokenChecker`; one is in ``introspection``.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from zope.interface import Interface

from ...errors import AuthenticationFailed, BadCommand
from ...interfaces import Challenge, MaybeDeferred
from ..login import ProvenIdentity
from ..maybe_deferred import resolved
from .exchange import AuthResult, MechanismContext, text

__all__ = ["ITokenChecker", "OAuthBearer", "XOAuth2"]


class ITokenChecker(Interface):
    """Knows to which user a bearer token belongs."""

    def owner(token: str) -> MaybeDeferred[str | None]:
        """The user that the token was given to; ``None`` if it is no good.

        :param token: RFC 6750's b64token; a secret.
        :raises pop3toy.errors.StoreTrouble: (or fails with) when that cannot
            be found out at the moment.
        """


#: RFC 6750 section 2.1, in the header's form.
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


class _Bearer:
    name: ClassVar[str]
    client_first: ClassVar[bool] = True

    def __init__(self, context: MechanismContext) -> None:
        self.user: str | None = None
        self._context = context

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Where secrets may be sent and there is a token checker."""
        return context.tokens is not None and context.clear_text

    async def step(self, response: bytes | None) -> Challenge | AuthResult:
        """The token."""
        authzid, token = self.read(response or b"")
        self.user = authzid
        accounts, channel = self._context.accounts, self._context.channel
        owner = await resolved(self._context.tokens.owner(token))
        if owner is not None:
            self.user = owner
            if await resolved(accounts.login_allowed(owner, channel)):
                return AuthResult(ProvenIdentity(owner, channel), owner, authzid)
            accounts.be_sure()
        # RFC 7628 section 3.2.3: the reason as JSON, then the client's
        # dummy response, and then only the failure.
        refusal = AuthenticationFailed("the token was not accepted")
        return Challenge(json.dumps(self.refusal()).encode("ascii"), refusal)

    def read(self, response: bytes) -> tuple[str | None, str]:
        """The user whose maildrop is asked for, and the token."""
        raise NotImplementedError

    def refusal(self) -> dict[str, str]:
        """What the client is told about a token that is no good."""
        raise NotImplementedError


class OAuthBearer(_Bearer):
    """RFC 7628."""

    name: ClassVar[str] = "OAUTHBEARER"

    def read(self, response: bytes) -> tuple[str | None, str]:
        """``n,a=user,`` and ``auth=Bearer token``, separated and ended by ^A (section 3.1)."""
        header, *pairs = response.split(b"\1")
        found = re.fullmatch(rb"[ny],(?:a=([^,\0]+))?,", header)
        if found is None or len(pairs) < 3 or pairs[-2:] != [b"", b""]:
            raise BadCommand("this is not an OAUTHBEARER response")
        authzid = text((found[1] or b"").replace(b"=2C", b",").replace(b"=3D", b"="))
        return authzid or None, _token(pairs)

    def refusal(self) -> dict[str, str]:
        """As section 3.2.2 has it."""
        return {"status": "invalid_token"}


class XOAuth2(_Bearer):
    """As Google and Microsoft document it."""

    name: ClassVar[str] = "XOAUTH2"

    def read(self, response: bytes) -> tuple[str | None, str]:
        """``user=name`` and ``auth=Bearer token``, each ended by ^A, and one ^A more."""
        user, *pairs = response.split(b"\1")
        if not user.startswith(b"user=") or len(pairs) < 3 or pairs[-2:] != [b"", b""]:
            raise BadCommand("this is not an XOAUTH2 response")
        return text(user[5:]) or None, _token(pairs)

    def refusal(self) -> dict[str, str]:
        """What Google's server says."""
        return {"status": "401", "schemes": "bearer", "scope": "mail"}


def _token(pairs: list[bytes]) -> str:
    for pair in pairs:
        key, _, value = pair.partition(b"=")
        if key == b"auth":
            found = _BEARER.fullmatch(value)
            if found is not None:
                return found[1].decode("ascii")
    raise BadCommand("there is no bearer token in this response")
