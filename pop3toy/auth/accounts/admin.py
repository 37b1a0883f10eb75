"""Administering accounts: add, change, remove and list users.

What a command line calls; asks nothing, prints nothing and blocks.  Accounts are in a file, which is said
by its path, or elsewhere (``records``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

from ..app_passwords import last_use
from ..names import NameIndex, folded
from .edit import edit_file
from .passwd_file import (
    RENAMED_FROM,
    Account,
    AccountExists,
    Accounts,
    check_name,
    names,
    parse,
    with_account,
    with_name,
    with_setting,
    without_account,
    without_setting,
)
from .schemes import MADE, make
from .verifier import Verifier

__all__ = [
    "RENAMED_FROM",
    "AccountExists",
    "AccountsPlace",
    "NoSuchAccount",
    "Where",
    "add_user",
    "by_name",
    "canonical_name",
    "change_line",
    "delete_user",
    "differing_in_case",
    "last_used",
    "list_users",
    "remove_setting",
    "rename_back",
    "rename_finished",
    "rename_user",
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

    def rename(self, name: str, new: str) -> None:
        """Give a user another name, with :data:`RENAMED_FROM` as a setting; again after a crash.

        :raises AccountExists: if there is a user of the new name who is another one.
        :raises KeyError: if there is no such user.
        """

    def last_used(self, user: str) -> Mapping[str, str]:
        """The last day, as ``2026-11-30``, of each app password of a user, as far as it is known."""

    def forget_use(self, user: str, name: str) -> None:
        """An app password is gone."""


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

    def rename(self, name: str, new: str) -> None:
        def change(text: bytes) -> bytes:
            if new in names(text):
                raise AccountExists(f"there is a user {new} already")
            return with_setting(with_name(text, name, new), new, RENAMED_FROM, name)

        self.edit(name, change)
        last_use.forget(last_use.file_of(self._path), name, new=new)

    def last_used(self, user: str) -> Mapping[str, str]:
        return last_use.read(last_use.file_of(self._path), user)

    def forget_use(self, user: str, name: str) -> None:
        last_use.forget(last_use.file_of(self._path), user, name)

    def forget_user(self, user: str) -> None:
        """All about a user's app passwords: a later user of this name is another one."""
        last_use.forget(last_use.file_of(self._path), user)


#: A file, or another place.
Where: TypeAlias = str | Path | AccountsPlace


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
        wanted = scheme or (old if old in MADE else "ARGON2ID")
        # SCRAM works with all of a user's passwords that have one salt.
        apps = account.app_passwords if account is not None else ()
        like = apps[0].verifier if apps and wanted == "SCRAM-SHA-256" else None
        return with_account(text, name, _stored(password, wanted, like))

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


def remove_setting(where: Where, name: str, key: str) -> None:
    """Let a user not have a setting any more; all else about the user stays.

    :raises NoSuchAccount: if there is no such user.
    :raises ValueError: if the line is not understood.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """
    change_line(where, name, lambda text: without_setting(text, name, key))


def change_line(where: Where, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change the text in which a user's line stands.

    :param change: raises KeyError where there is no such user; what else it raises goes through.
    :raises NoSuchAccount: if there is no such user.
    """
    try:
        _place(where).edit(name, change)
    except KeyError:
        raise NoSuchAccount(f"there is no user {name}") from None


def rename_user(where: Where, name: str, new: str) -> None:
    """Give a user another name; all else about the user stays, and the mailbox is not touched.

    The account has the setting :data:`RENAMED_FROM` from now on, until :func:`rename_finished`.

    :raises NoSuchAccount: if there is no such user.
    :raises AccountExists: if there is a user of the new name.
    :raises ValueError: if nobody can be called so, or the line is not understood.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """
    check_name(new)
    try:
        _place(where).rename(name, new)
    except KeyError:
        raise NoSuchAccount(f"there is no user {name}") from None


def rename_finished(where: Where, new: str) -> None:
    """The mailbox has its new name, too."""
    remove_setting(where, new, RENAMED_FROM)


def rename_back(where: Where, name: str, new: str) -> None:
    """The mailbox could not be renamed: the account has its old name again."""
    rename_user(where, new, name)
    rename_finished(where, name)


def last_used(where: Where, name: str) -> Mapping[str, str]:
    """The last day, as ``2026-11-30``, of each app password of a user, as far as it is known.

    :raises OSError: if that cannot be read; elsewhere ``StoreTrouble``.
    """
    return _place(where).last_used(name)


def forget_use(where: Where, name: str, app: str) -> None:
    """An app password of a user is gone.

    :raises OSError: if that cannot be written; elsewhere ``StoreTrouble``.
    """
    _place(where).forget_use(name, app)


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

    place = _place(where)
    place.edit(name, remove)
    if isinstance(place, _AccountsInFile):
        place.forget_user(name)


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


def _stored(password: str, scheme: str, like: Verifier | None = None) -> bytes:
    if not password:
        raise ValueError("the password is empty")
    if any(c in password for c in "\0\r\n"):
        # PASS could not carry it (RFC 1939 section 3).
        raise ValueError("the password holds a line end or a NUL")
    return make(password.encode("utf-8"), scheme, like)
