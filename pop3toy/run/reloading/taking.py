"""New settings for the parts of a server that runs; what begins from then on goes by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from ...config.settings import Settings
from ...interfaces import IMailStore
from ...net.factory import ConnectionFactory
from ...pop3.factory import POP3Factory
from ...smtp import limits as smtp_limits
from ...smtp.factory import SMTPFactory
from ...smtp.submission import SenderRealm
from ..access import Access
from ..control import Notice
from ..process import fitting
from ..process_context import ProcessContext

__all__ = ["Taking"]


class Taking:
    """The parts of one process.

    :param factories: by protocol.
    :param maildrops: the store that sessions of POP3 open.
    :param recipients: is told the domains and the user of catch-all, where mail comes in for users.
    """

    def __init__(
        self,
        context: ProcessContext,
        access: Access,
        notice: Notice,
        factories: Mapping[str, ConnectionFactory],
        maildrops: IMailStore,
        recipients: Callable[[Settings], object],
    ) -> None:
        self._context = context
        self._access = access
        self._notice = notice
        self._factories = factories
        self._maildrops = maildrops
        self._recipients = recipients

    def take(self, settings: Settings) -> None:
        """From now on these: they differ from those before in nothing that needs a restart."""
        context, access = self._context, self._access
        context.levels.use(settings.log_level)
        limits = fitting(settings, owned=context.owned)
        context.pop3_connections.limits = limits.pop3
        context.smtp_connections.limits = limits.smtp
        context.lmtp_connections.limits = limits.lmtp
        if not context.inherits:
            limits.tell(asked=settings.limits.max_connections is not None)
        access.take(settings)
        self._notice.use(settings.limits.stop_delay)
        self._recipients(settings)
        for protocol, factory in self._factories.items():
            if protocol == "POP3":
                cast(POP3Factory, factory).authenticator = access.for_maildrops(self._maildrops)
                continue
            mail = cast(SMTPFactory, factory)
            options = mail.options._replace(
                host=settings.hostname or context.host,
                largest_message=settings.limits.max_message_size or smtp_limits.MESSAGE,
            )
            if options.authenticator is not None:
                options = options._replace(authenticator=access.for_senders(SenderRealm()))
            mail.options = options
