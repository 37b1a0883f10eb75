"""Mail in memory keeps the promises of a store and of a delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import MessageGone, NoSuchMailbox
from pop3toy.stores.memory import BytesBody, MemoryStore

from ..store_contract import AdminContract, DeliveryContract, StoreContract


class MemoryStoreContractTests(StoreContract, SynchronousTestCase):
    """The contract of a store."""

    def store(self, messages: Sequence[bytes]) -> MemoryStore:
        return MemoryStore({self.USER: messages})

    def arrive(self, store: MemoryStore, message: bytes) -> None:
        store.add(self.USER, message)

    def take_away(self, store: MemoryStore, index: int) -> None:
        store.discard(self.USER, store.list(self.USER)[index].uid.decode())


class MemoryDeliveryContractTests(DeliveryContract, SynchronousTestCase):
    """The contract of a delivery."""

    def delivery(self) -> tuple[MemoryStore, MemoryStore]:
        store = MemoryStore(dict.fromkeys(self.USERS, ()))
        return store, store

    def break_maildrop(self, store: MemoryStore, user: str) -> None:
        store.remove(user)


class MemoryAdminContractTests(AdminContract, SynchronousTestCase):
    """The contract of administration."""

    def administered(self, mail: Mapping[str, Sequence[bytes]]) -> tuple[Any, Any, Any]:
        store = MemoryStore(mail)
        return store, store, store


class MemoryStoreTests(SynchronousTestCase):
    """What is the memory store's own."""

    def test_create(self) -> None:
        """With ``create`` a user without a maildrop gets an empty one, by a session or by mail."""
        store = MemoryStore(create=True)
        self.assertEqual([], list(store.open("ann").entries))
        store.check("bob")
        incoming = store.begin(["bob"])
        incoming.write(b"x")
        self.successResultOf(incoming.commit())
        self.assertEqual((b"x",), store.messages("bob"))

    def test_no_create(self) -> None:
        """Without it he has none, and the detail says who asked."""
        store = MemoryStore({"ann": []})
        self.assertIn("'bob'", self.assertRaises(NoSuchMailbox, store.open, "bob").detail)
        self.assertRaises(NoSuchMailbox, store.check, "bob")
        self.assertRaises(NoSuchMailbox, store.begin, ["bob"])

    def test_mailboxes_are_apart(self) -> None:
        """One user's lock, mail and removals are nothing to another's."""
        store = MemoryStore({"ann": [b"a"], "bob": [b"b"]})
        ann, bob = store.open("ann"), store.open("bob")
        ann.remove([bob.entries[0].uid, ann.entries[0].uid])
        self.assertEqual(((), (b"b",)), (store.messages("ann"), store.messages("bob")))

    def test_given_unique_ids(self) -> None:
        """Unique-ids come from where the embedding program says."""
        names = iter(["first", "second"])
        store = MemoryStore({"ann": [b"a"]}, new_uid=lambda: next(names))
        self.assertEqual(b"second", store.add("ann", b"b"))
        self.assertEqual([b"first", b"second"], [entry.uid for entry in store.open("ann").entries])

    def test_one_unique_id(self) -> None:
        """A message may come with a unique-id, which has to be one, and is nobody else's."""
        store = MemoryStore({"ann": []})
        self.assertEqual(store.add("ann", b"a", "first"), b"first")
        for wrong in ("first", "", "a b", "\u00eb", "x" * 71):
            self.assertRaises(ValueError, store.add, "ann", b"b", wrong)
        self.assertEqual(store.add("bob", b"b", "first"), b"first")
        self.assertEqual(store.messages("ann"), (b"a",))

    def test_discard(self) -> None:
        """A message can be taken away behind a session's back, which finds it gone."""
        store = MemoryStore({"ann": [b"a"]})
        mailbox = store.open("ann")
        store.discard("ann", mailbox.entries[0].uid.decode())
        self.assertRaises(MessageGone, mailbox.read, mailbox.entries[0].uid)
        self.assertRaises(KeyError, store.discard, "ann", "other")
        self.assertEqual(store.messages("ann"), ())

    def test_aborted_holds_nothing(self) -> None:
        """A delivery that is over cannot be committed."""
        store = MemoryStore({"ann": []})
        incoming = store.begin(["ann"])
        incoming.abort()
        self.assertRaises(RuntimeError, incoming.commit)
        incoming = store.begin(["ann"])
        self.successResultOf(incoming.commit())
        self.assertRaises(RuntimeError, incoming.commit)
        self.assertEqual((b"",), store.messages("ann"))

    def test_body_of_nothing(self) -> None:
        """An empty message is one empty chunk."""
        body = BytesBody(b"")
        self.assertEqual((False, b"", True), (body.done, body.pull(), body.done))
