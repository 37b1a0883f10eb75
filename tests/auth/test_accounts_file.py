"""The accounts file: what its lines mean, and that editing it loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts.accounts_file import AccountsFile
from pop3toy.auth.accounts.admin import (
    AccountExists,
    NoSuchAccount,
    add_user,
    delete_user,
    list_users,
    set_password,
)
from pop3toy.auth.accounts.edit import edit_file
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.passwd_file import parse, with_account, with_password_renewed, without_account
from pop3toy.net.threads import run_now
from pop3toy.net.watched_file import being_written

DOVECOT = b"""\
# users
ann:{PLAIN}one:1000:1000:Ann=E:/home/a=b:/sbin/nologin:userdb_quota_rule=* allow_nets=127.0.0.0/8,192.0.2.7
bob:{SSHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI
\t
carl:{PLAIN}three:quota=5M:nologin:
dora:$5$FknTo8PYT4vZs1VA$Ou7DsK1CPs7s46sIqnh3Mr89.jPTdbPFgVfnsKSSemC::::::
emil:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=:quota=1M
"""


class ParseTests(SynchronousTestCase):
    """Reading."""

    def test_dovecot(self) -> None:
        """A passwd-file of Dovecot's is understood, with its extra fields."""
        accounts = parse(DOVECOT)
        self.assertEqual((), accounts.problems)
        self.assertEqual(["ann", "bob", "carl", "dora", "emil"], list(accounts.by_name))
        ann = accounts.by_name["ann"]
        self.assertEqual(b"one", ann.password.secret)
        self.assertEqual("*", ann.settings["userdb_quota_rule"])
        self.assertEqual("5M", accounts.by_name["carl"].settings["quota"])
        self.assertEqual("1M", accounts.by_name["emil"].settings["quota"])
        self.assertIsNotNone(accounts.by_name["emil"].password.verifier("sha256"))

    def test_broken_lines(self) -> None:
        """A broken line is reported with its number and locks nobody else out."""
        lines = [
            b"ann:{PLAIN}one",
            b"no colon",
            b"b\xffb:{PLAIN}x",
            b"carl:secret",
            b"dora:{NEW}secret",
            b":{PLAIN}x",
            b"../etc:{PLAIN}x",
            b"ann:{PLAIN}two",
            b"emil:{PLAIN}x:allow_nets=nonsense",
            b"zoe:{PLAIN}three",
        ]
        accounts = parse(b"\r\n".join(lines))
        self.assertEqual({"ann", "zoe"}, set(accounts.by_name))
        self.assertEqual(b"one", accounts.by_name["ann"].password.secret)
        self.assertEqual([2, 3, 4, 5, 6, 7, 8, 9], [problem.line for problem in accounts.problems])
        for problem in accounts.problems:
            self.assertRegex(str(problem), r"^line \d: .")
            self.assertNotIn("secret", str(problem))

    @given(st.binary(max_size=80) | st.text(alphabet=":{}\n#= a\tPLAIN.b64", max_size=60).map(str.encode))
    def test_never_raises(self, text: bytes) -> None:
        """Any octets are accounts and problems."""
        parse(text)

    def test_networks(self) -> None:
        """``nologin`` and ``allow_nets`` keep a user out, as in Dovecot."""
        accounts = parse(DOVECOT)
        ann, bob, carl = (accounts.by_name[name] for name in ("ann", "bob", "carl"))
        hosts = ("127.0.0.1", "::ffff:192.0.2.7", "198.51.100.1", "::1", "fe80::1%eth0", "unix", None)
        self.assertEqual([True, True] + [False] * 5, [ann.login_allowed(host) for host in hosts])
        self.assertEqual([True] * 7, [bob.login_allowed(host) for host in hosts])
        self.assertEqual([False] * 7, [carl.login_allowed(host) for host in hosts])
        local = parse(b"ann:{PLAIN}x:allow_nets=local,::1").by_name["ann"]
        self.assertEqual(
            [False, False, False, True, False, True, True], [local.login_allowed(host) for host in hosts]
        )

    def test_abilities(self) -> None:
        """The accounts say which mechanisms can work."""
        for text, has_plaintext, hashes in (
            (b"", False, set()),
            (b"ann:{PLAIN}x", True, {"sha1", "sha256"}),
            (b"bob:{SSHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI", False, set()),
            (DOVECOT.splitlines(True)[-1], False, {"sha256"}),
        ):
            accounts = parse(text)
            self.assertEqual((has_plaintext, hashes), (accounts.has_plaintext, set(accounts.scram_hashes)))

    def test_cram_md5(self) -> None:
        """What is kept for CRAM-MD5 makes that mechanism possible and no other."""
        kept = b"ann:{HMAC-MD5}%b\n" % (b"0" * 64)
        accounts = parse(kept)
        self.assertEqual((True, False), (accounts.cram_contexts, accounts.has_plaintext))
        self.assertFalse(parse(b"ann:{PLAIN}x").cram_contexts)
        both = parse(kept + b"bob:{PLAIN}x\n").unsupported_mechanisms(also_others=False)
        self.assertEqual({"APOP": 1, "SCRAM-SHA-1": 1, "SCRAM-SHA-256": 1}, both)

    def test_spelled(self) -> None:
        """A name is found exactly as it is written first, then in any case where that is one alone."""
        accounts = parse(b"Zed:{PLAIN}x\nzED:{PLAIN}x\neve@Example.org:{PLAIN}x\n")
        for name, user in (
            ("Zed", "Zed"), ("zED", "zED"), ("zed", None),
            ("EVE@example.org", "eve@Example.org"),
            ("eve", None),
        ):  # fmt: skip
            self.assertEqual(user, accounts.names.find(name), name)

    def test_decoys(self) -> None:
        """There is one decoy of each slow kind, however many users have it."""
        self.assertEqual(
            {"SHA256-CRYPT", "SCRAM-SHA-256"}, {dummy.scheme for dummy in parse(DOVECOT * 2).dummy_passwords}
        )
        self.assertEqual((), parse(b"ann:{PLAIN}x").dummy_passwords)


class ByteOrderMarkTests(SynchronousTestCase):
    """What some editors put before the first line."""

    def test_read_and_changed(self) -> None:
        """The first user is known all the same, and can be changed."""
        text = b"\xef\xbb\xbfann:{PLAIN}secret\nbob:{PLAIN}other\n"
        self.assertEqual(set(parse(text).by_name), {"ann", "bob"})
        changed = parse(with_account(text, "ann", b"{PLAIN}new"))
        self.assertEqual(changed.problems, ())
        self.assertEqual(changed.by_name["ann"].password.secret, b"new")


class ChangeTests(SynchronousTestCase):
    """Changing the text."""

    def test_password_alone(self) -> None:
        """A new password changes that field and nothing else, whatever stands around it."""
        text = b"# decoy-key: QUJD\n" + DOVECOT
        for name, old in (
            (b"ann", b"{PLAIN}one"),
            (b"dora", b"$5$FknTo8PYT4vZs1VA$Ou7DsK1CPs7s46sIqnh3Mr89.jPTdbPFgVfnsKSSemC"),
            (b"emil", re.search(rb"SCRAM.*2dU=", DOVECOT)[0]),  # type: ignore[index]
        ):
            for ends in (b"\n", b"\r\n"):
                before = text.replace(b"\n", ends)
                changed = with_account(before, name.decode(), b"{PLAIN}new")
                self.assertEqual(before.replace(name + b":" + old, name + b":{PLAIN}new"), changed)
                self.assertEqual(b"new", parse(changed).by_name[name.decode()].password.secret)

    def test_new_user(self) -> None:
        """A new user is a line at the end, also behind a last line without an end."""
        changed = with_account(b"ann:{PLAIN}x", "zoë", b"{PLAIN}y", {"quota": "1M"})
        self.assertTrue(changed.endswith("ann:{PLAIN}x\nzoë:{PLAIN}y:quota=1M\n".encode()))
        self.assertEqual("1M", parse(changed).by_name["zoë"].settings["quota"])

    def test_decoy_key(self) -> None:
        """An edited file has one key of its own, which stays."""
        once = with_account(b"", "ann", b"{PLAIN}x")
        twice = with_account(once, "bob", b"{PLAIN}x")
        self.assertIsNotNone(parse(once).dummy_key)
        self.assertEqual(parse(once).dummy_key, parse(twice).dummy_key)
        self.assertNotEqual(parse(once).dummy_key, parse(with_account(b"", "ann", b"{PLAIN}x")).dummy_key)

    def test_not_written(self) -> None:
        """What could not be read back is not written."""
        for name in ("", "a:b", "a b", "#a", "a\nb", "..", ".a", "a/b", "x" * 300):
            with self.assertRaises(ValueError):
                with_account(b"", name, b"{PLAIN}x")
        for settings in ({"quota": "1 M"}, {"quota": "a:b"}, {"": "x"}, {"a b": "x"}, {"quota": "1\n"}):
            with self.assertRaises(ValueError):
                with_account(b"", "ann", b"{PLAIN}x", settings)
        with self.assertRaises(ValueError):
            with_account(b"", "ann", b"plain")

    def test_renewal_steps_back(self) -> None:
        """A renewed hash does not undo a password that was changed meanwhile, nor bring a user back."""
        old = parse(b"ann:{PLAIN}old").by_name["ann"]
        for text in (b"ann:{PLAIN}changed\n", b"bob:{PLAIN}x\n", b""):
            self.assertEqual(text, with_password_renewed(text, old, b"{PLAIN}renewed"))
        self.assertIn(
            b"ann:{PLAIN}renewed", with_password_renewed(b"ann:{PLAIN}old\n", old, b"{PLAIN}renewed")
        )

    def test_without(self) -> None:
        """Removing a user removes that user's lines."""
        self.assertEqual(
            b"# x\nbob:{PLAIN}x\n", without_account(b"# x\nann:{PLAIN}x\nbob:{PLAIN}x\nann:y\n", "ann")
        )
        with self.assertRaises(KeyError):
            without_account(b"bob:{PLAIN}x\n", "ann")


def _add_many(path: str, prefix: str) -> None:
    for number in range(25):
        add_user(path, f"{prefix}{number}", "secret", scheme="PLAIN")


class EditTests(SynchronousTestCase):
    """Changing the file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def test_mode(self) -> None:
        """A new file is for its owner alone, an existing one is never opened to the world."""
        edit_file(self.path, lambda text: b"x")
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        self.path.chmod(0o644)
        edit_file(self.path, lambda text: b"y")
        self.assertEqual(0o640, stat.S_IMODE(self.path.stat().st_mode))

    def test_atomic(self) -> None:
        """Who has the old file open goes on reading the old text."""
        self.path.write_bytes(b"old")
        with self.path.open("rb") as reader:
            edit_file(self.path, lambda text: text + b" and new")
            self.assertEqual(b"old", reader.read())
        self.assertEqual(b"old and new", self.path.read_bytes())

    def test_believed_at_once(self) -> None:
        """However fast it is, an edited file is not taken for one that is being written; the user is gone."""
        self.patch(os, "fsync", lambda descriptor: None)
        add_user(self.path, "ann", "x", scheme="PLAIN")
        file = AccountsFile(self.path, HashingQueue(run_now), Clock())
        for number in range(20):
            user = f"u{number}"
            add_user(self.path, user, "x", scheme="PLAIN")
            self.assertFalse(being_written(self.path.stat(), time.time()))
            self.assertEqual(self.successResultOf(maybeDeferred(file.canonical_name, user)), user)
            delete_user(self.path, user)
            self.assertIsNone(self.successResultOf(maybeDeferred(file.canonical_name, user)))

    def test_link(self) -> None:
        """A symbolic link stays a link."""
        target = Path(self.mktemp())
        target.write_bytes(b"old")
        self.path.symlink_to(target.resolve())
        edit_file(self.path, lambda text: b"new")
        self.assertTrue(self.path.is_symlink())
        self.assertEqual(b"new", target.read_bytes())

    def test_change_fails(self) -> None:
        """If the change raises, the file stays and nothing lies about."""
        self.path.write_bytes(b"old")
        before = os.listdir(self.path.parent or ".")
        with self.assertRaises(ZeroDivisionError):
            edit_file(self.path, lambda text: b"%d" % (1 // 0))
        self.assertEqual(b"old", self.path.read_bytes())
        self.assertEqual(before, os.listdir(self.path.parent or "."))

    def test_writing_fails(self) -> None:
        """If the new text cannot be written, the old stays and nothing lies about."""
        self.path.write_bytes(b"old")
        before = os.listdir(self.path.parent)
        with self.assertRaises(TypeError):
            edit_file(self.path, lambda text: "not octets")  # type: ignore[arg-type]
        self.assertEqual((b"old", before), (self.path.read_bytes(), os.listdir(self.path.parent)))

    def test_descriptors(self) -> None:
        """Every file and folder that was opened is closed again, whether it goes well or not."""
        edit_file(self.path, lambda text: b"1")
        before = os.listdir("/proc/self/fd")
        for number in range(3):
            edit_file(self.path, lambda text: text)
            edit_file(self.path, lambda text, number=number: b"new %d" % number)
            with self.assertRaises(TypeError):
                edit_file(self.path, lambda text: "not octets")  # type: ignore[arg-type]
        self.assertEqual(before, os.listdir("/proc/self/fd"))

    def test_processes(self) -> None:
        """Four processes that add users to one file at once lose none."""
        context = multiprocessing.get_context("fork")
        queue = [context.Process(target=_add_many, args=(str(self.path), prefix)) for prefix in "abcd"]
        for worker in queue:
            worker.start()
        for worker in queue:
            worker.join()
        self.assertEqual(
            {f"{p}{n}" for p in "abcd" for n in range(25)}, set(parse(self.path.read_bytes()).by_name)
        )


class AdminTests(SynchronousTestCase):
    """Adding, changing, removing and listing users."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        add_user(self.path, "ann", "one", settings={"quota": "1M"})

    def account(self, name: str) -> Any:
        return list_users(self.path).by_name[name]

    def test_add(self) -> None:
        """A new user's password is argon2id unless asked otherwise."""
        add_user(self.path, "bob", "two:2", scheme="PLAIN")
        add_user(self.path, "carl", "three", scheme="SCRAM-SHA-256")
        self.assertEqual("ARGON2ID", self.account("ann").password.scheme)
        self.assertEqual(b"two:2", self.account("bob").password.secret)
        self.assertIsNotNone(self.account("carl").password.verifier("sha256"))
        self.assertEqual({"quota": "1M"}, self.account("ann").settings)

    def test_set_password(self) -> None:
        """The new password counts, the old one does not, the settings stay."""
        set_password(self.path, "ann", "new")
        ann = self.account("ann")
        self.assertEqual((True, False), (ann.password.verify(b"new"), ann.password.verify(b"one")))
        self.assertEqual({"quota": "1M"}, ann.settings)

    def test_mechanisms_stay(self) -> None:
        """A new password is kept for the mechanisms that the old one was kept for, unless asked otherwise."""
        add_user(self.path, "bob", "two", scheme="PLAIN")
        edit_file(self.path, lambda text: text + b"carl:{SSHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI\n")
        for name, scheme, expected in (
            ("bob", None, "PLAIN"),
            ("carl", None, "ARGON2ID"),
            ("bob", "SCRAM-SHA-1", "SCRAM-SHA-1"),
            ("bob", None, "SCRAM-SHA-1"),
        ):
            set_password(self.path, name, "new", scheme=scheme)
            self.assertEqual(expected, self.account(name).password.scheme)
            self.assertTrue(self.account(name).password.verify(b"new"))

    def test_delete(self) -> None:
        """A removed user is gone."""
        delete_user(self.path, "ann")
        self.assertEqual({}, dict(list_users(self.path).by_name))

    def test_refused(self) -> None:
        """What cannot be is said, and changes nothing."""
        before = self.path.read_bytes()
        for error, attempt in (
            (AccountExists, lambda: add_user(self.path, "ann", "x")),
            (NoSuchAccount, lambda: set_password(self.path, "bob", "x")),
            (NoSuchAccount, lambda: delete_user(self.path, "bob")),
            (ValueError, lambda: add_user(self.path, "bob", "")),
            (ValueError, lambda: add_user(self.path, "bob", "a\nb")),
            (ValueError, lambda: add_user(self.path, "b b", "x")),
            (ValueError, lambda: add_user(self.path, "bob", "x", scheme="ROT13")),
        ):
            with self.assertRaises(error):
                attempt()
        self.assertEqual(before, self.path.read_bytes())

    def test_missing_file(self) -> None:
        """Changing a user of a file that is not there does not make it."""
        nowhere = Path(self.mktemp())
        for attempt in (lambda: set_password(nowhere, "ann", "x"), lambda: delete_user(nowhere, "ann")):
            with self.assertRaises(FileNotFoundError):
                attempt()
        self.assertFalse(nowhere.exists())
