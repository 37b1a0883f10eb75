"""The ports where mail comes in, put together from the options: SMTP, submission, LMTP."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..delivery.aliases import AliasFile, BadAliases
from ..delivery.envelope import parse_address
from ..delivery.factory import lmtp_factory, smtp_factory, submission_factory
from ..delivery.quota import quota_of
from ..delivery.recipients import Recipients, find_by
from ..delivery.submission import SenderRealm
from ..errors import NoSuchMailbox, StoreTrouble
from ..interfaces import IDelivery, ITranscript, MaybeDeferred
from ..meters import LogMeter
from ..options import Options
from ..stores.maildir_delivery import MaildirDelivery
from ..stores.maildir_paths import MaildirPaths
from ..threads import RunInThread
from .access import Access
from .ports import Ports, refuse_to_start
from .premises import Premises

log = Logger()

__all__ = ["listen_for_mail", "maildir_delivery", "recipients_of_all", "recipients_of_users"]


def maildir_delivery(
    paths: MaildirPaths, run_in_thread: RunInThread, reactor: Any, access: Access, host: str
) -> IDelivery:
    """Delivery into the Maildirs that POP3 serves, within the quotas of the accounts file."""
    # A Deferred of an account is one of something with settings, but Deferreds are invariant.
    find: Any = access.file.find if access.file is not None else lambda user: None
    delivery: IDelivery = MaildirDelivery(
        paths.locate, run_in_thread, reactor, quota=quota_of(find), host=host
    )
    return delivery


def recipients_of_all(user: str) -> Recipients:
    """A mail trap: whatever the address, one user gets it."""
    return Recipients(lambda name: None, catch_all=user, any_domain=True)


def recipients_of_users(
    options: Options, access: Access, paths: MaildirPaths, *, at_once: bool = True
) -> Recipients:
    """The users of the accounts, or, where a checker cannot tell who they are, of the Maildirs.

    :param at_once: whether an alias file that cannot be used ends the start.
    """

    def known(user: str) -> MaybeDeferred[bool]:
        exists = access.sources.exists(user)
        if isinstance(exists, Deferred):
            return exists.addCallback(lambda yes: yes or has_maildir(user))
        return exists or has_maildir(user)

    def has_maildir(user: str) -> bool:
        if not options["credCheckers"]:
            return False
        try:
            paths.locate(user)
        except NoSuchMailbox:
            return False
        return True

    domains = options["domain"] or ["localhost"]
    catch_all = options["catch-all"]
    plain = Recipients(find_by(known), domains=domains, catch_all=catch_all)
    if options["aliases"] is None:
        return plain
    try:
        aliases = AliasFile(options["aliases"], plain.ours, at_once=at_once)
    except (BadAliases, OSError) as error:
        refuse_to_start(f"--aliases {options['aliases']}: {getattr(error, 'strerror', None) or error}")
    return Recipients(find_by(known), domains=domains, aliases=aliases, catch_all=catch_all)


def listen_for_mail(
    options: Options,
    reactor: Any,
    ports: Ports,
    access: Access,
    delivery: IDelivery,
    recipients: Recipients,
    *,
    transcript: ITranscript | None,
    premises: Premises,
    tls: object | None,
) -> None:
    """Open the ports that the options ask for."""
    shared: dict[str, Any] = {
        "host": options["hostname"] or socket.getfqdn(),
        "transcript": transcript,
        "numbers": premises.numbers,
    }
    if options["max-message-size"] is not None:
        shared["largest_message"] = options["max-message-size"]

    def endpoints(port: str, described: str) -> list[tuple[str, IStreamServerEndpoint]]:
        found = [ports.tcp(options[port])] if port and options[port] is not None else []
        return found + [ports.described(described, one) for one in options[described]]

    crowd = premises.bringers
    if smtp := endpoints("smtp-port", "smtp"):
        taking = smtp_factory(delivery, recipients, reactor, tls=tls, gatekeeper=crowd, **shared)
        ports.listen(smtp, taking, "SMTP")
    plain, encrypted = options["submission-port"], options["submission-tls-port"]
    if plain is not None or encrypted is not None:
        senders = access.for_senders(SenderRealm())
        sending = submission_factory(
            delivery, recipients, reactor, senders, tls=tls, gatekeeper=crowd, meter=LogMeter(), **shared
        )
        if plain is not None:
            ports.listen([ports.tcp(plain)], sending, "submission")
        if encrypted is not None:
            ports.listen([ports.tcp(encrypted)], sending, "submission over TLS", tls=tls)
    # Whoever may connect here is a mail server that is trusted, and brings much.
    if lmtp := endpoints("", "lmtp"):
        ports.listen(lmtp, lmtp_factory(delivery, recipients, reactor, **shared), "LMTP")
    _look_for_postmaster(recipients)


def _look_for_postmaster(recipients: Recipients) -> None:
    """RFC 5321 section 4.5.1: there MUST be somebody who reads mail for postmaster."""

    def nobody(why: Failure) -> None:
        if why.check(NoSuchMailbox) is None:
            # Nobody can say at the moment, and why not was told.
            why.trap(StoreTrouble)
            return
        log.warn("mail for postmaster is refused: give it to somebody with --aliases or --catch-all")

    resolving = Deferred.fromCoroutine(recipients.resolve(parse_address("postmaster")))
    resolving.addErrback(nobody).addErrback(lambda why: log.failure("looking for postmaster", why))
