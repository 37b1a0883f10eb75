"""One message on its way in: its envelope, its text, and what a store's trouble is called in SMTP.

Knows the store's ports and no connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from twisted.logger import Logger

from ..addresses import Address
from ..errors import OverQuota, StoreFull, StoreTrouble
from ..interfaces import Incoming, MaybeDeferred
from ..mail.message_start import HeldStart
from .envelope import Sender
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
    users: list[str] = field(default_factory=list)


class Message:
    """A message behind DATA, while it comes.

    :param header: what is put before it.
    """

    def __init__(self, transaction: Transaction, incoming: Incoming, ident: str, header: bytes) -> None:
        self.transaction = transaction
        self.incoming = incoming
        self.ident = ident
        self.text = MessageText()
        # What is wrong with the message itself, and what the store says.
        self._refused: Answer | None = None
        self._trouble: StoreTrouble | None = None
        self._only_one = False
        self._start = HeldStart(header)

    @property
    def given_up(self) -> bool:
        """Whether it is not taken; the client hears so behind its end, where it listens."""
        return self._refused is not None or self._trouble is not None

    def refuse(self, code: int, enhanced: str, text: str) -> None:
        """Take no more of it: something is wrong with the message."""
        if self._refused is None:
            self._refused = (code, enhanced, text)
            self.incoming.abort()

    def fail(self, error: StoreTrouble, *, only_one: bool = False) -> None:
        """Take no more of it: the store cannot.

        :param only_one: it could, if it were not for one of several users.
        """
        log_trouble(error, ", ".join(self.transaction.users))
        if self._trouble is None:
            self._trouble, self._only_one = error, only_one
            self.incoming.abort()

    @property
    def answer(self) -> Answer | None:
        """The reply behind its end if it was given up."""
        if self._refused is None and self._trouble is not None:
            # One user with little room must not send it back for all: it is tried again,
            # and whoever announces its size then hears at RCPT whom it is too large for.
            return answer_to(self._trouble, 0 if self._only_one else self.text.octets)
        return self._refused

    def take(self, text: bytes) -> MaybeDeferred[None]:
        """Hand text on to the store."""
        text = self._start.feed(text, last=self.text.finished)
        return self.incoming.write(text) if text else None


def answer_to(error: StoreTrouble, octets: int) -> Answer:
    """The reply to a store that cannot take a message.

    :param octets: how large it is, as far as that is known.
    """
    if isinstance(error, OverQuota):
        if error.holds is not None and octets > error.holds:
            # However empty the mailbox is: the sender would try in vain for days.
            return 552, "5.2.3", f"message is larger than this mailbox, which holds {error.holds} octets"
        return 452, "4.2.2", "mailbox is full"
    if isinstance(error, StoreFull):
        return 452, "4.3.1", "no room for mail at the moment"
    return 451, "4.3.0", "mail cannot be stored at the moment, please try again later"


def log_trouble(error: StoreTrouble, whose: str) -> None:
    """Tell the administrator what the client does not hear.

    :param whose: the user, or several, or the address, that it is about.
    """
    why = f"{error.text}: {error.detail}" if error.detail else error.text
    log.warn("delivery for {whose!r}: {why}", whose=whose, why=why)
