"""``pop3toy mailbox``: what is in mailboxes, what comes in from files, what goes out to files."""

from __future__ import annotations

import errno
import fcntl
import mailbox
import os
import pty
import re
import shutil
import tempfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.cli.formats import open_source
from pop3toy.cli.mbox import Mbox, write_mbox
from pop3toy.stores.maildir.check import check_maildir
from tests.cli_world import MESSAGE, CliRunner, CommandTests, Outcome, pop3toy


class MailboxTests(CommandTests):
    """``pop3toy mailbox``."""

    def test_list(self) -> None:
        """Messages are listed with number, octets, uid, sender and subject; mailboxes with their sums."""
        self.deliver()
        self.deliver(b"Subject: \x1b[31mred\n\nx\n")
        listed = self.run_command("mailbox", "list", "{M}", "ann").out.splitlines()
        self.assertEqual(listed[0].split(), ["1", str(len(MESSAGE) + 5), self.files()[0].name])
        self.assertEqual(listed[1].strip(), "Eve <eve@example.org>: grüße")
        self.assertEqual(listed[3].strip(), ": ?[31mred")
        # What is no user's, although it lies there.
        for name in (b"\xffd", b"a\nb"):
            os.makedirs(os.fsencode(self.root) + b"/mail/" + name + b"/cur")
        (self.root / "mail" / "aaa" / "cur").mkdir(parents=True)
        done = self.run_command("mailbox", "list", "{M}")
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertIn("\\xffd has no mailbox", done.err)
        self.assertIn("a\\nb has no mailbox", done.err)
        self.assertRegex(done.err, "aaa: .*half-made")
        everybody = done.out.split()
        self.assertEqual(everybody[:3], ["ann", "2", "messages"])
        self.assertEqual(self.run_command("mailbox", "list", "{M}", "nobody").status, os.EX_NOUSER)

    def test_how_full(self) -> None:
        """With the accounts, mailboxes are listed with how much of its quota each uses."""
        for user in ("ann", "bob", "cat", "dan", "eve"):
            self.deliver(b"x" * 150, user)
        self.accounts.write_text(
            "ann:{PLAIN}x:quota=1K\nbob:{PLAIN}x:quota=0\ncat:{PLAIN}x:quota=none\ndan:{PLAIN}x:quota=lots\n"
        )
        done = self.run_command("mailbox", "list", "{M}", "{A}")
        self.assertEqual(done.status, 0, done.err)
        self.assertEqual([line.split(" octets")[1] for line in done.out.splitlines()], [
            ", 14% of 1K used", ", 100% of 0 used", "",
            ", 'lots' is no quota; say for example 500M, 2G or none", "",
        ])  # fmt: skip
        for user, last in (("ann", "1 message, 14% of 1K used"), ("eve", " " * 16 + " : ")):
            one = self.run_command("mailbox", "list", "{M}", "{A}", user)
            self.assertEqual(one.out.splitlines()[-1], last)
        self.assertNotIn("%", self.run_command("mailbox", "list", "{M}").out)

    def test_names_in_another_case(self) -> None:
        """Whose mailbox is meant is found as at login where the accounts are known; a mailbox goes first."""
        config, box = self.root / "options.toml", self.root / "box"
        config.write_text(f'[store]\nmaildir = "{self.pattern}"\n[accounts]\naccounts = "{self.accounts}"\n')
        self.accounts.write_text("Bob:{PLAIN}x\nann:{PLAIN}x\nAnn:{PLAIN}x\n")
        self.deliver(MESSAGE, "Bob")
        eml = str(self.files("Bob")[0])
        for words in (
            ("list", "bob"), ("show", "BOB", "1"), ("check", "bob"), ("export", "bob", str(box)),
            ("import", "bOB", eml), ("import", "--create", "bOB", eml), ("remove", "--yes", "bob"),
        ):  # fmt: skip
            done = self.run_command("mailbox", words[0], f"--config={config}", *words[1:])
            self.assertEqual(done.status, 0, (words, done.err))
        self.assertEqual(self.root.joinpath("mail", "Bob").exists(), False)
        self.assertEqual(
            self.run_command("mailbox", "list", f"--config={config}", "ANN").status, os.EX_NOUSER
        )
        for user in ("Bob", "bob"):
            self.deliver(MESSAGE, user)
        self.run_command("mailbox", "remove", f"--config={config}", "--yes", "bob")
        self.assertEqual([path.name for path in self.root.joinpath("mail").iterdir()], ["Bob"])

    def test_no_folder(self) -> None:
        """Where there is no folder for Maildirs every command says so, as a mistake on the command line."""
        (self.root / "a.eml").write_bytes(b"a: b\n\n")
        for command, *more in (
            ("list",), ("show", "ann", "1"), ("check",), ("export", "ann", "-"), ("remove", "-y", "ann"),
            ("import", "ann", f"{self.root}/a.eml"),
        ):  # fmt: skip
            done = self.run_command("mailbox", command, f"--maildir={self.root}/missing/{{user}}", *more)
            self.assertEqual(done.status, os.EX_USAGE, command)
            self.assertIn(f"there is no folder {self.root}/missing", done.err)

    def test_descriptors(self) -> None:
        """No command leaves a file or folder open, whether it succeeds or not."""
        self.deliver()
        self.deliver(b"x", "bob")
        shutil.rmtree(self.root / "mail" / "bob" / "new")
        self.accounts.write_text("ann:{PLAIN}x\n")
        (self.root / "f.eml").write_bytes(b"a: b\n\n")
        os.mkfifo(self.root / "mail" / "ann" / "new" / "fifo")
        commands = (
            ("mailbox", "list", "{M}"), ("mailbox", "show", "{M}", "ann", "1"), ("mailbox", "check", "{M}"),
            ("mailbox", "export", "{M}", "ann", "-"), ("mailbox", "list", "{M}", "bob"),
            ("mailbox", "import", "{M}", "ann", str(self.root / "f.eml"), str(self.root / "mail" / "ann")),
            ("mailbox", "import", "{M}", "ann", str(self.root / "mail" / "ann" / "new" / "fifo")),
            ("user", "passwd", "{A}", "--stdin", "--scheme=PLAIN", "ann"),
            ("user", "quota", "{A}", "ann", "1M"),
            ("deliver", "{M}", "ann"), ("mailbox", "remove", "{M}", "-y", "zoe"),
            ("deliver", "{M}", "-c", "zoe"), ("mailbox", "remove", "{M}", "-y", "zoe"),
        )  # fmt: skip
        for _ in range(2):
            # What is loaded, or opened once for all, is so from the first time on.
            before = len(os.listdir("/proc/self/fd"))
            for command in commands:
                self.run_command(*command, stdin=b"x\n")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_show(self) -> None:
        """A message is shown by number and by unique-id, whole or its header."""
        self.deliver()
        for wanted in ("1", self.files()[0].name):
            self.assertEqual(self.run_command("mailbox", "show", "{M}", "ann", wanted).out, MESSAGE.decode())
        header = self.run_command("mailbox", "show", "{M}", "-H", "ann", "1").out
        self.assertTrue(header.endswith("Message-ID: <1@x>\n"))
        self.assertEqual(self.run_command("mailbox", "show", "{M}", "ann", "2").status, os.EX_USAGE)

    def test_show_on_a_terminal(self) -> None:
        """On a terminal what could steer it is shown escaped; line ends and tabs are as they were."""
        self.deliver("Subject: \x1b[31mré\x07d\x9b\n\n\tx\ry\n".encode() + b"\xff\n")
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        done = self.run_process("mailbox", "show", "ann", "1", variables={"PYTHONUTF8": "1"}, stdout=slave)
        os.close(slave)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        shown = os.read(master, 4096).decode().replace("\r\n", "\n")
        self.assertEqual(shown, "Subject: \\x1b[31mré\\x07d\\x9b\n\n\tx\\ry\n\\xff\n")

    def sources(self) -> list[Path]:
        """The same two messages as mbox, Maildir, MH, eml folder and eml files."""
        messages = []
        for subject in ("one", "two"):
            message = EmailMessage()
            message["From"], message["Subject"] = "eve@example.org", subject
            message.set_content("From here on\n>From there\n")
            messages.append(message)
        boxes: list[mailbox.Mailbox[mailbox.Message]] = [
            mailbox.mbox(self.root / "box.mbox"),
            mailbox.Maildir(self.root / "md"),
            mailbox.MH(self.root / "mh"),
        ]
        for box in boxes:
            for message in messages:
                box.add(message)
            box.close()
        (self.root / "eml").mkdir()
        for number, message in enumerate(messages):
            (self.root / "eml" / f"{number}.eml").write_bytes(message.as_bytes())
        single = self.root / "single"
        single.write_bytes(messages[0].as_bytes())
        return [self.root / name for name in ("box.mbox", "md", "mh", "eml", "single")]

    def test_import(self) -> None:
        """Every format is found out and read, in its order; what is known is left out if so asked."""
        *folders, single = self.sources()
        for number, source in enumerate(folders):
            user = f"user{number}"
            done = self.import_(user, source)
            self.assertEqual((done.status, done.out), (0, "2 imported, 0 not readable\n"), done.err)
            subjects = [
                line for file in self.files(user) for line in file.read_text().splitlines() if "Subj" in line
            ]
            if source.name != "md":
                # A Maildir of the same second has no order.
                self.assertEqual(subjects, ["Subject: one", "Subject: two"])
            again = self.run_command("mailbox", "import", "{M}", "-s", user, str(source), str(single))
            if source.name != "box.mbox":
                self.assertEqual(again.out, "0 imported, 3 known already, 0 not readable\n")

    def test_import_mistakes(self) -> None:
        """What holds no mail is refused before anything is imported, and so is a user without a mailbox."""
        self.deliver()
        (self.root / "empty").mkdir()
        (self.root / "text").write_text("no mail here\n")
        for source in ("empty", "text", "missing"):
            done = self.run_command("mailbox", "import", "{M}", "ann", str(self.root / source))
            self.assertEqual(done.status, os.EX_USAGE)
        eml = str(self.files()[0])
        self.assertEqual(self.run_command("mailbox", "import", "{M}", "nobody", eml).status, os.EX_NOUSER)
        self.assertEqual(len(self.files()), 1)

    def test_import_odd_sources(self) -> None:
        """An empty mbox, a mark before the first header and capital letters keep nothing from coming in."""
        folder = self.root / "letters"
        folder.mkdir()
        (self.root / "empty").touch()
        (folder / "a.eml").write_bytes(b"\xef\xbb\xbfSubject: one\n\nx\n")
        (folder / "B.EML").write_bytes(b"Subject: two\n\nx\n")
        (folder / "dir.eml").mkdir()
        bom = self.root / "bom.mbox"
        bom.write_bytes(b"\xef\xbb\xbfFrom a@b Mon Jan  1 00:00:00 2024\nSubject: three\n\nx\n")
        single = self.root / "single.eml"
        single.write_bytes(b"\xef\xbb\xbfSubject: four\n\nx\n")
        sources = [str(self.root / "empty"), str(folder), str(bom), str(single)]
        done = self.import_("ann", *sources)
        self.assertEqual(done.status, 0, done.err)
        self.assertEqual(done.out, "4 imported, 0 not readable\n")
        self.assertIn("left out, name them: dir.eml", done.err)
        texts = [b"Subject: %b\n\nx\n" % word for word in (b"two", b"one", b"three", b"four")]
        self.assertEqual([file.read_bytes() for file in self.files()], texts)

    def test_import_sub_folders(self) -> None:
        """The folders within a Maildir are not imported with it, and that is said."""
        box = mailbox.Maildir(self.root / "md")
        box.add(b"Subject: in\n\n")
        box.add_folder("Sent").add(b"Subject: out\n\n")
        done = self.import_("ann", self.root / "md")
        self.assertIn("left out, name them: Sent", done.err)
        self.assertEqual(len(self.files()), 1)
        self.run_command("mailbox", "import", "{M}", "ann", str(self.root / "md" / ".Sent"))
        self.assertEqual(len(self.files()), 2)

    def test_import_as_mbox(self) -> None:
        """What is called an mbox and begins like none is refused: its beginning would be lost."""
        path = self.root / "letter"
        path.write_bytes(b"Subject: x\n\nFrom a@b Mon Jan  1 00:00:00 2024\ny: z\n")
        done = self.import_("ann", "-F", "mbox", path)
        self.assertEqual(done.status, os.EX_USAGE)

    def test_round_trip(self) -> None:
        """What is exported and imported again is the same, in both formats."""
        messages = [MESSAGE, MESSAGE + b"From here\n>From there\n>>From\n\n", b"Subject: no end\n\nx"]
        for message in messages:
            self.deliver(message)
        for kind in ("mbox", "eml"):
            destination = str(self.root / kind)
            done = self.run_command("mailbox", "export", "{M}", "-F", kind, "ann", destination)
            self.assertEqual(done.status, 0, done.err)
            self.assertEqual(
                self.run_command("mailbox", "export", "{M}", "-F", kind, "ann", destination).status,
                os.EX_IOERR,
            )
            self.import_(kind, destination)
            again = [file.read_bytes() for file in self.files(kind)]
            if kind == "mbox":
                messages[2] += b"\n"
            else:
                messages[2] = messages[2].rstrip(b"\n")
            self.assertEqual(again, messages)

    def test_export_is_private(self) -> None:
        """What is exported is for who exported it."""
        self.deliver()
        for kind, name, file in (("mbox", "box", "box"), ("eml", "folder", "folder/000001.eml")):
            self.run_command("mailbox", "export", "{M}", "-F", kind, "ann", str(self.root / name))
            self.assertEqual((self.root / file).stat().st_mode & 0o777, 0o600)
        self.assertEqual((self.root / "folder").stat().st_mode & 0o777, 0o700)

    def test_export_while_somebody_fetches(self) -> None:
        """What is removed meanwhile is left out and counted, what is marked as read is not."""
        for number in range(4):
            self.deliver(b"Subject: %d\n\n" % number)
        gone, _, read, late = self.files()
        opened = os.open

        def open_(path: Any, *args: Any, **options: Any) -> int:
            if path == gone.name:
                self.patch(os, "open", opened)
                gone.unlink()
                late.unlink()
                read.rename(self.root / "mail" / "ann" / "cur" / f"{read.name}:2,S")
            return opened(path, *args, **options)

        self.patch(os, "open", open_)
        done = self.run_command("mailbox", "export", "{M}", "ann", str(self.root / "box"))
        self.assertEqual(done.status, 0, done.err)
        self.assertIn("2 exported, 2 were removed meanwhile", done.err)
        subjects = [line for line in (self.root / "box").read_text().splitlines() if "Subject" in line]
        self.assertEqual(subjects, ["Subject: 1", "Subject: 2"])

    def test_export_to_a_full_disk(self) -> None:
        """An export that fails leaves nothing, so that it can be tried again."""
        self.deliver()

        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        for kind, function in (("mbox", "fsync"), ("eml", "rename")):
            real = getattr(os, function)
            self.patch(os, function, full)
            command = ("mailbox", "export", "{M}", "-F", kind, "ann", str(self.root / kind))
            before = sorted(self.root.iterdir())
            self.assertEqual(self.run_command(*command).status, os.EX_IOERR)
            self.assertEqual(sorted(self.root.iterdir()), before)
            self.patch(os, function, real)
            self.assertEqual(self.run_command(*command).status, 0)

    def test_export_is_told_by_its_name(self) -> None:
        """Where it cannot be written is told by what was typed, and what was there meanwhile stays."""
        self.deliver()
        for kind in ("mbox", "eml"):
            missing = self.root / "missing" / "box"
            done = self.run_command("mailbox", "export", "{M}", "-F", kind, "ann", str(missing))
            self.assertEqual((done.status, done.out), (os.EX_NOINPUT, ""))
            self.assertTrue(done.err.endswith(f"Error: {missing}: No such file or directory\n"), done.err)

    def test_export_to_a_folder_of_others(self) -> None:
        """Whoever owns the folder above cannot have messages written elsewhere by a link in its place."""
        self.deliver()
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        real = tempfile.mkdtemp

        def mkdtemp(*words: Any, **named: Any) -> str:
            made = real(*words, **named)
            os.rmdir(made)
            os.symlink(elsewhere, made)
            return made

        self.patch(tempfile, "mkdtemp", mkdtemp)
        done = self.run_command("mailbox", "export", "{M}", "-F", "eml", "ann", str(self.root / "eml"))
        self.assertNotEqual(done.status, 0)
        self.assertEqual(os.listdir(elsewhere), [])

    def test_export_to_stdout(self) -> None:
        """An mbox can go to standard output, as a stream for other programs."""
        self.deliver()
        out = self.run_command("mailbox", "export", "{M}", "ann", "-").out
        self.assertTrue(out.startswith("From eve@example.org "))
        self.assertTrue(out.endswith(MESSAGE.decode() + "\n"))

    @given(st.lists(st.text("From >\nx:", max_size=30).map(str.encode), max_size=5))
    def test_mbox_round_trip(self, bodies: list[bytes]) -> None:
        """Whatever lines a message has, an mbox gives them back."""
        messages = [b"Subject: x\n\n" + body + b"\n" for body in bodies]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "box"
            with path.open("wb") as file:
                for message in messages:
                    write_mbox(file, message, 0.0)
            self.assertEqual([data for _, data in open_source(path, "mbox").messages()], messages)

    def test_check(self) -> None:
        """Wrong sizes, doubles, what is no file and missing folders are found; nothing is changed."""
        self.deliver()
        self.assertEqual(self.run_command("mailbox", "check", "{M}").status, 0)
        maildir = self.root / "mail" / "ann"
        name = self.files()[0].name
        (maildir / "cur" / "1.double,S=3,W=4:2,S").write_bytes(MESSAGE)
        (maildir / "cur" / f"{name}:2,").write_bytes(b"x: y\n\n")
        (maildir / "cur" / "2.dir").mkdir()
        (maildir / "cur" / "3.link").symlink_to("/etc/passwd")
        stale = maildir / "tmp" / "4.stale"
        stale.touch()
        os.utime(stale, (0, 0))
        before = sorted(map(str, maildir.rglob("*")))
        done = self.run_command("mailbox", "check", "{M}", "ann")
        self.assertEqual(done.status, os.EX_DATAERR)
        for words in (
            "its name says 3 octets on the disk", "its name says 4 octets in POP3", "the same message as",
            "the other takes its unique-id", "2.dir: not a file", "3.link: not a file",
            "4.stale: left there",
        ):  # fmt: skip
            self.assertIn(words, done.out)
        self.assertEqual(sorted(map(str, maildir.rglob("*"))), before)
        (maildir / "cur" / "5.plain").write_bytes(b"Subject: x\n\nwithout an ident\n")
        (maildir / "cur" / "6.plain").write_bytes(b"Subject: x\n\nwithout an ident\n")
        (maildir / "cur" / "7.plain").write_bytes(b"Subject: y\n\nwithout an ident\n")
        odd = os.fsencode(maildir) + b"/cur/8.\xff\x1b[31m\nx,S=1"
        with open(odd, "wb") as file:
            file.write(b"xx")
        done = self.run_command("mailbox", "check", "{M}", "ann")
        self.assertIn("ann: cur/6.plain: the same message as cur/5.plain\n", done.out)
        self.assertNotIn("7.plain", done.out)
        self.assertIn("ann: cur/8.\\xff\\x1b[31m\\nx,S=1: its name says 1 octets on the disk", done.out)
        shutil.rmtree(maildir / "new")
        self.assertIn(
            "new/: half-made Maildir: it has no folder new/", "".join(self.check(maildir, read=False))
        )
        (maildir / "new").symlink_to(maildir / "cur")
        self.assertIn("links are not followed", "".join(self.check(maildir, read=False)))

    def check(self, maildir: Path, *, read: bool = True) -> list[str]:
        """What is found wrong in a Maildir."""
        fd = os.open(maildir, os.O_RDONLY)
        try:
            return list(check_maildir(fd, read=read, now=0.0))
        finally:
            os.close(fd)

    def test_check_while_mail_is_fetched(self) -> None:
        """A message that vanishes while the others are looked at is no problem, at whatever moment."""
        self.deliver()
        maildir = self.root / "mail" / "ann"
        for function in ("stat", "open"):
            gone = maildir / "cur" / "1.gone,S=9"
            gone.write_bytes(MESSAGE)
            real = getattr(os, function)

            def vanishing(path: Any, *args: Any, real: Any = real, gone: Path = gone, **options: Any) -> Any:
                if path == gone.name:
                    gone.unlink()
                return real(path, *args, **options)

            self.patch(os, function, vanishing)
            found = self.check(maildir)
            self.patch(os, function, real)
            self.assertFalse(gone.exists())
            # Its size was looked at before it was opened.
            self.assertEqual([f for f in found if "on the disk" not in f], [], function)

    def test_check_of_nobody(self) -> None:
        """A user without a mailbox is no problem of a mailbox, and has a status of its own."""
        self.deliver()
        done = self.run_command("mailbox", "check", "{M}", "ann", "nobody")
        self.assertEqual(done.status, os.EX_NOUSER)
        self.assertIn("nobody has no mailbox here", done.err)

    def test_check_goes_on(self) -> None:
        """A folder that is no user's is told, and those behind it are checked."""
        os.makedirs(os.fsencode(self.root) + b"/mail/\xc3d/cur")
        (self.root / "mail" / "zed").mkdir()
        (self.root / "mail" / "zed" / "cur").symlink_to("/tmp")
        (self.root / "mail" / "zoe" / "cur").mkdir(parents=True)
        done = self.run_command("mailbox", "check", "{M}")
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertIn("\\xc3d: a user name that cannot", done.out)
        self.assertIn("zoe: new/: half-made", done.out)
        self.assertIn(
            "zed: cur/: cur in a Maildir is not a folder of its own (links are not followed)", done.out
        )

    def test_links_in_a_maildir(self) -> None:
        """Whatever reads a Maildir or writes to it refuses one whose folder is a link, and says which."""
        self.deliver()
        elsewhere = self.root / "elsewhere"
        mbox = self.root / "mbox"
        self.assertEqual(self.run_command("mailbox", "export", "{M}", "ann", str(mbox)).status, 0)
        for folder in ("new", "cur", "tmp"):
            path = self.root / "mail" / "ann" / folder
            path.rename(elsewhere)
            path.symlink_to(elsewhere)
            before = sorted(elsewhere.iterdir())
            for words, status in (
                (("deliver", "{M}", "ann"), os.EX_TEMPFAIL),
                (("mailbox", "import", "{M}", "ann", str(mbox)), None),
                (("mailbox", "export", "{M}", "ann", "-"), None),
                (("mailbox", "list", "{M}", "ann"), None),
                (("mailbox", "show", "{M}", "ann", "1"), None),
                (("mailbox", "check", "{M}", "ann"), os.EX_DATAERR),
            ):
                done = self.run_command(*words, stdin=MESSAGE)
                self.assertNotEqual(done.status, 0, words)
                if status is not None:
                    self.assertEqual(done.status, status, words)
                refusal = f"{folder} in a Maildir is not a folder of its own (links are not followed)"
                self.assertIn(refusal, done.out + done.err, words)
                self.assertNotIn("hello", done.out)
            self.assertEqual(sorted(elsewhere.iterdir()), before)
            path.unlink()
            elsewhere.rename(path)

    def test_message_exchanged_for_a_link(self) -> None:
        """A message that its owner exchanges for a link while all are exported is none of what is written."""
        self.deliver()
        (file,) = self.files()
        secret = self.root / "secret"
        secret.write_bytes(b"secret")
        real = os.open

        def exchanged(path: Any, *args: Any, **options: Any) -> int:
            if path == file.name and not file.is_symlink():
                file.unlink()
                file.symlink_to(secret)
            return real(path, *args, **options)

        for words in (("export", "{M}", "ann", "-"), ("show", "{M}", "ann", "1"), ("list", "{M}", "ann")):
            file.unlink()
            file.write_bytes(MESSAGE)
            self.patch(os, "open", exchanged)
            done = self.run_command("mailbox", *words)
            self.patch(os, "open", real)
            self.assertTrue(file.is_symlink(), words)
            self.assertNotIn("secret", done.out)

    def test_remove(self) -> None:
        """A mailbox goes when that is confirmed, or without a question; others stay, and the account."""
        self.accounts.write_text("ann:{PLAIN}x\n")
        for user in ("ann", "bob"):
            self.deliver(MESSAGE, user)
        runner = CliRunner()
        command = ["mailbox", "remove", "-m", self.pattern, "ann"]
        asked = runner.invoke(pop3toy, command, input="n\n")
        self.assertIn(f"Remove the mailbox of ann, with 1 message ({len(MESSAGE)} octets)?", asked.output)
        self.assertEqual(len(self.files("ann")), 1)
        self.assertIn("is gone", runner.invoke(pop3toy, command, input="y\n").output)
        self.assertEqual(os.listdir(self.root / "mail"), ["bob"])
        self.assertEqual(self.accounts.read_text(), "ann:{PLAIN}x\n")
        done = self.run_command("mailbox", "remove", "{M}", "--yes", "bob")
        self.assertEqual(done, Outcome(0, "The mailbox of bob is gone, with its mail.\n", ""))
        self.assertEqual(os.listdir(self.root / "mail"), [])
        for options in ((), ("--yes",)):
            done = self.run_command("mailbox", "remove", "{M}", *options, "bob")
            self.assertEqual((done.status, done.out), (os.EX_NOUSER, ""))
            self.assertRegex(done.err, r"\AError: bob has no mailbox here \(no Maildir at '[^']*'\)\n\Z")

    def test_unlock(self) -> None:
        """The lock of a Maildir cannot get lost."""
        self.deliver(MESSAGE, "ann")
        done = self.run_command("mailbox", "unlock", "{M}", "ann")
        self.assertEqual((done.status, done.out), (os.EX_UNAVAILABLE, ""))
        self.assertIn("cannot get lost", done.err)

    def test_none_yet(self) -> None:
        """Where nobody has a mailbox the list says so, and how many users there are."""
        for accounts, more in (
            ("", ""),
            ("ann:{PLAIN}x\n", "; 1 user without one"),
            ("a:{PLAIN}x\nb:{PLAIN}x\n", "; 2 users without one"),
        ):
            self.accounts.write_text(accounts)
            done = self.run_command("mailbox", "list", "{M}", "{A}")
            self.assertEqual(done, Outcome(0, "", f"There is no mailbox yet{more}\n"))
        self.assertEqual(self.run_command("mailbox", "list", "{M}").err, "There is no mailbox yet\n")

    def test_remove_what_is_in_use(self) -> None:
        """While a session has a mailbox open it stays whole; the status is 75, and the line says why."""
        self.deliver()
        maildir = os.open(self.root / "mail" / "ann", os.O_RDONLY)
        self.addCleanup(os.close, maildir)
        # As a session holds it, in whatever process.
        fcntl.flock(maildir, fcntl.LOCK_EX)
        done = self.run_command("mailbox", "remove", "{M}", "--yes", "ann")
        self.assertEqual((done.status, done.out), (os.EX_TEMPFAIL, ""))
        self.assertRegex(done.err, r"\AError: \[IN-USE\] ann: .*locked.*\n\Z")
        self.assertEqual(self.files()[0].read_bytes(), MESSAGE)

    def test_remove_what_is_broken(self) -> None:
        """What cannot be read can be removed, when the question that says so is answered."""
        self.deliver()
        shutil.rmtree(self.root / "mail" / "ann" / "new")
        command = ["mailbox", "remove", "-m", self.pattern, "ann"]
        asked = CliRunner().invoke(pop3toy, command, input="y\n")
        self.assertIn("which cannot be read", asked.output)
        self.assertIn("half-made", asked.output)
        self.assertEqual(os.listdir(self.root / "mail"), [])

    def test_shared(self) -> None:
        """Where all users share one Maildir it is not removed as somebody's, nor listed as everybody's."""
        self.deliver()
        shared = f"--maildir={self.root}/mail/ann"
        self.assertEqual(self.run_command("mailbox", "list", shared, "bob").status, 0)
        for words in (("remove", "--yes", shared, "bob"), ("list", shared), ("check", shared)):
            done = self.run_command("mailbox", *words)
            self.assertEqual(done.status, os.EX_USAGE)
            self.assertIn("all users share one mailbox", done.err)
        self.assertEqual(len(self.files()), 1)

    def test_check_of_what_has_no_end(self) -> None:
        """A file that is larger than any message is told of, and not read."""
        self.deliver()
        with (self.root / "mail" / "ann" / "cur" / "1.big").open("wb") as file:
            file.truncate(8 * 1024**4)
        (found,) = self.check(self.root / "mail" / "ann")
        self.assertEqual(found, f"cur/1.big: it has {8 * 1024**4} octets, and was not read")

    def test_check_without_a_header(self) -> None:
        """What has no end of a header costs no more than to read it."""
        self.deliver(b"x" * 100)
        searched: list[int] = []
        with (self.root / "mail" / "ann" / "cur" / "1.big").open("wb") as file:
            file.write(b"x" * (8 * 1024 * 1024))
        real = re.search
        self.patch(re, "search", lambda pattern, data: (searched.append(len(data)), real(pattern, data))[1])
        self.assertEqual(self.check(self.root / "mail" / "ann"), [])
        self.assertLess(sum(searched), 2 * 1024 * 1024)


class MboxTests(SynchronousTestCase):
    """Where messages begin and end in an mbox."""

    def messages(self, text: bytes) -> list[bytes]:
        """The messages of a file with this text."""
        path = Path(self.mktemp())
        path.write_bytes(text)
        return list(Mbox(path))

    def test_from_in_a_body(self) -> None:
        """A line that begins with From and is no separator stays in its message."""
        separator = b"From a@b Mon Jan  1 00:00:00 2024\n"
        one = b"Subject: 1\n\nFrom here on,\n\nFrom the start\n" + separator + b">From\n"
        two = b"Subject: 2\n\nx\n"
        self.assertEqual(self.messages(separator + one + b"\n" + separator + two), [one, two])

    def test_separators(self) -> None:
        """Separators are known in the forms in which programs write them."""
        for line in (
            "From a@b Mon Jan  1 00:00:00 2024", "From a@b Mon Jan 01 0:00 2024",
            "From a@b Mon Jan  1 00:00:00 CET 2024", "From a@b Mon Jan  1 00:00:00 2024 +0100",
            "From 17@xxx Mon Jan  1 00:00:00 +0000 2024", "From - Mon Jan  1 00:00:00 2024",
            'From "a b"@c Mon Jan  1 00:00:00 2024',
        ):  # fmt: skip
            with self.subTest(line=line):
                text = f"{line}\na: b\n\n{line}\nc: d\n".encode()
                self.assertEqual(self.messages(text), [b"a: b\n", b"c: d\n"])
                text = text.replace(b"\n", b"\r\n")
                self.assertEqual(self.messages(text), [b"a: b\r\n", b"c: d\r\n"])

    def test_separators_of_all_kinds(self) -> None:
        """Where a header follows, behind an empty line every line From is a separator."""
        for line in (
            "From ", "From - Sat Apr 12 2025 15:59:28", "From a@b", "From - Sat, 12 Apr 2025 15:59:28 +0200",
            "From a@b Sat, 12 Apr 2025 15:59:28 +0200", "From a@b 12 Apr 2025 15:59",
            "From a@b Sat Apr 12 15:59:28 GMT-0700 2025", "From a@b Sat Apr 12 15:59:28 2025 GMT-0700",
            "From whoever, whenever",
        ):  # fmt: skip
            for quoted in ("", ">From b@c Mon Jan  1 00:00:00 2024\n", ">From c\n"):
                with self.subTest(line=line, quoted=quoted):
                    text = (
                        f"{line}\n{quoted}a: b\n\nFrom here on: nothing\nat all\n\n{line}\n{quoted}c: d\n\n"
                    )
                    messages = [b"a: b\n\nFrom here on: nothing\nat all\n", b"c: d\n"]
                    self.assertEqual(self.messages(text.encode()), messages)
                    crlf = [message.replace(b"\n", b"\r\n") for message in messages]
                    self.assertEqual(self.messages(text.replace("\n", "\r\n").encode()), crlf)

    def test_sentences(self) -> None:
        """What is no separator in a known form is text, unless the file's first line is built like it."""
        separator = "From - Mon Nov 23 09:00:00 2026\n"
        for line, is_one in (
            ("From the office:", False), ("From 5 to 7", False), ("From Paris:", False),
            ("From home,", False),
            ("From the 23rd of Nov", False), ("From a@b 2025-04-12 15:59", False), ("From :", False),
            ("From root", True), ("From a@b", True), ("From ", True),
            ("From a, b Mon Nov 23 09:00:00 2026", True),
            ("From a@b Mon Nov 23 09:00:00 2026 by hand!", True),
        ):  # fmt: skip
            with self.subTest(line=line):
                text = f"{separator}a: b\n\nDear all,\n\n{line}\nNote: closed\n\nbye\n\n"
                path = Path(self.mktemp())
                path.write_text(text)
                mbox = Mbox(path)
                whole = text.removeprefix(separator)[:-1].encode()
                first, second = whole.split(f"\n{line}\n".encode())
                self.assertEqual(list(mbox), [first, second] if is_one else [whole])
                self.assertEqual(mbox.kept_as_text, 0 if is_one else 1)
        for first, other, is_one in (  # type: ignore[assignment]
            ("From a@b 2025-04-12 15:59", "From dora 2024-11-02 5:07", True),
            ("From a@b 2025-04-12 15:59", "From the office:", False),
            ("From a@b 2025-04-12 15:59", "From 5 to 7", False),
            ("From you know who", "From the big house", True),
        ):  # fmt: skip
            with self.subTest(first=first, other=other):
                messages = self.messages(f"{first}\na: b\n\n{other}\nc: d\n".encode())  # type: ignore[str-bytes-safe]
                self.assertEqual(len(messages), 2 if is_one else 1)

    def test_carriage_returns_alone(self) -> None:
        """Where lines end with CR, as on old Macs, messages are found, and lines end with LF then."""
        text = b"From a@b Mon Jan  1 00:00:00 2024\na: b\n\nx\n\nFrom \nc: d\n\nFrom here on: y\n"
        expected = self.messages(text)
        self.assertEqual(len(expected), 2)
        for before in (b"", b"\n\n"):
            self.assertEqual(self.messages((before + text).replace(b"\n", b"\r")), expected)
        # A line feed in the middle of such a file does not hide what is before it.
        mixed = text.replace(b"\n", b"\r")[:-1] + b"\n"
        self.assertEqual(self.messages(mixed), expected)
        # Longer than what is read at a time.
        long = b"From \na: b\n\n" + b"x\n" * 100_000 + b"\nFrom \nc: d\n"
        self.assertEqual(self.messages(long.replace(b"\n", b"\r")), self.messages(long))
        # A CR before a line end, or within a line, is data.
        for data in (b"From \r\r\na: b\r\r\n", b"From \na: b\n\nx\ry\n"):
            self.assertEqual(self.messages(data), [data.partition(b"\n")[2]])

    def test_without_an_empty_line(self) -> None:
        """Without an empty line before it a separator has a sender and a date, and a header behind it."""
        for line, is_one in (
            ("From a@b Mon Jan  1 00:00:00 2024", True), ("From a@b Sat, 12 Apr 2025 15:59:28 +0200", True),
            ("From - Sat Apr 12 2025 15:59:28", True), ("From a@b", False), ("From ", False),
            ("From Mon Jan  1 00:00:00 2024", False),
        ):  # fmt: skip
            for ending in ("\n", "\r\n"):
                with self.subTest(line=line, ending=ending):
                    text = f"{line}\na: b\n\nx\n{line}\nc: d\n\ny\n".replace("\n", ending).encode()
                    self.assertEqual(len(self.messages(text)), 2 if is_one else 1)
                    # No header comes next.
                    text = f"{line}\na: b\n\nx\n{line}\nhttp://x\n".replace("\n", ending).encode()
                    self.assertEqual(len(self.messages(text)), 1)

    def test_content_length_before_any_separator(self) -> None:
        """Behind a true Content-Length any separator will do, and the body is not looked into."""
        body = b"x\n\nFrom \na: b\n"
        message = b"Content-Length: %d\n\n" % len(body) + body
        self.assertEqual(self.messages((b"From \n" + message + b"\n") * 2), [message] * 2)

    def test_first_line(self) -> None:
        """At the start of the file nothing else but a separator can be meant."""
        self.assertEqual(self.messages(b"From nobody\na: b\n"), [b"a: b\n"])

    def test_crlf(self) -> None:
        """The empty line before a separator is no part of a message, with CRLF neither."""
        text = b"From a Mon Jan  1 00:00:00 2024\r\na: b\r\n\r\nx\r\n\r\n"
        self.assertEqual(self.messages(text * 2), [b"a: b\r\n\r\nx\r\n"] * 2)

    def test_content_length(self) -> None:
        """Where a Content-Length is true it counts, and nothing that was not quoted is unquoted."""
        separator = b"From a Mon Jan  1 00:00:00 2024\n"
        body = b"x\n\n" + separator + b">From y\n"
        for blank in (b"\n", b""):
            message = b"Content-Length: %d\n\n" % len(body) + body
            self.assertEqual(self.messages((separator + message + blank) * 2), [message] * 2)

    def test_wrong_content_length(self) -> None:
        """A Content-Length that leads nowhere is not followed, and no line is lost."""
        separator = b"From a Mon Jan  1 00:00:00 2024\n"
        for length in (1, 3, 5, 1000, 10**11):
            message = b"Content-Length: %d\n\nline\nline\n" % length
            self.assertEqual(self.messages((separator + message + b"\n") * 2), [message] * 2)

    def test_empty(self) -> None:
        """An empty file is an mbox without messages."""
        self.assertEqual(self.messages(b""), [])
