"""A POP3 client for commands: it blocks, and takes from any server what can be made sense of.

The standard library's ``poplib`` is not used: it fails on lines of more than 2,048 octets, keeps whole
messages in memory, line by line, and sends nothing ahead.  Here a message goes to a file as it comes, an
answer has an end in octets and in time, and what a server does wrong is a sentence (``server.Trouble``).

Nothing is ever removed: there is no DELE.  Passwords are in no sentence, also where a server repeats them.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from ..printable import printable
from .server import Server, Trouble, is_loopback

__all__ = ["AHEAD", "Client", "Listed", "LoginRefused", "MessageRefused", "Reply"]

#: Octets of a line of an answer; RFC 1939 section 3 allows 512, and of a unique-id 70.
LINE: Final = 8192
#: Lines of a listing, and of CAPA.
LISTING_LINES: Final = 2_000_000
CAPABILITY_LINES: Final = 1000
#: Octets of a message.
MESSAGE: Final = 4 << 30
#: Octets a second that a message comes with at the least, over its whole length.
SLOWEST: Final = 100
#: Commands that are sent ahead where PIPELINING is announced (RFC 2449 section 6.6): their octets fit into
#: any window, so nobody waits for the other.
AHEAD: Final = 16
_READ: Final = 1 << 16


class LoginRefused(Trouble):
    """It does not take this name and this password, or not now (see ``given_code``)."""


class MessageRefused(OSError):
    """It does not give out this message."""


class Reply(NamedTuple):
    """The first line of an answer."""

    ok: bool
    #: In capitals, without brackets; empty if there is none (RFC 2449 section 8).
    code: str
    #: What stands behind it, safe to be shown.
    text: str


class Listed(NamedTuple):
    """A message as the server lists it."""

    number: int
    #: As it is said, whatever that is; ``None`` if UIDL leaves it out.
    uid: bytes | None
    #: ``None`` if LIST leaves it out.
    octets: int | None


class _Writes(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Client:
    """A connection, up to the end of TLS and of CAPA; a context manager that drops it without a word.

    :param clock: seconds, of a clock that nobody sets.
    :raises Trouble: if there is no such server; ``server.NotTrusted`` if its certificate is another's.
    """

    def __init__(self, server: Server, clock: Callable[[], float]) -> None:
        self.server = server
        self._clock = clock
        self._secrets: list[str] = []
        self._buffer = bytearray()
        # Commands whose answers, with many lines, have not been read.
        self._sent: deque[str] = deque()
        self._lf = False
        #: CAPA's lines by their first word in capitals; empty if there is no CAPA.
        self.capabilities: Mapping[str, tuple[str, ...]] = {}
        self._socket = server.connect()
        try:
            #: The timestamp of the greeting, for APOP.
            self.timestamp = b""
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it without a word."""
        self._socket.close()

    @property
    def encrypted(self) -> bool:
        """Whether it is within TLS."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def login_delay(self) -> int:
        """Seconds from one login to the next, as announced (RFC 2449 section 6.5); 0 if nothing is said."""
        said = self.capabilities.get("LOGIN-DELAY", ())
        return int(said[0]) if said and said[0].isascii() and said[0].isdigit() and len(said[0]) < 8 else 0

    @property
    def removes_what_is_fetched(self) -> bool:
        """Whether it says that it does when a session ends (``EXPIRE 0``, RFC 2449 section 6.7)."""
        return self.capabilities.get("EXPIRE", ())[:1] == ("0",)

    # -- how it begins ---------------------------------------------------------------

    def _begin(self) -> None:
        server = self.server
        if server.implicit:
            self._socket = server.start_tls(self._socket)
        greeting = self._line("the greeting")
        if not self._reply_of(greeting, "the greeting").ok:
            raise server.trouble(f"turns the connection away: {self.shown(greeting)}")
        self.timestamp = _timestamp(greeting)
        self.ask_capabilities()
        if server.implicit:
            return
        if "STLS" in self.capabilities:
            reply = self.ask("STLS")
            if not reply.ok:
                raise server.trouble(f"refuses STLS: {reply.text}")
            if self._buffer:
                raise server.trouble("sends clear text behind its answer to STLS; somebody may be in between")
            self._socket = server.start_tls(self._socket)
            self.ask_capabilities()
        elif not server.cleartext and not is_loopback(self._socket):
            raise server.trouble(
                "offers no TLS (STLS), so the password could be read on its way; try pop3s://, or"
                " --allow-cleartext if nobody can listen"
            )

    def ask_capabilities(self) -> None:
        """What it announces now; differs before TLS, within it, and after login."""
        if not self.ask("CAPA").ok:
            self.capabilities = {}
            return
        found = {}
        for line in self._lines("CAPA", CAPABILITY_LINES):
            words = line.decode("ascii", "replace").split()
            if words:
                found[words[0].upper()] = tuple(words[1:])
        self.capabilities = found

    # -- login, which is in ``login`` --------------------------------------------------

    def hide(self, *secrets: str) -> None:
        """Show none of these in any sentence."""
        self._secrets += [one for one in secrets if one]

    # -- what is there ---------------------------------------------------------------

    def stat(self) -> tuple[int, int]:
        """How many messages, and how many octets in all."""
        words = self._ok("STAT").text.split()
        if len(words) < 2 or not all(_is_number(one) for one in words[:2]):
            raise self.server.trouble("answers STAT with something else than two numbers")
        return int(words[0]), int(words[1])

    def listing(self) -> list[Listed]:
        """All messages by their numbers: what UIDL and LIST say.

        :raises Trouble: also if there is no UIDL.
        """
        uids = self._numbered("UIDL")
        octets = {number: int(said) for number, said in self._numbered("LIST").items()}
        return [Listed(at, uids.get(at), octets.get(at)) for at in sorted(uids.keys() | octets.keys())]

    def _numbered(self, command: str) -> dict[int, bytes]:
        """What a listing says of each number."""
        reply = self.ask(command)
        if not reply.ok:
            hint = "; without unique-ids nobody can tell what is new" if command == "UIDL" else ""
            raise self.server.trouble(f"refuses {command}: {reply.text}{hint}", reply.code)
        found: dict[int, bytes] = {}
        for line in self._lines(command, LISTING_LINES):
            number, _, value = line.strip().partition(b" ")
            value = value.strip()
            if command == "LIST":
                # Behind the octets may stand more (RFC 1939 section 5).
                value = value.partition(b" ")[0]
            if not _is_number(number) or not value or (command == "LIST" and not _is_number(value)):
                raise self.server.trouble(
                    f"has a line that is none in the answer to {command}: {self.shown(line)}"
                )
            if int(number) in found:
                raise self.server.trouble(f"lists message {int(number)} twice in the answer to {command}")
            found[int(number)] = value
        return found

    # -- messages --------------------------------------------------------------------

    def retr(self, number: int, file: _Writes, *, ahead: Iterable[int] = ()) -> int:
        """Write a message, with CRLF line ends, to a file.

        :param ahead: numbers that will be asked for next, in this order; not all of them are taken.  A server
            that leaves one of these unanswered gives the next message in its place: whoever sends ahead has
            to look whether it is the one.
        :return: octets.
        :raises MessageRefused: if the server does not give it out.
        :raises Trouble: if it does not come to its end.
        """
        return self._multi(f"RETR {number}", file, (f"RETR {one}" for one in ahead))

    def top(self, number: int, file: _Writes, lines: int = 0, *, ahead: Iterable[int] = ()) -> int:
        """The same with the header, and so many lines of the body."""
        return self._multi(f"TOP {number} {lines}", file, (f"TOP {one} {lines}" for one in ahead))

    def _multi(self, command: str, file: _Writes, ahead: Iterable[str]) -> int:
        if command not in self._sent:
            self.settle()
            self._send_ahead(command)
        while self._sent[0] != command:
            self._skip_one()
        if "PIPELINING" in self.capabilities:
            for one in islice(ahead, AHEAD - len(self._sent) + 1):
                if one not in self._sent:
                    self._send_ahead(one)
        self._sent.popleft()
        reply = self._reply(command)
        if not reply.ok:
            raise MessageRefused(f"{self.server} refuses {command}: {reply.text}")
        return self._body(command, file)

    def _send_ahead(self, command: str) -> None:
        self._put(command.encode("ascii") + b"\r\n")
        self._sent.append(command)

    def _skip_one(self) -> None:
        command = self._sent.popleft()
        if self._reply(command).ok:
            self._body(command, _Nowhere())

    def settle(self) -> None:
        """Read the answers to all that was sent ahead.

        :raises Trouble: if they are fewer.
        """
        while self._sent:
            self._skip_one()

    def _body(self, command: str, file: _Writes) -> int:
        """The lines up to the final dot, without dot-stuffing (RFC 1939 section 3)."""
        # A server that ends its own lines by a bare LF ends those of messages so.
        end = b"\n" if self._lf else b"\r\n"
        final, dot = end + b"." + end, b"." + end
        octets, at_start, begun = 0, True, self._clock()
        buffer = self._buffer
        while True:
            cut = buffer.rfind(b"\n") + 1
            if not cut and len(buffer) >= _READ:
                # A long line; its last octet may be the CR of the line's end.
                cut = len(buffer) - 1
            if not cut:
                self._receive(command)
                if self._clock() - begun > 2 * self.server.timeout + octets / SLOWEST:
                    raise self._broken(f"gives the answer to {command} too slowly to ever get it")
                continue
            data = bytes(buffer[:cut])
            over = at_start and data.startswith(dot)
            if over:
                del buffer[: len(dot)]
                data = b""
            elif (found := data.find(final)) >= 0:
                over = True
                del buffer[: found + len(final)]
                data = data[: found + len(end)]
            else:
                del buffer[:cut]
            starts, at_start = at_start, data.endswith(end)
            if starts and data.startswith(b"."):
                data = data[1:]
            data = data.replace(end + b".", end)
            if self._lf:
                data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            octets += len(data)
            if octets > MESSAGE:
                raise self._broken(f"gives a message of more than {MESSAGE} octets to {command}")
            file.write(data)
            if over:
                return octets

    def quit(self) -> None:
        """End the session in good order, as far as the server takes part."""
        try:
            self.ask("QUIT")
        except Trouble:
            # Nothing was to be removed, so nothing is lost.
            pass
        self.close()

    # -- commands and answers --------------------------------------------------------

    def ask(self, command: str, *, sent: bytes | None = None) -> Reply:
        """Send a command, and read the first line of its answer.

        :param command: what it is called in sentences.
        :param sent: what is sent in its place, with a secret in it, without its end.
        """
        self.settle()
        self._put((command.encode("ascii") if sent is None else sent) + b"\r\n")
        return self._reply(command)

    def ask_sasl(self, command: str, sent: bytes) -> bytes | Reply:
        """The same within SASL (RFC 5034 section 4), where the answer may be a challenge: still in base64."""
        self._put(sent + b"\r\n")
        line = self._line(command)
        return (
            line[1:].strip()
            if line[:1] == b"+" and line[:3].upper() != b"+OK"
            else self._reply_of(line, command)
        )

    def _ok(self, command: str) -> Reply:
        reply = self.ask(command)
        if not reply.ok:
            raise self.server.trouble(f"refuses {command}: {reply.text}", reply.code)
        return reply

    def _reply(self, command: str) -> Reply:
        return self._reply_of(self._line(command), command)

    def _reply_of(self, line: bytes, command: str) -> Reply:
        self._lf = not line.endswith(b"\r\n")
        status, _, rest = line.strip().partition(b" ")
        if status.upper() not in (b"+OK", b"-ERR"):
            raise self._broken(f"answers {command} with neither +OK nor -ERR: {self.shown(line)}")
        code = b""
        if rest.startswith(b"[") and b"]" in rest:
            code = rest[1 : rest.index(b"]")].upper()
        return Reply(status.upper() == b"+OK", code.decode("ascii", "replace"), self.shown(rest))

    def _lines(self, command: str, most: int) -> list[bytes]:
        """The lines of a listing, up to its final dot."""
        found: list[bytes] = []
        while (line := self._line(command)) not in (b".\r\n", b".\n"):
            if len(found) >= most:
                raise self._broken(f"gives more than {most} lines in answer to {command}")
            found.append(line[1:] if line.startswith(b".") else line)
        return found

    def _line(self, command: str) -> bytes:
        begun = self._clock()
        while (end := self._buffer.find(b"\n", 0, LINE)) < 0:
            if len(self._buffer) >= LINE:
                raise self._broken(f"gives a line of more than {LINE} octets in answer to {command}")
            if self._clock() - begun > self.server.timeout:
                raise self._broken(
                    f"gives no whole line within {self.server.timeout:g} s in answer to {command}"
                )
            self._receive(command)
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    # -- octets ----------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self.server.timeout)
            self._socket.sendall(data)
        except TimeoutError:
            raise self._broken(f"reads nothing for {self.server.timeout:g} s") from None
        except OSError:
            # What it said before it closed may be waiting; reading tells.
            pass

    def _receive(self, command: str) -> None:
        try:
            self._socket.settimeout(self.server.timeout)
            data = self._socket.recv(_READ)
        except TimeoutError:
            raise self._broken(f"says nothing for {self.server.timeout:g} s in answer to {command}") from None
        except (OSError, ValueError):
            data = b""
        if not data:
            raise self._broken(f"closes the connection in its answer to {command}")
        self._buffer += data

    def shown(self, line: bytes) -> str:
        """What it said, safe for terminals and logs."""
        text = line.strip().decode("utf-8", "replace")
        for secret in self._secrets:
            if secret in text:
                return "(an answer with the password in it)"
        return printable(text if len(text) <= 200 else text[:200] + "...")

    def _broken(self, what: str) -> Trouble:
        """Nothing can be read of the connection any more."""
        self.close()
        return Trouble(f"{self.server} {what}")


class _Nowhere:
    def write(self, data: bytes, /) -> object:
        return None


def _is_number(text: bytes | str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15


def _timestamp(greeting: bytes) -> bytes:
    """What APOP is made of, with its angles (RFC 1939 section 7)."""
    start = greeting.find(b"<")
    end = greeting.find(b">", start)
    return greeting[start : end + 1] if 0 <= start < end and b"@" in greeting[start:end] else b""
