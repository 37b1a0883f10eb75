"""Syntax: a line becomes a command or says why it is none (RFC 1939 section 3, RFC 2449 section 4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.pop3.commands import KEYWORDS, TOO_LONG, Command, Malformed, _parsed_before, parse

DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"


class ParseTests(SynchronousTestCase):
    """One line, one value."""

    def assertMalformed(self, line: bytes, keyword: str | None, saying: str = "") -> None:
        """The line is no command, belongs to this keyword, and the reason has these words."""
        parsed = parse(line)
        self.assertIsInstance(parsed, Malformed, line)
        assert isinstance(parsed, Malformed)
        self.assertEqual(parsed.keyword, keyword, line)
        self.assertIn(saying, parsed.reason)

    def test_keeps_no_words(self) -> None:
        """A line with words, which may be a password typed too early, is not kept for the next time."""
        before = _parsed_before.cache_info().misses
        for line in (b"LISTen-my-Pa55word", b"STAT secret", b"QUIT x", b"PASS 1", b"TOP 1 2x", b"USER ann"):
            parse(line)
        self.assertEqual(_parsed_before.cache_info().misses, before)
        parse(b"RETR 4711")
        self.assertEqual(_parsed_before.cache_info().misses, before + 1)

    def test_well_formed(self) -> None:
        """Keywords in any case, arguments in their types."""
        for line, command in {
            b"STAT": Command("STAT"),
            b"stat": Command("STAT"),
            b"StAt": Command("STAT"),
            b"LIST": Command("LIST"),
            b"LIST 1": Command("LIST", (1,)),
            b"list 007": Command("LIST", (7,)),
            b"UIDL 2": Command("UIDL", (2,)),
            b"RETR 0": Command("RETR", (0,)),
            b"DELE 999999999999": Command("DELE", (999_999_999_999,)),
            b"TOP 1 0": Command("TOP", (1, 0)),
            b"TOP 1 99999999": Command("TOP", (1, 99_999_999)),
            b"USER mrose": Command("USER", (b"mrose",)),
            b"USER frated a loggin": Command("USER", (b"frated a loggin",)),
            b"user J\xc3\xbcrgen": Command("USER", (b"J\xc3\xbcrgen",)),
            b"APOP mrose " + DIGEST: Command("APOP", (b"mrose", DIGEST)),
            b"APOP mrose " + DIGEST.upper(): Command("APOP", (b"mrose", DIGEST)),
            b"APOP m rose " + DIGEST: Command("APOP", (b"m rose", DIGEST)),
            b"AUTH": Command("AUTH"),
            b"AUTH plain": Command("AUTH", (b"PLAIN",)),
            b"AUTH PLAIN =": Command("AUTH", (b"PLAIN", b"=")),
            b"AUTH SCRAM-SHA-256 biws": Command("AUTH", (b"SCRAM-SHA-256", b"biws")),
            b"CAPA": Command("CAPA"),
            b"STLS": Command("STLS"),
            b"QUIT": Command("QUIT"),
        }.items():
            self.assertEqual(parse(line), command, line)

    def test_password_is_the_whole_rest(self) -> None:
        """PASS takes everything behind one space: more spaces, at either end too, are the password's."""
        for password in (
            b"pass",
            b"two words",
            b" leading",
            b"trailing ",
            b"  ",
            b"\xe4\xff",
            b"a  b",
            b"a\tb",
            b"\t",
            b"a\t",
        ):
            self.assertEqual(parse(b"PASS " + password), Command("PASS", (password,)))

    def test_trailing_blanks(self) -> None:
        """Blanks at the end are forgiven everywhere but in a password."""
        for line in (
            b"STAT",
            b"LIST 1",
            b"TOP 1 2",
            b"USER ann",
            b"AUTH PLAIN",
            b"QUIT",
            b"APOP ann " + DIGEST,
        ):
            self.assertEqual(parse(line + b"  "), parse(line), line)
        self.assertEqual(parse(b"AUTH "), Command("AUTH"), "Outlook")
        self.assertEqual(parse(b"LIST "), Command("LIST"))

    def test_no_argument_wanted(self) -> None:
        """A command without arguments refuses them, and says so."""
        for keyword in ("STAT", "NOOP", "RSET", "QUIT", "CAPA", "STLS"):
            self.assertMalformed(keyword.encode() + b" x", keyword, "no argument")

    def test_not_a_number(self) -> None:
        """A message number is decimal digits and nothing else."""
        for argument in (b"foo", b"-1", b"+1", b"1x", b"0x1", b"1.0", b"1,2", b"\xb2", b"1_0", b" 1", b"1e3"):
            for keyword in ("LIST", "UIDL", "RETR", "DELE"):
                self.assertMalformed(keyword.encode() + b" " + argument, keyword, "message number")
        self.assertMalformed(b"TOP 1 -1", "TOP")
        self.assertMalformed(b"TOP 1 x", "TOP")
        self.assertMalformed(b"RETR \xd9\xa1", "RETR")  # Not the digit one of another script either.

    def test_long_numbers(self) -> None:
        """As many digits as a line can hold are a number, large or with zeros before it."""
        for digits in (b"9" * 13, b"0" * 20 + b"1", b"18446744073709551616", b"7" * 240):
            self.assertEqual(parse(b"RETR " + digits), Command("RETR", (int(digits),)))
            self.assertEqual(parse(b"TOP 1 " + digits), Command("TOP", (1, int(digits))))

    def test_wrong_number_of_arguments(self) -> None:
        """Too few and too many arguments are refused with a sentence that tells how many."""
        for line, keyword in {
            b"RETR": "RETR",
            b"RETR ": "RETR",
            b"RETR 1 2": "RETR",
            b"DELE": "DELE",
            b"DELE 1 2": "DELE",
            b"LIST 1 2": "LIST",
            b"UIDL 1 2": "UIDL",
            b"TOP": "TOP",
            b"TOP 1": "TOP",
            b"TOP 1 2 3": "TOP",
            b"TOP 1  2": "TOP",
            b"USER": "USER",
            b"USER ": "USER",
            b"PASS": "PASS",
            b"PASS ": "PASS",
            b"APOP": "APOP",
            b"APOP ann": "APOP",
            b"APOP " + DIGEST: "APOP",
            b"APOP  " + DIGEST: "APOP",
            b"AUTH PLAIN a b": "AUTH",
        }.items():
            self.assertMalformed(line, keyword, keyword)

    def test_digest(self) -> None:
        """APOP takes 32 hexadecimal digits."""
        for digest in (b"0" * 31, b"0" * 33, b"g" * 32, b"0x" + b"0" * 30):
            self.assertMalformed(b"APOP ann " + digest, "APOP", "digest")

    def test_mechanism(self) -> None:
        """A mechanism's name is up to 20 letters, digits, hyphens, underscores (RFC 4422 section 3.1)."""
        for name in (b"x" * 21, b"PLA=IN", b"\xe4", b"a/b"):
            self.assertMalformed(b"AUTH " + name, "AUTH", "mechanism")

    def test_control_characters(self) -> None:
        """A control character makes the line void, wherever it stands; but a password may have tabs."""
        for octet in [*range(0x20), 0x7F]:
            for line in (b"STAT%c", b"ST%cAT", b"%cSTAT", b"USER a%cb", b"PASS a%cb", b"USER ann%c"):
                if line % octet != b"PASS a\tb":
                    self.assertMalformed(line % octet, None, "control characters")

    def test_unknown(self) -> None:
        """What is no command of this server is unknown: LAST and XTND too."""
        for line in (
            b"LAST",
            b"XTND XLST",
            b"UTF8",
            b"LANG *",
            b"HELO x",
            b"GET / HTTP/1.1",
            b"STATT",
            b"\xff",
        ):
            self.assertMalformed(line, None, "unknown")

    def test_empty(self) -> None:
        """An empty line, or one that begins with a space, is no command."""
        for line in (b"", b" "):
            self.assertMalformed(line, None, "empty")
        self.assertMalformed(b" STAT", None, "begin with a blank")

    def test_tabs_do_not_separate(self) -> None:
        """Only a space separates, also before a password, which alone can hold a tab."""
        for line in (b"RETR\t1", b"PASS\tsecret", b"USER a\tb", b"APOP a\tb " + DIGEST, b"AUTH PLAIN\tA"):
            self.assertMalformed(line, None, "control characters")

    def test_length(self) -> None:
        """255 octets with CRLF are the most, for AUTH the 12,288 of a SASL line."""
        longest = limits.COMMAND_LINE - 2
        self.assertIsInstance(parse(b"USER ".ljust(longest, b"n")), Command)
        self.assertEqual(parse(b"USER ".ljust(longest + 1, b"n")), TOO_LONG._replace(keyword="USER"))
        self.assertEqual(parse(b"PASS ".ljust(longest + 1, b"n")), TOO_LONG._replace(keyword="PASS"))
        self.assertEqual(parse(b"x" * (longest + 1)), TOO_LONG)
        self.assertIsInstance(parse(b"AUTH PLAIN ".ljust(limits.SASL_LINE - 2, b"A")), Command)

    @given(st.binary(max_size=300))
    def test_never_raises(self, line: bytes) -> None:
        """Any octets at all are a value, and a reason has nothing of the client's in it but its keyword."""
        parsed = parse(line)
        if isinstance(parsed, Command):
            self.assertIn(parsed.keyword, KEYWORDS)
        else:
            self.assertTrue(parsed.reason.isascii() and parsed.reason.isprintable())
            self.assertTrue(parsed.keyword is None or parsed.keyword in KEYWORDS)

    @given(st.sampled_from(sorted(KEYWORDS)), st.binary(max_size=60))
    def test_never_raises_behind_a_keyword(self, keyword: str, rest: bytes) -> None:
        """The same behind each keyword."""
        self.assertIsInstance(parse(keyword.lower().encode() + b" " + rest), Command | Malformed)
