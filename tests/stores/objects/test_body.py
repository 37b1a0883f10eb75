"""Messages in object storage: in bounded memory, and asked for while others are sent."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.errors import MessageGone, StoreTrouble
from pop3toy.stores.objects.body import RANGE, SEVERAL, TOGETHER, Ahead, ObjectBody

from ...objects_world import Fault, World, WorldMixin, stored

MB = 1024 * 1024


class RangesTests(SynchronousTestCase):
    """One message, whose ranges come when the test says."""

    def setUp(self) -> None:
        self.asked: list[tuple[int, int, int]] = []
        self.answers: list[Deferred[bytes]] = []

    def fetch(self, at: int, start: int, length: int) -> Deferred[bytes]:
        self.asked.append((at, start, length))
        self.answers.append(Deferred())
        return self.answers[-1]

    def several(self, wanted: object, given_up: object) -> Deferred[list[bytes | Exception]]:
        raise AssertionError("there is one message")

    def body(self, octets: int) -> Any:
        return ObjectBody(0, octets, Ahead(self.fetch, self.several, [octets].__getitem__, 1))

    def answer(self, data: bytes | None = None) -> None:
        """The oldest question is answered."""
        self.answers.pop(0).callback(bytes(self.asked.pop(0)[2]) if data is None else data)

    def test_small(self) -> None:
        """A message of up to 1 MiB is one request, and comes in chunks."""
        body = self.body(RANGE)
        self.assertEqual([], self.asked)
        first = body.pull()
        self.assertEqual([(0, 0, RANGE)], self.asked)
        self.answer()
        self.assertEqual(limits.CHUNK, len(self.successResultOf(first)))
        for _ in range(RANGE // limits.CHUNK - 1):
            self.assertFalse(body.done)
            self.assertEqual(limits.CHUNK, len(body.pull()))
        self.assertTrue(body.done)
        self.assertEqual([], self.asked)

    def test_large(self) -> None:
        """Of a larger one the next range is asked for while one is sent, and no other."""
        body = self.body(2 * RANGE + 5)
        first = body.pull()
        self.assertEqual([(0, 0, RANGE)], self.asked)
        self.answer()
        self.successResultOf(first)
        self.assertEqual([(0, RANGE, RANGE)], self.asked)
        self.answer()
        for _ in range(RANGE // limits.CHUNK - 1):
            body.pull()
            self.assertEqual([], self.asked)
        self.successResultOf(body.pull())
        self.assertEqual([(0, 2 * RANGE, 5)], self.asked)
        for _ in range(RANGE // limits.CHUNK - 1):
            body.pull()
        last = body.pull()
        self.assertNoResult(last)
        self.answer(b"12345")
        self.assertEqual(b"12345", self.successResultOf(last))
        self.assertTrue(body.done)

    def test_beginning(self) -> None:
        """TOP asks for little, and for more only when it wants more."""
        body = self.body(MB)
        for count in range(3):
            chunk = body.pull(limits.TOP_CHUNK)
            self.assertEqual([(0, count * limits.TOP_CHUNK, limits.TOP_CHUNK)], self.asked)
            self.answer()
            self.assertEqual(limits.TOP_CHUNK, len(self.successResultOf(chunk)))
        chunk = body.pull()
        self.assertEqual([(0, 3 * limits.TOP_CHUNK, limits.CHUNK)], self.asked)
        self.answer()
        self.assertEqual(limits.CHUNK, len(self.successResultOf(chunk)))
        self.assertEqual([], self.asked)

    def test_empty(self) -> None:
        """Nothing is asked for nothing."""
        body = self.body(0)
        self.assertTrue(body.done)
        self.assertEqual(b"", body.pull())
        self.assertEqual([], self.asked)

    def test_short(self) -> None:
        """What is shorter than it was listed does not look whole."""
        for data in (b"", b"1234", b"123456"):
            chunk = self.body(5).pull()
            self.answer(data)
            self.failureResultOf(chunk, StoreTrouble)

    def test_fails(self) -> None:
        """A range that fails while another is sent is told when it is reached."""
        body = self.body(2 * RANGE)
        body.pull()
        self.answer()
        self.asked.pop(0)
        self.answers.pop(0).errback(StoreTrouble(detail="nobody answers"))
        for _ in range(RANGE // limits.CHUNK - 1):
            self.assertEqual(limits.CHUNK, len(body.pull()))
        self.failureResultOf(body.pull(), StoreTrouble)
        body.close(None)

    def test_closed(self) -> None:
        """What comes behind the end is forgotten, errors too; and nothing more is asked for."""
        for outcome in (b"1", StoreTrouble()):
            body = self.body(2 * RANGE)
            first = body.pull()
            body.close(None)
            self.answers.pop(0).callback(bytes(RANGE))
            self.assertEqual(b"", self.successResultOf(first))
            self.assertEqual(1, len(self.asked))
            self.asked.clear()
            body = self.body(2 * RANGE)
            body.pull()
            self.answer()
            body.close(None)
            if isinstance(outcome, bytes):
                self.answers.pop(0).callback(outcome)
            else:
                self.answers.pop(0).errback(outcome)
            self.asked.clear()
        gc.collect()
        self.assertEqual([], self.flushLoggedErrors())


class MemoryTests(WorldMixin, SynchronousTestCase):
    """How much of a large message is held."""

    def test_slow_client(self) -> None:
        """Of 100 MB for a client that takes its time, 2 MiB are held at the most."""
        self.world = World("ann")
        self.world.deliver("ann", b"Subject: large\r\n\r\n" + b"0123456789abcd\r\n" * (100 * MB // 16))
        mailbox = self.wait(self.world.server().store.open("ann"))
        octets = mailbox.entries[0].octets
        body = mailbox.read(mailbox.entries[0].uid)
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            came = most = 0
            while not body.done:
                came += len(self.wait(body.pull()))
                self.world.run()
                held, _ = tracemalloc.get_traced_memory()
                most = max(most, held - before)
        finally:
            tracemalloc.stop()
        self.assertEqual(octets, came)
        self.assertLess(most, 2 * MB + 64 * 1024)
        self.assertGreater(most, MB)
        self.assertEqual(octets // MB + 1, self.world.calls.count("get_range"))


class AheadTests(WorldMixin, SynchronousTestCase):
    """What is asked for before anybody asks for it."""

    def setUp(self) -> None:
        self.world = World("ann")
        self.server = self.world.server()

    def opened(self, *sizes: int) -> Any:
        """A maildrop with messages of so many octets in their bodies."""
        self.names = [self.world.deliver("ann", b"\n" + b"x" * size) for size in sizes]
        mailbox = self.wait(self.server.store.open("ann"))
        self.world.requests.clear()
        return mailbox

    def fetched(self) -> list[int]:
        """The messages of which something was asked for since the last time, numbered from 1 on."""
        found = [
            self.names.index(key[-32:]) + 1
            for function, key in self.world.requests
            if function == "get_range"
        ]
        self.world.requests.clear()
        return found

    def retrieve(self, mailbox: Any, number: int) -> bytes:
        """A message as a client gets it; threads go on only if it has to wait."""
        body = mailbox.read(mailbox.entries[number - 1].uid)
        chunks = []
        while not body.done:
            chunk = body.pull()
            if isinstance(chunk, Deferred) and not chunk.called:
                self.world.run()
            chunks.append(self.successResultOf(chunk) if isinstance(chunk, Deferred) else chunk)
        body.close(None)
        return b"".join(chunks)

    def test_in_order(self) -> None:
        """Of two messages one behind the other the third is asked for, once; and so on."""
        mailbox = self.opened(1, 2, 3, 4)
        self.retrieve(mailbox, 1)
        self.world.run()
        self.assertEqual([1], self.fetched())
        self.retrieve(mailbox, 2)
        self.world.run()
        self.assertEqual([2, 3], self.fetched())
        self.assertEqual(stored(b"\nxxx"), self.retrieve(mailbox, 3))
        self.world.run()
        self.assertEqual([4], self.fetched())
        self.assertEqual(stored(b"\nxxxx"), self.retrieve(mailbox, 4))
        self.world.run()
        self.assertEqual([], self.fetched())

    def test_several(self) -> None:
        """Who goes on in order is believed to go on further: four are asked for in one go to a thread."""
        mailbox = self.opened(*range(1, 16))
        asked, gone = [], []
        for number in range(1, 16):
            self.assertEqual(stored(b"\n" + b"x" * number), self.retrieve(mailbox, number))
            gone.append(self.server.threads.run())
            asked.append(self.fetched())
        self.assertEqual(4, SEVERAL)
        self.assertEqual([[1], [2, 3], [4, 5], [], [6, 7, 8, 9]], asked[:5])
        self.assertEqual([[], [], [], [10, 11, 12, 13], [], [], [], [14, 15], [], []], asked[5:])
        # The first two go to a thread when they are wanted, within retrieve(), and the third with the second.
        self.assertEqual([0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], gone)
        for number in (1, 2):
            self.retrieve(mailbox, number)
            self.world.run()
        self.assertEqual([1, 2, 3], self.fetched(), "begins anew")

    def test_several_together(self) -> None:
        """Of several ahead there are 256 KiB at the most, but one may be as large as a range."""
        half = TOGETHER // 2 - 100
        mailbox = self.opened(1, 2, 3, half, half, half, RANGE - 100, 8)
        asked = []
        for number in range(1, 9):
            self.retrieve(mailbox, number)
            self.world.run()
            asked.append(self.fetched())
        self.assertEqual([[1], [2, 3], [4, 5], [], [6], [7], [8], []], asked)

    def test_several_given_up(self) -> None:
        """When another one is wanted, those that were not asked for yet are not; what was is of no use."""
        mailbox = self.opened(*range(1, 12))
        for number in (1, 2, 3, 4):
            self.retrieve(mailbox, number)
            self.world.run()
        body = mailbox.read(mailbox.entries[4].uid)
        body.pull()
        body.close(None)
        self.fetched()

        def other() -> None:
            # While the second of four is on its way.
            mailbox.read(mailbox.entries[0].uid).pull()

        self.world.faults.append(
            Fault("get_range", do=other, error=None, once=True, at=len(self.world.calls) + 2)
        )
        self.world.run()
        self.assertEqual([6, 7, 1], self.fetched())
        # What comes of the four is nobody's, and another go is not taken for it.
        for number in (2, 3, 4):
            self.assertEqual(stored(b"\n" + b"x" * number), self.retrieve(mailbox, number))

    def test_several_fail(self) -> None:
        """One that is gone is gone, and the others come."""
        mailbox = self.opened(*range(1, 10))
        for number in (1, 2, 3, 4):
            self.retrieve(mailbox, number)
            self.world.run()
        self.world.take_away("ann", self.names[6])
        self.retrieve(mailbox, 5)
        self.world.run()
        self.assertEqual(stored(b"\nxxxxxx"), self.retrieve(mailbox, 6))
        self.failureResultOf(mailbox.read(mailbox.entries[6].uid).pull(), MessageGone)
        self.assertEqual(stored(b"\nxxxxxxxx"), self.retrieve(mailbox, 8))

    def test_storage_fails(self) -> None:
        """Who waits for the message that failed hears of it; those behind it are asked for anew."""
        mailbox = self.opened(*range(1, 10))
        for number in (1, 2, 3, 4):
            self.retrieve(mailbox, number)
            self.world.run()
        fifth = mailbox.read(mailbox.entries[4].uid)
        self.assertEqual(stored(b"\nxxxxx"), self.successResultOf(fifth.pull()))
        self.world.faults.append(Fault("get_range", once=True, at=len(self.world.calls) + 2))
        self.assertEqual(stored(b"\nxxxxxx"), self.retrieve(mailbox, 6))
        self.failureResultOf(mailbox.read(mailbox.entries[6].uid).pull(), StoreTrouble)
        self.fetched()
        for number in (8, 9):
            self.assertEqual(stored(b"\n" + b"x" * number), self.retrieve(mailbox, number))
        self.assertEqual([8, 9], self.fetched())

    def test_while_one_is_sent(self) -> None:
        """The next is asked for as soon as this one is here, before it is sent."""
        mailbox = self.opened(1, MB // 2, 3)
        self.retrieve(mailbox, 1)
        body = mailbox.read(mailbox.entries[1].uid)
        self.wait(body.pull())
        self.world.run()
        self.assertFalse(body.done)
        self.assertEqual([1, 2, 3], self.fetched())

    def test_out_of_order(self) -> None:
        """Others are not asked for; what was is given up when another is wanted."""
        mailbox = self.opened(1, 2, 3, 4, 5)
        for number in (1, 3, 2, 5, 4, 4):
            self.retrieve(mailbox, number)
            self.world.run()
        self.assertEqual([1, 3, 2, 5, 4, 4], self.fetched())
        self.retrieve(mailbox, 1)
        self.retrieve(mailbox, 2)
        self.world.run()
        self.assertEqual([1, 2, 3], self.fetched())
        self.retrieve(mailbox, 5)
        self.retrieve(mailbox, 3)
        self.assertEqual([5, 3], self.fetched())

    def test_large(self) -> None:
        """A large one is not asked for before it is wanted."""
        mailbox = self.opened(1, 2, RANGE, 4)
        for number in (1, 2):
            self.retrieve(mailbox, number)
            self.world.run()
        self.assertEqual([1, 2], self.fetched())
        self.retrieve(mailbox, 3)
        self.world.run()
        self.assertEqual([3, 3, 4], self.fetched())

    def test_beginnings(self) -> None:
        """Who asks for headers only gets no more."""
        mailbox = self.opened(1, 2, 3)
        for entry in mailbox.entries[:2]:
            body = mailbox.read(entry.uid)
            self.wait(body.pull(limits.TOP_CHUNK))
            self.assertTrue(body.done)
            body.close(None)
        self.world.run()
        self.assertEqual([1, 2], self.fetched())

    def test_fails(self) -> None:
        """What failed before it was wanted is told to the one who wants it, and tried again by the next."""
        mailbox = self.opened(1, 2, 3)
        self.world.take_away("ann", self.names[2])
        self.retrieve(mailbox, 1)
        self.retrieve(mailbox, 2)
        self.world.run()
        body = mailbox.read(mailbox.entries[2].uid)
        self.failureResultOf(body.pull(), MessageGone)
        body.close(None)
        self.world.requests.clear()
        self.assertEqual(stored(b"\nxx"), self.retrieve(mailbox, 2))

    def test_released(self) -> None:
        """What was asked for is forgotten with the session, errors too."""
        mailbox = self.opened(1, 2, 3)
        self.retrieve(mailbox, 1)
        self.retrieve(mailbox, 2)
        self.world.fault("get_range")
        self.wait(mailbox.release())
        gc.collect()
        self.assertEqual([], self.flushLoggedErrors())
