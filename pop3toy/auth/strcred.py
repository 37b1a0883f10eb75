"""Checkers that ``--auth`` makes, made to work with names and passwords that are octets.

A client's name and password are octets and twisted.cred says so too, but the
checker of ``--auth memory:`` keeps text and so knows nobody.  Other checkers
are left as they are, and take the comparison of
:mod:`~pop3toy.auth.credentials`.  That of ``--auth file:`` would cut a password
at its colon, and call every password wrong when the file cannot be read.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Set
from typing import Any

from twisted.cred.checkers import FilePasswordDB, ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ..interfaces import Channel
from ..net.watched_file import read
from .accounts.memory import MemoryAccounts
from .accounts.verifier import Verifier
from .accounts.watched import not_now
from .credentials import account_name, octets
from .names import NameIndex
from .sources import IAccountSource, make_dummy_verifier

__all__ = ["PasswordFile", "of_auth_option", "repaired", "repaired_checkers"]


@implementer(ICredentialsChecker, IAccountSource)
class PasswordFile:
    """A checker for lines ``name:password``; the password may hold more colons.

    The file is read at each login, as Twisted's ``FilePasswordDB`` does.

    :param wall: the file system's idea of now, in seconds.
    """

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def __init__(self, path: str, *, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        #: Who was there when it was last read and not just being written.
        self._known: Set[str] = frozenset()
        self._key = secrets.token_bytes(32)

    def requestAvatarId(self, credentials: Any) -> Any:
        """The user's name, if the credentials fit.

        :raises twisted.cred.error.UnauthorizedLogin: (or fails with) if not.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if the file cannot
            be read, or may be half written.
        """
        user = account_name(credentials)
        passwords, in_doubt = self._read()
        secret = passwords.get(user) or None
        matches = credentials.checkPassword(self._key if secret is None else secret)

        def decide(fits: object) -> bytes:
            if in_doubt:
                raise not_now(f"--auth file:{self._path} is being written")
            if fits is True and secret is not None:
                return octets(user)
            raise UnauthorizedLogin

        return matches.addCallback(decide) if isinstance(matches, Deferred) else decide(matches)

    def has_plaintext(self) -> bool:
        """True: the file keeps passwords as they are."""
        return True

    def cram_md5(self) -> bool:
        """True: the same."""
        return True

    def scram_hashes(self) -> frozenset[str]:
        """None: a verifier would have to be made at each login, in the reactor's thread."""
        return frozenset()

    def verifier(self, user: str, hash_name: str) -> None:
        """None."""

    def dummy_verifier(self, user: str, hash_name: str) -> Verifier:
        """What SCRAM shows of a user that does not exist."""
        return make_dummy_verifier(self._key, user, hash_name)

    def canonical_name(self, user: str) -> str | None:
        """See :class:`~pop3toy.auth.sources.IAccountSource`."""
        passwords, in_doubt = self._read()
        found = NameIndex(passwords).find(user)
        if found is None and in_doubt:
            raise not_now(f"--auth file:{self._path} is being written")
        return found

    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address."""
        return NameIndex(self._read()[0]).has_addresses

    def login_allowed(self, user: str, channel: Channel | None) -> bool:
        """Everybody, from everywhere."""
        return True

    def in_doubt(self) -> bool:
        """Whether the file is just being written."""
        return self._read()[1]

    def _read(self) -> tuple[dict[str, bytes], bool]:
        """The passwords, and whether some may be missing that were there before."""
        try:
            content = read(self._path, self._wall)
        except OSError as error:
            raise not_now(f"--auth file:{self._path}: {error.strerror}") from error
        passwords: dict[str, bytes] = {}
        for line in content.octets.splitlines():
            name, colon, password = line.rstrip().partition(b":")
            if colon:
                passwords.setdefault(name.decode("utf-8", "surrogateescape"), password)
        in_doubt = content.in_doubt(self._known, passwords.keys())
        if not in_doubt:
            self._known = passwords.keys()
        return passwords, in_doubt


def of_auth_option(checker: ICredentialsChecker) -> ICredentialsChecker:
    """A checker that ``--auth`` has made, or one that does what its help says in its place."""
    return PasswordFile(checker.filename) if type(checker) is FilePasswordDB else checker


def repaired(checker: ICredentialsChecker) -> ICredentialsChecker:
    """The checker, or one that works in its place if it keeps users as text."""
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse) and _has_text(checker.users):
        return MemoryAccounts(checker.users)
    return checker


def repaired_checkers(portal: Portal) -> dict[Any, ICredentialsChecker]:
    """The checkers of a portal by what they take, with one that works for each that keeps users as text.

    The portal stays as it is: it is the caller's, who may use it for more than mail.
    """
    substitutes = {id(checker): repaired(checker) for checker in portal.checkers.values()}
    return {interface: substitutes[id(checker)] for interface, checker in portal.checkers.items()}


def _has_text(users: Mapping[Any, Any]) -> bool:
    return any(isinstance(part, str) for entry in users.items() for part in entry)
