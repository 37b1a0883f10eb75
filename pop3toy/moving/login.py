"""By which way a client logs in.

Within TLS the password itself is sent: SASL PLAIN, LOGIN, or USER and PASS.  Without, APOP comes first where
the greeting offers it; since servers offer it also to users who cannot have it, they try the others then.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Final, TypeAlias

from .client import Client, LoginRefused, Reply
from .server import Server

__all__ = ["log_in", "session"]

_Way: TypeAlias = Callable[[Client, bytes, bytes], Reply | bytes]


def session(server: Server, user: str, password: str, clock: Callable[[], float]) -> Client:
    """A connection on which somebody has logged in.

    :param clock: seconds, of a clock that nobody sets.
    :raises pop3toy.moving.client.LoginRefused: if the server refuses the name and the password.
    :raises pop3toy.moving.server.Trouble: if it comes to none for another reason.
    """
    client = Client(server, clock)
    try:
        log_in(client, user, password)
    except BaseException:
        client.close()
        raise
    return client


def log_in(client: Client, user: str, password: str) -> None:
    """Log in, and ask again what is announced.

    :raises pop3toy.moving.client.LoginRefused: if the server refuses.
    :raises pop3toy.moving.server.Trouble: if it does not answer.
    """
    name, secret = user.encode("utf-8"), password.encode("utf-8")
    client.hide(password, *(base64.b64encode(one).decode("ascii") for one in (secret, _plain(name, secret))))
    if not secret or any(octet in name + secret for octet in b"\0\r\n"):
        raise LoginRefused(
            f"{client.server}: no name and no password is empty or has the end of a line in it"
        )
    reply: Reply | bytes = b""
    for way in _ways(client):
        reply = way(client, name, secret)
        if isinstance(reply, bytes):
            # A challenge where there should be an end.
            reply = client.ask("AUTH", sent=b"*")
            break
        if reply.ok:
            client.ask_capabilities()
            return
        if way is not _apop or reply.code not in ("", "AUTH"):
            break
    else:
        raise LoginRefused(f"{client.server} offers no way to log in with a password")
    code = reply.code.partition("/")[0]
    what = {
        "IN-USE": "is busy with another session of {}",
        "LOGIN-DELAY": "wants a longer wait before the next login of {}",
        "SYS": "cannot serve {} now",
    }.get(code, "refuses the login of {}, are name and password right?")
    raise LoginRefused(f"{client.server} {what.format(user)} ({reply.text})", code=reply.code)


def _ways(client: Client) -> list[_Way]:
    capabilities = client.capabilities
    mechanisms = {one.upper() for one in capabilities.get("SASL", ())}
    ways: list[_Way] = []
    if client.timestamp and not client.encrypted:
        ways.append(_apop)
    if "PLAIN" in mechanisms:
        ways.append(_sasl_plain)
    elif "LOGIN" in mechanisms:
        ways.append(_sasl_login)
    elif not capabilities or "USER" in capabilities or not client.timestamp:
        # RFC 1939 knows no CAPA, and some servers leave USER out of theirs.
        ways.append(_user)
    elif client.encrypted:
        ways.append(_apop)
    return ways


def _plain(name: bytes, secret: bytes) -> bytes:
    return b"\0" + name + b"\0" + secret


def _sasl_plain(client: Client, name: bytes, secret: bytes) -> Reply | bytes:
    """RFC 4616, with an initial response if it fits into a line (RFC 5034 section 4)."""
    response = base64.b64encode(_plain(name, secret))
    if len(response) <= _FITS:
        return client.ask_sasl("AUTH PLAIN", b"AUTH PLAIN " + response)
    reply = client.ask_sasl("AUTH PLAIN", b"AUTH PLAIN")
    return client.ask_sasl("AUTH PLAIN", response) if isinstance(reply, bytes) else reply


#: Octets of an initial response in a line of 255 (RFC 2449 section 4).
_FITS: Final = 255 - len(b"AUTH PLAIN \r\n")


def _sasl_login(client: Client, name: bytes, secret: bytes) -> Reply | bytes:
    """Two prompts, whatever they say."""
    reply = client.ask_sasl("AUTH LOGIN", b"AUTH LOGIN")
    for answer in (name, secret):
        if not isinstance(reply, bytes):
            break
        reply = client.ask_sasl("AUTH LOGIN", base64.b64encode(answer))
    return reply


def _user(client: Client, name: bytes, secret: bytes) -> Reply | bytes:
    """RFC 1939 section 7."""
    reply = client.ask("USER", sent=b"USER " + name)
    return client.ask("PASS", sent=b"PASS " + secret) if reply.ok else reply


def _apop(client: Client, name: bytes, secret: bytes) -> Reply | bytes:
    """RFC 1939 section 7."""
    digest = hashlib.md5(client.timestamp + secret, usedforsecurity=False).hexdigest()
    return client.ask("APOP", sent=b"APOP " + name + b" " + digest.encode("ascii"))
