"""Where a server listens: which ports its settings ask for, and the endpoints that open them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint

from ..config.settings import Settings
from ..errors import BadSetting
from ..installation import install_hint
from ..interfaces import Gatekeeper
from ..net.proxied import ProxiedEndpoint
from ..net.types import IReactor
from ..net.unix_sockets import unnamed_socket
from .workers.sockets import stand_in

__all__ = ["Port", "endpoint_of", "name_of", "ports_of"]

#: Connections that the kernel may hold while the reactor is busy; Twisted's 50
#: is short when a hundred mail programs poll at the full hour.
BACKLOG = 1024

#: Endpoints that are sockets, which workers can inherit.
SOCKETS = ("tcp", "tcp6", "ssl", "unix", "systemd")


@dataclass(frozen=True)
class Port:
    """One place to listen."""

    #: What is spoken there: ``POP3``, ``SMTP``, ``submission`` or ``LMTP``.
    protocol: str
    #: The option that asks for it.
    option: str
    #: A TCP port's number, or the description of a Twisted endpoint.
    where: int | str
    #: TLS from the first octet on (RFC 8314 section 3).
    tls: bool = False

    @property
    def spoken(self) -> str:
        """What is spoken there, for people."""
        return f"{self.protocol} over TLS" if self.tls else self.protocol


def ports_of(settings: Settings) -> Iterator[Port]:
    """Where the settings say to listen, always in the same order: workers inherit sockets in it."""
    if settings.listen:
        yield from (Port("POP3", "listen", one) for one in settings.listen)
    else:
        yield Port("POP3", "port", settings.port)
    yield from (Port("POP3", "tls-listen", one, tls=True) for one in settings.tls_listen)
    if settings.tls_port is not None:
        yield Port("POP3", "tls-port", settings.tls_port, tls=True)
    if settings.smtp_port is not None:
        yield Port("SMTP", "smtp-port", settings.smtp_port)
    yield from (Port("SMTP", "smtp", one) for one in settings.smtp)
    if settings.submission_port is not None:
        yield Port("submission", "submission-port", settings.submission_port)
    yield from (Port("submission", "submission", one) for one in settings.submission)
    yield from (Port("submission", "submission-tls", one, tls=True) for one in settings.submission_tls)
    if settings.submission_tls_port is not None:
        yield Port("submission", "submission-tls-port", settings.submission_tls_port, tls=True)
    yield from (Port("LMTP", "lmtp", one) for one in settings.lmtp)


def endpoint_of(
    port: Port,
    settings: Settings,
    reactor: IReactor,
    gatekeeper: Gatekeeper | None = None,
    *,
    inherits: bool = False,
) -> tuple[str, IStreamServerEndpoint]:
    """The endpoint of a port, and its name for people.

    :param reactor: opens it.
    :param gatekeeper: counts connections of whom a proxy has not told the client's address.
    :param inherits: whether the reactor takes sockets that another process has opened.
    :raises pop3toy.errors.BadSetting: for a description that cannot be read.
    """
    if isinstance(port.where, int):
        host = settings.interface
        kind, name = (TCP6ServerEndpoint, f"[{host}]") if ":" in host else (TCP4ServerEndpoint, host)
        return f"{name}:{port.where}", kind(reactor, port.where, BACKLOG, host)
    # Twisted's own haproxy: would have us greet before the client's address is known.
    kind_of_endpoint, _, behind = port.where.partition(":")
    proxied = kind_of_endpoint == "haproxy"
    description = behind if proxied else port.where
    try:
        endpoint = _described(description, settings, reactor, inherits)
    except Exception as error:
        raise BadSetting(port.option, f" {port.where}: {_misread(description, error)}") from error
    return port.where, ProxiedEndpoint(endpoint, reactor, gatekeeper) if proxied else endpoint


class _NotForWorkers(ValueError):
    """A kind of endpoint that several processes cannot share."""


def _described(
    description: str, settings: Settings, reactor: IReactor, inherits: bool
) -> IStreamServerEndpoint:
    kind = description.partition(":")[0]
    if settings.workers is not None and kind not in SOCKETS:
        raise _NotForWorkers(f"with --workers there are {', '.join(SOCKETS)}")
    if kind == "systemd" and inherits:
        # The variables that systemd sets are for the process that it has started.
        return stand_in(reactor, BACKLOG)
    endpoint: IStreamServerEndpoint | None = unnamed_socket(reactor, description)
    return serverFromString(reactor, description) if endpoint is None else endpoint


def _misread(description: str, error: Exception) -> str:
    """What is wrong with an endpoint's description; endpoint parsers raise whatever comes to them."""
    kind, colon, _ = description.partition(":")
    if isinstance(error, ImportError):
        return f"this endpoint needs more than is installed: {install_hint('tls')}"
    if kind == "systemd":
        return (
            "systemd has handed over no such socket; it does for a service that it starts with a .socket unit"
        )
    if isinstance(error, _NotForWorkers):
        return str(error)
    if kind.isdigit() or not colon or "." in kind:
        return "an endpoint begins with its kind, as in tcp:2590:interface=127.0.0.1"
    # A TypeError names Python's functions; a ValueError of int() no option.
    why = f" ({error})" if isinstance(error, ValueError) and "int()" not in str(error) else ""
    return f"this endpoint cannot be read{why}; one that can is tcp:2590:interface=127.0.0.1"


def name_of(port: IListeningPort, name: str) -> str:
    """A listening port for people; with the real number where 0 was asked for."""
    address = port.getHost()
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return f"{address.host}:{address.port}" if isinstance(address, IPv4Address) else name
