"""What TLS alone opens, which is nothing, and what AUTH opens within it (RFC 2595, 5034, 8314)."""

from __future__ import annotations

import base64
import socket
import struct
from pathlib import Path

from OpenSSL import SSL

from ..realserver import DEADLINE
from ..tls_world import Authority, trusting
from .test_tls import ServedCase


def asked_for_a_certificate(case: ServedCase) -> bool:
    """Whether the server asks its client for a certificate in the handshake."""
    wire = case.wire(case.tls_port)
    # pyOpenSSL knows no timeouts of Python's sockets, which make them non-blocking.
    wire.socket.setblocking(True)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(DEADLINE), 0))
    steps: list[bytes] = []
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_info_callback(lambda connection, where, result: steps.append(connection.get_state_string()))
    connection = SSL.Connection(context, wire.socket)
    connection.set_connect_state()
    connection.do_handshake()
    case.assertIn(b"SSLv3/TLS read server certificate", steps)
    return b"SSLv3/TLS read server certificate request" in steps


class PasswordTests(ServedCase):
    """A server to which clients show no certificates."""

    def test_plain(self) -> None:
        """PLAIN is offered and works over TLS, on either port."""
        response = base64.b64encode(b"\0ann\0secret")
        for wire in (self.encrypted(), self.implicit()):
            self.assertIn(b"PLAIN", wire.sasl())
            self.assertTrue(wire.ask(b"AUTH PLAIN " + response).startswith(b"+OK maildrop has 3"))
            self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))

    def test_no_certificate_is_asked_for(self) -> None:
        """No client is asked for a certificate with which nobody could log in (RFC 8314 section 4.2)."""
        self.assertFalse(asked_for_a_certificate(self))


class CertificateTests(ServedCase):
    """A server that takes client certificates for AUTH EXTERNAL."""

    options = ("--certificate={folder}/localhost.pem", "--client-ca={folder}/people.crt")

    @classmethod
    def prepare(cls, folder: Path, authority: Authority) -> None:
        super().prepare(folder, authority)
        Authority(folder, "people").issue(common="ann").write(folder / "ann.pem")

    def test_shown_is_not_logged_in(self) -> None:
        """Who has shown a certificate is not in before AUTH (RFC 2595 section 4)."""
        context = trusting(self.authority)
        context.load_cert_chain(self.folder / "ann.pem")
        for wire in (self.encrypted(context), self.implicit(context)):
            self.assertEqual(wire.ask(b"STAT"), b"-ERR STAT is for after login")
            self.assertTrue(wire.ask(b"AUTH EXTERNAL =").startswith(b"+OK maildrop has 3"))
            self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))

    def test_asked_for(self) -> None:
        """Clients are asked for a certificate where it can be used."""
        self.assertTrue(asked_for_a_certificate(self))
