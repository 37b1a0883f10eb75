"""Unix sockets: those that another program has opened, and those that a server that died has left behind.

Twisted sets the mode of an adopted Unix socket to 0666 and removes it in the end, though
it is systemd's.  It takes a socket for another's as long as any process has the number
of the one that opened it, which as process 1 of a container is always so.  In the end it
removes whatever stands where its own socket was, which may be another server's by then.

This is the one file that knows how Twisted's ports adopt a socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from twisted.internet import unix
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from ..files import Owner, opening_in, why_unusable
from .types import IReactor

__all__ = ["UnixListening", "unnamed_socket"]

#: The first descriptor that systemd hands over (sd_listen_fds(3)).
_FIRST = 3
#: Octets of a path in ``sun_path`` (unix(7)), which ends with a zero.
LONGEST = 107
_BY_INDEX = re.compile(r"systemd:(?:domain=)?(INET6?|UNIX):(?:index=)?(\d+)")


class _AdoptedUnixPort(unix.Port):
    """A listening Unix socket whose file is another program's: its mode is not set, and it is not removed."""

    # When one process closes it, Twisted would shut the socket down for all that have it.
    _shouldShutdown = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # To Twisted a name that begins so is in no file system.
        self._bindPath = b"\0" + self._bindPath


def _closed(port: unix.Port, file: tuple[int, int] | None, reason: Failure) -> None:
    """In place of ``connectionLost``, which removes whatever stands there, and closes nothing if that fails.

    :param file: which one the port has made.  No other gets its number as long as the socket
        is bound, also if it is removed.
    """
    if file is not None and _which(port._bindPath) == file:
        with suppress(OSError):
            os.unlink(port._bindPath)
        # Otherwise the lock is another server's as well; it may have been removed, too.
        if port.lockFile is not None:
            with suppress(OSError, ValueError):
                port.lockFile.unlock()
    super(unix.Port, port).connectionLost(reason)


def _which(path: bytes) -> tuple[int, int] | None:
    """Which file it is, if there is one."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class UnixListening:
    """A reactor that listens on Unix sockets as their owners expect it.

    :param reactor: what does all the rest.
    :param owner: the user that root will become, whose sockets they are.
    """

    def __init__(self, reactor: IReactor, owner: Owner | None = None) -> None:
        self._reactor = reactor
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUNIX(
        self,
        address: str,
        factory: ServerFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """See :class:`twisted.internet.interfaces.IReactorUNIX`.

        A socket at which no server answers is taken over.

        :raises CannotListenError: if a server answers, among other reasons.
        """
        if address.startswith("\0"):
            # It is in no file system.
            return self._reactor.listenUNIX(address, factory, backlog, mode, wantPID)
        if why := _why_not(address):
            raise CannotListenError(None, address, OSError(errno.EINVAL, why))
        # As root: whether a server answers may be hidden from others.
        with _alone_at(address) as alone:
            if alone:
                try:
                    _remove_dead(address)
                except OSError as error:
                    raise CannotListenError(None, address, error) from error
            try:
                port = self._listen(address, factory, backlog, mode, wantPID)
            except CannotListenError:
                if alone:
                    _remove_own_lock(address)
                raise
            if isinstance(port, unix.Port):
                port.connectionLost = partial(_closed, port, _which(port._bindPath))  # type: ignore[method-assign]
            return port

    def _listen(
        self, address: str, factory: ServerFactory, backlog: int, mode: int, wantPID: bool
    ) -> IListeningPort:
        with opening_in(os.path.dirname(os.path.abspath(address)), self._owner) as to_give:
            port = self._reactor.listenUNIX(address, factory, backlog, mode, wantPID)
            if to_give and self._owner is not None:
                os.chown(address, *self._owner, follow_symlinks=False)
            return port

    def adoptStreamPort(
        self, descriptor: int, family: socket.AddressFamily, factory: ServerFactory
    ) -> IListeningPort:
        """See :class:`twisted.internet.interfaces.IReactorSocket`; a Unix socket's file is left alone."""
        if family != socket.AF_UNIX:
            return self._reactor.adoptStreamPort(descriptor, family, factory)
        port: _AdoptedUnixPort = _AdoptedUnixPort._fromListeningDescriptor(self._reactor, descriptor, factory)
        port.startListening()
        return port


@contextmanager
def _alone_at(path: str) -> Iterator[bool]:
    """Keep another server from looking and opening at the same moment; whether that was possible.

    By a file of our own, which no other user may open: a folder can be locked by every user that may read it.
    """
    name = f"{path}.starting"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        # Listening there will fail with the reason, if it matters.
        yield False
        return
    alone = False
    try:
        with suppress(OSError):
            # Given back when this process ends, however that happens.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that had it before has removed it.
            alone = os.path.samestat(os.fstat(descriptor), os.lstat(name))
        yield alone
    finally:
        if alone:
            with suppress(OSError):
                os.unlink(name)
        os.close(descriptor)


def _remove_dead(path: str) -> None:
    """Remove a socket at which no server answers, and Twisted's lock beside it.

    :raises OSError: if a server answers, or it cannot be told or removed.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            # Another program's file: binding to it says that the name is taken.
            return
    except FileNotFoundError:
        pass
    else:
        if _answers(path):
            raise OSError(errno.EADDRINUSE, "a server answers there already")
        os.unlink(path)
    lock = f"{path}.lock"
    if os.path.islink(lock):
        os.unlink(lock)


def _remove_own_lock(path: str) -> None:
    """Remove the lock that Twisted leaves where it could not open a socket."""
    lock = f"{path}.lock"
    with suppress(OSError):
        if os.readlink(lock) == str(os.getpid()):
            os.unlink(lock)


def _why_not(path: str) -> str | None:
    """Why no socket can be made there, where the system's words do not tell; ``None`` otherwise."""
    if len(os.fsencode(path)) > LONGEST:
        return f"the path of a Unix socket has {LONGEST} octets at most"
    folder = os.path.dirname(os.path.abspath(path))
    if why := why_unusable(folder, stat.S_ISDIR, "folder", os.X_OK, "enter"):
        return why
    if not os.path.basename(path):
        return "a path is wanted, as in unix:/run/pop3toy/pop3.sock"
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        return "there is a file or folder of that name already"
    return None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            # More than one wait for an answer already.
            return True
        except ConnectionRefusedError:
            return False
    return True


def unnamed_socket(reactor: IReactor, description: str) -> IStreamServerEndpoint | None:
    """The endpoint of ``systemd:domain=DOMAIN:index=N`` where sockets were handed over without names.

    Names are optional (sd_listen_fds(3)); Twisted knows none of the sockets then.
    """
    found = _BY_INDEX.fullmatch(description)
    if found is None or int(found[2]) >= _unnamed_sockets():
        return None
    family = getattr(socket, f"AF_{found[1]}")
    endpoint: IStreamServerEndpoint = AdoptedStreamServerEndpoint(reactor, _FIRST + int(found[2]), family)
    return endpoint


@cache
def _unnamed_sockets() -> int:
    """How many sockets without names this process has got.

    Twisted has taken the variables from the environment when it was imported, so this looks at
    those with which the process was started; once, because later the number may be another file's.
    """
    try:
        pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return 0
    began = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
    for_us = began.get(b"LISTEN_PID") == str(os.getpid()).encode() and not began.get(b"LISTEN_FDNAMES")
    count = began.get(b"LISTEN_FDS", b"")
    return int(count) if for_us and count.isdigit() else 0
