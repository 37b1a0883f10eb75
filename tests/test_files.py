"""Reading what others own."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.files import open_regular

from .folders import new_folder


class OpenRegularTests(SynchronousTestCase):
    """``open_regular``."""

    def setUp(self) -> None:
        self.path = new_folder(self)
        self.folder = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, self.folder)

    def test_read(self) -> None:
        """A file is read, with and without a buffer."""
        (self.path / "file").write_bytes(b"octets")
        for buffering in (-1, 0):
            with open_regular("file", self.folder, buffering=buffering) as file:
                self.assertEqual(file.read(), b"octets")

    def test_nothing_else(self) -> None:
        """What is no file is refused at once, and no descriptor stays open."""
        (self.path / "folder").mkdir()
        os.mkfifo(self.path / "fifo")
        os.symlink("/etc/hostname", self.path / "link")
        before = os.listdir("/proc/self/fd")
        for name in ("folder", "fifo", "link", "missing"):
            self.assertRaises(OSError, open_regular, name, self.folder)
        self.assertEqual(os.listdir("/proc/self/fd"), before)
