"""A mail transaction (RFC 5321 section 3.3): envelope, text, where it goes, and what is wrong with it.

MAIL begins it, DATA gives it to the store's :class:`~pop3toy.interfaces.Incoming`, and it is over with the
reply behind the end of the text or with :meth:`Transaction.drop`.  Knows the store's interface, no session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..addresses import Address
from ..errors import OverQuota, StoreFull, StoreTrouble
from ..interfaces import (
    IDelivery,
    Incoming,
    Outgoing,
    OutgoingIncoming,
    OutgoingMail,
    OutgoingRecipient,
    is_deferred,
)
from ..mail.message_start import HeldStart
from .envelope import Sender
from .framing import MessageText
from .replies import Reply

__all__ = ["BUG", "Transaction", "log_trouble", "reply_to"]

log = Logger()

#: The reply to a bug of ours or of a store's.
BUG = Reply(451, "something went wrong here, please try again later", "4.3.0")


class Transaction:
    """A message between MAIL and the reply behind its end."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        #: The sender as it was written; empty for a bounce.
        self.written_sender = sender.address.written if sender.address is not None else ""
        #: Each recipient that was accepted, and the users behind it.
        self.recipients: list[tuple[Address, Sequence[str]]] = []
        #: The users; each is there once, however many addresses lead to it.
        self.users: list[str] = []
        #: Recipients elsewhere that were accepted, and those here of whom the sender wants to be told.
        self.elsewhere: list[OutgoingRecipient] = []
        self.told_here: list[OutgoingRecipient] = []
        #: What the queue was given for those elsewhere, and whether it is there, durably.
        self.outgoing: OutgoingMail | None = None
        self.queued = False
        #: The name that client and log know it by; empty before DATA.
        self.queue_id = ""
        self.text = MessageText()
        #: Given up: whatever comes of it now has no reply and no event.
        self.dropped = False
        self._incoming: Incoming | None = None
        self._onward: OutgoingIncoming | None = None
        # Why it is not taken: the reply, or what the store said before the size was known.
        self._refusal: Reply | StoreTrouble | None = None

    async def begin(self, delivery: IDelivery, queue_id: str, headers: bytes) -> None:
        """DATA: begin the delivery.

        :param headers: what is put before the text.
        :raises pop3toy.errors.StoreTrouble: if none of the users can have it.
        """
        self.queue_id = queue_id
        if not self.users:
            return
        self._start = HeldStart(headers)
        begun = delivery.begin(self.users, self.sender.size or 0)
        self._incoming = await begun if is_deferred(begun) else begun
        if self.dropped:
            self._incoming.abort()

    def begin_onward(self, outgoing: Outgoing, mail: OutgoingMail, headers: bytes) -> None:
        """DATA: the same for the queue; behind :meth:`begin`.

        :param headers: what is put before the text there.
        """
        if not self.dropped:
            self._onward_start = HeldStart(headers)
            self._onward = outgoing.begin(mail)
            self.outgoing = mail

    def feed(self, data: bytes, largest: int) -> tuple[bytes | None, Deferred[None] | None]:
        """Take what the client sent, up to the end of the text.

        :param largest: octets that it may have.
        :return: what stands behind the end, or ``None`` before it; and, if the store has to be waited for,
            a Deferred, which does not fail.
        """
        text, rest = self.text.feed(data)
        if self.text.octets > largest:
            self.refuse(Reply(552, f"message is larger than {largest} octets", "5.3.4"))
        elif self.text.bare_line_feeds:
            # RFC 5321 section 2.3.8: a bare LF "MUST NOT" be sent.  A filter before this server takes it for
            # data, who reads the mailbox for a line end: two different messages, and the second may hold
            # headers that the first did not.
            why = "a line feed without a carriage return is not allowed in a message"
            self.refuse(Reply(550, why, "5.6.11"))
        elif self._onward is not None and self.text.bare_carriage_returns:
            # Nor a bare CR.  Some smarthosts take <CR>.<CRLF> for the end, and what follows for commands: a
            # second message, smuggled in with this server's login and from whomever.
            why = "a carriage return without a line feed is not allowed in a message that goes elsewhere"
            self.refuse(Reply(550, why, "5.6.11"))
        waiting: Deferred[None] | None = None
        if self._incoming is not None:
            waiting = self._write(self._incoming, self._start, text)
        if self._onward is not None:
            also = self._write(self._onward, self._onward_start, text)
            if waiting is not None and also is not None:
                also = DeferredList([waiting, also]).addCallback(lambda _: None)
            waiting = also or waiting
        return rest if self.text.finished else None, waiting

    def _write(
        self, into: Incoming | OutgoingIncoming, start: HeldStart, text: bytes
    ) -> Deferred[None] | None:
        """Give text to one of those that get it; a Deferred if that has to be waited for."""
        if self._refusal is None and (text := start.feed(text, last=self.text.finished)):
            try:
                written = into.write(text)
                return written.addErrback(self._failed) if is_deferred(written) else None
            except Exception:
                self._failed(Failure())
        return None

    async def commit(self, *, together: bool) -> Mapping[str, bytes | StoreTrouble]:
        """Make it durable.

        :param together: if one user cannot have it, no user gets it.
        :return: for each user the unique-id, or why not; empty if no user has it, and then
            :attr:`refusal` says why.
        """
        if self._refusal is not None:
            return {}
        several = len(self.users) > 1
        try:
            if self._onward is not None:
                # Durable before anybody here has it: what can fail behind that is a name alone.
                await self._onward.prepare()
            outcome: dict[str, bytes | StoreTrouble] = {}
            if self._incoming is not None:
                results = await self._incoming.commit(together=together)
                outcome = dict(zip(self.users, results, strict=True))
            if self._onward is not None:
                await self._onward.commit()
                self.queued = bool(self.elsewhere)
        except Exception:
            self._failed(Failure(), only_one=several)
            return {}
        for user, result in outcome.items():
            if isinstance(result, StoreTrouble):
                if together:
                    self._failed(Failure(result), only_one=several)
                    return {}
                log_trouble(result, user)
        return outcome

    def drop(self) -> None:
        """Give it up; harmless behind :meth:`commit`, and when called twice."""
        self.dropped = True
        self._abort()

    def _abort(self) -> None:
        for into in (self._incoming, self._onward):
            if into is not None:
                into.abort()

    def refuse(self, why: Reply | StoreTrouble) -> None:
        """Take no more of it.  What is wrong with the message itself goes before what the store says."""
        if not isinstance(self._refusal, Reply):
            self._refusal = why
            self._abort()

    def _failed(self, why: Failure, *, only_one: bool = False) -> None:
        """The store cannot take it.

        :param only_one: the store could, but for one of several users.
        """
        error = why.value
        if isinstance(error, StoreTrouble):
            log_trouble(error, ", ".join(self.users))
            # One user with little room must not send it back for all: it is tried again,
            # and a sender that announces its size then hears at RCPT for whom it is too large.
            self.refuse(reply_to(error, 0) if only_one else error)
        else:
            log.failure("message {queue_id}: a bug in the store", why, queue_id=self.queue_id)
            self.refuse(BUG)

    @property
    def taken_as(self) -> str:
        """What became of it, for the reply."""
        return "delivered" if not self.queued else "delivered and queued" if self.users else "queued"

    @property
    def refusal(self) -> Reply | None:
        """The reply behind the end of the text if it is not taken."""
        why = self._refusal
        return reply_to(why, self.text.octets) if isinstance(why, StoreTrouble) else why

    def fates(self, outcome: Mapping[str, bytes | StoreTrouble]) -> Iterator[tuple[str, Reply | None]]:
        """Each recipient that was accepted, in their order, with the refusal if its users have not got it."""
        for address, users in self.recipients:
            # An alias for several: one that failed makes the sender try again.
            failed = [result for user in users if isinstance(result := outcome.get(user), StoreTrouble)]
            yield address.written, reply_to(failed[0], self.text.octets) if failed else self.refusal


def reply_to(error: StoreTrouble, octets: int) -> Reply:
    """The reply to a store that cannot take a message.

    :param octets: how large it is, as far as that is known.
    """
    if isinstance(error, OverQuota):
        if error.holds is not None and octets > error.holds:
            # However empty the mailbox is: the sender would try in vain for days.
            why = f"message is larger than this mailbox, which holds {error.holds} octets"
            return Reply(552, why, "5.2.3")
        return Reply(452, "mailbox is full", "4.2.2")
    if isinstance(error, StoreFull):
        return Reply(452, "no room for mail at the moment", "4.3.1")
    return Reply(451, "mail cannot be stored at the moment, please try again later", "4.3.0")


def log_trouble(error: StoreTrouble, whose: str) -> None:
    """Tell the administrator what the client does not hear.

    :param whose: the user, the users or the address that the mail is for.
    """
    why = f"{error.text}: {error.detail}" if error.detail else error.text
    log.warn("delivery for {whose!r}: {why}", whose=whose, why=why)
