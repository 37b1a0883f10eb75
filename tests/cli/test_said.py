"""What commands say: trouble with one of many users, what a mailbox holds, and what cannot be."""

from __future__ import annotations

import json
import os
from typing import Any

from pop3toy.outgoing.queue_files import Folder
from pop3toy.stores.copying.maildirs import MaildirMailboxes
from pop3toy.stores.maildir.admin import MaildirAdmin

from ..cli_world import MESSAGE, CommandTests


class BugCase(CommandTests):
    """ann, bob and cat have mail; something that nobody has thought of happens with bob's."""

    def setUp(self) -> None:
        super().setUp()
        for user in ("ann", "bob", "cat"):
            self.deliver(MESSAGE, user)
        self.accounts.write_text("".join(f"{user}:{{PLAIN}}x\n" for user in ("ann", "bob", "cat")))

    def breaks(self, kind: type, name: str, error: Exception) -> None:
        """A method fails for bob."""
        real = getattr(kind, name)

        def fail(self: Any, user: str, *words: Any, **named: Any) -> Any:
            if user == "bob":
                raise error
            return real(self, user, *words, **named)

        self.patch(kind, name, fail)

    def others_go_on(self, *words: str, error: Exception, status: int, out: bool = False) -> None:
        """bob is told of in one line, and both others are done."""
        done = self.run_command(*words)
        self.assertEqual(done.status, status, done)
        said = done.out if out else done.err
        told = [line for line in said.splitlines() if line.startswith("bob: ")]
        self.assertEqual(told, [f"bob: {type(error).__name__}: {error}"] if status else [], done)
        self.assertNotIn("Traceback", done.err)


class BugTests(BugCase):
    """A bug of one user's."""

    error = ZeroDivisionError("odd")

    def test_list(self) -> None:
        """mailbox list."""
        self.breaks(MaildirAdmin, "list", self.error)
        self.others_go_on("mailbox", "list", "{M}", error=self.error, status=os.EX_SOFTWARE)
        self.assertRegex(self.run_command("mailbox", "list", "{M}").out, r"\Aann .*\ncat .*\n\Z")

    def test_check(self) -> None:
        """mailbox check."""
        self.breaks(MaildirAdmin, "problems", self.error)
        self.others_go_on("mailbox", "check", "{M}", error=self.error, status=os.EX_DATAERR, out=True)

    def test_expire(self) -> None:
        """mailbox expire, which removes the others' mail."""
        self.breaks(MaildirAdmin, "list", self.error)
        words = ("mailbox", "expire", "{M}", "--all", "--keep", "0", "--yes")
        self.others_go_on(*words, error=self.error, status=os.EX_SOFTWARE)
        self.assertEqual([len(self.files(user)) for user in ("ann", "bob", "cat")], [0, 1, 0])

    def test_copy(self) -> None:
        """store copy."""
        (self.root / "other").mkdir()
        self.breaks(MaildirMailboxes, "mailbox", self.error)
        other = f"{self.root}/other/{{user}}"
        self.others_go_on("store", "copy", self.pattern, other, error=self.error, status=os.EX_SOFTWARE)
        self.assertEqual(sorted(os.listdir(self.root / "other")), ["ann", "cat"])

    def test_users(self) -> None:
        """user list, as lines and as JSON."""
        self.breaks(MaildirAdmin, "usage", self.error)
        self.others_go_on("user", "list", "{A}", "{M}", error=self.error, status=os.EX_DATAERR)
        done = self.run_command("user", "list", "{A}", "{M}", "--json")
        told = {one["name"]: one for one in json.loads(done.out)}
        self.assertEqual(told["bob"]["trouble"], "ZeroDivisionError: odd")
        self.assertEqual(
            [told[user]["octets"] for user in ("ann", "bob", "cat")], [len(MESSAGE), None, len(MESSAGE)]
        )

    def test_one_user_alone(self) -> None:
        """Of the one user who was named it is the command's own."""
        self.breaks(MaildirAdmin, "list", self.error)
        done = self.run_command("mailbox", "list", "{M}", "bob")
        self.assertEqual((done.status, done.err), (os.EX_SOFTWARE, "Error: ZeroDivisionError: odd\n"))


class DiskTests(BugCase):
    """An error of the system, which has an exit status of its own."""

    def test_list(self) -> None:
        """It is told as such, and not as a bug."""
        self.breaks(MaildirAdmin, "list", OSError(5, "Input/output error", "cur"))
        done = self.run_command("mailbox", "list", "{M}")
        self.assertEqual((done.status, done.err), (os.EX_DATAERR, "bob: cur: Input/output error\n"))
        self.assertIn("cat ", done.out)

    def test_nobody_reads(self) -> None:
        """Where nobody reads what is said, the command ends."""
        self.breaks(MaildirAdmin, "list", BrokenPipeError(32, "Broken pipe"))
        # Click's end where a pipe is broken.
        self.assertRaises(SystemExit, self.run_command, "mailbox", "list", "{M}")


class OneNumberTests(BugCase):
    """What a mailbox holds is the same wherever it is told."""

    def test_octets(self) -> None:
        """user list, its JSON and mailbox list tell what quotas count: not what POP3 sends."""
        self.accounts.write_text("ann:{PLAIN}x:quota=1000\n")
        octets = len(MESSAGE)
        self.assertNotEqual(octets, len(MESSAGE.replace(b"\n", b"\r\n")))
        self.assertIn(f"{octets} of 1,000", self.run_command("user", "list", "{A}", "{M}").out)
        (told,) = json.loads(self.run_command("user", "list", "{A}", "{M}", "--json").out)
        self.assertEqual(told["octets"], octets)
        listed = self.run_command("mailbox", "list", "{M}", "{A}").out.splitlines()[0]
        self.assertRegex(listed, rf"\Aann +1 message +{octets} octets, 9% of 1000 used\Z")


class QueueTests(CommandTests):
    """``pop3toy queue``: where it is, and messages that are damaged."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.root / "queue"
        Folder(self.folder).make()
        for name in ("a1", "c3"):
            writing = Folder(self.folder).begin(name)
            writing.write(b"a: b\r\n\r\n")
            writing.finish({"from": "ann@example.org"})
            writing.publish()
        (self.folder / "b2.mail").write_bytes(b"damaged")

    def test_no_folder(self) -> None:
        """A file is no folder, and is not said to be missing; a missing one is."""
        (self.root / "file").write_text("")
        for name, why in (
            ("file", f"{self.root}/file is no folder"),
            ("none", f"there is no folder {self.root}/none"),
        ):
            done = self.run_command("queue", "list", f"--queue={self.root / name}")
            self.assertEqual((done.status, done.err), (os.EX_NOINPUT, f"Error: {why}\n"))

    def test_damaged(self) -> None:
        """One message that is damaged keeps no other from being tried, or removed."""
        where = f"--queue={self.folder}"
        done = self.run_command("queue", "retry", where, "--all")
        self.assertEqual(done.status, os.EX_DATAERR, done)
        self.assertRegex(done.err, r"\Ab2: .*\n2 messages will be tried\n\Z")
        for name in ("a1", "c3"):
            self.assertTrue((self.folder / f"{name}.mail").read_bytes().endswith(b'{"next": 0.0}\n'))
        self.assertEqual(self.run_command("queue", "remove", where, "--all", "--yes").status, 0)
        self.assertEqual([name for name in os.listdir(self.folder) if name.endswith(".mail")], [])


class NumberTests(CommandTests):
    """Numbers that cannot be, each in a sentence that says what may be said."""

    def test_words(self) -> None:
        """Of days, messages, seconds, ports and processes."""
        for words, value, what in (
            (("mailbox", "expire", "{M}", "ann", "--older-than"), "x", "number of 0 or more"),
            (("mailbox", "expire", "{M}", "ann", "--older-than"), "nan", "number of 0 or more"),
            (("mailbox", "expire", "{M}", "ann", "--keep"), "1.5", "whole number of 0 or more"),
            (("mailbox", "expire", "{M}", "ann", "--undo-days"), "3651", "whole number from 0 to 3650"),
            (("mailbox", "adopt", "{M}", "ann", "--uidvalidity"), "0", "whole number from 1 to 4294967295"),
            (("mailbox", "compare", "pop3://a@b", "pop3://c", "--timeout"), "0", "number of 0.1 or more"),
            (("store", "check", "s3://mail", "--processes"), "many", "whole number from 1 to 64"),
            (("config", "init", "--yes", "--port"), "65536", "whole number from 0 to 65535"),
        ):
            done = self.run_command(*words, value)
            self.assertEqual((done.status, done.out), (os.EX_USAGE, ""), words)
            self.assertIn(f"'{words[-1]}': {value!r} is no {what}\n", done.err)

    def test_sentences(self) -> None:
        """What cannot be is one sentence behind the name of what was said."""
        missing = self.root / "missing"
        for words, sentence in (
            (("store", "check", "mail"), "URL is an address such as s3://BUCKET or s3://BUCKET/PREFIX"),
            (("mailbox", "list", "--store=mail"), "--store is an address such as s3://BUCKET or s3://BUCKET/PREFIX"),
            (("store", "copy", "mail", self.pattern), "FROM is a path of Maildirs or an address such as s3://BUCKET,"
             " and not mail"),
            (("config", "init", "--yes", "--kind=toy", "--interface="),
             "--interface is an address; 0.0.0.0 or :: is every network"),
            (("mailbox", "import", "{M}", "ann", str(missing)),
             f"Invalid value for SOURCES: {missing}: No such file or directory"),
        ):  # fmt: skip
            done = self.run_command(*words)
            self.assertEqual((done.status, done.out), (os.EX_USAGE, ""), words)
            self.assertTrue(done.err.startswith(f"Error: {sentence}\n"), done.err)

    def test_no_queue(self) -> None:
        """A file of options without one is named, and no command makes anything in another folder."""
        file = self.root / "pop3toy.toml"
        file.write_text("[pop3]\nport = 0\n")
        done = self.run_command("queue", "list", f"--config={file}")
        self.assertEqual((done.status, done.out), (os.EX_CONFIG, ""))
        self.assertTrue(done.err.startswith(f"Error: {file}: [outgoing] queue is missing"), done.err)
        self.run_command("queue", "remove", f"--queue={self.root / 'mail'}", "--all", "--yes")
        self.assertEqual(os.listdir(self.root / "mail"), [])

    def test_mail_of_a_user(self) -> None:
        """Whoever removes a user is told of mail if there may be some; who is no user gets none imported."""
        self.accounts.write_text("".join(f"{user}:{{PLAIN}}x\n" for user in ("ann", "bob", "cat")))
        self.deliver(MESSAGE, "ann")
        for user, words, told in (
            ("ann", ("{M}",), "the mail is not: pop3toy mailbox remove ann takes it away"),
            ("bob", ("{M}",), "User bob is gone, and had no mailbox."),
            ("cat", ("--maildir=/no/such/folder/{user}",), "the mail is not"),
        ):
            done = self.run_command("user", "remove", "--yes", "{A}", *words, user)
            self.assertEqual(done.status, 0, done.err)
            self.assertIn(told, done.out)
        (self.root / "one.eml").write_bytes(MESSAGE)
        self.accounts.write_text("ann:{PLAIN}x\n")
        done = self.run_command("mailbox", "import", "{M}", "{A}", "zoe", str(self.root / "one.eml"))
        self.assertEqual(done.status, os.EX_NOUSER)
        self.assertIn(f"there is no account zoe in {self.accounts}, and no mailbox was made", done.err)
