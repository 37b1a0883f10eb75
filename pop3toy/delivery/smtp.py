"""SMTP: what the commands of RFC 5321 mean here.

Mail is taken from anybody, for users of this server and for nobody else.  ``250``
behind a message means that it is durable.

What must not live here: octets and order (``connection.py``), what an address means
(``recipients.py``), how a message reaches several users (``fanout.py``), who may
send from anywhere (``submission.py``).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..channel import channel_of
from ..commands import Command, Malformed
from ..errors import NoSuchMailbox, StoreTrouble
from ..interfaces import Gatekeeper, IDelivery, Incoming, ITranscript, MaybeDeferred
from . import limits, trace
from .connection import Connection
from .envelope import Address, BadEnvelope, Sender, mail_from, rcpt_to
from .fanout import fan_out
from .recipients import NotOurs, Recipients
from .transaction import Answer, Message, Transaction, answer_to, log_trouble

__all__ = ["SMTPServer", "Settings"]

log = Logger()

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True)
class Settings:
    """What all connections of one port have in common."""

    delivery: IDelivery
    recipients: Recipients
    clock: IReactorTime
    #: This server's name, in the greeting and in Received headers.
    host: str
    #: A context factory for STARTTLS, or ``None``.
    tls: object | None = None
    transcript: ITranscript | None = None
    #: Counts connections; ``None`` lets all in.
    gatekeeper: Gatekeeper | None = None
    largest_message: int = limits.MESSAGE
    recipients_limit: int = limits.RECIPIENTS
    smtputf8: bool = True
    idle: int = limits.IDLE


class SMTPServer(Connection):
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
        super().__init__(
            number,
            settings.host,
            settings.clock,
            idle=settings.idle,
            tls=settings.tls,
            transcript=settings.transcript,
            gatekeeper=settings.gatekeeper,
            lost=lost,
        )
        self.settings = settings
        self._client_name: bytes | None = None
        self._extended = False
        self._transaction: Transaction | None = None
        self._message: Message | None = None
        self._line_was_crlf = True
        self.commands: dict[bytes, Callable[[bytes], None]] = {
            b"DATA": self.do_DATA,
            b"EHLO": self.do_EHLO,
            b"HELO": self.do_HELO,
            b"HELP": self.do_HELP,
            b"MAIL": self.do_MAIL,
            b"NOOP": self.do_NOOP,
            b"QUIT": self.do_QUIT,
            b"RCPT": self.do_RCPT,
            b"RSET": self.do_RSET,
            b"STARTTLS": self.do_STARTTLS,
            b"VRFY": self.do_VRFY,
        }

    # -- lines -------------------------------------------------------------------------

    def command_received(self, line: bytes, *, crlf: bool) -> None:
        """See :class:`Connection`."""
        verb, _, rest = line.strip(b" \t").partition(b" ")
        command = self.commands.get(verb.upper())
        if command is None or _CONTROL.search(line):
            self.heard(line, Malformed("unknown command"))
            self.error(500, "5.5.2", "command not understood; HELP lists them")
            return
        words = tuple(rest.split(b" ", 1))
        self.heard(line, Command(verb.upper().decode("ascii"), words))
        self._line_was_crlf = crlf
        command(rest.strip(b" \t"))

    def abandon(self) -> None:
        """Forget the message; one that is being made durable goes on."""
        if self._message is not None:
            self._message.incoming.abort()
            self._message = None
        self._reset()

    def _reset(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None

    def met_a_bug(self) -> None:
        """See :class:`Connection`."""
        answer = (451, "4.3.0", "something went wrong here, please try again later")
        if self._message is not None and not self._message.text.finished:
            # Its rest must not be taken for commands.
            self._message.refuse(*answer)
            return
        self.abandon()
        self.reply(*answer)

    # -- simple commands -----------------------------------------------------------------

    def do_HELO(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.1."""
        if self.hello(rest, extended=False):
            self.sendCode(250, self.host)

    def do_EHLO(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.1: what we can do."""
        if self.hello(rest, extended=True):
            self.sendCode(250, self.host + b"\n" + self.listExtensions())

    def hello(self, rest: bytes, *, extended: bool) -> bool:
        """Begin anew (RFC 5321 section 4.1.4); false if the client does not say who it is."""
        if not rest:
            self.error(501, "5.5.4", "say who you are, for example: EHLO my.host.name")
            return False
        self._reset()
        self._client_name = rest
        self._extended = extended
        return True

    def extensions(self) -> dict[bytes, list[bytes] | None]:
        """What EHLO announces: nothing that does not work here and now."""
        offered: dict[bytes, list[bytes] | None] = {
            b"PIPELINING": None,
            b"SIZE": [b"%d" % self.settings.largest_message],
            b"8BITMIME": None,
            b"ENHANCEDSTATUSCODES": None,
        }
        if self.settings.smtputf8:
            offered[b"SMTPUTF8"] = None
        if self.canStartTLS and not self.startedTLS:
            offered[b"STARTTLS"] = None
        return offered

    def do_NOOP(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.9."""
        self.reply(250, "2.0.0", "ok")

    def do_RSET(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.5."""
        self._reset()
        self.reply(250, "2.0.0", "ok")

    def do_QUIT(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.10."""
        self.reply(221, "2.0.0", "goodbye")
        self.close("quit")

    def do_HELP(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.8."""
        self.reply(214, "2.0.0", b" ".join(sorted(self.commands)).decode("ascii"))

    def do_VRFY(self, rest: bytes) -> None:
        """RFC 5321 section 7.3: nobody is told who is here."""
        self.reply(252, "2.1.5", "send a message and see")

    def do_STARTTLS(self, rest: bytes) -> None:
        """RFC 3207: from here on TLS, and what was said before does not count."""
        if rest:
            self.error(501, "5.5.4", "STARTTLS takes no argument")
            return
        if self.canStartTLS and not self.startedTLS:
            # What was sent behind it in clear text may be somebody else's; RFC 3207
            # section 5 knows the attack, and Twisted would carry out the commands.
            discarded = self.lines.take()
            if discarded:
                self.note(f"{len(discarded)} octets behind STARTTLS thrown away")
            self.forget()
        self.ext_STARTTLS(rest)

    def forget(self) -> None:
        """Know nothing of the client any more."""
        self.abandon()
        self._client_name = None

    @property
    def may_log_in(self) -> bool:
        """Whether AUTH is in its place: behind EHLO and not within a message (RFC 4954 section 4)."""
        return self._client_name is not None and self._transaction is None

    # -- the envelope --------------------------------------------------------------------

    def do_MAIL(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.2."""
        if self._client_name is None:
            self.error(503, "5.5.1", "EHLO comes first")
        elif self._transaction is not None:
            self.error(503, "5.5.1", "one sender for each message; RSET begins anew")
        else:
            settings = self.settings
            utf8 = settings.smtputf8 and self._extended
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
        begun: dict[str, Incoming] = {}
        try:
            users = await self.settings.recipients.resolve(address)
            for user in users:
                if user not in transaction.incomings:
                    incoming = self.settings.delivery.begin(user, transaction.sender.size or 0)
                    begun[user] = await incoming if isinstance(incoming, Deferred) else incoming
        except (NotOurs, StoreTrouble) as error:
            for incoming in begun.values():
                incoming.abort()
            if isinstance(error, NotOurs):
                self.unknown(550, "5.7.1", "relaying denied: only mail for our own users is taken")
            elif isinstance(error, NoSuchMailbox):
                self.unknown(550, "5.1.1", "no such user here")
            else:
                log_trouble(error)
                self.reply(*answer_to(error, at_end=False))
            return
        transaction.incomings.update(begun)
        if self._transaction is not transaction:
            # The client went away meanwhile.
            transaction.abort()
            return
        transaction.recipients.append((address, users))
        self.reply(250, "2.1.5", "recipient ok")

    def unknown(self, code: int, enhanced: str, text: str) -> None:
        """Refuse a recipient; many of them look as if somebody tried names."""
        self.error(code, enhanced, text)

    # -- the message ---------------------------------------------------------------------

    def do_DATA(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.4."""
        transaction = self._transaction
        if rest:
            self.error(501, "5.5.4", "DATA takes no argument")
        elif transaction is None or not transaction.recipients:
            self.error(503, "5.5.1", "MAIL and RCPT come first")
        elif not self._line_was_crlf:
            # Whoever ends lines so (netcat does) could never end the message: only
            # CR LF . CR LF does, see framing.py.
            self.error(500, "5.5.2", "a message needs lines that end in CR LF; use telnet, or nc -C")
        else:
            self._transaction = None
            ident = secrets.token_hex(6)
            incoming = fan_out(self.settings.delivery, list(transaction.incomings.values()))
            self._message = Message(transaction, incoming, ident, self._trace(transaction, ident))
            self.sendCode(354, b"go on, and end with a line that is just a dot")

    def _trace(self, transaction: Transaction, ident: str) -> bytes:
        addresses = [address for address, _ in transaction.recipients]
        protocol = self.protocols[self._extended]
        if transaction.sender.utf8:
            # RFC 6531 section 4.3 drops the E.
            protocol = f"UTF8{protocol.removeprefix('E')}"
        # RFC 3848: S for TLS, A for an authenticated sender.
        protocol += "S" * self.startedTLS + "A" * self.authenticated
        return trace.return_path(transaction.sender.address) + trace.received(
            helo=self._client_name or b"",
            peer=channel_of(self.transport).host,
            by=self.host,
            protocol=protocol,
            ident=ident,
            recipient=addresses[0] if len(addresses) == 1 else None,
            seconds=self.clock.seconds(),
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
        if message.refused is None:
            try:
                waiting = message.take(text)
            except StoreTrouble as error:
                self._refuse(message, error)
        if waiting is not None or message.text.finished:
            self.hold(self._text_written(message, waiting))

    async def _text_written(self, message: Message, waiting: Deferred[None] | None) -> None:
        try:
            if waiting is not None:
                await waiting
        except StoreTrouble as error:
            self._refuse(message, error)
        # Not if the connection was lost meanwhile.
        if message.text.finished and self._message is message:
            await self._message_ended(message)

    async def _message_ended(self, message: Message) -> None:
        # From here on a lost connection takes nothing back.
        self._message = None
        self.note(f"message of {message.text.octets} octets")
        results: Sequence[bytes | StoreTrouble] = ()
        if message.refused is None:
            try:
                results = await message.incoming.commit(together=self.together)
            except StoreTrouble as error:
                self._refuse(message, error)
        if message.refused is None:
            log.info(
                "message {ident} delivered: {octets} octets from {sender!r} for {users}",
                ident=message.ident,
                octets=message.text.octets,
                sender=message.transaction.sender.address and message.transaction.sender.address.written,
                users=", ".join(message.transaction.incomings),
            )
            self.prove_useful()
        self.message_done(message, results)

    def message_done(self, message: Message, results: Sequence[bytes | StoreTrouble]) -> None:
        """Tell the client how it went.

        :param results: for each user, in the order of ``incomings``, what ``commit``
            gave; nothing if the message was refused.
        """
        self.reply(*message.refused or (250, "2.0.0", f"delivered as {message.ident}"))

    def _refuse(self, message: Message, error: StoreTrouble) -> None:
        log_trouble(error)
        message.refuse(*answer_to(error, at_end=True))
