"""crypt(3) of the system's libcrypt, for the hashes that no Python library checks: yescrypt.

libxcrypt, which most distributions of Linux have, keeps what it needs in memory of
the caller's and so works in threads; other libraries of that name are left alone.
"""

from __future__ import annotations

import ctypes
import hmac
from functools import cache
from typing import Any

__all__ = ["verify", "yescrypt_works"]

_NAMES = ("libcrypt.so.1", "libcrypt.so.2")
#: ``struct crypt_data`` of libxcrypt.
_MEMORY = 32_768
#: Of "x", with the least to compute.
_KNOWN = b"$y$j75$abcdefghijklmnop$c.lzC1pTolfLAI1s1X79ztlevV1wV8wSysz7T8TNUjD"


@cache
def _library() -> Any:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
            library.crypt_rn.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)
            library.crypt_rn.restype = ctypes.c_char_p
        except (OSError, AttributeError):
            continue
        return library
    return None


@cache
def yescrypt_works() -> bool:
    """Whether the system's library checks yescrypt."""
    return _library() is not None and verify(_KNOWN, b"x")


def verify(stored: bytes, password: bytes) -> bool:
    """Whether a password fits; for yescrypt some hundredths of a second and 16 MB of memory.

    :param stored: as crypt(3) writes it.
    """
    if b"\0" in password:
        return False
    made = _library().crypt_rn(password, stored, ctypes.create_string_buffer(_MEMORY), _MEMORY)
    return made is not None and hmac.compare_digest(made, stored)
