"""Certificates and keys as files: where they are, what is in them, whether they can be used now.

Knows PEM and dates and nothing of TLS; what is made of it is in ``contexts``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from cryptography import x509

__all__ = [
    "BadCertificate",
    "CertificateFiles",
    "Material",
    "Pair",
    "certificates_in",
    "files_in_folder",
    "look",
    "read_files",
]


class BadCertificate(Exception):
    """A certificate or key that cannot be used; the text says which and why."""


class CertificateFiles(NamedTuple):
    """A certificate chain and its key, in PEM; they may be one file."""

    certificate: str
    key: str


class Pair(NamedTuple):
    """What was in such files."""

    files: CertificateFiles
    #: PEM; there may be more in it.
    certificate: bytes
    key: bytes

    def chain(self) -> list[x509.Certificate]:
        """The certificates, the server's own first.

        :raises BadCertificate: if there is none.
        """
        return certificates_in(self.certificate, self.files.certificate)


class Material(NamedTuple):
    """All that TLS is made of: what is handed on to processes that cannot read the files."""

    pairs: tuple[Pair, ...]
    #: Whose client certificates are verified, and where that was read.
    authorities: bytes | None = None
    authorities_file: str = ""

    def dump(self) -> str:
        """In one piece; it holds keys.  :meth:`load` understands it."""
        # PEM is ASCII, but what stands around it may be anything.
        pairs = [
            [pair.files, pair.certificate.decode("latin-1"), pair.key.decode("latin-1")]
            for pair in self.pairs
        ]
        authorities = self.authorities.decode("latin-1") if self.authorities is not None else None
        return json.dumps([pairs, authorities, self.authorities_file])

    @classmethod
    def load(cls, dumped: str) -> Material:
        """What :meth:`dump` made."""
        pairs, authorities, authorities_file = json.loads(dumped)
        return cls(
            tuple(
                Pair(CertificateFiles(*files), certificate.encode("latin-1"), key.encode("latin-1"))
                for files, certificate, key in pairs
            ),
            authorities.encode("latin-1") if authorities is not None else None,
            authorities_file,
        )


def files_in_folder(folder: str) -> list[CertificateFiles]:
    """The pairs in a folder, one for each name that the server answers to.

    ``NAME.pem`` (certificate and key in one), ``NAME.crt`` beside ``NAME.key``, or
    sub-folders with ``fullchain.pem`` beside ``privkey.pem`` as ACME clients make
    them; in alphabetic order, the first is for clients that ask for no name.

    :raises BadCertificate: if there is none.
    """
    pairs = []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise BadCertificate(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    for name in names:
        path = os.path.join(folder, name)
        stem, ending = os.path.splitext(path)
        if os.path.isfile(os.path.join(path, "fullchain.pem")):
            pairs.append(
                CertificateFiles(os.path.join(path, "fullchain.pem"), os.path.join(path, "privkey.pem"))
            )
        elif ending == ".pem":
            pairs.append(CertificateFiles(path, path))
        elif ending == ".crt" and os.path.isfile(f"{stem}.key"):
            pairs.append(CertificateFiles(path, f"{stem}.key"))
    if not pairs:
        raise BadCertificate(f"{folder}: no NAME.pem, no NAME.crt with NAME.key, no NAME/fullchain.pem in it")
    return pairs


def read_files(files: Iterable[CertificateFiles], client_authorities: str | None, now: datetime) -> Material:
    """Read them all.

    :param client_authorities: a PEM file of the authorities whose client
        certificates are verified.
    :raises BadCertificate: if one cannot be read, or is not valid now.
    """
    pairs = []
    for one in files:
        pair = Pair(one, _read(one.certificate), _read(one.key))
        leaf = pair.chain()[0]
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise BadCertificate(
                f"{one.certificate}: valid from {leaf.not_valid_before_utc:%Y-%m-%d}"
                f" to {leaf.not_valid_after_utc:%Y-%m-%d}, not now"
            )
        pairs.append(pair)
    if client_authorities is None:
        return Material(tuple(pairs))
    return Material(tuple(pairs), _read(client_authorities), client_authorities)


def look(files: Iterable[CertificateFiles], client_authorities: str | None) -> object:
    """Something that is another when one of the files is another."""
    names = {name for pair in files for name in pair}
    if client_authorities is not None:
        names.add(client_authorities)
    return tuple((name, _status(name)) for name in sorted(names))


def certificates_in(pem: bytes, path: str) -> list[x509.Certificate]:
    """The certificates in a file's text.

    :raises BadCertificate: if there is none.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadCertificate(f"{path}: no certificate in PEM in it") from None


def _status(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadCertificate(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
