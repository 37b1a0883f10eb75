"""RFC 5034: AUTH."""

from __future__ import annotations

import base64
import binascii

from ..connection import Connection
from ..examination import Examination
from ..replies import Reply, shown
from ..results import NotTested, require
from .lines import UNKNOWN

__all__ = [
    "announced_work",
    "bad_base64",
    "cancel",
    "challenge_base64",
    "empty_challenge",
    "empty_initial",
    "initial_response",
    "long_response",
    "mechanism_names",
    "not_after_login",
    "plain_within_tls",
    "unknown_mechanism",
]


def mechanism_names(server: Examination) -> None:
    """Up to 20 capitals, digits, hyphens and underscores."""
    for name in server.needs(b"SASL"):
        plain = name.replace(b"-", b"").replace(b"_", b"")
        good = plain.isalnum() and name.isascii() and name == name.upper() and len(name) <= 20
        require(good, f"{shown(name)} is no name of a mechanism")


def unknown_mechanism(server: Examination) -> None:
    """-ERR, and another try may follow."""
    server.needs(b"SASL")
    with server.stranger() as connection:
        connection.ask_refused(f"AUTH {UNKNOWN}")
        connection.ask_refused(UNKNOWN)


def _plain(server: Examination) -> None:
    server.needs(b"SASL")
    if b"PLAIN" not in server.announced.mechanisms:
        raise NotTested("SASL PLAIN is not announced")


def initial_response(server: Examination) -> None:
    """AUTH PLAIN in one line."""
    _plain(server)
    with server.stranger() as connection:
        found = server.plain(connection, server.secret)
        _let_in(server, connection, found)


def empty_challenge(server: Examination) -> None:
    """AUTH PLAIN in two: plus and blank between them."""
    _plain(server)
    with server.stranger() as connection:
        found = connection.ask("AUTH PLAIN")
        require(found.raw == b"+ \r\n", f"{found}, and not by plus and blank")
        connection.send(server.response(server.secret).encode() + b"\r\n", "****")
        found = connection.reply("the response")
        _let_in(server, connection, found)


def _let_in(server: Examination, connection: Connection, found: Reply) -> None:
    if found.later:
        raise NotTested(str(found))
    require(found.ok, str(found))
    server.quit(connection)


def cancel(server: Examination) -> None:
    """``*`` is answered by -ERR, and the client may go on."""
    _answered(server, b"*\r\n", "*")


def bad_base64(server: Examination) -> None:
    """So is what is no base64."""
    _answered(server, b"!no base64!\r\n", "a response that is no base64")


def _answered(server: Examination, line: bytes, what: str) -> None:
    _plain(server)
    with server.stranger() as connection:
        found = connection.ask("AUTH PLAIN")
        if not found.challenge:
            raise NotTested(str(found))
        connection.send(line)
        found = connection.reply(what)
        require(found.refused, str(found))
        connection.ask_refused(UNKNOWN)


def empty_initial(server: Examination) -> None:
    """``=`` is an initial response without octets, in PLAIN a wrong one."""
    _plain(server)
    with server.stranger() as connection:
        connection.ask_refused("AUTH PLAIN =")


def long_response(server: Examination) -> None:
    """12,288 octets are a line like any other."""
    _plain(server)
    with server.stranger() as connection:
        found = connection.ask("AUTH PLAIN")
        if not found.challenge:
            raise NotTested(str(found))
        # Too few NULs for PLAIN, so it is nobody's name.
        connection.send(base64.b64encode(b"x" * 9000) + b"\r\n", "(12,000 octets of base64)")
        found = connection.reply("a response of 12,000 octets")
        require(found.refused, str(found))
        found = connection.ask(UNKNOWN)
        require(found.refused, str(found))


def announced_work(server: Examination) -> None:
    """Each mechanism asks for a response."""
    for name in server.needs(b"SASL"):
        with server.stranger() as connection:
            mechanism = name.decode("ascii", "replace")
            found = connection.ask(f"AUTH {mechanism}")
            require(found.challenge or found.ok, f"{found}, though it is announced")


def challenge_base64(server: Examination) -> None:
    """Challenges are base64."""
    asked = 0
    for name in server.needs(b"SASL"):
        with server.stranger() as connection:
            found = connection.ask(f"AUTH {name.decode('ascii', 'replace')}")
            if found.challenge:
                asked += 1
                require(found.raw.startswith(b"+ "), f"{found}: no blank behind the plus")
                try:
                    base64.b64decode(found.line[2:], validate=True)
                except binascii.Error:
                    require(False, f"{found}: that is no base64")
    if not asked:
        raise NotTested("no mechanism has a challenge")


def not_after_login(server: Examination) -> None:
    """No second AUTH."""
    server.needs(b"SASL")
    with server.session() as session:
        session.ask_refused("AUTH PLAIN")
        session.ask_ok("NOOP")


def plain_within_tls(server: Examination) -> None:
    """PLAIN, within TLS."""
    if server.target.tls == "none":
        raise NotTested("there is no TLS")
    require(b"PLAIN" in server.announced.mechanisms, "SASL PLAIN is not announced within TLS")
