"""A server that is wrong on purpose: faults, when they happen, and the gate that puts them in.

    faults = Faults()
    faults.add("drop", command="RETR", nth=2, octets=100)
    service = pop3toy.server(reactor, settings, gate=faults)
    faults.attach(reactor, service.control)

What each kind of fault does is in ``kinds``.  They stand around the server, in the gate of
:class:`~pop3toy.interfaces.IGate`, before the store and in the TLS context; nothing within knows of them.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ...clock import steady
from ...errors import Refusal
from ...interfaces import GateAnswer, IGate, IMailStore, IServerControl, MaybeDeferred, SessionRecord, Stream
from .kinds import KINDS, NOT_THIS_ONE, Close, Context, Kind, Pause, Steps, describe

__all__ = ["CONDITIONS", "BadFault", "Fault", "Faults"]

#: Sessions of which it is remembered which command is being carried out.
_REMEMBERED = 10_000

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
_PROTOCOLS = ("POP3", "SMTP", "submission", "LMTP")


class BadFault(ValueError):
    """A fault that cannot be; the text says what is wrong, and ``key`` with which of its words."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


class Fault:
    """A fault and when it happens; :meth:`Faults.add` makes it.

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
        if protocol not in _PROTOCOLS:
            raise BadFault(f"protocol is one of {', '.join(_PROTOCOLS)}", "protocol")
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


@implementer(IGate)
class Faults:
    """All faults of a server.

    :param seed: of what is random; the same seed gives the same faults to the same commands.
    :param protocols: what the server speaks.
    :ivar random: draws what is random; ``faults.random.seed(7)`` makes it the same each time.
    """

    def __init__(self, seed: int | None = None, protocols: Sequence[str] = _PROTOCOLS) -> None:
        self.random = random.Random(seed)
        self._protocols = protocols
        self._faults: list[Fault] = []
        self._clock: IReactorTime | None = None
        self._control: IServerControl | None = None
        # Of each session the command that is being carried out: lines of an AUTH exchange belong to AUTH.
        self._commands: OrderedDict[int, str] = OrderedDict()
        self._users: OrderedDict[int, str] = OrderedDict()
        # Refused by the store's side, which knows no session; the reply will tell whose they are.
        # Those of clients that went away before it stay, so there are only so many.
        self._refused: deque[Fault] = deque(maxlen=100)
        self._untold: dict[int, Fault] = {}

    def __iter__(self) -> Any:
        return iter(list(self._faults))

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, kind: str, **words: Any) -> Fault:
        """Put one in, from now on.

        :param kind: a name of :data:`~pop3toy.testing.faults.kinds.KINDS`.
        :param words: when it happens: ``command`` (a name or several; ``"GREETING"`` is the first reply,
            ``"*"`` any), ``user``, ``session`` (a number, from 1), ``nth`` (only this time), ``times`` (so
            many at most), ``probability`` (0 to 1), ``protocol`` (``"POP3"``); and its kind's parameters.
        :raises BadFault: (a :class:`ValueError`) for what cannot be.
        """
        fault = Fault(kind, **words)
        if fault.protocol not in self._protocols:
            raise BadFault(f"this server has faults in {', '.join(self._protocols)} alone", "protocol")
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take one out.

        :param fault: what :meth:`add` returned.
        """
        self._faults.remove(fault)

    def clear(self) -> None:
        """Take all out: the server is right again."""
        self._faults.clear()

    def attach(self, clock: IReactorTime, control: IServerControl) -> None:
        """Tell them of the server.

        :param clock: by which replies are late (``IReactorTime``).
        :param control: closes connections, and tells observers of faults.
        """
        self._clock = steady(clock)
        self._control = control

    # -- when -----------------------------------------------------------------------------

    def _due(
        self,
        part: Callable[[Kind], object],
        protocol: str,
        session: int,
        users: Sequence[str | None],
        keyword: str | None,
    ) -> list[Fault]:
        return [
            fault
            for fault in self._faults
            if fault.is_in(part)
            and fault.protocol == protocol
            and (fault.session is None or fault.session == session)
            and (fault.user is None or fault.user in users)
            and (keyword is None or fault.concerns(keyword))
            and fault.is_due(self.random)
        ]

    def _tell(self, session: int, fault: Fault) -> None:
        if self._control is not None and not self._control.note(session, fault.description):
            # TLS comes first; it is told before the greeting.
            self._untold[session] = fault

    # -- the gate -------------------------------------------------------------------------

    def command(self, record: SessionRecord, line: bytes) -> bytes | GateAnswer | None:
        """See :class:`~pop3toy.interfaces.IGate`.

        :param record: of the connection.
        :param line: of the client.
        """
        keyword, arguments = _words(line)
        if self._commands.get(record.number, "").endswith("+"):
            # What the client sends in an AUTH exchange is no command.
            return line
        self._remember(self._commands, record.number, keyword)
        if keyword in ("USER", "APOP"):
            self._remember(self._users, record.number, arguments.partition(" ")[0])
        context = Context(record.number, keyword, arguments, self.random)
        for fault in self._due(lambda kind: kind.answers, *self._place(record), keyword):
            answer = fault.answer(context)
            if answer == NOT_THIS_ONE:
                fault.happened -= 1
                continue
            self._tell(record.number, fault)
            return None if answer is None else GateAnswer(answer)
        return line

    def reply(
        self, record: SessionRecord, line: bytes, reply: bytes | Stream
    ) -> MaybeDeferred[bytes | Stream | None]:
        """See :class:`~pop3toy.interfaces.IGate`.

        :param record: of the connection.
        :param line: that it answers.
        :param reply: of the server.
        """
        keyword = self._keyword(record.number, line, reply)
        untold = self._untold.pop(record.number, None)
        if untold is not None:
            self._tell(record.number, untold)
        if self._refused and isinstance(reply, bytes):
            for fault in self._refused:
                if reply.startswith(b"-ERR [%s]" % fault.code.encode()):
                    self._refused.remove(fault)
                    self._tell(record.number, fault)
                    break
        context = Context(record.number, keyword, _words(line)[1], self.random)
        if keyword == "GREETING":
            for fault in self._due(lambda kind: kind.answers, *self._place(record), keyword):
                self._tell(record.number, fault)
                answer = fault.answer(context)
                if answer is None:
                    return None
                reply = answer
        due = self._due(lambda kind: kind.alters, *self._place(record), keyword)
        hidden = keyword == "CAPA" and any(fault.kind == "not-implemented" for fault in self._faults)
        if not due and not hidden:
            return reply
        whole = reply if isinstance(reply, bytes) else Deferred.fromCoroutine(_collected(reply))

        def altered(data: bytes) -> bytes | Stream:
            steps: Steps = [self._without_hidden(data) if hidden else data]
            for fault in due:
                self._tell(record.number, fault)
                steps = fault.alter(steps, context)
            if len(steps) == 1 and isinstance(steps[0], bytes) and isinstance(reply, bytes):
                return steps[0]
            return _Played(steps, self._call_later, lambda reset: self._close(record.number, reset))

        return altered(whole) if isinstance(whole, bytes) else whole.addCallback(altered)

    def _place(self, record: SessionRecord) -> tuple[str, int, Sequence[str | None]]:
        return record.protocol, record.number, (record.user, self._users.get(record.number))

    def _keyword(self, session: int, line: bytes, reply: bytes | Stream) -> str:
        """Of the command that a reply belongs to."""
        if not line:
            return "GREETING" if session not in self._commands else self._commands[session].rstrip("+")
        keyword = self._commands.get(session, "").rstrip("+")
        # RFC 5034 section 4 and RFC 4954 section 4: what comes next is a line of the exchange.
        asks = isinstance(reply, bytes) and reply.startswith((b"+ ", b"334 "))
        self._remember(self._commands, session, f"{keyword}+" if asks else keyword)
        return keyword

    @staticmethod
    def _remember(where: OrderedDict[int, str], session: int, what: str) -> None:
        where[session] = what
        while len(where) > _REMEMBERED:
            where.popitem(last=False)

    def _without_hidden(self, capa: bytes) -> bytes:
        """CAPA's lines without those of commands that are not there."""
        hidden = {
            word for fault in self._faults if fault.kind == "not-implemented" for word in fault.commands
        }
        head, *lines = capa.split(b"\r\n")
        kept = [line for line in lines if _words(line)[0] not in hidden]
        return b"\r\n".join([head, *kept])

    def _call_later(self, seconds: float, call: Callable[[], object]) -> IDelayedCall:
        assert self._clock is not None, "attach() has not been called"
        return self._clock.callLater(seconds, call)

    def _close(self, session: int, reset: bool) -> None:
        assert self._control is not None, "attach() has not been called"
        self._control.close(session, why="fault", at_once=reset)

    # -- before the store, and in TLS -------------------------------------------------------

    def around_store(self, store: IMailStore) -> IMailStore:
        """A store that refuses mailboxes where a ``login-refused`` says so.

        :param store: opens them otherwise.
        """
        from .store import FaultyStore

        return FaultyStore(store, self.refuse_login)

    def refuse_login(self, user: str) -> None:
        """Raise what keeps a user out, if it is time for that.

        :param user: who has logged in.
        :raises pop3toy.errors.Refusal: with the fault's code.
        """
        for fault in self._faults:
            if (
                fault.is_in(lambda kind: kind.login)
                and fault.user in (None, user)
                and fault.is_due(self.random)
            ):
                self._refused.append(fault)
                raise _REFUSALS[fault.code](detail=fault.description)

    def tls_fault(self, session: int, protocol: str) -> str | None:
        """What goes wrong in the TLS of a connection: the name of a kind, or ``None``.

        :param session: its number.
        :param protocol: what is spoken in it.
        """
        for fault in self._due(lambda kind: kind.tls, protocol, session, (), None):
            self._tell(session, fault)
            return fault.kind
        return None


def _refusal(of: str, text: str) -> type[Refusal]:
    """A refusal of none of the server's own kinds, which are waited for, or count as a bad password."""

    class Refused(Refusal):
        code: ClassVar[str] = of
        sentence: ClassVar[str] = text

    return Refused


_REFUSALS: dict[str, type[Refusal]] = {
    "IN-USE": _refusal("IN-USE", "maildrop is locked by another session"),
    "LOGIN-DELAY": _refusal("LOGIN-DELAY", "please wait before the next login"),
    "SYS/TEMP": _refusal("SYS/TEMP", "maildrop is not available at the moment"),
    "SYS/PERM": _refusal("SYS/PERM", "maildrop is broken, ask your administrator"),
    "AUTH": _refusal("AUTH", "invalid user name or password"),
}


def _words(line: bytes) -> tuple[str, str]:
    keyword, _, arguments = line.decode("utf-8", "replace").partition(" ")
    return keyword.strip().upper(), arguments


async def _collected(stream: Stream) -> bytes:
    """All of a reply; a fault is no way to send messages that do not fit into memory."""
    pieces = []
    try:
        while not stream.done:
            piece = stream.pull()
            pieces.append(piece if isinstance(piece, bytes) else await piece)
    finally:
        stream.close()
    return b"".join(pieces)


class _Played:
    """Steps as a reply: the octets until a pause are one piece."""

    def __init__(
        self,
        steps: Steps,
        call_later: Callable[[float, Callable[[], object]], IDelayedCall],
        close: Callable[[bool], None],
    ) -> None:
        self._steps = steps
        self._call_later = call_later
        self._close = close
        self._pause: IDelayedCall | None = None
        self.done = False

    def pull(self) -> MaybeDeferred[bytes]:
        """The next octets; what is still to come when the connection is gone does not."""
        step = self._steps.pop(0) if self._steps else b""
        if isinstance(step, bytes):
            self.done = not self._steps
            return step
        later: Deferred[bytes] = Deferred()

        def go_on() -> None:
            if isinstance(step, Close):
                # Nobody is left to be given anything.
                self._close(step.reset)
            else:
                later.callback(b"")

        self._pause = self._call_later(step.seconds if isinstance(step, Pause) else 0, go_on)
        return later

    def close(self) -> None:
        """The connection is gone, or has all."""
        self.done = True
        self._steps.clear()
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
