"""The server's side of a recording, played to a client."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .recording import LOGIN, MASKED, Hidden, Turn, without_secret

__all__ = ["Asked", "serve"]

#: Octets of a line that are read.
_LINE = 65_536
#: ``<1@replay>`` in base64.
_CHALLENGE = "+ PDFAcmVwbGF5Pg=="


class Asked(NamedTuple):
    """What a client said, and what it was answered."""

    #: Without secrets.
    line: str
    reply: Sequence[str]
    #: What the recording has in its place, if it is something else.
    expected: str | None


def serve(
    sock: socket.socket,
    turns: Sequence[Turn],
    *,
    timeout: float,
    context: ssl.SSLContext | None = None,
) -> Iterator[Asked]:
    """Answer one client as the recorded server did.

    A client that says something else than the recorded one gets the reply that this line had elsewhere in
    the recording, or ``-ERR``; any name and password are as good as those that were recorded.

    :param timeout: seconds of silence after which the client is given up.
    :param context: for STLS; without one it is refused, and CAPA does not tell of it.
    """
    with sock:
        yield from _Server(sock, turns, timeout, context).serve()


class _Server:
    def __init__(
        self, sock: socket.socket, turns: Sequence[Turn], timeout: float, context: ssl.SSLContext | None
    ) -> None:
        self._socket = sock
        self._socket.settimeout(timeout)
        self._turns = turns
        self._context = context
        self._buffer = b""
        self._at = 0

    def serve(self) -> Iterator[Asked]:
        first = self._turns[0]
        if not first.line:
            self._at = 1
            if not self._say(first):
                return
        else:
            self._send(["+OK ready"])
        while (line := self._read()) is not None:
            if self._at >= len(self._turns) and line.upper() == "QUIT":
                self._send(["+OK"])
                yield Asked("QUIT", ["+OK"], None)
                return
            turn, expected = self._find(line)
            shown = without_secret(line, response=turn is not None and turn.is_response)
            if turn is None:
                reply = ["-ERR this is not in the recording"]
                self._send(reply)
                yield Asked(shown, reply, expected)
                continue
            yield Asked(shown, [text for text in turn.reply if isinstance(text, str)], expected)
            if turn.keyword == "STLS" and not self._start_tls(turn):
                continue
            if turn.keyword != "STLS" and not self._say(turn):
                return
            if line.upper() == "QUIT":
                return

    def _find(self, line: str) -> tuple[Turn | None, str | None]:
        """The turn that a line belongs to, and what was due if that was another one."""
        due = self._turns[self._at] if self._at < len(self._turns) else None
        if due is not None and _same(due, line):
            self._at += 1
            return due, None
        expected = due.shown if due is not None else "(the end)"
        for place in (*range(self._at, len(self._turns)), *range(self._at)):
            if _same(self._turns[place], line) and not self._turns[place].is_response:
                if place >= self._at:
                    self._at = place + 1
                return self._turns[place], expected
        return self._another_login(line), expected

    def _another_login(self, line: str) -> Turn | None:
        """The turn for a login that is another than the recorded one; of AUTH CAPA tells what there is."""
        keyword = line.partition(" ")[0].upper()
        if keyword == "USER":
            return Turn(line, ("+OK",), False)
        for place, turn in enumerate(self._turns):
            ends_login = turn.keyword in ("PASS", "APOP", "AUTH") or turn.is_response
            if keyword in ("PASS", "APOP") and ends_login and turn.is_accepted:
                self._at = max(self._at, place + 1)
                return turn
        return None

    def _say(self, turn: Turn) -> bool:
        """Send a reply; whether the connection goes on."""
        lines = list(turn.reply)
        if turn.keyword == "CAPA" and self._context is None:
            lines = [line for line in lines if line != "STLS"]
        self._send(lines, cut=turn.cut)
        return not turn.cut and bool(turn.reply)

    def _start_tls(self, turn: Turn) -> bool:
        if self._context is None:
            self._send(["-ERR there is no TLS in this replay"])
            return False
        self._send(list(turn.reply))
        self._socket = self._context.wrap_socket(self._socket, server_side=True)
        return True

    def _send(self, lines: Sequence[str | Hidden], *, cut: bool = False) -> None:
        # A challenge that the recording masks: any will do for CRAM-MD5.
        lines = [_CHALLENGE if line == f"+ {MASKED}" else line for line in lines]
        pieces = [_filler(line) if isinstance(line, Hidden) else line.encode() + b"\r\n" for line in lines]
        data = b"".join(pieces)
        self._socket.sendall(data.removesuffix(b"\r\n") if cut else data)

    def _read(self) -> str | None:
        """A line of the client's; ``None`` if none comes."""
        while b"\n" not in self._buffer:
            try:
                data = self._socket.recv(_LINE)
            except OSError:
                return None
            if not data or len(self._buffer) > _LINE:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.removesuffix(b"\r").decode("utf-8", "backslashreplace")


def _same(turn: Turn, line: str) -> bool:
    """Whether a client's line is that of a turn; in a login anything is."""
    if turn.is_response:
        return True
    recorded, said = turn.line.split(" "), line.split(" ")
    if recorded[0].upper() != said[0].upper():
        return False
    if recorded[0].upper() in LOGIN or MASKED in recorded:
        return len(recorded) == len(said) or recorded[0].upper() != "AUTH"
    return [word for word in recorded[1:] if word] == [word for word in said[1:] if word]


def _filler(hidden: Hidden) -> bytes:
    """As many lines and octets as a transcript left out."""
    each, more = divmod(hidden.octets, max(hidden.lines, 1))
    line = b"x" * max(each - 2, 0) + b"\r\n"
    return line * (hidden.lines - 1) + b"x" * max(each + more - 2, 0) + b"\r\n"
