"""Conversations with explanations: what is said, where it stands, that no secret is in it, and colours."""

from __future__ import annotations

import base64
import io
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import Maildirs, Settings, events
from pop3toy.errors import BadSetting
from pop3toy.events import (
    KINDS,
    Connected,
    ConnectionRejected,
    Ended,
    InputDiscarded,
    LineReceived,
    Noted,
    Observers,
    ReplySent,
    TLSFailed,
    TLSStarted,
)
from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.languages import LANGUAGES, language_accepted, language_of_the_locale
from pop3toy.observe.colours import painting, plain
from pop3toy.observe.explain.explainer import Explainer
from pop3toy.observe.explained import ExplainedTranscript
from pop3toy.observe.line_writer import LineWriter
from pop3toy.observe.transcript import MemoryTranscript
from pop3toy.replay.recording import parse
from pop3toy.smtp.factory import smtp_factory
from pop3toy.testing.in_memory import MemoryServer

from ..realserver import (
    DEADLINE,
    RealServer,
    environment,
    listening,
    maildir_options,
    text_of,
    twistd,
    wait_until,
)
from ..smtp.test_smtp import ENVELOPE
from ..smtp_world import Client, world
from ..strictclient import StrictClient, logged_in
from .test_json_lines import _ANY

#: Of an explained transcript, a line that explains.
EXPLAINED = re.compile(r"\[\d+\]    ([|!?]) (.*)")


def transcript_to(out: io.StringIO, language: str = "en", **words: Any) -> ExplainedTranscript:
    """One that writes to a string at once."""
    return ExplainedTranscript(LineWriter(lambda: out, started=False), Explainer(language), **words)


class ExplainedCase(SynchronousTestCase):
    """A server in memory, and what is explained of it."""

    language = "en"
    mailboxes: Any = {"user": [b"Subject: one\r\n\r\n.dot\r\nend\r\n", b"Subject: two\r\n\r\nx\r\n"]}

    def setUp(self) -> None:
        self.out = io.StringIO()
        self.plain = MemoryTranscript()
        observers = [transcript_to(self.out, self.language), self.plain]
        self.server = MemoryServer(self.mailboxes, observers=observers)
        # As with --show-secrets.
        self.server.factory.observers.secrets = True
        self.addCleanup(self.server.stop)

    def lines(self) -> list[str]:
        """All that was written."""
        return self.out.getvalue().splitlines()

    def behind(self, said: str) -> list[str]:
        """The explanations behind the last line that ends in this."""
        lines = self.lines()
        at = max(place for place, line in enumerate(lines) if line.endswith(said))
        found = []
        for line in lines[at + 1 :]:
            match = EXPLAINED.fullmatch(line)
            if match is None:
                break
            found.append(match[2])
        return found

    def assertSaid(self, words: str, said: Iterable[str]) -> None:
        """One of them has these words."""
        said = list(said)
        self.assertTrue(any(words in one for one in said), f"{words!r} is not in {said}")


class ConversationTests(ExplainedCase):
    """Facts of conversations with POP3."""

    def test_nothing_else_changes(self) -> None:
        """Without the explanations it is any transcript, and is replayed as one."""
        client = self.server.connect()
        client.say("CAPA")
        client.say("USER user", "PASS pass", "RETR 1", "C: RETR 1", "DELE 1", "QUIT")
        rest = [line for line in self.lines() if not EXPLAINED.fullmatch(line)]
        self.assertEqual(rest, list(self.plain.lines))
        self.assertGreater(len(self.lines()), 2 * len(rest))
        self.assertEqual(parse(self.out.getvalue().encode()), parse("\n".join(self.plain.lines).encode()))

    def test_capabilities(self) -> None:
        """Each capability is explained at its line, and each mechanism."""
        client = self.server.connect()
        names = [line.split(" ")[0] for line in client.say("CAPA")[1:-1]]
        lines = self.lines()
        for name in names:
            at = next(
                place for place, line in enumerate(lines) if re.fullmatch(rf"\[1\] S: {name}( .*)?", line)
            )
            self.assertRegex(lines[at + 1], EXPLAINED, name)
        self.assertSaid("SCRAM-SHA-256: ", lines)

    def test_measure(self) -> None:
        """Time since the line before, octets and state stand behind each line."""
        client = self.server.connect()
        self.server.clock.advance(1.5)
        client.say("USER user")
        self.assertIn(
            "1.500 s after the line before, 11 octets, in state AUTHORIZATION", self.behind("C: USER user")
        )

    def test_states(self) -> None:
        client = self.server.connect()
        client.say("USER user", "PASS pass", "QUIT")
        states = re.findall(r"State (\w+):", self.out.getvalue())
        self.assertEqual(states, ["AUTHORIZATION", "TRANSACTION", "UPDATE"])

    def test_clear_text(self) -> None:
        """A password in clear text is said to be readable on a network."""
        self.server.connect().say("USER user", "PASS pass")
        self.assertSaid("In clear text", self.behind("C: PASS pass"))

    def test_dot_at_its_line(self) -> None:
        """A dot that was stuffed is told of where it happened, and there alone."""
        client = self.server.connect()
        client.say("USER user", "PASS pass", "RETR 1")
        self.assertSaid("another is put before it", self.behind("S: ..dot"))
        self.assertEqual(self.out.getvalue().count("another is put before it"), 1)
        self.assertSaid("In 1 line a dot", self.behind("S: ."))

    def test_sizes(self) -> None:
        """What LIST has announced is compared with what was sent."""
        client = self.server.connect()
        [size] = [
            line.split()[1]
            for line in client.say("USER user", "PASS pass", "LIST 1", "LIST")
            if line[:2] == "1 "
        ]
        client.say("RETR 1")
        self.assertSaid(f"{size} octets, as LIST has announced", self.behind("S: ."))

    def test_numbers_that_did_not_move(self) -> None:
        client = self.server.connect()
        client.say("USER user", "PASS pass", "DELE 1", "LIST")
        self.assertSaid("Missing because it is marked: 1.", self.behind("S: ."))
        client.say("RETR 1")
        self.assertSaid("Message 1 is marked", self.lines()[-2:])
        client.say("RETR 7")
        self.assertSaid("There is no message 7", self.lines()[-2:])
        client.say("RSET")
        self.assertSaid("1 mark was taken back", self.lines()[-2:])

    def test_one_packet(self) -> None:
        """Commands that came with the one before did not wait; those that came alone did."""
        client = self.server.connect()
        client.say("USER user", "PASS pass")
        client.say("STAT")
        waited = "It came without waiting"
        self.assertFalse(any(waited in one for one in self.behind("C: USER user")))
        self.assertSaid(waited, self.behind("C: PASS pass"))
        self.assertFalse(any(waited in one for one in self.behind("C: STAT")))

    def test_quit_and_dropped(self) -> None:
        """QUIT removes what was marked; a connection that is lost removes nothing."""
        client = self.server.connect()
        client.say("USER user", "PASS pass", "DELE 1")
        client.drop()
        self.server.pump()
        self.assertSaid(
            "without QUIT: the message that was marked is not removed", self.behind("(dropped by the client)")
        )
        self.server.connect().say("USER user", "PASS pass", "DELE 1", "DELE 2", "QUIT")
        self.assertSaid("2 messages were removed for good", self.behind("S: +OK bye, 2 messages removed"))
        self.assertSaid("0 messages fetched, 2 removed", self.behind("closed (quit)"))

    def test_lock_and_wrong_password(self) -> None:
        first = self.server.connect()
        first.say("USER user", "PASS pass")
        second = self.server.connect()
        second.say("USER user", "PASS wrong")
        self.server.clock.advance(30)
        self.assertSaid("Name or password are wrong", self.lines())
        self.assertSaid("Nobody is let in: user, by USER.", self.lines())
        second.say("USER user", "PASS pass")
        self.server.clock.advance(30)
        self.assertSaid("Another session has the maildrop open", self.lines())

    def test_timeout(self) -> None:
        self.server.connect()
        self.server.clock.advance(1000)
        self.assertSaid("silent for too long", self.lines())

    def test_apop(self) -> None:
        """The digest is shown with what it was made of; here a wrong one."""
        client = self.server.connect()
        timestamp = re.search(r"<.*>", client.greeting)
        assert timestamp is not None
        client.say("APOP user " + "0" * 32)
        self.assertSaid(f"The digest {'0' * 32} is MD5 of {timestamp[0]} with", self.lines())

    def test_plain(self) -> None:
        """The toy shows what base64 holds."""
        self.server.connect().say("AUTH PLAIN " + base64.b64encode(b"\0user\0pass").decode())
        self.assertSaid("Decoded: name user, password pass.", self.lines())

    def test_cram(self) -> None:
        """The challenge is decoded, and what is no base64 is told."""
        client = self.server.connect()
        client.say("AUTH CRAM-MD5")
        self.assertSaid("the challenge, which is another one", self.lines()[-1:])
        client.say("not base64!")
        self.assertSaid("This is not base64", self.behind("C: not base64!"))

    def test_scram(self) -> None:
        """Each step of SCRAM is decoded, and says what it is for."""
        client, proof = self.server.connect(), ScramClient(["SCRAM-SHA-256"], "user", "pass")
        client.say("AUTH SCRAM-SHA-256 " + base64.b64encode(proof.get_client_first().encode()).decode())
        self.assertSaid("The client's first message, decoded n,,n=user,r=", self.lines()[-4:])
        self.assertRegex(self.lines()[-1], r"The server's first message, decoded r=.*rounds \(i = \d+\)")
        challenge = re.findall(r"S: \+ (\S+)", self.out.getvalue())[-1]
        proof.set_server_first(base64.b64decode(challenge).decode())
        client.say(base64.b64encode(proof.get_client_final().encode()).decode())
        self.assertSaid("The client's final message, decoded c=", self.lines()[-4:])
        self.assertSaid("The server's final message, decoded v=", self.lines()[-1:])
        client.say("")
        self.assertSaid("the server's proof was right", self.lines())
        self.assertSaid("The maildrop is open and locked", self.lines()[-1:])

    def test_given_up(self) -> None:
        """A star ends an exchange; the refusal is not taken for that of an unknown command."""
        client = self.server.connect()
        client.say("AUTH LOGIN")
        self.assertSaid("Decoded: Username:; the server asks", self.lines()[-1:])
        client.say("*")
        self.assertSaid("A star gives the exchange up.", self.lines())
        self.assertFalse(any("no command of POP3" in line for line in self.lines()))

    def test_mechanisms(self) -> None:
        """AUTH alone lists the mechanisms; each is explained."""
        self.server.connect().say("AUTH")
        self.assertSaid("name and password in one line of base64", self.behind("S: PLAIN"))

    def test_no_line_end(self) -> None:
        """Lines that end in CR alone are none, which is told when the client gives up."""
        client = self.server.connect()
        client.send(b"USER user\rPASS pass\r")
        client.drop()
        self.server.pump()
        self.assertSaid("The last 20 octets had no line end", self.behind("(dropped by the client)"))
        client = self.server.connect()
        client.say("USER user", "PASS pass")
        client.drop()
        self.server.pump()
        self.assertEqual(self.out.getvalue().count("had no line end"), 1)

    def test_line_feed_alone(self) -> None:
        """One that ends in LF alone is taken, and told of once."""
        client = self.server.connect()
        client.send(b"USER user\nPASS pass\n")
        self.assertSaid("ended with LF alone", self.behind("C: USER user"))
        self.assertEqual(self.out.getvalue().count("ended with LF alone"), 1)

    def test_wrong_track(self) -> None:
        """Who speaks something else is told what it is."""
        for line, words in (
            ("GET / HTTP/1.1", "This is HTTP"),
            ("EHLO me", "This is SMTP"),
            ("a1 LOGIN user pass", "This is IMAP"),
            ("\ufeffUSER user", "byte order mark"),
            ("USER: user", "no colon"),
            ("USEX\x08R user", "backspace"),
            ("USER user\\r\\n", "backslash"),
            (b"\x16\x03\x01\x02\x00\x01", "beginning of TLS"),
            (b"\xff\xfd\x03\xff\xfb\x18", "telnet's"),
            ("QUIT\rNOOP", "a CR alone"),
        ):
            with self.subTest(line=line):
                self.server.connect().say(line)
                hints = [
                    match[2]
                    for one in self.lines()
                    if (match := EXPLAINED.fullmatch(one)) and match[1] == "?"
                ]
                self.assertSaid(words, hints[-1:])

    def test_summary(self) -> None:
        """In the end there is a summary with a guess, and by what sign."""
        client = self.server.connect()
        for line in ("USER user", "PASS pass", "STAT", "QUIT"):
            self.server.clock.advance(2)
            client.say(line)
        self.assertSaid(
            "The client seems to be a person: seconds passed between the lines.", self.lines()[-1:]
        )
        self.assertSaid("8.000 s, of which the server needed 0.000 s; ", self.lines()[-2:])


class ItalianTests(ExplainedCase):
    """The same in Italian."""

    language = "it"

    def test_words(self) -> None:
        self.server.connect().say("USER user", "PASS pass", "DELE 1", "DELE 2", "QUIT")
        self.assertSaid("2 messaggi sono stati eliminati definitivamente", self.lines())
        self.assertSaid("Stato TRANSACTION: il client può", self.lines())


class OtherProtocolTests(SynchronousTestCase):
    """SMTP, and what of it the toy shows."""

    def conversation(self, *, secrets: bool) -> str:
        """One with a message."""
        out = io.StringIO()
        factory, _, _ = world(smtp_factory, observers=Observers(transcript_to(out), secrets=secrets))
        client = Client(factory)
        client.say(*ENVELOPE, "DATA")
        client.say("From: Secret <hidden@example.com>", "To: all", "", "..inner", ".")
        client.say("RCPT TO:<ann@example.org>")
        client.say("QUIT")
        client.leave()
        return out.getvalue()

    def test_envelope_and_header(self) -> None:
        said = self.conversation(secrets=True)
        self.assertIn("Envelope: from eve@elsewhere.example to ann@example.org. Header: From Secret", said)
        self.assertRegex(said, r"C: \.\.inner\n\[\d+\]    \| The client has put a dot")
        self.assertIn("Return-Path, the envelope's sender", said)
        self.assertIn("Not in this order", said)
        self.assertRegex(said, r"MAIL FROM.*\n.*\n.*\n.* It came without waiting .*RFC 2920")

    def test_real_mail(self) -> None:
        """Of real mail nothing of the message is explained."""
        said = self.conversation(secrets=False)
        self.assertIn("answers for the message", said)
        for secret in ("Secret", "hidden", "inner"):
            self.assertNotIn(secret, said)


class SecretTests(SynchronousTestCase):
    """Real mail: what stands for a secret is explained, the secret never."""

    def test_no_secret(self) -> None:
        out = io.StringIO()
        server = MemoryServer({"ann": []}, {"ann": "hunter2"}, observers=[transcript_to(out)])
        self.addCleanup(server.stop)
        encoded = base64.b64encode(b"\0ann\0hunter2").decode()
        cram = base64.b64encode(b"ann " + b"5" * 32).decode()
        for lines in (
            ("USER ann", "PASS hunter2"),
            (f"AUTH PLAIN {encoded}",),
            ("AUTH PLAIN", encoded),
            ("AUTH LOGIN", base64.b64encode(b"ann").decode(), base64.b64encode(b"hunter2").decode()),
            ("AUTH CRAM-MD5", cram),
            ("APOP ann " + "5" * 32,),
            ("hunter2",),
            ("USER ann hunter2",),
        ):
            client = server.connect()
            for line in lines:
                client.say(line)
            client.drop()
            server.pump()
        said = out.getvalue()
        self.assertIn("Base64, not shown here", said)
        for secret in ("hunter2", encoded, cram, "5" * 32, base64.b64encode(b"hunter2").decode()):
            self.assertNotIn(secret, said)


_COMMANDS = ["AUTH", "APOP", "CAPA", "LIST", "RETR", "DELE", "STLS", "QUIT", "EHLO", "MAIL"]
_LINES = [
    b"****", b"AUTH PLAIN ****", b"AUTH", b"AUTH SCRAM-SHA-1 =", b"RETR \xc2\xb2", b"DELE " + b"9" * 5000,
    b"*", b"\xff\xfd",
]  # fmt: skip
_REPLIES = [
    b"+OK <a@b>\r\n", b"+OK\r\n1 2\r\n.\r\n", b"-ERR [AUTH] no\r\n", b"+ \r\n", b"+OK 1 2\r\n",
    b"334 cj1h\r\n", b"..x\r\n.\r\n", b"From: =?x?q?=FF?=\r\n\r\n.\r\n", b"550 5.7.1 no\r\n",
]  # fmt: skip


def _event(kind: Any) -> st.SearchStrategy[Any]:
    hints = dict(get_type_hints(kind, vars(events)))
    near: dict[str, st.SearchStrategy[Any]] = {
        "session": st.integers(1, 2),
        "protocol": st.sampled_from(["POP3", "SMTP", "submission", "LMTP"]),
        "command": st.sampled_from(["", *_COMMANDS]),
        "line": st.binary() | st.sampled_from(_LINES),
        "data": st.binary() | st.sampled_from(_REPLIES),
    }
    return st.builds(kind, *(near.get(name, _ANY[hint]) for name, hint in hints.items()))


class RobustnessTests(SynchronousTestCase):
    """Whatever events come, in whatever order, explanations are made, and are lines."""

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.one_of(*map(_event, KINDS)), max_size=30), st.sampled_from(LANGUAGES))
    def test_any_events(self, happened: list[Any], language: str) -> None:
        explainer = Explainer(language)
        out = io.StringIO()
        transcript = transcript_to(out, language)
        for event in happened:
            for one in explainer.explain(event):
                self.assertIn(one.kind, ("note", "state", "hint", "warning", "summary", "measure"))
                self.assertTrue(one.text)
                self.assertRegex(one.clause, r"^(RFC \d+( section [0-9A-Z.]+)?)?$")
            transcript.observe(event)
        self.assertNotIn("\x1b", out.getvalue())

    def test_forgotten(self) -> None:
        """The oldest sessions are forgotten, and nothing is said of them any more."""
        explainer = Explainer("en")
        channel = Channel("192.0.2.1", local=False)
        for number in range(10_001):
            explainer.explain(Connected(number, 0.0, "POP3", channel, "192.0.2.1:1"))
        line = LineReceived(0, 0.0, b"STAT", 6, "STAT", "AUTHORIZATION")
        self.assertEqual(list(explainer.explain(line)), [])
        self.assertTrue(explainer.explain(line._replace(session=1)))

    def test_overheard_on_a_network(self) -> None:
        """A password from a network without TLS is a warning; within TLS it is none."""
        for tls, kinds in ((None, {"warning"}), (TLSFacts("TLSv1.3", "AES", None), set())):
            explainer = Explainer("en")
            explainer.explain(Connected(1, 0.0, "POP3", Channel("192.0.2.1", False, tls), "192.0.2.1:1"))
            said = explainer.explain(LineReceived(1, 0.0, b"PASS ****", 11, "PASS", "AUTHORIZATION"))
            self.assertEqual({one.kind for one in said} & {"warning"}, kinds)

    def test_tls_from_the_start(self) -> None:
        """A connection over TLS is said to be one, any other not."""
        for tls in (None, TLSFacts("TLSv1.3", "AES", None)):
            said = Explainer("en").explain(
                Connected(1, 0.0, "POP3", Channel("192.0.2.1", False, tls), "192.0.2.1:1")
            )
            self.assertEqual(any("TLS from the first octet" in one.text for one in said), tls is not None)
            self.assertIn("RFC 1939 section 4", [one.clause for one in said])

    def test_client(self) -> None:
        """Which program it seems to be can be asked for while the session goes on."""
        explainer = Explainer("en")
        self.assertIsNone(explainer.client(1))
        explainer.explain(Connected(1, 0.0, "POP3", Channel("192.0.2.1", local=False), "192.0.2.1:1"))
        explainer.explain(ReplySent(1, 0.0, b"+OK ready\r\n", 11, True, True))
        self.assertIsNone(explainer.client(1))
        for line in (b"CAPA", b"AUTH CRAM-MD5", b"****", b"STAT", b"UIDL", b"LIST 1"):
            command = line.decode().split(" ")[0].strip("*")
            explainer.explain(LineReceived(1, 0.0, line, len(line) + 2, command, "TRANSACTION"))
            reply = b"+ cj1h\r\n" if command == "AUTH" else b"+OK\r\n"
            explainer.explain(ReplySent(1, 0.0, reply, len(reply), True, True))
        self.assertEqual(explainer.client(1), "fetchmail")

    def test_handshakes(self) -> None:
        """Plain text on a port with TLS, HTTP there, and a certificate that is not trusted."""
        channel = Channel("192.0.2.1", local=False)
        for why, words in (
            ("wrong version number", "is no TLS"),
            ("http request", "browser"),
            ("tlsv1 alert unknown ca", "does not trust"),
            ("something else", "The handshake failed: something else."),
        ):
            explainer = Explainer("en")
            explainer.explain(Connected(1, 0.0, "POP3", channel, "192.0.2.1:1"))
            [said] = explainer.explain(TLSFailed(1, 0.0, "POP3", channel, why))
            self.assertIn(words, said.text)

    def test_openssl(self) -> None:
        """A connection over TLS that ends while somebody types is openssl's doing."""
        explainer = Explainer("en")
        channel = Channel("127.0.0.1", True, TLSFacts("TLSv1.3", "AES", None))
        explainer.explain(Connected(1, 0.0, "POP3", channel, "127.0.0.1:1"))
        explainer.explain(LineReceived(1, 5.0, b"USER user", 11, "USER", "AUTHORIZATION"))
        ended = Ended(1, 9.0, "POP3", channel, None, None, "dropped", 9.0, 11, 60, 0, 0)
        self.assertIn("hint", [one.kind for one in explainer.explain(ended)])
        self.assertEqual(list(explainer.explain(ended)), [])

    def test_what_stls_throws_away(self) -> None:
        """Input in clear text behind STLS is a warning; what was said before is forgotten."""
        explainer = Explainer("en")
        channel = Channel("192.0.2.1", local=False)
        explainer.explain(Connected(1, 0.0, "POP3", channel, "192.0.2.1:1"))
        explainer.explain(LineReceived(1, 0.0, b"STLS", 6, "STLS", "AUTHORIZATION", 7))
        [warning] = explainer.explain(InputDiscarded(1, 0.0, 7))
        self.assertEqual((warning.kind, warning.clause), ("warning", "RFC 3207 section 6"))
        said = explainer.explain(TLSStarted(1, 0.0, TLSFacts("TLSv1.3", "AES", "ann@example.org")))
        texts = " ".join(one.text for one in said)
        for words in ("TLSv1.3 with AES", "certificate of ann@example.org", "is forgotten"):
            self.assertIn(words, texts)

    def test_told_by_others(self) -> None:
        """What a gate did, and that a connection is sent away."""
        explainer = Explainer("en")
        channel = Channel("192.0.2.1", local=False)
        explainer.explain(Connected(1, 0.0, "POP3", channel, "192.0.2.1:1"))
        [noted] = explainer.explain(Noted(1, 0.0, "the reply was changed"))
        self.assertIn("on purpose", noted.text)
        [rejected] = explainer.explain(ConnectionRejected(1, 0.0, "POP3", channel, "too many"))
        self.assertIn("too many connections", rejected.text)
        explainer.explain(ReplySent(1, 0.0, b"-ERR [SYS/TEMP] too many\r\n", 26, True, True))

    def test_not_sent(self) -> None:
        explainer = Explainer("en")
        explainer.explain(Connected(1, 0.0, "POP3", Channel("192.0.2.1", local=False), "192.0.2.1:1"))
        said = explainer.explain(ReplySent(1, 0.0, b"+OK\r\n", 5, True, False))
        self.assertIn("warning", {one.kind for one in said})


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ColourTests(SynchronousTestCase):
    """Colours are for terminals that want them."""

    def setUp(self) -> None:
        for name, value in (("NO_COLOR", None), ("TERM", "xterm"), ("FORCE_COLOR", None)):
            self.patch_environment(name, value)

    def patch_environment(self, name: str, value: str | None) -> None:
        """Set or unset a variable for this test."""
        before = os.environ.get(name)

        def put(value: str | None) -> None:
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

        put(value)
        self.addCleanup(put, before)

    def test_terminal(self) -> None:
        """A warning and a client's line look different, and the text is whole."""
        out = _Terminal()
        paint = painting(out)
        painted = [paint(kind, "text") for kind in ("client", "server", "warning", "note")]
        self.assertEqual(len(set(painted)), 4)
        self.assertEqual(painted[1], "text")
        for one in painted:
            self.assertEqual(re.sub(r"\x1b\[[0-9;]*m", "", one), "text")
            # Neither yellow, blue, white nor black, which cannot be read on every background.
            self.assertFalse({"30", "33", "34", "37"} & set(re.findall(r"\d+", one)))

    def test_plain(self) -> None:
        """No colours for files, with NO_COLOR, on a terminal without them, and without rich."""
        self.assertIs(painting(io.StringIO()), plain)
        self.patch_environment("NO_COLOR", "1")
        self.assertIs(painting(_Terminal()), plain)
        self.patch_environment("NO_COLOR", None)
        self.patch_environment("TERM", "dumb")
        self.assertIs(painting(_Terminal()), plain)
        self.patch_environment("TERM", "xterm")
        self.assertIsNot(painting(_Terminal()), plain)
        # Python takes this for a module that is not there.
        hidden: Any = None
        self.addCleanup(sys.modules.__setitem__, "rich.console", sys.modules["rich.console"])
        sys.modules["rich.console"] = hidden
        self.assertIs(painting(_Terminal()), plain)

    def test_whole_lines(self) -> None:
        """What is coloured is the same text."""
        texts = []
        for paint in (plain, painting(_Terminal())):
            out = io.StringIO()
            server = MemoryServer({"user": []}, observers=[transcript_to(out, paint=paint)])
            server.connect().say("USER user", "QUIT")
            server.stop()
            texts.append(re.sub(r"<[0-9a-f]+@", "<@", out.getvalue()))
        self.assertNotEqual(*texts)
        self.assertEqual(re.sub(r"\x1b\[[0-9;]*m", "", texts[1]), texts[0])


class OptionTests(SynchronousTestCase):
    """--explain and --language."""

    def test_language(self) -> None:
        """A language that there is none of is refused in one line."""
        error = self.assertRaises(BadSetting, Settings, language="xx")
        self.assertEqual(str(error), "--language: there are explanations in en and it, not in xx")

    def test_needs_a_transcript(self) -> None:
        error = self.assertRaises(BadSetting, Settings, store=Maildirs("x/{user}"), explain=True)
        self.assertIn("--explain needs a transcript", str(error))
        Settings(store=Maildirs("x/{user}"), explain=True, transcript="-")

    def test_locale(self) -> None:
        """The first variable that is set counts, as for any program."""
        case = ColourTests("setUp")
        for variables, language in (
            ({"LANG": "it_IT.UTF-8"}, "it"),
            ({"LANG": "it_IT.UTF-8", "LC_ALL": "C"}, "en"),
            ({"LANG": "en_GB", "LC_MESSAGES": "it_CH"}, "it"),
            ({"LANG": "de_DE.UTF-8"}, "en"),
            ({}, "en"),
        ):
            for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
                case.patch_environment(name, variables.get(name))
            self.assertEqual(language_of_the_locale(), language, variables)
        case.doCleanups()

    def test_of_a_browser(self) -> None:
        """Of the languages that a browser accepts the one that its reader likes best is taken."""
        for header, language in (
            ("", "en"),
            ("it", "it"),
            ("it-IT,it;q=0.9,en-US;q=0.8", "it"),
            ("de-CH, en;q=0.4, it;q=0.5", "it"),
            ("en-GB, it;q=0.9", "en"),
            ("it;q=0.3, en;q=0.7", "en"),
            ("IT ; q=1.0", "it"),
            ("it;q=0", "en"),
            ("*, fr", "en"),
            ("it;q=nonsense, ;;,,=", "en"),
            ("it;q=99", "en"),
            ("x," * 400 + "it", "en"),
        ):
            self.assertEqual(language_accepted(header), language, header)


class ProgramTests(SynchronousTestCase):
    """twistd, with a file and with workers."""

    def test_file(self) -> None:
        """The conversation is explained in a file, in the language asked for, without colours."""
        path = Path(self.mktemp()).absolute()
        with RealServer("--explain", "--language", "it", "--transcript", str(path)) as server:
            with StrictClient(server.port) as client:
                client.command(b"QUIT")
                client.ended()
            wait_until(lambda: "closed (quit)" in text_of(path), "the end of the session")
        said = path.read_text("utf-8")
        self.assertIn("Termina la sessione; nessuno ha effettuato l'accesso", said)
        self.assertNotIn("\x1b", said)

    def on_terminal(self, **environ: str) -> str:
        """What twistd writes to a terminal about a session that ends at once."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        options = ("--port=0", "--explain", "--language=en")
        process = subprocess.Popen(
            twistd("--nodaemon", f"--pidfile={folder}/twistd.pid", "pop3toy", *options),
            cwd=folder, env={**environment(folder), "TERM": "xterm", **environ},
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.STDOUT,
        )  # fmt: skip
        os.close(theirs)
        self.addCleanup(process.wait, DEADLINE)
        self.addCleanup(process.kill)
        said = b""

        def read_until(words: bytes) -> None:
            nonlocal said
            while words not in said:
                self.assertTrue(select.select([ours], [], [], DEADLINE)[0], said)
                said += os.read(ours, 4096)

        read_until(b"next, in another terminal")
        with StrictClient(listening(said.decode().replace("\r\n", "\n"))["POP3"]) as client:
            client.command(b"QUIT")
            client.ended()
        read_until(b"0 removed")
        return said.decode()

    def test_terminal(self) -> None:
        """A terminal has colours, but not with NO_COLOR; the log that shares it has none."""
        said = self.on_terminal()
        self.assertRegex(said, r"\x1b\[1m\[1\] C: QUIT\x1b\[0m\r\n")
        self.assertRegex(said, r"\x1b\[36m\[1\]    \| Ends the session; nobody")
        self.assertNotRegex(said, r"\x1b[^\n]*pop3toy listens")
        self.assertNotIn("\x1b", self.on_terminal(NO_COLOR="1"))

    def test_workers(self) -> None:
        """Each worker explains its own sessions."""
        root = Path(self.mktemp()).absolute()
        path = root.with_suffix(".txt")
        for name in ("new", "cur", "tmp"):
            (root / "ann" / name).mkdir(parents=True)
        options = (
            *maildir_options(root),
            "--workers",
            "2",
            "--explain",
            "--language",
            "en",
            "--transcript",
            str(path),
        )
        with RealServer(*options) as server:
            with logged_in(server.port):
                pass
            wait_until(lambda: "Nothing was marked" in text_of(path), "the explanation")
        self.assertNotIn("secret", path.read_text("utf-8"))
