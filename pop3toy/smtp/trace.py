"""The headers that a delivery adds: Return-Path and Received (RFC 5321 section 4.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate

from ..addresses import Address

__all__ = ["original_to", "received", "return_path"]


def return_path(sender: Address | None) -> bytes:
    """The sender of the envelope, where a bounce would go."""
    return f"Return-Path: <{sender.written if sender else ''}>\r\n".encode()


def original_to(recipients: Sequence[Address]) -> bytes:
    """A line for each recipient, as Postfix writes it."""
    return b"".join(f"X-Original-To: {recipient.written}\r\n".encode() for recipient in recipients)


def received(
    *,
    helo: bytes,
    peer: str,
    by: bytes,
    protocol: str,
    queue_id: str,
    recipient: Address | None,
    seconds: float,
) -> bytes:
    """How the message came here.

    :param helo: what the client called itself; anything may stand there.
    :param peer: the address that it really has.
    :param by: this server's name.
    :param protocol: the registered keyword, such as ``ESMTPS`` (RFC 3848).
    :param queue_id: the name that the log knows this message by.
    :param recipient: the only one; of several none is named, or they would learn of one another.
    :param seconds: the time of day.
    """
    # Nothing that ends a comment or a line, or the client would write headers.
    name = re.sub(rb"[^A-Za-z0-9.:_\[\]-]", b"?", helo[:255]) or b"unknown"
    # RFC 5321 section 4.1.3: an address of IPv6 says so.
    address = f"IPv6:{peer.partition('%')[0]}" if ":" in peer else peer
    where = "unix socket" if peer == "unix" else f"[{address}]"
    for_whom = f"\r\n\tfor <{recipient.written}>" if recipient else ""
    return (
        b"Received: from %b (%b)\r\n\tby %b (pop3toy) with %b id %b"
        % (name, where.encode("ascii", "replace"), by, protocol.encode("ascii"), queue_id.encode("ascii"))
        + for_whom.encode()
        + f";\r\n\t{formatdate(seconds, localtime=True)}\r\n".encode()
    )
