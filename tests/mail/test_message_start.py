"""What stands before a message that comes in: left there by other programs, and put there by us."""

from __future__ import annotations

import re
from email import message_from_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.mail.message_start import HEADER as MOST
from pop3toy.mail.message_start import HeldStart, sender_of
from pop3toy.smtp.factory import lmtp_factory, smtp_factory, submission_factory
from tests.smtp.test_submission import plain
from tests.smtp_world import Accounts, Client, world

HEADER = b"Subject: s\r\n\r\nbody\r\n"
DATED = b"From a@example.org Mon Apr 17 12:00:00 2023\r\n"
BOM = b"\xef\xbb\xbf"

#: What is sent, and what of it stands behind our headers.
STARTS = (
    (HEADER, HEADER),
    # Left there by other programs.
    (BOM + HEADER, HEADER),
    (DATED + HEADER, HEADER),
    (b">" + DATED + HEADER, HEADER),
    (BOM + DATED + HEADER, HEADER),
    (DATED + BOM + b">" + DATED + HEADER, HEADER),
    (DATED + DATED + HEADER, HEADER),
    (b">From quoted\r\n" + HEADER, HEADER),
    (b"From \r\n" + HEADER, HEADER),
    (b"From :a@b\r\n" + HEADER, b"From :a@b\r\n" + HEADER),
    (b"From root\r\n" + HEADER, HEADER),
    (b"From uucp Mon Apr 17 12:00:00 2023 remote from host\r\n" + HEADER, HEADER),
    (DATED + b"\r\nbody\r\n", b"\r\nbody\r\n"),
    (BOM + b"\r\nbody\r\n", b"\r\nbody\r\n"),
    # A text that begins with its body.
    (b"Just text\r\n", b"\r\nJust text\r\n"),
    (b" indented\r\n", b"\r\n indented\r\n"),
    (b"From now on we meet.\r\n", b"\r\nFrom now on we meet.\r\n"),
    (b"From now on we meet.\r\nWhen: noon\r\n", b"\r\nFrom now on we meet.\r\nWhen: noon\r\n"),
    (b"From Paris:\r\nWhen: noon\r\n", b"\r\nFrom Paris:\r\nWhen: noon\r\n"),
    (b"From home.\r\nWhen: noon\r\n", b"\r\nFrom home.\r\nWhen: noon\r\n"),
    (b"From here\r\n\r\nbody\r\n", b"\r\nFrom here\r\n\r\nbody\r\n"),
    (b">From here\r\n\r\nbody\r\n", b"\r\n>From here\r\n\r\nbody\r\n"),
    (b"https://example.org/ is it\r\n", b"\r\nhttps://example.org/ is it\r\n"),
    (b"Some text\r\nReturn-Path: <x@y.z>\r\n", b"\r\nSome text\r\nReturn-Path: <x@y.z>\r\n"),
    (b"\r\nbody\r\n", b"\r\nbody\r\n"),
    # A Return-Path that is there already; not in the body.
    (b"Return-Path: <old@example.org>\r\n" + HEADER, HEADER),
    (DATED + b"Return-Path: <old@example.org>\r\n" + HEADER, HEADER),
    (b"a: b\r\nRETURN-PATH :\r\n <old@example.org>\r\nReturn-Path: <>\r\n" + HEADER, b"a: b\r\n" + HEADER),
    (b"a: b\r\n\r\nReturn-Path: <x@y.z>\r\n", b"a: b\r\n\r\nReturn-Path: <x@y.z>\r\n"),
    (b"a: b\r\n\r\r\nReturn-Path: <x@y.z>\r\n", b"a: b\r\n\r\r\nReturn-Path: <x@y.z>\r\n"),
)  # fmt: skip


__all__ = ["BOM", "DATED", "HEADER", "MOST", "STARTS"]


class ProtocolTests(SynchronousTestCase):
    """By SMTP, submission and LMTP."""

    def test_starts(self) -> None:
        """Marks, separators and a second Return-Path go; a text keeps its first line out of our headers."""
        own = IPv4Address("TCP", "127.0.0.1", 4711)
        login = "AUTH PLAIN " + plain("ann", "nna")
        for make, more, hello in (
            (smtp_factory, (), ("EHLO x", "MAIL FROM:<eve@elsewhere.example>")),
            (lmtp_factory, (), ("LHLO x", "MAIL FROM:<eve@elsewhere.example>")),
            (submission_factory, (Accounts(),), ("EHLO x", login, "MAIL FROM:<ann@example.org>")),
        ):  # fmt: skip
            for text, stored in STARTS:
                with self.subTest(make=make, text=text):
                    factory, store, _ = world(make, *more)
                    client = Client(factory, own)
                    client.say(*hello, "RCPT TO:<ann@example.org>", "DATA")
                    for octet in text + b".\r\n":
                        client.send(bytes([octet]))
                    (message,) = store.messages("ann")
                    # Received, which ends with its date, is the last of our headers.
                    ours, behind = re.split(rb" [+-]\d{4}\r\n", message, maxsplit=1)
                    self.assertEqual(behind, stored)
                    self.assertEqual(ours.count(b"Return-Path: <"), 1)
                    self.assertEqual(message_from_bytes(message)["Subject"], "s" if HEADER in text else None)

    def test_long_header(self) -> None:
        """A header without end goes on to the store when it has the size that is held back."""
        held = HeldStart(b"r: s\r\n")
        line = b"x: y\r\n"
        many = line * (MOST // len(line))
        self.assertEqual(held.feed(many, last=False), b"")
        self.assertEqual(held.feed(line, last=False), b"r: s\r\n" + many + line)
        self.assertEqual(held.feed(b"z", last=False), b"z")
        self.assertEqual(HeldStart(b"r: s\r\n").feed(b"a" * MOST, last=False)[:10], b"r: s\r\n\r\naa")
        self.assertEqual(HeldStart(b"r: s\r\n").feed(b"a" * (MOST - 1), last=False), b"")

    def test_cut_field(self) -> None:
        """A Return-Path where so much of a long header ends goes as a whole or stays so."""
        old, rest = b"Return-Path: <old@example.org>\r\n\t(folded)\r\n", b"a: b\r\n\r\nbody"
        for at in range(len(old) + 2):
            before = b"x: " + b"y" * (MOST - at - len(b"x: \r\n")) + b"\r\n"
            text = before + old + rest
            held = HeldStart(b"r: s\r\n")
            made = held.feed(text[:MOST], last=False) + held.feed(text[MOST:], last=True)
            gone = at == len(old) + 1
            self.assertEqual(made, b"r: s\r\n" + before + (b"" if gone else old) + rest, at)

    @given(
        st.lists(
            st.sampled_from([BOM, DATED, b">From ", b"a: b\r\n", b"\r\n", b"\r", b"x", b"Return-Path: r\r\n"])
        )
    )
    def test_in_any_pieces(self, pieces: list[bytes]) -> None:
        """However a message is cut, the same is made of it."""
        cut, whole = HeldStart(b"r: s\r\n"), HeldStart(b"r: s\r\n")
        made = b"".join(cut.feed(piece, last=False) for piece in pieces) + cut.feed(b"", last=True)
        self.assertEqual(made, whole.feed(b"".join(pieces), last=True))


class SeparatorTests(SynchronousTestCase):
    """Lines between the messages of an mbox."""

    def test_longest(self) -> None:
        """A line of 998 octets, without its end, may be a separator, one of 999 is none."""
        date = b" Mon Apr 17 12:00:00 2023"
        for end in (b"", b"\n", b"\r\n"):
            sender = b"x" * (998 - len(b"From ") - len(date))
            self.assertEqual(sender_of(b"From " + sender + date + end), sender)
            self.assertIsNone(sender_of(b"From x" + sender + date + end))
