"""``moving.arrival``: when messages came."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.moving.arrival import arrival, in_order

SECOND = 1_000_000


class ArrivalTests(SynchronousTestCase):
    """One message."""

    def test_found(self) -> None:
        """The topmost Received says it, else Date; a time without a zone is taken for UTC."""
        for header, seconds in (
            (
                b"Received: from x by y;\r\n Mon, 1 Jan 2024 10:00:00 +0100\r\n"
                b"Received: from z by x; Sun, 31 Dec 2023 10:00:00 +0000\r\n"
                b"Date: Sat, 30 Dec 2023 1:00:00 +0000\r\n",
                1704099600,
            ),
            (b"Date: Mon, 1 Jan 2024 10:00:00 +0100\r\n\r\nDate: none\r\n", 1704099600),
            (b"Received: by y; whenever\r\nDate: Mon, 1 Jan 2024 09:00:00 -0000\r\n", 1704099600),
            (b"Date: Mon, 1 Jan 2024 09:00:00\r\n", 1704099600),
        ):
            self.assertEqual(arrival(header), seconds * SECOND, header)

    def test_unknown(self) -> None:
        """What says nothing, or nonsense, is no error."""
        for header in (
            b"",
            b"\r\n",
            b"Date: \r\n",
            b"Date: Mon, 99 Jan 99999 10:00 +9999\r\n",
            b"\xff\0: \xff",
        ):
            self.assertIsNone(arrival(header), header)


class OrderTests(SynchronousTestCase):
    """Many messages."""

    def test_in_order(self) -> None:
        """The most of them keep their time; the others get that of the one before, the first of the next."""
        for times, found in (
            ([], []),
            ([None, None], [100, 100]),
            ([1, 2, 2, 3], [1, 2, 2, 3]),
            ([1, 99, 2, 3], [1, 1, 2, 3]),
            ([5, 6, 0, 7], [5, 6, 6, 7]),
            ([None, 4, None, 101, -1, 5], [4, 4, 4, 4, 4, 5]),
        ):
            self.assertEqual(in_order(times, 100), found, times)
