"""Mailboxes are copied between stores: nothing twice, nothing lost, unique-ids and order kept."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import InUse, MessageGone, NoSuchMailbox, StoreTrouble
from pop3toy.stores.copying import mailbox as copying
from pop3toy.stores.copying import objects as copied_objects
from pop3toy.stores.copying.counts import Counts, Stopped
from pop3toy.stores.copying.journal import Journal, begun, ended, forgotten
from pop3toy.stores.copying.mailbox import copy_mailbox
from pop3toy.stores.copying.maildirs import MaildirMailboxes
from pop3toy.stores.copying.messages import Mailbox, Message, Store, Wire
from pop3toy.stores.copying.objects import ObjectMailboxes
from pop3toy.stores.copying.verify import verify_mailbox
from pop3toy.stores.maildir.beside import uidl_file
from pop3toy.stores.maildir.settings import Maildirs
from pop3toy.stores.objects.admin import ObjectAdmin
from pop3toy.stores.objects.connecting import Engines
from pop3toy.stores.objects.records import message_key, message_name, new_name
from pop3toy.stores.objects.settings import Objects
from pop3toy.stores.objects.users import Users

from ..corpus import awkward_messages, fill_maildir, make_maildir, wire_form
from ..folders import new_folder

_numbers = itertools.count()
#: A time of arrival, in microseconds.
SOME_TIME = 1_700_000_000_000_000


class MaildirSide:
    """Maildirs to copy from and to."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.root = new_folder(test)
        self.store: Store = MaildirMailboxes(Maildirs(f"{self.root}/{{user}}"))
        self.maildir = self.root / "ann"

    def deliver(self, number: int, body: bytes = b"") -> None:
        """A message comes, as from another program."""
        if not self.maildir.exists():
            make_maildir(self.maildir)
        name = f"{1_700_000_000 + number}.M{number}P1.mail"
        (self.maildir / "new" / name).write_bytes(body or b"Subject: %d\n\n.hello\n" % number)

    def take(self, place: int) -> None:
        """The owner removes a message, given by its place in the listing."""
        with self.store.mailbox("ann") as mailbox:
            (self.maildir / mailbox.list()[place].where).unlink()


class ObjectSide:
    """Maildrops in memory to copy from and to."""

    def __init__(self, test: SynchronousTestCase) -> None:
        address = f"memory://copying-{os.getpid()}-{next(_numbers)}"
        self.engines = Engines(Objects(url=address))
        self.users = Users(self.engines)
        self.store: Store = ObjectMailboxes(self.engines, self.users, address)

    def put(self, name: str, body: bytes) -> None:
        """A message is there by this name."""
        self.engines.main.create(message_key(self.users.make("ann").drop, name), wire_form(body))

    def deliver(self, number: int, body: bytes = b"") -> None:
        """A message comes, as a server of ours takes it."""
        name = new_name(SOME_TIME + number * 1_000_000, str(number))
        self.put(name, body or b"Subject: %d\n\n.hello\n" % number)

    def take(self, place: int) -> None:
        """The owner removes a message, given by its place in the listing."""
        with self.store.mailbox("ann") as mailbox:
            self.engines.main.delete([mailbox.list()[place].where])


Side = MaildirSide | ObjectSide


def listed(side: Side) -> list[tuple[bytes, tuple[int, str]]]:
    """The unique-ids in order, each with what message that is."""
    with side.store.mailbox("ann") as mailbox:
        return [(one.uid, Wire().read(mailbox.read(one)).is_what) for one in mailbox.list()]


class Crash(BaseException):
    """The process ends here."""


class Crashing:
    """A store that ends the process at the n-th thing that is asked of a mailbox to copy to.

    :param after: whether what is asked then is done still.
    """

    def __init__(self, store: Store, asked: int, *, after: bool) -> None:
        self.address = store.address
        self.users = store.users
        self._store = store
        self._left = asked
        self._after = after

    @contextmanager
    def mailbox(self, user: str, *, make: bool = False) -> Iterator[Any]:
        """A mailbox that crashes."""
        with self._store.mailbox(user, make=make) as opened:
            yield _CrashingMailbox(opened, self._count)

    def _count(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        self._left -= 1
        if not self._left and not self._after:
            raise Crash
        result = function(*args, **named)
        if not self._left:
            raise Crash
        return result


class _CrashingMailbox:
    def __init__(self, mailbox: Mailbox, count: Callable[..., Any]) -> None:
        self._mailbox = mailbox
        self._count = count

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._mailbox, name)
        if name not in ("announce", "put", "remove", "settle", "write_down"):
            return found
        return lambda *args, **named: self._count(found, *args, **named)


class CopyingContract:
    """What is true from every kind of store to every kind."""

    kinds: ClassVar[tuple[type[Side], type[Side]]]

    def setUp(self) -> None:
        """Two stores."""
        self.source, self.target = (kind(self) for kind in self.kinds)  # type: ignore[arg-type]
        self.said: list[str] = []

    def copy(self: Any, **how: Any) -> Counts:
        """Copy all that is missing."""
        return copy_mailbox("ann", self.source.store, self.target.store, tell=self.said.append, **how)

    def back(self: Any, **how: Any) -> Counts:
        """The other way."""
        return copy_mailbox("ann", self.target.store, self.source.store, tell=self.said.append, **how)

    def verify(self: Any) -> Counts:
        """Compare all."""
        return verify_mailbox("ann", self.source.store, self.target.store, tell=self.said.append)

    def test_copied(self: Any) -> None:
        """Unique-ids, order and octets are the same; and again when nothing is left to do."""
        for number in (3, 1, 2):
            self.source.deliver(number)
        counts = self.copy()
        self.assertEqual((counts.copied, counts.there, counts.failed), (3, 0, 0))
        self.assertEqual(listed(self.target), listed(self.source))
        self.assertEqual(self.copy(), Counts(there=3))
        self.assertEqual(self.verify(), Counts(compared=3))
        self.assertEqual(self.said, [])

    def test_what_comes_later(self: Any) -> None:
        """A second run brings what came since, in its place among what the target got itself."""
        for number in (1, 2, 5):
            self.source.deliver(number)
        self.copy()
        self.source.deliver(7)
        self.source.deliver(3)
        before = listed(self.source)
        self.target.deliver(9)
        self.assertEqual(self.copy().copied, 2)
        self.assertEqual(listed(self.target)[:5], before)
        self.assertEqual(len(listed(self.target)), 6)

    def test_there_and_back(self: Any) -> None:
        """What came to the target goes back with its unique-id, and to the target again: each once."""
        for number in (1, 3):
            self.source.deliver(number)
        self.copy()
        self.target.deliver(2)
        self.target.deliver(4)
        self.assertEqual(self.back().copied, 2)
        self.assertEqual(listed(self.source), listed(self.target))
        self.assertEqual(self.copy().copied, 0)
        self.source.take(1)
        self.target.take(3)
        self.assertEqual(self.copy(delete=True).removed, 1)
        self.assertEqual(self.back(delete=True).removed, 1)
        self.assertEqual(listed(self.source), listed(self.target))
        self.assertEqual(len(listed(self.source)), 2)

    def test_a_new_target(self: Any) -> None:
        """A target that takes the place of one that was lost gets all, also what had come from that."""
        self.source.deliver(1)
        self.target.deliver(2)
        self.copy()
        self.back()
        address = self.target.store.address
        self.target = self.kinds[1](self)
        self.target.store.address = address
        self.patch(copying, "BATCH", 1)
        asked = iter([False, True])
        self.assertRaises(Stopped, self.copy, stop=lambda: next(asked))
        self.assertEqual(self.copy().copied, 1)
        self.assertEqual(listed(self.target), listed(self.source))

    def test_removed_by_its_owner(self: Any) -> None:
        """What its owner has removed from the target since does not come again."""
        for number in (1, 2):
            self.source.deliver(number)
        self.copy()
        self.target.take(0)
        self.assertEqual(self.copy(), Counts(there=1, taken=1))
        self.assertEqual(self.verify().failed, 0)
        self.assertEqual(len(listed(self.target)), 1)

    def test_gone_from_the_source(self: Any) -> None:
        """What is gone from the source is removed only if told to, and only what copying brought."""
        for number in (1, 2, 3):
            self.source.deliver(number)
        self.copy()
        self.target.deliver(4)
        self.source.take(1)
        self.assertEqual(self.copy(), Counts(there=2))
        self.assertEqual(self.copy(delete=True), Counts(there=2, removed=1))
        left = listed(self.target)
        self.assertEqual(left[:2], listed(self.source))
        self.assertEqual(len(left), 3)
        self.assertEqual(self.copy(delete=True), Counts(there=2))

    def test_no_mailbox(self: Any) -> None:
        """A user without a mailbox gets none."""
        self.assertRaises(NoSuchMailbox, self.copy, delete=True)
        self.assertEqual(self.target.store.users(), [])

    def test_interrupted_anywhere(self: Any) -> None:
        """Wherever the process ends, the next run goes on: nothing is twice, lost, or kept away."""
        self.patch(copying, "BATCH", 2)
        for number in (1, 2, 3):
            self.source.deliver(number)
        whole = listed(self.source)
        for after in (False, True):
            for asked in itertools.count(1):
                target = self.kinds[1](self)
                crashing = Crashing(target.store, asked, after=after)
                try:
                    copy_mailbox("ann", self.source.store, crashing)
                except Crash:
                    pass
                else:
                    break
                there = listed(target)
                self.assertEqual(there, [one for one in whole if one in there])
                copy_mailbox("ann", self.source.store, target.store)
                self.assertEqual(listed(target), whole)
                with target.store.mailbox("ann") as mailbox:
                    journal = Journal(mailbox.journal(self.source.store.address))
                self.assertEqual((len(journal.done), journal.unsure), (3, set()))
            # Two batches: each is written down, three messages put, settled and written down.
            self.assertGreater(asked, 8)

    def test_stopped(self: Any) -> None:
        """It ends between two messages when it is asked to."""
        for number in (1, 2, 3):
            self.source.deliver(number)
        asked = iter([False, True])
        self.assertRaises(Stopped, self.copy, stop=lambda: next(asked))
        self.assertEqual(len(listed(self.target)), 1)
        self.assertEqual(self.copy().copied, 2)

    def test_vanished(self: Any) -> None:
        """What its owner removes while it is being copied is skipped; it would come later."""
        for number in (1, 2, 3):
            self.source.deliver(number)
        taken: list[int] = []

        def progress(coming: int, done: int) -> None:
            if done and not taken:
                taken.append(1)
                self.source.take(1)

        counts = self.copy(progress=progress)
        self.assertEqual((counts.copied, counts.vanished, counts.failed), (2, 1, 0))
        self.assertEqual(listed(self.target), listed(self.source))

    def test_damaged_on_its_way(self: Any) -> None:
        """A message that is not the same when it is read again is taken back, and comes with the next run."""
        self.source.deliver(1)
        self.source.deliver(2)
        with self.target.store.mailbox("ann", make=True) as mailbox:
            kind = type(mailbox)
        put = kind.put

        def wrong(self: Any, name: str, message: Message, chunks: Any, *, wire: bool) -> bool:
            altered = (chunk.replace(b"Subject: 1", b"Subject: x") for chunk in chunks)
            put(self, name, message, altered, wire=wire)
            return False

        patch = self.patch(kind, "put", wrong)
        self.assertEqual((self.copy().failed, len(self.said)), (1, 1))
        self.assertEqual(len(listed(self.target)), 1)
        patch.restore()
        self.assertEqual(self.copy().copied, 1)
        self.assertEqual(listed(self.target), listed(self.source))

    def test_verified(self: Any) -> None:
        """A comparison finds what is missing, what is another message, and what is not in order."""
        for number in (1, 2, 3):
            self.source.deliver(number)
        self.copy()
        with self.target.store.mailbox("ann") as mailbox:
            kind, messages = type(mailbox), mailbox.list()
        read = kind.read

        def wrong(self: Any, message: Message) -> Iterator[bytes]:
            for chunk in read(self, message):
                yield chunk.replace(b"Subject: 1", b"Subject: x")

        real = kind.list
        if self.kinds[0] is self.kinds[1]:
            # Both would change.
            return
        patch = self.patch(kind, "list", lambda self: [*reversed(real(self))])
        self.assertEqual(self.verify().failed, 2)
        patch.restore()
        patch = self.patch(kind, "read", wrong)
        self.assertEqual(self.verify(), Counts(compared=3, failed=1))
        patch.restore()
        self.source.deliver(4)
        self.assertEqual(self.verify(), Counts(compared=3, failed=1))
        self.assertEqual(len(messages), 3)

    def test_awkward(self: Any) -> None:
        """Messages of every kind keep their wire form."""
        awkward = awkward_messages(large=False)
        for number, message in enumerate(awkward):
            self.source.deliver(number + 1, message.stored)
        counts = self.copy()
        self.assertEqual((counts.copied, counts.failed, self.said), (len(awkward), 0, []))
        self.assertEqual(listed(self.target), listed(self.source))

    def test_large(self: Any) -> None:
        """A message that does not stay in memory is copied as well."""
        self.source.deliver(1, b"Subject: large\n\n" + b"x" * 70 + b"\n" * 1000 + b"y" * 3_000_000 + b"\n")
        self.assertEqual(self.copy().failed, 0)
        self.assertEqual(listed(self.target), listed(self.source))

    def test_trouble(self: Any) -> None:
        """A store that fails ends it with what it says; the next run goes on."""
        for number in (1, 2):
            self.source.deliver(number)
        with self.target.store.mailbox("ann", make=True) as mailbox:
            kind = type(mailbox)

        def fails(*args: Any, **named: Any) -> bool:
            raise StoreTrouble(detail="no")

        patch = self.patch(kind, "put", fails)
        self.assertRaises(StoreTrouble, self.copy)
        patch.restore()
        self.assertEqual(self.copy().copied, 2)


class MaildirToObjectsTests(CopyingContract, SynchronousTestCase):
    """From Maildirs to objects."""

    kinds = (MaildirSide, ObjectSide)

    def test_names_of_every_style(self) -> None:
        """Whatever files are called, and whatever is seen of them."""
        source = self.source
        assert isinstance(source, MaildirSide)
        fill_maildir(source.maildir, awkward_messages(large=False))
        for name in ("no time", "x" * 90, "A", "a", "1700000000.M1P1.mail,U=3:2,S"):
            (source.maildir / "cur" / name).write_bytes(b"Subject: x\n\nx\n")
        self.copy()
        self.assertEqual(listed(self.target), listed(source))
        self.assertEqual(self.said[0][:9], "1 message")

    def test_somebody_else_begins(self) -> None:
        """Who copies stops behind the batch when somebody else has begun, and says so; all is there once."""
        self.patch(copying, "BATCH", 2)
        for number in (1, 2, 3):
            self.source.deliver(number)

        def other() -> bool:
            self.assertEqual(self.copy().copied, 3)
            return False

        turns = iter([other, lambda: False])
        why = self.assertRaises(InUse, self.copy, stop=lambda: next(turns)())
        self.assertIn("somebody else has begun to copy to it", why.detail)
        self.assertEqual(listed(self.target), listed(self.source))
        self.assertEqual(self.copy(), Counts(there=3))

    def test_one_of_two_is_killed(self) -> None:
        """What one who copies was about to bring is not taken to be there when another one ends."""
        for number in (1, 2, 3):
            self.source.deliver(number)

        def killed() -> bool:
            raise Crash

        def other() -> bool:
            self.source.deliver(4)
            self.assertRaises(Crash, self.copy, stop=killed)
            return False

        turns = iter([lambda: False, lambda: False, other])
        self.assertEqual(self.copy(stop=lambda: next(turns)()).copied, 3)
        counts = self.copy()
        self.assertEqual((counts.copied, counts.there, counts.taken), (1, 3, 0))
        self.assertEqual(listed(self.target), listed(self.source))

    def test_taken_for_another(self) -> None:
        """A unique-id that differs by case alone from one in the target is another, always the same."""
        target = self.target
        assert isinstance(target, ObjectSide)
        make_maildir(self.source.root / "ann")  # type: ignore[union-attr]
        (self.source.root / "ann" / "new" / "1700000000.m1").write_bytes(b"x\n")  # type: ignore[union-attr]
        target.put(message_name(SOME_TIME, b"1700000000.M1"), b"y\n")
        self.assertEqual((self.copy().copied, len(self.said)), (1, 1))
        uids = {uid.lower() for uid, _ in listed(target)}
        self.assertEqual(len(uids), 2)
        self.assertEqual(self.copy(), Counts(there=1))

    def test_another_with_its_unique_id(self) -> None:
        """Another message with the very same unique-id keeps none away; the same message is no other."""
        source, target = self.source, self.target
        assert isinstance(source, MaildirSide)
        assert isinstance(target, ObjectSide)
        make_maildir(source.maildir)
        for name in ("1", "2"):
            (source.maildir / "new" / name).write_bytes(b"Subject: %s\n\n" % name.encode("ascii"))
        target.put(message_name(SOME_TIME, b"1"), b"Subject: 1\n\n")
        target.put(message_name(SOME_TIME, b"2"), b"Subject: other\n\n")
        counts = self.copy(delete=True)
        self.assertEqual((counts.copied, counts.there, len(self.said)), (1, 1, 1))
        self.assertEqual(len(listed(target)), 3)
        self.assertEqual(self.copy(delete=True), Counts(there=2))
        self.assertEqual(self.verify(), Counts(compared=2))
        # What was the target's own is not removed, and does not come again.
        (source.maildir / "new" / "1").unlink()
        self.assertEqual(self.copy(delete=True), Counts(there=1))
        self.assertEqual(len(listed(target)), 3)

    def test_too_large(self) -> None:
        """A file of many TB that takes no room keeps no others away."""
        source = self.source
        assert isinstance(source, MaildirSide)
        source.deliver(1)
        os.truncate(source.maildir / "new" / "1700000001.M1P1.mail", 10**12)
        source.deliver(2)
        counts = self.copy()
        self.assertEqual((counts.copied, counts.failed), (1, 1))

    def test_renamed_meanwhile(self) -> None:
        """A message that another program marks as seen is found where it is."""
        source = self.source
        assert isinstance(source, MaildirSide)
        for number in (1, 2):
            source.deliver(number)

        def progress(coming: int, done: int) -> None:
            for path in [*(source.maildir / "new").iterdir()] if done else []:
                path.rename(source.maildir / "cur" / f"{path.name}:2,S")

        counts = self.copy(progress=progress)
        self.assertEqual((counts.copied, counts.vanished), (2, 0))

    def test_unreadable(self) -> None:
        """One message that cannot be read is told and takes no others with it; it comes later."""
        source = self.source
        assert isinstance(source, MaildirSide)
        for number in (1, 2):
            source.deliver(number)
        (path,) = (source.maildir / "new").glob("1700000001*")
        with source.store.mailbox("ann") as mailbox:
            kind = type(mailbox)
        read = kind.read

        def fails(self: Any, message: Message) -> Iterator[bytes]:
            if message.name == path.name:
                raise PermissionError(13, "Permission denied")
            return read(self, message)

        patch = self.patch(kind, "read", fails)
        counts = self.copy()
        self.assertEqual((counts.copied, counts.failed), (1, 1))
        self.assertIn("Permission denied", self.said[0])
        patch.restore()
        self.assertEqual(self.copy().copied, 1)
        self.assertEqual(listed(self.target), listed(source))


class ObjectsToMaildirTests(CopyingContract, SynchronousTestCase):
    """From objects to Maildirs."""

    kinds = (ObjectSide, MaildirSide)

    def test_names(self) -> None:
        """A unique-id that was a file's name becomes one; others are in the file of unique-ids."""
        source, target = self.source, self.target
        assert isinstance(source, ObjectSide)
        assert isinstance(target, MaildirSide)
        uids = [b"1700000000.M1P1.mail,S=3,W=5", b"slash/and:colon", b"0001", b".dot", b"UID5-1234"]
        for number, uid in enumerate(uids):
            source.put(message_name(SOME_TIME + number * 1_000_000, uid), b"x\n")
        source.deliver(9)
        self.copy()
        self.assertEqual([uid for uid, _ in listed(target)][:5], uids)
        names = sorted(os.listdir(target.maildir / "new"))
        self.assertIn("1700000000.M1P1.mail,S=3,W=5", names)
        fd = os.open(target.maildir, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertEqual(set(uidl_file.load(fd).uids), set(names[1:]))
        # No session has to count.
        self.assertTrue(all(",W=" in name for name in names))

    def test_without_the_file(self) -> None:
        """Where names tell all unique-ids there is no file."""
        source, target = self.source, self.target
        assert isinstance(source, ObjectSide)
        assert isinstance(target, MaildirSide)
        source.put(message_name(SOME_TIME, b"1700000000.M1P1.mail,W=5"), b"x\n")
        self.copy()
        self.assertFalse((target.maildir / uidl_file.FILE_NAME).exists())

    def test_kept_lines(self) -> None:
        """Lines of messages that are there stay, those of messages that are gone go; so does the order."""
        source, target = self.source, self.target
        assert isinstance(source, ObjectSide)
        assert isinstance(target, MaildirSide)
        target.deliver(1)
        (name,) = os.listdir(target.maildir / "new")
        fd = os.open(target.maildir, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        uidl_file.save(fd, uidl_file.Given({name: b"adopted", "gone": b"x"}, ordered=True))
        source.deliver(0)
        self.copy()
        given = uidl_file.load(fd)
        self.assertEqual((given.ordered, len(given.uids), given.uids[name]), (True, 2, b"adopted"))
        self.assertEqual(listed(target)[0][0], b"adopted")

    def test_somebody_else_copies(self) -> None:
        """Two who copy to one Maildir would undo what the other writes."""
        self.source.deliver(1)
        with self.target.store.mailbox("ann", make=True):
            self.assertRaises(InUse, self.copy)
        self.assertEqual(self.copy().copied, 1)

    def test_links(self) -> None:
        """Nothing is written to what the owner of a Maildir has put in the place of its journal."""
        self.source.deliver(1)
        self.copy()
        target = self.target
        assert isinstance(target, MaildirSide)
        (journal,) = target.maildir.glob("pop3toy-copied-*")
        journal.unlink()
        victim = target.root / "victim"
        victim.write_text("mine")
        self.source.deliver(2)
        for link in (journal.symlink_to, journal.hardlink_to):
            link(victim)
            self.assertRaises(StoreTrouble, self.copy)
            journal.unlink()
        self.assertEqual(victim.read_text(), "mine")

    def test_disk_full(self) -> None:
        """A line that was cut off is not taken for one of another message, however it goes on."""
        target = self.target
        assert isinstance(target, MaildirSide)
        with target.store.mailbox("ann", make=True) as mailbox:
            for cut in (b"! 12", b"+ 12", b"! 1", b"+ 12 na", b"!", b""):
                mailbox.write_down("s3://mail", ended([b"1" * 70] * 20) + cut)
                mailbox.write_down("s3://mail", ended([b"9"]))
                text = mailbox.journal("s3://mail")
                self.assertEqual(text.count(b"\n"), 21)
                self.assertEqual(Journal(text).done, {b"1" * 70, b"9"})
                (path,) = target.maildir.glob("pop3toy-copied-*")
                path.unlink()

    def test_times(self) -> None:
        """Files have the time at which their message came."""
        self.source.deliver(1)
        self.copy()
        assert isinstance(self.target, MaildirSide)
        (path,) = (self.target.maildir / "new").iterdir()
        self.assertEqual(path.stat().st_mtime_ns, (SOME_TIME + 1_000_000) * 1000)


class MaildirToMaildirTests(CopyingContract, SynchronousTestCase):
    """From Maildirs to Maildirs."""

    kinds = (MaildirSide, MaildirSide)

    def test_flags(self) -> None:
        """Marks are kept, and files as they are."""
        source, target = self.source, self.target
        assert isinstance(source, MaildirSide)
        assert isinstance(target, MaildirSide)
        make_maildir(source.maildir)
        (source.maildir / "cur" / "1700000000.M1P1.mail,S=6:2,FS").write_bytes(b"x\r\n\r\ny")
        self.copy()
        copied = target.maildir / "cur" / "1700000000.M1P1.mail,S=6:2,FS"
        self.assertEqual(copied.read_bytes(), b"x\r\n\r\ny")
        self.assertEqual(os.listdir(target.maildir / "tmp"), [])

    def test_given_unique_ids(self) -> None:
        """Unique-ids that the source's file gives are given by the target's, in their order."""
        source, target = self.source, self.target
        assert isinstance(source, MaildirSide)
        assert isinstance(target, MaildirSide)
        for number in (1, 2, 3):
            source.deliver(number)
        names = sorted(os.listdir(source.maildir / "new"))
        fd = os.open(source.maildir, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        given = {names[2]: b"0003", names[0]: b"0001"}
        uidl_file.save(fd, uidl_file.Given(given, ordered=True))
        self.copy()
        self.assertEqual(listed(target), listed(source))


class ObjectsToObjectsTests(CopyingContract, SynchronousTestCase):
    """From objects to objects."""

    kinds = (ObjectSide, ObjectSide)

    def test_same_unique_ids(self) -> None:
        """Two objects with one unique-id, in any case, keep what clients were shown, and it is told."""
        source, target = self.source, self.target
        assert isinstance(source, ObjectSide)
        assert isinstance(target, ObjectSide)
        for number, uid in enumerate((b"uid", b"UID", b"uid")):
            source.put(message_name(SOME_TIME + number, uid), b"Subject: %d\n\n" % number)
        before = listed(source)
        self.assertEqual(self.copy().copied, 3)
        self.assertEqual(listed(target), before)
        self.assertIn("2 messages had the unique-id of another", self.said[0])
        # And they keep them, whatever is removed.
        target.take(0)
        self.assertEqual(listed(target), before[1:])

    def test_removed_meanwhile(self) -> None:
        """A mailbox that is removed while it is copied to is no success."""
        self.source.deliver(1)
        target = self.target
        assert isinstance(target, ObjectSide)

        def progress(coming: int, done: int) -> None:
            if done:
                target.users.forget_maildrop(target.users.find("ann"))

        self.assertRaises(NoSuchMailbox, self.copy, progress=progress)

    def test_mailbox_removed(self) -> None:
        """With a mailbox goes what was written down of it."""
        self.source.deliver(1)
        self.copy()
        target = self.target
        assert isinstance(target, ObjectSide)
        ObjectAdmin(target.engines, target.users).remove("ann")
        self.assertEqual(target.engines.main.list("i"), [])

    def test_put_by_somebody_else(self) -> None:
        """What is there by this name already is taken for a success if it is the same, and never replaced."""
        target = self.target
        assert isinstance(target, ObjectSide)
        message = Message(b"uid", "", SOME_TIME, None, "")
        with target.store.mailbox("ann", make=True) as mailbox:
            self.assertFalse(mailbox.put("a", message, [b"x\r\n\r\n"], wire=True) is None)
            self.assertTrue(mailbox.put("a", message, [b"x\r\n\r\n"], wire=True))
            self.assertRaises(FileExistsError, mailbox.put, "a", message, [b"y\r\n\r\n"], wire=True)
            self.assertEqual(b"".join(mailbox.read_name("a", message)), b"x\r\n\r\n")

    def test_memory(self) -> None:
        """A large message is in a file while it is sent."""
        with copied_objects._gathered(b"x" * 300_000 for _ in range(10)) as body:
            self.assertNotIsInstance(body, bytes)
            self.assertEqual(len(body), 3_000_000)
        with copied_objects._gathered([b"x", b"y"]) as body:
            self.assertEqual(body, b"xy")


class JournalTests(SynchronousTestCase):
    """What is written down."""

    def journal(self, *texts: bytes) -> Sequence[set[bytes]]:
        """What the lines say."""
        journal = Journal(b"".join(texts))
        return journal.done, journal.unsure

    def test_lines(self) -> None:
        """A batch is done when its end is there; what is taken back may come again."""
        one = begun([(b"a", "A"), (b"b", "B")])
        self.assertEqual(self.journal(), (set(), set()))
        self.assertEqual(self.journal(one), (set(), {b"a", b"b"}))
        end = ended([b"a", b"b"])
        self.assertEqual(self.journal(one, end), ({b"a", b"b"}, set()))
        self.assertEqual(self.journal(one, forgotten([b"a"]), ended([b"b"])), ({b"b"}, set()))
        self.assertEqual(self.journal(one, end, forgotten([b"a"])), ({b"b"}, set()))
        self.assertEqual(self.journal(one, ended([b"b"])), ({b"b"}, {b"a"}))

    def test_of_earlier_versions(self) -> None:
        """A line for all that was begun."""
        one = begun([(b"a", "A"), (b"b", "B")])
        self.assertEqual(self.journal(one, b".\n"), ({b"a", b"b"}, set()))
        self.assertEqual(self.journal(one, forgotten([b"a"]), b".\n"), ({b"b"}, set()))

    def test_cut_off(self) -> None:
        """A line that was cut off says nothing."""
        self.assertEqual(self.journal(begun([(b"a", "A"), (b"b", "B")])[:-4]), (set(), {b"a"}))

    def test_gone(self) -> None:
        """A message that is gone is told as such."""
        side = MaildirSide(self)
        side.deliver(1)
        with side.store.mailbox("ann") as mailbox:
            (message,) = mailbox.list()
            Path(side.maildir / message.where).unlink()
            self.assertRaises(MessageGone, list, mailbox.read(message))
