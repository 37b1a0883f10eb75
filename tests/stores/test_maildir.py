"""Maildirs as a store: the contract, the lock, removal, what is remembered, and other programs at work."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.realm import MailboxRealm
from pop3toy.errors import InUse, MessageGone, NoSuchMailbox, Refusal, StoreTrouble
from pop3toy.interfaces import Channel, Entry, SessionRecord
from pop3toy.mail.octets import octets
from pop3toy.net.threads import run_now
from pop3toy.pop3.dispatch import handle
from pop3toy.pop3.session import Session
from pop3toy.stores.maildir import file_systems, folders
from pop3toy.stores.maildir.beside.sizes import FILE_NAME
from pop3toy.stores.maildir.folders import MTIME_GRANULARITY, stat_folders
from pop3toy.stores.maildir.incoming.delivery import MaildirDelivery
from pop3toy.stores.maildir.mailbox import SEARCHES
from pop3toy.stores.maildir.paths import MaildirPaths
from pop3toy.stores.maildir.store import OPENING, MaildirStore

from ..corpus import make_maildir, wire_form
from ..exchanging import exchanging
from ..folders import new_folder
from ..store_contract import DeliveryContract, StoreContract
from ..store_world import (
    Threads,
    make_read_only,
    open_descriptors,
    outcome,
    restrict,
    tmpfs,
    unprivileged,
    watched_descriptors,
)

#: Seconds after which another process that does not answer is a failed test.
PATIENCE = 30.0

#: Later than any change that a test makes: everything on disk is old.
MUCH_LATER = 4e9


class Maildirs(SynchronousTestCase):
    """A tree of Maildirs, and stores over it."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.root.chmod(0o755)
        self.maildir = make_maildir(self.root / "ann")
        self.threads = Threads()
        self.now = MUCH_LATER

    def new_store(self, *, threads: Any = None, create: bool = False, **options: Any) -> MaildirStore:
        """A store as a new process would have it."""
        paths = MaildirPaths(f"{self.root}/{{user}}", create=create)
        return MaildirStore(paths, threads or self.threads, wall_clock=lambda: self.now, **options)

    def open(self, store: MaildirStore | None = None, user: str = "ann") -> Any:
        """An open mailbox, of a new store unless one is given."""
        return self.threads.wait((store or self.new_store()).open(user))

    def put(self, path: str, content: bytes = b"x\n\n") -> Path:
        """A message of ann."""
        file = self.maildir / path
        file.write_bytes(content)
        return file

    def fill(self, count: int, folder: str = "new") -> list[bytes]:
        """So many messages whose names tell their octets; their unique-ids."""
        names = [f"{1_700_000_000 + number}.M1P1.mail,W=5" for number in range(count)]
        for name in names:
            self.put(f"{folder}/{name}")
        return [name.encode() for name in names]

    def rename(self, old: str, new: str) -> None:
        """What another program does to flags."""
        (self.maildir / old).rename(self.maildir / new)

    def names(self) -> list[str]:
        """All messages of ann, as paths."""
        return sorted(
            f"{folder}/{name}" for folder in ("new", "cur") for name in os.listdir(self.maildir / folder)
        )

    def read(self, mailbox: Any, uid: bytes) -> bytes:
        """A message as its file has it."""
        body = self.threads.wait(mailbox.read(uid))
        chunks = []
        try:
            while not body.done:
                chunks.append(self.threads.wait(body.pull()))
        finally:
            body.close(None)
        return b"".join(chunks)

    def retrieve(self, mailbox: Any, uid: bytes) -> None:
        """What RETR does: read all of it, and tell what it was."""
        body = self.threads.wait(mailbox.read(uid))
        content = b""
        while not body.done:
            content += self.threads.wait(body.pull())
        body.close(octets(content))

    def listings(self) -> list[str]:
        """Which folders are listed from now on, in a list that grows."""
        listed: list[str] = []
        scandir = os.scandir

        def spy(fd: int) -> Any:
            listed.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            return scandir(fd)

        self.patch(os, "scandir", spy)
        return listed


# -- the contracts -------------------------------------------------------------------


class MaildirContractTests(StoreContract, Maildirs):
    """The contract of a store, for messages whose octets have to be counted."""

    #: What names tell of the octets.
    SIZE = ""

    def store(self, messages: Sequence[bytes]) -> MaildirStore:
        self.number = 1_700_000_000
        store = self.new_store()
        for message in messages:
            self.arrive(store, message)
        return store

    def arrive(self, store: MaildirStore, message: bytes) -> None:
        self.number += 1
        size = self.SIZE.format(len(wire_form(message)))
        # Half of it was seen by another program already.
        path = "new/{}.M1P1.mail{}" if self.number % 2 else "cur/{}.M1P1.mail{}:2,S"
        self.put(path.format(self.number, size), message)

    def time_of_day(self) -> float:
        return self.number

    def take_away(self, store: MaildirStore, index: int) -> None:
        names = sorted(self.names(), key=lambda path: path.partition("/")[2])
        (self.maildir / names[index]).unlink()

    def wait(self, result: Any) -> Any:
        return self.threads.wait(result)

    def fails(self, kind: Any, function: Any, *args: Any) -> Any:
        return super().fails(kind, lambda: self.wait(function(*args)))


class MaildirWithSizesContractTests(MaildirContractTests):
    """The same for names that tell the octets."""

    SIZE = ",W={}"


class MaildirWithoutTrustContractTests(MaildirContractTests):
    """The same while no snapshot can be trusted, because everything has just changed."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0


class MaildirDeliveryContractTests(DeliveryContract, Maildirs):
    """The contract of a delivery, for a store and a delivery over the same Maildirs."""

    def delivery(self) -> tuple[MaildirStore, MaildirDelivery]:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        for user in self.USERS:
            shutil.rmtree(self.root / user, ignore_errors=True)
            make_maildir(self.root / user)
        paths = MaildirPaths(f"{self.root}/{{user}}")
        return self.new_store(), MaildirDelivery(
            paths, run_now, self.clock, host="mail", wall=self.clock.seconds
        )

    def break_maildrop(self, store: MaildirStore, user: str) -> None:
        shutil.rmtree(self.root / user)

    def begin(self, delivery: MaildirDelivery) -> Any:
        # Deliveries some milliseconds apart: their order is in the name alone.
        self.clock.advance(0.0035)
        return super().begin(delivery)

    def wait(self, result: Any) -> Any:
        return self.threads.wait(result)

    def fails(self, kind: Any, function: Any, *args: Any) -> Any:
        return super().fails(kind, lambda: self.wait(function(*args)))


# -- opening ---------------------------------------------------------------------------


class OpenTests(Maildirs):
    """What opens, what does not, and where the work is done."""

    def test_at_hand_without_a_thread(self) -> None:
        """A Maildir that this process has seen as it is now is opened at once, and read."""
        self.fill(3)
        store = self.new_store()
        opening = store.open("ann")
        self.assertNoResult(opening)
        self.threads.wait(opening).release()
        mailbox = store.open("ann")
        self.assertNotIsInstance(mailbox, Deferred)
        self.assertEqual(15, mailbox.entries.octets)
        self.assertRaises(InUse, store.open, "ann")
        body = mailbox.read(mailbox.entries[0].uid)
        self.assertNotIsInstance(body, Deferred)
        body.close(None)
        self.assertIsNone(mailbox.release())
        self.assertEqual([], self.threads.jobs)

    def test_changed(self) -> None:
        """One that has changed since is listed at once, unless a folder is not at hand."""
        self.fill(3)
        store = self.new_store()
        self.open(store).release()
        self.fill(4)
        listed = self.listings()
        mailbox = store.open("ann")
        self.assertNotIsInstance(mailbox, Deferred)
        self.assertEqual((20, ["new", "cur"]), (mailbox.entries.octets, listed))
        self.assertEqual(1_700_000_003.0, mailbox.entries[3].arrived)
        mailbox.release()
        (self.maildir / "new").rename(self.root / "new")
        self.patch(folders, "open_folder_cached", lambda maildir, folder: None)
        (self.maildir / "new").mkdir()
        with watched_descriptors():
            opening = store.open("ann")
            self.assertEqual(["new", "cur"], listed)
            mailbox = self.threads.wait(opening)
            self.assertEqual(0, len(mailbox.entries))
            mailbox.release()

    def test_changed_untold(self) -> None:
        """Where a new name does not tell the octets, or the size cache may, it is a thread's work."""
        self.fill(3)
        store = self.new_store()
        self.open(store).release()
        self.put("new/1.a")
        for told in (20, 25):
            opening = store.open("ann")
            self.assertNoResult(opening)
            mailbox = self.threads.wait(opening)
            self.assertEqual(told, mailbox.entries.octets)
            mailbox.release()
            self.put("new/2.b,W=5")

    def test_not_at_hand(self) -> None:
        """What the kernel has not at hand, or is not on the root's disk, is opened in a thread each time."""
        self.fill(3)
        store = self.new_store()
        self.open(store).release()
        (self.root / "ann").rename(self.root / "elsewhere")
        (self.root / "ann").symlink_to("elsewhere")
        opening = store.open("ann")
        self.assertNoResult(opening)
        self.assertEqual(15, self.threads.wait(opening).entries.octets)

    def test_not_local(self) -> None:
        """On a file system that may sleep, as in the network, nothing is done on the reactor's thread."""
        self.patch(file_systems, "_LOCAL", frozenset())
        uids = self.fill(3)
        store = self.new_store()
        with watched_descriptors():
            for _ in range(2):
                opening = store.open("ann")
                with no_files(self):
                    self.assertNoResult(opening)
                mailbox = self.threads.wait(opening)
                with no_files(self):
                    reading = mailbox.read(uids[0])
                    self.assertNoResult(reading)
                body = self.threads.wait(reading)
                with no_files(self):
                    body.close(None)
                    removing, leaving = mailbox.remove([uids.pop()]), mailbox.release()
                    self.assertNoResult(removing)
                    self.assertNoResult(leaving)
                self.threads.run()
                self.successResultOf(removing)
                self.successResultOf(leaving)
        self.assertEqual(1, len(self.names()))

    def test_given_up(self) -> None:
        """A disk that does not answer is trouble in bounded time; what comes later is given back."""
        self.fill(1)
        for opened_before in (False, True):
            clock = Clock()
            store = self.new_store(clock=clock)
            with watched_descriptors():
                opening = store.open("ann")
                clock.advance(OPENING - 1)
                self.assertNoResult(opening)
                if opened_before:
                    ((result, function, args),) = self.threads.jobs
                    self.threads.jobs = [(result, partial(lambda found: found, function(*args)), ())]
                clock.advance(1)
                self.assertIn(str(self.maildir), self.failureResultOf(opening, StoreTrouble).value.detail)
                self.threads.run()
                self.open(self.new_store(threads=run_now)).release()
            self.assertEqual([], clock.getDelayedCalls())

    def test_counting_in_a_thread(self) -> None:
        """Messages are never read on the reactor's thread."""
        self.put("new/1.a")
        opening = self.new_store().open("ann")
        self.assertNoResult(opening)
        self.assertEqual([Entry(b"1.a", 5)], list(self.threads.wait(opening).entries))

    def test_large_in_a_thread(self) -> None:
        """A large Maildir is not listed on the reactor's thread, even if its names tell everything."""
        count = 10
        while look_weight(self.maildir) <= 64 * 1024:
            count *= 2
            self.fill(count)
        listed = self.listings()
        opening = self.new_store().open("ann")
        self.assertEqual([], listed)
        self.assertNoResult(opening)
        self.assertEqual(count, len(self.threads.wait(opening).entries))

    def test_writing_in_a_thread(self) -> None:
        """The size cache is never written on the reactor's thread."""
        self.put("new/1.a")
        store = self.new_store()
        self.open(store).release()
        (self.maildir / FILE_NAME).unlink()
        self.put("new/2.b,W=5")
        opening = store.open("ann")
        self.assertFalse((self.maildir / FILE_NAME).exists())
        self.assertEqual(2, len(self.threads.wait(opening).entries))
        self.assertTrue((self.maildir / FILE_NAME).exists())

    def test_counted_once(self) -> None:
        """What was counted is known to the next process, which opens at once."""
        self.put("new/1.a", b"Subject: x\n\nx")
        self.open().release()
        self.rename("new/1.a", "cur/1.a:2,S")
        mailbox = self.open(self.new_store(scan_in_thread=Threads()))
        self.assertEqual([Entry(b"1.a", 17)], list(mailbox.entries))

    def test_cache_removed_or_damaged(self) -> None:
        """Without the cache, or with garbage in it, everything is counted again and right."""
        self.put("new/1.a")
        self.open().release()
        for damage in (
            (self.maildir / FILE_NAME).unlink,
            lambda: (self.maildir / FILE_NAME).write_bytes(b"?"),
        ):
            damage()
            mailbox = self.open()
            self.assertEqual([Entry(b"1.a", 5)], list(mailbox.entries))
            mailbox.release()

    def test_names_are_never_changed(self) -> None:
        """Opening, reading and removing others leave every name as it is."""
        for name in ("new/1.a", "cur/2.b:2,S", "new/3.c,S=9,W=9", "cur/4.d"):
            self.put(name)
        before = self.names()
        mailbox = self.open()
        for entry in mailbox.entries:
            self.retrieve(mailbox, entry.uid)
        self.threads.wait(mailbox.remove([b"4.d"]))
        mailbox.release()
        self.threads.run()
        self.assertEqual([name for name in before if name != "cur/4.d"], self.names())

    def test_trouble(self) -> None:
        """A missing, half-made or unreadable Maildir is trouble; the detail says what to do."""
        make_maildir(self.root / "half")
        (self.root / "half" / "new").rmdir()
        restrict(self, make_maildir(self.root / "closed"), 0)
        make_maildir(self.root / "shut")
        restrict(self, self.root / "shut" / "cur", 0)
        (self.root / "file").write_bytes(b"")
        (self.root / "link").symlink_to("/tmp")
        (self.root / "empty").mkdir()
        advice = {
            "nobody": "--create",
            "half": "make new, cur and tmp",
            "empty": "make new, cur and tmp",
            "closed": "needs to read",
            "shut": "needs to read",
            "file": "Not a directory",
            "link": "leads out of",
        }
        for user, words in advice.items():
            for create in (False, True):
                if user == "nobody" and create:
                    continue
                store = self.new_store(create=create)
                with watched_descriptors(), unprivileged():
                    trouble = self.assertRaises(StoreTrouble, self.open, store, user)
                self.assertEqual("SYS/TEMP", trouble.code)
                self.assertIn(words, trouble.detail)
                self.assertNotIn("/", trouble.text)
                self.assertEqual(user == "nobody", isinstance(trouble, NoSuchMailbox))

    def test_create(self) -> None:
        """With --create a missing Maildir is an empty one from the first login on."""
        store = self.new_store(create=True)
        mailbox = self.open(store, "bob")
        self.assertEqual([], list(mailbox.entries))
        self.assertEqual({"cur", "new", "tmp"}, set(os.listdir(self.root / "bob")))
        self.assertRaises(InUse, self.open, self.new_store(), "bob")

    def test_trouble_in_the_thread(self) -> None:
        """What goes wrong in the thread is trouble too; the lock is given back and nothing leaks."""
        self.put("new/1.a")
        store = self.new_store()
        with watched_descriptors():
            opening = store.open("ann")
            (self.maildir / "cur").rmdir()
            self.threads.run()
            self.failureResultOf(opening, StoreTrouble)
            (self.maildir / "cur").mkdir()
            self.open(store).release()

    def test_unexpected_error(self) -> None:
        """So it is with an error that nobody foresaw, on either thread."""
        store = self.new_store()

        def broken(*args: Any, **named: Any) -> Any:
            raise ZeroDivisionError

        self.fill(1)
        self.open(store).release()
        with watched_descriptors():
            patch = self.patch(os, "stat", broken)
            self.assertRaises(ZeroDivisionError, store.open, "ann")
            self.assertRaises(ZeroDivisionError, self.open)
            patch.restore()
        self.open(store).release()

    def test_no_descriptors_left(self) -> None:
        """A hundred sessions that do everything leave no descriptor open."""
        store = self.new_store()
        with watched_descriptors():
            for number in range(100):
                self.put(f"new/{number}.a")
                self.put(f"cur/{number}.b,W=99:2,S")
                mailbox = self.open(store)
                self.retrieve(mailbox, b"%d.a" % number)
                self.retrieve(mailbox, b"%d.b,W=99" % number)
                self.rename(f"new/{number}.a", f"cur/{number}.a:2,")
                self.read(mailbox, b"%d.a" % number)
                if number % 2:
                    self.threads.wait(mailbox.remove([b"%d.a" % number, b"%d.b,W=99" % number]))
                mailbox.release()
                self.threads.run()


@skipIf(os.geteuid() != 0, "only root can give files away")
class HostileOwnerTests(Maildirs):
    """A user with a shell, and a server that may read everybody's mail."""

    LOGINS = 4000

    def setUp(self) -> None:
        super().setUp()
        shutil.rmtree(self.maildir)
        (self.root / "ann").mkdir()
        for user, owner in (("ann", 12345), ("bob", 54321)):
            maildir = make_maildir(self.root / user / ("Maildir" if user == "bob" else "x/Maildir"))
            (maildir / "new" / f"1.{user},W=5").write_bytes(b"x\n\n")
            for path in (self.root / user, *(self.root / user).rglob("*")):
                os.lchown(path, owner, -1)

    def link(self, path: str, target: str) -> Path:
        """A link that ann has made."""
        (self.root / path).symlink_to(target)
        os.lchown(self.root / path, 12345, -1)
        return self.root / path

    def logins(self) -> dict[str, int]:
        """Of many logins of ann, how many saw what."""
        paths = MaildirPaths(f"{self.root}/{{user}}/Maildir")
        store = MaildirStore(paths, run_now, wall_clock=lambda: 0.0)
        seen: dict[str, int] = {}
        found = ""
        with watched_descriptors():
            for _ in range(self.LOGINS):
                mailbox = None
                try:
                    mailbox = outcome(store.open("ann"))
                    found = mailbox.entries[0].uid.decode().partition(",")[0]
                    outcome(mailbox.read(mailbox.entries[0].uid)).close(None)
                except StoreTrouble:
                    found = found if mailbox is not None else "trouble"
                if mailbox is not None:
                    mailbox.release()
                seen[found] = seen.get(found, 0) + 1
        return seen

    def test_exchanged(self) -> None:
        """What is exchanged for a link to another's shows nothing of his, wherever on the way it is."""
        for mine, path, other in (
            # A folder above; the Maildir; a link to it; new/ within it.
            ("link", "x", "../bob"),
            ("moved", "Maildir", "../bob/Maildir"),
            ("link", "Maildir", "../bob/Maildir"),
            ("moved", "Maildir/new", "../bob/Maildir/new"),
        ):
            if mine == "link":
                self.link("ann/Maildir", "x/Maildir")
            else:
                (self.root / "ann" / "x" / "Maildir").rename(self.root / "ann" / "Maildir")
            with exchanging(self.root / "ann" / path, self.link("ann/y", other)):
                seen = self.logins()
            self.assertLessEqual(set(seen), {"1.ann", "trouble"}, seen)
            self.assertIn("1.ann", seen)
            if path != "Maildir/new":
                self.assertIn("trouble", seen)
            self.setUp()


@contextmanager
def no_files(test: SynchronousTestCase) -> Iterator[None]:
    """A block that touches no file: whoever calls the system for one fails."""

    def touched(*args: Any, **named: Any) -> Any:
        raise AssertionError("a file was touched")

    patches = [
        test.patch(os, name, touched)
        for name in ("open", "close", "stat", "fstat", "scandir", "preadv", "unlink")
    ]
    patches.append(test.patch(fcntl, "flock", touched))
    try:
        yield
    finally:
        for patch in patches:
            patch.restore()


def look_weight(maildir: Path) -> int:
    """Octets of both folders themselves, as the store sees them."""
    fd = os.open(maildir, os.O_RDONLY)
    try:
        return stat_folders(fd).weight
    finally:
        os.close(fd)


class SnapshotTests(Maildirs):
    """What is kept between sessions, and when it is used."""

    def session(self, store: MaildirStore, user: str = "ann") -> Any:
        """The entries of a session that is over."""
        mailbox = self.open(store, user)
        mailbox.release()
        return mailbox.entries

    def test_unchanged(self) -> None:
        """A Maildir that has not changed is not listed again."""
        self.fill(3)
        store = self.new_store()
        first = self.session(store)
        listed = self.listings()
        for _ in range(3):
            self.assertIs(first, self.session(store))
        self.assertEqual([], listed)

    def test_every_change_is_seen(self) -> None:
        """New mail, flags, removal and another folder in the place of one are seen by the next session."""
        self.fill(3)
        store = self.new_store()
        self.session(store)
        self.put("new/2000000000.x,W=5")
        self.assertEqual(4, len(self.session(store)))
        self.rename("new/2000000000.x,W=5", "cur/2000000000.x,W=5:2,S")
        mailbox = self.open(store)
        listed = self.listings()
        self.assertEqual(b"x\n\n", self.read(mailbox, b"2000000000.x,W=5"))
        self.assertEqual([], listed)
        mailbox.release()
        (self.maildir / "cur" / "2000000000.x,W=5:2,S").unlink()
        self.assertEqual(3, len(self.session(store)))
        shutil.rmtree(self.maildir / "new")
        (self.maildir / "new").mkdir()
        self.assertEqual(0, len(self.session(store)))

    def test_same_tick(self) -> None:
        """A change that leaves the same time on the folder as the one before the scan is not missed."""
        self.fill(1)
        store = self.new_store()
        # Not the granularity itself: these seconds are floats, good for some tenths of a microsecond.
        for now_after_change in (0.0, 0.5, MTIME_GRANULARITY - 0.001):
            changed = max((self.maildir / name).stat().st_ctime for name in ("new", "cur"))
            self.now = changed + now_after_change
            before = self.session(store)
            # As if what follows happened in the same tick: a snapshot of such an age is not believed.
            listed = self.listings()
            self.session(store)
            self.assertEqual(["new", "cur"], listed)
            self.assertEqual(1, len(before))

    def test_times_set_back(self) -> None:
        """A change is seen although somebody gave the folders their old times back."""
        self.fill(1)
        for folder in ("new", "cur"):
            os.utime(self.maildir / folder, (1e9, 1e9))
        store = self.new_store()
        self.session(store)
        for count, folder in enumerate(("new", "cur"), 2):
            self.put(f"{folder}/199999999{count}.b,W=5")
            os.utime(self.maildir / folder, (1e9, 1e9))
            self.assertEqual(count, len(self.session(store)), folder)

    def test_clock_behind(self) -> None:
        """With a clock that is behind the file system's nothing is believed, and nothing missed."""
        self.fill(1)
        self.now = 1000.0
        store = self.new_store()
        for count in range(1, 4):
            self.assertEqual(count, len(self.session(store)))
            self.put(f"new/{count}.b,W=5")

    def test_two_users(self) -> None:
        """Each user's snapshot is his own."""
        self.fill(2)
        bob = make_maildir(self.root / "bob")
        (bob / "new" / "1.bob,W=5").write_bytes(b"b\n\n")
        store = self.new_store()
        for _ in range(3):
            self.assertEqual(2, len(self.session(store)))
            self.assertEqual([Entry(b"1.bob,W=5", 5)], list(self.session(store, "bob")))

    def test_bounded(self) -> None:
        """Snapshots of so many messages are kept; those that were used longest ago go first."""
        for user in ("bob", "eve"):
            maildir = make_maildir(self.root / user)
            for number in range(10):
                (maildir / "new" / f"{number}.x,W=5").write_bytes(b"x\n\n")
        self.fill(10)
        store = self.new_store(kept_messages=30)
        first = {user: self.session(store, user) for user in ("ann", "bob")}
        # Both fit; ann was used last.
        self.assertIs(first["bob"], self.session(store, "bob"))
        self.assertIs(first["ann"], self.session(store, "ann"))
        self.session(store, "eve")
        self.assertIs(first["ann"], self.session(store, "ann"))
        self.assertIsNot(first["bob"], self.session(store, "bob"))

    def test_larger_than_all_kept(self) -> None:
        """A mailbox larger than all that may be kept is kept alone, until another is opened."""
        maildir = make_maildir(self.root / "bob")
        (maildir / "new" / "1.x,W=5").write_bytes(b"x\n\n")
        self.fill(10)
        store = self.new_store(kept_messages=5)
        first = self.session(store)
        self.assertIs(first, self.session(store))
        self.session(store, "bob")
        self.assertIsNot(first, self.session(store))
        self.assertEqual(list(first), list(self.session(store)))

    def test_empty_ones_count(self) -> None:
        """Empty mailboxes fill the room as well: there may be very many."""
        store = self.new_store(create=True, kept_messages=20)
        first = self.session(store, "user0")
        for number in range(1, 30):
            self.session(store, f"user{number}")
        self.assertIsNot(first, self.session(store, "user0"))
        self.assertIs(self.session(store, "user29"), self.session(store, "user29"))


# -- reading ---------------------------------------------------------------------------


class ReadTests(Maildirs):
    """Messages that other programs rename, remove and replace."""

    def test_flags_set(self) -> None:
        """A message whose flags were set by another program is read, again and again."""
        self.put("cur/1.a:2,", b"a\n\n")
        mailbox = self.open()
        for old, new in (("", "S"), ("S", "FS"), ("FS", "")):
            self.rename(f"cur/1.a:2,{old}", f"cur/1.a:2,{new}")
            self.assertEqual(b"a\n\n", self.read(mailbox, b"1.a"))

    def test_all_moved_or_gone(self) -> None:
        """When all messages were moved, or vanished, one look by a thread finds that out for all of them."""
        for moved in (True, False):
            uids = self.fill(50)
            mailbox = self.open()
            for uid in uids:
                if moved:
                    self.rename(f"new/{uid.decode()}", f"cur/{uid.decode()}:2,S")
                else:
                    (self.maildir / "new" / uid.decode()).unlink()
            listed = self.listings()
            reading = mailbox.read(uids[0])
            self.assertNoResult(reading)
            self.assertEqual([], listed)
            self.threads.run()
            if moved:
                self.successResultOf(reading).close(None)
            else:
                self.failureResultOf(reading, MessageGone)
            for uid in uids:
                if moved:
                    self.assertEqual(b"x\n\n", self.read(mailbox, uid))
                    (self.maildir / "cur" / f"{uid.decode()}:2,S").unlink()
                else:
                    self.assertRaises(MessageGone, self.read, mailbox, uid)
            self.assertEqual(["new", "cur"], listed)
            mailbox.release()

    def test_renamed_again_after_the_look(self) -> None:
        """A message that is renamed between the look and the opening is refused, not waited for for ever."""
        self.fill(1)
        mailbox = self.open()
        (name,) = os.listdir(self.maildir / "new")
        self.rename(f"new/{name}", f"cur/{name}:2,")
        reading = mailbox.read(name.encode())
        open_file = os.open

        def renamed(path: str, *args: Any, **named: Any) -> int:
            if path == f"{name}:2,":
                self.rename(f"cur/{name}:2,", f"cur/{name}:2,S")
            return open_file(path, *args, **named)

        self.patch(os, "open", renamed)
        self.threads.run()
        self.failureResultOf(reading, MessageGone)
        self.assertEqual(b"x\n\n", self.read(mailbox, name.encode()))

    def test_released_while_looked_for(self) -> None:
        """A session that ends meanwhile gets no body, touches nobody else's folders, and leaks nothing."""
        self.fill(1)
        with watched_descriptors():
            mailbox = self.open()
            (name,) = os.listdir(self.maildir / "new")
            self.rename(f"new/{name}", f"cur/{name}:2,S")
            reading = mailbox.read(name.encode())
            mailbox.release()
            # The thread may still need the Maildir, so it is not free yet.
            self.assertRaises(InUse, self.open, self.new_store(threads=run_now))
            self.threads.run()
            self.failureResultOf(reading, MessageGone)
            self.open().release()

    def test_replaced(self) -> None:
        """A link, folder or FIFO in the place of a message is refused, never followed, never waited for."""
        secret = self.root / "secret"
        secret.write_bytes(b"secret")
        file = self.put("new/1.a,W=5")
        mailbox = self.open()
        self.read(mailbox, b"1.a,W=5")
        for make in (
            lambda: file.symlink_to(secret),
            lambda: os.mkfifo(file),
            file.mkdir,
        ):
            if file.exists():
                file.unlink()
            make()
            with watched_descriptors():
                self.assertRaises((MessageGone, StoreTrouble), self.read, mailbox, b"1.a,W=5")  # type: ignore[arg-type]

    def test_folder_replaced(self) -> None:
        """A folder that becomes a link leads nowhere; once it was opened, the session stays in it."""
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "1.a,W=5").write_bytes(b"secret")
        away = self.root / "away"
        for used in (False, True):
            self.put("new/1.a,W=5", b"mine\n")
            mailbox = self.open()
            if used:
                self.read(mailbox, b"1.a,W=5")
            (self.maildir / "new").rename(away)
            (self.maildir / "new").symlink_to(elsewhere)
            if used:
                self.assertEqual(b"mine\n", self.read(mailbox, b"1.a,W=5"))
            else:
                self.assertRaises(StoreTrouble, self.read, mailbox, b"1.a,W=5")
                self.assertRaises(
                    StoreTrouble, lambda box=mailbox: self.threads.wait(box.remove([b"1.a,W=5"]))
                )
            self.assertEqual(b"secret", (elsewhere / "1.a,W=5").read_bytes())
            self.assertEqual(b"mine\n", (away / "1.a,W=5").read_bytes())
            mailbox.release()
            (self.maildir / "new").unlink()
            away.rename(self.maildir / "new")

    def test_unreadable(self) -> None:
        """A message that may not be read is trouble that names it to the log and not to the client."""
        self.put("new/1.a,W=5").chmod(0)
        mailbox = self.open()
        with unprivileged():
            trouble = self.assertRaises(StoreTrouble, self.read, mailbox, b"1.a,W=5")
        self.assertIn("new/1.a", trouble.detail)
        self.assertNotIn("1.a", trouble.text)

    def test_twins(self) -> None:
        """Of two messages of one base name neither is taken for the other, whatever became of it."""
        for renamed in (True, False):
            os.utime(self.put("cur/1.a:2,S", b"in cur\n\n"), (1, 1))
            self.put("new/1.a", b"in new\n\n")
            self.put("cur/2.b:2,", b"b\n\n")
            mailbox = self.open()
            first, second = [entry.uid for entry in mailbox.entries][:2]
            self.assertEqual(
                [b"in cur\n\n", b"in new\n\n"], [self.read(mailbox, uid) for uid in (first, second)]
            )
            if renamed:
                self.rename("new/1.a", "cur/1.a:2,F")
            else:
                (self.maildir / "new" / "1.a").unlink()
            self.assertRaises(MessageGone, self.read, mailbox, second)
            # A look round for another message sees them too.
            self.rename("cur/2.b:2,", "cur/2.b:2,S")
            self.assertEqual(b"b\n\n", self.read(mailbox, b"2.b"))
            self.assertRaises(MessageGone, self.read, mailbox, second)
            self.assertEqual(b"in cur\n\n", self.read(mailbox, first))
            self.threads.wait(mailbox.remove([first if renamed else second]))
            self.assertEqual(["cur/1.a:2,F" if renamed else "cur/1.a:2,S", "cur/2.b:2,S"], self.names())
            mailbox.release()
            for path in self.names():
                (self.maildir / path).unlink()


class ThreadsTests(Maildirs):
    """What is done where."""

    def test_large_cache(self) -> None:
        """A size cache that takes long to read is not read on the reactor thread, even in a small Maildir."""
        self.put("new/1.a,W=5")
        body = b"7 x\n" * 20_000
        header = b"pop3toy-sizes 1 %08x\n" % zlib.crc32(body)
        (self.maildir / FILE_NAME).write_bytes(header + body)
        counting = Threads()
        opening = self.new_store(scan_in_thread=counting).open("ann")
        self.threads.run()
        self.assertNoResult(opening)
        self.assertEqual([Entry(b"1.a,W=5", 5)], list(counting.wait(opening).entries))

    def test_counting_holds_up_nobody(self) -> None:
        """Counting has threads of its own: who removes messages does not wait until others' are counted."""
        counting = Threads()
        store = self.new_store(scan_in_thread=counting)
        (uid,) = self.fill(1)
        mailbox = self.open(store)
        make_maildir(self.root / "bob")
        (self.root / "bob" / "new" / "2.b").write_bytes(b"x\n\n")
        opening = store.open("bob")
        self.threads.run()
        self.assertEqual((1, 0), (len(counting.jobs), len(self.threads.jobs)))
        self.threads.wait(mailbox.remove([uid]))
        self.assertEqual([], self.names())
        self.assertEqual([Entry(b"2.b", 5)], list(counting.wait(opening).entries))

    def test_twins_are_not_remembered(self) -> None:
        """The octets of one of two messages of one base name are not taken for the other's later on."""
        first = self.put("cur/1.a,W=9:2,S", b"x\n\n")
        os.utime(first, (1, 1))
        self.put("new/1.a,W=9", b"twice as long\n\n")
        store = self.new_store()
        mailbox = self.open(store)
        for entry in mailbox.entries:
            self.retrieve(mailbox, entry.uid)
        mailbox.release()
        self.threads.run()
        self.assertFalse((self.maildir / FILE_NAME).exists())


class GivenUpTests(Maildirs):
    """Scans that nobody waits for any more."""

    def endless(self, path: str = "new/1.a") -> list[int]:
        """A message that is never read to its end, unless its reader is stopped; the octets read of it."""
        with self.put(path).open("wb") as file:
            file.truncate(1024**3)
        read: list[int] = []
        self.patch(os, "lseek", lambda fd, at, how: at)

        def pread(fd: int, most: int, at: int) -> bytes:
            self.assertLess(len(read), 100, "it never ends")
            read.append(most)
            return bytes(most)

        self.patch(os, "pread", pread)
        return read

    def test_before_it_begins(self) -> None:
        """A scan that waits for its thread reads nothing when its session has gone."""
        read = self.endless()
        counting = Threads()
        store = self.new_store(scan_in_thread=counting)
        with watched_descriptors():
            opening: Any = store.open("ann")
            self.threads.run()
            opening.cancel()
            self.assertEqual("", self.failureResultOf(opening, Refusal).value.code)
            self.assertRaises(InUse, self.open, store)
            counting.run()
            opening = store.open("ann")
            opening.cancel()
            self.failureResultOf(opening, Refusal)
            self.threads.run()
            self.assertEqual([], counting.jobs)
        self.assertEqual([], read)

    def test_while_it_runs(self) -> None:
        """One that runs ends at the next chunk, and gives the lock back."""
        read = self.endless()
        store = self.new_store()
        pread = os.pread

        def leaving(fd: int, most: int, at: int) -> bytes:
            if len(read) == 3:
                opening.cancel()
            return pread(fd, most, at)

        self.patch(os, "pread", leaving)
        with watched_descriptors():
            opening: Any = store.open("ann")
            self.threads.run()
            self.failureResultOf(opening, Refusal)
        self.assertEqual(4, len(read))
        (self.maildir / "new" / "1.a").unlink()
        self.open(store).release()

    def test_when_it_was_done(self) -> None:
        """What was counted for somebody who has left is known to the next, and nothing stays locked."""
        self.put("new/1.a")
        store = self.new_store()
        save = os.replace

        def late(*args: Any, **options: Any) -> None:
            save(*args, **options)
            opening.cancel()

        self.patch(os, "replace", late)
        with watched_descriptors():
            opening: Any = store.open("ann")
            self.threads.run()
            self.failureResultOf(opening, Refusal)
        self.assertNotIsInstance(store.open("ann"), Deferred)

    def test_the_server_stops(self) -> None:
        """A server that stops ends the scans that run."""
        read = self.endless()
        store = self.new_store(is_over=lambda: len(read) == 5)
        with watched_descriptors():
            for _ in range(2):
                opening: Any = store.open("ann")
                self.threads.run()
                self.failureResultOf(opening, StoreTrouble)
        self.assertEqual(5, len(read))

    def test_one_for_each_user(self) -> None:
        """Whoever puts another Maildir into the place of one that is being scanned gets no second thread."""
        self.put("new/1.a")
        counting = Threads()
        store = self.new_store(scan_in_thread=counting)
        first: Any = store.open("ann")
        self.threads.run()
        for number in range(8):
            self.maildir.rename(self.root / f"old-{number}")
            make_maildir(self.maildir)
            self.put("new/2.b")
            self.assertRaises(InUse, self.open, store)
        make_maildir(self.root / "bob")
        (self.root / "bob" / "new" / "1.a").write_bytes(b"x")
        second: Any = store.open("bob")
        self.threads.run()
        self.assertEqual(2, len(counting.jobs))
        counting.run()
        self.assertEqual([b"1.a"], [entry.uid for entry in self.successResultOf(first).entries])
        self.successResultOf(second)
        third: Any = store.open("ann")
        self.threads.run()
        self.assertEqual([b"2.b"], [entry.uid for entry in counting.wait(third).entries])

    def test_session_gone(self) -> None:
        """A client that leaves while its maildrop is opened takes the scan with it, and no bug is logged."""
        read = self.endless()
        users = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
        portal = Portal(MailboxRealm(self.new_store()), [users])
        record = SessionRecord(1, Channel("127.0.0.1", local=True))
        session = Session(PortalAuthenticator(portal), record)
        with capturedLogs() as logs, watched_descriptors():
            handle(session, session.parse(b"USER ann"))
            answer: Any = handle(session, session.parse(b"PASS secret"))
            self.assertNoResult(answer)
            session.end()
            self.assertFalse(self.successResultOf(answer).ok)
            self.threads.run()
        self.assertEqual(([], []), (read, logs))
        self.assertIsNone(record.give_up_opening)

    def test_largest(self) -> None:
        """What is larger than the store may count is listed by its size, and counted when it is fetched."""
        self.put("new/1.a", b"x\n" * 1000)
        store = self.new_store(max_listed_size=1999)
        with capturedLogs() as logs:
            mailbox = self.open(store)
        self.assertEqual([f"Maildir '{self.maildir}'"], [event["where"] for event in logs])
        self.assertEqual(2000, mailbox.entries.octets)
        self.retrieve(mailbox, b"1.a")
        mailbox.release()
        self.threads.run()
        self.assertEqual(3002, self.open(store).entries.octets)


class WrongSizeTests(Maildirs):
    """Names and caches that tell the wrong octets."""

    @contextmanager
    def warnings(self, count: int) -> Iterator[None]:
        """Fails unless so many warnings are logged in the block."""
        with capturedLogs() as events:
            yield
        said = [event for event in events if event["log_level"].name == "warn"]
        self.assertEqual(count, len(said), said)

    def session(self, store: MaildirStore) -> int:
        """A session that retrieves the message; what was announced of it."""
        mailbox = self.open(store)
        ((uid, announced, _),) = mailbox.entries
        self.retrieve(mailbox, uid)
        self.retrieve(mailbox, uid)
        mailbox.release()
        self.threads.run()
        return int(announced)

    def test_another_file(self) -> None:
        """Another file of the same name, as from a backup, is counted anew, by this process and the next."""
        for same_process in (True, False):
            self.put("cur/1.a:2,S", b"a: b\n\nold\n")
            store = self.new_store()
            mailbox = self.open(store)
            self.assertEqual(13, mailbox.entries.octets)
            mailbox.release()
            (self.maildir / "cur" / "1.a:2,S").unlink()
            self.put("cur/1.a:2,S", b"a: b\n\nfrom the backup\n")
            mailbox = self.open(store if same_process else self.new_store())
            self.assertEqual(25, mailbox.entries.octets)
            mailbox.release()
            (self.maildir / "cur" / "1.a:2,S").unlink()

    def test_cache_of_before(self) -> None:
        """A cache that was written before doubled line ends were known is not believed."""
        self.put("cur/1.a:2,S", b"a: b\r\r\n\r\r\nbody\r\r\n")
        body = b"20 1.a\n"
        (self.maildir / FILE_NAME).write_bytes(b"pop3toy-sizes 1 %08x\n" % zlib.crc32(body) + body)
        self.assertEqual(17, self.open().entries.octets)

    def test_corrected(self) -> None:
        """A wrong W= stands for its session, is logged once, and right in the next, in any process."""
        self.put("cur/1.a,W=999:2,S")
        store = self.new_store()
        with self.warnings(1):
            self.assertEqual([999, 5, 5], [self.session(store) for _ in range(3)])
        with self.warnings(0):
            self.assertEqual(5, self.session(self.new_store()))
        self.assertEqual(["cur/1.a,W=999:2,S"], self.names())

    def test_right_size(self) -> None:
        """A right W= is neither logged nor kept."""
        self.put("cur/1.a,W=5:2,S")
        with self.warnings(0):
            self.session(self.new_store())
        self.assertFalse((self.maildir / FILE_NAME).exists())

    def test_wrong_in_the_cache(self) -> None:
        """So it is when the cache is wrong, because a message has changed."""
        file = self.put("new/1.a")
        store = self.new_store()
        self.assertEqual(5, self.session(store))
        file.write_bytes(b"Subject: longer\n\n")
        with self.warnings(1):
            self.assertEqual([5, 19], [self.session(store), self.session(store)])
        self.assertEqual(19, self.session(self.new_store()))

    def test_part_of_a_message(self) -> None:
        """A message of which only a part went out says nothing about its octets."""
        self.put("cur/1.a,W=999:2,S")
        store = self.new_store()
        mailbox = self.open(store)
        with self.warnings(0):
            self.read(mailbox, b"1.a,W=999")
            mailbox.release()
        self.assertEqual(999, self.open(store).entries[0].octets)

    def test_free_at_once(self) -> None:
        """What was corrected is written after the release, and nobody has to wait for that."""
        self.put("cur/1.a,W=999:2,S")
        with watched_descriptors():
            mailbox = self.open()
            self.retrieve(mailbox, b"1.a,W=999")
            mailbox.release()
            other = self.open(self.new_store(threads=run_now))
            self.threads.run()
            other.release()
        self.assertEqual(5, self.open().entries[0].octets)

    def test_cannot_be_written(self) -> None:
        """Where the cache cannot be written, a process still knows what it has seen, and says it once."""
        (self.maildir / f"{FILE_NAME}.tmp").mkdir()
        self.put("cur/1.a,W=999:2,S")
        store = self.new_store()
        with self.warnings(1), watched_descriptors():
            self.assertEqual([999, 5, 5, 5], [self.session(store) for _ in range(4)])

    @skipIf(os.getuid() != 0, "needs root to mount a small file system")
    def test_read_only(self) -> None:
        """So it is on a file system that is read-only, where a mailbox can be read and not emptied."""
        with tmpfs("size=1m") as root:
            self.root = root
            self.maildir = make_maildir(root / "ann")
            self.put("cur/1.a,W=999:2,S")
            self.put("cur/2.b:2,S")
            make_read_only(root)
            store = self.new_store()
            with self.warnings(1), watched_descriptors():
                for octets_told in (999, 5):
                    mailbox = self.open(store)
                    self.assertEqual([octets_told, 5], [entry.octets for entry in mailbox.entries])
                    self.retrieve(mailbox, b"1.a,W=999")
                    trouble = self.assertRaises(
                        StoreTrouble, lambda box=mailbox: self.threads.wait(box.remove([b"2.b"]))
                    )
                    self.assertIn("Read-only", trouble.detail)
                    mailbox.release()
                    self.threads.run()
            self.assertEqual(["cur/1.a,W=999:2,S", "cur/2.b:2,S"], self.names())


# -- removing --------------------------------------------------------------------------


class RemoveTests(Maildirs):
    """Exactly the marked ones, durably."""

    def remove(self, mailbox: Any, uids: Sequence[bytes]) -> None:
        """Remove and wait."""
        self.threads.wait(mailbox.remove(uids))

    def fails(self, mailbox: Any, uids: Sequence[bytes]) -> StoreTrouble:
        """The trouble that a removal ends in."""
        trouble = self.assertRaises(StoreTrouble, self.remove, mailbox, uids)
        self.assertIsInstance(trouble, StoreTrouble)
        assert isinstance(trouble, StoreTrouble)
        return trouble

    def test_in_a_thread(self) -> None:
        """Nothing is removed on the reactor's thread; it is over when the folder is synced behind all."""
        uids = self.fill(2)
        mailbox = self.open()
        self.assertEqual(None, mailbox.remove([]))
        removal = mailbox.remove(uids)
        self.assertNoResult(removal)
        self.assertEqual(2, len(self.names()))
        left: list[int] = []
        self.patch(os, "fsync", lambda fd: left.append(len(self.names())))
        self.threads.run()
        self.assertEqual(None, self.successResultOf(removal))
        self.assertEqual(([], [0]), (self.names(), left))

    def test_fsync(self) -> None:
        """A folder that cannot be synced is trouble, unless its file system knows no fsync of folders."""
        for error in (errno.EIO, errno.EINVAL):
            uids = self.fill(2)
            mailbox = self.open()

            def broken(fd: int, error: int = error) -> None:
                raise OSError(error, os.strerror(error))

            patch = self.patch(os, "fsync", broken)
            if error == errno.EIO:
                self.assertIn(os.strerror(error), self.fails(mailbox, uids).detail)
            else:
                self.remove(mailbox, uids)
            self.assertEqual(self.names(), [])
            patch.restore()
            mailbox.release()

    def test_ten_thousand(self) -> None:
        """Of 20,000 every second one is removed, renamed ones after one look; each folder is synced once."""
        uids = self.fill(10_000)
        others = [f"1600000000.M{number}.other,W=5" for number in range(10_000)]
        for name in others:
            self.put(f"cur/{name}")
        mailbox = self.open()
        for number, uid in enumerate(uids):
            if number % 3:
                self.rename(f"new/{uid.decode()}", f"cur/{uid.decode()}:2,S")
        synced, listed = self.synced(), self.listings()
        self.remove(mailbox, uids)
        self.assertEqual((["cur", "new"], ["new", "cur"]), (sorted(synced), listed))
        self.assertEqual(sorted(f"cur/{name}" for name in others), self.names())

    def synced(self) -> list[str]:
        """Which folders are synced from now on, in a list that grows."""
        synced: list[str] = []
        fsync = os.fsync

        def spy(fd: int) -> None:
            synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            fsync(fd)

        self.patch(os, "fsync", spy)
        return synced

    def test_some_renamed_some_gone(self) -> None:
        """Whatever other programs did to the marked ones, they are gone afterwards, and nothing else is."""
        uids = self.fill(9)
        names = [uid.decode() for uid in uids]
        mailbox = self.open()
        for number, name in enumerate(names):
            if number % 3 == 1:
                self.rename(f"new/{name}", f"cur/{name}:2,S")
            elif number % 3 == 2:
                (self.maildir / "new" / name).unlink()
        self.remove(mailbox, uids[:6])
        self.assertEqual([f"cur/{names[7]}:2,S", f"new/{names[6]}"], self.names())

    def test_renamed_meanwhile(self) -> None:
        """A message that is renamed again while it is looked for is looked for again."""
        (uid,) = self.fill(1)
        name = uid.decode()
        mailbox = self.open()
        self.renames_before_unlinking(
            [f"new/{name}", f"cur/{name}:2,", f"cur/{name}:2,S", f"cur/{name}:2,FS"]
        )
        self.remove(mailbox, [uid])
        self.assertEqual([], self.names())

    def test_renamed_all_the_while(self) -> None:
        """One that is never where it was seen is trouble, and never said to be removed."""
        (uid,) = self.fill(1)
        name = uid.decode()
        mailbox = self.open()
        names = [f"cur/{name}:2,{'S' * number}" for number in range(SEARCHES + 3)]
        self.renames_before_unlinking([f"new/{name}", *names])
        self.assertIn("renames", self.fails(mailbox, [uid]).detail)
        self.assertEqual(1, len(self.names()))

    def renames_before_unlinking(self, names: list[str]) -> None:
        """Give the message its next name each time that it is about to be unlinked."""
        left = itertools.pairwise(names)
        unlink = os.unlink

        def spy(*args: Any, **options: Any) -> None:
            step = next(left, None)
            if step is not None:
                self.rename(*step)
            unlink(*args, **options)

        self.patch(os, "unlink", spy)

    def test_linked_in_both_folders(self) -> None:
        """A message with a name in each folder is one; both names go, also when their flags have changed."""
        self.put("new/2.b,W=5")
        for changed in ([], ["cur"], ["new"], ["new", "cur"]):
            self.put("new/1.a,W=5")
            os.link(self.maildir / "new" / "1.a,W=5", self.maildir / "cur" / "1.a,W=5:2,S")
            mailbox = self.open()
            self.assertEqual([b"1.a,W=5", b"2.b,W=5"], [entry.uid for entry in mailbox.entries])
            for old, new in (("new/1.a,W=5", "new/1.a,W=5:2,F"), ("cur/1.a,W=5:2,S", "cur/1.a,W=5:2,RS")):
                if old[:3] in changed:
                    self.rename(old, new)
            self.remove(mailbox, [b"1.a,W=5"])
            mailbox.release()
            self.assertEqual(self.names(), ["new/2.b,W=5"], changed)

    def test_one_folder_is_read_only(self) -> None:
        """If some cannot be removed the rest is, and it is said that not all were."""
        self.put("new/1.a,W=5")
        self.put("cur/2.b,W=5:2,S")
        self.put("new/3.c,W=5")
        self.put("new/4.kept,W=5")
        mailbox = self.open()
        (self.maildir / "new").chmod(0o777)
        restrict(self, self.maildir / "cur", 0o555)
        with unprivileged():
            trouble = self.fails(mailbox, [b"1.a,W=5", b"2.b,W=5", b"3.c,W=5"])
        self.assertEqual(["cur/2.b,W=5:2,S", "new/4.kept,W=5"], self.names())
        self.assertIn("'ann'", trouble.detail)
        self.assertIn("1 errors", trouble.detail)
        self.assertNotIn("ann", trouble.text)

    def test_all_is_gone(self) -> None:
        """If the folders, or the whole Maildir, are gone before, none is said to have been removed."""
        for whole, used in itertools.product((False, True), repeat=2):
            uids = self.fill(10)
            mailbox = self.open()
            if used:
                # The folder is open from now on.
                self.read(mailbox, uids[0])
            away = self.root / f"away-{whole}-{used}"
            self.maildir.rename(away)
            if not whole:
                self.maildir.mkdir()
            shutil.rmtree(away)
            self.assertEqual(getattr(self.fails(mailbox, uids), "removed", None), 0)
            mailbox.release()
            self.threads.run()
            shutil.rmtree(self.maildir, ignore_errors=True)
            make_maildir(self.maildir)

    def test_a_folder_in_its_place(self) -> None:
        """A folder that has the name of a marked message is not removed."""
        file = self.put("new/1.a,W=5")
        self.put("new/2.b,W=5")
        mailbox = self.open()
        file.unlink()
        file.mkdir()
        self.fails(mailbox, [b"1.a,W=5", b"2.b,W=5"])
        self.assertEqual(["new/1.a,W=5"], self.names())

    def test_released_while_removing(self) -> None:
        """A session that ends while it removes keeps the lock until that is finished, and tells then."""
        uids = self.fill(3)
        with watched_descriptors():
            mailbox = self.open()
            removal = mailbox.remove(uids)
            leaving: Any = mailbox.release()
            self.assertNoResult(leaving)
            self.assertIsNone(mailbox.release(), "once is enough")
            self.assertRaises(InUse, self.open, self.new_store(threads=run_now))
            leaving.addCallback(lambda _: self.open(self.new_store(threads=run_now)).release())
            self.threads.run()
            self.successResultOf(leaving)
            self.successResultOf(removal)
            self.assertEqual([], self.names())
            self.open().release()

    def test_next_session(self) -> None:
        """The next session does not see what was removed, whatever the clock says."""
        for self.now in (0.0, MUCH_LATER):
            uids = self.fill(3)
            store = self.new_store()
            mailbox = self.open(store)
            self.remove(mailbox, uids[:2])
            mailbox.release()
            again = self.open(store)
            self.assertEqual(uids[2:], [entry.uid for entry in again.entries])
            again.release()


# -- the lock, between processes ---------------------------------------------------------

#: Opens ann's Maildir, says how that went, and goes on as it is told.
_OTHER = """
import os, sys, threading
from twisted.internet.defer import Deferred
from pop3toy.errors import InUse
from pop3toy.stores.maildir.store import MaildirStore
from pop3toy.stores.maildir.mailbox import SEARCHES
from pop3toy.stores.maildir.paths import MaildirPaths
from pop3toy.net.threads import run_now
from tests.store_world import outcome

root, how = sys.argv[1:]
try:
    mailbox = outcome(MaildirStore(MaildirPaths(root + "/{user}"), run_now).open("ann"))
except InUse:
    print("in use", flush=True)
    raise SystemExit
print("open", flush=True)
if how == "remove":
    # A thread that never gets behind its first file.
    unlink, begun = os.unlink, threading.Event()
    def slow(*args, **options):
        unlink(*args, **options)
        begun.set()
        threading.Event().wait()
    os.unlink = slow
    uids = [entry.uid for entry in mailbox.entries]
    threading.Thread(target=mailbox.remove, args=(uids,), daemon=True).start()
    begun.wait()
    mailbox.release()
    print("removing", flush=True)
sys.stdin.readline()
mailbox.release()
print("released", flush=True)
sys.stdin.readline()
"""


class LockTests(Maildirs):
    """Sessions of several processes."""

    def other(self, how: str = "") -> subprocess.Popen[str]:
        """Another process that opens the Maildir."""
        process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(self.root), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

        def end() -> None:
            process.kill()
            process.wait(PATIENCE)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

        self.addCleanup(end)
        return process

    def says(self, process: subprocess.Popen[str]) -> str:
        """The next line of another process."""
        assert process.stdout is not None
        patience = threading.Timer(PATIENCE, process.kill)
        patience.start()
        try:
            return process.stdout.readline().strip()
        finally:
            patience.cancel()
            patience.join()

    def tell(self, process: subprocess.Popen[str]) -> None:
        """Let another process go on."""
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    def test_two_processes(self) -> None:
        """While one process has the Maildir another is refused at once, both ways; no file tells of it."""
        self.fill(1)
        before = set(os.listdir(self.maildir))
        mailbox = self.open()
        self.assertEqual("in use", self.says(self.other()))
        self.assertEqual(before, set(os.listdir(self.maildir)))
        mailbox.release()
        other = self.other()
        self.assertEqual("open", self.says(other))
        with watched_descriptors():
            for _ in range(3):
                self.assertRaises(InUse, self.open)
        self.tell(other)
        self.assertEqual("released", self.says(other))
        self.assertEqual(before, set(os.listdir(self.maildir)))
        self.open().release()

    def test_killed(self) -> None:
        """The lock of a process that was killed is free as soon as it is dead."""
        self.fill(1)
        other = self.other()
        self.assertEqual("open", self.says(other))
        self.assertRaises(InUse, self.open)
        other.send_signal(signal.SIGKILL)
        other.wait(PATIENCE)
        self.assertEqual(1, len(self.open().entries))

    def test_killed_while_a_thread_works(self) -> None:
        """So it is when its thread was removing after the session had ended; only marked ones are gone."""
        self.fill(3)
        other = self.other("remove")
        self.assertEqual("open", self.says(other))
        self.put("new/1.new,W=5")
        self.assertEqual("removing", self.says(other))
        self.assertRaises(InUse, self.open)
        other.send_signal(signal.SIGKILL)
        other.wait(PATIENCE)
        mailbox = self.open()
        self.assertEqual(3, len(mailbox.entries))
        self.assertEqual(b"1.new,W=5", mailbox.entries[0].uid)

    def test_not_inherited(self) -> None:
        """A program that the server starts does not inherit the lock."""
        mailbox = self.open()
        sleeper = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
        )
        try:
            self.says(sleeper)
            mailbox.release()
            self.open().release()
        finally:
            sleeper.communicate("\n", PATIENCE)

    def test_locking_fails(self) -> None:
        """Where a file system cannot lock, nothing is opened without a lock."""
        fcntl = sys.modules["fcntl"]

        def broken(fd: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        self.patch(fcntl, "flock", broken)
        with watched_descriptors():
            self.assertIn("locking", self.assertRaises(StoreTrouble, self.open).detail)

    def test_descriptors_of_a_session(self) -> None:
        """An idle session costs one descriptor, one that reads at most two more."""
        self.put("new/1.a,W=5")
        self.put("cur/2.b,W=5")
        before = len(open_descriptors())
        mailbox = self.open()
        self.assertEqual(before + 1, len(open_descriptors()))
        for entry in mailbox.entries:
            self.read(mailbox, entry.uid)
        self.assertEqual(before + 3, len(open_descriptors()))
        mailbox.release()
        self.assertEqual(before, len(open_descriptors()))
