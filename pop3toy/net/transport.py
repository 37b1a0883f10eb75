"""What a transport tells about a connection: address, whether it is local, TLS."""

from __future__ import annotations

import hashlib
import ipaddress
import select
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure

from .. import limits
from ..interfaces import Channel, TLSFacts
from .types import IStreamTransport

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = [
    "beneath",
    "channel_of",
    "handshake_error",
    "hung_up",
    "is_loopback",
    "peer_name",
    "prepare",
    "speaks_tls",
]

_KEEPALIVE = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether an address in text is one of this machine's loopback addresses."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@lru_cache(maxsize=1024)
def _short(host: str) -> str:
    """One form for one address.

    A socket for both families, and a proxy, may bring IPv4 addresses within
    IPv6 ones.
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)


def speaks_tls(transport: object) -> bool:
    """Whether what is written to a transport is encrypted."""
    # A wrapper (the PROXY protocol's) hides the interface but not the attribute.
    return ISSLTransport.providedBy(transport) or bool(getattr(transport, "TLS", False))


def prepare(transport: IStreamTransport) -> Callable[[], None] | None:
    """Ask of a TCP connection what a mail conversation needs; nothing of others.

    :return: what is to be called if the connection lasts: it has the kernel ask
        now and then whether a silent client is still there (``limits.KEEPALIVE``).
        Four system calls, of which a session that is soon over has no use.
    """
    # Twisted's Unix sockets have these methods as well.
    if getattr(transport, "setTcpNoDelay", None) is None or isinstance(transport.getPeer(), UNIXAddress):
        return None
    # Otherwise a small reply can wait 40 ms for the client's delayed ACK.
    transport.setTcpNoDelay(True)
    handle = beneath(transport).getHandle()
    if isinstance(handle, socket.socket):
        return partial(_keep_alive, handle)
    transport.setTcpKeepAlive(True)
    return None


def beneath(transport: object) -> Any:
    """What is beneath all layers (TLS, a proxy's header), and has the socket and the buffer."""
    while (lower := getattr(transport, "transport", None)) is not None:
        transport = lower
    return transport


def hung_up(transport: IStreamTransport) -> bool:
    """Whether the peer has gone, for a transport that is paused: the reactor does not look at it.

    A peer that has closed its side and may read on has not gone.  Over TCP one that closes
    looks the same, unless it has left something unread or something is sent to it.
    """
    fileno = getattr(beneath(transport), "fileno", None)
    if fileno is None:
        return False
    if (number := fileno()) < 0:
        return True
    look = select.poll()
    # Errors and the end of both directions are told in any case.
    look.register(number, 0)
    return bool(look.poll(0))


def _keep_alive(handle: socket.socket) -> None:
    # Behind a proxy's header it may be any kind.
    if handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in zip(_KEEPALIVE, limits.KEEPALIVE, strict=True):
            # Linux's names, which not every system has.
            if hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:
        # The connection is gone, and the reactor is about to find out.
        return


def channel_of(transport: IStreamTransport) -> Channel:
    """The channel that a connected transport is.

    Before the TLS handshake is done, the TLS facts are there but empty.
    """
    peer = transport.getPeer()
    # With TLS the handle is OpenSSL's.
    tls = _tls_facts(transport.getHandle()) if speaks_tls(transport) else None  # type: ignore[arg-type]
    if isinstance(peer, UNIXAddress):
        return Channel("unix", True, tls)
    if isinstance(peer, IPv4Address | IPv6Address):
        return Channel(_short(peer.host), is_loopback(peer.host), tls)
    return Channel(str(getattr(peer, "host", "unknown")), False, tls)


def peer_name(transport: IStreamTransport) -> str:
    """The client's address for people to read."""
    peer = transport.getPeer()
    if isinstance(peer, IPv4Address):
        return f"{peer.host}:{peer.port}"
    if isinstance(peer, IPv6Address):
        return f"[{peer.host}]:{peer.port}"
    return "a Unix socket" if isinstance(peer, UNIXAddress) else str(getattr(peer, "host", "unknown"))


def _tls_facts(connection: SSL.Connection) -> TLSFacts:
    """What an ``OpenSSL.SSL.Connection`` knows."""
    cipher = connection.get_cipher_name()
    if cipher is None:
        return TLSFacts("TLS", "")
    version = connection.get_protocol_version_name()

    def exporter(label: bytes, context: bytes | None, length: int) -> bytes:
        keying_material: bytes = connection.export_keying_material(label, length, context)
        return keying_material

    return TLSFacts(
        version,
        cipher,
        client_name=_client_name(connection),
        # RFC 9266 section 4.2: before TLS 1.3 one would have to know of the extended master secret, too.
        exporter=exporter if version == "TLSv1.3" else None,
        server_end_point=_end_point(connection),
    )


def handshake_error(reason: Failure) -> str:
    """Why a handshake failed, in OpenSSL's words; empty if the connection ended in another way.

    A client that goes away without a word, as many do that look which ports are open, is no failure.
    """
    from OpenSSL import SSL

    error = reason.value
    if not isinstance(error, SSL.Error):
        return ""
    words = []
    if isinstance(error, SSL.SysCallError):
        # A number, and text.
        words = [str(error.args[-1])]
    elif error.args:
        # Of each error in OpenSSL's queue: library, function, reason.
        words = [entry[-1] for entry in error.args[0]]
    return ", ".join(filter(None, words)) or type(error).__name__


def _client_name(connection: SSL.Connection) -> str | None:
    """The mail address or common name of a client certificate that was verified."""
    from cryptography import x509

    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        return None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        mail = names.get_values_for_type(x509.RFC822Name)
    except x509.ExtensionNotFound:
        mail = []
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    found = mail or [str(name.value) for name in common]
    return found[0] if found else None


def _end_point(connection: SSL.Connection) -> bytes | None:
    """RFC 5929 section 4.1: the hash of the certificate, with its own hash or SHA-256 for weaker ones."""
    certificate = connection.get_certificate(as_cryptography=True)
    if certificate is None or certificate.signature_hash_algorithm is None:
        return None
    from cryptography.hazmat.primitives.serialization import Encoding

    name = certificate.signature_hash_algorithm.name
    return hashlib.new(
        "sha256" if name in ("md5", "sha1") else name, certificate.public_bytes(Encoding.DER)
    ).digest()
