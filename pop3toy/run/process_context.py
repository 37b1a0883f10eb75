"""What a process gives its server: endpoints, connection limits, and what of itself it may change."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IStreamServerEndpoint

from ..auth.throttle.connection_limiter import ConnectionLimiter
from ..auth.throttle.peer_workers import PeerWorkers
from ..config.settings import Settings
from ..config.source import Source
from ..errors import CannotStart
from ..files import Owner
from ..net.types import IReactor
from ..net.unix_sockets import UnixListening
from ..observe.log_levels import Levels
from ..stores.registry import ServerProcess
from .ports import Port, endpoint_of
from .process import fitting
from .speed import BatcherService

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS, ServerTLS

__all__ = ["ProcessContext", "single_process"]


@dataclass(frozen=True)
class ProcessContext:
    """What differs between a process of its own, one of several, and one that embeds the server."""

    #: The name of a port for people, and the endpoint that opens it.
    endpoint: Callable[[Port], tuple[str, IStreamServerEndpoint]]
    #: POP3 connections, and SMTP's: a flood of mail must not keep readers out.
    pop3_connections: ConnectionLimiter
    smtp_connections: ConnectionLimiter
    #: LMTP's, which nothing but open files bounds.
    lmtp_connections: ConnectionLimiter
    #: Session numbers, unique in the transcript that all ports write to.
    numbers: Iterator[int]
    #: What TLS is made with, if there is TLS.
    tls: GivenTLS | None
    #: Is called with what keeps a port from being opened; a command ends with it.
    cannot_listen: Callable[[CannotStart], object]
    #: This host's name, where the settings give none.
    host: str
    #: Which of the server's processes it is.
    process: ServerProcess = field(default_factory=ServerProcess)
    #: The other processes of the same server, if it is one of several.
    peers: PeerWorkers | None = None
    #: Which levels of the log its lines are of; set by the settings.
    levels: Levels = field(default_factory=Levels)
    #: The batcher of its reactor, if there is one.
    batcher: BatcherService | None = None
    #: What makes TLS of certificate files, which are read again when they change.
    certificates: ServerTLS | None = None
    #: The file of options, where there is one that may be read again.
    source: Source | None = None
    #: Whether a file that cannot be used ends the start.  Not that of a worker:
    #: its supervisor has told so when it started, and an accident that comes
    #: later must not keep a worker that died from being started again.
    strict: bool = True
    #: Whether it warns of what all of several processes see.
    warns: bool = True
    #: Whether the process is there for this server alone: then its garbage collector, open files and
    #: signals are set as the server needs them.
    owned: bool = False
    #: Whether it is a worker, for which the supervisor has opened the sockets, and logged them.
    inherits: bool = False
    #: The user that the process becomes when its ports are open.
    owner: Owner | None = None


def single_process(
    settings: Settings,
    reactor: IReactor,
    tls: ServerTLS | None,
    cannot_listen: Callable[[CannotStart], object],
    *,
    host: str | None = None,
    batcher: BatcherService | None = None,
    owned: bool = False,
    source: Source | None = None,
    owner: Owner | None = None,
) -> ProcessContext:
    """A process that shares nothing with others.

    :param host: this host's full name; asking for it may wait for the network, hence the short one otherwise.
    :param source: of the settings, which are read again from it at SIGHUP.
    :param owner: the user that it becomes when its ports are open.
    """
    limits = fitting(settings, owned=owned)
    listening = cast(IReactor, UnixListening(reactor, owner))
    limits.tell(asked=settings.limits.max_connections is not None)
    return ProcessContext(
        lambda port: endpoint_of(port, settings, listening),
        ConnectionLimiter(limits.pop3),
        ConnectionLimiter(limits.smtp),
        ConnectionLimiter(limits.lmtp),
        itertools.count(1),
        tls,
        cannot_listen,
        host or socket.gethostname(),
        batcher=batcher,
        certificates=tls,
        owned=owned,
        source=source,
        owner=owner,
    )
