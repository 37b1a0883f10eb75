"""What goes out on an SMTP connection: replies, in one piece each, and what the transcript is told.

What must not live here: what comes in, and when (``connection.py``).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol

from ..interfaces import ITranscript
from . import limits

__all__ = ["Replies"]


class Replies(Protocol):
    """The outgoing half of a connection.

    :param number: under which transcript and log know it.
    """

    #: ITransport, IConsumer, IPushProducer and abortConnection in one.
    transport: Any

    def __init__(self, number: int, *, transcript: ITranscript | None) -> None:
        self.number = number
        #: Nothing more is said.
        self.closing = False
        self.transcript = transcript
        #: Mistakes of the client's in a row.
        self.errors = 0

    def close(self, why: str) -> None:
        """End the connection when the replies are out."""
        raise NotImplementedError

    def reply(self, code: int, enhanced: str, text: str) -> None:
        """One reply with its enhanced status code (RFC 2034 section 4)."""
        self.sendCode(code, f"{enhanced} {text}".encode("ascii", "replace"))

    def sendCode(self, code: int, message: bytes = b"") -> None:
        """Write a reply, perhaps of several lines, in one piece."""
        if self.closing:
            return
        lines = message.splitlines() or [b""]
        data = b"".join(b"%d-%b\r\n" % (code, line) for line in lines[:-1]) + b"%d %b\r\n" % (code, lines[-1])
        if self.transcript is not None:
            self.transcript.sent(self.number, data, True)
        self.transport.write(data)

    def error(self, code: int, enhanced: str, text: str) -> None:
        """A reply to a mistake of the client's; too many of them end the connection."""
        self.errors += 1
        last = self.errors >= limits.ERRORS
        self.reply(code, enhanced, f"{text}; too many errors, goodbye" if last else text)
        if last:
            self.reply(421, "4.7.0", "too many errors")
            self.close("limit")

    def heard(self, line: bytes, parsed: object) -> None:
        """Tell the transcript of a line; it masks by what ``parsed`` is, a value of ``pop3/commands.py``."""
        if self.transcript is not None:
            self.transcript.received(self.number, line, parsed)

    def overheard(self, data: bytes, last: bool) -> None:
        """Tell the transcript of octets of a message; ``last`` with its end."""
        if self.transcript is not None:
            self.transcript.message(self.number, data, last)

    def note(self, text: str) -> None:
        """Tell the transcript something that is neither side's line."""
        if self.transcript is not None:
            self.transcript.note(self.number, text)
