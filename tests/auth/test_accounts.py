"""The checker of an accounts file: threads, time, the cache, rereading and renewal."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pop3toy.auth.accounts import hmac_md5
from pop3toy.auth.accounts.accounts_file import AccountsFile
from pop3toy.auth.accounts.admin import add_user, set_password
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.passwd_file import parse
from pop3toy.auth.accounts.schemes import MissingLibrary, StoredPassword
from pop3toy.auth.accounts.success_cache import SuccessCache
from pop3toy.auth.accounts.verifier import derive
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.credentials import ApopDigest, ClearPassword
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.sasl.cram import CramDigest
from pop3toy.auth.sources import IAccountSource
from pop3toy.auth.throttle.login_throttle import LoginThrottle
from pop3toy.errors import AuthenticationFailed, StoreTrouble
from pop3toy.installation import install_hint
from pop3toy.interfaces import Challenge, Channel, TLSFacts
from pop3toy.net.threads import WorkerThreads

from ..auth_world import LOOPBACK, NETWORK, FakeStore, FakeThreads, say, session


def pbkdf2(password: bytes, rounds: int = 2) -> bytes:
    """A slow scheme, made fast for tests."""
    import hashlib

    return b"{PBKDF2}$1$salt$%d$%s" % (
        rounds,
        hashlib.pbkdf2_hmac("sha1", password, b"salt", rounds).hex().encode(),
    )


def scram(password: bytes) -> bytes:
    """A verifier, made fast for tests."""
    made = derive(password, "sha256", b"0123456789abcdef", 1)
    keys = (base64.b64encode(part) for part in (made.salt, made.stored_key, made.server_key))
    return b"{SCRAM-SHA-256}1," + b",".join(keys)


class AccountsCase(SynchronousTestCase):
    """A file, a clock and threads under control."""

    TEXT = b"ann:%s:quota=1M\nbob:{PLAIN}two\n" % pbkdf2(b"one")

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(self.TEXT)
        self.path.chmod(0o600)
        self.threads = FakeThreads()
        self.clock = Clock()
        self.now = self.path.stat().st_mtime + 1000
        self.accounts = self.checker()

    def checker(self, *, most: int = 64, **options: Any) -> AccountsFile:
        queue = HashingQueue(self.threads, most=most)
        return AccountsFile(self.path, queue, self.clock, wall=lambda: self.now, **options)

    def write(self, text: bytes) -> None:
        """Another program writes the file."""
        self.path.write_bytes(text)
        self.now = self.path.stat().st_mtime + 1000

    def login(self, user: bytes, password: bytes, channel: Channel | None = LOOPBACK) -> Any:
        """The user's name, ``False`` for a refusal, or the Deferred that is waited for."""
        try:
            result = self.accounts.requestAvatarId(ClearPassword(user, password, channel))
        except UnauthorizedLogin:
            return False
        if isinstance(result, Deferred) and result.called:
            result.addErrback(lambda why: why.trap(UnauthorizedLogin) and False)
            return self.successResultOf(result)
        return result


class CheckTests(AccountsCase):
    """Who comes in."""

    def test_passwords(self) -> None:
        """The right one gives the user's name, everything else nothing; a thread checks slow hashes alone."""
        verifyObject(IAccountSource, self.accounts)
        self.assertEqual(b"bob", self.login(b"bob", b"two"))
        self.assertEqual([], self.threads.names)
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual(["_judge"], self.threads.names)
        wrong = [(b"ann", b"two"), (b"bob", b"one"), (b"carl", b"one"), (b"", b""), (b"\xff", b"one")]
        for user, password in (*wrong, (b"ann", b""), (b"# users", b"")):
            self.assertIs(False, self.login(user, password), user)

    def test_equal_work(self) -> None:
        """A failure costs one check of each slow kind in the file, whoever the user is."""
        self.write(
            self.TEXT
            + b"carl:%s\ndora:%s\nemil:{SHA}8UD9IbKwSVQa43L8o9BuL4/fMdA=\n"
            % (
                pbkdf2(b"three", 3),
                pbkdf2(b"four"),
            )
        )
        self.login(b"bob", b"two")
        for user in (b"ann", b"bob", b"carl", b"dora", b"emil", b"nobody", b"\xff"):
            self.threads.calls.clear()
            self.login(user, b"wrong")
            [(_, (*checked, _))] = self.threads.calls
            costs = [
                stored.cost for part in checked for stored in (part if isinstance(part, Sequence) else [part])
            ]
            self.assertEqual(["PBKDF2 (b'2',)", "PBKDF2 (b'3',)"], sorted(costs), user)

    def test_apop(self) -> None:
        """A digest is checked for a recoverable password only."""
        import hashlib

        for user, secret, expected in (
            (b"bob", b"two", b"bob"),
            (b"ann", b"one", False),
            (b"carl", b"x", False),
        ):
            digest = hashlib.md5(b"<a@b>" + secret).hexdigest().encode()
            try:
                outcome = self.accounts.requestAvatarId(ApopDigest(user, digest, "<a@b>"))
            except UnauthorizedLogin:
                outcome = False
            self.assertEqual(expected, outcome)

    def test_cram_md5(self) -> None:
        """Where a password is kept for CRAM-MD5, it is checked, with the same work for all; APOP cannot."""
        self.write(self.TEXT + b"emil:{CRAM-MD5}%b\n" % hmac_md5.contexts(b"four").hex().encode())
        self.login(b"bob", b"two")
        self.assertEqual((True, True), (self.accounts.cram_md5(), self.accounts.has_plaintext()))
        for user, secret, expected in (
            (b"emil", b"four", b"emil"),
            (b"emil", b"five", False),
            (b"bob", b"two", b"bob"),
            (b"ann", b"one", False),
            (b"nobody", b"x", False),
        ):
            digest = hmac.digest(secret, b"<a@b>", "md5").hex().encode()
            checked: list[bytes] = []

            class Counted(CramDigest):
                def check_contexts(self, kept: bytes, checked: list[bytes] = checked) -> bool:
                    checked.append(kept)
                    return super().check_contexts(kept)

            try:
                outcome = self.accounts.requestAvatarId(Counted(user, digest, b"<a@b>", LOOPBACK))
            except UnauthorizedLogin:
                outcome = False
            self.assertEqual((expected, 1), (outcome, len(checked)), user)
        apop = ApopDigest(b"emil", hashlib.md5(b"<a@b>four").hexdigest().encode(), "<a@b>")
        self.assertRaises(UnauthorizedLogin, self.accounts.requestAvatarId, apop)
        self.write(b"ann:%b\n" % pbkdf2(b"one"))
        self.login(b"ann", b"one")
        self.assertFalse(self.accounts.cram_md5())

    def test_networks(self) -> None:
        """An account that is tied to a network is refused from elsewhere, like a wrong password."""
        self.write(b"ann:{PLAIN}one:allow_nets=127.0.0.0/8\nbob:{PLAIN}two:nologin\n")
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertIs(False, self.login(b"ann", b"one", NETWORK))
        self.assertIs(False, self.login(b"ann", b"one", None))
        self.assertIs(False, self.login(b"bob", b"two"))
        self.assertEqual(
            [True, False, False, True],
            [
                self.accounts.login_allowed(user, channel)
                for user, channel in (
                    ("ann", LOOPBACK),
                    ("ann", NETWORK),
                    ("bob", LOOPBACK),
                    ("carl", NETWORK),
                )
            ],
        )

    def test_known(self) -> None:
        """Deliveries can ask whether there is a user, in whatever case, and what is set."""
        for ask in (self.accounts.canonical_name, self.accounts.canonical_name_at_start):
            self.assertEqual(["ann", "ann", None], [ask(user) for user in ("ann", "ANN", "carl")])
        self.assertEqual({"quota": "1M"}, self.accounts.find("ann").settings)
        self.assertIsNone(self.accounts.find("carl"))


class FloodTests(AccountsCase):
    """More slow logins than can be checked."""

    def setUp(self) -> None:
        super().setUp()
        self.threads.later = True
        self.accounts = self.checker(most=3)

    def test_bounded(self) -> None:
        """Beyond the bound a login is refused at once as a temporary trouble; later ones work again."""
        waiting = [self.login(user, b"one") for user in (b"ann", b"ann", b"nobody")]
        with self.assertRaises(StoreTrouble):
            self.login(b"ann", b"one")
        with self.assertRaises(StoreTrouble):
            self.login(b"nobody", b"one")
        self.assertEqual(3, len(self.threads.jobs))
        self.threads.go_on()
        self.assertEqual([b"ann", b"ann"], [self.successResultOf(d) for d in waiting[:2]])
        self.failureResultOf(waiting[2], UnauthorizedLogin)
        self.assertEqual(b"ann", self.login(b"ann", b"one"))

    def test_bounded_by_time(self) -> None:
        """What waits is bounded by how long that takes, as measured: slow hashes few, fast ones many."""
        for seconds, at_least, at_most in ((0.5, 20, 22), (0.05, 180, 201), (0.001, 450, 450)):
            clock, threads = Clock(), FakeThreads(later=True)
            queue = HashingQueue(threads, now=clock.seconds)

            def refused(queue: HashingQueue = queue) -> bool:
                try:
                    queue.run(int).addErrback(lambda why: None)
                except StoreTrouble:
                    return True
                return False

            # Nothing is known yet.
            while not refused():
                pass
            self.assertLessEqual(queue.busy, 101)
            for job in threads.jobs:
                clock.advance(seconds)
                job()
            self.assertEqual(queue.busy, 0)
            while not refused():
                pass
            self.assertTrue(at_least <= queue.busy <= at_most, (seconds, queue.busy))

    def test_idle_time(self) -> None:
        """Time in which nothing was to be done is no time that a check took."""
        clock = Clock()
        queue = HashingQueue(FakeThreads(), now=clock.seconds)
        for _ in range(50):
            clock.advance(3600)
            queue.run(int)
        self.assertLess(queue._mean, 0.1)

    def test_cheap_and_known_pass(self) -> None:
        """Who needs no slow check comes in during the flood: cheap schemes, and who came in a moment ago."""
        first = self.login(b"ann", b"one")
        self.threads.go_on()
        self.assertEqual(b"ann", self.successResultOf(first))
        flood = [self.login(b"nobody%d" % number, b"x") for number in range(3)]
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual(b"bob", self.login(b"bob", b"two"))
        self.assertEqual(3, len(self.threads.jobs))
        self.threads.go_on()
        for attempt in flood:
            self.failureResultOf(attempt, UnauthorizedLogin)


class CacheTests(AccountsCase):
    """The memory of right passwords."""

    def checks(self) -> int:
        return self.threads.names.count("_judge")

    def test_polling(self) -> None:
        """The second login costs no check; after its time it does; a wrong password always does."""
        for _ in range(3):
            self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual(1, self.checks())
        self.assertIs(False, self.login(b"ann", b"ones"))
        self.assertEqual(2, self.checks())
        self.clock.advance(599)
        self.login(b"ann", b"one")
        self.assertEqual(2, self.checks())
        self.clock.advance(1)
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual(3, self.checks())

    def test_file_changed(self) -> None:
        """The old password is out as soon as the file has a new one; any change of it empties the memory."""
        self.login(b"ann", b"one")
        self.assertEqual(1, len(self.accounts._cache))
        set_password(self.path, "ann", "new", scheme="PLAIN")
        self.assertIs(False, self.login(b"ann", b"one"))
        self.assertEqual(b"ann", self.login(b"ann", b"new"))
        self.assertEqual(0, len(self.accounts._cache))

    def test_changed_during_check(self) -> None:
        """A check that was under way when the file changed is not remembered."""
        self.threads.later = True
        under_way = self.login(b"ann", b"one")
        check = self.threads.jobs.pop()
        self.write(self.TEXT + b"carl:{PLAIN}three\n")
        reread = self.login(b"carl", b"three")
        self.threads.go_on()
        self.assertEqual(b"carl", self.successResultOf(reread))
        check()
        self.assertEqual(b"ann", self.successResultOf(under_way))
        self.assertIsInstance(self.login(b"ann", b"one"), Deferred)
        self.threads.go_on()

    def test_exact(self) -> None:
        """User, stored hash and password all count; it holds no more than it may, and the oldest go first."""
        cache = SuccessCache(self.clock, most=2)
        cache.add("ann", b"stored", b"x")
        for wrong in (
            ("an", b"nstored", b"x"),
            ("ann", b"store", b"dx"),
            ("ann", b"stored", b"y"),
            ("bob", b"stored", b"x"),
        ):
            self.assertFalse(cache.has(*wrong))
        for user in "bc":
            cache.add(user, b"stored", b"x")
        self.assertEqual(2, len(cache))
        users = ("ann", "b", "c")
        self.assertEqual([False, True, True], [cache.has(user, b"stored", b"x") for user in users])

    def test_no_secret_inside(self) -> None:
        """A dump of the cache shows neither password nor a digest that can be tried out."""
        cache, other = SuccessCache(self.clock), SuccessCache(self.clock)
        cache.add("ann", b"stored", b"hunter2")
        other.add("ann", b"stored", b"hunter2")
        self.assertNotIn(b"hunter2", b"".join(cache._until))
        self.assertNotEqual(list(cache._until), list(other._until))


class RereadTests(AccountsCase):
    """The file changes while the server runs."""

    def test_changed(self) -> None:
        """A new user comes in, a removed one does not; it is read once, in a thread that all wait for."""
        self.login(b"bob", b"two")
        self.assertEqual([], self.threads.names)
        self.threads.later = True
        self.write(b"carl:{PLAIN}three\n")
        waiting = [self.login(b"carl", b"three") for _ in range(5)]
        self.assertEqual(1, len(self.threads.jobs))
        self.threads.go_on()
        self.assertEqual([b"carl"] * 5, [self.successResultOf(d) for d in waiting])
        self.assertIs(False, self.login(b"bob", b"two"))
        self.assertEqual(["_read"], self.threads.names)

    def test_fresh(self) -> None:
        """A file that was written a moment before it was read is read again: it may have changed unseen."""
        self.now = self.path.stat().st_mtime + 1
        self.accounts = self.checker()
        for expected in (1, 2):
            self.login(b"bob", b"two")
            self.assertEqual(expected, self.threads.names.count("_read"))
        self.now += 1000
        for _ in range(3):
            self.login(b"bob", b"two")
        self.assertEqual(3, self.threads.names.count("_read"))

    def test_vanished(self) -> None:
        """A file that cannot be read is a temporary trouble that names it in the log alone; then it heals."""
        text = self.path.read_bytes()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = self.path.rename(folder / "accounts")
        self.accounts = self.checker()
        self.path.unlink()
        for said in ("No such file", "Not a directory"):
            result = self.accounts.requestAvatarId(ClearPassword(b"bob", b"two"))
            trouble = self.failureResultOf(result, StoreTrouble).value
            self.assertNotIn(str(self.path), trouble.text)
            self.assertIn(str(self.path), trouble.detail)
            self.assertIn(said, trouble.detail)
            if folder.is_dir():
                folder.rmdir()
                folder.write_bytes(b"")
        folder.unlink()
        folder.mkdir()
        self.write(text)
        self.assertEqual(b"bob", self.login(b"bob", b"two"))

    def test_broken_line(self) -> None:
        """A line that breaks is reported once with its number, and the others come in."""
        with capturedLogs() as events:
            self.write(b"ann:hunter2\nbob:{PLAIN}two\n")
            self.assertEqual(b"bob", self.login(b"bob", b"two"))
            self.write(b"ann:hunter2\nbob:{PLAIN}two\n\n")
            self.assertEqual(b"bob", self.login(b"bob", b"two"))
        logged = [formatEvent(event) for event in events]
        [line] = logged
        self.assertIn("line 1: ", line)
        self.assertNotIn("hunter2", line)

    def trouble(self, user: bytes, password: bytes) -> None:
        """A login is put off."""
        try:
            result = self.accounts.requestAvatarId(ClearPassword(user, password))
        except StoreTrouble:
            return
        self.failureResultOf(result, StoreTrouble)

    def test_emptied(self) -> None:
        """A file that has lost all its users is an accident: one line, nobody's password is called wrong."""
        text = self.path.read_bytes()
        for junk in (b"", b"# nothing\n", b"GARBAGE\n" * 5000):
            with capturedLogs() as events:
                self.write(junk)
                for _ in range(3):
                    self.trouble(b"bob", b"two")
                    self.trouble(b"nobody", b"x")
                    self.assertRaises(StoreTrouble, self.accounts.canonical_name, "bob")
            lines = [formatEvent(event) or "" for event in events]
            [told] = [line for line in lines if "there were 2 users in it" in line]
            self.assertIn("Put the old file back", told)
            self.assertLessEqual(len(lines), 12)
            # What is announced stays, so that clients try the same and are told that it is temporary.
            self.assertTrue(self.accounts.has_plaintext())
            self.write(text)
            self.assertEqual(b"bob", self.login(b"bob", b"two"))
        self.assertIn("4990 more lines", lines[-2] + lines[-1])

    def test_empty_from_the_start(self) -> None:
        """A file without users knows nobody, and is no trouble, until there is the first one."""
        self.write(b"")
        self.accounts = self.checker()
        self.assertIs(False, self.login(b"bob", b"two"))
        self.write(b"bob:{PLAIN}two\n")
        self.assertEqual(b"bob", self.login(b"bob", b"two"))

    def test_missing_at_start(self) -> None:
        """A file that is not there at the start is an error then, or a trouble that passes."""
        text = self.path.read_bytes()
        self.path.unlink()
        with self.assertRaises(FileNotFoundError):
            self.checker()
        with capturedLogs() as events:
            self.accounts = self.checker(strict=False)
        [line] = [formatEvent(event) or "" for event in events]
        self.assertIn("logins are put off until it can be read", line)
        self.trouble(b"bob", b"two")
        self.write(text)
        self.assertEqual(b"bob", self.login(b"bob", b"two"))

    def test_missing_library(self) -> None:
        """Hashes whose library is missing stop the start with a word on what to install."""
        self.write(b"ann:{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$vafWpc9FFTS8G9E$WIwHJ4p7jWzAcI5XNVjg\n")
        with patch.dict(sys.modules, {"argon2": None}), self.assertRaises(MissingLibrary) as caught:
            self.checker()
        self.assertIn(install_hint("accounts"), str(caught.exception))
        self.assertIn("line 1", str(caught.exception))

    def test_exposed(self) -> None:
        """A file that everybody can read is reported."""
        self.path.chmod(0o644)
        with capturedLogs() as events:
            self.checker()
        [line] = [formatEvent(event) for event in events]
        self.assertEqual(line, f"accounts file {self.path}: everybody on this machine can read it: chmod 600")


class BeingWrittenTests(AccountsCase):
    """A file that somebody truncates and writes in place, seen at every octet of the writing."""

    TEXT = b"ann:%s:quota=1M\nbob:{PLAIN}two\ncarl:{PLAIN}three:nologin\nemil:%s\n" % (
        pbkdf2(b"one"),
        scram(b"four"),
    )
    PASSWORDS: ClassVar = {"ann": b"one", "bob": b"two", "carl": b"three", "emil": b"four"}

    def cut(self, octets: int) -> None:
        """So much of it has been written, just now."""
        self.path.write_bytes(self.TEXT[:octets])
        self.now = self.path.stat().st_mtime + 0.5

    def settle(self) -> None:
        """Nobody has written for a while."""
        self.now = self.path.stat().st_mtime + 2.5

    def said(self, question: Callable[..., object], *arguments: Any) -> Any:
        """The answer, or the type of the refusal."""
        answer = maybeDeferred(question, *arguments)
        answer.addErrback(lambda why: why.trap(StoreTrouble, UnauthorizedLogin, AuthenticationFailed))
        return self.successResultOf(answer)

    def outcome(self, user: str, password: bytes) -> Any:
        return self.said(self.accounts.requestAvatarId, ClearPassword(user.encode(), password, LOOPBACK))

    def announced(self) -> object:
        """What a client is told before it logs in."""
        accounts = self.accounts
        return accounts.has_plaintext(), accounts.scram_hashes(), accounts.dummy_verifier("x", "sha256")

    def test_nobody_is_refused(self) -> None:
        """Nobody's password is called wrong, nobody comes in who may not, and then all is as before.

        No recipient is unknown and no quota other than it was, and what is announced stays.  Whose
        line is written already comes in.
        """
        announced = self.announced()
        for octets in range(len(self.TEXT)):
            self.cut(octets)
            for user, password in self.PASSWORDS.items():
                self.assertIn(self.said(self.accounts.canonical_name, user), (user, StoreTrouble), octets)
                found = self.said(self.accounts.find, user)
                quota = "1M" if user == "ann" else None
                self.assertTrue(found is StoreTrouble or found.settings.get("quota") == quota, (octets, user))
                outcome = self.outcome(user, password)
                self.assertIn(outcome, (user.encode(), StoreTrouble), (octets, user))
                if octets > self.TEXT.index(b"carl") and user in ("ann", "bob"):
                    self.assertEqual(outcome, user.encode())
                self.assertFalse(user == "carl" and outcome == b"carl", octets)
                self.assertIs(StoreTrouble, self.outcome(user, b"wrong"), (octets, user))
            # Nobody sees who was there.
            self.assertIs(StoreTrouble, self.outcome("nobody", b"x"), octets)
            self.assertIsNot(True, self.said(self.accounts.login_allowed, "carl", LOOPBACK), octets)
            self.assertEqual(announced, self.announced())
            self.cut(len(self.TEXT))
            self.settle()
            for user, password in self.PASSWORDS.items():
                expected = UnauthorizedLogin if user == "carl" else user.encode()
                self.assertEqual(expected, self.outcome(user, password), (octets, user))
            self.assertIsNone(self.said(self.accounts.canonical_name, "nobody"))

    def test_new(self) -> None:
        """A new user whose line has its end comes in as well, and gets mail."""
        self.path.write_bytes(b"zoe:{PLAIN}five\nyves:{PLAIN}six\nann")
        self.now = self.path.stat().st_mtime + 0.5
        self.assertEqual([b"zoe", StoreTrouble], [self.outcome("zoe", b"five"), self.outcome("yves", b"six")])
        self.assertEqual("zoe", self.said(self.accounts.find, "zoe").name)
        self.assertEqual([StoreTrouble] * 2, [self.said(self.accounts.find, u) for u in ("yves", "bob")])

    def test_every_mechanism(self) -> None:
        """By no mechanism is it a guess, nor a refusal that a client would believe."""
        throttle = LoginThrottle(Clock())
        portal = Portal(MailboxRealm(FakeStore()), [self.accounts])
        authenticator = PortalAuthenticator(portal, throttle=throttle, certificates=True)
        self.cut(self.TEXT.index(b"bob"))
        self.assertIs(StoreTrouble, self.outcome("bob", b"two"))
        shown = Channel("127.0.0.1", local=True, tls=TLSFacts("TLSv1.3", "x", client_name="bob"))
        for mechanism, responses in (
            ("PLAIN", [b"\0bob\0two"]),
            ("LOGIN", [b"bob", b"two"]),
            ("CRAM-MD5", [None, b"bob " + b"0" * 32]),
            ("SCRAM-SHA-256", [b"n,,n=bob,r=c", b"c=biws,r=%b,p=AAAA"]),
            ("EXTERNAL", [b""]),
        ):
            exchange = authenticator.begin(mechanism, session(shown))
            said: object = Challenge(b"r=")
            for response in responses:
                if said is StoreTrouble:
                    # At the name already: nobody can tell whose it is.
                    break
                assert isinstance(said, Challenge)
                nonce = said.data.partition(b",")[0][2:]
                said = self.said(say, exchange, response and response.replace(b"%b", nonce))
            self.assertIs(StoreTrouble, said, mechanism)
        self.assertEqual((0, 0), (throttle._addresses.count("127.0.0.1"), throttle._users.count("bob")))

    def test_replaced(self) -> None:
        """A file that was put in place whole is believed at once: who was removed is refused."""
        other = self.path.with_name("other")
        other.write_bytes(self.TEXT.replace(b"bob:{PLAIN}two\n", b""))
        written = other.stat().st_mtime_ns
        while other.stat().st_ctime_ns <= written:
            # The file system's clock has not gone on since the text was written.
            other.chmod(0o600)
        other.rename(self.path)
        self.now = self.path.stat().st_mtime + 0.5
        self.assertIs(UnauthorizedLogin, self.outcome("bob", b"two"))
        self.assertEqual(b"ann", self.outcome("ann", b"one"))

    def test_settled(self) -> None:
        """What nobody has written to for two seconds is believed, though it is less than before."""
        self.cut(self.TEXT.index(b"bob"))
        self.assertIs(StoreTrouble, self.outcome("bob", b"two"))
        self.settle()
        self.assertIs(UnauthorizedLogin, self.outcome("bob", b"two"))


class ScramSourceTests(AccountsCase):
    """What SCRAM asks."""

    SCRAM = (
        b"emil:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        b":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n"
    )

    def verifier(self, user: str, hash_name: str = "sha256") -> Any:
        result = self.accounts.verifier(user, hash_name)
        return self.successResultOf(result) if isinstance(result, Deferred) else result

    def test_kept(self) -> None:
        """A verifier that is kept is used as it is; only the first right proof of it costs a thread."""
        self.write(self.SCRAM + b"ann:%s\n" % pbkdf2(b"one"))
        self.assertEqual(16, len(self.verifier("emil").salt))
        self.assertEqual(["_read"], self.threads.names)
        for _ in range(2):
            empty = self.verifier("emil").is_empty()
            self.assertIs(False, self.successResultOf(empty) if isinstance(empty, Deferred) else empty)
        self.assertEqual(["_read", "fits"], self.threads.names)
        self.assertIsNone(self.verifier("emil", "sha1"))
        self.assertIsNone(self.verifier("ann"))
        self.assertEqual((False, {"sha256"}), (self.accounts.has_plaintext(), self.accounts.scram_hashes()))

    def test_made(self) -> None:
        """One is made from a recoverable password, with the same salt each time and the same work for all."""
        self.write(self.SCRAM + self.TEXT)
        first, second = self.verifier("bob"), self.verifier("bob")
        self.assertTrue(first.fits(b"two", "sha256"))
        self.assertEqual(first.salt, second.salt)
        for user in ("emil", "ann", "nobody"):
            before = self.threads.names.count("derive")
            self.verifier(user)
            self.assertEqual(before + 1, self.threads.names.count("derive"))

    def test_decoy(self) -> None:
        """A user that does not exist looks like one that does, also after a restart."""
        self.write(b"# decoy-key: QUJDREVGR0g=\n" + self.SCRAM)
        self.login(b"emil", b"x")
        dummies = [
            accounts.dummy_verifier("nobody", "sha256") for accounts in (self.accounts, self.checker())
        ]
        self.assertEqual(dummies[0], dummies[1])
        self.assertNotEqual(dummies[0].salt, self.accounts.dummy_verifier("nobody2", "sha256").salt)
        self.assertEqual((16, 4096), (len(dummies[0].salt), dummies[0].iterations))
        self.assertEqual(32, len(dummies[0].stored_key))


class RenewalTests(AccountsCase):
    """Outdated hashes."""

    def setUp(self) -> None:
        super().setUp()
        self.accounts = self.checker(renew=True)

    def stored(self, user: str) -> StoredPassword:
        return parse(self.path.read_bytes()).by_name[user].password

    def test_renewed(self) -> None:
        """A right password with an outdated hash makes it argon2id; a recoverable one stays, settings too."""
        self.login(b"ann", b"wrong")
        self.login(b"bob", b"two")
        self.assertNotIn("_renew", self.threads.names)
        self.accounts = self.checker()
        self.login(b"ann", b"one")
        self.assertEqual(self.TEXT, self.path.read_bytes(), "not unless it is asked for")
        self.accounts = self.checker(renew=True)
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual(["ARGON2ID", "PLAIN"], [self.stored(user).scheme for user in ("ann", "bob")])
        self.assertTrue(self.stored("ann").verify(b"one"))
        self.assertIn(b":quota=1M\n", self.path.read_bytes())
        self.now = self.path.stat().st_mtime + 1000
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual(1, self.threads.names.count("_renew"))

    def test_busy(self) -> None:
        """When too much waits already the login succeeds, and the hash is renewed another time."""
        self.write(b"ann:{SHA}/gW83NxJKAEngaXxoqd8u1OY4QY=\n")
        self.login(b"ann", b"wrong")
        self.accounts = self.checker(renew=True, most=0)
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual("SHA", self.stored("ann").scheme)
        self.accounts = self.checker(renew=True)
        self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual("ARGON2ID", self.stored("ann").scheme)

    def test_not_writable(self) -> None:
        """If the file cannot be written, the login succeeds and it is tried once."""
        # The name of the temporary file beside it would be too long.
        self.path = self.path.rename(self.path.with_name("x" * 250))
        self.accounts = self.checker(renew=True)
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(b"ann", self.login(b"ann", b"one"))
        self.assertEqual(1, self.threads.names.count("_renew"))
        self.assertEqual(1, len([event for event in events if "could not be renewed" in formatEvent(event)]))


class RealThreadsTests(TestCase):
    """The same with threads that are real."""

    async def test_real(self) -> None:
        """Right and wrong passwords, many at once, through a pool of two threads and back."""
        from twisted.internet import reactor

        threads = WorkerThreads(reactor, name="passwords", size=2)  # type: ignore[arg-type]
        threads.startService()
        self.addCleanup(threads.stopService)
        path = Path(self.mktemp())
        add_user(path, "ann", "one")
        checker = AccountsFile(path, HashingQueue(threads.run), reactor)
        passwords = [b"one", b"two"] * 3
        attempts = [checker.requestAvatarId(ClearPassword(b"ann", password)) for password in passwords]
        outcomes = await DeferredList(attempts, consumeErrors=True)
        self.assertEqual([True, False] * 3, [success for success, _ in outcomes])
        self.assertEqual(b"ann", await checker.requestAvatarId(ClearPassword(b"ann", b"one")))
