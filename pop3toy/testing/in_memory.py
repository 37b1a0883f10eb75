"""A server without a thread, a socket or a wait: for tests of unittest and trial that never block.

Its connections are in memory and its time is a ``task.Clock``.  There is no TLS here; who needs it runs a
:func:`~pop3toy.testing.running_server`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import MemoryReactorClock

from ..interfaces import IGate, IObserver
from ..run.assembly import server
from .mailboxes import Message
from .options import settings_of
from .recorder import Session
from .served import Served, duration
from .sockets import LOOPBACK, FakeSocket

__all__ = ["MemoryClient", "MemoryServer", "POP3ServerMixin"]

#: Seconds by which the time of a stopping server goes on, so that nobody is waited for.
_STOP = 60.0


class MemoryClock:
    """The time of a server in memory, which stands still until it is moved.

    :param server: whose.
    """

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def advance(self, seconds: float) -> None:
        """Let the time go on; what is due on the way happens in its order, and clients hear of it.

        :param seconds: how many.
        :raises ValueError: if they are negative, infinite or no number.
        """
        reactor = self._server.reactor
        target = reactor.seconds() + duration(seconds)
        while True:
            self._server.pump()
            due = min((call.getTime() for call in reactor.getDelayedCalls()), default=target + 1)
            if due > target:
                break
            reactor.advance(max(0.0, due - reactor.seconds()))
        reactor.advance(max(0.0, target - reactor.seconds()))

    def seconds(self) -> float:
        """The server's time; it begins with 0."""
        return float(self._server.reactor.seconds())


class MemoryClient:
    """A client that says what the test says.

    :param server: with whom it talks.
    :param socket: through which.
    """

    def __init__(self, server: MemoryServer, socket: FakeSocket) -> None:
        self._server = server
        self._socket = socket
        #: The server's first line.
        self.greeting = self.read()[0]

    def say(self, *lines: str | bytes) -> list[str]:
        """Send lines, all in one packet; what the server answers at once, line by line.

        :param lines: without their line ends.
        :raises ConnectionError: if the server takes no more, because it has closed the connection.
        """
        octets = [line.encode() if isinstance(line, str) else line for line in lines]
        return self.send(b"".join(line + b"\r\n" for line in octets))

    def send(self, octets: bytes) -> list[str]:
        """Send just these octets; what the server answers at once, line by line.

        :param octets: any.
        :raises ConnectionError: if the server takes no more, because it has closed the connection.
        """
        if not self._socket.reading:
            raise ConnectionError("the server has closed the connection, or waits with reading")
        self._socket.client_sends(octets)
        return self.read()

    def read(self) -> list[str]:
        """What the server has said and was not read before, line by line."""
        self._server.pump()
        said = bytes(self._socket.got)
        del self._socket.got[:]
        return [line.decode("utf-8", "backslashreplace") for line in said.split(b"\r\n")[:-1]]

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        self._server.pump()
        return self._socket.lost is not None

    def drop(self) -> None:
        """Vanish without a word."""
        self._socket.vanish()


class _Wire:
    """Two ends of a connection in memory: what is written on one side arrives on the other."""

    def __init__(self, client: FakeSocket, server: FakeSocket) -> None:
        self._ends = ((client, server), (server, client))

    def pump(self) -> bool:
        """Move what there is.

        :return: whether anything has happened.
        """
        moved = False
        for one, other in self._ends:
            if one.connected and other.reading and (octets := one.client_reads()):
                other.client_sends(octets)
                moved = True
            if one.lost is not None and other.lost is None:
                other.vanish(ConnectionDone())
                moved = True
        return moved


class MemoryServer(Served):
    """A POP3 server in memory.

    :param mailboxes: as of :func:`~pop3toy.testing.running_server`, and so are the others.
    :param passwords: of the users.
    :param gate: an :class:`~pop3toy.IGate`.
    :param observers: each an :class:`~pop3toy.IObserver`.
    :param options: fields of :class:`~pop3toy.Settings` and :class:`~pop3toy.Limits`.
    :raises pop3toy.errors.CannotStart: for options that cannot be.
    :raises TypeError: for what is no message, and for an option that does not exist.
    """

    def __init__(
        self,
        mailboxes: Mapping[str, Iterable[Message]] | None = None,
        passwords: Mapping[str, str] | None = None,
        *,
        gate: IGate | None = None,
        observers: Sequence[IObserver] = (),
        **options: Any,
    ) -> None:
        super().__init__(mailboxes, passwords)
        #: Give it to a client that takes a reactor: ``connectTCP`` of any address connects to this server,
        #: and its time is the server's.
        self.reactor: Any = MemoryReactorClock()
        gate = self._gate(gate)
        store: Any = self._store if self._faults is None else self._faults.around_store(self._store)
        self._service = server(
            self.reactor,
            settings_of(self.passwords, options),
            store=store,
            observers=[self._recorder, *observers],
            gate=gate,
        )
        if self._faults is not None:
            self._faults.attach(self.reactor, self._service.control)
        self._service.startService()
        #: Makes the server's side of a connection.
        self.factory: Any = self.reactor.tcpServers[0][1]
        #: Lets the server's time go on.
        self.clock = MemoryClock(self)
        self._sockets: list[FakeSocket] = []
        self._wires: list[_Wire] = []
        self._accepted = 0
        self._stopped = False

    def connect(self) -> MemoryClient:
        """A client that has just connected."""
        socket = self._accept()
        self._sockets.append(socket)
        return MemoryClient(self, socket)

    def connect_protocol(self, protocol: IProtocol) -> None:
        """Connect a client that is a protocol of Twisted's; then :meth:`pump` lets both talk.

        :param protocol: of the client.
        """
        self._wire(protocol)
        self.pump()

    def _wire(self, protocol: IProtocol) -> None:
        client = FakeSocket(self.reactor, keep=False)
        self._wires.append(_Wire(client, self._accept(keep=False)))
        client.connect(protocol)

    def _accept(self, *, keep: bool = True) -> FakeSocket:
        socket = FakeSocket(self.reactor, keep=keep)
        socket.connect(self.factory.buildProtocol(LOOPBACK))
        return socket

    def pump(self) -> None:
        """Let both sides of all connections talk until nobody has anything more to say.

        Clients that have asked ``reactor`` for a connection get it.  No time passes.
        """
        moved = True
        while moved:
            self.reactor.advance(0)
            moved = False
            while self._accepted < len(self.reactor.tcpClients):
                factory = self.reactor.tcpClients[self._accepted][2]
                self._accepted += 1
                self._wire(factory.buildProtocol(LOOPBACK))
                moved = True
            for socket in self._sockets:
                moved = bool(socket.client_reads()) or moved
            for wire in self._wires:
                moved = wire.pump() or moved

    def _call(self, function: Callable[[], Any]) -> Any:
        return function()

    def _settle(self) -> None:
        self.pump()

    def wait_for_session(self, timeout: float = 0.0) -> Session:
        """The session that ended next: the first at the first call, the second at the second.

        :param timeout: is not waited for: nothing happens here by itself.
        :raises AssertionError: if it has not ended, with the conversations so far.
        """
        self._settle()
        return super().wait_for_session(0.0)

    def stop(self) -> None:
        """End all connections.  Harmless when that is done already."""
        if not self._stopped:
            self._stopped = True
            self._service.stopService()
            self.clock.advance(_STOP)


class POP3ServerMixin:
    """For a ``TestCase`` of unittest or trial: servers in memory that end with the test."""

    def pop3_server(
        self,
        mailboxes: Mapping[str, Iterable[Message]] | None = None,
        passwords: Mapping[str, str] | None = None,
        **options: Any,
    ) -> MemoryServer:
        """A server of this test.

        :param mailboxes: as of :func:`~pop3toy.testing.running_server`.
        :param passwords: of the users.
        :param options: see :class:`MemoryServer`.
        """
        made = MemoryServer(mailboxes, passwords, **options)
        cast(Any, self).addCleanup(made.stop)
        return made
