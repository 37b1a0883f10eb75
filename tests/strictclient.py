"""A POP3 client that takes offence at everything.

Here lives a blocking client on a raw socket which checks the syntax of each
reply against RFC 1939, RFC 2449 and RFC 3206 instead of being liberal in what
it accepts.  It is for tests against a server in another process and must know
nothing of how that server works: it imports nothing of pop3toy.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

__all__ = ["ProtocolViolation", "Refused", "StrictClient", "logged_in", "unstuffed"]

#: RFC 1939 section 3 with RFC 2449 section 4: 512 octets with CRLF, printable ASCII.
MAX_REPLY = 512
_REPLY = re.compile(rb"(?P<status>\+OK|-ERR)(?: (?P<text>[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?))?")
_CODE = re.compile(rb"\[(?P<code>[A-Z0-9/-]+)\](?: |\Z)")
#: RFC 2449 section 8, RFC 3206 sections 4 and 5: those a server may use without further extensions.
CODES = frozenset({b"LOGIN-DELAY", b"IN-USE", b"SYS/TEMP", b"SYS/PERM", b"AUTH"})
_NUMBER = rb"(?:0|[1-9][0-9]*)"
_UID = rb"[\x21-\x7e]{1,70}"


class ProtocolViolation(AssertionError):
    """The server said something that no RFC allows."""


class Refused(Exception):
    """The server answered ``-ERR``, as it may.

    :ivar code: the response code without brackets, or ``b""``.
    :ivar text: the whole text behind ``-ERR``.
    """

    def __init__(self, code: bytes, text: bytes) -> None:
        self.code = code
        self.text = text
        super().__init__(text.decode("ascii"))


class Drop(NamedTuple):
    """What STAT says."""

    messages: int
    octets: int


def unstuffed(body: bytes) -> bytes:
    """Undo the dot-stuffing of a multi-line body, whose final dot line is off already.

    :raises ProtocolViolation: for a bare LF, and for a line that begins with
        exactly one dot, which no sender that stuffs can produce.
    """
    if body.count(b"\n") != body.count(b"\r\n"):
        raise ProtocolViolation("a bare LF in a multi-line reply")
    if not body.startswith(b".") and b"\n." not in body:
        return body
    lines = body.split(b"\r\n")
    for at, line in enumerate(lines):
        if line.startswith(b"."):
            if not line.startswith(b".."):
                raise ProtocolViolation(f"line {at + 1} begins with a dot that is not stuffed: {line[:40]!r}")
            lines[at] = line[1:]
    return b"\r\n".join(lines)


class StrictClient:
    """One connection to a server on loopback; a context manager that closes it.

    Each method of a command raises :class:`Refused` for ``-ERR``,
    :class:`ProtocolViolation` for anything malformed and ``EOFError`` when the
    server hangs up where a reply is due.

    :param timeout: seconds until a silent server is a failure (``TimeoutError``).
    :param receive_buffer: octets that the kernel may hold for this client, so
        that a server cannot send everything ahead; as the kernel likes if not given.
    :param source: the address on loopback that it comes from; 127.0.0.1 if not given.
    """

    def __init__(
        self, port: int, *, timeout: float = 60.0, receive_buffer: int | None = None, source: str = ""
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._buffer = bytearray()
        try:
            if source:
                self.socket.bind((source, 0))
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.greeting = self.status()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection without a word."""
        self.socket.close()

    # ------------------------------------------------------------------ octets

    def send(self, data: bytes) -> None:
        """Send octets as they are."""
        self.socket.sendall(data)

    def _receive(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError(f"connection closed; unread: {bytes(self._buffer[:80])!r}")
        self._buffer += data

    def receive_some(self, octets: int) -> bytes:
        """Wait for at least so many octets of whatever comes, and leave them to be read."""
        while len(self._buffer) < octets:
            self._receive()
        return bytes(self._buffer)

    def line(self) -> bytes:
        """One line that must end with CRLF and hold no other CR or LF; without its end."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) >= MAX_REPLY:
                raise ProtocolViolation(f"a line without end: {bytes(self._buffer[:80])!r}")
            self._receive()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise ProtocolViolation(f"a line that does not end with CRLF alone: {line!r}")
        if len(line) > MAX_REPLY:
            raise ProtocolViolation(f"a line of {len(line)} octets")
        return line[:-2]

    def at_rest(self) -> None:
        """Check that nothing was said that nobody asked for."""
        if self._buffer:
            raise ProtocolViolation(f"unasked for: {bytes(self._buffer[:80])!r}")

    def ended(self) -> None:
        """Wait for the server to close, in order and without another word."""
        self.at_rest()
        if data := self.socket.recv(1024):
            raise ProtocolViolation(f"said after the end: {data!r}")

    # ----------------------------------------------------------------- replies

    def status(self) -> bytes:
        """A status line; the text behind ``+OK``."""
        line = self.line()
        match = _REPLY.fullmatch(line)
        if match is None:
            raise ProtocolViolation(f"not a status line: {line!r}")
        text = match["text"] or b""
        code = _CODE.match(text)
        if match["status"] == b"+OK":
            return text
        if code is not None and code["code"] not in CODES:
            raise ProtocolViolation(f"unknown response code: {line!r}")
        raise Refused(code["code"] if code else b"", text)

    def body(self) -> bytes:
        """The rest of a multi-line reply, with CRLFs, unstuffed, without the final dot line."""
        searched = 0
        while True:
            if self._buffer.startswith(b".\r\n"):
                end, after = 0, 3
                break
            found = self._buffer.find(b"\r\n.\r\n", searched)
            if found >= 0:
                end, after = found + 2, found + 5
                break
            searched = max(0, len(self._buffer) - 4)
            self._receive()
        body = bytes(self._buffer[:end])
        del self._buffer[:after]
        return unstuffed(body)

    def command(self, line: bytes) -> bytes:
        """Send a command and take its status line."""
        self.at_rest()
        self.send(line + b"\r\n")
        return self.status()

    def listing(self, line: bytes) -> list[bytes]:
        """Send a command whose reply is multi-line text; its lines."""
        self.command(line)
        body = self.body()
        for one in body.splitlines():
            if len(one) + 2 > MAX_REPLY or re.fullmatch(rb"[\x20-\x7e]*", one) is None:
                raise ProtocolViolation(f"not a line of a listing: {one!r}")
        return body.splitlines()

    # ---------------------------------------------------------------- commands

    def login(self, user: bytes = b"ann", password: bytes = b"secret") -> None:
        """USER and PASS."""
        self.command(b"USER " + user)
        self.command(b"PASS " + password)

    def capa(self) -> dict[bytes, list[bytes]]:
        """CAPA: capability to its arguments (RFC 2449 section 5)."""
        capabilities = {}
        for line in self.listing(b"CAPA"):
            name, *arguments = line.split(b" ")
            if not name or b"" in arguments or name in capabilities:
                raise ProtocolViolation(f"a bad capability: {line!r}")
            capabilities[name] = arguments
        return capabilities

    def stat(self) -> Drop:
        """STAT, whose reply is two numbers; RFC 1939 section 5 discourages anything behind them."""
        text = self.command(b"STAT")
        match = re.fullmatch(rb"(%s) (%s)" % (_NUMBER, _NUMBER), text)
        if match is None:
            raise ProtocolViolation(f"not a drop listing: {text!r}")
        return Drop(int(match[1]), int(match[2]))

    def sizes(self) -> dict[int, int]:
        """LIST: message number to octets, whose sum and count STAT must confirm."""
        sizes = {int(n): int(octets) for n, octets in self._scan(b"LIST", _NUMBER)}
        drop = self.stat()
        if drop != (len(sizes), sum(sizes.values())):
            raise ProtocolViolation(f"STAT says {drop}, LIST {len(sizes)} and {sum(sizes.values())}")
        return sizes

    def uids(self) -> dict[int, bytes]:
        """UIDL: message number to unique-id; each unique, and no two that differ by case alone."""
        uids = {int(n): uid for n, uid in self._scan(b"UIDL", _UID)}
        if len({uid.lower() for uid in uids.values()}) != len(uids):
            raise ProtocolViolation("two unique-ids are the same")
        return uids

    def _scan(self, command: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
        found, last = [], 0
        for line in self.listing(command):
            match = re.fullmatch(rb"([1-9][0-9]*) (%s)" % value, line)
            if match is None or int(match[1]) <= last:
                raise ProtocolViolation(f"not a line of {command.decode()}: {line!r}")
            last = int(match[1])
            found.append((match[1], match[2]))
        return found

    def size(self, number: int) -> int:
        """``LIST n``: octets."""
        return int(self._scan_one(b"LIST", number, _NUMBER))

    def uid(self, number: int) -> bytes:
        """``UIDL n``: the unique-id."""
        return self._scan_one(b"UIDL", number, _UID)

    def _scan_one(self, command: bytes, number: int, value: bytes) -> bytes:
        text = self.command(b"%s %d" % (command, number))
        match = re.fullmatch(rb"%d (%s)" % (number, value), text)
        if match is None:
            raise ProtocolViolation(f"not the answer to {command.decode()} {number}: {text!r}")
        return match[1]

    def retr(self, number: int) -> bytes:
        """RETR: the message in wire form."""
        self.command(b"RETR %d" % number)
        return self.body()

    def top(self, number: int, lines: int) -> bytes:
        """TOP: the headers, the empty line and so many lines of the body."""
        self.command(b"TOP %d %d" % (number, lines))
        return self.body()

    def dele(self, number: int) -> None:
        """DELE."""
        self.command(b"DELE %d" % number)

    def rset(self) -> None:
        """RSET."""
        self.command(b"RSET")

    def quit(self) -> None:
        """QUIT, and the server closes."""
        self.command(b"QUIT")
        self.ended()


@contextmanager
def logged_in(
    port: int, user: bytes = b"ann", password: bytes = b"secret", **options: float | str
) -> Iterator[StrictClient]:
    """A client that has logged in; at the end of the block it says QUIT.

    :param options: of :class:`StrictClient`.
    """
    with StrictClient(port, **options) as client:  # type: ignore[arg-type]
        client.login(user, password)
        yield client
        client.quit()
