"""MAIL, RCPT and DATA (RFC 5321 section 3.3): sender, recipients, and then the message.

Mail is taken for users of this server; where the policy asks for a login, from users alone, and then for
addresses elsewhere as well, if there is somebody to hand it on (:class:`~pop3toy.interfaces.Outgoing`) and
its sender is an address of the user's.  The text behind DATA goes to :meth:`Session.text_received`.
"""

from __future__ import annotations

import secrets

from ..addresses import Address
from ..errors import NoSuchMailbox, NotOurs, StoreTrouble
from ..interfaces import After, OutgoingMail, OutgoingRecipient, is_deferred
from . import limits, trace
from .commands import Command
from .envelope import BadEnvelope, Recipient, Sender, mail_from, rcpt_to
from .replies import Answer, Reply
from .session import Session, State
from .transaction import Transaction, log_trouble, reply_to

__all__ = ["data", "mail", "rcpt"]


async def mail(session: Session, command: Command) -> Answer:
    """MAIL (RFC 5321 section 4.1.1.2)."""
    options = session.options
    utf8 = options.smtputf8 and session.extended
    try:
        sender = mail_from(
            command.argument, utf8=utf8, largest=options.largest_message, dsn=options.outgoing is not None
        )
    except BadEnvelope as error:
        return session.mistake(_malformed(session, error))
    transaction = Transaction(sender)
    if session.policy.login_required and (refusal := await _may_not_send(session, sender)):
        refused = session.refuse(refusal, sender=transaction.written_sender)
        # An authenticator in trouble is no mistake of the client's.
        return session.mistake(refused) if refusal.code >= 500 else refused
    if session.state is State.READY:
        session.begin_transaction(transaction)
    return Reply(250, "sender ok", "2.1.0")


async def _may_not_send(session: Session, sender: Sender) -> Reply | None:
    """Why a client may not send: without a login nothing, with one not in another user's name (RFC 6409)."""
    if session.user is None:
        return Reply(530, "AUTH comes first", "5.7.0")
    if sender.address is None:
        return None
    resolver, address = session.options.resolver, _at_home(session, sender.address)
    # An address elsewhere may well be the user's own; the server has no way to know.
    if not resolver.ours(address):
        return None
    try:
        users = await resolver.resolve(address)
    except NoSuchMailbox:
        users = ()
    except StoreTrouble as error:
        log_trouble(error, address.written)
        return reply_to(error, 0)
    return None if session.user in users else Reply(553, "this address is not yours", "5.7.1")


def _at_home(session: Session, address: Address) -> Address:
    """The address in our first domain if it is written with another name of this host."""
    names = [session.options.host]
    if session.own_address is not None:
        names.append(session.own_address)
    return session.options.resolver.at_home(address, names)


async def rcpt(session: Session, command: Command) -> Answer:
    """RCPT (RFC 5321 section 4.1.1.3): refused if a user behind it cannot have the message."""
    transaction = session.transaction
    assert transaction is not None
    try:
        to = rcpt_to(
            command.argument,
            utf8=transaction.sender.utf8,
            dsn=session.options.outgoing is not None,
        )
    except BadEnvelope as error:
        return session.mistake(_malformed(session, error))
    address, octets = to.address, transaction.sender.size or 0
    recipient = address.written
    if len(transaction.recipients) + len(transaction.elsewhere) >= limits.RECIPIENTS:
        # RFC 5321 section 4.5.3.1.10: 452, for which another copy is sent to the rest.
        why = "too many recipients, send another copy to the rest"
        return session.refuse(Reply(452, why, "4.5.3"), recipient)
    try:
        users = await session.options.resolver.resolve(address)
    except NotOurs:
        return await _elsewhere(session, transaction, to)
    except NoSuchMailbox:
        return _unknown(session, Reply(550, "no such user here", "5.1.1"), recipient)
    except StoreTrouble as error:
        log_trouble(error, recipient)
        return session.refuse(reply_to(error, 0), recipient)
    more = [user for user in users if user not in transaction.users]
    try:
        for user in more:
            checked = session.options.delivery.check(user, octets)
            if is_deferred(checked):
                await checked
    except StoreTrouble as error:
        # A missing mailbox, too: there is such a user, so it is this server's fault and not the sender's.
        log_trouble(error, recipient)
        return session.refuse(reply_to(error, octets), recipient)
    if not transaction.dropped:
        transaction.recipients.append((address, users))
        transaction.users += more
        if "SUCCESS" in to.notify:
            in_full = session.options.resolver.in_full(address).written
            transaction.told_here.append(OutgoingRecipient(in_full, to.notify, to.original, here=True))
        session.state = State.RECIPIENTS
    return Reply(250, "recipient ok", "2.1.5")


async def _elsewhere(session: Session, transaction: Transaction, to: Recipient) -> Answer:
    """RCPT for an address in a domain of others'."""
    resolver, outgoing = session.options.resolver, session.options.outgoing
    recipient, sender = to.address.written, transaction.sender.address
    if not session.policy.login_required:
        why = "relaying denied: only mail for our own users is taken"
        return _unknown(session, Reply(550, why, "5.7.1"), recipient)
    if outgoing is None:
        why = "relaying denied: to send mail elsewhere this server lacks a smarthost (--smarthost)"
        return _unknown(session, Reply(550, why, "5.7.1"), recipient)
    if resolver.ours(_at_home(session, to.address)):
        # This host by a name that is no domain of its users.
        why = "relaying denied: no mail is taken for that name of this host"
        return _unknown(session, Reply(550, why, "5.7.1"), recipient)
    if sender is not None and not resolver.ours(_at_home(session, sender)):
        # MAIL saw to it that it is the user's if it is ours.
        why = "relaying denied: mail goes elsewhere from an address of yours here alone"
        return session.mistake(session.refuse(Reply(553, why, "5.7.1"), recipient))
    user = session.user or ""
    try:
        refusal = await outgoing.refusal(user, len(transaction.elsewhere) + 1)
    except StoreTrouble as error:
        log_trouble(error, recipient)
        return session.refuse(reply_to(error, 0), recipient)
    if refusal is not None:
        return session.refuse(Reply(450, refusal, "4.7.1"), recipient)
    if not transaction.dropped:
        transaction.elsewhere.append(OutgoingRecipient(recipient, to.notify, to.original))
        session.state = State.RECIPIENTS
    return Reply(250, "recipient ok", "2.1.5")


def _unknown(session: Session, reply: Reply, recipient: str) -> Answer:
    refused = session.refuse(reply, recipient)
    return session.mistake(refused) if session.policy.unknown_is_mistake else refused


def _malformed(session: Session, error: BadEnvelope) -> Reply:
    """The reply to a bad envelope; one that is more than bad syntax is an event, too."""
    reply = Reply(error.code, error.text, error.enhanced)
    if error.code == 501 and error.enhanced.startswith("5.5"):
        return reply
    written = error.address.written if error.address is not None else ""
    at_mail = session.transaction is None
    return session.refuse(reply, "" if at_mail else written, written if at_mail else "")


async def data(session: Session, command: Command) -> Answer:
    """DATA (RFC 5321 section 4.1.1.4): the store begins before the client is told to go on."""
    transaction = session.transaction
    assert transaction is not None
    if not command.crlf:
        # A client that ends lines so (netcat does) could never end the message: CR LF . CR LF alone does.
        why = "a message needs lines that end in CR LF; use telnet, or nc -C"
        return session.mistake(Reply(500, why, "5.5.2"))
    queue_id = secrets.token_hex(6)
    try:
        received = _received(session, transaction, queue_id)
        headers = _headers(session, transaction, received)
        await transaction.begin(session.options.delivery, queue_id, headers)
        if (outgoing := session.options.outgoing) is not None and (
            transaction.elsewhere or transaction.told_here
        ):
            number = len(transaction.elsewhere)
            if number and (refusal := await outgoing.count(session.user or "", number)):
                # Other messages have come meanwhile.
                refused = session.refuse(Reply(450, refusal, "4.7.1"))
                session.abort_transaction()
                return refused
            transaction.begin_onward(outgoing, _outgoing_mail(session, transaction), received)
    except StoreTrouble as error:
        log_trouble(error, ", ".join(transaction.users))
        refused = session.refuse(reply_to(error, transaction.sender.size or 0))
        session.abort_transaction()
        return refused
    if not transaction.dropped:
        session.state = State.TEXT
    return Reply(354, "go on, and end with a line that is just a dot", after=After.READ_TEXT)


def _outgoing_mail(session: Session, transaction: Transaction) -> OutgoingMail:
    sender = transaction.sender
    # A name of this host means nothing to whoever answers.
    written = (
        session.options.resolver.in_full(_at_home(session, sender.address)).written if sender.address else ""
    )
    recipients = [*transaction.elsewhere, *transaction.told_here]
    return OutgoingMail(
        transaction.queue_id,
        session.user or "",
        written,
        recipients,
        sender.utf8,
        sender.ret,
        sender.envid,
    )


def _headers(session: Session, transaction: Transaction, received: bytes) -> bytes:
    """What users here get before the text."""
    options = session.options
    header = trace.return_path(transaction.sender.address)
    if options.original_to and len(transaction.recipients) > 1:
        recipients = [options.resolver.in_full(address) for address, _ in transaction.recipients]
        header += trace.original_to(recipients)
    return header + received


def _received(session: Session, transaction: Transaction, queue_id: str) -> bytes:
    options, channel = session.options, session.record.channel
    recipients = [options.resolver.in_full(address) for address, _ in transaction.recipients]
    several = len(recipients) + len(transaction.elsewhere) != 1
    protocol = session.policy.protocols[session.extended]
    if transaction.sender.utf8:
        # RFC 6531 section 4.3 drops the E.
        protocol = f"UTF8{protocol.removeprefix('E')}"
    # RFC 3848: S for TLS, A for an authenticated sender.
    protocol += "S" * (channel.tls is not None) + "A" * (session.user is not None)
    return trace.received(
        helo=session.client_name or b"",
        peer=channel.host,
        by=options.host.encode("ascii"),
        protocol=protocol,
        queue_id=queue_id,
        recipient=recipients[0] if recipients and not several else None,
        seconds=options.wall(),
    )
