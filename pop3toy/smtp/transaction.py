"""One message on its way: its envelope, its text, the store's end of it, and what is wrong with it.

Begun by MAIL, given to the store's :class:`~pop3toy.interfaces.Incoming` from DATA on, over with the
reply behind its end or with :meth:`Transaction.drop`.  Knows the store's port, and no session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..addresses import Address
from ..errors import OverQuota, StoreFull, StoreTrouble
from ..interfaces import IDelivery, Incoming, is_deferred
from ..mail.message_start import HeldStart
from .envelope import Sender
from .framing import MessageText
from .replies import Reply

__all__ = ["BUG", "Transaction", "log_trouble", "reply_to"]

log = Logger()

#: What a client hears of what nobody foresaw.
BUG = Reply(451, "something went wrong here, please try again later", "4.3.0")


class Transaction:
    """A message between MAIL and the reply behind its end (RFC 5321 section 3.3)."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        #: Each recipient that was accepted, and the users behind it.
        self.recipients: list[tuple[Address, Sequence[str]]] = []
        #: The users; each is there once, however many addresses lead to it.
        self.users: list[str] = []
        #: Under which client and log know it; empty before DATA.
        self.queue_id = ""
        self.text = MessageText()
        #: Given up: whatever comes of it now concerns nobody.
        self.dropped = False
        self._incoming: Incoming | None = None
        self._start = HeldStart(b"")
        # What is wrong with the message itself, and what the store says.
        self._refusal: Reply | None = None
        self._trouble: StoreTrouble | None = None
        self._only_one = False

    @property
    def from_whom(self) -> str:
        """The sender as it was written; empty for a bounce."""
        return self.sender.address.written if self.sender.address is not None else ""

    async def check(self, delivery: IDelivery, users: Sequence[str]) -> None:
        """Ask the store whether these users can have it.

        :raises pop3toy.errors.StoreTrouble: if one of them cannot.
        """
        for user in users:
            if user not in self.users:
                checked = delivery.check(user, self.sender.size or 0)
                if is_deferred(checked):
                    await checked

    def accept(self, address: Address, users: Sequence[str]) -> None:
        """One more recipient."""
        self.recipients.append((address, users))
        self.users += [user for user in users if user not in self.users]

    async def begin(self, delivery: IDelivery, queue_id: str, headers: bytes) -> None:
        """DATA: begin its delivery.

        :param headers: what is put before it.
        :raises pop3toy.errors.StoreTrouble: if nobody can have it.
        """
        self.queue_id = queue_id
        self._start = HeldStart(headers)
        begun = delivery.begin(self.users, self.sender.size or 0)
        incoming: Incoming = await begun if is_deferred(begun) else begun
        if self.dropped:
            incoming.abort()
        else:
            self._incoming = incoming

    def feed(self, data: bytes, largest: int) -> tuple[bytes | None, Deferred[None] | None]:
        """Take what the client sent, up to its end.

        :param largest: octets that it may have.
        :return: what stands behind the end, or ``None`` before it; and what the store wants to be waited for.
        """
        text, rest = self.text.feed(data)
        if self.text.octets > largest:
            self.refuse(Reply(552, f"message is larger than {largest} octets", "5.3.4"))
        elif self.text.bare_line_feeds:
            # RFC 5321 section 2.3.8: a bare LF "MUST NOT" be sent.  It could be kept as
            # data.  But whoever looked through the message before us took it for data,
            # and whoever reads it from us takes it for a line end: two different messages,
            # and the second may hold headers that the first did not.  So it is refused.
            why = "a line feed without a carriage return is not allowed in a message"
            self.refuse(Reply(550, why, "5.6.11"))
        waiting: Deferred[None] | None = None
        if not self._given_up:
            text = self._start.feed(text, last=self.text.finished)
            assert self._incoming is not None
            try:
                waiting = self._incoming.write(text) if text else None
            except Exception as error:
                self._failed(error)
        return rest if self.text.finished else None, waiting

    async def written(self, waiting: Deferred[None]) -> None:
        """Wait until the store has taken what it was given."""
        try:
            await waiting
        except Exception as error:
            self._failed(error)

    async def commit(self, *, together: bool) -> Mapping[str, bytes | StoreTrouble]:
        """Make it durable.

        :param together: if one cannot have it, it counts as given to nobody.
        :return: for each user the unique-id, or why not; nothing if nobody has it, and then
            :attr:`refusal` says why.
        """
        if self._given_up:
            return {}
        assert self._incoming is not None
        several = len(self.users) > 1
        try:
            results = await self._incoming.commit(together=together)
            outcome = dict(zip(self.users, results, strict=True))
        except Exception as error:
            self._failed(error, only_one=several)
            return {}
        failed = {user: result for user, result in outcome.items() if isinstance(result, StoreTrouble)}
        for user, trouble in failed.items():
            if together:
                self._failed(trouble, only_one=several)
                return {}
            log_trouble(trouble, user)
        return outcome

    def drop(self) -> None:
        """It comes to nothing; harmless behind :meth:`commit`, and when called twice."""
        self.dropped = True
        if self._incoming is not None:
            self._incoming.abort()

    def refuse(self, refusal: Reply) -> None:
        """Take no more of it: something is wrong with the message."""
        if self._refusal is None:
            self._refusal = refusal
            if self._incoming is not None:
                self._incoming.abort()

    def _failed(self, error: Exception, *, only_one: bool = False) -> None:
        """Take no more of it: the store cannot.

        :param only_one: it could, if it were not for one of several users.
        """
        if not isinstance(error, StoreTrouble):
            log.failure("message {queue_id}: a bug in the store", Failure(error), queue_id=self.queue_id)
            self.refuse(BUG)
            return
        log_trouble(error, ", ".join(self.users))
        if not self._given_up:
            self._trouble, self._only_one = error, only_one
            if self._incoming is not None:
                self._incoming.abort()

    @property
    def _given_up(self) -> bool:
        return self._refusal is not None or self._trouble is not None

    @property
    def refusal(self) -> Reply | None:
        """The reply behind its end if it is not taken."""
        if self._refusal is None and self._trouble is not None:
            # One user with little room must not send it back for all: it is tried again,
            # and whoever announces its size then hears at RCPT whom it is too large for.
            return reply_to(self._trouble, 0 if self._only_one else self.text.octets)
        return self._refusal

    def fates(self, outcome: Mapping[str, bytes | StoreTrouble]) -> Sequence[tuple[str, Reply | None]]:
        """Each recipient that was accepted, in their order, and the refusal of those who have not got it."""
        fates = []
        for address, users in self.recipients:
            # An alias for several: one that failed makes the sender try again.
            failed = [result for user in users if isinstance(result := outcome.get(user), StoreTrouble)]
            refusal = reply_to(failed[0], self.text.octets) if failed else self.refusal
            fates.append((address.written, refusal))
        return fates


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

    :param whose: the user, or several, or the address, that it is about.
    """
    why = f"{error.text}: {error.detail}" if error.detail else error.text
    log.warn("delivery for {whose!r}: {why}", whose=whose, why=why)
