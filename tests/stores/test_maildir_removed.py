"""Messages that a session has removed: kept in the Maildir, put back, forgotten; killed at any moment."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy.errors import InUse, MessageGone, StoreTrouble
from pop3toy.interfaces import IKeepingMailbox, IRemovedMessages, RemovedMessage
from pop3toy.stores.copying.adopting import AdoptingMaildirs
from pop3toy.stores.copying.mailbox import copy_mailbox
from pop3toy.stores.copying.maildirs import MaildirMailboxes
from pop3toy.stores.expiring import Rule, remove_expired
from pop3toy.stores.maildir.admin import MaildirAdmin
from pop3toy.stores.maildir.beside import uidl_file
from pop3toy.stores.maildir.removed.folder import FOLDER
from pop3toy.stores.maildir.settings import Maildirs
from pop3toy.stores.maildir.store import MaildirStore

from ..corpus import make_maildir
from ..folders import new_folder
from ..store_world import open_descriptors, outcome, tmpfs
from . import test_maildir

NOW = 1_764_478_862.25
STAMP = "20251130T050102.250000Z"
BODY = b"Subject: x\n\nx\n"


class Killed(BaseException):
    """The process ends here."""


class KeepingContractTests(test_maildir.MaildirContractTests):
    """The contract of a store, by one that keeps what is removed."""

    def new_store(self, **options: Any) -> MaildirStore:
        return super().new_store(**options, keep_removed=True)


class KeepingRemoveTests(test_maildir.RemoveTests):
    """Exactly the marked ones go, by a store that keeps them; other programs interfere as before."""

    def new_store(self, **options: Any) -> MaildirStore:
        return super().new_store(**options, keep_removed=True)

    def test_in_a_thread(self) -> None:
        """Nothing is moved on the reactor's thread; where messages are is synced before where they were."""
        uids = self.fill(2)
        mailbox = self.open()
        removal = mailbox.remove(uids)
        self.assertNoResult(removal)
        self.assertEqual((2, False), (len(self.names()), (self.maildir / FOLDER).exists()))
        synced = self.synced()
        self.threads.run()
        self.successResultOf(removal)
        (folder,) = os.listdir(self.maildir / FOLDER)
        self.assertEqual(synced, [folder, FOLDER, "ann", "new"])

    def test_ten_thousand(self) -> None:
        """Of many, all are moved within seconds, and each folder is synced once."""
        uids = self.fill(10_000)
        mailbox = self.open()
        synced = self.synced()
        began = time.monotonic()
        self.remove(mailbox, uids)
        self.assertLess(time.monotonic() - began, 3.0)
        self.assertEqual(len(synced), 4)
        (folder,) = (self.maildir / FOLDER).iterdir()
        self.assertEqual(len(os.listdir(folder)), 10_000)

    def renames_before_unlinking(self, names: list[str]) -> None:
        left = itertools.pairwise(names)
        rename = os.rename

        def spy(*args: Any, **options: Any) -> None:
            if options and (step := next(left, None)) is not None:
                (self.maildir / step[0]).rename(self.maildir / step[1])
            rename(*args, **options)

        self.patch(os, "rename", spy)

    def test_one_folder_is_read_only(self) -> None:
        """If some cannot be moved the rest is, and it is said that not all were."""
        self.maildir.chmod(0o777)
        super().test_one_folder_is_read_only()

    def test_a_folder_in_its_place(self) -> None:
        """What is no message any more is not put back as one."""
        file = self.put("new/1.a,W=5")
        mailbox = self.open()
        file.unlink()
        file.mkdir()
        self.remove(mailbox, [b"1.a,W=5"])
        self.assertEqual(MaildirAdmin(Maildirs(f"{self.root}/{{user}}")).removed("ann"), [])

    def test_linked_in_both_folders(self) -> None:
        """A message with a name in each folder is kept once, and neither name is left."""
        self.put("new/1.a,W=5")
        os.link(self.maildir / "new" / "1.a,W=5", self.maildir / "cur" / "1.a,W=5:2,S")
        mailbox = self.open()
        self.remove(mailbox, [b"1.a,W=5"])
        self.assertEqual(self.names(), [])
        self.assertEqual(len(list((self.maildir / FOLDER).glob("*/*"))), 1)


class RemovedCase(SynchronousTestCase):
    """A Maildir of ann's, whose sessions keep what they remove."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.now = NOW
        self.where = Maildirs(f"{self.root}/{{user}}", undo_days=7)
        self.admin = MaildirAdmin(self.where, wall=lambda: self.now)
        self.maildir = make_maildir(self.root / "ann")

    def store(self) -> MaildirStore:
        """A store as a new process would have it."""
        return MaildirStore(self.where, run_now, wall_clock=lambda: self.now)

    def put(self, path: str, content: bytes = BODY) -> bytes:
        """A message; what its name begins with."""
        (self.maildir / path).write_bytes(content)
        return path.partition("/")[2].partition(":")[0].encode()

    def listed(self) -> list[bytes]:
        """The unique-ids that a client is told now."""
        mailbox: Any = outcome(self.store().open("ann"))
        try:
            return [entry.uid for entry in mailbox.entries]
        finally:
            outcome(mailbox.release())

    def delete(self, *uids: bytes) -> None:
        """A session that removes messages."""
        mailbox: Any = outcome(self.store().open("ann"))
        try:
            outcome(mailbox.remove(uids))
        finally:
            outcome(mailbox.release())

    def kept(self) -> list[RemovedMessage]:
        """What can be put back."""
        return list(self.admin.removed("ann"))

    def put_back(self, **options: Any) -> Sequence[str]:
        """Put all back."""
        return self.admin.put_back("ann", self.kept(), **options)

    def files(self) -> list[str]:
        """All message files, wherever they are."""
        return sorted(
            str(path.relative_to(self.maildir))
            for path in self.maildir.rglob("*")
            if path.is_file() and path.parent != self.maildir
        )


def run_now(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """A thread that works at once."""
    return execute(function, *args)


class KeptTests(RemovedCase):
    """What is kept, and how."""

    def test_interfaces(self) -> None:
        """Administrator and mailbox are what they say."""
        verifyObject(IRemovedMessages, self.admin)
        mailbox: Any = outcome(self.store().open("ann"))
        verifyObject(IKeepingMailbox, mailbox)
        mailbox.release()

    def test_as_it_was(self) -> None:
        """Name, flags, contents and times are the message's own; the day is in the folder's name."""
        uid = self.put("cur/1700000000.M1.host,W=17:2,FS")
        path = self.maildir / "cur" / "1700000000.M1.host,W=17:2,FS"
        os.utime(path, (1_700_000_001, 1_700_000_002))
        self.delete(uid)
        self.assertEqual(self.files(), [f"{FOLDER}/{STAMP}/1700000000.M1.host,W=17:2,FS"])
        self.assertEqual((self.maildir / self.files()[0]).stat().st_mtime, 1_700_000_002)
        ((message, removed),) = self.kept()
        self.assertEqual((message.uid, message.octets, message.arrived), (uid, 17, 1_700_000_000))
        self.assertEqual(removed, NOW)
        with self.admin.read("ann", message) as file:
            self.assertEqual(file.read(), BODY)
        self.put_back()
        self.assertEqual((self.files(), self.kept()), (["cur/1700000000.M1.host,W=17:2,FS"], []))
        self.assertEqual(path.stat().st_mtime, 1_700_000_002)
        self.assertFalse((self.maildir / FOLDER).exists())

    def test_not_mail(self) -> None:
        """It is in no listing and no quota, and not what is looked through for mistakes."""
        uid = self.put("new/1700000000.M1.host,S=14,W=17")
        self.put("new/1700000001.M1.host,S=14,W=17")
        self.delete(uid)
        self.assertEqual((len(self.listed()), len(self.admin.list("ann"))), (1, 1))
        self.assertEqual(self.admin.usage("ann"), 14)
        self.assertEqual(list(self.admin.problems("ann")), [])

    def test_two_of_one_name(self) -> None:
        """Two messages whose files have one name are both kept, and the first to come back has it."""
        self.put("new/1700000000.M1.host", b"Subject: a\n\na\n")
        self.put("cur/1700000000.M1.host", b"Subject: b\n\nbb\n")
        self.delete(*self.listed())
        self.assertEqual(len(self.files()), 2)
        self.assertEqual({removed for _, removed in self.kept()}, {NOW})
        self.assertEqual(sorted(self.put_back()), ["", "a message with its name is in the mailbox"])
        self.assertEqual(len(self.files()), 2)

    def test_in_order(self) -> None:
        """First what was removed first; sessions of one moment have folders of their own."""
        uids = [self.put(f"new/{1_700_000_000 + at}.M1.host") for at in range(4)]
        self.delete(uids[3], uids[2])
        self.delete(uids[0])
        self.now += 60
        self.delete(uids[1])
        self.assertEqual([one.message.uid for one in self.kept()], [uids[2], uids[3], uids[0], uids[1]])
        self.assertEqual(len({removed for _, removed in self.kept()}), 3)

    def test_not_where_it_cannot_be(self) -> None:
        """What cannot be kept stays in the mailbox, and the client is told; a link there is not followed."""
        uid = self.put("new/1700000000.M1.host")
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        for spoil in (
            lambda: (self.maildir / FOLDER).symlink_to(elsewhere),
            lambda: (self.maildir / FOLDER).write_bytes(b""),
        ):
            spoil()
            error = self.assertRaises(StoreTrouble, self.delete, uid)
            self.assertIn(FOLDER, getattr(error, "detail", ""))
            self.assertEqual((self.listed(), os.listdir(elsewhere)), ([uid], []))
            (self.maildir / FOLDER).unlink()

    def test_full(self) -> None:
        """On a disk that is full nothing is lost."""
        shutil.rmtree(self.maildir)
        with tmpfs("size=64k", self.root):
            make_maildir(self.maildir)
            uid = self.put("new/1700000000.M1.host")
            with contextlib.suppress(OSError), (self.maildir / "full").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            with contextlib.suppress(OSError):
                for at in itertools.count():
                    (self.maildir / f"x{at}").mkdir()
            self.assertRaises(StoreTrouble, self.delete, uid)
            self.assertEqual(self.listed(), [uid])

    def test_expired_is_not_kept(self) -> None:
        """What goes because of its age is gone."""
        self.put("new/1700000000.M1.host")
        store = self.store()
        self.successResultOf(Deferred.fromCoroutine(remove_expired(store, "ann", Rule(), self.now)))
        self.assertEqual(self.files(), [])

    def test_descriptors(self) -> None:
        """Nothing stays open."""
        uids = [self.put(f"new/{1_700_000_000 + at}.M1.host") for at in range(3)]
        before = open_descriptors()
        self.delete(*uids)
        self.put_back()
        self.delete(*uids)
        self.admin.forget("ann", NOW)
        self.assertEqual(open_descriptors(), before)

    def test_owner_s_links(self) -> None:
        """A link in the place of a folder of removed messages leads nowhere."""
        secret = self.root / "secret"
        secret.mkdir()
        (secret / "1700000000.M1.host").write_bytes(b"secret")
        self.delete(self.put("new/1700000000.M1.host"))
        ((message, _),) = self.kept()
        shutil.rmtree(self.maildir / FOLDER / STAMP)
        (self.maildir / FOLDER / STAMP).symlink_to(secret)
        for call in (
            self.kept,
            lambda: self.admin.read("ann", message),
            lambda: self.admin.put_back("ann", [RemovedMessage(message, NOW)]),
            lambda: self.admin.forget("ann", NOW),
        ):
            self.assertRaises(StoreTrouble, call)
        self.assertEqual(os.listdir(secret), ["1700000000.M1.host"])


class PutBackTests(RemovedCase):
    """Messages that come back."""

    def test_unique_ids_and_order(self) -> None:
        """They are those of before, from names and from the file that tells them."""
        uids = [self.put(f"new/{1_700_000_000 + at}.M1.host") for at in range(5)]
        given = {uids[3].decode(): b"known-3", uids[1].decode(): b"known-1", uids[4].decode(): b"known-4"}
        self.save(uidl_file.Given(given, ordered=True))
        before = self.listed()
        self.assertEqual(before, [b"known-3", b"known-1", b"known-4", uids[0], uids[2]])
        self.delete(b"known-1", b"known-3", uids[2])
        self.assertEqual({message.uid for message, _ in self.kept()}, {b"known-1", b"known-3", uids[2]})
        self.assertEqual(self.put_back(), [""] * 3)
        self.assertEqual(self.listed(), before)

    def save(self, given: uidl_file.Given) -> None:
        """Write the file of unique-ids."""
        maildir = os.open(self.maildir, os.O_RDONLY)
        try:
            uidl_file.save(maildir, given)
        finally:
            os.close(maildir)

    def test_told_still(self) -> None:
        """Whoever writes the file of unique-ids anew leaves in it what is told of messages that are kept."""
        uids = [self.put(f"new/{1_700_000_000 + at}.M1.host") for at in range(3)]
        self.save(uidl_file.Given({uids[1].decode(): b"known"}))
        self.delete(b"known")
        with AdoptingMaildirs(self.where).maildir("ann", lock=True) as maildir:
            maildir.write({uids[2].decode(): b"adopted"})
        other = make_maildir(self.root / "other" / "ann")
        (other / "new" / "1600000000.M1.host").write_bytes(b"Subject: y\n\ny\n")
        (other / uidl_file.FILE_NAME).write_bytes(b"pop3toy-uidl 1\ncopied 1600000000.M1.host\n")
        source = MaildirMailboxes(Maildirs(f"{self.root}/other/{{user}}"))
        copy_mailbox("ann", source, MaildirMailboxes(self.where))
        self.assertEqual(self.put_back(), [""])
        self.assertEqual(set(self.listed()), {b"adopted", uids[0], b"known", b"copied"})

    def test_into_cur(self) -> None:
        """A message that was in new has no flags, and a name as others in cur; a long one stays."""
        names = ["1700000000.M1.host", "1700000001.".ljust(254, "x")]
        self.delete(*[self.put(f"new/{name}") for name in names][:1])
        mailbox_uids = self.listed()
        self.delete(*mailbox_uids)
        self.put_back()
        self.assertEqual(self.files(), [f"cur/{names[0]}:2,", f"cur/{names[1]}"])

    def test_nothing_is_overwritten(self) -> None:
        """What has a name, or a unique-id, that is there again stays where it is kept."""
        by_name = self.put("new/1700000000.M1.host")
        by_uid = self.put("new/1700000001.M1.host")
        by_file = self.put("new/1700000002.M1.host")
        self.delete(by_name, by_uid, by_file)
        self.put("cur/1700000000.M1.host:2,RS", b"Subject: another\n\n")
        self.put("new/1700000009.M1.host", b"Subject: third\n\n")
        self.save(uidl_file.Given({"1700000009.M1.host": by_uid.upper()}))
        (self.maildir / "cur" / "1700000002.M1.host:2,").mkdir()
        before = self.files()
        self.assertEqual(
            self.put_back(),
            [
                "a message with its name is in the mailbox",
                "another message has its unique-id",
                "a file with its name is in the mailbox",
            ],
        )
        self.assertEqual(self.files(), before)

    def test_without_links(self) -> None:
        """A file system that knows no links is no hindrance."""

        def no_link(*args: Any, **options: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "link", no_link)
        uid = self.put("new/1700000000.M1.host")
        self.delete(uid)
        self.assertEqual(self.put_back(), [""])
        self.assertEqual((self.files(), self.kept()), (["cur/1700000000.M1.host:2,"], []))
        self.delete(uid)
        (self.maildir / "cur" / "1700000000.M1.host:2,").mkdir()
        self.assertEqual(self.put_back(), ["a file with its name is in the mailbox"])

    def test_look(self) -> None:
        """Whoever only looks changes nothing, needs no lock, and is told the same."""
        uids = [self.put(f"new/170000000{at}.M1.host") for at in range(2)]
        self.delete(*uids)
        self.put("new/1700000000.M1.host", b"Subject: another\n\n")
        before = self.files()
        session: Any = outcome(self.store().open("ann"))
        told = self.put_back(look=True)
        self.assertRaises(InUse, self.put_back)
        session.release()
        self.assertEqual((self.files(), told[0] != "", told[1]), (before, True, ""))
        self.assertEqual(self.put_back(), told)

    def test_gone_meanwhile(self) -> None:
        """What was forgotten since it was listed is said to be gone."""
        self.delete(self.put("new/1700000000.M1.host"), self.put("new/1700000001.M1.host"))
        kept = self.kept()
        (self.maildir / kept[0].message.where).unlink()
        self.assertEqual(self.admin.put_back("ann", kept), ["it is gone", ""])
        self.assertRaises(MessageGone, self.admin.read, "ann", kept[0].message._replace(where="new/x"))

    def test_no_flood(self) -> None:
        """A mailbox of which most has been removed and comes back is opened as any other."""
        uids = [self.put(f"new/{1_700_000_000 + at}.M1.host", b"Subject: %d\n\n" % at) for at in range(40)]
        self.assertEqual(self.listed(), uids)
        self.delete(*uids[:28])
        self.assertEqual(self.listed(), uids[28:])
        self.put_back()
        self.assertEqual(self.listed(), uids)

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def test_any(self, data: st.DataObject) -> None:
        """Whatever sessions remove, in whatever order it comes back: all is as it was before."""
        shutil.rmtree(self.maildir)
        make_maildir(self.maildir)
        stem = st.sampled_from(["1700000000.M{}.host", "{}", "0{}.x", "17{}.ä", "a b{}", "A{}", "1.{},W=17"])
        count = data.draw(st.integers(1, 8))
        names = [data.draw(stem).format(at) for at in range(count)]
        for name in names:
            flags = data.draw(st.sampled_from(["", ":2,", ":2,S", ":2,FRS"]))
            self.put(f"{'cur' if flags else 'new'}/{name}{flags}", b"Subject: x\n\n%b\n" % name.encode())
        if data.draw(st.booleans()):
            told = data.draw(st.lists(st.sampled_from(names), unique=True))
            given = {name: b"uid-%d" % at for at, name in enumerate(told)}
            self.save(uidl_file.Given(given, ordered=data.draw(st.booleans())))
        before = self.listed()
        for _ in range(data.draw(st.integers(1, 3))):
            self.now += data.draw(st.sampled_from([0.0, 0.5, 90_000.0]))
            there = self.listed()
            if there:
                self.delete(*data.draw(st.lists(st.sampled_from(there), unique=True)))
            back = data.draw(st.permutations(self.kept()))[: data.draw(st.integers(0, 4))]
            self.assertEqual(list(self.admin.put_back("ann", back)), [""] * len(back))
        self.assertEqual(set(self.put_back()) - {""}, set())
        self.assertEqual(self.listed(), before)
        self.assertEqual([path.name for path in self.maildir.glob(f"{FOLDER}*")], [])


class ForgetTests(RemovedCase):
    """What is kept long enough."""

    def test_by_the_time_of_removal(self) -> None:
        """What was removed at that time or before goes, however old the message; the rest stays."""
        uids = [self.put(f"new/170000000{at}.M1.host") for at in range(3)]
        for uid in uids:
            self.delete(uid)
            self.now += 100
        self.assertEqual(self.admin.forget("ann", NOW - 1), (0, 0))
        self.assertEqual(self.admin.forget("ann", NOW + 100), (2, 2 * len(BODY)))
        self.assertEqual([message.uid for message, _ in self.kept()], uids[2:])
        self.assertEqual(self.admin.forget("ann", float("inf")), (1, len(BODY)))
        self.assertFalse((self.maildir / FOLDER).exists())

    def test_in_use(self) -> None:
        """Nothing is forgotten while a session is there; without any such mail nobody asks."""
        session: Any = outcome(self.store().open("ann"))
        self.assertEqual(self.admin.forget("ann", NOW), (0, 0))
        session.release()
        self.delete(self.put("new/1700000000.M1.host"))
        session = outcome(self.store().open("ann"))
        self.assertRaises(InUse, self.admin.forget, "ann", NOW)
        session.release()
        self.assertEqual(len(self.kept()), 1)

    def test_of_others(self) -> None:
        """What somebody else has put there is not touched, nor taken for mail."""
        strange = self.maildir / FOLDER / "99999999T999999.000000Z"
        strange.mkdir(parents=True)
        (self.maildir / FOLDER / "mine").write_bytes(b"x")
        self.delete(self.put("new/1700000000.M1.host"))
        self.assertEqual(len(self.kept()), 1)
        self.admin.forget("ann", float("inf"))
        self.assertEqual(sorted(os.listdir(self.maildir / FOLDER)), ["99999999T999999.000000Z", "mine"])

    def test_trouble(self) -> None:
        """What cannot be removed is said."""
        self.delete(self.put("new/1700000000.M1.host"))
        (self.maildir / FOLDER / STAMP / "folder").mkdir()
        error = self.assertRaises(StoreTrouble, self.admin.forget, "ann", NOW)
        self.assertIn(f"{FOLDER}/{STAMP}/folder: ", getattr(error, "detail", ""))

    def test_one_bad_entry(self) -> None:
        """Who is told of trouble gets all the rest: one thing that cannot be used is left alone."""
        for at in range(3):
            self.delete(self.put(f"new/170000000{at}.M1.host"))
            self.now += 100
        first, second, third = sorted(path for path in (self.maildir / FOLDER).iterdir())
        shutil.rmtree(first)
        first.symlink_to(self.root)
        (second / "folder").mkdir()
        (self.maildir / FOLDER / "20000101T000000.000000Z").write_bytes(b"x")
        told: list[str] = []
        uids = [one.message.uid for one in self.admin.removed("ann", told.append)]
        self.assertEqual(uids, [b"1700000001.M1.host", b"1700000002.M1.host"])
        self.assertEqual(len(told), 2)
        for name, line in zip(("20000101T000000.000000Z", first.name), told, strict=True):
            self.assertIn(f"{FOLDER}/{name} is left alone: ", line)
        told.clear()
        self.assertEqual(self.admin.forget("ann", float("inf"), told.append), (2, 2 * len(BODY)))
        self.assertEqual(len(told), 3)
        self.assertIn(f"{FOLDER}/{second.name}/folder is left alone: ", told[2])
        self.assertEqual((third.exists(), os.listdir(second)), (False, ["folder"]))
        self.assertTrue((self.root / "ann").is_dir())


class AdminTests(RemovedCase):
    """What becomes of it when the mailbox goes elsewhere."""

    def test_removed_with_the_mailbox(self) -> None:
        """Whoever removes a mailbox removes that too."""
        self.delete(self.put("new/1700000000.M1.host"))
        self.admin.remove("ann")
        self.assertEqual(os.listdir(self.root), [])

    def test_renamed_with_the_mailbox(self) -> None:
        """It goes with the mailbox, and an empty mailbox that has such mail is not replaced."""
        uid = self.put("new/1700000000.M1.host")
        self.delete(uid)
        make_maildir(self.root / "bob")
        error = self.assertRaises(StoreTrouble, self.admin.rename, "bob", "ann", lambda: None)
        self.assertIn("removed mail", getattr(error, "detail", ""))
        self.admin.rename("ann", "carl", lambda: None)
        self.assertEqual([message.uid for message, _ in self.admin.removed("carl")], [uid])


class KilledTests(RemovedCase):
    """A process that is killed before any step that changes something on the disk."""

    STEPS = ("mkdir", "rename", "link", "unlink", "fsync", "rmdir", "replace")

    @contextmanager
    def killed_at(self, step: int) -> Iterator[list[str]]:
        """Nothing is done from the n-th step on; the steps."""
        steps: list[str] = []

        def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if len(steps) >= step:
                    raise Killed
                steps.append(name)
                return real(*args, **options)

            return call

        patches = [self.patch(os, name, counting(name, getattr(os, name))) for name in self.STEPS]
        try:
            yield steps
        finally:
            for patch in patches:
                patch.restore()

    def contents(self) -> list[bytes]:
        """What is in all message files, wherever; one that has two names once."""
        found = {path.stat().st_ino: path.read_bytes() for path in map(self.maildir.joinpath, self.files())}
        return sorted(found.values())

    def each_step(self, call: Callable[[], object], check: Callable[[], None]) -> int:
        """Kill it at each step, each time from the start; how many there are."""
        template = self.root / "template"
        self.maildir.rename(template)
        for step in itertools.count():
            shutil.rmtree(self.maildir, ignore_errors=True)
            shutil.copytree(template, self.maildir)
            over = False
            with self.killed_at(step):
                try:
                    call()
                    over = True
                except Killed:
                    pass
            check()
            if over:
                return step
        raise AssertionError

    def names(self) -> list[str]:
        """Messages in new and cur, two of each name, with another after them; all removed but the last."""
        self.put("new/1700000000.M1.host", b"Subject: a\n\n")
        self.put("cur/1700000001.M1.host:2,S", b"Subject: b\n\n")
        self.put("new/1700000002.M1.host", b"Subject: c\n\n")
        self.put("new/1700000003.M1.host", b"Subject: d\n\n")
        return [f"170000000{at}.M1.host" for at in range(4)]

    def test_removing(self) -> None:
        """Each message is in the mailbox or kept, never in both or in none, and the next session goes on."""
        names = [name.encode() for name in self.names()]
        contents = self.contents()

        def remove() -> None:
            self.delete(*names[:3])

        def check() -> None:
            self.assertEqual(self.contents(), contents)
            listed, kept = self.listed(), [message.uid for message, _ in self.kept()]
            self.assertEqual(sorted(listed + kept), names)
            self.delete(*[uid for uid in listed if uid != names[3]])
            self.assertEqual(self.listed(), names[3:])
            self.assertEqual(self.put_back(), [""] * 3)
            self.assertEqual(self.listed(), names)

        self.assertGreater(self.each_step(remove, check), 6)

    def test_putting_back(self) -> None:
        """Each message is there or kept, none is lost; clients see it once, and the same again mends it."""
        names = [name.encode() for name in self.names()]
        contents = self.contents()
        self.delete(*names[:2])
        self.now += 60
        self.delete(names[2])

        def check() -> None:
            self.assertEqual(self.contents(), contents)
            listed, kept = self.listed(), [message.uid for message, _ in self.kept()]
            self.assertEqual(len(set(listed)), len(listed))
            self.assertEqual(sorted({*listed, *kept}), names)
            self.assertEqual(set(self.put_back()) - {""}, set())
            self.assertEqual((self.listed(), self.kept()), (names, []))
            # A folder that is left has nothing in it.
            self.admin.forget("ann", float("inf"))
            self.assertEqual(list((self.maildir / FOLDER).rglob("*")), [])

        self.assertGreater(self.each_step(self.put_back, check), 10)

    def test_deleted_between(self) -> None:
        """A message that came back by half, and is removed again, comes back once."""
        name = self.put("new/1700000000.M1.host")
        self.delete(name)
        with self.killed_at(2), contextlib.suppress(Killed):
            self.put_back()
        self.assertEqual((self.listed(), len(self.kept())), ([name], 1))
        self.now += 60
        self.delete(name)
        self.assertEqual(len(self.kept()), 2)
        self.assertEqual(self.put_back(), ["", ""])
        self.assertEqual((self.files(), self.kept()), (["cur/1700000000.M1.host:2,"], []))

    def test_forgetting(self) -> None:
        """The same again comes to the end, and mail in the mailbox is not touched."""
        names = [name.encode() for name in self.names()]
        self.delete(*names[:3])

        def check() -> None:
            self.assertEqual(self.listed(), names[3:])
            self.admin.forget("ann", NOW)
            self.assertEqual((self.kept(), self.files()), ([], [f"new/{names[3].decode()}"]))

        self.assertGreater(self.each_step(lambda: self.admin.forget("ann", NOW), check), 4)
