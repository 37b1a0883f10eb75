"""All options by name, in their tables: how a command line or a file becomes settings.

One table feeds options, file, help and reference; it is made of the fields of the
settings.  A new option is a field there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadSetting
from ..option import Option, options_of
from ..stores.registry import STORES, StoreKind
from .settings import TLS, Limits, Settings

__all__ = ["OPTIONS", "TABLES", "merged", "settings_of"]

#: The tables of a file, which are the groups of the help, and what each is about.
TABLES: Mapping[str, str] = {
    "pop3": "POP3: where mail programs connect, and what is shown of it",
    "store": "Where mail is kept",
    "tls": "TLS",
    "accounts": "Who may log in",
    "mail": "Mail that comes in: SMTP, submission, LMTP",
    "outgoing": "Mail that goes out: what users send elsewhere",
    "limits": "Limits",
    "inspector": "The inspector: sessions and mailboxes in a browser",
    "workers": "Several processes",
    "monitoring": "What is measured",
    "log": "The log of the server: logins, mail, troubles",
}


_TYPES: tuple[type, ...] = (Settings, *(one.settings for one in STORES), TLS, Limits)


#: The options of each type of settings, by name.
_OF: Mapping[type, Mapping[str, Option]] = {
    settings: {one.name: one for one in options_of(settings)} for settings in _TYPES
}

#: All options by name, table by table.  What several kinds of store have is the same option in each.
OPTIONS: Mapping[str, Option] = {
    name: one
    for table in TABLES
    for settings in _TYPES
    for name, one in _OF[settings].items()
    if one.table == table
}


def settings_of(given: Mapping[str, object]) -> Settings:
    """The settings that these options make.

    :param given: values by the options' names, as text, number, true or false, or a list of them.
    :raises pop3toy.errors.BadSetting: for what cannot be, or does not go together.
    """
    kind = _chosen(given) or STORES[0]
    types = (Settings, kind.settings, TLS, Limits)
    values: dict[type, dict[str, Any]] = {settings: {} for settings in types}
    for name, value in given.items():
        settings = next((one for one in types if name in _OF[one]), None)
        if settings is None:
            raise _of_another_kind(name, kind)
        values[settings][_OF[settings][name].field] = value
    return Settings(
        **values[Settings],
        store=kind.settings(**values[kind.settings]),
        tls=TLS(**values[TLS]),
        limits=Limits(**values[Limits]),
    )


def _chosen(given: Mapping[str, object]) -> StoreKind | None:
    """The kind of store whose own option is given, if one is."""
    return next((kind for kind in STORES if kind.key in given), None)


def _of_another_kind(name: str, kind: StoreKind) -> BadSetting:
    """Why an option cannot be given, which the chosen kind of store does not have."""
    others = [other for other in STORES if name in _OF[other.settings]]
    if kind.key:
        return BadSetting(name, f" is for {others[0].what}, which --{kind.key} replaces")
    return BadSetting(name, f" needs {' or '.join(f'--{other.key}' for other in others)}")


def merged(in_file: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """What a file and a command line say together, by the options' names; the command line wins.

    A store that it chooses takes the place of the file's, with whatever else the file says of that.
    """
    kind, replaced = _chosen(given), _chosen(in_file)
    if kind is not None:
        theirs = {name for other in STORES if other is not kind for name in _OF[other.settings]}
        # What both kinds have was said of the store that the file has chosen.
        ours = _OF[kind.settings].keys() if replaced in (None, kind) else ()
        in_file = {name: value for name, value in in_file.items() if name not in theirs.difference(ours)}
    return {**in_file, **given}
