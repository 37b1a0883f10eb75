"""Delivery into Maildirs: all of a message or nothing, under a name that tells the truth."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy.errors import NoSuchMailbox, OverQuota, StoreFull, StoreTrouble
from pop3toy.interfaces import Entry, IDelivery, Incoming
from pop3toy.mail.octets import octets
from pop3toy.stores.maildir.folders import fsync_names
from pop3toy.stores.maildir.incoming.delivery import SWEEP, MaildirDelivery
from pop3toy.stores.maildir.incoming.directory_syncs import Directory, DirectorySyncs
from pop3toy.stores.maildir.incoming.message import SPILL
from pop3toy.stores.maildir.paths import MaildirPaths
from pop3toy.stores.maildir.store import MaildirStore

from ..corpus import make_maildir
from ..exchanging import exchanging
from ..folders import new_folder
from ..store_world import outcome, tmpfs, watched_descriptors


class Maildirs:
    """Maildirs in a directory, and a delivery into them whose threads run at once."""

    def __init__(self, root: Path, *users: str, **options: Any) -> None:
        self.root = root
        self.paths = MaildirPaths(f"{root}/{{user}}")
        self.clock = Clock()
        self.clock.advance(1_700_000_000.25)
        for user in users:
            make_maildir(root / user)
        self.delivery = MaildirDelivery(
            self.paths, execute, self.clock, host="mx", wall=self.clock.seconds, **options
        )

    def files(self, user: str, part: str = "new") -> list[Path]:
        """The files in one part of a user's Maildir."""
        return sorted((self.root / user / part).iterdir())


class MaildirDeliveryTests(SynchronousTestCase):
    """One message, one user."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildirs = Maildirs(self.root, "ann")

    def deliver(self, *chunks: bytes, user: str = "ann", maildirs: Maildirs | None = None) -> bytes:
        """Deliver a message and return its uid."""
        incoming = self.successResultOf((maildirs or self.maildirs).delivery.begin([user]))
        for chunk in chunks:
            waiting = incoming.write(chunk)
            if isinstance(waiting, Deferred):
                self.successResultOf(waiting)
        (uid,) = self.successResultOf(incoming.commit())
        return uid

    def test_one_message(self) -> None:
        """A message lies in new/ with LF line ends, its name telling its time, size and octets."""
        self.assertTrue(verifyObject(IDelivery, self.maildirs.delivery))
        # A CRLF between two chunks is one line end; an empty message counts the two that POP3 sends.
        for chunks, stored, told in (
            ((b"Subject: x\r\n\r\nhel", b"lo\r\n"), b"Subject: x\n\nhello\n", "S=18,W=21"),
            ((b"a: b\r", b"\n\r", b"\n", b"c\r\n"), b"a: b\n\nc\n", "S=8,W=11"),
            ((), b"", "S=0,W=2"),
        ):
            uid = self.deliver(*chunks)
            (file,) = self.maildirs.files("ann")
            self.assertEqual(file.read_bytes(), stored)
            self.assertRegex(file.name, rf"^1700000000\.M250000P\d+Q\d\.mx,{told}$")
            self.assertEqual(uid.decode(), file.name)
            self.assertEqual(self.maildirs.files("ann", "tmp"), [])
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
            file.unlink()
        # All within one moment of the clock.
        self.assertEqual(len({self.deliver(b"same\n") for _ in range(20)}), 20)

    @given(st.lists(st.text("a:\r\n.", max_size=8).map(str.encode), max_size=8))
    def test_octets_in_the_name(self, chunks: list[bytes]) -> None:
        """However it is cut, S is the file's size, W what POP3 sends of it, and no CR is lost."""
        with tempfile.TemporaryDirectory() as root:
            maildirs = Maildirs(Path(root), "ann")
            self.deliver(*chunks, maildirs=maildirs)
            (file,) = maildirs.files("ann")
            stored = file.read_bytes()
            told = re.search(r",S=(\d+),W=(\d+)$", file.name)
            assert told
            self.assertEqual((int(told[1]), int(told[2])), (len(stored), octets(stored)))
            self.assertEqual(_wire(stored), _wire(b"".join(chunks)))

    def test_durable(self) -> None:
        """The octets are on the disk before the message has its name, and the name before it is said."""
        log: list[str] = []
        real_fsync, real_rename = os.fsync, os.rename

        def fsync(handle: int) -> None:
            log.append("fsync " + os.readlink(f"/proc/self/fd/{handle}").removeprefix(f"{self.root}/ann/"))
            real_fsync(handle)

        def rename(old: str, new: str, **folders: int) -> None:
            log.append("rename")
            real_rename(old, new, **folders)

        incoming = self.successResultOf(self.maildirs.delivery.begin(["ann"]))
        self.patch(os, "fsync", fsync)
        self.patch(os, "rename", rename)
        incoming.write(b"x")
        incoming.commit().addCallback(lambda uid: log.append("done"))
        self.assertEqual(
            [entry.partition("/")[0] for entry in log], ["fsync tmp", "rename", "fsync new", "done"]
        )

    def test_new_maildir(self) -> None:
        """A Maildir that is used for the first time is made durable itself, up to its own name."""
        log: list[str] = []
        real = os.fsync
        self.patch(os, "fsync", lambda fd: (log.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
        folders = [f"{self.root}/ann/new", f"{self.root}/ann", str(self.root)]
        self.successResultOf(self.maildirs.delivery.check("ann"))
        self.successResultOf(self.maildirs.delivery.begin(["ann"]))
        self.assertEqual(log, folders)
        # Also if nobody has asked before.
        self.successResultOf(Maildirs(self.root).delivery.begin(["ann"]))
        self.assertEqual(log, folders * 2)
        # And if it was removed, and another made in its place.
        shutil.rmtree(self.root / "ann")
        for part in ("cur", "new", "tmp"):
            (self.root / "ann" / part).mkdir(parents=True)
        for _ in range(2):
            self.successResultOf(self.maildirs.delivery.check("ann"))
        self.assertEqual(log, folders * 3)

    def test_abort(self) -> None:
        """What is given up leaves nothing, whether it has reached the disk or not; what is done stays."""
        for size in (10, SPILL + 10):
            incoming = self.successResultOf(self.maildirs.delivery.begin(["ann"]))
            waiting = incoming.write(b"x" * size)
            self.assertEqual(isinstance(waiting, Deferred), size > SPILL)
            self.assertEqual(len(self.maildirs.files("ann", "tmp")), int(size > SPILL))
            incoming.abort()
            incoming.abort()
            self.assertEqual(self.maildirs.files("ann", "tmp"), [])
        self.assertEqual(self.maildirs.files("ann"), [])
        incoming = self.successResultOf(self.maildirs.delivery.begin(["ann"]))
        incoming.write(b"x")
        self.successResultOf(incoming.commit())
        incoming.abort()
        self.assertEqual(len(self.maildirs.files("ann")), 1)

    def test_abort_while_a_thread_writes(self) -> None:
        """A delivery that is given up while a thread writes is removed when the thread is done."""
        jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

        def later(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
            jobs.append((Deferred(), work, args))
            return jobs[-1][0]

        def run() -> None:
            while jobs:
                done, work, args = jobs.pop(0)
                done.callback(work(*args))

        delivery = MaildirDelivery(
            self.maildirs.paths, later, self.maildirs.clock, wall=self.maildirs.clock.seconds
        )
        begun = delivery.begin(["ann"])
        run()
        incoming = self.successResultOf(begun)
        waiting = incoming.write(b"x" * SPILL)
        assert isinstance(waiting, Deferred)
        self.assertNoResult(waiting)
        incoming.abort()
        run()
        self.assertEqual(self.maildirs.files("ann", "tmp"), [])

    def test_large_message_in_pieces(self) -> None:
        """What is large goes to the disk while it comes in, and memory keeps less than a spill."""
        incoming = self.successResultOf(self.maildirs.delivery.begin(["ann"]))
        for _ in range(100):
            waiting = incoming.write(b"y" * 65_536)
            if isinstance(waiting, Deferred):
                self.successResultOf(waiting)
        (file,) = self.maildirs.files("ann", "tmp")
        self.assertGreater(file.stat().st_size, 100 * 65_536 - SPILL)
        self.successResultOf(incoming.commit())
        self.assertEqual(self.maildirs.files("ann")[0].stat().st_size, 100 * 65_536)

    def test_links(self) -> None:
        """What a session refuses a delivery refuses in the same words: folders that are links, or none."""
        elsewhere = self.root / "elsewhere"
        make: dict[str, Callable[[Path], object]] = {
            "link": lambda path: path.symlink_to(elsewhere),
            "file": lambda path: path.write_bytes(b""),
        }
        for quota in (None, 1000):
            maildirs = Maildirs(self.root / str(quota), "ann", quota=lambda user, quota=quota: quota)
            for part in ("new", "cur", "tmp"):
                for kind, put in make.items():
                    path = maildirs.root / "ann" / part
                    store = MaildirStore(maildirs.paths, execute)
                    incoming = self.successResultOf(maildirs.delivery.begin(["ann"]))
                    path.rename(elsewhere)
                    put(path)
                    refused = self.assertRaises(StoreTrouble, lambda store=store: outcome(store.open("ann")))
                    late = self.failureResultOf(_delivered(incoming), StoreTrouble).value
                    early = self.failureResultOf(maildirs.delivery.check("ann"), StoreTrouble).value
                    self.assertEqual([refused.detail] * 2, [early.detail, late.detail], (part, kind))
                    self.assertIn(f"{part} in a Maildir is not a folder of its own", refused.detail)
                    self.assertIn(f"Maildir '{maildirs.root}/ann'", refused.detail)
                    self.assertEqual(list(elsewhere.iterdir()), [])
                    path.unlink()
                    elsewhere.rename(path)
                    self.successResultOf(maildirs.delivery.check("ann"))

    def test_exchanged(self) -> None:
        """While a folder is exchanged for a link all the while, nothing gets or is swept elsewhere."""
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        old = elsewhere / "1.M2P3Q4.mx"
        old.write_bytes(b"")
        os.utime(old, (1, 1))
        self.patch(os, "fsync", lambda handle: None)
        for part in ("new", "tmp", "cur"):
            link = self.root / f"link-to-{part}"
            link.symlink_to(elsewhere)
            done = refused = 0
            with exchanging(self.root / "ann" / part, link):
                for _ in range(1000):
                    self.maildirs.clock.advance(SWEEP + 1)
                    begun = self.maildirs.delivery.check("ann")
                    begun.addCallback(lambda _: self.maildirs.delivery.begin(["ann"]))
                    begun.addCallback(_delivered)
                    found = outcome(begun.addErrback(lambda why: why.trap(StoreTrouble)))
                    done += isinstance(found, list)
                    refused += not isinstance(found, list)
                    self.assertEqual([old], list(elsewhere.iterdir()), (part, done, refused))
            if link.is_symlink():
                link.unlink()
            else:
                # The folder itself has that name now.
                (self.root / "ann" / part).unlink()
                link.rename(self.root / "ann" / part)
            self.assertGreater(min(done, refused), 0, part)
            self.assertEqual(self.maildirs.files("ann", "tmp"), [])

    def test_exchanged_file(self) -> None:
        """Another file that the owner of tmp/ puts in the place of a message is delivered to nobody."""
        for together in (True, False):
            maildirs = Maildirs(self.root / str(together), "ann", "bob")
            shared = outcome(maildirs.delivery.begin(["ann", "bob"]))
            outcome(shared.write(b"x" * SPILL))
            (file,) = maildirs.files("ann", "tmp")
            file.rename(self.root / "mine")
            file.write_bytes(b"another")
            error = self.failureResultOf(shared.commit(together=together), StoreTrouble).value
            self.assertIn("another file", error.detail)
            for user in ("ann", "bob"):
                self.assertEqual(maildirs.files(user), [])

    def test_no_descriptors_left(self) -> None:
        """However a delivery ends, no descriptor stays open."""
        maildirs = Maildirs(self.root / "quota", "ann", "bob", quota={"bob": 5}.get)
        outcome(_delivered(outcome(maildirs.delivery.begin(["ann"]))))
        outcome(maildirs.delivery.check("bob"))
        with watched_descriptors():
            for size in (1, 6, SPILL):
                for end in ("commit", "abort", "shared", "together"):
                    if end in ("commit", "abort"):
                        incoming = outcome(maildirs.delivery.begin(["ann"]))
                        outcome(incoming.write(b"x" * size))
                        outcome(getattr(incoming, end)())
                        continue
                    shared = outcome(maildirs.delivery.begin(["ann", "bob"]))
                    outcome(shared.write(b"x" * size))
                    commit = shared.commit(together=end == "together")
                    outcome(commit.addErrback(lambda why: why.trap(OverQuota)))

    def test_no_maildir(self) -> None:
        """Who has no Maildir gets no delivery; one that vanishes on the way is trouble."""
        self.failureResultOf(self.maildirs.delivery.check("nobody"), NoSuchMailbox)
        self.failureResultOf(self.maildirs.delivery.begin(["nobody"]), NoSuchMailbox)
        incoming = self.successResultOf(self.maildirs.delivery.begin(["ann"]))
        incoming.write(b"x")
        shutil.rmtree(self.root / "ann")
        failure = self.failureResultOf(incoming.commit(), StoreTrouble)
        self.assertNotIn(str(self.root), failure.value.text)

    def test_read_back(self) -> None:
        """The Maildir store lists the message under the uid and with the octets that were told."""
        for host in ("mx", "a-host-name-that-is-so-long.that-the-whole-name-is-no-unique-id.example.org"):
            maildirs = Maildirs(self.root / host, "ann")
            maildirs.delivery = MaildirDelivery(
                maildirs.paths, execute, maildirs.clock, host=host, wall=maildirs.clock.seconds
            )
            uid = self.deliver(b"Subject: x\r\n\r\n.\r\n", maildirs=maildirs)
            store = MaildirStore(MaildirPaths(str(maildirs.root / "{user}")), execute)
            mailbox: Any = self.successResultOf(maybeDeferred(store.open, "ann"))
            self.assertEqual(list(mailbox.entries), [Entry(uid, 17, 1_700_000_000)])

    def test_host_in_names(self) -> None:
        """A host name with a slash or a colon is escaped as the Maildir convention says."""
        delivery = MaildirDelivery(self.maildirs.paths, execute, self.maildirs.clock, host="a/b:c")
        self.assertTrue(delivery.new_name().endswith(r".a\057b\072c"))

    def test_swept_by_another(self) -> None:
        """What another process sweeps a moment before, or what cannot be removed, keeps no mail out."""
        tmp = self.root / "ann" / "tmp"
        for name in ("1.M2P3Q4.mx", "1.M2P3Q5.mx"):
            (tmp / name).write_bytes(b"")
            os.utime(tmp / name, (1, 1))
        (tmp / "1.M2P3Q6.mx").mkdir()
        os.utime(tmp / "1.M2P3Q6.mx", (1, 1))
        unlink = os.unlink

        def faster(path: str, **folder: int) -> None:
            unlink(path, **folder)
            unlink(path, **folder)

        self.patch(os, "unlink", faster)
        with capturedLogs() as logs:
            self.deliver()
        self.assertEqual([f.name for f in self.maildirs.files("ann", "tmp")], ["1.M2P3Q6.mx"])
        self.assertEqual([event["path"] for event in logs], [str(tmp / "1.M2P3Q6.mx")])

    def test_stale_files(self) -> None:
        """Own files in tmp/ are removed after 36 hours; young ones and other programs' are not."""
        now = self.maildirs.clock.seconds()
        # 36 hours, as the Maildir convention has it.
        for name, age in (("1.M2P3Q4.mx", 129_601), ("1.M2P3Q5.mx", 129_599), ("1.M2P3Q4.other", 129_601)):
            file = self.root / "ann" / "tmp" / name
            file.touch()
            os.utime(file, (now - age, now - age))
        self.successResultOf(self.maildirs.delivery.check("ann"))
        self.assertEqual(
            [f.name for f in self.maildirs.files("ann", "tmp")], ["1.M2P3Q4.other", "1.M2P3Q5.mx"]
        )
        self.maildirs.clock.advance(SWEEP + 1)
        self.successResultOf(self.maildirs.delivery.check("ann"))
        self.assertEqual([f.name for f in self.maildirs.files("ann", "tmp")], ["1.M2P3Q4.other"])


class OwnersTests(SynchronousTestCase):
    """Root delivers into Maildirs of others, as ``pop3toy deliver`` may."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can give files away")
        self.root = new_folder(self)
        self.maildirs = Maildirs(self.root, "ann", "bob")
        for user, number in (("ann", 12_001), ("bob", 12_002)):
            for path in (self.root / user, *(self.root / user).iterdir()):
                os.chown(path, number, number + 100)

    def incoming(self, *users: str, size: int = 5) -> Incoming:
        """A message of which so many octets are written."""
        incoming = self.successResultOf(self.maildirs.delivery.begin(users))
        if isinstance(waiting := incoming.write(b"x" * size), Deferred):
            self.successResultOf(waiting)
        return incoming

    def test_given(self) -> None:
        """A message belongs to the Maildir's owner and group, who alone may read it, before it is seen."""
        for size in (5, SPILL):
            self.successResultOf(self.incoming("ann", size=size).commit())
        for file in self.maildirs.files("ann"):
            status = file.stat()
            self.assertEqual((status.st_uid, status.st_gid, status.st_mode & 0o777), (12_001, 12_101, 0o600))

    def test_several(self) -> None:
        """Each owner has a file of their own; none has hands on what the other is about to get."""
        for together in (True, False):
            incoming = self.incoming("ann", "bob", size=SPILL)
            [written] = [*self.maildirs.files("ann", "tmp"), *self.maildirs.files("bob", "tmp")]
            self.assertEqual(written.stat().st_uid, 0)
            self.successResultOf(incoming.commit(together=together))
            for user, owner in (("ann", 12_001), ("bob", 12_002)):
                file = self.maildirs.files(user)[-1].stat()
                self.assertEqual((file.st_uid, file.st_nlink, file.st_size), (owner, 1, SPILL))
                self.assertEqual(self.maildirs.files(user, "tmp"), [])

    def test_refused(self) -> None:
        """Where the file system lets nobody give a file away nothing is left, and the sender tries again."""

        def refuse(file: int, user: int, group: int) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(os, "fchown", refuse)
        for users in (["ann"], ["ann", "bob"]):
            incoming = self.successResultOf(self.maildirs.delivery.begin(users))
            self.failureResultOf(incoming.commit(), StoreTrouble)
            for user in users:
                self.assertEqual(self.maildirs.files(user) + self.maildirs.files(user, "tmp"), [])


class QuotaTests(SynchronousTestCase):
    """How much a user may keep."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildirs = Maildirs(self.root, "ann", quota={"ann": 100}.get)

    def test_quota(self) -> None:
        """What does not fit is refused: while it comes, at its end, and at the beginning when all is used."""
        delivery = self.maildirs.delivery
        incoming = self.successResultOf(delivery.begin(["ann"]))
        large = self.assertRaises(OverQuota, incoming.write, b"x" * 101)
        self.assertIn("'ann'", large.detail)
        incoming.abort()
        two = [self.successResultOf(delivery.begin(["ann"])) for _ in range(2)]
        for incoming in two:
            incoming.write(b"x" * 60)
        self.successResultOf(two[0].commit())
        self.failureResultOf(two[1].commit(), OverQuota)
        last = self.successResultOf(delivery.begin(["ann"]))
        last.write(b"x" * 40)
        self.successResultOf(last.commit())
        self.failureResultOf(delivery.check("ann"), OverQuota)
        self.assertEqual([file.stat().st_size for file in self.maildirs.files("ann")], [60, 40])
        self.assertEqual(self.maildirs.files("ann", "tmp"), [])

    def test_announced(self) -> None:
        """What is announced to be too large is refused before it comes, and before others share it."""
        full = self.failureResultOf(self.maildirs.delivery.check("ann", 101), OverQuota)
        self.assertIn(": 'ann' uses 0 of 100 octets", full.value.detail)
        self.successResultOf(self.maildirs.delivery.check("ann", 100))

    def test_other_programs_messages(self) -> None:
        """A message without its size in its name counts with the size of its file."""
        (self.root / "ann" / "cur" / "1.x:2,S").write_bytes(b"z" * 99)
        (self.root / "ann" / "new" / "2.x,S=1").write_bytes(b"z")
        self.failureResultOf(self.maildirs.delivery.check("ann"), OverQuota)


class WriteFailsTests(SynchronousTestCase):
    """What fails in the middle of a message is never a success with a part missing."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildirs = Maildirs(self.root, "ann", "bob")
        self.full = False
        real = os.write

        def write(handle: int, data: bytes) -> int:
            if self.full and len(data) == 1:
                raise OSError(errno.ENOSPC, "full")
            # Some of it is written all the same.
            return real(handle, data[:-1] if self.full else data)

        self.patch(os, "write", write)

    def lost(self, *users: str) -> None:
        """Nobody has anything, and nothing is left."""
        for user in users:
            self.assertEqual(self.maildirs.files(user) + self.maildirs.files(user, "tmp"), [])

    def test_while_it_comes(self) -> None:
        """It fails late, through the Deferred; from then on it is lost, whatever the caller tries."""
        for users in (["ann"], ["ann", "bob"]):
            for together in (True, False):
                incoming = self.successResultOf(self.maildirs.delivery.begin(users))
                self.successResultOf(incoming.write(b"a" * SPILL))
                self.full = True
                self.failureResultOf(incoming.write(b"b" * SPILL), StoreFull)
                self.full = False
                self.assertRaises(StoreFull, incoming.write, b"c")
                self.failureResultOf(incoming.commit(together=together), StoreFull)
                self.lost(*users)

    def test_at_the_end(self) -> None:
        """It fails when the last of it is written, for a small message and for a large one."""
        for size in (10, SPILL + 10):
            for together in (True, False):
                incoming = self.successResultOf(self.maildirs.delivery.begin(["ann", "bob"]))
                outcome(incoming.write(b"a" * size))
                outcome(incoming.write(b"b"))
                self.full = True
                self.failureResultOf(incoming.commit(together=together), StoreFull)
                self.full = False
                self.lost("ann", "bob")

    def test_no_thread(self) -> None:
        """What was handed to a thread that never wrote it is missed."""
        broken = [False]

        def run(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
            return fail(StoreTrouble()) if broken[0] else execute(work, *args)

        delivery = MaildirDelivery(self.maildirs.paths, run, self.maildirs.clock)
        incoming = self.successResultOf(delivery.begin(["ann"]))
        self.successResultOf(incoming.write(b"a" * SPILL))
        broken[0] = True
        self.failureResultOf(incoming.write(b"b" * SPILL), StoreTrouble)
        broken[0] = False
        self.failureResultOf(incoming.commit(), StoreTrouble)
        self.lost("ann")

    def test_first_of_two(self) -> None:
        """Where the first has no place for it, it is written in the place of the second."""
        for size in (10, SPILL + 10):
            for together in (True, False):
                maildirs = Maildirs(self.root / f"{size}{together}", "ann", "bob")
                incoming = self.successResultOf(maildirs.delivery.begin(["ann", "bob"]))
                (maildirs.root / "ann" / "tmp").rmdir()
                outcome(incoming.write(b"a" * size))
                commit = incoming.commit(together=together)
                if together:
                    self.failureResultOf(commit, StoreTrouble)
                else:
                    refused, uid = self.successResultOf(commit)
                    self.assertIsInstance(refused, StoreTrouble)
                    self.assertEqual([uid.decode()], [file.name for file in maildirs.files("bob")])
                self.assertEqual(maildirs.files("ann") + maildirs.files("bob", "tmp"), [])
                self.assertEqual(
                    [file.read_bytes() for file in maildirs.files("bob")], [b"a" * size] * (not together)
                )

    def test_name_taken(self) -> None:
        """A place where the file's name is taken is no place, and that file stays."""
        taken = self.root / "ann" / "tmp" / f"1700000000.M250000P{os.getpid()}Q1.mx"
        taken.write_bytes(b"other")
        incoming = self.successResultOf(self.maildirs.delivery.begin(["ann", "bob"]))
        outcome(incoming.write(b"x"))
        with watched_descriptors():
            refused, _ = self.successResultOf(incoming.commit(together=False))
        self.assertIsInstance(refused, StoreTrouble)
        self.assertEqual(self.maildirs.files("ann", "tmp"), [taken])
        self.assertEqual([file.read_bytes() for file in self.maildirs.files("bob")], [b"x"])

    def test_never_seen(self) -> None:
        """What not all can have who stand together is seen by nobody, or for no longer than a moment."""
        log: list[str] = []
        for name in ("link", "rename", "fsync"):
            real = getattr(os, name)
            self.patch(os, name, lambda *a, _r=real, _n=name, **k: (log.append(_n), _r(*a, **k)))
        for number, (folder, users, expected) in enumerate(
            (
                ("tmp", ["ann", "bob"], ["fsync"]),
                ("new", ["ann", "bob"], ["fsync"]),
                ("new", ["bob", "ann"], ["fsync", "link"]),
            )
        ):
            maildirs = Maildirs(self.root / str(number), "ann", "bob")
            incoming = self.successResultOf(maildirs.delivery.begin(users))
            (maildirs.root / "ann" / folder).rmdir()
            outcome(incoming.write(b"x"))
            log.clear()
            self.failureResultOf(incoming.commit(), StoreTrouble)
            # No directory is waited for, and what was linked before is gone by then.
            self.assertEqual(log, expected)


class SharedQuotaTests(SynchronousTestCase):
    """One message, several users with quotas."""

    def setUp(self) -> None:
        self.root = new_folder(self)

    def test_two_in_the_end(self) -> None:
        """If room has gone meanwhile for one of two, the other has it, unless they stand together."""
        for full in ("ann", "bob"):
            for together in (True, False):
                root = self.root / f"{full}{together}"
                maildirs = Maildirs(root, "ann", "bob", quota={"ann": 100, "bob": 100}.get)
                incoming = self.successResultOf(maildirs.delivery.begin(["ann", "bob"]))
                incoming.write(b"x" * 60)
                (root / full / "new" / "1.other").write_bytes(b"z" * 41)
                commit = incoming.commit(together=together)
                if together:
                    error = self.failureResultOf(commit, OverQuota).value
                else:
                    results = self.successResultOf(commit)
                    error = results.pop(full == "bob")  # type: ignore[attr-defined]
                    self.assertIsInstance(results[0], bytes)
                self.assertIn(f": {full!r} uses 41 of 100 octets", error.detail)
                (other,) = {"ann", "bob"} - {full}
                self.assertEqual(len(maildirs.files(full)), 1)
                self.assertEqual(len(maildirs.files(other)), int(not together))
                # What was rolled back takes no room.
                room = 100 if together else 40
                self.failureResultOf(maildirs.delivery.check(other, room + 1), OverQuota)
                self.successResultOf(maildirs.delivery.check(other, room))

    def test_two_at_the_limit(self) -> None:
        """What fits into both exactly is taken by both, and counts in both."""
        maildirs = Maildirs(self.root, "ann", "bob", quota={"ann": 100, "bob": 100}.get)
        for size, fits in ((60, True), (41, False), (40, True), (1, False)):
            incoming = self.successResultOf(maildirs.delivery.begin(["ann", "bob"]))
            incoming.write(b"x" * size)
            commit = incoming.commit(together=False)
            if fits:
                self.assertEqual([bytes] * 2, [type(uid) for uid in self.successResultOf(commit)])
            else:
                self.failureResultOf(commit, OverQuota)
        for user in ("ann", "bob"):
            self.assertEqual([file.stat().st_size for file in maildirs.files(user)], [60, 40])

    def test_different(self) -> None:
        """Of a large message no more is taken than fits somewhere; each has what fits."""
        quotas = {"ann": 3 * SPILL, "bob": SPILL + 50}
        for users, size, takers in (
            (["ann", "bob"], SPILL - 20, ["ann", "bob"]),
            (["ann", "bob"], SPILL + 50, ["bob"]),
            (["bob", "ann"], SPILL + 50, ["bob"]),
            (["ann", "bob"], SPILL + 51, None),
            (["bob", "ann"], 3 * SPILL + 1, None),
            (["ann", "cat", "bob"], SPILL + 51, ["cat"]),
            (["ann", "cat", "bob"], 3 * SPILL + 1, ["cat"]),
        ):
            for together in (True, False):
                root = self.root / f"{users}{size}{together}"
                maildirs = Maildirs(root, "ann", "bob", "cat", quota=quotas.get)
                (root / "ann" / "cur" / "1.old:2,S").write_bytes(b"z" * (2 * SPILL + 20))
                incoming = self.successResultOf(maildirs.delivery.begin(users))
                if takers is None:
                    error = self.failureResultOf(maybeDeferred(incoming.write, b"x" * size), OverQuota).value
                    self.assertEqual(error.holds, 3 * SPILL)
                    incoming.abort()
                else:
                    outcome(incoming.write(b"x" * size))
                    commit = incoming.commit(together=together)
                    if together and takers != users:
                        self.failureResultOf(commit, OverQuota)
                    else:
                        results = zip(users, self.successResultOf(commit), strict=True)
                        self.assertEqual(takers, [user for user, uid in results if isinstance(uid, bytes)])
                have = [user for user in users if maildirs.files(user)]
                self.assertEqual(have, takers if takers and not (together and takers != users) else [])
                self.assertEqual([file for user in users for file in maildirs.files(user, "tmp")], [])


class SharedTests(SynchronousTestCase):
    """One message, several users."""

    def setUp(self) -> None:
        self.root = new_folder(self)

    def share(self, maildirs: Maildirs, *users: str) -> Any:
        """A delivery to several users."""
        return self.successResultOf(maildirs.delivery.begin(users))

    def test_written_once(self) -> None:
        """The message is one file with a name in each Maildir."""
        maildirs = Maildirs(self.root, "ann", "bob", "cat")
        shared = self.share(maildirs, "ann", "bob", "cat")
        shared.write(b"a: b\r\n\r\n")
        uids = self.successResultOf(shared.commit(together=True))
        files = [maildirs.files(user)[0] for user in ("ann", "bob", "cat")]
        self.assertEqual(len({file.stat().st_ino for file in files}), 1)
        self.assertEqual([uid.decode() for uid in uids], [file.name for file in files])
        self.assertEqual(len(set(uids)), 3)
        self.assertEqual(maildirs.files("ann", "tmp"), [])

    def test_one_cannot(self) -> None:
        """If one's room or Maildir is too little, or gone, the others have it, unless they stand together."""
        for together in (True, False):
            for lost in (True, False):
                root = self.root / f"{together}{lost}"
                maildirs = Maildirs(root, "bob", "ann", quota={}.get if lost else {"bob": 5}.get)
                shared = self.share(maildirs, "bob", "ann")
                shared.write(b"sixsix")
                if lost:
                    shutil.rmtree(root / "bob")
                commit = shared.commit(together=together)
                if together:
                    error = self.failureResultOf(commit, StoreTrouble, OverQuota).value
                else:
                    error, uid = self.successResultOf(commit)
                    self.assertIsInstance(uid, bytes)
                if lost:
                    self.assertIsInstance(error, StoreTrouble)
                else:
                    self.assertIn(": 'bob' uses 0 of 5 octets", error.detail)
                    self.assertEqual(maildirs.files("bob") + maildirs.files("bob", "tmp"), [])
                self.assertEqual(len(maildirs.files("ann")), int(not together))
                self.assertEqual(maildirs.files("ann", "tmp"), [])

    def test_nobody(self) -> None:
        """If nobody can have it, the delivery fails even where each stands alone."""
        maildirs = Maildirs(self.root, "ann", "bob")
        shared = self.share(maildirs, "ann", "bob")
        shared.write(b"x")
        for user in ("ann", "bob"):
            shutil.rmtree(self.root / user / "new")
        self.failureResultOf(shared.commit(together=False), StoreTrouble)


class OtherFileSystemTests(SynchronousTestCase):
    """Small file systems: full ones, and Maildirs on different ones."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        (self.root / "small").mkdir()
        self.enterContext(tmpfs("size=1m", self.root / "small"))

    def test_full(self) -> None:
        """On a full file system everything that was acknowledged is there, and nothing else."""
        maildirs = Maildirs(self.root / "small", "ann")
        message = b"Subject: x\n\n" + b"x" * 60_000
        acknowledged = []
        for _ in range(30):
            incoming = self.successResultOf(maildirs.delivery.begin(["ann"]))
            incoming.write(message)
            committed = incoming.commit()
            committed.addCallbacks(acknowledged.extend, lambda failure: failure.trap(StoreFull))
        self.assertGreater(len(acknowledged), 10)
        self.assertLess(len(acknowledged), 20)
        files = maildirs.files("ann")
        self.assertEqual(sorted(file.name.encode() for file in files), sorted(acknowledged))
        self.assertTrue(all(file.read_bytes() == message for file in files))
        self.assertEqual(maildirs.files("ann", "tmp"), [])

    def test_full_for_one_of_two(self) -> None:
        """A message that does not fit on the disk of one of two is not there with a part missing."""
        maildirs = Maildirs(self.root, "ann")
        Maildirs(self.root / "small", "bob")
        (self.root / "bob").symlink_to("small/bob")
        for together in (True, False):
            incoming = self.successResultOf(maildirs.delivery.begin(["ann", "bob"]))
            outcome(incoming.write(b"x" * 2_000_000))
            commit = incoming.commit(together=together)
            if together:
                self.failureResultOf(commit, StoreFull)
            else:
                _, refused = self.successResultOf(commit)
                self.assertIsInstance(refused, StoreFull)
            have = [2_000_000] * (not together)
            self.assertEqual([file.stat().st_size for file in maildirs.files("ann")], have)
            for left in (("bob", "new"), ("bob", "tmp"), ("ann", "tmp")):
                self.assertEqual(maildirs.files(*left), [])

    def test_across(self) -> None:
        """A message for Maildirs on two file systems is copied where it cannot be linked."""
        maildirs = Maildirs(self.root, "bob")
        Maildirs(self.root / "small", "ann", "cat")
        users = ("ann", "bob", "cat")
        for user in ("ann", "cat"):
            (self.root / user).symlink_to(f"small/{user}")
        shared = self.successResultOf(maildirs.delivery.begin(users))
        shared.write(b"hello\r\n")
        log: list[str] = []
        real = os.fsync
        self.patch(os, "fsync", lambda fd: (log.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
        self.assertEqual(len(self.successResultOf(shared.commit(together=True))), 3)
        for user in users:
            self.assertEqual([file.read_bytes() for file in maildirs.files(user)], [b"hello\n"])
            self.assertEqual(maildirs.files(user, "tmp"), [])
        # The copy as well, before it has its name.
        for user in ("small/ann", "bob"):
            synced = [os.path.dirname(path).removeprefix(f"{self.root}/{user}/") for path in log]
            self.assertIn("tmp", synced, user)


class DirectorySyncTests(SynchronousTestCase):
    """Deliveries that end at the same time share the fsync of their directory."""

    def test_shared(self) -> None:
        """Who asks while one runs waits for the next one, which serves everybody who waits."""
        running: list[tuple[int, Deferred[None]]] = []

        def start(work: object, handle: int) -> Deferred[None]:
            running.append((handle, Deferred()))
            return running[-1][1]

        syncs = DirectorySyncs()
        # The same directory, which each has opened.
        first, second, third = (syncs.sync(Directory(handle, (1, 1)), start) for handle in (10, 11, 12))
        other = syncs.sync(Directory(20, (1, 2)), start)
        self.assertEqual([handle for handle, _ in running], [10, 20])
        running[0][1].callback(None)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.assertEqual([handle for handle, _ in running], [10, 20, 11])
        running[2][1].errback(OSError(errno.EIO, "broken"))
        for waiting in (second, third):
            self.failureResultOf(waiting, OSError)
        self.assertNoResult(other)
        self.assertEqual(len(running), 3)

    def test_not_durable(self) -> None:
        """A message whose name is not durable is taken back there; from all if they stand together."""
        for broken, users in (("ann", ["ann"]), ("ann", ["ann", "bob"]), ("bob", ["ann", "bob"])):
            for together in (True, False):
                with tempfile.TemporaryDirectory() as root:
                    maildirs = Maildirs(Path(root), "ann", "bob")
                    new = os.path.realpath(f"{root}/{broken}/new")
                    delivery = MaildirDelivery(
                        maildirs.paths,
                        lambda work, *args, new=new: execute(
                            _broken if work is fsync_names and _path(args[0]) == new else work, *args
                        ),
                        maildirs.clock,
                    )
                    incoming = self.successResultOf(delivery.begin(users))
                    incoming.write(b"x")
                    commit = incoming.commit(together=together)
                    if together or users == [broken]:
                        self.failureResultOf(commit, StoreTrouble)
                    else:
                        results = dict(zip(users, self.successResultOf(commit), strict=True))
                        self.assertIsInstance(results[broken], StoreTrouble)
                    have = [user for user in users if maildirs.files(user)]
                    self.assertEqual(have, [] if together else [user for user in users if user != broken])


def _delivered(incoming: Any) -> Deferred[Any]:
    """A small message, delivered."""
    incoming.write(b"x")
    return incoming.commit()  # type: ignore[no-any-return]


def _path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _broken(*args: object) -> None:
    raise OSError(errno.EIO, "broken")


def _wire(message: bytes) -> bytes:
    """What a line-by-line reader makes of a message: the oracle for line ends."""
    return b"\r\n".join(re.split(rb"\r?\n", message))


class NearlyFullTests(SynchronousTestCase):
    """Who is told that a Maildir is nearly full, and how often."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.told: list[tuple[str, int, int]] = []
        self.nearly = Maildirs(
            self.root / "nearly",
            "ann",
            quota={"ann": 100}.get,
            nearly_full=lambda *words: self.told.append(words),
        )

    def deliver(self, text: bytes, maildirs: Maildirs) -> None:
        """Deliver a message."""
        incoming = self.successResultOf(maildirs.delivery.begin(["ann"]))
        incoming.write(text)
        self.successResultOf(incoming.commit())

    def test_once_a_week(self) -> None:
        """From 90 % on, once a week, also by another process."""
        self.deliver(b"x" * 88 + b"\n", maildirs=self.nearly)
        self.assertEqual(self.told, [])
        self.deliver(b"\n", maildirs=self.nearly)
        self.assertEqual(self.told, [("ann", 90, 100)])
        self.deliver(b"\n", maildirs=self.nearly)
        self.nearly.clock.advance(7 * 86400 - 60)
        self.deliver(b"\n", maildirs=self.nearly)
        self.assertEqual(len(self.told), 1)
        self.nearly.clock.advance(120)
        self.deliver(b"\n", maildirs=self.nearly)
        self.assertEqual(self.told[1:], [("ann", 93, 100)])

    def test_notice(self) -> None:
        """A message of the server's own comes in beyond the quota, and tells nobody anything."""
        incoming = self.successResultOf(self.nearly.delivery.notice("ann"))
        incoming.write(b"x" * 200)
        self.successResultOf(incoming.commit())
        self.assertEqual(len(self.nearly.files("ann")), 1)
        self.assertEqual(self.told, [])

    def test_not_written(self) -> None:
        """Where it cannot be written down, nobody is told with each message."""
        (self.root / "nearly" / "ann" / "pop3toy-quota-told").mkdir()
        self.deliver(b"x" * 95 + b"\n", maildirs=self.nearly)
        self.assertEqual(self.told, [])
