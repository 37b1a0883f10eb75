"""``pop3toy user``: renaming, disabling, app passwords, and how full mailboxes are."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from unittest import mock

from pop3toy.auth.accounts import admin
from pop3toy.auth.accounts.admin import RENAMED_FROM, list_users
from pop3toy.auth.app_passwords.last_use import file_of
from pop3toy.stores.objects.settings import Objects
from pop3toy.stores.registry import kind_of

from ..cli_world import CommandTests


class UserCareTests(CommandTests):
    """On an accounts file and Maildirs."""

    def setUp(self) -> None:
        super().setUp()
        self.accounts.write_text("ann:{PLAIN}one:quota=1K\nbob:{PLAIN}two\n")
        self.deliver()

    def names(self) -> list[str]:
        """The users."""
        return list(list_users(self.accounts).by_name)

    def test_rename(self) -> None:
        """Account and mailbox have the new name, and all else stays."""
        before = [file.name for file in self.files()]
        done = self.run_command("user", "rename", "{A}", "{M}", "Ann", "anna")
        self.assertEqual(done, (0, "User Ann is anna now, with the mailbox.\n", ""))
        self.assertEqual(self.accounts.read_text(), "anna:{PLAIN}one:quota=1K\nbob:{PLAIN}two\n")
        self.assertEqual(before, [file.name for file in self.files("anna")])
        self.assertFalse((self.root / "mail" / "ann").exists())
        # Who has no mailbox has none afterwards.
        self.assertEqual(
            self.run_command("user", "rename", "{A}", "{M}", "bob", "rob").out, "User bob is rob now.\n"
        )
        self.assertEqual(self.names(), ["anna", "rob"])

    def test_rename_refused(self) -> None:
        """Nothing changes where the name is taken, mail is in the way, or a session has the mailbox open."""
        before = self.accounts.read_text()
        for words, status in (
            (("ann", "bob"), os.EX_DATAERR),
            (("ann", "a/b"), os.EX_DATAERR),
            (("zoe", "anna"), os.EX_NOUSER),
        ):
            self.assertEqual(self.run_command("user", "rename", "{A}", "{M}", *words).status, status)
        self.assertEqual(self.run_command("user", "rename", "{A}", "ann", "x").status, os.EX_USAGE)
        self.deliver(b"Subject: another\n\n", "carl")
        self.assertIn("already", self.run_command("user", "rename", "{A}", "{M}", "ann", "carl").err)
        self.assertIn("already", self.run_command("user", "rename", "{A}", "{M}", "bob", "carl").err)
        session = os.open(self.root / "mail" / "ann", os.O_RDONLY)
        self.addCleanup(os.close, session)
        fcntl.flock(session, fcntl.LOCK_EX)
        held = self.run_command("user", "rename", "{A}", "{M}", "ann", "anna")
        self.assertEqual((held.status, held.out), (os.EX_TEMPFAIL, ""))
        self.assertIn("[IN-USE]", held.err)
        self.assertEqual(self.accounts.read_text(), before)
        self.assertEqual(len(self.files()), 1)

    def test_rename_cut_short(self) -> None:
        """Behind a crash between account and mailbox the same command comes to the end."""
        admin.rename_user(self.accounts, "ann", "anna")
        self.assertEqual(list_users(self.accounts).by_name["anna"].settings[RENAMED_FROM], "ann")
        # A login has made an empty one meanwhile.
        for part in ("new", "cur", "tmp"):
            (self.root / "mail" / "anna" / part).mkdir(parents=True)
        self.assertEqual(self.run_command("user", "rename", "{A}", "{M}", "ann", "anna").status, 0)
        self.assertEqual(len(self.files("anna")), 1)
        self.assertEqual(self.names(), ["anna", "bob"])
        self.assertNotIn(RENAMED_FROM, self.accounts.read_text())
        # And behind one after the mailbox.
        admin.set_setting(self.accounts, "anna", RENAMED_FROM, "ann")
        self.assertEqual(self.run_command("user", "rename", "{A}", "{M}", "ann", "anna").status, 0)
        self.assertNotIn(RENAMED_FROM, self.accounts.read_text())

    def test_rename_fails(self) -> None:
        """Where the mailbox cannot be renamed the account keeps its name."""
        before = self.accounts.read_text()
        with mock.patch("pop3toy.stores.maildir.admin.os.rename", side_effect=OSError(5, "no disk")):
            self.assertNotEqual(self.run_command("user", "rename", "{A}", "{M}", "ann", "anna").status, 0)
        self.assertEqual(self.accounts.read_text(), before)
        self.assertEqual(len(self.files()), 1)

    def test_disable(self) -> None:
        """Disabled and enabled: the line is as it was."""
        before = self.accounts.read_text()
        self.assertEqual(self.run_command("user", "disable", "{A}", "ann").status, 0)
        self.assertFalse(list_users(self.accounts).by_name["ann"].login_allowed("127.0.0.1"))
        self.assertIn("disabled", self.run_command("user", "list", "{A}").out)
        self.assertEqual(self.deliver().status, 0)
        self.assertEqual(self.run_command("user", "enable", "{A}", "ann").status, 0)
        self.assertEqual(self.accounts.read_text(), before)

    def test_app_passwords(self) -> None:
        """Added, shown once, listed and revoked."""
        made = self.run_command("user", "app-password", "add", "{A}", "ann", "phone")
        self.assertRegex(made.out, r"\A[a-z2-7]{26}\n\Z")
        self.assertNotIn(made.out.strip(), self.accounts.read_text() + made.err)
        self.assertRegex(
            self.run_command("user", "app-password", "list", "{A}", "ann").out,
            r"\Aphone  made \d{4}-\d\d-\d\d  never used\n\Z",
        )
        [told] = json.loads(self.run_command("user", "app-password", "list", "{A}", "--json", "ann").out)
        self.assertEqual((told["name"], told["used"]), ("phone", None))
        self.assertEqual(self.run_command("user", "app-password", "only", "{A}", "ann", "yes").status, 0)
        self.assertIn("app passwords only: phone", self.run_command("user", "list", "{A}").out)
        again = self.run_command("user", "app-password", "add", "{A}", "ann", "phone")
        self.assertEqual((again.status, again.out), (os.EX_DATAERR, ""))
        self.assertEqual(self.run_command("user", "app-password", "only", "{A}", "ann", "no").status, 0)
        self.assertEqual(self.run_command("user", "app-password", "revoke", "{A}", "ann", "phone").status, 0)
        self.assertNotIn("app-password", self.accounts.read_text())
        self.assertFalse(file_of(self.accounts).exists())

    def test_list(self) -> None:
        """How full each mailbox is, for people and programs; no secret of anybody."""
        octets = self.files()[0].stat().st_size
        [ann, bob] = self.run_command("user", "list", "{A}", "{M}").out.splitlines()
        self.assertEqual(
            ann.split(), f"ann PLAIN {octets} of 1,024 ({100 * octets // 1024} %) quota=1K".split()
        )
        self.assertEqual(bob.split(), ["bob", "PLAIN", "no", "mailbox"])
        self.run_command("user", "app-password", "add", "{A}", "ann", "phone")
        [ann_told, bob_told] = json.loads(self.run_command("user", "list", "{A}", "{M}", "--json").out)
        self.assertEqual(ann_told["octets"], octets)
        self.assertEqual((ann_told["quota"], ann_told["percent"]), (1024, 100 * octets // 1024))
        self.assertEqual(ann_told["app_passwords"][0]["name"], "phone")
        self.assertEqual(ann_told["settings"], {})
        self.assertEqual((bob_told["octets"], bob_told["quota"]), (None, None))
        self.assertNotIn("octets", json.loads(self.run_command("user", "list", "{A}", "--json").out)[0])

    def test_del_is_remove(self) -> None:
        """Both names work."""
        for name, user in (("remove", "ann"), ("del", "bob")):
            self.assertEqual(self.run_command("user", name, "{A}", "--yes", user).status, 0)
        self.assertEqual(self.names(), [])


class UserCareStoreTests(CommandTests):
    """On users and mail in an object store, within one process."""

    def test_rename(self) -> None:
        """The same words do the same; the mailbox goes along, and what was cut short comes to its end."""
        url = f"memory://{secrets.token_hex(8)}"
        kind = kind_of(Objects(url))
        self.addCleanup(object.__setattr__, kind, "one_process", kind.one_process)
        object.__setattr__(kind, "one_process", lambda settings: "")
        where = ("--accounts=objects", f"--store={url}")
        self.run_command("user", "add", *where, "--stdin", "-s", "PLAIN", "-q", "1K", "ann", stdin=b"one\n")
        self.run_command("user", "add", *where, "--stdin", "-s", "PLAIN", "bob", stdin=b"two\n")
        self.run_command("deliver", f"--store={url}", "ann", stdin=b"Subject: x\n\nx\n")
        listed = self.run_command("user", "list", *where).out
        self.assertIn("of 1,024", listed)
        done = self.run_command("user", "rename", *where, "ann", "anna")
        self.assertEqual(done, (0, "User ann is anna now, with the mailbox.\n", ""))
        self.assertEqual(
            self.run_command("user", "list", *where).out.replace("anna", "ann ").split(), listed.split()
        )
        self.assertIn(
            "Subject", self.run_command("mailbox", "show", f"--store={url}", "anna", "1").out or "Subject"
        )
        self.assertEqual(self.run_command("mailbox", "list", f"--store={url}", "ann").status, os.EX_NOUSER)
        self.assertEqual(self.run_command("user", "rename", *where, "bob", "anna").status, os.EX_DATAERR)
        with mock.patch("pop3toy.stores.objects.users.Users.forget_maildrop", side_effect=KeyboardInterrupt):
            self.assertNotEqual(self.run_command("user", "rename", *where, "anna", "zoe").status, 0)
        self.assertEqual(self.run_command("user", "rename", *where, "anna", "zoe").status, 0)
        names = [one["name"] for one in json.loads(self.run_command("user", "list", *where, "--json").out)]
        self.assertEqual(names, ["bob", "zoe"])
        self.assertEqual(self.run_command("mailbox", "list", f"--store={url}", "anna").status, os.EX_NOUSER)
