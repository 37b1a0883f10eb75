"""What a scan of a Maildir finds, also while other programs work in it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.errors import StoreTrouble
from pop3toy.stores.maildir.beside.sizes import Counted
from pop3toy.stores.maildir.count import Counter
from pop3toy.stores.maildir.folders import (
    MAX_LISTINGS,
    MTIME_GRANULARITY,
    WouldWait,
    locate_all,
    stat_folders,
)
from pop3toy.stores.maildir.snapshot import Snapshot, take_snapshot

from ..corpus import awkward_messages, fill_maildir, make_maildir
from ..folders import new_folder
from ..store_world import restrict, unprivileged, watched_descriptors


class Scanned(SynchronousTestCase):
    """A Maildir and its scans."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.root.chmod(0o755)
        self.maildir = make_maildir(self.root / "ann")
        self.fd = os.open(self.maildir, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)

    def put(self, path: str, content: bytes = b"x\n\n", *, written: int | None = None) -> Path:
        """A message; ``written`` is when, in seconds."""
        file = self.maildir / path
        file.write_bytes(content)
        if written is not None:
            os.utime(file, (written, written))
        return file

    def counted(self, octets: int, path: str) -> Counted:
        """So many octets, counted of the file that is there."""
        return Counted.of(octets, (self.maildir / path).stat())

    def scan(
        self, measured: dict[bytes, Counted] | None = None, now: float = 4e9, **options: Any
    ) -> Snapshot:
        """A snapshot; the messages that are measured are known."""
        with Counter(self.fd, measured, **options) as counter:
            return take_snapshot(self.fd, now, counter)

    def uids(self) -> list[str]:
        """The unique-ids of a new snapshot."""
        return [entry.uid.decode() for entry in self.scan().listing]

    @contextmanager
    def between_listings(self, *changes: Callable[[], object]) -> Iterator[list[str]]:
        """Make a change each time that a folder is about to be listed; gives the list of those folders."""
        listed: list[str] = []
        left = iter(changes)
        scandir = os.scandir

        def spy(fd: int) -> Any:
            listed.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            change = next(left, None)
            if change is not None:
                change()
            return scandir(fd)

        self.patch(os, "scandir", spy)
        try:
            yield listed
        finally:
            self.patch(os, "scandir", scandir)


class ListingTests(Scanned):
    """What is a message and what is none."""

    def test_both_folders(self) -> None:
        """Messages are in new/ and cur/, in the order of their delivery, flags or not."""
        self.put("new/3.c")
        self.put("cur/1.a:2,S")
        self.put("cur/4.d")
        self.put("new/2.b:2,")
        snapshot = self.scan()
        self.assertEqual([b"1.a", b"2.b", b"3.c", b"4.d"], [entry.uid for entry in snapshot.listing])
        self.assertEqual("cur/1.a:2,S", snapshot.paths[snapshot.position(b"1.a")])
        self.assertEqual("new/2.b:2,", snapshot.paths[1])

    def test_no_messages(self) -> None:
        """tmp/, dot files, folders, sub-folders, FIFOs, sockets, devices and files beside are no messages."""
        self.put("cur/1.message")
        self.put("tmp/2.unfinished")
        self.put("new/.3.hidden")
        self.put("cur/.4.hidden:2,S")
        self.put("dovecot-uidlist")
        self.put("5.beside")
        (self.maildir / "new" / "6.folder").mkdir()
        (self.maildir / "cur" / "6.folder").mkdir()
        self.put("cur/6.folder/7.below")
        make_maildir(self.maildir / ".Sent")
        self.put(".Sent/cur/8.sent")
        os.mkfifo(self.maildir / "new" / "9.fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(self.maildir / "cur" / "10.socket"))
        if os.getuid() == 0:
            os.mknod(self.maildir / "new" / "11.null", 0o600 | 0o020000, os.makedev(1, 3))
        with watched_descriptors():
            self.assertEqual(["1.message"], self.uids())
        self.assertEqual({"1.message"}, set(locate_all(self.fd)))

    def test_links(self) -> None:
        """Symbolic links are no messages, wherever they lead; hard links are."""
        inside = self.put("cur/1.inside")
        outside = self.root / "outside"
        outside.write_bytes(b"secret")
        for name, target in (
            ("2.in", inside),
            ("3.out", outside),
            ("4.relative", Path("../cur/1.inside")),
            ("5.dangling", Path("nowhere")),
            ("6.folder", self.root),
            ("7.loop", Path("7.loop")),
        ):
            (self.maildir / "new" / name).symlink_to(target)
        os.link(outside, self.maildir / "new" / "8.hard")
        self.assertEqual(["1.inside", "8.hard"], self.uids())

    def test_linked_folder(self) -> None:
        """A new/ or cur/ that is a link, a file or missing makes the Maildir one in trouble."""
        for folder in ("new", "cur"):
            path = self.maildir / folder
            moved = self.root / f"real-{folder}"
            path.rename(moved)
            for make, word in (
                (lambda path=path, moved=moved: path.symlink_to(moved), "links"),
                (lambda path=path: path.write_bytes(b""), "folder"),
            ):
                make()
                for function in (lambda: stat_folders(self.fd), self.scan, lambda: locate_all(self.fd)):
                    self.assertIn(word, self.assertRaises(StoreTrouble, function).detail)
                path.unlink()
            with watched_descriptors():
                detail = self.assertRaises(StoreTrouble, self.scan).detail
            self.assertIn(f"no folder {folder}/", detail)
            self.assertIn("make", detail)
            moved.rename(path)
        self.assertEqual([], self.uids())

    def test_folder_replaced_after_the_look(self) -> None:
        """A folder that becomes a link between the look and the listing is not followed."""
        self.put("new/1.a,W=1")
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "2.secret,W=1").write_bytes(b"")

        def replace() -> None:
            (self.maildir / "cur").rmdir()
            (self.maildir / "cur").symlink_to(elsewhere)

        with self.between_listings(replace), watched_descriptors():
            self.assertRaises(StoreTrouble, self.scan)

    def test_unreadable_folder(self) -> None:
        """A folder that may not be read is trouble that says what is missing, not an empty one."""
        self.put("new/1.a")
        restrict(self, self.maildir / "new", 0o300)
        with watched_descriptors(), unprivileged():
            self.assertIn("needs to read", self.assertRaises(StoreTrouble, self.scan).detail)

    def test_names_of_all_sorts(self) -> None:
        """Blank, 8-bit, very long and odd names are messages with valid unique-ids."""
        for number, name in enumerate(
            (
                b"a b",
                b"\xff\xfe",
                "é:2,S".encode(),
                b"x" * 255,
                b":2,S",
                b"a\nb",
                b"{user}",
                b"-rf",
                b"*",
                b"%s",
            )
        ):
            with open(os.path.join(os.fsencode(self.maildir), b"cur", name), "wb") as file:
                file.write(b"%d\n\n" % number)
        snapshot = self.scan()
        self.assertEqual(10, len(snapshot.listing))
        for entry in snapshot.listing:
            self.assertRegex(entry.uid, rb"\A[\x21-\x7e]{1,70}\Z")
            self.assertTrue((self.maildir / snapshot.paths[snapshot.position(entry.uid)]).is_file())

    def test_corpus(self) -> None:
        """Names of every delivery program: the order is that of delivery, octets are exact."""
        stored = fill_maildir(self.maildir, awkward_messages(large=False))
        snapshot = self.scan()
        self.assertEqual(
            [len(one.message.wire) for one in stored], [entry.octets for entry in snapshot.listing]
        )
        self.assertEqual(
            [one.path.name for one in stored], [path.partition("/")[2] for path in snapshot.paths]
        )


class OctetsTests(Scanned):
    """Where octets come from."""

    def test_counted_or_told(self) -> None:
        """Octets that no name tells are counted and remembered; told ones are believed, unread.

        What looks like a size among the flags is none.
        """
        for path, content, octets, told in (
            ("new/1.a", b"Subject: x\n\nbody\n.\n", 23, False),
            ("cur/1.a:2,W=99", b"x\n\n", 5, False),
            ("cur/1.a,S=3,W=1234:2,S", b"x\n\n", 1234, True),
        ):
            file = self.put(path, content)
            uid = file.name.partition(":")[0].encode()
            if not told:
                # It says so instead of guessing.
                with watched_descriptors():
                    self.assertRaises(WouldWait, self.scan, may_read=False)
                    self.assertRaises(WouldWait, take_snapshot, self.fd, 4e9)
            snapshot = take_snapshot(self.fd, 4e9) if told else self.scan()
            self.assertEqual((uid, octets, None), snapshot.listing[0])
            self.assertEqual({} if told else {uid: self.counted(octets, path)}, snapshot.measured)
            file.unlink()

    def test_measured_wins(self) -> None:
        """What was measured goes before what a name tells, and what is gone is forgotten."""
        self.put("cur/1.a,W=1234")
        self.put("cur/2.b")
        self.put("cur/3.c,W=7")
        measured = {b"1.a,W=1234": self.counted(5, "cur/1.a,W=1234"), b"2.b": self.counted(6, "cur/2.b")}
        snapshot = self.scan({**measured, b"9.gone": measured[b"2.b"]}, may_read=False)
        self.assertEqual([5, 6, 7], [entry.octets for entry in snapshot.listing])
        self.assertEqual(measured, snapshot.measured)

    def test_another_file(self) -> None:
        """What was measured of another file of the same name is not believed: a backup was put back."""
        self.put("cur/1.a", b"a: b\n\n", written=5)
        told = {b"1.a": self.counted(99, "cur/1.a")}
        self.assertEqual(99, self.scan(told).listing[0].octets)
        content = b"c: d\n\n"
        for change in (
            lambda: self.put("cur/1.a", content, written=6),
            lambda: self.put("cur/1.a", content + b"x", written=5),
            lambda: self.put("new/2.b", content, written=5).rename(self.maildir / "cur" / "1.a"),
        ):
            change()
            snapshot = self.scan(told)
            size = (self.maildir / "cur" / "1.a").stat().st_size
            self.assertIn(snapshot.listing[0].octets, (size + 2, size + 4))
            self.assertEqual(self.counted(snapshot.listing[0].octets, "cur/1.a"), snapshot.measured[b"1.a"])
            self.put("cur/1.a", b"a: b\n\n", written=5)
        named = {b"3.c,W=7": Counted(99, 0, 0, 0)}
        self.put("cur/3.c,W=7")
        self.assertEqual(7, self.scan(named).listing[1].octets)

    def test_larger_than_is_counted(self) -> None:
        """What is larger than the limit is listed by its size on the disk, unread, and told in the log."""
        for size, octets in ((8 * 1024**4, 8 * 1024**4), (1001, 1001), (1000, 1004)):
            with self.put("new/1.a").open("wb") as file:
                file.truncate(size)
            with capturedLogs() as logs, watched_descriptors():
                snapshot = self.scan(max_listed_size=1000)
            self.assertEqual(octets, snapshot.listing[0].octets)
            self.assertTrue(snapshot.trusted)
            self.assertEqual([str(size) for event in logs], [str(event["size"]) for event in logs])
            self.assertEqual(size > 1000, bool(logs))
        with self.put("new/1.a").open("wb") as file:
            file.truncate(2 * 1024**3 + 1)
        with capturedLogs() as logs:
            self.assertEqual(2 * 1024**3 + 1, self.scan().listing[0].octets)
        self.assertEqual(1, len(logs))

    def test_holes(self) -> None:
        """Holes in a file are counted, and not read."""
        content = b"a: b\r\n\r"
        with self.put("new/1.a").open("wb") as file:
            file.write(content)
            file.seek(1024**3)
            file.write(b"\nlast\n.")
            file.seek(1536 * 1024**2)
            file.write(b"\n")
            file.truncate(2 * 1024**3)
        read: list[int] = []
        pread = os.pread
        self.patch(os, "pread", lambda fd, most, at: (read.append(most), pread(fd, most, at))[1])
        # Three LFs that become CRLF, the last line end, and the empty line that ends the header.
        self.assertEqual(2 * 1024**3 + 3 + 2 + 2, self.scan().listing[0].octets)
        self.assertLess(sum(read), 2 * 1024**2)

    def test_grows_while_counted(self) -> None:
        """Of a file that grows all the while no more is read than there was."""
        file = self.put("new/1.a", b"x" * 10)
        pread = os.pread

        def growing(fd: int, most: int, at: int) -> bytes:
            with file.open("ab") as more:
                more.write(b"x" * 10)
            return pread(fd, most, at)

        self.patch(os, "pread", growing)
        self.assertEqual(14, self.scan().listing[0].octets)

    def test_not_wanted_any_more(self) -> None:
        """A scan whose result nobody wants any more ends at the next chunk, or the next message."""
        self.put("new/1.a", b"x" * (3 * limits.CHUNK))
        self.put("new/2.b")
        for asked in range(1, 6):
            answers = iter([True] * asked)
            with watched_descriptors():
                self.assertRaises(
                    StoreTrouble, self.scan, wanted=lambda answers=answers: next(answers, False)
                )
            self.assertIsNone(next(answers, None))

    def test_unreadable_message(self) -> None:
        """A message that has to be counted and cannot be read takes no other hostage, and is tried again."""
        self.put("new/2.open", b"open\n\n")
        self.put("new/1.secret", b"secret\n\n").chmod(0)
        with watched_descriptors(), unprivileged():
            snapshot = self.scan()
        self.assertEqual([b"1.secret", b"2.open"], [entry.uid for entry in snapshot.listing])
        self.assertEqual([b"2.open"], list(snapshot.measured))
        self.assertFalse(snapshot.trusted)


class DoublesTests(Scanned):
    """Messages that have the same base name."""

    def test_duplicates_and_links(self) -> None:
        """Files of one base name are messages of their own, known as twins; two names of one file are one."""
        self.put("cur/1.a:2,S", b"cur.\n\n", written=1)
        # As a program has it that links a message into cur/ before it unlinks it from new/.
        os.link(self.put("new/1.a", b"new\n\n", written=2), self.maildir / "cur" / "1.a:2,F")
        os.link(self.put("new/2.b"), self.maildir / "cur" / "2.b:2,S")
        snapshot = self.scan()
        self.assertEqual([8, 7, 5], [entry.octets for entry in snapshot.listing])
        self.assertEqual(["cur/1.a:2,S", "cur/1.a:2,F", "cur/2.b:2,S"], list(snapshot.paths))
        self.assertEqual(({"1.a"}, {"1.a", "2.b"}), (snapshot.duplicates, snapshot.linked))
        self.assertEqual({"2.b"}, set(locate_all(self.fd)))

    def test_in_one_folder(self) -> None:
        """So are three of them in one folder."""
        for written, flags in enumerate(("", ":2,S", ":2,F")):
            self.put(f"cur/1.a{flags}", flags.encode() + b"\n\n", written=written)
        snapshot = self.scan()
        self.assertEqual(["cur/1.a", "cur/1.a:2,S", "cur/1.a:2,F"], list(snapshot.paths))
        self.assertEqual(3, len({entry.uid for entry in snapshot.listing}))
        # In whatever order the file system shows them.
        scandir = os.scandir
        for reverse in (False, True):

            class Entries(list[Any]):
                def __enter__(self) -> Any:
                    return self

                def __exit__(self, *why: Any) -> None:
                    self.clear()

            def ordered(fd: int, reverse: bool = reverse, kind: type[list[Any]] = Entries) -> Any:
                with scandir(fd) as entries:
                    return kind(sorted(entries, key=lambda entry: entry.name, reverse=reverse))

            self.patch(os, "scandir", ordered)
            again = self.scan()
            self.assertEqual(
                (list(snapshot.listing), list(snapshot.paths)), (list(again.listing), list(again.paths))
            )

    def test_flags_change_nothing(self) -> None:
        """Whatever becomes of their flags, each of two keeps its unique-id; no octets are remembered."""
        old = self.put("cur/1.a:2,S", b"the older\n\n", written=1)
        young = self.put("new/1.a", b"the younger one\n\n", written=2)
        before = self.scan().listing
        self.assertEqual([b"1.a"], [entry.uid for entry in before][:1])
        young = young.rename(self.maildir / "cur" / "1.a:2,")
        self.assertEqual(list(before), list(self.scan().listing))
        young.rename(self.maildir / "cur" / "1.a:2,T")
        snapshot = self.scan({b"1.a": self.counted(99, "cur/1.a:2,T")})
        self.assertEqual(list(before), list(snapshot.listing))
        # Its unique-id is the other's when one is gone, whose octets these are not.
        self.assertEqual({}, snapshot.measured)
        old.unlink()
        self.assertEqual([(b"1.a", before[1].octets, None)], list(self.scan(snapshot.measured).listing))

    def test_case(self) -> None:
        """Names that differ by case alone get unique-ids that differ by more."""
        self.put("new/1.Mail")
        self.put("new/1.mail")
        uids = self.uids()
        self.assertEqual(2, len({uid.lower() for uid in uids}))
        self.assertEqual("1.Mail", uids[0])


class ChangingTests(Scanned):
    """Other programs work in the Maildir while it is scanned."""

    def rename(self, old: str, new: str) -> Callable[[], None]:
        """A change for later."""
        return lambda: (self.maildir / old).rename(self.maildir / new) and None

    def test_moved_to_cur(self) -> None:
        """A message that is moved to cur/ between the listings of both folders is there once, where it is."""
        self.put("new/1.a")
        self.put("new/2.b")
        with self.between_listings(lambda: None, self.rename("new/1.a", "cur/1.a:2,S")):
            snapshot = self.scan()
        self.assertEqual(["cur/1.a:2,S", "new/2.b"], list(snapshot.paths))
        self.assertEqual(set(), snapshot.duplicates)

    def test_moved_among_usual_names(self) -> None:
        """So it is where all names are as usual, whichever way it moves."""
        for old, new in (("new", "cur"), ("cur", "new")):
            self.put(f"{old}/1700000000.a")
            self.put("new/1700000002.b")
            with self.between_listings(
                lambda: None, self.rename(f"{old}/1700000000.a", f"{new}/1700000000.a")
            ):
                snapshot = self.scan()
            self.assertEqual([f"{new}/1700000000.a", "new/1700000002.b"], list(snapshot.paths))
            self.assertEqual((set(), set(), True), (snapshot.duplicates, snapshot.linked, snapshot.trusted))
            (self.maildir / new / "1700000000.a").unlink()

    def test_delivered_among_usual_names(self) -> None:
        """A message that comes while they are listed is not missed."""
        self.put("cur/1700000000.a")
        nothing: Callable[[], object] = lambda: None  # noqa: E731
        for path, changes in (("new/1700000001.b", 1), ("new/1700000002.b", 2)):
            deliver = partial(self.put, path)
            with self.between_listings(*[nothing, deliver][-changes:]):  # type: ignore[arg-type]
                snapshot = self.scan()
            self.assertIn(path, list(snapshot.paths))

    def test_moved_back_to_new(self) -> None:
        """One that is moved back to new/, so that the first listing misses it, is found by the next."""
        self.put("cur/1.a:2,S")
        with self.between_listings(lambda: None, self.rename("cur/1.a:2,S", "new/1.a")) as listed:
            snapshot = self.scan()
        self.assertEqual(["new/1.a"], list(snapshot.paths))
        self.assertEqual(["new", "cur", "new", "cur"], listed)

    def test_never_still(self) -> None:
        """In a Maildir that changes during every listing, what was there a moment ago is not given up."""
        self.put("cur/1.a:2,")
        self.put("cur/2.b,W=5")
        measured = {b"1.a": self.counted(5, "cur/1.a:2,")}

        def hide() -> None:
            # As readdir does that overlooks a file which gets another place in the folder.
            (self.maildir / "cur" / "1.a:2,").rename(self.maildir / "1.a")

        def show() -> None:
            (self.maildir / "1.a").rename(self.maildir / "cur" / "1.a:2,")
            os.utime(self.maildir / "cur")

        # It is there when the folder new/ is listed, and not when cur/ is: in every second listing,
        # the last of all among them.
        nothing: Callable[[], object] = lambda: os.utime(self.maildir / "cur")  # noqa: E731
        changes: list[Callable[[], object]] = [nothing, nothing] * ((MAX_LISTINGS + 1) % 2)
        for number in range(MAX_LISTINGS + MAX_LISTINGS % 2):
            changes += [nothing, hide] if number % 2 else [show if number else nothing, nothing]
        with self.between_listings(*changes):
            snapshot = self.scan(measured)
        self.assertEqual([b"1.a", b"2.b,W=5"], [entry.uid for entry in snapshot.listing])
        self.assertFalse(snapshot.trusted)

    def test_seen_in_both_folders_every_time(self) -> None:
        """A message that every listing sees in both folders, because it moves in between, is one message."""
        self.put("new/1.a,W=5")
        scandir = os.scandir

        def spy(fd: int) -> Any:
            folder = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
            other = "cur" if folder == "new" else "new"
            if (self.maildir / other / "1.a,W=5").exists():
                self.rename(f"{other}/1.a,W=5", f"{folder}/1.a,W=5")()
            return scandir(fd)

        self.patch(os, "scandir", spy)
        snapshot = self.scan()
        self.assertEqual((["cur/1.a,W=5"], frozenset()), (snapshot.paths, snapshot.duplicates))
        self.assertFalse(snapshot.trusted)

    def test_still_in_the_end(self) -> None:
        """A Maildir that comes to rest within the patience of a scan is believed."""
        changes = [
            lambda number=number: self.put(f"new/{number}.x,W=5") for number in range(MAX_LISTINGS * 2 - 3)
        ]
        with self.between_listings(*changes):
            snapshot = self.scan()
        self.assertEqual(len(changes), len(snapshot.listing))
        self.assertTrue(snapshot.trusted)

    def test_vanishes_while_counted(self) -> None:
        """A message that vanishes between listing and counting is not listed."""
        self.put("new/1.a")
        gone = self.put("new/2.b")
        with self.before_counting(gone.unlink), watched_descriptors():
            self.assertEqual(["1.a"], self.uids())

    def test_folder_replaced_while_counted(self) -> None:
        """A folder that becomes a link between listing and counting is not followed."""
        self.put("new/1.a")
        elsewhere = self.root / "elsewhere"

        def replace() -> bool:
            (self.maildir / "new").rename(elsewhere)
            (self.maildir / "new").symlink_to(elsewhere)
            return True

        with watched_descriptors():
            # Asked before the first message is opened.
            self.assertRaises(StoreTrouble, self.scan, wanted=replace)

    def test_renamed_while_counted(self) -> None:
        """One that is renamed between listing and counting is found under its new name."""
        self.put("new/1.a")
        self.put("new/2.b")
        with self.before_counting(
            self.rename("new/1.a", "cur/1.a:2,S"), self.rename("cur/1.a:2,S", "cur/1.a:2,FS")
        ):
            snapshot = self.scan()
        self.assertEqual(["cur/1.a:2,FS", "new/2.b"], list(snapshot.paths))
        self.assertEqual([5, 5], [entry.octets for entry in snapshot.listing])

    def test_renamed_whenever_counted(self) -> None:
        """One that is never where it was listed ends the scan without it, and without trust."""
        self.put("new/1.a")
        self.put("new/2.b,W=5")
        names = [f"cur/1.a:2,{'S' * number}" for number in range(MAX_LISTINGS * 2)]
        changes = [self.rename(old, new) for old, new in zip(["new/1.a", *names], names, strict=False)]
        with self.before_counting(*changes):
            snapshot = self.scan()
        self.assertEqual([b"2.b,W=5"], [entry.uid for entry in snapshot.listing])
        self.assertFalse(snapshot.trusted)

    @contextmanager
    def before_counting(self, *changes: Callable[[], object]) -> Iterator[None]:
        """Make a change each time that a message is about to be opened."""
        left = iter(changes)
        opening = os.open

        def spy(path: Any, *args: Any, **options: Any) -> int:
            if path not in ("new", "cur"):
                change = next(left, None)
                if change is not None:
                    change()
            return opening(path, *args, **options)

        self.patch(os, "open", spy)
        try:
            yield
        finally:
            self.patch(os, "open", opening)

    def test_a_program_that_never_stops(self) -> None:
        """While another thread renames all the time, every scan lists every message once."""
        count = 300
        for number in range(count):
            self.put(f"new/{number:04}.a,W=5")
        stop = threading.Event()

        def rename() -> None:
            flags = ""
            folder = "new"
            while not stop.is_set():
                again = ":2,S" if flags != ":2,S" else ":2,FS"
                for number in range(count):
                    base = f"{number:04}.a,W=5"
                    os.rename(self.maildir / folder / (base + flags), self.maildir / "cur" / (base + again))
                folder, flags = "cur", again

        renamer = threading.Thread(target=rename)
        renamer.start()
        try:
            wanted = [f"{number:04}.a,W=5" for number in range(count)]
            for _ in range(30):
                self.assertEqual(wanted, self.uids())
        finally:
            stop.set()
            renamer.join()


class StampTests(Scanned):
    """When an equal stamp proves that nothing has changed."""

    def test_every_change(self) -> None:
        """Adding, removing, renaming, moving and replacing folders change the stamp; reading does not."""
        (self.maildir / "new" / "1.a").write_bytes(b"")

        def replace_folder() -> None:
            (self.maildir / "cur").rename(self.root / "old")
            (self.maildir / "cur").mkdir()

        stamp = stat_folders(self.fd)
        (self.maildir / "new" / "1.a").read_bytes()
        self.scan()
        self.assertEqual(stamp, stat_folders(self.fd))
        for change in (
            lambda: self.put("new/2.b"),
            lambda: (self.maildir / "new" / "2.b").rename(self.maildir / "new" / "2.b:2,S"),
            lambda: (self.maildir / "new" / "1.a").rename(self.maildir / "cur" / "1.a"),
            lambda: (self.maildir / "cur" / "1.a").unlink(),
            replace_folder,
        ):
            self.age()
            before = stat_folders(self.fd)
            change()
            self.assertNotEqual(before, stat_folders(self.fd))

    def age(self) -> None:
        """Set the times of the folders back, so that a change in the same tick can be seen."""
        for folder in ("new", "cur"):
            os.utime(self.maildir / folder, (1e9, 1e9))

    def test_time_set_back(self) -> None:
        """A change is seen although the folder has the same modification time as before (rsync, tar)."""
        self.put("new/1.a")
        self.age()
        before = stat_folders(self.fd)
        self.put("new/2.b")
        self.age()
        after = stat_folders(self.fd)
        self.assertEqual(before.new_modified, after.new_modified)
        self.assertNotEqual(before, after)

    def test_fresh_changes_are_not_trusted(self) -> None:
        """A snapshot taken within a tick of the last change is not believed later on."""
        self.put("new/1.a")
        changed = max((self.maildir / folder).stat().st_ctime for folder in ("new", "cur"))
        for now, trusted in (
            (changed, False),
            (changed + MTIME_GRANULARITY - 0.1, False),
            (changed + MTIME_GRANULARITY + 0.1, True),
            # A clock that is behind, or a time in the future.
            (changed - 1000, False),
        ):
            self.assertEqual(trusted, self.scan(now=now).trusted, now - changed)

    def test_latest_of_the_times(self) -> None:
        """The later of the changes in both folders counts."""
        for folder in ("new", "cur"):
            self.age()
            os.utime(self.maildir / folder, (3e9, 3e9))
            stamp = stat_folders(self.fd)
            self.assertEqual((False, True), (stamp.is_old(3e9 + 1), stamp.is_old(3e9 + 3)))
