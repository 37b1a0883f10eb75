"""What happened, as values: one stream for all observers.

The kinds are the same for POP3, SMTP, submission and LMTP.  A connection stamps events with its number and
the time, and gives them to observers in the order of the conversation; a kind that no observer wants is
never built.  An observer is an :class:`~pop3toy.interfaces.IObserver`; it cannot act, which is what a
:class:`~pop3toy.interfaces.IGate` and :class:`~pop3toy.interfaces.IServerControl` are for.

No event holds a secret of real mail: each protocol decides which part of a line may be shown, by what the
command is and never by a pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias, get_args

from twisted.logger import Logger

from .interfaces import Channel, IObserver, TLSFacts

__all__ = [
    "KINDS",
    "LATE",
    "NONE",
    "Bounced",
    "Connected",
    "ConnectionRejected",
    "Delivered",
    "Ended",
    "Event",
    "InputDiscarded",
    "LineReceived",
    "LoggedIn",
    "LoginFailed",
    "MessageRemoved",
    "MessageRetrieved",
    "Noted",
    "Observers",
    "PasswordChanged",
    "QueueRemoved",
    "Queued",
    "Refused",
    "ReplySent",
    "SendDeferred",
    "Sent",
    "TLSFailed",
    "TLSStarted",
    "TextReceived",
]

log = Logger()

#: The number of no session: of what happens at the page for passwords, and to mail in the queue.
NONE: Final = 0


class Connected(NamedTuple):
    """A client has connected; what it is told next is the greeting, or why it is sent away."""

    #: The connection's number, by which all its events belong together.
    session: int
    #: Seconds of the connection's clock, which is not the time of day.
    at: float
    #: ``POP3``, ``SMTP``, ``submission`` or ``LMTP``; of the page for passwords ``HTTP``.
    protocol: str
    channel: Channel
    #: The client's address and port in text.
    peer: str


class ConnectionRejected(NamedTuple):
    """A connection was sent away by a limit, or because the server is stopping."""

    session: int
    at: float
    protocol: str
    channel: Channel
    #: What the client was told.
    why: str


class LineReceived(NamedTuple):
    """The client sent a line."""

    session: int
    at: float
    #: Without its line end, and without what is secret in it.
    line: bytes
    #: Octets of the line as it came, with its line end.
    octets: int
    #: The command's keyword in capitals; empty for what is none.
    command: str
    #: The state in which it came, by its name.
    state: str
    #: Octets of input behind the line that were waiting already: those of commands that came with it.
    behind: int = 0


class TextReceived(NamedTuple):
    """The client sent a part of a message behind DATA, as it was on the wire."""

    session: int
    at: float
    #: Empty where mail is private, which is everywhere but in the toy.
    data: bytes
    octets: int
    #: Whether its end, the line with the dot, is in it.
    last: bool


class ReplySent(NamedTuple):
    """A reply, or a piece of a long one, has left; or did not, because the connection ended before."""

    session: int
    at: float
    #: What went out, without what is secret in it.
    data: bytes
    octets: int
    #: Whether the reply ends with it.
    last: bool
    #: Whether the transport was given it.
    handed_over: bool


class InputDiscarded(NamedTuple):
    """What came was thrown away: behind STLS or STARTTLS in clear text (RFC 3207 section 6), or behind
    what was told of a line that is too long.
    """

    session: int
    at: float
    octets: int


class TLSStarted(NamedTuple):
    """The handshake is done."""

    session: int
    at: float
    tls: TLSFacts


class TLSFailed(NamedTuple):
    """The handshake failed, and with it the connection."""

    session: int
    at: float
    protocol: str
    channel: Channel
    #: In OpenSSL's words.
    why: str


class LoggedIn(NamedTuple):
    """A user is in: the maildrop is open, or mail may be submitted."""

    session: int
    at: float
    protocol: str
    channel: Channel
    user: str
    #: ``USER``, ``APOP`` or a SASL mechanism's name.
    mechanism: str


class LoginFailed(NamedTuple):
    """An authentication failed."""

    session: int
    at: float
    protocol: str
    channel: Channel
    #: The name that the client claimed, without what it typed behind it, which may be a password.
    user: str
    mechanism: str
    #: A response code without brackets (``AUTH``, ``IN-USE`` ...).
    why: str


class MessageRetrieved(NamedTuple):
    """All of a message that RETR asked for was handed to the transport."""

    session: int
    at: float
    number: int
    uid: bytes
    octets: int


class MessageRemoved(NamedTuple):
    """QUIT has removed a message, durably."""

    session: int
    at: float
    uid: bytes


class Delivered(NamedTuple):
    """A message is durable in a user's maildrop; the client is about to be told so."""

    session: int
    at: float
    protocol: str
    channel: Channel
    #: Under which the client is told of the message, and its Received header tells.
    queue_id: str
    #: Of the envelope; empty for a bounce.
    sender: str
    octets: int
    #: The users who got it, each with the unique-id.
    uids: Sequence[tuple[str, bytes]]


class Refused(NamedTuple):
    """Mail was not taken: at MAIL, at RCPT or behind the message."""

    session: int
    at: float
    protocol: str
    channel: Channel
    #: Empty before DATA.
    queue_id: str
    sender: str
    #: Of the envelope; empty where it concerns none in particular.
    recipient: str
    #: The reply: its code, its enhanced status code (RFC 3463) and its text.
    code: int
    enhanced: str
    reason: str


class Queued(NamedTuple):
    """A message for elsewhere is durable in the queue; the client is about to be told so."""

    session: int
    at: float
    protocol: str
    channel: Channel
    #: Under which the client is told of the message; what becomes of it has the same.
    queue_id: str
    #: Who has handed it in.
    user: str
    #: Of the envelope; empty for what must not be answered.
    sender: str
    octets: int
    #: The addresses elsewhere.
    recipients: Sequence[str]


class Sent(NamedTuple):
    """The smarthost has taken a message for a recipient.  What happens in the queue is of no session."""

    session: int
    at: float
    queue_id: str
    user: str
    sender: str
    recipient: str
    smarthost: str
    #: Seconds since it was queued.
    seconds: float
    #: The smarthost's reply.
    reason: str


class SendDeferred(NamedTuple):
    """A message could not be handed on now, and is tried again (RFC 5321 section 4.5.4.1)."""

    session: int
    at: float
    queue_id: str
    user: str
    sender: str
    #: Those for whom it waits.
    recipients: Sequence[str]
    smarthost: str
    #: How often it was tried, and the seconds until it is tried again.
    attempts: int
    wait: float
    #: The smarthost's reply, or why there was none.
    reason: str


class Bounced(NamedTuple):
    """A message is given up for a recipient: refused for good, or its time is up."""

    session: int
    at: float
    queue_id: str
    user: str
    sender: str
    recipient: str
    smarthost: str
    #: Seconds since it was queued.
    seconds: float
    #: The smarthost's reply, or why there was none.
    reason: str


class QueueRemoved(NamedTuple):
    """The administrator has removed a message from the queue; nobody is told."""

    session: int
    at: float
    queue_id: str


class PasswordChanged(NamedTuple):
    """A user has changed their password by the page for it."""

    session: int
    at: float
    protocol: str
    channel: Channel
    user: str


class Noted(NamedTuple):
    """Somebody who acts on the conversation, by a gate or by ``IServerControl``, tells what they did."""

    session: int
    at: float
    text: str


class Ended(NamedTuple):
    """The connection is gone, and all that it held is given back.

    The last event of a connection, but for a :class:`LoginFailed`, a :class:`Delivered` and a
    :class:`Queued`: a guess is judged to its end though the client has hung up, and a message that was being
    made durable when the server stopped may be so after all.
    """

    session: int
    at: float
    protocol: str
    channel: Channel
    #: Who was logged in, if anybody.
    user: str | None
    mechanism: str | None
    #: See :attr:`pop3toy.interfaces.SessionRecord.ended`.
    why: str
    #: Seconds since it was made.
    seconds: float
    #: Octets from and to the client.
    received: int
    sent: int
    #: Messages.
    retrieved: int
    removed: int


Event: TypeAlias = (
    Connected
    | ConnectionRejected
    | LineReceived
    | TextReceived
    | ReplySent
    | InputDiscarded
    | TLSStarted
    | TLSFailed
    | LoggedIn
    | LoginFailed
    | MessageRetrieved
    | MessageRemoved
    | Delivered
    | Refused
    | Queued
    | Sent
    | SendDeferred
    | Bounced
    | QueueRemoved
    | PasswordChanged
    | Noted
    | Ended
)

#: What may be told behind the end.
LATE: Final[tuple[type[Event], ...]] = (LoginFailed, Delivered, Queued)

#: All kinds of events.
KINDS: Final[tuple[type[Event], ...]] = get_args(Event)

_Tell: TypeAlias = Callable[[Event], object]


class Observers:
    """Which observers are told of which kinds; connections look into it.

    :param observers: any number of :class:`~pop3toy.interfaces.IObserver`, told in this order.
    :param secrets: whether events hold lines and mail as they came: for a server whose secrets
        everybody knows.
    """

    def __init__(self, *observers: IObserver, secrets: bool = False) -> None:
        self.secrets = secrets
        wanted: dict[type, list[_Tell]] = {}
        for observer in observers:
            for kind in observer.wants:
                wanted.setdefault(kind, []).append(observer.observe)
        #: What to call with an event, by its kind; a kind that no observer wants is not in it.
        self.told: dict[type, _Tell] = {kind: _each(calls) for kind, calls in wanted.items()}

    def happened(self, kind: type[Event], at: float, *what: object) -> None:
        """Tell of something that is of no connection.

        :param kind: of :data:`KINDS`.
        :param at: seconds of a clock that is never set.
        """
        tell = self.told.get(kind)
        if tell is not None:
            tell(tuple.__new__(kind, (NONE, at, *what)))


def _each(calls: Sequence[_Tell]) -> _Tell:
    """Calls them all; one that fails is logged, and disturbs neither the others nor the conversation."""

    first, *others = calls

    def tell(event: Event) -> None:
        try:
            first(event)
        except Exception:
            log.failure("an observer failed")
        if rest is not None:
            rest(event)

    rest = _each(others) if others else None
    return tell
