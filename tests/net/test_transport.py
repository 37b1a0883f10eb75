"""What a transport tells about a connection: who is local, and how addresses read."""

from __future__ import annotations

import socket
from typing import Any
from unittest import SkipTest

from OpenSSL import SSL
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.net.transport import (
    _keep_alive,
    channel_of,
    handshake_error,
    hung_up,
    is_loopback,
    peer_name,
    prepare,
)


def connected(peer: object) -> StringTransport:
    """A transport of a client with this address."""
    return StringTransport(peerAddress=peer)


class Numbered(StringTransport):
    """A transport over a socket."""

    def __init__(self, beneath: socket.socket) -> None:
        super().__init__()
        self.fileno = beneath.fileno


class HungUpTests(SynchronousTestCase):
    """Whether a peer has gone, told of a connection that nobody reads from."""

    def pair(self, kind: str) -> tuple[socket.socket, socket.socket]:
        """The server's side and the client's."""
        if kind == "unix":
            ours, theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                theirs = socket.create_connection(listening.getsockname())
                ours, _ = listening.accept()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours, theirs

    def test_hung_up(self) -> None:
        """Gone is who has closed and is sent something; not who has half-closed."""
        for kind in ("tcp", "unix"):
            for wrapped in (False, True):
                with self.subTest(kind=kind, wrapped=wrapped):
                    ours, theirs = self.pair(kind)
                    transport: Any = Numbered(ours)
                    if wrapped:
                        wrapper = ProtocolWrapper(WrappingFactory(Factory.forProtocol(Protocol)), Protocol())
                        wrapper.makeConnection(transport)
                        transport = wrapper
                    self.assertFalse(hung_up(transport))
                    theirs.sendall(b"x" * 100_000)
                    self.assertFalse(hung_up(transport))
                    theirs.shutdown(socket.SHUT_WR)
                    self.assertFalse(hung_up(transport))
                    theirs.close()
                    if kind == "tcp":
                        # It could be half-closed still; what is sent to it is refused.
                        self.assertFalse(hung_up(transport))
                        ours.sendall(b"+OK\r\n")
                    self.assertTrue(hung_up(transport))
                    ours.close()
                    self.assertTrue(hung_up(transport))

    def test_reset(self) -> None:
        """A client that closes with an answer unread has gone."""
        ours, theirs = self.pair("tcp")
        ours.sendall(b"+OK\r\n")
        theirs.recv(1, socket.MSG_PEEK)
        theirs.close()
        self.assertTrue(hung_up(Numbered(ours)))

    def test_cannot_tell(self) -> None:
        """Where there is nothing to look at, nobody has gone."""
        self.assertFalse(hung_up(StringTransport()))


class ChannelTests(SynchronousTestCase):
    """Local is what nobody on a network can listen to; passwords in the clear depend on it."""

    def test_loopback(self) -> None:
        """All of 127/8, ::1 and their mapped forms are this machine, and nothing else is."""
        for host in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "::1%lo"):
            self.assertTrue(is_loopback(host), host)
        for host in (
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "192.168.0.1",
            "169.254.0.1",
            "fe80::1%eth0",
            "::ffff:192.0.2.1",
            "::127.0.0.1",
            "localhost",
            "127.0.0.1.example.org",
            "",
            "unix",
            "127.1",
        ):
            self.assertFalse(is_loopback(host), host)

    def test_addresses(self) -> None:
        """IPv4 and IPv6 have their host; a Unix socket is local; anything else is not."""
        for peer, channel in (
            (IPv4Address("TCP", "127.0.0.1", 1), Channel("127.0.0.1", True)),
            (IPv4Address("TCP", "192.0.2.7", 1), Channel("192.0.2.7", False)),
            (IPv6Address("TCP", "::1", 1), Channel("::1", True)),
            (IPv6Address("TCP", "2001:db8::7", 1), Channel("2001:db8::7", False)),
            (UNIXAddress("/run/x"), Channel("unix", True)),
            (UNIXAddress(None), Channel("unix", True)),
            (HostnameAddress(b"localhost", 1), Channel("unknown", False)),
        ):
            found = channel_of(connected(peer))
            if isinstance(peer, HostnameAddress):
                self.assertFalse(found.local)
            else:
                self.assertEqual(found, channel)

    def test_private(self) -> None:
        """A channel is private when it is local or encrypted."""
        self.assertTrue(Channel("127.0.0.1", True).private)
        self.assertTrue(Channel("192.0.2.7", False, TLSFacts("TLSv1.3", "x")).private)
        self.assertFalse(Channel("192.0.2.7", False).private)

    def test_names(self) -> None:
        """Addresses for people: with the port, IPv6 in brackets."""
        for peer, name in (
            (IPv4Address("TCP", "127.0.0.1", 50110), "127.0.0.1:50110"),
            (IPv6Address("TCP", "::1", 50110), "[::1]:50110"),
            (UNIXAddress(None), "a Unix socket"),
        ):
            self.assertEqual(peer_name(connected(peer)), name)


class KeepAliveTests(SynchronousTestCase):
    """What is asked of a TCP connection."""

    def test_vanished_clients_are_found(self) -> None:
        """The kernel asks a silent client whether it is there, within two minutes and a bit."""

        class Transport:
            def __init__(self, handle: socket.socket) -> None:
                self.handle = handle

            def getHandle(self) -> socket.socket:
                return self.handle

            def getPeer(self) -> IPv4Address:
                return IPv4Address("TCP", "192.0.2.1", 50110)

            def setTcpNoDelay(self, enabled: bool) -> None:
                self.handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

            def setTcpKeepAlive(self, enabled: bool) -> None:
                self.handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

        with socket.socket() as handle:
            if_it_lasts = prepare(Transport(handle))
            self.assertTrue(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.assertFalse(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            assert if_it_lasts is not None
            if_it_lasts()
            self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            if not hasattr(socket, "TCP_KEEPIDLE"):
                raise SkipTest("this system has no TCP_KEEPIDLE")
            idle, interval, count = (
                handle.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            )
            self.assertLessEqual(idle + interval * count, 150)

    def test_gone_already(self) -> None:
        """A connection that is gone when it is asked for does no harm to who asks."""
        handle = socket.socket()
        handle.close()
        _keep_alive(handle)

    def test_beneath_tls(self) -> None:
        """The same of a connection that speaks TLS from the first octet on, which hides its socket."""
        with socket.socket() as handle:

            class Transport:
                def getHandle(self) -> socket.socket:
                    return handle

                def getPeer(self) -> IPv4Address:
                    return IPv4Address("TCP", "192.0.2.1", 50110)

                def setTcpNoDelay(self, enabled: bool) -> None:
                    """As a real one."""

            wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
            wrapper.transport = Transport()
            wrapper.getHandle = lambda: "an OpenSSL connection"
            if_it_lasts = prepare(wrapper)
            assert if_it_lasts is not None
            if_it_lasts()
            self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def test_unix_sockets(self) -> None:
        """A Unix socket is asked nothing of the kind."""
        prepare(object())


class HandshakeErrorTests(SynchronousTestCase):
    """Why a handshake failed."""

    def test_errors(self) -> None:
        """OpenSSL's reasons, whatever form they have; nothing for other ends of a connection."""
        cases: dict[Exception, str] = {
            SSL.Error([("SSL routines", "", "http request"), ("SSL routines", "", "")]): "http request",
            SSL.Error([("a", "b", "one"), ("a", "b", "two")]): "one, two",
            SSL.Error([]): "Error",
            SSL.ZeroReturnError(): "ZeroReturnError",
            SSL.SysCallError(104, "ECONNRESET"): "ECONNRESET",
            ConnectionLost(): "",
        }
        for error, words in cases.items():
            self.assertEqual(handshake_error(Failure(error)), words, error)
