"""The log of sessions and mail: a line for each login, failure and end, and for what becomes of a message.

One table, :data:`LINES`, says what is written of each kind of event: its name, its level and its fields, in
their order.  A line of text (``kind: name=value name=value ...``) and an object of JSON, with the same names,
are made of it.

Nothing that a client or a sender has chosen adds a field or a line: a blank in a value is ``\\x20``, but in
``reason``, which is the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from ..events import (
    Bounced,
    ConnectionRejected,
    Delivered,
    Ended,
    LoggedIn,
    LoginFailed,
    PasswordChanged,
    Queued,
    QueueRemoved,
    Refused,
    SendDeferred,
    Sent,
    TLSFailed,
)
from ..interfaces import Channel, IObserver
from ..printable import printable
from .log_levels import Levels

__all__ = ["FIELDS", "LINES", "Field", "Line", "SessionLog", "fields_of"]

#: The namespace of its lines.  Installed filters of fail2ban look for it.
NAMESPACE: Final = "pop3toy.session"

#: Characters of a name or address that a line shows; real ones have fewer, but the name that a client claims
#: can be as long as a line of AUTH (RFC 5034 section 4).
NAME: Final = 200

#: What stands in a line of text for a value that there is none of; in JSON it is null.
ABSENT: Final = "-"

#: Ends without a login that have no line: the client left, or another line says why.
_UNSAID: Final = ("quit", "dropped", "rejected", "shutdown")


class Field(NamedTuple):
    """A field of a line."""

    name: str
    #: A sentence for people.
    says: str
    #: How its value stands in a line of text, as ``%`` takes it.
    form: str = "%s"
    #: Makes a value safe for a line of text; ``None`` for what cannot but be.
    safe: Callable[[Any], object] | None = None


class Line:
    """What is written of a kind of event.

    :param values: the fields' values in an event, in their order: text, numbers, lists of text, and ``None``.
    """

    def __init__(
        self, kind: str, level: Any, fields: Sequence[Field], values: Callable[[Any], list[object]]
    ) -> None:
        self.kind, self.level, self.fields, self.values = kind, level, fields, values
        self._form = f"{kind}: {' '.join([f'{one.name}={one.form}' for one in fields])}"
        self._safe = [(at, one.safe) for at, one in enumerate(fields) if one.safe is not None]

    def text(self, event: object) -> str:
        """The line of text, without its end."""
        values = self.values(event)
        for at, safe in self._safe:
            values[at] = safe(values[at])
        return self._form % tuple(values)


def _escaped(text: str) -> str:
    """A value that ends at a blank."""
    return printable(text).replace(" ", "\\x20")


# The same hosts, users and mechanisms come again and again.
@lru_cache(1024)
def _word(text: str | None) -> str:
    return ABSENT if text is None else _escaped(text)


@lru_cache(1024)
def _quoted(user: str | None) -> str:
    return ABSENT if user is None else _escaped(repr(user))


def _listed(names: Sequence[str]) -> str:
    return ",".join([_escaped(one).replace(",", "\\x2c") for one in names]) or ABSENT


def _addresses(addresses: Sequence[str]) -> str:
    return _listed([f"<{one}>" for one in addresses])


_SESSION = Field("session", "the connection's number", safe=lambda number: number or ABSENT)
_RIP = Field("rip", "the client's address; ``unix`` for a Unix socket", safe=_word)
_USER = Field("user", "the account; of a failed login the name as the client sent it", safe=_quoted)
_MECHANISM = Field("mechanism", "``USER``, ``APOP``, a SASL mechanism, or ``PASSWORD`` by HTTP", safe=_word)
_TLS = Field("tls", "the version of TLS; ``none`` without", safe=lambda version: version or "none")
_PROTOCOL = Field("protocol", "``POP3``, ``SMTP``, ``submission``, ``LMTP`` or ``HTTP``")
_REASON = Field("reason", "why; always the last, and may have blanks", safe=printable)
_ENDED = Field("ended", "how the connection ended", safe=_word)
_SECONDS = Field("seconds", "how long it took", "%.3f")
_RECEIVED = Field("received", "octets from the client")
_SENT = Field("sent", "octets to the client")
_RETRIEVED = Field("retrieved", "messages that were fetched")
_REMOVED = Field("removed", "messages that were removed")
_ID = Field("id", "what a sender was told of a message: 12 hexadecimal digits", safe=_word)
_OCTETS = Field("octets", "of the message")
_FROM = Field("from", "the envelope's sender; empty for a bounce", "<%s>", _escaped)
_TO = Field("to", "the envelope's recipients; in JSON a list", safe=_addresses)
_USERS = Field("to", "the users who got it; in JSON a list", safe=_listed)
_CODE = Field("code", "the reply's code")
_SMARTHOST = Field("smarthost", "the server that mail is handed to", safe=_word)
_ATTEMPTS = Field("attempts", "how often it was tried")
_WAIT = Field("wait", "seconds until it is tried again")

_WHO = (_SESSION, _RIP, _USER, _MECHANISM, _TLS)
_WHERE = (_SESSION, _RIP, _PROTOCOL)


def _tls(channel: Channel) -> str | None:
    return channel.tls.version if channel.tls is not None else None


def _of_login(event: LoggedIn) -> list[object]:
    number, _, protocol, channel, user, mechanism = event
    return [number or None, channel.host, user[:NAME], mechanism, _tls(channel), protocol]


def _of_failure(event: LoginFailed) -> list[object]:
    number, _, protocol, channel, user, mechanism, why = event
    return [number or None, channel.host, user[:NAME], mechanism, _tls(channel), protocol, why]


def _of_end(event: Ended) -> list[object]:
    number, _, protocol, channel, user, mechanism, why, seconds, received, sent, retrieved, removed = event
    return [
        number, channel.host, user, mechanism, _tls(channel), why, seconds, received, sent, retrieved,
        removed, protocol,
    ]  # fmt: skip


def _where(event: Any) -> list[object]:
    return [event.session or None, event.channel.host, event.protocol]


def _of_delivery(event: Delivered) -> list[object]:
    users = [user[:NAME] for user, _ in event.uids]
    return [event.queue_id, event.octets, event.sender[:NAME], users, *_where(event)]


def _of_refusal(event: Refused) -> list[object]:
    to = [event.recipient[:NAME]] if event.recipient else []
    reason = f"{event.enhanced} {event.reason}".lstrip()
    return [*_where(event), event.queue_id or None, event.sender[:NAME], to, event.code, reason]


def _of_queued(event: Queued) -> list[object]:
    to = [one[:NAME] for one in event.recipients]
    return [event.queue_id, event.octets, event.sender[:NAME], to, event.user, *_where(event)]


def _of_fate(event: Sent | Bounced) -> list[object]:
    to = [event.recipient[:NAME]]
    end = [event.user, event.smarthost, event.seconds, event.reason]
    return [event.queue_id, event.sender[:NAME], to, *end]


def _of_deferral(event: SendDeferred) -> list[object]:
    to = [one[:NAME] for one in event.recipients]
    end = [event.user, event.smarthost, event.attempts, round(event.wait), event.reason]
    return [event.queue_id, event.sender[:NAME], to, *end]


_FATE = (_ID, _FROM, _TO, _USER, _SMARTHOST, _SECONDS, _REASON)
_INFO, _WARN = LogLevel.info, LogLevel.warn

#: What is written of each kind of event.  fail2ban's filter needs the address before the user's name, and the
#: reason of a failure at the end.
LINES: Final[Mapping[type, Line]] = {
    LoggedIn: Line("login", _INFO, (*_WHO, _PROTOCOL), _of_login),
    LoginFailed: Line("login failed", _WARN, (*_WHO, _PROTOCOL, _REASON), _of_failure),
    PasswordChanged: Line(
        "password changed", _INFO, (*_WHERE, _USER), lambda event: [*_where(event), event.user]
    ),
    Ended: Line(
        "end",
        _INFO,
        (*_WHO, _ENDED, _SECONDS, _RECEIVED, _SENT, _RETRIEVED, _REMOVED, _PROTOCOL),
        _of_end,
    ),
    ConnectionRejected: Line(
        "connection refused", _WARN, (*_WHERE, _REASON), lambda event: [*_where(event), event.why]
    ),
    TLSFailed: Line("TLS failed", _INFO, (*_WHERE, _REASON), lambda event: [*_where(event), event.why]),
    Delivered: Line("delivered", _INFO, (_ID, _OCTETS, _FROM, _USERS, *_WHERE), _of_delivery),
    Refused: Line("mail refused", _INFO, (*_WHERE, _ID, _FROM, _TO, _CODE, _REASON), _of_refusal),
    Queued: Line("queued", _INFO, (_ID, _OCTETS, _FROM, _TO, _USER, *_WHERE), _of_queued),
    Sent: Line("sent", _INFO, _FATE, _of_fate),
    SendDeferred: Line(
        "deferred",
        _WARN,
        (_ID, _FROM, _TO, _USER, _SMARTHOST, _ATTEMPTS, _WAIT, _REASON),
        _of_deferral,
    ),
    Bounced: Line("bounced", _WARN, _FATE, _of_fate),
    QueueRemoved: Line("removed", _INFO, (_ID,), lambda event: [event.queue_id]),
}

#: All fields by name, with what they say.
FIELDS: Final[Mapping[str, str]] = {one.name: one.says for line in LINES.values() for one in line.fields}


def fields_of(event: object) -> tuple[str, dict[str, object]] | None:
    """The kind of an event's line and its fields, as JSON can hold them; ``None`` if it has no line."""
    line = LINES.get(type(event))
    if line is None:
        return None
    values = [round(value, 3) if type(value) is float else value for value in line.values(event)]
    return line.kind, {one.name: value for one, value in zip(line.fields, values, strict=True)}


@implementer(IObserver)
class SessionLog:
    """Writes lines for people and for fail2ban.

    Each event of Twisted's log carries its text ready-made, and beside it the pop3toy event as ``event``:
    putting so many fields into a format is a large part of a whole session's work.

    :param wants: the kinds of events that it writes of; if not given, all for which there is a line.
    :param levels: which levels are written at all; if not given, all.
    :param wall_clock: the time of day.
    """

    def __init__(
        self,
        wants: Collection[type] | None = None,
        *,
        levels: Levels | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.log = Logger(NAMESPACE, source=self)
        self._levels = levels or Levels()
        self._wall_clock = wall_clock
        self.wants: Collection[type] = frozenset(LINES if wants is None else wants)

    def observe(self, event: Any) -> None:
        """Write the line of an event."""
        line = LINES[type(event)]
        if line.level not in self._levels.shown:
            return
        if isinstance(event, Ended) and event.user is None and event.why in _UNSAID:
            return
        # As Logger.emit does, which looks for the level among all levels each time.
        self.log.observer(
            {
                "log_logger": self.log,
                "log_level": line.level,
                "log_namespace": self.log.namespace,
                "log_source": self,
                "log_format": "{text}",
                "log_time": self._wall_clock(),
                "text": line.text(event),
                "event": event,
            }
        )
