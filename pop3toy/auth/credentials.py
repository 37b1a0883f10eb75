"""What a client brings, in the forms that twisted.cred's checkers take.

Each comparison takes the same time however much of a secret was guessed, and
takes a stored password as bytes or as text, because checkers keep both.  No
secret appears in a ``repr``.  Nobody's password is empty: an account that is
stored with an empty one is an account without a password, and nothing fits it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword, UsernamePassword
from zope.interface import implementer

from ..interfaces import Channel

__all__ = ["ApopDigest", "ClearPassword", "Named", "account_name", "octets"]


def octets(secret: bytes | str) -> bytes:
    """A stored secret as octets; text is UTF-8."""
    return secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret


class Named:
    """Credentials of somebody with a name."""

    username: bytes
    #: The account's name, once that is known; ``None`` if it is not known, or nobody's.
    account: str | None = None

    @property
    def claimed(self) -> str:
        """The name as the client sent it; octets that are not UTF-8 make one that nobody has."""
        return self.username.decode("utf-8", "surrogateescape")


def account_name(credentials: Any) -> str:
    """Whom credentials of any kind speak of: the account's name, else the name as the client sent it."""
    account: str | None = getattr(credentials, "account", None)
    return account if account is not None else credentials.username.decode("utf-8", "surrogateescape")


class ClearPassword(Named, UsernamePassword):
    """A password in clear text, from USER and PASS, PLAIN or LOGIN.

    :param channel: where it came from, for accounts that are tied to networks.
    """

    def __init__(self, username: bytes, password: bytes, channel: Channel | None = None) -> None:
        super().__init__(username, password)
        self.channel = channel

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether it is this password."""
        return hmac.compare_digest(self.password, octets(password)) and bool(password)


@implementer(IUsernameHashedPassword)
class ApopDigest(Named):
    """APOP's digest: the MD5 of timestamp and shared secret in hex (RFC 1939 section 7)."""

    def __init__(
        self, username: bytes, digest: bytes, timestamp: str, channel: Channel | None = None
    ) -> None:
        self.username = username
        self.channel = channel
        self._digest = digest.lower()
        self._timestamp = timestamp.encode("ascii")

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether the client knew this secret."""
        expected = hashlib.md5(self._timestamp + octets(password), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(self._digest, expected.encode("ascii")) and bool(password)
