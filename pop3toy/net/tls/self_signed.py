"""A certificate for trying TLS on one's own machine, made once and kept.

It proves nothing to anybody: mail programs warn about it, and should.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ...files import new_file
from .certificate_files import CertificateFiles

__all__ = ["self_signed"]

#: Days that it is valid; more than 825 is refused by some mail programs.
VALID = timedelta(days=825)


def self_signed(folder: str, now: datetime | None = None) -> CertificateFiles:
    """The files of a certificate for ``localhost``; made if missing or about to expire.

    :param folder: where it is kept; made (mode 700) if missing.
    :raises OSError: if it cannot be written there.
    """
    now = now or datetime.now(UTC)
    path = os.path.join(folder, "localhost.pem")
    if not _still_good(path, now):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # Two servers that start at once get a whole one.
        with new_file(Path(path)) as file:
            file.write(_make(now))
    return CertificateFiles(path, path)


def _still_good(path: str, now: datetime) -> bool:
    try:
        with open(path, "rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read())
    except (OSError, ValueError):
        return False
    return now < certificate.not_valid_after_utc - timedelta(days=30)


def _make(now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    addresses = [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
