"""The look at object storage before it is used."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SkipTest

from pop3toy.errors import StoreTrouble
from pop3toy.stores.objects.engine import Engine, Tag
from pop3toy.stores.objects.probe import SLOW, Unfit, bare, measured_offset, probe

try:
    from obstore.store import MemoryStore
except ImportError:
    raise SkipTest("obstore is not installed") from None

from .test_connecting import EnginesCase


class ProbeTests(EnginesCase):
    """Which stores are taken, and how they are asked from then on."""

    def refused(self, wrong: str = "") -> str:
        """Why a store is refused."""
        fake = self.fake(wrong)
        with capturedLogs():
            error = self.trouble(self.engines(fake.url).main.get, "x")
        self.assertIsInstance(error, Unfit)
        self.assertEqual(fake.objects, {})
        return error.detail

    def test_memory(self) -> None:
        """obstore's own in memory is taken, and nothing is left in it."""
        store = MemoryStore()
        learned = probe(store, "p/x")
        self.assertFalse(learned.unquoted)
        self.assertApproximates(learned.offset, 0.0, 0.1)
        self.assertEqual(Engine(lambda: store).list("p"), [])

    def test_conditions_that_are_ignored(self) -> None:
        """A store that says yes to whatever condition is refused, and nothing is left in it."""
        self.assertIn("ignores If-None-Match", self.refused("ignores-create"))
        self.assertIn("ignores If-Match", self.refused("ignores-swap"))
        self.assertIn("ETag", self.refused("same-etag"))

    def test_quotes(self) -> None:
        """Ceph 16 wants ETags without quotes; swaps are asked for as the store wants it."""
        for wrong in ("", "unquoted"):
            fake = self.fake(wrong)
            engine = self.engines(fake.url).main
            tag = engine.create("x", b"a")
            self.assertEqual((tag.e_tag or "")[:1], '"')
            second = engine.swap("x", b"b", tag)
            engine.swap("x", b"c", second)
            self.assertEqual(engine.get("x").body, b"c")
        self.assertEqual(bare(Tag('"abc"', "7")), Tag("abc", "7"))
        self.assertEqual(bare(Tag(None, "7")), Tag(None, "7"))

    def test_wrong_tag_without_quotes(self) -> None:
        """One that takes a tag without quotes is refused, too, if it takes any."""
        fake = self.fake("unquoted")
        condition = fake._condition

        def lenient(request: Any, key: str) -> Any:
            match = request.headers.get("If-Match") or '"'
            return condition(request, key) if '"' in match else None

        self.patch(fake, "_condition", lenient)
        with capturedLogs():
            self.assertIn("ignores If-Match", self.trouble(self.engines(fake.url).main.get, "x").detail)

    def test_left_over(self) -> None:
        """What a look that was cut short has left behind, the next removes."""
        fake = self.fake()
        engines = self.engines(fake.url)
        post = fake._post
        self.patch(fake, "_post", lambda request, *rest: fake._refuse(request, 503, "SlowDown"))
        get = fake._get
        self.patch(fake, "_get", lambda request, *rest: fake._refuse(request, 503, "SlowDown"))
        self.trouble(engines.main.list, "m")
        self.assertEqual(len(fake.objects), 1)
        self.patch(fake, "_post", post)
        self.patch(fake, "_get", get)
        self.time.advance(2)
        self.assertEqual(engines.main.list("m"), [])
        self.assertEqual(fake.objects, {})

    def test_slow(self) -> None:
        """One whose every answer takes five seconds is given up, since others wait for the same look."""
        fake = self.fake()
        do = fake.do

        def slowly(request: Any, body: bytes) -> None:
            self.time.day += 5.0
            do(request, body)

        self.patch(fake, "do", slowly)
        self.assertIn("more than 15 s", self.trouble(self.engines(fake.url).main.list, "m").detail)
        self.assertEqual([method for method, _ in fake.requests], ["PUT", "GET", "PUT", "PUT"])

    def test_lost_answers(self) -> None:
        """A request whose answer was lost, and that the library repeats, is no reason to refuse a store."""
        fake = self.fake()
        put, lost = fake._put, []

        def lose(request: Any, key: str, *rest: Any) -> None:
            body = rest[-1]
            if body in (b"first", b"third") and body not in lost:
                lost.append(body)
                self.patch(fake, "_send", lambda *args, **more: None)
                put(request, key, *rest)
                del fake.__dict__["_send"]
                fake._refuse(request, 503, "SlowDown")
            else:
                put(request, key, *rest)

        self.patch(fake, "_put", lose)
        self.assertEqual(self.engines(fake.url).main.list("m"), [])
        self.assertEqual(lost, [b"first", b"third"])

    def test_offset(self) -> None:
        """Whole seconds are taken to be the middle of that second; what took long tells nothing."""
        self.assertEqual(measured_offset(100.0, 102.0, 111.0), 10.5)
        self.assertEqual(measured_offset(100.0, 102.0, 111.25), 10.25)
        self.assertEqual(measured_offset(100.0, 102.0, 91.0), -9.5)
        self.assertRaises(StoreTrouble, measured_offset, 100.0, 100.1 + SLOW, 100.0)

    def test_clocks_that_agree(self) -> None:
        """At whatever moment of a second it is measured, the same clock is the same for all."""
        for part in range(100):
            asked = 100 + part / 100
            for answered in (asked, asked + 0.3, asked + 0.9):
                self.assertEqual(
                    {measured_offset(asked, answered, float(at)) for at in (int(asked), int(answered))}, {0.0}
                )
