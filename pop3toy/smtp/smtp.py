"""SMTP: how mail is taken, by the commands MAIL, RCPT and DATA of RFC 5321.

Mail is taken from anybody, for users of this server and for nobody else.  ``250``
behind a message means that it is durable.

What must not live here: octets and order (``connection.py``), the commands around
messages (``session.py``), what an address means (``routing/recipients.py``), how a message
reaches several users (the store), who may send from anywhere (``submission.py``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..addresses import Address
from ..errors import NoSuchMailbox, StoreTrouble
from ..interfaces import MaybeDeferred
from ..net.transport import channel_of
from ..printable import printable
from ..routing.recipients import NotOurs
from . import trace
from .connection import Connection
from .envelope import BadEnvelope, Sender, mail_from, rcpt_to
from .session import Dialogue, Settings
from .transaction import Answer, Message, Transaction, answer_to, log_trouble

__all__ = ["SMTPServer"]

log = Logger()


class SMTPServer(Dialogue):
    """One connection to an SMTP port.

    :param settings: what it shares with the others.
    :param number: under which transcript and log know it.
    :param lost: called when it is over.
    """

    #: What Received calls the protocol, without and with EHLO (RFC 3848).
    protocols: ClassVar[tuple[str, str]] = ("SMTP", "ESMTP")
    #: One reply for all recipients of a message: they stand and fall together.
    together: ClassVar[bool] = True

    def __init__(self, settings: Settings, number: int, lost: Callable[[Connection], None]) -> None:
        super().__init__(settings, number, lost)
        self._transaction: Transaction | None = None
        self._message: Message | None = None
        self.commands |= {b"DATA": self.do_DATA, b"MAIL": self.do_MAIL, b"RCPT": self.do_RCPT}

    def abandon(self) -> None:
        """Forget the message; one that is being made durable goes on."""
        if self._message is not None:
            self._message.incoming.abort()
            self._message = None
        self.reset()

    def reset(self) -> None:
        """See :class:`Dialogue`."""
        if self._transaction is not None:
            self._transaction = None
            self.between_messages()

    def met_a_bug(self) -> None:
        """See :class:`Connection`."""
        answer = (451, "4.3.0", "something went wrong here, please try again later")
        if self._message is not None and not self._message.text.finished:
            # Its rest must not be taken for commands.
            self._message.refuse(*answer)
            return
        self.abandon()
        self.reply(*answer)

    @property
    def may_log_in(self) -> bool:
        """Whether AUTH is in its place: behind EHLO and not within a message (RFC 4954 section 4)."""
        return self.client_name is not None and self._transaction is None

    # -- the envelope --------------------------------------------------------------------

    def do_MAIL(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.2."""
        if self.client_name is None:
            self.error(503, "5.5.1", "EHLO comes first")
        elif self._transaction is not None:
            self.error(503, "5.5.1", "one sender for each message; RSET begins anew")
        else:
            settings = self.settings
            utf8 = settings.smtputf8 and self.extended
            try:
                sender = mail_from(rest, utf8=utf8, largest=settings.largest_message)
            except BadEnvelope as error:
                self.error(error.code, error.enhanced, error.text)
            else:
                self.hold(self._mail(sender))

    async def _mail(self, sender: Sender) -> None:
        refused = await self.refuse_sender(sender)
        if refused is not None:
            self.error(*refused)
        elif not self.closing:
            self._transaction = Transaction(sender)
            self.begin_message()
            self.reply(250, "2.1.0", "sender ok")

    async def refuse_sender(self, sender: Sender) -> Answer | None:
        """Why this sender cannot send here; ``None`` lets anybody."""
        return None

    def do_RCPT(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.3."""
        transaction = self._transaction
        if transaction is None:
            self.error(503, "5.5.1", "MAIL comes first")
            return
        try:
            address = rcpt_to(rest, utf8=transaction.sender.utf8)
        except BadEnvelope as error:
            self.error(error.code, error.enhanced, error.text)
            return
        if len(transaction.recipients) >= self.settings.recipients_limit:
            # RFC 5321 section 4.5.3.1.10: 452, for which another copy is sent to the rest.
            self.reply(452, "4.5.3", "too many recipients, send another copy to the rest")
            return
        self.hold(self._rcpt(transaction, address))

    async def _rcpt(self, transaction: Transaction, address: Address) -> None:
        try:
            users = await self.settings.recipients.resolve(address)
        except NotOurs:
            self.unknown(550, "5.7.1", "relaying denied: only mail for our own users is taken")
            return
        except NoSuchMailbox:
            self.unknown(550, "5.1.1", "no such user here")
            return
        except StoreTrouble as error:
            self._put_off(error, address)
            return
        octets = transaction.sender.size or 0
        new = [user for user in users if user not in transaction.users]
        try:
            for user in new:
                checked = self.settings.delivery.check(user, octets)
                if isinstance(checked, Deferred):
                    await checked
        except StoreTrouble as error:
            # Also if the store has no mailbox for this user: there is such a user, so
            # something is wrong here, and nothing with the mail.
            self._put_off(error, address, octets)
            return
        if self._transaction is not transaction:
            # The client went away meanwhile.
            return
        transaction.users.extend(new)
        transaction.recipients.append((address, users))
        self.reply(250, "2.1.5", "recipient ok")

    def _put_off(self, error: StoreTrouble, address: Address, octets: int = 0) -> None:
        log_trouble(error, address.written)
        self.reply(*answer_to(error, octets))

    def unknown(self, code: int, enhanced: str, text: str) -> None:
        """Refuse a recipient; many of them look as if somebody tried names."""
        self.error(code, enhanced, text)

    # -- the message ---------------------------------------------------------------------

    def do_DATA(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.4."""
        transaction = self._transaction
        if transaction is None or not transaction.recipients:
            self.error(503, "5.5.1", "MAIL and RCPT come first")
        elif not self.line_was_crlf:
            # Whoever ends lines so (netcat does) could never end the message: only
            # CR LF . CR LF does, see framing.py.
            self.error(500, "5.5.2", "a message needs lines that end in CR LF; use telnet, or nc -C")
        else:
            self.hold(self._data(transaction))

    async def _data(self, transaction: Transaction) -> None:
        octets = transaction.sender.size or 0
        try:
            begun = self.settings.delivery.begin(transaction.users, octets)
            incoming = await begun if isinstance(begun, Deferred) else begun
        except StoreTrouble as error:
            self.reset()
            log_trouble(error, ", ".join(transaction.users))
            self.reply(*answer_to(error, octets))
            return
        if self._transaction is not transaction:
            # The client went away meanwhile.
            incoming.abort()
            return
        self._transaction = None
        ident = secrets.token_hex(6)
        self._message = Message(transaction, incoming, ident, self._trace(transaction, ident))
        self.sendCode(354, b"go on, and end with a line that is just a dot")

    def _trace(self, transaction: Transaction, ident: str) -> bytes:
        recipients = [self.settings.recipients.in_full(address) for address, _ in transaction.recipients]
        protocol = self.protocols[self.extended]
        if transaction.sender.utf8:
            # RFC 6531 section 4.3 drops the E.
            protocol = f"UTF8{protocol.removeprefix('E')}"
        # RFC 3848: S for TLS, A for an authenticated sender.
        protocol += "S" * self.started_tls + "A" * self.authenticated
        several = len(recipients) > 1
        header = trace.return_path(transaction.sender.address)
        if several and self.settings.original_to:
            header += trace.original_to(recipients)
        return header + trace.received(
            helo=self.client_name or b"",
            peer=channel_of(self.transport).host,
            by=self.host,
            protocol=protocol,
            ident=ident,
            # Otherwise they would learn of one another.
            recipient=None if several else recipients[0],
            seconds=self.settings.wall(),
        )

    @property
    def in_text(self) -> bool:
        """See :class:`Connection`."""
        return self._message is not None

    def text_received(self, data: bytes) -> None:
        """See :class:`Connection`."""
        message = self._message
        assert message is not None
        text, rest = message.text.feed(data)
        self.lines.feed(rest)
        self.overheard(data[: len(data) - len(rest)], message.text.finished)
        largest = self.settings.largest_message
        if message.text.octets > largest:
            message.refuse(552, "5.3.4", f"message is larger than {largest} octets")
            if message.text.octets > 2 * largest:
                # Its end may never come.
                self.reply(421, "4.3.4", f"message is far larger than {largest} octets")
                self.close("limit")
                return
        elif message.text.bare_line_feeds:
            # RFC 5321 section 2.3.8: a bare LF "MUST NOT" be sent.  It could be kept as
            # data.  But whoever looked through the message before us took it for data,
            # and whoever reads it from us takes it for a line end: two different messages,
            # and the second may hold headers that the first did not.  So it is refused.
            message.refuse(550, "5.6.11", "a line feed without a carriage return is not allowed in a message")
        waiting: MaybeDeferred[None] = None
        if not message.given_up:
            try:
                waiting = message.take(text)
            except StoreTrouble as error:
                message.fail(error)
        if waiting is not None or message.text.finished:
            self.hold(self._text_written(message, waiting))

    async def _text_written(self, message: Message, waiting: Deferred[None] | None) -> None:
        try:
            if waiting is not None:
                await waiting
        except StoreTrouble as error:
            message.fail(error)
        # Not if the connection was lost meanwhile.
        if message.text.finished and self._message is message:
            await self._message_ended(message)

    async def _message_ended(self, message: Message) -> None:
        # From here on a lost connection takes nothing back.
        self._message = None
        self.committing = True
        self.note(f"message of {message.text.octets} octets")
        results: Sequence[bytes | StoreTrouble] = ()
        if not message.given_up:
            try:
                results = await message.incoming.commit(together=self.together)
            except StoreTrouble as error:
                message.fail(error, only_one=len(message.transaction.users) > 1)
        users = message.transaction.users
        reached = [
            u for u, result in zip(users, results, strict=False) if not isinstance(result, StoreTrouble)
        ]
        if not message.given_up and reached:
            sender = message.transaction.sender.address
            log.info(
                "message {ident} delivered: {octets} octets from <{sender}> for {users}",
                ident=message.ident,
                octets=message.text.octets,
                sender=printable(sender.written) if sender is not None else "",
                users=printable(", ".join(reached)),
            )
            self.prove_useful()
        else:
            self.between_messages()
        self.message_done(message, results)

    def message_done(self, message: Message, results: Sequence[bytes | StoreTrouble]) -> None:
        """Tell the client how it went.

        :param results: for each user, in the order of ``users``, what ``commit``
            gave; nothing if the message was refused.
        """
        self.reply(*message.answer or (250, "2.0.0", f"delivered as {message.ident}"))
