"""What the tests of delivery share: a client on a string, deliveries that fail or wait on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from pop3toy.auth.sasl.exchange import SASLExchange
from pop3toy.auth.throttle.login_throttle import unguarded
from pop3toy.errors import AuthenticationFailed, NoSuchMailbox
from pop3toy.interfaces import Challenge, Channel, IDelivery, Incoming, Login, SessionRecord
from pop3toy.routing.recipients import Recipients
from pop3toy.smtp.factory import DeliveryFactory
from pop3toy.stores.memory import MemoryStore

#: What each test's clock says at first.
NOW = 1_700_000_000


class Client:
    """A client on a string: says octets, and reads what was answered."""

    def __init__(self, factory: DeliveryFactory, peer: Any = None) -> None:
        self.transport = StringTransport(peerAddress=peer or IPv4Address("TCP", "192.0.2.7", 4711))
        protocol = factory.buildProtocol(self.transport.getPeer())
        assert protocol is not None
        self.protocol = protocol
        protocol.makeConnection(self.transport)
        self.greeting = self.answers()

    @classmethod
    def on_socket(cls, factory: DeliveryFactory) -> Client:
        """A client behind a Unix socket."""
        return cls(factory, UNIXAddress("/run/lmtp"))

    def say(self, *lines: str | bytes) -> list[str]:
        """Send lines, all at once, and return the answers."""
        return self.send(
            b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines)
        )

    def send(self, data: bytes) -> list[str]:
        """Send octets and return the answers, turn after turn."""
        self.protocol.dataReceived(data)
        clock = getattr(self.protocol, "clock", None)
        if isinstance(clock, Clock):
            clock.advance(0)
        return self.answers()

    def answers(self) -> list[str]:
        """What was answered since the last look, line by line."""
        answered = self.transport.value().decode()
        self.transport.clear()
        return answered.splitlines()

    def drop(self) -> None:
        """Lose the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return bool(self.transport.disconnecting)


@implementer(IDelivery)
class Slow:
    """A delivery whose Deferreds fire when a test says so, and that fails with what a test gives."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.log: list[str] = []
        self.begun: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.begin_at_once = True
        #: The octets that each delivery was told.
        self.announced: list[int] = []

    def begin(self, user: str, octets: int = 0) -> Any:
        if "begin " + user in self.fail:
            raise self.fail["begin " + user]
        self.begun.append(user)
        self.announced.append(octets)
        incoming = _SlowIncoming(self, user)
        return succeed(incoming) if self.begin_at_once else self.wait().addCallback(lambda _: incoming)

    def wait(self) -> Deferred[Any]:
        """A Deferred that ``go_on`` fires."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def go_on(self, result: Any = None) -> None:
        """Fire the oldest Deferred that is waiting."""
        self.waiting.pop(0).callback(result)


class _SlowIncoming:
    def __init__(self, delivery: Slow, user: str) -> None:
        self.delivery = delivery
        self.user = user
        self.over = False

    def write(self, chunk: bytes) -> Any:
        if "write " + self.user in self.delivery.fail:
            raise self.delivery.fail["write " + self.user]
        self.delivery.log.append(f"write {self.user} {len(chunk)}")
        return self.delivery.wait()

    def commit(self) -> Deferred[bytes]:
        self.over = True
        self.delivery.log.append(f"commit {self.user}")
        if "commit " + self.user in self.delivery.fail:
            return self.delivery.wait().addCallback(
                lambda _: Failure(self.delivery.fail["commit " + self.user])
            )
        return self.delivery.wait().addCallback(lambda _: b"uid")

    def abort(self) -> None:
        if not self.over:
            self.over = True
            self.delivery.log.append(f"abort {self.user}")


class Accounts:
    """An Authenticator with PLAIN and LOGIN, for passwords that are the user's name backwards."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.logged_out = 0
        self.cancelled = 0

    def mechanisms(self, channel: Channel) -> tuple[str, ...]:
        return ("PLAIN", "LOGIN") if channel.private else ()

    def begin(self, mechanism: str, record: SessionRecord) -> Any:
        if self.trouble is not None:
            raise self.trouble
        return _Exchange(self, mechanism)

    def _logout(self) -> None:
        self.logged_out += 1


class _Exchange(SASLExchange):
    def __init__(self, accounts: Accounts, mechanism: str) -> None:
        self.accounts = accounts
        super().__init__(_Mechanism(accounts, mechanism), unguarded().attempt("unix"), lambda login, _: login)

    def cancel(self) -> None:
        self.accounts.cancelled += 1
        super().cancel()


class _Mechanism:
    user: str | None = None
    client_first = False

    def __init__(self, accounts: Accounts, name: str) -> None:
        self.accounts = accounts
        self.name = name
        self.said: list[bytes] = []

    async def step(self, response: bytes | None) -> Any:
        if response is not None:
            self.said.extend(response.split(b"\0")[1:] if self.name == "PLAIN" else [response])
        if len(self.said) < 2:
            return Challenge(b"" if self.name == "PLAIN" else (b"Username:", b"Password:")[len(self.said)])
        user, password = (said.decode() for said in self.said)
        self.user = user
        if password != user[::-1]:
            raise AuthenticationFailed
        return Login(user, None, self.accounts._logout, self.name)  # type: ignore[arg-type]


def find_in(*users: str) -> Callable[[str], str | None]:
    """A ``find`` that knows these users, in any case."""
    return lambda name: next((user for user in users if user.lower() == name.lower()), None)


def world(
    make: Callable[..., DeliveryFactory],
    *args: Any,
    users: tuple[str, ...] = ("ann", "bob", "cat"),
    delivery: Any = None,
    recipients: Recipients | None = None,
    **options: Any,
) -> tuple[DeliveryFactory, Any, Clock]:
    """A factory, its delivery (a MemoryStore if none is given), and its clock."""
    clock = Clock()
    clock.advance(NOW)
    delivery = delivery or MemoryStore(dict.fromkeys(users, ()))
    recipients = recipients or Recipients(find_in(*users), domains=("example.org", "localhost"))
    options = {"host": "mx.example.org", "wall": clock.seconds} | options
    return make(delivery, recipients, clock, *args, **options), delivery, clock


__all__ = ["NOW", "Accounts", "Client", "Incoming", "NoSuchMailbox", "Slow", "find_in", "world"]
