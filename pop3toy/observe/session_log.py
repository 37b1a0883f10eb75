"""The log of sessions: a line for each login, failure and end, and for mail that came in or was refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final, TypeAlias, get_args

from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from ..events import ConnectionRejected, Delivered, Ended, LoggedIn, LoginFailed, Refused, TLSFailed
from ..interfaces import Channel, IObserver
from ..printable import printable

__all__ = ["SessionLog"]

#: The namespace of its lines.  Installed filters of fail2ban look for it.
NAMESPACE: Final = "pop3toy.session"

#: Characters of a name or address that a line shows; real ones have fewer.
NAME = 200

#: The kinds of events that there is a line for.
_Logged: TypeAlias = LoggedIn | Ended | LoginFailed | ConnectionRejected | TLSFailed | Delivered | Refused

#: Ends without a login that have no line: the client left, or another line says why.
_UNSAID: Final = ("quit", "dropped", "rejected", "shutdown")


@implementer(IObserver)
class SessionLog:
    """Writes lines for people and for fail2ban.

    Each event of Twisted's log carries its text ready-made, and beside it the pop3toy event as ``event``:
    putting so many fields into a format is a large part of a whole session's work.  Text that a client has
    chosen is escaped, so that it adds no field and no line.

    :param wants: the kinds of events that it writes of; if not given, all for which there is a line.
    :param wall_clock: the time of day.
    """

    def __init__(
        self, wants: Collection[type] | None = None, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.log = Logger(NAMESPACE, source=self)
        self._wall_clock = wall_clock
        self.wants: Collection[type] = frozenset(get_args(_Logged) if wants is None else wants)

    def observe(self, event: _Logged) -> None:
        """Write the line of an event."""
        level = LogLevel.info
        match event:
            case LoggedIn():
                text = _login(event)
            case Ended() if event.user is None and event.why in _UNSAID:
                return
            case Ended():
                text = _end(event)
            case LoginFailed():
                level, text = LogLevel.warn, _failure(event)
            case ConnectionRejected():
                level, text = LogLevel.warn, _rejected(event)
            case TLSFailed():
                text = _tls_failed(event)
            case Delivered():
                text = _delivered(event)
            case Refused():
                text = _refused(event)
        # As Logger.emit does, which looks for the level among all levels each time.
        self.log.observer(
            {
                "log_logger": self.log,
                "log_level": level,
                "log_namespace": self.log.namespace,
                "log_source": self,
                "log_format": "{text}",
                "log_time": self._wall_clock(),
                "text": text,
                "event": event,
            }
        )


def _login(event: LoggedIn) -> str:
    return f"login: {_who(event.session, event.channel, event.user, event.mechanism)}{_unless_pop3(event)}"


def _failure(event: LoginFailed) -> str:
    # The reason is last: fail2ban's filter expects it at the end of the line.
    who = _who(event.session, event.channel, event.user, event.mechanism)
    return f"login failed: {who}{_unless_pop3(event)} reason={printable(event.why)}"


def _end(event: Ended) -> str:
    return (
        f"end: {_who(event.session, event.channel, event.user, event.mechanism)} ended={event.why}"
        f" seconds={event.seconds:.3f} received={event.received} sent={event.sent}"
        f" retrieved={event.retrieved} removed={event.removed}{_unless_pop3(event)}"
    )


def _rejected(event: ConnectionRejected) -> str:
    return f"connection refused: rip={_field(event.channel.host)} reason={printable(event.why)}"


def _tls_failed(event: TLSFailed) -> str:
    return (
        f"TLS failed: session={event.session} rip={_field(event.channel.host)} protocol={event.protocol}"
        f" reason={printable(event.why)}"
    )


def _delivered(event: Delivered) -> str:
    users = ", ".join([user for user, _ in event.uids])
    between = printable(f"from <{event.sender}> for {users}")
    return (
        f"message {event.queue_id} delivered: {event.octets} octets {between}"
        f" session={event.session} rip={_field(event.channel.host)} protocol={event.protocol}"
    )


def _refused(event: Refused) -> str:
    return (
        f"mail refused: session={event.session} rip={_field(event.channel.host)} protocol={event.protocol}"
        f" id={event.queue_id or '-'} from=<{_field(event.sender[:NAME])}>"
        f" to=<{_field(event.recipient[:NAME])}>"
        f" code={event.code} reason={printable(f'{event.enhanced} {event.reason}'.lstrip())}"
    )


def _unless_pop3(event: LoggedIn | LoginFailed | Ended) -> str:
    return "" if event.protocol == "POP3" else f" protocol={event.protocol}"


def _field(text: str | None) -> str:
    """A value that ends at a blank: text that a client may have chosen adds no field and no line."""
    return printable(str(text)).replace(" ", "\\x20")


def _who(session: int, channel: Channel, user: str | None, mechanism: str | None) -> str:
    tls = channel.tls.version if channel.tls is not None else "none"
    # The name that a client claims can be as long as a line of AUTH (RFC 5034 section 4).
    claimed = user[:NAME] if user is not None else None
    return (
        f"session={session} rip={_field(channel.host)} user={claimed!r}"
        f" mechanism={_field(mechanism)} tls={tls}"
    )
