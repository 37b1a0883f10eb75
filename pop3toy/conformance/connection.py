"""One connection: reads liberally, keeps every octet, never waits or reads for ever.

Here a bare LF ends a line and ``+ok`` is a yes, so that one fault of a server hides no other:
what is strict are the checks, which have the octets as they came.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .budget import Budget
from .replies import Block, Reply, shown
from .results import Failed, NotTested
from .trace import Trace

__all__ = [
    "BODY",
    "LINE",
    "Closed",
    "Connection",
    "NoHandshake",
    "Silent",
    "TooMuch",
    "Trouble",
]

#: Octets of a line beyond which nothing more of it is read; RFC 1939 allows 512.
LINE = 65_536
#: Octets of a message beyond which nothing more of it is read, those of another multi-line reply, and lines.
BODY, LISTING, LINES = 64 << 20, 16 << 20, 1_000_000


class Trouble(Failed):
    """The server did not answer as anything could be answered."""


class Closed(Trouble):
    """It closed the connection where something was due."""


class Silent(Trouble):
    """It said nothing, or not all of it, in time."""


class NoHandshake(Trouble):
    """TLS did not come about."""


class TooMuch(Trouble):
    """It said more than is read."""


class Connection:
    """A connection; a context manager that drops it without a word.

    :param clock: seconds, of a clock that nobody sets.
    :param timeout: seconds that the server has for each answer, however it sends it.
    :param budget: the time of the check that it is for.
    """

    def __init__(
        self,
        sock: socket.socket,
        trace: Trace,
        clock: Callable[[], float],
        timeout: float,
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget or Budget(clock, timeout, 0)
        self._socket = sock
        self._session = trace.begin()
        self._trace = trace
        self._clock = clock
        self._timeout = timeout
        self._buffer = bytearray()
        #: The server's first line.
        self.greeting = b""
        #: Whether a message was marked: then QUIT would remove it.
        self.marked = False
        #: Whether there is an answer to QUIT, or the connection is closed.
        self.over = False
        #: Whether TLS was closed without its close_notify.
        self.ragged = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Close it without a word."""
        self.over = True
        self._socket.close()

    # -- what is sent ------------------------------------------------------------

    def send(self, data: bytes, shown: str | None = None) -> None:
        """Send octets as they are.

        :param shown: what to show for them, if there is a secret in them.
        """
        self._trace.add(self._session, "C", shown if shown is not None else data)
        self._put(data)

    def send_in_pieces(self, data: bytes) -> None:
        """Send octets one by one, each in a packet of its own as far as the kernel lets them be."""
        self._trace.add(self._session, "C", data)
        for at in range(len(data)):
            self._put(data[at : at + 1])
            # Or one read of the server would get them all.
            self.waiting(0.01)

    def _put(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(data)
        except TimeoutError:
            self._budget.spoil()
            raise Silent(f"the server reads nothing for {self._timeout:g} s") from None
        except OSError:
            # What it said before it closed may be waiting; reading tells.
            pass

    def end_input(self) -> None:
        """Say that nothing more will be sent, and go on reading.

        :raises NotTested: within TLS.
        """
        if isinstance(self._socket, ssl.SSLSocket):
            raise NotTested("within TLS Python cannot close one direction alone")
        self._trace.add(self._session, "C", "(end of input)")
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    # -- what is read ------------------------------------------------------------

    def _receive(self, due: float, what: str) -> None:
        now = self._clock()
        if now >= self._budget.due:
            self._budget.spoil()
            raise TooMuch(
                f"the answer to {what} comes to no end: this takes more than {self._budget.seconds:g} s"
            )
        left = due - now
        if left <= 0:
            self._budget.spoil()
            raise Silent(f"no answer to {what} within {self._timeout:g} s")
        try:
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            self._budget.spoil()
            self._trace.add(self._session, "S", "(nothing)" if not self._buffer else bytes(self._buffer))
            raise Silent(f"no answer to {what} within {self._timeout:g} s") from None
        except ssl.SSLEOFError:
            self.ragged = True
            data = b""
        except OSError:
            data = b""
        if not data:
            self.over = True
            if self._buffer:
                self._trace.add(self._session, "S", bytes(self._buffer))
            self._trace.add(self._session, "S", "(closed)")
            raise Closed(f"the connection is closed where an answer to {what} is due")
        self._buffer += data

    def _line(self, due: float, what: str) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE:
                self._budget.spoil()
                raise TooMuch(f"the answer to {what} has a line of more than {LINE} octets")
            self._receive(due, what)
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    def reply(self, what: str, timeout: float | None = None) -> Reply:
        """The first line of the answer to a command.

        :param timeout: seconds, if not those of the connection.
        :raises Trouble: if there is none.
        """
        line = self._line(self._clock() + (timeout or self._timeout), what)
        self._trace.add(self._session, "S", line)
        found = Reply(what, line)
        self._trace.replies.append(found)
        return found

    def block(self, what: str, *, listing: bool = True) -> Block:
        """The rest of a multi-line answer.

        :param listing: whether its lines are for the report; those of people's mail are not.
        :raises Trouble: if it does not come to its end.
        """
        due, parts, octets = self._clock() + self._timeout, [], 0
        most = LISTING if listing else BODY
        while (line := self._line(due, what)) not in (b".\r\n", b".\n"):
            parts.append(line)
            octets += len(line)
            if octets > most or len(parts) > LINES:
                self._budget.spoil()
                raise TooMuch(f"the answer to {what} has more than {most} octets, or than {LINES} lines")
        if listing:
            self._trace.add_some(self._session, [*parts, line])
        else:
            self._trace.add(
                self._session,
                "S",
                f"({len(parts)} line{'s'[: len(parts) != 1]}, {octets} octets, and the final dot)",
            )
        found = Block(b"".join(parts), line)
        self._trace.ends.append((what, line))
        if listing:
            self._trace.listings.append((what, found))
        return found

    def ask(self, command: str, shown: str | None = None) -> Reply:
        """Send a command, and read the first line of its answer."""
        self.send(command.encode("utf-8") + b"\r\n", shown)
        return self.reply(shown or command)

    def ask_ok(self, command: str) -> Reply:
        """The same where anything but ``+OK`` breaks the rule."""
        found = self.ask(command)
        if not found.ok:
            raise Failed(str(found))
        return found

    def ask_refused(self, command: str) -> Reply:
        """The same where anything but ``-ERR`` breaks the rule."""
        found = self.ask(command)
        if not found.refused:
            raise Failed(str(found))
        return found

    def listing(self, command: str) -> Block:
        """The multi-line answer to a command."""
        self.ask_ok(command)
        return self.block(command)

    def body(self, command: str) -> Block:
        """The same for what holds people's mail."""
        self.ask_ok(command)
        return self.block(command, listing=False)

    def ended(self, within: float | None = None) -> bool:
        """Whether the server closes without another word."""
        due = self._clock() + (within or self._timeout)
        if self._buffer:
            return False
        try:
            self._receive(due, "nothing")
        except Closed:
            return True
        except Silent:
            pass
        return False

    def waiting(self, seconds: float) -> bool:
        """Whether octets, or the end, come within so many seconds."""
        if self._buffer or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        return bool(select.select([self._socket], [], [], seconds)[0])

    # -- TLS ---------------------------------------------------------------------

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Shake hands.

        :raises ssl.SSLCertVerificationError: if the certificate is not to be trusted.
        :raises Trouble: if it fails otherwise.
        """
        if self._buffer:
            raise Trouble(f"behind +OK to STLS comes clear text: {shown(bytes(self._buffer))}")
        self._trace.add(self._session, "C", "(TLS handshake)")
        try:
            self._socket.settimeout(self._timeout)
            # Whether TLS is closed in order is looked at, so it is not passed over.
            self._socket = context.wrap_socket(self._socket, server_hostname=host, suppress_ragged_eofs=False)
        except ssl.SSLCertVerificationError:
            raise
        except TimeoutError:
            self._budget.spoil()
            raise Silent(f"the TLS handshake does not end within {self._timeout:g} s") from None
        except (OSError, ValueError) as error:
            raise NoHandshake(f"the TLS handshake fails: {_reason(error)}") from None

    @property
    def encrypted(self) -> bool:
        """Whether it is within TLS."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def tls_version(self) -> str:
        """``TLSv1.3``; empty without."""
        return (self._socket.version() or "") if isinstance(self._socket, ssl.SSLSocket) else ""


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
