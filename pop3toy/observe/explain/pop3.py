"""POP3: what each command asks and each reply says (RFC 1939 and its extensions)."""

from __future__ import annotations

import re

from ...interfaces import Channel
from .conversation import Conversation, Turn
from .explanation import N_, Explanation, Say, clause
from .sasl import MECHANISMS

__all__ = ["CAPABILITIES", "CODES", "COMMANDS", "POP3"]

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

#: What +OK says, where that is always the same.
_DONE: dict[str, tuple[str, str]] = {
    "NOOP": (N_("Nothing has changed."), clause(1939, "5")),
    "STLS": (
        N_("What comes now is the TLS handshake; all that was said before is forgotten."),
        clause(2595, "4"),
    ),
    "UIDL": (
        N_("Numbers are for this session alone; these ids stay the same as long as the message is there."),
        clause(1939, "7"),
    ),
    "USER": (N_("The server says the same whether there is such a user or not."), clause(1939, "7")),
}

_LOGIN = ("USER", "PASS", "APOP", "AUTH", "STLS")
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


class POP3(Conversation):
    """One session of POP3."""

    commands = COMMANDS
    is_pop3 = True

    def __init__(self, say: Say, channel: Channel) -> None:
        super().__init__(say, channel)
        self._sizes: dict[int, int] = {}
        self._marked: set[int] = set()
        self._removed = 0
        # Of the greeting, with its brackets.
        self._timestamp = ""

    # -- the client ---------------------------------------------------------------------

    def _asked(self, turn: Turn) -> list[Explanation]:
        text, where = COMMANDS[turn.keyword]
        arguments = turn.arguments
        if turn.keyword == "LIST" and arguments:
            text = N_("Asks for the size of message {number} in octets.")
        elif turn.keyword == "UIDL" and arguments:
            text = N_("Asks for the unique-id of message {number}.")
        elif turn.keyword == "AUTH" and turn.argument:
            return super()._asked(turn)
        elif turn.keyword == "AUTH":
            text = N_("Asks for the mechanisms that there are, as clients did before CAPA.")
        elif turn.keyword == "QUIT" and not self.logged_in:
            text = N_("Ends the session; nobody has logged in, so there is nothing to remove.")
        number, lines = [*arguments, "?", "?"][:2]
        return self._note(text, where, number=number, lines=lines)

    def _besides(self, turn: Turn) -> list[Explanation]:
        if turn.keyword == "APOP":
            return self._digest(turn)
        return self._overheard() if turn.keyword == "PASS" else []

    def _digest(self, turn: Turn) -> list[Explanation]:
        """Of APOP's second argument."""
        where = clause(1939, "7")
        digest = turn.arguments[1] if len(turn.arguments) > 1 else ""
        if not re.fullmatch("[0-9a-f]{32}", digest):
            return self._note(
                "The digest is not shown here. Who overhears it cannot log in with it another time, but"
                " can try passwords against it.",
                where,
            )
        return self._note(
            "The digest {digest} is MD5 of {timestamp} with the password right behind it. Who overhears it"
            " cannot log in with it another time, but can try passwords against it.",
            where,
            digest=digest,
            timestamp=self._timestamp or "<...>",
        )

    def _overheard(self) -> list[Explanation]:
        """Who can read a password."""
        if (tls := self.channel.tls) is not None:
            return self._note(
                "It is within {version}: nobody between can read it.", clause(8314, "3"), version=tls.version
            )
        if self.channel.local:
            return self._note(
                "In clear text, which nobody overhears within one machine; on a network everybody"
                " between could.",
                clause(1939, "13"),
            )
        return self._note(
            "In clear text: everybody between here and there can read name and password.",
            clause(1939, "13"),
            "warning",
        )

    # -- the server ---------------------------------------------------------------------

    def reply_line(self, turn: Turn, line: bytes) -> list[Explanation]:
        """Of one line of a reply, without its end."""
        if turn.lines == 1 or line == b".":
            return []
        if turn.keyword == "CAPA":
            return self._capability(turn, line)
        if turn.keyword == "AUTH":
            found = MECHANISMS.get(line.decode("ascii", "replace").upper())
            return self._note(*found) if found is not None else []
        if turn.keyword == "LIST":
            number, _, size = line.partition(b" ")
            which, octets = _number(number), _number(size)
            if which is not None and octets is not None and len(self._sizes) < _KEPT:
                self._sizes[which] = octets
        if turn.keyword in _MESSAGE:
            stuffed = line.startswith(b".")
            turn.octets += len(line) + 2 - stuffed
            if stuffed:
                turn.stuffed += 1
                return self._note(
                    "This line begins with a dot; another is put before it, so that it does not look like"
                    " the end. The client takes it off.",
                    clause(1939, "3"),
                )
        return []

    def _capability(self, turn: Turn, line: bytes) -> list[Explanation]:
        name, *arguments = line.decode("ascii", "replace").split(" ")
        name = name.upper()
        if len(turn.capabilities) < _KEPT:
            turn.capabilities.append(name)
        if name not in CAPABILITIES:
            return []
        return self._note(*CAPABILITIES[name]) + self._mechanisms(arguments if name == "SASL" else ())

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
        if turn.keyword in _DONE:
            return self._note(*_DONE[turn.keyword])
        told = {
            "GREETING": self._greeting,
            "APOP": self._entered,
            "AUTH": self._entered,
            "PASS": self._entered,
            "CAPA": self._capabilities,
            "STAT": self._stat,
            "DELE": self._deleted,
            "RSET": self._reset,
            "RETR": self._message,
            "TOP": self._message,
            "QUIT": self._quit,
            "LIST": self._listed,
        }.get(turn.keyword)
        return told(turn) if told is not None else []

    def _greeting(self, turn: Turn) -> list[Explanation]:
        said = self._note("The server speaks first, and is ready.", clause(1939, "4"))
        found = re.search(rb"<[^<>@ ]+@[^<>@ ]+>", turn.first)
        if found is not None:
            self._timestamp = found[0].decode("ascii", "replace")
            said += self._note(
                "What stands in < > is new for each connection; APOP makes a digest of it.", clause(1939, "7")
            )
        return said

    def _entered(self, turn: Turn) -> list[Explanation]:
        if turn.keyword == "AUTH" and turn.lines > 1:
            return self._note("The mechanisms, one in a line.")
        return self._note(
            "The maildrop is open and locked: until QUIT it is as it is now, whatever comes in meanwhile.",
            clause(1939, "4"),
        )

    def _capabilities(self, turn: Turn) -> list[Explanation]:
        if self.channel.private or "STLS" not in turn.capabilities:
            return []
        return self._note(
            "Nothing before STLS is safe; what stands here could be somebody else's, and is asked for again"
            " behind it.",
            clause(2595, "4"),
        )

    def _stat(self, turn: Turn) -> list[Explanation]:
        numbers = turn.first.decode("ascii", "replace").split(" ")[1:3]
        count = _number(numbers[0]) if len(numbers) == 2 else None
        if count is None:
            return []
        said = self._counted(
            "{count} message with {octets} octets.",
            "{count} messages with {octets} octets together.",
            count,
            clause(1939, "5"),
            octets=numbers[1],
        )
        if self._marked:
            said += self._note("Marked messages are not counted.", clause(1939, "5"))
        return said

    def _listed(self, turn: Turn) -> list[Explanation]:
        if turn.lines < 2:
            return []
        if not self._marked:
            return self._note(
                "The number, and the octets that RETR will send; the line with the dot ends the list.",
                clause(1939, "5"),
            )
        return self._counted(
            "Missing because it is marked: {numbers}. No other message has moved to another number.",
            "Missing because they are marked: {numbers}. No other message has moved to another number.",
            len(self._marked),
            clause(1939, "5"),
            numbers=_numbers(self._marked),
        )

    def _deleted(self, turn: Turn) -> list[Explanation]:
        number = _number(turn.argument)
        if number is not None and len(self._marked) < _KEPT:
            self._marked.add(number)
        return self._note(
            "Only marked: QUIT removes it, RSET takes the mark back. The other messages keep their numbers in"
            " this session.",
            clause(1939, "5"),
        )

    def _reset(self, turn: Turn) -> list[Explanation]:
        count = len(self._marked)
        self._marked.clear()
        return self._counted(
            "{count} mark was taken back.", "{count} marks were taken back.", count, clause(1939, "5")
        )

    def _message(self, turn: Turn) -> list[Explanation]:
        said = []
        if turn.keyword == "RETR":
            announced, kind = self._sizes.get(_number(turn.argument) or 0), "note"
            if announced is None:
                text = N_(
                    "{octets} octets, with CRLF at the end of each line; the line with the dot is the end,"
                    " and not counted."
                )
            elif announced == turn.octets:
                text = N_(
                    "{octets} octets, as LIST has announced; the line with the dot is the end, and not"
                    " counted."
                )
            else:
                text, kind = N_("{octets} octets, and LIST has announced {announced}."), "warning"
            said += self._note(text, clause(1939, "11"), kind, octets=turn.octets, announced=announced)
            said += self._note("The message is still there: fetching removes nothing.", clause(1939, "5"))
        if turn.stuffed:
            said += self._counted(
                "In {count} line a dot was put before another.",
                "In {count} lines a dot was put before another.",
                turn.stuffed,
                clause(1939, "3"),
            )
        return said

    def removed(self) -> None:
        """A message was removed."""
        self._removed += 1

    def _quit(self, turn: Turn) -> list[Explanation]:
        if not self.logged_in:
            return []
        count = self._removed or len(self._marked)
        if not count:
            return self._note(
                "Nothing was marked, so nothing is removed; the lock is free.", clause(1939, "6")
            )
        return self._counted(
            "{count} message was removed for good; in the next session the numbers begin at 1"
            " again, the unique-ids stay.",
            "{count} messages were removed for good; in the next session the numbers begin at 1"
            " again, the unique-ids stay.",
            count,
            clause(1939, "6"),
        )

    def _refused(self, turn: Turn) -> list[Explanation]:
        keyword, number = turn.keyword, turn.argument
        code = re.match(rb"-ERR \[([^\]]*)\]", turn.first)
        found = CODES.get(code[1].decode("ascii", "replace").upper()) if code is not None else None
        if found is not None:
            return self._note(*found)
        if keyword == "GREETING":
            return self._note(
                "A greeting with -ERR: the server does not talk to this client now.", clause(1939, "4")
            )
        if _number(number) in self._marked:
            return self._note(
                "Message {number} is marked: it cannot be used unless RSET takes the mark back.",
                clause(1939, "5"),
                number=number,
            )
        if keyword == "QUIT":
            return self._note("Not all that was marked could be removed.", clause(1939, "6"), "warning")
        if self.logged_in and number and keyword in ("LIST", "RETR", "DELE", "TOP", "UIDL"):
            text = N_("There is no message {number}; the numbers go from 1 to the one that STAT tells.")
        elif keyword == "" and turn.first.startswith(b"-ERR unknown command"):
            text = N_("This is no command of POP3; a command is a word of three or four letters.")
        elif not self.logged_in and keyword in COMMANDS and keyword not in (*_LOGIN, "CAPA"):
            text = N_("This command works only behind the login.")
        elif self.logged_in and keyword in _LOGIN:
            text = N_("This command works only before the login.")
        else:
            text = N_("Refused, and nothing has changed; the text says why.")
        return self._note(text, clause(1939, "3"), number=number)

    # -- the end ------------------------------------------------------------------------

    def ended(self, why: str) -> list[Explanation]:
        """Of the connection's end."""
        if why == "quit" or not self.logged_in:
            return []
        if self._marked and not self._removed:
            return self._counted(
                "The connection ended without QUIT: the message that was marked is not removed.",
                "The connection ended without QUIT: the {count} messages that were marked are not removed.",
                len(self._marked),
                clause(1939, "6"),
                "warning",
            )
        return self._note(
            "The connection ended without QUIT: nothing is removed, and the lock is free.", clause(1939, "6")
        )
