"""CAPA (RFC 2449): what stands there works, and what does not work does not stand there."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy import __version__
from pop3toy.auth.sasl.mechanisms import MECHANISMS
from pop3toy.interfaces import Channel, SessionRecord, TLSFacts
from pop3toy.pop3 import commands
from pop3toy.pop3.dispatch import handle
from pop3toy.pop3.replies import Lines
from pop3toy.pop3.session import Session

from ..pop3_world import FakeAuthenticator, ScriptedMailbox, connect

TLS = Channel("192.0.2.1", False, TLSFacts("TLSv1.3", "x"))


class CapaTests(SynchronousTestCase):
    """The list, in every situation that changes it."""

    def capa(
        self,
        *first: bytes,
        authenticator: FakeAuthenticator | None = None,
        can_start_tls: bool = False,
        **arguments: Any,
    ) -> list[str]:
        """The lines of CAPA in a session that has heard these lines."""
        channel = arguments.pop("channel", Channel("127.0.0.1", True))
        session = Session(authenticator or FakeAuthenticator(), SessionRecord(1, channel))
        session.can_start_tls = can_start_tls
        for line in (*first, b"CAPA"):
            reply = handle(session, commands.parse(line))
        assert isinstance(reply, Lines)
        return b"".join(reply.blocks).decode().splitlines()

    def test_plain(self) -> None:
        """The list of a server without TLS and without SASL."""
        self.assertEqual(
            self.capa(),
            [
                "TOP",
                "UIDL",
                "USER",
                "PIPELINING",
                "RESP-CODES",
                "AUTH-RESP-CODE",
                "EXPIRE NEVER",
                f"IMPLEMENTATION pop3toy-{__version__}",
            ],
        )

    def test_expire(self) -> None:
        """How long messages stay is announced where they do not stay until they are deleted."""
        session = Session(FakeAuthenticator(), SessionRecord(1, TLS), expire_days=90)
        reply = handle(session, commands.parse(b"CAPA"))
        assert isinstance(reply, Lines)
        self.assertIn(b"\r\nEXPIRE 90\r\n", b"".join(reply.blocks))

    def test_the_same_after_login(self) -> None:
        """Before and after login it is the same: some clients ask only once."""
        self.assertEqual(self.capa(b"USER ann", b"PASS pass"), self.capa())

    def test_no_clear_text(self) -> None:
        """USER stands there only where clear text is taken."""
        authenticator = FakeAuthenticator()
        authenticator.clear = False
        self.assertNotIn("USER", self.capa(authenticator=authenticator))

    def test_mechanisms(self) -> None:
        """SASL names what works here, best first, and is not there where nothing does."""
        authenticator = FakeAuthenticator()
        authenticator.offered = ["SCRAM-SHA-256", "PLAIN"]
        self.assertIn("SASL SCRAM-SHA-256 PLAIN", self.capa(authenticator=authenticator))
        self.assertFalse(any(line.startswith("SASL") for line in self.capa()))

    def test_stls(self) -> None:
        """STLS stands there where it can be had: not after login, not without a certificate."""
        self.assertIn("STLS", self.capa(can_start_tls=True))
        self.assertNotIn("STLS", self.capa())
        self.assertNotIn("STLS", self.capa(b"USER ann", b"PASS pass", can_start_tls=True))

    def test_stls_within_tls(self) -> None:
        """Within TLS there is no STLS, neither after one nor where TLS was there from the beginning."""
        self.assertNotIn("STLS", self.capa(can_start_tls=True, channel=TLS))
        session = Session(FakeAuthenticator(), SessionRecord(1, Channel("192.0.2.1", False)))
        session.can_start_tls = True
        session.restart(TLS)
        reply = handle(session, commands.parse(b"CAPA"))
        assert isinstance(reply, Lines)
        self.assertNotIn(b"STLS", b"".join(reply.blocks))

    def test_login_delay(self) -> None:
        """LOGIN-DELAY stands there with its seconds, where there is one."""
        authenticator = FakeAuthenticator()
        authenticator.delay = 60
        self.assertIn("LOGIN-DELAY 60", self.capa(authenticator=authenticator))

    def test_short_lines(self) -> None:
        """But for a SASL line of more mechanisms than these, none is longer than 64 octets with CRLF."""
        authenticator = FakeAuthenticator()
        authenticator.offered = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"]
        authenticator.delay = 86400
        for line in self.capa(authenticator=authenticator, can_start_tls=True):
            self.assertLessEqual(len(line) + 2, 64, line)
            self.assertRegex(line, r"\A[!-~]+( [!-~]+)*\Z")
            self.assertFalse(line.startswith("."))

    def test_what_fetchmail_finds(self) -> None:
        """A longer SASL line, which fetchmail reads in pieces of 63 octets, is not cut within CRAM-MD5."""
        optional = ("-PLUS", "EXTERNAL", "OAUTH", "ANONYMOUS")
        for left_out in (words for n in range(5) for words in combinations(optional, n)):
            if "-PLUS" in left_out and "EXTERNAL" not in left_out:
                # Both need TLS, and where TLS shows a certificate it can be bound to.
                continue
            authenticator = FakeAuthenticator()
            authenticator.offered = [
                name for name in MECHANISMS if not any(word in name for word in left_out)
            ]
            [line] = [line for line in self.capa(authenticator=authenticator) if line.startswith("SASL ")]
            pieces = [line[at : at + 63] for at in range(0, len(line), 63)]
            self.assertTrue(any("CRAM-MD5" in piece for piece in pieces), line)

    def test_what_stands_there_works(self) -> None:
        """Each announced command is taken: TOP, UIDL, USER, and lines behind lines."""
        protocol, transport, _ = connect(FakeAuthenticator(ScriptedMailbox({b"one": b"A: b\n\nc\n"})))
        transport.clear()
        protocol.dataReceived(b"CAPA\r\nUSER ann\r\nPASS pass\r\nTOP 1 0\r\nUIDL 1\r\nQUIT\r\n")
        self.assertNotIn(b"-ERR", transport.value())
