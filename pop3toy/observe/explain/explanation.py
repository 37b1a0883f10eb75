"""An explanation as a value, and the language it is in."""

from __future__ import annotations

import gettext
import locale
import os
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from typing import Any, NamedTuple

__all__ = ["LANGUAGES", "N_", "Explanation", "Say", "language_of_the_locale", "say_in"]

#: The languages that there are catalogues for, with English, which is in the code.
LANGUAGES = ("en", "it")


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

    :param language: one of :data:`LANGUAGES`.
    """
    with as_file(files("pop3toy") / "locale") as folder:
        catalogue: Any = gettext.translation("pop3toy", folder, [language], fallback=True)

    def say(text: str, plural: str | None = None, count: int = 1, /, **values: object) -> str:
        found = catalogue.gettext(text) if plural is None else catalogue.ngettext(text, plural, count)
        return found.format(**values) if values else found  # type: ignore[no-any-return]

    return say


def language_of_the_locale() -> str:
    """The language of the environment, if there is a catalogue for it; else English."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        found = os.environ.get(variable)
        if found:
            language = (locale.normalize(found).partition(".")[0]).partition("_")[0].lower()
            return language if language in LANGUAGES else "en"
    return "en"


def clause(rfc: int, section: str | None = None) -> str:
    """Where a rule stands."""
    return f"RFC {rfc} section {section}" if section else f"RFC {rfc}"


def all_but_none(found: Sequence[Explanation | None]) -> list[Explanation]:
    """Those that there are."""
    return [one for one in found if one is not None]
