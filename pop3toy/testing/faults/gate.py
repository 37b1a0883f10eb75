"""A server that is wrong on purpose: faults, when they happen, and the gate that puts them in.

    faults = Faults()
    faults.add("drop", command="RETR", nth=2, octets=100)
    service = pop3toy.server(reactor, settings, gate=faults)
    faults.attach(reactor, service.control)

What each kind of fault does is in ``kinds``, when it happens in ``rules``.  They stand around the server,
in the gate of :class:`~pop3toy.interfaces.IGate`, before the store and in the TLS context; nothing within
knows of them.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ...clock import steady
from ...errors import Refusal
from ...interfaces import GateAnswer, IGate, IMailStore, IServerControl, MaybeDeferred, SessionRecord, Stream
from .kinds import NOT_THIS_ONE, Close, Context, Kind, Pause, Steps
from .rules import PROTOCOLS, BadFault, Fault

__all__ = ["Faults"]

#: Sessions of which it is remembered which command is being carried out.
_REMEMBERED = 10_000


@implementer(IGate)
class Faults:
    """All faults of a server.

    :param seed: of what is random; the same seed gives the same faults to the same commands.
    :param protocols: what the server speaks.
    :ivar random: draws what is random; ``faults.random.seed(7)`` makes it the same each time.
    """

    def __init__(self, seed: int | None = None, protocols: Sequence[str] = PROTOCOLS) -> None:
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
