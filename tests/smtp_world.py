"""What the tests of delivery share: a client on a string, deliveries that fail or wait on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from pop3toy.auth.sasl.exchange import SASLExchange
from pop3toy.auth.throttle.login_throttle import unguarded
from pop3toy.errors import AuthenticationFailed, BadCommand, NoSuchMailbox
from pop3toy.interfaces import Challenge, Channel, IDelivery, Incoming, Login, SessionRecord
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.smtp.factory import SMTPFactory
from pop3toy.stores.memory import MemoryStore

from .memory_world import StringClient

#: What each test's clock says at first.
NOW = 1_700_000_000


class Client(StringClient):
    """A client whose lines, and the server's, are text."""

    def __init__(self, factory: SMTPFactory, peer: Any = None) -> None:
        self.clock = factory.clock
        super().__init__(factory, peer or IPv4Address("TCP", "192.0.2.7", 4711))
        self.greeting = self.greeting.decode().splitlines()

    @classmethod
    def on_socket(cls, factory: SMTPFactory) -> Client:
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
        answers = self.answers()
        # Each turn answers some.
        while isinstance(self.clock, Clock):
            self.clock.advance(0)
            more = self.answers()
            if not more:
                break
            answers += more
        return answers

    def converse(self, script: str) -> None:
        """Say the lines behind ``C: ``, and hear those behind ``S: ``; ``...`` is any end of one."""
        heard: list[str] = []
        for line in script.split("\n"):
            side, said = line.strip()[:3], line.strip()[3:]
            if side == "C: " or line.strip() == "C:":
                assert not heard, heard
                heard = self.say(said)
            elif side == "S: ":
                answer = heard.pop(0) if heard else "(nothing)"
                expected = said.removesuffix("...")
                assert answer == said or (said != expected and answer.startswith(expected)), (answer, said)
        assert not heard, heard

    def answers(self) -> list[str]:
        """What was answered since the last look, line by line."""
        return self.read().decode().splitlines()


class _NoCipherYet:
    """TLS as a transport shows it before the handshake is done."""

    def get_cipher_name(self) -> None:
        return None


class TLSTransport:
    """Gives a client's StringTransport a startTLS that only takes note."""

    def __init__(self, factory: SMTPFactory, peer: Any = None) -> None:
        self.contexts: list[object] = []
        self.client = Client(factory, peer)
        transport: Any = self.client.transport
        directlyProvides(transport, ITLSTransport)
        transport.startTLS = self._start
        # It is looked at when the connection is made.
        self.client.protocol.session.can_start_tls = True

    def _start(self, context: object) -> None:
        transport: Any = self.client.transport
        self.contexts.append(context)
        transport.TLS = True
        transport.getHandle = _NoCipherYet


@implementer(IDelivery)
class Slow:
    """A delivery whose Deferreds fire when a test says so, and that fails with what a test gives."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.log: list[str] = []
        #: Those who were checked, and for whom messages were begun.
        self.checked: list[str] = []
        self.begun: list[Sequence[str]] = []
        #: By ``check ann``, ``begin``, ``write ann`` or ``commit ann``.
        self.fail: dict[str, Exception] = {}
        self.check_at_once = self.begin_at_once = True
        #: The octets that ``check`` and ``begin`` were told.
        self.announced: list[int] = []

    def check(self, user: str, octets: int = 0) -> Any:
        if "check " + user in self.fail:
            raise self.fail["check " + user]
        self.checked.append(user)
        self.announced.append(octets)
        return None if self.check_at_once else self.wait()

    def begin(self, users: Sequence[str], octets: int = 0) -> Any:
        if "begin" in self.fail:
            raise self.fail["begin"]
        self.begun.append(tuple(users))
        self.announced.append(octets)
        incoming = _SlowIncoming(self, users)
        return succeed(incoming) if self.begin_at_once else self.wait().addCallback(lambda _: incoming)

    def wait(self) -> Deferred[Any]:
        """A Deferred that ``go_on`` fires."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def go_on(self, result: Any = None) -> None:
        """Fire the oldest Deferred that is waiting."""
        self.waiting.pop(0).callback(result)


class _SlowIncoming:
    def __init__(self, delivery: Slow, users: Sequence[str]) -> None:
        self.delivery = delivery
        self.users = users
        self.over = False

    def write(self, chunk: bytes) -> Any:
        failed = self._failed("write")
        if len(failed) == len(self.users):
            raise failed[self.users[0]]
        self._log("write", len(chunk))
        return self.delivery.wait()

    def commit(self, *, together: bool = True) -> Deferred[Any]:
        self.over = True
        self._log("commit", *(() if together else ("each",)))
        failed = self._failed("commit") | self._failed("write")

        def done(_: object) -> Any:
            if failed and (together or len(failed) == len(self.users)):
                return Failure(next(iter(failed.values())))
            return [failed.get(user, b"uid") for user in self.users]

        return self.delivery.wait().addCallback(done)

    def abort(self) -> None:
        if not self.over:
            self.over = True
            self._log("abort")

    def _failed(self, at: str) -> dict[str, Exception]:
        fail = self.delivery.fail
        return {user: fail[f"{at} {user}"] for user in self.users if f"{at} {user}" in fail}

    def _log(self, *words: object) -> None:
        self.delivery.log.append(" ".join(map(str, (words[0], *self.users, *words[1:]))))


class Accounts:
    """An Authenticator with PLAIN and LOGIN, for passwords that are the user's name backwards."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        #: Whether no response is well-formed; and what is waited for before a password is judged.
        self.malformed = False
        self.waiting: Deferred[Any] | None = None
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
        made: Any = _Mechanism(accounts, mechanism)
        log_in: Any = lambda login, _: login  # noqa: E731
        super().__init__(made, unguarded().attempt("unix"), log_in)

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
        if self.accounts.malformed:
            raise BadCommand("not well-formed")
        if response is not None:
            self.said.extend(response.split(b"\0")[1:] if self.name == "PLAIN" else [response])
        if len(self.said) < 2:
            return Challenge(b"" if self.name == "PLAIN" else (b"Username:", b"Password:")[len(self.said)])
        user, password = (said.decode() for said in self.said)
        self.user = user
        if self.accounts.waiting is not None:
            await self.accounts.waiting
        if password != user[::-1]:
            raise AuthenticationFailed
        return Login(user, None, self.accounts._logout, self.name)  # type: ignore[arg-type]


def find_in(*users: str) -> Callable[[str], str | None]:
    """A ``find`` that knows these users, in any case."""
    return lambda name: next((user for user in users if user.lower() == name.lower()), None)


def world(
    make: Callable[..., SMTPFactory],
    *args: Any,
    users: tuple[str, ...] = ("ann", "bob", "cat"),
    delivery: Any = None,
    recipients: RecipientResolver | None = None,
    **options: Any,
) -> tuple[SMTPFactory, Any, Clock]:
    """A factory, its delivery (a MemoryStore if none is given), and its clock."""
    clock = Clock()
    clock.advance(NOW)
    delivery = delivery or MemoryStore(dict.fromkeys(users, ()))
    recipients = recipients or RecipientResolver(find_in(*users), domains=("example.org", "localhost"))
    options = {"host": "mx.example.org", "wall": clock.seconds} | options
    return make(delivery, recipients, clock, *args, **options), delivery, clock


__all__ = [
    "NOW",
    "Accounts",
    "Client",
    "Incoming",
    "NoSuchMailbox",
    "Slow",
    "TLSTransport",
    "find_in",
    "world",
]
