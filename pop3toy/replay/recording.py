"""What was recorded: the commands of a session, each with its reply.

All formats give the two sides as lines; which reply belongs to which command is worked out once, from what
the commands are (RFC 1939), so that pipelined commands need no care.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..masking import mechanism_alone
from ..printable import printable

__all__ = [
    "LOGIN",
    "MASKED",
    "Hidden",
    "NotARecording",
    "Turn",
    "is_challenge",
    "is_multiline",
    "parse",
    "read",
    "shown",
    "without_secret",
]

#: What the client says of a login.
LOGIN = ("USER", "PASS", "APOP", "AUTH")
#: As a transcript shows a secret.
MASKED = "****"


class NotARecording(ValueError):
    """The file holds no POP3 session, or not the one that is wanted; the text says why."""


class Hidden(NamedTuple):
    """Lines that a transcript left out of a long reply."""

    lines: int
    #: With their line ends.
    octets: int


class Turn(NamedTuple):
    """A command and its reply.

    Lines are text without their ends, unprintable octets escaped, as transcripts show them.
    """

    #: Empty for the greeting.
    command: str
    reply: Sequence[str | Hidden]
    #: Whether the reply is not all there: the connection was lost, or the recording ends.
    cut: bool
    #: Whether it is not in the recording, which begins behind it.
    assumed: bool = False

    @property
    def keyword(self) -> str:
        """The command's keyword in capitals; ``""`` for the greeting and for a line of a SASL exchange."""
        return "" if self.is_response else self.command.partition(" ")[0].upper()

    @property
    def is_response(self) -> bool:
        """Whether it is not a command but a line of a SASL exchange."""
        return self.command.startswith(_RESPONSE)

    @property
    def line(self) -> str:
        """What the client said."""
        return self.command.removeprefix(_RESPONSE)

    @property
    def shown(self) -> str:
        """The same without secrets."""
        return without_secret(self.line, response=self.is_response)

    @property
    def is_accepted(self) -> bool:
        """Whether the server said yes."""
        return bool(self.reply) and str(self.reply[0]).startswith("+OK")

    @property
    def is_refused(self) -> bool:
        """Whether the server said no."""
        return bool(self.reply) and str(self.reply[0]).startswith("-ERR")

    @property
    def is_masked(self) -> bool:
        """Whether a secret is missing in the command."""
        return MASKED in self.line.split(" ")


#: Marks a line of a SASL exchange, which may look like any command.
_RESPONSE = "\0"


def without_secret(line: str, *, response: bool = False) -> str:
    """What a client said, as it may be shown.

    :param response: whether it is a line of a SASL exchange.
    """
    if response:
        return line if line in ("", "*", "=") else MASKED
    keyword, *words = line.split(" ")
    # Of a command that nobody knows, all may be a secret.
    known = _PUBLIC.get(keyword.upper(), 0)
    if keyword.upper() == "AUTH":
        return " ".join([keyword, *filter(None, [mechanism_alone(" ".join(words).encode()).decode()])])
    return " ".join([keyword, *words[:known], *([MASKED] if words[known:] else [])])


#: How many arguments of a command are no secrets.
_PUBLIC = {"USER": 1, "APOP": 1, "RETR": 2, "DELE": 2, "LIST": 2, "UIDL": 2, "TOP": 3, "LANG": 2}


def is_multiline(command: str, first: str) -> bool:
    """Whether a reply goes on behind its first line."""
    keyword, _, rest = command.partition(" ")
    if not first.startswith("+OK"):
        return False
    keyword = keyword.upper()
    return keyword in ("RETR", "TOP", "CAPA") or (
        keyword in ("LIST", "UIDL", "AUTH", "LANG") and not rest.strip()
    )


def is_challenge(first: str) -> bool:
    """Whether a reply asks for a line of a SASL exchange."""
    return first.startswith("+") and not first.startswith("+OK")


def shown(octets: bytes) -> str:
    """Octets as a transcript shows them."""
    return printable(octets.decode("utf-8", "backslashreplace"), keep="\t")


# -- formats --------------------------------------------------------------------------

#: The digits are fewer than Python refuses to read.
_LINE = re.compile(r"([ \t]*)(?:\[([0-9]{1,18})\] )?(C|S):(?: (.*))?")
_MORE = re.compile(r"\.\.\. ([0-9]{1,18}) more lines, ([0-9]{1,18}) octets")
#: What RFC 1939 writes where nothing is said: ``C: <open connection>``.
_STAGE = re.compile(r"C<[^<>]*>|S<wait for [^<>]*connection[^<>]*>")
#: Octets of a file, and of a reply that a transcript left out.
_MOST = 256 << 20
_RAWLOG = re.compile(rb"(\d+\.\d{6}) (?:([IO])([:>]) )?")

#: Of each session by its number (0 where there are none) the sides' lines in their order.
_Sides = Mapping[int, "tuple[list[str], list[str | Hidden]]"]


def read(path: Path, session: int | None = None) -> list[Turn]:
    """One session of a file.

    :param path: a transcript, a script of ``C:`` and ``S:`` lines, JSON Lines, or one of the two files of a
        Dovecot rawlog (``.in`` or ``.out``; the other is looked for beside it).
    :param session: its number, as it stands in brackets; the first one with a command if not given.
    :raises NotARecording: if there is none.
    :raises OSError: if it cannot be read.
    """
    if path.suffix in (".in", ".out"):
        data = {suffix: _octets(path.with_suffix(suffix)) for suffix in (".in", ".out")}
        return _turns_of_rawlog(data[".in"], data[".out"])
    return parse(_octets(path), session)


def _octets(path: Path) -> bytes:
    """What is in a file, which may be a device without an end."""
    with path.open("rb") as file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise NotARecording(f"it has more than {_MOST >> 20} MiB")
    return data


def parse(data: bytes, session: int | None = None) -> list[Turn]:
    """The same of octets that were read already; see :func:`read`.

    :raises NotARecording: if there is none.
    """
    text = data.decode("utf-8", "backslashreplace")
    sides = _json(text) if text.lstrip().startswith("{") else _transcript(text)
    talking = [number for number, (commands, _) in sides.items() if commands]
    if not talking:
        raise NotARecording(
            "there is no session in it: no lines with C: and S:, as a transcript has them, and no JSON Lines"
        )
    if session is None:
        session = talking[0]
    elif session not in sides:
        known = ", ".join(map(str, talking[:20]))
        raise NotARecording(f"there is no session {session} in it; there are {known}")
    return _turns(*sides[session], greeted=True)


def _transcript(text: str) -> _Sides:
    sides: dict[int, tuple[list[str], list[str | Hidden]]] = {}
    for number, side, said in _said(text):
        commands, replies = sides.setdefault(number, ([], []))
        if side == "C":
            commands.append(said)
        elif more := _MORE.fullmatch(said):
            hidden = Hidden(int(more[1]), int(more[2]))
            if not hidden.lines <= hidden.octets <= _MOST:
                raise NotARecording(f"no message has {hidden.lines} lines in {hidden.octets} octets")
            replies.append(hidden)
        elif not said.startswith("(not sent) "):
            replies.append(
                said.removesuffix(" ... (cut off)") + (_CUT if said.endswith(" ... (cut off)") else "")
            )
    return sides


def _said(text: str) -> Iterator[tuple[int, str, str]]:
    """Of each line the session's number, the side, and what is said.

    Blanks that all lines have, at the beginning or behind the side, are those of a document.
    """
    found = [match for line in text.split("\n") if (match := _LINE.fullmatch(line.removesuffix("\r")))]
    indent = min((match[1] for match in found), key=len, default="")
    lines = [match for match in found if match[1] == indent]
    if indent:
        lines = [match for match in lines if not _STAGE.fullmatch(match[3] + (match[4] or "").strip())]
    more = min((len(match[4]) - len(match[4].lstrip(" ")) for match in lines if match[4]), default=0)
    for match in lines:
        yield int(match[2] or 0), match[3], printable((match[4] or "")[more:], keep="\t")


#: Ends a line of which the rest was never sent.
_CUT = "\0cut"


def _json(text: str) -> _Sides:
    octets: dict[int, tuple[list[str], bytearray]] = {}
    *lines, rest = text.split("\n")
    if not lines or _is_json(rest):
        # Otherwise it was cut while it was written.
        lines.append(rest)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event: Any = json.loads(line)
            kind, session = event["event"], int(event["session"])
            commands, replies = octets.setdefault(session, ([], bytearray()))
            if kind == "LineReceived":
                commands.append(shown(event["line"].encode("utf-8", "surrogateescape")))
            elif kind == "ReplySent" and event.get("handed_over", True):
                replies += event["data"].encode("utf-8", "surrogateescape")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise NotARecording(f"line {number} is no event of a transcript in JSON Lines") from None
    return {
        number: (commands, list(_lines(bytes(replies)))) for number, (commands, replies) in octets.items()
    }


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(data: bytes) -> Iterator[str]:
    *lines, rest = data.split(b"\n")
    for line in lines:
        yield shown(line.removesuffix(b"\r"))
    if rest:
        yield shown(rest) + _CUT


def _turns_of_rawlog(said: bytes, answered: bytes) -> list[Turn]:
    """Of a rawlog, which begins at the connection, or behind the login (``rawlog_dir``)."""
    commands, replies = list(_rawlog(said)), list(_rawlog(answered))
    if any(command.partition(" ")[0].upper() in LOGIN for command in commands):
        return _turns(commands, replies, greeted=True)
    # The answer to the login is in it where Dovecot itself writes the log.
    first, second = (_RAWLOG.match(data) for data in (answered, said))
    told = first is not None and second is not None and float(first[1]) < float(second[1])
    answer = replies.pop(0) if told else "+OK"
    login = [("", "+OK"), (f"USER {MASKED}", "+OK"), (f"PASS {MASKED}", answer)]
    assumed = [Turn(line, (reply,), False, assumed=True) for line, reply in login]
    return assumed + _turns(commands, replies, greeted=False)


def _rawlog(data: bytes) -> Iterator[str]:
    """The lines of one side; Dovecot puts the time before each."""
    joined = bytearray()
    for line in data.split(b"\n")[:-1]:
        found = _RAWLOG.match(line)
        joined += line[found.end() :] if found else line
        # `>` says that the line goes on in the next one.
        if found is None or found[3] != b">":
            joined += b"\n"
    return _lines(bytes(joined))


# -- which reply belongs to which command ----------------------------------------------


def _turns(commands: Sequence[str], replies: Sequence[str | Hidden], *, greeted: bool) -> list[Turn]:
    """Pair commands and replies.

    :param greeted: whether the first reply is the greeting.
    """
    left = list(reversed(replies))
    turns = [_take("", left)] if greeted else []
    asked = False
    for command in commands:
        turn = _take(command, left, response=asked)
        first = turn.reply[0] if turn.reply else ""
        asked = isinstance(first, str) and is_challenge(first)
        turns.append(turn)
    if not any(turn.line for turn in turns):
        raise NotARecording("the client says nothing in it")
    return turns


def _take(command: str, left: list[str | Hidden], *, response: bool = False) -> Turn:
    """The next reply, taken off the end of what is left."""
    kept = _RESPONSE + command if response else command
    if not left:
        return Turn(kept, (), True)
    reply: list[str | Hidden] = [left.pop()]
    first = reply[0]
    if isinstance(first, str) and not first.endswith(_CUT) and not response and is_multiline(command, first):
        while left and reply[-1] != "." and not _is_cut(reply[-1]):
            reply.append(left.pop())
        cut = reply[-1] != "."
    else:
        cut = False
    last = reply[-1]
    if isinstance(last, str) and last.endswith(_CUT):
        cut = True
        reply[-1] = last.removesuffix(_CUT)
    return Turn(kept, tuple(reply), cut)


def _is_cut(line: str | Hidden) -> bool:
    return isinstance(line, str) and line.endswith(_CUT)
