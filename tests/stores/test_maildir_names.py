"""What names of Maildir files tell: order, unique-ids, octets; fast and slow ways alike."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.maildir.names import base_name, in_delivery_order, unique_ids, wire_sizes

#: Names as delivery programs make them, and as only a test does.
ORDINARY = st.builds(
    "{}.M{}P{}.{}{}".format,
    st.integers(1_000_000_000, 9_999_999_999),
    st.integers(0, 20),
    st.integers(1, 3),
    st.sampled_from(["mail", "Mail", "host\\057x"]),
    st.sampled_from([",W=5", ",S=4,W=5", ",W=12,X=1", "", ",W=", ",W=7x,W=9", ",W=1,W=2"]),
)
STRANGE = st.text(
    st.sampled_from("aA0129.,-W=S \x7fé\udcff٣\n\t!~"),
    max_size=80,
)
NAMES = st.lists(ORDINARY | STRANGE, max_size=12)


def expected_uid_rules(uids: Sequence[bytes]) -> None:
    """RFC 1939 section 7, and not two that differ by case alone."""
    for uid in uids:
        assert re.fullmatch(rb"[\x21-\x7e]{1,70}", uid), uid
    assert len({uid.lower() for uid in uids}) == len(uids)


class BaseNameTests(SynchronousTestCase):
    """Flags."""

    def test_flags(self) -> None:
        """What follows the first colon is not part of the base name."""
        for name, base in (("a:2,S", "a"), ("a", "a"), ("a:2,S:b", "a"), (":2,", ""), ("a,S=1:1,x", "a,S=1")):
            self.assertEqual(base, base_name(name))


class OrderTests(SynchronousTestCase):
    """Delivery order."""

    def test_time_then_name(self) -> None:
        """The time in front orders, then the name; what has no time comes first."""
        ordered = ["B.x", "a", "5.z", "17.b", "999999999.M1.h", "1000000000.M1.h", "1000000000.M2.h"]
        for seed in range(20):
            shuffled = random.Random(seed).sample(ordered, len(ordered))
            self.assertEqual(ordered, in_delivery_order(shuffled))

    def test_ten_digits(self) -> None:
        """Times of ten digits, which all mail of our time has, are ordered the same way."""
        ordered = ["1000000000.M1.h", "1700000000", "1700000000.M10", "1700000000.M9", "9999999999.a"]
        for seed in range(20):
            shuffled = random.Random(seed).sample(ordered, len(ordered))
            self.assertEqual(ordered, in_delivery_order(shuffled))

    def test_after_the_year_2286(self) -> None:
        """A time of eleven digits is later than one of ten."""
        names = ["10000000000.a", "9999999999.a"]
        self.assertEqual(names[::-1], in_delivery_order(names))

    def test_digits_of_other_scripts(self) -> None:
        """Digits that are not ASCII are no time, and a time that goes on with letters is none."""
        self.assertEqual(["20x.a", "٣.a", "1.a"], in_delivery_order(["1.a", "٣.a", "20x.a"]))

    @given(NAMES)
    def test_definition(self, names: list[str]) -> None:
        """Any names come in the order that their definition says, whatever the order they were found in."""

        def key(name: str) -> tuple[int, str]:
            match = re.match(r"([0-9]{1,18})(?:\.|\Z)", name)
            return (int(match[1]) if match else 0, name)

        # "$" would allow a line end behind the digits.
        expected = sorted(names, key=key)
        self.assertEqual(expected, in_delivery_order(names))
        self.assertEqual(expected, in_delivery_order(names[::-1]))


class UniqueIdTests(SynchronousTestCase):
    """Unique-ids."""

    def test_valid_names_are_unique_ids(self) -> None:
        """A base name of 1 to 70 allowed octets is the unique-id."""
        names = ["1700000000.M1P2.mail,S=1,W=2", "x" * 70, "!", "~"]
        self.assertEqual([name.encode() for name in names], unique_ids(names))

    def test_none(self) -> None:
        """No names, no unique-ids."""
        self.assertEqual([], unique_ids([]))

    def test_hashes(self) -> None:
        """What cannot be a unique-id is hashed: too long, empty, blank, 8-bit, control octets."""
        names = ["x" * 71, "", "a b", "é", "\udcff", "a\nb", "\x7f", "\t"]
        uids = unique_ids(names)
        expected_uid_rules(uids)
        self.assertEqual([32] * len(names), list(map(len, uids)))

    def test_hash_is_of_the_name_alone(self) -> None:
        """A hashed unique-id depends on the name and on nothing else that is in the mailbox."""
        (alone,) = unique_ids(["x" * 71])
        self.assertEqual(alone, unique_ids(["a", "b b", "x" * 71, "y" * 71])[2])

    def test_doubles(self) -> None:
        """Of names that are the same, or differ by case alone, the first keeps its name."""
        uids = unique_ids(["A", "a", "a", "b"])
        expected_uid_rules(uids)
        self.assertEqual((b"A", b"b"), (uids[0], uids[3]))

    def test_a_name_like_a_hash(self) -> None:
        """A name that is the hash of another one is not mixed up with it."""
        (hashed,) = unique_ids(["a b"])
        for names in ([hashed.decode(), "a b"], ["a b", hashed.decode()], [hashed.decode().upper(), "a b"]):
            expected_uid_rules(unique_ids(names))

    @given(NAMES)
    def test_rules(self, names: list[str]) -> None:
        """Any names, also with doubles, get unique-ids that RFC 1939 allows, and the same ones again."""
        ordered = in_delivery_order(names)
        uids = unique_ids(ordered)
        self.assertEqual(len(names), len(uids))
        expected_uid_rules(uids)
        self.assertEqual(uids, unique_ids(ordered))


class WireSizeTests(SynchronousTestCase):
    """``,W=``."""

    def test_sizes(self) -> None:
        """``,W=`` tells the octets where digits and nothing else stand behind it."""
        cases: list[tuple[str, Any]] = [
            ("1.h,S=10,W=12", 12),
            ("1.h,W=0", 0),
            ("1.h,W=12,S=10", 12),
            ("1.h,S=10", None),
            ("1.h", None),
            ("1.h,W=", None),
            ("1.h,W=-5", None),
            ("1.h,W=5x", None),
            ("1.h,W=0x10", None),
            ("1.hW=5", None),
            ("1.h,w=5", None),
            ("1.h,W=٣", None),
            ("1.h,W=5\n", None),
            ("1.h,W=7x,W=9", 9),
            ("1.h,W=1,W=2", 1),
            ("1.h,W=" + "9" * 15, 10**15 - 1),
            ("1.h,W=" + "9" * 16, None),
        ]
        for name, octets in cases:
            self.assertEqual([octets], wire_sizes([name]), name)
        # All at once, where those that tell something stand beside those that do not.
        self.assertEqual([octets for _, octets in cases], wire_sizes([name for name, _ in cases]))
        telling = [(name, octets) for name, octets in cases if octets is not None]
        self.assertEqual([octets for _, octets in telling], wire_sizes([name for name, _ in telling]))

    @given(NAMES)
    def test_each_by_itself(self, names: list[str]) -> None:
        """What a name tells does not depend on its neighbours."""
        self.assertEqual([wire_sizes([name])[0] for name in names], list(wire_sizes(names)))
