"""Where a server listens: which ports its settings ask for, and the endpoints that open them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from ..config.settings import Settings
from ..errors import BadSetting
from ..installation import install_hint
from ..net.types import IReactor
from ..net.unix_sockets import unnamed_socket

__all__ = ["PASSWORDS", "Port", "announce", "check_ports", "endpoint_of", "http_ports_of", "ports_of"]

log = Logger()

#: Connections that the kernel may hold while the reactor is busy; Twisted's 50
#: is short when a hundred mail programs poll at the full hour.
BACKLOG = 1024

#: Endpoints that are sockets, which workers can inherit.
SOCKETS = ("tcp", "tcp6", "unix", "systemd")


#: A TCP endpoint in words: kind, number and interface.
_TCP = re.compile(r"(tcp6?):(?:port=)?(\d+)(?::interface=([^:\\]*(?:\\:[^:\\]*)*))?")

#: What is spoken where users change their passwords.
PASSWORDS = "password page"


@dataclass(frozen=True)
class Port:
    """One place to listen."""

    #: What is spoken there: ``POP3``, ``SMTP``, ``submission``, ``LMTP`` or :data:`PASSWORDS`.
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

    @property
    def proxied(self) -> bool:
        """Whether a proxy connects there that tells its clients' addresses."""
        return isinstance(self.where, str) and self.where.startswith("haproxy:")

    @property
    def description(self) -> str:
        """Of the endpoint; empty for a number."""
        return self.where.removeprefix("haproxy:") if isinstance(self.where, str) else ""


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
    tls = settings.tls.wanted
    yield from (
        Port(PASSWORDS, "password-listen", one, tls=tls and not one.startswith("unix:"))
        for one in settings.password_listen
    )
    if settings.password_port is not None:
        yield Port(PASSWORDS, "password-port", settings.password_port, tls=tls)


def http_ports_of(settings: Settings) -> Iterator[Port]:
    """Where metrics and the inspector are served, which are always one process's."""
    if settings.metrics is not None:
        yield Port("metrics", "metrics", settings.metrics)
    if settings.inspector_port is not None:
        yield Port("the inspector", "inspector-port", f"tcp:{settings.inspector_port}:interface=127.0.0.1")
    if settings.inspector is not None:
        yield Port("the inspector", "inspector", settings.inspector)


def check_ports(settings: Settings) -> None:
    """See that no two of them are the same; of other programs the system tells.

    :raises pop3toy.errors.BadSetting: with the second one.
    """
    taken: dict[tuple[str, str], Port] = {}
    for port in (*ports_of(settings), *http_ports_of(settings)):
        place = _place(port, settings)
        if place is None:
            continue
        if (other := taken.setdefault(place, port)) is not port:
            raise BadSetting(
                port.option,
                f" {port.where}: this is for {other.spoken} already (--{other.option}); give each its own",
            )


def _place(port: Port, settings: Settings) -> tuple[str, str] | None:
    """Address and number, or the kind of endpoint and what follows; ``None`` of any port that is free."""
    if isinstance(port.where, int):
        return (settings.interface, str(port.where)) if port.where else None
    kind, _, rest = port.description.partition(":")
    found = _TCP.fullmatch(port.description)
    if found is None:
        # Of a path, what follows it is mode and lock.
        return kind, rest.partition(":")[0] if kind == "unix" else rest
    host = (found[3] or {"tcp": "0.0.0.0", "tcp6": "::"}[kind]).replace("\\", "")
    return (host, found[2]) if int(found[2]) else None


def endpoint_of(port: Port, settings: Settings, reactor: IReactor) -> tuple[str, IStreamServerEndpoint]:
    """The endpoint of a port, without what a proxy says there; and its name for people.

    :param reactor: opens it.
    :raises pop3toy.errors.BadSetting: for a description that cannot be read.
    """
    if isinstance(port.where, int):
        host = settings.interface
        kind, name = (TCP6ServerEndpoint, f"[{host}]") if ":" in host else (TCP4ServerEndpoint, host)
        return f"{name}:{port.where}", kind(reactor, port.where, BACKLOG, host)
    # Twisted's own haproxy: would have us greet before the client's address is known.
    try:
        return port.where, _described(port.description, settings, reactor)
    except Exception as error:
        raise BadSetting(port.option, f" {port.where}: {_misread(port.description, error)}") from error


class _NotForWorkers(ValueError):
    """A kind of endpoint that several processes cannot share."""


def _described(description: str, settings: Settings, reactor: IReactor) -> IStreamServerEndpoint:
    kind = description.partition(":")[0]
    if settings.workers is not None and kind not in SOCKETS:
        instead = "; TLS is for --tls-port and --tls-listen, with --certificate" if kind == "ssl" else ""
        raise _NotForWorkers(f"with --workers there are {', '.join(SOCKETS)}{instead}")
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
    if kind in ("tcp", "tcp6") and re.search(r"\[|[^\\]::|interface=[0-9A-Fa-f]*:", description):
        return r"the colons of an IPv6 address are written \:, as in tcp6:2590:interface=\:\:1"
    # A TypeError names Python's functions; a ValueError of int() no option.
    why = f" ({error})" if isinstance(error, ValueError) and "int()" not in str(error) else ""
    example = "unix:/run/pop3toy/pop3.sock:mode=660" if kind == "unix" else "tcp:2590:interface=127.0.0.1"
    return f"this endpoint cannot be read{why}; one that can is {example}"


def announce(port: Port, opened: IListeningPort, name: str, reactor: IReactor, hint: str = "") -> None:
    """Say that a port is open, with the real number where 0 was asked for.

    Said when the reactor runs: a program that waits for this line may then end the server with a signal.

    :param name: of the endpoint, for people.
    """
    address = opened.getHost()
    if isinstance(address, IPv6Address):
        name = f"[{address.host}]:{address.port}"
    elif isinstance(address, IPv4Address):
        name = f"{address.host}:{address.port}"
    what = port.spoken + hint
    reactor.callWhenRunning(log.info, "pop3toy listens for {what} on {name}", what=what, name=name)
