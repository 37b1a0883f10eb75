"""What a client brings, in the forms that twisted.cred's checkers take.

Each comparison takes the same time however much of a secret was guessed, and
takes a stored password as bytes or as text, because checkers keep both.  No
secret appears in a ``repr``.  An empty password is never accepted: an account that is
stored with one has no password, and cannot log in.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Protocol, TypeAlias

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from zope.interface import implementer

from ..interfaces import Channel

__all__ = [
    "ApopDigest",
    "AvatarId",
    "ClearPassword",
    "Credentials",
    "MainPassword",
    "Named",
    "Unknown",
    "account_name",
    "octets",
]


def octets(secret: bytes | str) -> bytes:
    """A stored secret as octets; text is UTF-8."""
    return secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret


#: What a checker answers: the user's name in octets, at once or as a Deferred.  Twisted's interface
#: knows Deferreds alone, and its own Portal takes both.
AvatarId: TypeAlias = Any


class Credentials(Protocol):
    """Credentials with a name and a way to compare a stored secret, ours or those of another program."""

    username: bytes

    def checkPassword(self, password: bytes) -> object:
        """Whether the client knows this secret."""


class Unknown(str):
    """A name that was just looked for in all accounts, and that none has: it is not looked for again."""

    __slots__ = ()


class Named:
    """Credentials that claim a name.

    :param channel: where they came from, for accounts that are tied to networks.
    """

    #: The account's name, once that is known; ``None`` before that.
    account: str | None = None

    def __init__(self, username: bytes, channel: Channel | None) -> None:
        self.username = username
        self.channel = channel
        #: The name as the client sent it; octets that are not UTF-8 make a name that no account has.
        self.claimed = username.decode("utf-8", "surrogateescape")


def account_name(credentials: Credentials) -> str:
    """The account that credentials of any kind mean, else the name as the client sent it."""
    account: str | None = getattr(credentials, "account", None)
    return account if account is not None else credentials.username.decode("utf-8", "surrogateescape")


@implementer(IUsernamePassword)
class ClearPassword(Named):
    """A password in clear text, from USER and PASS, PLAIN or LOGIN."""

    def __init__(self, username: bytes, password: bytes, channel: Channel | None = None) -> None:
        super().__init__(username, channel)
        self.password = password

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether it is this password."""
        return hmac.compare_digest(self.password, octets(password)) and bool(password)


class MainPassword(ClearPassword):
    """What has to be the user's main password: for the user's own page, which no app password opens."""


@implementer(IUsernameHashedPassword)
class ApopDigest(Named):
    """APOP's digest: the MD5 of timestamp and shared secret in hex (RFC 1939 section 7)."""

    def __init__(
        self, username: bytes, digest: bytes, timestamp: str, channel: Channel | None = None
    ) -> None:
        super().__init__(username, channel)
        self._digest = digest.lower()
        self._timestamp = timestamp.encode("ascii")

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether the client knew this secret."""
        expected = hashlib.md5(self._timestamp + octets(password), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(self._digest, expected.encode("ascii")) and bool(password)
