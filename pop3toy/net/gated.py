"""A gate around a conversation, for a connection that an :class:`IGate` acts on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Refusal
from ..interfaces import After, GateAnswer, IGate, SessionRecord, Stream
from .connection import AnyConnection
from .conversation import Conversation

__all__ = ["put_gate"]

log = Logger()


#: Of a protocol that the gate need not know.
_Conversation: TypeAlias = Conversation[Any, Any]
_Encode: TypeAlias = Callable[[Any, bool], bytes | Stream]


class _Line(NamedTuple):
    """A line that has not been through the gate, and what it is."""

    line: bytes
    crlf: bool
    parsed: object


class _Sent(NamedTuple):
    """A reply that has been through it."""

    encoded: bytes | Stream
    shown: bytes | None
    after: After
    done: Callable[[], object] | None


def put_gate(connection: AnyConnection, gate: IGate) -> None:
    """Put a gate before a connection's conversation; before it has its transport."""
    encode = connection.encode
    connection.conversation = _Gated(connection.conversation, connection.record, gate, encode)

    def encode_sent(reply: object, at_once: bool) -> bytes | Stream:
        # The last words of a connection that the server ends are past the gate.
        return reply.encoded if isinstance(reply, _Sent) else encode(reply, at_once)

    connection.encode = encode_sent


class _Gated:
    """Has the methods of a conversation; those that take lines and give replies ask the gate."""

    _inner: _Conversation
    _record: SessionRecord
    _gate: IGate
    _encode: _Encode

    def __init__(
        self,
        conversation: _Conversation,
        record: SessionRecord,
        gate: IGate,
        encode: _Encode,
    ) -> None:
        self.__dict__["_inner"] = conversation
        self.__dict__["_record"] = record
        self.__dict__["_gate"] = gate
        self.__dict__["_encode"] = encode

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._inner, name, value)

    def greet(self) -> Deferred[_Sent | None]:
        return Deferred.fromCoroutine(self._sent(b"", self._inner.greet()))

    def turned_away(self, refusal: Refusal) -> Deferred[_Sent | None]:
        return Deferred.fromCoroutine(self._sent(b"", self._inner.turned_away(refusal)))

    def parse(self, line: bytes, crlf: bool) -> _Line:
        return _Line(line, crlf, self._inner.parse(line, crlf))

    def too_long(self) -> _Line:
        return _Line(b"", True, self._inner.too_long())

    def masked_line(self, line: bytes, parsed: _Line) -> tuple[bytes, str]:
        return self._inner.masked_line(line, parsed.parsed)

    def masked_reply(self, reply: object, encoded: bytes) -> bytes:
        if isinstance(reply, _Sent):
            return encoded if reply.shown is None else reply.shown
        return self._inner.masked_reply(reply, encoded)

    def text_received(self, data: bytes) -> tuple[bytes | None, Deferred[_Sent | None] | None]:
        rest, answer = self._inner.text_received(data)
        return rest, None if answer is None else Deferred.fromCoroutine(self._sent(b".", answer))

    def handle(self, parsed: _Line) -> Deferred[_Sent | None]:
        return Deferred.fromCoroutine(self._handled(parsed))

    async def _handled(self, parsed: _Line) -> _Sent | None:
        line = await self._asked(parsed.line, self._gate.command, self._record, parsed.line)
        if line is None or self._inner.over:
            return None
        if isinstance(line, GateAnswer):
            return _Sent(line.reply, None, After.GO_ON, None)
        if not isinstance(line, bytes):
            log.error("a gate gave {what} in the place of a line", what=type(line).__name__)
            line = parsed.line
        same = line == parsed.line
        what = parsed.parsed if same else self._inner.parse(line, parsed.crlf)
        return await self._sent(line, await maybeDeferred(self._inner.handle, what))

    async def _sent(self, line: bytes, reply: Any) -> _Sent | None:
        if isinstance(reply, Deferred):
            reply = await reply
        if reply is None:
            return None
        try:
            encoded = self._encode(reply, True)
        except Exception:
            reply = self._inner.refused(Failure())
            encoded = self._encode(reply, True)
        changed = await self._asked(encoded, self._gate.reply, self._record, line, encoded)
        if changed is None:
            changed = b""
        elif not isinstance(changed, bytes) and not hasattr(changed, "pull"):
            log.error("a gate gave {what} in the place of a reply", what=type(changed).__name__)
            changed = encoded
        if isinstance(changed, bytes) and not isinstance(encoded, bytes):
            encoded.close()
        # What is secret in a reply is so as long as the gate leaves it.
        shown = (
            self._inner.masked_reply(reply, encoded)
            if changed is encoded and isinstance(encoded, bytes)
            else None
        )
        # Of a message in whose place comes something else, nothing was retrieved.
        done = reply.done if changed is encoded or not isinstance(changed, bytes) else None
        return _Sent(changed, shown, reply.after, done)

    async def _asked(self, unchanged: object, ask: Callable[..., object], *what: object) -> Any:
        try:
            return await maybeDeferred(ask, *what)
        except Exception:
            log.failure("a gate failed")
            return unchanged
