"""What may be a unique-id of a message (RFC 1939 section 7)."""

from __future__ import annotations

import re

from .. import limits

__all__ = ["unique_id_is_valid"]

_UID = re.compile(rb"[\x21-\x7e]{1,%d}" % limits.UID)


def unique_id_is_valid(uid: bytes) -> bool:
    """Whether it is "one to 70 characters in the range 0x21 to 0x7E" (RFC 1939 section 7).

    :param uid: of any length.
    """
    return _UID.fullmatch(uid) is not None
