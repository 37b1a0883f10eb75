"""Administering app passwords: add, list and revoke them.  Asks nothing, prints nothing and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..accounts import admin
from ..accounts.passwd_file import parse, with_setting, without_setting
from ..accounts.verifier import Verifier
from .kept import ONLY, PREFIX, AppPassword, check_name, make

__all__ = ["Known", "NoSuchAppPassword", "add", "known", "revoke", "set_only"]


class NoSuchAppPassword(ValueError):
    """The user has no app password of this name."""


class Known(NamedTuple):
    """What is told of an app password."""

    name: str
    #: The day on which it was made, as ``2026-11-30``; empty if it cannot be read, and lets nobody in.
    made: str
    #: The day on which it was used last, in UTC; empty if it never was, as far as that is known.
    used: str


def add(where: admin.Where, user: str, name: str, *, today: str | None = None) -> str:
    """Give a user one more app password.

    :param name: what the user calls it, such as ``phone``.
    :param today: the day, as ``2026-11-30``.
    :return: the secret, which is kept nowhere.
    :raises pop3toy.auth.accounts.admin.NoSuchAccount: if there is no such user.
    :raises ValueError: for a name that cannot be, or that is there already.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """
    check_name(name)

    def change(text: bytes) -> bytes:
        # Again, if somebody else has changed it meanwhile.
        account = parse(text).by_name[user]
        if f"{PREFIX}{name}" in account.settings:
            raise ValueError(f"{user} has an app password {name} already: revoke it, or take another name")
        like: Verifier | None = account.password.verifier("sha256")
        if like is None and account.app_passwords:
            like = account.app_passwords[0].verifier
        # The same again, so that one of our own changes is known for that.
        same = [one for one in made if like is None or one[1].verifier.salt == like.salt]
        made[:] = same or [make(name, today or datetime.now(UTC).date().isoformat(), like)]
        return with_setting(text, user, made[0][1].key, made[0][1].value)

    made: list[tuple[str, AppPassword]] = []
    admin.change_line(where, user, change)
    return made[0][0]


def known(where: admin.Where, user: str) -> Sequence[Known]:
    """The app passwords of a user, by their names.

    :raises pop3toy.auth.accounts.admin.NoSuchAccount: if there is no such user.
    :raises OSError: if the file cannot be read; elsewhere ``StoreTrouble``.
    """
    account = admin.by_name(where).get(user)
    if account is None:
        raise admin.NoSuchAccount(f"there is no user {user}, or the line is not understood")
    used = admin.last_used(where, user)
    made = {one.name: one.made for one in account.app_passwords}
    names = sorted(key.removeprefix(PREFIX) for key in account.settings if key.startswith(PREFIX))
    return [Known(name, made.get(name, ""), used.get(name, "")) for name in names]


def revoke(where: admin.Where, user: str, name: str) -> None:
    """Take an app password back: it lets nobody in any more.

    :raises NoSuchAppPassword: if there is none of this name.
    :raises pop3toy.auth.accounts.admin.NoSuchAccount: if there is no such user.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """

    def change(text: bytes) -> bytes:
        if f"{PREFIX}{name}" not in parse(text).by_name[user].settings:
            raise NoSuchAppPassword(f"{user} has no app password {name}")
        return without_setting(text, user, f"{PREFIX}{name}")

    admin.change_line(where, user, change)
    admin.forget_use(where, user, name)


def set_only(where: admin.Where, user: str, only: bool) -> None:
    """Bar the main password from mail, or let it in again.

    :raises pop3toy.auth.accounts.admin.NoSuchAccount: if there is no such user.
    :raises ValueError: if the user has no app password, and so could not log in any more.
    :raises OSError: if the file cannot be read or written; elsewhere ``StoreTrouble``.
    """

    def change(text: bytes) -> bytes:
        if not only:
            return without_setting(text, user, ONLY)
        if not parse(text).by_name[user].app_passwords:
            raise ValueError(f"{user} has no app password yet")
        return with_setting(text, user, ONLY, "y")

    admin.change_line(where, user, change)
