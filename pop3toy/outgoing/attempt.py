"""An attempt as values: what it takes to send a message, what a reply means, and what came of it.  Pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from ..printable import printable
from .entry import Entry, Outcome, Status

__all__ = ["Content", "Result", "Trouble", "examined", "impossible", "mail_parameters", "outcome_of"]

#: Octets that are read at once, and of which a header consists at the most.
_CHUNK: Final = 64 * 1024
_HEADER: Final = 1024 * 1024

#: RFC 2034: an enhanced status code at the start of a reply's text.
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})\s+")


async def _at_once() -> None:
    """Nothing has to be waited for."""


class Content(NamedTuple):
    """A message's text, as far as it matters how it can be sent."""

    #: Reads the next octets; a Deferred of none at the end.
    read: Callable[[int], Deferred[bytes]]
    octets: int
    #: Whether there are octets beyond ASCII; and in the header (RFC 6532).
    eight_bit: bool
    utf8_header: bool
    #: Is awaited before the dot behind the text, with which the smarthost takes the message.
    before_end: Callable[[], Awaitable[None]] = _at_once


@dataclass(frozen=True)
class Trouble:
    """What keeps all mail from being handed on: no connection, no TLS, no login."""

    text: str
    #: Whether the smarthost refuses name and password, or wants some: that does not pass by itself.
    login: bool = False


class Result(NamedTuple):
    """What came of an attempt; recipients that are not among the outcomes are tried again."""

    outcomes: Mapping[int, Outcome]
    trouble: Trouble | None = None


def examined(read: Callable[[int], bytes]) -> tuple[bool, bool]:
    """Whether there are octets beyond ASCII in a message, and in its header; read in a thread."""
    eight_bit = in_header = False
    header, over = b"", False
    while chunk := read(_CHUNK):
        eight_bit = eight_bit or not chunk.isascii()
        if not over:
            header += chunk
            end = header.find(b"\r\n\r\n")
            over = end >= 0 or len(header) > _HEADER
            in_header = not header[: end if end >= 0 else None].isascii()
    return eight_bit, in_header


def outcome_of(code: int, resp: bytes) -> Outcome:
    """What a reply means for a recipient; one that is no code of SMTP's passes, perhaps."""
    text = " ".join(resp.decode("utf-8", "replace").split())
    match = _ENHANCED.match(text + " ")
    # Only one of the reply's own class counts (RFC 2034 section 4).
    kind = str(code)[0]
    # What is no final reply is taken for trouble with the protocol (RFC 3463: x.5.0).
    plain = f"{kind}.0.0" if kind in "245" else "4.5.0"
    enhanced = match[1] if match and match[1][0] == kind else plain
    status = Status.HANDED_ON if 200 <= code < 300 else Status.FAILED if 500 <= code < 600 else Status.WAITING
    return Outcome(status, enhanced, printable(f"{code} {text}")[:500])


def _needs_utf8(entry: Entry, content: Content) -> bool:
    """Whether it cannot be sent without SMTPUTF8, whatever the client has said (RFC 6531 section 3.4)."""
    addresses = [
        entry.sender,
        *(entry.recipients[number].address for number in entry.numbers(Status.WAITING)),
    ]
    return content.utf8_header or not all(map(str.isascii, addresses))


def impossible(entry: Entry, content: Content, offered: Mapping[str, str], host: str) -> Outcome | None:
    """Why a message cannot be handed to a server with these extensions, whenever it is tried."""
    size = offered.get("SIZE", "")
    if size.isascii() and size.isdigit() and 0 < int(size) < content.octets:
        text = f"the message has {content.octets} octets, and {host} takes {int(size)} at the most"
        return Outcome(Status.FAILED, "5.3.4", text, remote=False)
    if _needs_utf8(entry, content) and "SMTPUTF8" not in offered:
        text = f"there is UTF-8 in an address or the header, which {host} does not take (SMTPUTF8)"
        return Outcome(Status.FAILED, "5.6.7", text, remote=False)
    if content.eight_bit and "8BITMIME" not in offered:
        text = f"there are octets beyond ASCII in the message, which {host} does not take (8BITMIME)"
        return Outcome(Status.FAILED, "5.6.3", text, remote=False)
    return None


def mail_parameters(entry: Entry, content: Content, offered: Mapping[str, str]) -> list[bytes]:
    """What stands behind MAIL's address."""
    words = []
    if "SIZE" in offered:
        words.append(f"SIZE={content.octets}")
    if content.eight_bit and "8BITMIME" in offered:
        words.append("BODY=8BITMIME")
    if _needs_utf8(entry, content):
        words.append("SMTPUTF8")
    if "DSN" in offered:
        words += [f"RET={entry.ret}"] * bool(entry.ret) + [f"ENVID={entry.envid}"] * bool(entry.envid)
    return [word.encode("utf-8") for word in words]
