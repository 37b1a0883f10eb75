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


#: Those with the clearest signs first.
CLIENTS: tuple[Client, ...] = (
    _client("Outlook", r"\bUTF8\b", N_("it asks for UTF8 behind the login")),
    _client(
        "Thunderbird",
        r"^ (?:CAPA )?(?:STLS (?:CAPA )?)?AUTH-LIST ",
        N_("it asks for AUTH without a mechanism"),
    ),
    _client(
        "fetchmail", r" TOP-ALL ", N_("it fetches with TOP and a number that is larger than any message")
    ),
    _client("fetchmail", r" LAST\b", N_("it asks for LAST, which RFC 1725 took away")),
    _client(
        "mpop",
        r"\bUIDL\+LIST|\bLIST\+UIDL|\bSTAT\+UIDL|\bUIDL\+STAT",
        N_("it asks for UIDL and LIST in one packet"),
    ),
    _client("K-9 Mail", r" UIDL-ONE UIDL-ONE ", N_("it asks for unique-ids one by one")),
    _client(
        "curl",
        r"^ CAPA (?:STLS CAPA )?(?:AUTH|APOP|USER PASS) (?:LIST|UIDL|RETR|TOP|DELE|NOOP|STAT) QUIT ",
        N_("after the login it sends one command and QUIT"),
    ),
    _client(
        "Python's poplib",
        r"^ USER PASS ",
        N_("it logs in with USER and PASS at once and asks for no capabilities"),
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
            return client.name, say(client.sign)
    return None
