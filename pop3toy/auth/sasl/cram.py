"""CRAM-MD5 (RFC 2195): a keyed digest of a challenge; needs a recoverable password, or one kept for it."""

from __future__ import annotations

import hmac
from typing import ClassVar

from twisted.cred.credentials import IUsernameHashedPassword
from zope.interface import implementer

from ...errors import BadCommand
from ...interfaces import Challenge, Channel
from ..accounts import hmac_md5
from ..credentials import Named, octets
from .exchange import AuthResult, MechanismContext, text

__all__ = ["CramDigest", "CramMD5"]

#: What is kept of an empty password, which is never accepted.
_EMPTY = hmac_md5.contexts(b"")


@implementer(IUsernameHashedPassword)
class CramDigest(Named):
    """The digest of a challenge under the shared secret."""

    def __init__(self, username: bytes, digest: bytes, challenge: bytes, channel: Channel) -> None:
        super().__init__(username, channel)
        self._digest = digest.lower()
        self._challenge = challenge

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether the client knew this secret."""
        expected = hmac.new(octets(password), self._challenge, "md5").hexdigest()
        return hmac.compare_digest(self._digest, expected.encode("ascii")) and bool(password)

    def check_contexts(self, kept: bytes) -> bool:
        """The same where no more of the secret is kept than :func:`hmac_md5.contexts` gives."""
        expected = hmac_md5.digest(kept, self._challenge).hex()
        return hmac.compare_digest(self._digest, expected.encode("ascii")) and kept != _EMPTY


class CramMD5:
    """The server challenges with a fresh ``<...>``, the client answers ``name digest``."""

    name: ClassVar[str] = "CRAM-MD5"
    client_first: ClassVar[bool] = False

    def __init__(self, context: MechanismContext) -> None:
        self.user: str | None = None
        self._channel = context.channel
        self._challenge = f"<{context.nonce()}@pop3toy>".encode("ascii")
        self._asked = False

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Where some password is recoverable, or kept for it."""
        return IUsernameHashedPassword in context.credentials and context.accounts.cram_md5()

    async def step(self, response: bytes | None) -> Challenge | AuthResult:
        """First the challenge; then the name, which may hold blanks, and the digest."""
        if response is None:
            self._asked = True
            return Challenge(self._challenge)
        if not self._asked:
            raise BadCommand("CRAM-MD5 takes no initial response")
        user, blank, digest = response.rpartition(b" ")
        if not blank or len(digest) != 32:
            raise BadCommand("this is not a CRAM-MD5 response")
        self.user = text(user)
        return AuthResult(CramDigest(user, digest, self._challenge, self._channel), self.user)
