"""Certificates made for a test, and clients that speak TLS: blocking, against a server in another process.

Here lives an authority (trustme's) that signs what a test asks for, and a client
on each of two TLS libraries: Python's ``ssl`` and pyOpenSSL, which
tells what SCRAM's channel bindings need.  Nothing here knows how the server works.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from .realserver import DEADLINE

__all__ = ["Authority", "OpenSSLWire", "Pair", "Wire", "self_signed", "trusting"]


class Pair:
    """A certificate, and its key."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        #: Both in PEM, the key not protected.
        self.certificate, self.key = certificate, key

    @property
    def x509(self) -> x509.Certificate:
        """The certificate as cryptography has it."""
        return x509.load_pem_x509_certificate(self.certificate)

    @property
    def locked_key(self) -> bytes:
        """The key in PEM, protected by a passphrase."""
        return _pem(
            serialization.load_pem_private_key(self.key, None),
            serialization.BestAvailableEncryption(b"open sesame"),
        )

    def write(self, path: Path) -> Path:
        """Both in one file, which appears as a whole."""
        beside = path.with_name(f"{path.name}.new")
        beside.write_bytes(self.certificate + self.key)
        beside.chmod(0o600)
        beside.replace(path)
        return path


def _pem(key: Any, protection: serialization.KeySerializationEncryption) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, form, protection)
    return pem


class Authority:
    """Signs certificates.

    :param folder: where :attr:`file`, its own certificate in PEM, is written.
    """

    def __init__(self, folder: Path, name: str = "the test's authority") -> None:
        self._ca = trustme.CA(organization_unit_name=name)
        self.file = folder / f"{name.replace(' ', '-')}.crt"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(
        self,
        *names: str,
        common: str | None = None,
        begins: timedelta = timedelta(hours=-1),
        ends: timedelta = timedelta(days=2),
        rsa: bool = False,
    ) -> Pair:
        """A certificate for these host names, addresses and mail addresses.

        :param begins: from when it is valid, counted from now.
        :param rsa: with an RSA key; else with an elliptic curve's.
        """
        now = datetime.now(UTC)
        leaf = self._ca.issue_cert(
            *names,
            # fetchmail wants one beside the alternative names.
            common_name=common or names[0],
            not_before=now + begins,
            not_after=now + ends,
            key_type=trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA,
        )
        return Pair(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())


def self_signed(common: str, *, bits: int = 2048, hashed: Any = None) -> Pair:
    """A certificate without alternative names, with an RSA key of this size."""
    key = rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=2))
    certificate = builder.sign(key, hashed or hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return Pair(certificate, _pem(key, serialization.NoEncryption()))


def trusting(authority: Authority, **settings: Any) -> ssl.SSLContext:
    """How a client that trusts this authority alone goes about TLS."""
    context = ssl.create_default_context(cafile=str(authority.file))
    for name, value in settings.items():
        setattr(context, name, value)
    return context


class Wire:
    """A connection on which a test says whatever it wants, and reads lines.

    :param port: on ``host``, or the path of a Unix socket.
    """

    def __init__(self, port: int | str, host: str = "127.0.0.1") -> None:
        self._buffer = b""
        if isinstance(port, int):
            self.socket = socket.create_connection((host, port), DEADLINE)
            return
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        try:
            self.socket.connect(port)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()

    def starttls(self, context: ssl.SSLContext, name: str | None = "localhost") -> Self:
        """Shake hands; what the server sent before must have been read."""
        assert self._buffer == b"", self._buffer
        # A close without close_notify is an error that the test sees.
        self.socket = context.wrap_socket(
            self.socket, server_hostname=name, suppress_ragged_eofs=False, do_handshake_on_connect=True
        )
        return self

    @property
    def tls(self) -> ssl.SSLSocket:
        """The socket, if it speaks TLS."""
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.socket

    def send(self, data: bytes) -> None:
        """Octets as they are."""
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """Some octets; none at the end."""
        return self.socket.recv(65536)

    def line(self) -> bytes:
        """One line without CRLF; empty at the end of the connection."""
        while b"\r\n" not in self._buffer:
            data = self.receive()
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def ask(self, command: bytes) -> bytes:
        """The first line of the answer to a command."""
        self.send(command + b"\r\n")
        return self.line()

    def lines(self, command: bytes) -> list[bytes]:
        """The lines of a multi-line answer."""
        first = self.ask(command)
        assert first.startswith(b"+OK"), first
        found = []
        while (line := self.line()) != b".":
            assert line, "the connection ended in the middle of an answer"
            found.append(line)
        return found

    def message(self, command: bytes) -> bytes:
        """The octets between ``+OK`` and the final dot, as they came."""
        first = self.ask(command)
        assert first.startswith(b"+OK"), first
        while not self._buffer.endswith(b"\r\n.\r\n"):
            data = self.receive()
            assert data, "the connection ended in the middle of a message"
            self._buffer += data
        found, self._buffer = self._buffer[:-3], b""
        return found

    def sasl(self) -> list[bytes]:
        """The mechanisms that CAPA tells."""
        found = [line.split()[1:] for line in self.lines(b"CAPA") if line.startswith(b"SASL ")]
        return found[0] if found else []

    def rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        found, self._buffer = self._buffer, b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.receive():
                found += data
        return found

    def respond(self, data: bytes) -> bytes:
        """What the server says to the base64 of a SASL response."""
        return self.ask(base64.b64encode(data))


class OpenSSLWire(Wire):
    """The same on pyOpenSSL, which tells what SCRAM binds to.

    :param version: the version of TLS, as in ``SSL.TLS1_3_VERSION``.
    """

    def secure(self, version: int) -> Self:
        """Shake hands with this version of TLS alone."""
        assert self._buffer == b"", self._buffer
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        # pyOpenSSL knows no timeouts of Python's sockets, which make them non-blocking.
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(DEADLINE), 0))
        self.connection = SSL.Connection(context, self.socket)
        self.connection.set_tlsext_host_name(b"localhost")
        self.connection.set_connect_state()
        self.connection.do_handshake()
        return self

    def send(self, data: bytes) -> None:
        """Octets as they are."""
        (self.connection if hasattr(self, "connection") else self.socket).sendall(data)

    def receive(self) -> bytes:
        """Some octets; none at the end."""
        if not hasattr(self, "connection"):
            return super().receive()
        try:
            data: bytes = self.connection.recv(65536)
        except SSL.ZeroReturnError:
            return b""
        return data

    def exporter(self) -> bytes:
        """RFC 9266: the client's own tls-exporter."""
        exported: bytes = self.connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        return exported

    def end_point(self) -> bytes:
        """RFC 5929: the hash of the server's certificate as the client got it."""
        certificate = self.connection.get_peer_certificate(as_cryptography=True)
        name = certificate.signature_hash_algorithm.name
        return hashlib.new(name, certificate.public_bytes(serialization.Encoding.DER)).digest()
