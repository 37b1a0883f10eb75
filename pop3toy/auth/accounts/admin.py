"""Administering accounts: add, change, remove and list users.

What a command line calls; asks nothing, prints nothing and blocks.  Accounts are in a file, which is said
by its path, or elsewhere (``records``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

from ..names import NameIndex, folded
from .edit import edit_file
from .passwd_file import (
    Account,
    Accounts,
    check_name,
    names,
    parse,
    with_account,
    with_setting,
    without_account,
)
from .schemes import MADE, make

__all__ = [
    "AccountExists",
    "AccountsPlace",
    "NoSuchAccount",
    "Where",
    "add_user",
    "by_name",
    "canonical_name",
    "delete_user",
    "differing_in_case",
    "list_users",
    "set_password",
    "set_setting",
]


class AccountsPlace(Protocol):
    """Where accounts are kept.  Every method blocks.

    All raise OSError, or :class:`~pop3toy.errors.StoreTrouble`, if that cannot be read or written.
    """

    def edit(self, user: str, change: Callable[[bytes], bytes]) -> None:
        """Change the text in which the user's line stands; of several changes at once none is lost."""

    def find(self, name: str) -> str | None:
        """The name of the user that is meant, found as at login; also of one whose line is not understood."""

    def alike(self, name: str) -> list[str]:
        """The other users whose names differ from this one in case alone (or NFC and NFD)."""

    def by_name(self) -> Mapping[str, Account]:
        """The accounts, without those that are not understood."""

    def accounts(self) -> Accounts:
        """All accounts, and what is not understood."""


class _AccountsInFile:
    """Accounts in a file.

    :param makes: whether it is made if it is missing.
    """

    def __init__(self, path: str | Path, *, makes: bool = False) -> None:
        self._path = Path(path)
        self._makes = makes

    def edit(self, user: str, change: Callable[[bytes], bytes]) -> None:
        if not self._makes:
            # Editing would make it.
            self._path.stat()
        edit_file(self._path, change)

    def find(self, name: str) -> str | None:
        return NameIndex(names(self._path.read_bytes())).find(name)

    def alike(self, name: str) -> list[str]:
        others = names(self._path.read_bytes())
        return [other for other in others if other != name and folded(other) == folded(name)]

    def by_name(self) -> Mapping[str, Account]:
        return self.accounts().by_name

    def accounts(self) -> Accounts:
        return parse(self._path.read_bytes())


#: A file, or another place.
Where: TypeAlias = str | Path | AccountsPlace


class AccountExists(ValueError):
    """There is a user of this name already."""


class NoSuchAccount(ValueError):
    """There is no user of this name."""


def add_user(
    where: Where,
    name: str,
    password: str,
    *,
    scheme: str = "ARGON2ID",
    settings: Mapping[str, str] | None = None,
) -> None:
    """Add a user; makes the file if it is missing, and elsewhere the mailbox.

    :param scheme: one of :data:`pop3toy.auth.accounts.schemes.MADE`: ``PLAIN`` keeps
        the password recoverable, for APOP and CRAM-MD5; ``SCRAM-SHA-256`` and
        ``SCRAM-SHA-1`` keep what that mechanism needs and no more.
    :param settings: ``{"quota": "1G"}``, for example.
    :raises AccountExists: if there is one already.
    :raises ValueError: for a name, password or setting that cannot be.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """

    def add(text: bytes) -> bytes:
        if name in names(text):
            raise AccountExists(f"there is a user {name} already")
        return with_account(text, name, stored, settings)

    check_name(name)
    stored = _stored(password, scheme)
    _place(where, makes=True).edit(name, add)


def set_password(where: Where, name: str, password: str, *, scheme: str | None = None) -> None:
    """Give a user a new password; all else about the user stays.

    :param scheme: as for :func:`add_user`; ``None`` keeps what a mechanism
        needs (PLAIN, SCRAM), and makes anything else argon2id.
    :raises NoSuchAccount: if there is no such user.
    :raises ValueError: for a password that cannot be, or if the line of the
        user is not understood for another reason than its password.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """

    def change(text: bytes) -> bytes:
        if name not in names(text):
            raise NoSuchAccount(f"there is no user {name}")
        account = parse(text).by_name.get(name)
        old = account.password.scheme if account is not None else ""
        return with_account(text, name, _stored(password, scheme or (old if old in MADE else "ARGON2ID")))

    _place(where).edit(name, change)


def set_setting(where: Where, name: str, key: str, value: str) -> None:
    """Change or add a setting of a user, ``quota`` for example; all else about the user stays.

    :raises NoSuchAccount: if there is no such user.
    :raises ValueError: for a setting that cannot be, or if the line of the user is not understood.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """

    def change(text: bytes) -> bytes:
        try:
            return with_setting(text, name, key, value)
        except KeyError:
            raise NoSuchAccount(f"there is no user {name}") from None

    _place(where).edit(name, change)


def delete_user(where: Where, name: str) -> None:
    """Remove a user.  The maildrop stays.

    :raises NoSuchAccount: if there is no such user.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """

    def remove(text: bytes) -> bytes:
        try:
            return without_account(text, name)
        except KeyError:
            raise NoSuchAccount(f"there is no user {name}") from None

    _place(where).edit(name, remove)


def canonical_name(where: Where, name: str) -> str | None:
    """The name of the user that is meant, found as at login; ``None`` if there is none.

    Also of one whose line is not understood.

    :raises OSError: if the file cannot be read; elsewhere ``StoreTrouble``.
    """
    return _place(where).find(name)


def differing_in_case(where: Where, name: str) -> list[str]:
    """The other users whose names differ from this one in case alone (or NFC and NFD).

    :raises OSError: if the file cannot be read; elsewhere ``StoreTrouble``.
    """
    return _place(where).alike(name)


def list_users(where: Where) -> Accounts:
    """All accounts, and the lines that are not understood.

    :raises OSError: if the file cannot be read; elsewhere ``StoreTrouble``.
    """
    return _place(where).accounts()


def by_name(where: Where) -> Mapping[str, Account]:
    """The accounts by name; from elsewhere than a file each is fetched when it is asked for.

    :raises OSError: if the file cannot be read; elsewhere ``StoreTrouble``.
    """
    return _place(where).by_name()


def _place(where: Where, *, makes: bool = False) -> AccountsPlace:
    return _AccountsInFile(where, makes=makes) if isinstance(where, str | Path) else where


def _stored(password: str, scheme: str) -> bytes:
    if not password:
        raise ValueError("the password is empty")
    if any(c in password for c in "\0\r\n"):
        # PASS could not carry it (RFC 1939 section 3).
        raise ValueError("the password holds a line end or a NUL")
    return make(password.encode("utf-8"), scheme)
