"""From a reply to octets: codes, lines and enhanced status codes (RFC 5321 section 4.2, RFC 2034).

Each reply leaves in one piece, and so do several that belong together.  Nothing here knows a state,
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
    #: The enhanced status code (RFC 3463); the replies to the greetings, and 354, have none.
    enhanced: str = ""
    after: After = After.GO_ON
    #: Called when the last octet was handed to the writer.
    done: Callable[[], object] | None = None


class Replies(NamedTuple):
    """Several in one go: one for each recipient (RFC 2033 section 4.2), or 421 behind a last mistake."""

    replies: tuple[Reply, ...]
    after: After = After.GO_ON
    done: Callable[[], object] | None = None


#: What a command is answered with.
Answer: TypeAlias = "Reply | Replies | Challenge"


def encode(answer: Answer, at_once: bool = False) -> bytes:
    """Make the octets of a reply.

    :param at_once: of no account: nothing has to be pulled.
    """
    if isinstance(answer, Reply):
        return _reply(answer)
    if isinstance(answer, Replies):
        return b"".join(map(_reply, answer.replies))
    # RFC 4954 section 4: an empty challenge keeps the space.
    return b"334 " + binascii.b2a_base64(answer.data, newline=False) + b"\r\n"


def _reply(reply: Reply) -> bytes:
    lines = (reply.text,) if isinstance(reply.text, str) else reply.text
    code = f"{reply.code} {reply.enhanced} " if reply.enhanced else f"{reply.code} "
    made = [_line(f"{code}{line}") for line in lines]
    # RFC 5321 section 4.2.1: a hyphen says that another line follows.
    made[:-1] = [line[:3] + b"-" + line[4:] for line in made[:-1]]
    return b"".join(made)


def _line(text: str) -> bytes:
    if not (text.isascii() and text.isprintable()):
        # Somebody else's mechanism said it; a line end in it would be a reply of its own.
        text = "".join([c if " " <= c <= "~" else "?" for c in text])
    return text[: limits.REPLY_LINE - 2].encode("ascii") + b"\r\n"
