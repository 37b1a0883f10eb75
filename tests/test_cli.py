"""The command line: what it does, what it says, and with which status it ends."""

from __future__ import annotations

import contextlib
import io
import mailbox
import os
import shutil
import subprocess
import sys
import tempfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred, succeed
from twisted.trial.unittest import SkipTest, SynchronousTestCase

try:
    from click.testing import CliRunner

    from pop3toy.cli.formats import open_source, write_mbox
    from pop3toy.cli.group import pop3toy, run
except ImportError:
    raise SkipTest("click is not installed: pip install 'pop3toy[cli]'") from None

from pop3toy.auth.admin import list_users
from pop3toy.delivery.quota import parse_quota, quota_of
from pop3toy.errors import StoreTrouble
from pop3toy.stores.maildir_check import check_maildir

MESSAGE = b"From: Eve <eve@example.org>\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\nMessage-ID: <1@x>\n\nhello\n"


class Outcome(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


class CommandTests(SynchronousTestCase):
    """A folder with accounts and Maildirs, and commands run on them."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.accounts = self.root / "accounts"
        (self.root / "mail").mkdir()
        self.pattern = f"{self.root}/mail/{{user}}"

    def run_command(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """Run ``pop3toy`` with these arguments; {A} and {M} stand for the options of this folder."""
        options = {"{A}": f"--accounts={self.accounts}", "{M}": f"--maildir={self.pattern}"}
        words = [options.get(word, word) for word in arguments]
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = run(words)
        finally:
            sys.stdin = before
        texts = []
        for stream in (out, err):
            stream.flush()
            buffer = stream.buffer
            assert isinstance(buffer, io.BytesIO)
            texts.append(buffer.getvalue().decode())
        return Outcome(status, *texts)

    def deliver(self, message: bytes = MESSAGE, user: str = "ann", *options: str) -> Outcome:
        """Deliver a message."""
        return self.run_command("deliver", "{M}", "--create", *options, user, stdin=message)

    def files(self, user: str = "ann") -> list[Path]:
        """The user's messages."""
        return sorted((self.root / "mail" / user / "new").iterdir())


class UserTests(CommandTests):
    """``pop3toy user``."""

    def add(self, name: str = "ann", *options: str) -> Outcome:
        """Add a user with the password "secret"."""
        return self.run_command("user", "add", "{A}", "--stdin", *options, name, stdin=b"secret\n")

    def test_life(self) -> None:
        """A user is added, listed, given a new password, and removed."""
        self.assertEqual(self.add("ann", "--quota", "5M", "--scheme", "plain").status, 0)
        self.assertEqual(self.add("bob", "--scheme", "plain").status, 0)
        listed = self.run_command("user", "list", "{A}")
        self.assertEqual((listed.status, listed.err), (0, ""))
        self.assertEqual(
            [line.split() for line in listed.out.splitlines()],
            [["ann", "PLAIN", "quota=5M"], ["bob", "PLAIN"]],
        )
        changed = self.run_command(
            "user", "passwd", "{A}", "--stdin", "--scheme=PLAIN", "ann", stdin=b"n e w"
        )
        self.assertEqual(changed.status, 0)
        self.assertEqual(list_users(self.accounts).by_name["ann"].password.secret, b"n e w")
        self.assertEqual(self.run_command("user", "del", "{A}", "--yes", "ann").status, 0)
        self.assertEqual(list(list_users(self.accounts).by_name), ["bob"])

    def test_asks(self) -> None:
        """The password is asked for twice and not shown; removal is confirmed."""
        runner = CliRunner()
        command = ["user", "add", "-a", str(self.accounts), "-s", "PLAIN", "ann"]
        asked = runner.invoke(pop3toy, command, input="one\ntwo\nsame\nsame\n")
        self.assertEqual(asked.exit_code, 0, asked.output)
        self.assertNotIn("same\n", asked.output)
        self.assertEqual(list_users(self.accounts).by_name["ann"].password.secret, b"same")
        runner.invoke(pop3toy, ["user", "del", "-a", str(self.accounts), "ann"], input="n\n")
        self.assertIn("ann", list_users(self.accounts).by_name)

    def test_mistakes(self) -> None:
        """A mistake is one line and a status of sysexits.h, and changes nothing."""
        self.add("ann", "--scheme", "plain")
        for arguments, status, words in (
            (("add", "ann"), os.EX_DATAERR, "already"),
            (("add", "a b"), os.EX_DATAERR, "blank"),
            (("add", "--quota", "lots", "cat"), os.EX_USAGE, "500M"),
            (("passwd", "nobody"), os.EX_NOUSER, "no user nobody"),
            (("del", "nobody"), os.EX_NOUSER, "no user nobody"),
            (("add",), os.EX_USAGE, "Missing argument"),
        ):
            with self.subTest(arguments=arguments):
                stdin = ["--stdin"] if arguments[0] in ("add", "passwd") else ["--yes"]
                outcome = self.run_command("user", arguments[0], "{A}", *stdin, *arguments[1:], stdin=b"x\n")
                self.assertEqual(outcome.status, status)
                self.assertIn(words, outcome.err)
                self.assertNotIn("Traceback", outcome.err)
        self.assertEqual(list(list_users(self.accounts).by_name), ["ann"])
        self.accounts.unlink()
        self.assertEqual(self.run_command("user", "list", "{A}").status, os.EX_NOINPUT)

    def test_bad_lines(self) -> None:
        """Lines that are not understood are told, and the others listed."""
        self.accounts.write_text("ann:{PLAIN}x\nnonsense\n")
        listed = self.run_command("user", "list", "{A}")
        self.assertEqual(listed.status, os.EX_DATAERR)
        self.assertIn("ann", listed.out)
        self.assertIn("line 2", listed.err)

    def test_repair(self) -> None:
        """Lines that are not understood get a password, or go, without an editor."""
        text = "ann:{PLAIN}x\nbob\ncarl:{NOPE}x:quota=1M\ndora:secret\n"
        for name, settings in (("bob", {}), ("carl", {"quota": "1M"}), ("dora", {})):
            self.accounts.write_text(text)
            self.assertIn("already", self.add(name).err)
            changed = self.run_command("user", "passwd", "{A}", "--stdin", name, stdin=b"new\n")
            self.assertEqual((changed.status, changed.err), (0, ""))
            account = list_users(self.accounts).by_name[name]
            self.assertTrue(account.password.verify(b"new"))
            self.assertEqual(account.settings, settings)
            self.assertEqual(len(list_users(self.accounts).problems), 2)
            self.accounts.write_text(text)
            self.assertEqual(self.run_command("user", "del", "{A}", "--yes", name).status, 0)
            self.assertEqual(len(list_users(self.accounts).problems), 2)
        self.accounts.write_text("ann:{PLAIN}x:allow_nets=nonsense\n")
        refused = self.run_command("user", "passwd", "{A}", "--stdin", "ann", stdin=b"new\n")
        self.assertEqual(refused.status, os.EX_DATAERR)
        self.assertIn("line of ann has to be mended with an editor: allow_nets", refused.err)

    def test_kinds_stay(self) -> None:
        """A new password is kept as the old one was, unless it is said how."""
        for scheme in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-1"):
            self.add("ann", "--scheme", scheme)
            for options, expected in (((), scheme), (("--scheme", "plain"), "PLAIN")):
                self.run_command("user", "passwd", "{A}", "--stdin", *options, "ann", stdin=b"new\n")
                self.assertEqual(list_users(self.accounts).by_name["ann"].password.scheme, expected)
            self.accounts.unlink()
        self.accounts.write_text("ann:{SSHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI\n")
        self.run_command("user", "passwd", "{A}", "--stdin", "ann", stdin=b"new\n")
        self.assertEqual(list_users(self.accounts).by_name["ann"].password.scheme, "ARGON2ID")

    def test_password_not_utf_8(self) -> None:
        """A password in another encoding is refused in these words."""
        refused = self.run_command("user", "add", "{A}", "--stdin", "ann", stdin=b"gr\xfc\xdfe\n")
        self.assertEqual(refused.status, os.EX_DATAERR)
        self.assertTrue(refused.err.endswith("the password is not UTF-8\n"), refused.err)
        self.assertFalse(self.accounts.exists())

    def test_environment(self) -> None:
        """Where the accounts are can stand in the environment."""
        self.add("ann", "--scheme", "plain")
        os.environ["POP3TOY_ACCOUNTS"] = str(self.accounts)
        self.addCleanup(os.environ.pop, "POP3TOY_ACCOUNTS")
        self.assertIn("ann", self.run_command("user", "list").out)

    def test_completion(self) -> None:
        """A shell can complete users, and the script for it can be printed."""
        self.add("ann", "--scheme", "plain")
        environment = {
            "_POP3TOY_COMPLETE": "bash_complete", "COMP_WORDS": "pop3toy user passwd a", "COMP_CWORD": "3",
            "POP3TOY_ACCOUNTS": str(self.accounts),
        }  # fmt: skip
        completed = CliRunner().invoke(pop3toy, env=environment, prog_name="pop3toy")
        self.assertEqual(completed.output, "plain,ann\n")
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("_POP3TOY_COMPLETE", self.run_command("completion", shell).out)


class DeliverTests(CommandTests):
    """``pop3toy deliver``."""

    def test_deliver(self) -> None:
        """A message from standard input lies in the Maildir, octet for octet."""
        self.assertEqual(self.deliver(), Outcome(0, "", ""))
        self.assertEqual(self.files()[0].read_bytes(), MESSAGE)

    def test_sender(self) -> None:
        """The sender of the envelope becomes a Return-Path, from an option or from the "From " line."""
        for options, stdin, header in (
            (("--sender", "eve@example.org"), b"", b"Return-Path: <eve@example.org>\r\n"),
            (("--sender", "<>"), b"", b"Return-Path: <>\r\n"),
            ((), b"From bob@example.org Mon Jan  1 00:00:00 2024\n", b"Return-Path: <bob@example.org>\r\n"),
            ((), b"From MAILER-DAEMON Mon Jan  1 00:00:00 2024\n", b"Return-Path: <>\r\n"),
        ):
            with self.subTest(options=options, stdin=stdin):
                self.assertEqual(self.deliver(stdin + MESSAGE, "ann", *options).status, 0)
                self.assertEqual(self.files()[-1].read_bytes(), header.replace(b"\r\n", b"\n") + MESSAGE)

    def test_no_header(self) -> None:
        """Text without a header does not become part of ours."""
        self.deliver(b"just text\n", "ann", "--sender", "eve@example.org")
        self.assertEqual(self.files()[0].read_bytes(), b"Return-Path: <eve@example.org>\n\njust text\n")

    def test_statuses(self) -> None:
        """What goes wrong is told by the statuses that mail servers know, and nothing is left."""
        self.deliver()
        self.accounts.write_text("ann:{PLAIN}x:quota=100\n")
        for arguments, status in (
            (("nobody",), os.EX_NOUSER),
            (("../ann",), os.EX_NOUSER),
            (("{A}", "ann"), os.EX_CANTCREAT),
            (("--sender", "not an address", "ann"), os.EX_DATAERR),
            ((), os.EX_USAGE),
            (("--maildir=/nowhere/{user}", "ann"), os.EX_USAGE),
        ):
            with self.subTest(arguments=arguments):
                outcome = self.run_command("deliver", "{M}", *arguments, stdin=MESSAGE)
                self.assertEqual(outcome.status, status)
                self.assertNotEqual(outcome.err, "")
        self.assertEqual(len(self.files()), 1)
        self.assertEqual(list((self.root / "mail" / "ann" / "tmp").iterdir()), [])

    def test_trouble(self) -> None:
        """A Maildir that cannot be written to means: try again later."""
        self.deliver()
        shutil.rmtree(self.root / "mail" / "ann" / "tmp")
        self.assertEqual(self.run_command("deliver", "{M}", "ann", stdin=MESSAGE).status, os.EX_TEMPFAIL)

    def test_as_a_process(self) -> None:
        """It works as the process that a mail server starts."""
        command = [sys.executable, "-c", "from pop3toy.cli import main; main()"]
        done = subprocess.run(
            [*command, "deliver", "--create", "-m", self.pattern, "ann"],
            input=MESSAGE, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        self.assertEqual(self.files()[0].read_bytes(), MESSAGE)

    def test_without_click(self) -> None:
        """Without click there is one line that says what to install."""
        hidden = "import sys; sys.modules['click'] = None; from pop3toy.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", hidden], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        self.assertEqual(done.returncode, os.EX_UNAVAILABLE)
        self.assertEqual(done.stderr, "pop3toy: the command line needs click: pip install 'pop3toy[cli]'\n")


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
        everybody = self.run_command("mailbox", "list", "{M}").out.split()
        self.assertEqual(everybody[:3], ["ann", "2", "messages"])
        self.assertEqual(self.run_command("mailbox", "list", "{M}", "nobody").status, os.EX_NOUSER)

    def test_show(self) -> None:
        """A message is shown by number and by unique-id, whole or its header."""
        self.deliver()
        for wanted in ("1", self.files()[0].name):
            self.assertEqual(self.run_command("mailbox", "show", "{M}", "ann", wanted).out, MESSAGE.decode())
        header = self.run_command("mailbox", "show", "{M}", "-H", "ann", "1").out
        self.assertTrue(header.endswith("Message-ID: <1@x>\n"))
        self.assertEqual(self.run_command("mailbox", "show", "{M}", "ann", "2").status, os.EX_USAGE)

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
            done = self.run_command("mailbox", "import", "{M}", "--create", user, str(source))
            self.assertEqual(
                (done.status, done.out), (0, "2 imported, 0 known already, 0 not readable\n"), done.err
            )
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
            self.run_command("mailbox", "import", "{M}", "--create", kind, destination)
            again = [file.read_bytes() for file in self.files(kind)]
            if kind == "mbox":
                messages[2] += b"\n"
            else:
                messages[2] = messages[2].rstrip(b"\n")
            self.assertEqual(again, messages)

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
            "one unique-id for two messages", "2.dir: not a file", "3.link: not a file",
            "4.stale: left there",
        ):  # fmt: skip
            self.assertIn(words, done.out)
        self.assertEqual(sorted(map(str, maildir.rglob("*"))), before)
        shutil.rmtree(maildir / "new")
        self.assertIn("new/: no such file", "".join(check_maildir(maildir, read=False, now=0.0)))


class QuotaTests(SynchronousTestCase):
    """What a quota means."""

    def test_quota(self) -> None:
        """Quotas are octets with K, M, G or T, or none."""
        for text, octets in (
            ("0", 0), ("1000", 1000), ("2K", 2048), ("3m", 3 << 20), ("4G", 4 << 30), ("5 TiB", 5 << 40),
            ("6MB", 6 << 20), ("none", None),
        ):  # fmt: skip
            self.assertEqual(parse_quota(text), octets)
        for text in ("", "-1", "1.5G", "lots", "5X", "K"):
            self.assertRaises(ValueError, parse_quota, text)

    def test_of_accounts(self) -> None:
        """An account says its quota, or has the default; what is no quota keeps mail waiting."""

        class Account(NamedTuple):
            settings: dict[str, str]

        accounts = {"ann": Account({"quota": "1K"}), "bob": Account({}), "cat": Account({"quota": "lots"})}
        for later in (False, True):
            find: Any = (lambda user: succeed(accounts.get(user))) if later else accounts.get
            quota = quota_of(find, default=7)
            for user, octets in (("ann", 1024), ("bob", 7), ("nobody", 7)):
                self.assertEqual(self.successResultOf(maybeDeferred(quota, user)), octets)
            self.failureResultOf(maybeDeferred(quota, "cat"), StoreTrouble)
