"""Where messages end, however the octets arrive."""

from __future__ import annotations

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.smtp.framing import MessageText

pieces = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"\r\n.\r\n", b"\n.\r\n", b"\r\n.\n"]),
    max_size=12,
).map(b"".join)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same octets in several pieces."""
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def by_the_book(data: bytes) -> tuple[bytes, bytes] | None:
    """RFC 5321 section 4.5.2 line by line: the text and what follows, or None without an end."""
    text = []
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        if line == b".":
            return b"".join(text), data
        text.append((line[1:] if line.startswith(b".") else line) + end)


class MessageTextTests(SynchronousTestCase):
    """The end of a message, and nothing that only looks like it."""

    @given(pieces, st.lists(st.integers(0, 100), max_size=5))
    @example(b".\r\nQUIT\r\n", [1])
    def test_as_the_book_says(self, data: bytes, cuts: list[int]) -> None:
        """Text, end and rest are what RFC 5321 says line by line, wherever the data is cut."""
        message = MessageText()
        text, rest = b"", b""
        for piece in cut(data, cuts):
            if message.finished:
                rest += piece
                continue
            more, rest = message.feed(piece)
            text += more
        expected = by_the_book(data)
        self.assertEqual(message.finished, expected is not None)
        if expected is not None:
            self.assertEqual((text, rest), expected)
            self.assertEqual(message.octets, len(text))
            self.assertEqual(message.bare_line_feeds, len(re.findall(rb"(?<!\r)\n", text)))
            self.assertEqual(message.bare_carriage_returns, len(re.findall(rb"\r(?!\n)", text)))

    @given(st.lists(st.binary(max_size=30), max_size=10), st.lists(st.integers(0, 400), max_size=5))
    def test_round_trip(self, lines: list[bytes], cuts: list[int]) -> None:
        """What a correct sender stuffs comes out as it was."""
        lines = [line.replace(b"\r", b"").replace(b"\n", b".") for line in lines]
        stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
        message = MessageText()
        texts = []
        for piece in cut(stuffed + b".\r\n", cuts):
            if piece:
                texts.append(message.feed(piece)[0])
        self.assertTrue(message.finished)
        self.assertEqual(b"".join(texts), b"".join(line + b"\r\n" for line in lines))

    def test_smuggling(self) -> None:
        """None of the relatives of CRLF . CRLF ends a message."""
        for fake in (
            b"\n.\r\n",
            b"\n.\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\n.\r",
            b"\r\n.\r",
            b"\r\n\0.\r\n",
        ):
            with self.subTest(fake=fake):
                message = MessageText()
                text, _ = message.feed(b"Subject: x\r\n\r\nbody" + fake + b"MAIL FROM:<evil@example.org>\r\n")
                self.assertFalse(message.finished)
                self.assertIn(b"MAIL FROM", text)

    def test_memory(self) -> None:
        """At most the four octets that may become the end are held back."""
        message = MessageText()
        fed = 0
        for _ in range(50):
            message.feed(b"x" * 1000 + b"\r\n.\r")
            fed += 1004
            self.assertGreaterEqual(message.octets, fed - 50 - 4)
