"""The server that takes mail for elsewhere: its URL and the credentials for it.  Plain values."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["SCHEMES", "Credentials", "Smarthost", "credentials_in", "smarthost"]

#: How TLS begins, and the port that is meant without one.
SCHEMES: Final = {"smtp+starttls": 587, "smtps": 465, "smtp": 25}

_URL = re.compile(
    r"(?P<scheme>[a-z+]+)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/@?#]+)(?::(?P<port>[0-9]{1,5}))?/?"
)
_LOOPBACK = re.compile(r"127\.[0-9.]+|::1|localhost")


class Smarthost(NamedTuple):
    """Where mail for elsewhere is handed to."""

    scheme: str
    host: str
    port: int


class Credentials(NamedTuple):
    """A name and a password; the repr shows no password."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, '****')"


def smarthost(url: str) -> Smarthost:
    """Read a URL such as ``smtp+starttls://mail.example.net:587``.

    :raises ValueError: with what is wrong with it, to be read behind the option's name; the URL, in which
        somebody may have written a password, is not in it.
    """
    match = _URL.fullmatch(url)
    if match is None or match["scheme"] not in SCHEMES:
        if "@" in url:
            raise ValueError(
                ": a URL has no place for a password; that is for --smarthost-credentials or the environment"
            )
        raise ValueError(" is written smtp+starttls://HOST:587 or smtps://HOST:465")
    scheme, host = match["scheme"], match["host"].strip("[]")
    port = int(match["port"] or SCHEMES[scheme])
    if not 0 < port < 65536:
        raise ValueError(": a port is a number from 1 to 65535")
    if scheme == "smtp" and not _LOOPBACK.fullmatch(host):
        raise ValueError(
            ": smtp:// is for this machine alone, since anybody on the way can read and change it;"
            " use smtp+starttls:// or smtps://"
        )
    return Smarthost(scheme, host, port)


def credentials_in(text: str) -> Credentials:
    """Read what a file of credentials holds: ``user:password``, or one below the other.

    :raises ValueError: with what is wrong; the text is not in it.
    """
    lines = text.rstrip("\n").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    user, password = lines if len(lines) == 2 else lines[0].partition(":")[::2]
    if len(lines) > 2 or not user or not password:
        raise ValueError("a file of credentials holds user:password, or the two on a line each")
    return Credentials(user, password)
