"""Who counts: providers of :class:`~pop3toy.interfaces.IMeter`.

:class:`LogMeter` writes one structured line for each login and one for each
session's end.  Client bytes are fields of a log event, never its format.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from ..interfaces import Channel, IMeter, SessionRecord
from ..pop3.commands import name_alone
from ..printable import printable

__all__ = ["LogMeter"]

#: Characters of a user's name that a line shows; no real one has more.
NAME = 200


@implementer(IMeter)
class LogMeter:
    """One line for each login, each failure and each end, for people and for fail2ban.

    Each event carries its text ready-made and the record beside it: Twisted
    would take 60 microseconds to put so many fields into a format, which is a
    tenth of a whole session.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self.log = Logger(f"{__name__}.{type(self).__name__}", source=self)
        self._wall_clock = wall_clock

    def connected(self, record: SessionRecord) -> None:
        """Say nothing: a connection alone is no news."""

    def turned_away(self, channel: Channel, why: str) -> None:
        """See :class:`IMeter`."""
        text = f"connection refused: rip={_field(channel.host)} reason={printable(why)}"
        self.log.warn("{text}", text=text, channel=channel)

    def login_failed(self, record: SessionRecord, user: str, mechanism: str, why: str) -> None:
        """See :class:`IMeter`."""
        # A session has done this already; what an SMTP client claims comes as it is.
        claimed = name_alone(user.encode("utf-8", "replace")).decode("utf-8")
        text = f"login failed: {_who(record, claimed, mechanism)} reason={printable(why)}"
        self.log.warn("{text}", text=text, record=record)

    def logged_in(self, record: SessionRecord) -> None:
        """See :class:`IMeter`."""
        self._say(f"login: {_who(record, record.user, record.mechanism)}", record)

    def ended(self, record: SessionRecord) -> None:
        """See :class:`IMeter`."""
        if record.user is None:
            return
        text = (
            f"end: {_who(record, record.user, record.mechanism)} ended={record.ended}"
            f" seconds={record.seconds:.3f} received={record.received} sent={record.sent}"
            f" retrieved={record.retrieved} removed={record.removed}"
        )
        self._say(text, record)

    def _say(self, text: str, record: SessionRecord) -> None:
        """What ``Logger.info`` does, which sorts all levels each time to see that this is one."""
        self.log.observer(
            {
                "log_logger": self.log,
                "log_level": LogLevel.info,
                "log_namespace": self.log.namespace,
                "log_source": self,
                "log_format": "{text}",
                "log_time": self._wall_clock(),
                "text": text,
                "record": record,
            }
        )


def _field(text: str | None) -> str:
    """A value that ends at a blank: what a client may have had a say in writes no field and no line."""
    text = str(text)
    # The usual case, in half the time.
    if text.isprintable() and " " not in text:
        return text
    return printable(text).replace(" ", "\\x20")


def _who(record: SessionRecord, user: str | None, mechanism: str | None) -> str:
    channel = record.channel
    tls = channel.tls.version if channel.tls is not None else "none"
    # And what one claims can be 12,288 octets long (RFC 5034 section 4).
    claimed = user[:NAME] if user is not None else None
    return (
        f"session={record.number} rip={_field(channel.host)} user={claimed!r}"
        f" mechanism={_field(mechanism)} tls={tls}"
    )
