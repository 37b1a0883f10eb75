"""``pop3toy user list``: who there is, and how full each mailbox is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ...auth.accounts import admin
from ...auth.accounts.passwd_file import Account
from ...auth.app_passwords.admin import known
from ...auth.app_passwords.kept import ONLY, PREFIX
from ...interfaces import IStoreAdmin
from ...routing.quota import parse_quota
from ..options import failure

__all__ = ["Held", "as_json", "as_lines", "held"]

#: By user the octets of the mailbox; ``None`` if there is none, and in words why that cannot be told.
Held: TypeAlias = Mapping[str, int | str | None]

#: Settings that are told in other words, or say nothing to people.
_NOT_SHOWN = (PREFIX, "app-used.", "nologin", "quota", ONLY)


def held(users: Iterable[str], mailboxes: IStoreAdmin) -> Held:
    """What the users' mailboxes hold, as quotas count it and ``pop3toy mailbox list`` shows it."""
    return {user: _held(user, mailboxes) for user in users}


def _held(user: str, mailboxes: IStoreAdmin) -> int | str | None:
    try:
        return mailboxes.usage(user) if mailboxes.exists(user) else None
    except Exception as error:
        # Trouble with one is told as that user's.
        return failure(error)[0]


def as_lines(users: list[Account], mailboxes: Held | None) -> list[str]:
    """A line for each user.

    :param mailboxes: ``None`` if it is not known where they are.
    """
    rows = [_row(account, mailboxes) for account in users]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(4)]
    return [
        "  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(account: Account, mailboxes: Held | None) -> tuple[str, str, str, str]:
    said = _settings(account)
    words = [f"{key}={value}" if value else key for key, value in said.items()]
    if "quota" in account.settings:
        words.insert(0, f"quota={account.settings['quota']}")
    if "nologin" in account.settings:
        words.insert(0, "disabled")
    if names := sorted(one.name for one in account.app_passwords):
        words.append(f"app passwords{' only' if account.app_passwords_only else ''}: {', '.join(names)}")
    return account.name, account.password.scheme, _fullness(account, mailboxes), " ".join(words)


def _fullness(account: Account, mailboxes: Held | None) -> str:
    if mailboxes is None:
        return ""
    octets = mailboxes[account.name]
    if octets is None:
        return "no mailbox"
    if isinstance(octets, str):
        return "cannot be read"
    quota = _quota(account)
    return f"{octets:,}" + (f" of {quota:,} ({_percent(octets, quota)} %)" if quota else "")


def as_json(accounts: admin.Where, users: list[Account], mailboxes: Held | None) -> str:
    """All of it for programs, without any secret."""
    return json.dumps([_told(accounts, account, mailboxes) for account in users], indent=2)


def _told(accounts: admin.Where, account: Account, mailboxes: Held | None) -> dict[str, Any]:
    quota = _quota(account)
    told: dict[str, Any] = {
        "name": account.name,
        "scheme": account.password.scheme,
        "disabled": "nologin" in account.settings,
        "quota": quota,
        "app_passwords_only": account.app_passwords_only,
        "app_passwords": [],
        "settings": _settings(account),
    }
    if any(key.startswith(PREFIX) for key in account.settings):
        told["app_passwords"] = [
            {key: text or None for key, text in one._asdict().items()}
            for one in known(accounts, account.name)
        ]
    if mailboxes is not None:
        octets = mailboxes[account.name]
        told["octets"] = octets if isinstance(octets, int) else None
        told["percent"] = _percent(octets, quota) if isinstance(octets, int) and quota else None
        if isinstance(octets, str):
            told["trouble"] = octets
    return told


def _settings(account: Account) -> dict[str, str]:
    return {key: value for key, value in account.settings.items() if not key.startswith(_NOT_SHOWN)}


def _quota(account: Account) -> int | None:
    try:
        return parse_quota(account.settings.get("quota", "none"))
    except ValueError:
        return None


def _percent(octets: int, quota: int) -> int:
    return 100 * octets // quota
