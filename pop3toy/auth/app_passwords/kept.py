"""An app password as it is kept: a setting of the user's line, ``app-password.NAME=2026-11-30,DIGEST,SCRAM``.

Programs that know nothing of it see one more ``key=value``.  ``DIGEST`` is SHA-256.  A slow hash protects
passwords that people choose, because those can be guessed; these are 128 random bits, which nobody guesses
at whatever speed.  So the check takes microseconds, needs no thread, and is the same work for all users.

``SCRAM`` is a verifier for SCRAM-SHA-256 (``iterations,salt,StoredKey,ServerKey``).  The server shows salt
and iterations before it knows which of a user's passwords the client has, so all that are to work with SCRAM
have the same: those of the main password, where that is kept for SCRAM, or of one another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..accounts.verifier import ITERATIONS, Verifier, derive

__all__ = ["ONLY", "PREFIX", "AppPassword", "check_name", "find", "in_settings", "make"]

#: What the setting's name begins with; and the setting that bars the main password from mail.
PREFIX: Final = "app-password."
ONLY: Final = "app-passwords-only"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_MADE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class AppPassword:
    """One of them."""

    #: What the user calls it, such as ``phone``.
    name: str
    #: The day on which it was made, as ``2026-11-30``.
    made: str
    digest: bytes = field(repr=False)
    #: For SCRAM-SHA-256.
    verifier: Verifier = field(repr=False)

    @property
    def key(self) -> str:
        """The name of the setting."""
        return f"{PREFIX}{self.name}"

    @property
    def value(self) -> str:
        """The setting's value."""
        kept = self.verifier
        keys = (_in_base64(octets) for octets in (kept.salt, kept.stored_key, kept.server_key))
        return ",".join((self.made, _in_base64(self.digest), str(kept.iterations), *keys))

    @classmethod
    def of(cls, name: str, value: str) -> AppPassword:
        """Read one.

        :param name: behind the prefix.
        :raises ValueError: if it is none; the text is not repeated.
        """
        check_name(name)
        try:
            made, digest, iterations, *keys = value.split(",")
            salt, stored_key, server_key = (base64.b64decode(key, validate=True) for key in keys)
            read = cls(
                name,
                made,
                base64.b64decode(digest, validate=True),
                Verifier(salt, int(iterations), stored_key, server_key),
            )
        except (ValueError, binascii.Error):
            raise ValueError(f"the app password {name} cannot be read") from None
        if len(read.digest) != 32 or len(stored_key) != 32 or not _MADE.fullmatch(made) or not salt:
            raise ValueError(f"the app password {name} cannot be read")
        return read


def check_name(name: str) -> None:
    """Whether an app password may be called so.

    :raises ValueError: if not.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            "an app password's name has 1 to 32 small letters, digits, '-' and '_', as in phone or work-pc"
        )


def in_settings(settings: Mapping[str, str]) -> tuple[AppPassword, ...]:
    """The app passwords of a user; what cannot be read lets nobody in."""
    found = []
    for key, value in settings.items():
        if key.startswith(PREFIX):
            try:
                found.append(AppPassword.of(key.removeprefix(PREFIX), value))
            except ValueError:
                continue
    return tuple(found)


def make(name: str, made: str, like: Verifier | None = None) -> tuple[str, AppPassword]:
    """A new one, and the secret, which is kept nowhere.  Takes some milliseconds.

    :param made: today, as ``2026-11-30``.
    :param like: has the salt and the iterations that the user's passwords have.
    :raises ValueError: for a name that cannot be.
    """
    check_name(name)
    # 26 letters and digits, of which none looks like another: people copy them with their eyes.
    secret = base64.b32encode(secrets.token_bytes(16)).decode("ascii").rstrip("=").lower()
    octets = secret.encode("ascii")
    salt, iterations = (like.salt, like.iterations) if like else (secrets.token_bytes(16), ITERATIONS)
    return secret, AppPassword(name, made, _digest(octets), derive(octets, "sha256", salt, iterations))


def find(known: Iterable[AppPassword], password: bytes) -> AppPassword | None:
    """The one that this is, if it is one; with work that does not tell how many there are."""
    digest, found = _digest(password), None
    for one in (_NOBODYS, *known):
        if hmac.compare_digest(one.digest, digest):
            found = one
    return found if found is not _NOBODYS else None


def _digest(password: bytes) -> bytes:
    return hashlib.sha256(b"pop3toy app password\0" + password).digest()


def _in_base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


#: What is compared with where a user has none.
_NOBODYS: Final = AppPassword("nobody", "1970-01-01", secrets.token_bytes(32), Verifier(b"", 0, b"", b""))
