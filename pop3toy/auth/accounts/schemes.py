"""How a stored password is written and checked: ``{SCHEME}hash``, as Dovecot writes it.

One row for each scheme.  The hashing is done by argon2-cffi, bcrypt, libpass,
the system's libcrypt and :mod:`hashlib`; none of it belongs into the reactor's
thread unless the scheme is ``cheap``.  Files and users are not known here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

from ...installation import install_hint
from . import hmac_md5, libcrypt
from .verifier import ITERATIONS, Verifier, derive

__all__ = ["MADE", "MissingLibrary", "StoredPassword", "make", "parse"]


class MissingLibrary(ValueError):
    """A scheme is used whose library is not installed; says which extra brings it."""


class _Scheme(NamedTuple):
    #: The whole form of what stands behind ``{SCHEME}``; its groups are what
    #: the time of a check depends on.
    form: str
    #: ``verify(stored, password)``, both octets.
    verify: Callable[[bytes, bytes], bool]
    #: Done in microseconds, so that it needs no thread.
    cheap: bool = False
    #: The module that does it, if it is not Python's own.
    package: str = ""


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """One user's password as it is kept."""

    scheme: str
    encoded: bytes = field(repr=False)

    def verify(self, password: bytes) -> bool:
        """Whether this is the password.  Never raises for a client's octets.

        The empty password fits nothing, whatever was hashed.
        """
        return bool(password) and _SCHEMES[self.scheme].verify(self.encoded, password)

    @property
    def cheap(self) -> bool:
        """Whether a check takes microseconds and may be done in the reactor's thread."""
        return _SCHEMES[self.scheme].cheap

    @property
    def cost(self) -> str:
        """Equal for two passwords whose checks take equally long."""
        found = re.fullmatch(_SCHEMES[self.scheme].form.encode("ascii"), self.encoded, re.DOTALL)
        return f"{self.scheme} {found.groups() if found else ''}"

    @property
    def secret(self) -> bytes | None:
        """The password itself, where it is recoverable (for APOP and CRAM-MD5)."""
        return self.encoded if self.scheme == "PLAIN" else None

    @property
    def cram_md5(self) -> bytes | None:
        """What is kept for CRAM-MD5 alone (see :mod:`~pop3toy.auth.accounts.hmac_md5`)."""
        return binascii.unhexlify(self.encoded) if self.scheme == "CRAM-MD5" else None

    def verifier(self, hash_name: str) -> Verifier | None:
        """What is kept for SCRAM with this hash (``sha1``, ``sha256``), if this is such a verifier."""
        return _verifier(self.encoded) if _SCRAM.get(self.scheme) == hash_name else None

    @property
    def outdated(self) -> bool:
        """Whether a hash of today's making would be better.

        What is kept for the sake of a mechanism (PLAIN, SCRAM, CRAM-MD5) is not outdated.
        """
        if self.scheme in ("PLAIN", "CRAM-MD5") or self.scheme in _SCRAM:
            return False
        return self.scheme != "ARGON2ID" or bool(_hasher().check_needs_rehash(self.encoded.decode("ascii")))


def parse(text: bytes) -> StoredPassword:
    """Read ``{SCHEME}hash``, or a bare ``$...$`` hash as crypt(3) and htpasswd write it.

    ``{SCHEME.hex}`` and ``{SCHEME.b64}`` say how the rest is encoded.

    :raises MissingLibrary: if the scheme's library is not installed.
    :raises ValueError: if it is not understood; the text is not repeated.
    """
    braced = re.match(rb"\{([A-Za-z0-9-]+)(?:\.(hex|b64|base64))?\}", text, re.IGNORECASE)
    name, encoding, encoded = "CRYPT", "", text
    if braced is not None:
        name, encoded = braced[1].decode("ascii").upper(), text[braced.end() :]
        encoding = (braced[2] or b"").decode("ascii").lower()
    elif not text.startswith((b"$", b"SCRAM-SHA-")):
        raise ValueError("the password has no {SCHEME} in front")
    name = _ALIASES.get(name, name)
    if name == "CRYPT":
        name = next((scheme for prefix, scheme in _PREFIXES if encoded.startswith(prefix)), name)
        if re.fullmatch(_DES_CRYPT.encode("ascii"), encoded) is not None:
            name = "DES-CRYPT"
    elif name == "MD5":
        # Dovecot looks too, which of the two it is.
        name = "MD5-CRYPT" if encoded.startswith(b"$1$") else "PLAIN-MD5"
    if name not in _SCHEMES:
        raise ValueError(f"the password scheme {name} is not known")
    scheme = _SCHEMES[name]
    if name in _DIGESTS:
        encoded = _digest_in_base64(name, encoded, encoding)
    elif encoding:
        encoded = _decode(encoded, encoding)
    if re.fullmatch(scheme.form.encode("ascii"), encoded, re.DOTALL) is None:
        raise ValueError(f"this is not a password in the scheme {name}")
    if name in _SCRAM:
        _verifier(encoded)
    if scheme.package:
        _library(scheme.package)
    if name == "YESCRYPT" and not libcrypt.yescrypt_works():
        raise ValueError("a yescrypt hash ($y$) is checked by libxcrypt, which this system does not have")
    return StoredPassword(name, encoded)


def make(password: bytes, scheme: str = "ARGON2ID", like: Verifier | None = None) -> bytes:
    """A new ``{SCHEME}hash`` of a password.  Takes a while: not for the reactor's thread.

    :param scheme: one of :data:`MADE`.
    :param like: has the salt and the iterations that a verifier for SCRAM is to have; else they are new.
    :raises MissingLibrary: if argon2-cffi is needed and not installed.
    :raises ValueError: for another scheme.
    """
    if scheme == "ARGON2ID":
        return b"{ARGON2ID}" + str(_hasher().hash(password)).encode("ascii")
    if scheme == "PLAIN":
        # What would be taken for the next field, or for a blank at the line's
        # end, is written in base64, which Dovecot reads too.
        if re.fullmatch(rb"[!-9;-~]+", password):
            return b"{PLAIN}" + password
        return b"{PLAIN.b64}" + base64.b64encode(password)
    if scheme in _SCRAM:
        salt, iterations = (like.salt, like.iterations) if like else (secrets.token_bytes(16), ITERATIONS)
        made = derive(password, _SCRAM[scheme], salt, iterations)
        keys = (base64.b64encode(part) for part in (made.salt, made.stored_key, made.server_key))
        return b"{%b}%d,%b" % (scheme.encode("ascii"), made.iterations, b",".join(keys))
    raise ValueError(f"passwords are not made in the scheme {scheme}, only in {', '.join(MADE)}")


_LIBPASS = "passlib.hash"


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        package = {"argon2": "argon2-cffi", _LIBPASS: "libpass"}.get(name, name)
        raise MissingLibrary(f"this password scheme needs {package}: {install_hint('accounts')}") from None


def _hasher() -> Any:
    # The library's own defaults are RFC 9106's second recommendation.
    return _library("argon2").PasswordHasher()


def _argon2(stored: bytes, password: bytes) -> bool:
    argon2 = _library("argon2")
    try:
        return bool(argon2.PasswordHasher().verify(stored, password))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _bcrypt(stored: bytes, password: bytes) -> bool:
    try:
        # bcrypt looks at 72 octets; who made the hash cut the rest off silently.
        return bool(_library("bcrypt").checkpw(password[:72], stored))
    except ValueError:
        return False


def _libpass(handler: str) -> Callable[[bytes, bytes], bool]:
    def verify(stored: bytes, password: bytes) -> bool:
        try:
            return bool(getattr(_library(_LIBPASS), handler).verify(password, stored))
        except ValueError:
            return False

    return verify


def _digest(hash_name: str) -> Callable[[bytes, bytes], bool]:
    def verify(stored: bytes, password: bytes) -> bool:
        hashed = base64.b64decode(stored)
        # Whatever follows the digest is the salt, behind the password.
        made = hashlib.new(hash_name, password + hashed[size:], usedforsecurity=False).digest()
        return hmac.compare_digest(made, hashed[:size])

    size = hashlib.new(hash_name, usedforsecurity=False).digest_size
    return verify


def _digest_in_base64(name: str, encoded: bytes, encoding: str) -> bytes:
    size = hashlib.new(_DIGESTS[name], usedforsecurity=False).digest_size
    salted = name.startswith(("SS", "SM"))
    # Without a salt, hexadecimal is known by its length.
    if not encoding and not salted and len(encoded) == 2 * size:
        encoding = "hex"
    raw = _decode(encoded, encoding or "b64")
    if len(raw) < size or (len(raw) > size) is not salted:
        raise ValueError(f"this is not a password in the scheme {name}")
    return base64.b64encode(raw)


def _cram_md5(stored: bytes, password: bytes) -> bool:
    return hmac.compare_digest(hmac_md5.contexts(password), binascii.unhexlify(stored))


def _pbkdf2(stored: bytes, password: bytes) -> bool:
    # Dovecot's: $1$salt$rounds$hex, with HMAC-SHA-1.
    _, _, salt, rounds, digest = stored.split(b"$")
    made = hashlib.pbkdf2_hmac("sha1", password, salt, int(rounds))
    return hmac.compare_digest(made.hex().encode("ascii"), digest.lower())


def _scram(hash_name: str) -> Callable[[bytes, bytes], bool]:
    return lambda stored, password: _verifier(stored).fits(password, hash_name)


def _verifier(stored: bytes) -> Verifier:
    # Dovecot: iterations,salt,StoredKey,ServerKey;
    # RFC 5803: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
    iterations, *parts = re.split(rb"[,$:]", re.sub(rb"^SCRAM-[A-Z0-9-]+\$", b"", stored))
    salt, stored_key, server_key = (_decode(part, "b64") for part in parts)
    return Verifier(salt, int(iterations), stored_key, server_key)


def _decode(encoded: bytes, encoding: str) -> bytes:
    try:
        if encoding == "hex":
            return binascii.unhexlify(encoded)
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError(f"the password is not well-formed {encoding}") from None


_B64 = "[A-Za-z0-9+/]+={0,2}"
_COUNT = r"([1-9]\d{0,8})"
_SCRAM = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
#: Salted schemes have one more S in front.
_DIGESTS = {
    "SHA": "sha1",
    "SSHA": "sha1",
    "SHA256": "sha256",
    "SSHA256": "sha256",
    "SHA512": "sha512",
    "SSHA512": "sha512",
    "PLAIN-MD5": "md5",
    "SMD5": "md5",
}
_ARGON2 = r"\$(v=\d+\$m=\d+,t=\d+,p=\d+)\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
_CRYPT = r"[^$:\s]*\$[./A-Za-z0-9]"
#: A salt of two characters, and no sign in front.
_DES_CRYPT = r"[./A-Za-z0-9]{13}"
_SCHEMES: dict[str, _Scheme] = {
    "ARGON2ID": _Scheme(rf"\$argon2id{_ARGON2}", _argon2, package="argon2"),
    "ARGON2I": _Scheme(rf"\$argon2i{_ARGON2}", _argon2, package="argon2"),
    "BLF-CRYPT": _Scheme(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}", _bcrypt, package="bcrypt"),
    "SHA512-CRYPT": _Scheme(
        rf"\$6\$(rounds=\d+\$)?{_CRYPT}{{86}}", _libpass("sha512_crypt"), package=_LIBPASS
    ),
    "SHA256-CRYPT": _Scheme(
        rf"\$5\$(rounds=\d+\$)?{_CRYPT}{{43}}", _libpass("sha256_crypt"), package=_LIBPASS
    ),
    "MD5-CRYPT": _Scheme(rf"\$1\${_CRYPT}{{22}}", _libpass("md5_crypt"), package=_LIBPASS),
    "APR1-CRYPT": _Scheme(rf"\$apr1\${_CRYPT}{{22}}", _libpass("apr_md5_crypt"), package=_LIBPASS),
    "DES-CRYPT": _Scheme(_DES_CRYPT, _libpass("des_crypt"), package=_LIBPASS),
    "YESCRYPT": _Scheme(rf"\$y\$([./A-Za-z0-9]+)\${_CRYPT}{{43}}", libcrypt.verify),
    "CRAM-MD5": _Scheme("[0-9a-fA-F]{64}", _cram_md5),
    "PBKDF2": _Scheme(rf"\$1\$[^$]*\${_COUNT}\$[0-9a-fA-F]{{40}}", _pbkdf2),
    "PLAIN": _Scheme(r".+", hmac.compare_digest, cheap=True),
}
for _name, _hash in _DIGESTS.items():
    _SCHEMES[_name] = _Scheme(_B64, _digest(_hash), cheap=True)
for _name, _hash in _SCRAM.items():
    _keys = rf"{_B64},{_B64},{_B64}|{_name}\${_COUNT}:{_B64}\${_B64}:{_B64}"
    _SCHEMES[_name] = _Scheme(rf"{_COUNT},{_keys}", _scram(_hash))
_ALIASES = {
    "SHA1": "SHA",
    "LDAP-MD5": "PLAIN-MD5",
    "CLEAR": "PLAIN",
    "CLEARTEXT": "PLAIN",
    "BCRYPT": "BLF-CRYPT",
    "HMAC-MD5": "CRAM-MD5",
}
#: What crypt(3), htpasswd and RFC 5803 put in front, and whose it is.
_PREFIXES = (
    (b"$argon2id$", "ARGON2ID"),
    (b"$argon2i$", "ARGON2I"),
    (b"$2", "BLF-CRYPT"),
    (b"$6$", "SHA512-CRYPT"),
    (b"$5$", "SHA256-CRYPT"),
    (b"$1$", "MD5-CRYPT"),
    (b"$apr1$", "APR1-CRYPT"),
    (b"$y$", "YESCRYPT"),
    (b"SCRAM-SHA-256$", "SCRAM-SHA-256"),
    (b"SCRAM-SHA-1$", "SCRAM-SHA-1"),
)
#: The schemes in which new passwords are made.
MADE = ("ARGON2ID", "PLAIN", *_SCRAM)
