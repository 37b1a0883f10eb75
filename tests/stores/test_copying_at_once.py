"""Two who copy to one maildrop in object storage at once, in all orders: each message is there once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import InUse, StoreTrouble
from pop3toy.stores.copying import mailbox as copying
from pop3toy.stores.copying.counts import Counts
from pop3toy.stores.copying.fence import Fence
from pop3toy.stores.copying.mailbox import copy_mailbox
from pop3toy.stores.copying.verify import verify_mailbox
from pop3toy.stores.objects.engine import Engine

from ..corpus import make_maildir
from .test_copying import Crash, MaildirSide, ObjectSide, listed

#: Times whose order is another one than that of the listing: what a message is called follows from others.
NAMES = ("1700000010.M900000P1.mail", "1700000010.b", "1700000010.c", "1700000010.d")


class AtOnceCase(SynchronousTestCase):
    """A Maildir and a maildrop in memory; something happens at any request that is made of that."""

    def setUp(self) -> None:
        self.patch(copying, "BATCH", 2)
        self.left = 0
        self.do: Callable[[Callable[[], Any]], Any] = lambda request: request()
        real = Engine.call

        def call(engine: Engine, function: str, *args: Any, **named: Any) -> Any:
            self.left -= 1
            request = partial(real, engine, function, *args, **named)
            return self.do(request) if self.left == 0 else request()

        self.patch(Engine, "call", call)

    def new(self) -> None:
        """A new source with four messages, and a new target."""
        self.left = 0
        self.source, self.target = MaildirSide(self), ObjectSide(self)
        # So that it is connected.
        self.target.engines.main.list("m")
        make_maildir(self.source.maildir)
        for name in NAMES:
            (self.source.maildir / "new" / name).write_bytes(b"Subject: %s\n\n" % name.encode())

    def copy(self, **how: Any) -> Counts:
        """Copy all that is missing."""
        return copy_mailbox("ann", self.source.store, self.target.store, **how)

    def vanish(self) -> None:
        """The first message goes: others would be called otherwise from now on."""
        (self.source.maildir / "new" / NAMES[0]).unlink(missing_ok=True)

    def at(self, number: int, do: Callable[[Callable[[], Any]], Any]) -> bool:
        """Copy, and do something at a request, which it is given; whether there are so many."""
        self.left, self.do = number, do
        try:
            self.copy()
        except (InUse, StoreTrouble, Crash):
            pass
        reached = self.left <= 0
        self.left = 0
        return reached

    def each(self) -> Iterator[int]:
        """Numbers of requests, each with new stores."""
        for number in itertools.count(1):
            self.new()
            yield number

    def is_right(self, *where: object) -> None:
        """Copied once more all is there, once, in its order; nothing else is."""
        self.copy()
        there, source = listed(self.target), listed(self.source)
        self.assertEqual([one for one in there if one[0] != NAMES[0].encode()], source[-3:], where)
        self.assertEqual(len({uid for uid, _ in there}), len(there))
        self.assertIn(len(there), (3, 4))
        self.assertEqual(verify_mailbox("ann", self.source.store, self.target.store).failed, 0)
        self.assertEqual(self.copy(), Counts(there=len(source)), where)


class AtOnceTests(AtOnceCase):
    """What the other one does, at any request of ours."""

    def test_all(self) -> None:
        """Another one copies all, before the request or behind it; it does not fail."""
        for after in (False, True):
            for number in self.each():

                def other(request: Callable[[], Any], after: bool = after) -> Any:
                    result = request() if after else None
                    self.vanish()
                    self.assertEqual(self.copy().failed, 0)
                    return result if after else request()

                if not self.at(number, other):
                    break
                self.is_right(number, after)
            self.assertGreater(number, 20)

    def test_killed(self) -> None:
        """Another one is killed at any request, before or behind it, while we are at any of ours."""
        for number in itertools.count(1):
            for inner in itertools.count(1):
                self.new()
                reached = False

                def killed(request: Callable[[], Any]) -> Any:
                    if inner % 2:  # noqa: B023
                        request()
                    raise Crash

                def other(request: Callable[[], Any]) -> Any:
                    nonlocal reached
                    self.vanish()
                    reached = self.at(inner, killed)  # noqa: B023
                    return request()

                if not self.at(number, other):
                    self.assertGreater(number, 20)
                    return
                self.is_right(number, inner)
                if not reached:
                    break

    def test_late(self) -> None:
        """A request without an answer is done while the next one copies, at any request of that one."""
        for number in itertools.count(1):
            for inner in itertools.count(1):
                self.new()
                late: list[Callable[[], Any]] = []

                def lost(request: Callable[[], Any]) -> Any:
                    late.append(request)  # noqa: B023
                    raise StoreTrouble

                def at_last(request: Callable[[], Any]) -> Any:
                    try:
                        late[0]()  # noqa: B023
                    except Exception:
                        # Nobody is told.
                        pass
                    return request()

                if not self.at(number, lost):
                    self.assertGreater(number, 20)
                    return
                self.vanish()
                reached = self.at(inner, at_last)
                self.is_right(number, inner)
                if not reached:
                    break

    def test_lost_answer(self) -> None:
        """What was done without our being told is known by the next one."""
        for number in self.each():

            def lost(request: Callable[[], Any]) -> Any:
                request()
                raise StoreTrouble

            if not self.at(number, lost):
                break
            self.vanish()
            self.is_right(number)
        self.assertGreater(number, 20)

    def test_tried_again(self) -> None:
        """A request that was made again, as its answer was lost, is known to be ours: nothing is refused."""
        for number in self.each():
            self.left, self.do = number, lambda request: (request(), request())[1]
            self.assertEqual(self.copy().copied, 4, number)
            if self.left > 0:
                break
            self.is_right(number)
        self.assertGreater(number, 20)


class DeletingTests(AtOnceCase):
    """With ``delete``."""

    def test_came_meanwhile(self) -> None:
        """What came behind our listing, and somebody else has brought, is not taken to be gone."""
        self.new()
        with self.source.store.mailbox("ann") as mailbox:
            kind = type(mailbox)
        real = kind.list

        def late(mailbox: Any) -> Any:
            found = real(mailbox)
            patch.restore()
            self.source.deliver(90)
            self.assertEqual(self.copy().copied, 5)
            return found

        patch = self.patch(kind, "list", late)
        self.assertEqual(self.copy(delete=True), Counts(there=4))
        self.assertEqual(len(listed(self.target)), 5)

    def test_stopped_before(self) -> None:
        """Who is not the last one who has begun removes nothing."""
        self.new()
        self.copy()
        self.vanish()
        real = Fence.begin

        def other(fence: Fence, names: Any) -> None:
            patch.restore()
            self.copy()
            real(fence, names)

        patch = self.patch(Fence, "begin", other)
        self.assertRaises(InUse, self.copy, delete=True)
        self.assertEqual(len(listed(self.target)), 4)
        self.assertEqual(self.copy(delete=True).removed, 1)


class FenceTests(SynchronousTestCase):
    """Who has begun last."""

    def setUp(self) -> None:
        self.engine = ObjectSide(self).engines.main

    def test_last(self) -> None:
        """The last one goes on, and knows what the others may be putting, until it has ended."""
        first = Fence(self.engine, "drop")
        first.begin(["0" * 16 + "~a"])
        second = Fence(self.engine, "drop")
        self.assertEqual(second.under_way, {b"a": "0" * 16 + "~a"})
        self.assertRaises(InUse, first.begin, ())
        second.begin(["0" * 16 + "~b"])
        self.assertEqual({*Fence(self.engine, "drop").under_way}, {b"a", b"b"})
        first.end()
        second.end()
        third = Fence(self.engine, "drop")
        self.assertEqual({*third.under_way}, {b"a", b"b"})
        third.end()
        self.assertEqual(Fence(self.engine, "drop").under_way, {})

    def test_unreadable(self) -> None:
        """What cannot be read is told, with the name of the object."""
        for body in (b"", b"{}", b'["x", 1, ["name"]]', b'["x", 1, [1]]', b'["x", 1, 2]', b"\xff"):
            self.engine.delete(["i/drop/copying"])
            self.engine.create("i/drop/copying", body)
            why = self.assertRaises(StoreTrouble, Fence, self.engine, "drop")
            self.assertEqual(why.detail, "i/drop/copying cannot be read")
