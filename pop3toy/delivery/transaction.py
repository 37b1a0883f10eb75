"""One message on its way in: its envelope, its text, and what a store's trouble is called in SMTP.

Knows the store's ports and no connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from twisted.logger import Logger

from ..errors import NoSuchMailbox, OverQuota, StoreFull, StoreTrouble
from ..interfaces import Incoming, MaybeDeferred, SharedIncoming
from . import limits, trace
from .envelope import Address, Sender
from .framing import MessageText

__all__ = ["Answer", "Message", "Transaction", "answer_to", "log_trouble"]

log = Logger()

#: A reply: code, enhanced status code (RFC 3463), text.
Answer: TypeAlias = tuple[int, str, str]


@dataclass
class Transaction:
    """One message between MAIL and DATA (RFC 5321 section 3.3)."""

    sender: Sender
    #: Each recipient that was accepted, and the users behind it.
    recipients: list[tuple[Address, tuple[str, ...]]] = field(default_factory=list)
    #: A user is there once, however many addresses lead to it.
    incomings: dict[str, Incoming] = field(default_factory=dict)

    def abort(self) -> None:
        """It comes to nothing."""
        for incoming in self.incomings.values():
            incoming.abort()


class Message:
    """A message behind DATA, while it comes.

    :param header: what is put before it.
    """

    def __init__(self, transaction: Transaction, incoming: SharedIncoming, ident: str, header: bytes) -> None:
        self.transaction = transaction
        self.incoming = incoming
        self.ident = ident
        self.text = MessageText()
        #: The reply, once it is clear that the message is not taken.
        self.refused: Answer | None = None
        # Waits until the first line has been seen.
        self._header = header
        self._start = b""

    def refuse(self, code: int, enhanced: str, text: str) -> None:
        """Take no more of it; the client hears so behind its end, where it listens."""
        if self.refused is None:
            self.refused = (code, enhanced, text)
            self.incoming.abort()

    def take(self, text: bytes) -> MaybeDeferred[None]:
        """Hand text on to the store."""
        if self._header:
            self._start += text
            line, newline, _ = self._start.partition(b"\n")
            if not newline and len(line) < limits.FIRST_LINE and not self.text.finished:
                return None
            blank = b"" if trace.begins_with_header(line) else b"\r\n"
            text, self._header, self._start = self._header + blank + self._start, b"", b""
        return self.incoming.write(text)


def answer_to(error: StoreTrouble, *, at_end: bool) -> Answer:
    """The reply to a store that cannot take a message.

    :param at_end: behind the message, not behind RCPT.
    """
    if isinstance(error, OverQuota):
        # A full mailbox may be emptied soon; a message that does not fit into what is
        # left would be sent in vain for days.
        return (
            (552, "5.2.2", "it does not fit into the mailbox")
            if at_end
            else (452, "4.2.2", "mailbox is full")
        )
    if isinstance(error, StoreFull):
        return 452, "4.3.1", "no room for mail at the moment"
    if isinstance(error, NoSuchMailbox):
        return 550, "5.1.1", "no such user here"
    return 451, "4.3.0", "mail cannot be stored at the moment, please try again later"


def log_trouble(error: StoreTrouble) -> None:
    """Tell the administrator what the client does not hear."""
    log.warn("delivery: {text} {detail}", text=error.text, detail=error.detail)
