"""The client's side of a recording, played to a server."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..conformance.connection import Closed, Connection, Trouble
from .comparing import Difference, compare
from .recording import LOGIN, MASKED, Turn, is_challenge, is_multiline, shown, without_secret

__all__ = ["How", "NeedsLogin", "Played", "needs_password", "play", "secrets_of"]

#: Mechanisms whose lines can be said again; those of others hold what the server made up.
_REPEATABLE = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "EXTERNAL", "ANONYMOUS")


class NeedsLogin(Exception):
    """The recording does not say who logged in, or with which password."""


@dataclass(frozen=True)
class How:
    """How a recording is played.

    :ivar user: in place of the one in the recording.
    :ivar password: where the recording has none.
    :ivar ignore: see :func:`~pop3toy.replay.comparing.compare`, as for ``exact``.
    :ivar destructive: whether QUIT may remove what DELE marked; otherwise RSET goes before it.
    """

    host: str
    context: ssl.SSLContext = field(repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ignore: Collection[str] = ()
    exact: bool = False
    destructive: bool = False


class Played(NamedTuple):
    """A turn that was played."""

    turn: Turn
    #: What came, as transcripts show it.
    now: Sequence[str]
    difference: Difference | None
    #: What was done in another way than recorded.
    note: str = ""


def needs_password(turns: Sequence[Turn]) -> bool:
    """Whether the recording lacks what its login needs."""
    logins = [turn for turn in turns if turn.keyword in LOGIN or turn.is_response]
    return any((turn.is_masked and turn.keyword != "USER") or not _repeatable(turn) for turn in logins)


def secrets_of(turns: Sequence[Turn]) -> list[str]:
    """What is a secret in the recording itself."""
    hidden = [turn for turn in turns if MASKED in turn.shown.split(" ") and not turn.is_masked]
    return [turn.line.split(" ", turn.shown.count(" "))[-1] for turn in hidden]


def _repeatable(turn: Turn) -> bool:
    if turn.keyword == "AUTH":
        words = turn.line.upper().split(" ")
        return len(words) < 2 or words[1] in _REPEATABLE
    return turn.keyword != "APOP"


def play(turns: Sequence[Turn], connect: Callable[[], Connection], how: How) -> Iterator[Played]:
    """Play the client's side; what comes is given turn by turn.

    :param connect: opens the connection, within TLS where that comes first.
    :raises NeedsLogin: if it cannot be known how to log in.
    :raises pop3toy.conformance.results.CannotTry: if there is no server.
    """
    with connect() as connection:
        yield from _Player(connection, how).play(turns)


class _Player:
    def __init__(self, connection: Connection, how: How) -> None:
        self._connection = connection
        self._how = how
        self._user = ""
        self._marked = False

    def play(self, turns: Sequence[Turn]) -> Iterator[Played]:
        greeting = self._read("", "(greeting)")
        left = list(turns)
        if not left[0].line and not left[0].is_response:
            yield self._played(left.pop(0), greeting)
        now = greeting
        while left and now:
            turn = left.pop(0)
            if turn.is_response and not is_challenge(now[0]):
                yield Played(turn, (), None, "not said: it was not asked for")
                continue
            replaced = self._must_replace(turn, left)
            if replaced:
                # All of an exchange is one login.
                while left and left[0].is_response:
                    turn = turn._replace(reply=left[0].reply, cut=left.pop(0).cut)
            if (replaced or self._is_unknown(turn)) and _was_wrong(turn):
                yield Played(turn, (), None, _UNKNOWN)
                continue
            if replaced:
                if turn.keyword == "APOP":
                    self._user = turn.line.partition(" ")[2].partition(" ")[0]
                now = self._log_in()
                yield self._played(turn, now, _REPLACED)
                continue
            note = ""
            if turn.keyword == "QUIT" and self._marked and not self._how.destructive:
                if not "".join(self._ask("RSET")[:1]).startswith("+OK"):
                    # It would remove what was marked.
                    yield Played(turn, (), None, "not said: RSET was refused, and --destructive is not given")
                    return
                note = "RSET was said before, so that nothing is removed"
            now = self._ask(self._line(turn), turn)
            self._marked = (self._marked or turn.keyword == "DELE") and turn.keyword != "RSET"
            yield self._played(turn, now, note)
            if turn.keyword == "STLS" and "".join(now[:1]).startswith("+OK"):
                self._connection.start_tls(self._how.context, self._how.host)
            elif turn.keyword == "STLS" and not turn.is_refused:
                # What was said within TLS, passwords among it, is not said in the clear.
                return

    def _must_replace(self, turn: Turn, following: Sequence[Turn]) -> bool:
        """Whether a login cannot be said again as it was."""
        if turn.keyword not in ("APOP", "AUTH"):
            return False
        if self._how.user is not None:
            return True
        responses = []
        for one in following:
            if not one.is_response:
                break
            responses.append(one)
        return turn.is_masked or not _repeatable(turn) or any(one.is_masked for one in responses)

    def _is_unknown(self, turn: Turn) -> bool:
        """Whether the password that was said is not to be had."""
        return turn.keyword == "PASS" and (turn.is_masked or self._how.user is not None)

    def _log_in(self) -> Sequence[str]:
        user, password = self._how.user or self._user, self._how.password
        if not user or password is None:
            raise NeedsLogin("the recording does not say who logs in")
        self._ask(f"USER {user}")
        return self._ask(f"PASS {password}")

    def _line(self, turn: Turn) -> str:
        """What is said for a line of the recording."""
        if turn.keyword == "USER":
            if turn.is_masked and self._how.user is None:
                raise NeedsLogin("the recording does not say who logs in")
            self._user = self._how.user or turn.line.partition(" ")[2]
            return f"USER {self._user}"
        if self._is_unknown(turn):
            if self._how.password is None:
                raise NeedsLogin("the password is not in the recording")
            return f"PASS {self._how.password}"
        return turn.line

    def _ask(self, line: str, turn: Turn | None = None) -> Sequence[str]:
        """Say a line; its reply, or nothing if the connection is closed."""
        self._connection.send(line.encode("utf-8", "replace") + b"\r\n")
        if turn is not None and turn.is_response:
            return self._read("", turn.shown)
        return self._read(line, without_secret(line))

    def _read(self, command: str, what: str) -> Sequence[str]:
        """A reply to a command; ``what`` is its name for those who read of trouble."""
        try:
            first = shown(self._connection.reply(what).line)
            if not is_multiline(command, first):
                return [first]
            block = self._connection.block(what, listing=False)
        except Closed:
            return []
        return [first, *(shown(line) for line in block.stuffed_lines), "."]

    def _played(self, turn: Turn, now: Sequence[str], note: str = "") -> Played:
        if not now:
            difference = Difference(turn.line, _texts(turn), ["(closed)"]) if not turn.cut else None
            return Played(turn, now, difference, note)
        exact = self._how.exact and not turn.assumed and note != _REPLACED
        return Played(turn, now, compare(turn, now, ignore=self._how.ignore, exact=exact), note)


#: Why a login is another.
_REPLACED = "USER and PASS were said in its place: what it answers to is made anew for each connection"
#: Why a login is left out.
_UNKNOWN = "not said: this login failed, and its secret is not in the recording"


def _was_wrong(turn: Turn) -> bool:
    """Whether a login was refused for what it said; a mailbox in use says nothing of that."""
    code = str(turn.reply[0]).upper()[5:] if turn.is_refused else ""
    return turn.is_refused and not code.startswith(("[IN-USE]", "[LOGIN-DELAY]", "[SYS/"))


def _texts(turn: Turn) -> list[str]:
    return [line for line in turn.reply if isinstance(line, str)]


#: What a server can do that ends the playing.
LOST: tuple[type[Exception], ...] = (Trouble, ssl.SSLError, OSError)
