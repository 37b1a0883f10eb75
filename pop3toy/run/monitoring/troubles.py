"""What ``/healthz`` looks at: store, accounts, certificates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ...config.settings import Settings
from ...files import check_readable
from ...interfaces import IStoreAdmin

if TYPE_CHECKING:
    from ...net.tls.contexts import GivenTLS

__all__ = ["ask_store", "check_accounts", "expiring", "expiry"]

#: Days before its end from which a certificate is a problem: who renews it by a program does so long before.
EXPIRING: Final = 7


def check_accounts(settings: Settings) -> None:
    """See that the accounts file can be read, if there is one.

    :raises pop3toy.errors.BadSetting: if not.
    """
    if settings.accounts_file is not None:
        check_readable("accounts", settings.accounts_file)


def ask_store(admin: IStoreAdmin | None) -> None:
    """See that a store answers, where it can be asked.

    :raises pop3toy.errors.StoreTrouble: if not.
    """
    if admin is not None:
        admin.exists("postmaster")


def _ends(tls: GivenTLS | None) -> Iterator[tuple[str, float]]:
    """The certificates' files, and when each expires, in seconds since the epoch."""
    if tls is not None:
        for pair in tls.in_use.pairs:
            yield pair.files.certificate, pair.chain()[0].not_valid_after_utc.timestamp()


def expiry(tls: GivenTLS | None) -> Iterable[tuple[float, Sequence[str]]]:
    """When the first certificate expires, as a metric's value; nothing without TLS."""
    first = min((end for _, end in _ends(tls)), default=None)
    return [] if first is None else [(first, ())]


def expiring(tls: GivenTLS | None, wall: Callable[[], float] = time.time) -> list[str]:
    """The certificates that expire soon, or have expired, a sentence each."""
    now = wall()
    problems = []
    for path, end in _ends(tls):
        days = int((end - now) // 86400)
        if end <= now:
            problems.append(f"the certificate in {path} has expired")
        elif days < EXPIRING:
            problems.append(f"the certificate in {path} expires in {days} {'day' if days == 1 else 'days'}")
    return problems
