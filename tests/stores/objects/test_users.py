"""The records of users on object storage: found, made once by whoever comes first, changed in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import NoSuchMailbox, StoreTrouble
from pop3toy.stores.objects.lease import FREE, Lease
from pop3toy.stores.objects.records import UserRecord, lease_key, user_key
from pop3toy.stores.objects.users import REMEMBERED, Users

from ...objects_world import World, WorldEngines


class UsersTests(SynchronousTestCase):
    """Records, with nothing going wrong."""

    def setUp(self) -> None:
        """An empty store."""
        self.world = self.new_world()
        self.engines = WorldEngines(self.world)
        self.now = 100.0
        self.users = self.of()

    def new_world(self, *users: str) -> World:
        """An empty storage; for one of another kind, override this."""
        return World(*users)

    def calls(self, function: Callable[..., Any], *args: Any) -> Sequence[str]:
        """The calls of obstore that a function makes."""
        before = len(self.world.calls)
        function(*args)
        return self.world.calls[before:]

    def of(self, **named: Any) -> Users:
        """The same records, as another server has them."""
        return Users(self.engines, clock=lambda: self.now, **named)

    def test_nobody(self) -> None:
        """Who was never heard of has no record, and no maildrop is made for the asking."""
        self.assertEqual(None, self.users.get("ann"))
        for login in ("ann", "", "\0", "../ann", "a" * 1000, "\udcff", "Änn"):
            self.assertRaises(NoSuchMailbox, self.users.find, login)
        self.assertEqual([], list(self.users.logins()))

    def test_made(self) -> None:
        """A maildrop that was made is found again, and is not made twice; its lease is free."""
        for login in ("ann", "bob", "", "\0", "../ann", "\udcff", "Änn"):
            made = self.users.make(login)
            self.assertEqual(32, len(made.drop))
            self.assertEqual(made, self.users.make(login))
            self.assertEqual(made, self.of().find(login))
            lease = Lease.decoded(self.engines.main.get(lease_key(made.drop)).body)
            self.assertEqual(FREE, lease.state)
        self.assertEqual(7, len({record.drop for record in self.users.logins()}))

    def test_create(self) -> None:
        """Where that is allowed the first who looks for a maildrop makes it."""
        made = self.of(create=True).find("ann")
        self.assertEqual(made, self.users.find("ann"))

    def test_account_without_a_maildrop(self) -> None:
        """A user who has only an account has no maildrop; one can be made, and the account stays."""
        self.users.edit("ann", lambda record: record._replace(account="ann:x"))
        self.assertRaises(NoSuchMailbox, self.users.find, "ann")
        made = self.of(create=True).find("ann")
        self.assertEqual(("ann:x", True), (made.account, bool(made.drop)))

    def test_buckets(self) -> None:
        """New maildrops are shared out among buckets; their leases are there, their records are not."""
        self.engines.buckets = ("one", "two")
        made = [self.users.make(str(number)) for number in range(40)]
        self.assertEqual({"one", "two"}, {record.bucket for record in made})
        for record in made:
            self.engines.of(record.bucket).get(lease_key(record.drop))
            self.engines.main.get(user_key(record.login))
        self.engines.buckets = ()
        self.assertEqual(sorted(made), sorted(self.users.logins()))

    def test_requests(self) -> None:
        """A maildrop is found with one request; with none when its record has just been fetched, once."""
        made = self.users.make("ann")
        self.assertEqual(["get"], self.calls(self.users.find, "ann"))
        self.users.remember(made)
        self.now += REMEMBERED
        before = len(self.world.calls)
        self.assertEqual(made, self.users.find("ann"))
        self.assertEqual(before, len(self.world.calls))
        self.assertEqual(["get"], self.calls(self.users.find, "ann"))
        self.users.remember(made)
        self.assertEqual(["get"], self.calls(lambda: self.users.find("ann", fresh=True)))

    def test_remembered_for_seconds(self) -> None:
        """What is remembered too long does not count, and does not stay."""
        made = self.users.make("ann")
        self.users.remember(made._replace(drop="0" * 32))
        self.now += REMEMBERED + 0.1
        self.assertEqual(made, self.users.find("ann"))
        self.users.remember(made)
        self.now += REMEMBERED + 0.1
        self.users.remember(made._replace(login="bob"))
        self.assertEqual(["bob"], list(self.users._remembered))

    def test_remembered_without_a_maildrop(self) -> None:
        """A record without a maildrop is read again: another server may have made one."""
        self.users.remember(UserRecord("ann", account="ann:x"))
        made = self.of().make("ann")
        self.assertEqual(made, self.users.find("ann"))

    def test_forgotten(self) -> None:
        """A user whose maildrop is forgotten has none; another one that was made since stays."""
        made = self.users.make("ann")
        self.users.edit("ann", lambda record: record._replace(account="ann:x"))
        self.users.forget_maildrop(made)
        self.assertRaises(NoSuchMailbox, self.users.find, "ann")
        self.assertEqual([UserRecord("ann", account="ann:x")], list(self.users.logins()))
        again = self.users.make("ann")
        self.assertNotEqual(made.drop, again.drop)
        self.users.forget_maildrop(made)
        self.assertEqual(again, self.users.find("ann"))

    def test_a_change_that_is_refused(self) -> None:
        """What a change raises goes through, and nothing is changed; no change writes nothing."""

        def refuse(record: UserRecord) -> UserRecord:
            raise KeyError(record.login)

        self.assertRaises(KeyError, self.users.edit, "ann", refuse)
        self.assertEqual(None, self.users.get("ann"))
        self.users.make("ann")
        self.assertEqual(["get"], self.calls(self.users.edit, "ann", lambda record: record))

    def test_many(self) -> None:
        """All records are told, however many there are."""
        for number in range(450):
            self.users.edit(str(number), lambda record: record._replace(account="x"))
        self.assertEqual({str(number) for number in range(450)}, {one.login for one in self.users.logins()})

    def test_unreadable(self) -> None:
        """A record that is none, or another user's, is trouble, and hides no other."""
        good = self.users.make("ann")
        for body in (
            b"",
            b"[]",
            b"\xff",
            b'{"login": 1}',
            b'{"login": "eve"}',
            b'{"drop": "x"}',
            b"[" * 100_000,
            *(b'{"login": "bob", "drop": "%s"}' % drop for drop in (b"x", b"../../a", b"a b", b"0" * 33)),
            *(b'{"login": "bob", "bucket": "%s"}' % name for name in (b"a b", b"a/..", b"\\n", b"x" * 300)),
        ):
            key = user_key("bob")
            self.engines.main.delete([key])
            self.engines.main.create(key, body)
            self.assertRaises(StoreTrouble, self.users.find, "bob")
            self.assertRaises(StoreTrouble, self.users.make, "bob")
            records = self.users.logins()
            self.assertEqual(good, next(records))
            why = self.assertRaises(StoreTrouble, next, records)
            self.assertIn(key, why.detail)


class TroubleTests(SynchronousTestCase):
    """Others who come between, and answers that are lost."""

    def setUp(self) -> None:
        """An empty store."""
        self.new()

    def new(self) -> None:
        """Another one."""
        self.world = World()
        self.engines = WorldEngines(self.world)
        self.users = Users(self.engines)

    def at(self, number: int, **what: Any) -> None:
        """Something happens to the call with this number from now on, from 1 on."""
        self.world.fault("", at=len(self.world.calls) + number, **what)

    def test_two_make_one(self) -> None:
        """Two servers that make a maildrop at the same time, at any moment, have the same one."""
        for moment in range(1, 4):
            self.new()
            others: list[UserRecord] = []
            self.at(moment, error=None, do=lambda into=others: into.append(Users(self.engines).make("ann")))
            made = self.users.make("ann")
            self.assertEqual([made], others)
            self.assertEqual(made, self.users.find("ann"))
            self.engines.main.get(lease_key(made.drop))

    def test_one_lease(self) -> None:
        """Whoever has to try again makes no second lease."""
        other = Users(self.engines)
        self.at(3, error=None, do=lambda: other.edit("ann", lambda one: one._replace(account="a")))
        made = self.users.make("ann")
        self.assertEqual("a", made.account)
        self.assertEqual([made.drop], [one.name for one in self.engines.main.list("l")])

    def test_changes_in_turns(self) -> None:
        """A change that somebody else comes between is made again on what is there then."""
        self.users.make("ann")
        other = Users(self.engines)
        self.at(2, error=None, do=lambda: other.edit("ann", lambda one: one._replace(account="a")))
        record = self.users.edit("ann", lambda one: one._replace(account=f"{one.account}b"))
        self.assertEqual("ab", record.account)
        self.assertEqual(record, self.users.find("ann"))

    def test_changed_all_the_time(self) -> None:
        """A change gives up at last."""
        count = iter(range(1000))

        def change(record: UserRecord) -> UserRecord:
            Users(self.engines).edit("ann", lambda one: one._replace(account=str(next(count))))
            return record._replace(account="mine")

        self.assertRaises(StoreTrouble, self.users.edit, "ann", change)

    def test_faults(self) -> None:
        """Whatever call fails, before it was carried out or behind: it is done, or is when done again."""
        for after in (False, True):
            for call in range(1, 6):
                self.new()
                self.users.edit("bob", lambda one: one._replace(account="x"))
                self.at(call, after=after)
                try:
                    record = self.users.make("bob")
                except StoreTrouble:
                    self.assertTrue(call < 4)
                    self.world.faults.clear()
                    record = self.users.make("bob")
                self.world.faults.clear()
                self.assertEqual("x", record.account)
                self.assertEqual(record, self.users.find("bob"))
                self.engines.main.get(lease_key(record.drop))

    def test_lost_answers(self) -> None:
        """A change whose answer was lost has succeeded; one that was not made is trouble."""
        self.users.make("ann")
        self.at(2, after=True)
        record = self.users.edit("ann", lambda one: one._replace(account="x"))
        self.assertEqual(record, self.users.find("ann"))
        self.at(2)
        self.assertRaises(StoreTrouble, self.users.edit, "ann", lambda one: one._replace(account="y"))
        self.assertEqual("x", self.users.find("ann").account)

    def test_storage_that_is_gone(self) -> None:
        """When the storage does not answer, not every record is asked for."""
        for number in range(500):
            self.users.edit(str(number), lambda one: one._replace(account="x"))
        before = len(self.world.calls)
        self.world.fault("get")
        self.assertRaises(StoreTrouble, list, self.users.logins())
        self.assertTrue(len(self.world.calls) - before < 250)
