"""A mail trap beside the POP3 server: takes mail for everybody, by SMTP, and sends nothing on."""

from __future__ import annotations

import email
import email.policy
import itertools
from collections.abc import Callable, Collection, Sequence
from email.message import EmailMessage
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from ..addresses import Address
from ..auth.names import NameIndex
from ..errors import StoreTrouble
from ..events import Delivered
from ..interfaces import IDelivery, IObserver, IRecipientResolver
from ..stores.memory import MemoryStore

__all__ = ["Everybody", "SMTPMessage", "Trap"]


class SMTPMessage(NamedTuple):
    """A message that came in by SMTP."""

    #: Of the envelope (MAIL FROM); empty for a bounce.
    sender: str
    #: Of the envelope (RCPT TO), in order.
    recipients: tuple[str, ...]
    #: The message, below the Return-Path and Received lines that it got on its way.
    content: bytes

    @property
    def email(self) -> EmailMessage:
        """The message, parsed."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


@implementer(IRecipientResolver)
class Everybody:
    """Whose an address is: its own."""

    def ours(self, address: Address) -> bool:
        """All are."""
        return True

    def at_home(self, address: Address, here: Collection[str]) -> Address:
        """As it is."""
        return address

    def in_full(self, address: Address) -> Address:
        """With the domain ``localhost`` where it has none."""
        if address.domain:
            return address
        return Address(address.local, "localhost", f"{address.written}@localhost")

    async def resolve(self, address: Address) -> Sequence[str]:
        """The address as it was written: the trap says who gets it."""
        return (address.written,)


@implementer(IDelivery, IObserver)
class Trap:
    """Keeps each message; what is for a user of the server goes into the user's mailbox, too.

    :param store: the server's.
    :param users: who has a mailbox there.
    """

    wants = (Delivered,)

    def __init__(self, store: MemoryStore, users: Collection[str]) -> None:
        self._store = store
        self._names = NameIndex(users)
        self._numbers = itertools.count(1)
        # Delivered, and not yet told of.
        self._arriving: dict[bytes, bytes] = {}
        #: All that have come.
        self.messages: list[SMTPMessage] = []

    def check(self, user: str, octets: int = 0) -> None:
        """There is room."""

    def begin(self, users: Sequence[str], octets: int = 0) -> Any:
        """See :class:`~pop3toy.interfaces.IDelivery`; ``users`` are addresses."""
        return _Incoming(lambda content: self._deliver(users, content))

    def _deliver(self, addresses: Sequence[str], content: bytes) -> Sequence[bytes]:
        """Each address with a unique-id; a user who has several of the addresses gets the message once."""
        users = [self._user(address) for address in addresses]
        uids: dict[str | None, bytes] = {None: b"nobody-%d" % next(self._numbers)}
        uids |= {user: self._store.add(user, content) for user in dict.fromkeys(users) if user is not None}
        self._arriving[uids[users[0]]] = content
        return [uids[user] for user in users]

    def _user(self, address: str) -> str | None:
        """Whose an address is, in whatever domain, with or without ``+detail``; ``None`` for nobody's."""
        local = address.rpartition("@")[0] or address
        names = (address, local, local.partition("+")[0])
        return next((user for user in map(self._names.find, names) if user is not None), None)

    def observe(self, event: Delivered) -> None:
        """A message is there; what stands in its envelope is known now."""
        content = self._arriving.pop(event.uids[0][1])
        self.messages.append(SMTPMessage(event.sender, tuple(address for address, _ in event.uids), content))


class _Incoming:
    def __init__(self, deliver: Callable[[bytes], Sequence[bytes]]) -> None:
        self._deliver = deliver
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def commit(self, *, together: bool = True) -> Deferred[Sequence[bytes | StoreTrouble]]:
        return succeed(self._deliver(b"".join(self._chunks)))

    def abort(self) -> None:
        self._chunks.clear()
