"""The log of sessions: a line for each login, failure and end, and for mail that came in or was refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Final

from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from ..events import ConnectionRejected, Delivered, Ended, LoggedIn, LoginFailed, Refused
from ..interfaces import Channel, IObserver
from ..printable import printable

__all__ = ["SessionLog"]

#: Under which its lines are written.  Filters of fail2ban that people have installed look for it.
NAMESPACE: Final = "pop3toy.session"

#: Characters of a name or address that a line shows; no real one has more.
NAME = 200


@implementer(IObserver)
class SessionLog:
    """Writes lines for people and for fail2ban.

    Each event of the log carries its text ready-made and what happened beside it as ``event``: Twisted
    would take 60 microseconds to put so many fields into a format, which is a tenth of a whole session.
    What a client has chosen is escaped; it writes no field and no line of its own.

    :param wants: the kinds that it writes of, if not of all that it can.
    :param wall_clock: the time of day.
    """

    def __init__(
        self, wants: Collection[type] | None = None, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.log = Logger(NAMESPACE, source=self)
        self._wall_clock = wall_clock
        self._lines: dict[type, tuple[LogLevel, Callable[[Any], str | None]]] = {
            LoggedIn: (LogLevel.info, _login),
            Ended: (LogLevel.info, _end),
            LoginFailed: (LogLevel.warn, _failure),
            ConnectionRejected: (LogLevel.warn, _rejected),
            Delivered: (LogLevel.info, _delivered),
            Refused: (LogLevel.info, _refused),
        }
        self.wants: Collection[type] = frozenset(self._lines if wants is None else wants)

    def observe(self, event: Any) -> None:
        """Write the line of an event."""
        level, line = self._lines[type(event)]
        text = line(event)
        if text is None:
            return
        # What ``Logger.info`` does, which sorts all levels each time to see that this is one.
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
    # Nothing stands behind the reason, where fail2ban looks for it.
    who = _who(event.session, event.channel, event.user, event.mechanism)
    return f"login failed: {who}{_unless_pop3(event)} reason={printable(event.why)}"


def _end(event: Ended) -> str | None:
    # Who was not in and went is no news; one whom the server has sent away is, unless that was told.
    if event.user is None and event.why in ("quit", "dropped", "rejected", "shutdown"):
        return None
    return (
        f"end: {_who(event.session, event.channel, event.user, event.mechanism)} ended={event.why}"
        f" seconds={event.seconds:.3f} received={event.received} sent={event.sent}"
        f" retrieved={event.retrieved} removed={event.removed}{_unless_pop3(event)}"
    )


def _rejected(event: ConnectionRejected) -> str:
    return f"connection refused: rip={_field(event.channel.host)} reason={printable(event.why)}"


def _delivered(event: Delivered) -> str:
    users = printable(", ".join(user for user, _ in event.uids))
    sender = printable(event.sender)
    return (
        f"message {event.queue_id} delivered: {event.octets} octets from <{sender}> for {users}"
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
    """A value that ends at a blank: what a client may have had a say in writes no field and no line."""
    text = str(text)
    # The usual case, in half the time.
    if text.isprintable() and " " not in text:
        return text
    return printable(text).replace(" ", "\\x20")


def _who(session: int, channel: Channel, user: str | None, mechanism: str | None) -> str:
    tls = channel.tls.version if channel.tls is not None else "none"
    # And what one claims can be 12,288 octets long (RFC 5034 section 4).
    claimed = user[:NAME] if user is not None else None
    return (
        f"session={session} rip={_field(channel.host)} user={claimed!r}"
        f" mechanism={_field(mechanism)} tls={tls}"
    )
