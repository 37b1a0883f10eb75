"""What takes the place of two checkers of Twisted's that ``--auth`` makes.

That of ``--auth memory:`` keeps names and passwords as text, while a client's are octets, and so knows
no user.  That of ``--auth file:`` would cut a password at its colon, and call every password
wrong when the file cannot be read.  Other checkers are left as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from twisted.cred.checkers import FilePasswordDB, ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from zope.interface.interface import InterfaceClass

from ..errors import StoreTrouble
from ..net.watched_file import read
from .accounts.memory import MemoryAccounts
from .accounts.watched import not_now
from .credentials import AvatarId, Credentials

__all__ = ["PasswordFile", "of_auth_option", "repaired", "repaired_checkers"]


class PasswordFile(MemoryAccounts):
    """A checker for lines ``name:password``; the password may hold more colons.

    The file is read at each login, as Twisted's ``FilePasswordDB`` does.

    :param wall: the file system's idea of now, in seconds.
    """

    def __init__(self, path: str, *, wall: Callable[[], float] = time.time) -> None:
        super().__init__({})
        self._path = path
        self._wall = wall
        # Who was there when it was last read and not just being written.
        self._known: Set[bytes] = frozenset()

    def requestAvatarId(self, credentials: Credentials) -> AvatarId:
        """The user's name, if the credentials fit.

        :raises twisted.cred.error.UnauthorizedLogin: (or fails with) if not.
        :raises pop3toy.errors.StoreTrouble: if the file cannot be read, or may be half written.
        """
        if self.in_doubt():
            raise self._being_written()
        return super().requestAvatarId(credentials)

    def has_plaintext(self) -> bool:
        """True: the file keeps passwords as they are."""
        return True

    def scram_hashes(self) -> frozenset[str]:
        """None: a verifier would have to be made at each login, in the reactor's thread."""
        return frozenset()

    def verifier(self, user: str, hash_name: str) -> None:
        """None."""

    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address."""
        self.in_doubt()
        return super().has_addresses()

    def in_doubt(self) -> bool:
        """Read the file; whether some users may be missing that were there before, as it is being written."""
        try:
            content = read(self._path, self._wall)
        except OSError as error:
            raise not_now(f"--auth file:{self._path}: {error.strerror}") from error
        passwords: dict[bytes, bytes] = {}
        for line in content.octets.splitlines():
            name, colon, password = line.rstrip().partition(b":")
            if colon:
                passwords.setdefault(name, password)
        self.keep(passwords)
        in_doubt = content.in_doubt(self._known, passwords.keys())
        if not in_doubt:
            self._known = passwords.keys()
        return in_doubt

    def canonical_name(self, user: str) -> str | None:
        """See :class:`~pop3toy.auth.sources.IAccountSource`."""
        in_doubt = self.in_doubt()
        found = self.names.find(user)
        if found is None and in_doubt:
            raise self._being_written()
        return found

    def _being_written(self) -> StoreTrouble:
        return not_now(f"--auth file:{self._path} is being written")


def of_auth_option(checker: ICredentialsChecker) -> ICredentialsChecker:
    """A checker that ``--auth`` has made, or one that does what its help says in its place."""
    return PasswordFile(checker.filename) if type(checker) is FilePasswordDB else checker


def repaired(checker: ICredentialsChecker) -> ICredentialsChecker:
    """The checker, or one that works in its place if it keeps users as text."""
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse) and any(
        isinstance(part, str) for entry in checker.users.items() for part in entry
    ):
        return MemoryAccounts(checker.users)
    return checker


def repaired_checkers(portal: Portal) -> dict[InterfaceClass, ICredentialsChecker]:
    """The checkers of a portal by what they take, with one that works for each that keeps users as text.

    The portal stays as it is: it is the caller's, who may use it for more than mail.
    """
    substitutes = {id(checker): repaired(checker) for checker in portal.checkers.values()}
    return {interface: substitutes[id(checker)] for interface, checker in portal.checkers.items()}
