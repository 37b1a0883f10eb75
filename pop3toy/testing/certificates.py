"""Certificates for one test: an authority, and what it has signed, in files that go with the server."""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["Authority", "CertificateFolder"]

#: How long they are valid, before and behind the moment: a clock may be wrong, no test takes a day.
_VALID = timedelta(days=1)


class Authority:
    """A certificate authority that nobody knows but who loads its certificate.

    :param now: the moment.
    """

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("pop3toy's authority for one test")
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        #: Its certificate (PEM), to be trusted.
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _VALID)
            .not_valid_after(self._now + _VALID)
            # What Python 3.13 and later want to see of both (VERIFY_X509_STRICT).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )

    def certificate(self, names: Sequence[str] = ("localhost", "127.0.0.1", "::1")) -> bytes:
        """A server's certificate, and its private key behind it (PEM).

        :param names: for which it is valid: host names and addresses.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signed = (
            self._builder(_named(names[0]), key.public_key())
            .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


class CertificateFolder:
    """A temporary folder with the certificates of one server; private to this user."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pop3toy-")
        folder, authority = Path(self._folder.name), Authority()
        #: Of the authority; of the server, with its key.
        self.ca_file = str(folder / "ca.pem")
        self.certificate = str(folder / "server.pem")
        Path(self.ca_file).write_bytes(authority.pem)
        Path(self.certificate).write_bytes(authority.certificate())

    def remove(self) -> None:
        """Remove it; harmless when that is done already."""
        self._folder.cleanup()
