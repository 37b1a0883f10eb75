"""Fakes for the tests of stores: threads that the test runs, and a count of open descriptors."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

__all__ = [
    "DeadDisk",
    "Threads",
    "make_read_only",
    "mounted",
    "open_descriptors",
    "outcome",
    "tmpfs",
    "unprivileged",
    "watched_descriptors",
]

#: Of umount2(2): at once, whoever uses it.
_DETACH = 2


def outcome(result: Any) -> Any:
    """What a call gave, at once or as a Deferred that has fired; a failure is raised."""
    if not isinstance(result, Deferred):
        return result
    fired: list[Any] = []
    result.addBoth(fired.append)
    assert fired, "the result is not there yet"
    if isinstance(fired[0], Failure):
        fired[0].raiseException()
    return fired[0]


class Threads:
    """A ``RunInThread`` whose work waits until the test says that a thread gets to it."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """See :class:`pop3toy.net.threads.RunInThread`."""
        result: Deferred[Any] = Deferred()
        self.jobs.append((result, function, args))
        return result

    def wait(self, result: Any) -> Any:
        """The outcome of a call, after the work that it waits for."""
        if isinstance(result, Deferred):
            self.run()
        return outcome(result)

    def run(self) -> int:
        """Run what waits, and what comes of it; how many that were."""
        count = 0
        while self.jobs:
            result, function, args = self.jobs.pop(0)
            execute(function, *args).chainDeferred(result)
            count += 1
        return count


def open_descriptors() -> dict[int, str]:
    """The descriptors of this process, and what they are of."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            # That of the listing itself.
            continue
    return found


@contextmanager
def watched_descriptors() -> Iterator[None]:
    """Fails unless as many descriptors are open after the block as before, and the same."""
    # What other tests have left behind must not be collected within the block.
    gc.collect()
    before = open_descriptors()
    yield
    after = open_descriptors()
    assert before == after, f"left open or closed: {dict(before.items() ^ after.items())}"


@contextmanager
def tmpfs(options: str, at: Path | None = None) -> Iterator[Path]:
    """A small file system of its own; skips the test where that is not allowed, as in many containers.

    :param at: an empty folder; a new one if not given.
    """
    root = tempfile.mkdtemp() if at is None else str(at)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", root], capture_output=True)
    try:
        if mounted.returncode != 0:
            raise SkipTest("mounting is not allowed here")
        try:
            yield Path(root)
        finally:
            subprocess.run(["umount", "-l", root], check=True)
    finally:
        if at is None:
            os.rmdir(root)


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A mount point where there is only a folder, with what is in it; skips like ``tmpfs``."""
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode != 0:
        raise SkipTest("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class DeadDisk:
    """A file system over a folder that never answers, until it is taken away; skips where none is allowed.

    It is FUSE, and nobody reads what the kernel asks.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._device: int | None = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise SkipTest(f"no FUSE here: {error.strerror}") from error
        options = b"fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other" % (
            self._device, os.getuid(), os.getgid(),
        )  # fmt: skip
        if self._libc.mount(b"dead", self._folder, b"fuse", 0, options) != 0:
            os.close(self._device)
            raise SkipTest(f"mounting is not allowed here: {os.strerror(ctypes.get_errno())}")

    def answer(self) -> None:
        """Whoever waits gets an error, whoever comes finds what was there before."""
        if self._device is not None:
            self._libc.umount2(self._folder, _DETACH)
            os.close(self._device)
            self._device = None


def make_read_only(root: Path) -> None:
    """Let nobody write to a file system of ``tmpfs`` any more."""
    subprocess.run(["mount", "-o", "remount,ro", root], check=True)


def restrict(test: SynchronousTestCase, path: Path, mode: int) -> None:
    """Give a file or folder these permissions until the end of a test, which must be able to remove it."""
    test.addCleanup(path.chmod, 0o700)
    path.chmod(mode)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be somebody whom file permissions stop: root becomes nobody for the block, others stay who they are."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
