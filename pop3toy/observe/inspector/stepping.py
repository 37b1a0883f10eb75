"""A gate that holds a session before its next command is carried out, and lets it go step by step."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from ...interfaces import GateAnswer, IGate, MaybeDeferred, SessionRecord, Stream

__all__ = ["Stepping"]


@implementer(IGate)
class Stepping:
    """Holds sessions.

    :param inner: another gate, which is asked behind this one.
    """

    def __init__(self, inner: IGate | None = None) -> None:
        self._inner = inner
        self._held: set[int] = set()
        self._waiting: dict[int, tuple[Deferred[bytes | None], bytes]] = {}

    def held(self, session: int) -> bool:
        """Whether it is held before its next command."""
        return session in self._held

    def hold(self, session: int) -> None:
        """Hold it, from its next command on."""
        self._held.add(session)

    def step(self, session: int) -> bool:
        """Let a command go that waits, if one does, and hold the session before the next.

        :return: whether one waited.
        """
        self._held.add(session)
        return self._go_on(session)

    def release(self, session: int) -> None:
        """Let it go on."""
        # First: what waits behind the command that goes on is asked for within that.
        self._held.discard(session)
        self._go_on(session)

    def _go_on(self, session: int) -> bool:
        waiting = self._waiting.pop(session, None)
        if waiting is not None:
            done, line = waiting
            done.callback(line)
        return waiting is not None

    def forget(self, session: int) -> None:
        """It has ended."""
        self._held.discard(session)
        waiting = self._waiting.pop(session, None)
        if waiting is not None:
            waiting[0].callback(None)

    def command(self, record: SessionRecord, line: bytes) -> MaybeDeferred[bytes | GateAnswer | None]:
        """See :class:`~pop3toy.interfaces.IGate`."""
        if record.number not in self._held:
            return self._on(record, line)
        done: Deferred[bytes | None] = Deferred()
        self._waiting[record.number] = done, line

        def go_on(line: bytes | None) -> MaybeDeferred[bytes | GateAnswer | None]:
            return None if line is None else self._on(record, line)

        return done.addCallback(go_on)

    def _on(self, record: SessionRecord, line: bytes) -> MaybeDeferred[bytes | GateAnswer | None]:
        if self._inner is None:
            return line
        asked: MaybeDeferred[bytes | GateAnswer | None] = self._inner.command(record, line)
        return asked

    def reply(
        self, record: SessionRecord, line: bytes, reply: bytes | Stream
    ) -> MaybeDeferred[bytes | Stream | None]:
        """See :class:`~pop3toy.interfaces.IGate`; replies go on as they are."""
        if self._inner is None:
            return reply
        changed: MaybeDeferred[bytes | Stream | None] = self._inner.reply(record, line, reply)
        return changed
