"""Whose threads a delivery takes: mail for a disk that hangs keeps some, never all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import StoreTrouble
from pop3toy.net.threads import PATIENCE, WorkerThreads
from pop3toy.stores.maildir.incoming.delivery import MaildirDelivery
from pop3toy.stores.maildir.incoming.destination import DeliveryThreads
from pop3toy.stores.maildir.incoming.message import SPILL
from pop3toy.stores.maildir.paths import MaildirPaths
from pop3toy.stores.registry import (
    LOOKING,
    USER_WRITING_THREADS,
    WRITING_THREADS,
    Maildirs,
    StoreContext,
    kind_of,
)

from ..corpus import make_maildir
from ..net.test_threads import FakeReactor, Gate
from ..store_world import mounted, outcome


class WhoseThreadsTests(SynchronousTestCase):
    """What a delivery asks for, by kind of work and users."""

    def setUp(self) -> None:
        root = Path(tempfile.mkdtemp())
        self.users = ("ann", "bob")
        self.maildirs = [make_maildir(root / user) for user in self.users]
        self.asked: list[tuple[str, str, str]] = []
        #: The function for which there is no thread.
        self.refused = ""
        self.delivery = MaildirDelivery(
            MaildirPaths(f"{root}/{{user}}"),
            self.nowhere,
            Clock(),
            threads_of=self.threads_of,
            quota=lambda user: 10 * SPILL if user == "bob" else None,
        )

    def nowhere(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Nothing is done without a word about whose it is."""
        return fail(AssertionError(f"{function} for nobody"))

    def threads_of(self, user: str) -> DeliveryThreads:
        """Threads that do all at once, or nothing."""

        def run(kind: str, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
            name = function.__name__
            self.asked.append((kind, user, name.strip("_")))
            return fail(StoreTrouble()) if name == self.refused else execute(function, *args)

        def of(kind: str) -> Any:
            return lambda function, *args: run(kind, function, *args)

        return DeliveryThreads(of("look"), of("write"), of("finish"))

    def begin(self) -> Any:
        """A message for both; what was asked for so far is forgotten."""
        for user in self.users:
            self.successResultOf(self.delivery.check(user))
        incoming = self.successResultOf(self.delivery.begin(self.users))
        self.asked.clear()
        return incoming

    def test_look(self) -> None:
        """Each Maildir is looked at for its user, at RCPT or at DATA."""
        self.successResultOf(self.delivery.check("bob"))
        self.successResultOf(self.delivery.begin(self.users))
        self.assertEqual(
            [("look", "bob", "look"), ("look", "bob", "fit"), ("look", "ann", "look")], self.asked
        )

    def test_message(self) -> None:
        """A message is written for the first of its users, its names are made and made durable for each."""
        incoming = self.begin()
        outcome(incoming.write(b"x" * SPILL))
        self.successResultOf(incoming.commit())
        self.assertEqual(
            [
                ("write", "ann", "append"),
                ("write", "ann", "finish"),
                ("write", "ann", "put"),
                ("write", "bob", "put"),
                ("finish", "ann", "discard"),
                ("finish", "ann", "fsync_names"),
                ("finish", "bob", "fsync_names"),
            ],
            self.asked,
        )

    def test_rolled_back(self) -> None:
        """What cannot be made durable is taken back from those who have it."""
        incoming = self.begin()
        incoming.write(b"x")
        self.patch(os, "fsync", self.fsync)
        self.failureResultOf(incoming.commit(), StoreTrouble)
        self.assertEqual([("finish", user, "roll_back") for user in self.users], self.asked[-2:])

    def fsync(self, handle: int) -> None:
        """That of bob's folder is refused."""
        if _path(handle).endswith("bob/new"):
            raise OSError(5, "broken")

    def test_aborted(self) -> None:
        """The file of a message that ends early is removed where it is."""
        incoming = self.begin()
        outcome(incoming.write(b"x" * SPILL))
        incoming.abort()
        self.assertEqual(("finish", "ann", "discard"), self.asked[-1])

    def test_refused_in_the_end(self) -> None:
        """A message for whose end no thread was free leaves no file, neither before nor behind its fsync."""
        for self.refused in ("_finish", "_put"):
            incoming = self.begin()
            outcome(incoming.write(b"x" * SPILL))
            self.failureResultOf(incoming.commit(), StoreTrouble)
            self.assertEqual([[], []], [os.listdir(maildir / "tmp") for maildir in self.maildirs])


class SharesTests(SynchronousTestCase):
    """How much of a server's threads they have.  A disk hangs with its fsync."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp()).resolve()
        for user in ("ann", "bob", "cid", "dan", "eve"):
            make_maildir(self.root / user)
        self.reactor, self.gate = FakeReactor(), Gate()
        self.hanging: tuple[str, ...] = ()
        self.quota: int | None = None
        self.pools: list[WorkerThreads] = []
        settings = Maildirs(f"{self.root}/{{user}}")
        context = StoreContext(
            clock=self.reactor, threads=self.pool, quota=lambda user: self.quota, users=(), host="mail"
        )
        self.delivery = kind_of(settings).open(settings, context).delivery
        self.addCleanup(self.end)
        real = os.fsync

        def fsync(handle: int) -> None:
            if _path(handle).startswith(self.hanging):
                self.gate()
            real(handle)

        self.patch(os, "fsync", fsync)

    def pool(self, name: str, size: int) -> WorkerThreads:
        """A pool as the server has it."""
        self.pools.append(WorkerThreads(self.reactor, name=name, size=size))
        self.pools[-1].startService()
        return self.pools[-1]

    def end(self) -> None:
        """All that hangs goes on, and the pools stop."""
        self.gate.open()
        for pool in self.pools:
            self.wait(pool.stopService())

    def wait(self, result: Any) -> Any:
        """The outcome of a call, when the threads are done with it."""
        while isinstance(result, Deferred) and not result.called:
            self.reactor.deliver()
        return outcome(result)

    def begin(self, user: str) -> Any:
        """A message for a user, small enough to stay in memory until its end."""
        incoming = self.wait(self.delivery.begin([user]))
        incoming.write(b"x")
        return incoming

    def hang(self, *users: str, count: int) -> list[Any]:
        """So many messages of each user, none of which comes to the disk."""
        messages = [self.begin(user) for user in users for _ in range(count)]
        self.hanging = tuple(f"{self.root}/{user}/tmp/" for user in users)
        return [message.commit() for message in messages]

    def assert_delivered(self, user: str) -> None:
        """A user gets mail, though nothing of what hangs goes on."""
        self.wait(self.delivery.check(user))
        self.assertEqual(1, len(self.wait(self.begin(user).commit())))

    def test_user(self) -> None:
        """One user's mail never has all threads of a file system: who knows where a link leads."""
        messages = self.hang("ann", count=40)
        self.gate.wait_for(USER_WRITING_THREADS)
        for _ in range(3):
            self.assert_delivered("bob")
        self.assertEqual(USER_WRITING_THREADS, len(self.gate.ran))
        self.reactor.advance(PATIENCE)
        refused = [message for message in messages if message.called]
        self.assertEqual(40 - USER_WRITING_THREADS, len(refused))
        for message in refused:
            self.failureResultOf(message, StoreTrouble)
        # However long it takes: it may be on the disk.
        self.reactor.advance(1000 * PATIENCE)
        self.gate.open()
        for message in messages:
            if message not in refused:
                self.assertEqual(1, len(self.wait(message)))
        new = os.listdir(self.root / "ann" / "new")
        self.assertEqual(USER_WRITING_THREADS, len(new))
        self.assertEqual([], os.listdir(self.root / "ann" / "tmp"))

    def test_for_two(self) -> None:
        """A message for two, of whom one's disk hangs, keeps neither threads nor the lock of the other."""
        self.quota = 1000
        messages = [self.wait(self.delivery.begin(["bob", "ann"])) for _ in range(20)]
        real = os.open

        def open_in(path: Any, *args: Any, dir_fd: int | None = None) -> int:
            if path == "new" and dir_fd is not None and _path(dir_fd).startswith(f"{self.root}/ann"):
                self.gate()
            return real(path, *args, dir_fd=dir_fd)

        self.patch(os, "open", open_in)
        for message in messages:
            message.write(b"x")
        ends = [message.commit() for message in messages]
        while self.gate.began.acquire(blocking=False) is False:
            self.reactor.deliver()
        self.assert_delivered("bob")
        self.gate.open()
        for end in ends:
            self.assertEqual(2, len(self.wait(end)))

    @skipUnless(os.geteuid() == 0, "only root may mount")
    def test_file_system(self) -> None:
        """The mail of all users of a file system has a part of the threads; nobody looks at it any more."""
        self.enterContext(mounted(self.root / "bob"))
        messages = self.hang("ann", "cid", "dan", count=40)
        self.gate.wait_for(WRITING_THREADS)
        for _ in range(3):
            self.assert_delivered("bob")
        self.assertEqual(WRITING_THREADS, len(self.gate.ran))
        look = self.delivery.check("eve")
        self.reactor.advance(PATIENCE)
        self.failureResultOf(look, StoreTrouble)
        self.failureResultOf(self.delivery.check("eve"), StoreTrouble)
        self.assert_delivered("bob")
        hanging = [message for message in messages if not message.called]
        self.assertEqual(WRITING_THREADS, len(hanging))
        for message in messages:
            if message.called:
                self.failureResultOf(message, StoreTrouble)
        self.gate.open()
        for message in hanging:
            self.assertEqual(1, len(self.wait(message)))

    def test_look(self) -> None:
        """A look at a Maildir that hangs is given up, and takes few threads."""
        self.hanging = (f"{self.root}/ann/",)
        looks = [self.delivery.check("ann") for _ in range(40)]
        self.gate.wait_for(2)
        self.reactor.advance(LOOKING)
        for look in looks:
            self.failureResultOf(look, StoreTrouble)
        self.assertEqual(2, len(self.gate.ran))


def _path(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")
