"""An explanation as a value, and the language it is in."""

from __future__ import annotations

import gettext
from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any, NamedTuple

__all__ = ["N_", "Explanation", "Say", "clause", "say_in"]


class Explanation(NamedTuple):
    """One thing that is to be said about an event."""

    #: ``note``, ``state`` (it changed), ``hint`` (to who is on the wrong track), ``warning`` (a secret can be
    #: overheard, mail can be lost) or ``summary`` (at the end).
    kind: str
    text: str
    #: Where the rule stands, as ``RFC 1939 section 5``; empty for what no RFC says.
    clause: str = ""
    #: The line of the event's data behind which it belongs, from 0; ``None`` for behind all of them.
    line: int | None = None


def N_(text: str) -> str:
    """Mark a text for the catalogue that is translated when it is said."""
    return text


#: Translates a text and puts values into it by name; with ``count``, ``plural`` is for all but one.
Say = Callable[..., str]


def say_in(language: str) -> Say:
    """What says texts in a language.

    :param language: one of :data:`pop3toy.languages.LANGUAGES`.
    """
    with as_file(files("pop3toy") / "locale") as folder:
        catalogue: Any = gettext.translation("pop3toy", folder, [language], fallback=True)

    def say(text: str, plural: str | None = None, count: int = 1, /, **values: object) -> str:
        found = catalogue.gettext(text) if plural is None else catalogue.ngettext(text, plural, count)
        return found.format(**values) if values else found  # type: ignore[no-any-return]

    return say


def clause(rfc: int, section: str | None = None) -> str:
    """Where a rule stands."""
    return f"RFC {rfc} section {section}" if section else f"RFC {rfc}"
