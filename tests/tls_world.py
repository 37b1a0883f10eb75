"""Certificates made for a test, and clients that speak TLS: blocking, against a server in another process.

Here lives an authority that signs whatever a test asks for, good or bad, and
a client on each of two TLS libraries: Python's ``ssl`` and pyOpenSSL, which
tells what SCRAM's channel bindings need.  Nothing here knows how the server works.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import re
import socket
import ssl
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from .realserver import DEADLINE, RealServer, wait_until

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

__all__ = ["Authority", "OpenSSLWire", "Pair", "Wire", "log_port", "trusting"]


class Pair:
    """A certificate with its chain, and its key."""

    def __init__(self, certificate: x509.Certificate, key: _Key) -> None:
        self.x509 = certificate
        self._key = key

    @property
    def certificate(self) -> bytes:
        """In PEM."""
        return self.x509.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        """In PEM, not protected."""
        return self._pem(serialization.NoEncryption())

    @property
    def locked_key(self) -> bytes:
        """In PEM, protected by a passphrase."""
        return self._pem(serialization.BestAvailableEncryption(b"open sesame"))

    def _pem(self, protection: serialization.KeySerializationEncryption) -> bytes:
        form = serialization.PrivateFormat.PKCS8
        return self._key.private_bytes(serialization.Encoding.PEM, form, protection)

    def write(self, path: Path) -> Path:
        """Both in one file, which appears as a whole."""
        beside = path.with_name(f"{path.name}.new")
        beside.write_bytes(self.certificate + self.key)
        beside.chmod(0o600)
        beside.replace(path)
        return path


#: What an authority's certificate is for.
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Signs certificates.

    :param folder: where :attr:`file` is written.
    """

    def __init__(self, folder: Path, name: str = "the test's authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        own = self._builder(self._name, self._key, timedelta(days=-1), timedelta(days=3)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        own = own.add_extension(_SIGNS, critical=True)
        self.pair = Pair(own.sign(self._key, hashes.SHA256()), self._key)
        #: Its certificate in PEM.
        self.file = folder / f"{name.replace(' ', '-')}.crt"
        self.file.write_bytes(self.pair.certificate)

    def issue(
        self,
        *names: str,
        common: str | None = None,
        mail: str | None = None,
        begins: timedelta = timedelta(hours=-1),
        ends: timedelta = timedelta(days=2),
        hashed: hashes.HashAlgorithm | None = None,
        rsa_bits: int = 0,
    ) -> Pair:
        """A certificate for these host names and addresses, or for a mail address.

        :param begins: from when it is valid, counted from now.
        :param rsa_bits: with an RSA key of this size; else with an elliptic curve's.
        """
        key: _Key = (
            rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        )
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common or names[0])])
        builder = self._builder(subject, key, begins, ends)
        alternative: list[x509.GeneralName] = [_general(name) for name in names]
        if mail is not None:
            alternative.append(x509.RFC822Name(mail))
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        return Pair(builder.sign(self._key, hashed or hashes.SHA256()), key)

    def _builder(
        self, subject: x509.Name, key: _Key, begins: timedelta, ends: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            # Python 3.13 and later refuse certificates without these (VERIFY_X509_STRICT).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def log_port(server: RealServer, what: str) -> int:
    """The port where a server says that it listens for something, as in ``POP3 over TLS``."""
    form = re.compile(rf"pop3toy listens for {re.escape(what)} on \S+:(\d+)\n")
    wait_until(lambda: form.search(server.log) is not None, f"the server listens for {what}")
    found = form.search(server.log)
    assert found is not None
    return int(found[1])


def trusting(authority: Authority, **settings: Any) -> ssl.SSLContext:
    """How a client that trusts this authority alone goes about TLS."""
    context = ssl.create_default_context(cafile=str(authority.file))
    for name, value in settings.items():
        setattr(context, name, value)
    return context


class Wire:
    """A connection on which a test says whatever it wants, and reads lines.

    :param host: the address to connect to.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", *, source: str | None = None) -> None:
        bound = (source, 0) if source is not None else None
        self.socket = socket.create_connection((host, port), DEADLINE, source_address=bound)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
