"""What is asked of object storage, asked of several kinds of it: memory, moto's server, a real Ceph."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from pop3toy.stores.objects.engine import LISTED, Engine, NoSuchObject, Tag, Taken

from .places import AzurePlace, CephPlace, MemoryPlace, MotoPlace, Place

#: Seconds by which times may differ on one machine: S3 cuts them, and a busy one takes its time.
NEAR = 60.0


class _Calls(Place):
    """What holds for all of them."""

    engine: Engine

    def setUp(self) -> None:
        super().setUp()
        self.engine = self.engines().main

    def test_create(self) -> None:
        """What is there is not made again, and stays as it is."""
        began = time.time()
        tag = self.engine.create("m/ann/1", b"one")
        self.assertRaises(Taken, self.engine.create, "m/ann/1", b"other")
        found = self.engine.get("m/ann/1")
        self.assertEqual((b"one", tag.e_tag), (found.body, found.tag.e_tag))
        self.assertLess(abs(found.modified - began), NEAR)

    def test_swap(self) -> None:
        """Only what is still as it was seen is replaced, by whichever tag it was seen."""
        created = self.engine.create("l/ann", b"one")
        self.engine.swap("l/ann", b"two", created)
        self.assertRaises(Taken, self.engine.swap, "l/ann", b"three", created)
        seen = self.engine.get("l/ann")
        self.assertEqual(b"two", seen.body)
        swapped = self.engine.swap("l/ann", b"three", seen.tag)
        self.assertRaises(Taken, self.engine.swap, "l/ann", b"four", seen.tag)
        self.engine.swap("l/ann", b"four", swapped)
        self.assertEqual(b"four", self.engine.get("l/ann").body)

    def test_swap_what_is_gone(self) -> None:
        """What is not there is not made by a swap."""
        tag = self.engine.create("l/ann", b"one")
        self.engine.delete(["l/ann"])
        self.assertRaises(Taken, self.engine.swap, "l/ann", b"two", tag)
        self.assertRaises(NoSuchObject, self.engine.get, "l/ann")
        self.assertRaises(Taken, self.engine.swap, "l/bob", b"two", Tag('"0123456789abcdef0123456789abcdef"'))
        self.assertRaises(NoSuchObject, self.engine.get, "l/bob")

    def test_nothing(self) -> None:
        """What is not there is told as that, and nothing is listed or removed of it."""
        self.assertRaises(NoSuchObject, self.engine.get, "m/ann/1")
        self.assertRaises(NoSuchObject, self.engine.get_range, "m/ann/1", 0, 10)
        self.assertEqual([], self.engine.list("m/ann"))
        self.engine.delete(["m/ann/1", "m/ann/2"])
        self.engine.delete([])

    def test_octets(self) -> None:
        """All octets come back, in one piece and in ranges; the last range is as long as there is."""
        body = bytes(range(256)) * 6_000 + b"end\r\n"
        self.engine.create("m/ann/1", memoryview(body))
        self.assertTrue(self.engine.get("m/ann/1").body == body)
        step = 1 << 20
        ranges = [self.engine.get_range("m/ann/1", at, step) for at in range(0, len(body), step)]
        self.assertTrue(b"".join(ranges) == body)
        self.assertEqual([step, len(body) - step], [*map(len, ranges)])
        self.engine.create("m/ann/2", b"")
        self.assertEqual(b"", self.engine.get("m/ann/2").body)

    def test_list(self) -> None:
        """A listing has what is below a prefix and nothing else, in order, with octets and times."""
        began = time.time()
        for key in ("m/ann/2", "m/ann/1~a=2eb", "m/ann/10", "m/annie/1", "m/an", "l/ann"):
            self.engine.create(key, key.encode())
        listed = self.engine.list("m/ann")
        self.assertEqual([("10", 8), ("1~a=2eb", 13), ("2", 7)], [(one.name, one.octets) for one in listed])
        for one in listed:
            self.assertLess(abs(one.modified - began), NEAR)
            self.assertEqual(f"m/ann/{one.name}".encode(), self.engine.get(f"m/ann/{one.name}").body)


class _ManyCalls(_Calls):
    """And of a thousand objects, for which moto's server takes long."""

    def test_many(self) -> None:
        """More than one answer's worth is listed and removed whole, and what is gone already is no error."""
        names = [f"{number:06}" for number in range(LISTED + 5)]
        with ThreadPoolExecutor(16) as pool:
            for done in [pool.submit(self.engine.create, f"m/ann/{name}", b"x" * 10) for name in names]:
                done.result()
        self.assertEqual(names, [one.name for one in self.engine.list("m/ann")])
        self.engine.delete([f"m/ann/{name}" for name in names[::2]])
        self.assertEqual(names[1::2], [one.name for one in self.engine.list("m/ann")])
        self.engine.delete([f"m/ann/{name}" for name in names])
        self.assertEqual([], self.engine.list("m/ann"))


class MemoryTests(_ManyCalls, MemoryPlace):
    """Memory."""


class MotoTests(_Calls, MotoPlace):
    """Moto's server."""


class AzureTests(_ManyCalls, AzurePlace):
    """On Azurite."""


class CephTests(_ManyCalls, CephPlace):
    """Ceph."""


del _Calls, _ManyCalls
