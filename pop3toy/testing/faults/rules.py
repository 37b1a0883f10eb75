"""When a fault happens, and what may be said for it; what each kind does is in ``kinds``."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from .kinds import KINDS, Context, Kind, Steps, describe

__all__ = ["CONDITIONS", "PROTOCOLS", "BadFault", "Fault"]

#: What says when a fault happens, with a value of the type that is wanted.
CONDITIONS = {
    "command": "the command, or a list of commands; GREETING is the first reply, * any",
    "user": "the name of who has logged in, or says so",
    "session": "the number of the connection, from 1",
    "nth": "only this time, from 1",
    "times": "so many times at most",
    "probability": "from 0 to 1",
    "protocol": "POP3 if not given; SMTP, submission, LMTP",
}
#: Beyond which a number is a slip: a day, 16 MiB, a GiB a second; others have 63 bits.
_MOST = {"seconds": 86_400, "octets": 16 << 20, "rate": 1 << 30}
#: In which there may be faults.
PROTOCOLS = ("POP3", "SMTP", "submission", "LMTP")


class BadFault(ValueError):
    """A fault that cannot be; the text says what is wrong, and ``key`` with which of its words."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


class Fault:
    """A fault and when it happens; :meth:`~pop3toy.testing.faults.gate.Faults.add` makes it.

    :ivar kind: its name.
    :ivar happened: how many times it did.
    """

    def __init__(
        self,
        kind: str,
        *,
        command: str | Iterable[str] = (),
        user: str | None = None,
        session: int | None = None,
        nth: int | None = None,
        times: int | None = None,
        probability: float = 1.0,
        protocol: str = "POP3",
        **parameters: Any,
    ) -> None:
        if kind not in KINDS:
            raise BadFault(f"there is no fault {kind!r}{_nearest(kind, KINDS)}", "kind")
        self.kind = kind
        self._kind = KINDS[kind]
        self._said = _checked(kind, self._kind, parameters)
        self._given = list(parameters)
        words = [command] if isinstance(command, str) or not isinstance(command, Iterable) else list(command)
        if not all(isinstance(word, str) for word in words):
            raise BadFault("command is a text, or a list of texts", "command")
        if not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,39}|\*", word) for word in words):
            raise BadFault("a command is one word of letters, as in RETR or UTF8, or *", "command")
        if user is not None and not isinstance(user, str):
            raise BadFault("user is a text", "user")
        self.commands = frozenset(word.upper() for word in words or self._kind.commands)
        self.user = user
        self.session = _positive("session", session)
        self.nth = _positive("nth", nth)
        self.times = _positive("times", times)
        if (
            isinstance(probability, bool)
            or not isinstance(probability, (int, float))
            or not 0 <= probability <= 1
        ):
            raise BadFault("probability is a number from 0 to 1", "probability")
        self.probability = probability
        if protocol not in PROTOCOLS:
            raise BadFault(f"protocol is one of {', '.join(PROTOCOLS)}", "protocol")
        self.protocol = protocol
        if self._kind.tls or self._kind.login:
            if command:
                raise BadFault(f"{kind} concerns no command", "command")
            if self._kind.tls and user is not None:
                raise BadFault(f"{kind} comes before anybody has said who they are", "user")
            if self._kind.login and session is not None:
                raise BadFault(f"{kind} concerns a user, not a session", "session")
        self._matched = 0
        self.happened = 0

    def __repr__(self) -> str:
        return f"<Fault {self.kind}, happened {self.happened} times>"

    @property
    def description(self) -> str:
        """What it does, in a sentence."""
        return describe(self.kind, self._said, self._given)

    @property
    def code(self) -> str:
        """The response code of a refused login."""
        code: str = self._said["code"]
        return code

    def is_in(self, part: Callable[[Kind], object]) -> bool:
        """Whether its kind has a part.

        :param part: gives that part of a kind.
        """
        return bool(part(self._kind))

    def concerns(self, keyword: str) -> bool:
        """Whether it is for a command.

        :param keyword: in capitals.
        """
        if keyword == "GREETING" and self._kind.answers is not None and not self.commands:
            # All commands, of which the greeting is none.
            return False
        return not self.commands or keyword in self.commands or "*" in self.commands

    def is_due(self, draw: random.Random) -> bool:
        """Count one more time that it might happen, and say whether it does.

        :param draw: for its probability.
        """
        self._matched += 1
        if self.nth is not None and self._matched != self.nth:
            return False
        if self.times is not None and self.happened >= self.times:
            return False
        if self.probability < 1 and draw.random() >= self.probability:
            return False
        self.happened += 1
        return True

    def alter(self, steps: Steps, context: Context) -> Steps:
        """What becomes of a reply.

        :param steps: the reply.
        :param context: its place.
        """
        assert self._kind.alters is not None
        return self._kind.alters(steps, self._said, context)

    def answer(self, context: Context) -> bytes | None:
        """What is said in place of carrying the command out; ``None`` for nothing, empty if it is.

        :param context: the place of the command.
        """
        assert self._kind.answers is not None
        return self._kind.answers(self._said, context)


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise BadFault(f"{name} is a number from 1 on", name)
    return value


def _checked(name: str, kind: Kind, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters with their defaults."""
    said = {key: parameter.default for key, parameter in kind.parameters.items()}
    for key, value in given.items():
        if key not in said:
            known = [*kind.parameters, *CONDITIONS]
            raise BadFault(f"{name} has no {key!r}{_nearest(key, known)}", key)
        parameter = kind.parameters[key]
        if parameter.choices is not None:
            if value not in parameter.choices:
                raise BadFault(f"{key} is one of {', '.join(parameter.choices)}", key)
        elif parameter.default is None:
            if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
                raise BadFault(f"{key} is a list of texts", key)
            if any("\r" in one or "\n" in one for one in value):
                raise BadFault(f"{key} are texts of one line each", key)
        elif isinstance(parameter.default, str):
            if not isinstance(value, str) or "\r" in value or "\n" in value:
                raise BadFault(f"{key} is a text of one line", key)
        elif isinstance(parameter.default, bool):
            if not isinstance(value, bool):
                raise BadFault(f"{key} is true or false", key)
        elif isinstance(value, bool) or not isinstance(
            value, (int, float) if isinstance(parameter.default, float) else int
        ):
            raise BadFault(f"{key} is a number", key)
        elif not abs(value) <= _MOST.get(key, 2**63):
            raise BadFault(f"{key} is a number up to {_MOST.get(key, 2**63)}", key)
        elif key != "add" and value < (1 if key == "rate" or (name, key) == ("packets", "octets") else 0):
            raise BadFault(f"{key} is too small", key)
        said[key] = value
    return said


def _nearest(word: str, words: Iterable[str]) -> str:
    found = get_close_matches(word, list(words), 1, 0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
