"""TLS: the server's certificates, chosen by name, looked at again when they change.

Built on Twisted's ``CertificateOptions``; needs the ``tls`` extra.  A pair that
does not fit is refused with one line: at start the server does not start, later
on the old one stays in use.  Sessions that are open are never touched.  The
files themselves are read in ``certificate_files``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from .certificate_files import (
    BadCertificate,
    CertificateFiles,
    Material,
    Pair,
    certificates_in,
    look,
    read_files,
)
from .half_close import HalfCloseableConnection

__all__ = ["ALPN_HTTP", "ALPN_POP3", "ALPN_SMTP", "GivenTLS", "ServerTLS", "names_of"]

log = Logger()

#: What clients may call POP3 in ALPN (IANA registry "TLS ALPN Protocol IDs", RFC 2595).
ALPN_POP3 = (b"pop3",)
#: The same for SMTP and submission.  No name is registered; these are the ones that Exim takes.
ALPN_SMTP = (b"smtp", b"esmtp")
#: For browsers: without HTTP/2.
ALPN_HTTP = (b"http/1.1",)
#: For TLS 1.2, forward secret and authenticated whatever the key is (RFC 9325
#: section 4.2); those of TLS 1.3 are all so.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class _Loaded(NamedTuple):
    names: tuple[str, ...]
    context: SSL.Context


@implementer(IOpenSSLServerConnectionCreator)
class GivenTLS:
    """What STLS and implicit TLS are made with, from certificates that were read elsewhere.

    TLS 1.2 at least, forward secrecy, ALPN ``pop3`` (for other ports see :meth:`speaking`),
    certificates by SNI (RFC 6066 section 3).

    :raises BadCertificate: if one of them cannot be used.
    """

    def __init__(self, material: Material) -> None:
        self._default: SSL.Context
        self._by_name: dict[str, SSL.Context] = {}
        #: What new connections are made with.
        self.in_use = material
        self.use(material)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See Twisted: the server's side of one new connection."""
        return self.connection(tlsProtocol, ALPN_POP3)

    def speaking(self, alpn: Sequence[bytes]) -> IOpenSSLServerConnectionCreator:
        """The same certificates for ports where another protocol is spoken.

        :param alpn: the names that a client may offer for it in ALPN (RFC 7301), preferred first.
        """
        speaking: IOpenSSLServerConnectionCreator = _Speaking(self, tuple(alpn))
        return speaking

    def connection(self, tls: TLSMemoryBIOProtocol, alpn: Sequence[bytes]) -> SSL.Connection:
        """The server's side of one new connection on which one of these may be agreed on."""
        return HalfCloseableConnection(self._default, tls, alpn)

    def use(self, material: Material) -> None:
        """From now on these.

        :raises BadCertificate: if one of them cannot be used; then the old ones stay.
        """
        loaded = [self._load_pair(pair, material) for pair in material.pairs]
        by_name: dict[str, SSL.Context] = {}
        for names, context in loaded:
            context.set_tlsext_servername_callback(self._choose)
            for name in names:
                by_name.setdefault(name, context)
        self._default, self._by_name = loaded[0].context, by_name
        self.in_use = material

    def _load_pair(self, pair: Pair, material: Material) -> _Loaded:
        leaf, *chain = pair.chain()
        key = _key(pair, leaf)
        authorities = None
        if material.authorities is not None:
            found = certificates_in(material.authorities, material.authorities_file)
            authorities = [crypto.X509.from_cryptography(one) for one in found]
        options = ssl.CertificateOptions(
            privateKey=key,
            certificate=crypto.X509.from_cryptography(leaf),
            extraCertChain=[crypto.X509.from_cryptography(one) for one in chain],
            insecurelyLowerMinimumTo=ssl.TLSVersion.TLSv1_2,
            acceptableCiphers=ssl.AcceptableCiphers.fromOpenSSLCipherString(CIPHERS),
            verify=authorities is not None,
            caCerts=authorities,
            # A client may show none; then EXTERNAL is not offered to it.
            requireCertificate=False,
        )
        try:
            context = options.getContext()
        except SSL.Error as error:
            # As of a key that is too short.
            reasons = ", ".join(str(reason) for *_, reason in error.args[0])
            raise BadCertificate(f"{pair.files.certificate}: OpenSSL does not take it: {reasons}") from None
        context.set_alpn_select_callback(self._select)
        return _Loaded(names_of(leaf), context)

    def _choose(self, connection: SSL.Connection) -> None:
        """SNI: the certificate for the name that the client asks for."""
        # RFC 6066 section 3: "without a trailing dot"; some clients send it as it was typed.
        name = _host_name((connection.get_servername() or b"").decode("ascii", "replace"))
        context = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
        if context is not None:
            connection.set_context(context)

    def _select(self, connection: SSL.Connection, offered: list[bytes]) -> bytes:
        # RFC 7301 section 3.2: no common protocol is a fatal alert.  It keeps a
        # browser that was led here (by the ALPACA attack) from talking on.
        assert isinstance(connection, HalfCloseableConnection)
        for name in connection.alpn:
            if name in offered:
                return name
        raise SSL.Error([("pop3toy", "ALPN", "the client wants to speak another protocol")])


@implementer(IOpenSSLServerConnectionCreator)
class _Speaking:
    """The certificates of a :class:`GivenTLS` with other names in ALPN."""

    def __init__(self, tls: GivenTLS, alpn: Sequence[bytes]) -> None:
        self._tls = tls
        self._alpn = alpn

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return self._tls.connection(tlsProtocol, self._alpn)


class ServerTLS(GivenTLS):
    """The same from files, which are read again when they change.

    :param find: gives the files now; called again at each reload.
    :param client_authorities: a PEM file of the authorities whose client
        certificates are verified; a client need not show one.
    :param now: the time, against which certificates are held.
    :raises BadCertificate: if one of the files cannot be used.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[CertificateFiles]],
        *,
        client_authorities: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._find = find
        self._client_authorities = client_authorities
        self._now = now
        self._signature: object = None
        self._told = ""
        super().__init__(self._read())

    def reload(self) -> None:
        """Read all files again; if one cannot be used, say so and keep what is in use."""
        self._signature = None
        self._told = ""
        self.reload_if_changed()

    def reload_if_changed(self) -> None:
        """The same, if a file is another than before; what is wrong with it is told once."""
        told, self._told = self._told, ""
        try:
            if look(self._find(), self._client_authorities) != self._signature:
                self.use(self._read())
                log.info("certificates reloaded")
        except BadCertificate as error:
            self._told = str(error)
            if self._told != told:
                log.error("certificates not reloaded, the old ones stay in use: {why}", why=self._told)

    def become(self, other: ServerTLS) -> None:
        """Serve with the files of another one from now on, which was found to be good."""
        self.use(other.in_use)
        self._find, self._client_authorities = other._find, other._client_authorities
        self._signature, self._told = other._signature, ""
        log.info("certificates reloaded")

    def _read(self) -> Material:
        files = list(self._find())
        # Remembered even if they are no good: complain once, not every minute.
        self._signature = look(files, self._client_authorities)
        return read_files(files, self._client_authorities, self._now())


def _key(pair: Pair, leaf: x509.Certificate) -> crypto.PKey:
    certificate, path = pair.files
    try:
        key: Any = load_pem_private_key(pair.key, None)
    except TypeError:
        raise BadCertificate(f"{path}: the key is protected by a passphrase; remove it") from None
    except ValueError:
        raise BadCertificate(f"{path}: no private key in PEM in it") from None
    if key.public_key() != leaf.public_key():
        raise BadCertificate(f"{certificate}: {path} is not the key of this certificate")
    return crypto.PKey.from_cryptography_key(key)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names that a certificate is for, as clients ask for them; one may begin with ``*.``."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(_host_name(str(one.value)) for one in common)
    return tuple(map(_host_name, alternative.get_values_for_type(x509.DNSName)))


def _host_name(name: str) -> str:
    """One form for one name; ``mail.example.org.`` is ``mail.example.org``."""
    return name.lower().removesuffix(".")
