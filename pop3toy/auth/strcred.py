"""Checkers that ``--auth`` makes, made to work with names and passwords that are octets.

A client's name and password are octets and twisted.cred says so too, but the
checker of ``--auth memory:`` keeps text and so knows nobody.  Other checkers
are left as they are: ``--auth file:`` reads octets, and both take the
comparison of :mod:`~pop3toy.auth.credentials`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal

from .memory import MemoryAccounts

__all__ = ["repair_checkers", "repaired"]


def repaired(checker: ICredentialsChecker) -> ICredentialsChecker:
    """The checker, or one that works in its place if it keeps users as text."""
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse) and _has_text(checker.users):
        return MemoryAccounts(checker.users)
    return checker


def repair_checkers(portal: Portal) -> None:
    """Put a checker that works in the place of each one that keeps users as text."""
    substitutes = {id(checker): repaired(checker) for checker in portal.checkers.values()}
    for interface, checker in list(portal.checkers.items()):
        portal.registerChecker(substitutes[id(checker)], interface)


def _has_text(users: Mapping[Any, Any]) -> bool:
    return any(isinstance(part, str) for entry in users.items() for part in entry)
