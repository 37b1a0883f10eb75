"""Accepting connections when the process has no file descriptor left.

Twisted accepts them then with one that it keeps for it, and closes them without a word.
Here they wait, in the kernel, until there is one: they are served, or hear why not.

This is the one file that knows where Twisted's ports keep their socket.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger

from ..clock import steady

__all__ = ["NONE_LEFT", "PAUSE", "Patience", "wait_for_descriptors"]

log = Logger()

#: Seconds before it is tried again.
PAUSE = 0.1
#: Seconds between two lines about it.
QUIET = 60.0
#: The errors of a process, or a system, that has none left.
NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Patience:
    """Has a port wait where it cannot accept now.

    :param port: Twisted's, or what reads and is ``connected`` as those do.
    """

    def __init__(self, port: Any, clock: IReactorTime) -> None:
        self._port = port
        self._clock: IReactorTime = steady(clock)
        self._told: float | None = None

    def pause(self, error: OSError) -> None:
        """It reads again in a while."""
        self._port.stopReading()
        self._clock.callLater(PAUSE, self._go_on)
        now = self._clock.seconds()
        if self._told is None or now - self._told >= QUIET:
            self._told = now
            log.warn("new connections have to wait: {why}", why=error.strerror)

    def _go_on(self) -> None:
        if self._port.connected:
            self._port.startReading()


class _PatientSocket:
    """A listening socket that accepts later what it cannot accept now."""

    def __init__(self, port: tcp.Port, clock: IReactorTime) -> None:
        self._socket: socket.socket = port.socket
        self._patience = Patience(port, clock)

    def __getattr__(self, name: str) -> object:
        return getattr(self._socket, name)

    def accept(self) -> tuple[socket.socket, object]:
        try:
            return self._socket.accept()
        except OSError as error:
            if error.errno not in NONE_LEFT:
                raise
            self._patience.pause(error)
            raise BlockingIOError(errno.EAGAIN, "no descriptor left") from error


def wait_for_descriptors(port: IListeningPort, clock: IReactorTime) -> None:
    """Have a port of Twisted's wait for a descriptor where it has none; any other kind stays as it is."""
    if isinstance(getattr(port, "socket", None), socket.socket):
        port.socket = _PatientSocket(port, clock)  # type: ignore[attr-defined, arg-type]
