"""Options of a server under test: any field of the settings, by its name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from ..config.settings import TLS, Limits, Settings

__all__ = ["settings_of"]

#: What another parameter says, or cannot be said of a server within a test.
_NOT_HERE = {
    "store", "users", "tls", "limits", "workers", "show_secrets", "listen", "tls_listen", "smtp", "smtp_port",
}  # fmt: skip

#: What a test would only wait for: a locked mailbox is refused at once, and nobody is slowed down because
#: somebody on this machine has mistyped a password before.
_LIMITS: Mapping[str, Any] = {"lock_wait": 0, "trusted": ("127.0.0.0/8", "::1")}


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def settings_of(passwords: Mapping[str, str], options: Mapping[str, Any], **more: Any) -> Settings:
    """The settings for these accounts.

    :param options: fields of ``Settings``, ``Limits`` and ``TLS``; each has a name of its own.
    :param more: fields of ``Settings`` that no option says.
    :raises TypeError: for an option that does not exist, with what may have been meant.
    :raises pop3toy.errors.CannotStart: for a value that cannot be.
    """
    whole, limits, tls = _fields(Settings) - _NOT_HERE, _fields(Limits), _fields(TLS)
    for name in options:
        if name not in whole | limits | tls:
            near = difflib.get_close_matches(name, whole | limits | tls, 1)
            hint = f"; is it {near[0]!r}?" if near else ""
            raise TypeError(f"there is no option {name!r} of a server under test{hint}")
    given: dict[str, Any] = {"port": 0, "users": tuple(passwords.items()), **more}
    given |= {name: value for name, value in options.items() if name in whole}
    given["limits"] = Limits(
        **{**_LIMITS, **{name: value for name, value in options.items() if name in limits}}
    )
    of_tls = {name: value for name, value in options.items() if name in tls}
    if of_tls:
        given["tls"] = dataclasses.replace(given.get("tls", TLS()), **of_tls)
    return Settings(**given)
