"""All options by name, in their tables: how a command line or a file becomes settings.

One table feeds options, file, help and reference; it is made of the fields of the
settings.  A new option is a field there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadSetting
from ..option import Option, options_of
from ..stores.registry import STORES
from .settings import TLS, Limits, Settings

__all__ = ["OPTIONS", "TABLES", "merged", "settings_of"]

#: The tables of a file, which are the groups of the help, and what each is about.
TABLES: Mapping[str, str] = {
    "pop3": "POP3: where mail programs connect, and what is shown of it",
    "store": "Where mail is kept",
    "tls": "TLS",
    "accounts": "Who may log in",
    "mail": "Mail that comes in: SMTP, submission, LMTP",
    "limits": "Limits",
    "inspector": "The inspector: sessions and mailboxes in a browser",
    "workers": "Several processes",
    "monitoring": "What is measured",
}


_TYPES: tuple[type, ...] = (Settings, *(one.settings for one in STORES), TLS, Limits)


#: All options by name, table by table.
OPTIONS: Mapping[str, Option] = {
    one.name: one
    for table in TABLES
    for settings in _TYPES
    for one in options_of(settings)
    if one.table == table
}


def settings_of(given: Mapping[str, object]) -> Settings:
    """The settings that these options make.

    :param given: values by the options' names, as text, number, true or false, or a list of them.
    :raises pop3toy.errors.BadSetting: for what cannot be, or does not go together.
    """
    by_type: dict[str, dict[str, Any]] = {settings.__name__: {} for settings in _TYPES}
    for name, value in given.items():
        one = OPTIONS[name]
        by_type[one.owner][one.field] = value
    store = _store(given, by_type)
    return Settings(
        **by_type["Settings"], store=store, tls=TLS(**by_type["TLS"]), limits=Limits(**by_type["Limits"])
    )


def merged(in_file: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """What a file and a command line say together, by the options' names; the command line wins.

    A store that it chooses takes the place of the file's, with whatever else the file says of that.
    """
    chosen = next((kind for kind in STORES if kind.key in given), None)
    if chosen is not None:
        replaced = {one.name for kind in STORES if kind is not chosen for one in options_of(kind.settings)}
        in_file = {name: value for name, value in in_file.items() if name not in replaced}
    return {**in_file, **given}


def _store(given: Mapping[str, object], by_type: Mapping[str, dict[str, object]]) -> object:
    """The store of the kind whose own option is given; of the first kind if none is."""
    chosen = next((one for one in STORES if one.key in given), STORES[0])
    for kind in STORES:
        for one in options_of(kind.settings):
            if kind is not chosen and one.name in given:
                if chosen.key:
                    raise BadSetting(one.name, f" is for {kind.what}, which --{chosen.key} replaces")
                raise BadSetting(one.name, f" needs --{kind.key}")
    return chosen.settings(**by_type[chosen.settings.__name__])
