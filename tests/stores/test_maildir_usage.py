"""What a Maildir holds, for quotas: exact, and without reading all names for each message."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import OverQuota
from pop3toy.stores.maildir.folders import MTIME_GRANULARITY
from pop3toy.stores.maildir.incoming.delivery import MaildirDelivery
from pop3toy.stores.maildir.incoming.message import SPILL
from pop3toy.stores.maildir.incoming.usage import FILE_NAME, RECOUNT, Usage
from pop3toy.stores.maildir.paths import MaildirPaths

from ..corpus import make_maildir
from ..folders import new_folder
from ..store_world import outcome

QUOTA = 100


class UsageCase(SynchronousTestCase):
    """A Maildir with a quota, and two servers that deliver into it."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildir = make_maildir(self.root / "ann")
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.servers = [
            MaildirDelivery(
                MaildirPaths(f"{self.root}/{{user}}"),
                execute,
                self.clock,
                quota=lambda user: self.quota,
                host=host,
                wall=self.clock.seconds,
            )
            for host in ("one", "two")
        ]
        self.quota = QUOTA
        self.counts = 0
        real = os.scandir

        def scandir(path: Any) -> Any:
            self.counts += os.readlink(f"/proc/self/fd/{path}").endswith("/cur")
            return real(path)

        self.patch(os, "scandir", scandir)

    def deliver(self, octets: int, server: int = 0) -> bool:
        """Deliver a message of this size; whether it was taken."""
        delivery = self.servers[server]
        try:
            outcome(delivery.check("ann", octets))
        except OverQuota:
            return False
        incoming = outcome(delivery.begin(["ann"], octets))
        outcome(incoming.write(b"x" * octets))
        outcome(incoming.commit())
        return True

    def opened(self) -> int:
        """The Maildir's directory."""
        maildir = os.open(self.maildir, os.O_RDONLY)
        self.addCleanup(os.close, maildir)
        return maildir

    def files(self) -> list[Path]:
        """All messages."""
        return sorted([*(self.maildir / "new").iterdir(), *(self.maildir / "cur").iterdir()])

    def used(self) -> int:
        """What they come to."""
        return sum(file.stat().st_size for file in self.files())

    def at_rest(self) -> None:
        """Let the folders' last change be long ago."""
        self.clock.advance(
            self.maildir.joinpath("new").stat().st_ctime - self.clock.seconds() + MTIME_GRANULARITY + 1
        )


class UsageTests(UsageCase):
    """The sum."""

    def test_counted_once(self) -> None:
        """However many messages come, through whichever server, the names are read once."""
        for number in range(19):
            self.assertTrue(self.deliver(5, number % 2))
        self.assertEqual(self.counts, 1)
        self.assertFalse(self.deliver(6))
        self.assertEqual(self.used(), 95)

    def test_refused_by_a_sure_sum(self) -> None:
        """A mailbox that stays full is counted once more to be sure, and not for each that is refused."""
        self.deliver(QUOTA)
        self.at_rest()
        for _ in range(5):
            self.assertFalse(self.deliver(1))
        self.assertEqual(self.counts, 2)

    @given(st.lists(st.tuples(st.sampled_from("dddr"), st.integers(0, 1), st.integers(1, 60)), max_size=12))
    def test_exact(self, steps: list[tuple[str, int, int]]) -> None:
        """Whatever is delivered and removed in whatever order, what fits is taken and nothing else."""
        for file in self.files():
            file.unlink()
        for what, server, octets in steps:
            if what == "r":
                for file in self.files()[:1]:
                    file.unlink()
            else:
                before = self.used()
                fits = before < QUOTA and before + octets <= QUOTA
                self.assertEqual(self.deliver(octets, server), fits)

    def test_removed_in_the_same_tick(self) -> None:
        """What was removed in the very moment in which it was noted does not count."""
        with Usage(self.opened(), self.clock.seconds) as usage:
            usage.fit(90, QUOTA)
            # Delivered, and fetched before the stamp was taken.
            usage.add(90)
        self.assertTrue(self.deliver(50))

    def test_others_add(self) -> None:
        """What another program puts there counts."""
        self.deliver(10)
        (self.maildir / "cur" / "1.other:2,S").write_bytes(b"x" * 85)
        os.utime(self.maildir / "cur", (1, 1))
        self.assertFalse(self.deliver(6))
        self.assertTrue(self.deliver(5))

    def test_counted_again(self) -> None:
        """A sum that is not sure is counted again after a while."""
        self.deliver(10)
        self.clock.advance(RECOUNT + 1)
        self.deliver(10)
        self.assertEqual(self.counts, 2)

    def test_room_is_made(self) -> None:
        """A message for which there is too little room at first is taken if there is some when it comes."""
        self.quota = SPILL + 100
        self.deliver(90)
        incoming = self.successResultOf(self.servers[0].begin(["ann"]))
        # As much as there is room for, and more.
        self.successResultOf(incoming.write(b"x" * (SPILL + 10)))
        for file in self.files():
            file.unlink()
        self.successResultOf(incoming.write(b"x" * 90))
        self.successResultOf(incoming.commit())
        self.assertEqual(self.used(), SPILL + 100)

    def test_seldom_looked(self) -> None:
        """At DATA nothing is looked at that RCPT has seen; a large message looks once for its room."""
        self.quota = SPILL * 10
        jobs: list[str] = []

        def run(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
            jobs.append(work.__name__)
            return execute(work, *args)

        paths = MaildirPaths(f"{self.root}/{{user}}")
        delivery = MaildirDelivery(paths, run, self.clock, quota=lambda user: self.quota)
        self.successResultOf(delivery.check("ann"))
        jobs.clear()
        incoming = self.successResultOf(delivery.begin(["ann"]))
        self.assertEqual(jobs, [])
        for _ in range(8):
            outcome(incoming.write(b"x" * SPILL))
        self.successResultOf(incoming.commit())
        self.assertEqual(jobs.count("fit"), 1)

    def test_no_room_is_made(self) -> None:
        """A large message is refused while it comes if there is none; a small one in the end."""
        self.quota = SPILL + 100
        self.deliver(90)
        for size in (50, SPILL + 11):
            incoming = self.successResultOf(self.servers[0].begin(["ann"]))
            waiting = incoming.write(b"x" * size)
            self.assertEqual(isinstance(waiting, Deferred), size > SPILL)
            if waiting is not None:
                error = self.failureResultOf(waiting, OverQuota).value
                self.assertEqual(error.holds, self.quota)
                self.failureResultOf(incoming.commit(), OverQuota)
            else:
                (self.maildir / "new" / "other").write_bytes(b"x" * (SPILL - 20))
                self.failureResultOf(incoming.commit(), OverQuota)
                (self.maildir / "new" / "other").unlink()
            incoming.abort()
        self.assertEqual(list((self.maildir / "tmp").iterdir()), [])
        self.assertEqual(self.used(), 90)

    def test_larger_than_all(self) -> None:
        """Who is refused learns what the mailbox holds when it is empty."""
        self.deliver(90)
        error = self.failureResultOf(self.servers[0].check("ann", 20), OverQuota).value
        self.assertEqual(error.holds, QUOTA)
        incoming = self.successResultOf(self.servers[0].begin(["ann"]))
        self.assertEqual(self.assertRaises(OverQuota, incoming.write, b"x" * 101).holds, QUOTA)

    def test_note_is_a_cache(self) -> None:
        """A cache file that is missing, damaged, or none at all changes nothing but the work."""
        note = self.maildir / FILE_NAME
        self.deliver(50)
        good = note.read_bytes()
        for spoil in (
            note.unlink, lambda: note.write_bytes(b""), lambda: note.write_bytes(good[:-3]),
            lambda: note.write_bytes(good.replace(b"\n50 ", b"\n10 ")), lambda: os.mkfifo(note),
            lambda: note.symlink_to("/etc/passwd"), lambda: note.write_bytes(b"pop3toy-usage 1 00000000\n"),
        ):  # fmt: skip
            spoil()
            self.assertFalse(self.deliver(51))
            note.unlink(missing_ok=True)
        self.assertTrue(self.deliver(50))

    def test_cannot_be_noted(self) -> None:
        """Where no cache file can be written, messages come in all the same, within the quota."""
        (self.maildir / f"{FILE_NAME}.tmp").mkdir()
        self.assertTrue(self.deliver(60))
        self.assertFalse(self.deliver(60))
        self.assertTrue(self.deliver(40))

    def test_locked_by_somebody(self) -> None:
        """Somebody who holds the lock for ever delays a delivery by a moment, and changes no sum."""
        self.deliver(60)
        folder = os.open(self.maildir / "new", os.O_RDONLY)
        self.addCleanup(os.close, folder)
        fcntl.flock(folder, fcntl.LOCK_EX)
        with Usage(self.opened(), self.clock.seconds) as usage:
            self.assertRaises(OverQuota, usage.fit, 41, QUOTA)
            self.assertEqual(usage.fit(40, QUOTA), 60)
            (self.maildir / "new" / "2.y,S=40").write_bytes(b"x" * 40)
            usage.add(40)
        self.assertFalse((self.maildir / FILE_NAME).exists())


class KeyedLocksTests(SynchronousTestCase):
    """Who waits for a Maildir's lock holds no thread."""

    def test_no_thread_is_held(self) -> None:
        """While one Maildir is being counted others are delivered to; who waits for it waits in no thread."""
        jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

        def later(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
            jobs.append((Deferred(), work, args))
            return jobs[-1][0]

        def run(number: int) -> None:
            done, work, args = jobs.pop(number)
            done.callback(work(*args))

        with tempfile.TemporaryDirectory() as root:
            for user in ("ann", "bob"):
                make_maildir(Path(root, user))
            delivery = MaildirDelivery(
                MaildirPaths(f"{root}/{{user}}"), later, Clock(), quota=lambda user: QUOTA
            )
            anns = [delivery.check("ann") for _ in range(5)]
            for _ in anns:
                run(0)
            self.assertEqual(len(jobs), 1)
            bob = delivery.check("bob")
            run(1)
            run(1)
            self.successResultOf(bob)
            self.assertNoResult(anns[0])
            while jobs:
                run(0)
            for checked in anns:
                self.successResultOf(checked)
