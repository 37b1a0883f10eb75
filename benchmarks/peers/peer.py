"""What every peer promises, and what it is given."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.datasets import World
from benchmarks.processes import Server

#: Seconds that a server may take until it greets.
START_PATIENCE = 60.0


class NotHere(Exception):
    """A peer that cannot take part; the text says why, and names the Debian package if there is one."""


class DoesNotStart(Exception):
    """A peer that is installed and fails; the text is what it logged."""


@dataclass(frozen=True)
class Setting:
    """Where a server runs: its mail, a scratch directory of its own, and perhaps TLS.

    :param certificate: PEM file of the certificate and, in ``key``, its key;
        ``None`` where TLS is not measured.
    """

    world: World
    scratch: Path
    certificate: Path | None = None
    key: Path | None = None


class Peer:
    """One server.  ``start`` and ``stop`` may alternate any number of times."""

    #: False for a server that has no TLS.
    has_tls: ClassVar[bool] = True
    #: How many idle sessions it may be asked to hold; ``None`` for any number.
    most_held: ClassVar[int | None] = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.tls_port = 0
        self.server: Server | None = None

    def version(self) -> str:
        """What is measured, in words.

        :raises NotHere: if it is not installed.
        """
        raise NotImplementedError

    def launch(self, setting: Setting) -> Server:
        """Start the process; sets ``port`` and, if the setting has a certificate, ``tls_port``."""
        raise NotImplementedError

    def start(self, setting: Setting) -> None:
        """Start, and return when it greets.

        :raises NotHere: if something that it is built with is missing.
        :raises DoesNotStart: if it ends or never greets.
        """
        setting.scratch.mkdir(parents=True, exist_ok=True)
        self.server = self.launch(setting)
        deadline = time.monotonic() + START_PATIENCE
        while not self._greets():
            if self.server.process.poll() is not None or time.monotonic() > deadline:
                why = self.server.complaint()
                self.stop()
                raise DoesNotStart(why)
            time.sleep(0.02)

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                if not sock.recv(512).startswith(b"+OK"):
                    return False
                sock.sendall(b"QUIT\r\n")
                while sock.recv(512):
                    pass
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it; harmless when it does not run."""
        if self.server is not None:
            self.server.stop()
            self.server = None


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at the moment, none of them twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
