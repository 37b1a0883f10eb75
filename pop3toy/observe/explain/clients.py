"""Which mail program it seems to be, by the commands that it sends: a guess, and its sign."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .explanation import N_, Say

__all__ = ["CLIENTS", "Client", "guess"]


class Client(NamedTuple):
    """A mail program, and how it is known."""

    name: str
    #: Matched with the commands of a session: keywords with blanks between them and before and behind, those
    #: that came in one packet with a plus: `` CAPA USER PASS+STAT QUIT ``.
    commands: re.Pattern[str]
    sign: str


def _client(name: str, commands: str, sign: str) -> Client:
    return Client(name, re.compile(commands), sign)


#: AUTH-FIRST is one with an initial response.
_LOGIN = "(?:AUTH|AUTH-FIRST|APOP|USER PASS)"

#: Those with the clearest signs first.
CLIENTS: tuple[Client, ...] = (
    _client("Outlook", r" UTF8 ", N_("it asks for UTF8")),
    _client("Outlook", r" AUTH-LIST ", N_("it asks for AUTH without a mechanism")),
    _client(
        "Thunderbird",
        r"^ (?:CAPA )?(?:STLS (?:CAPA )?)?AUTH STAT LIST UIDL ",
        N_("behind AUTH, in which it sends nothing unasked, come STAT, LIST and UIDL"),
    ),
    _client(
        "fetchmail", r" TOP-ALL ", N_("it fetches with TOP and a number that is larger than any message")
    ),
    _client("fetchmail", r" LAST ", N_("it asks for LAST, which RFC 1725 took away")),
    _client(
        "fetchmail",
        rf"^ CAPA (?:STLS CAPA )?{_LOGIN} STAT UIDL LIST-ONE ",
        N_("it asks for the size of each message right before it fetches that"),
    ),
    _client("getmail", r" UIDL LIST UIDL LIST ", N_("it asks for UIDL and LIST, and at once for both again")),
    _client(
        "fdm",
        r"^ (?:STLS )?USER PASS STAT UIDL LIST-ONE ",
        N_("it asks for no capabilities, and for the size of each message right before it fetches that"),
    ),
    _client(
        "mutt, neomutt",
        rf"^ CAPA (?:STLS CAPA )?{_LOGIN} CAPA STAT (?:STAT|UIDL) ",
        N_("it asks for the capabilities again behind the login"),
    ),
    _client(
        "UW's c-client (Alpine, PHP)",
        rf"^ CAPA (?:STLS CAPA )?{_LOGIN} CAPA STAT LIST ",
        N_("it asks for the capabilities again behind the login, and then for STAT and LIST"),
    ),
    _client(
        "GNU Mailutils",
        rf"^ CAPA (?:STLS CAPA )?{_LOGIN} STAT TOP RETR ",
        N_("it asks for the header of each message right before it fetches that"),
    ),
    _client("K-9 Mail", r" UIDL-ONE UIDL-ONE ", N_("it asks for unique-ids one by one")),
    _client(
        "mpop",
        r"^ CAPA (?:STLS CAPA )?(?:AUTH-FIRST|APOP|USER PASS) STAT LIST UIDL ",
        N_("behind the login come STAT, LIST and UIDL, in this order"),
    ),
    _client(
        "curl",
        rf"^ CAPA (?:STLS CAPA )?{_LOGIN}"
        r" (LIST|UIDL|RETR|TOP|DELE|NOOP|STAT)(?:-ONE)?(?: \1(?:-ONE)?)* QUIT ",
        N_("behind the login it sends one kind of command, and QUIT"),
    ),
    _client(
        N_("a program that asks for no capabilities"),
        r"^ USER PASS ",
        N_("Python's poplib, Perl's Net::POP3 and others begin with USER and PASS at once"),
    ),
)


def guess(commands: Sequence[str], say: Say, *, typed: bool) -> tuple[str, str] | None:
    """The program's name and its sign; ``None`` if there is none.

    :param commands: the keywords of a session in their order; see :class:`Client`.
    :param typed: whether the octets came so slowly, line by line, that a person seems to have typed them.
    """
    if typed:
        return say(N_("a person")), say(N_("seconds passed between the lines"))
    line = f" {' '.join(commands)} ".replace(" +", "+")
    for client in CLIENTS:
        if client.commands.search(line):
            return say(client.name), say(client.sign)
    return None
