"""Maildrops in object storage as the ``pop3toy`` command sees them; and what is left when it is killed."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import InUse, MessageGone, NoSuchMailbox, StoreTrouble
from pop3toy.stores.objects import admin as module
from pop3toy.stores.objects.admin import RANGE, ObjectAdmin
from pop3toy.stores.objects.engine import AT_ONCE, KEYS
from pop3toy.stores.objects.lease import FREE, GONE, MARGIN, TTL, Lease
from pop3toy.stores.objects.records import UserRecord, lease_key, message_key, message_name, user_key
from pop3toy.stores.objects.users import Users

from ...corpus import wire_form
from ...objects_world import World, WorldMixin
from ...store_contract import AdminContract
from .test_delivery import delivery_of

A, B, C = b"Subject: a\n\na\n", b"Subject: b\r\n\r\nb b\r\n", b"Subject: c\n\nc c c"
LETTER = b"Received: %s\nMessage-ID: <1@example.org>\nSubject: x\n\nx\n"


class ObjectAdminContract(WorldMixin, AdminContract):
    """The contract, over any object storage: a class that mixes it in says which one."""

    def new_world(self, *users: str) -> World:
        """A storage without mail, and users with maildrops in it."""
        raise NotImplementedError

    def administered(self, mail: Mapping[str, Sequence[bytes]]) -> tuple[Any, Any, Any]:
        """See :class:`AdminContract`."""
        self.world = self.new_world()
        server = self.world.server()
        users = Users(server.engines)
        for user, messages in mail.items():
            users.make(user)
            for message in messages:
                self.world.deliver(user, message)
        return server.store, delivery_of(server), ObjectAdmin(server.engines, Users(server.engines))


class MemoryContractTests(ObjectAdminContract, SynchronousTestCase):
    """The contract, over obstore's storage in memory."""

    def new_world(self, *users: str) -> World:
        """See :class:`ObjectAdminContract`."""
        return World(*users)


class _Case(WorldMixin, SynchronousTestCase):
    """Users, and their administrator."""

    def setUp(self) -> None:
        """Two maildrops without mail."""
        self.new()

    def new(self) -> None:
        """Another storage."""
        self.world = World("ann", "bob")
        self.server = self.world.server()
        self.users = Users(self.server.engines)
        self.admin = ObjectAdmin(self.server.engines, self.users, seconds=self.server.clock.seconds)

    def at(self, number: int, **what: Any) -> None:
        """Something happens to the call with this number from now on, from 1 on."""
        self.world.fault("", at=len(self.world.calls) + number, **what)

    def key(self, name: str, user: str = "ann") -> str:
        """Where a message is."""
        return message_key(self.world.record(user).drop, name)

    def replace(self, key: str, body: bytes) -> None:
        """Another program puts something there."""
        self.world.engine().delete([key])
        self.world.engine().create(key, body)


class ReadingTests(_Case):
    """Messages as they are listed and read."""

    def test_where(self) -> None:
        """A message is at its key, whatever its unique-id is."""
        name = message_name(1, b"<a/b>")
        names = [self.world.deliver("ann", A, name), self.world.deliver("ann", B)]
        listed = self.admin.list("ann")
        self.assertEqual([b"<a/b>", names[1].encode()], [one.uid for one in listed])
        self.assertEqual([self.key(name) for name in names], [one.where for one in listed])
        self.assertEqual([wire_form(A), wire_form(B)], [self.admin.read("ann", one).read() for one in listed])

    def test_ranges(self) -> None:
        """A large message is fetched piece by piece as it is read, the first piece at once."""
        message = b"Subject: x\r\n\r\n" + b"0123456789abcd\r\n" * (5 * RANGE // 2 // 16)
        self.world.deliver("ann", message)
        (one,) = self.admin.list("ann")
        self.world.calls.clear()
        with self.admin.read("ann", one) as file:
            self.assertEqual(["get", "get_range"], self.world.calls)
            self.assertEqual(b"Subject: x\r\n", file.readline())
            self.assertEqual(["get", "get_range"], self.world.calls)
            rest = file.read()
        self.assertTrue(b"Subject: x\r\n" + rest == message)
        self.assertEqual(["get", *["get_range"] * 3], self.world.calls)
        with self.admin.read("ann", one) as file:
            self.assertTrue(b"".join(iter(lambda: file.read(100_000), b"")) == message)
        with self.admin.read("ann", one) as file:
            self.assertEqual(message.count(b"\n"), len(list(io.BufferedReader(file.raw))))  # type: ignore

    def test_gone_while_it_is_read(self) -> None:
        """A message that goes while it is read is gone; one that breaks off is trouble."""
        name = self.world.deliver("ann", b"x" * (3 * RANGE))
        (one,) = self.admin.list("ann")
        file = self.admin.read("ann", one)
        self.replace(self.key(name), b"x" * (one.octets - 1))
        self.assertRaises(StoreTrouble, file.read)
        file = self.admin.read("ann", one)
        self.world.take_away("ann", name)
        self.assertRaises(MessageGone, file.read)

    def test_another_mailbox(self) -> None:
        """What was listed before the mailbox was removed and made again is gone."""
        self.world.deliver("ann", A)
        (one,) = self.admin.list("ann")
        self.admin.remove("ann")
        self.users.make("ann")
        self.assertRaises(MessageGone, self.admin.read, "ann", one)

    def test_unreadable_record(self) -> None:
        """A record that cannot be read is trouble, not somebody without a mailbox."""
        self.replace(user_key("ann"), b"{")
        for method in (self.admin.exists, self.admin.list, self.admin.usage, self.admin.remove):
            self.assertRaises(StoreTrouble, method, "ann")
        self.assertRaises(StoreTrouble, self.admin.users)
        self.assertTrue(self.admin.exists("bob"))

    def test_nothing_is_made(self) -> None:
        """Users that make maildrops for others make none for who only asks."""
        admin = ObjectAdmin(self.server.engines, Users(self.server.engines, create=True))
        for method in (admin.list, admin.usage, admin.remove):
            self.assertRaises(NoSuchMailbox, method, "eve")
        self.assertFalse(admin.exists("eve"))

    def test_accounts_are_no_mailboxes(self) -> None:
        """Who has an account and no maildrop is not among the users."""
        self.users.edit("eve", lambda record: record._replace(account="x"))
        self.assertEqual(["ann", "bob"], self.admin.users())
        self.assertFalse(self.admin.exists("eve"))


class ProblemsTests(_Case):
    """What can be wrong."""

    def problems(self, **how: bool) -> list[str]:
        """What is said of Ann's."""
        return list(self.admin.problems("ann", **how))

    def test_octets(self) -> None:
        """A message that is not in wire form has other octets than are listed; that is found by reading."""
        name = self.world.deliver("ann", A)
        self.replace(self.key(name), A)
        said = f"{self.key(name)}: it has {len(A)} octets, but {len(wire_form(A))} as POP3 sends it"
        self.assertEqual([said], self.problems())
        self.assertEqual([], self.problems(read=False))

    def test_strange_objects(self) -> None:
        """What is no message of ours is told; it is not listed."""
        key = self.key("README")
        self.world.engine().create(key, b"x")
        self.assertEqual([f"{key}: no message of ours; it is not listed"], self.problems())
        self.assertEqual([], self.admin.list("ann"))

    def test_unique_ids(self) -> None:
        """Unique-ids that are none, or are there twice, are told: others are listed in their place."""
        names = [message_name(1, b"x"), message_name(2, b"X"), message_name(3, b"y" * 71)]
        for number, name in enumerate(names):
            self.world.deliver("ann", b"Subject: %d\n\n" % number, name)
        twice, none = self.problems(read=False)
        self.assertIn(f"{self.key(names[1])}: has the same unique-id as {self.key(names[0])}", twice)
        self.assertIn(f"{self.key(names[2])}: its unique-id is none", none)

    def test_doubles(self) -> None:
        """The same letter that came twice is told, though its way was another, or it is equal."""
        first, second = (self.world.deliver("ann", LETTER % way) for way in (b"a", b"b"))
        self.world.deliver("ann", A)
        self.assertEqual([f"{self.key(second)}: the same message as {self.key(first)}"], self.problems())
        self.world.deliver("ann", A)
        self.assertEqual(2, len(self.problems()))

    def test_lease(self) -> None:
        """A lease that is missing, unreadable or gone is told; who has it does not matter."""
        key = lease_key(self.world.record("ann").drop)
        self.wait(self.server.store.open("ann"))
        self.assertEqual([], self.problems())
        self.replace(key, b"{")
        self.assertIn("lease", self.problems()[0])
        self.replace(key, Lease(GONE, "x", 1).encoded())
        self.assertIn("removed", self.problems()[0])
        self.world.engine().delete([key])
        self.assertIn("no lease", self.problems()[0])

    def test_unreadable(self) -> None:
        """A message that cannot be read is told, and others are read; what goes meanwhile is no problem."""
        first, second = self.world.deliver("ann", A), self.world.deliver("ann", B)
        self.world.fault("get_range", self.key(first))
        self.assertEqual([f"{self.key(first)}: nobody answers"], self.problems())
        self.world.faults.clear()
        self.world.fault("get_range", self.key(second), do=lambda: None, error=None, once=True)
        problems = self.admin.problems("ann")
        self.world.faults[0] = self.world.faults[0]._replace(do=lambda: self.world.take_away("ann", second))
        self.assertEqual([], list(problems))


class UnlockingTests(_Case):
    """A lock that somebody has removed or overwritten."""

    def test_lost(self) -> None:
        """It is made anew, and who has mail sees it again; the mailbox can be removed, too."""
        name = self.world.deliver("ann", A)
        key = lease_key(self.world.record("ann").drop)
        for body in (None, b"", b"{}", b"[" * 100_000, Lease(GONE, "x", 1).encoded()):
            if body is None:
                self.world.engine().delete([key])
            else:
                self.replace(key, body)
            self.fails(StoreTrouble, self.server.store.open, "ann")
            self.assertRaises(StoreTrouble, self.admin.remove, "ann")
            self.assertTrue(self.admin.unlock("ann"))
            self.assertEqual([], list(self.admin.problems("ann")))
            mailbox = self.wait(self.server.store.open("ann"))
            self.assertEqual([name.encode()], [entry.uid for entry in mailbox.entries])
            self.wait(mailbox.release())
        self.admin.remove("ann")
        self.assertRaises(NoSuchMailbox, self.admin.unlock, "ann")

    def test_nothing_to_do(self) -> None:
        """A lock that can be read is left alone, held or free."""
        key = lease_key(self.world.record("ann").drop)
        mailbox = self.wait(self.server.store.open("ann"))
        for _ in range(2):
            before = self.world.engine().get(key).body
            self.assertFalse(self.admin.unlock("ann"))
            self.assertEqual(before, self.world.engine().get(key).body)
            self.wait(mailbox.release())

    def test_a_session_that_had_it(self) -> None:
        """It has lost it, and removes nothing."""
        self.world.deliver("ann", A)
        mailbox = self.wait(self.server.store.open("ann"))
        self.world.engine().delete([lease_key(self.world.record("ann").drop)])
        self.assertTrue(self.admin.unlock("ann"))
        other = self.wait(self.world.server().store.open("ann"))
        trouble = self.fails(StoreTrouble, mailbox.remove, [mailbox.entries[0].uid])
        self.assertEqual(0, trouble.removed)
        self.assertEqual(1, len(self.world.names("ann")))
        self.wait(mailbox.release())
        self.wait(other.remove([other.entries[0].uid]))
        self.wait(other.release())

    def test_meanwhile(self) -> None:
        """What somebody else has written meanwhile is not overwritten."""
        key = lease_key(self.world.record("ann").drop)
        self.replace(key, b"")
        self.world.fault("put", error=None, do=lambda: self.replace(key, b"other"), once=True)
        self.assertRaises(StoreTrouble, self.admin.unlock, "ann")
        self.assertEqual(b"other", self.world.engine().get(key).body)


class RemovalTests(_Case):
    """Mailboxes that are removed, and what may come between."""

    def test_lease_stays(self) -> None:
        """The lease says for good that the mailbox is gone; the account stays."""
        self.users.edit("ann", lambda one: one._replace(account="ann:x"))
        drop = self.world.record("ann").drop
        self.admin.remove("ann")
        self.assertEqual(GONE, Lease.decoded(self.world.engine().get(lease_key(drop)).body).state)
        self.assertEqual(UserRecord("ann", account="ann:x"), self.world.record("ann"))

    def test_another_nodes_crash(self) -> None:
        """A lease of a server that crashed is waited for, also by who has no name."""
        self.wait(self.server.store.open("ann"))
        self.server.hangs = True
        self.assertRaises(InUse, self.admin.remove, "ann")
        self.world.passes(TTL + MARGIN + 1)
        self.admin.remove("ann")

    def test_session_that_comes_between(self) -> None:
        """A session that opens the mailbox at any moment of a removal has all of it, or is refused."""
        for call in range(1, 12):
            self.new()
            for message in (A, B, C):
                self.world.deliver("ann", message)
            seen: list[int] = []

            def session(seen: list[int] = seen) -> None:
                try:
                    mailbox = self.wait(self.server.store.open("ann"))
                except StoreTrouble:
                    return
                except InUse:
                    return
                seen.append(len(mailbox.entries))
                self.wait(mailbox.release())

            self.at(call, error=None, do=session, once=True)
            with_session = False
            try:
                self.admin.remove("ann")
            except InUse:
                with_session = True
            self.assertTrue(seen in ([], [3]), (call, seen))
            self.assertFalse(with_session)
            self.assertFalse(self.admin.exists("ann"))
            self.assertEqual([], self.world.engine().list("m"))

    def test_faults(self) -> None:
        """Whatever call fails: it is removed, or all there still, or gone, and what may be left is told."""
        for after in (False, True):
            for call in range(1, 14):
                self.new()
                for message in (A, B, C):
                    self.world.deliver("ann", message)
                self.at(call, after=after)
                try:
                    self.admin.remove("ann")
                    failed = False
                except StoreTrouble:
                    failed = True
                self.world.faults.clear()
                left = self.world.engine().list("m")
                if self.admin.exists("ann"):
                    self.assertTrue(failed)
                    self.assertEqual(3, len(left))
                    self.world.passes(TTL + MARGIN + 1)
                    self.assertEqual(3, len(self.wait(self.server.store.open("ann")).entries))
                else:
                    self.assertTrue(failed or not left)

    def test_two_at_once(self) -> None:
        """Of two who remove a mailbox at the same time one does, at any moment."""
        for call in range(1, 8):
            self.new()
            self.world.deliver("ann", A)
            outcomes: list[str] = []

            def remove(outcomes: list[str] = outcomes) -> None:
                try:
                    ObjectAdmin(self.server.engines, Users(self.server.engines)).remove("ann")
                    outcomes.append("done")
                except (InUse, NoSuchMailbox):
                    outcomes.append("refused")

            self.at(call, error=None, do=remove, once=True)
            remove()
            self.assertEqual(["done", "refused"], sorted(outcomes), call)
            self.assertEqual([], self.world.engine().list("m"))

    def test_lease_is_free_behind_a_failure(self) -> None:
        """A removal that fails before anything is removed gives the lease back."""
        self.world.fault("put", "a/")
        self.assertRaises(StoreTrouble, self.admin.remove, "ann")
        self.world.faults.clear()
        self.assertEqual(FREE, self.lease().state)

    def test_very_many(self) -> None:
        """A mailbox with very many messages is emptied by several requests at once, and whole."""
        self.world = World("ann", at_once=AT_ONCE)
        for _ in range(2 * AT_ONCE * KEYS):
            self.world.deliver("ann", A)
        together = threading.Barrier(AT_ONCE)
        self.world.fault("delete", "m/", error=None, do=lambda: together.wait(30.0))
        engines = self.world.server().engines
        ObjectAdmin(engines, Users(engines)).remove("ann")
        self.assertEqual([], self.world.engine().list("m"))
        self.assertEqual(2 * AT_ONCE, self.world.calls.count("delete"))

    def test_emptied_again(self) -> None:
        """What comes while a mailbox is emptied goes with it."""
        drop = self.world.record("ann").drop
        self.world.deliver("ann", A)
        late = message_key(drop, "0" * 32)
        self.world.fault(
            "delete",
            "m/",
            error=None,
            do=lambda: self.world.engine().create(late, b"x"),
            once=True,
            after=True,
        )
        self.admin.remove("ann")
        self.assertEqual([], self.world.engine().list("m"))
        self.assertTrue(module._TIMES > 1)
