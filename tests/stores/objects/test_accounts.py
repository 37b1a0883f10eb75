"""Accounts on object storage: written in the right order, changed by several at once, read at a login."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts import admin
from pop3toy.auth.accounts.checker import AccountsChecker
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.passwd_file import parse
from pop3toy.auth.accounts.record_source import RecordSource
from pop3toy.auth.accounts.records import AccountsInRecords, KnownFacts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.realm import MailboxRealm
from pop3toy.errors import StoreTrouble
from pop3toy.net.threads import run_now
from pop3toy.stores.objects.accounts import FACTS, AccountObjects
from pop3toy.stores.objects.records import UserRecord, user_key
from pop3toy.stores.objects.users import Users

from ...auth_world import FakeStore, session
from ...objects_world import World, WorldEngines


class AccountsCase(SynchronousTestCase):
    """A store, and who changes its accounts."""

    def setUp(self) -> None:
        """An empty store."""
        self.world = self.new_world()
        self.engines = WorldEngines(self.world)
        self.users = Users(self.engines)
        self.objects = self.of()
        self.place = AccountsInRecords(self.objects)

    def new_world(self) -> World:
        """An empty store; for another kind of storage, override this."""
        return World()

    def of(self) -> AccountObjects:
        """The same accounts, as another server or command has them."""
        return AccountObjects(self.engines, self.users, "memory://")

    def add(self, name: str, password: str = "secret", **options: Any) -> None:
        """Add a user, as another command does."""
        admin.add_user(AccountsInRecords(self.of()), name, password, **{"scheme": "PLAIN", **options})

    def record(self, login: str) -> UserRecord:
        found = self.users.get(login)
        assert found is not None
        return found[0]


class AccountsTests(AccountsCase):
    """Accounts, as a command changes them."""

    def test_life(self) -> None:
        """A user is added with a mailbox, changed, and removed; the mailbox stays, and is there again."""
        self.assertEqual(None, self.objects.get("ann"))
        self.add("ann", settings={"quota": "1M"})
        made = self.record("ann")
        self.assertEqual("ann:{PLAIN}secret:quota=1M", made.account)
        self.assertEqual(made, self.users.find("ann"))
        admin.set_password(self.place, "ann", "other")
        admin.set_setting(self.place, "ann", "quota", "2M")
        self.assertEqual(made._replace(account="ann:{PLAIN}other:quota=2M"), self.record("ann"))
        admin.delete_user(self.place, "ann")
        self.assertEqual(made._replace(account=""), self.record("ann"))
        self.assertRaises(admin.NoSuchAccount, admin.set_password, self.place, "ann", "x")
        self.assertEqual({}, admin.list_users(self.place).by_name)
        self.add("ann")
        self.assertEqual(made.drop, self.record("ann").drop)

    def test_mailbox_that_was_there(self) -> None:
        """Whoever had a mailbox before there was an account keeps it."""
        drop = self.users.make("ann").drop
        self.assertEqual({}, admin.list_users(self.place).by_name)
        self.add("ann")
        self.assertEqual(drop, self.record("ann").drop)

    def test_names(self) -> None:
        """Other spellings lead to a user as long as one alone is meant."""
        self.add("Zoë")
        self.add("ann")
        self.assertEqual("Zoë", self.place.find("ZOË"))
        self.assertEqual("ann", self.place.find("ANN"))
        self.add("Ann")
        self.assertEqual(
            [None, "Ann", "ann"], [admin.canonical_name(self.place, n) for n in ("ANN", "Ann", "ann")]
        )
        admin.delete_user(self.place, "ann")
        self.assertEqual("Ann", self.place.find("ANN"))
        self.assertEqual(["Ann"], admin.differing_in_case(self.place, "ann"))
        for name in ("", "\0", "../x", "\udcff", "a" * 9000):
            self.assertEqual(None, self.place.find(name))

    def test_keys(self) -> None:
        """No key tells a name; a user's password is in the user's record alone."""
        self.add("Ann", "geheim", scheme="SCRAM-SHA-256")
        keys = [f"{part}/{one.name}" for part in ("a", "c", "l", "n") for one in self.engines.main.list(part)]
        self.assertEqual(["a", "c", "l", "n"], [key[0] for key in keys])
        self.assertNotIn("ann", " ".join(keys).lower().replace(FACTS, ""))
        verifier = self.record("Ann").account.split(",")[-1]
        self.assertNotIn(verifier.encode(), self.engines.main.get(FACTS).body)

    def test_broken_objects(self) -> None:
        """What is not understood is trouble, not an empty answer."""
        self.add("Ann")
        [one] = self.engines.main.list("n")
        key = f"n/{one.name}"
        for body in (b"[]", b"[" * 100_000):
            self.engines.main.swap(key, body, self.engines.main.get(key).tag)
            self.assertRaises(StoreTrouble, self.place.find, "ann")
            self.assertRaises(StoreTrouble, self.add, "ANN")
        self.assertEqual("Ann", self.place.find("Ann"))

    # -- several at once -------------------------------------------------------------

    def at_each_call(
        self,
        first: Callable[[], object],
        other: Callable[[], object],
        check: Callable[[], object],
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """Do something as often as it makes calls, each time with something of others before another call.

        :param check: what has to be true behind both.
        """
        for number in range(1, 30):
            self.setUp()
            before()
            self.world.fault("", error=None, do=other, once=True, at=len(self.world.calls) + number)
            first()
            if self.world.faults:
                self.assertLess(3, number)
                return
            with self.subTest(call=number):
                check()
        self.fail("it never ends")

    def test_two_add(self) -> None:
        """Of two who add one user, one is told that there is one; both passwords are never mixed."""
        told: list[str] = []

        def add(password: str) -> None:
            try:
                self.add("ann", password)
            except admin.AccountExists:
                told.append(password)

        def check() -> None:
            self.assertEqual(1, len(told))
            winner = ({"one", "two"} - {*told}).pop()
            told.clear()
            self.assertEqual(f"ann:{{PLAIN}}{winner}", self.record("ann").account)
            self.users.find("ann")

        self.at_each_call(lambda: add("one"), lambda: add("two"), check)

    def test_two_users_of_one_spelling(self) -> None:
        """Of two users who differ in case alone none is lost, in any order."""

        def check() -> None:
            self.assertEqual({"Ann", "ANN"}, {*admin.list_users(self.place).by_name})
            self.assertEqual(None, self.place.find("ann"))

        self.at_each_call(lambda: self.add("Ann"), lambda: self.add("ANN"), check)

    def test_two_kinds(self) -> None:
        """What is known of all users grows by both kinds of two who are added at once."""

        def check() -> None:
            facts = KnownFacts.decoded(self.objects.facts())
            self.assertTrue(facts.has_plaintext)
            self.assertEqual({"sha256"}, {*facts.scram})

        self.at_each_call(lambda: self.add("ann", scheme="SCRAM-SHA-256"), lambda: self.add("bob"), check)

    def test_password_and_quota(self) -> None:
        """Two changes of one user are both there."""

        self.at_each_call(
            lambda: admin.set_password(self.place, "ann", "other"),
            lambda: admin.set_setting(AccountsInRecords(self.of()), "ann", "quota", "1M"),
            lambda: self.assertEqual("ann:{PLAIN}other:quota=1M", self.record("ann").account),
            before=lambda: self.add("ann"),
        )

    def test_removed_and_changed(self) -> None:
        """Who is removed while a password is changed stays removed."""

        def change() -> None:
            try:
                admin.set_password(self.place, "ann", "other")
            except admin.NoSuchAccount:
                pass

        self.at_each_call(
            change,
            lambda: admin.delete_user(AccountsInRecords(self.of()), "ann"),
            lambda: self.assertEqual("", self.record("ann").account),
            before=lambda: self.add("ann"),
        )

    # -- answers that are lost -------------------------------------------------------

    def test_failing(self) -> None:
        """A call that fails is trouble or is repeated; whoever tries again gets there."""
        for done in (False, True):
            for number in range(1, 30):
                self.setUp()
                self.world.fault("", after=done, once=True, at=number)
                try:
                    self.add("Ann")
                except StoreTrouble:
                    try:
                        self.add("Ann")
                    except admin.AccountExists:
                        self.fail("whoever is told of trouble can try again")
                ended = bool(self.world.faults)
                self.world.faults.clear()
                with self.subTest(call=number, done=done):
                    self.assertEqual("Ann:{PLAIN}secret", self.record("Ann").account)
                    self.assertEqual("Ann", self.place.find("ann"))
                    self.assertTrue(KnownFacts.decoded(self.objects.facts()).has_plaintext)
                    self.users.find("Ann")
                if ended:
                    break
            self.assertLess(8, number)


class LoginTests(AccountsCase):
    """Accounts, as a server looks for them."""

    def serve(self) -> PortalAuthenticator:
        """A server."""
        queue = HashingQueue(run_now)
        source = RecordSource(self.objects, queue, Clock())
        checker = AccountsChecker(lambda changed: source, queue, Clock())
        return PortalAuthenticator(Portal(MailboxRealm(FakeStore()), [checker]))

    def test_requests(self) -> None:
        """At a login the record is fetched once, and the mailbox is opened with the same."""
        self.add("ann")
        auth = self.serve()
        self.world.requests.clear()
        auth.timestamp(session().channel)
        self.assertEqual([("get", FACTS)], self.world.requests)
        login: Any = auth.password(b"ann", b"secret", session())
        self.assertEqual("ann", login.user)
        self.assertEqual("ann:{PLAIN}secret", self.users.find("ann").account)
        self.assertEqual([("get", FACTS), ("get", user_key("ann"))], self.world.requests)

    def test_no_network(self) -> None:
        """To make a server asks for nothing."""
        self.serve()
        self.assertEqual([], self.world.calls)

    def test_imported_line(self) -> None:
        """Every scheme of an accounts file works, since the line is the file's."""
        line = "ann:{SSHA256.hex}" + "00" * 36 + ":1000:1000::/home:/sh:allow_nets=::1,10.0.0.0/8 quota=5M"
        self.place.edit("ann", lambda text: line.encode())
        account = admin.list_users(self.place).by_name["ann"]
        self.assertEqual(parse(line.encode()).by_name["ann"], account)
        self.assertEqual(line, json.loads(self.record("ann").encoded())["account"])
