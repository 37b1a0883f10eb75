"""What every store promises, as tests: a new store is a test class of some lines.

Here live the contract of :class:`IMailStore` and :class:`IMailbox`, that of
:class:`IDelivery` for stores that take mail, and that of :class:`IStoreAdmin` for
those that the ``pop3toy`` command looks after.  A test class mixes one of them
into ``SynchronousTestCase`` and says how a store with given messages is made
(and, as ``take_away`` and ``arrive`` tell, how messages vanish and come while it is open)::

    class MyStoreTests(StoreContract, SynchronousTestCase):
        def store(self, messages: Sequence[bytes]) -> IMailStore:
            return MyStore({self.USER: messages})

Nothing here may know how a store keeps its mail, and no store may need to know
that it is tested: expectations come from ``tests.corpus``, which does not count
octets as the server does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from zope.interface import providedBy
from zope.interface.verify import verifyObject

from pop3toy import limits
from pop3toy.errors import InUse, MessageGone, NoSuchMailbox, Refusal, StoreTrouble
from pop3toy.interfaces import Entry, IDelivery, IMailbox, IMailStore, IStoreAdmin, IViewableStore
from pop3toy.mail.octets import Encoder

from .corpus import awkward_messages, wire_form
from .store_world import outcome

__all__ = ["AdminContract", "DeliveryContract", "StoreContract"]

#: RFC 1939 section 7.
VALID_UID = re.compile(rb"[\x21-\x7e]{1,70}")

A, B, C = b"Subject: a\n\na\n", b"Subject: b\r\n\r\nb b\r\n", b"Subject: c\n\nc c c"


class _Contract:
    """What both contracts need; the methods of ``SynchronousTestCase`` come from the test class."""

    #: Whose maildrop is tested.
    USER = "ann"

    successResultOf: Any
    failureResultOf: Any
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIsInstance: Any
    assertIn: Any
    assertNotEqual: Any
    assertRaises: Any

    def wait(self, result: Any) -> Any:
        """What a method gave, at once or as a Deferred; its failure is raised.

        For a store whose threads are run by the test, override this.
        """
        return outcome(result)

    def open(self, store: Any, user: str | None = None) -> Any:
        """The opened maildrop of ``USER``, or of another user."""
        return self.wait(store.open(user or self.USER))

    def fails(self, kind: type[Refusal], function: Any, *args: Any) -> Refusal:
        """The refusal that a call raised or fails with."""
        return self.failureResultOf(maybeDeferred(function, *args), kind).value

    def octets_of(self, mailbox: Any, uid: bytes) -> bytes:
        """A message in wire form (before dot-stuffing), pulled as the server pulls it."""
        body = self.wait(mailbox.read(uid))
        encoder = Encoder()
        pieces = []
        pulls = 0
        while not body.done:
            chunk = self.wait(body.pull())
            self.assertIsInstance(chunk, bytes)
            assert len(chunk) <= limits.CHUNK, f"a chunk of {len(chunk)} octets"
            pieces.append(encoder.feed(chunk))
            pulls += 1
            assert pulls < 10_000, "the body has no end"
        pieces.append(encoder.finish())
        body.close(encoder.octets)
        wire = b"".join(pieces)
        lines = wire.split(b"\r\n")
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)

    def contents(self, mailbox: Any) -> list[bytes]:
        """All messages of an open maildrop in wire form, in its order."""
        return [self.octets_of(mailbox, entry.uid) for entry in mailbox.entries]

    def kept(self, store: Any, user: str | None = None) -> list[bytes]:
        """What a new session of ``USER``, or of another user, finds."""
        mailbox = self.open(store, user)
        try:
            return self.contents(mailbox)
        finally:
            self.wait(mailbox.release())


class StoreContract(_Contract):
    """What holds for every store."""

    #: Whether opening locks; an adapter leaves that to the realm behind it.
    LOCKS = True
    #: Whether a message of no octets can be told from one that is not there.
    EMPTY_MESSAGES = True
    #: Whether it knows when messages came.
    KNOWS_ARRIVAL = True

    def store(self, messages: Sequence[bytes]) -> Any:
        """A new store in which ``USER`` has these messages, oldest first."""
        raise NotImplementedError

    def take_away(self, store: Any, index: int) -> None:
        """Remove the message with this index, as another program would behind the lock."""
        raise NotImplementedError

    def arrive(self, store: Any, message: bytes) -> None:
        """New mail for ``USER``, as another program would deliver it."""
        raise NotImplementedError

    def gone(self, mailbox: Any, uid: bytes) -> None:
        """A message is not there any more: that is found when it is opened, or with its first chunk."""

        def read() -> Any:
            body = self.wait(mailbox.read(uid))
            try:
                return self.wait(body.pull())
            finally:
                body.close(None)

        self.fails(MessageGone, read)

    # -- ports -------------------------------------------------------------------

    def test_interfaces(self) -> None:
        """The store and what it opens provide the ports that they name."""
        store = self.store([A])
        self.assertTrue(verifyObject(IMailStore, store))
        self.assertTrue(verifyObject(IMailbox, self.open(store)))

    def test_view(self) -> None:
        """Who only looks hears of no lock and keeps nobody out; what is removed meanwhile is gone."""
        store = self.store([A, B])
        if not IViewableStore.providedBy(store):
            return
        before = self.wait(store.view(self.USER))
        own = self.open(store)
        views = [before, *(self.wait(store.view(self.USER)) for _ in range(2))]
        for view in views:
            self.assertEqual(list(view.entries), list(own.entries))
            self.assertEqual(self.contents(view), self.contents(own))
        self.wait(own.remove([own.entries[0].uid]))
        self.wait(own.release())
        for view in views:
            self.gone(view, own.entries[0].uid)
            self.wait(view.release())
        own = self.open(store)
        self.assertEqual(len(own.entries), 1)
        self.wait(own.release())

    # -- listing -----------------------------------------------------------------

    def test_empty_maildrop(self) -> None:
        """A maildrop without mail opens, and has no entries."""
        self.assertEqual([], list(self.open(self.store([])).entries))

    def test_order(self) -> None:
        """Messages come in the order of their delivery."""
        messages = [b"Subject: %d\n\n%d\n" % (number, number) for number in range(25)]
        self.assertEqual([wire_form(message) for message in messages], self.kept(self.store(messages)))

    def test_entries_are_a_sequence(self) -> None:
        """Entries have a length, an index and values that compare."""
        entries = self.open(self.store([A, B])).entries
        self.assertEqual(2, len(entries))
        self.assertEqual(Entry(*entries[1]), entries[1])
        self.assertEqual(list(entries), [entries[0], entries[1]])

    def test_unique_ids(self) -> None:
        """Unique-ids are 1 to 70 octets of 0x21 to 0x7E, and differ by more than case."""
        uids = [entry.uid for entry in self.open(self.store([A, A, B, C, A])).entries]
        for uid in uids:
            self.assertTrue(VALID_UID.fullmatch(uid), uid)
        self.assertEqual(5, len({uid.lower() for uid in uids}))

    def test_same_in_every_session(self) -> None:
        """Unique-ids, octets and order are the same in the next session."""
        store = self.store([A, B, C])
        first = self.open(store)
        entries = list(first.entries)
        self.wait(first.release())
        self.assertEqual(entries, list(self.open(store).entries))

    def test_listing_is_fixed(self) -> None:
        """Mail that arrives while a session lasts is not in it, but in the next."""
        store = self.store([A, B])
        mailbox = self.open(store)
        before = list(mailbox.entries)
        self.arrive(store, C)
        self.assertEqual(before, list(mailbox.entries))
        self.assertEqual([wire_form(A), wire_form(B)], self.contents(mailbox))
        self.wait(mailbox.release())
        again = self.open(store)
        self.assertEqual(before, list(again.entries)[:2])
        self.assertEqual([wire_form(A), wire_form(B), wire_form(C)], self.contents(again))

    def time_of_day(self) -> float:
        """The time of day that new mail gets."""
        return time.time()

    def test_arrival(self) -> None:
        """Entries tell when their messages came, the same in each session; or none of them does."""
        store = self.store([A])
        before = self.time_of_day()
        self.arrive(store, B)
        mailbox = self.open(store)
        times = [entry.arrived for entry in mailbox.entries]
        self.assertEqual(times, [mailbox.entries[at].arrived for at in (0, 1)])
        self.assertEqual(times, [entry.arrived for entry in mailbox.entries[:]])
        self.assertEqual(times[-1], mailbox.entries[-1].arrived)
        if not self.KNOWS_ARRIVAL:
            self.assertEqual([None, None], times)
            return
        self.assertTrue(times[0] <= before <= times[1] <= self.time_of_day(), times)
        self.wait(mailbox.release())
        self.assertEqual(times, [entry.arrived for entry in self.open(store).entries])

    # -- reading -----------------------------------------------------------------

    def test_awkward_messages(self) -> None:
        """Each message comes back unchanged in wire form, and its octets are exact."""
        corpus = [one for one in awkward_messages(large=False) if one.stored or self.EMPTY_MESSAGES]
        assert len(corpus) > 30
        mailbox = self.open(self.store([one.stored for one in corpus]))
        self.assertEqual(len(corpus), len(mailbox.entries))
        for one, entry in zip(corpus, mailbox.entries, strict=True):
            self.assertEqual((one.name, len(one.wire)), (one.name, entry.octets))
            assert self.octets_of(mailbox, entry.uid) == one.wire, one.name

    def test_large_message(self) -> None:
        """A message of several chunks is read chunk by chunk, none of them above the limit."""
        message = b"Subject: large\n\n" + b"0123456789abcde\n" * (limits.CHUNK // 5)
        mailbox = self.open(self.store([message]))
        assert self.octets_of(mailbox, mailbox.entries[0].uid) == wire_form(message)

    def test_read_twice_and_at_once(self) -> None:
        """A message can be read again, and two of them in turns."""
        mailbox = self.open(self.store([A, B]))
        first, second = (entry.uid for entry in mailbox.entries)
        self.assertEqual(self.octets_of(mailbox, first), self.octets_of(mailbox, first))
        one, other = self.wait(mailbox.read(first)), self.wait(mailbox.read(second))
        chunks = self.wait(one.pull()), self.wait(other.pull())
        self.assertEqual([wire_form(A), wire_form(B)], [wire_form(chunk) for chunk in chunks])
        one.close(None)
        other.close(None)

    def test_body_given_up(self) -> None:
        """A body that is closed before its end, or before it began, harms nobody."""
        message = b"Subject: large\n\n" + b"x" * (limits.CHUNK * 2)
        mailbox = self.open(self.store([message]))
        uid = mailbox.entries[0].uid
        self.wait(mailbox.read(uid)).close(None)
        body = self.wait(mailbox.read(uid))
        self.wait(body.pull())
        self.assertEqual(False, body.done)
        body.close(None)
        assert self.octets_of(mailbox, uid) == wire_form(message)

    def test_reading_changes_nothing(self) -> None:
        """A message that was read has the same unique-id and octets in the next session."""
        store = self.store([A, B, C])
        mailbox = self.open(store)
        entries = list(mailbox.entries)
        self.contents(mailbox)
        self.wait(mailbox.release())
        self.assertEqual(entries, list(self.open(store).entries))

    def test_vanished(self) -> None:
        """A message that was taken away behind the lock is refused, the others are still read."""
        store = self.store([A, B, C])
        mailbox = self.open(store)
        self.take_away(store, 1)
        entries = mailbox.entries
        self.assertEqual(3, len(entries))
        self.gone(mailbox, entries[1].uid)
        self.assertEqual(wire_form(A), self.octets_of(mailbox, entries[0].uid))
        self.assertEqual(wire_form(C), self.octets_of(mailbox, entries[2].uid))

    # -- removing ----------------------------------------------------------------

    def test_removes_exactly(self) -> None:
        """Removal takes the named messages and no other."""
        store = self.store([A, B, C, A, B])
        mailbox = self.open(store)
        uids = [entry.uid for entry in mailbox.entries]
        self.assertEqual(None, self.wait(mailbox.remove([uids[3], uids[0]])))
        self.wait(mailbox.release())
        again = self.open(store)
        self.assertEqual([uids[1], uids[2], uids[4]], [entry.uid for entry in again.entries])
        self.assertEqual([wire_form(B), wire_form(C), wire_form(B)], self.contents(again))

    def test_removes_all(self) -> None:
        """A maildrop can be emptied."""
        store = self.store([A, B])
        mailbox = self.open(store)
        self.wait(mailbox.remove([entry.uid for entry in mailbox.entries]))
        self.wait(mailbox.release())
        self.assertEqual([], list(self.open(store).entries))

    def test_removes_nothing(self) -> None:
        """Removing no messages removes none."""
        store = self.store([A, B])
        mailbox = self.open(store)
        self.wait(mailbox.remove([]))
        self.wait(mailbox.release())
        self.assertEqual([wire_form(A), wire_form(B)], self.kept(store))

    def test_removal_is_idempotent(self) -> None:
        """A removed message is gone; removing it again succeeds, and takes nothing else."""
        store = self.store([A, B, C])
        mailbox = self.open(store)
        uid = mailbox.entries[1].uid
        self.wait(mailbox.remove([uid]))
        self.gone(mailbox, uid)
        self.wait(mailbox.remove([uid]))
        self.wait(mailbox.release())
        self.assertEqual([wire_form(A), wire_form(C)], self.kept(store))

    def test_removes_what_vanished(self) -> None:
        """A message that is gone already counts as removed; the others are removed."""
        store = self.store([A, B, C])
        mailbox = self.open(store)
        self.take_away(store, 0)
        self.wait(mailbox.remove([mailbox.entries[0].uid, mailbox.entries[2].uid]))
        self.wait(mailbox.release())
        self.assertEqual([wire_form(B)], self.kept(store))

    def test_new_mail_survives_a_removal(self) -> None:
        """What arrives while a session lasts is there after it has removed everything it saw."""
        store = self.store([A, B])
        mailbox = self.open(store)
        self.arrive(store, C)
        self.wait(mailbox.remove([entry.uid for entry in mailbox.entries]))
        self.wait(mailbox.release())
        self.assertEqual([wire_form(C)], self.kept(store))

    def test_unique_ids_are_not_used_again(self) -> None:
        """New mail gets none of the unique-ids that removed messages had."""
        store = self.store([A, B])
        mailbox = self.open(store)
        removed = {entry.uid for entry in mailbox.entries}
        self.wait(mailbox.remove(sorted(removed)))
        self.wait(mailbox.release())
        for _ in range(3):
            self.arrive(store, A)
        self.assertEqual(set(), removed & {entry.uid for entry in self.open(store).entries})

    # -- the lock ------------------------------------------------------------------

    def test_release_removes_nothing(self) -> None:
        """A released maildrop can be opened at once, and has all its messages, read or not."""
        store = self.store([A, B])
        for read in (False, True, False, True):
            mailbox = self.open(store)
            if read:
                self.contents(mailbox)
            self.wait(mailbox.release())
        self.assertEqual([wire_form(A), wire_form(B)], self.kept(store))

    def test_exclusive(self) -> None:
        """While a session lasts, a second one is refused at once, with the word "lock"."""
        if not self.LOCKS:
            return
        store = self.store([A])
        mailbox = self.open(store)
        for _ in range(2):
            refusal = self.fails(InUse, store.open, self.USER)
            self.assertEqual("IN-USE", refusal.code)
            self.assertIn("lock", refusal.text)
        self.assertEqual([wire_form(A)], self.contents(mailbox))

    def test_release_twice(self) -> None:
        """A second release gives nothing away that somebody else holds."""
        store = self.store([A])
        first = self.open(store)
        self.wait(first.release())
        second = self.open(store)
        self.wait(first.release())
        if self.LOCKS:
            self.fails(InUse, store.open, self.USER)
        self.assertEqual([wire_form(A)], self.contents(second))
        self.wait(second.release())
        self.wait(second.release())
        self.open(store)

    def test_no_such_user(self) -> None:
        """A user without a maildrop is refused as trouble, not shown an empty one; nothing stays locked."""
        store = self.store([A])
        for user in ("nobody", "", "../ann", "ann/../ann", "/ann", "ann\0", ".", "..", "a" * 300, "ann\n"):
            self.assertEqual("SYS/TEMP", self.fails(StoreTrouble, store.open, user).code)
        self.assertEqual([wire_form(A)], self.kept(store))


class DeliveryContract(_Contract):
    """What holds for every store that takes mail."""

    #: All who have a maildrop.
    USERS = (_Contract.USER, "bob", "cat")

    def delivery(self) -> tuple[Any, Any]:
        """A new store in which ``USERS`` have no mail, and the :class:`IDelivery` into it (or itself)."""
        raise NotImplementedError

    def break_maildrop(self, store: Any, user: str) -> None:
        """Something happens to a user's maildrop: it can take no mail from now on."""
        raise NotImplementedError

    def begin(self, delivery: Any) -> Any:
        """A delivery to ``USER``."""
        return self.wait(delivery.begin([self.USER]))

    def deliver(self, delivery: Any, *chunks: bytes) -> bytes:
        """Deliver a message; its uid."""
        incoming = self.begin(delivery)
        for chunk in chunks:
            self.wait(incoming.write(chunk))
        uids: Sequence[bytes] = self.wait(incoming.commit())
        (uid,) = uids
        return uid

    def test_provides_the_port(self) -> None:
        """The delivery provides the port."""
        _, delivery = self.delivery()
        self.assertTrue(verifyObject(IDelivery, delivery))
        self.assertIn(IDelivery, providedBy(delivery).flattened())

    def test_delivered(self) -> None:
        """A message that is committed is there, under the uid and with the octets that were promised."""
        store, delivery = self.delivery()
        uid = self.deliver(delivery, A)
        mailbox = self.open(store)
        self.assertEqual([(uid, len(wire_form(A)))], [entry[:2] for entry in mailbox.entries])
        self.assertEqual([wire_form(A)], self.contents(mailbox))

    def test_order_of_deliveries(self) -> None:
        """Messages are listed in the order in which they were committed, with their own uids."""
        store, delivery = self.delivery()
        uids = [self.deliver(delivery, b"Subject: %d\n\n" % number) for number in range(12)]
        mailbox = self.open(store)
        self.assertEqual(uids, [entry.uid for entry in mailbox.entries])
        self.assertEqual(wire_form(b"Subject: 11\n\n"), self.octets_of(mailbox, uids[11]))

    def test_awkward_deliveries(self) -> None:
        """Each awkward message arrives with the wire form that it was sent with."""
        store, delivery = self.delivery()
        corpus = awkward_messages(large=False)
        uids = [self.deliver(delivery, one.stored) for one in corpus]
        mailbox = self.open(store)
        octets = {entry.uid: entry.octets for entry in mailbox.entries}
        self.assertEqual(len(corpus), len(octets))
        for one, uid in zip(corpus, uids, strict=True):
            self.assertEqual((one.name, len(one.wire)), (one.name, octets[uid]))
            assert self.octets_of(mailbox, uid) == one.wire, one.name

    def test_any_chunks(self) -> None:
        """However a message is cut into chunks, it arrives whole."""
        store, delivery = self.delivery()
        message = b"Subject: x\r\n\r\n.\r\n\r\r\nend\r"
        for cut in range(len(message) + 1):
            self.deliver(delivery, message[:cut], b"", message[cut:])
        self.deliver(delivery, *(message[at : at + 1] for at in range(len(message))))
        self.assertEqual({wire_form(message)}, set(self.kept(store)))

    def test_invisible_before_commit(self) -> None:
        """Nobody sees a message that is not committed."""
        store, delivery = self.delivery()
        incoming = self.begin(delivery)
        for _ in range(3):
            self.wait(incoming.write(b"x" * limits.CHUNK))
        self.assertEqual([], self.kept(store))
        self.wait(incoming.commit())
        self.assertEqual(1, len(self.kept(store)))

    def test_aborted(self) -> None:
        """An aborted message is never seen; aborting twice or after the commit is harmless."""
        store, delivery = self.delivery()
        incoming = self.begin(delivery)
        self.wait(incoming.write(A))
        incoming.abort()
        incoming.abort()
        self.assertEqual([], self.kept(store))
        incoming = self.begin(delivery)
        self.wait(incoming.write(B))
        self.wait(incoming.commit())
        incoming.abort()
        self.assertEqual([wire_form(B)], self.kept(store))

    def test_needs_no_lock(self) -> None:
        """Mail can be delivered while a session holds the maildrop, and is in the next session."""
        store, delivery = self.delivery()
        self.deliver(delivery, A)
        mailbox = self.open(store)
        self.deliver(delivery, B)
        self.assertEqual(1, len(mailbox.entries))
        self.wait(mailbox.release())
        self.assertEqual([wire_form(A), wire_form(B)], self.kept(store))

    def test_two_at_once(self) -> None:
        """Two deliveries at the same time do not mix."""
        store, delivery = self.delivery()
        one, other = self.begin(delivery), self.begin(delivery)
        self.wait(one.write(A[:5]))
        self.wait(other.write(B[:5]))
        self.wait(one.write(A[5:]))
        self.wait(other.write(B[5:]))
        uids = [self.wait(one.commit())[0], self.wait(other.commit())[0]]
        self.assertNotEqual(uids[0], uids[1])
        mailbox = self.open(store)
        self.assertEqual([wire_form(A), wire_form(B)], [self.octets_of(mailbox, uid) for uid in uids])

    def test_several(self) -> None:
        """A message for several is in each maildrop under the uid that was told; each removes its own."""
        store, delivery = self.delivery()
        incoming = self.wait(delivery.begin(self.USERS))
        self.wait(incoming.write(A[:5]))
        self.wait(incoming.write(A[5:]))
        uids = self.wait(incoming.commit())
        for user, uid in zip(self.USERS, uids, strict=True):
            mailbox = self.open(store, user)
            self.assertEqual([(uid, len(wire_form(A)))], [entry[:2] for entry in mailbox.entries])
            self.assertEqual([wire_form(A)], self.contents(mailbox))
            self.wait(mailbox.remove([uid]))
            self.wait(mailbox.release())
            self.assertEqual([], self.kept(store, user))

    def test_checked(self) -> None:
        """A check leaves nothing behind, whether a message follows or not."""
        store, delivery = self.delivery()
        for octets in (0, len(A)):
            self.wait(delivery.check(self.USER, octets))
        self.assertEqual([], self.kept(store))
        self.deliver(delivery, A)
        self.assertEqual([wire_form(A)], self.kept(store))

    def test_outcomes(self) -> None:
        """Whenever maildrops break, ``commit`` tells the truth of each user.

        Those who stand together have it all, or nobody has; otherwise each has it whose
        maildrop is sound, whole and under the uid that was told.
        """
        moments = st.sampled_from(["", "", "check", "begin", "write", "commit"])

        @given(
            st.lists(
                st.tuples(st.sampled_from(self.USERS), moments), min_size=1, unique_by=lambda one: one[0]
            ),
            st.sampled_from([{}, {"together": True}, {"together": False}]),
            st.sampled_from([10, limits.CHUNK, 300_000]),
        )
        def outcomes(broken_at: list[tuple[str, str]], how: dict[str, bool], size: int) -> None:
            store, delivery = self.delivery()
            broken: set[str] = set()

            def comes(moment: str) -> None:
                for user in [user for user, at in broken_at if at == moment]:
                    self.break_maildrop(store, user)
                    broken.add(user)

            comes("check")
            users = []
            for user, _ in broken_at:
                if user in broken:
                    self.fails(StoreTrouble, delivery.check, user, size)
                else:
                    self.wait(delivery.check(user, size))
                    users.append(user)
            comes("begin")
            text = b"Subject: x\n\n" + b"x" * size
            together = how.get("together", True)
            uids: Sequence[Any] = ()
            incoming, ended = None, False
            try:
                if users:
                    incoming = self.wait(delivery.begin(users, size))
                    self.wait(incoming.write(text[: size // 2]))
                    comes("write")
                    self.wait(incoming.write(text[size // 2 :]))
                    comes("commit")
                    ended = True
                    uids = self.wait(incoming.commit(**how))
            except StoreTrouble:
                refused = broken & set(users)
                self.assertTrue(refused)
                if not (ended and together):
                    self.assertEqual(set(users), refused)
            finally:
                if incoming is not None:
                    incoming.abort()
            has = {}
            if uids:
                told = dict(zip(users, uids, strict=True))
                has = {user: uid for user, uid in told.items() if not isinstance(uid, StoreTrouble)}
                self.assertEqual(set(users) - broken, set(has))
                self.assertTrue(has)
                self.assertTrue(not together or len(has) == len(users))
            for user in set(self.USERS) - broken:
                mailbox = self.open(store, user)
                entries = [(has[user], len(wire_form(text)))] if user in has else []
                self.assertEqual(entries, [entry[:2] for entry in mailbox.entries])
                self.assertEqual([wire_form(text)] * len(entries), self.contents(mailbox))
                self.wait(mailbox.release())

        outcomes()

    def test_no_mailbox(self) -> None:
        """Mail for a user without a maildrop is refused as that, and makes none."""
        store, delivery = self.delivery()
        self.fails(NoSuchMailbox, delivery.check, "nobody")
        self.fails(NoSuchMailbox, delivery.begin, ["nobody"])
        self.fails(StoreTrouble, store.open, "nobody")

    def test_one_without_a_mailbox(self) -> None:
        """A user without a maildrop keeps the message from nobody else, unless they stand together."""
        for users in (["nobody", self.USER], [self.USER, "nobody"]):
            store, delivery = self.delivery()
            for together in (True, False):
                incoming = self.wait(delivery.begin(users))
                self.wait(incoming.write(A))
                if together:
                    self.fails(NoSuchMailbox, lambda one=incoming: one.commit(together=True))
                    self.assertEqual([], self.kept(store))
                else:
                    results = dict(zip(users, self.wait(incoming.commit(together=False)), strict=True))
                    self.assertIsInstance(results["nobody"], NoSuchMailbox)
                    self.assertEqual([results[self.USER]], [entry.uid for entry in self.open(store).entries])


class AdminContract(_Contract):
    """What holds for every store that the ``pop3toy`` command looks after."""

    #: Names that no user has, and that may not lead anywhere else either.
    NOBODY = ("nobody", "", "../ann", "ann/../ann", "/ann", "ann\0", ".", "..", "a" * 300, "ann\n")

    def administered(self, mail: Mapping[str, Sequence[bytes]]) -> tuple[Any, Any, Any]:
        """A store in which users have these messages, the delivery into it, and its :class:`IStoreAdmin`.

        All three may be one object.
        """
        raise NotImplementedError

    def read(self, admin: Any, message: Any) -> bytes:
        """A message of ``USER`` in wire form, as it is kept."""
        with admin.read(self.USER, message) as file:
            return wire_form(file.read())

    def test_provides_administration(self) -> None:
        """What administers provides the port."""
        _, _, admin = self.administered({self.USER: []})
        self.assertTrue(verifyObject(IStoreAdmin, admin))

    def test_users(self) -> None:
        """Who has a mailbox is told in alphabetical order, and nobody else has one."""
        _, _, admin = self.administered({"eve": [], "bob": [A], self.USER: []})
        self.assertEqual(sorted(["eve", "bob", self.USER]), list(admin.users()))
        for user in admin.users():
            self.assertTrue(admin.exists(user))
        for user in self.NOBODY:
            self.assertFalse(admin.exists(user), user)

    def test_nobody(self) -> None:
        """Without a mailbox there is nothing to administer; asking makes none."""
        _, _, admin = self.administered({self.USER: [A]})
        (message,) = admin.list(self.USER)
        for user in self.NOBODY:
            self.assertRaises(NoSuchMailbox, admin.list, user)
            self.assertRaises(NoSuchMailbox, admin.read, user, message)
            self.assertRaises(NoSuchMailbox, lambda user=user: list(admin.problems(user)))
            self.assertRaises(NoSuchMailbox, admin.usage, user)
            self.assertRaises(NoSuchMailbox, admin.remove, user)
        self.assertEqual([self.USER], list(admin.users()))
        self.assertEqual(1, len(admin.list(self.USER)))

    def test_listed_as_in_a_session(self) -> None:
        """The messages are those of a session, with its unique-ids and octets, also while one lasts."""
        corpus = [one.stored for one in awkward_messages(large=False)]
        store, _, admin = self.administered({self.USER: corpus})
        listed = admin.list(self.USER)
        mailbox = self.open(store)
        entries = [(entry.uid, entry.octets, entry.arrived) for entry in mailbox.entries]
        self.assertEqual(entries, [(message.uid, message.octets, message.arrived) for message in listed])
        self.assertEqual(listed, admin.list(self.USER))
        self.assertEqual([wire_form(one) for one in corpus], [self.read(admin, one) for one in listed])

    def test_read_what_is_gone(self) -> None:
        """A message that a session has removed since it was listed is gone; the others are not."""
        store, _, admin = self.administered({self.USER: [A, B]})
        first, second = admin.list(self.USER)
        mailbox = self.open(store)
        self.wait(mailbox.remove([first.uid]))
        self.wait(mailbox.release())
        self.assertRaises(MessageGone, admin.read, self.USER, first)
        self.assertEqual(wire_form(B), self.read(admin, second))

    def test_nothing_wrong(self) -> None:
        """In a sound mailbox nothing is wrong, and it stays as it was."""
        store, _, admin = self.administered({self.USER: [A, B, C]})
        for read in (True, False):
            self.assertEqual([], list(admin.problems(self.USER, read=read)))
        self.assertEqual([wire_form(one) for one in (A, B, C)], self.kept(store))

    def test_usage(self) -> None:
        """What is used is what the messages have as they are kept, and less when some are gone."""
        store, delivery, admin = self.administered({self.USER: []})
        self.assertEqual(0, admin.usage(self.USER))
        for message in (A, B):
            incoming = self.wait(delivery.begin([self.USER]))
            self.wait(incoming.write(message))
            self.wait(incoming.commit())
        kept = []
        for message in admin.list(self.USER):
            with admin.read(self.USER, message) as file:
                kept.append(len(file.read()))
        self.assertEqual(sum(kept), admin.usage(self.USER))
        mailbox = self.open(store)
        self.wait(mailbox.remove([mailbox.entries[0].uid]))
        self.wait(mailbox.release())
        self.assertEqual(kept[1], admin.usage(self.USER))

    def test_remove(self) -> None:
        """A mailbox that is removed is gone with its mail; another's is as it was."""
        store, delivery, admin = self.administered({self.USER: [A, B], "bob": [C]})
        admin.remove(self.USER)
        self.assertEqual(["bob"], list(admin.users()))
        self.assertFalse(admin.exists(self.USER))
        self.assertEqual("SYS/TEMP", self.fails(StoreTrouble, store.open, self.USER).code)
        self.fails(NoSuchMailbox, delivery.check, self.USER)
        self.assertRaises(NoSuchMailbox, admin.remove, self.USER)
        self.assertEqual(1, len(admin.list("bob")))

    def test_remove_what_is_in_use(self) -> None:
        """A mailbox that a session holds is not removed, and nothing of it is."""
        store, _, admin = self.administered({self.USER: [A, B]})
        mailbox = self.open(store)
        self.assertRaises(InUse, admin.remove, self.USER)
        self.assertEqual([wire_form(A), wire_form(B)], self.contents(mailbox))
        self.wait(mailbox.release())
        self.assertEqual([wire_form(A), wire_form(B)], self.kept(store))
        admin.remove(self.USER)
        self.assertFalse(admin.exists(self.USER))

    def test_remove_under_a_delivery(self) -> None:
        """A delivery into a mailbox that is removed meanwhile fails, so that the sender keeps the mail."""
        _, delivery, admin = self.administered({self.USER: []})
        incoming = self.wait(delivery.begin([self.USER]))
        self.wait(incoming.write(A))
        admin.remove(self.USER)
        self.fails(StoreTrouble, incoming.commit)
        incoming.abort()
        self.assertFalse(admin.exists(self.USER))
