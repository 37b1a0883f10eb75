"""What no RFC asks, and some mail program stumbles over."""

from __future__ import annotations

import hashlib
import re

from ..connection import Trouble
from ..examination import Examination
from ..results import Failed, NotTested, require
from .lines import UNKNOWN

__all__ = [
    "apop",
    "auth_blank",
    "blank_line",
    "capa_short",
    "capa_top_uidl",
    "channel_binding",
    "close_notify",
    "half_close",
    "hasty_quit",
    "large_sizes",
    "last",
    "lock_word",
    "long_lines",
    "nuls",
    "order",
    "quit_time",
    "uid_case",
    "utf8_polite",
]


def capa_top_uidl(server: Examination) -> None:
    """K-9 reads CAPA before login alone."""
    if not server.announced.lines:
        raise Failed("there is no CAPA before login")
    with server.session() as session:
        works = [b"UIDL"] if session.ask("UIDL").ok else []
        if works:
            session.block("UIDL")
        for number in list(server.sizes(session))[:1]:
            if session.ask(f"TOP {number} 0").ok:
                session.block("TOP", listing=False)
                works.append(b"TOP")
    missing = [one.decode() for one in works if one not in server.announced]
    require(not missing, f"CAPA does not say {', '.join(missing)} before login, though it works")


def capa_short(server: Examination) -> None:
    """fetchmail has 64 octets for a line."""
    for line in server.announced.lines:
        require(
            len(line) <= 62, f"a line of {len(line) + 2} octets: {line[:62].decode('ascii', 'replace')}..."
        )


def auth_blank(server: Examination) -> None:
    """Outlook says AUTH with a blank behind it."""
    with server.stranger() as connection:
        found = connection.ask("AUTH ")
        if found.ok:
            connection.block("AUTH")
        require(found.ok or found.refused, str(found))
        connection.ask_refused(UNKNOWN)


def utf8_polite(server: Examination) -> None:
    """Outlook asks for UTF8."""
    with server.session() as session:
        found = session.ask("UTF8")
        require(found.ok or found.refused, str(found))
        session.ask_ok("NOOP")


def last(server: Examination) -> None:
    """Netscape's heirs ask for XTND and LAST."""
    with server.session() as session:
        session.ask_refused("XTND XLST Message-Id")
        found = session.ask("LAST")
        require(found.refused or re.fullmatch(rb"\d+", found.text.split(b" ")[0]), str(found))
        session.ask_ok("NOOP")


def channel_binding(server: Examination) -> None:
    """GNU SASL chooses -PLUS and cannot do it."""
    plus = [
        name.decode("ascii", "replace") for name in server.announced.mechanisms if name.endswith(b"-PLUS")
    ]
    require(not plus, f"{', '.join(plus)} is announced")


def apop(server: Examination) -> None:
    """fetchmail says APOP whenever it can."""
    with server.stranger() as connection:
        match = re.search(rb"<[^>]*>", connection.greeting)
        if match is None:
            raise NotTested("the greeting has no timestamp")
        digest = hashlib.md5(match[0] + server.secret.encode()).hexdigest()
        found = connection.ask(f"APOP {server.target.user} {digest}", f"APOP {server.target.user} ****")
        if found.later:
            raise NotTested(str(found))
        require(found.ok, f"{found}, though the greeting has a timestamp")
        server.quit(connection)


def lock_word(server: Examination) -> None:
    """fetchmail and others look for a word."""
    found = server.second_login()
    if found.ok:
        raise NotTested("a second session is let in")
    text, shown = found.text.lower(), server.trace.shown("(login of a second session)", found.raw)
    require(b"lock" in text or b"[in-use]" in text, f'{found}: neither "lock" nor [IN-USE] in it', shown)


def hasty_quit(server: Examination) -> None:
    """PHPMailer says QUIT, closes, and is back at once."""
    with server.session() as session:
        session.send(b"QUIT\r\n")
        session.drop()
    with server.stranger() as connection:
        found = server.log_in(connection)
        require(found.ok, f"{found}, right behind a QUIT whose answer was not read")
        server.quit(connection)


def quit_time(server: Examination) -> None:
    """Thunderbird gives QUIT three seconds."""
    with server.session() as session:
        session.send(b"QUIT\r\n")
        try:
            session.reply("QUIT", min(3.0, server.target.timeout))
        except Trouble as trouble:
            raise Failed(f"QUIT is not answered within three seconds: {trouble}") from None


def close_notify(server: Examination) -> None:
    """poplib reports an error without it."""
    with server.stranger() as connection:
        if not connection.encrypted:
            raise NotTested("there is no TLS")
        connection.ask_ok("QUIT")
        connection.ended()
        require(not connection.ragged, "TLS is closed without close_notify")


def half_close(server: Examination) -> None:
    """Scripts send all they have, close their side, and read."""
    with server.stranger() as connection:
        connection.send(f"{UNKNOWN}\r\nQUIT\r\n".encode())
        connection.end_input()
        try:
            connection.reply(UNKNOWN)
            connection.reply("QUIT")
        except Trouble as trouble:
            raise Failed(f"what came before the end of input is not answered: {trouble}") from None


def order(server: Examination) -> None:
    """Gmail and Outlook expect the order of the last session."""
    found = []
    for _ in range(2):
        with server.session() as session:
            found.append(list(server.uids(session).values()))
    # New mail comes behind, and somebody else may have removed some.
    kept = [uid for uid in found[0] if uid in set(found[1])]
    require(
        [uid for uid in found[1] if uid in set(kept)] == kept,
        "messages are in another order in the next session",
    )


def uid_case(server: Examination) -> None:
    """Old fetchmail compares without regard to case."""
    with server.session() as session:
        found = set(server.uids(session).values())
        require(len({uid.lower() for uid in found}) == len(found), "two unique-ids differ in case alone")


def blank_line(server: Examination) -> None:
    """Outlook Express hangs without it."""
    for number, message in _messages(server):
        require(re.search(rb"(?m)^\r?\n", message), f"message {number} has no empty line behind its header")


def long_lines(server: Examination) -> None:
    """poplib takes 2,048 octets."""
    for number, message in _messages(server):
        longest = max(map(len, message.split(b"\n")), default=0)
        require(longest <= 2047, f"message {number} has a line of {longest + 1} octets")


def nuls(server: Examination) -> None:
    """Outlook hangs on NUL."""
    for number, message in _messages(server):
        require(b"\0" not in message, f"message {number} has a NUL in it")


def large_sizes(server: Examination) -> None:
    """K-9 has 32 bits for a size."""
    with server.session() as session:
        for number, octets in server.sizes(session).items():
            require(octets < 1 << 31, f"message {number} has {octets} octets")


def _messages(server: Examination) -> list[tuple[int, bytes]]:
    with server.session() as session:
        return [(number, session.body(f"RETR {number}").message) for number in server.sample(session)]
