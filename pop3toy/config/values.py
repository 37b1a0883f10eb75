"""What may be said for an option beyond text and numbers: addresses, accounts, names, and so on.

Each raises :class:`ValueError` with what is wrong, to be read behind the option's name.
"""

from __future__ import annotations

import os
import re

from ..auth.sasl.names import MECHANISM_NAMES
from ..auth.throttle.origins import Networks
from ..languages import LANGUAGES
from ..option import PATH, Kind, number
from ..outgoing.smarthost import smarthost

__all__ = [
    "ACCOUNTS",
    "OBJECTS",
    "PORT",
    "account",
    "domain",
    "inspector",
    "interface",
    "language",
    "lmtp",
    "log_format",
    "log_level",
    "mechanisms",
    "metrics",
    "network",
    "smarthost_url",
    "workers",
]

#: Each has memory of its own and looks at the counts of all others.
MOST_WORKERS = 64


PORT = number(0, 65535)

#: In the place of an accounts file: users are kept beside their mail.
OBJECTS = "objects"

ACCOUNTS = Kind(PATH.parse, "PATH", path=lambda text: text != OBJECTS)


# Labels of letters, digits and hyphens, and any script's (RFC 5890); or an address (RFC 5321 section 4.1.3).
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*\.?|\[[0-9A-Za-z.:]+\]")


def interface(text: str) -> str:
    """An address to listen on."""
    if not text:
        # To the system it means every network; the administrator who left it out hardly means that.
        raise ValueError(" is an address; 0.0.0.0 or :: is every network")
    return text


def account(text: str) -> tuple[str, str]:
    """``NAME:PASSWORD`` as name and password; the password may hold more colons."""
    name, colon, password = text.partition(":")
    if not name or not colon or not password:
        # The text may be a secret, and is not repeated.
        raise ValueError(": an account is written NAME:PASSWORD")
    return name, password


def network(text: str) -> str:
    """An address or network."""
    try:
        Networks.of([text])
    except ValueError:
        raise ValueError(f": {text} is no address and no network such as 192.0.2.0/24") from None
    return text


def language(text: str) -> str:
    """A language in which there are explanations."""
    if text not in LANGUAGES:
        raise ValueError(f": there are explanations in {' and '.join(LANGUAGES)}, not in {text}")
    return text


def log_format(text: str) -> str:
    """What the lines of the log are."""
    return _one_of(text, ("text", "json"))


def log_level(text: str) -> str:
    """A level of the log, as Twisted calls them."""
    return _one_of(text, ("debug", "info", "warn", "error", "critical"))


def _one_of(text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise ValueError(f": there are {', '.join(words)}")
    return text


def mechanisms(text: str) -> tuple[str, ...]:
    """Names of mechanisms, apart by commas or blanks; USER and APOP are two."""
    names = tuple(text.upper().replace(",", " ").split())
    known = {"USER", "APOP", *MECHANISM_NAMES}
    if not names or not set(names) <= known:
        # With a slip in it no user could log in, and nothing would say why.
        raise ValueError(f": there are {', '.join(sorted(known))}")
    return names


def domain(text: str) -> str:
    """A mail domain, or an address in brackets."""
    if not _DOMAIN.fullmatch(text):
        raise ValueError(f": {text!r} is no name such as mail.example.org")
    return text


def lmtp(text: str) -> str:
    """An endpoint for LMTP, with the mode of a Unix socket."""
    # Twisted would let every user of this machine deliver mail.
    return f"{text}:mode=660" if text.startswith("unix:") and ":mode=" not in text else text


def metrics(text: str) -> str:
    """Endpoint for what needs no login: a port's number, and TCP without an address, are this machine's."""
    kind, colon, rest = text.partition(":")
    if text.isdecimal():
        return f"tcp:{PORT.parse(text)}:interface=127.0.0.1"
    if kind not in ("tcp", "tcp6", "unix", "systemd") or not colon:
        raise ValueError(
            f": {text} is no port and no endpoint such as tcp:9110 or unix:/run/pop3toy/metrics.sock"
        )
    if kind == "unix" and ":mode=" not in rest:
        return f"{text}:mode=660"
    if kind in ("tcp", "tcp6") and "interface=" not in rest:
        return text + (":interface=127.0.0.1" if kind == "tcp" else r":interface=\:\:1")
    return text


def smarthost_url(text: str) -> str:
    """Where mail for elsewhere is handed to."""
    smarthost(text)
    return text


def inspector(text: str) -> str:
    """An endpoint for the inspector, with the mode of a Unix socket."""
    # Twisted would let every user of this machine look.
    return f"{text}:mode=600" if text.startswith("unix:") and ":mode=" not in text else text


def workers(text: str) -> int:
    """How many processes; ``auto`` is one for each core that may be used."""
    if text == "auto":
        # Where the system cannot tell which cores may be used, all that there are.
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        return min(len(allowed(0)), MOST_WORKERS)
    try:
        number(1, MOST_WORKERS).parse(text)
    except ValueError as why:
        raise ValueError(f"{why}, or auto") from None
    return int(text)
