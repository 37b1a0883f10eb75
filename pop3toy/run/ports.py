"""Where the server listens, and how it ends when it cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger

from ..config.cmdline import Options
from ..installation import install_hint
from ..interfaces import Gatekeeper
from ..net.proxied import ProxiedEndpoint
from ..net.unix_sockets import UnixListening, unnamed_socket
from .service import CannotStart, ListeningService
from .workers.sockets import Inheritance, OpenedForOthers, stand_in

__all__ = ["Ports", "give_up", "refuse_to_start"]

log = Logger()

#: Connections that the kernel may hold while the reactor is busy; Twisted's 50
#: is short when a hundred mail programs poll at the full hour.
BACKLOG = 1024

#: Endpoints that are sockets, which workers can inherit.
SOCKETS = ("tcp", "tcp6", "ssl", "unix", "systemd")


class _NotForWorkers(ValueError):
    """A kind of endpoint that several processes cannot share."""


def refuse_to_start(why: str) -> NoReturn:
    """End before anything was started: one line, exit status 1."""
    sys.exit(f"pop3toy: {why}")


class Ports:
    """Opens the ports of one server.

    :param server: whose parts the listening services become.
    """

    def __init__(self, options: Options, reactor: Any, server: MultiService) -> None:
        self._options = options
        self._server = server
        self._inherits = isinstance(reactor, Inheritance)
        # Whoever opens sockets for others listens so already.
        self._reactor: Any = (
            reactor if self._inherits or isinstance(reactor, OpenedForOthers) else UnixListening(reactor)
        )

    def listen(
        self,
        endpoints: list[tuple[str, IStreamServerEndpoint]],
        factory: Any,
        what: str,
        *,
        tls: Any = None,
        next_step: Callable[[Any], str] | None = None,
    ) -> None:
        """Listen when the server starts; when it stops, let the sessions of the factory end.

        :param factory: of the protocol; with a ``drain``.
        :param what: what is spoken there, for the log.
        :param next_step: says what people may do next, given the address of a port; said of the first.
        :param tls: a context factory, for TLS from the first octet on (RFC 8314 section 3).
        """
        listening: IProtocolFactory = factory
        if tls is not None:
            from twisted.protocols.tls import TLSMemoryBIOFactory

            listening = TLSMemoryBIOFactory(tls, False, factory)

        steps = [next_step] if next_step is not None else []

        def ready(name: str, port: IListeningPort) -> None:
            if self._inherits:
                # The supervisor has said so.
                return
            # Said when the reactor runs: whoever waits for this line may end the
            # server with a signal then.
            name = _name_of(port, name)
            self._reactor.callWhenRunning(
                log.info, "pop3toy listens for {what} on {name}", what=what, name=name
            )
            if steps:
                self._reactor.callWhenRunning(log.info, "{text}", text=steps.pop()(port.getHost()))

        def failed(why: CannotStart) -> None:
            if self._inherits:
                refuse_to_start(str(why))
            give_up(self._options, why)

        service = ListeningService(endpoints, listening, ready=ready, failed=failed, drained=factory)
        service.setServiceParent(self._server)

    def tcp(self, port: int) -> tuple[str, IStreamServerEndpoint]:
        """A TCP port on the address that ``--interface`` says."""
        host = self._options["interface"]
        if ":" in host:
            return f"[{host}]:{port}", TCP6ServerEndpoint(self._reactor, port, BACKLOG, host)
        return f"{host}:{port}", TCP4ServerEndpoint(self._reactor, port, BACKLOG, host)

    def described(
        self, option: str, description: str, gatekeeper: Gatekeeper | None = None
    ) -> tuple[str, IStreamServerEndpoint]:
        """An endpoint from its description; one that cannot be read ends the start.

        :param gatekeeper: counts connections of whom a proxy has not told the client's address.
        """
        # Twisted's own haproxy: would have us greet before the client's address is known.
        kind, _, behind = description.partition(":")
        proxied = kind == "haproxy"
        endpoint: IStreamServerEndpoint
        try:
            endpoint = self._endpoint(behind if proxied else description)
        except Exception as error:
            refuse_to_start(
                f"--{option} {description}: {_misread(behind if proxied else description, error)}"
            )
        if proxied:
            endpoint = ProxiedEndpoint(endpoint, self._reactor, gatekeeper)
        return description, endpoint

    def _endpoint(self, description: str) -> IStreamServerEndpoint:
        kind = description.partition(":")[0]
        if self._options["workers"] is not None and kind not in SOCKETS:
            raise _NotForWorkers(f"with --workers there are {', '.join(SOCKETS)}")
        if kind == "systemd" and self._inherits:
            # The variables that systemd sets are for the process that it has started.
            return stand_in(self._reactor, BACKLOG)
        if (endpoint := unnamed_socket(self._reactor, description)) is None:
            endpoint = serverFromString(self._reactor, description)
        return endpoint


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


def _name_of(port: IListeningPort, name: str) -> str:
    """A listening port for people; with the real number where 0 was asked for."""
    address = port.getHost()
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return f"{address.host}:{address.port}" if isinstance(address, IPv4Address) else name


def give_up(options: Options, why: CannotStart) -> NoReturn:
    """End the process with one line and exit status 1, and leave nothing behind.

    twistd would print a traceback for an exception, and forget its pid file
    for a SystemExit; so both are done here.
    """
    twistd = options.twistd
    if twistd.get("logfile") or twistd.get("syslog") or not twistd.get("nodaemon"):
        # Else the log is on the terminal, and it would stand there twice.
        log.critical("{why}", why=str(why))
    print(f"pop3toy: {why}", file=sys.__stderr__, flush=True)
    pid_file = twistd.get("pidfile")
    if pid_file:
        try:
            os.unlink(pid_file)
        except OSError:
            pass
    pipe = twistd.get("statusPipe")
    if pipe is not None:
        # The process that waits for the daemon prints this and exits with 1; then somebody may
        # try again at once.
        os.write(pipe, f"1 {why}".encode("ascii", "replace")[:100])
        os.close(pipe)
    raise SystemExit(1)
