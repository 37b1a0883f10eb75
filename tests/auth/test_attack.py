"""What an attacker meets, on whole connections: counted, on a clock that is advanced, without a network."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pop3toy import MailboxRealm, POP3Factory, PortalAuthenticator
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.events import Observers
from pop3toy.limits import SASL_LINE
from pop3toy.observe.session_log import SessionLog
from pop3toy.stores.memory import MemoryStore

from ..memory_world import StringClient

EVIL, GOOD = "198.51.100.66", "192.0.2.7"
PASSWORDS = {"ann": "correct horse", "bob": "battery staple"}
#: Seconds; written out here, because the promise is a minute whatever the limits say.
MINUTE = 60
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")


class Client(StringClient):
    """One connection, seen from the client's side."""

    def log_in(self, user: str = "ann", password: str = "") -> bytes:
        """The answer to PASS, if it comes at once."""
        self.say(b"USER " + user.encode())
        return self.say(b"PASS " + (password or PASSWORDS[user]).encode())


class House:
    """A server with two users, that takes clear-text passwords from everywhere."""

    def __init__(self, throttle: LoginLimits | None = None, crowd: ConnectionLimits | None = None) -> None:
        self.clock = Clock()
        self.store = MemoryStore({user: [b"Subject: hello\n\nhello\n"] for user in PASSWORDS})
        authenticator = PortalAuthenticator(
            Portal(MailboxRealm(self.store), [MemoryAccounts(PASSWORDS)]),
            throttle=LoginThrottle(self.clock, throttle),
            allow_cleartext=True,
        )
        self.crowd = ConnectionLimiter(crowd)
        self.factory = POP3Factory(
            self.clock, authenticator, observers=Observers(SessionLog()), limiter=self.crowd
        )

    def connect(self, host: str = GOOD) -> Client:
        """Somebody connects from this address."""
        kind: Any = IPv6Address if ":" in host else IPv4Address
        return Client(self.factory, kind("TCP", host, 50110))


class VisitorTests(SynchronousTestCase):
    """Who comes in without a name."""

    def test_visitor_removes_nothing(self) -> None:
        """An anonymous visitor is refused at DELE, not at QUIT with a trouble that would pass."""
        clock = Clock()
        store = MemoryStore({"demo": [b"Subject: hello\n\nhello\n"]})
        realm = MailboxRealm(store, anonymous="demo")
        authenticator = PortalAuthenticator(Portal(realm, [AllowAnonymousAccess()]))
        factory = POP3Factory(clock, authenticator)
        visitor = Client(factory, IPv4Address("TCP", GOOD, 50110))
        self.assertTrue(visitor.say(b"AUTH ANONYMOUS =").startswith(b"+OK maildrop has 1"))
        self.assertEqual(visitor.say(b"DELE 1"), b"-ERR this maildrop is read-only\r\n")
        self.assertEqual(visitor.say(b"QUIT"), b"+OK bye\r\n")
        self.assertEqual(len(store.messages("demo")), 1)

    def world(self, limit: int, visitors: int = 64) -> tuple[POP3Factory, MemoryStore]:
        """A server for a user, demo, and for visitors to the same mailbox."""
        clock = Clock()
        store = MemoryStore({"demo": [b"Subject: hello\n\nhello\n"]})
        realm = MailboxRealm(store, anonymous="demo")
        portal = Portal(realm, [MemoryAccounts({"demo": "x"}), AllowAnonymousAccess()])
        throttle = LoginThrottle(clock, LoginLimits(visitors=visitors))
        limiter = ConnectionLimiter(ConnectionLimits(connections=limit))
        auth = PortalAuthenticator(portal, throttle=throttle, allow_cleartext=True)
        return POP3Factory(clock, auth, limiter=limiter), store

    def connect(self, factory: POP3Factory) -> Client:
        """Somebody connects."""
        return Client(factory, IPv4Address("TCP", GOOD, 50110))

    def test_visitors_make_room(self) -> None:
        """Visitors keep no user out: the first of them goes before a stranger, and a user never does."""
        factory, _ = self.world(4)
        owner = self.connect(factory)
        owner.log_in("demo", "x")
        stranger, *visitors = (self.connect(factory) for _ in range(3))
        for visitor in visitors:
            self.assertTrue(visitor.say(b"AUTH ANONYMOUS =").startswith(b"+OK maildrop"))
        for there in ([False, True], [False, False]):
            self.assertTrue(self.connect(factory).greeting.startswith(b"+OK"))
            self.assertEqual([not one.closed for one in visitors], there)
        self.assertFalse(stranger.closed)
        self.connect(factory)
        self.assertFalse(owner.closed)

    def test_visitors_and_owner(self) -> None:
        """Neither keeps the other waiting, whoever comes first; DELE and QUIT of the owner work meanwhile."""
        factory, store = self.world(10)
        before, owner, after = (self.connect(factory) for _ in range(3))
        self.assertTrue(before.say(b"AUTH ANONYMOUS =").startswith(b"+OK maildrop has 1"))
        self.assertTrue(owner.log_in("demo", "x").startswith(b"+OK maildrop has 1"))
        self.assertTrue(after.say(b"AUTH ANONYMOUS =").startswith(b"+OK maildrop has 1"))
        owner.say(b"DELE 1")
        self.assertTrue(owner.say(b"QUIT").startswith(b"+OK"))
        self.assertEqual(store.messages("demo"), ())
        for visitor in (before, after):
            self.assertTrue(visitor.say(b"RETR 1").startswith(b"-ERR"))
            self.assertTrue(visitor.say(b"QUIT").startswith(b"+OK"))

    def test_limit_of_visitors(self) -> None:
        """They have a limit of their own; one who leaves makes room for another."""
        factory, _ = self.world(10, visitors=2)
        visitors = [self.connect(factory) for _ in range(3)]
        said = [visitor.say(b"AUTH ANONYMOUS =") for visitor in visitors]
        self.assertEqual([one[:3] for one in said], [b"+OK", b"+OK", b"-ER"])
        self.assertTrue(said[2].startswith(b"-ERR [SYS/TEMP] too many visitors"))
        owner = self.connect(factory)
        self.assertTrue(owner.log_in("demo", "x").startswith(b"+OK"))
        visitors[0].say(b"QUIT")
        self.assertTrue(visitors[2].say(b"AUTH ANONYMOUS =").startswith(b"+OK"))


class FloodTests(SynchronousTestCase):
    """Many of something."""

    def test_thousand_wrong_passwords(self) -> None:
        """A thousand guesses of one address each wait for their answer; another address never waits."""
        house = House()
        guesses = refused = logins = 0
        while guesses < 1000:
            client = house.connect(EVIL)
            for _ in range(5):
                guesses += 1
                said = client.log_in("ann", f"guess{guesses}")
                if guesses % 10 == 0:
                    # In the middle of it, and the clock stands still.
                    friend = house.connect(GOOD)
                    self.assertTrue(friend.log_in("bob").startswith(b"+OK maildrop has 1"))
                    self.assertTrue(friend.say(b"QUIT").startswith(b"+OK"))
                    friend.leave()
                    logins += 1
                if not said:
                    house.clock.advance(15)
                    said = client.read()
                refused += said.startswith(b"-ERR [AUTH]")
            self.assertTrue(client.closed)
            client.leave()
        self.assertEqual((guesses, refused, logins), (1000, 1000, 100))
        # All but the three free ones waited, soon for 15 seconds each.
        self.assertGreater(house.clock.seconds(), 990 * 15)
        self.assertEqual(house.factory.connections, 0)
        self.assertEqual(house.clock.getDelayedCalls(), [])

    def test_victim(self) -> None:
        """The user whose password is guessed logs in from his own address at once, before and meanwhile."""
        house = House()
        owner = house.connect(GOOD)
        self.assertTrue(owner.log_in("ann").startswith(b"+OK"))
        owner.say(b"QUIT")
        for number in range(50):
            evil = house.connect(f"198.51.100.{number}")
            evil.log_in("ann", "wrong")
            house.clock.advance(4)
            evil.leave()
            again = house.connect(GOOD)
            self.assertTrue(again.log_in("ann").startswith(b"+OK"), number)
            again.say(b"QUIT")

    def test_idle_strangers(self) -> None:
        """Two thousand idle strangers keep no user out, and nobody who is in."""
        house = House()
        resident = house.connect(GOOD)
        self.assertTrue(resident.log_in("bob").startswith(b"+OK"))
        strangers = [house.connect(f"203.0.{number // 250}.{number % 250}") for number in range(2000)]
        self.assertTrue(all(one.greeting.startswith(b"+OK") for one in strangers))
        user = house.connect(GOOD)
        self.assertTrue(user.log_in("ann").startswith(b"+OK maildrop has 1"))
        self.assertTrue(resident.say(b"STAT").startswith(b"+OK 1 "))
        still_there = [not one.closed for one in strangers]
        self.assertLessEqual(sum(still_there), ConnectionLimits().unauthenticated)
        self.assertEqual(house.crowd.connections, sum(still_there) + 2)

    def test_full(self) -> None:
        """When all places are users', the next one is told at once, and costs no timer afterwards."""
        house = House(crowd=ConnectionLimits(connections=2, unauthenticated=2))
        for user in PASSWORDS:
            self.assertTrue(house.connect().log_in(user).startswith(b"+OK"))
        with capturedLogs() as events:
            late = house.connect("2001:db8::5")
        self.assertEqual(late.greeting, b"-ERR [SYS/TEMP] too many connections\r\n")
        self.assertTrue(late.closed)
        self.assertEqual(late.say(b"USER ann"), b"")
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["connection refused: session=3 rip=2001:db8::5 protocol=POP3 reason=too many connections"],
        )
        before = len(house.clock.getDelayedCalls())
        late.leave()
        self.assertEqual(len(house.clock.getDelayedCalls()), before - 1)

    def test_second_session(self) -> None:
        """An open maildrop is refused with ``[IN-USE]`` and the word lock, and is free when it is left."""
        house = House()
        first, second = house.connect(), house.connect()
        first.log_in()
        self.assertEqual(second.log_in(), b"", "it waits")
        house.clock.pump([0.25] * 20)
        said = second.read()
        self.assertTrue(said.startswith(b"-ERR [IN-USE] "))
        self.assertIn(b"lock", said)
        self.assertFalse(second.closed)
        first.leave()
        self.assertTrue(second.log_in().startswith(b"+OK"))

    def test_sessions_of_one_user(self) -> None:
        """So many sessions of a user, and no more, whatever the store would allow."""
        house = House(throttle=LoginLimits(sessions_per_user=1))
        first, second, other = (house.connect() for _ in range(3))
        first.log_in()
        self.assertEqual(second.log_in(), b"", "it waits")
        house.clock.pump([0.25] * 20)
        self.assertTrue(second.read().startswith(b"-ERR [IN-USE] too many sessions"))
        self.assertTrue(other.log_in("bob").startswith(b"+OK"))
        first.say(b"QUIT")
        self.assertTrue(second.log_in().startswith(b"+OK"))

    def test_login_delay(self) -> None:
        """LOGIN-DELAY is announced before and after login, and enforced for each user by himself."""
        house = House(throttle=LoginLimits(login_delay=60))
        client = house.connect()
        self.assertIn(b"\r\nLOGIN-DELAY 60\r\n", client.say(b"CAPA"))
        self.assertTrue(client.log_in().startswith(b"+OK"))
        self.assertIn(b"\r\nLOGIN-DELAY 60\r\n", client.say(b"CAPA"))
        client.say(b"QUIT")
        house.clock.advance(59)
        again = house.connect()
        said = again.log_in()
        self.assertTrue(said.startswith(b"-ERR [LOGIN-DELAY] "))
        self.assertIn(b"wait", said)
        self.assertTrue(house.connect().log_in("bob").startswith(b"+OK"))
        house.clock.advance(1)
        self.assertTrue(again.log_in().startswith(b"+OK"))


class SlowTests(SynchronousTestCase):
    """Who keeps a connection without using it."""

    def test_silent(self) -> None:
        """A stranger who says nothing is cut after a minute."""
        house = House()
        client = house.connect()
        house.clock.advance(MINUTE - 1)
        self.assertFalse(client.closed)
        house.clock.advance(1)
        self.assertTrue(client.closed)

    def test_octet_by_octet(self) -> None:
        """An octet every second is no more than silence, in a command and within AUTH."""
        # Behind USER and within AUTH a mail client may be asking its user for the password.
        patience = {
            b"": MINUTE,
            b"AUTH PLAIN\r\n": 3 * MINUTE,
            b"AUTH SCRAM-SHA-256\r\n": 3 * MINUTE,
            b"USER ann\r\nPASS ": 3 * MINUTE,
            b"NOOP\r\nPASS ": MINUTE,
        }
        for begin, seconds in patience.items():
            house = House()
            client = house.connect()
            client.send(begin)
            for second in range(seconds):
                self.assertFalse(client.closed, (begin, second))
                client.send(b"A")
                house.clock.advance(1)
            self.assertTrue(client.closed, begin)

    def test_busy_stranger(self) -> None:
        """A stranger who asks something now and then is cut after five minutes in all."""
        house = House()
        client = house.connect()
        for _ in range(5 * MINUTE // 30):
            self.assertTrue(client.say(b"CAPA").startswith(b"+OK"))
            house.clock.advance(30)
        self.assertTrue(client.closed)

    def test_user_is_left_alone(self) -> None:
        """Who has logged in has ten minutes."""
        house = House()
        client = house.connect()
        client.log_in()
        house.clock.pump([60] * 9)
        self.assertTrue(client.say(b"NOOP").startswith(b"+OK"))

    def test_half_a_handshake(self) -> None:
        """Who begins TLS and does not go on is cut after a minute, however little of it was said."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        from pop3toy.net.tls.certificate_files import CertificateFiles
        from pop3toy.net.tls.contexts import ServerTLS
        from pop3toy.net.tls.self_signed import self_signed

        files: CertificateFiles = self_signed(self.mktemp())
        house = House()
        wrapped = TLSMemoryBIOFactory(ServerTLS(lambda: [files]), False, house.factory, house.clock)
        for said in (b"", b"\x16", b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03"):
            protocol = wrapped.buildProtocol(None)
            transport = StringTransport(peerAddress=IPv4Address("TCP", EVIL, 50110))
            transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
            protocol.makeConnection(transport)
            for octet in said:
                protocol.dataReceived(bytes([octet]))
                house.clock.advance(1)
            house.clock.advance(MINUTE - len(said) - 1)
            self.assertFalse(transport.disconnecting)
            house.clock.advance(1)
            self.assertTrue(transport.disconnecting, said)


class Listener(Protocol):
    """A client on a socket; says when something came and when it is over."""

    def __init__(self) -> None:
        self.heard = b""
        self.waiting: tuple[bytes, Deferred[None]] | None = None
        self.over: Deferred[None] = Deferred()

    def hears(self, words: bytes) -> Deferred[None]:
        """Fires when these octets have come."""
        came: Deferred[None] = Deferred()
        self.waiting = words, came
        self.dataReceived(b"")
        return came

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self.waiting is not None and self.waiting[0] in self.heard:
            (_, came), self.waiting = self.waiting, None
            came.callback(None)

    def connectionLost(self, reason: object = None) -> None:
        self.over.callback(None)


class HandshakeTests(TestCase):
    """STLS on a socket of loopback, because only a real transport turns to TLS; the clock is not real."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        from pop3toy.net.tls.contexts import ServerTLS
        from pop3toy.net.tls.self_signed import self_signed

        files = self_signed(self.mktemp())
        self.house = House()
        self.house.factory.tls_context = ServerTLS(lambda: [files])
        self.reactor: Any = reactor
        self.port = self.reactor.listenTCP(0, self.house.factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def after_stls(self) -> Listener:
        """A client that was told to begin, and begins with half a hello."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port.getHost().port)  # type: ignore[attr-defined]
        client: Any = await connectProtocol(endpoint, Listener())
        await client.hears(b"+OK pop3toy ready")
        client.transport.write(b"STLS\r\n")
        await client.hears(b"+OK begin TLS negotiation\r\n")
        client.transport.write(b"\x16\x03\x01\x01\x00\x01\x00")
        return cast(Listener, client)

    async def test_half_a_handshake(self) -> None:
        """Who says STLS and never finishes the handshake is cut a minute after that, and is forgotten."""
        client = await self.after_stls()
        self.house.clock.advance(MINUTE - 1)
        self.assertEqual(self.house.factory.connections, 1)
        self.assertFalse(client.over.called)
        self.house.clock.advance(1)
        await client.over
        self.assertEqual(client.heard.count(b"+OK"), 2)
        self.assertEqual(self.house.factory.connections, 0)
        self.assertEqual(self.house.crowd.connections, 0)
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    async def test_turned_out(self) -> None:
        """So is who has to make room for others meanwhile, at once."""
        client = await self.after_stls()
        [protocol] = self.house.factory._connections
        protocol.hang_up("limit")
        await client.over
        self.assertEqual(self.house.factory.connections, 0)


class ExchangeTests(SynchronousTestCase):
    """AUTH dialogues that go wrong (RFC 5034 section 4)."""

    def test_not_base64(self) -> None:
        """What is not base64 ends the exchange, in the initial response and later; the session goes on."""
        for mechanism in MECHANISMS:
            for wrong in (b"!", b"QQ", b"QQ==QQ==", b"Q Q=", b"\xff\xfe", b"=", b"QQ==\0"):
                client = House().connect()
                start = client.say(b"AUTH " + mechanism.encode())
                self.assertTrue(start.startswith(b"+ "), start)
                said = client.say(wrong)
                self.assertTrue(said.startswith(b"-ERR "), (mechanism, wrong, said))
                self.assertNotIn(b"[AUTH]", said)
                self.assertTrue(client.log_in().startswith(b"+OK"), (mechanism, wrong))

    def test_cancelled(self) -> None:
        """``*`` cancels, at the first step and at a later one."""
        for mechanism in MECHANISMS:
            client = House().connect()
            client.say(b"AUTH " + mechanism.encode())
            self.assertEqual(client.say(b"*"), b"-ERR authentication cancelled\r\n")
            self.assertTrue(client.log_in().startswith(b"+OK"), mechanism)
        client = House().connect()
        client.say(b"AUTH LOGIN")
        self.assertEqual(client.say(base64.b64encode(b"ann")), b"+ UGFzc3dvcmQ6\r\n")
        self.assertEqual(client.say(b"*"), b"-ERR authentication cancelled\r\n")
        client = House().connect()
        first = client.say(b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=ann,r=abcdefgh"))
        self.assertTrue(first.startswith(b"+ "))
        self.assertEqual(client.say(b"*"), b"-ERR authentication cancelled\r\n")

    def test_too_long(self) -> None:
        """A response beyond 12,288 octets is thrown away, answered once, and ends the exchange."""
        for mechanism in MECHANISMS:
            client = House().connect()
            client.say(b"AUTH " + mechanism.encode())
            said = client.say(b"A" * SASL_LINE)
            self.assertEqual(said.count(b"\r\n"), 1, mechanism)
            self.assertTrue(said.startswith(b"-ERR line too long"), said)
            self.assertTrue(client.log_in().startswith(b"+OK"), mechanism)

    def test_as_long_as_may_be(self) -> None:
        """A response of just so many octets is looked at."""
        client = House().connect()
        client.say(b"AUTH PLAIN")
        name = b"\0" + b"a" * (SASL_LINE // 4 * 3 - 20) + b"\0x"
        self.assertTrue(client.say(base64.b64encode(name)).startswith(b"-ERR [AUTH]"))

    def test_interrupted(self) -> None:
        """A client that goes away in the middle leaves nothing behind."""
        for mechanism in MECHANISMS:
            house = House()
            client = house.connect()
            client.say(b"AUTH " + mechanism.encode())
            client.leave()
            self.assertEqual(house.clock.getDelayedCalls(), [])
            self.assertEqual(house.factory.connections, 0)
            self.assertTrue(house.connect().log_in().startswith(b"+OK"))

    def test_pipelined(self) -> None:
        """Steps that come in one packet are answered in turn; what follows a good one is a command."""
        client = House().connect()
        name, password = base64.b64encode(b"ann"), base64.b64encode(b"correct horse")
        said = client.send(b"\r\n".join((b"AUTH LOGIN", name, password, b"STAT", b"")))
        lines = said.split(b"\r\n")
        self.assertEqual(lines[:2], [b"+ VXNlcm5hbWU6", b"+ UGFzc3dvcmQ6"])
        self.assertTrue(lines[2].startswith(b"+OK maildrop"))
        self.assertTrue(lines[3].startswith(b"+OK 1 "))

    def test_failed_exchange_is_no_command(self) -> None:
        """What was pipelined behind a bad initial response is read as commands, and nobody is in."""
        client = House().connect()
        wrong = base64.b64encode(b"\0ann\0wrong")
        said = client.send(b"AUTH PLAIN " + wrong + b"\r\nSTAT\r\n")
        first, second, _ = said.split(b"\r\n")
        self.assertTrue(first.startswith(b"-ERR [AUTH]"))
        self.assertEqual(second, b"-ERR STAT is for after login")


words = st.one_of(
    st.sampled_from(
        [b"*", b"=", b"", b"AUTH", b"QUIT", b"CAPA", b"STLS", b"USER ann", b"PASS correct horse",
         b"AUTH PLAIN ="]
    ),
    st.sampled_from(MECHANISMS).map(lambda name: b"AUTH " + name.encode()),
    st.tuples(st.sampled_from(MECHANISMS), st.binary(max_size=60)).map(
        lambda pair: b"AUTH " + pair[0].encode() + b" " + base64.b64encode(pair[1])
    ),
    st.sampled_from(
        [b"\0ann\0x", b"bob\0ann\0correct horse", b"\0\0", b"n,,n=ann,r=abc", b"y,,n=ann,r=abc",
         b"p=x,,n=ann,r=abc", b"n,a=bob,n=ann,r=abc", b"c=biws,r=abc,p=QUFB", b"ann", b"correct horse",
         b"ann " + b"0" * 32, b"\xff\0\xff\0\xff"]
    ).map(base64.b64encode),
    st.binary(max_size=80).map(base64.b64encode),
    st.binary(max_size=80),
    st.text(max_size=40).map(lambda text: base64.b64encode(f"n,,n={text},r=abc".encode())),
)  # fmt: skip


class AnythingTests(SynchronousTestCase):
    """Whatever a client says."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(words, min_size=1, max_size=12), st.integers(min_value=1, max_value=7))
    def test_dialogues(self, lines: list[bytes], cut: int) -> None:
        """Any lines, cut anywhere, bring one status line or challenge each, and no bug into the log."""
        house = House()
        client = house.connect()
        data = b"".join(line.replace(b"\n", b"").replace(b"\r", b"") + b"\r\n" for line in lines)
        with capturedLogs() as events:
            said = b""
            step = max(1, len(data) // cut)
            for start in range(0, len(data), step):
                said += client.send(data[start : start + step])
                house.clock.advance(15)
                said += client.read()
        self.assertEqual([event for event in events if "log_failure" in event], [])
        self.assertNotIn(b"internal error", said)
        # Nothing at all, if half a line took more than a minute.
        self.assertTrue(said.endswith(b"\r\n") or not said)
        for line in said.split(b"\r\n")[:-1]:
            # The rest are lines of CAPA and of the list of mechanisms.
            self.assertRegex(line, rb"\A(\+OK|-ERR|\+ |\.\Z|[A-Z0-9-]+( |\Z))")
        client.leave()
        self.assertEqual(house.factory.connections, 0)


class SecretTests(SynchronousTestCase):
    """The log knows who came, never with what."""

    def sessions(self, password: str) -> dict[str, list[bytes]]:
        """What a client sends in which the password stands, in order or out of it."""
        plain = base64.b64encode(b"\0ann\0" + password.encode())
        return {
            "USER": [b"USER ann", b"PASS " + password.encode()],
            "PLAIN": [b"AUTH PLAIN", plain],
            "PLAIN at once": [b"AUTH PLAIN " + plain],
            "LOGIN": [b"AUTH LOGIN", base64.b64encode(b"ann"), base64.b64encode(password.encode())],
            "too early": [b"PASS " + password.encode()],
            "mistyped": [b"PASS" + password.encode(), b"PAS " + password.encode()],
        }

    def test_no_secret(self) -> None:
        """No event of any session, right or wrong, holds password or base64 of it, in text or in a field."""
        for password in (PASSWORDS["ann"], "a wrong one"):
            for name, lines in self.sessions(password).items():
                with capturedLogs() as events:
                    client = House().connect()
                    for line in lines:
                        client.say(line)
                    client.say(b"QUIT")
                    client.leave()
                text = "".join(f"{formatEvent(event)} {event!r}" for event in events)
                plain = b"\0ann\0" + password.encode()
                for secret in (
                    password.encode(),
                    base64.b64encode(password.encode()),
                    base64.b64encode(plain),
                ):
                    self.assertNotIn(secret.decode(), text, name)

    def test_no_digest(self) -> None:
        """Neither do the digests of APOP and CRAM-MD5 stand there, from which a password can be guessed."""
        secret = PASSWORDS["ann"].encode()
        with capturedLogs() as events:
            client = House().connect()
            timestamp = client.greeting.split()[3]
            digest = hashlib.md5(timestamp + secret).hexdigest().encode()
            self.assertTrue(client.say(b"APOP ann " + digest).startswith(b"+OK"))
            client.leave()
            client = House().connect()
            challenge = base64.b64decode(client.say(b"AUTH CRAM-MD5")[2:])
            answer = hmac.new(secret, challenge, "md5").hexdigest().encode()
            self.assertTrue(client.say(base64.b64encode(b"ann " + answer)).startswith(b"+OK"))
            client.leave()
        text = "".join(f"{formatEvent(event)} {event!r}" for event in events)
        self.assertIn("mechanism=APOP", text)
        self.assertIn("mechanism=CRAM-MD5", text)
        for one in (digest, answer, base64.b64encode(b"ann " + answer)):
            self.assertNotIn(one.decode(), text)
