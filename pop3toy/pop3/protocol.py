"""POP3 on a connection: a LineReceiver whose conversation is a session of RFC 1939."""

from __future__ import annotations

from typing import Protocol

from ..interfaces import Authenticator
from ..net.connection import Connection, Shared
from .commands import Parsed
from .dispatch import POP3Session
from .replies import Reply, encode

__all__ = ["POP3Protocol"]


class POP3Shared(Shared, Protocol):
    """What POP3's connections share; :class:`~pop3toy.pop3.factory.POP3Factory` says what it is."""

    authenticator: Authenticator
    before_login: float
    expire_days: int | None


class POP3Protocol(Connection[Parsed, Reply]):
    """One connection of a POP3 client; how it lives, :class:`~pop3toy.net.connection.Connection` says."""

    encode = staticmethod(encode)

    def __init__(self, factory: POP3Shared, number: int) -> None:
        super().__init__(factory, number)
        writer = self.writer
        #: What is said here.
        self.session = self.conversation = POP3Session(
            factory.authenticator,
            self.record,
            happened=writer.happened,
            handed_over=writer.handed_over,
            hang_up=self.hang_up,
            call_later=factory.clock.callLater,
            before_login=factory.before_login,
            expire_days=factory.expire_days,
        )
