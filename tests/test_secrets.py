"""What a client types reaches neither transcript nor log as a secret, an escape or a line of its own."""

from __future__ import annotations

import ast
import io
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.logger import formatEventAsClassicLogText as classic
from twisted.trial.unittest import SynchronousTestCase

import pop3toy
from pop3toy import POP3Factory
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.sasl.mechanisms import MECHANISMS
from pop3toy.events import Connected, ConnectionRejected, Ended, LoggedIn, LoginFailed, Observers, Refused
from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.masking import mechanism_alone, name_alone
from pop3toy.observe.session_log import SessionLog
from pop3toy.observe.transcript import MemoryTranscript
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.run.log.lines import FastLines, LinesInTurn
from pop3toy.smtp.factory import lmtp_factory, smtp_factory, submission_factory
from pop3toy.smtp.submission import SenderRealm
from pop3toy.stores.memory import MemoryStore

from .memory_world import StringClient

SECRET = b"hunter2"
ENCODED = b64encode(SECRET).rstrip(b"=")
LOCAL = IPv4Address("TCP", "127.0.0.1", 4711)

#: What can stand before a secret: everything that such a command has, so that what follows is too much.
POP3 = (
    b"USER ann", b"PASS", b"APOP ann", b"APOP", b"AUTH", b"AUTH PLAIN", b"AUTH plain", b"AUTH CRAM-MD5",
    b"AUTH NTLM", b"QUIT", b"CAPA", b"STLS", b"NOOP", b"RSET", b"STAT", b"LIST", b"LIST 1", b"UIDL",
    b"UIDL 1",
    b"RETR", b"RETR 1", b"DELE", b"DELE 1", b"TOP", b"TOP 1", b"TOP 1 0", b"XTND", b"LAST", b"UTF8", b"LANG",
    b"",
)  # fmt: skip
SMTP = (
    b"EHLO me", b"HELO me", b"LHLO me", b"EHLO [IPv6:::1]", b"AUTH", b"AUTH PLAIN", b"AUTH login",
    b"AUTH CRAM-MD5", b"AUTH NTLM", b"MAIL FROM:<ann@example.org>", b"MAIL FROM:<ann@example.org> SIZE=3",
    b"MAIL FROM:<ann@example.org> AUTH=", b"MAIL FROM:<>", b"MAIL", b"MAIL ann@example.org",
    b"RCPT TO:<ann@example.org>", b"RCPT", b"RCPT TO:<ann@example.org> NOTIFY=", b"DATA", b"RSET", b"NOOP",
    b"QUIT", b"HELP", b"VRFY ann", b"EXPN ann", b"STARTTLS", b"BDAT 1", b"ETRN", b"TURN", b"USER ann",
    b"PASS",
    b"",
)  # fmt: skip
#: A blank, and what people and broken programs put in its place.
BETWEEN = (
    b" ", b"  ", b"\t", b" \t", b"=", b" =", b":", b": ", b",", b", ", b";", b"|", b"\0", b"\x01",
    b"\xc2\xa0",
)  # fmt: skip
#: What came before.
BEFORE = ((), (b"EHLO me", b"LHLO me"), (b"USER ann",), (b"USER ann", b"PASS pass"), (b"AUTH PLAIN",))
#: Responses of several mechanisms, each with a name and something behind it.
RESPONSES = (
    b"%b", b"\0ann%b", b"ann%b\0ann\0x", b"\0ann\0%b", b"ann%b", b"n,,n=ann%b,r=x", b"n,a=ann,n=ann%b,r=x",
)  # fmt: skip


def misspelt(line: bytes, how: int) -> bytes:
    """The same line with one mistake in its verb."""
    verb, blank, rest = line.partition(b" ")
    at = how // 5 % len(verb) if verb else 0
    wrong = (
        verb,
        verb.swapcase(),
        verb[:at] + verb[at + 1 :],
        verb[:at] + verb[at : at + 1] + verb[at:],
        b" " + verb,
    )[how % 5]
    return wrong + blank + rest


def lines_of(beginnings: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Lines with a secret behind a command, rightly spelt or not."""

    def line(beginning: bytes, how: int, between: bytes, before: bytes, secret: bytes, after: bytes) -> bytes:
        return misspelt(beginning, how) + between + before + secret + after

    return st.builds(
        line,
        st.sampled_from(beginnings),
        st.integers(0, 99),
        st.sampled_from(BETWEEN),
        st.sampled_from([b"", b"", b"x ", b"= ", b"\xff", b"PLAIN "]),
        st.sampled_from([SECRET, ENCODED, ENCODED + b"==", SECRET.upper()]),
        st.sampled_from([b"", b"", b" ", b" x", b"\t", b"@example.org", b">", b" " + b"a" * 32]),
    )


def users(clock: Clock, realm: Any) -> PortalAuthenticator:
    """One user, ann, and the real mechanisms."""
    return PortalAuthenticator(Portal(realm, [MemoryAccounts({"ann": "pass"})]))


class Watched:
    """A server of one kind on a string, with a transcript for others' eyes and a log.

    :param kind: which one.
    """

    def __init__(self, kind: str, peer: Any = LOCAL) -> None:
        clock = Clock()
        self.tape = MemoryTranscript()
        store = MemoryStore({"ann": [b"Subject: x\n\nx\n"]})
        observers = Observers(self.tape, SessionLog(wall_clock=lambda: 0.0))
        factory: Any
        if kind == "pop3":
            authenticator = users(clock, MailboxRealm(store))
            factory = POP3Factory(clock, authenticator, observers=observers)
        else:
            make = {"smtp": smtp_factory, "submission": submission_factory, "lmtp": lmtp_factory}[kind]
            more = (users(clock, SenderRealm()),) if kind == "submission" else ()
            recipients = RecipientResolver(
                lambda name: "ann" if name == "ann" else None, domains=("example.org",)
            )
            factory = make(store, recipients, clock, *more, host="mx", observers=observers)
        with capturedLogs() as events:
            self.client = StringClient(factory, peer)
        self.events = list(events)
        #: What the server has answered.
        self.said = b""

    def say(self, *lines: bytes) -> str:
        """Send lines; everything that was written down so far."""
        with capturedLogs() as events:
            for line in lines:
                # What comes behind the end of a session must not be shown either.
                self.client.protocol.dataReceived(line + b"\r\n")
                self.said += self.client.read()
        self.events += events
        return "\n".join([*self.tape.lines, *map(str, map(formatEvent, self.events))])


KINDS = {"pop3": POP3, "smtp": SMTP, "submission": SMTP, "lmtp": SMTP}


class SecretTests(SynchronousTestCase):
    """A secret behind any command, of any protocol, however it is spelt."""

    def check(self, kind: str, line: bytes) -> None:
        for before in BEFORE:
            text = Watched(kind).say(*before, line, line).lower()
            for secret in (SECRET, ENCODED.lower()):
                self.assertNotIn(secret.decode(), text)

    @given(lines_of(POP3))
    @example(b"AUTH hunter2")
    @example(b"AUTH hunter2 x")
    @example(b"AUTH PLAINhunter2")
    def test_pop3(self, line: bytes) -> None:
        """Neither the transcript nor the log of a POP3 session shows it."""
        self.check("pop3", line)

    @given(lines_of(SMTP))
    @example(b"AUTH PLAIN\thunter2")
    @example(b"AUTH PLAIN=hunter2")
    def test_submission(self, line: bytes) -> None:
        """Neither does a submission port."""
        self.check("submission", line)

    @given(lines_of(SMTP), st.sampled_from(["smtp", "lmtp"]))
    def test_smtp_and_lmtp(self, line: bytes, kind: str) -> None:
        """Nor do ports that know no AUTH, where mail programs and people try it all the same."""
        self.check(kind, line)

    @given(
        st.sampled_from(["pop3", "submission"]),
        st.sampled_from(["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"]),
        st.sampled_from(BETWEEN),
        st.sampled_from(RESPONSES),
    )
    def test_within_an_exchange(self, kind: str, mechanism: str, between: bytes, form: bytes) -> None:
        """A response shows nothing, and a name that it claims is logged without what stands behind it."""
        response = b64encode(form % (between + SECRET))
        text = Watched(kind).say(b"EHLO me", b"AUTH " + mechanism.encode(), response, response)
        for secret in (SECRET.decode(), response.decode()):
            self.assertNotIn(secret, text)

    def test_challenges(self) -> None:
        """SCRAM's challenges, with which passwords can be tried out, are hidden."""
        for kind, shown in (("pop3", "S: + ****\n"), ("submission", "S: 334 ****\n")):
            server = Watched(kind)
            text = server.say(b"EHLO me", b"AUTH SCRAM-SHA-256", b64encode(b"n,,n=ann,r=abc"))
            challenge = server.said.splitlines()[-1].split(b" ", 1)[1]
            self.assertGreater(len(challenge), 20)
            self.assertNotIn(challenge.decode(), text)
            self.assertIn(shown, text + "\n")

    def test_what_is_shown(self) -> None:
        """Names, addresses, numbers and mechanisms stay readable."""
        for kind, shown in {
            "pop3": [b"USER ann", b"LIST 1", b"TOP 1 0", b"AUTH PLAIN", b"AUTH", b"CAPA"],
            "smtp": [
                b"EHLO me.example.org", b"HELO [192.0.2.7]", b"EHLO [IPv6:2001:db8::1]", b"VRFY ann", b"RSET",
                b"MAIL FROM:<ann@example.org> SIZE=100 BODY=8BITMIME SMTPUTF8", b"MAIL FROM:<>",
                b"RCPT TO:<a.b+c@example.org>", b'RCPT TO:<"a b"@example.org>',
                "RCPT TO:<jürgen@example.org>".encode(),
            ],
            "submission": [b"AUTH SCRAM-SHA-256"],
        }.items():  # fmt: skip
            for line in shown:
                self.assertIn(f" C: {line.decode()}\n", Watched(kind).say(line) + "\n")

    def test_what_is_left_of_others(self) -> None:
        """Of other lines the verb and what is known of its syntax are shown."""
        for kind, line, shown in (
            ("submission", b"AUTH plain\thunter2", "AUTH PLAIN ****"),
            ("submission", b"AUTH hunter2", "AUTH ****"),
            ("smtp", b"EHLO me:hunter2", "EHLO me ****"),
            ("smtp", b"MAIL FROM:<ann@x> SIZE=3 AUTH=hunter2", "MAIL FROM:<ann@x> SIZE=3 ****"),
            ("smtp", b"mail from: hunter2 hunter2", "MAIL from: hunter2 ****"),
            ("smtp", b"MAIL FROM:<ann> <hunter2>", "MAIL FROM:<ann> ****"),
            ("smtp", b"MAIL hunter2", "MAIL ****"),
            ("smtp", b"NOOP hunter2", "NOOP ****"),
            ("pop3", b"AUTH hunter2", "AUTH ****"),
        ):
            self.assertIn(f" C: {shown}\n", Watched(kind).say(line) + "\n")

    def test_mechanisms_are_known(self) -> None:
        """Every mechanism of this server is shown by its name, and nothing longer is."""
        for name in MECHANISMS:
            self.assertEqual(mechanism_alone(name.lower().encode()), name.encode())
            self.assertEqual(mechanism_alone(name.encode() + b"hunter2"), b"****")
            self.assertEqual(mechanism_alone(name.encode() + b"=hunter2"), name.encode() + b" ****")

    def test_names(self) -> None:
        """Names as users have them are whole."""
        for name in ("ann", "ann@example.org", "ann+x", "DOMAIN\\ann", "a/b", "jürgen", "o'neil", "a_b-c.d"):
            self.assertEqual(name_alone(name.encode()), name.encode())


#: A terminal's escapes, lines and fields of one's own, in as many alphabets as there are.
CANARY = "x\x1b[31m\r\n2026-01-01 login: rip=192.0.2.1\x9b\u2028\u202e\x85\x00\x7f"


def log_calls() -> Iterator[tuple[str, str, LogLevel]]:
    """Each call of a logger in the package: where it is, its format, its level."""
    root = Path(pop3toy.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) in ("log", "self.log", "self._log")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                level = LogLevel.lookupByName({"failure": "critical"}.get(node.func.attr, node.func.attr))
                yield f"{path.name}:{node.lineno}", node.args[0].value, level


class _Anything(dict[str, Any]):
    """An event in which every field that a format names is the canary."""

    def __missing__(self, key: str) -> str:
        return CANARY


class LogTests(SynchronousTestCase):
    """No field of the log writes a line of its own or steers a terminal."""

    def check(self, written: str) -> None:
        self.assertTrue(written.replace("\n", "").replace("\t", "").isprintable(), repr(written))
        self.assertEqual(written[-1], "\n")
        for line in written[:-1].split("\n")[1:]:
            self.assertEqual(line[:1], "\t", repr(written))

    def test_every_line(self) -> None:
        """Whatever a field of any log line of ours holds, the log has no escape and no forged line."""
        seen = 0
        for where, form, level in log_calls():
            out = io.StringIO()
            observer = LinesInTurn(out, FastLines(classic), None)
            event = _Anything(log_format=form, log_namespace=where, log_level=level, log_time=1.5)
            if form == "{text}":
                event["text"] = CANARY
            observer(event)
            self.check(out.getvalue())
            seen += 1
        self.assertGreater(seen, 40)

    def test_session_log(self) -> None:
        """A session's lines are one line each in whatever log, and have their own fields alone."""
        channel = Channel(CANARY, False, TLSFacts("TLSv1.3", CANARY))
        log = SessionLog(wall_clock=lambda: 1.5)
        for event in (
            ConnectionRejected(1, 0.0, "POP3", channel, CANARY),
            LoginFailed(1, 0.0, "POP3", channel, CANARY, CANARY, CANARY),
            LoggedIn(1, 0.0, "POP3", channel, CANARY, CANARY),
            Ended(1, 0.0, "POP3", channel, CANARY, CANARY, "quit", 0.0, 0, 0, 0, 0),
            Refused(1, 0.0, "SMTP", channel, "", CANARY, CANARY, 550, "5.1.1", CANARY),
        ):
            with capturedLogs() as events:
                log.observe(event)
            [line] = [str(formatEvent(event)) for event in events]
            self.assertTrue(line.isprintable(), repr(line))
            self.assertRegex(line, r" rip=x\\x1b\S*\\x7f (user|reason|protocol)=")

    def test_transcript(self) -> None:
        """An address and a reason are escaped in the transcript, too."""
        channel = Channel(CANARY, False)
        tape = MemoryTranscript()
        for event in (
            Connected(1, 0.0, "POP3", channel, CANARY),
            ConnectionRejected(1, 0.0, "POP3", channel, CANARY),
            Ended(1, 0.0, "POP3", channel, None, None, CANARY, 0.0, 0, 0, 0, 0),
        ):
            tape.observe(event)
        self.assertEqual(len(tape.lines), 3)
        self.assertEqual([line for line in tape.lines if not line.isprintable()], [])

    @given(st.sampled_from(sorted(KINDS)), st.text(st.sampled_from(CANARY + "ab=<>@: "), max_size=30))
    def test_conversations(self, kind: str, text: str) -> None:
        """Whatever a client calls itself, its user, sender and recipient, each event is a printable line."""
        chosen = text.encode()
        peer = IPv6Address("TCP", "fe80::1%x\x1b[31m\nforged", 4711)
        server = Watched(kind, peer)
        encoded = b64encode(b"\0%b\0x" % chosen.replace(b"\0", b""))
        server.say(
            b"EHLO " + chosen, b"LHLO " + chosen, b"USER " + chosen, b"PASS " + chosen,
            b"AUTH PLAIN " + encoded, b"MAIL FROM:<" + chosen + b"> SMTPUTF8", b"RCPT TO:<" + chosen + b">",
            b"RCPT TO:<ann@example.org>", b"DATA", b"x", b".",
        )  # fmt: skip
        for event in server.events:
            line = str(formatEvent(event))
            self.assertTrue(line.isprintable(), repr(line))
        for line in server.tape.lines:
            self.assertTrue(line.replace("\t", "").isprintable(), repr(line))
