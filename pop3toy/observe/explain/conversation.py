"""What explaining POP3 and SMTP has in common: a command that waits for its reply, and one session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ...interfaces import Channel
from .explanation import Explanation, Say
from .sasl import MECHANISMS, Exchange
from .wrong_track import hint

__all__ = ["Conversation", "Turn"]


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


class Conversation:
    """One session: its commands and replies, told line by line; each method gives what there is to say."""

    #: What a command asks for, and where it stands.
    commands: ClassVar[Mapping[str, tuple[str, str]]]
    is_pop3: ClassVar[bool]

    def __init__(self, say: Say, channel: Channel) -> None:
        self._say = say
        self.channel = channel
        self._exchange: Exchange | None = None
        #: Whether the user is in.
        self.logged_in = False

    @property
    def in_exchange(self) -> bool:
        """Whether the client's next line belongs to a SASL exchange."""
        return self._exchange is not None

    def command(self, turn: Turn) -> list[Explanation]:
        """Of a line of the client's."""
        if self._exchange is not None:
            # Its reply is AUTH's.
            turn.keyword = "AUTH"
            return self._exchange.line(turn.line)
        known = turn.keyword in self.commands
        found = hint(turn.line, self._say, pop3=self.is_pop3, command=known)
        hints = [found] if found is not None else []
        if not known:
            return hints
        said = [*self._asked(turn), *hints, *self._besides(turn)]
        if turn.keyword == "AUTH" and turn.argument:
            mechanism, *initial = turn.arguments
            self._exchange = Exchange(mechanism.upper(), self._say, private=self.channel.private)
            if initial:
                said += self._exchange.line(initial[0].encode())
        return said

    def _asked(self, turn: Turn) -> list[Explanation]:
        """What a command asks for."""
        mechanism = turn.argument.upper()
        if turn.keyword == "AUTH" and mechanism in MECHANISMS:
            what, where = MECHANISMS[mechanism]
            return self._note(
                "Logs in by {mechanism}: {what}.", where, mechanism=mechanism, what=self._say(what)
            )
        return self._note(*self.commands[turn.keyword])

    def _besides(self, turn: Turn) -> list[Explanation]:
        """What else there is to say of a command."""
        return []

    def _mechanisms(self, names: Iterable[str]) -> list[Explanation]:
        """Of the mechanisms in a list of what the server can do."""
        return [
            Explanation("note", f"{name}: {self._say(found[0])}", found[1])
            for name in names
            if (found := MECHANISMS.get(name.upper())) is not None
        ]

    def _note(self, text: str, where: str = "", kind: str = "note", **values: object) -> list[Explanation]:
        """One explanation."""
        return [Explanation(kind, self._say(text, **values), where)]

    def _counted(
        self, one: str, many: str, count: int, where: str, kind: str = "note", **values: object
    ) -> list[Explanation]:
        """One explanation, in the singular or the plural."""
        return [Explanation(kind, self._say(one, many, count, count=count, **values), where)]
