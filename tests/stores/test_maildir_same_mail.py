"""A mailbox in which all mail seems new is refused, and every other is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import StoreTrouble
from pop3toy.interfaces import IMailbox
from pop3toy.net.threads import run_now
from pop3toy.stores.copying.adopting import AdoptingMaildirs
from pop3toy.stores.maildir.beside import last_session, uidl_file
from pop3toy.stores.maildir.settings import Maildirs
from pop3toy.stores.maildir.store import MaildirStore

from ..corpus import make_maildir
from ..folders import new_folder

NOW = 4e9


class SameMailTests(SynchronousTestCase):
    """Sessions of one Maildir, each in a process of its own unless it says otherwise."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildir = make_maildir(self.root / "ann")
        self.note = self.maildir / last_session.FILE_NAME

    def put(self, *numbers: int, name: str = "17000000{:02}.M1P1.mail") -> None:
        """Messages, each of its own contents."""
        for number in numbers:
            path = self.maildir / "new" / name.format(number)
            path.write_bytes(b"Subject: %d\n\ntext %d\n" % (number, number))

    def rename(self, *numbers: int) -> None:
        """Give files other names, as a program does that moves mail by itself."""
        for number in numbers:
            path = self.maildir / "new" / f"17000000{number:02}.M1P1.mail"
            path.rename(path.with_name(f"17000000{number:02}.M2P2.other"))

    def store(self) -> MaildirStore:
        """A server that has opened nothing."""
        return MaildirStore(Maildirs(f"{self.root}/{{user}}"), run_now, wall_clock=lambda: NOW)

    def session(self, store: MaildirStore | None = None, remove: Sequence[int] = ()) -> int:
        """Open and release it; how many messages there were."""
        store = store or self.store()
        mailbox = self.opened(store.open("ann"))
        count = len(mailbox.entries)
        if remove:
            mailbox.remove([mailbox.entries[at].uid for at in remove])
        mailbox.release()
        return count

    def opened(self, opened: object) -> IMailbox:
        """A mailbox, whether it was opened at once or not."""
        mailbox: IMailbox = (
            opened if IMailbox.providedBy(opened) else self.successResultOf(opened)  # type: ignore[arg-type]
        )
        return mailbox

    def refused(self, store: MaildirStore | None = None) -> str:
        """What the log says of a session that is refused, by [SYS/TEMP]."""
        failure = self.failureResultOf((store or self.store()).open("ann"), StoreTrouble)  # type: ignore[arg-type]
        self.assertEqual(failure.value.code, "SYS/TEMP")
        detail: str = failure.value.detail
        return detail

    def test_renamed(self) -> None:
        """More than half have other unique-ids: it is refused, with what to do, as long as it is so."""
        self.put(*range(10))
        self.session()
        self.rename(*range(6))
        for _ in range(2):
            detail = self.refused()
            for word in (
                str(self.maildir),
                "mailbox adopt ann --from ",
                "mailbox accept ann",
                "pop3toy-uidl",
                "-m or --config",
            ):
                self.assertIn(word, detail)
        for number in range(6):
            path = self.maildir / "new" / f"17000000{number:02}.M2P2.other"
            path.rename(path.with_name(f"17000000{number:02}.M1P1.mail"))
        self.assertEqual(self.session(), 10)

    def test_half(self) -> None:
        """No more than half is let in."""
        self.put(*range(10))
        self.session()
        self.rename(*range(5))
        self.assertEqual(self.session(), 10)

    def test_few(self) -> None:
        """A mailbox of nine messages is let in, and nothing is written down of it."""
        self.put(*range(9))
        self.session()
        self.assertFalse(self.note.exists())
        self.rename(*range(9))
        self.assertEqual(self.session(), 9)

    def test_same_process(self) -> None:
        """A server that goes on running sees it as well."""
        self.put(*range(12))
        store = self.store()
        self.session(store)
        self.session(store)
        self.rename(*range(12))
        self.refused(store)

    def test_lost_file(self) -> None:
        """The file of unique-ids is gone."""
        self.put(*range(12))
        fd = os.open(self.maildir, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        names = sorted(os.listdir(self.maildir / "new"))
        uidl_file.save(fd, uidl_file.Given({name: b"uid-%d" % at for at, name in enumerate(names)}))
        self.session()
        (self.maildir / uidl_file.FILE_NAME).unlink()
        self.refused()

    def test_copied(self) -> None:
        """Copies with other times, other line ends and other names are the same mail."""
        self.put(*range(12))
        self.session()
        for path in list((self.maildir / "new").iterdir()):
            copy = self.maildir / "cur" / f"18{path.name[2:10]}.M1P1.new:2,S"
            copy.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
            path.unlink()
        self.refused()

    def test_all_other_mail(self) -> None:
        """All mail was removed, and as much came that is new: of the same sizes, too."""
        self.put(*range(10, 30))
        self.session()
        shutil.rmtree(self.maildir / "new")
        (self.maildir / "new").mkdir()
        self.put(*range(30, 50))
        self.assertEqual(self.session(), 20)

    def test_grown(self) -> None:
        """It has grown since, and only what was there has other unique-ids: no flood."""
        self.put(*range(10))
        self.session()
        self.rename(*range(10))
        self.put(*range(10, 40))
        self.assertEqual(self.session(), 40)

    def test_shrunk(self) -> None:
        """What is left of a larger mailbox has other unique-ids: a flood all the same."""
        self.put(*range(40))
        self.session()
        for number in range(12, 40):
            (self.maildir / "new" / f"17000000{number:02}.M1P1.mail").unlink()
        self.rename(*range(12))
        self.refused()

    def test_large(self) -> None:
        """Of many messages some are enough, and the file stays small."""
        self.put(*range(900), name="17000000{:03}.M1P1.mail")
        self.session()
        self.assertLess(self.note.stat().st_size, 20_000)
        for path in list((self.maildir / "new").iterdir()):
            path.rename(path.with_name(path.name.replace("M1P1", "M2P2")))
        self.refused()

    def test_written_when_due(self) -> None:
        """The file is written when more than a fifth is past, not at each session that has new mail."""
        self.put(*range(10))
        self.session()
        written = self.note.stat().st_ino, self.note.stat().st_mtime_ns
        self.put(10)
        store = self.store()
        self.session(store, remove=[0])
        self.session(store)
        self.assertEqual((self.note.stat().st_ino, self.note.stat().st_mtime_ns), written)
        self.put(*range(11, 20))
        self.session(store)
        self.assertNotEqual((self.note.stat().st_ino, self.note.stat().st_mtime_ns), written)

    def test_laid_anew(self) -> None:
        """Somebody takes the mail away while it is open, and puts the same there again: other mail."""
        save = last_session.save
        for kept, written in ((7, True), (5, False)):
            self.note.unlink(missing_ok=True)
            self.put(*range(12))
            mailbox = self.opened(self.store().open("ann"))

            def taken(maildir: int, note: last_session.Note, kept: int = kept) -> None:
                save(maildir, note)
                for path in sorted((self.maildir / "new").iterdir())[kept:]:
                    path.unlink()

            self.patch(last_session, "save", taken)
            mailbox.release()
            self.patch(last_session, "save", save)
            self.assertEqual(self.note.exists(), written)
        self.put(*range(12), name="17000001{:02}.M1P1.mail")
        self.session()

    def test_accepted(self) -> None:
        """Who is told to may let it in; then it is looked after again."""
        self.put(*range(10))
        self.session()
        self.rename(*range(10))
        self.refused()
        self.assertTrue(AdoptingMaildirs(Maildirs(f"{self.root}/{{user}}")).accept("ann"))
        self.assertEqual(self.session(), 10)
        for path in list((self.maildir / "new").iterdir()):
            path.rename(path.with_name(path.name.replace("M2P2", "M3P3")))
        self.refused()

    def test_damaged(self) -> None:
        """A file that is no such file says nothing."""
        self.put(*range(10))
        self.session()
        self.note.write_bytes(self.note.read_bytes()[:-10])
        self.rename(*range(10))
        self.assertEqual(self.session(), 10)

    def test_looked_at_only(self) -> None:
        """Whoever looks at it without its lock is not kept out, and does not let it in for others."""
        self.put(*range(10))
        self.session()
        self.rename(*range(10))
        store = self.store()
        self.assertEqual(len(self.opened(store.view("ann")).entries), 10)
        self.refused(store)
