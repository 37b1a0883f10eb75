"""The ports where mail comes in, put together from the options: SMTP, submission, LMTP."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IStreamServerEndpoint

from ..config.cmdline import Options
from ..interfaces import Gatekeeper, IDelivery, ITranscript
from ..net.threads import RunInThread
from ..observe.session_log import LogMeter
from ..routing.quota import quota_of
from ..routing.recipients import Recipients
from ..smtp.factory import lmtp_factory, smtp_factory, submission_factory
from ..smtp.submission import SenderRealm
from ..stores.maildir.incoming.delivery import MaildirDelivery
from ..stores.maildir.paths import MaildirPaths
from .access import Access
from .ports import Ports
from .process_context import Premises
from .recipients import look_for_postmaster

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS

__all__ = ["listen_for_mail", "maildir_delivery"]


def maildir_delivery(
    paths: MaildirPaths, run_in_thread: RunInThread, reactor: Any, access: Access, host: str
) -> IDelivery:
    """Delivery into the Maildirs that POP3 serves, within the quotas of the accounts file."""
    # A Deferred of an account is one of something with settings, but Deferreds are invariant.
    find: Any = access.file.find if access.file is not None else lambda user: None
    delivery: IDelivery = MaildirDelivery(paths, run_in_thread, reactor, quota=quota_of(find), host=host)
    return delivery


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
    tls: GivenTLS | None,
) -> None:
    """Open the ports that the options ask for."""
    encrypting = _speaking_smtp(tls) if tls is not None else None
    shared: dict[str, Any] = {
        "host": options["hostname"] or socket.getfqdn(),
        "transcript": transcript,
        "numbers": premises.numbers,
        "original_to": options.maildirs is None,
    }
    if options["max-message-size"] is not None:
        shared["largest_message"] = options["max-message-size"]

    def endpoints(
        port: str, described: str, crowd: Gatekeeper | None = None
    ) -> list[tuple[str, IStreamServerEndpoint]]:
        found = [ports.tcp(options[port])] if port and options[port] is not None else []
        return found + [ports.described(described, one, crowd) for one in options[described]]

    crowd = premises.bringers
    if smtp := endpoints("smtp-port", "smtp", crowd):
        taking = smtp_factory(delivery, recipients, reactor, tls=encrypting, gatekeeper=crowd, **shared)
        ports.listen(smtp, taking, "SMTP")
    plain, encrypted = options["submission-port"], options["submission-tls-port"]
    if plain is not None or encrypted is not None:
        senders = access.for_senders(SenderRealm())
        sending = submission_factory(
            delivery,
            recipients,
            reactor,
            senders,
            tls=encrypting,
            gatekeeper=crowd,
            meter=LogMeter(),
            **shared,
        )
        if plain is not None:
            ports.listen([ports.tcp(plain)], sending, "submission")
        if encrypted is not None:
            ports.listen([ports.tcp(encrypted)], sending, "submission over TLS", tls=encrypting)
    # Whoever may connect here is a mail server that is trusted, and brings much.
    if lmtp := endpoints("", "lmtp"):
        ports.listen(lmtp, lmtp_factory(delivery, recipients, reactor, **shared), "LMTP")
    # Who there is may have to be asked in a thread, and those begin with the server.
    reactor.callWhenRunning(look_for_postmaster, recipients)


def _speaking_smtp(tls: GivenTLS) -> object:
    # What TLS needs is there if there is TLS.
    from ..net.tls.contexts import ALPN_SMTP

    return tls.speaking(ALPN_SMTP)
