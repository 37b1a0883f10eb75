"""Numbers, marks and sums of one session (RFC 1939 sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import BadCommand, NoSuchMessage
from pop3toy.interfaces import Entry
from pop3toy.mail.listing import Listing
from pop3toy.pop3.maildrop import Maildrop
from pop3toy.pop3.replies import scan_listing, unique_id_listing

ENTRIES = [Entry(b"a", 120), Entry(b"b", 200), Entry(b"c", 7)]


def listed(maildrop: Maildrop) -> list[bytes]:
    """LIST's lines."""
    return b"".join(maildrop.listing(scan_listing)).splitlines()


class MaildropTests(SynchronousTestCase):
    """Numbers never move; what is marked is nowhere but in UPDATE."""

    def test_numbers_from_one(self) -> None:
        """The first message is number 1."""
        maildrop = Maildrop(ENTRIES)
        self.assertEqual([maildrop.entry(number).uid for number in (1, 2, 3)], [b"a", b"b", b"c"])
        self.assertEqual((maildrop.count, maildrop.octets), (3, 327))

    def test_numbers_do_not_move(self) -> None:
        """A mark changes no other message's number."""
        maildrop = Maildrop(ENTRIES)
        maildrop.mark_deleted(1)
        self.assertEqual(maildrop.entry(2), ENTRIES[1])
        self.assertEqual(maildrop.entry(3), ENTRIES[2])

    def test_marked_are_left_out(self) -> None:
        """Count, sum and both listings leave out what is marked."""
        maildrop = Maildrop(ENTRIES)
        maildrop.mark_deleted(2)
        self.assertEqual((maildrop.count, maildrop.octets), (2, 127))
        self.assertEqual(listed(maildrop), [b"1 120", b"3 7"])
        self.assertEqual(list(maildrop.listing(unique_id_listing)), [b"1 a\r\n3 c\r\n"])
        self.assertEqual(maildrop.deleted_uids(), [b"b"])

    def test_unmarked_are_back(self) -> None:
        """RSET's work: everything is as it was, listings too."""
        maildrop = Maildrop(ENTRIES)
        before = listed(maildrop)
        for number in (1, 2, 3):
            maildrop.mark_deleted(number)
        self.assertEqual((maildrop.count, maildrop.octets, listed(maildrop)), (0, 0, []))
        maildrop.unmark_all()
        self.assertEqual((maildrop.count, maildrop.octets, listed(maildrop)), (3, 327, before))
        self.assertEqual(maildrop.deleted_uids(), [])

    def test_each_mistake_has_a_sentence(self) -> None:
        """0, too large, deleted: each is refused with its own words, and counts as the client's mistake."""
        maildrop = Maildrop(ENTRIES)
        maildrop.mark_deleted(2)
        for number, words in {0: "start at 1", 4: "only 3", 10**11: "only 3", 2: "already deleted"}.items():
            for action in (maildrop.entry, maildrop.mark_deleted):
                refusal = self.assertRaises(NoSuchMessage, action, number)
                self.assertIn(words, refusal.text)
                self.assertIsInstance(refusal, BadCommand)
        self.assertEqual((maildrop.count, maildrop.octets), (2, 127), "a refused mark changes nothing")

    def test_empty(self) -> None:
        """An empty maildrop has no message 1."""
        maildrop = Maildrop(())
        self.assertEqual((maildrop.count, maildrop.octets, listed(maildrop)), (0, 0, []))
        self.assertRaises(NoSuchMessage, maildrop.entry, 1)

    def test_summary(self) -> None:
        """The words for people know singular and plural."""
        self.assertEqual(Maildrop(ENTRIES).summary(), "3 messages (327 octets)")
        self.assertEqual(Maildrop(ENTRIES[:1]).summary(), "1 message (120 octets)")
        self.assertEqual(Maildrop(()).summary(), "0 messages (0 octets)")

    @given(st.lists(st.integers(0, 1000), max_size=20), st.lists(st.integers(-1, 22)))
    def test_sum_is_the_sum_of_list(self, sizes: list[int], marks: list[int]) -> None:
        """After any marks STAT's numbers are those of LIST, and UPDATE removes just the rest."""
        maildrop = Maildrop([Entry(b"%d" % n, size) for n, size in enumerate(sizes)])
        for number in marks:
            try:
                maildrop.mark_deleted(number)
            except NoSuchMessage:
                pass
        lines = [tuple(map(int, line.split())) for line in listed(maildrop)]
        self.assertEqual(maildrop.count, len(lines))
        self.assertEqual(maildrop.octets, sum(size for _, size in lines))
        self.assertEqual(
            {b"%d" % (number - 1) for number, _ in lines} | set(maildrop.deleted_uids()),
            {b"%d" % n for n in range(len(sizes))},
        )
        self.assertEqual(len(set(maildrop.deleted_uids())), len(sizes) - len(lines))

    def test_sessions_share_a_listing_and_no_marks(self) -> None:
        """Two sessions over one snapshot know nothing of each other's marks."""
        listing = Listing(ENTRIES)
        first, second = Maildrop(listing), Maildrop(listing)
        first.mark_deleted(1)
        self.assertEqual(listed(second), [b"1 120", b"2 200", b"3 7"])
        self.assertEqual(second.octets, 327)


class ListingTests(SynchronousTestCase):
    """The snapshot that a store may keep."""

    def test_its_own(self) -> None:
        """A Listing stays the same object, any other sequence becomes one."""
        listing = Listing(ENTRIES)
        self.assertIs(Listing.of(listing), listing)
        self.assertEqual(list(Listing.of(ENTRIES)), ENTRIES)

    def test_a_sequence(self) -> None:
        """It is a sequence of its entries and knows their sum."""
        listing = Listing(iter(ENTRIES))
        self.assertEqual(
            (len(listing), listing[0], listing[1:], listing.octets), (3, ENTRIES[0], tuple(ENTRIES[1:]), 327)
        )

    def test_more_than_it_needs(self) -> None:
        """A store's entries may know more than their unique-ids and octets."""
        listing = Listing([(*entry, "cur/x") for entry in ENTRIES])  # type: ignore[misc]
        self.assertEqual(list(listing), ENTRIES)
        self.assertEqual((list(Listing([])), Listing([]).octets), ([], 0))

    def test_columns(self) -> None:
        """Made of columns it is the same; columns of different lengths are a mistake."""
        uids, octets, _ = zip(*ENTRIES, strict=True)
        self.assertEqual(list(Listing.of_columns(uids, octets)), ENTRIES)
        self.assertRaises(ValueError, Listing.of_columns, uids, octets[1:])

    def test_later_changes_are_not_seen(self) -> None:
        """What happens to the store's own list later does not reach the session."""
        entries = list(ENTRIES)
        maildrop = Maildrop(entries)
        entries.append(Entry(b"new", 1))
        self.assertEqual((maildrop.count, maildrop.octets), (3, 327))

    def test_rendered_once(self) -> None:
        """A listing is made once for each kind."""
        listing = Listing(ENTRIES)
        first = {render: list(listing.rendered(render)) for render in (scan_listing, unique_id_listing)}
        self.assertNotEqual(first[scan_listing], first[unique_id_listing])
        for render, blocks in first.items():
            again = listing.rendered(render)
            self.assertIs(again, listing.rendered(render))
            self.assertEqual(list(again), blocks)

    def test_rendered_piece_by_piece(self) -> None:
        """A block is made when it is asked for; a listing that nobody read to its end is not remembered."""
        made = []

        def render(entries: Iterable[tuple[int, tuple[bytes, int]]]) -> Iterator[bytes]:
            for number, _ in entries:
                made.append(number)
                yield b"%d" % number

        listing = Listing(ENTRIES)
        blocks = iter(listing.rendered(render))
        self.assertEqual(made, [])
        next(blocks)
        self.assertEqual(made, [1])
        self.assertEqual(len(list(listing.rendered(render))), len(ENTRIES))
        self.assertEqual(made, [1, *range(1, len(ENTRIES) + 1)])
        self.assertEqual(len(list(listing.rendered(render))), len(ENTRIES))
        self.assertEqual(len(made), 1 + len(ENTRIES))
