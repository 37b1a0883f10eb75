"""Behind a proxy: the address that the PROXY protocol tells counts, and nobody speaks before it is known."""

from __future__ import annotations

import ipaddress
import ssl
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import POP3Factory
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.net.proxied import PATIENCE, ProxiedEndpoint, _ProxiedFactory
from pop3toy.net.proxy_header import BadHeader, Header, parse_header
from pop3toy.run.recipients import recipients_of_all
from pop3toy.smtp.factory import lmtp_factory, smtp_factory, submission_factory
from pop3toy.stores.memory import MemoryStore

from ..corpus import awkward_messages, fill_maildir
from ..pop3_world import FakeAuthenticator, FakeSocket
from ..realserver import RealServer, maildir_options, wait_until
from ..tls_world import Authority, Wire, trusting

#: RFC 5737 and RFC 3849: addresses for documentation, which nobody has.
STRANGER, STRANGER_6 = "192.0.2.7", "2001:db8:1:2::7"
CLEAR_TEXT_REFUSED = b"-ERR clear-text passwords are not taken here without TLS"


def v1(host: str, kind: str | None = None) -> bytes:
    """The header of version 1: a line."""
    kind = kind or ("TCP6" if ":" in host else "TCP4")
    own = "2001:db8::1" if ":" in host else "198.51.100.1"
    return f"PROXY {kind} {host} {own} 50110 110\r\n".encode()


def v2(host: str) -> bytes:
    """The header of version 2: binary."""
    six = ":" in host
    own = ipaddress.ip_address("2001:db8::1" if six else "198.51.100.1").packed
    addresses = ipaddress.ip_address(host).packed + own + struct.pack("!HH", 50110, 110)
    start = b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x21 if six else 0x11])
    return start + struct.pack("!H", len(addresses)) + addresses


class Speaker(Protocol):
    """Says where the client comes from as soon as it is connected, and keeps what it hears."""

    def __init__(self, made: list[Speaker]) -> None:
        self.heard = b""
        self.lost = False
        made.append(self)

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(f"hello {self.transport.getPeer().host}".encode())  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class HeaderTests(SynchronousTestCase):
    """What happens before the header is there, in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.made: list[Speaker] = []
        factory = Factory.forProtocol(lambda: Speaker(self.made))  # type: ignore[arg-type]
        endpoint = serverFromString(self.reactor, "tcp:110:interface=127.0.0.1")
        self.successResultOf(ProxiedEndpoint(endpoint, self.reactor).listen(factory))
        self.wrapper = self.reactor.tcpServers[0][1]

    def connect(self) -> tuple[Protocol, StringTransport]:
        """The proxy connects."""
        protocol = self.wrapper.buildProtocol(None)  # type: ignore[arg-type]
        transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 40000))
        protocol.makeConnection(transport)
        return protocol, transport

    def test_silent_before_the_header(self) -> None:
        """Nothing is said until the header is complete, however it is cut; then the address is known."""
        for header, host in (
            (v1(STRANGER), STRANGER),
            (v1(STRANGER_6), STRANGER_6),
            (v2(STRANGER), STRANGER),
            (v2(STRANGER_6), STRANGER_6),
        ):
            for cut in (len(header) - 1, 16, 5, 1, len(header)):
                protocol, transport = self.connect()
                protocol.dataReceived(header[:cut])
                self.assertEqual(bool(transport.value()), cut == len(header))
                protocol.dataReceived(header[cut:])
                said = transport.value().decode()
                self.assertEqual(
                    ipaddress.ip_address(said.removeprefix("hello ")), ipaddress.ip_address(host)
                )

    def test_more_behind_the_header(self) -> None:
        """What comes in one packet with the header is heard after the connection is made."""
        for header in (v1(STRANGER), v2(STRANGER)):
            protocol, _ = self.connect()
            protocol.dataReceived(header + b"CAPA\r\n")
            self.assertEqual(self.made[-1].heard, b"CAPA\r\n")
            protocol.dataReceived(b"QUIT\r\n")
            self.assertEqual(self.made[-1].heard, b"CAPA\r\nQUIT\r\n")

    def test_no_header(self) -> None:
        """Whoever sends something else is no proxy, and hears nothing."""
        for said in (
            b"USER ann\r\nPASS secret\r\n",
            b"PROXY nonsense\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP4 x y z w\r\n",
            b"PROXY TCP4 \xff \xff 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 abc_reason=AUTH\r\n",
            b"PROXY TCP4 192.0.2.7 abc_reason=AUTH 1 2\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.8 1 2\r\n",
            b"PROXY TCP6 192.0.2.7 2001:db8::1 1 2\r\n",
            # Python would take any octets for the scope-id of an address.
            b"PROXY TCP6 fe80::1%x\x1b[31m\nAUTH 2001:db8::1 1 2\r\n",
            b"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n",
            b"PROXY TCP6 2001:db8::1 fe80::1%\t 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 -1 2\r\n",
            b"PROXY TCP4 " + b"1" * 200,
            b"\r\n" * 20,
            v2(STRANGER)[:12] + b"\x11\x11\0\0",
            v2(STRANGER)[:12] + b"\x22\x11\0\0",
            v2(STRANGER)[:12] + b"\x21\x12" + v2(STRANGER)[14:],
            v2(STRANGER)[:12] + b"\x21\x11\0\x04abcd",
        ):
            protocol, transport = self.connect()
            with capturedLogs() as events:
                protocol.dataReceived(said)
                protocol.dataReceived(said)
            self.assertTrue(transport.disconnecting, said)
            self.assertEqual(transport.value(), b"")
            [line] = [formatEvent(event) or "" for event in events]
            self.assertTrue(line.startswith("127.0.0.1:40000 is sent away: "), line)
            self.assertNotIn("AUTH", line)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unknown(self) -> None:
        """A proxy that speaks for itself, or does not know whom for, is served under its own address."""
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ff::1 whatever it says\r\n",
            v2(STRANGER)[:12] + b"\x20\0\0\0",
            v2(STRANGER)[:12] + b"\x20" + v2(STRANGER)[13:],
            v2(STRANGER)[:12] + b"\x21\0\0\x03abc",
        ):
            for cut in range(1, len(header)):
                protocol, transport = self.connect()
                protocol.dataReceived(header[:cut])
                protocol.dataReceived(header[cut:] + b"CAPA\r\n")
                self.assertEqual(transport.value(), b"hello 127.0.0.1", header)
                self.assertEqual(self.made[-1].heard, b"CAPA\r\n")

    def test_behind_the_addresses(self) -> None:
        """What version 2 tells besides addresses is skipped."""
        header = v2(STRANGER)
        header = header[:14] + struct.pack("!H", 12 + 300) + header[16:] + b"\x04" * 300
        protocol, transport = self.connect()
        protocol.dataReceived(header + b"CAPA\r\n")
        self.assertEqual(transport.value(), b"hello " + STRANGER.encode())
        self.assertEqual(self.made[-1].heard, b"CAPA\r\n")

    @given(st.binary(max_size=60), st.sampled_from([b"", b"PROXY ", b"PROXY TCP6 ", v2("::1")[:16]]))
    def test_anything(self, said: bytes, begin: bytes) -> None:
        """Whatever comes is a header, the beginning of one, or refused."""
        try:
            header = parse_header(begin + said)
        except BadHeader:
            return
        self.assertTrue(header is None or isinstance(header, Header))

    def test_patience(self) -> None:
        """A connection without a header is ended after a while; one with a header is left alone."""
        _, silent = self.connect()
        protocol, served = self.connect()
        protocol.dataReceived(v1(STRANGER))
        self.reactor.advance(PATIENCE - 0.1)
        self.assertFalse(silent.disconnected)
        self.reactor.advance(0.1)
        self.assertTrue(silent.disconnected)
        self.reactor.advance(3600)
        self.assertFalse(served.disconnected)

    def test_counted(self) -> None:
        """A connection without a header is one of the strangers, whatever its address, until it has one."""
        crowd = ConnectionLimiter(
            ConnectionLimits(connections=3, unauthenticated=3, per_address=1, per_local_address=1),
            choose=lambda visits: visits[0],
        )
        endpoint = serverFromString(self.reactor, "tcp:111:interface=127.0.0.1")
        factory = Factory.forProtocol(lambda: Speaker(self.made))  # type: ignore[arg-type]
        self.successResultOf(ProxiedEndpoint(endpoint, self.reactor, crowd).listen(factory))
        self.wrapper = self.reactor.tcpServers[1][1]
        silent = [self.connect() for _ in range(3)]
        self.assertEqual((crowd.connections, crowd.unauthenticated), (3, 3))
        # The one that is chosen makes room for one more.
        fourth, late = self.connect()
        self.assertEqual([transport.disconnected for _, transport in silent], [True, False, False])
        silent[1][0].dataReceived(v1(STRANGER))
        self.assertEqual(crowd.unauthenticated, 2)
        silent[2][0].connectionLost(None)  # type: ignore[arg-type]
        self.assertEqual(crowd.unauthenticated, 1)
        self.reactor.advance(PATIENCE)
        self.assertTrue(late.disconnected)
        fourth.connectionLost(None)  # type: ignore[arg-type]
        self.assertEqual((crowd.connections, crowd.unauthenticated), (0, 0))
        self.assertFalse(silent[1][1].disconnected)

    def test_one_too_many(self) -> None:
        """Where there is no room, one without a header is sent away at once, and the log says so."""
        crowd = ConnectionLimiter(ConnectionLimits(connections=1))
        crowd.acquire("unix", lambda: None).logged_in()
        endpoint = serverFromString(self.reactor, "tcp:111:interface=127.0.0.1")
        self.successResultOf(ProxiedEndpoint(endpoint, self.reactor, crowd).listen(Factory()))
        self.wrapper = self.reactor.tcpServers[1][1]
        self.wrapper.wrappedFactory.protocol = Protocol  # type: ignore[attr-defined]
        with capturedLogs() as events:
            _, transport = self.connect()
        self.assertTrue(transport.disconnecting)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["127.0.0.1:40000 is sent away: too many connections"],
        )

    def test_stop(self) -> None:
        """When nobody listens any more, who has sent no header goes at once, others stay."""
        self.wrapper.doStart()
        _, silent = self.connect()
        protocol, served = self.connect()
        protocol.dataReceived(v1(STRANGER))
        begun, late = self.connect()
        begun.dataReceived(v1(STRANGER)[:9])
        self.wrapper.doStop()
        self.assertEqual([one.disconnected for one in (silent, served, late)], [True, False, True])

    def test_half_closed(self) -> None:
        """A protocol that can bear it is told that its input has ended; with others the connection ends."""
        for begin in (b"", v1(STRANGER)):
            protocol, transport = self.connect()
            protocol.dataReceived(begin)
            IHalfCloseableProtocol(protocol).readConnectionLost()
            self.assertTrue(transport.disconnected)
        clock = Clock()
        authenticator = FakeAuthenticator(later=True)
        wrapper = _ProxiedFactory(POP3Factory(clock, authenticator), clock, None)
        socket = FakeSocket(clock)
        socket.connect(wrapper.buildProtocol(None))  # type: ignore[arg-type]
        socket.client_sends(v1(STRANGER) + b"USER ann\r\nPASS pass\r\nSTAT\r\n")
        socket.client_half_closes()
        authenticator.let_in()
        self.assertTrue(socket.client_reads_all().endswith(b"+OK 0 0\r\n"))
        self.assertIsNotNone(socket.lost)

    def test_health_checks(self) -> None:
        """Connections that never sent a header are forgotten by the factory behind, which can be drained."""
        clock = Clock()
        pop3 = POP3Factory(clock, FakeAuthenticator())
        store = MemoryStore({})
        recipients = recipients_of_all(["ann"])
        for factory in (
            pop3,
            smtp_factory(store, recipients, clock),
            lmtp_factory(store, recipients, clock),
            submission_factory(store, recipients, clock, FakeAuthenticator()),
        ):
            wrapper = _ProxiedFactory(factory, clock, None)
            wrapper.doStart()
            sockets = [FakeSocket(clock) for _ in range(20)]
            for socket in sockets:
                socket.connect(wrapper.buildProtocol(None))  # type: ignore[arg-type]
            for socket in sockets[:10]:
                socket.vanish()
            # Drained while some wait for their header, which comes then: they are sent away.
            drained = [factory.drain(), factory.drain()]
            late = sockets[-1]
            late.client_sends(v1(STRANGER))
            self.assertRegex(late.client_reads_all(), rb"\A(-ERR \[SYS/TEMP\]|421 ).*\r\n\Z")
            drained.append(factory.drain())
            wrapper.doStop()
            clock.pump([0.25] * 8)
            for done in drained:
                self.successResultOf(done)
            self.assertTrue(all(socket.lost for socket in sockets))
            self.assertEqual(wrapper.protocols, {})
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_lost(self) -> None:
        """A connection lost before the header was there leaves no timer; later its protocol is told."""
        protocol, _ = self.connect()
        protocol.connectionLost(None)  # type: ignore[arg-type]
        self.assertFalse(self.made[-1].lost)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        protocol, _ = self.connect()
        protocol.dataReceived(v1(STRANGER))
        protocol.connectionLost(None)  # type: ignore[arg-type]
        self.assertTrue(self.made[-1].lost)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_clock_is_not_the_world(self) -> None:
        """The patience runs on the clock that was passed in."""
        clock = Clock()
        endpoint = serverFromString(self.reactor, "tcp:111:interface=127.0.0.1")
        self.successResultOf(ProxiedEndpoint(endpoint, clock).listen(Factory.forProtocol(Protocol)))
        self.reactor.tcpServers[1][1].buildProtocol(None).makeConnection(StringTransport())  # type: ignore[arg-type]
        self.assertEqual(len(clock.getDelayedCalls()), 1)


class ServedCase(SynchronousTestCase):
    """A server behind a proxy that the test plays."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        fill_maildir(self.folder / "mail" / "ann", awkward_messages(large=False)[:3])
        self.authority = Authority(self.folder)
        self.authority.issue("localhost").write(self.folder / "localhost.pem")

    def serve(self, *options: str) -> None:
        """Start it."""
        self.server = RealServer(
            *maildir_options(self.folder / "mail"),
            "--listen=haproxy:tcp:0:interface=127.0.0.1",
            "--tls-listen=haproxy:tcp:0:interface=127.0.0.1",
            f"--certificate={self.folder}/localhost.pem",
            *options,
            folder=self.folder,
        )
        self.addCleanup(self.server.terminate)
        self.port, self.tls_port = map(self.server.port_for, ("POP3", "POP3 over TLS"))

    def connect(self, header: bytes) -> Wire:
        """The proxy connects for a client."""
        wire = Wire(self.port)
        self.addCleanup(wire.close)
        wire.send(header)
        return wire

    def logged(self, words: str) -> None:
        """Wait for these words in the log."""
        wait_until(lambda: words in self.server.log, words)


class PolicyTests(ServedCase):
    """Who is somewhere else does not become local by the proxy's being so."""

    def test_clear_text(self) -> None:
        """From elsewhere no clear-text password is taken, nor announced; what proves without sending is."""
        self.serve()
        for header in (v1(STRANGER), v1(STRANGER_6), v2(STRANGER), v2(STRANGER_6)):
            wire = self.connect(header)
            self.assertTrue(wire.line().startswith(b"+OK pop3toy ready <"))
            capabilities = wire.lines(b"CAPA")
            self.assertNotIn(b"USER", capabilities)
            self.assertIn(b"STLS", capabilities)
            offered = wire.lines(b"AUTH")
            self.assertIn(b"SCRAM-SHA-256", offered)
            self.assertNotIn(b"PLAIN", offered)
            self.assertNotIn(b"LOGIN", offered)
            self.assertEqual(wire.sasl(), offered)
            self.assertEqual(wire.ask(b"USER ann"), CLEAR_TEXT_REFUSED)
            self.assertEqual(wire.ask(b"PASS secret"), CLEAR_TEXT_REFUSED)
            self.assertEqual(
                wire.ask(b"AUTH PLAIN AGFubgBzZWNyZXQ="), b"-ERR this mechanism is not available here"
            )
            wire.close()

    def test_local(self) -> None:
        """A client that is on this machine itself may send its password in the clear."""
        self.serve()
        for header in (v1("127.0.0.1"), v2("127.0.0.1"), v1("::1")):
            wire = self.connect(header)
            wire.line()
            self.assertIn(b"USER", wire.lines(b"CAPA"))
            self.assertEqual(wire.ask(b"USER ann"), b"+OK send PASS")
            self.assertTrue(wire.ask(b"PASS secret").startswith(b"+OK"))
            wire.ask(b"QUIT")

    def test_allowed(self) -> None:
        """``--allow-cleartext`` says otherwise, and CAPA and AUTH say so."""
        self.serve("--allow-cleartext")
        wire = self.connect(v1(STRANGER))
        wire.line()
        self.assertIn(b"USER", wire.lines(b"CAPA"))
        self.assertIn(b"PLAIN", wire.sasl())
        self.assertTrue(wire.ask(b"AUTH PLAIN AGFubgBzZWNyZXQ=").startswith(b"+OK "))
        self.logged(f"login: session=1 rip={STRANGER} user='ann' mechanism=PLAIN tls=none")

    def test_stls(self) -> None:
        """STLS works through the proxy, for either version; then passwords are taken; the log tells both."""
        self.serve()
        for header, host in ((v1(STRANGER), STRANGER), (v2("192.0.2.8"), "192.0.2.8")):
            wire = self.connect(header)
            wire.line()
            self.assertEqual(wire.ask(b"STLS"), b"+OK begin TLS negotiation")
            wire.starttls(trusting(self.authority))
            self.assertIn(b"USER", wire.lines(b"CAPA"))
            self.assertEqual(wire.ask(b"USER ann"), b"+OK send PASS")
            self.assertTrue(wire.ask(b"PASS secret").startswith(b"+OK maildrop has 3"))
            self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))
            self.assertEqual(wire.rest(), b"")
            wire.close()
            self.logged(f"rip={host} user='ann' mechanism=USER tls=TLSv1.3 ended=quit")

    def test_implicit_tls(self) -> None:
        """TLS from the first octet on may go through the proxy as well."""
        self.serve()
        wire = Wire(self.tls_port)
        self.addCleanup(wire.close)
        wire.send(v2(STRANGER_6))
        wire.starttls(trusting(self.authority))
        self.assertTrue(wire.line().startswith(b"+OK "))
        self.assertIsInstance(wire.socket, ssl.SSLSocket)
        self.assertTrue(wire.ask(b"AUTH PLAIN AGFubgBzZWNyZXQ=").startswith(b"+OK "))
        self.logged(f"rip={STRANGER_6} user='ann' mechanism=PLAIN tls=TLSv1.3")

    def test_failures(self) -> None:
        """The log line of a failed login has the client's address, for whoever bans it."""
        self.serve()
        wire = self.connect(v1(STRANGER))
        wire.line()
        wire.ask(b"STLS")
        wire.starttls(trusting(self.authority))
        wire.ask(b"USER ann")
        self.assertTrue(wire.ask(b"PASS guess").startswith(b"-ERR [AUTH]"))
        self.logged(
            f"login failed: session=1 rip={STRANGER} user='ann' mechanism=USER tls=TLSv1.3"
            " protocol=POP3 reason=AUTH"
        )


class LimitTests(ServedCase):
    """Limits hold for clients, not for the proxy."""

    def test_per_address(self) -> None:
        """One address too often is turned away at once; another is not, although the proxy is the same."""
        self.serve("--max-per-address=2")
        held = [self.connect(v1(STRANGER)) for _ in range(2)]
        for wire in held:
            self.assertTrue(wire.line().startswith(b"+OK"))
        refused = self.connect(v1(STRANGER))
        self.assertEqual(refused.rest(), b"-ERR [SYS/TEMP] too many connections from your address\r\n")
        self.assertTrue(self.connect(v1("192.0.2.8")).line().startswith(b"+OK"))
        self.logged(f" rip={STRANGER} protocol=POP3 reason=too many connections from your address")
        held[0].close()

        def free() -> bool:
            with Wire(self.port) as wire:
                wire.send(v1(STRANGER))
                return wire.line().startswith(b"+OK")

        wait_until(free, "a place is free again")

    def test_per_network(self) -> None:
        """All of an IPv6 /64 is one address; the next /64 is another."""
        self.serve("--max-per-address=2")
        for last in (1, 2):
            self.assertTrue(self.connect(v1(f"2001:db8:1:2:{last}::{last}")).line().startswith(b"+OK"))
        self.assertTrue(self.connect(v2("2001:db8:1:2:ffff::9")).line().startswith(b"-ERR [SYS/TEMP]"))
        self.assertTrue(self.connect(v2("2001:db8:1:3::9")).line().startswith(b"+OK"))
