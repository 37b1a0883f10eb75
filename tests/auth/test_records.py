"""Accounts as records of users: requests, what is known of all, trouble, and changes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy.auth.accounts import admin
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.passwd_file import parse
from pop3toy.auth.accounts.record_source import FRESH, KEPT, RecordSource
from pop3toy.auth.accounts.records import KnownFacts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.chain import AnyOf
from pop3toy.auth.credentials import ClearPassword
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.sources import IAccountSource
from pop3toy.errors import AuthenticationFailed, StoreTrouble
from pop3toy.interfaces import Channel
from pop3toy.routing.quota import quota_of

from ..auth_world import LOOPBACK, FakeStore, FakeThreads, session
from .records_world import FakeRecords, checker_of
from .test_accounts import pbkdf2, scram
from .test_names import DIGESTS, DOMAINS, PLAIN, SCRAM, settled

SLOW = pbkdf2(b"secret").decode()
BASE = {"USER", "PLAIN", "LOGIN"}


class RecordsCase(SynchronousTestCase):
    """Records, threads and time under control."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = FakeThreads()
        self.looking = FakeThreads()
        self.store = FakeStore()

    def serve(self, *lines: str, **options: Any) -> PortalAuthenticator:
        """A server over these accounts, which has asked nothing yet."""
        self.records = FakeRecords(*lines)
        self.checker = checker_of(self.records, self.threads, self.clock, looking=self.looking, **options)
        portal = Portal(MailboxRealm(self.store), [self.checker])
        self.auth = PortalAuthenticator(portal, domains=DOMAINS)
        return self.auth

    def offered(self) -> set[str]:
        """What a client is told."""
        names = {"USER"} if self.auth.clear_text(LOOPBACK) else set()
        if self.auth.timestamp(LOOPBACK) is not None:
            names.add("APOP")
        return names | {*self.auth.mechanisms(LOOPBACK)}


class RequestTests(RecordsCase):
    """What is asked of the storage."""

    def test_sources(self) -> None:
        """It is a source of accounts, and asks for nothing before it is asked."""
        self.serve("ann:{PLAIN}secret")
        verifyObject(IAccountSource, self.checker)
        self.assertTrue(AnyOf([self.checker]).knows_all)
        self.assertEqual([], self.records.asked)

    def test_success(self) -> None:
        """A login by the exact name is one request, and hands the record on; other spellings are more."""
        self.serve("ann:{PLAIN}secret", f"Bob:{SLOW}")
        self.offered()
        for login, name, asked in (
            ("USER", "ann", 1), ("PLAIN", "ann", 1), ("LOGIN", "ann", 1), ("APOP", "ann", 1),
            ("CRAM-MD5", "ann", 1), ("SCRAM-SHA-256", "ann", 3), ("USER", "Bob", 1), ("USER", "bob", 3),
            ("USER", "ANN", 3), ("USER", "ann@example.org", 4),
        ):  # fmt: skip
            self.records.asked.clear()
            self.records.remembered.clear()
            found = (PLAIN | DIGESTS | SCRAM)[login](self.auth, name, "secret")
            found.logout()
            self.assertEqual(asked, len(self.records.asked), (login, name))
            self.assertEqual({found.user}, {*self.records.remembered}, (login, name))

    def test_refusals(self) -> None:
        """A refusal takes as many requests for whatever reason it is refused, by every mechanism."""
        lines = ("ann:{PLAIN}secret", f"Bob:{SLOW}", "carl:{PLAIN}secret:nologin", "d@example.org:{PLAIN}x")
        self.serve(*lines)
        self.offered()
        forms = ("ann", "carl", "eve"), ("Bob", "EVE"), ("ann@example.org", "d@example.org", "e@example.org")
        for (mechanism, login), names in itertools.product((PLAIN | DIGESTS | SCRAM).items(), forms):
            seen = set()
            for name in names:
                self.records.asked.clear()
                password = "secret" if name == "carl" else "wrong"
                self.assertRaises(AuthenticationFailed, login, self.auth, name, password)
                seen.add(len(self.records.asked))
            self.assertEqual(1, len(seen), (mechanism, names, seen))

    def test_refused_again(self) -> None:
        """A second attempt is as much as the first: nothing of a refused login is kept."""
        self.serve("ann:{PLAIN}secret")
        self.offered()
        for name, _ in itertools.product(("ann", "eve"), range(3)):
            self.records.asked.clear()
            self.assertRaises(AuthenticationFailed, PLAIN["USER"], self.auth, name, "wrong")
            self.assertEqual(3, len(self.records.asked))

    def test_by_themselves(self) -> None:
        """Credentials whose account nobody has looked for are checked too, by the exact name."""
        self.serve(f"ann:{SLOW}")
        ask = self.checker.requestAvatarId
        self.assertEqual(b"ann", settled(ask(ClearPassword(b"ann", b"secret"))))
        for name, password in ((b"ann", b"wrong"), (b"Ann", b"secret"), (b"eve", b"secret")):
            self.assertRaises(UnauthorizedLogin, ask, ClearPassword(name, password))

    def test_looked_for_long_ago(self) -> None:
        """What was found at the beginning of a login is not believed for long."""
        self.serve("ann:{PLAIN}secret")
        name = settled(self.checker.canonical_name("ann"))
        self.records.put("ann:{PLAIN}secret:nologin")
        self.assertTrue(settled(self.checker.login_allowed(name, LOOPBACK)))
        self.clock.advance(FRESH + 1)
        self.assertFalse(settled(self.checker.login_allowed(name, LOOPBACK)))

    def test_empty(self) -> None:
        """Names and passwords of nothing, and of what no name holds, come to nothing."""
        self.serve("ann:{PLAIN}secret")
        for name, password in (
            ("", ""),
            ("", "x"),
            ("ann", ""),
            ("\udcff", "x"),
            ("a" * 9000, "x"),
        ):
            octets = name.encode("utf-8", "surrogateescape")
            with self.assertRaises(AuthenticationFailed):
                settled(self.auth.password(octets, password.encode(), session()))


class FactsTests(RecordsCase):
    """What is known of all users."""

    def test_not_known_yet(self) -> None:
        """Until it was read what works with every password is announced, and nobody waits for it."""
        self.looking = FakeThreads(later=True)
        self.serve("ann:{PLAIN}secret")
        self.assertEqual(BASE, self.offered())
        self.assertEqual(BASE, self.offered())
        self.assertEqual(["_read_facts"], self.looking.names)
        self.looking.go_on()
        self.assertEqual(BASE | {"APOP", "CRAM-MD5", *SCRAM}, self.offered())

    def test_login_before_it_is_known(self) -> None:
        """A login waits for it, because a refusal must take the same time for everybody."""
        self.looking = FakeThreads(later=True)
        self.serve(f"ann:{SLOW}")
        logins = [self.auth.password(name, b"wrong", session()) for name in (b"ann", b"eve")]
        while self.looking.jobs:
            self.looking.go_on()
        for login in logins:
            assert isinstance(login, Deferred)
            self.failureResultOf(login, AuthenticationFailed)
        self.assertEqual(1, self.looking.names.count("_read_facts"))
        self.assertEqual({"_judge", "_spend_time"}, {*self.threads.names})

    def test_kept(self) -> None:
        """It is read again when it is used and old, by one reader; what was known holds meanwhile."""
        self.serve(f"ann:{SLOW}")
        self.assertEqual(BASE, self.offered())
        self.records.put("bob:{PLAIN}x")
        self.clock.advance(KEPT - 1)
        self.assertEqual(BASE, self.offered())
        self.looking.later = True
        self.clock.advance(1)
        self.assertEqual(BASE, self.offered())
        self.assertEqual(BASE, self.offered())
        self.assertEqual(1, len(self.looking.jobs))
        self.looking.go_on()
        self.assertIn("APOP", self.offered())

    def test_trouble(self) -> None:
        """What was known goes on to hold while it cannot be read, and a first read is tried again."""
        self.serve("ann:{PLAIN}secret")
        self.records.trouble = True
        self.assertEqual(BASE, self.offered())
        self.records.trouble = False
        self.assertIn("APOP", self.offered())
        self.records.trouble = True
        self.clock.advance(KEPT)
        self.assertIn("APOP", self.offered())

    def test_nobody(self) -> None:
        """That there are no users is told once."""
        self.serve()
        with capturedLogs() as logs:
            self.offered()
            self.clock.advance(KEPT)
            self.offered()
        self.assertEqual(["accounts in memory: there are no users yet"], [formatEvent(one) for one in logs])
        with self.assertRaises(AuthenticationFailed):
            settled(self.auth.password(b"ann", b"x", session()))

    def test_same_as_a_file(self) -> None:
        """It is what a file with the same lines says of itself, and comes back from its text."""
        kinds = {
            "plain": "{PLAIN}secret",
            "slow": SLOW,
            "scram": scram(b"secret").decode(),
            "cram": "{CRAM-MD5}" + "ab" * 32,
        }
        for some in (names for count in range(1, 5) for names in itertools.combinations(kinds, count)):
            lines = [f"{name}:{kinds[name]}" for name in some]
            accounts = parse("\n".join(lines).encode())
            facts = KnownFacts()
            for account in accounts.by_name.values():
                facts = facts.knowing(account)
            for known in (facts, KnownFacts.decoded(facts.encoded())):
                self.assertEqual(facts, known)
                self.assertEqual(
                    {one.cost for one in accounts.dummy_passwords},
                    {one.cost for one in known.dummy_passwords},
                )
                self.assertEqual(accounts.has_plaintext, known.has_plaintext)
                self.assertEqual(accounts.cram_contexts, known.cram_contexts)
                self.assertEqual(accounts.scram_hashes, known.scram_hashes)
                self.assertEqual(accounts.has_addresses, known.has_addresses)
                for name in ("sha1", "sha256"):
                    self.assertEqual(accounts.scram_example(name), known.scram_example(name))

    def test_dummies_are_nobodys(self) -> None:
        """Where a password of a kind can be made, what is kept of all users holds nobody's."""
        records = FakeRecords()
        admin.add_user(records.place, "ann", "secret")
        assert records.text is not None
        self.assertIn(b"$argon2id$", records.text)
        self.assertNotIn(records.lines["ann"].split("$")[-1].encode(), records.text)
        [dummy] = KnownFacts.decoded(records.text).dummy_passwords
        self.assertFalse(dummy.verify(b"secret"))

    def test_of_a_newer_version(self) -> None:
        """A kind that this version cannot check stays, for those that can."""
        records = FakeRecords("ann:{PLAIN}x")
        assert records.text is not None
        said = json.loads(records.text)
        said["dummies"].append("{NEW}x")
        records.text = json.dumps(said).encode()
        records.put(f"bob:{SLOW}")
        self.assertEqual(2, len(json.loads(records.text)["dummies"]))
        self.assertIn("{NEW}x", json.loads(records.text)["dummies"])

    def test_broken(self) -> None:
        """What cannot be read is trouble, and no login is refused for it."""
        for text in (b"", b"[]", b"{}", b'{"dummies": 1}', b"\xff", b"[" * 100_000):
            self.serve("ann:{PLAIN}secret")
            self.records.text = text
            with self.assertRaises(StoreTrouble):
                settled(self.auth.password(b"ann", b"secret", session()))


class TroubleTests(RecordsCase):
    """The storage does not answer."""

    def test_every_mechanism(self) -> None:
        """No login is refused as wrong: it is put off, whichever request fails."""
        for mechanism, login in (PLAIN | DIGESTS | SCRAM).items():
            for name, password in (("ann", "secret"), ("ann", "wrong"), ("eve", "x"), ("ANN", "secret")):
                self.serve("ann:{PLAIN}secret")
                self.offered()
                self.records.trouble = True
                with self.subTest(mechanism=mechanism, name=name):
                    self.assertRaises(StoreTrouble, login, self.auth, name, password)

    def test_late(self) -> None:
        """A request that fails when the password was found wrong is trouble as well."""
        self.serve("ann:{PLAIN}secret")
        self.offered()
        name = settled(self.checker.canonical_name("ann"))
        self.records.trouble = True
        credentials = ClearPassword(b"ann", b"wrong")
        credentials.account = name
        self.assertRaises(StoreTrouble, self.checker.requestAvatarId, credentials)

    def test_flood(self) -> None:
        """More than may wait is put off at once."""
        self.looking = FakeThreads(later=True)
        self.serve("ann:{PLAIN}secret")
        troubles = 0
        for _ in range(1000):
            try:
                login = self.auth.password(b"ann", b"secret", session())
                assert isinstance(login, Deferred)
                login.addErrback(lambda why: None)
            except StoreTrouble:
                troubles += 1
        self.assertTrue(0 < len(self.looking.jobs) < 500 < troubles, (len(self.looking.jobs), troubles))

    def test_broken_line(self) -> None:
        """An account that is not understood is its administrator's to mend: logins and mail are put off."""
        self.serve("ann:{PLAIN}secret")
        for line in ("ann:{NOPE}x", "bob:{PLAIN}secret", "nonsense", "ann:{PLAIN}x:allow_nets=nonsense"):
            self.records.lines["ann"] = line
            self.assertRaises(StoreTrouble, PLAIN["USER"], self.auth, "ann", "secret")
            why = self.assertRaises(StoreTrouble, settled, self.checker.canonical_name("ann"))
            self.assertIn("'ann'", why.detail)
            self.assertNotIn("secret", why.detail)


class SettingsTests(RecordsCase):
    """What else stands in a line."""

    def test_networks(self) -> None:
        """allow_nets counts, from the next login on."""
        self.serve("ann:{PLAIN}secret:allow_nets=192.0.2.0/24")
        for host, comes_in in (("192.0.2.7", True), ("198.51.100.1", False)):
            channel = Channel(host, local=True)
            try:
                settled(self.auth.password(b"ann", b"secret", session(channel))).logout()
                came_in = True
            except AuthenticationFailed:
                came_in = False
            self.assertEqual(comes_in, came_in)

    def test_quota(self) -> None:
        """The quota is asked for as a file's is; of a name that was just found without a request."""
        self.serve("ann:{PLAIN}x:quota=5M", "bob:{PLAIN}x")
        self.offered()
        quota = quota_of(self.checker.find, 7)  # type: ignore[arg-type]
        self.assertEqual([5 << 20, 7, 7], [settled(quota(user)) for user in ("ann", "bob", "carl")])
        name = settled(self.checker.canonical_name("ann"))
        self.records.asked.clear()
        self.assertEqual(5 << 20, settled(quota(name)))
        self.assertEqual([], self.records.asked)

    def test_gone(self) -> None:
        """Who was removed is nobody, also in other spellings; a record without an account is none."""
        self.serve("Ann:{PLAIN}secret")
        admin.delete_user(self.records.place, "Ann")
        self.assertEqual({"Ann": ""}, self.records.lines)
        for name in ("Ann", "ann", "ANN"):
            self.assertRaises(AuthenticationFailed, PLAIN["USER"], self.auth, name, "secret")
            self.assertEqual(None, settled(self.checker.canonical_name(name)))

    def test_renewed(self) -> None:
        """An outdated hash is replaced when its user logs in, and all else of the line stays."""
        self.serve(f"ann:{SLOW}:quota=1M", renew=True)
        with capturedLogs() as logs:
            PLAIN["USER"](self.auth, "ann", "secret").logout()
        self.assertIn("password hash of ann renewed", formatEvent(logs[-1]) or "")
        self.assertRegex(self.records.lines["ann"], r"^ann:\{ARGON2ID\}[^:]+:quota=1M$")
        PLAIN["USER"](self.auth, "ann", "secret").logout()
        costs = {one.cost for one in KnownFacts.decoded(self.records.text).dummy_passwords}
        self.assertEqual(2, len(costs))

    def test_remembered_password(self) -> None:
        """A slow password is checked once, and again when it was changed."""
        self.serve(f"ann:{SLOW}")
        for _ in range(2):
            PLAIN["USER"](self.auth, "ann", "secret").logout()
        self.assertEqual(["_judge"], self.threads.names)
        self.records.put(f"ann:{pbkdf2(b'other').decode()}")
        self.assertRaises(AuthenticationFailed, PLAIN["USER"], self.auth, "ann", "secret")
        PLAIN["USER"](self.auth, "ann", "other").logout()


class AdminTests(SynchronousTestCase):
    """What changes accounts."""

    def test_order(self) -> None:
        """Before a user's record is written there is all that belongs to it."""
        seen: list[tuple[bool, bool, bool]] = []

        class Ordered(FakeRecords):
            def edit(self, login: str, change: Any) -> None:
                seen.append((bool(self.spelled), self.text is not None, login in self.mailboxes))
                super().edit(login, change)

        admin.add_user(Ordered().place, "Ann", "secret")
        self.assertEqual([(True, True, True)], seen)

    def test_refused(self) -> None:
        """What cannot be changes nothing."""
        records = FakeRecords("ann:{PLAIN}x")
        before = dict(records.lines), records.text, list(records.mailboxes)
        for job in self._mistakes(records.place):
            self.assertRaises(ValueError, job)
        self.assertEqual(before, (records.lines, records.text, records.mailboxes))

    def _mistakes(self, place: Any) -> Iterator[Any]:
        yield lambda: admin.add_user(place, "ann", "x")
        yield lambda: admin.add_user(place, "a:b", "x")
        yield lambda: admin.add_user(place, "bob", "")
        yield lambda: admin.add_user(place, "bob", "x", settings={"quota": "1 M"})
        yield lambda: admin.set_password(place, "bob", "x")
        yield lambda: admin.set_setting(place, "bob", "quota", "1M")
        yield lambda: admin.delete_user(place, "bob")

    def test_lines(self) -> None:
        """A record holds one line, without the key that a file has."""
        records = FakeRecords()
        admin.add_user(records.place, "ann", "secret", scheme="PLAIN", settings={"quota": "1M"})
        admin.set_setting(records.place, "ann", "quota", "2M")
        admin.set_password(records.place, "ann", "other")
        admin.set_password(records.place, "ann", "again", scheme="SCRAM-SHA-256")
        self.assertRegex(records.lines["ann"], r"^ann:\{SCRAM-SHA-256\}[^:\n]+:quota=2M$")
        self.assertEqual(["ann"], records.mailboxes)
        found = admin.list_users(records.place)
        self.assertEqual((["ann"], ()), ([*found.by_name], found.problems))
        self.assertEqual(["ann"], [*admin.by_name(records.place)])

    def test_names(self) -> None:
        """Names are found as in a file."""
        records = FakeRecords(
            *(f"{name}:{{PLAIN}}x" for name in ("ann", "Ann", "Bob", "CARL", "carl", "eve"))
        )
        for name, found in (
            ("ann", "ann"), ("Ann", "Ann"), ("ANN", None), ("bob", "Bob"), ("BOB", "Bob"),
            ("Carl", None), ("carl", "carl"), ("EVE", "eve"), ("zoe", None), ("", None),
        ):  # fmt: skip
            self.assertEqual(found, admin.canonical_name(records.place, name), name)
        self.assertEqual(["Ann"], admin.differing_in_case(records.place, "ann"))

    def test_not_understood(self) -> None:
        """A line that is not understood is told with its user, and can be replaced or removed."""
        records = FakeRecords("ann:{PLAIN}x")
        records.lines["bob"] = "bob:{NOPE}x"
        found = admin.list_users(records.place)
        self.assertEqual(["ann"], [*found.by_name])
        self.assertIn("'bob'", str(found.problems[0]))
        self.assertEqual("bob", admin.canonical_name(records.place, "Bob"))
        admin.set_password(records.place, "bob", "x")
        self.assertEqual({"ann", "bob"}, {*admin.list_users(records.place).by_name})


class SourceTests(SynchronousTestCase):
    """The parts that no login comes to."""

    def test_begin(self) -> None:
        """It looks around when the server starts; that it cannot is nobody's failure."""
        records = FakeRecords("ann:{PLAIN}x")
        for trouble in (True, False):
            records.trouble = trouble
            threads = FakeThreads()
            RecordSource(records, HashingQueue(threads), Clock()).begin()
            self.assertEqual(["_read_facts"], threads.names)
