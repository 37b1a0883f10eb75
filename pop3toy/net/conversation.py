"""What a connection asks of the protocol that is spoken on it: POP3 and SMTP each have a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.python.failure import Failure

from ..errors import Refusal
from ..interfaces import After, Channel, ConnectionSlot, Later, MaybeDeferred

__all__ = ["Conversation", "Reply"]


class Reply(Protocol):
    """What a connection knows of a reply."""

    @property
    def after(self) -> After:
        """What comes when it was given to the writer."""

    @property
    def done(self) -> Callable[[], object] | None:
        """Called, unless it is ``None``, when the last octet was handed to the writer."""


_P = TypeVar("_P")
_R = TypeVar("_R", bound=Reply)


class Conversation(Protocol[_P, _R]):
    """What is said on a connection: the pure part of a protocol.

    What a line is (``_P``) and what is replied (``_R``) are values of the protocol's own; the connection's
    ``encode`` makes bytes of a reply.
    """

    #: ``POP3``, ``SMTP``, ``submission`` or ``LMTP``.
    name: str
    #: Whether TLS can be started here; the connection says so when it has its transport.
    can_start_tls: bool
    #: This connection's place at the limiter, if there is one.
    slot: ConnectionSlot | None

    def greet(self) -> MaybeDeferred[_R]:
        """The first reply."""

    def turned_away(self, refusal: Refusal) -> MaybeDeferred[_R]:
        """The only reply, to one connection too many."""

    def parse(self, line: bytes, crlf: bool) -> _P:
        """What a line is.

        :param line: without its end.
        :param crlf: whether that was CRLF, and not a bare LF.
        """

    def too_long(self) -> _P:
        """What stands for a line of which too much came to keep it."""

    def handle(self, parsed: _P) -> MaybeDeferred[_R]:
        """Carry out what :meth:`parse` gave, and answer it.  Never raises, never fails.

        A Deferred may fire with ``None``: then nothing is answered.
        """

    def text_received(self, data: bytes) -> tuple[bytes | None, MaybeDeferred[_R | None]]:
        """Octets of a message, behind a reply with ``After.READ_TEXT``.

        :return: what stands behind the message's end, or ``None`` while it goes on; and a reply, or
            ``None`` for none, or a Deferred of either, which has to be waited for.
        """

    def masked_line(self, line: bytes, parsed: _P) -> tuple[bytes, str]:
        """What of a line is no secret, and the command's keyword (empty for what is none)."""

    def masked_reply(self, reply: _R, encoded: bytes) -> bytes:
        """What of a reply is no secret."""

    def refused(self, failure: Failure) -> _R:
        """The reply in the place of one that failed before its first octet."""

    def restart(self, channel: Channel) -> None:
        """TLS is on: ``record.channel`` is this one; forget all that was learned before."""

    def closing(self, why: str, waiting: bool) -> _R | Later | None:
        """The last reply where the server ends the connection; ``None`` for none.

        :param why: see :attr:`~pop3toy.interfaces.SessionRecord.ended`.
        :param waiting: whether an answer is pending.
        :return: :data:`~pop3toy.interfaces.LATER` if what is pending has to be finished; then this is
            asked again.
        """

    def deadline(self, now: float, began: float, last: float, *, shaking_hands: bool, waiting: bool) -> float:
        """When the connection is to be closed if nothing more happens; before that it is asked again.

        :param began: when the connection was made, in seconds of the clock, like all times here.
        :param last: when the last reply or text was sent or came; ``now`` while the server is busy.
        """

    def end(self) -> MaybeDeferred[None]:
        """Nothing more is asked.  Finish what must be, give back what is held.

        :return: fires when that is done.  May be called twice.
        """

    @property
    def logged_in(self) -> bool:
        """Whether a user is in, whom a stopping server gives the time to finish."""

    @property
    def finishing(self) -> bool:
        """Whether something is being made durable that goes on even if the client goes away."""

    @property
    def over(self) -> bool:
        """Whether no answer is sent any more."""

    @property
    def state_name(self) -> str:
        """The state, for observers."""
