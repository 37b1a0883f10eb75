"""From a reply to octets: codes, lines and enhanced status codes (RFC 5321 section 4.2, RFC 2034).

Replies that belong together are made in one piece, so that they leave in one.  Nothing here knows a state,
a store or a transport.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from ..interfaces import After, Challenge
from . import limits

__all__ = ["Answer", "Replies", "Reply", "encode"]


class Reply(NamedTuple):
    """One reply."""

    code: int
    #: A line, or several.
    text: str | tuple[str, ...]
    #: The enhanced status code (RFC 3463); the replies to HELO, EHLO and LHLO, and 354, have none.
    enhanced: str = ""
    after: After = After.GO_ON
    #: Called when the last octet was handed to the writer.
    done: Callable[[], object] | None = None


class Replies(NamedTuple):
    """Several at once: one for each recipient (RFC 2033 section 4.2), or 421 behind a last mistake."""

    replies: tuple[Reply, ...]
    after: After = After.GO_ON
    done: Callable[[], object] | None = None


#: What a command is answered with.
Answer: TypeAlias = "Reply | Replies | Challenge"


def encode(answer: Answer, at_once: bool = False) -> bytes:
    """Make the octets of an answer.

    :param at_once: has no meaning here, since no reply of SMTP is pulled.
    """
    if isinstance(answer, Challenge):
        # RFC 4954 section 4: an empty challenge keeps the space.
        return b"334 " + binascii.b2a_base64(answer.data, newline=False) + b"\r\n"
    encoded = b""
    for reply in answer.replies if isinstance(answer, Replies) else (answer,):
        lines = (reply.text,) if isinstance(reply.text, str) else reply.text
        for number, line in enumerate(lines, 1):
            # RFC 5321 section 4.2.1: a hyphen says that another line follows.
            mark = " " if number == len(lines) else "-"
            text = (
                f"{reply.code}{mark}{reply.enhanced} {line}"
                if reply.enhanced
                else f"{reply.code}{mark}{line}"
            )
            if not (text.isascii() and text.isprintable()):
                # A SASL mechanism of another program may have said it; a line end in it would begin a reply.
                text = "".join([c if " " <= c <= "~" else "?" for c in text])
            encoded += text[: limits.REPLY_LINE - 2].encode("ascii") + b"\r\n"
    return encoded
