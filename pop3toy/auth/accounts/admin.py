"""Administering an accounts file: add, change, remove and list users.

What a command line calls; asks nothing, prints nothing and blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..names import NameIndex, folded
from .edit import edit_file
from .passwd_file import Accounts, check_name, names, parse, with_account, with_setting, without_account
from .schemes import MADE, make

__all__ = [
    "AccountExists",
    "NoSuchAccount",
    "add_user",
    "canonical_name",
    "delete_user",
    "differing_in_case",
    "list_users",
    "set_password",
    "set_setting",
]


class AccountExists(ValueError):
    """There is a user of this name already."""


class NoSuchAccount(ValueError):
    """There is no user of this name."""


def add_user(
    path: str | Path,
    name: str,
    password: str,
    *,
    scheme: str = "ARGON2ID",
    settings: Mapping[str, str] | None = None,
) -> None:
    """Add a user; makes the file if it is missing.

    :param scheme: one of :data:`pop3toy.auth.accounts.schemes.MADE`: ``PLAIN`` keeps
        the password recoverable, for APOP and CRAM-MD5; ``SCRAM-SHA-256`` and
        ``SCRAM-SHA-1`` keep what that mechanism needs and no more.
    :param settings: ``{"quota": "1G"}``, for example.
    :raises AccountExists: if there is one already.
    :raises ValueError: for a name, password or setting that cannot be.
    :raises OSError: if the file cannot be read or written.
    """

    def add(text: bytes) -> bytes:
        if name in names(text):
            raise AccountExists(f"there is a user {name} already")
        return with_account(text, name, stored, settings)

    check_name(name)
    stored = _stored(password, scheme)
    edit_file(path, add)


def set_password(path: str | Path, name: str, password: str, *, scheme: str | None = None) -> None:
    """Give a user a new password; all else about the user stays.

    :param scheme: as for :func:`add_user`; ``None`` keeps what a mechanism
        needs (PLAIN, SCRAM), and makes anything else argon2id.
    :raises NoSuchAccount: if there is no such user.
    :raises ValueError: for a password that cannot be, or if the line of the
        user is not understood for another reason than its password.
    :raises OSError: if the file cannot be read or written.
    """

    def change(text: bytes) -> bytes:
        if name not in names(text):
            raise NoSuchAccount(f"there is no user {name}")
        account = parse(text).by_name.get(name)
        old = account.password.scheme if account is not None else ""
        return with_account(text, name, _stored(password, scheme or (old if old in MADE else "ARGON2ID")))

    _must_be_there(path)
    edit_file(path, change)


def set_setting(path: str | Path, name: str, key: str, value: str) -> None:
    """Change or add a setting of a user, ``quota`` for example; all else about the user stays.

    :raises NoSuchAccount: if there is no such user.
    :raises ValueError: for a setting that cannot be, or if the line of the user is not understood.
    :raises OSError: if the file cannot be read or written.
    """

    def change(text: bytes) -> bytes:
        try:
            return with_setting(text, name, key, value)
        except KeyError:
            raise NoSuchAccount(f"there is no user {name}") from None

    _must_be_there(path)
    edit_file(path, change)


def delete_user(path: str | Path, name: str) -> None:
    """Remove a user.  The maildrop stays.

    :raises NoSuchAccount: if there is no such user.
    :raises OSError: if the file cannot be read or written.
    """

    def remove(text: bytes) -> bytes:
        try:
            return without_account(text, name)
        except KeyError:
            raise NoSuchAccount(f"there is no user {name}") from None

    _must_be_there(path)
    edit_file(path, remove)


def canonical_name(path: str | Path, name: str) -> str | None:
    """The name of the user that is meant, found as at login; ``None`` if there is none.

    Also of one whose line is not understood.

    :raises OSError: if the file cannot be read.
    """
    return NameIndex(names(Path(path).read_bytes())).find(name)


def differing_in_case(path: str | Path, name: str) -> list[str]:
    """The other users whose names differ from this one in case alone (or NFC and NFD).

    :raises OSError: if the file cannot be read.
    """
    others = names(Path(path).read_bytes())
    return [other for other in others if other != name and folded(other) == folded(name)]


def list_users(path: str | Path) -> Accounts:
    """All accounts, and the lines that are not understood.

    :raises OSError: if the file cannot be read.
    """
    return parse(Path(path).read_bytes())


def _must_be_there(path: str | Path) -> None:
    # Editing would make it.
    Path(path).stat()


def _stored(password: str, scheme: str) -> bytes:
    if not password:
        raise ValueError("the password is empty")
    if any(c in password for c in "\0\r\n"):
        # PASS could not carry it (RFC 1939 section 3).
        raise ValueError("the password holds a line end or a NUL")
    return make(password.encode("utf-8"), scheme)
