"""HMAC-MD5 from what Dovecot keeps of a password for CRAM-MD5 (RFC 2104, 2195).

``{CRAM-MD5}`` holds the two states that MD5 has after the block of the outer
and of the inner key: enough to compute a digest, but not the password.  No
library starts MD5 from a given state, so its rounds (RFC 1321) are here.
"""

from __future__ import annotations

import hashlib
import struct
from functools import reduce
from math import floor, sin

__all__ = ["contexts", "digest"]

_BLOCK = 64
_START = struct.pack("<4I", 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_SINES = [floor(abs(sin(step + 1)) * 2**32) for step in range(64)]
_SHIFTS = [
    shift for row in ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21)) for shift in row * 4
]
_WORDS = [
    *range(16),
    *((5 * step + 1) % 16 for step in range(16)),
    *((3 * step + 5) % 16 for step in range(16)),
    *(7 * step % 16 for step in range(16)),
]
_FUNCTIONS = (
    lambda b, c, d: b & c | ~b & d,
    lambda b, c, d: d & b | ~d & c,
    lambda b, c, d: b ^ c ^ d,
    lambda b, c, d: c ^ (b | ~d),
)


def _step(state: bytes, block: bytes) -> bytes:
    """MD5's state (16 octets) after one more block (64 octets)."""
    words = struct.unpack("<16I", block)
    a, b, c, d = before = struct.unpack("<4I", state)
    for step in range(64):
        mixed = a + _FUNCTIONS[step // 16](b, c, d) + _SINES[step] + words[_WORDS[step]] & 0xFFFFFFFF
        shift = _SHIFTS[step]
        a, b, c, d = d, b + (mixed << shift | mixed >> 32 - shift) & 0xFFFFFFFF, b, c
    return struct.pack(
        "<4I", *(old + new & 0xFFFFFFFF for old, new in zip(before, (a, b, c, d), strict=True))
    )


def _finish(state: bytes, rest: bytes) -> bytes:
    """The MD5 of a block that led to this state and the rest of the text."""
    padding = b"\x80" + b"\0" * ((55 - len(rest)) % _BLOCK)
    rest += padding + struct.pack("<Q", 8 * (_BLOCK + len(rest)))
    return reduce(_step, (rest[at : at + _BLOCK] for at in range(0, len(rest), _BLOCK)), state)


def contexts(password: bytes) -> bytes:
    """The outer and the inner state of a password, 32 octets."""
    if len(password) > _BLOCK:
        password = hashlib.md5(password, usedforsecurity=False).digest()
    key = password.ljust(_BLOCK, b"\0")
    return b"".join(_step(_START, bytes(octet ^ pad for octet in key)) for pad in (0x5C, 0x36))


def digest(kept: bytes, text: bytes) -> bytes:
    """The HMAC-MD5 of a text, 16 octets.

    :param kept: what :func:`contexts` gives.
    """
    return _finish(kept[:16], _finish(kept[16:], text))
