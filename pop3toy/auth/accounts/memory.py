"""Accounts given on the command line or by a program: names and their passwords, in memory.

The passwords are recoverable, so every mechanism can work with them.  For a few users
and for trying things; :mod:`~pop3toy.auth.accounts.accounts_file` is for real mail.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from zope.interface import implementer

from ...interfaces import Channel, is_deferred
from ..credentials import AvatarId, Credentials, account_name, octets
from ..names import NameIndex
from ..sources import IAccountSource, make_dummy_verifier
from .verifier import Verifier, derive

__all__ = ["MemoryAccounts"]


@implementer(ICredentialsChecker, IAccountSource)
class MemoryAccounts:
    """A checker for users whose passwords are known.

    :param passwords: user to password; text is kept as UTF-8.  A user whose
        password is empty cannot log in.
    """

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def __init__(self, passwords: Mapping[str, str] | Mapping[bytes, bytes]) -> None:
        self._key = secrets.token_bytes(32)
        self.keep(passwords)

    def keep(self, passwords: Mapping[str, str] | Mapping[bytes, bytes]) -> None:
        """These are the users from now on."""
        self._secrets = {octets(user): octets(secret) for user, secret in passwords.items()}
        self.names = NameIndex({name.decode("utf-8", "surrogateescape") for name in self._secrets})

    def requestAvatarId(self, credentials: Credentials) -> AvatarId:
        """The user's name in UTF-8, if the credentials fit.

        :raises twisted.cred.error.UnauthorizedLogin: (or fails with) after the
            same work whether there is such a user or not.
        """
        user = account_name(credentials).encode("utf-8", "surrogateescape")
        secret = self._secrets.get(user) or None

        def decide(fits: object) -> bytes:
            if fits is True and secret is not None:
                return user
            raise UnauthorizedLogin

        fits = credentials.checkPassword(self._key if secret is None else secret)
        return fits.addCallback(decide) if is_deferred(fits) else decide(fits)

    def has_plaintext(self) -> bool:
        """Whether there is any account with a password."""
        return any(self._secrets.values())

    def cram_md5(self) -> bool:
        """The same."""
        return self.has_plaintext()

    def scram_hashes(self) -> frozenset[str]:
        """Both, if there is any account."""
        return frozenset(("sha1", "sha256") if self.has_plaintext() else ())

    def verifier(self, user: str, hash_name: str) -> Verifier | None:
        """What SCRAM needs, made anew each time (a millisecond or two) for known and unknown alike."""
        secret = self._secrets.get(octets(user)) or None
        dummy = self.dummy_verifier(user, hash_name)
        made = derive(self._key if secret is None else secret, hash_name, dummy.salt, dummy.iterations)
        return None if secret is None else made

    def dummy_verifier(self, user: str, hash_name: str) -> Verifier:
        """What SCRAM shows of a user that does not exist."""
        return make_dummy_verifier(self._key, user, hash_name)

    def canonical_name(self, user: str) -> str | None:
        """See :class:`IAccountSource`."""
        return self.names.find(user)

    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address."""
        return self.names.has_addresses

    def login_allowed(self, user: str, channel: Channel | None) -> bool:
        """Everybody, from everywhere."""
        return True

    def in_doubt(self) -> bool:
        """Never."""
        return False
