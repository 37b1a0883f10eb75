"""From a line to a command: the syntax of SMTP's command lines, and nothing of their meaning.

A line becomes a :class:`Command` or, if it does not parse, a :class:`Malformed`, which knows its reply
(RFC 5321 section 4.2.4).  Plain values: nothing here raises, or knows a state.  ``envelope`` reads the
arguments of MAIL and RCPT.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final, NamedTuple, TypeAlias

from ..masking import mechanism_alone, name_alone
from . import limits
from .envelope import path_alone

__all__ = ["TOO_LONG", "Command", "Malformed", "Parsed", "Response", "masked", "parse"]


class Command(NamedTuple):
    """A known command: its verb in capitals, and its argument."""

    verb: str
    argument: bytes = b""
    #: Whether the line ended in CRLF, and not in a bare LF.
    crlf: bool = True


class Malformed(NamedTuple):
    """A line that is no command, and its reply; ``verb`` is set where that much was clear."""

    reason: str
    code: int = 500
    enhanced: str = "5.5.2"
    verb: str = ""


class Response(NamedTuple):
    """A line within a SASL exchange (RFC 4954 section 4): base64, or ``*``."""

    line: bytes


Parsed: TypeAlias = "Command | Malformed | Response"

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

TOO_LONG: Final = Malformed("line too long")
_UNKNOWN: Final = Malformed("command not understood; HELP lists them")
_NOT_HERE: Final = Malformed("command not implemented", 502, "5.5.1")

#: Verbs of RFCs; where a port does not have them RFC 5321 section 4.2.4 asks for 502.
#: SEND and the like are obsolete, TURN is forbidden by RFC 5321 appendix F.1.
_NOT_IMPLEMENTED: Final = frozenset(
    ("ATRN", "AUTH", "BDAT", "BURL", "ETRN", "EXPN", "SAML", "SEND", "SOML", "TURN")
)
#: RFC 5321 section 4.1.1: they take no argument.
_ALONE: Final = frozenset(("DATA", "QUIT", "RSET", "STARTTLS"))
#: What is wrong with a command that lacks its argument.
_NEEDED: Final = {
    "AUTH": "AUTH needs the name of a mechanism",
    "EHLO": "say who you are, for example: EHLO my.host.name",
    "HELO": "say who you are, for example: HELO my.host.name",
    "LHLO": "say who you are, for example: LHLO my.host.name",
    "VRFY": "VRFY whom?",
}


def parse(line: bytes, known: Collection[str], *, crlf: bool = True) -> Command | Malformed:
    """Read one command line.

    :param line: without its line end.
    :param known: the verbs of this port, in capitals.
    :param crlf: whether the line ended in CRLF.
    """
    word, _, rest = line.strip(b" \t").partition(b" ")
    verb = word.upper().decode("latin-1")
    # An initial response may be as long as any other (RFC 4954 section 4).
    longest = limits.AUTH_LINE if verb == "AUTH" and verb in known else limits.COMMAND_LINE
    if len(line) + 1 + crlf > longest:
        return TOO_LONG
    if verb not in known or _CONTROL.search(line):
        return _NOT_HERE if verb in _NOT_IMPLEMENTED and verb not in known else _UNKNOWN
    argument = rest.strip(b" \t")
    if argument and verb in _ALONE:
        return Malformed(f"{verb} takes no argument", 501, "5.5.4", verb)
    if not argument and verb in _NEEDED:
        return Malformed(_NEEDED[verb], 501, "5.5.4", verb)
    return Command(verb, argument, crlf)


#: RFC 5321 section 4.1.3; one of IPv6 has colons.
_ADDRESS_LITERAL: Final = re.compile(rb"\[[0-9A-Za-z.:]*\](?=\s|$)")


def _host_alone(rest: bytes) -> bytes:
    literal = _ADDRESS_LITERAL.match(rest)
    if literal is None:
        return name_alone(rest)
    return literal[0] + (b" ****" if rest[literal.end() :].strip() else b"")


#: What masks a verb's argument.  Arguments of all other verbs are hidden: passwords are typed in any place.
_MASKED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "AUTH": mechanism_alone,
    "EHLO": _host_alone,
    "HELO": _host_alone,
    "LHLO": _host_alone,
    "MAIL": path_alone,
    "RCPT": path_alone,
    "VRFY": name_alone,
}


def masked(line: bytes, parsed: Parsed) -> bytes:
    """A line without its secrets, by what the command is.

    A line that is no command is hidden as a whole: it may be a password typed at the wrong moment.

    :param line: without its line end.
    """
    if isinstance(parsed, Response):
        return b"*" if parsed.line == b"*" else b"****"
    if isinstance(parsed, Malformed):
        hidden = f"**** ({len(line)} octets, {parsed.reason})"
        return (f"{parsed.verb} {hidden}" if parsed.verb else hidden).encode()
    if not parsed.argument:
        return parsed.verb.encode()
    rest = _MASKED.get(parsed.verb, lambda _: b"****")(parsed.argument)
    return b"%b %b" % (parsed.verb.encode(), rest)
