"""What a checker can tell of its users besides whether a password fits.

Any ``ICredentialsChecker`` works; one that provides :class:`IAccountSource`
as well makes more mechanisms possible, and says precisely which.
"""

from __future__ import annotations

import hmac

from zope.interface import Interface

from ..interfaces import Channel, MaybeDeferred
from .accounts.verifier import ITERATIONS, Verifier

__all__ = ["IAccountSource", "make_dummy_verifier"]


class IAccountSource(Interface):
    """A checker that knows its accounts.

    Every method of a user may raise or fail with
    :class:`~pop3toy.errors.StoreTrouble` when the accounts cannot be read.
    """

    def has_plaintext() -> bool:
        """Whether some user's password is known, so that APOP and CRAM-MD5 can work."""

    def cram_md5() -> bool:
        """Whether CRAM-MD5 can work for some user."""

    def scram_hashes() -> frozenset[str]:
        """The hashes (``sha1``, ``sha256``) with which SCRAM can work for some user."""

    def verifier(user: str, hash_name: str) -> MaybeDeferred[Verifier | None]:
        """What SCRAM needs to check a user; ``None`` if the user cannot use SCRAM.

        Takes the same time either way.
        """

    def dummy_verifier(user: str, hash_name: str) -> Verifier:
        """A verifier that no password fits and that looks as if the user existed."""

    def canonical_name(user: str) -> MaybeDeferred[str | None]:
        """The user's name as the accounts have it, or ``None`` if there is no such user.

        As it was asked for if a user has exactly this name, else in whatever case or
        Unicode form, if one user alone has it (:class:`~pop3toy.auth.names.NameIndex`):
        for addresses and for logins.  Takes the same time either way, or what it took less
        is made up for before a login is refused, if that is asked with the very name that
        this has given (which may bring along what was found).
        """

    def has_addresses() -> bool:
        """Whether some user's name is a mail address, as far as is known without a look."""

    def login_allowed(user: str, channel: Channel | None) -> MaybeDeferred[bool]:
        """Whether the account allows logins, and from this connection.

        True for a user who is not known.
        """

    def in_doubt() -> bool:
        """Whether the accounts are just being written, so that no refusal by them is certain."""


def make_dummy_verifier(
    key: bytes, user: str, hash_name: str, iterations: int = ITERATIONS, salt_length: int = 16
) -> Verifier:
    """A verifier that no password fits.

    The same user has the same salt each time, as with an account, and without ``key`` it
    cannot be told from a random one.
    """
    salt, stored_key, server_key = (
        hmac.digest(key, label + user.encode("utf-8", "surrogatepass"), hash_name)
        for label in (b"salt ", b"stored ", b"server ")
    )
    return Verifier((salt * 4)[:salt_length], iterations, stored_key, server_key)
