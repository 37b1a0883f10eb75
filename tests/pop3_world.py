"""Fakes for the tests of session and protocol: an authenticator, mailboxes, bodies.

The socket and the late store are in ``pop3toy.testing``.

Each stands for one of the ``interfaces`` or for Twisted's side of a
connection, and complains when the promise of that port is broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from pop3toy import POP3Factory, limits
from pop3toy.auth.sasl.exchange import SASLExchange
from pop3toy.auth.throttle.login_throttle import unguarded
from pop3toy.errors import AuthenticationFailed, BadCommand, MessageGone
from pop3toy.events import Connected, ConnectionRejected, Ended, LoggedIn, LoginFailed, Observers
from pop3toy.interfaces import (
    Authenticator,
    Channel,
    Entry,
    Exchange,
    IMailbox,
    IObserver,
    Login,
    MaybeDeferred,
    SessionRecord,
)
from pop3toy.mail.octets import octets
from pop3toy.testing.late_store import LateStore as LateStore
from pop3toy.testing.sockets import LOOPBACK as LOOPBACK
from pop3toy.testing.sockets import FakeSocket as FakeSocket

T = TypeVar("T")


class ScriptedBody:
    """A body whose chunks the test has written down, and which watches over its contract.

    :param chunks: each the next chunk, an exception to raise instead, or a
        Deferred of one.
    :ivar faults: what was done to it that may not be done.
    :ivar closed: what ``close`` was given, once for each call.
    """

    def __init__(self, chunks: Sequence[bytes | Exception | Deferred[bytes]]) -> None:
        self._chunks = list(chunks)
        self._pending = False
        self.done = False
        self.pulls = 0
        self.wanted: list[int] = []
        self.faults: list[str] = []
        self.closed: list[int | None] = []

    def pull(self, most: int = limits.CHUNK) -> MaybeDeferred[bytes]:
        self.pulls += 1
        self.wanted.append(most)
        if self._pending:
            self.faults.append("pulled again before the last chunk came")
        if self.closed:
            self.faults.append("pulled after close")
        if self.done:
            self.faults.append("pulled after the last chunk")
        chunk = self._chunks.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        if isinstance(chunk, Deferred):
            self._pending = True
            return chunk.addBoth(self._came)
        self.done = not self._chunks
        return chunk

    def _came(self, chunk: T) -> T:
        self._pending = False
        self.done = not self._chunks
        return chunk

    def close(self, octets: int | None) -> None:
        if self.closed:
            self.faults.append("closed twice")
        self.closed.append(octets)


class EndlessBody:
    """A body of so many equal chunks, made when they are pulled."""

    def __init__(self, chunk: bytes, count: int) -> None:
        self._chunk = chunk
        self._left = count
        self.done = False
        self.pulls = 0
        self.closed: list[int | None] = []

    def pull(self, most: int = limits.CHUNK) -> bytes:
        self.pulls += 1
        self._left -= 1
        self.done = self._left == 0
        return self._chunk

    def close(self, octets: int | None) -> None:
        self.closed.append(octets)


@implementer(IMailbox)
class ScriptedMailbox:
    """A mailbox whose every answer the test decides.

    :param messages: uid to message, to chunks, or to a function that answers ``read``.
    """

    read_only = False

    def __init__(self, messages: Mapping[bytes, Any] | None = None) -> None:
        self._messages = dict(messages or {})
        self.entries: Sequence[Entry] = [
            Entry(uid, octets(message) if isinstance(message, bytes) else 100)
            for uid, message in self._messages.items()
        ]
        self.bodies: list[ScriptedBody] = []
        self.removed: list[list[bytes]] = []
        self.released = 0
        #: What ``remove`` answers: a value, a Deferred, or an exception to raise.
        self.removal: Any = None

    def read(self, uid: bytes) -> Any:
        message = self._messages.get(uid)
        if message is None:
            raise MessageGone
        if callable(message):
            return message()
        return self.body([message] if isinstance(message, bytes) else message)

    def body(self, chunks: Sequence[bytes | Exception | Deferred[bytes]]) -> ScriptedBody:
        body = ScriptedBody(chunks)
        self.bodies.append(body)
        return body

    def remove(self, uids: Sequence[bytes]) -> Any:
        assert not self.released, "removed after release"
        self.removed.append(list(uids))
        if isinstance(self.removal, Exception):
            raise self.removal
        return self.removal

    def release(self) -> None:
        self.released += 1


class FakeAuthenticator:
    """An authenticator that lets in whoever says ``pass``, at once or when told.

    :ivar waiting: logins that wait, when ``later`` is set.
    """

    def __init__(self, mailbox: Any = None, *, later: bool = False, timestamp: str | None = None) -> None:
        self.mailbox = mailbox if mailbox is not None else ScriptedMailbox()
        self.later = later
        self.waiting: list[Deferred[Login]] = []
        self.trouble: Exception | None = None
        self.clear = True
        self.offered: list[str] = []
        self.delay = 0
        self.exchanges: list[ScriptedExchange] = []
        self.steps: list[Any] = []
        self._timestamp = timestamp

    def clear_text(self, channel: Channel) -> bool:
        return self.clear

    def timestamp(self, channel: Channel) -> str | None:
        return self._timestamp

    def mechanisms(self, channel: Channel) -> Sequence[str]:
        return self.offered

    def login_delay(self) -> int:
        return self.delay

    def login(self, mechanism: str = "USER") -> Login:
        return Login("ann", self.mailbox, self.mailbox.release, mechanism)

    def password(self, user: bytes, password: bytes, record: SessionRecord) -> MaybeDeferred[Login]:
        if self.later:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        if self.trouble is not None:
            raise self.trouble
        if password != b"pass":
            raise AuthenticationFailed
        return self.login()

    def apop(self, user: bytes, digest: bytes, timestamp: str, record: SessionRecord) -> MaybeDeferred[Login]:
        if digest != b"0" * 32:
            raise AuthenticationFailed
        return self.login("APOP")

    def begin(self, mechanism: str, record: SessionRecord) -> Exchange:
        if mechanism not in self.offered:
            raise BadCommand("not offered")
        self.exchanges.append(ScriptedExchange(mechanism, self))
        return self.exchanges[-1]

    def let_in(self) -> None:
        """Answer the login that waits longest."""
        self.waiting.pop(0).callback(self.login())


class ScriptedExchange(SASLExchange):
    """A SASL exchange that answers with the authenticator's ``steps``, one for each response."""

    def __init__(self, mechanism: str, authenticator: FakeAuthenticator) -> None:
        self._script = _ScriptedMechanism(mechanism, authenticator)
        script: Any = self._script
        log_in: Any = lambda login, _: login  # noqa: E731
        super().__init__(script, unguarded().attempt("unix"), log_in)
        self.cancelled = 0

    @property
    def heard(self) -> list[bytes | None]:
        """The responses so far."""
        return self._script.heard

    @property
    def user(self) -> str | None:
        return self._script.user

    @user.setter
    def user(self, user: str | None) -> None:
        self._script.user = user

    def cancel(self) -> None:
        self.cancelled += 1
        super().cancel()


class _ScriptedMechanism:
    client_first = False

    def __init__(self, name: str, authenticator: FakeAuthenticator) -> None:
        self.name = name
        self.user: str | None = None
        self.heard: list[bytes | None] = []
        self._authenticator = authenticator

    async def step(self, response: bytes | None) -> Any:
        self.heard.append(response)
        step = self._authenticator.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return await step if isinstance(step, Deferred) else step


@implementer(IObserver)
class Watcher:
    """An observer that remembers what it was told of, kind by kind."""

    def __init__(self, *wants: type) -> None:
        self.wants = wants or (Connected, ConnectionRejected, LoggedIn, LoginFailed, Ended)
        self.events: list[Any] = []

    def observe(self, event: Any) -> None:
        self.events.append(event)

    def happened(self, kind: Any, *what: Any) -> None:
        """Told by a session without a connection."""
        if kind in self.wants:
            self.observe(kind(0, 0.0, *what))

    def of(self, kind: type[T]) -> list[T]:
        """All events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def connections(self) -> list[Connected]:
        return self.of(Connected)

    @property
    def turned(self) -> list[str]:
        return [event.why for event in self.of(ConnectionRejected)]

    @property
    def logins(self) -> list[LoggedIn]:
        return self.of(LoggedIn)

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        return [(event.user, event.mechanism, event.why) for event in self.of(LoginFailed)]

    @property
    def ends(self) -> list[Ended]:
        return self.of(Ended)


class WriteCounter(StringTransport):
    """A transport that takes everything at once, and remembers each write."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)


def connect(
    authenticator: Authenticator, clock: Clock | None = None, **arguments: Any
) -> tuple[Any, WriteCounter, POP3Factory]:
    """A protocol on a transport that takes everything at once.

    :param arguments: of the factory; ``watcher`` is an observer.
    """
    watcher = arguments.pop("watcher", None)
    if watcher is not None:
        arguments["observers"] = Observers(watcher)
    factory = POP3Factory(clock if clock is not None else Clock(), authenticator, **arguments)
    protocol = factory.buildProtocol(None)
    transport = WriteCounter(peerAddress=LOOPBACK, lenient=True)
    protocol.makeConnection(transport)
    return protocol, transport, factory
