"""``pop3toy user list``: who there is, and how full each mailbox is."""

from __future__ import annotations

import json
from typing import Any

from ...auth.accounts import admin
from ...auth.accounts.passwd_file import Account
from ...auth.app_passwords.admin import known
from ...auth.app_passwords.kept import ONLY, PREFIX
from ...errors import Refusal
from ...interfaces import IStoreAdmin
from ...routing.quota import parse_quota

__all__ = ["as_json", "as_lines"]

#: Settings that are told in other words, or say nothing to people.
_NOT_SHOWN = (PREFIX, "app-used.", "nologin", "quota", ONLY)


def as_lines(users: list[Account], mailboxes: IStoreAdmin | None) -> list[str]:
    """A line for each user.

    :param mailboxes: of the store, where that is known.
    """
    rows = [_row(account, mailboxes) for account in users]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(4)]
    return [
        "  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(account: Account, mailboxes: IStoreAdmin | None) -> tuple[str, str, str, str]:
    said = _settings(account)
    words = [f"{key}={value}" if value else key for key, value in said.items()]
    if "quota" in account.settings:
        words.insert(0, f"quota={account.settings['quota']}")
    if "nologin" in account.settings:
        words.insert(0, "disabled")
    if names := sorted(one.name for one in account.app_passwords):
        words.append(f"app passwords{' only' if account.app_passwords_only else ''}: {', '.join(names)}")
    return account.name, account.password.scheme, _fullness(account, mailboxes), " ".join(words)


def _fullness(account: Account, mailboxes: IStoreAdmin | None) -> str:
    if mailboxes is None:
        return ""
    octets = _usage(account.name, mailboxes)
    if octets is None:
        return "no mailbox"
    if isinstance(octets, str):
        return "cannot be read"
    quota = _quota(account)
    return f"{octets:,}" + (f" of {quota:,} ({_percent(octets, quota)} %)" if quota else "")


def as_json(accounts: admin.Where, users: list[Account], mailboxes: IStoreAdmin | None) -> str:
    """All of it for programs, without any secret."""
    return json.dumps([_told(accounts, account, mailboxes) for account in users], indent=2)


def _told(accounts: admin.Where, account: Account, mailboxes: IStoreAdmin | None) -> dict[str, Any]:
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
        octets = _usage(account.name, mailboxes)
        told["octets"] = octets if isinstance(octets, int) else None
        told["percent"] = _percent(octets, quota) if isinstance(octets, int) and quota else None
        if isinstance(octets, str):
            told["trouble"] = octets
    return told


def _settings(account: Account) -> dict[str, str]:
    return {key: value for key, value in account.settings.items() if not key.startswith(_NOT_SHOWN)}


def _usage(user: str, mailboxes: IStoreAdmin) -> int | str | None:
    """The octets of a mailbox; ``None`` if there is none, and text if that cannot be told."""
    try:
        return mailboxes.usage(user) if mailboxes.exists(user) else None
    except Refusal as error:
        return error.detail or error.text


def _quota(account: Account) -> int | None:
    try:
        return parse_quota(account.settings.get("quota", "none"))
    except ValueError:
        return None


def _percent(octets: int, quota: int) -> int:
    return 100 * octets // quota
