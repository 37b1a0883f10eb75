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
#: The names of this machine.
LOCALHOST = ("localhost", "127.0.0.1", "::1")


class Authority:
    """A certificate authority that nobody knows but who loads its certificate.

    :param now: the moment.
    :param own: its certificate and key; new ones if not given.
    """

    def __init__(
        self,
        now: datetime | None = None,
        own: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
    ) -> None:
        self._now = now or datetime.now(UTC)
        if own is not None:
            self._certificate, self._key = own
            self._name = self._certificate.subject
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._name = _named("pop3toy's authority for one test")
            self._certificate = (
                self._builder(self._name, self._key.public_key(), self._now)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_usage(signs_certificates=True), critical=True)
                .sign(self._key, hashes.SHA256())
            )
        #: Its certificate (PEM), to be trusted.
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def read(cls, path: str) -> Authority:
        """From a file with certificate and key (PEM), as :meth:`dump` gives them.

        :raises OSError: if it cannot be read.
        :raises ValueError: if these are not in it.
        """
        data = Path(path).read_bytes()
        key = serialization.load_pem_private_key(data, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is not one of an elliptic curve")
        return cls(own=(x509.load_pem_x509_certificate(data), key))

    def dump(self) -> bytes:
        """Its certificate and key (PEM)."""
        return self.pem + _key_pem(self._key)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        now: datetime,
        *,
        own: bool = False,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if own else self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALID)
            .not_valid_after(now + _VALID)
            # What Python 3.13 and later want to see of both (VERIFY_X509_STRICT).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key if own else self._key.public_key()),
                critical=False,
            )
        )

    def certificate(
        self, names: Sequence[str] = LOCALHOST, *, expired: bool = False, self_signed: bool = False
    ) -> bytes:
        """A server's certificate, and its private key behind it (PEM).

        :param names: for which it is valid: host names and addresses.
        :param expired: whether its time is over.
        :param self_signed: whether it has signed itself, and not this authority.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._now - 2 * _VALID if expired else self._now
        subject = _named(names[0])
        signed = (
            self._builder(subject, key.public_key(), now, own=self_signed)
            .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(key if self_signed else self._key, hashes.SHA256())
        )
        return signed.public_bytes(serialization.Encoding.PEM) + _key_pem(key)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
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
        #: Who has signed.
        self.authority = authority
        #: Of the authority; of the server, with its key.
        self.ca_file = str(folder / "ca.pem")
        self.certificate = str(folder / "server.pem")
        Path(self.ca_file).write_bytes(authority.pem)
        Path(self.certificate).write_bytes(authority.certificate())

    def remove(self) -> None:
        """Remove it; harmless when that is done already."""
        self._folder.cleanup()
