"""``pop3toy mailbox adopt`` and ``accept``, without another server."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import struct
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from twisted.trial.unittest import SkipTest

from pop3toy.cli.copying.users import Work, each_done
from pop3toy.cli.moving.sources import read_contents
from pop3toy.moving.matching import Known
from pop3toy.stores.copying.adopting import AdoptedMaildir, AdoptingMaildirs
from pop3toy.stores.maildir.beside import last_session, uidl_file
from pop3toy.stores.maildir.settings import Maildirs

from ..cli_world import CommandTests, Outcome
from ..corpus import make_maildir
from ..realserver import DEADLINE, RealServer, maildir_options


class AdoptCase(CommandTests):
    """A Maildir of three messages."""

    def setUp(self) -> None:
        super().setUp()
        self.maildir = make_maildir(self.root / "mail" / "ann")
        for at in (1, 2, 3):
            self.put(f"170000000{at}.M1P1.h", at)

    def put(self, name: str, number: int) -> None:
        """A message."""
        (self.maildir / "cur" / f"{name}:2,S").write_bytes(b"Subject: same\n\ntext %d\n" % number)

    def adopt(self, *words: str) -> Outcome:
        """Run it."""
        return self.run_command("mailbox", "adopt", "{M}", *words)

    def listed(self) -> list[str]:
        """Unique-ids in order."""
        said = self.run_command("mailbox", "list", "{M}", "ann").out
        return [line.split()[2] for line in said.splitlines() if line[:5].strip().isdigit()]

    def written(self) -> bool:
        """Whether anything was."""
        return (self.maildir / uidl_file.FILE_NAME).exists()


class DovecotTests(AdoptCase):
    """With a list of Dovecot's in the Maildir."""

    def list_of(self, *lines: str) -> None:
        """Write ``dovecot-uidlist``."""
        text = "3 V1700000000 N99\n" + "".join(f"{line}\n" for line in lines)
        (self.maildir / "dovecot-uidlist").write_text(text)

    def test_order(self) -> None:
        """Unique-ids and order are Dovecot's; mail that it does not know comes behind."""
        self.list_of("1 :1700000003.M1P1.h", "2 :1700000001.M1P1.h:2,S", "4 :gone")
        shown = self.adopt("ann", "--from", "dovecot", "--uidl-format", "%u")
        self.assertEqual((shown.status, self.written()), (os.EX_OK, False))
        for words in (
            "3 messages here",
            "3 that Dovecot lists",
            "2 by name",
            "not here: 4",
            "1700000002.M1P1.h",
            "--yes",
        ):
            self.assertIn(words, shown.out)
        self.assertEqual(
            self.adopt("ann", "--from", "dovecot", "--uidl-format", "%u", "--yes").status, os.EX_OK
        )
        self.assertEqual(self.listed(), ["1", "2", "1700000002.M1P1.h"])
        self.assertFalse(any(path.name.endswith(".lock") for path in self.maildir.iterdir()))
        again = self.adopt("--all", "--from", "dovecot", "--uidl-format", "%u", "--yes")
        self.assertIn("already", again.out)

    def test_new_mail_collides(self) -> None:
        """New mail never gets a unique-id that clients know, be the message gone or not."""
        self.put("7", 7)
        self.list_of("1 :1700000001.M1P1.h", "7 :gone")
        self.assertEqual(
            self.adopt("ann", "--from", "dovecot", "--uidl-format", "%u", "--yes").status, os.EX_OK
        )
        self.assertEqual(len(self.listed()), 4)
        self.assertNotIn("7", self.listed())

    def test_doubts(self) -> None:
        """On any doubt nothing is changed, and it is said why."""
        for lines, words in (
            (["1 Pa :1700000001.M1P1.h", "2 Pa :1700000002.M1P1.h"], "more than one message"),
            (["1 Pa :1700000001.M1P1.h", "2 PA :1700000002.M1P1.h"], "case alone"),
            ([f"1 P{'x' * 71} :1700000001.M1P1.h"], "no unique-id"),
            (["1 :other"], "the right place"),
            (["1 nonsense"], "line 2 is not understood"),
        ):
            self.list_of(*lines)
            done = self.adopt("ann", "--from", "dovecot", "--yes")
            self.assertEqual((done.status, self.written()), (os.EX_DATAERR, False), lines)
            self.assertIn(words, done.err)
            self.assertIn("nothing was changed", done.err)

    def test_another_was_last(self) -> None:
        """A list that Courier has left behind later is a doubt; whoever knows better can say so."""
        self.list_of("1 :1700000001.M1P1.h")
        (self.maildir / "courierpop3dsizelist").write_text("/2 4 17\n1700000001.M1P1.h 44 1:17\n")
        os.utime(self.maildir / "dovecot-uidlist", (1, 1))
        done = self.adopt("ann", "--from", "dovecot", "--yes")
        self.assertEqual((done.status, self.written()), (os.EX_DATAERR, False))
        self.assertIn("--from courier", done.err)
        self.assertEqual(self.adopt("ann", "--from", "courier").status, os.EX_OK)
        (self.maildir / "dovecot-uidlist").touch()
        self.assertEqual(self.adopt("ann", "--from", "dovecot").status, os.EX_OK)
        done = self.adopt("ann", "--from", "courier")
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertIn("--from dovecot", done.err)

    def test_skip_doubtful(self) -> None:
        """Messages whose unique-ids are none, or another's, can be left out: all others keep theirs."""
        self.list_of(
            "1 Pa :1700000001.M1P1.h", "2 Pa :1700000002.M1P1.h", f"3 P{'x' * 71} :1700000003.M1P1.h"
        )
        refused = self.adopt("ann", "--from", "dovecot", "--yes")
        self.assertEqual(refused.status, os.EX_DATAERR)
        self.assertIn("--skip-doubtful", refused.err)
        done = self.adopt("ann", "--from", "dovecot", "--yes", "--skip-doubtful")
        self.assertEqual(done.status, os.EX_OK, done)
        self.assertEqual(done.out.count("left out: "), 2)
        self.assertEqual(self.listed(), ["a", "1700000002.M1P1.h", "1700000003.M1P1.h"])

    def test_in_use(self) -> None:
        """A session, or Dovecot, is not disturbed; a lock that Dovecot has left is no hindrance."""
        self.list_of("1 :1700000001.M1P1.h")
        fd = os.open(self.maildir, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        self.assertEqual(self.adopt("ann", "--from", "dovecot", "--yes").status, os.EX_TEMPFAIL)
        self.assertEqual(self.adopt("ann", "--from", "dovecot").status, os.EX_OK)
        os.close(fd)
        for name in ("dovecot-uidlist.lock", "dovecot-pop3-session.lock"):
            lock = self.maildir / name
            lock.touch()
            done = self.adopt("ann", "--from", "dovecot", "--yes")
            self.assertEqual(done.status, os.EX_TEMPFAIL)
            self.assertIn(name, done.err)
            os.utime(lock, (0, 0))
            self.assertEqual(self.adopt("ann", "--from", "dovecot", "--yes").status, os.EX_OK)
            self.assertFalse(lock.exists())

    def test_kept(self) -> None:
        """What other messages were given before stays theirs."""
        fd = os.open(self.maildir, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        uidl_file.save(fd, uidl_file.Given({"1700000003.M1P1.h": b"three"}))
        self.list_of("1 :1700000001.M1P1.h")
        self.adopt("ann", "--from", "dovecot", "--uidl-format", "%u", "--yes")
        self.assertEqual(self.listed(), ["1", "three", "1700000002.M1P1.h"])

    def test_last_session(self) -> None:
        """It is no reason to refuse the mailbox that they are others than in the last session."""
        (self.maildir / last_session.FILE_NAME).write_text("x")
        self.list_of("1 :1700000001.M1P1.h")
        self.adopt("ann", "--from", "dovecot", "--yes")
        self.assertFalse((self.maildir / last_session.FILE_NAME).exists())

    def test_link(self) -> None:
        """A list that leads elsewhere is not read."""
        (self.root / "elsewhere").write_text("3 V1 N1\n")
        (self.maildir / "dovecot-uidlist").symlink_to(self.root / "elsewhere")
        self.assertEqual(self.adopt("ann", "--from", "dovecot", "--yes").status, os.EX_TEMPFAIL)


class SourceTests(AdoptCase):
    """Files of another server in folders of users, who can put anything there, read by root."""

    UIDS = "3 V1700000000 N99\n1 Psecret :1700000001.M1P1.h\n"

    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root reads what others cannot")
        super().setUp()
        self.home = self.root / "home" / "ann"
        self.home.mkdir(parents=True)
        self.secret = self.root / "home" / "bob" / "control"
        self.secret.mkdir(parents=True)
        (self.secret / "dovecot-uidlist").write_text(self.UIDS)

    def give(self, path: Path, owner: int) -> None:
        os.chown(path, owner, owner, follow_symlinks=False)

    def adopted(self) -> Outcome:
        """Adopt from ann's folder."""
        source = f"{self.root}/home/{{user}}/control"
        return self.adopt("ann", "--from", "dovecot", "--yes", "--source", source)

    def test_of_another(self) -> None:
        """No user gets another's unique-ids by a link to the folder or in it, or by a second name."""
        control = self.home / "control"
        for at in range(4):
            for path in (self.home, self.maildir):
                self.give(path, 4711)
            for path in (self.secret, self.secret / "dovecot-uidlist"):
                self.give(path, 4712)
            links = [control]
            if at == 0:
                control.symlink_to(self.secret)
            elif at == 1:
                control.mkdir()
                (control / ".INBOX").symlink_to(self.secret)
                links.append(control / ".INBOX")
            elif at == 2:
                control.mkdir()
                (control / "dovecot-uidlist").symlink_to(self.secret / "dovecot-uidlist")
            else:
                control.mkdir()
                (control / "dovecot-uidlist").hardlink_to(self.secret / "dovecot-uidlist")
            for link in links:
                self.give(link, 4711)
            done = self.adopted()
            self.assertEqual((done.status, self.written()), (os.EX_TEMPFAIL, False), (at, done))
            self.assertIn("nothing was changed", done.err)
            control.unlink() if control.is_symlink() else shutil.rmtree(control)

    def test_of_their_own(self) -> None:
        """A link of the administrator's is followed, and a user's to what is that user's."""
        for owner, link_owner in ((4712, 0), (4711, 4711)):
            for path in (self.secret, self.secret / "dovecot-uidlist"):
                self.give(path, owner)
            (self.home / "control").symlink_to(self.secret)
            self.give(self.home / "control", link_owner)
            self.assertEqual(self.adopted().status, os.EX_OK)
            self.assertIn("secret", self.listed())
            (self.home / "control").unlink()


class BugTests(AdoptCase):
    """What nobody has thought of."""

    def test_one_user(self) -> None:
        """It is that user's failure in the report; the others' mail is adopted; the exit status says so."""
        shutil.rmtree(self.maildir)
        for user in ("ann", "bob", "cat"):
            folder = make_maildir(self.root / "mail" / user)
            (folder / "cur" / "1700000001.M1P1.h:2,S").write_bytes(b"a: b\n\n")
            (folder / "dovecot-uidlist").write_text("3 V1 N9\n1 Pold :1700000001.M1P1.h\n")
        real = AdoptingMaildirs.maildir

        def maildir(
            self: AdoptingMaildirs, user: str, *, lock: bool
        ) -> AbstractContextManager[AdoptedMaildir]:
            if user == "bob":
                raise ZeroDivisionError("odd")
            return real(self, user, lock=lock)

        self.patch(AdoptingMaildirs, "maildir", maildir)
        done = self.adopt("--all", "--from", "dovecot", "--yes")
        self.assertEqual(done.status, os.EX_SOFTWARE, done)
        self.assertEqual(done.err, "bob: ZeroDivisionError: odd\n")
        for user in ("ann", "cat"):
            self.assertIn(f"{user}: ", done.out)
            self.assertTrue((self.root / "mail" / user / uidl_file.FILE_NAME).exists())


class KilledTests(AdoptCase):
    """Killed with nobody asked, and run again."""

    def killed(self, function: str, number: int, *words: str) -> bool:
        """Kill it at the call of a function of os that has this number; false if there are not so many."""
        before = (
            f"import os, signal\nreal, calls = os.{function}, []\n"
            "def fatal(*words, **named):\n"
            "    calls.append(1)\n"
            f"    if len(calls) == {number}: os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return real(*words, **named)\n"
            f"os.{function} = fatal\n"
        )
        done = self.run_process("mailbox", "adopt", "ann", *words, before=before)
        self.assertIn(done.returncode, (0, -signal.SIGKILL), done.stderr)
        return done.returncode != 0

    def test_at_any_point(self) -> None:
        """All is as it was, or as it is to be; the next run is kept out by nothing, and mends it."""
        lines = "".join(f"{at} :170000000{at}.M1P1.h\n" for at in (1, 2, 3))
        (self.maildir / "dovecot-uidlist").write_text(f"3 V1700000000 N9\n{lines}")
        words = ("--from", "dovecot", "--uidl-format", "%u", "--yes")
        before, after = [f"170000000{at}.M1P1.h" for at in (1, 2, 3)], ["1", "2", "3"]
        points = []
        for function in ("replace", "fsync", "unlink"):
            for number in range(1, 20):
                (self.maildir / uidl_file.FILE_NAME).unlink(missing_ok=True)
                (self.maildir / last_session.FILE_NAME).write_text("x")
                if not self.killed(function, number, *words):
                    break
                points.append(function)
                self.assertIn(self.listed(), (before, after), (function, number))
                self.assertEqual(self.adopt("ann", *words).status, os.EX_OK, (function, number))
                self.assertEqual(self.listed(), after)
                left = {path.name for path in self.maildir.iterdir()} - {"cur", "new", "tmp"}
                self.assertEqual(left, {"dovecot-uidlist", uidl_file.FILE_NAME}, (function, number))
        self.assertEqual(sorted(set(points)), ["fsync", "replace", "unlink"])


class AllTests(AdoptCase):
    """``--all``."""

    def test_several(self) -> None:
        """Users are told in their order; what fails for one is no matter for the others."""
        for name in ("bob", "cat", "dan"):
            maildir = make_maildir(self.root / "mail" / name)
            (maildir / "cur" / "1.M1P1.h:2,S").write_bytes(b"Subject: x\n\n")
        for name, text in (
            ("ann", "3 V1700000000 N9\n1 :1700000001.M1P1.h\n"),
            ("bob", "nonsense\n"),
            ("dan", "3 V17 N9\n5 :1.M1P1.h\n"),
        ):
            (self.root / "mail" / name / "dovecot-uidlist").write_text(text)
        done = self.adopt("--all", "--from", "dovecot", "--yes")
        self.assertEqual(done.status, os.EX_DATAERR, done)
        self.assertEqual([line[:4] for line in done.out.splitlines() if line[0] != " "], ["ann:", "dan:"])
        self.assertEqual([line[:4] for line in done.err.splitlines()], ["bob:", "cat:"])
        self.assertIn("0000000500000011 1.M1P1.h", (self.root / "mail/dan/pop3toy-uidl").read_text())

    def test_at_the_same_time(self) -> None:
        """So many users as threads are worked for at once, and no more."""
        together = threading.Barrier(3)

        def do(user: str) -> int:
            return together.wait(DEADLINE)

        with Work("Testing") as work:
            found = [(user, done.result()) for user, done in each_done(list("abcdef"), work, do, threads=3)]
        self.assertEqual(sorted(user for user, _ in found), list("abcdef"))
        self.assertEqual(sorted(place for _, place in found), [0, 0, 1, 1, 2, 2])


class ContentsTests(AdoptCase):
    """Where names say nothing: messages are recognised by what is in them."""

    def test_cyrus(self) -> None:
        """Files of a spool, in wire form."""
        spool = self.root / "spool" / "ann"
        spool.mkdir(parents=True)
        index = bytearray(128 + 3 * 96)
        struct.pack_into(">IIII", index, 8, 13, 128, 96, 3)
        struct.pack_into(">I", index, 44, 1_700_000_000)
        struct.pack_into(">I", index, 60, 1)
        for at, uid in enumerate((2, 9, 10)):
            struct.pack_into(">I", index, 128 + at * 96, uid)
        (spool / "cyrus.index").write_bytes(index)
        for uid, number in ((10, 1), (9, 3), (2, 99)):
            (spool / f"{uid}.").write_bytes(b"Subject: same\r\n\r\ntext %d\r\n" % number)
        done = self.adopt("ann", "--from", "cyrus", "--source", f"{self.root}/spool/{{user}}", "--yes")
        self.assertEqual(done.status, os.EX_OK, done)
        self.assertIn("2 by contents", done.out)
        self.assertEqual(self.listed(), ["1700000000.9", "1700000000.10", "1700000002.M1P1.h"])
        self.assertFalse((self.maildir / "pop3toy-adopting").exists())

    def test_other_store(self) -> None:
        """Another store of this server, whose files have other names."""
        other = make_maildir(self.root / "old" / "ann")
        for at in (3, 1):
            (other / "new" / f"old{at}").write_bytes(b"Subject: same\n\ntext %d\n" % at)
        done = self.adopt("ann", "--from", "pop3toy", "--source", f"{self.root}/old/{{user}}", "--yes")
        self.assertEqual(done.status, os.EX_OK, done)
        self.assertEqual(self.listed(), ["old1", "old3", "1700000002.M1P1.h"])

    def test_kept_meanwhile(self) -> None:
        """What was read over a long time is kept now and then: a run that is killed is not for nothing."""
        kept = []

        class There:
            what = address = "there"

            def listed(self) -> list[Known]:
                return []

            def contents(self, uid: bytes) -> tuple[int, str]:
                kept.append(len(maildir.read_before("there")))
                return int(uid), "0" * 64

        known = [Known(b"%d" % at) for at in range(1, 4)]
        words = (known, ["1700000001.M1P1.h"], lambda *numbers: None, lambda: False)
        with AdoptingMaildirs(Maildirs(self.pattern)).maildir("ann", lock=False) as maildir:
            read_contents(There(), maildir, *words, itertools.count(0, 8).__next__)
            self.assertEqual(kept, [0, 0, 2])
            theirs, _ = read_contents(There(), maildir, *words, itertools.count(0, 8).__next__)
            self.assertEqual((kept, len(theirs)), ([0, 0, 2], 3))

    def test_wrong_store_first(self) -> None:
        """What was read of one store is not taken for what another has under the same unique-id."""
        for root, number in (("wrong", 1), ("right", 3)):
            other = make_maildir(self.root / root / "ann")
            (other / "new" / "old").write_bytes(b"Subject: same\n\ntext %d\n" % number)
            done = self.adopt("ann", "--from", "pop3toy", "--source", f"{self.root}/{root}/{{user}}")
            self.assertIn("1 by contents", done.out)
        self.adopt("ann", "--from", "pop3toy", "--source", f"{self.root}/right/{{user}}", "--yes")
        self.assertEqual(self.listed(), ["old", "1700000001.M1P1.h", "1700000002.M1P1.h"])

    def test_by_pop3(self) -> None:
        """Any server by POP3; what was read is not read again, and nothing is removed there."""
        other = make_maildir(self.root / "old" / "ann")
        for at in (3, 1):
            (other / "new" / f"old{at}").write_bytes(b"Subject: same\n\ntext %d\n" % at)
        server = RealServer(*maildir_options(self.root / "old"))
        self.addCleanup(server.terminate)
        password = self.root / "password"
        password.write_text("secret\n")
        words = (
            "ann",
            "--from",
            f"pop3://127.0.0.1:{server.port}",
            "--insecure",
            "--password-file",
            str(password),
        )
        shown = self.adopt(*words)
        self.assertEqual(shown.status, os.EX_OK, shown)
        self.assertIn("2 by contents", shown.out)
        # As another run finds it that was interrupted behind the last message.
        for path in list((other / "new").iterdir()):
            path.write_bytes(b"not read again")
        done = self.adopt(*words, "--yes")
        self.assertEqual(done.status, os.EX_OK, done)
        self.assertEqual(self.listed(), ["old1", "old3", "1700000002.M1P1.h"])
        self.assertEqual(len(list((other / "new").iterdir())), 2)


class UsageTests(AdoptCase):
    """Mistakes on the command line, each in a sentence."""

    def test_mistakes(self) -> None:
        """Nothing is done."""
        for words in (
            ("--from", "dovecot"),
            ("ann",),
            ("ann", "--all", "--from", "dovecot"),
            ("ann", "--from", "exchange"),
            ("ann", "--from", "exchange", "--source", "x"),
            ("ann", "--from", "dovecot", "--uidl-format", "%z"),
            ("ann", "--from", "courier", "--uidl-format", "%u"),
            ("ann", "--from", "cyrus"),
            ("ann", "--from", "pop3toy"),
            ("ann", "--from", "pop3toy", "--source", "nowhere"),
            ("ann", "--from", "pop3://ann:secret@host"),
        ):
            self.assertEqual(self.adopt(*words).status, os.EX_USAGE, words)

    def test_from(self) -> None:
        """A server that is not known is named, with what there is, and what may be meant."""
        for word in ("dovecott", "curier", "Dovecott"):
            done = self.adopt("ann", "--from", word, "--uidl-format", "%u")
            self.assertIn(word.lower(), done.err)
            self.assertRegex(done.err, "none of dovecot, .*; is it (dovecot|courier)\\?")
        self.assertEqual(self.adopt("ann", "--from", "Dovecot").status, os.EX_NOUSER)

    def test_no_mailbox(self) -> None:
        """A user who has none."""
        self.assertEqual(self.adopt("bob", "--from", "dovecot").status, os.EX_NOUSER)

    def test_accept(self) -> None:
        """What the last session was is forgotten."""
        self.assertIn("Nothing is known", self.run_command("mailbox", "accept", "{M}", "ann").out)
        fd = os.open(self.maildir, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        last_session.save(fd, last_session.Note(1, {b"a": (1, b"0" * 32)}))
        self.assertIn("let in", self.run_command("mailbox", "accept", "{M}", "ann").out)
        self.assertFalse(Path(self.maildir, last_session.FILE_NAME).exists())
        self.assertEqual(self.run_command("mailbox", "accept", "{M}", "bob").status, os.EX_NOUSER)
