"""What a server that runs takes up when its file is read again, and what needs a restart: option by option.

Plain values: what takes them up is in ``run.reloading``.  Every option has its row in :data:`TAKEN_UP`
or in :data:`NEEDS_RESTART`, with the reason where it is not plain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ..errors import CannotStart
from ..option import options_of
from .settings import Settings

__all__ = ["NEEDS_RESTART", "TAKEN_UP", "Changes", "changes_between"]


def _always(before: Settings, after: Settings) -> bool:
    return True


def _with_tls_all_along(before: Settings, after: Settings) -> bool:
    """Ports and protocols are made with TLS or without it."""
    return before.tls.wanted and after.tls.wanted


def _with_users_all_along(before: Settings, after: Settings) -> bool:
    """The toy's mailboxes are made of its users; elsewhere the checker of such users has to be there."""
    return not before.is_toy and bool(before.users) and bool(after.users)


#: Options that are taken up, for what begins from then on: a login, a connection, a message.  Each with
#: what has to hold for that.  Sessions that are open go on as they began.
TAKEN_UP: Final[Mapping[str, Callable[[Settings, Settings], bool]]] = {
    "certificate": _with_tls_all_along,
    "key": _with_tls_all_along,
    "certificates": _with_tls_all_along,
    "self-signed": _with_tls_all_along,
    "client-ca": _with_tls_all_along,
    "user": _with_users_all_along,
    "master": _always,
    "anonymous": _always,
    "mechanisms": _always,
    "allow-cleartext": _always,
    "channel-binding": _always,
    "domain": _always,
    "catch-all": _always,
    "hostname": _always,
    "login-delay": _always,
    "lock-wait": _always,
    "max-connections": _always,
    "max-per-address": _always,
    "max-per-user": _always,
    "max-message-size": _always,
    "stop-delay": _always,
    "log-level": _always,
    "trusted": _always,
    "inspector-token-file": lambda before, after: before.wants_inspector and after.wants_inspector,
    "inspector-shows-mail": lambda before, after: before.wants_inspector and after.wants_inspector,
}

_PORTS = "ports are opened at the start, perhaps as root"
_STORE = "mail is kept where it is while sessions are open"
_WATCHES = "what watches is made with the server"
_QUEUE = "one process runs the queue, with what it was started with"
_CHECKERS = "who is asked for a login is decided at the start; what is in the files is read again"

#: Options that are not, and why.
NEEDS_RESTART: Final[Mapping[str, str]] = {
    "port": _PORTS,
    "interface": _PORTS,
    "listen": _PORTS,
    "tls-port": _PORTS,
    "tls-listen": _PORTS,
    "smtp-port": _PORTS,
    "smtp": _PORTS,
    "submission-port": _PORTS,
    "submission": _PORTS,
    "submission-tls-port": _PORTS,
    "submission-tls": _PORTS,
    "lmtp": _PORTS,
    "metrics": _PORTS,
    "password-port": _PORTS,
    "password-listen": _PORTS,
    "inspector-port": _PORTS,
    "inspector": _PORTS,
    "transcript": _WATCHES,
    "transcript-json": _WATCHES,
    "log-file": "where the log goes is told to twistd at the start",
    "log-format": "where the log goes is told to twistd at the start",
    "explain": _WATCHES,
    "language": _WATCHES,
    "show-secrets": _WATCHES,
    "faults": _WATCHES,
    "expire-days": "old mail is removed by a part that is made with the server",
    "maildir": _STORE,
    "create": _STORE,
    "max-listed-size": _STORE,
    "undo-days": _STORE,
    "message": _STORE,
    "store": _STORE,
    "store-endpoint": _STORE,
    "store-credentials": _STORE,
    "store-region": _STORE,
    "store-node": _STORE,
    "store-bucket": _STORE,
    "accounts": _CHECKERS,
    "auth": _CHECKERS,
    "renew-hashes": _CHECKERS,
    "introspection": _CHECKERS,
    "introspection-audience": _CHECKERS,
    "introspection-scope": _CHECKERS,
    "introspection-claim": _CHECKERS,
    "aliases": "which file it is; what is in it is read again",
    "workers": "processes are started with the server",
    "smarthost": _QUEUE,
    "queue": _QUEUE,
    "smarthost-credentials": "which file it is; what is in it is read again",
    "smarthost-ca": _QUEUE,
    "smarthost-limit": _QUEUE,
}


@dataclass(frozen=True)
class Changes:
    """How new settings differ from those in force."""

    #: The names of the options that can be taken up now, and of those that need a restart, in the order
    #: of the settings.
    taken: tuple[str, ...]
    restart: tuple[str, ...]
    #: What is in force with the first of them.
    settings: Settings


def changes_between(before: Settings, after: Settings) -> Changes:
    """What is another in ``after``, and what of it can be taken up by a server that runs.

    Where that does not go together without the rest, all of it needs a restart.
    """
    differing = tuple(_differing(before, after))
    taken = tuple(name for name in differing if name in TAKEN_UP and TAKEN_UP[name](before, after))
    try:
        settings = _with(before, after, taken)
        settings.check_whole()
    except CannotStart:
        taken, settings = (), before
    return Changes(taken, tuple(name for name in differing if name not in taken), settings)


def _parts(settings: Settings) -> tuple[Any, ...]:
    return settings, settings.store, settings.tls, settings.limits


def _values(settings: Settings) -> dict[str, object]:
    return {one.name: getattr(part, one.field) for part in _parts(settings) for one in options_of(type(part))}


def _differing(before: Settings, after: Settings) -> list[str]:
    """The names of the options whose values are not the same; another kind of store is all of it."""
    old, new = _values(before), _values(after)
    return [name for name in {**old, **new} if name not in old or name not in new or old[name] != new[name]]


def _with(before: Settings, after: Settings, names: tuple[str, ...]) -> Settings:
    """The settings before, with the values that some options have after."""

    def mixed(old: Any, new: Any) -> Any:
        fields = {
            one.field: getattr(new, one.field) for one in options_of(type(old)) if one.name in names
        }  # fmt: skip
        return replace(old, **fields)

    # Of one piece: what goes together is checked when it is made.
    tls, limits = mixed(before.tls, after.tls), mixed(before.limits, after.limits)
    fields = {
        one.field: getattr(after, one.field) for one in options_of(Settings) if one.name in names
    }  # fmt: skip
    return replace(before, tls=tls, limits=limits, **fields)
