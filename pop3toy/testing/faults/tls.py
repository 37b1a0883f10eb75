"""TLS that is wrong: bad certificates, a handshake without end, an end without close_notify."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol

from ...net.tls.certificate_files import CertificateFiles, Material, Pair
from ...net.tls.contexts import ALPN_POP3, GivenTLS
from ...net.tls.half_close import HalfCloseableConnection
from .rules import Faults

__all__ = ["Authority", "FaultyTLS"]

_DAY = timedelta(days=1)


class Authority:
    """Signs certificates.

    :param certificate: of a certificate authority; without one a new one is made.
    :param key: of that certificate.
    """

    def __init__(
        self,
        certificate: x509.Certificate | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        if certificate is None:
            name = _name("pop3toy, for tests")
            builder = _certificate(name, name, self._key.public_key(), datetime.now(UTC), 365 * _DAY)
            authority = x509.BasicConstraints(ca=True, path_length=0)
            certificate = builder.add_extension(authority, critical=True).sign(self._key, hashes.SHA256())
        self._certificate = certificate

    @classmethod
    def read(cls, path: str) -> Authority:
        """From a file with certificate and key, in PEM.

        :raises OSError: if it cannot be read.
        :raises ValueError: if these are not in it.
        """
        with open(path, "rb") as file:
            data = file.read()
        key = serialization.load_pem_private_key(data, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is not one of an elliptic curve")
        return cls(x509.load_pem_x509_certificate(data), key)

    @property
    def pem(self) -> bytes:
        """The authority's certificate: who trusts it trusts what :meth:`issue` signs."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def dump(self) -> bytes:
        """Certificate and key, in PEM; :meth:`read` understands it."""
        return self.pem + _key_pem(self._key)

    def issue(
        self, *names: str, days: int = 90, began: timedelta = timedelta(hours=1), own: bool = False
    ) -> bytes:
        """A certificate and its key, in PEM.

        :param names: of hosts, or addresses.
        :param days: that it is valid, from its beginning.
        :param began: how long ago that was.
        :param own: signed by itself instead of by the authority.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(names[0])
        issuer = subject if own else self._certificate.subject
        builder = _certificate(subject, issuer, key.public_key(), datetime.now(UTC) - began, days * _DAY)
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_alternative, names)]), False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        certificate = builder.sign(key if own else self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, valid: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + valid)
    )


class _Hanging(HalfCloseableConnection):
    """Takes what comes and never answers the handshake."""

    def do_handshake(self) -> None:
        """Wait for more."""
        raise SSL.WantReadError


class _Unfinished(HalfCloseableConnection):
    """Ends without a close_notify."""

    def shutdown(self) -> bool:
        """Say nothing, and that it was said."""
        return True


class FaultyTLS(GivenTLS):
    """Another server's TLS, and what faults make of it.

    :param tls: what it is where nothing is wrong; certificates that change are seen here too.
    :param authority: signs the bad certificates; a new one, which nobody trusts, if not given.
    """

    def __init__(self, tls: GivenTLS, faults: Faults, authority: Authority | None = None) -> None:
        self._tls = tls
        self._faults = faults
        self._authority = authority or Authority()
        self._bad = lru_cache(self._make_bad)

    def connection(self, tls: TLSMemoryBIOProtocol, alpn: Sequence[bytes]) -> SSL.Connection:
        """The server's side of one new connection, right or wrong."""
        record = getattr(tls.wrappedProtocol, "record", None)
        protocol = "POP3" if tuple(alpn) == ALPN_POP3 else getattr(record, "protocol", "") or "SMTP"
        fault = self._faults.tls_fault(record.number if record is not None else 0, protocol)
        if fault is None:
            return self._tls.connection(tls, alpn)
        if fault in _BAD:
            return self._bad(fault).connection(tls, alpn)
        kind = {"tls-hangs": _Hanging, "tls-no-close-notify": _Unfinished}[fault]
        good = self._tls.connection(tls, alpn)
        return kind(good.get_context(), tls, alpn)

    def _make_bad(self, fault: str) -> GivenTLS:
        pem = _BAD[fault](self._authority)
        return GivenTLS(Material((Pair(CertificateFiles(fault, fault), pem, pem),)))


_HERE = ("localhost", "127.0.0.1", "::1")
_BAD: dict[str, Callable[[Authority], bytes]] = {
    "tls-expired": lambda authority: authority.issue(*_HERE, days=30, began=31 * _DAY),
    "tls-wrong-name": lambda authority: authority.issue("mail.example.invalid"),
    "tls-self-signed": lambda authority: authority.issue(*_HERE, own=True),
}
