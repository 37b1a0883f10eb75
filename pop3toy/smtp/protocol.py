"""The connection of an SMTP, submission or LMTP client: a session between lines and replies."""

from __future__ import annotations

from typing import ClassVar, Protocol

from ..net.connection import Connection, Shared
from .commands import Parsed
from .replies import Answer, encode
from .session import Options, Policy, Session

__all__ = ["SMTPProtocol"]


class SMTPShared(Shared, Protocol):
    """What the connections of a port share: :class:`~pop3toy.smtp.factory.SMTPFactory`."""

    policy: Policy
    options: Options


class SMTPProtocol(Connection[Parsed, Answer]):
    """One connection; how it lives, :class:`~pop3toy.net.connection.Connection` says."""

    # What comes while a reply is pending waits in the transport.
    PENDING_INPUT: ClassVar[int] = 0

    encode = staticmethod(encode)

    def __init__(self, factory: SMTPShared, number: int) -> None:
        super().__init__(factory, number)
        #: What is said here.
        self.session = self.conversation = Session(
            factory.policy, factory.options, self.record, happened=self.writer.happened
        )

    def connectionMade(self) -> None:
        """Greet, or send away."""
        # A Unix socket has no address.
        own = getattr(self.transport.getHost(), "host", None)
        self.session.own_address = own if isinstance(own, str) else None
        super().connectionMade()
