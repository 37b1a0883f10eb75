"""What is read of a recording, in each of its formats, and what of a reply counts."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.replay import recording
from pop3toy.replay.comparing import compare
from pop3toy.replay.recording import Hidden, NotARecording, Turn, parse, read, without_secret

TRANSCRIPT = """\
2026-11-29T20:50:29+0000 [pop3toy.run.ports#info] pop3toy listens
[1] -- connected from 127.0.0.1:54514
[2] -- connected from 127.0.0.1:54515
[1] S: +OK ready <1@x>
[2] S: +OK ready <2@x>
[1] C: USER ann
[2] C: QUIT
[1] S: +OK send PASS
[1] C: PASS ****
[1] S: +OK
[1] C: STAT
[1] C: LIST
[1] S: +OK 2 60
[1] S: +OK
[1] S: 1 30
[1] S: 2 30
[1] S: .
[2] S: +OK bye
[1] C: RETR 1
[1] S: +OK 5000 octets
[1] S: Subject: one
[1] S: ... 100 more lines, 4986 octets
[1] S: .
[1] C: RETR 2
[1] S: +OK 30 octets
[1] S: Subj ... (cut off)
[1] -- closed (dropped by the client)
"""
RFC_1939 = """\
      S: <wait for connection on TCP port 110>
      C: <open connection>
      S:    +OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>
      C:    APOP mrose c4c9334bac560ecc979e58001b3e22fb
      S:    +OK mrose's maildrop has 2 messages
      C:    LIST
      S:    +OK 2 messages
      S:    1 120
      S:    2 200
      S:    .

      C:    RETR 1
      S:    +OK 120 octets
      S:    <the POP3 server sends message 1>
      S:      two blanks
      S:    .
      C:    QUIT
      S:    +OK dewey POP3 server signing off (maildrop empty)
      C:  <close connection>
      S:  <wait for next connection>
"""


def words(turns: list[Turn]) -> list[tuple[str, int, bool]]:
    """What was said, how many lines it was answered with, and whether they are all."""
    return [(turn.line, len(turn.reply), turn.cut) for turn in turns]


class FormatTests(SynchronousTestCase):
    """The same session, in different files."""

    def test_transcript(self) -> None:
        """The first session, another one, and replies that are not whole."""
        turns = parse(TRANSCRIPT.encode())
        self.assertEqual(
            words(turns),
            [
                ("", 1, False),
                ("USER ann", 1, False),
                ("PASS ****", 1, False),
                ("STAT", 1, False),
                ("LIST", 4, False),
                ("RETR 1", 4, False),
                ("RETR 2", 2, True),
            ],
        )
        self.assertTrue(turns[2].is_masked)
        self.assertEqual(turns[5].reply[2], Hidden(100, 4986))
        self.assertEqual(turns[6].reply[1], "Subj")
        self.assertEqual(words(parse(TRANSCRIPT.encode(), 2)), [("", 1, False), ("QUIT", 1, False)])

    def test_script(self) -> None:
        """Lines without a number, as the RFC prints them; no command is one that stands within a message."""
        turns = parse(b"S: +OK\nC: RETR 1\nS: +OK\nS: C: QUIT\nS: .\nC: QUIT\nS: +OK\n")
        self.assertEqual(words(turns), [("", 1, False), ("RETR 1", 3, False), ("QUIT", 1, False)])

    def test_as_the_rfc_prints_it(self) -> None:
        """Blanks that all lines have are none of theirs, and nobody says `connect` (RFC 1939 section 10)."""
        turns = parse(RFC_1939.encode())
        self.assertEqual(
            [(turn.line, turn.reply) for turn in turns],
            [
                ("", ("+OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>",)),
                ("APOP mrose c4c9334bac560ecc979e58001b3e22fb", ("+OK mrose's maildrop has 2 messages",)),
                ("LIST", ("+OK 2 messages", "1 120", "2 200", ".")),
                ("RETR 1", ("+OK 120 octets", "<the POP3 server sends message 1>", "  two blanks", ".")),
                ("QUIT", ("+OK dewey POP3 server signing off (maildrop empty)",)),
            ],
        )
        # Where one line has none, all are as they are.
        (_, turn) = parse(b"S: +OK\nC: RETR 1\nS: +OK\n S: x\nS:  y\nS: <wait for a connection>\nS: .\n")
        self.assertEqual(turn.reply, ("+OK", " y", "<wait for a connection>", "."))

    def test_readme(self) -> None:
        """The transcript that README.rst shows is one."""
        page = (Path(__file__).parents[2] / "README.rst").read_text()
        lines = [line for line in page.splitlines() if line.startswith("    [1] ")]
        turns = parse("\n".join(lines).encode())
        self.assertEqual([turn.line for turn in turns[:3]], ["", "USER user", "PASS pass"])
        self.assertIn("Hello World!", next(turn.reply for turn in turns if turn.keyword == "RETR"))

    def test_escapes(self) -> None:
        """What steers a terminal is escaped on both sides, a tab is not."""
        _, turn = parse("S: +OK\nC: STAT\x1b[2J\nS: +OK\t\x1b]0;x\x07\x9b\u202e\n".encode())
        self.assertEqual((turn.line, turn.reply), ("STAT\\x1b[2J", ("+OK\t\\x1b]0;x\\x07\\x9b\\u202e",)))

    def test_cut_json(self) -> None:
        """A last line that is not whole is left out; a bad one among others is not."""
        first = b'{"event": "LineReceived", "session": 1, "line": "STAT"}\n'
        self.assertEqual(words(parse(first + b'{"event": "ReplySent", "ses')), words(parse(first)))
        for more in (b'{"event": "ReplySent", "ses\n', b'{"ev\n' + first):
            with self.assertRaises(NotARecording) as caught:
                parse(first + more)
            self.assertIn("line 2", str(caught.exception))

    def test_numbers_without_measure(self) -> None:
        """Numbers that nothing has, and nesting, are no recording."""
        digits = b"9" * 5000
        event = b'{"event": "LineReceived", "session": %s, "line": "x"}\n'
        for data in (
            *(event % number for number in (b"1e999", b"NaN", digits, b"[" * 100_000)),
            b"[%s] C: STAT\n" % digits,
            b"S: +OK\nC: RETR 1\nS: +OK\nS: ... 9999999999999 more lines, 99999999999999 octets\nS: .\n",
            b"S: +OK\nC: RETR 1\nS: +OK\nS: ... 99 more lines, 9 octets\nS: .\n",
        ):
            with self.assertRaises(NotARecording):
                parse(data)
        # No more than a text of the message's.
        _, turn = parse(b"S: +OK\nC: RETR 1\nS: +OK\nS: ... %s more lines, 9 octets\nS: .\n" % digits)
        self.assertEqual(len(turn.reply), 3)

    def test_without_an_end(self) -> None:
        with mock.patch.object(recording, "_MOST", 1000), self.assertRaises(NotARecording):
            read(Path("/dev/zero"))

    def test_exchange(self) -> None:
        """Lines of a SASL exchange are no commands, whatever they look like."""
        turns = parse(
            b"S: +OK\nC: AUTH LOGIN\nS: + VXNlcg==\nC: LIST\nS: + UGFzcw==\nC: UIDL\nS: +OK\nC: STAT\n"
            b"S: +OK 0 0\n"
        )
        self.assertEqual([turn.is_response for turn in turns], [False, False, True, True, False])
        self.assertEqual([turn.keyword for turn in turns], ["", "AUTH", "", "", "STAT"])

    def test_json(self) -> None:
        """Events: pieces of a reply are put together, octets that are no UTF-8 stay what they are."""
        events = [
            {"event": "Connected", "session": 1},
            {"event": "ReplySent", "session": 1, "data": "+OK\r\n"},
            {"event": "LineReceived", "session": 1, "line": "RETR 1"},
            {"event": "ReplySent", "session": 1, "data": "+OK\r\nSub"},
            {"event": "ReplySent", "session": 1, "data": "ject: \udce4\r\n.\r\n", "handed_over": True},
            {"event": "LineReceived", "session": 1, "line": "STAT"},
            {"event": "ReplySent", "session": 1, "data": "+OK 0", "handed_over": False},
        ]
        turns = parse("\n".join(map(json.dumps, events)).encode())
        self.assertEqual(words(turns), [("", 1, False), ("RETR 1", 3, False), ("STAT", 0, True)])
        self.assertEqual(turns[1].reply[1], "Subject: \\xe4")

    def test_rawlog(self) -> None:
        """Two files, times before the lines; it begins behind the login, with or without its answer."""
        folder = Path(self.mktemp())
        folder.mkdir()
        assumed = [("", 1, False), ("USER ****", 1, False), ("PASS ****", 1, False)]
        (folder / "a.in").write_bytes(b"1571209735.123456 STAT\r\n1571209735.200000 UIDL\r\n")
        # What goes on in the next line is put together.
        rest = (
            b"1571209735.200001 O> +O\n1571209735.200001 O: K\r\n"
            b"1571209735.200002 O: 1 a\r\n1571209735.200003 O: .\r\n"
        )
        for told, login in (
            (b"1571209735.123460 +OK 1 9\r\n", "+OK"),
            (b"1571209735.000001 +OK Logged in.\r\n1571209735.123460 +OK 1 9\r\n", "+OK Logged in."),
        ):
            (folder / "a.out").write_bytes(told + rest)
            for name in ("a.in", "a.out"):
                turns = read(folder / name)
                self.assertEqual(words(turns), [*assumed, ("STAT", 1, False), ("UIDL", 3, False)])
                self.assertEqual([turn.assumed for turn in turns], [True] * 3 + [False] * 2)
                self.assertEqual(turns[2].reply, (login,))
                self.assertEqual(turns[4].reply, ("+OK", "1 a", "."))

    def test_rawlog_of_all(self) -> None:
        """One that was begun before the login has a greeting."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "a.out").write_bytes(b"1571209735.100000 +OK hi\r\n1571209735.200002 +OK\r\n"
            b"1571209735.200004 +OK\r\n")  # fmt: skip
        (folder / "a.in").write_bytes(b"1571209735.200000 USER ann\r\n1571209735.200003 QUIT\r\n")
        self.assertEqual(
            words(read(folder / "a.in")), [("", 1, False), ("USER ann", 1, False), ("QUIT", 1, False)]
        )

    def test_secrets(self) -> None:
        """What of a line is no secret."""
        for line, shown in (
            ("PASS a b", "PASS ****"), ("pass x", "pass ****"), ("USER ann", "USER ann"),
            ("USER ann x", "USER ann ****"), ("APOP ann 0123", "APOP ann ****"), ("AUTH", "AUTH"),
            ("AUTH plain YQ==", "AUTH PLAIN ****"), ("AUTH YQ==", "AUTH ****"), ("TOP 1 0", "TOP 1 0"),
            ("PASSW x", "PASSW ****"), ("STAT", "STAT"), ("", ""),
        ):  # fmt: skip
            self.assertEqual(without_secret(line), shown)
        for line, shown in (("YQ==", "****"), ("*", "*"), ("=", "="), ("LIST", "****")):
            self.assertEqual(without_secret(line, response=True), shown)

    def test_none(self) -> None:
        for data, about in (
            (b"", "no session"),
            (b"hello\n", "no session"),
            (b"S: +OK\n", "no session"),
            (b'{"event": 1}\n', "line 1"),
            (b'{"event": "LineReceived", "session": 1, "line": 5}\n', "line 1"),
            (b"{nonsense", "line 1"),
        ):
            with self.assertRaises(NotARecording) as caught:
                parse(data)
            self.assertIn(about, str(caught.exception))
        with self.assertRaises(NotARecording) as caught:
            parse(TRANSCRIPT.encode(), 7)
        self.assertIn("there are 1, 2", str(caught.exception))

    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Whatever is in a file, it is read or refused."""
        for head in (b"", b"C: STAT\nS: ", b"{", b"[1] C: AUTH\n[1] S: +"):
            try:
                parse(head + data)
            except NotARecording:
                pass


class CompareTests(SynchronousTestCase):
    """What of a reply counts."""

    def test_what_counts(self) -> None:
        # The command; what was recorded, what comes now; whether that is the same, and what makes it so.
        cases: tuple[tuple[str, str, str, bool, tuple[str, ...]], ...] = (
            ("", "+OK a <1@x>", "+OK b <2@x>", True, ()),
            ("STAT", "+OK 2 60", "+OK 2 60 octets", True, ()),
            ("STAT", "+OK 2 60", "+OK 2 61", False, ("sizes",)),
            ("STAT", "+OK 2 60", "+OK 3 60", False, ()),
            ("STAT", "+OK 2 60", "-ERR no", False, ()),
            ("DELE 1", "-ERR gone", "-ERR no such message", True, ()),
            ("PASS x", "-ERR [AUTH] no", "-ERR [auth] wrong", True, ()),
            ("PASS x", "-ERR [AUTH] no", "-ERR [IN-USE] no", False, ()),
            ("LIST", "+OK\n1 30\n.", "+OK 1 message\n1 30\n.", True, ()),
            ("LIST", "+OK\n1 30\n.", "+OK\n1 31\n.", False, ("sizes",)),
            ("LIST", "+OK\n1 30\n.", "+OK\n.", False, ()),
            ("LIST 1", "+OK 1 30", "+OK 1 31", False, ("sizes",)),
            ("UIDL", "+OK\n1 a\n.", "+OK\n1 b\n.", False, ("uids",)),
            ("UIDL 1", "+OK 1 a", "+OK 1 b", False, ("uids",)),
            ("CAPA", "+OK\nTOP\nUIDL\nIMPLEMENTATION a\n.", "+OK\nUIDL\nTOP\n.", True, ()),
            ("CAPA", "+OK\nTOP\n.", "+OK\n.", False, ("capabilities",)),
            ("CAPA", "+OK\nTOP\n.", "+OK\nTOP\nUIDL\n.", False, ("capabilities",)),
            ("RETR 1", "+OK 9 octets\nA: b\n\nx\n.", "+OK\nA: b\n\nx\n.", True, ()),
            ("RETR 1", "+OK\nDate: 1\n\nx\n.", "+OK\nDate: 2\n\nx\n.", False, ("dates",)),
            ("RETR 1", "+OK\nReceived: a\n\tb\nA: b\n\nx\n.", "+OK\nA: b\n\nx\n.", False, ("dates",)),
            ("RETR 1", "+OK\nA: b\n\nDate: 1\n.", "+OK\nA: b\n\nDate: 2\n.", False, ("messages",)),
            ("AUTH PLAIN", "+ ", "+", True, ()),
        )
        for command, recorded, now, same, ignore in cases:
            turn = Turn(command, tuple(recorded.split("\n")), False)
            found = compare(turn, now.split("\n"))
            self.assertEqual(found is None, same, (command, recorded, now))
            if ignore:
                self.assertIsNone(compare(turn, now.split("\n"), ignore=ignore), (command, now))
                self.assertIsNotNone(compare(turn, now.split("\n"), ignore=ignore, exact=True))
            self.assertIsNone(compare(turn, recorded.split("\n"), exact=True))

    def test_not_whole(self) -> None:
        """What a transcript has not, may be anything, but for its amount."""
        hidden = Turn("RETR 1", ("+OK", "A: b", Hidden(2, 8), "."), False)
        self.assertIsNone(compare(hidden, ["+OK", "A: b", "1", "2", "."]))
        self.assertIsNotNone(compare(hidden, ["+OK", "A: b", "1", "."]))
        cut = Turn("RETR 1", ("+OK", "A: b", "half a l"), True)
        self.assertIsNone(compare(cut, ["+OK", "A: b", "half a line", "."]))
        self.assertIsNotNone(compare(cut, ["+OK", "A: b", "whole line", "."]))
        long = Turn("STAT", ("-ERR " + "x" * 20 + " ... (9 more)",), False)
        self.assertIsNone(compare(long, ["-ERR " + "x" * 29], exact=True))
        self.assertIsNotNone(compare(long, ["-ERR " + "x" * 9], exact=True))
        self.assertIsNone(compare(Turn("STAT", (), True), ["+OK 0 0"]))
