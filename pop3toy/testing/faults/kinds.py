"""What can be wrong with a POP3 server: each kind of fault, what it does, and where it was seen.

A fault that concerns a reply makes of its :data:`Steps` others: octets, pauses and the connection's end, in
the order in which the client meets them.  Nothing here knows a connection; ``faults`` decides when.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

__all__ = ["KINDS", "NOT_THIS_ONE", "Close", "Context", "Kind", "Parameter", "Pause", "Steps", "describe"]

#: Of a size that does not fit into 32 bits.
_HUGE = 2**32
#: Given by ``answers`` where the command is none of those the fault concerns.
NOT_THIS_ONE = b""


class Pause(NamedTuple):
    """Nothing is sent for so many seconds."""

    seconds: float


class Close(NamedTuple):
    """The connection ends here; with a reset the client may lose what it has not read yet."""

    reset: bool = False


Steps: TypeAlias = "list[bytes | Pause | Close]"


class Context(NamedTuple):
    """What a fault may know of its place."""

    #: The connection's number.
    session: int
    #: The command's keyword in capitals and what is behind it; ``GREETING`` for the first reply.
    keyword: str
    arguments: str
    #: Draws what is random, so that a seed repeats it.
    random: random.Random


class Parameter(NamedTuple):
    """What can be said of a fault, and what holds where nothing is."""

    default: Any
    doc: str
    #: What may be said; ``None`` for anything of the default's type.
    choices: tuple[str, ...] | None = None


Alter: TypeAlias = "Callable[[Steps, Mapping[str, Any], Context], Steps]"
Answer: TypeAlias = "Callable[[Mapping[str, Any], Context], bytes | None]"


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    One of ``alters`` (a reply on its way out), ``answers`` (a command that is not carried out; ``None`` is
    no answer), ``login`` (the mailbox is refused) and ``tls`` says what it does.
    """

    #: One sentence, for the documentation and the transcript.
    doc: str
    #: The commands it concerns where a rule names none; empty for all.
    commands: tuple[str, ...] = ()
    #: Which server does so, or which client fell for it.
    seen: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    alters: Alter | None = None
    answers: Answer | None = None
    login: bool = False
    tls: bool = False


# -- the connection -------------------------------------------------------------------


def _text(steps: Steps) -> bytes:
    """The octets of all steps."""
    return b"".join(step for step in steps if isinstance(step, bytes))


def _drop(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    data = _text(steps)
    return [data[: said["octets"]], Close(said["reset"])]


def _drop_behind(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    return [*steps, Close(said["reset"])]


def _drop_before_dot(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    return [_text(steps).removesuffix(b".\r\n"), Close(said["reset"])]


def _no_dot(steps: Steps, _: Mapping[str, Any], __: Context) -> Steps:
    return [_text(steps).removesuffix(b".\r\n")]


def _delay(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    return [Pause(said["seconds"]), *steps]


def _split_end(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    data, pause = _text(steps), Pause(said["seconds"])
    end = b".\r\n" if data.endswith(b"\r\n.\r\n") else b"\r\n"
    split: Steps = [data.removesuffix(end)]
    for octet in end:
        split += [pause, bytes([octet])]
    return split


def _packets(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    size = said["octets"]
    out: Steps = []
    for step in steps:
        if isinstance(step, bytes):
            for at in range(0, len(step), size):
                out += [step[at : at + size], Pause(said["seconds"])]
        else:
            out.append(step)
    # What comes behind it is not part of it.
    return out[:-1] if out and isinstance(out[-1], Pause) else out


def _slow(steps: Steps, said: Mapping[str, Any], context: Context) -> Steps:
    # Ten pieces a second, or one octet after the other below ten a second.
    size = max(1, said["rate"] // 10)
    return _packets(steps, {"octets": size, "seconds": size / said["rate"]}, context)


def _garbage(_: Steps, said: Mapping[str, Any], context: Context) -> Steps:
    return [context.random.randbytes(said["octets"]) + b"\r\n"]


def _long_reply(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    line, end, rest = _text(steps).partition(b"\r\n")
    return [line.ljust(said["octets"] - 2, b"x") + end + rest]


def _unasked(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    return [_text(steps) + said["text"].encode() + b"\r\n"]


def _status(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    return [re.sub(rb"\A[+-](?:OK|ERR)", said["text"].encode(), _text(steps))]


# -- numbers and unique-ids -----------------------------------------------------------

_Change: TypeAlias = "Callable[[list[bytes]], list[bytes]]"


def _in_lines(change: _Change, data: bytes) -> bytes:
    """A listing with the words of each of its lines changed; of one line, if only one was asked for.

    :param change: is given the number and what is behind it; an empty list leaves the line out.
    """
    if not data.startswith(b"+OK"):
        return data
    head, _, rest = data.partition(b"\r\n")
    if not rest:
        # +OK number something
        _, *words = head.split(b" ")
        return b" ".join([b"+OK", *change(words)]) + b"\r\n" if len(words) >= 2 else data
    lines = [change(line.split(b" ")) for line in rest.removesuffix(b".\r\n").splitlines()]
    return b"\r\n".join([head, *[b" ".join(words) for words in lines if words], b".", b""])


def _sizes(change: Callable[[int], bytes]) -> Alter:
    """Changes sizes, in STAT, LIST and in the first line of RETR."""

    def alter(steps: Steps, said: Mapping[str, Any], context: Context) -> Steps:
        data = _text(steps)
        if context.keyword in ("RETR", "TOP"):
            head, end, rest = data.partition(b"\r\n")
            found = re.sub(rb"\d+(?= octets)", lambda match: change(int(match[0])), head)
            return [found + end + rest]
        return [_in_lines(lambda words: [*words[:1], *(change(int(word)) for word in words[1:2])], data)]

    return alter


def _wrong_size(steps: Steps, said: Mapping[str, Any], context: Context) -> Steps:
    return _sizes(lambda size: b"%d" % max(size + said["add"], 0))(steps, said, context)


def _missing_number(steps: Steps, _: Mapping[str, Any], context: Context) -> Steps:
    return [_in_lines(lambda words: words[:1], _text(steps))]


def _wrong_count(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    def change(words: list[bytes]) -> list[bytes]:
        return [b"%d" % max(int(words[0]) + said["add"], 0), *words[1:]]

    return [_in_lines(change, _text(steps))]


def _missing_line(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    missing = b"%d" % said["message"]
    return [_in_lines(lambda words: [] if words[0] == missing else words, _text(steps))]


def _uids(change: Callable[[bytes, Mapping[str, Any], Context], bytes]) -> Alter:
    def alter(steps: Steps, said: Mapping[str, Any], context: Context) -> Steps:
        return [_in_lines(lambda words: [words[0], change(words[-1], said, context)], _text(steps))]

    return alter


# -- CAPA and what is there -----------------------------------------------------------

_CASES: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "upper": str.upper,
    "lower": str.lower,
    "odd": lambda text: "".join([c.upper() if at % 2 else c.lower() for at, c in enumerate(text)]),
}


def _capa(steps: Steps, said: Mapping[str, Any], _: Context) -> Steps:
    head, *lines = _text(steps).decode("ascii", "replace").removesuffix(".\r\n").splitlines()
    change = _CASES[said["case"]]
    lines = [change(line) for line in (said["lines"] if said["lines"] is not None else lines)]
    return ["\r\n".join([head, *lines, ".", ""]).encode()]


# -- messages -------------------------------------------------------------------------


def _in_body(change: Callable[[bytes], bytes]) -> Alter:
    """Changes what is between a message's first line and its end."""

    def alter(steps: Steps, _: Mapping[str, Any], __: Context) -> Steps:
        data = _text(steps)
        if not data.startswith(b"+OK"):
            return steps
        head, end, rest = data.partition(b"\r\n")
        return [head + end + change(rest.removesuffix(b".\r\n")) + b".\r\n"]

    return alter


def _unstuffed(body: bytes) -> bytes:
    return re.sub(rb"(?m)^\.\.", b".", body)


_MESSAGES = ("RETR", "TOP")
_LISTINGS = ("STAT", "LIST")
_RESET = Parameter(False, "whether by a reset (RST), which may take what the client has not read yet")

#: Each kind of fault by its name.
KINDS: Mapping[str, Kind] = {
    "drop": Kind(
        "The connection ends before the reply, or within it.",
        seen="any server whose network breaks; a client that keeps half a message and deletes it has lost it",
        parameters={"octets": Parameter(0, "of the reply that are sent before"), "reset": _RESET},
        alters=_drop,
    ),
    "drop-behind": Kind(
        "The connection ends behind the reply.",
        seen="servers with a limit of time or of commands",
        parameters={"reset": _RESET},
        alters=_drop_behind,
    ),
    "drop-before-dot": Kind(
        "The connection ends before the line with the dot.",
        ("RETR", "TOP", "LIST", "UIDL", "CAPA"),
        "servers whose store fails in the middle of a message; it must not count as fetched",
        {"reset": _RESET},
        _drop_before_dot,
    ),
    "no-dot": Kind(
        "The line with the dot never comes, and the connection stays.",
        ("RETR", "TOP", "LIST", "UIDL", "CAPA"),
        "servers that send a message by its count of octets; clients that wait for ever",
        alters=_no_dot,
    ),
    "delay": Kind(
        "The reply comes late.",
        seen="servers that ask DNS before they greet; Thunderbird gives up after 100 seconds of silence",
        parameters={"seconds": Parameter(1.0, "that it is late")},
        alters=_delay,
    ),
    "silence": Kind(
        "There is no reply, and the connection stays; the command is not carried out.",
        seen="servers that hang; a client without a timeout hangs with them",
        answers=lambda said, context: None,
    ),
    "garbage": Kind(
        "The reply is random octets.",
        ("GREETING",),
        "another protocol at the port, TLS at a plain one",
        {"octets": Parameter(64, "how many")},
        _garbage,
    ),
    "answer": Kind(
        "The command is not carried out, and answered with this line.",
        ("STAT",),
        "anything that a server ever said",
        {"text": Parameter("-ERR no", "the line without its end")},
        answers=lambda said, context: said["text"].encode() + b"\r\n",
    ),
    "split-end": Kind(
        "The end of the reply (of a long one the dot too) comes octet by octet, late.",
        seen="clients that look for the end in one packet only",
        parameters={"seconds": Parameter(0.1, "before each octet")},
        alters=_split_end,
    ),
    "packets": Kind(
        "The reply comes in packets of so few octets.",
        seen="slow lines; node-pop3 in 2022 took what came in one read for whole lines (its pull"
        " requests 26 and 27)",
        parameters={
            "octets": Parameter(1, "in a packet"),
            "seconds": Parameter(0.0, "between two"),
        },
        alters=_packets,
    ),
    "slow": Kind(
        "The reply comes at so many octets a second.",
        seen="mobile networks; clients whose timeout is for a message, not for silence",
        parameters={"rate": Parameter(100, "octets a second")},
        alters=_slow,
    ),
    "long-reply": Kind(
        "The first line of the reply is longer than 512 octets (RFC 2449 section 4).",
        ("STAT",),
        "clients with a buffer of 512 octets; Python's poplib refuses lines of more than 2,048",
        {"octets": Parameter(10_000, "of the line with its end")},
        _long_reply,
    ),
    "unasked": Kind(
        "Behind the reply comes a line that nobody asked for.",
        ("STAT",),
        "servers that answered a command twice; clients that take it for the answer to their next command,"
        " as in attacks on STLS",
        {"text": Parameter("-ERR out of order", "the line without its end")},
        _unasked,
    ),
    "status": Kind(
        "The reply does not begin with +OK or -ERR.",
        ("STAT",),
        "Exchange 2003, which asked for the next line of AUTH with +OK in place of + (MailKit's issue 391)",
        {"text": Parameter("+ok", "what stands in its place")},
        _status,
    ),
    "wrong-size": Kind(
        "Sizes are not those of the messages.",
        (*_LISTINGS, "RETR"),
        "servers that count a line end as one octet; a client that reads by size (aenetmail's issue 150)"
        " leaves the rest in its buffer",
        {"add": Parameter(-1, "to each size; may be negative")},
        _wrong_size,
    ),
    "huge-size": Kind(
        "Sizes are 4294967296, which does not fit into 32 bits.",
        _LISTINGS,
        "clients that allocate by size, or keep it in 32 bits as K-9 does",
        alters=_sizes(lambda size: b"%d" % _HUGE),
    ),
    "negative-size": Kind(
        "Sizes are negative.",
        _LISTINGS,
        "servers that count in 32 bits themselves",
        alters=_sizes(lambda size: b"-%d" % max(size, 1)),
    ),
    "missing-number": Kind(
        "The second number is missing.",
        _LISTINGS,
        "Mailpit in 2024 (its pull request 312), which wrote something else than a number",
        alters=_missing_number,
    ),
    "wrong-count": Kind(
        "STAT tells of more or fewer messages than LIST.",
        ("STAT",),
        "servers that count messages which are marked as deleted",
        {"add": Parameter(1, "to the number of messages; may be negative")},
        _wrong_count,
    ),
    "list-missing": Kind(
        "LIST leaves a message out.",
        ("LIST",),
        "servers that number again within a session",
        {"message": Parameter(1, "its number")},
        _missing_line,
    ),
    "uidl-missing": Kind(
        "UIDL leaves a message out.",
        ("UIDL",),
        "servers that list only messages that have an id already; clients that shift by one",
        {"message": Parameter(1, "its number")},
        _missing_line,
    ),
    "uidl-duplicate": Kind(
        "All messages have the same unique-id.",
        ("UIDL",),
        "servers that make ids of headers, where messages have the same; clients fetch one of them only",
        {"uid": Parameter("same", "which")},
        _uids(lambda uid, said, _: said["uid"].encode()),
    ),
    "uidl-changing": Kind(
        "Unique-ids are others in each session.",
        ("UIDL",),
        "servers that make ids of the number, or are restored; all mail is fetched again each time",
        alters=_uids(lambda uid, _, context: b"%s-%d" % (uid[:50], context.session)),
    ),
    "uidl-long": Kind(
        "Unique-ids are longer than 70 octets (RFC 1939 section 7).",
        ("UIDL",),
        "servers that take a file's name for an id; clients with a buffer of 70 octets",
        {"octets": Parameter(200, "of each")},
        _uids(lambda uid, said, _: uid.ljust(said["octets"], b"x")),
    ),
    "uidl-empty": Kind(
        "Unique-ids are empty.",
        ("UIDL",),
        "GreenMail in 2015 (its issue 58); every message is the same to a client",
        alters=_uids(lambda *_: b""),
    ),
    "not-implemented": Kind(
        "The command is unknown, and CAPA does not tell of it.",
        ("UIDL", "TOP", "CAPA"),
        "servers with no more than RFC 1939 demands; neomutt and Thunderbird's `leave on server` need UIDL",
        answers=lambda said, context: b"-ERR unknown command\r\n",
    ),
    "capa": Kind(
        "CAPA says this, or the same in letters of another case.",
        ("CAPA",),
        "servers that write `Top` or `sasl plain`, which RFC 2449 allows",
        {
            "lines": Parameter(None, "the capabilities, a list of texts; none for those that there are"),
            "case": Parameter("as it is", "of the letters", tuple(_CASES)),
        },
        _capa,
    ),
    "login-refused": Kind(
        "The password is right, and the mailbox is refused with this code.",
        ("PASS",),
        "any server whose lock stays for a while behind a lost connection (IN-USE), has a minimum between"
        " logins (LOGIN-DELAY), or a broken disk (SYS/TEMP); clients that then ask for another password",
        {
            "code": Parameter(
                "IN-USE",
                "of RFC 2449 section 8 and RFC 3206",
                ("IN-USE", "LOGIN-DELAY", "SYS/TEMP", "SYS/PERM", "AUTH"),
            )
        },
        login=True,
    ),
    "bare-lf": Kind(
        "Lines of messages end with LF alone.",
        _MESSAGES,
        "servers that send a file as it is; clients that look for CRLF.CRLF wait for ever",
        alters=_in_body(lambda body: body.replace(b"\r\n", b"\n")),
    ),
    "no-final-crlf": Kind(
        "A message's last line has no end, so that the dot is no line of its own.",
        _MESSAGES,
        "servers that send a file as it is; the client waits for the end",
        alters=_in_body(lambda body: body.removesuffix(b"\r\n")),
    ),
    "unstuffed": Kind(
        "A line that begins with a dot is sent as it is.",
        _MESSAGES,
        "Mailpit before 1.18.3 (its issue 299), GreenMail 1.6.9 (its issue 475): a line with a dot"
        " ends the message",
        alters=_in_body(_unstuffed),
    ),
    "vanished": Kind(
        "A message that LIST told of is gone.",
        _MESSAGES,
        "servers whose mailbox is open to IMAP and webmail at the same time; clients that give up all others",
        {"message": Parameter(0, "its number; 0 for any")},
        answers=lambda said, context: (
            b"-ERR message is gone\r\n"
            if said["message"] in (0, _number(context.arguments))
            else NOT_THIS_ONE
        ),
    ),
    "quit-refused": Kind(
        "QUIT is answered with -ERR, and nothing is removed.",
        ("QUIT",),
        "servers that could not remove all (RFC 1939 section 6)",
        answers=lambda said, context: b"-ERR some deleted messages not removed\r\n",
    ),
    "quit-silent": Kind(
        "QUIT is carried out, and the connection ends without a reply.",
        ("QUIT",),
        "servers that close too early; clients that then take the whole session for failed",
        alters=lambda steps, said, context: [Close()],
    ),
    "stls-refused": Kind(
        "STLS is announced and refused.",
        ("STLS",),
        "servers without a certificate; clients that go on in clear text",
        answers=lambda said, context: b"-ERR no TLS now\r\n",
    ),
    "tls-expired": Kind("The certificate's time is over.", seen="every server once a year", tls=True),
    "tls-wrong-name": Kind(
        "The certificate is for another host.", seen="servers reached by a name of their provider's", tls=True
    ),
    "tls-self-signed": Kind("The certificate is signed by itself.", seen="small servers", tls=True),
    "tls-hangs": Kind("The handshake is never finished.", seen="overloaded servers, firewalls", tls=True),
    "tls-no-close-notify": Kind(
        "The connection ends without TLS's close_notify (RFC 8446 section 6.1).",
        seen="most servers that are killed; Python's ssl raises for it",
        tls=True,
    ),
}


def _number(arguments: str) -> int:
    first = arguments.partition(" ")[0]
    return int(first) if first.isdecimal() else -1


def describe(kind: str, said: Mapping[str, Any], names: Sequence[str]) -> str:
    """What a fault does, for the transcript.

    :param names: the parameters that were given.
    """
    given = ", ".join(f"{name} {said[name]}" for name in names)
    return f"fault {kind}{f' ({given})' if given else ''}: {KINDS[kind].doc}"
