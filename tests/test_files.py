"""Reading what others own, and writing what has its name when it is whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.files import new_file, open_regular
from pop3toy.stores.maildir.links import open_named

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

    def test_second_name(self) -> None:
        """A file with two names is read if it is the folder's owner's, and not if it is another's."""
        (self.path / "file").write_bytes(b"octets")
        os.link(self.path / "file", self.path / "again")
        with open_regular("again", self.folder) as file:
            self.assertEqual(file.read(), b"octets")
        if os.geteuid():
            raise SkipTest("only root can make a file of somebody else's")
        os.chown(self.path / "file", 4711, 4711)
        self.assertRaises(PermissionError, open_regular, "again", self.folder)
        os.unlink(self.path / "file")
        # Somebody else has put it there.
        open_regular("again", self.folder).close()


class OpenNamedTests(SynchronousTestCase):
    """``open_named``: a way on which others can put links."""

    def setUp(self) -> None:
        self.path = new_folder(self)
        self.mine = self.path / "ann"
        (self.path / "bob" / "mail").mkdir(parents=True)
        (self.path / "bob" / "mail" / "box").write_bytes(b"octets")
        self.mine.mkdir()

    def read(self, path: Path | str) -> bytes:
        with open(open_named(str(path), os.O_RDONLY), "rb") as file:
            return file.read()

    def test_followed(self) -> None:
        """Links of this process lead on, in the middle and at the end, up and to whole paths."""
        (self.mine / "mail").symlink_to("../bob/mail")
        (self.mine / "box").symlink_to(self.path / "bob" / "mail" / "box")
        before = len(os.listdir("/proc/self/fd"))
        for path in (self.mine / "mail" / "box", self.mine / "box", os.path.relpath(self.mine / "box")):
            self.assertEqual(self.read(path), b"octets")
        os.close(open_named(str(self.mine / "mail"), os.O_RDONLY | os.O_DIRECTORY))
        self.assertRaises(FileNotFoundError, self.read, self.mine / "none")
        self.assertRaises(NotADirectoryError, self.read, self.mine / "box" / "x")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_not_followed(self) -> None:
        """A user's link leads to nothing of another's, wherever it stands; the whole name is told."""
        if os.geteuid():
            raise SkipTest("only root can make a link of somebody else's")
        (self.mine / "mail").symlink_to("../bob/mail")
        (self.mine / "box").symlink_to(self.path / "bob" / "mail" / "box")
        (self.mine / "again").hardlink_to(self.path / "bob" / "mail" / "box")
        for owned in (self.mine, self.mine / "mail", self.mine / "box"):
            os.lchown(owned, 4711, 4711)
        for path in (self.mine / "mail" / "box", self.mine / "box", self.mine / "again"):
            error = self.assertRaises(PermissionError, self.read, path)
            self.assertEqual(getattr(error, "filename", ""), str(path))
        self.assertEqual(self.read(self.path / "bob" / "mail" / "box"), b"octets")

    def test_nothing_else(self) -> None:
        """A FIFO, for which one would wait, is none of it."""
        os.mkfifo(self.mine / "fifo")
        self.assertRaises(OSError, self.read, self.mine / "fifo")


class NewFileTests(SynchronousTestCase):
    """``new_file``."""

    def setUp(self) -> None:
        self.path = new_folder(self)

    def write(self, path: Path, *, replace: bool = True) -> None:
        with new_file(path, replace=replace) as file:
            file.write(b"octets")

    def test_whole(self) -> None:
        """It has its name when it is whole, is private, and replaces what is there only if that is asked."""
        path = self.path / "file"
        with new_file(path) as file:
            file.write(b"octets")
            self.assertFalse(path.exists())
        self.assertEqual((path.read_bytes(), path.stat().st_mode & 0o777), (b"octets", 0o600))
        path.write_bytes(b"old")
        self.assertRaises(FileExistsError, self.write, path, replace=False)
        self.assertEqual(path.read_bytes(), b"old")
        self.write(path)
        self.assertEqual((path.read_bytes(), os.listdir(self.path)), (b"octets", ["file"]))

    def test_without_links(self) -> None:
        """Nor is it on a file system without hard links."""
        self.patch(os, "link", self.fails(errno.EPERM))
        path = self.path / "file"
        self.write(path, replace=False)
        self.assertRaises(FileExistsError, self.write, path, replace=False)
        self.assertEqual((path.read_bytes(), os.listdir(self.path)), (b"octets", ["file"]))

    def fails(self, code: int) -> object:
        def fail(*words: object, **named: object) -> None:
            # As the system does it: with the names that it was given.
            raise OSError(code, os.strerror(code), *words[:1])

        return fail

    def test_told_by_its_name(self) -> None:
        """Whatever goes wrong is told by the name that was asked for, and nothing is left."""
        for function in ("fsync", "replace"):
            real = getattr(os, function)
            self.patch(os, function, self.fails(errno.EIO) if function == "replace" else self.full)
            error = self.assertRaises(OSError, self.write, self.path / "file")
            self.assertEqual(getattr(error, "filename", ""), str(self.path / "file"))
            self.assertEqual(os.listdir(self.path), [])
            self.patch(os, function, real)
        for missing in ("none/file", "none/deeper/file"):
            error = self.assertRaises(FileNotFoundError, self.write, self.path / missing)
            self.assertEqual(getattr(error, "filename", ""), str(self.path / missing))

    def full(self, descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def test_others_trouble(self) -> None:
        """Trouble of the block with another file is that file's."""

        def write() -> None:
            with new_file(self.path / "file"):
                open(self.path / "other", "rb").close()

        error = self.assertRaises(FileNotFoundError, write)
        self.assertEqual(getattr(error, "filename", ""), str(self.path / "other"))
        self.assertEqual(os.listdir(self.path), [])
