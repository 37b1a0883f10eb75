"""How much a user may keep: ``quota=500M`` in the accounts file, as octets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from ..errors import StoreTrouble
from ..interfaces import MaybeDeferred, is_deferred

__all__ = ["HasSettings", "parse_quota", "quota_of"]


class HasSettings(Protocol):
    """An account, or whatever else has settings."""

    @property
    def settings(self) -> Mapping[str, str]:
        """``{"quota": "500M"}``, for example."""


_QUOTA = re.compile(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_quota(text: str) -> int | None:
    """Octets, from ``1048576``, ``1024K``, ``500M``, ``2G`` or ``1T`` (powers of 1024).

    :return: ``None`` for ``none``, which is no limit.
    :raises ValueError: if it is none of these.
    """
    text = text.strip()
    if text.lower() == "none":
        return None
    match = _QUOTA.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quota; say for example 500M, 2G or none")
    return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")


def quota_of(
    find: Callable[[str], MaybeDeferred[HasSettings | None]], default: int | None = None
) -> Callable[[str], MaybeDeferred[int | None]]:
    """Quotas of accounts, as a store asks for them.

    :param find: a user's account, or ``None``.
    :param default: for accounts whose settings have no quota.
    :return: a function from a user to octets, or ``None`` for no limit; it raises, or
        fails with, :class:`~pop3toy.errors.StoreTrouble` if the account's quota cannot
        be read: the mail waits until the administrator has mended it.
    """

    def octets(account: HasSettings | None, user: str) -> int | None:
        text = account.settings.get("quota") if account is not None else None
        try:
            return default if text is None else parse_quota(text)
        except ValueError as error:
            raise StoreTrouble(detail=f"the account of {user!r}: {error}") from None

    def quota(user: str) -> MaybeDeferred[int | None]:
        account = find(user)
        return account.addCallback(octets, user) if is_deferred(account) else octets(account, user)

    return quota
