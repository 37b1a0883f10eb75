"""RFC 2595 and 8314: TLS, and what must not come through it."""

from __future__ import annotations

import ssl
import warnings

from ..connection import Connection, NoHandshake, Trouble
from ..examination import Examination
from ..results import Failed, NotTested, require
from .lines import UNKNOWN

__all__ = [
    "capa_again",
    "certificate",
    "clear_text_refused",
    "forgotten",
    "injection",
    "not_after_login",
    "not_announced_within",
    "not_within",
    "offered",
    "old_versions",
    "stls_works",
    "version",
]


def _clear(server: Examination) -> Connection:
    """A connection on which STLS can be said."""
    if server.target.tls == "implicit":
        raise NotTested("TLS comes first here")
    connection = server.greeted()
    try:
        if b"STLS" not in server.capabilities(connection):
            raise NotTested("STLS is not announced")
    except BaseException:
        connection.drop()
        raise
    return connection


def _within(server: Examination) -> Connection:
    """A connection that is within TLS, by STLS or from the start."""
    if server.target.tls != "none":
        return server.stranger()
    connection = _clear(server)
    try:
        if not connection.ask("STLS").ok:
            raise NotTested("STLS is refused")
        server.shake_hands(connection)
    except BaseException:
        connection.drop()
        raise
    return connection


def offered(server: Examination) -> None:
    """There is TLS, one way or the other."""
    if server.target.tls == "none":
        with server.greeted() as connection:
            require(b"STLS" in server.capabilities(connection), "STLS is not announced")


def certificate(server: Examination) -> None:
    """It is trusted, valid, and for this name."""
    if server.target.context.verify_mode == ssl.CERT_NONE:
        raise NotTested("--insecure")
    try:
        connection = server.dial() if server.target.tls == "implicit" else _clear(server)
        with connection:
            if not connection.encrypted:
                connection.ask_ok("STLS")
                server.shake_hands(connection)
    except NotTested as why:
        if "not trusted" in str(why):
            raise Failed(str(why)) from None
        raise


def stls_works(server: Examination) -> None:
    """+OK, TLS right behind it, and AUTHORIZATION within."""
    with _clear(server) as connection:
        connection.ask_ok("STLS")
        server.shake_hands(connection)
        connection.ask_refused("STAT")


def injection(server: Examination) -> str | None:
    """What stands behind STLS in the clear is thrown away."""
    with _clear(server) as connection:
        # QUIT would end it, and CAPA be answered by a yes.
        connection.send(b"STLS\r\nCAPA\r\n")
        found = connection.reply("STLS")
        require(found.ok, str(found))
        try:
            server.shake_hands(connection)
        except NoHandshake:
            # Taken for the first octets of TLS, it does no harm either.
            return "it spoils the handshake"
        found = connection.ask(UNKNOWN)
        require(found.refused, "CAPA, which came in the clear behind STLS, is answered within TLS")
        return None


def forgotten(server: Examination) -> None:
    """A name that came before TLS does not count within it."""
    with _clear(server) as connection:
        connection.ask("USER check-nobody-has-this-name")
        found = connection.ask("STLS")
        if not found.ok:
            raise NotTested(str(found))
        server.shake_hands(connection)
        found = connection.ask(f"PASS {server.secret}", "PASS ****")
        require(found.refused, str(found))
        require(found.code != b"AUTH", "a name that came in the clear counts within TLS")


def capa_again(server: Examination) -> None:
    """CAPA works again within TLS."""
    with _within(server) as connection:
        require(server.capabilities(connection).lines, "CAPA is refused within TLS")


def not_within(server: Examination) -> None:
    """-ERR to STLS within TLS."""
    with _within(server) as connection:
        connection.ask_refused("STLS")
        connection.ask_refused(UNKNOWN)


def not_announced_within(server: Examination) -> None:
    """CAPA does not announce it there."""
    with _within(server) as connection:
        require(b"STLS" not in server.capabilities(connection), "STLS is announced within TLS")


def not_after_login(server: Examination) -> None:
    """-ERR to STLS after login."""
    with server.session() as session:
        session.ask_refused("STLS")
        session.ask_ok("NOOP")


def version(server: Examination) -> str:
    """Of all versions TLS 1.2 or later is agreed on."""
    with _raw_tls(server) as connection:
        connection.start_tls(_context(ssl.TLSVersion.TLSv1_3), server.target.host)
        agreed = connection.tls_version
    require(agreed in ("TLSv1.2", "TLSv1.3"), f"{agreed} is agreed on, though newer versions are offered")
    return agreed


def old_versions(server: Examination) -> None:
    """TLS 1.1 and older are refused."""
    context = _context(ssl.TLSVersion.TLSv1_1)
    with _raw_tls(server) as connection:
        try:
            connection.start_tls(context, server.target.host)
        except Trouble:
            return
        raise Failed(f"{connection.tls_version} is agreed on")


def _raw_tls(server: Examination) -> Connection:
    """A connection on which a handshake is due; no secret is said on it."""
    if server.target.tls == "implicit":
        return server.unencrypted()
    connection = _clear(server)
    connection.ask_ok("STLS")
    return connection


def _context(newest: ssl.TLSVersion) -> ssl.SSLContext:
    """What speaks all versions up to one, and trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with warnings.catch_warnings():
            # That they are old is why they are spoken.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = newest
        context.set_ciphers("ALL:@SECLEVEL=0")
    except (ssl.SSLError, ValueError):
        raise NotTested("this machine's TLS has no version that is as old") from None
    return context


def clear_text_refused(server: Examination) -> None:
    """Without TLS no way is announced in which a password can be overheard."""
    if server.target.tls == "implicit":
        raise NotTested("this port has TLS from the start")
    if server.target.safe:
        raise NotTested("nobody overhears loopback")
    with server.greeted() as connection:
        found = server.capabilities(connection)
        if not found.lines:
            raise NotTested("there is no CAPA")
        ways = [b"USER"] if b"USER" in found else []
        ways += [name for name in found.mechanisms if name in (b"PLAIN", b"LOGIN")]
        require(not ways, f"in the clear {b', '.join(ways).decode()} is announced")
