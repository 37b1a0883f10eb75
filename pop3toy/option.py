"""An option as a value: its name, what may be said for it, and the sentence that explains it.

The settings (``config.settings``, and a store's own beside the store) are frozen
dataclasses whose fields carry one :class:`Option` each.  Command line, file, help
and reference are all made from these, so that they cannot differ.

Nothing here knows a command line, a file or a server, and nothing looks at the disk.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .errors import BadSetting

__all__ = [
    "ENDPOINT",
    "FLAG",
    "PATH",
    "REQUIRED",
    "TEXT",
    "Kind",
    "Option",
    "check",
    "number",
    "option",
    "options_of",
]

#: The default of a field that has to be given.
REQUIRED: Final = dataclasses.MISSING


@dataclass(frozen=True)
class Kind:
    """What may be said for an option.

    ``parse`` makes a value of a text and raises :class:`ValueError` with what is wrong with it, to be read
    behind the option's name: ``" is a number from 0 to 65535"`` or ``": there is no such domain"``.  A
    value's own text is parsed to the same value again.
    """

    parse: Callable[[str], object]
    #: Shown in the help: ``--port NUMBER``.
    metavar: str = "TEXT"
    #: The types that a value may have in a TOML file.
    types: tuple[type, ...] = (str,)
    #: Names a file or folder: a relative one is taken from where it was written down.
    path: Callable[[str], bool] | None = None


def _text(text: str) -> str:
    if not text:
        # As of `--hostname "$NAME"` where the variable is not set.
        raise ValueError(" is empty")
    return text


TEXT = Kind(_text)
PATH = Kind(_text, "PATH", path=lambda text: True)
ENDPOINT = Kind(_text, "ENDPOINT")
FLAG = Kind(bool, "", (bool,))


def number(least: int, most: int) -> Kind:
    """A whole number between these, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,15}", text) or not least <= int(text) <= most:
            raise ValueError(f" is a number from {least} to {most}")
        return int(text)

    return Kind(parse, "NUMBER", (int,))


@dataclass(frozen=True)
class Option:
    """One option."""

    name: str
    help: str
    kind: Kind
    #: The table of a file in which it stands, which is its group in the help too.
    table: str
    #: May be given several times; a list in a file.
    many: bool
    #: One letter for the command line.
    short: str | None
    #: The type of settings that has it, and its field there.
    owner: str
    field: str
    default: object
    #: For the reference: what a file may say, where no default shows it.
    example: int | str | None = None


def option(
    help: str,
    default: object = None,
    *,
    kind: Kind = TEXT,
    name: str | None = None,
    table: str | None = None,
    many: bool = False,
    short: str | None = None,
    secret: bool = False,
    example: int | str | None = None,
) -> Any:
    """A field of a settings dataclass that is an option.

    :param help: sentences for the help, the file's example and the reference.
    :param default: ``REQUIRED`` where there is none.
    :param name: if it is not the field's with hyphens.
    :param table: if it is not that of the dataclass (its class variable ``table``).
    :param secret: left out of the settings' repr.
    :param example: what a file may say, where the default is ``None``.
    """
    said = {
        "help": help, "kind": kind, "name": name, "table": table, "many": many, "short": short,
        "example": example,
    }  # fmt: skip
    return dataclasses.field(default=() if many else default, repr=not secret, metadata={"option": said})


def options_of(settings: type) -> list[Option]:
    """The options that are fields of a settings dataclass, in their order."""
    found = []
    for field in dataclasses.fields(settings):
        said = field.metadata.get("option")
        if said is None:
            continue
        own = {
            "name": said["name"] or field.name.replace("_", "-"),
            "table": said["table"] or settings.table,  # type: ignore[attr-defined]
            "owner": settings.__name__,
            "field": field.name,
            "default": field.default,
        }
        found.append(Option(**{**said, **own}))
    return found


def check(settings: object) -> None:
    """Check every field of a frozen settings dataclass, and put the parsed value in its place.

    :raises pop3toy.errors.BadSetting: for the first one that is wrong.
    """
    for one in options_of(type(settings)):
        value = getattr(settings, one.field)
        if value == one.default:
            continue
        if one.many:
            if isinstance(value, str) or not isinstance(value, list | tuple):
                raise BadSetting(one.name, " is a list")
            parsed: object = tuple(_parsed(one, each) for each in value)
        else:
            parsed = _parsed(one, value)
        object.__setattr__(settings, one.field, parsed)


def _parsed(one: Option, value: object) -> object:
    if one.kind is FLAG:
        if not isinstance(value, bool):
            raise BadSetting(one.name, " is true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | tuple):
        raise BadSetting(one.name, f" is {' or '.join(kind.__name__ for kind in one.kind.types)}")
    try:
        # What was parsed already, such as an account's name and password, is no text any more.
        return value if isinstance(value, tuple) else one.kind.parse(str(value))
    except ValueError as why:
        raise BadSetting(one.name, str(why)) from None
