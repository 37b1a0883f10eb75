"""App passwords: what is kept of them, whom they let in, and what is written of their use."""

from __future__ import annotations

from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts import admin
from pop3toy.auth.accounts.accounts_file import AccountsFile
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.passwd_file import parse, with_setting, without_setting
from pop3toy.auth.accounts.verifier import derive
from pop3toy.auth.app_passwords import admin as app_passwords
from pop3toy.auth.app_passwords.kept import AppPassword, make
from pop3toy.auth.app_passwords.last_use import file_of
from pop3toy.auth.credentials import ApopDigest, ClearPassword, MainPassword
from pop3toy.net.threads import run_now

from ..folders import new_folder
from .records_world import FakeRecords, checker_of


class AppPasswordTests(SynchronousTestCase):
    """In an accounts file."""

    def setUp(self) -> None:
        self.path = new_folder(self) / "accounts"
        self.day = "2026-11-30"
        for name, scheme in (("ann", "ARGON2ID"), ("bob", "SCRAM-SHA-256"), ("cat", "PLAIN")):
            admin.add_user(self.path, name, "main password", scheme=scheme)
        self.secrets = {
            name: app_passwords.add(self.path, name, "phone", today=self.day)
            for name in ("ann", "bob", "cat")
        }

    def checker(self, **options: Any) -> AccountsFile:
        """What checks them."""
        return AccountsFile(self.path, HashingQueue(run_now), Clock(), today=lambda: self.day, **options)

    def lets_in(
        self, checker: Any, user: str, password: str, kind: type[ClearPassword] = ClearPassword
    ) -> bool:
        """Whether a password is taken."""
        found = maybeDeferred(checker.requestAvatarId, kind(user.encode(), password.encode()))
        outcome: list[Any] = []
        found.addBoth(outcome.append)
        if isinstance(outcome[0], Failure):
            self.assertTrue(outcome[0].check(UnauthorizedLogin), outcome[0])
            return False
        self.assertEqual([user.encode()], outcome)
        return True

    def used(self, user: str) -> list[str]:
        """When the user's app passwords were used."""
        return [one.used for one in app_passwords.known(self.path, user)]

    def test_lets_in(self) -> None:
        """It does what the main password does, for its own user alone, until it is revoked."""
        checker = self.checker()
        for user in ("ann", "bob", "cat"):
            self.assertTrue(self.lets_in(checker, user, self.secrets[user]))
            self.assertTrue(self.lets_in(checker, user, "main password"))
            self.assertFalse(self.lets_in(checker, user, self.secrets["ann" if user != "ann" else "bob"]))
            self.assertFalse(self.lets_in(checker, user, ""))
        app_passwords.revoke(self.path, "ann", "phone")
        checker = self.checker()
        self.assertFalse(self.lets_in(checker, "ann", self.secrets["ann"]))
        self.assertTrue(self.lets_in(checker, "ann", "main password"))
        with self.assertRaises(app_passwords.NoSuchAppPassword):
            app_passwords.revoke(self.path, "ann", "phone")

    def test_not_for_the_page(self) -> None:
        """Whoever has an app password alone cannot change the main one."""
        self.assertFalse(self.lets_in(self.checker(), "ann", self.secrets["ann"], MainPassword))
        self.assertTrue(self.lets_in(self.checker(), "ann", "main password", MainPassword))

    def test_only(self) -> None:
        """The main password can be barred from mail, with every mechanism, and is right for the page."""
        for user in ("ann", "bob", "cat"):
            app_passwords.set_only(self.path, user, True)
        checker = self.checker()
        for user in ("ann", "bob", "cat"):
            self.assertFalse(self.lets_in(checker, user, "main password"))
            self.assertTrue(self.lets_in(checker, user, "main password", MainPassword))
            self.assertTrue(self.lets_in(checker, user, self.secrets[user]))
            kept = self.successResultOf(maybeDeferred(checker.verifier, user, "sha256"))
            self.assertFalse(any(one.fits(b"main password", "sha256") for one in (kept, *kept.others)))
        right = type("Right", (ApopDigest,), {"checkPassword": lambda self, password: True})
        self.failureResultOf(
            maybeDeferred(checker.requestAvatarId, right(b"cat", b"", "<1@x>")), UnauthorizedLogin
        )
        app_passwords.set_only(self.path, "ann", False)
        self.assertTrue(self.lets_in(self.checker(), "ann", "main password"))
        admin.add_user(self.path, "dora", "x")
        with self.assertRaises(ValueError):
            app_passwords.set_only(self.path, "dora", True)

    def test_barred(self) -> None:
        """A disabled user's app password lets nobody in."""
        admin.set_setting(self.path, "ann", "nologin", "y")
        self.assertFalse(self.lets_in(self.checker(), "ann", self.secrets["ann"]))
        admin.remove_setting(self.path, "ann", "nologin")
        self.assertTrue(self.lets_in(self.checker(), "ann", self.secrets["ann"]))

    def test_scram(self) -> None:
        """One exchange takes all passwords of a user that have one salt; a new main password keeps it."""
        app_passwords.add(self.path, "bob", "pc", today=self.day)
        admin.set_password(self.path, "bob", "another one")
        kept = self.successResultOf(maybeDeferred(self.checker().verifier, "bob", "sha256"))
        passwords = ("another one", self.secrets["bob"])
        for password in passwords:
            made = derive(password.encode(), "sha256", kept.salt, kept.iterations)
            self.assertIn(made.stored_key, [one.stored_key for one in (kept, *kept.others)])
        self.assertEqual(2, len(kept.others))
        # Where the server knows the main password it makes a verifier with the same salt.
        kept = self.successResultOf(maybeDeferred(self.checker().verifier, "cat", "sha256"))
        self.assertTrue(kept.fits(b"main password", "sha256"))
        self.assertEqual(1, len(kept.others))
        # SCRAM-SHA-1 has none of them.
        kept = self.successResultOf(maybeDeferred(self.checker().verifier, "cat", "sha1"))
        self.assertEqual((), kept.others)

    def test_not_announced(self) -> None:
        """Other users could not use SCRAM, so that an app password is no reason to announce it."""
        admin.delete_user(self.path, "bob")
        admin.delete_user(self.path, "cat")
        self.assertEqual(frozenset(), self.checker().scram_hashes())

    def test_announced_for_the_main_password(self) -> None:
        """What needs a main password in clear text is announced only where one is for mail."""
        self.assertTrue(self.checker().has_plaintext())
        app_passwords.set_only(self.path, "cat", True)
        checker = self.checker()
        self.assertFalse(checker.has_plaintext())
        self.assertFalse(checker.cram_md5())
        self.assertEqual(frozenset({"sha256"}), checker.scram_hashes())
        # It works for all, bob's main password included.
        self.assertEqual(
            {"SCRAM-SHA-256": 1}, parse(self.path.read_bytes()).unsupported_mechanisms(also_others=False)
        )

    def test_not_for_all_mechanisms(self) -> None:
        """Where some mechanisms take no app password the start says so."""
        text = b"".join(line for line in self.path.read_bytes().splitlines(True) if b"cat:" in line)
        self.assertEqual(
            {"APOP": 1, "CRAM-MD5": 1, "SCRAM-SHA-1": 1},
            parse(text).unsupported_mechanisms(also_others=False),
        )

    def test_told_why(self) -> None:
        """A failure that may be an app password's is told once a day, of users who have one."""
        checker = self.checker()
        with capturedLogs() as events:
            for user in (b"cat", b"cat", b"dora"):
                asked = maybeDeferred(checker.requestAvatarId, ApopDigest(user, b"wrong", "<1@x>"))
                self.failureResultOf(asked, UnauthorizedLogin)
        [event] = events
        self.assertIn("cat has app passwords, which APOP and CRAM-MD5", formatEvent(event) or "")

    def test_not_renewed(self) -> None:
        """An outdated hash is not replaced by that of an app password."""
        self.path.write_bytes(
            with_setting(b"eve:{SSHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI\n", "eve", "quota", "1M")
        )
        secret = app_passwords.add(self.path, "eve", "phone", today=self.day)
        self.assertTrue(self.lets_in(self.checker(renew=True), "eve", secret))
        self.assertEqual("SSHA", admin.list_users(self.path).by_name["eve"].password.scheme)

    def test_last_use(self) -> None:
        """It is written once a day, beside the accounts file, and goes with the user."""
        checker, accounts = self.checker(), self.path.read_bytes()
        self.assertEqual([""], self.used("ann"))
        self.lets_in(checker, "ann", "main password")
        self.assertEqual([""], self.used("ann"))
        self.lets_in(checker, "ann", self.secrets["ann"])
        self.assertEqual(["2026-11-30"], self.used("ann"))
        file_of(self.path).unlink()
        self.lets_in(checker, "ann", self.secrets["ann"])
        self.assertEqual([""], self.used("ann"))
        self.day = "2026-12-01"
        self.lets_in(checker, "ann", self.secrets["ann"])
        self.assertEqual(["2026-12-01"], self.used("ann"))
        self.assertEqual(accounts, self.path.read_bytes())
        self.assertEqual(0o600, file_of(self.path).stat().st_mode & 0o777)
        admin.rename_user(self.path, "ann", "anna")
        admin.rename_finished(self.path, "anna")
        self.assertEqual(["2026-12-01"], self.used("anna"))
        admin.delete_user(self.path, "anna")
        self.assertEqual(b"", file_of(self.path).read_bytes())

    def test_cannot_be_noted(self) -> None:
        """A folder that cannot be written to is told once, and keeps nobody out."""
        file_of(self.path).mkdir()
        checker = self.checker()
        self.assertTrue(self.lets_in(checker, "ann", self.secrets["ann"]))
        self.assertTrue(self.lets_in(checker, "ann", self.secrets["ann"]))

    def test_kept(self) -> None:
        """What is kept has no secret in it, and old readers see a setting."""
        text = self.path.read_bytes()
        for secret in self.secrets.values():
            self.assertRegex(secret, r"\A[a-z2-7]{26}\Z")
            self.assertNotIn(secret.encode(), text)
            self.assertNotIn(secret, repr(admin.list_users(self.path).by_name))
        self.assertEqual((), parse(text).problems)
        secret, made = make("pc", self.day)
        self.assertEqual(made, AppPassword.of("pc", made.value))
        for broken in ("", "x", made.value + ",", made.value.replace("4096", "many"), "x" + made.value):
            with self.assertRaises(ValueError):
                AppPassword.of("pc", broken)
        text = with_setting(text, "ann", "app-password.pc", "nonsense")
        self.assertEqual(["phone"], [one.name for one in parse(text).by_name["ann"].app_passwords])

    def test_names(self) -> None:
        """A name is there once, and has nothing in it that cannot stand in the file."""
        for name in ("phone", "", "Phone", "a b", "a:b", "-x", "x" * 33, "a=b"):
            with self.assertRaises(ValueError):
                app_passwords.add(self.path, "ann", name)
        with self.assertRaises(admin.NoSuchAccount):
            app_passwords.add(self.path, "nobody", "phone")


class RecordTests(SynchronousTestCase):
    """In records."""

    def test_life(self) -> None:
        """They are the same there; the last use is in the record."""
        records = FakeRecords("ann:{PLAIN}one:quota=5M")
        place = records.place
        secret = app_passwords.add(place, "ann", "phone", today="2026-11-30")
        checker = checker_of(records, run_now)
        self.assertEqual(
            b"ann",
            self.successResultOf(
                maybeDeferred(checker.requestAvatarId, ClearPassword(b"ann", secret.encode()))
            ),
        )
        [known] = app_passwords.known(place, "ann")
        self.assertEqual("2026-11-30", known.made)
        self.assertRegex(known.used, r"\A\d{4}-\d\d-\d\d\Z")
        admin.rename_user(place, "ann", "anna")
        admin.rename_user(place, "ann", "anna")
        admin.rename_finished(place, "anna")
        self.assertEqual(["anna"], list(place.accounts().by_name))
        self.assertEqual([known], list(app_passwords.known(place, "anna")))
        app_passwords.revoke(place, "anna", "phone")
        self.assertEqual("anna:{PLAIN}one:quota=5M", records.lines["anna"])
        records.put("bob:{PLAIN}two")
        with self.assertRaises(admin.AccountExists):
            admin.rename_user(place, "anna", "bob")


class SettingTests(SynchronousTestCase):
    """Settings that go."""

    def test_without(self) -> None:
        """All else of the line stays, wherever the setting stands."""
        for line in (
            b"a:{PLAIN}x%b\n",
            b"a:{PLAIN}x%b:home=/h\n",
            b"a:{PLAIN}x:quota=5M%b\n",
            b"a:{PLAIN}x:1:2:g:/h:%b\n",
        ):
            for word in (b":nologin", b":nologin=y", b" nologin"):
                if word == b" nologin" and b"x%b" in line:
                    continue
                with self.subTest(line=line, word=word):
                    after = without_setting(line % word, "a", "nologin")
                    self.assertEqual(parse(line % b"").by_name["a"], parse(after).by_name["a"])
                    self.assertNotIn(b"nologin", after)
        with self.assertRaises(KeyError):
            without_setting(b"a:{PLAIN}x\n", "b", "nologin")
