"""RFC 1939 sections 3, 5, 7 and 11: RETR and TOP, octet by octet."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..examination import Examination
from ..results import Failed, NotTested, require

__all__ = [
    "as_brought",
    "dots",
    "line_ends",
    "octets_exact",
    "same_again",
    "top_arguments",
    "top_lines",
    "top_more",
    "top_nothing",
]


def _messages(server: Examination) -> Iterator[tuple[int, int, bytes, list[bytes]]]:
    """Of some messages: number, octets as LIST says, message, lines as they came."""
    with server.session() as session:
        for number, octets in server.sample(session).items():
            found = session.body(f"RETR {number}")
            yield number, octets, found.message, found.stuffed_lines


def octets_exact(server: Examination) -> None:
    """LIST says how many octets RETR sends, stuffed dots and the final one left out."""
    for number, octets, message, _ in _messages(server):
        require(
            len(message) == octets,
            f"LIST says {octets} octets for message {number}, RETR sends {len(message)}",
        )


def line_ends(server: Examination) -> None:
    """Lines end with CRLF, and no LF stands alone."""
    for number, _, message, _ in _messages(server):
        require(message.count(b"\n") == message.count(b"\r\n"), f"in message {number} there is a bare LF")


def dots(server: Examination) -> None:
    """A line that begins with a dot has one more."""
    some = False
    for number, _, _, lines in _messages(server):
        for line in lines:
            some = some or line.startswith(b".")
            require(
                not line.startswith(b".") or line.startswith(b".."),
                f"in message {number} a line begins with a dot that is not stuffed",
            )
    if not some:
        raise NotTested("no line begins with a dot; --destructive --deliver-smtp brings some")


def same_again(server: Examination) -> None:
    """RETR again sends the same, also in another session."""
    found = [{number: message for number, _, message, _ in _messages(server)} for _ in range(2)]
    for number, message in found[0].items():
        # New mail may have made the sample another one.
        require(found[1].get(number, message) == message, f"message {number} is another one the second time")


def as_brought(server: Examination) -> None:
    """A message that was brought is what it was."""
    if not server.brought:
        raise NotTested("it needs a message of ours: --destructive --deliver-smtp")
    with server.session() as session:
        for number, uid in server.uids(session).items():
            if uid in server.brought:
                message = session.body(f"RETR {number}").message
                body = message.partition(b"\r\n\r\n")[2]
                require(body == server.brought[uid], f"the body of message {number} is not what was sent")


def _tops(server: Examination, lines: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Of some messages: number, what TOP sends, the whole."""
    with server.session() as session:
        for number in server.sample(session, 3):
            if not session.ask(f"TOP {number} {lines}").ok:
                raise NotTested("there is no TOP")
            top = session.block(f"TOP {number} {lines}", listing=False).message
            yield number, top, session.body(f"RETR {number}").message


def _head(message: bytes) -> bytes:
    """Header and empty line."""
    found = re.search(rb"(?m)^\r?\n", message)
    return message[: found.end()] if found else message


def top_nothing(server: Examination) -> None:
    """TOP n 0: the header, the empty line, nothing more."""
    for number, top, whole in _tops(server, 0):
        require(top == _head(whole), f"TOP {number} 0 is not header and empty line")


def top_lines(server: Examination) -> None:
    """TOP n 2: two lines of the body besides."""
    for number, top, whole in _tops(server, 2):
        head = _head(whole)
        lines = whole[len(head) :].split(b"\n")
        wanted = head + b"".join(line + b"\n" for line in lines[:-1][:2])
        require(top == wanted, f"TOP {number} 2 is not header, empty line and two lines")


def top_more(server: Examination) -> None:
    """More lines than there are: the whole message."""
    for number, top, whole in _tops(server, 99_999_999):
        require(top == whole, f"TOP {number} 99999999 is not what RETR sends")


def top_arguments(server: Examination) -> None:
    """Without a number of lines, or with a negative one: -ERR."""
    with server.session() as session:
        numbers = list(server.sample(session, 3))
        if not session.ask(f"TOP {numbers[0]} 0").ok:
            raise NotTested("there is no TOP")
        session.block("TOP", listing=False)
        for command in (
            f"TOP {numbers[0]}",
            f"TOP {numbers[0]} -1",
            f"TOP {max(server.sizes(session)) + 1} 0",
        ):
            found = session.ask(command)
            if not found.refused:
                raise Failed(str(found))
