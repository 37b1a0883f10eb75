"""The languages in which the server explains what happens, and which of them the reader's is."""

from __future__ import annotations

import locale
import os
import re

__all__ = ["LANGUAGES", "language_accepted", "language_of_the_locale"]

#: Those with a catalogue in ``pop3toy/locale``, and English, which is in the code.
LANGUAGES = ("en", "it")

#: Characters of a header that are looked at.
_LONGEST = 500


def language_of_the_locale() -> str:
    """The language of the environment, if it is one of them; else English."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        found = os.environ.get(variable)
        if found:
            language = locale.normalize(found).partition(".")[0].partition("_")[0].lower()
            return language if language in LANGUAGES else "en"
    return "en"


def language_accepted(header: str) -> str:
    """The one that a browser's reader likes best (RFC 9110 section 12.5.4); English if that is none of them.

    :param header: ``Accept-Language``, as in ``de-CH, it;q=0.9, en;q=0.5``.
    """
    best, liked = "en", 0.0
    for one in header[:_LONGEST].split(","):
        tag, _, weight = one.partition(";")
        language = tag.strip().partition("-")[0].lower()
        found = re.fullmatch(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", weight) if weight else None
        much = float(found[1]) if found else 0.0 if weight else 1.0
        # Of two that are liked the same the first goes.
        if language in LANGUAGES and much > liked:
            best, liked = language, much
    return best
