"""A server with a fault: a go-between in front of a right one, which it contradicts.

Blocking, a thread for each connection, one command after the other.  TLS is the
go-between's own, so that what is said within it can be changed as well.  A fault is a function,
``fault(session, line, answer) -> octets``: ``line`` is what the client said (empty for the
greeting), ``answer()`` asks the right server and gives its whole answer, and what is returned is sent.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

__all__ = ["BadServer", "Fault", "Session", "right"]

#: Seconds after which a thread gives up.
PATIENCE = 30.0

Fault = Callable[["Session", bytes, Callable[[], bytes]], bytes]


def right(session: Session, line: bytes, answer: Callable[[], bytes]) -> bytes:
    """No fault."""
    return answer()


class Session:
    """One connection."""

    def __init__(self, server: BadServer, client: socket.socket) -> None:
        self.server = server
        self.client = client
        self.buffer = b""
        #: How many reads the last line took.
        self.reads = 0
        self.encrypted = self.logged_in = self.closing = False
        #: What a fault may want: QUIT ends nothing; a dropped client's lock stays; STLS forgets nothing, or
        #: keeps what came behind it; TLS ends without a word.
        self.stays = self.holds = self.remembers = self.keeps_input = self.ragged = False
        #: Seconds of silence after which it closes.
        self.idle = PATIENCE
        self.exchange = False
        #: What a fault keeps for itself.
        self.notes: dict[str, Any] = {}
        self.connect()

    def connect(self) -> None:
        """Begin with the right server."""
        self.right = socket.create_connection(("127.0.0.1", self.server.right_port), PATIENCE)
        self.file = self.right.makefile("rb")
        self.greeting = self.file.readline()
        if self.server.context and not self.server.implicit:
            # Behind STLS there is another connection, with another timestamp.
            self.greeting = re.sub(rb" <.*>", b"", self.greeting)

    def ask(self, line: bytes) -> bytes:
        """Ask the right server; empty if it has closed."""
        with contextlib.suppress(OSError):
            self.right.sendall(line)
        words = line.split()
        found = self.file.readline()
        if found.startswith(b"+OK") and words and not self.exchange:
            verb = words[0].upper()
            alone = len(words) == 1 and verb in (b"LIST", b"UIDL", b"AUTH")
            if alone or verb in (b"CAPA", b"RETR", b"TOP"):
                while (line := self.file.readline()) != b".\r\n":
                    assert line, found
                    found += line
                found += line
        if found.startswith(b"+OK") and (self.exchange or words[:1] in ([b"PASS"], [b"APOP"], [b"AUTH"])):
            self.logged_in = b"\r\n." not in found
        self.exchange = found.startswith(b"+ ")
        return found

    def answer(self, line: bytes) -> bytes:
        """What a right server with this one's TLS says; that of the one behind is not used."""
        verb = line.split()[:1]
        offered = self.server.context and not self.encrypted and not self.logged_in
        if verb == [b"STLS"]:
            return b"+OK begin\r\n" if offered else b"-ERR no\r\n"
        said = self.ask(line)
        if verb == [b"CAPA"]:
            said = said.replace(b"\r\nSTLS\r\n", b"\r\n")
            if offered:
                said = said.replace(b"\r\nTOP\r\n", b"\r\nTOP\r\nSTLS\r\n")
        return said

    def start_tls(self) -> None:
        """Shake hands, and begin anew."""
        context = self.server.context
        assert context is not None
        if not self.keeps_input:
            self.buffer = b""
        self.client = context.wrap_socket(self.client, server_side=True)
        self.encrypted = True
        if not self.remembers:
            self.leave()
            self.connect()

    def read_line(self) -> bytes:
        """A line of the client's, or empty at its end."""
        self.reads = 0
        while b"\n" not in self.buffer:
            self.client.settimeout(self.idle)
            data = self.client.recv(65536)
            self.reads += 1
            if not data:
                return b""
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"

    def ended(self) -> bool:
        """Whether the client has said that nothing more comes."""
        ready = select.select([self.client], [], [], 0.2)[0]
        return bool(ready) and self.client.recv(1, socket.MSG_PEEK) == b""

    def run(self) -> None:
        """The whole conversation."""
        fault = self.server.fault
        self.send(fault(self, b"", lambda: self.greeting))
        while not self.closing and (line := self.read_line()):
            self.server.heard.append(line)
            said = fault(self, line, lambda line=line: self.answer(line))
            self.send(said)
            verb = line.split()[:1]
            if verb == [b"STLS"] and said.startswith(b"+OK") and not self.encrypted and not self.logged_in:
                self.start_tls()
            elif (verb == [b"QUIT"] and not self.stays and not self.exchange) or not said:
                self.closing = self.closing or not self.notes.get("silent")

    def send(self, said: bytes) -> None:
        """Send an answer."""
        with contextlib.suppress(OSError):
            self.client.sendall(said)

    def leave(self) -> None:
        """End with the right server, which waits for it."""
        if self.holds:
            self.server.held.append(self.right)
        else:
            with contextlib.suppress(OSError):
                self.right.shutdown(socket.SHUT_WR)
                self.right.settimeout(PATIENCE)
                while self.right.recv(65536):
                    pass
            self.right.close()
            self.file.close()

    def close(self) -> None:
        """End with both."""
        self.leave()
        if isinstance(self.client, ssl.SSLSocket) and not self.ragged:
            with contextlib.suppress(OSError, ValueError):
                self.client.settimeout(0.1)
                self.client.unwrap()
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)
        self.client.close()


class BadServer:
    """Listens on a free port of loopback; a context manager that ends all of it."""

    def __init__(
        self,
        right_port: int,
        fault: Fault = right,
        *,
        context: ssl.SSLContext | None = None,
        implicit: bool = False,
    ) -> None:
        self.right_port, self.fault, self.context, self.implicit = right_port, fault, context, implicit
        self.held: list[socket.socket] = []
        #: What clients said, in the order in which it was read.
        self.heard: list[bytes] = []
        #: What a fault keeps over sessions.
        self.notes: dict[str, Any] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(self, client)
        with contextlib.suppress(OSError):
            if self.implicit:
                assert self.context is not None
                client.settimeout(PATIENCE)
                session.client = self.context.wrap_socket(client, server_side=True)
                session.encrypted = True
            session.run()
        session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for held in self.held:
            held.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
