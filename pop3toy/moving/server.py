"""A POP3 server that mail is fetched from: where it is, how it is trusted, and the way to it."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from ..errors import StoreTrouble

__all__ = ["NotTrusted", "Server", "Trouble", "is_loopback", "parse_url"]


class Trouble(StoreTrouble):
    """The server cannot be reached, refuses, or answers what cannot be made sense of.

    ``detail`` is a sentence that names it.

    :ivar code: the response code that it gave, in capitals, such as ``IN-USE``; empty if none.
    """

    def __init__(self, detail: str, *, code: str = "") -> None:
        super().__init__(detail=detail)
        self.given_code = code


class NotTrusted(Trouble):
    """Its certificate is not what was asked for."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and how it is trusted.

    :ivar implicit: TLS from the start (RFC 8314); otherwise STLS (RFC 2595), which has to be offered.
    :ivar context: whose certificates are trusted.
    :ivar cleartext: whether a server that offers no TLS is spoken to all the same.  On this machine's own
        addresses, which nobody overhears, it always is.
    :ivar timeout: seconds for an answer, and between the parts of one.
    :ivar user: who is named in its address.
    """

    host: str
    port: int
    implicit: bool = False
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context, repr=False, compare=False)
    cleartext: bool = False
    timeout: float = 60.0
    user: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def trouble(self, what: str, code: str = "") -> Trouble:
        """A sentence that names it."""
        return Trouble(f"{self}: {what}", code=code)

    def connect(self) -> socket.socket:
        """A connection.

        :raises Trouble: if there is none.
        """
        try:
            return socket.create_connection((self.host, self.port), self.timeout)
        except socket.gaierror:
            raise self.trouble("there is no host of this name") from None
        except TimeoutError:
            raise self.trouble(f"port {self.port} does not answer within {self.timeout:g} s") from None
        except (OSError, UnicodeError) as error:
            raise self.trouble(f"port {self.port}: {_reason(error)}") from None

    def start_tls(self, sock: socket.socket) -> ssl.SSLSocket:
        """The connection within TLS.

        :raises NotTrusted: if its certificate is not what was asked for; :class:`Trouble` for all else.
        """
        try:
            return self.context.wrap_socket(sock, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(f"{self}: {_why_not_trusted(error, self.host)}") from None
        except TimeoutError:
            raise self.trouble(f"the TLS handshake does not end within {self.timeout:g} s") from None
        except (OSError, ValueError) as error:
            hint = "" if not self.implicit else f"; does port {self.port} begin with TLS?"
            raise self.trouble(f"the TLS handshake fails: {_reason(error)}{hint}") from None


def parse_url(text: str) -> tuple[str, int, bool, str | None]:
    """Host, port, whether TLS is implicit, and user of ``pop3://[USER@]HOST[:PORT]`` or ``pop3s://``.

    :raises ValueError: if it is none, with a sentence.
    """
    url = urlsplit(text)
    scheme = url.scheme.lower()
    if scheme not in ("pop3", "pop3s", "pop"):
        raise ValueError(
            "an address of a server is pop3://[USER@]HOST[:PORT], or pop3s:// for TLS from the start"
        )
    if url.password is not None:
        # Whoever can list processes has read it by now.
        raise ValueError("a password does not belong into an address, where others can read it")
    try:
        host, port = url.hostname, url.port
    except ValueError:
        raise ValueError("the port is no number up to 65535") from None
    if not host:
        raise ValueError("the host is missing")
    if url.path.strip("/") or url.query or url.fragment:
        raise ValueError("behind host and port comes nothing")
    implicit = scheme == "pop3s"
    return host, port or (995 if implicit else 110), implicit, unquote(url.username) if url.username else None


def is_loopback(sock: socket.socket) -> bool:
    """Whether it leads to this machine itself."""
    address = ipaddress.ip_address(str(sock.getpeername()[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


#: What OpenSSL's numbers (X509_V_ERR_...) mean, and what can be done.
_NOT_TRUSTED: Final = {
    9: "its certificate is not valid yet; is this machine's clock right?",
    10: "its certificate has expired; renew it there, or --insecure takes it as it is",
    18: "its certificate is self-signed: copy it from there, and name it by --cafile FILE",
    19: "its certificate is signed by an authority unknown here: name that one's by --cafile FILE",
    20: "its certificate is signed by an authority unknown here: name that one's by --cafile FILE",
    21: "its certificate is signed by an authority unknown here: name that one's by --cafile FILE",
}


def _why_not_trusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in (62, 64):
        return f"its certificate is for another name than {host}: use the name that the certificate has"
    said = error.verify_message or _reason(error)
    return _NOT_TRUSTED.get(error.verify_code, f"its certificate is not trusted: {said}")
