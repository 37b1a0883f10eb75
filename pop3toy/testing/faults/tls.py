"""TLS that is wrong: bad certificates, a handshake without end, an end without close_notify."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol

from ...net.tls.certificate_files import CertificateFiles, Material, Pair
from ...net.tls.contexts import ALPN_POP3, GivenTLS
from ...net.tls.half_close import HalfCloseableConnection
from ..certificates import Authority
from .gate import Faults

__all__ = ["FaultyTLS"]


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
        signer = authority or Authority()
        # Now, and not when a client connects: whoever starts the server is told of what cannot be, and where
        # warnings are errors that of pyOpenSSL ends no handshake.
        self._bad = {fault: _bad(fault, made(signer)) for fault, made in _BAD.items()}

    def connection(self, tls: TLSMemoryBIOProtocol, alpn: Sequence[bytes]) -> SSL.Connection:
        """The server's side of one new connection, right or wrong."""
        record = getattr(tls.wrappedProtocol, "record", None)
        protocol = "POP3" if tuple(alpn) == ALPN_POP3 else getattr(record, "protocol", "") or "SMTP"
        fault = self._faults.tls_fault(record.number if record is not None else 0, protocol)
        if fault is None:
            return self._tls.connection(tls, alpn)
        if fault in self._bad:
            return self._bad[fault].connection(tls, alpn)
        kind = {"tls-hangs": _Hanging, "tls-no-close-notify": _Unfinished}[fault]
        good = self._tls.connection(tls, alpn)
        return kind(good.get_context(), tls, alpn)


def _bad(fault: str, pem: bytes) -> GivenTLS:
    return GivenTLS(Material((Pair(CertificateFiles(fault, fault), pem, pem),)))


_BAD: dict[str, Callable[[Authority], bytes]] = {
    "tls-expired": lambda authority: authority.certificate(expired=True),
    "tls-wrong-name": lambda authority: authority.certificate(("mail.example.invalid",)),
    "tls-self-signed": lambda authority: authority.certificate(self_signed=True),
}
