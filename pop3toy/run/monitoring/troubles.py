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

__all__ = [
    "DAY",
    "ask_store",
    "check_accounts",
    "days_left",
    "ends_of",
    "expired",
    "expiring",
    "expiry",
    "in_days",
    "login_refused",
]

#: Seconds.
DAY: Final = 86400

#: Days before its end from which a certificate is told of: who renews it by a program does so long before.
EXPIRING: Final = 14


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


def ends_of(tls: GivenTLS | None) -> Iterator[tuple[str, float]]:
    """The certificates' files, and when each expires, in seconds since the epoch."""
    if tls is not None:
        for pair in tls.in_use.pairs:
            yield pair.files.certificate, pair.chain()[0].not_valid_after_utc.timestamp()


def expiry(tls: GivenTLS | None) -> Iterable[tuple[float, Sequence[str]]]:
    """When the first certificate expires, as a metric's value; nothing without TLS."""
    first = min((end for _, end in ends_of(tls)), default=None)
    return [] if first is None else [(first, ())]


def days_left(end: float, now: float) -> int:
    """Whole days until a certificate expires; negative when it has."""
    return int((end - now) // DAY)


def in_days(end: float, now: float) -> str:
    """When it expires, as the end of a sentence."""
    days = days_left(end, now)
    return "has expired" if end <= now else f"expires in {days} {'day' if days == 1 else 'days'}"


def expired(tls: GivenTLS | None, wall: Callable[[], float] = time.time) -> list[str]:
    """The certificates that have expired, a sentence each: clients refuse them, so this is a problem."""
    now = wall()
    return [_sentence(path, end, now) for path, end in ends_of(tls) if end <= now]


def expiring(tls: GivenTLS | None, wall: Callable[[], float] = time.time) -> list[str]:
    """Those that soon expire, a sentence each.

    No problem yet: a load balancer that asks ``/healthz`` would send clients away from a server that serves.
    """
    now = wall()
    return [
        _sentence(path, end, now)
        for path, end in ends_of(tls)
        if now < end and days_left(end, now) < EXPIRING
    ]


def login_refused(refused: float) -> list[str]:
    """What to say of a smarthost that refuses name and password: a warning, for it is one for all servers."""
    said = "the smarthost refuses the login of smarthost-credentials: mail for elsewhere waits"
    return [said] if refused else []


def _sentence(path: str, end: float, now: float) -> str:
    return f"the certificate in {path} {in_days(end, now)}"
