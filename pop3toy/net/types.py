"""What the server uses of Twisted's transports and reactors, as types.

Each is made of several interfaces of Twisted's, none of which has all of it. They are for readers and for the
type checker: no class declares to provide them, and nothing asks.
"""

from __future__ import annotations

from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorProcess,
    IReactorSocket,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    ITransport,
)

__all__ = ["IReactor", "IStreamTransport", "IThreadedReactor"]


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """A connection's transport: of TCP, of a Unix socket, of TLS over one of them."""

    def getHandle() -> object:
        """What is beneath: a socket, or an ``OpenSSL.SSL.Connection``."""

    def setTcpNoDelay(enabled: bool) -> None:
        """TCP's alone, like the next."""

    def setTcpKeepAlive(enabled: bool) -> None:
        """Have the kernel ask whether the peer is there."""

    def startTLS(contextFactory: object) -> None:
        """Begin with TLS, where ``ITLSTransport`` is provided."""


class IThreadedReactor(IReactorFromThreads, IReactorTime):
    """What threads need of a reactor."""


class IReactor(
    IThreadedReactor,
    IReactorCore,
    IReactorTCP,
    IReactorUNIX,
    IReactorSocket,
    IReactorFDSet,
    IReactorProcess,
):
    """A reactor on a system of our days."""
