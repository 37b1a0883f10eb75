"""The toy's mailbox: one message that says hello."""

from __future__ import annotations

from collections.abc import Sequence
from email import message_from_bytes
from email.policy import default
from email.utils import parsedate_to_datetime

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.hello import PASSWORD, USER, hello_message, hello_store
from pop3toy.stores.memory import MemoryStore

from ..corpus import wire_form
from ..store_contract import DeliveryContract, StoreContract

START = 1_700_000_000.25


def emptied(*users: str) -> MemoryStore:
    """The toy's store, from which the built-in messages have been fetched and deleted."""
    store = hello_store(START, users)
    for user in users:
        mailbox = store.open(user)
        mailbox.remove([entry.uid for entry in mailbox.entries])
        mailbox.release()
    return store


class HelloStoreContractTests(StoreContract, SynchronousTestCase):
    """The contract of a store, for mail that was delivered into the toy."""

    def store(self, messages: Sequence[bytes]) -> MemoryStore:
        store = emptied(self.USER)
        for message in messages:
            store.add(self.USER, message)
        return store

    def arrive(self, store: MemoryStore, message: bytes) -> None:
        store.add(self.USER, message)

    def take_away(self, store: MemoryStore, index: int) -> None:
        mail = store._mail[self.USER]
        del mail[list(mail)[index]]


class HelloDeliveryContractTests(DeliveryContract, SynchronousTestCase):
    """The contract of a delivery."""

    def delivery(self) -> tuple[MemoryStore, MemoryStore]:
        store = emptied(*self.USERS)
        return store, store

    def break_maildrop(self, store: MemoryStore, user: str) -> None:
        store.remove(user)


class HelloTests(SynchronousTestCase):
    """The built-in message and its maildrop."""

    def test_message(self) -> None:
        """It is a proper message: subject, date of the start, sender, identity, a body that greets."""
        message = message_from_bytes(hello_message(START), policy=default)
        self.assertEqual("Hello World!", message["Subject"])
        self.assertEqual(int(START), parsedate_to_datetime(message["Date"]).timestamp())
        for name in ("From", "To", "Message-ID", "MIME-Version", "Content-Type"):
            self.assertTrue(message[name], name)
        self.assertTrue(message.get_content().startswith("Hello World!"))
        self.assertEqual([], message.defects)

    def test_octets(self) -> None:
        """It is in wire form as it is: ASCII, CRLF, no line above 78 characters."""
        message = hello_message(START)
        self.assertEqual(wire_form(message), message)
        self.assertTrue(message.isascii())
        self.assertLessEqual(max(map(len, message.split(b"\r\n"))), 78)

    def test_account(self) -> None:
        """The public account has it, and nobody else is there."""
        self.assertEqual(("user", "pass"), (USER, PASSWORD))
        store = hello_store(START)
        self.assertEqual((hello_message(START),), store.messages(USER))
        self.assertEqual((), store.messages("ann"))

    def test_deleted_until_the_next_start(self) -> None:
        """Once removed it stays away until the next start, which brings one with a unique-id of its own."""
        store = hello_store(START)
        mailbox = store.open(USER)
        (old,) = mailbox.entries
        mailbox.remove([old.uid])
        mailbox.release()
        self.assertEqual([], list(store.open(USER).entries))
        (new,) = hello_store(START + 1).open(USER).entries
        self.assertNotEqual(old.uid.lower(), new.uid.lower())

    def test_each_user_has_one(self) -> None:
        """Accounts of the command line get a message each, with unique-ids of their own."""
        store = hello_store(START, ["ann", "bob"])
        uids = [entry.uid for user in ("ann", "bob") for entry in store.open(user).entries]
        self.assertEqual(2, len(set(uids)))
