"""What a server keeps of a password for SCRAM (RFC 5802 section 3, RFC 7677).

Pure computation: the preparation of names and passwords (RFC 4013) and the
stored and server keys.  The conversation itself is in ``scram``.
"""

from __future__ import annotations

import hashlib
import hmac
import stringprep
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from ...interfaces import MaybeDeferred

__all__ = ["ITERATIONS", "Verifier", "derive", "saslprep"]

#: RFC 7677 section 4 asks for at least 4096.
ITERATIONS = 4096

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Enough to check a proof and to give one, but not the password."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    #: Finds out whether it is the empty password's, which is never accepted; asked
    #: only when a proof was right, so that the time does not tell which users exist.
    is_empty: Callable[[], MaybeDeferred[bool]] = field(default=lambda: False, repr=False, compare=False)
    #: Further passwords of the same user, with the same salt and iterations.
    others: tuple[Verifier, ...] = field(default=(), repr=False, compare=False)
    #: Called when a login by this one was right.
    used: Callable[[], object] = field(default=lambda: None, repr=False, compare=False)

    def fits(self, password: bytes, hash_name: str) -> bool:
        """Whether a password in clear text is the one that this was made from."""
        made = derive(password, hash_name, self.salt, self.iterations)
        return hmac.compare_digest(made.stored_key, self.stored_key)


def derive(password: bytes, hash_name: str, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    """Make the verifier of a password.

    Costs a millisecond and more: not for the reactor's thread.

    :param password: UTF-8; octets that SASLprep cannot take, or of which it
        leaves nothing, are used as they are.
    :param hash_name: as :mod:`hashlib` writes it: ``sha1``, ``sha256``.
    """
    try:
        password = saslprep(password.decode("utf-8")).encode("utf-8") or password
    except ValueError:
        pass
    salted = hashlib.pbkdf2_hmac(hash_name, password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored_key = hashlib.new(hash_name, client_key).digest()
    return Verifier(salt, iterations, stored_key, hmac.digest(salted, b"Server Key", hash_name))


def saslprep(text: str) -> str:
    """Prepare a name or password so that all ways to type it are one (RFC 4013).

    :raises ValueError: if it holds what RFC 4013 section 2.3 prohibits, or
        mixes writing directions (section 2.4).
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = (" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    text = unicodedata.ucd_3_2_0.normalize("NFKC", "".join(mapped))
    if any(prohibits(c) for c in text for prohibits in _PROHIBITED):
        raise ValueError("a character is not allowed in names and passwords")
    if any(stringprep.in_table_d1(c) for c in text) and not (
        stringprep.in_table_d1(text[0])
        and stringprep.in_table_d1(text[-1])
        and not any(stringprep.in_table_d2(c) for c in text)
    ):
        raise ValueError("writing directions are mixed")
    return text
