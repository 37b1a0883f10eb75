"""Listening sockets that one process opens and others accept from.

The supervisor opens them, as any server does, and accepts nothing; a worker inherits them, and an accept
reader makes Twisted's transports of its clients.  Twisted's own ``adoptStreamPort`` would set a Unix
socket's mode to 0666, and remove it with the first worker that stops; ``adoptStreamConnection`` would
duplicate each client's descriptor and close the one that is here, which is a twentieth of a login.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from twisted.internet import tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...net.accepting import NONE_LEFT, Patience
from ...net.types import IReactor

__all__ = ["InheritedEndpoint", "SharedSockets"]

log = Logger()

#: Clients that a worker takes in a turn, so that it leaves some to the others.  Twisted's ports take as many
#: as there are: of two workers one then had most clients that came at once.  With this they are equally busy,
#: as they are with a socket of each one's own (SO_REUSEPORT), where clients would be lost with the worker
#: that the system has chosen for them.
ACCEPTS = 4


class _Nobody(Factory):
    """Serves no client: Twisted closes the connection at once."""

    noisy = False

    def logPrefix(self) -> str:
        """The port's owner, in Twisted's own log line."""
        return "the supervisor's port"

    def buildProtocol(self, addr: object) -> None:
        """Nothing."""


class SharedSockets:
    """The supervisor's ports, which do not accept: they hold what workers inherit."""

    def __init__(self) -> None:
        #: What they are opened with.
        self.factory: IProtocolFactory = _Nobody()
        self._ports: list[FileDescriptor] = []

    def add(self, port: IListeningPort) -> None:
        """One that is open now, in the order in which workers inherit them."""
        assert isinstance(port, FileDescriptor), "an endpoint that is a socket"
        port.stopReading()
        self._ports.append(port)

    @property
    def descriptors(self) -> list[int]:
        """The sockets, in that order."""
        return [port.fileno() for port in self._ports]

    def turn_away(self, yes: bool) -> None:
        """Whether to accept clients and close their connections, because no worker serves."""
        for port in self._ports:
            if yes:
                port.startReading()
            else:
                port.stopReading()


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """A listening socket that another process has opened.

    :param reactor: makes connections.
    :param descriptor: belongs to this process.
    """

    def __init__(self, reactor: IReactor, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``."""
        port = AcceptReader(socket.socket(fileno=self._descriptor), protocolFactory, self._reactor)
        port.startListening()
        return succeed(port)


@implementer(IListeningPort)
class AcceptReader(FileDescriptor):
    """Accepts from a listening socket, a few clients in a turn."""

    def __init__(self, listening: socket.socket, factory: IProtocolFactory, reactor: IReactor) -> None:
        super().__init__(reactor)
        listening.setblocking(False)
        self._listening = listening
        self._factory = factory
        self._patience = Patience(self, reactor)
        name = listening.getsockname()
        self._host: UNIXAddress | IPv4Address | IPv6Address
        if listening.family == socket.AF_UNIX:
            self._host = UNIXAddress(os.fsencode(name))
        else:
            self._host = (IPv6Address if ":" in name[0] else IPv4Address)("TCP", *name[:2])
        self._description = f"<connection to {self._host}>"

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._listening.fileno()

    def getHost(self) -> IAddress:
        """See ``IListeningPort``."""
        return self._host

    def startListening(self) -> None:
        """See ``IListeningPort``."""
        self._factory.doStart()
        self.connected = True
        self.startReading()

    def stopListening(self) -> Deferred[None]:
        """See ``IListeningPort``; only this process's hold of the socket ends."""
        if self.connected:
            self.connectionLost(Failure(ConnectionAbortedError()))
        return succeed(None)

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``."""
        super().connectionLost(reason)
        self._listening.close()
        self._factory.doStop()

    def doRead(self) -> None:
        """Accept some clients."""
        for _ in range(ACCEPTS):
            try:
                client, address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NONE_LEFT:
                    self._patience.pause(error)
                elif error.errno == errno.EINVAL:
                    # The supervisor has shut the socket down.
                    self.stopReading()
                # All else is of one client: it has gone, or netfilter does not let it in.
                return
            self._serve(client, address)

    def _serve(self, client: socket.socket, address: tuple[str, int]) -> None:
        peer, kind = self._host, tcp.Server
        if isinstance(peer, UNIXAddress):
            kind = unix.Server
        else:
            peer = type(peer)("TCP", *address)
        end: Callable[[], object] = client.close
        try:
            protocol = self._factory.buildProtocol(peer)
            if protocol is None:
                client.close()
                return
            transport = kind(client, protocol, address, None, 0, self.reactor)  # type: ignore[arg-type]
            # From here on the reactor has it.
            end = transport.abortConnection
            # Twisted makes it of the port, of which there is none.
            transport.repstr = self._description
            protocol.makeConnection(transport)
        except Exception:
            log.failure("a connection cannot be served")
            end()
