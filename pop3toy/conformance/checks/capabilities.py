"""RFC 2449 and 3206: CAPA, and whether what it says is so."""

from __future__ import annotations

import re
from contextlib import suppress

from ..examination import Examination
from ..replies import Reply, shown
from ..results import Failed, NotTested, require
from ..target import Capabilities
from .lines import UNKNOWN, tour

__all__ = [
    "arguments",
    "both_states",
    "code_form",
    "codes_announced",
    "expire",
    "kept_after_login",
    "known_codes",
    "login_delay",
    "pipelining",
    "pipelining_login",
    "syntax",
    "top_works",
    "uidl_works",
    "user_works",
]

#: Those that have arguments, and those that have none.
_WITH = (b"SASL", b"LOGIN-DELAY", b"EXPIRE", b"IMPLEMENTATION", b"LANG")
_WITHOUT = (b"TOP", b"USER", b"UIDL", b"PIPELINING", b"RESP-CODES", b"AUTH-RESP-CODE", b"STLS")
#: The register of response codes at IANA.
_CODES = re.compile(rb"LOGIN-DELAY|IN-USE|SYS/TEMP|SYS/PERM|AUTH|UTF8")


def _both(server: Examination) -> tuple[Capabilities, Capabilities]:
    with server.stranger() as connection:
        before = server.capabilities(connection)
    with server.session() as session:
        after = server.capabilities(session)
    if not before.lines and not after.lines:
        raise NotTested("there is no CAPA")
    return before, after


def both_states(server: Examination) -> None:
    """In both states or in none."""
    before, after = _both(server)
    require(before.lines, "CAPA works after login only")
    require(after.lines, "CAPA works before login only")


def syntax(server: Examination) -> None:
    """Printable words with one blank between them."""
    for found in _both(server):
        for line in found.lines:
            require(
                re.fullmatch(rb"[\x21-\x2d\x2f-\x7e][\x21-\x7e]*(?: [\x21-\x7e]+)*", line)
                and len(line) <= 510,
                f"{shown(line)} is no capability",
            )


def kept_after_login(server: Examination) -> str | None:
    """What is there before login is there after it; STLS, which works no more, is forgiven."""
    before, after = _both(server)
    gone = set(before.named) - set(after.named) - {b"STLS"}
    require(not gone, f"after login CAPA has {b', '.join(sorted(gone)).decode('ascii', 'replace')} no more")
    return "but STLS, which works no more then" if b"STLS" in set(before.named) - set(after.named) else None


def arguments(server: Examination) -> None:
    """Those with arguments have some, the others none."""
    for found in _both(server):
        for name, words in found.named.items():
            if name in _WITH:
                require(words or name == b"SASL", f"{name.decode()} has no argument")
            if name in _WITHOUT:
                require(not words, f"{name.decode()} has arguments")


def top_works(server: Examination) -> None:
    """TOP."""
    server.needs(b"TOP")
    with server.session() as session:
        for number in list(server.sample(session))[:1]:
            session.body(f"TOP {number} 0")


def uidl_works(server: Examination) -> None:
    """UIDL."""
    server.needs(b"UIDL")
    with server.session() as session:
        session.listing("UIDL")


def user_works(server: Examination) -> None:
    """USER and PASS, for this user."""
    server.needs(b"USER")
    with server.stranger() as connection:
        connection.ask_ok(f"USER {server.target.user}")


def expire(server: Examination) -> None:
    """NEVER or days, before login perhaps with USER."""
    _one_of(server, b"EXPIRE", rb"(?:NEVER|\d+)(?: USER)?")


def login_delay(server: Examination) -> None:
    """Seconds, before login perhaps with USER."""
    _one_of(server, b"LOGIN-DELAY", rb"\d+(?: USER)?")


def _one_of(server: Examination, name: bytes, form: bytes) -> None:
    words = b" ".join(server.needs(name))
    # In any case: literals of an ABNF are (RFC 5234 section 2.3).
    require(re.fullmatch(form, words.upper()), f"{name.decode()} is followed by {shown(words)}")


def pipelining(server: Examination) -> None:
    """Commands in one packet are answered, all of them and in order."""
    server.needs(b"PIPELINING")
    with server.session() as session:
        session.send(f"NOOP\r\n{UNKNOWN}\r\nSTAT\r\nLIST\r\nRSET\r\n{UNKNOWN}\r\nNOOP\r\n".encode())
        for command, ok in (
            ("NOOP", True),
            (UNKNOWN, False),
            ("STAT", True),
            ("LIST", True),
            ("RSET", True),
            (UNKNOWN, False),
            ("NOOP", True),
        ):
            found = session.reply(command)
            require(found.ok if ok else found.refused, f"{found}: out of order")
            if command == "LIST":
                session.block("LIST")


def pipelining_login(server: Examination) -> None:
    """Also behind a login, whose password takes its time."""
    server.needs(b"PIPELINING")
    server.needs(b"USER")
    with server.stranger() as connection:
        user, password = server.target.user, server.secret
        connection.send(
            f"USER {user}\r\nPASS {password}\r\nSTAT\r\nQUIT\r\n".encode(),
            f"USER {user}, PASS ****, STAT, QUIT in one packet",
        )
        for command in ("USER", "PASS", "STAT", "QUIT"):
            found = connection.reply(command)
            if command == "PASS" and not found.ok:
                raise NotTested(f"no login: {found}")
            require(found.ok, str(found))


def code_form(server: Examination) -> None:
    """What begins with a bracket is a code, its levels parted by slashes, with a blank behind it."""
    for reply in _with_refusals(server):
        if reply.text.startswith(b"[") and not (
            re.match(rb"\[[^\x00-\x20/\[\]]+(?:/[^\x00-\x20/\[\]]+)*\](?: |\Z)", reply.text) and reply.refused
        ):
            raise Failed(f"{reply}: no response code of -ERR", server.trace.shown(reply.asked, reply.raw))


def known_codes(server: Examination) -> None:
    """Codes that somebody has registered."""
    for reply in _with_refusals(server):
        if reply.code and not _CODES.fullmatch(reply.code.upper()):
            raise Failed(f"{reply}: no such code is registered", server.trace.shown(reply.asked, reply.raw))


def codes_announced(server: Examination) -> None:
    """Who has codes says so."""
    for reply in _with_refusals(server):
        # AUTH-RESP-CODE announces the code AUTH by itself (RFC 3206).
        if reply.code and b"RESP-CODES" not in server.announced and b"AUTH-RESP-CODE" not in server.announced:
            raise Failed(
                f"{reply}, but RESP-CODES is not announced", server.trace.shown(reply.asked, reply.raw)
            )


def _with_refusals(server: Examination) -> list[Reply]:
    """A tour with what refusals have codes for: a wrong password, and a mailbox in use."""
    if not server.announced.lines:
        raise NotTested("there is no CAPA")
    found = [*tour(server), server.wrong_password()]
    with suppress(NotTested):
        found.append(server.second_login())
    return found
