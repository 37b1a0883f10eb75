"""What can be known of a file system, and opened in it, without waiting for it.

A disk or a server in the network that does not answer holds up whoever asks it.  The reactor's
thread asks for what the kernel has at hand alone (Linux 5.12, ``openat2`` with ``RESOLVE_CACHED``),
and only where the file system is one of this machine's disks: with NFS, FUSE and the like even
what is cached may have to be confirmed.

Knows nothing of mail.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from collections.abc import Callable
from functools import cache
from typing import Final, TypeAlias

from twisted.internet.interfaces import IReactorTime

from ...clock import steady

__all__ = ["HOLD_FOLDER", "Mounts", "OpenCached", "cached_opener", "is_local", "open_folder_cached"]

_OPENAT2: Final = 437
_AT_FDCWD: Final = -100
_NO_XDEV, _NO_SYMLINKS, _BENEATH, _CACHED = 0x01, 0x04, 0x08, 0x20

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: For going on from there, nothing else: a file system is not even asked.
HOLD_FOLDER: Final = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC

#: ``f_type`` of file systems that are on a disk of this machine, or in its memory (statfs(2)).
_LOCAL: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        0x2FC12FC1,  # ZFS
        0xF2F52010,  # F2FS
        0xCA451A4E,  # bcachefs
        0x3153464A,  # JFS
        0x52654973,  # ReiserFS
        0x01021994,  # tmpfs
        0x858458F6,  # ramfs
        0x794C7630,  # overlayfs, as in containers
    }
)


#: Opens in a folder (a descriptor) what has this name; ``None`` if that is not at hand, for any error, and
#: where there is no such call.
OpenCached: TypeAlias = "Callable[[int, str], int | None]"


@cache
def _syscall() -> Callable[[int, int, bytes, bytes, int], int] | None:
    """For the call that Python does not have: number, folder, path, ``struct open_how`` and its size."""
    # PyDLL keeps the interpreter's lock, because it never waits.  Without a word about types, which ctypes
    # takes from small numbers and octets as well, it costs little more than os.open; else twice that.
    return ctypes.PyDLL(None).syscall if sys.platform == "linux" else None


def _how(flags: int, resolve: int) -> bytes:
    """A ``struct open_how``."""
    return struct.pack("@QQQ", flags, 0, resolve)


_BELOW: Final = _CACHED | _NO_XDEV | _NO_SYMLINKS | _BENEATH
_HOW_ROOT: Final = _how(HOLD_FOLDER, _CACHED)
_HOW_FOLDER: Final = _how(_FOLDER, _BELOW)
_SIZE: Final = len(_HOW_ROOT)


def cached_opener(flags: int) -> OpenCached:
    """What opens files in local folders as far as that needs nothing from the disk; no link is followed.

    :param flags: of ``os.open``.
    """
    how, encoded = _how(flags, _BELOW), os.fsencode
    syscall = _syscall()
    if syscall is None:
        return lambda folder, name: None

    def open_cached(folder: int, name: str) -> int | None:
        opened = syscall(_OPENAT2, folder, encoded(name), how, _SIZE)
        return opened if opened >= 0 else None

    return open_cached


def open_folder_cached(root: bytes, path: str) -> int | None:
    """The same for a folder below another one.

    :param root: may be reached through links; was on a local disk (:func:`is_local`).  If another file
        system has come into its place, nothing of that is at hand.
    """
    syscall = _syscall()
    if syscall is None or (held := syscall(_OPENAT2, _AT_FDCWD, root, _HOW_ROOT, _SIZE)) < 0:
        return None
    opened = syscall(_OPENAT2, held, os.fsencode(path), _HOW_FOLDER, _SIZE)
    os.close(held)
    return opened if opened >= 0 else None


@cache
def _fstatfs() -> Callable[[int, ctypes.Array[ctypes.c_char]], int] | None:
    if sys.platform != "linux":
        return None
    fstatfs = ctypes.CDLL(None).fstatfs
    fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]
    return fstatfs


def is_local(fd: int) -> bool:
    """Whether what is open is on a disk of this machine; false where that is not known.  Blocks."""
    fstatfs = _fstatfs()
    # Larger than any struct statfs.
    status = (ctypes.c_char * 256)()
    if fstatfs is None or fstatfs(fd, status) != 0:
        return False
    kind: int = struct.unpack_from("@l", status)[0]
    return kind & 0xFFFFFFFF in _LOCAL


#: Seconds for which the table of mounts is believed.
_BELIEVED: Final = 5.0
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mounts:
    """Which file system a path is on, as far as its mere text tells: links are not looked at.

    :param clock: for durations.
    :param table: what the kernel tells of mounts; without it all is one file system.
    """

    def __init__(self, clock: IReactorTime, table: str = "/proc/self/mountinfo") -> None:
        self._clock: IReactorTime = steady(clock)
        self._table = table
        self._points: frozenset[str] = frozenset()
        self._read_at: float | None = None

    def point(self, path: str) -> str:
        """The mount point that an absolute path is below of."""
        now = self._clock.seconds()
        if self._read_at is None or now - self._read_at >= _BELIEVED:
            self._points, self._read_at = self._read(), now
        while path not in self._points and path != (above := os.path.dirname(path)):
            path = above
        return path

    def _read(self) -> frozenset[str]:
        try:
            with open(self._table, "rb") as table:
                # proc(5): the fifth field, in which blanks are octal.
                fields = [line.split(b" ", 5)[4] for line in table]
        except (OSError, IndexError):
            return frozenset()
        return frozenset(
            os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field)) for field in fields
        )
