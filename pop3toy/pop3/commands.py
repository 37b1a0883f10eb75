"""From a line to a command: the syntax of POP3, and nothing of its meaning.

A line becomes a :class:`Command` or, if it does not parse, a
:class:`Malformed`; both are plain values, so nothing here raises and nothing
here knows a state, a maildrop or a client.  RFC 1939 section 3: keyword and
arguments "are each separated by a single SPACE character".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

from .. import limits
from ..masking import mechanism_alone, name_alone

__all__ = [
    "KEYWORDS",
    "TOO_LONG",
    "UNKNOWN",
    "Argument",
    "Command",
    "Malformed",
    "Parsed",
    "Response",
    "masked",
    "parse",
]

Argument: TypeAlias = "int | bytes"


class Command(NamedTuple):
    """A well-formed command: its keyword in capitals, and its arguments."""

    keyword: str
    args: tuple[Argument, ...] = ()


class Malformed(NamedTuple):
    """A line that is no command; ``keyword`` is set where that much was clear."""

    reason: str
    keyword: str | None = None


class Response(NamedTuple):
    """A line within a SASL exchange (RFC 5034 section 4): base64, or ``*``."""

    line: bytes


Parsed: TypeAlias = "Command | Malformed | Response"

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# As many digits as a line can hold, which is few enough to make an integer of.
_NUMBER = re.compile(rb"[0-9]+")
_DIGEST = re.compile(rb"[0-9A-Fa-f]{32}")
# RFC 4422 section 3.1: 1 to 20 characters; any case is accepted.
_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")

TOO_LONG = Malformed("line too long")
_VOID = Malformed("control characters are not allowed in a command")
UNKNOWN = Malformed("unknown command")
_BLANK = Malformed("a command does not begin with a blank")


class _Syntax(Exception):
    """The arguments do not fit; its text is the reason."""


def _nothing(rest: bytes | None) -> tuple[Argument, ...]:
    if rest is not None and rest.strip(b" "):
        raise _Syntax("takes no argument")
    return ()


def _numbers(rest: bytes | None) -> tuple[Argument, ...]:
    words = rest.rstrip(b" ").split(b" ") if rest is not None else []
    if words == [b""]:
        return ()
    if not all(_NUMBER.fullmatch(word) for word in words):
        raise _Syntax("takes a message number in decimal digits")
    return tuple(map(int, words))


def _one_number(rest: bytes | None) -> tuple[Argument, ...]:
    # The path of RETR and DELE, hence the short way first.
    if rest is not None and _NUMBER.fullmatch(rest):
        return (int(rest),)
    numbers = _numbers(rest)
    if len(numbers) != 1:
        raise _Syntax("takes one message number")
    return numbers


def _perhaps_a_number(rest: bytes | None) -> tuple[Argument, ...]:
    numbers = _numbers(rest)
    if len(numbers) > 1:
        raise _Syntax("takes one message number or none")
    return numbers


def _number_and_lines(rest: bytes | None) -> tuple[Argument, ...]:
    words = rest.rstrip(b" ").split(b" ") if rest is not None else []
    if len(words) != 2:
        raise _Syntax("takes a message number and a number of lines")
    return _numbers(rest)


def _name(rest: bytes | None) -> tuple[Argument, ...]:
    name = rest.rstrip(b" ") if rest is not None else b""
    if not name:
        raise _Syntax("takes a mailbox name")
    if name.startswith(b" "):
        raise _Syntax("takes a mailbox name behind one blank")
    return (name,)


def _whole_rest(rest: bytes | None) -> tuple[Argument, ...]:
    # RFC 1939 section 7: "a server may treat spaces in the argument as part of
    # the password, instead of as argument separators".
    if not rest:
        raise _Syntax("takes a password")
    return (rest,)


def _name_and_digest(rest: bytes | None) -> tuple[Argument, ...]:
    name, space, digest = (rest or b"").rstrip(b" ").rpartition(b" ")
    if not space or not name:
        raise _Syntax("takes a mailbox name and a digest")
    if not _DIGEST.fullmatch(digest):
        raise _Syntax("takes a digest of 32 hexadecimal digits")
    return (name, digest.lower())


def _mechanism(rest: bytes | None) -> tuple[Argument, ...]:
    # "AUTH " with a trailing space is what Outlook sends to get the list.
    words = rest.rstrip(b" ").split(b" ") if rest is not None else []
    if words in ([], [b""]):
        return ()
    if len(words) > 2:
        raise _Syntax("takes a mechanism and an initial response")
    if not _MECHANISM.fullmatch(words[0]):
        raise _Syntax("takes the name of a SASL mechanism")
    return (words[0].upper(), *words[1:])


_SYNTAX: dict[bytes, tuple[str, Callable[[bytes | None], tuple[Argument, ...]]]] = {
    name.encode(): (name, syntax)
    for name, syntax in {
        "APOP": _name_and_digest,
        "AUTH": _mechanism,
        "CAPA": _nothing,
        "DELE": _one_number,
        "LIST": _perhaps_a_number,
        "NOOP": _nothing,
        "PASS": _whole_rest,
        "QUIT": _nothing,
        "RETR": _one_number,
        "RSET": _nothing,
        "STAT": _nothing,
        "STLS": _nothing,
        "TOP": _number_and_lines,
        "UIDL": _perhaps_a_number,
        "USER": _name,
    }.items()
}

#: Every keyword that this server knows, in capitals.
KEYWORDS = frozenset(name for name, _ in _SYNTAX.values())


def masked(line: bytes, parsed: Parsed) -> bytes:
    """A line without what is secret in it, because of what it is.

    A line that is no command is hidden as a whole: it may be a password typed at the wrong moment.

    :param line: without its line end.
    :param parsed: what :func:`parse` made of it, or a :class:`Response`.
    """
    if isinstance(parsed, Response):
        return b"*" if parsed.line == b"*" else b"****"
    if isinstance(parsed, Malformed):
        hidden = f"**** ({len(line)} octets, {parsed.reason})"
        return (f"{parsed.keyword} {hidden}" if parsed.keyword else hidden).encode()
    if not parsed.args or all(isinstance(argument, int) for argument in parsed.args):
        return line
    rest = _SHOWN.get(parsed.keyword, lambda _: b"****")(cast("tuple[bytes, ...]", parsed.args))
    # As it came, where that says the same.
    as_it_came = line[len(parsed.keyword) :].strip(b" ") == rest
    return line if as_it_came else parsed.keyword.encode() + b" " + rest


#: What may be shown of the arguments that are no numbers; of those of other commands nothing is.
_SHOWN: dict[str, Callable[[tuple[bytes, ...]], bytes]] = {
    "APOP": lambda args: name_alone(args[0]) + b" ****",
    "AUTH": lambda args: mechanism_alone(b" ".join(args)),
    "USER": lambda args: name_alone(args[0]),
}

#: What lines begin with that come again and again.  With nothing but digits behind it they
#: hold no secret, as a password would that was typed too early.
_REPEATED = frozenset(
    [b"CAPA", b"DELE", b"LIST", b"NOOP", b"QUIT", b"RETR", b"RSET", b"STAT", b"STLS", b"TOP ", b"UIDL"]
)
_SHORT = 20


def parse(line: bytes) -> Command | Malformed:
    """Read one command line, given without its line end.

    :return: a :class:`Command`, or a :class:`Malformed` that says why not.
    """
    if len(line) <= _SHORT and line[:4] in _REPEATED and not line[4:].strip(b" 0123456789"):
        return _parsed_before(line)
    return _parse(line)


def _parse(line: bytes) -> Command | Malformed:
    word, space, rest = line.partition(b" ")
    row = _SYNTAX.get(word.upper())
    # A password may hold a tab, and other servers take it.
    if _CONTROL.search(rest.replace(b"\t", b"") if row is not None and row[0] == "PASS" else line):
        return _VOID
    if len(line) + 2 > limits.COMMAND_LINE and (row is None or row[0] != "AUTH"):
        return TOO_LONG if row is None else TOO_LONG._replace(keyword=row[0])
    if row is None:
        if word:
            return UNKNOWN
        return _BLANK if line.strip(b" ") else Malformed("empty command")
    keyword, syntax = row
    try:
        return Command(keyword, syntax(rest if space else None))
    except _Syntax as why:
        return Malformed(f"{keyword} {why}", keyword)


# An eighth of the time.
_parsed_before = lru_cache(maxsize=4096)(_parse)
