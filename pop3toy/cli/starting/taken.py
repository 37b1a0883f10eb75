"""Whether a place to listen is free, and who has it if not: by binding to it, and by Linux's /proc."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred

__all__ = ["Holder", "Recorder", "Where", "first_port_for_all", "holders", "is_served", "try_to_bind"]

#: The state of a listening socket in /proc/net/tcp.
_LISTENS: Final = "0A"


class Where(NamedTuple):
    """What an endpoint opens: an address and a TCP port, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""


class Recorder:
    """In the place of a reactor: writes down what an endpoint would open."""

    def __init__(self) -> None:
        self.asked: list[Where] = []

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Deferred[Any]:
        """See ``IReactorTCP``."""
        self.asked.append(Where(interface, port))
        return Deferred()

    def listenUNIX(
        self, address: str | bytes, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Deferred[Any]:
        """See ``IReactorUNIX``."""
        self.asked.append(Where("", 0, os.fsdecode(address)))
        return Deferred()


class Holder(NamedTuple):
    """A process that has a port."""

    pid: int
    name: str
    #: Its command line.
    command: str

    @property
    def is_pop3toy(self) -> bool:
        """Whether it is a server of ours, which gives the port back when it is started again."""
        return "pop3toy" in self.command


def try_to_bind(where: Where) -> socket.socket | OSError:
    """Bind as the server would; the caller closes the socket, and holds it as long as others are tried.

    :return: why it cannot be had, otherwise.
    """
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        address: Any = (where.host, where.port)
        if family == socket.AF_INET6:
            # The scope of a link-local address may stand behind it.
            address = socket.getaddrinfo(where.host, where.port, family, socket.SOCK_STREAM)[0][4]
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        # Two may be bound, but only one of them listens.
        opened.listen(1)
    except OSError as error:
        opened.close()
        return error
    return opened


def first_port_for_all() -> int:
    """The first port that other users than root may open."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    except (OSError, ValueError):
        return 1024


def holders(port: int) -> list[Holder]:
    """The processes that listen on a TCP port of any address, as far as this user may see them."""
    inodes = set(_listening(port))
    found = []
    for folder in Path("/proc").glob("[0-9]*") if inodes else ():
        with suppress(OSError):
            if any(os.readlink(one) in inodes for one in _descriptors(folder)):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found.append(
                    Holder(int(folder.name), (folder / "comm").read_text("utf-8", "replace").strip(), command)
                )
    return sorted(found)


def _descriptors(folder: Path) -> Iterator[Path]:
    for one in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):
            if one.is_symlink():
                yield one


def _listening(port: int) -> Iterator[str]:
    """What the descriptors of sockets that listen there lead to."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text("ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{words[9]}]"


def is_served(path: str) -> bool | OSError:
    """Whether somebody listens on a Unix socket; or why that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            return error if error.errno != errno.EAGAIN else True
    return True
