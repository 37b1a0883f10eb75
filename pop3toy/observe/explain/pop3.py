"""POP3: what each command asks and each reply says (RFC 1939 and its extensions)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...interfaces import Channel
from .explanation import N_, Explanation, Say, clause
from .sasl import MECHANISMS, Exchange
from .wrong_track import hint

__all__ = ["CAPABILITIES", "CODES", "COMMANDS", "POP3", "Turn"]

#: What a command asks for, and where it stands.
COMMANDS: dict[str, tuple[str, str]] = {
    "APOP": (
        N_(
            "Logs in with a digest of the greeting's timestamp and the password; the password"
            " itself is not sent."
        ),
        clause(1939, "7"),
    ),
    "AUTH": (N_("Logs in by a SASL mechanism."), clause(5034, "4")),
    "CAPA": (N_("Asks what this server can do now."), clause(2449, "5")),
    "DELE": (N_("Marks message {number} to be removed at QUIT."), clause(1939, "5")),
    "LIST": (N_("Asks for the numbers of the messages and their sizes in octets."), clause(1939, "5")),
    "NOOP": (
        N_("Asks for nothing but a reply: it keeps the session from being timed out."),
        clause(1939, "5"),
    ),
    "PASS": (
        N_("The password for the name before; with it the maildrop is opened and locked."),
        clause(1939, "7"),
    ),
    "QUIT": (N_("Ends the session; only this removes what was marked."), clause(1939, "6")),
    "RETR": (N_("Fetches message {number}, header and body."), clause(1939, "5")),
    "RSET": (N_("Takes all marks of DELE back."), clause(1939, "5")),
    "STAT": (N_("Asks how many messages there are, and how many octets in all."), clause(1939, "5")),
    "STLS": (N_("Asks for TLS on this connection, from the next octet on."), clause(2595, "4")),
    "TOP": (N_("Fetches the header of message {number} and {lines} lines of its body."), clause(1939, "7")),
    "UIDL": (
        N_("Asks for the unique-ids, by which a client knows a message again in the next session."),
        clause(1939, "7"),
    ),
    "USER": (N_("Says whose maildrop it is about; the password comes next."), clause(1939, "7")),
}

#: What a line of CAPA's list says, and where it stands.
CAPABILITIES: dict[str, tuple[str, str]] = {
    "AUTH-RESP-CODE": (N_("a wrong password is told from other troubles by [AUTH]"), clause(3206, "6")),
    "EXPIRE": (N_("how many days messages stay; NEVER: until the client deletes them"), clause(2449, "6.7")),
    "IMPLEMENTATION": (N_("which server this is"), clause(2449, "6.9")),
    "LANG": (N_("texts can be had in other languages"), clause(6856, "3")),
    "LOGIN-DELAY": (N_("seconds that have to pass between two logins"), clause(2449, "6.5")),
    "PIPELINING": (N_("commands may be sent without waiting for the replies"), clause(2449, "6.6")),
    "RESP-CODES": (N_("a word in brackets may say what kind of -ERR it is"), clause(2449, "6.4")),
    "SASL": (N_("the mechanisms for AUTH"), clause(2449, "6.3")),
    "STLS": (N_("TLS can be begun on this connection"), clause(2595, "4")),
    "TOP": (N_("headers can be fetched alone"), clause(2449, "6.1")),
    "UIDL": (N_("there are unique-ids"), clause(2449, "6.8")),
    "USER": (N_("USER and PASS are taken here"), clause(2449, "6.2")),
    "UTF8": (N_("names and headers may be in UTF-8"), clause(6856, "2")),
}

#: What a response code says.
CODES: dict[str, tuple[str, str]] = {
    "AUTH": (
        N_("Name or password are wrong; which of them is not said, so that nobody can find out who is here."),
        clause(3206, "5"),
    ),
    "IN-USE": (
        N_("Another session has the maildrop open, and there is only one at a time: try again later."),
        clause(2449, "8.1.2"),
    ),
    "LOGIN-DELAY": (N_("The last login was too short a time ago."), clause(2449, "8.1.1")),
    "SYS/TEMP": (
        N_("The server is in trouble; later it may work. The maildrop is not empty, it cannot be seen."),
        clause(3206, "4"),
    ),
    "SYS/PERM": (N_("The server is in trouble that only a person can end."), clause(3206, "4")),
    "UTF8": (N_("The message needs UTF8, which the client has not asked for."), clause(6856, "5")),
}

_MESSAGE = ("RETR", "TOP")
#: Numbers that a sentence tells, and numbers of messages that are kept of a session.
_NUMBERS = 10
_KEPT = 10_000
_DIGITS = 20


def _number(text: str | bytes) -> int | None:
    """A number of a message, or of octets."""
    return int(text) if text.isdigit() and text.isascii() and len(text) < _DIGITS else None


def _numbers(marked: set[int]) -> str:
    """Some of them, in order."""
    first = sorted(marked)[:_NUMBERS]
    return ", ".join(map(str, first)) + (", ..." if len(marked) > len(first) else "")


@dataclass
class Turn:
    """A command that waits for its reply, and what of that was seen.

    :ivar keyword: in capitals; ``""`` for what is none, ``GREETING`` for the first reply.
    """

    keyword: str
    line: bytes
    at: float
    #: The reply's first line, how many lines were seen, and how many octets of them are a message.
    first: bytes = b""
    lines: int = 0
    octets: int = 0
    stuffed: int = 0
    capabilities: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        """What is behind the keyword."""
        return self.line.decode("utf-8", "replace").split(" ")[1:]

    @property
    def argument(self) -> str:
        """The first of them, or nothing."""
        return self.arguments[0] if self.arguments else ""

    @property
    def ok(self) -> bool:
        """Whether the reply is ``+OK``."""
        return self.first.startswith(b"+OK")


class POP3:
    """One session: its commands and replies, told line by line."""

    def __init__(self, say: Say, channel: Channel) -> None:
        self._say = say
        self.channel = channel
        self._exchange: Exchange | None = None
        self._sizes: dict[int, int] = {}
        self._marked: set[int] = set()
        self._removed = 0
        # Of the greeting, with its brackets.
        self._timestamp = ""
        #: Whether the user is in.
        self.logged_in = False

    @property
    def in_exchange(self) -> bool:
        """Whether the client's next line belongs to a SASL exchange."""
        return self._exchange is not None

    # -- the client ---------------------------------------------------------------------

    def command(self, turn: Turn) -> list[Explanation]:
        """Of a line of the client's."""
        if self._exchange is not None:
            # Its reply is AUTH's.
            turn.keyword = "AUTH"
            return self._exchange.line(turn.line)
        if turn.keyword not in COMMANDS:
            return self._not_a_command(turn)
        said = self._one(turn)
        typed = hint(turn.line, self._say, pop3=True, command=True)
        if typed is not None:
            said.append(typed)
        if turn.keyword == "PASS" or turn.keyword == "USER":
            said += self._overheard(turn.keyword)
        if turn.keyword == "APOP":
            said.append(self._digest(turn))
        if turn.keyword == "AUTH" and turn.arguments and turn.arguments[0]:
            mechanism = turn.arguments[0].upper()
            self._exchange = Exchange(mechanism, self._say, private=self.channel.private)
            if len(turn.arguments) > 1:
                said += self._exchange.line(turn.arguments[1].encode())
        return said

    def _not_a_command(self, turn: Turn) -> list[Explanation]:
        found = hint(turn.line, self._say, pop3=True)
        return [found] if found is not None else []

    def _one(self, turn: Turn) -> list[Explanation]:
        say, (text, where) = self._say, COMMANDS[turn.keyword]
        arguments = turn.arguments
        number = arguments[0] if arguments else "?"
        if turn.keyword == "LIST" and arguments:
            text = N_("Asks for the size of message {number} in octets.")
        elif turn.keyword == "UIDL" and arguments:
            text = N_("Asks for the unique-id of message {number}.")
        elif turn.keyword == "AUTH":
            mechanism = number.upper()
            if not arguments or not arguments[0]:
                text = N_("Asks for the mechanisms that there are, as clients did before CAPA.")
            elif mechanism in MECHANISMS:
                what, where = MECHANISMS[mechanism]
                return [
                    Explanation(
                        "note",
                        say(N_("Logs in by {mechanism}: {what}."), mechanism=mechanism, what=say(what)),
                        where,
                    )
                ]
        elif turn.keyword == "TOP":
            return [
                Explanation(
                    "note", say(text, number=number, lines=arguments[1] if len(arguments) > 1 else "?"), where
                )
            ]
        elif turn.keyword == "QUIT" and not self.logged_in:
            text = N_("Ends the session; nobody has logged in, so there is nothing to remove.")
        return [Explanation("note", say(text, number=number), where)]

    def _digest(self, turn: Turn) -> Explanation:
        """Of APOP's second argument."""
        where = clause(1939, "7")
        digest = turn.arguments[1] if len(turn.arguments) > 1 else ""
        if not re.fullmatch("[0-9a-f]{32}", digest):
            text = N_(
                "The digest is not shown here. Who overhears it cannot log in with it another time, but"
                " can try passwords against it."
            )
            return Explanation("note", self._say(text), where)
        text = N_(
            "The digest {digest} is MD5 of {timestamp} with the password right behind it. Who overhears it"
            " cannot log in with it another time, but can try passwords against it."
        )
        return Explanation(
            "note", self._say(text, digest=digest, timestamp=self._timestamp or "<...>"), where
        )

    def _overheard(self, keyword: str) -> list[Explanation]:
        say, tls = self._say, self.channel.tls
        if tls is not None:
            if keyword == "USER":
                return []
            return [
                Explanation(
                    "note",
                    say(N_("It is within {version}: nobody between can read it."), version=tls.version),
                    clause(8314, "3"),
                )
            ]
        if keyword == "USER":
            return []
        if self.channel.local:
            return [
                Explanation(
                    "note",
                    say(
                        N_(
                            "In clear text, which nobody overhears within one machine; on a network everybody"
                            " between could."
                        )
                    ),
                    clause(1939, "13"),
                )
            ]
        return [
            Explanation(
                "warning",
                say(N_("In clear text: everybody between here and there can read name and password.")),
                clause(1939, "13"),
            )
        ]

    # -- the server ---------------------------------------------------------------------

    def reply_line(self, turn: Turn, line: bytes) -> list[Explanation]:
        """Of one line of a reply, without its end."""
        if turn.lines == 1:
            return []
        if turn.keyword == "CAPA" and line != b".":
            return self._capability(turn, line)
        if turn.keyword == "AUTH" and line != b".":
            found = MECHANISMS.get(line.decode("ascii", "replace").upper())
            return [Explanation("note", self._say(found[0]), found[1])] if found is not None else []
        if turn.keyword == "LIST" and line != b".":
            number, _, size = line.partition(b" ")
            which, octets = _number(number), _number(size)
            if which is not None and octets is not None and len(self._sizes) < _KEPT:
                self._sizes[which] = octets
        if turn.keyword in _MESSAGE and line != b".":
            stuffed = line.startswith(b".")
            turn.octets += len(line) + 2 - stuffed
            if stuffed:
                turn.stuffed += 1
                return [
                    Explanation(
                        "note",
                        self._say(
                            N_(
                                "This line begins with a dot; another is put before it, so that it does"
                                " not look like the end. The client takes it off."
                            )
                        ),
                        clause(1939, "3"),
                    )
                ]
        return []

    def _capability(self, turn: Turn, line: bytes) -> list[Explanation]:
        words = line.decode("ascii", "replace").split(" ")
        name = words[0].upper()
        if len(turn.capabilities) < _KEPT:
            turn.capabilities.append(name)
        found = CAPABILITIES.get(name)
        if found is None:
            return []
        said = [Explanation("note", self._say(found[0]), found[1])]
        if name == "SASL":
            said += [
                Explanation(
                    "note", f"{one}: {self._say(MECHANISMS[one.upper()][0])}", MECHANISMS[one.upper()][1]
                )
                for one in words[1:]
                if one.upper() in MECHANISMS
            ]
        return said

    def reply(self, turn: Turn) -> list[Explanation]:
        """Of a whole reply."""
        if self._exchange is not None:
            if turn.first.startswith(b"+ ") or turn.first.rstrip() == b"+":
                return self._exchange.challenge(turn.first[2:].strip())
            self._exchange = None
        if turn.first.startswith(b"-ERR"):
            return self._refused(turn)
        if not turn.ok:
            return []
        told = {
            "GREETING": self._greeting,
            "APOP": self._entered,
            "AUTH": self._entered,
            "PASS": self._entered,
            "CAPA": self._capabilities,
            "STLS": self._tls_next,
            "STAT": self._stat,
            "DELE": self._deleted,
            "RSET": self._reset,
            "RETR": self._message,
            "TOP": self._message,
            "QUIT": self._quit,
            "UIDL": self._unique_ids,
            "LIST": self._listed,
            "USER": self._name_taken,
            "NOOP": self._nothing,
        }.get(turn.keyword)
        return told(turn) if told is not None else []

    def _note(self, text: str, where: str = "", kind: str = "note", **values: object) -> Explanation:
        return Explanation(kind, self._say(text, **values), where)

    def _greeting(self, turn: Turn) -> list[Explanation]:
        said = [self._note(N_("The server speaks first, and is ready."), clause(1939, "4"))]
        found = re.search(rb"<[^<>@ ]+@[^<>@ ]+>", turn.first)
        if found is not None:
            self._timestamp = found[0].decode("ascii", "replace")
            said.append(
                self._note(
                    N_("What stands in < > is new for each connection; APOP makes a digest of it."),
                    clause(1939, "7"),
                )
            )
        return said

    def _entered(self, turn: Turn) -> list[Explanation]:
        if turn.keyword == "AUTH" and turn.lines > 1:
            return [self._note(N_("The mechanisms, one in a line."))]
        return [
            self._note(
                N_(
                    "The maildrop is open and locked: until QUIT it is as it is now, whatever comes in"
                    " meanwhile."
                ),
                clause(1939, "4"),
            )
        ]

    def _capabilities(self, turn: Turn) -> list[Explanation]:
        if self.channel.private or "STLS" not in turn.capabilities:
            return []
        return [
            self._note(
                N_(
                    "Nothing before STLS is safe; what stands here could be somebody else's, and is asked"
                    " for again behind it."
                ),
                clause(2595, "4"),
            )
        ]

    def _tls_next(self, turn: Turn) -> list[Explanation]:
        return [
            self._note(
                N_("What comes now is the TLS handshake; all that was said before is forgotten."),
                clause(2595, "4"),
            )
        ]

    def _stat(self, turn: Turn) -> list[Explanation]:
        numbers = turn.first.decode("ascii", "replace").split(" ")[1:3]
        count = _number(numbers[0]) if len(numbers) == 2 else None
        if count is None:
            return []
        text = self._say(
            "{count} message with {octets} octets.",
            "{count} messages with {octets} octets together.",
            count,
            count=count,
            octets=numbers[1],
        )
        said = [Explanation("note", text, clause(1939, "5"))]
        if self._marked:
            said.append(self._note(N_("Marked messages are not counted."), clause(1939, "5")))
        return said

    def _listed(self, turn: Turn) -> list[Explanation]:
        if turn.lines < 2:
            return []
        if not self._marked:
            return [
                self._note(
                    N_(
                        "The number, and the octets that RETR will send; the line with the dot ends the list."
                    ),
                    clause(1939, "5"),
                )
            ]
        text = self._say(
            "Missing because it is marked: {numbers}. No other message has moved to another number.",
            "Missing because they are marked: {numbers}. No other message has moved to another number.",
            len(self._marked),
            numbers=_numbers(self._marked),
        )
        return [Explanation("note", text, clause(1939, "5"))]

    def _name_taken(self, turn: Turn) -> list[Explanation]:
        return [
            self._note(N_("The server says the same whether there is such a user or not."), clause(1939, "7"))
        ]

    def _nothing(self, turn: Turn) -> list[Explanation]:
        return [self._note(N_("Nothing has changed."), clause(1939, "5"))]

    def _deleted(self, turn: Turn) -> list[Explanation]:
        number = _number(turn.argument)
        if number is not None and len(self._marked) < _KEPT:
            self._marked.add(number)
        return [
            self._note(
                N_(
                    "Only marked: QUIT removes it, RSET takes the mark back. The other messages keep"
                    " their numbers in this session."
                ),
                clause(1939, "5"),
            )
        ]

    def _reset(self, turn: Turn) -> list[Explanation]:
        count = len(self._marked)
        self._marked.clear()
        text = self._say("{count} mark was taken back.", "{count} marks were taken back.", count, count=count)
        return [Explanation("note", text, clause(1939, "5"))]

    def _message(self, turn: Turn) -> list[Explanation]:
        said = []
        announced = self._sizes.get(_number(turn.argument) or 0)
        if turn.keyword == "RETR":
            if announced is None:
                said.append(
                    self._note(
                        N_(
                            "{octets} octets, with CRLF at the end of each line; the line with the dot is the"
                            " end, and not counted."
                        ),
                        clause(1939, "11"),
                        octets=turn.octets,
                    )
                )
            elif announced == turn.octets:
                said.append(
                    self._note(
                        N_(
                            "{octets} octets, as LIST has announced; the line with the dot is the end,"
                            " and not counted."
                        ),
                        clause(1939, "11"),
                        octets=turn.octets,
                    )
                )
            else:
                said.append(
                    self._note(
                        N_("{octets} octets, and LIST has announced {announced}."),
                        clause(1939, "11"),
                        "warning",
                        octets=turn.octets,
                        announced=announced,
                    )
                )
            said.append(
                self._note(N_("The message is still there: fetching removes nothing."), clause(1939, "5"))
            )
        if turn.stuffed:
            said.append(
                Explanation(
                    "note",
                    self._say(
                        "In {count} line a dot was put before another.",
                        "In {count} lines a dot was put before another.",
                        turn.stuffed,
                        count=turn.stuffed,
                    ),
                    clause(1939, "3"),
                )
            )
        return said

    def _unique_ids(self, turn: Turn) -> list[Explanation]:
        return [
            self._note(
                N_(
                    "Numbers are for this session alone; these ids stay the same as long as the message"
                    " is there."
                ),
                clause(1939, "7"),
            )
        ]

    def removed(self) -> None:
        """A message was removed."""
        self._removed += 1

    def _quit(self, turn: Turn) -> list[Explanation]:
        if not self.logged_in:
            return []
        count = self._removed or len(self._marked)
        if not count:
            return [
                self._note(
                    N_("Nothing was marked, so nothing is removed; the lock is free."), clause(1939, "6")
                )
            ]
        text = self._say(
            "{count} message was removed for good; in the next session the numbers begin at 1"
            " again, the unique-ids stay.",
            "{count} messages were removed for good; in the next session the numbers begin at 1"
            " again, the unique-ids stay.",
            count,
            count=count,
        )
        return [Explanation("note", text, clause(1939, "6"))]

    def _refused(self, turn: Turn) -> list[Explanation]:
        code = re.match(rb"-ERR \[([^\]]*)\]", turn.first)
        if code is not None:
            found = CODES.get(code[1].decode("ascii", "replace").upper())
            if found is not None:
                return [self._note(found[0], found[1])]
        if turn.keyword == "GREETING":
            return [
                self._note(
                    N_("A greeting with -ERR: the server does not talk to this client now."),
                    clause(1939, "4"),
                )
            ]
        number = turn.argument
        if _number(number) in self._marked:
            return [
                self._note(
                    N_("Message {number} is marked: it cannot be used unless RSET takes the mark back."),
                    clause(1939, "5"),
                    number=number,
                )
            ]
        if self.logged_in and number and turn.keyword in ("LIST", "RETR", "DELE", "TOP", "UIDL"):
            return [
                self._note(
                    N_("There is no message {number}; the numbers go from 1 to the one that STAT tells."),
                    clause(1939, "3"),
                    number=number,
                )
            ]
        if turn.keyword == "" and turn.first.startswith(b"-ERR unknown command"):
            return [
                self._note(
                    N_("This is no command of POP3; a command is a word of three or four letters."),
                    clause(1939, "3"),
                )
            ]
        if turn.keyword == "QUIT":
            return [self._note(N_("Not all that was marked could be removed."), clause(1939, "6"), "warning")]
        if (
            not self.logged_in
            and turn.keyword in COMMANDS
            and turn.keyword not in ("USER", "PASS", "APOP", "AUTH", "CAPA", "STLS", "QUIT")
        ):
            return [self._note(N_("This command works only behind the login."), clause(1939, "3"))]
        if self.logged_in and turn.keyword in ("USER", "PASS", "APOP", "AUTH", "STLS"):
            return [self._note(N_("This command works only before the login."), clause(1939, "3"))]
        return [self._note(N_("Refused, and nothing has changed; the text says why."), clause(1939, "3"))]

    # -- the end ------------------------------------------------------------------------

    def ended(self, why: str) -> list[Explanation]:
        """Of the connection's end."""
        if why == "quit" or not self.logged_in:
            return []
        if self._marked and not self._removed:
            return [
                Explanation(
                    "warning",
                    self._say(
                        "The connection ended without QUIT: the message that was marked is not removed.",
                        "The connection ended without QUIT: the {count} messages that were marked are not"
                        " removed.",
                        len(self._marked),
                        count=len(self._marked),
                    ),
                    clause(1939, "6"),
                )
            ]
        return [
            self._note(
                N_("The connection ended without QUIT: nothing is removed, and the lock is free."),
                clause(1939, "6"),
            )
        ]
