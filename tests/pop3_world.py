"""Fakes for the tests of session and protocol: a socket, an authenticator, mailboxes, bodies.

Each stands for one of the ``interfaces`` or for Twisted's side of a
connection, and complains when the promise of that port is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
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
    IMailStore,
    IObserver,
    Login,
    MaybeDeferred,
    SessionRecord,
)
from pop3toy.mail.octets import octets

from .memory_world import LOOPBACK

T = TypeVar("T")


@implementer(ITransport, IConsumer, IPushProducer)
class FakeSocket:
    """A transport with the behaviour of Twisted's ``FileDescriptor``, read by a client who decides when.

    What is written waits in ``unsent`` until :meth:`client_reads`; a producer
    is paused above ``bufferSize`` and resumed when all is sent; while it is
    paused, ``loseConnection`` waits for it.

    :ivar got: what the client has read.
    :ivar most_unsent: the most that ever waited to be sent.
    :ivar lost: why the connection ended, or ``None``.
    """

    bufferSize = 64 * 1024
    offset = 0

    def __init__(self, clock: Clock, *, keep: bool = True) -> None:
        self._clock = clock
        self._keep = keep
        self.protocol: Any = None
        self.producer: Any = None
        self.producerPaused = False
        self.reading = True
        self.connected = True
        self.disconnecting = False
        self.unsent = bytearray()
        self.got = bytearray()
        self.count = 0
        self.most_unsent = 0
        self.lost: Failure | None = None
        self.no_delay = False

    @property
    def dataBuffer(self) -> bytearray:
        """Where Twisted's transports have what is not sent."""
        return self.unsent

    def connect(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)

    # -- the client's side --------------------------------------------------------

    def client_sends(self, data: bytes) -> None:
        """Octets arrive; only where the server reads."""
        assert self.reading, "the server does not read"
        assert self.protocol is not None
        self.protocol.dataReceived(data)

    def client_reads(self, most: int | None = None) -> bytes:
        """The client takes up to so many octets of what waits: one ``doWrite`` of the reactor."""
        data = bytes(self.unsent[:most])
        del self.unsent[: len(data)]
        self.count += len(data)
        if self._keep:
            self.got += data
        self._look()
        return data

    def _look(self) -> None:
        """If all is sent, what a reactor does in the turn in which it finds that out."""
        if not self.unsent:
            if self.producer is not None and self.producerPaused:
                self.producerPaused = False
                self.producer.resumeProducing()
            elif self.disconnecting:
                self.vanish(ConnectionDone())

    def client_reads_all(self) -> bytes:
        """The client reads until nothing comes any more, turn after turn."""
        read = bytearray()
        while piece := self.client_reads() or self._next_turn():
            read += piece
        return bytes(read)

    def _next_turn(self) -> bytes:
        self._clock.advance(0)
        return self.client_reads()

    def client_half_closes(self) -> None:
        """The client will send no more, but reads on."""
        self.reading = False
        IHalfCloseableProtocol(self.protocol).readConnectionLost()

    def vanish(self, why: Exception | None = None) -> None:
        """The connection is gone."""
        if self.connected:
            self.connected = self.reading = False
            self.lost = Failure(why if why is not None else ConnectionLost())
            producer, self.producer = self.producer, None
            if producer is not None:
                producer.stopProducing()
            assert self.protocol is not None
            self.protocol.connectionLost(self.lost)

    # -- what the protocol calls ----------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self.connected or not data:
            return
        self.unsent += data
        self.most_unsent = max(self.most_unsent, len(self.unsent))
        if self.producer is not None and len(self.unsent) > self.bufferSize:
            self.producerPaused = True
            self.producer.pauseProducing()

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def registerProducer(self, producer: object, streaming: bool) -> None:
        assert self.producer is None
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def startWriting(self) -> None:
        if not self.unsent:
            # The reactor finds out in its next turn.
            self._clock.callLater(0, self._look)

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.reading = False
            self.disconnecting = True
            self.startWriting()

    def abortConnection(self) -> None:
        if self.connected:
            self.disconnecting = True
            self.reading = False
            self._clock.callLater(0, self.vanish, ConnectionAborted())

    def getPeer(self) -> IPv4Address:
        return LOOPBACK

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 2590)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled

    def getHandle(self) -> None:
        """No socket beneath."""


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


@implementer(IMailStore)
class LateStore:
    """Another store, each answer of which comes only when the clock has moved on.

    :ivar pending: how many answers are on their way.
    """

    def __init__(self, clock: Clock, store: Any) -> None:
        self._clock = clock
        self._store = store
        self.pending = 0

    def open(self, user: str) -> Deferred[object]:
        return self.late(lambda: _LateMailbox(self, self._store.open(user)))

    def late(self, action: Callable[[], Any]) -> Deferred[Any]:
        """The result of ``action``, carried out later."""
        result: Deferred[Any] = Deferred()

        def now() -> None:
            self.pending -= 1
            maybeDeferred(action).chainDeferred(result)

        self.pending += 1
        self._clock.callLater(0.01, now)
        return result


@implementer(IMailbox)
class _LateMailbox:
    read_only = False

    def __init__(self, store: LateStore, mailbox: Any) -> None:
        self._store = store
        self._mailbox = mailbox
        self.entries = mailbox.entries

    def read(self, uid: bytes) -> Deferred[Any]:
        return self._store.late(lambda: _LateBody(self._store, self._mailbox.read(uid)))

    def remove(self, uids: Sequence[bytes]) -> Deferred[None]:
        return self._store.late(lambda: self._mailbox.remove(uids))

    def release(self) -> None:
        self._mailbox.release()


class _LateBody:
    def __init__(self, store: LateStore, body: Any) -> None:
        self._store = store
        self._body = body
        self.done = False

    def pull(self, most: int = limits.CHUNK) -> Deferred[bytes]:
        def chunk() -> Any:
            data = self._body.pull(most)
            self.done = self._body.done
            return data

        return self._store.late(chunk)

    def close(self, octets: int | None) -> None:
        self._body.close(octets)


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
