"""Whether two messages are the same letter, for administrators who look through a mailbox."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from ..mail.octets import OctetCounter

__all__ = ["HEADER", "look_at"]

#: Octets in which a header ends, as far as anybody looks for its Message-ID; what is no message may have no
#: end of a header at all.
HEADER = 1024 * 1024

_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>]*>)", re.IGNORECASE | re.MULTILINE)
_END_OF_HEADER = re.compile(rb"\n\r*+\n")


def look_at(chunks: Iterable[bytes]) -> tuple[int, tuple[bytes, bytes]]:
    """A message's octets as POP3 sends it (RFC 1939 section 11), and what it shares with the same letter.

    The same letter that came twice differs in Received; without a Message-ID only what is the same octet for
    octet is taken for that.

    :param chunks: the whole message as it is kept; of the first one, ``HEADER`` octets if there are so many.
    """
    wire, whole, body, header = OctetCounter(), hashlib.sha256(), hashlib.sha256(), None
    for chunk in chunks:
        wire.feed(chunk)
        whole.update(chunk)
        if header is None:
            end = _END_OF_HEADER.search(chunk)
            header = chunk[: end.start()] if end else chunk
            chunk = chunk[end.end() :] if end else b""
        body.update(chunk)
    wire.finish()
    ident = _MESSAGE_ID.search(header or b"")
    return wire.octets, (ident[1], body.digest()) if ident else (b"", whole.digest())
