"""TLS: the server's certificates, chosen by name, looked at again when they change.

Built on Twisted's ``CertificateOptions``; needs the ``tls`` extra.  A pair that
does not fit is refused with one line: at start the server does not start, later
on the old one stays in use.  Sessions that are open are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

__all__ = ["BadCertificate", "CertificateFiles", "ServerTLS", "files_in_folder"]

log = Logger()

#: The name of POP3 in ALPN (IANA registry "TLS ALPN Protocol IDs", RFC 2595).
ALPN = b"pop3"


class BadCertificate(Exception):
    """A certificate or key that cannot be used; the text says which and why."""


class CertificateFiles(NamedTuple):
    """A certificate chain and its key, in PEM; they may be one file."""

    certificate: str
    key: str


class _Loaded(NamedTuple):
    names: tuple[str, ...]
    context: SSL.Context


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
        raise BadCertificate(f"{folder}: {error.strerror}") from error
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


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """What STLS and implicit TLS are made with.

    TLS 1.2 at least, Twisted's choice of ciphers, ALPN ``pop3``, certificates by
    SNI (RFC 6066 section 3).

    :param find: gives the files now; called again at each reload.
    :param client_authorities: a PEM file of the authorities whose client
        certificates are verified; a client need not show one.
    :param now: the time, against which certificates are held.
    :param alpn: the protocol that clients may ask for by ALPN, if they do.
    :raises BadCertificate: if one of the files cannot be used.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[CertificateFiles]],
        *,
        client_authorities: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        alpn: bytes = ALPN,
    ) -> None:
        self._find = find
        self._client_authorities = client_authorities
        self._now = now
        self._alpn = alpn
        self._default: SSL.Context
        self._by_name: dict[str, SSL.Context] = {}
        self._signature: object = None
        self._load()

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See Twisted: the server's side of one new connection."""
        return SSL.Connection(self._default, None)

    def reload(self) -> None:
        """Read all files again; if one cannot be used, say so and keep what is in use."""
        try:
            self._load()
        except BadCertificate as why:
            log.error("certificates not reloaded, the old ones stay in use: {why}", why=str(why))
        else:
            log.info("certificates reloaded")

    def reload_if_changed(self) -> None:
        """The same, if a file is another than before."""
        try:
            changed = self._sign(list(self._find())) != self._signature
        except BadCertificate as why:
            changed = self._signature != str(why)
            if changed:
                log.error("certificates not reloaded, the old ones stay in use: {why}", why=str(why))
                self._signature = str(why)
            return
        if changed:
            self.reload()

    def _load(self) -> None:
        files = list(self._find())
        # Remembered even if they are no good: complain once, not every minute.
        self._signature = self._sign(files)
        loaded = [self._load_pair(pair) for pair in files]
        by_name: dict[str, SSL.Context] = {}
        for names, context in loaded:
            context.set_tlsext_servername_callback(self._choose)
            for name in names:
                by_name.setdefault(name, context)
        self._default, self._by_name = loaded[0].context, by_name

    def _sign(self, files: list[CertificateFiles]) -> object:
        names = {name for pair in files for name in pair}
        if self._client_authorities is not None:
            names.add(self._client_authorities)
        return tuple((name, _look(name)) for name in sorted(names))

    def _load_pair(self, pair: CertificateFiles) -> _Loaded:
        chain = self._read_chain(pair.certificate)
        key = _read_key(pair.key)
        leaf = chain[0]
        if not leaf.not_valid_before_utc <= self._now() <= leaf.not_valid_after_utc:
            raise BadCertificate(
                f"{pair.certificate}: valid from {leaf.not_valid_before_utc:%Y-%m-%d}"
                f" to {leaf.not_valid_after_utc:%Y-%m-%d}, not now"
            )
        authorities = None
        if self._client_authorities is not None:
            authorities = [
                crypto.X509.from_cryptography(one) for one in self._read_chain(self._client_authorities)
            ]
        options = ssl.CertificateOptions(
            privateKey=key,
            certificate=crypto.X509.from_cryptography(leaf),
            extraCertChain=[crypto.X509.from_cryptography(one) for one in chain[1:]],
            insecurelyLowerMinimumTo=ssl.TLSVersion.TLSv1_2,
            verify=authorities is not None,
            caCerts=authorities,
            # A client may show none; then EXTERNAL is not offered to it.
            requireCertificate=False,
        )
        try:
            context = options.getContext()
            context.check_privatekey()
        except SSL.Error:
            raise BadCertificate(
                f"{pair.certificate}: {pair.key} is not the key of this certificate"
            ) from None
        context.set_alpn_select_callback(self._select)
        return _Loaded(_names(leaf), context)

    def _read_chain(self, path: str) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(_read(path))
        except ValueError:
            raise BadCertificate(f"{path}: no certificate in PEM in it") from None

    def _choose(self, connection: SSL.Connection) -> None:
        """SNI: the certificate for the name that the client asks for."""
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
        if context is not None:
            connection.set_context(context)

    def _select(self, connection: SSL.Connection, offered: list[bytes]) -> bytes:
        # RFC 7301 section 3.2: no common protocol is a fatal alert.  It keeps a
        # browser that was led here (by the ALPACA attack) from talking on.
        if self._alpn not in offered:
            raise SSL.Error([("pop3toy", "ALPN", "the client does not want to speak POP3")])
        return self._alpn


def _look(path: str) -> object:
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


def _read_key(path: str) -> crypto.PKey:
    try:
        return crypto.PKey.from_cryptography_key(load_pem_private_key(_read(path), None))  # type: ignore[arg-type]
    except TypeError:
        raise BadCertificate(f"{path}: the key is protected by a passphrase; remove it") from None
    except ValueError:
        raise BadCertificate(f"{path}: no private key in PEM in it") from None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(one.value).lower() for one in common)
    return tuple(name.lower() for name in alternative.get_values_for_type(x509.DNSName))
