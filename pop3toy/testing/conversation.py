r"""Plays conversations that are written down as scripts of ``C:`` and ``S:`` lines.

A script is a set-up, an empty line, and the conversation.  Each line of it is::

    # why this conversation is here
    account NAME PASSWORD        who may log in (ann, secret); b"..." for an odd password
    timestamp <...>              the APOP timestamp; without it the server makes one up
    message UID b"..."           a message as it is stored
    octets UID N                 a message of N octets, subject UID, a body of x
    locked, unlocked             another session holds the maildrop, and gives it back
    C: text                      the client sends the text and CRLF; lines in a row leave in one piece
    C> b"..."                    the client sends just these octets
    S: text                      the server's next line is exactly this
    S> b"..."                    the server's next octets are exactly these
    arrives UID N, gone UID      mail arrives, or vanishes behind the lock
    wait SECONDS                 time goes by
    dropped, connected           the connection is lost; the client connects again
    open, closed                 the server keeps the connection, or has closed it
    left UID UID ...             what is in the maildrop now

In a status line ``...`` is free text, at least one character of it; status
words, response codes, numbers and the lines of a multi-line reply are exact.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.task import Clock

from ..auth.accounts.memory import MemoryAccounts
from ..auth.authenticator import PortalAuthenticator
from ..auth.realm import MailboxRealm
from ..interfaces import Channel, IGate, IMailbox
from ..net.sending import Sending
from ..pop3.factory import POP3Factory
from ..stores.memory import MemoryStore
from .late_store import LateStore
from .sockets import FakeSocket

__all__ = ["POP3Conversation", "fits"]

#: What ``...`` stands for: text, but no response code.
_FREE = r"(?!\[)[\x20-\x7e]*[\x21-\x7e]"


def _check(holds: object, otherwise: str) -> None:
    """What ``assert`` does, also where Python leaves that out (``-O``)."""
    if not holds:
        raise AssertionError(otherwise)


def _literal(text: str) -> bytes:
    """Octets as Python writes them, ``b"..."``; several of them in a row, added or repeated."""
    value = _value(ast.parse(text.strip(), mode="eval").body)
    _check(isinstance(value, bytes), f"these are no octets: {text}")
    return bytes(value)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _value(node.left) + _value(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _value(node.left) * _value(node.right)
    return ast.literal_eval(node)


def _filler(uid: str, size: int) -> bytes:
    """A message of so many octets in wire form, in lines of 76 at the most."""
    message = f"Subject: {uid}\r\n\r\n".encode()
    while (left := size - len(message)) > 0:
        line = min(76, left - 2)
        # What is left must be enough for a line, or nothing.
        if 0 < left - 2 - line < 3:
            line -= 3
        message += b"x" * line + b"\r\n"
    _check(len(message) == size, "too small for its header")
    return message


def fits(expected: str, line: str) -> bool:
    """Whether the server's line is what the script says."""
    if "..." not in expected or not expected.startswith(("+OK", "-ERR")):
        return line == expected
    return re.fullmatch(_FREE.join(map(re.escape, expected.split("..."))), line) is not None


class _FixedTimestamp(PortalAuthenticator):
    """With the timestamp that a script names, instead of a random one."""

    fixed: str | None = None

    def timestamp(self, channel: Channel) -> str | None:
        return self.fixed or super().timestamp(channel)


class POP3Conversation:
    """One run of one script, against a server in memory that nobody else knows.

    :param script: its text; the module's docstring, and docs/testing.rst, tell the words of it.
    :param slowly: whether the client's octets come one by one.
    :param late: whether the store's answers come late.
    :param gate: an :class:`~pop3toy.IGate` that holds, changes or drops what either side says.
    """

    def __init__(
        self, script: str, *, slowly: bool = False, late: bool = False, gate: IGate | None = None
    ) -> None:
        self._slowly = slowly
        # A subclass may set another.
        self._sending: Sending | None = None
        self._gate = gate
        self._clock = Clock()
        self._accounts: dict[bytes, bytes] = {b"ann": b"secret"}
        self._store = MemoryStore({"ann": []})
        self._late = LateStore(self._clock, self._store) if late else None
        self._timestamp: str | None = None
        self._user = "ann"
        self._other: IMailbox | None = None
        self._to_send = b""
        self._socket: FakeSocket | None = None
        self._factory: POP3Factory | None = None
        self._lines = script.splitlines()

    def run(self) -> None:
        """Go through it.

        :raises AssertionError: with the number of the script's line that does not hold.
        """
        setting_up = True
        for number, line in enumerate(self._lines, 1):
            try:
                if line.startswith("#"):
                    continue
                if setting_up and line.startswith(("S:", "S>")):
                    setting_up = False
                    self._connected()
                if line:
                    self._step(line)
            except AssertionError as error:
                raise AssertionError(f"line {number}, {line!r}: {error}") from error
        _check(not self._to_send, "the script ends before the server has answered")
        rest = bytes(self._connection.got)
        _check(not rest, f"the server said more: {rest!r}")

    def _step(self, line: str) -> None:
        if line.startswith("C:"):
            self._to_send += line[2:].removeprefix(" ").encode() + b"\r\n"
        elif line.startswith("C>"):
            self._to_send += _literal(line[2:])
        elif line.startswith("S:"):
            self._send()
            self._expect_line(line[2:].removeprefix(" "))
        elif line.startswith("S>"):
            self._send()
            self._expect(_literal(line[2:]))
        else:
            self._send()
            word, *arguments = line.split(" ", 2)
            steps: dict[str, Callable[..., None]] = {
                "account": self._account,
                "arrives": self._octets,
                "closed": self._closed,
                "connected": self._connected,
                "dropped": self._dropped,
                "gone": self._gone,
                "left": self._left,
                "locked": self._locked,
                "message": self._message,
                "octets": self._octets,
                "open": self._open,
                "timestamp": self._set_timestamp,
                "unlocked": self._unlocked,
                "wait": self._wait,
            }
            _check(word in steps, "no such word in a script")
            steps[word](*(line.split()[1:] if word == "left" else arguments))

    # -- the conversation ------------------------------------------------------------

    @property
    def _connection(self) -> FakeSocket:
        if self._socket is None:
            raise AssertionError("nobody said anything")
        return self._socket

    def _send(self) -> None:
        data, self._to_send = self._to_send, b""
        if not data:
            return
        socket = self._connection
        _check(not socket.got, f"the server said more: {bytes(socket.got)!r}")
        pieces = [data[at : at + 1] for at in range(len(data))] if self._slowly else [data]
        for piece in pieces:
            if socket.reading:
                socket.client_sends(piece)
        self._settle()

    def _settle(self) -> None:
        self._connection.client_reads_all()
        while self._late is not None and self._late.pending:
            self._clock.advance(0.01)
            self._connection.client_reads_all()
        self._clock.advance(0)

    def _expect(self, expected: bytes) -> None:
        got = bytes(self._connection.got[: len(expected)])
        _check(got == expected, f"the server said {got!r}")
        del self._connection.got[: len(expected)]

    def _expect_line(self, expected: str) -> None:
        line, end, _ = bytes(self._connection.got).partition(b"\r\n")
        _check(end, f"the server said {line!r} and no more")
        _check(fits(expected, line.decode("latin-1")), f"the server said {line!r}")
        del self._connection.got[: len(line) + 2]

    def _connected(self) -> None:
        if self._factory is None:
            store: Any = self._late if self._late is not None else self._store
            portal = Portal(MailboxRealm(store), [MemoryAccounts(self._accounts)])
            authenticator = _FixedTimestamp(portal)
            authenticator.fixed = self._timestamp
            self._factory = POP3Factory(self._clock, authenticator, gate=self._gate, sending=self._sending)
        self._socket = self._connect(self._factory, self._clock)
        self._settle()

    def _connect(self, factory: POP3Factory, clock: Clock) -> FakeSocket:
        """A connection; a subclass may make others, with the same methods."""
        socket = FakeSocket(clock)
        socket.connect(factory.buildProtocol(None))
        return socket

    def _dropped(self) -> None:
        self._connection.vanish()

    def _open(self) -> None:
        _check(self._connection.lost is None, "the server has closed the connection")

    def _closed(self) -> None:
        self._connection.client_reads_all()
        _check(self._connection.lost is not None, "the server has not closed the connection")

    def _wait(self, seconds: str) -> None:
        self._clock.pump([1.0] * int(seconds))

    # -- the maildrop ----------------------------------------------------------------

    def _account(self, name: str, password: str) -> None:
        secret = _literal(password) if password.startswith('b"') else password.encode()
        self._accounts = {name.encode(): secret}
        self._user = name
        self._store = MemoryStore({name: []})
        if self._late is not None:
            self._late = LateStore(self._clock, self._store)

    def _set_timestamp(self, timestamp: str) -> None:
        self._timestamp = timestamp

    def _message(self, uid: str, message: str) -> None:
        self._store.add(self._user, _literal(message), uid)

    def _octets(self, uid: str, size: str) -> None:
        self._store.add(self._user, _filler(uid, int(size)), uid)

    def _gone(self, uid: str) -> None:
        self._store.discard(self._user, uid)

    def _locked(self) -> None:
        self._other = self._store.open(self._user)

    def _unlocked(self) -> None:
        if self._other is None:
            raise AssertionError("it was not locked")
        self._other.release()

    def _left(self, *uids: str) -> None:
        left = [one.uid.decode() for one in self._store.list(self._user)]
        _check(left == list(uids), f"in the maildrop is {left}")
