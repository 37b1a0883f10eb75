"""S3 servers for tests besides Ceph: moto's, and a proxy before any of them that does what networks do.

Real ones, on loopback, in a process or a thread of their own.  Ceph is in ``tests/ceph.py``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from twisted.trial.unittest import SkipTest

from .ceph import ACCESS_KEY, BUCKET, SECRET_KEY, make_bucket
from .realserver import DEADLINE, free_port, wait_until

__all__ = ["Proxy", "credentials_file", "moto_server", "run_with_us"]

_moto: str | None = None


def moto_server() -> str:
    """The address of moto's server of this run of tests, in which there is the bucket ``mail``.

    It keeps conditions as long as nobody else asks at the same time: it is no store for real mail.

    :raises SkipTest: where it is not installed.
    """
    global _moto
    if find_spec("moto") is None or find_spec("flask") is None:
        raise SkipTest("moto's server is not installed: it comes with the extra test")
    if _moto is None:
        port = free_port()
        run_with_us([sys.executable, "-m", "moto.server", "-p", str(port)], port)
        _moto = f"http://127.0.0.1:{port}"
        make_bucket(_moto, BUCKET)
    return _moto


def run_with_us(command: Sequence[str], port: int, *, folder: Path | None = None) -> None:
    """Start a server, and wait until it listens; it ends when this process does, however that ends.

    :param folder: of its own, which goes with it.
    """
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    atexit.register(_end, process, os.getpid(), folder)
    wait_until(lambda: _listens(port), f"{command[0]} listens")


def _end(process: subprocess.Popen[bytes], parent: int, folder: Path | None) -> None:
    # And not at the end of a process that was forked.
    if os.getpid() == parent:
        process.kill()
        process.wait(DEADLINE)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def credentials_file(folder: Path) -> Path:
    """A file for ``--store-credentials`` that fits moto's server and Ceph."""
    path = folder / "credentials"
    path.touch(0o600)
    path.write_text(f"AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n")
    return path


class Proxy:
    """A TCP proxy on loopback that can stop forwarding, and go on.

    Threads of its own do the work; whoever waits in one of them ends when the proxy is closed.

    :ivar endpoint: where it listens, as an address.
    :ivar connections: how many have been made.

    :param endpoint: where it forwards to.
    """

    def __init__(self, endpoint: str) -> None:
        where = urlsplit(endpoint)
        self._target = (where.hostname or "", where.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        # Each side goes on while it is set.
        self._requests, self._answers = threading.Event(), threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._wanted = b""
        self._do: Callable[[], object] | None = None
        self.go_on()
        self._start(self._accept)

    def hang(self) -> None:
        """Forward nothing from now on, and accept connections all the same."""
        self._requests.clear()
        self._answers.clear()

    def hang_answers(self) -> None:
        """Forward no answers from now on: what is asked is done, and nobody is told."""
        self._answers.clear()

    def go_on(self) -> None:
        """Forward again, also what has come meanwhile."""
        self._requests.set()
        self._answers.set()

    def cut(self) -> None:
        """End all connections that there are."""
        with self._lock:
            for one in self._open:
                # Whoever waits in recv wakes up, which close alone does not do.
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def when(self, request: bytes, do: Callable[[], object]) -> None:
        """Do something once, just before the first octets that hold these are forwarded.

        :param request: octets of a request's first line, such as ``b"PUT /mail/l/"``.
        :param do: what to do, in a thread of the proxy's.
        """
        with self._lock:
            self._wanted, self._do = request, do

    @property
    def done(self) -> bool:
        """Whether what was to be done has begun."""
        return self._do is None

    def close(self) -> None:
        """End it."""
        self._closed = True
        self.cut()
        self.go_on()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _start(self, work: Callable[..., object], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        self._requests.wait()
        try:
            server = socket.create_connection(self._target, DEADLINE)
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.settimeout(None)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        answers = threading.Thread(target=self._forward, args=(server, client, self._answers), daemon=True)
        answers.start()
        self._forward(client, server, self._requests)
        answers.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _forward(self, source: socket.socket, to: socket.socket, may: threading.Event) -> None:
        try:
            while data := source.recv(1 << 16):
                if may is self._requests:
                    self._look_for(data)
                may.wait()
                to.sendall(data)
        except OSError:
            pass
        finally:
            may.wait()
            for one, how in ((to, socket.SHUT_WR), (source, socket.SHUT_RD)):
                with suppress(OSError):
                    one.shutdown(how)

    def _look_for(self, data: bytes) -> None:
        with self._lock:
            do = self._do if self._wanted in data else None
            if do is not None:
                self._do = None
        if do is not None:
            do()
