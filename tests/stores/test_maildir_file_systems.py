"""What is known of file systems without waiting for them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from unittest import skipUnless

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.maildir.file_systems import Mounts, cached_opener, is_local, open_folder_cached

from ..folders import new_folder
from ..store_world import DeadDisk, tmpfs, watched_descriptors

#: Seconds after which what waits is a failed test.
PATIENCE = 20.0

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _FILE | os.O_DIRECTORY


def kernel_can() -> bool:
    """Whether this kernel opens what is at hand, and nothing else (Linux 5.12)."""
    opened = open_folder_cached(b"/", "proc/self/../self") or open_folder_cached(b"/", ".")
    if opened is not None:
        os.close(opened)
    return opened is not None


@skipUnless(kernel_can(), "no openat2 with RESOLVE_CACHED here")
class CachedTests(SynchronousTestCase):
    """Opening what is at hand."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        (self.root / "ann" / "new").mkdir(parents=True)
        (self.root / "ann" / "new" / "1.a").write_bytes(b"x")

    def open(self, path: str, root: Path | None = None) -> str | None:
        """What was opened below a root, or ``None``."""
        fd = open_folder_cached(os.fsencode(root or self.root), path)
        if fd is None:
            return None
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def test_folder(self) -> None:
        """A folder that was used a moment ago is at hand, also through links above the root."""
        with watched_descriptors():
            self.assertEqual(f"{self.root}/ann/new", self.open("ann/new"))
            link = self.root / "link"
            link.symlink_to(self.root / "ann")
            self.assertEqual(f"{self.root}/ann/new", self.open("new", link))

    def test_not_below(self) -> None:
        """What is missing, no folder, a link or above the root is not opened."""
        (self.root / "link").symlink_to("ann")
        with watched_descriptors():
            for path in ("bob", "ann/new/1.a", "link", "link/new", "..", "ann/../..", "/"):
                self.assertIsNone(self.open(path), path)
            self.assertIsNone(self.open("new", self.root / "nobody"))

    def test_another_file_system(self) -> None:
        """What has another file system in its place is not opened."""
        with tmpfs("size=1m") as other, watched_descriptors():
            self.assertIsNone(self.open(other.name, other.parent))
            self.assertIsNotNone(self.open(self.root.name, self.root.parent))

    def test_file(self) -> None:
        """A message's file is opened if it is at hand, and not through a link."""
        (self.root / "ann" / "new" / "2.link").symlink_to("1.a")
        opener, folders = cached_opener(_FILE), cached_opener(_FOLDER)
        with watched_descriptors():
            root = os.open(self.root / "ann", _FOLDER)
            folder = folders(root, "new")
            assert folder is not None
            file = opener(folder, "1.a")
            assert file is not None
            self.assertEqual(b"x", os.read(file, 9))
            for name in ("2.link", "3", "../new/1.a"):
                self.assertIsNone(opener(folder, name), name)
            self.assertIsNone(folders(folder, "1.a"))
            for fd in (file, folder, root):
                os.close(fd)

    def test_not_at_hand(self) -> None:
        """What would have to be asked for, of a disk that does not answer, is not opened or waited for."""
        disk = DeadDisk(self.root / "ann")
        rescue = threading.Timer(PATIENCE, disk.answer)
        rescue.start()
        try:
            began = time.monotonic()
            with watched_descriptors():
                self.assertIsNone(self.open("ann"))
                self.assertIsNone(self.open("new", self.root / "ann"))
                self.assertIsNone(self.open("ann/new"))
            self.assertLess(time.monotonic() - began, PATIENCE)
        finally:
            rescue.cancel()
            disk.answer()

    def test_is_local(self) -> None:
        """A disk in memory is one of this machine; what the kernel tells of processes is no disk."""
        with tmpfs("size=1m") as place:
            local, other = os.open(place, _FOLDER), os.open("/proc", _FOLDER)
            try:
                self.assertTrue(is_local(local))
                self.assertFalse(is_local(other))
            finally:
                os.close(local)
                os.close(other)


class MountsTests(SynchronousTestCase):
    """Which file system a path is on, by the table of mounts."""

    def setUp(self) -> None:
        self.table = Path(self.mktemp())
        self.clock = Clock()

    def write(self, *points: str) -> Mounts:
        """A table with these mount points, as the kernel writes it."""
        self.table.write_text(
            "".join(f"{n} 1 0:{n} / {point} rw,noatime - tmpfs none rw\n" for n, point in enumerate(points))
        )
        return Mounts(self.clock, str(self.table))

    def test_longest(self) -> None:
        """The nearest mount point above a path, or the path itself."""
        mounts = self.write("/", "/srv", "/srv/mail/bob", r"/srv/a\040b")
        for path, point in {
            "/srv/mail/ann": "/srv",
            "/srv/mail/bob": "/srv/mail/bob",
            "/srv/mail/bob/Maildir": "/srv/mail/bob",
            "/srv/mail/bobby": "/srv",
            "/srv/a b/c": "/srv/a b",
            "/home/ann": "/",
        }.items():
            self.assertEqual(point, mounts.point(path))

    def test_read_again(self) -> None:
        """What is mounted later is known some seconds later."""
        mounts = self.write("/")
        self.assertEqual("/", mounts.point("/srv/mail"))
        self.write("/", "/srv")
        self.assertEqual("/", mounts.point("/srv/mail"))
        self.clock.advance(5)
        self.assertEqual("/srv", mounts.point("/srv/mail"))

    def test_no_table(self) -> None:
        """Where the kernel tells nothing all is one file system."""
        self.assertEqual("/", Mounts(self.clock, str(self.table)).point("/srv/mail/ann"))
        self.table.write_text("nonsense\n")
        self.assertEqual("/", Mounts(self.clock, str(self.table)).point("/srv/mail/ann"))
