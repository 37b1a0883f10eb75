"""A message in a file: warm chunks at once, cold ones in a thread, one descriptor closed once."""

from __future__ import annotations

import errno
import os
import resource
import tracemalloc
from collections.abc import Sequence
from typing import Any
from unittest import skipIf

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.errors import MessageGone, StoreTrouble
from pop3toy.stores.maildir import body as filebody
from pop3toy.stores.maildir.body import OPEN_FLAGS, FileBody

from ..folders import new_folder
from ..store_world import Threads, watched_descriptors

CAN_ASK = hasattr(os, "RWF_NOWAIT")


class FileBodyTests(SynchronousTestCase):
    """Every way through a body."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.path = self.root / "message"
        self.threads = Threads()
        self.measured: list[int] = []

    def told(self, octets: int, status: os.stat_result) -> None:
        """What was counted, and of which file."""
        self.assertEqual(self.path.stat().st_ino, status.st_ino)
        self.measured.append(octets)

    def body(self, content: bytes) -> FileBody:
        """The body of a file with this content."""
        self.path.write_bytes(content)
        return FileBody(os.open(self.path, OPEN_FLAGS), self.threads, -1, self.told)

    def make_cold(self, count: int | None = None) -> None:
        """Let the kernel say of the next chunks (of all, without a count) that they are not in memory."""
        left = [count]

        def cold(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
            if left[0] != 0:
                if left[0] is not None:
                    left[0] -= 1
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return preadv(fd, buffers, offset, flags)

        preadv = os.preadv
        self.patch(os, "preadv", cold)

    def make_failing(self, number: int) -> None:
        """Let the kernel answer with this error."""

        def failing(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
            raise OSError(number, os.strerror(number))

        self.patch(os, "preadv", failing)

    def pull(self, body: FileBody) -> bytes:
        """The next chunk, by thread if it takes one."""
        chunk = body.pull()
        if isinstance(chunk, Deferred):
            self.assertNoResult(chunk)
        return self.threads.wait(chunk)

    def rest(self, body: FileBody) -> list[bytes]:
        """All chunks that are left."""
        chunks = []
        while not body.done:
            chunks.append(self.pull(body))
        return chunks

    # -- the three ways of reading ---------------------------------------------------

    @skipIf(not CAN_ASK, "this platform cannot tell what is in memory")
    def test_warm(self) -> None:
        """What has just been written is in memory, and is read at once without a thread."""
        content = os.urandom(limits.CHUNK * 2 + 5)
        body = self.body(content)
        chunks = []
        while not body.done:
            chunk = body.pull()
            assert isinstance(chunk, bytes)
            chunks.append(chunk)
        self.assertEqual([limits.CHUNK, limits.CHUNK, 5], list(map(len, chunks)))
        assert b"".join(chunks) == content
        body.close(None)

    def test_cold(self) -> None:
        """What is not in memory is read in a thread, each chunk that needs it."""
        content = os.urandom(limits.CHUNK * 2 + 5)
        self.make_cold()
        body = self.body(content)
        assert b"".join(self.rest(body)) == content
        body.close(None)

    def test_cold_then_warm(self) -> None:
        """After a cold chunk the next is tried at once again."""
        content = os.urandom(limits.CHUNK * 2)
        self.make_cold(1)
        body = self.body(content)
        first = body.pull()
        assert isinstance(first, Deferred)
        self.threads.run()
        second = body.pull()
        assert isinstance(second, bytes)
        assert self.successResultOf(first) + second == content
        self.assertTrue(body.done)
        body.close(None)

    def test_file_system_cannot_tell(self) -> None:
        """Where the file system does not know the question, every chunk is read in a thread."""
        for number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            content = os.urandom(limits.CHUNK + 5)
            self.make_failing(number)
            body = self.body(content)
            assert b"".join(self.rest(body)) == content
            body.close(None)

    def test_platform_cannot_tell(self) -> None:
        """Where the platform does not know the question, nobody asks it."""
        self.patch(filebody, "_NOWAIT", None)
        self.make_failing(errno.EIO)
        body = self.body(b"x" * 10)
        self.assertEqual([b"x" * 10], self.rest(body))
        body.close(None)

    def test_never_waits(self) -> None:
        """The kernel is asked for what it has in memory and for nothing else."""
        preadv = os.preadv
        asked = []

        def watched(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
            asked.append(flags)
            return preadv(fd, buffers, offset, flags)

        self.patch(os, "preadv", watched)
        body = self.body(b"x" * (limits.CHUNK + 1))
        self.rest(body)
        body.close(None)
        self.assertEqual({os.RWF_NOWAIT}, set(asked))

    def test_part_of_a_chunk_is_warm(self) -> None:
        """A chunk of which only a part is in memory comes in parts, in order."""
        content = os.urandom(limits.CHUNK + 1000)
        preadv = os.preadv

        def partly(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
            return preadv(fd, [memoryview(buffers[0])[:4096]], offset, flags)

        self.patch(os, "preadv", partly)
        body = self.body(content)
        assert b"".join(self.rest(body)) == content
        body.close(None)

    # -- errors ----------------------------------------------------------------------

    def test_error_at_once(self) -> None:
        """A disk that fails is trouble, with a detail for the log and no path for the client."""
        body = self.body(b"x")
        self.make_failing(errno.EIO)
        trouble = self.assertRaises(StoreTrouble, body.pull)
        self.assertIn(os.strerror(errno.EIO), trouble.detail)
        self.assertNotIn("/", trouble.text)
        self.assertFalse(body.done)
        with self.assertRaises(AssertionError), watched_descriptors():
            body.close(None)

    def test_error_in_the_thread(self) -> None:
        """So is one that fails in the thread."""
        self.make_cold()
        body = self.body(b"x")

        def failing(fd: int, count: int, offset: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "pread", failing)
        result = body.pull()
        self.threads.run()
        assert isinstance(result, Deferred)
        self.assertIn(os.strerror(errno.EIO), self.failureResultOf(result, StoreTrouble).value.detail)
        body.close(None)

    def test_became_shorter(self) -> None:
        """A file that is cut while it is read never looks whole, warm or cold."""
        for cold in (False, True):
            body = self.body(b"x" * (limits.CHUNK + 100))
            if cold:
                self.make_cold()
            self.pull(body)
            os.truncate(self.path, limits.CHUNK)

            def pull(body: FileBody = body) -> Any:
                return self.pull(body)

            self.assertIn("shorter", self.assertRaises(StoreTrouble, pull).detail)
            self.assertFalse(body.done)
            body.close(None)

    def test_became_longer(self) -> None:
        """A file that grows while it is read ends where it ended when it was opened."""
        body = self.body(b"x" * 10)
        with self.path.open("ab") as file:
            file.write(b"y" * 10)
        self.assertEqual([b"x" * 10], self.rest(body))
        body.close(None)

    def test_unlinked(self) -> None:
        """A file that is removed after it was opened is read to its end."""
        body = self.body(b"x" * 10)
        self.path.unlink()
        self.assertEqual([b"x" * 10], self.rest(body))
        body.close(None)

    def test_no_file(self) -> None:
        """A folder or a FIFO in the place of the file is no message, and its descriptor is closed."""
        (self.root / "folder").mkdir()
        os.mkfifo(self.root / "fifo")
        with watched_descriptors():
            for name in ("folder", "fifo"):
                fd = os.open(self.root / name, OPEN_FLAGS)
                self.assertRaises(MessageGone, FileBody, fd, self.threads, -1, self.told)

    # -- the end -----------------------------------------------------------------------

    def test_empty(self) -> None:
        """An empty file is one empty chunk, at once."""
        body = self.body(b"")
        self.assertFalse(body.done)
        self.assertEqual((b"", True), (body.pull(), body.done))
        body.close(2)
        self.assertEqual([2], self.measured)

    def test_as_announced(self) -> None:
        """Nothing is told where as many octets went out as were announced."""
        for octets in (3, 4):
            self.path.write_bytes(b"a\n")
            body = FileBody(os.open(self.path, OPEN_FLAGS), self.threads, 3, self.told)
            self.pull(body)
            body.close(octets)
        self.assertEqual([4], self.measured)

    def test_measured(self) -> None:
        """Who sent all of it tells its octets; who did not, does not."""
        body = self.body(b"x")
        self.pull(body)
        body.close(None)
        self.assertEqual([], self.measured)
        body = self.body(b"x")
        self.pull(body)
        body.close(3)
        self.assertEqual([3], self.measured)

    def test_descriptor_is_closed(self) -> None:
        """Closing closes: before the first chunk, in the middle, at the end."""
        with watched_descriptors():
            for pulls in range(3):
                body = self.body(b"x" * (limits.CHUNK + 1))
                for _ in range(pulls):
                    self.pull(body)
                body.close(None)

    def test_closed_while_a_thread_reads(self) -> None:
        """The descriptor stays open for the thread that reads from it, and is closed once after it."""
        self.make_cold()
        with watched_descriptors():
            body = self.body(b"x" * 10)
            result = body.pull()
            assert isinstance(result, Deferred)
            (_, _, (fd, *_)) = self.threads.jobs[0]
            body.close(None)
            # Still this file, and not one that got the same number.
            self.assertEqual(os.stat(self.path), os.fstat(fd))
            self.threads.run()
            self.assertEqual(b"x" * 10, self.successResultOf(result))
            self.assertRaises(OSError, os.fstat, fd)
            # Were it closed again, this one would be gone.
            again = os.open(self.path, OPEN_FLAGS)
            self.assertEqual(fd, again)
            self.threads.run()
            os.close(again)

    def test_closed_while_a_thread_fails(self) -> None:
        """So it is when the thread fails."""
        self.make_cold()
        with watched_descriptors():
            body = self.body(b"x" * 10)
            result = body.pull()
            assert isinstance(result, Deferred)
            body.close(None)
            os.truncate(self.path, 0)
            self.threads.run()
            self.failureResultOf(result, StoreTrouble)

    def test_memory(self) -> None:
        """A message of 100 MB is read with the memory of a few chunks."""
        with self.path.open("wb") as file:
            file.truncate(100 * 1024 * 1024)
        body = FileBody(os.open(self.path, OPEN_FLAGS), self.threads, -1, self.told)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        octets = 0
        while not body.done:
            octets += len(self.pull(body))
        body.close(None)
        self.assertEqual(100 * 1024 * 1024, octets)
        self.assertLess(tracemalloc.get_traced_memory()[1], 8 * limits.CHUNK)

    def test_many_at_once(self) -> None:
        """As many bodies as descriptors allow can be open; the next open fails without harm."""
        self.path.write_bytes(b"x")
        with watched_descriptors():
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
            bodies = []
            try:
                with self.assertRaises(OSError):
                    while True:
                        fd = os.open(self.path, OPEN_FLAGS)
                        bodies.append(FileBody(fd, self.threads, -1, self.told))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for body in bodies:
                self.assertEqual(b"x", self.pull(body))
                body.close(None)
