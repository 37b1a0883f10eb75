"""``pop3toy user`` on accounts that are kept in an object store, within one process."""

from __future__ import annotations

import os
import secrets

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.config.settings import Settings
from pop3toy.config.toml import read
from pop3toy.errors import BadSetting
from pop3toy.stores.maildir.settings import Maildirs
from pop3toy.stores.objects.connecting import Engines
from pop3toy.stores.objects.records import lease_key
from pop3toy.stores.objects.settings import Objects
from pop3toy.stores.objects.users import Users
from pop3toy.stores.registry import kind_of

from ..cli_world import MESSAGE, CommandTests, Outcome
from ..folders import new_folder


class UserStoreTests(CommandTests):
    """The words of the accounts file, on the store."""

    def setUp(self) -> None:
        super().setUp()
        self.url = f"memory://{secrets.token_hex(8)}"
        kind = kind_of(Objects(self.url))
        # All commands of these tests are of one process.
        self.addCleanup(object.__setattr__, kind, "one_process", kind.one_process)
        object.__setattr__(kind, "one_process", lambda settings: "")

    def user(self, *words: str, stdin: bytes = b"secret\n") -> Outcome:
        """A command on the users of the store."""
        command, *rest = words
        return self.run_command(
            "user", command, "--accounts=objects", f"--store={self.url}", *rest, stdin=stdin
        )

    def users(self) -> Users:
        return Users(Engines(Objects(self.url)))

    def test_life(self) -> None:
        """A user is added, listed, changed and removed by the same words, and says the same."""
        self.assertEqual(self.user("list"), (0, "", ""))
        added = self.user("add", "--stdin", "-s", "PLAIN", "-q", "5M", "ann")
        self.assertEqual(
            added, (0, f"User ann is in {self.url}, with the quota 5M (5,242,880 octets).\n", "")
        )
        self.assertEqual(self.user("add", "--stdin", "Bob", "-s", "SCRAM-SHA-256").status, 0)
        listed = self.user("list")
        self.assertEqual(
            [line.split() for line in listed.out.splitlines()],
            [
                ["Bob", "SCRAM-SHA-256", "0"],
                ["ann", "PLAIN", "0", "of", "5,242,880", "(0", "%)", "quota=5M"],
            ],
        )
        self.assertEqual(self.user("quota", "ANN").out, "5M (5,242,880 octets)\n")
        self.assertEqual(
            self.user("quota", "bob", "1M").out, "User Bob has the quota 1M (1,048,576 octets).\n"
        )
        self.assertEqual(self.user("passwd", "--stdin", "bob").out, "User Bob has a new password.\n")
        self.assertEqual(
            self.user("del", "-y", "ann").out,
            "User ann is gone; the mail is not: pop3toy mailbox remove ann takes it away.\n",
        )
        self.assertEqual(
            self.user("list").out.split(),
            ["Bob", "SCRAM-SHA-256", "0", "of", "1,048,576", "(0", "%)", "quota=1M"],
        )
        # With its mailbox, which stays.
        for name in ("ann", "Bob"):
            self.assertTrue(self.users().find(name).drop)

    def test_import(self) -> None:
        """Users of a file come with passwords and settings as they are; who is there is not changed."""
        self.user("add", "--stdin", "ann")
        hers = self.user("list").out.split()
        lines = (
            b"# friends\nann:{PLAIN}other\nBob:{SCRAM-SHA-256}x,y\nCat:{PLAIN}meow::::::quota=5M nologin\n"
        )
        self.accounts.write_bytes(lines)
        done = self.user("import", str(self.accounts))
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertEqual(done.out, f"User Cat is in {self.url}.\n")
        self.assertIn("User ann was there already", done.err)
        self.assertIn("line 3", done.err)
        cat = ["Cat", "PLAIN", "0", "of", "5,242,880", "(0", "%)", "disabled", "quota=5M"]
        self.assertEqual(self.user("list").out.split(), [*cat, *hers])
        self.assertEqual(self.user("quota", "cat").out, "5M (5,242,880 octets)\n")
        self.assertTrue(self.users().find("Cat").drop)
        self.assertEqual(self.user("import", str(self.root / "none")).status, os.EX_NOINPUT)

    def test_mistakes(self) -> None:
        """What cannot be is told as of a file, and with the same status."""
        self.user("add", "--stdin", "ann")
        for words, status, says in (
            (("add", "--stdin", "ann"), os.EX_DATAERR, "there is a user ann already"),
            (("add", "--stdin", "a b"), os.EX_DATAERR, "holds no blank"),
            (("passwd", "--stdin", "bob"), os.EX_NOUSER, "there is no user bob"),
            (("del", "-y", "bob"), os.EX_NOUSER, "there is no user bob"),
            (("quota", "bob"), os.EX_NOUSER, "there is no user bob"),
        ):
            outcome = self.user(*words)
            self.assertEqual((outcome.status, outcome.out), (status, ""), words)
            self.assertIn(says, outcome.err)

    def test_names_in_another_case(self) -> None:
        """Whoever adds a name that differs in case alone is warned."""
        self.user("add", "--stdin", "ann")
        added = self.user("add", "--stdin", "Ann")
        self.assertEqual(added.status, 0)
        self.assertIn("ann and Ann differ in case alone", added.err)
        self.assertEqual(self.user("quota", "ANN").status, os.EX_NOUSER)

    def test_broken(self) -> None:
        """A line that is not understood is listed, and can be replaced."""
        self.users().edit("ann", lambda record: record._replace(account="ann:{NOPE}x"))
        listed = self.user("list")
        self.assertEqual((listed.status, listed.out), (os.EX_DATAERR, ""))
        self.assertIn(f"{self.url}: the account of 'ann': the password scheme NOPE is not known", listed.err)
        self.assertEqual(self.user("passwd", "--stdin", "ann").status, 0)
        self.assertEqual(self.user("list").status, 0)

    def test_trouble(self) -> None:
        """A store that cannot be used is one line, and may be tried again."""
        self.url = f"file://{self.root}/objects"
        for words in (("list",), ("add", "--stdin", "ann"), ("del", "-y", "ann"), ("quota", "ann")):
            outcome = self.user(*words)
            self.assertEqual((outcome.status, outcome.out, outcome.err.count("\n")), (os.EX_TEMPFAIL, "", 1))

    def test_deliver(self) -> None:
        """Mail finds its user in any spelling, and a quota counts; there is no mailbox for anybody else."""
        self.user("add", "--stdin", "Ann", "-q", "1K")
        options = ("--accounts=objects", f"--store={self.url}", "--create")
        self.assertEqual(self.run_command("deliver", *options, "ANN", stdin=MESSAGE).status, 0)
        larger = self.run_command("deliver", *options, "ann", stdin=MESSAGE + b"x" * 2000)
        self.assertEqual(larger.status, os.EX_UNAVAILABLE, larger.err)
        nobody = self.run_command("deliver", *options, "eve", stdin=MESSAGE)
        self.assertEqual(nobody.status, os.EX_NOUSER)
        self.assertIn("there is no account eve", nobody.err)
        listed = self.run_command("mailbox", "list", *options[:2])
        self.assertRegex(listed.out, r"^Ann +1 message  .* octets, \d+% of 1K used\n$")
        shown = self.run_command("mailbox", "list", *options[:2], "ann")
        self.assertEqual(shown.status, 0, shown.err)

    def test_unlock(self) -> None:
        """A mailbox whose lock was removed can be opened and removed again; one with a lock keeps it."""
        self.user("add", "--stdin", "Ann")
        store = f"--store={self.url}"
        users = self.users()
        record = users.find("Ann")
        Engines(Objects(self.url)).of(record.bucket).delete([lease_key(record.drop)])
        checked = self.run_command("mailbox", "check", store, "Ann")
        self.assertEqual(checked.status, os.EX_DATAERR, checked.out)
        self.assertNotEqual(self.run_command("mailbox", "remove", "-y", store, "Ann").status, 0)
        for said in ("has a new lock", "has a lock; it stays"):
            done = self.run_command("mailbox", "unlock", store, "Ann")
            self.assertEqual(done, (0, f"The mailbox of Ann {said}.\n", ""))
        self.assertEqual(self.run_command("mailbox", "check", store, "Ann").status, 0)
        self.assertEqual(self.run_command("mailbox", "remove", "-y", store, "Ann").status, 0)
        self.assertEqual(self.run_command("mailbox", "unlock", store, "Ann").status, os.EX_NOUSER)


class OptionTests(SynchronousTestCase):
    """``--accounts objects``."""

    def test_needs_a_store(self) -> None:
        """It is for an object store, and a file may be called so all the same."""
        for store in (Maildirs("/x/{user}"), Settings().store):
            why = self.assertRaises(BadSetting, Settings, accounts="objects", store=store)
            self.assertEqual(str(why), "--accounts objects needs --store; a file of this name is ./objects")
        self.assertFalse(Settings(accounts="./objects", store=Maildirs("/x/{user}")).accounts_in_store)
        self.assertTrue(Settings(accounts="objects", store=Objects("memory://")).accounts_in_store)

    def test_in_a_file(self) -> None:
        """In a file of options the word is no file beside it, and ./objects is."""
        folder = new_folder(self)
        path = folder / "pop3toy.toml"
        for said, read_ in (("objects", "objects"), ("./objects", f"{folder}/./objects")):
            path.write_text(f'[accounts]\naccounts = "{said}"\n')
            self.assertEqual(read(str(path))["accounts"], read_)


class ClickTests(CommandTests):
    """The same word for commands."""

    def test_file_of_this_name(self) -> None:
        """``./objects`` is a file, and the word alone needs a store."""
        before = os.getcwd()
        os.chdir(self.root)
        try:
            added = self.run_command("user", "add", "--accounts=./objects", "--stdin", "ann", stdin=b"x\n")
            self.assertEqual(added, (0, "User ann is in ./objects.\n", ""))
            refused = self.run_command("user", "list", "--accounts=objects")
        finally:
            os.chdir(before)
        self.assertEqual(refused.status, os.EX_USAGE)
        self.assertIn("objects needs --store", refused.err)

    def test_memory(self) -> None:
        """Accounts that would be gone when the command ends are refused."""
        words = ("--accounts=objects", "--store=memory://x", "--stdin", "ann")
        refused = self.run_command("user", "add", *words, stdin=b"x\n")
        self.assertEqual(refused.status, os.EX_USAGE)
        self.assertIn("one process alone", refused.err)
