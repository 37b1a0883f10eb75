"""RFC 1939 sections 5 and 7: STAT, LIST and UIDL say the same, and what is so."""

from __future__ import annotations

import re

from ..examination import Examination
from ..replies import shown
from ..results import Failed, NotTested, require

__all__ = [
    "list_form",
    "list_numbers",
    "list_one",
    "list_plain",
    "no_such_message",
    "noop",
    "rset",
    "stat_form",
    "stat_sum",
    "uidl_form",
    "uidl_numbers",
    "uidl_one",
    "uidl_persistent",
    "uidl_unique",
]

_STAT = re.compile(rb"\+OK (\d+) (\d+)(?: .*)?\Z", re.IGNORECASE)
_NUMBER = rb"(?:0|[1-9]\d*)"


def stat_form(server: Examination) -> None:
    """Two numbers, one blank before each."""
    with server.session() as session:
        found = session.ask_ok("STAT")
        require(
            re.fullmatch(rb"\+OK %b %b(?: .*)?" % (_NUMBER, _NUMBER), found.line), f"{found}: not two numbers"
        )


def stat_sum(server: Examination) -> None:
    """STAT is the number of LIST's messages, and the sum of their octets."""
    with server.session() as session:
        sizes = server.sizes(session)
        found = session.ask_ok("STAT")
        match = _STAT.match(found.line)
        if match is None:
            raise NotTested(f"{found}: not two numbers")
        told, sums = (match[1], match[2]), (len(sizes), sum(sizes.values()))
        require(
            told == tuple(b"%d" % one for one in sums),
            f"{found}, and LIST has {sums[0]} message{'s'[: sums[0] != 1]} of {sums[1]} octets",
        )


def list_form(server: Examination) -> None:
    """A number, a blank, octets; nothing behind them."""
    with server.session() as session:
        for line in session.listing("LIST").lines:
            require(
                re.fullmatch(rb"[1-9]\d* %b(?: .*)?" % _NUMBER, line),
                f"{shown(line)} is not a line of LIST",
            )


def list_plain(server: Examination) -> None:
    """Nothing stands behind the size."""
    with server.session() as session:
        for line in session.listing("LIST").lines:
            require(line.count(b" ") == 1, f"more than a size: {shown(line)}")


def list_numbers(server: Examination) -> None:
    """1, 2, 3."""
    with server.session() as session:
        found = [line.partition(b" ")[0] for line in session.listing("LIST").lines]
        require(found == [b"%d" % (at + 1) for at in range(len(found))], "messages are not numbered 1, 2, 3")


def list_one(server: Examination) -> None:
    """LIST of one message says what LIST says of it."""
    with server.session() as session:
        for number, octets in server.sample(session).items():
            found = session.ask_ok(f"LIST {number}")
            words = found.text.split()
            require(words[:2] == [b"%d" % number, b"%d" % octets], f"{found}, and LIST says {octets}")


def no_such_message(server: Examination) -> None:
    """-ERR for 0 and for one more than there are."""
    with server.session() as session:
        more = max(server.sizes(session), default=0) + 1
        for command in (f"LIST {more}", f"RETR {more}", "LIST 0", "RETR 0"):
            session.ask_refused(command)


def noop(server: Examination) -> None:
    """+OK."""
    with server.session() as session:
        session.ask_ok("NOOP")


def rset(server: Examination) -> None:
    """+OK, also where nothing is marked."""
    with server.session() as session:
        session.ask_ok("RSET")


def uidl_form(server: Examination) -> None:
    """A number, a blank, 1 to 70 printable characters."""
    with server.session() as session:
        found = session.ask("UIDL")
        if not found.ok:
            raise NotTested(f"there is no UIDL: {found}")
        for line in session.block("UIDL").lines:
            require(
                re.fullmatch(rb"[1-9]\d* [\x21-\x7e]{1,70}", line),
                f"{shown(line)} is not a line of UIDL",
            )


def uidl_unique(server: Examination) -> None:
    """No two messages have the same."""
    with server.session() as session:
        found = list(server.uids(session).values())
        require(len(set(found)) == len(found), "two messages have the same unique-id")


def uidl_numbers(server: Examination) -> None:
    """UIDL has the messages that LIST has."""
    with server.session() as session:
        uids, sizes = server.uids(session), server.sizes(session)
        require(list(uids) == list(sizes), "UIDL has other messages than LIST")


def uidl_one(server: Examination) -> None:
    """UIDL of one message says what UIDL says of it."""
    with server.session() as session:
        uids = server.uids(session)
        for number in list(uids)[:5]:
            found = session.ask_ok(f"UIDL {number}")
            require(
                found.text == b"%d %b" % (number, uids[number]),
                f"{found}, UIDL says {shown(uids[number])}",
            )
        session.ask_refused(f"UIDL {max(uids, default=0) + 1}")


def uidl_persistent(server: Examination) -> None:
    """The same in the next session."""
    found: list[dict[int, bytes]] = []
    for _ in range(2):
        with server.session() as session:
            found.append(server.uids(session))
    # New mail may have come in between.
    gone = set(found[0].values()) - set(found[1].values())
    if gone:
        raise Failed(f"{len(gone)} of {len(found[0])} unique-ids are others in the next session")
