"""RFC 6856: UTF8 and LANG."""

from __future__ import annotations

import re

from ..examination import Examination
from ..replies import shown
from ..results import require

__all__ = ["lang_default", "lang_list", "lang_unknown", "utf8_argument", "utf8_not_after_login", "utf8_works"]


def utf8_works(server: Examination) -> None:
    """+OK before login."""
    server.needs(b"UTF8")
    with server.stranger() as connection:
        connection.ask_ok("UTF8")


def utf8_not_after_login(server: Examination) -> None:
    """-ERR after it."""
    server.needs(b"UTF8")
    with server.session() as session:
        session.ask_refused("UTF8")


def utf8_argument(server: Examination) -> None:
    """Nothing, or USER."""
    words = server.needs(b"UTF8")
    require(words in ([], [b"USER"]), f"UTF8 is followed by {shown(b' '.join(words))}")


def lang_list(server: Examination) -> None:
    """LANG alone: a tag and a description on each line."""
    server.needs(b"LANG")
    with server.stranger() as connection:
        for line in connection.listing("LANG").lines:
            require(
                re.match(rb"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})* ", line), f"{shown(line)} has no language tag"
            )


def lang_default(server: Examination) -> None:
    """LANG with a star: the server's choice."""
    server.needs(b"LANG")
    with server.stranger() as connection:
        connection.ask_ok("LANG *")


def lang_unknown(server: Examination) -> None:
    """A language that nobody speaks."""
    server.needs(b"LANG")
    with server.stranger() as connection:
        connection.ask_refused("LANG qaa-check")
