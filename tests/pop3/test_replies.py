"""The bytes on the wire: what RFC 1939 says they are, computed here by another method than the server's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.interfaces import After, Challenge, Entry, Stream
from pop3toy.mail.octets import Encoder, OctetCounter, octets
from pop3toy.mail.unique_ids import unique_id_is_valid
from pop3toy.pop3.replies import (
    Lines,
    Message,
    Status,
    encode,
    scan_listing,
    unique_id_listing,
)

from ..pop3_world import ScriptedBody

#: Messages in which everything that matters happens often.
messages = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"A: b", b"\0", b"\xff", b"\n\n", b"\r\n.\r\n"]
    ),
    max_size=25,
).map(b"".join)


def canonical(stored: bytes) -> list[bytes]:
    """The lines of a message as RFC 1939 means them, without their line ends: octet by octet, by the book."""
    lines = []
    line = bytearray()
    for octet in stored:
        if octet != 0x0A:
            line.append(octet)
            continue
        if line.endswith(b"\r"):
            del line[-1]
        lines.append(bytes(line))
        line.clear()
    if line:
        lines.append(bytes(line))
    if header_end(lines) is None:
        lines.append(b"")
    return lines


def header_end(lines: Sequence[bytes]) -> int | None:
    """Where the first line is that is empty, CRs aside."""
    return next((at for at, line in enumerate(lines) if not line.strip(b"\r")), None)


def joined(lines: Sequence[bytes]) -> bytes:
    """Lines with their CRLF."""
    return b"".join([line + b"\r\n" for line in lines])


def strictly_decoded(sent: bytes) -> list[bytes]:
    """The lines of a multi-line reply's data, as a client that forgives nothing reads them."""
    assert sent.endswith(b"\r\n"), sent
    lines = sent[:-2].split(b"\r\n")
    assert not any(b"\n" in line for line in lines), "a bare LF"
    assert lines.pop() == b".", "the termination line"
    for line in lines:
        assert not line.startswith(b".") or line.startswith(b".."), "a dot that is not stuffed"
    return [line.removeprefix(b".") for line in lines]


def chunks(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data cut at these places; empty chunks among them."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def sent(pieces: Sequence[bytes], body_lines: int | None = None) -> tuple[bytes, ScriptedBody]:
    """What is sent of a body in these pieces, behind the status line; the same if it is begun at once."""
    body, other = ScriptedBody(pieces), ScriptedBody(pieces)
    stream = encode(Message("x", body, body_lines))
    assert not isinstance(stream, bytes)
    data = pulled(stream)
    begun = encode(Message("x", other, body_lines), at_once=True)
    assert isinstance(begun, bytes) == (len(pieces) == 1 and body_lines is None)
    assert (begun if isinstance(begun, bytes) else pulled(begun)) == data
    assert body.faults == other.faults == []
    assert (body.closed, body.pulls) == (other.closed, other.pulls)
    return data.removeprefix(b"+OK x\r\n"), body


def pulled(stream: Stream) -> bytes:
    """All of a stream."""
    data = b""
    while not stream.done:
        piece = stream.pull()
        assert isinstance(piece, bytes)
        data += piece
    stream.close()
    return data


class BodyTests(SynchronousTestCase):
    """RETR: the whole of a message, whatever its line ends and wherever its chunks end."""

    @settings(max_examples=500, deadline=None)
    @given(messages, st.lists(st.integers(0, 100), max_size=8))
    @example(b"", [])
    @example(b".", [0, 1])
    @example(b"A: b\r\n\r\n.\r\n", [8, 9, 10])
    @example(b"\r\n", [1])
    @example(b"a\r", [1])
    def test_what_a_client_reads(self, message: bytes, places: list[int]) -> None:
        """A strict client reads the canonical form, and its octets are those that were announced."""
        data, body = sent(chunks(message, places))
        lines = strictly_decoded(data)
        self.assertEqual(lines, strictly_decoded(data))
        self.assertEqual(joined(lines), joined(canonical(message)))
        self.assertEqual(len(joined(lines)), octets(message))
        self.assertEqual(body.closed, [octets(message)])

    @settings(max_examples=300, deadline=None)
    @given(messages)
    def test_cuts_make_no_difference(self, message: bytes) -> None:
        """However a message is cut, also octet by octet, the same octets leave."""
        whole, _ = sent([message])
        for size in (1, 2, 3):
            pieces = [message[at : at + size] for at in range(0, len(message), size)] or [b""]
            self.assertEqual(sent(pieces)[0], whole)

    def test_every_cut(self) -> None:
        """One cut at each place of an awkward message changes nothing."""
        message = b".A: b\r\n.C: d\n\r\n.\r\n..\r\r\n\n.\r.\r\n\r"
        whole, _ = sent([message])
        for place in range(len(message) + 1):
            for second in range(place, len(message) + 1):
                pieces = [message[:place], message[place:second], message[second:]]
                self.assertEqual(sent(pieces)[0], whole, (place, second))

    def test_by_hand(self) -> None:
        """The cases of the rules, written out."""
        for stored, wire in {
            b"": b"\r\n.\r\n",
            b"\n": b"\r\n.\r\n",
            b"A: b": b"A: b\r\n\r\n.\r\n",
            b"A: b\n": b"A: b\r\n\r\n.\r\n",
            b"A: b\n\n": b"A: b\r\n\r\n.\r\n",
            b"A: b\r\n\r\nc": b"A: b\r\n\r\nc\r\n.\r\n",
            b"A: b\n\nc\n\n": b"A: b\r\n\r\nc\r\n\r\n.\r\n",
            b".\n\n.\n": b"..\r\n\r\n..\r\n.\r\n",
            b"A: b\n\n..\n.c\nd.\n": b"A: b\r\n\r\n...\r\n..c\r\nd.\r\n.\r\n",
            b"A: b\n\none\rtwo\n": b"A: b\r\n\r\none\rtwo\r\n.\r\n",
            b"A: b\n\none\r": b"A: b\r\n\r\none\r\r\n.\r\n",
            b"A: b\r\n\r\n\r.\r\n": b"A: b\r\n\r\n\r.\r\n.\r\n",
            b"A: b\n\n\0\xff\n": b"A: b\r\n\r\n\0\xff\r\n.\r\n",
        }.items():
            self.assertEqual(sent([stored])[0], wire, stored)
            self.assertEqual(octets(stored), len(joined(strictly_decoded(wire))), stored)

    def test_crlf_is_not_doubled(self) -> None:
        """Mail that is stored with CRLF leaves with CRLF, also when a chunk ends between the two."""
        self.assertEqual(sent([b"A: b\r", b"\n\r", b"\nc\r\n"])[0], b"A: b\r\n\r\nc\r\n.\r\n")

    def test_a_line_of_dots_on_every_chunk_edge(self) -> None:
        """A dot at the beginning of a chunk is stuffed if it begins a line, and only then."""
        self.assertEqual(
            sent([b"A: b\n\n", b".", b".", b"\n", b".", b"x"])[0], b"A: b\r\n\r\n...\r\n..x\r\n.\r\n"
        )
        self.assertEqual(sent([b"A: b\n\nx", b".\n"])[0], b"A: b\r\n\r\nx.\r\n.\r\n")
        self.assertEqual(sent([b"A: b\n\n\r", b".\n"])[0], b"A: b\r\n\r\n\r.\r\n.\r\n")

    def test_late_chunks(self) -> None:
        """A chunk in a Deferred becomes a piece in a Deferred, also if that has fired."""
        for at_once in (False, True):
            for early in (False, True):
                chunk: Deferred[bytes] = Deferred()
                if early:
                    chunk.callback(b".\n\n")
                body = ScriptedBody([chunk])
                stream = encode(Message("x", body), at_once)
                assert not isinstance(stream, bytes)
                piece = stream.pull()
                assert isinstance(piece, Deferred)
                self.assertEqual(stream.done, early)
                if not early:
                    chunk.callback(b".\n\n")
                self.assertEqual(self.successResultOf(piece), b"+OK x\r\n..\r\n\r\n.\r\n")
                self.assertTrue(stream.done)
                self.assertEqual((body.pulls, body.faults), (1, []))

    def test_failing_at_once(self) -> None:
        """What the first pull raises is raised, and the body closed; otherwise nothing is pulled yet."""
        body = ScriptedBody([KeyError("a bug")])
        self.assertRaises(KeyError, encode, Message("x", body), at_once=True)
        self.assertEqual((body.closed, body.faults), ([None], []))
        body = ScriptedBody([KeyError("a bug")])
        self.assertNotIsInstance(encode(Message("x", body)), bytes)
        self.assertEqual((body.closed, body.pulls), ([], 0))

    def test_closed_once(self) -> None:
        """A stream that is closed twice closes its body once, and not as whole if it was not."""
        body = ScriptedBody([b"A: b\n", b"c"])
        stream = encode(Message("x", body))
        assert not isinstance(stream, bytes)
        stream.pull()
        stream.close()
        stream.close()
        self.assertEqual(body.closed, [None])


class TopTests(SynchronousTestCase):
    """TOP: the header, the blank line, and so many lines of the body."""

    @staticmethod
    def top(message: bytes, count: int) -> list[bytes]:
        """What TOP must send, by the book."""
        lines = canonical(message)
        end = header_end(lines)
        assert end is not None
        return lines[: end + 1 + count]

    @settings(max_examples=400, deadline=None)
    @given(messages, st.integers(0, 12), st.lists(st.integers(0, 100), max_size=8))
    @example(b"\n\n", 1, [])
    @example(b"A: b\r\n\r\nc\r\n", 0, [7])
    def test_prefix(self, message: bytes, count: int, places: list[int]) -> None:
        """TOP n is the header, the blank line and n lines of the body, however the message is cut."""
        data, body = sent(chunks(message, places), count)
        self.assertEqual(strictly_decoded(data), self.top(message, count))
        if len(self.top(message, count)) < len(canonical(message)):
            self.assertEqual(body.closed, [None], "a part is no count of the whole message")
        else:
            self.assertIn(body.closed, ([None], [octets(message)]))

    def test_every_number_and_every_cut(self) -> None:
        """For each number of lines and each cut of a message with its header's end on the edge."""
        message = b"A: b\r\nC: d\r\n\r\n.one\r\n\r\ntwo\n.\nthree"
        for count in range(7):
            for place in range(len(message) + 1):
                data, _ = sent([message[:place], message[place:]], count)
                self.assertEqual(strictly_decoded(data), self.top(message, count), (count, place))

    def test_more_than_there_is(self) -> None:
        """``TOP n 99999999`` sends what RETR sends: some clients fetch that way."""
        for message in (b"", b"A: b", b"A: b\n\n", b"A: b\r\n\r\n.c\r\n\r\nd"):
            data, body = sent([message], 99_999_999)
            self.assertEqual(data, sent([message])[0])
            self.assertEqual(body.closed, [octets(message)], "the whole message was counted")

    def test_reads_no_more_than_it_needs(self) -> None:
        """Of a large message TOP reads the chunks with its lines, and not one more."""
        header = [b"A: b\r\n" * 100, b"\r\n"]
        body = [b"line\r\n" * 100 for _ in range(50)]
        for count, needed in ((0, 2), (1, 3), (100, 3), (101, 4), (250, 5)):
            _, scripted = sent([*header, *body], count)
            self.assertEqual(scripted.pulls, needed, count)

    def test_asks_for_little(self) -> None:
        """TOP asks the store for a small chunk first, RETR for large ones."""
        self.assertEqual(sent([b"A: b\n", b"\n", b"c\n"], 0)[1].wanted, [limits.TOP_CHUNK, limits.CHUNK])
        self.assertEqual(sent([b"A: b\n", b"\nc\n"])[1].wanted, [limits.CHUNK] * 2)

    def test_header_end_on_an_edge(self) -> None:
        """The blank line is found when it lies across chunks, in every way it can."""
        for pieces in (
            [b"A: b\r\n\r\n", b"c\r\n"],
            [b"A: b\r\n\r", b"\nc\r\n"],
            [b"A: b\r\n", b"\r\nc\r\n"],
            [b"A: b\r", b"\n\r\nc\r\n"],
            [b"A: b", b"\r", b"\n", b"\r", b"\n", b"c\r\n"],
            [b"A: b\n", b"\n", b"c\n"],
            [b"A: b\n", b"", b"\nc\n"],
        ):
            self.assertEqual(sent(pieces, 0)[0], b"A: b\r\n\r\n.\r\n", pieces)
            self.assertEqual(sent(pieces, 1)[0], b"A: b\r\n\r\nc\r\n.\r\n", pieces)

    def test_line_ends_that_were_doubled(self) -> None:
        """Lines that end in CR CR LF: one that is empty but for a CR ends the header, nothing is added."""
        message = b"Subject: twice\r\r\nFrom: a@example.org\r\r\n\r\r\nfirst\r\r\nsecond\r\r\nthird\r\r\n"
        self.assertEqual(octets(message), 67)
        for size in (1, 2, 3, 5, 100):
            pieces = [message[at : at + size] for at in range(0, len(message), size)]
            self.assertEqual(sent(pieces)[0], message + b".\r\n")
            for count, length in ((0, 42), (1, 50), (2, 59), (3, 67), (4, 67)):
                self.assertEqual(sent(pieces, count)[0], message[:length] + b".\r\n", (size, count))
        for line, there in ((b"\r" * 70_000, True), (b"\r" * 70_000 + b".", False)):
            pieces = [b"A: b\n", line, b"\nbody\n"]
            self.assertEqual(sent(pieces, 0)[0].endswith(b"body\r\n\r\n.\r\n"), not there)
            self.assertEqual(len(sent(pieces)[0]) - 3, octets(b"".join(pieces)))


class OctetCounterTests(SynchronousTestCase):
    """The octets, as stores count them while they read or write."""

    @settings(max_examples=300, deadline=None)
    @given(messages, st.lists(st.integers(0, 100), max_size=8))
    def test_counts(self, message: bytes, places: list[int]) -> None:
        """The octets of the canonical form are counted, stuffed dots not among them."""
        for counter in (OctetCounter(), Encoder()):
            for chunk in chunks(message, places):
                counter.feed(chunk)
            counter.finish()
            self.assertEqual(counter.octets, len(joined(canonical(message))))

    @settings(max_examples=300, deadline=None)
    @given(messages, st.lists(st.integers(0, 100), max_size=8))
    def test_canonical(self, message: bytes, places: list[int]) -> None:
        """The canonical form, for stores that keep it: as it is sent, but with no dot stuffed."""
        encoder = Encoder(stuffed=False)
        made = b"".join(map(encoder.feed, chunks(message, places))) + encoder.finish()
        self.assertEqual(made, joined(canonical(message)))
        self.assertEqual((len(made), encoder.octets), (octets(message), octets(made)))

    def test_one_function_defines_octets(self) -> None:
        """RFC 1939 section 11: the count is of CRLF line ends; an empty message is 2 octets."""
        self.assertEqual(octets(b""), 2)
        self.assertEqual(octets(b"A: b\n\n.\n"), len(b"A: b\r\n\r\n.\r\n"))
        self.assertEqual(octets(b"A: b"), len(b"A: b\r\n\r\n"))


class StatusLineTests(SynchronousTestCase):
    """A reply of one line (RFC 1939 section 3, RFC 2449 section 8)."""

    def test_words(self) -> None:
        """Status word, response code in brackets, text: one space between them, none at the end."""
        for status, line in {
            Status(True, ""): b"+OK\r\n",
            Status(True, "2 320"): b"+OK 2 320\r\n",
            Status(True, "ready "): b"+OK ready\r\n",
            Status(False, "no such message"): b"-ERR no such message\r\n",
            Status(False, "wrong", "AUTH"): b"-ERR [AUTH] wrong\r\n",
            Status(False, "", "SYS/TEMP"): b"-ERR [SYS/TEMP]\r\n",
        }.items():
            self.assertEqual(encode(status), line)
        self.assertEqual(Status(True, "").after, After.GO_ON)

    def test_length(self) -> None:
        """The first line of a reply is at most 512 octets with its CRLF, and does not end in a space."""
        for text in ("x" * 600, "x" * 504 + " y" * 50, "x" * 505 + " y" * 50, "xy " * 300):
            line = encode(Status(False, text))
            assert isinstance(line, bytes)
            self.assertLessEqual(len(line), limits.REPLY_LINE)
            self.assertTrue(line.endswith(b"\r\n"))
            self.assertFalse(line.endswith(b" \r\n"))

    def test_no_false_code(self) -> None:
        """Text that begins with a bracket does not become a response code (RFC 2449 section 6.4)."""
        for ok, text, line in (
            (False, "[DISK] full", b"-ERR DISK] full\r\n"),
            (True, " [[x", b"+OK x\r\n"),
            (False, "full [DISK]", b"-ERR full [DISK]\r\n"),
        ):
            self.assertEqual(encode(Status(ok, text)), line)

    @given(st.text(max_size=30))
    @example("a\r\n+OK b")
    @example("\0")
    @example("\u2028 ä")
    def test_one_line_of_ascii(self, text: str) -> None:
        """Whatever text a store of somebody else's gives, it is one line of printable ASCII."""
        line = encode(Status(False, text))
        assert isinstance(line, bytes)
        self.assertRegex(line, rb"\A-ERR( [\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?\r\n\Z")

    def test_challenge(self) -> None:
        """RFC 5034 section 4: plus, space, base64; the space stays when there is nothing behind it."""
        self.assertEqual(encode(Challenge(b"")), b"+ \r\n")
        self.assertEqual(encode(Challenge(b"Username:")), b"+ VXNlcm5hbWU6\r\n")
        self.assertEqual(encode(Challenge(b"x" * 300)).count(b"\n"), 1)  # type: ignore[union-attr]


class ListingTests(SynchronousTestCase):
    """LIST, UIDL, CAPA, AUTH: replies of many lines."""

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 2), st.integers(-2, 2))
    def test_blocks(self, blocks: int, more: int) -> None:
        """A listing of any length has each line once, in order, whatever the size of its blocks."""
        count = max(0, blocks * limits.LISTING_BLOCK + more)
        entries = [(n, Entry(b"u%d" % n, n * 7)) for n in range(1, count + 1)]
        for render, expected in (
            (scan_listing, [b"%d %d" % (n, e.octets) for n, e in entries]),
            (unique_id_listing, [b"%d %b" % (n, e.uid) for n, e in entries]),
        ):
            stream = encode(Lines("listing", render(iter(entries))))  # type: ignore[arg-type]
            assert not isinstance(stream, bytes)
            head, _, rest = pulled(stream).partition(b"\r\n")
            self.assertEqual(head, b"+OK listing")
            self.assertEqual(strictly_decoded(rest), expected)

    def test_lazily(self) -> None:
        """No more than a block is made ahead of what is sent."""
        made = 0

        def blocks() -> object:
            nonlocal made
            for _ in range(10):
                made += 1
                yield b"x\r\n"

        stream = encode(Lines("listing", blocks()))  # type: ignore[arg-type]
        assert not isinstance(stream, bytes)
        self.assertEqual(stream.pull(), b"+OK listing\r\nx\r\n")
        self.assertLessEqual(made, 2)
        stream.close()
        self.assertTrue(stream.done)

    def test_uid(self) -> None:
        """RFC 1939 section 7: one to 70 octets of 0x21 to 0x7E."""
        for uid in (b"!", b"~", b"x" * 70, bytes(range(0x21, 0x67))):
            self.assertTrue(unique_id_is_valid(uid), uid)
        for uid in (b"", b"x" * 71, b"a b", b"a\n", b"\x7f", b"\x20", b"\xe4"):
            self.assertFalse(unique_id_is_valid(uid), uid)
