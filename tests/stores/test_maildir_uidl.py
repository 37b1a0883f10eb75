"""The file of unique-ids in a Maildir: what it gives, to whom, and what happens when it is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import StoreTrouble
from pop3toy.stores.maildir import snapshot
from pop3toy.stores.maildir.admin import MaildirAdmin
from pop3toy.stores.maildir.beside.uidl_file import FILE_NAME, Given, load, look, save
from pop3toy.stores.maildir.folders import WouldWait, list_files
from pop3toy.stores.maildir.names import unique_ids
from pop3toy.stores.maildir.settings import Maildirs
from pop3toy.stores.maildir.snapshot import take_snapshot
from pop3toy.stores.maildir.store import MaildirStore

from ..corpus import make_maildir
from ..folders import new_folder
from ..store_world import Threads

NOW = 4e9


class UidlFileCase(SynchronousTestCase):
    """A Maildir, and the file in it."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildir = make_maildir(self.root / "ann")
        self.file = self.maildir / FILE_NAME
        self.fd = os.open(self.maildir, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)

    def put(self, *paths: str) -> None:
        """Messages whose names tell their size."""
        for path in paths:
            (self.maildir / path).write_bytes(b"x\n\n")

    def uids(self) -> Sequence[bytes]:
        """The unique-ids that are listed, in order, by an administrator."""
        admin = MaildirAdmin(Maildirs(f"{self.root}/{{user}}"), wall=lambda: NOW)
        return [message.uid for message in admin.list("ann")]


class FileTests(UidlFileCase):
    """The file itself."""

    def test_in_its_place(self) -> None:
        """A folder, a FIFO or a link in its place is told, and costs the server no descriptor."""
        for make in (Path.mkdir, os.mkfifo, lambda file: os.symlink("/etc/hostname", file)):
            make(self.file)
            descriptors = len(os.listdir("/proc/self/fd"))
            self.assertRaises(StoreTrouble, load, self.fd)
            self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)
            self.file.rmdir() if self.file.is_dir() else self.file.unlink()

    def test_kept(self) -> None:
        """What is saved is loaded again, blanks and strange octets in names too."""
        given = Given({"1700000000.M1": b"a", "with a blank": b"b", os.fsdecode(b"\xff\xfe"): b"c"})
        save(self.fd, given)
        self.assertEqual(load(self.fd), given)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(sorted(os.listdir(self.maildir)), ["cur", "new", FILE_NAME, "tmp"])

    def test_text(self) -> None:
        """It can be written by hand."""
        self.file.write_text("pop3toy-uidl 1 ordered\n0001 1700000001.M1\n0002 1700000000.M1\n")
        self.assertEqual(load(self.fd), Given({"1700000001.M1": b"0001", "1700000000.M1": b"0002"}, True))

    def test_absent(self) -> None:
        """Without one nothing is given."""
        self.assertEqual(load(self.fd), Given({}))
        self.assertIsNone(look(self.fd))

    def test_only_those_wanted(self) -> None:
        """Lines of messages that are gone take no memory."""
        save(self.fd, Given({"a": b"1", "b": b"2"}))
        self.assertEqual(load(self.fd, {"b": ""}).uids, {"b": b"2"})

    def test_wrong(self) -> None:
        """A file that is not understood is never taken for another one, or for none."""
        for text in (
            "",
            "pop3toy-uidl 2\n",
            "pop3toy-uidl 1\nonly\n",
            "pop3toy-uidl 1\n\n",
            f"pop3toy-uidl 1\n{'x' * 71} name\n",
            "pop3toy-uidl 1\nuid name",
        ):
            self.file.write_text(text)
            self.assertRaises(StoreTrouble, load, self.fd)
        self.file.unlink()
        self.file.symlink_to("/etc/passwd")
        self.assertRaises(StoreTrouble, load, self.fd)
        self.file.unlink()
        os.mkfifo(self.file)
        self.assertRaises(StoreTrouble, load, self.fd)

    def test_replaced_in_one_step(self) -> None:
        """A link where the new file is to be is not followed, and the mark is another one."""
        save(self.fd, Given({"a": b"1"}))
        before = look(self.fd)
        victim = self.root / "victim"
        victim.write_text("mine")
        (self.maildir / f"{FILE_NAME}.tmp").symlink_to(victim)
        save(self.fd, Given({"a": b"2"}))
        self.assertEqual(victim.read_text(), "mine")
        self.assertEqual(load(self.fd).uids, {"a": b"2"})
        self.assertNotEqual(look(self.fd), before)

    def test_line_ends_in_names(self) -> None:
        """A name that would be two lines is left out."""
        save(self.fd, Given({"a\nb": b"1", "c": b"2"}))
        self.assertEqual(load(self.fd).uids, {"c": b"2"})


class GivenTests(SynchronousTestCase):
    """The unique-ids of a mailbox of which some are given."""

    def test_given(self) -> None:
        """What is given counts, and names tell the others."""
        self.assertEqual(unique_ids(["a", "b", "c"], {"b": b"given"}), [b"a", b"given", b"c"])

    def test_never_twice(self) -> None:
        """Nobody else has what is given, nor of two the same, in any case; all are valid."""
        uids = unique_ids(["a", "b", "c", "d"], {"b": b"A", "c": b"a", "d": b"D"})
        self.assertEqual([uids[1], uids[3]], [b"A", b"D"])
        self.assertEqual(len({uid.lower() for uid in uids}), 4)
        self.assertEqual((len(uids[0]), uids[2]), (32, b"c"))

    def test_one_name_of_two_messages(self) -> None:
        """Of two messages with one name the first has what is given."""
        uids = unique_ids(["a", "a"], {"a": b"1"})
        self.assertEqual(uids[0], b"1")
        self.assertNotIn(uids[1], (b"1",))


class ListedTests(UidlFileCase):
    """Maildirs are listed with it."""

    def test_unique_ids(self) -> None:
        """Messages have the unique-ids that are given, whatever their flags, in the order of delivery."""
        self.put("new/1700000002.M1,W=5", "cur/1700000001.M1,W=5:2,S", "new/1700000003.M1,W=5")
        save(self.fd, Given({"1700000002.M1,W=5": b"00b", "1700000001.M1,W=5": b"00a"}))
        self.assertEqual(self.uids(), [b"00a", b"00b", b"1700000003.M1,W=5"])

    def test_order(self) -> None:
        """An order that is given counts; what is not in it is behind it."""
        self.put("new/1700000001.M1,W=5", "new/1700000002.M1,W=5", "new/1600000000.M1,W=5")
        save(self.fd, Given({"1700000002.M1,W=5": b"00b", "1700000001.M1,W=5": b"00a"}, ordered=True))
        self.assertEqual(self.uids(), [b"00b", b"00a", b"1600000000.M1,W=5"])

    def test_written_meanwhile(self) -> None:
        """A message that comes with its line while a Maildir is being listed is never shown with another."""
        real = list_files

        def listed(*args: Any, **named: Any) -> Any:
            save(self.fd, Given({"1700000001.M1,W=5": b"1"}))
            self.put("new/1700000001.M1,W=5")
            return real(*args, **named)

        self.patch(snapshot, "list_files", listed)
        self.assertEqual(self.uids(), [b"1"])

    def test_not_on_the_reactors_thread(self) -> None:
        """Where nothing may be waited for it is not read."""
        self.put("new/1700000001.M1,W=5")
        take_snapshot(self.fd, NOW)
        save(self.fd, Given({}))
        self.assertRaises(WouldWait, take_snapshot, self.fd, NOW)

    def test_damaged(self) -> None:
        """A mailbox whose unique-ids cannot be told is not shown with others; a check says why."""
        self.put("new/1700000001.M1,W=5")
        self.file.write_text("nonsense\n")
        admin = MaildirAdmin(Maildirs(f"{self.root}/{{user}}"))
        self.assertRaises(StoreTrouble, admin.list, "ann")
        self.assertIn(FILE_NAME, next(iter(admin.problems("ann"))))


class SessionTests(UidlFileCase):
    """Sessions see it."""

    def setUp(self) -> None:
        super().setUp()
        self.threads = Threads()
        self.store = MaildirStore(Maildirs(f"{self.root}/{{user}}"), self.threads, wall_clock=lambda: NOW)

    def listed(self) -> list[bytes]:
        """What a session lists."""
        mailbox = self.threads.wait(self.store.open("ann"))
        uids = [entry.uid for entry in mailbox.entries]
        self.threads.wait(mailbox.release())
        return uids

    def test_written_between_sessions(self) -> None:
        """The session behind the writing has what is given, though no message has changed."""
        self.put("new/1700000001.M1,W=5")
        self.assertEqual(self.listed(), [b"1700000001.M1,W=5"])
        save(self.fd, Given({"1700000001.M1,W=5": b"1"}))
        self.assertEqual(self.listed(), [b"1"])
        save(self.fd, Given({"1700000001.M1,W=5": b"2"}))
        self.assertEqual(self.listed(), [b"2"])
        self.file.unlink()
        self.assertEqual(self.listed(), [b"1700000001.M1,W=5"])

    def test_unchanged(self) -> None:
        """A Maildir with it that has not changed is opened without a thread."""
        self.put("new/1700000001.M1,W=5")
        save(self.fd, Given({"1700000001.M1,W=5": b"1"}))
        self.listed()
        mailbox = self.store.open("ann")
        self.assertEqual(self.threads.jobs, [])
        self.threads.wait(self.threads.wait(mailbox).release())

    def test_removed(self) -> None:
        """A message is removed by the unique-id that is given."""
        self.put("new/1700000001.M1,W=5", "cur/1700000002.M1,W=5:2,S")
        save(self.fd, Given({"1700000002.M1,W=5": b"1"}))
        mailbox = self.threads.wait(self.store.open("ann"))
        self.threads.wait(mailbox.remove([b"1"]))
        self.threads.wait(mailbox.release())
        self.assertEqual([path.name for path in Path(self.maildir).glob("*/1*")], ["1700000001.M1,W=5"])
