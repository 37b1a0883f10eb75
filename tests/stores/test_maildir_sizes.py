"""The file that remembers octets: a cache that nothing depends on."""

from __future__ import annotations

import os
import socket
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest import skipIf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.maildir.beside.sizes import FILE_NAME, Counted, load, save, size

from ..folders import new_folder
from ..store_world import make_read_only, tmpfs, watched_descriptors

SIZES = {
    b"1700000000.M1P1.mail": Counted(10, 1, 9, 1_700_000_000_000_000_000),
    b"x" * 70: Counted(0, 0, 0, 0),
    b"!~,=:": Counted(10**14, 2**64 - 1, 2**63 - 1, -(2**63)),
}
ONE = {b"a": Counted(1, 2, 3, 4)}


class SizesTests(SynchronousTestCase):
    """Loading and saving."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.file = self.root / FILE_NAME
        self.fd = os.open(self.root, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)

    def names(self) -> set[str]:
        """What lies in the directory."""
        return set(os.listdir(self.root))

    def test_round_trip(self) -> None:
        """What was saved is loaded, and there is one file."""
        with watched_descriptors():
            save(self.fd, SIZES)
            self.assertEqual(SIZES, load(self.fd, 9))
        self.assertEqual({FILE_NAME}, self.names())
        self.assertEqual(0o600, self.file.stat().st_mode & 0o777)

    def test_replaced(self) -> None:
        """Saving again forgets what was there."""
        save(self.fd, SIZES)
        save(self.fd, ONE)
        self.assertEqual(ONE, load(self.fd, 9))

    def test_missing(self) -> None:
        """No file, nothing known."""
        self.assertEqual({}, load(self.fd, 9))
        self.assertEqual(0, size(self.fd))

    def test_not_a_sub_folder(self) -> None:
        """Its name is none that Maildir++ or a scan would take for a folder or a message."""
        save(self.fd, SIZES)
        self.assertEqual([], [name for name in self.names() if name.startswith(".")])
        self.assertTrue(self.names().isdisjoint({"new", "cur", "tmp"}))

    def test_truncated(self) -> None:
        """A file that was cut anywhere is as good as none, or whole."""
        save(self.fd, SIZES)
        content = self.file.read_bytes()
        for length in range(len(content)):
            self.file.write_bytes(content[:length])
            self.assertEqual({}, load(self.fd, 9), length)

    def test_flipped_bits(self) -> None:
        """A file in which any octet changed is as good as none."""
        save(self.fd, SIZES)
        content = bytearray(self.file.read_bytes())
        for at in range(len(content)):
            content[at] ^= 1
            self.file.write_bytes(content)
            self.assertEqual({}, load(self.fd, 9), at)
            content[at] ^= 1

    @given(st.binary(max_size=60))
    def test_garbage(self, garbage: bytes) -> None:
        """Garbage is as good as none, also behind a first line that is right."""
        with tempfile.TemporaryDirectory() as root:
            fd = os.open(root, os.O_RDONLY)
            try:
                for content in (garbage, b"pop3toy-sizes 2 00000000\n" + garbage):
                    (Path(root) / FILE_NAME).write_bytes(content)
                    self.assertEqual({}, load(fd, 9))
            finally:
                os.close(fd)

    def test_sizes_that_are_none(self) -> None:
        """A whole file that somebody wrote by hand gives no octets that are no number."""
        for number in (b"-5", b"1_0", b" 5", b"+5", b"", b"x", b"9" * 5000):
            body = number + b" 2 3 4 a\n7 2 3 4 b\n"
            checksum = b"%08x" % zlib.crc32(body)
            self.file.write_bytes(b"pop3toy-sizes 2 " + checksum + b"\n" + body)
            sizes = load(self.fd, 9)
            self.assertEqual(Counted(7, 2, 3, 4), sizes[b"b"])
            self.assertTrue(all(0 <= counted.octets < 10**15 for counted in sizes.values()), sizes)

    def test_something_else_in_its_place(self) -> None:
        """A folder, FIFO, socket or link in its place is no cache, holds nobody up, and leaks nothing."""
        secret = self.root / "elsewhere"

        def link() -> None:
            fd = os.open(self.root, os.O_RDONLY)
            save(fd, SIZES)
            os.close(fd)
            os.rename(self.file, secret)
            self.file.symlink_to(secret)

        def unix_socket() -> None:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(os.fspath(self.file))

        makers: list[Callable[[], None]] = [
            self.file.mkdir,
            lambda: os.mkfifo(self.file),
            unix_socket,
            link,
        ]
        for make in makers:
            make()
            with watched_descriptors():
                self.assertEqual({}, load(self.fd, 9))
                save(self.fd, ONE)
            if self.file.is_dir():
                self.assertEqual({}, load(self.fd, 9))
                self.file.rmdir()
            else:
                self.assertEqual(ONE, load(self.fd, 9))
                self.assertFalse(self.file.is_symlink())
                self.file.unlink()
            self.assertEqual(set(), self.names() - {secret.name})
        self.assertEqual(b"pop3toy", secret.read_bytes()[:7])

    def test_something_else_in_the_place_of_the_new_one(self) -> None:
        """A FIFO, link or leftover where the new file is written is put aside; a folder is left alone."""
        temporary = self.root / f"{FILE_NAME}.tmp"
        victim = self.root / "victim"
        victim.write_bytes(b"mine")
        for make in (
            lambda: os.mkfifo(temporary),
            lambda: temporary.symlink_to(victim),
            lambda: temporary.hardlink_to(victim),
            lambda: temporary.write_bytes(b"x" * 1000),
        ):
            make()
            with watched_descriptors():
                save(self.fd, SIZES)
            self.assertEqual(SIZES, load(self.fd, 9))
            self.assertFalse(temporary.exists())
            self.file.unlink()
        self.assertEqual(b"mine", victim.read_bytes())
        temporary.mkdir()
        with watched_descriptors():
            save(self.fd, SIZES)
        self.assertEqual({}, load(self.fd, 9))

    def test_huge(self) -> None:
        """A file larger than any cache is not read into memory."""
        with self.file.open("wb") as file:
            file.truncate(1 << 40)
        self.assertEqual({}, load(self.fd, 9))

    def test_larger_than_the_messages_need(self) -> None:
        """How large a file may be depends on how many messages there are, and not on who wrote it."""
        many = {b"%070d" % number: Counted(number, 2, 3, 4) for number in range(20_000)}
        save(self.fd, many)
        self.assertGreater(size(self.fd), 1024 * 1024)
        self.assertEqual({}, load(self.fd, 10))
        self.assertEqual(many, load(self.fd, 20_000))

    def test_replaced_in_one_step(self) -> None:
        """Who reads while it is written sees the old file or the new one, never a part."""
        save(self.fd, SIZES)
        replace = os.replace
        seen = []

        def spy(*args: object, **options: object) -> None:
            seen.append(load(self.fd, 9))
            replace(*args, **options)  # type: ignore[arg-type]

        self.patch(os, "replace", spy)
        save(self.fd, ONE)
        self.assertEqual([SIZES], seen)
        self.assertEqual(ONE, load(self.fd, 9))

    @skipIf(os.getuid() != 0, "needs root to mount a small file system")
    def test_full_disk(self) -> None:
        """On a full disk saving does nothing: the old file stays, no part of a new one is left."""
        with tmpfs("size=64k") as root:
            fd = os.open(root, os.O_RDONLY)
            try:
                save(fd, SIZES)
                with watched_descriptors():
                    save(fd, {b"%070d" % number: Counted(number, 2, 3, 4) for number in range(2000)})
                self.assertEqual(SIZES, load(fd, 9))
                self.assertEqual([FILE_NAME], os.listdir(root))
            finally:
                os.close(fd)

    @skipIf(os.getuid() != 0, "needs root to mount a small file system")
    def test_read_only(self) -> None:
        """On a file system that is read-only saving does nothing."""
        with tmpfs("size=64k") as root:
            fd = os.open(root, os.O_RDONLY)
            try:
                save(fd, SIZES)
                make_read_only(root)
                with watched_descriptors():
                    save(fd, ONE)
                self.assertEqual(SIZES, load(fd, 9))
            finally:
                os.close(fd)
