"""The languages in which the server explains what happens, and which of them the reader's is."""

from __future__ import annotations

import locale
import os

__all__ = ["LANGUAGES", "language_of_the_locale"]

#: Those with a catalogue in ``pop3toy/locale``, and English, which is in the code.
LANGUAGES = ("en", "it")


def language_of_the_locale() -> str:
    """The language of the environment, if it is one of them; else English."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        found = os.environ.get(variable)
        if found:
            language = locale.normalize(found).partition(".")[0].partition("_")[0].lower()
            return language if language in LANGUAGES else "en"
    return "en"
