"""SMTP: what a client says and what it hears, and what lies in the maildrop afterwards."""

from __future__ import annotations

import itertools
import re
from email import message_from_bytes, policy

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits as root_limits
from pop3toy.addresses import parse_address
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.errors import OverQuota, StoreFull, StoreTrouble
from pop3toy.events import Delivered, Ended, LineReceived, Observers, ReplySent, TextReceived
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.smtp import limits
from pop3toy.smtp.factory import lmtp_factory, smtp_factory
from pop3toy.stores.memory import MemoryStore
from tests.pop3_world import Watcher
from tests.smtp_world import Client, Slow, TLSTransport, find_in, world

ENVELOPE = ("EHLO client.example", "MAIL FROM:<eve@elsewhere.example>", "RCPT TO:<ann@example.org>")


class ConversationTests(SynchronousTestCase):
    """Commands and replies."""

    def setUp(self) -> None:
        self.factory, self.store, self.clock = world(smtp_factory)
        self.client = Client(self.factory)

    def test_greeting(self) -> None:
        """The server says its name and that it speaks ESMTP."""
        self.assertEqual(self.client.greeting, ["220 mx.example.org ESMTP pop3toy"])

    def test_ehlo(self) -> None:
        """EHLO lists what works here, and neither STARTTLS nor AUTH where they do not."""
        self.assertEqual(
            self.client.say("EHLO client.example"),
            [
                "250-mx.example.org",
                "250-PIPELINING",
                f"250-SIZE {limits.MESSAGE}",
                "250-8BITMIME",
                "250-ENHANCEDSTATUSCODES",
                "250 SMTPUTF8",
            ],
        )
        self.assertEqual(self.client.say("AUTH PLAIN AGFubgBubmE="), ["502 5.5.1 command not implemented"])
        self.assertEqual(self.client.say("STARTTLS"), ["454 4.7.0 TLS not available"])

    def test_a_message(self) -> None:
        """A message is delivered with Return-Path and Received before it, and otherwise as it was."""
        text = "Subject: hello\r\n\r\nDear Ann,\r\n..dots\r\n"
        self.assertEqual(
            [answer[:9] for answer in self.client.say(*ENVELOPE)[-2:]], ["250 2.1.0", "250 2.1.5"]
        )
        self.assertEqual(self.client.say("DATA"), ["354 go on, and end with a line that is just a dot"])
        (answer,) = self.client.say(text.replace("\r\n..", "\r\n...") + ".")
        self.assertRegex(answer, r"^250 2\.0\.0 delivered as [0-9a-f]{12}$")
        (message,) = self.store.messages("ann")
        self.assertTrue(
            message.startswith(b"Return-Path: <eve@elsewhere.example>\r\nReceived: from client.example")
        )
        self.assertTrue(message.endswith(b"\r\n" + text.encode()))
        headers = message_from_bytes(message, policy=policy.default)
        self.assertEqual(headers["Subject"], "hello")
        self.assertRegex(
            " ".join(headers["Received"].split()),
            r"^from client\.example \(\[192\.0\.2\.7\]\) by mx\.example\.org \(pop3toy\)"
            r" with ESMTP id [0-9a-f]{12} for <ann@example\.org>; \w+, 1[45] Nov 2023 ",
        )
        self.assertIn(answer.split()[-1], headers["Received"])

    def test_helo(self) -> None:
        """An old client is served too, and Received says that it is one."""
        self.assertEqual(self.client.say("HELO old"), ["250 mx.example.org"])
        self.client.say(*ENVELOPE[1:], "DATA", "x: y", ".")
        self.assertIn(b"with SMTP id", self.store.messages("ann")[0])

    def test_pipelined(self) -> None:
        """A whole session in one write is answered in order, each command in its proper state."""
        answers = self.client.say(
            *ENVELOPE, "DATA", "a: b", ".", "NOOP", *ENVELOPE[1:], "DATA", "c: d", ".", "QUIT"
        )
        self.assertEqual(
            [answer[:3] for answer in answers if answer[3] == " "],
            ["250", "250", "250", "354", "250", "250", "250", "250", "354", "250", "221"],
        )
        self.assertEqual(len(self.store.messages("ann")), 2)
        self.assertTrue(self.client.closed)

    def test_pipelined_while_waiting(self) -> None:
        """Commands behind one whose answer takes long wait for it."""
        slow = Slow()
        slow.check_at_once = False
        factory, _, _ = world(smtp_factory, delivery=slow)
        client = Client(factory)
        answers = client.say(*ENVELOPE, "RCPT TO:<bob@localhost>", "NOOP")
        self.assertEqual(answers[-1], "250 2.1.0 sender ok")
        self.assertEqual(client.transport.producerState, "paused")
        slow.go_on()
        self.assertEqual(client.answers(), ["250 2.1.5 recipient ok"])
        slow.go_on()
        self.assertEqual(client.answers(), ["250 2.1.5 recipient ok", "250 2.0.0 ok"])
        self.assertEqual(client.transport.producerState, "producing")

    def test_octet_by_octet(self) -> None:
        """A session that comes octet by octet is the same session."""
        data = "\r\n".join([*ENVELOPE, "DATA", "a: b", "", "..", ".", "QUIT", ""]).encode()
        answers = [line for octet in data for line in self.client.send(bytes([octet]))]
        self.assertEqual([a[:3] for a in answers if a[3] == " "], ["250", "250", "250", "354", "250", "221"])
        self.assertTrue(self.store.messages("ann")[0].endswith(b"a: b\r\n\r\n.\r\n"))

    def test_order(self) -> None:
        """A command out of its place is refused, and the session goes on."""
        for lines, answer in (
            (["MAIL FROM:<a@b.example>"], "503 5.5.1 EHLO comes first"),
            (["EHLO"], "501 5.5.4 say who you are, for example: EHLO my.host.name"),
            (["EHLO x", "RCPT TO:<ann@localhost>"], "503 5.5.1 MAIL comes first"),
            (["DATA"], "503 5.5.1 MAIL and RCPT come first"),
            (["MAIL FROM:<a@b.example>", "DATA"], "503 5.5.1 RCPT comes first"),
            (["MAIL FROM:<a@b.example>"], "503 5.5.1 one sender for each message; RSET begins anew"),
            (["RSET"], "250 2.0.0 ok"),
            (["RCPT TO:<ann@localhost>"], "503 5.5.1 MAIL comes first"),
            (["BURP"], "500 5.5.2 command not understood; HELP lists them"),
            ([""], "500 5.5.2 command not understood; HELP lists them"),
            ([b"NOOP \0"], "500 5.5.2 command not understood; HELP lists them"),
            ([b"\xff\xfe"], "500 5.5.2 command not understood; HELP lists them"),
            (["STARTTLS now"], "501 5.5.4 STARTTLS takes no argument"),
            (["EXPN all"], "502 5.5.1 command not implemented"),
            (["turn"], "502 5.5.1 command not implemented"),
            (["SEND FROM:<a@b.example>"], "502 5.5.1 command not implemented"),
            (["RSET now"], "501 5.5.4 RSET takes no argument"),
            (["QUIT now"], "501 5.5.4 QUIT takes no argument"),
            (["VRFY"], "501 5.5.4 VRFY whom?"),
            (["VRFY ann"], "252 2.1.5 send a message and see"),
            (["HELP"], "214 2.0.0 DATA EHLO HELO HELP MAIL NOOP QUIT RCPT RSET VRFY"),
            ([*ENVELOPE[1:], "DATA now"], "501 5.5.4 DATA takes no argument"),
        ):
            with self.subTest(lines=lines):
                self.assertEqual(self.client.say(*lines)[-1], answer)

    def test_ehlo_begins_anew(self) -> None:
        """A second EHLO forgets the message that was begun."""
        self.client.say(*ENVELOPE)
        self.client.say("EHLO again")
        self.assertEqual(self.client.say("DATA")[-1][:3], "503")

    def test_bare_lf_commands(self) -> None:
        """Somebody on netcat is understood, and told why a message cannot be sent so."""
        answers = self.client.send(b"EHLO x\nMAIL FROM:<a@b.example>\nRCPT TO:<ann@localhost>\nDATA\n")
        self.assertEqual(
            answers[-1], "500 5.5.2 a message needs lines that end in CR LF; use telnet, or nc -C"
        )
        self.assertEqual(self.client.say("DATA")[-1][:3], "354")

    def test_line_too_long(self) -> None:
        """A line that is too long is refused once, and the session goes on."""
        answers = self.client.send(b"NOOP " + b"x" * 100_000)
        self.assertEqual(answers, ["500 5.5.2 line too long"])
        self.assertEqual(self.client.send(b"x\r\nNOOP\r\n"), ["250 2.0.0 ok"])

    def test_too_many_errors(self) -> None:
        """A client that makes one mistake after another is sent away."""
        answers = self.client.say(*["BURP"] * 50)
        self.assertEqual(len(answers), limits.ERRORS + 1)
        self.assertEqual(
            answers[-3:],
            [
                "500 5.5.2 command not understood; HELP lists them",
                "500 5.5.2 command not understood; HELP lists them; too many errors, goodbye",
                "421 4.7.0 too many errors",
            ],
        )
        self.assertTrue(self.client.closed)
        self.assertEqual(self.client.say("NOOP"), [])

    def test_guessing_names(self) -> None:
        """Trying one name after another counts as mistakes."""
        guesses = [f"RCPT TO:<user{n}@localhost>" for n in range(limits.ERRORS)]
        self.assertEqual(
            self.client.say(*ENVELOPE, *guesses)[-2:],
            ["550 5.1.1 no such user here; too many errors, goodbye", "421 4.7.0 too many errors"],
        )

    def test_silence(self) -> None:
        """A silent client is told that time is up; one that speaks is not."""
        self.clock.advance(limits.IDLE - 1)
        self.client.say("NOOP")
        self.clock.advance(limits.IDLE - 1)
        self.assertEqual(self.client.answers(), [])
        self.clock.advance(1)
        self.assertEqual(self.client.answers(), ["421 4.4.2 you were silent for too long"])
        self.assertTrue(self.client.closed)
        self.client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turns(self) -> None:
        """Of commands by the hundred a turn answers some dozens; the client is not read from meanwhile."""
        self.client.protocol.dataReceived(b"NOOP\r\n" * 400 + b"QUIT\r\n")
        answered = len(self.client.answers())
        self.assertTrue(20 < answered < 50, answered)
        # Nor if the transport has had enough meanwhile, and has room again.
        self.client.transport.producer.pauseProducing()
        self.client.transport.producer.resumeProducing()
        self.assertEqual(self.client.answers(), [])
        self.assertEqual(self.client.transport.producerState, "paused")
        self.assertEqual(self.client.send(b"")[:-1], ["250 2.0.0 ok"] * (400 - answered))
        self.assertTrue(self.client.closed)

    def test_end_between_turns(self) -> None:
        """A server that shuts down need not wait for the next turn."""
        self.client.protocol.dataReceived(b"NOOP\r\n" * 1000)
        self.client.protocol.hang_up("shutdown")
        self.assertEqual(self.client.answers()[-1][:3], "421")
        self.assertTrue(self.client.closed)
        self.clock.advance(0)
        self.assertEqual(self.client.answers(), [])

    def test_least_limits(self) -> None:
        """What RFC 5321 section 4.5.3 asks for at least: octets of a line, recipients, minutes."""
        self.assertEqual(self.client.say("NOOP ".ljust(510, "x")), ["250 2.0.0 ok"])
        recipients = ENVELOPE[2:] * 100
        self.assertEqual({a[:3] for a in self.client.say(*ENVELOPE[:2], *recipients)}, {"250"})
        self.clock.advance(299)
        self.assertEqual(self.client.answers(), [])
        self.assertEqual(self.client.say("DATA", "a: b", "", "x" * 998, ".")[-1][:3], "250")

    def test_time_of_our_own(self) -> None:
        """The time that the store needs does not count as the client's silence."""
        slow = Slow()
        factory, _, clock = world(smtp_factory, delivery=slow)
        client = Client(factory)
        client.say(*ENVELOPE, "DATA", "a: b", ".")
        clock.advance(limits.IDLE * 2)
        self.assertFalse(client.closed)
        slow.go_on()
        slow.go_on()
        self.assertEqual(client.answers()[-1][:3], "250")

    def test_half_closed(self) -> None:
        """A client that has closed its half of the connection gets the answers to all that it sent."""
        slow = Slow()
        slow.check_at_once = slow.begin_at_once = False
        factory, _, _ = world(smtp_factory, delivery=slow)
        client = Client(factory)
        client.say(*ENVELOPE, "DATA", "a: b", ".")
        protocol = IHalfCloseableProtocol(client.protocol)
        protocol.readConnectionLost()
        self.assertFalse(client.closed)
        while slow.waiting:
            slow.go_on()
        self.assertEqual([a[:3] for a in client.answers()], ["250", "354", "250"])
        self.assertTrue(client.closed)

    def test_unread_replies(self) -> None:
        """A client that does not read its replies is not read from."""
        self.client.transport.producer.pauseProducing()
        self.assertEqual(self.client.say("NOOP", "NOOP"), [])
        self.assertEqual(self.client.transport.producerState, "paused")
        self.client.transport.producer.resumeProducing()
        self.assertEqual(len(self.client.answers()), 2)
        self.assertEqual(self.client.transport.producerState, "producing")


class AnyInputTests(SynchronousTestCase):
    """Whatever a client sends."""

    words = (
        b"EHLO x\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<ann@localhost>\r\n", b"DATA\r\n", b".\r\n",
        b"\r\n.\r\n", b"RSET\r\n", b"x: y\r\n", b"\n", b"\r", b"\0", b"\xff\r\n", b"x" * 3000,
        b"STARTTLS\r\n", b"QUIT\r\n", b"HELO\n",
    )  # fmt: skip

    @given(st.lists(st.sampled_from(words), max_size=25), st.lists(st.integers(0, 5000), max_size=6))
    def test_however_it_is_cut(self, words: list[bytes], cuts: list[int]) -> None:
        """Whatever comes is answered the same, however it is cut, and never by a bug."""
        data = b"".join(words)
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        factory, _, _ = world(smtp_factory, largest_message=3000)
        whole = Client(factory).send(data)
        pieces = Client(factory)
        cut = [answer for a, b in itertools.pairwise(edges) for answer in pieces.send(data[a:b])]
        for answers in (whole, cut):
            answers[:] = [re.sub(r"delivered as \w+", "delivered", answer) for answer in answers]
        self.assertEqual(cut, whole)
        self.assertEqual([answer for answer in whole if answer.startswith("451")], [])


class EnvelopeTests(SynchronousTestCase):
    """MAIL and RCPT."""

    def setUp(self) -> None:
        self.factory, self.store, _ = world(smtp_factory, largest_message=1000)
        self.client = Client(self.factory)
        self.client.say("EHLO x")

    def mail(self, argument: str) -> str:
        """The answer to MAIL with this argument."""
        self.client.say("RSET")
        return self.client.say("MAIL " + argument)[-1]

    def rcpt(self, argument: str) -> str:
        """The answer to RCPT with this argument."""
        self.mail("FROM:<>")
        return self.client.say("RCPT " + argument)[-1]

    def test_senders(self) -> None:
        """Every form of a sender is taken, also the empty one of bounces, and what people type."""
        for argument in (
            "FROM:<>", "FROM:<a@b.example>", "from: <a@b.example>", "FROM:a@b.example",
            'FROM:<"a b"@c.example>',
            "FROM:<@relay.example,@x:a@b.example>", "FROM:<a@[192.0.2.1]>", "FROM:<a@[IPv6:2001:db8::1]>",
            "FROM:<a..b@c.example>", "FROM:<a@b.example> SIZE=1000 BODY=8BITMIME", "FROM:<a> AUTH=<>",
            "FROM:<ü@b.example> SMTPUTF8 BODY=7bit",
        ):  # fmt: skip
            with self.subTest(argument=argument):
                self.assertEqual(self.mail(argument), "250 2.1.0 sender ok")

    def test_bad_senders(self) -> None:
        """What is no sender is refused, with the reason."""
        for argument, answer in (
            ("", "501 5.5.4"), ("TO:<a@b>", "501 5.5.4"), ("FROM:<a@b", "501 5.1.7"),
            ("FROM:<a b@c>", "501 5.1.7"),
            ("FROM:<a@b@c>", "501 5.1.7"), ("FROM:<a@b> FOO=1", "555 5.5.4"),
            ("FROM:<a@b> SIZE=x", "555 5.5.4"),
            ("FROM:<a@b> BODY=BINARYMIME", "555 5.5.4"), ("FROM:<a@b> SIZE=1001", "552 5.3.4"),
            ("FROM:<ü@b.example>", "553 5.6.7"), ("FROM:<a@b> SIZE=" + "9" * 30, "555 5.5.4"),
            ("FROM:<a@b> SIZE=1 size=1", "501 5.5.4"), ("FROM:<a@b> SMTPUTF8 SMTPUTF8", "501 5.5.4"),
            ("FROM:<" + "a" * limits.PATH + "@b>", "501 5.1.7"),
        ):  # fmt: skip
            with self.subTest(argument=argument):
                self.assertEqual(self.mail(argument)[:9], answer)
        self.assertEqual(self.client.say(b"MAIL FROM:<\xff@b> SMTPUTF8")[-1][:9], "501 5.1.7", "no UTF-8")

    def test_malformed_domains(self) -> None:
        """A domain with an empty label, and an address literal that is none, are refused, not guessed at."""
        for domain in (
            "example..org", ".example.org", "example.org..", ".", "..", "[300.1.1.1]", "[127.1]", "[::1]",
            "[IPv6:::1::]", "[IPv6:127.0.0.1]", "[x:y]", "[]", "[127.0.0.1", "example。。org",
            "\u200b.example.org", "example.org.\u200b", "example\u2024.org",
        ):  # fmt: skip
            with self.subTest(domain=domain):
                self.client = Client(self.factory)
                self.client.say("EHLO x")
                self.assertEqual(self.mail(f"FROM:<a@{domain}> SMTPUTF8")[:9], "501 5.1.7")
                self.client.say("RSET", "MAIL FROM:<> SMTPUTF8")
                self.assertEqual(self.client.say(f"RCPT TO:<ann@{domain}>")[-1][:9], "501 5.1.3")
                self.assertRaises(ValueError, parse_address, f"ann@{domain}")

    def test_utf8_where_it_is_not_offered(self) -> None:
        """Where the store cannot bear UTF-8, SMTPUTF8 is neither offered nor taken."""
        factory, _, _ = world(smtp_factory, smtputf8=False)
        client = Client(factory)
        self.assertNotIn("250 SMTPUTF8", client.say("EHLO x"))
        self.assertEqual(client.say("MAIL FROM:<ü@b.example> SMTPUTF8")[-1][:9], "555 5.5.4")

    def test_recipients(self) -> None:
        """Ours are taken in any case, with and without a domain and detail."""
        for argument in (
            "TO:<ann@localhost>", "TO:<ann@EXAMPLE.org.>", "to: ann@example.org", "TO:<ANN@localhost>",
            'TO:<"ann"@localhost>', "TO:<ann>", "TO:<ann+lists@localhost>", "TO:<@a,@b:ann@localhost>",
        ):  # fmt: skip
            with self.subTest(argument=argument):
                self.assertEqual(self.rcpt(argument), "250 2.1.5 recipient ok")

    def test_postmaster(self) -> None:
        """Mail for postmaster reaches who is named for it, in any case, with and without a domain."""
        recipients = RecipientResolver(
            find_in("ann"), domains=("example.org",), aliases=lambda: {"postmaster": ("ann",)}
        )
        factory, store, _ = world(smtp_factory, recipients=recipients)
        client = Client(factory)
        for count, address in enumerate(
            ("Postmaster", "postmaster@example.org", "POSTMASTER@Example.ORG"), 1
        ):
            client.say("EHLO x", "MAIL FROM:<>", f"RCPT TO:<{address}>", "DATA", "a: b", ".")
            self.assertEqual(len(store.messages("ann")), count, address)

    def test_refused_recipients(self) -> None:
        """Nobody else's mail is taken."""
        for argument, answer in (
            ("TO:<ann@elsewhere.example>", "550 5.7.1"), ("TO:<nobody@localhost>", "550 5.1.1"),
            ("TO:<ann%elsewhere.example@localhost>", "550 5.1.1"), ("TO:<else.example!ann>", "550 5.1.1"),
            ("TO:<>", "501 5.1.3"), ("TO:<ann@localhost> NOTIFY=NEVER", "555 5.5.4"),
            ("TO:<+x@localhost>", "550 5.1.1"), ("TO:<ü@localhost>", "553 5.6.7"),
            ("TO:<ann@localhost", "501 5.1.3"), ("TO:<ann@sub.example.org>", "550 5.7.1"),
            ("TO:<" + "a" * limits.PATH + "@localhost>", "501 5.1.3"),
        ):  # fmt: skip
            with self.subTest(argument=argument):
                client = Client(self.factory)
                client.say("EHLO x", "MAIL FROM:<>")
                self.assertEqual(client.say("RCPT " + argument)[-1][:9], answer)

    def test_too_many_recipients(self) -> None:
        """The recipient beyond the limit is put off, and those before are served."""
        self.client.say("MAIL FROM:<>")
        for _ in range(limits.RECIPIENTS):
            self.assertEqual(self.client.say("RCPT TO:<ann@localhost>")[0][:3], "250")
        self.assertEqual(self.client.say("RCPT TO:<bob@localhost>")[0][:9], "452 4.5.3")
        self.assertEqual(self.client.say("DATA", "a: b", ".")[-1][:3], "250")
        self.assertEqual((len(self.store.messages("ann")), len(self.store.messages("bob"))), (1, 0))

    def test_size_is_passed_on(self) -> None:
        """The store is asked for room for what MAIL announced (RFC 1870 section 6.1)."""
        slow = Slow()
        factory, _, _ = world(smtp_factory, delivery=slow, users=("ann",))
        Client(factory).say("EHLO me", "MAIL FROM:<a@b> SIZE=321", "RCPT TO:<ann@localhost>", "DATA")
        self.assertEqual(slow.announced, [321, 321])

    def test_a_recipient_in_trouble(self) -> None:
        """What keeps a store from taking mail is told at RCPT; the others get theirs."""
        slow = Slow()
        slow.fail = {
            "check ann": OverQuota(), "check bob": StoreTrouble(), "check cat": StoreFull(),
        }  # fmt: skip
        factory, _, _ = world(smtp_factory, delivery=slow, users=("ann", "bob", "cat", "dan"))
        client = Client(factory)
        client.say("EHLO x", "MAIL FROM:<>")
        answers = client.say(*[f"RCPT TO:<{user}@localhost>" for user in ("ann", "bob", "cat", "dan")])
        self.assertEqual([a[:9] for a in answers], ["452 4.2.2", "451 4.3.0", "452 4.3.1", "250 2.1.5"])

    def test_larger_than_the_mailbox(self) -> None:
        """What is larger than the whole mailbox is refused for good at RCPT; the others get it."""
        slow = Slow()
        slow.fail = {"check ann": OverQuota(holds=100), "check bob": OverQuota(holds=101)}
        factory, _, _ = world(smtp_factory, delivery=slow)
        client = Client(factory)
        client.say("EHLO x", "MAIL FROM:<> SIZE=101")
        answers = client.say(*[f"RCPT TO:<{user}@localhost>" for user in ("ann", "bob", "cat")])
        self.assertEqual([a[:9] for a in answers], ["552 5.2.3", "452 4.2.2", "250 2.1.5"])
        client.say("RSET", "MAIL FROM:<>")
        self.assertEqual(client.say("RCPT TO:<ann@localhost>")[0][:9], "452 4.2.2")

    def test_names_in_trouble(self) -> None:
        """While nobody can say whether there is a user, mail for it waits."""

        def find(name: str) -> str | None:
            raise StoreTrouble(detail="accounts are on a disk that is gone")

        factory, _, _ = world(smtp_factory, recipients=RecipientResolver(find))
        client = Client(factory)
        self.assertEqual(client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<ann>")[-1][:9], "451 4.3.0")


class MessageTests(SynchronousTestCase):
    """DATA."""

    def setUp(self) -> None:
        self.factory, self.store, _ = world(smtp_factory, largest_message=1000)
        self.client = Client(self.factory)
        self.client.say(*ENVELOPE)
        self.slow = Slow()
        slow_factory, _, _ = world(smtp_factory, delivery=self.slow)
        self.patient = Client(slow_factory)
        self.patient.say(*ENVELOPE)

    def body(self, number: int = 0) -> bytes:
        """The message as it was sent."""
        message: bytes = self.store.messages("ann")[number]
        # Received, which ends with its date, is the last of our headers.
        return re.split(rb" [+-]\d{4}\r\n", message, maxsplit=1)[1]

    def test_smuggling(self) -> None:
        """What only looks like an end neither ends the message nor begins another."""
        for fake in (b"\n.\r\n", b"\n.\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n"):
            with self.subTest(fake=fake):
                client = Client(self.factory)
                client.say(*ENVELOPE, "DATA")
                smuggled = b"MAIL FROM:<boss@example.org>\r\nRCPT TO:<bob@localhost>\r\nDATA\r\nx: y\r\n"
                self.assertEqual(client.send(b"a: b\r\n\r\nbody" + fake + smuggled), [])
                (answer,) = client.send(b"\r\n.\r\n")
                bare = b"\n" in fake.replace(b"\r\n", b"")
                self.assertEqual(answer[:9], "550 5.6.1" if bare else "250 2.0.0")
        self.assertEqual(self.store.messages("bob"), ())

    def test_bare_line_feed(self) -> None:
        """A message with a bare LF is refused, and the session goes on behind it."""
        answers = self.client.send(b"DATA\r\na: b\r\n\r\none\ntwo\r\n.\r\nNOOP\r\n")
        self.assertEqual([a[:10] for a in answers[1:]], ["550 5.6.11", "250 2.0.0 "])
        self.assertEqual(self.store.messages("ann"), ())

    def test_eight_bits(self) -> None:
        """Every octet but the line ends comes through as it is, NUL and lone CR too."""
        text = bytes(octet for octet in range(256) if octet not in b"\r\n") + b"\r."
        self.client.send(b"DATA\r\na: b\r\n\r\n" + text + b"\r\n.\r\n")
        self.assertEqual(self.body(), b"a: b\r\n\r\n" + text + b"\r\n")

    def test_long_lines(self) -> None:
        """A line of the message may be as long as the message."""
        self.client.send(b"DATA\r\na: b\r\n\r\n" + b"x" * 900 + b"\r\n.\r\n")
        self.assertEqual(len(self.body()), 910)

    def test_no_header(self) -> None:
        """A message without a header keeps its first line out of ours."""
        for text, stored in (
            (b"hello\r\n", b"\r\nhello\r\n"), (b"\r\nhello\r\n", b"\r\nhello\r\n"), (b"", b""),
            (b"a:\r\n", b"a:\r\n"),
            (b" folded: x\r\n", b"\r\n folded: x\r\n"), (b"From me Mon\r\n", b"\r\nFrom me Mon\r\n"),
        ):  # fmt: skip
            with self.subTest(text=text):
                number = len(self.store.messages("ann"))
                self.client.say("RSET", *ENVELOPE[1:], "DATA")
                for octet in text + b".\r\n":
                    self.client.send(bytes([octet]))
                self.assertEqual(self.body(number), stored)

    def test_too_large(self) -> None:
        """A message beyond the limit is read to its end and refused there; nothing of it is kept."""
        answers = self.client.send(b"DATA\r\na: b\r\n\r\n" + b"x" * 991 + b"\r\n.\r\nNOOP\r\n")
        self.assertEqual(answers[1:], ["552 5.3.4 message is larger than 1000 octets", "250 2.0.0 ok"])
        self.client.say(*ENVELOPE[1:])
        self.assertEqual(self.client.send(b"DATA\r\na: b\r\n\r\n" + b"x" * 990 + b"\r\n.\r\n")[-1][:3], "250")
        self.assertEqual(len(self.store.messages("ann")), 1)

    def test_endless(self) -> None:
        """A message that does not end is not read for ever."""
        self.client.say("DATA")
        self.client.send(b"x" * 1500)
        self.assertFalse(self.client.closed)
        self.assertEqual(self.client.send(b"x" * 600)[-1][:9], "421 4.3.4")
        self.assertTrue(self.client.closed)

    def test_back_pressure(self) -> None:
        """While the store writes, the client is not read from, and its chunks wait."""
        self.patient.send(b"DATA\r\na: b\r\n\r\n" + b"x" * 5000)
        self.assertEqual(len(self.slow.log), 1)
        self.assertEqual(self.patient.transport.producerState, "paused")
        self.patient.send(b"y" * 5000)
        self.assertEqual(len(self.slow.log), 1)
        self.slow.go_on()
        self.assertEqual(self.slow.log[1:], ["write ann 5000"])
        self.slow.go_on()
        self.assertEqual(self.patient.transport.producerState, "producing")

    def test_durable_before_250(self) -> None:
        """250 is not said before the store says that the message is durable."""
        self.patient.say("DATA", "a: b", ".", "NOOP")
        self.slow.go_on()
        self.assertEqual(self.slow.log[1:], ["commit ann"])
        self.assertEqual(self.patient.answers(), [])
        self.slow.go_on()
        self.assertEqual([a[:3] for a in self.patient.answers()], ["250", "250"])

    def test_trouble(self) -> None:
        """What goes wrong at a chunk or at the end is told behind the end, and the rest is no command."""
        for error, code in (
            (OverQuota(), "452 4.2.2"), (OverQuota(holds=12), "452 4.2.2"),
            (OverQuota(holds=11), "552 5.2.3"), (StoreFull(), "452 4.3.1"), (StoreTrouble(), "451 4.3.0"),
        ):  # fmt: skip
            for at in ("write ann", "commit ann"):
                with self.subTest(error=error, at=at):
                    self.slow.fail = {at: error}
                    self.patient.say("RSET", *ENVELOPE[1:], "DATA", "a: b")
                    answers = self.patient.say("QUIT", ".")
                    while self.slow.waiting:
                        self.slow.go_on()
                    answers += self.patient.answers()
                    self.assertEqual([a[:9] for a in answers], [code])
                    self.assertFalse(self.patient.closed)


class SeveralRecipientsTests(SynchronousTestCase):
    """One message for several users."""

    def test_one_copy_each(self) -> None:
        """However many addresses lead to a user, one copy comes; and nobody learns of the others."""
        factory, store, _ = world(smtp_factory)
        client = Client(factory)
        client.say(*ENVELOPE, "RCPT TO:<ann+x@localhost>", "RCPT TO:<bob@localhost>", "DATA", "a: b", ".")
        self.assertEqual((len(store.messages("ann")), len(store.messages("bob"))), (1, 1))
        self.assertNotIn(b"for <", store.messages("ann")[0])

    def test_one_delivery_each(self) -> None:
        """One delivery begins for all, whatever a user's further addresses."""
        slow = Slow()
        factory, _, _ = world(smtp_factory, delivery=slow)
        Client(factory).say(*ENVELOPE, "RCPT TO:<ann+x@localhost>", "RCPT TO:<bob@localhost>", "DATA")
        self.assertEqual((slow.checked, slow.begun), (["ann", "bob"], [("ann", "bob")]))

    def several(self, fail: dict[str, Exception]) -> tuple[list[str], list[str]]:
        """Answers and the store's log for a message to three users."""
        slow = Slow()
        slow.fail = fail
        factory, _, _ = world(smtp_factory, delivery=slow)
        client = Client(factory)
        client.say(*ENVELOPE, "RCPT TO:<bob@localhost>", "RCPT TO:<cat@localhost>", "DATA")
        answers = client.say("a: b", ".")
        while slow.waiting:
            slow.go_on()
        return answers + client.answers(), [line for line in slow.log if not line.startswith("write")]

    def test_all(self) -> None:
        """One reply stands for all of them."""
        answers, log = self.several({})
        self.assertEqual([a[:3] for a in answers], ["250"])
        self.assertEqual(log, ["commit ann bob cat"])

    def test_one_cannot_have_it(self) -> None:
        """If one cannot have it, the sender is told to try again, for all."""
        for at in ("write bob", "commit ann", "commit bob"):
            answers, log = self.several({at: OverQuota(holds=1)})
            self.assertEqual([a[:9] for a in answers], ["452 4.2.2"])
            self.assertEqual(log, ["commit ann bob cat"])

    def test_too_large_for_all(self) -> None:
        """What is larger than every one of the mailboxes is refused for good."""
        answers, _ = self.several({f"write {user}": OverQuota(holds=1) for user in ("ann", "bob", "cat")})
        self.assertEqual([a[:9] for a in answers], ["552 5.2.3"])


class TrapTests(SynchronousTestCase):
    """Mail for anybody lands in one mailbox."""

    def test_any_address(self) -> None:
        """The toy takes every address in the world for its user."""
        recipients = RecipientResolver(find_in("user"), catch_all="user", any_domain=True)
        factory, store, _ = world(smtp_factory, users=("user",), recipients=recipients, original_to=True)
        client = Client(factory)
        answers = client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<who@ever.example>", "DATA", "a: b", ".")
        self.assertEqual(answers[-1][:3], "250")
        (message,) = store.messages("user")
        self.assertIn(b"for <who@ever.example>;", message)
        self.assertNotIn(b"X-Original-To", message)

    def test_whom_it_was_for(self) -> None:
        """A message for several says whom it was for, as they were written."""
        recipients = RecipientResolver(find_in("user"), catch_all="user", any_domain=True)
        factory, store, _ = world(smtp_factory, users=("user",), recipients=recipients, original_to=True)
        client = Client(factory)
        client.say(
            "EHLO x", "MAIL FROM:<>", "RCPT TO:<Who@Ever.example>", "RCPT TO:<bob>", "DATA", "a: b", "."
        )
        (message,) = store.messages("user")
        lines = message.split(b"\r\n")[1:3]
        self.assertEqual(lines, [b"X-Original-To: Who@Ever.example", b"X-Original-To: bob@localhost"])


class StartTLSTests(SynchronousTestCase):
    """STARTTLS (RFC 3207)."""

    def setUp(self) -> None:
        self.context = object()
        self.factory, self.store, _ = world(smtp_factory, tls=self.context)
        self.tls = TLSTransport(self.factory)
        self.client = self.tls.client

    def test_purge(self) -> None:
        """Commands in clear text that were pipelined behind STARTTLS are thrown away."""
        answers = self.client.say(
            "EHLO x", "STARTTLS", "MAIL FROM:<evil@b.example>", "RCPT TO:<ann@localhost>"
        )
        self.assertEqual(answers[-1], "220 Begin TLS negotiation now")
        self.assertEqual(self.tls.contexts, [self.context])
        self.assertEqual(self.client.say("NOOP"), ["250 2.0.0 ok"])

    def test_forgets(self) -> None:
        """What was said before TLS does not count behind it, and STARTTLS is offered no more."""
        self.assertIn("250 STARTTLS", self.client.say("EHLO x"))
        self.client.say("MAIL FROM:<>", "STARTTLS")
        self.assertEqual(self.client.say("RCPT TO:<ann@localhost>")[0][:3], "503")
        self.assertEqual(self.client.say("MAIL FROM:<>")[0][:3], "503")
        self.assertNotIn("250 STARTTLS", self.client.say("EHLO x"))
        self.assertEqual(self.client.say("STARTTLS"), ["503 5.5.1 TLS already negotiated"])

    def test_received(self) -> None:
        """Received says that the message came over TLS."""
        self.client.say("EHLO x", "STARTTLS")
        self.client.say(*ENVELOPE, "DATA", "a: b", ".")
        self.assertIn(b"with ESMTPS id", self.store.messages("ann")[0])


class FactoryTests(SynchronousTestCase):
    """How many connections, and how they end."""

    def test_too_many(self) -> None:
        """A connection too many from one address hears 421 in place of the greeting."""
        factory, _, _ = world(smtp_factory, limiter=ConnectionLimiter(ConnectionLimits(per_address=2)))
        first, _ = Client(factory), Client(factory)
        turned_away = Client(factory)
        self.assertEqual(turned_away.greeting, ["421 4.7.0 too many connections from your address"])
        self.assertTrue(turned_away.closed)
        self.assertEqual(Client(factory, IPv4Address("TCP", "192.0.2.8", 1)).greeting[0][:3], "220")
        first.leave()
        self.assertEqual(Client(factory).greeting[0][:3], "220")

    def test_making_room(self) -> None:
        """When there are too many in all, one that brings nothing yet goes before one that brings more."""
        factory, _, _ = world(smtp_factory, limiter=ConnectionLimiter(ConnectionLimits(connections=2)))
        useful, idle = Client(factory), Client(factory)
        useful.say(*ENVELOPE, "DATA", "a: b", ".", ENVELOPE[1])
        self.assertEqual(Client(factory).greeting[0][:3], "220")
        self.assertEqual(idle.answers(), ["421 4.7.0 too many connections"])
        self.assertTrue(idle.closed)
        self.assertFalse(useful.closed)

    def test_useful_once(self) -> None:
        """Who has brought a message, and only stays, makes room, whatever it says: the longest idle."""
        for make in (smtp_factory, lmtp_factory):
            factory, _, _ = world(make, limiter=ConnectionLimiter(ConnectionLimits(connections=3)))
            hello = "LHLO me" if make is lmtp_factory else ENVELOPE[0]
            clients = [Client(factory) for _ in range(3)]
            for client in (clients[1], clients[0], clients[2]):
                client.say(hello, *ENVELOPE[1:], "DATA", "a: b", ".")
            for number in (1, 0):
                clients[number].say("NOOP")
                self.assertEqual(Client(factory).greeting[0][:3], "220")
                self.assertEqual(clients[number].answers(), ["421 4.7.0 too many connections"])
                clients[number].leave()
            self.assertFalse(clients[2].closed)

    def test_message_for_ever(self) -> None:
        """Who begins another message keeps its place, but not for ever, and not beyond RSET or a refusal."""
        for end in (None, "RSET", "EHLO me"):
            factory, _, clock = world(
                smtp_factory, limiter=ConnectionLimiter(ConnectionLimits(connections=1))
            )
            client = Client(factory)
            client.say(*ENVELOPE, "DATA", "a: b", ".", ENVELOPE[1])
            self.assertEqual(Client(factory).greeting[0][:3], "421")
            self.assertFalse(client.closed)
            if end is not None:
                client.say(end)
            else:
                # It may be found out as late as the connection is looked at.
                for _ in range(15):
                    clock.advance((limits.MESSAGE_TIME + limits.IDLE) / 15)
                    client.say("NOOP")
                self.assertFalse(client.closed)
            self.assertEqual(Client(factory).greeting[0][:3], "220")
            self.assertTrue(client.closed)

    def test_commands_without_message(self) -> None:
        """Between two messages there is a bound of commands; a message begins the count anew."""
        factory, _, _ = world(smtp_factory)
        client = Client(factory)
        for _ in range(2):
            for _ in range(limits.COMMANDS - 10):
                self.assertEqual(client.say("NOOP")[0][:3], "250")
            client.say(*ENVELOPE, "DATA", "a: b", ".")
        for _ in range(limits.COMMANDS):
            client.say("NOOP")
        self.assertFalse(client.closed)
        self.assertEqual(client.say("NOOP"), ["421 4.7.0 too many commands without a message"])
        self.assertTrue(client.closed)
        self.assertEqual(client.protocol.record.ended, "limit")

    def test_drain(self) -> None:
        """When the server stops, idle clients hear 421, what is being made durable is acknowledged."""
        slow = Slow()
        factory, _, clock = world(smtp_factory, delivery=slow)
        idle, busy = Client(factory), Client(factory)
        busy.say(*ENVELOPE, "DATA", "a: b", ".")
        slow.go_on()
        done = factory.drain()
        self.assertEqual(idle.answers(), ["421 4.3.2 this server is shutting down"])
        idle.leave()
        self.assertEqual(busy.answers(), [])
        slow.go_on()
        self.assertEqual([a[:3] for a in busy.answers()], ["250"])
        clock.advance(root_limits.SHUTDOWN_SILENCE)
        self.assertEqual([a[:3] for a in busy.answers()], ["421"])
        self.assertNoResult(done)
        busy.leave()
        self.successResultOf(done)

    def test_drain_waits_for_who_is_gone(self) -> None:
        """What is being made durable for a client that is gone is waited for, and told."""
        slow, watcher = Slow(), Watcher(Delivered, Ended)
        factory, _, _ = world(smtp_factory, delivery=slow, observers=Observers(watcher))
        for sender in ("", "eve@a.example"):
            client = Client(factory)
            client.say("EHLO x", f"MAIL FROM:<{sender}>", "RCPT TO:<ann@example.org>", "DATA", "a: b", ".")
            slow.go_on()
            client.leave()
            done = factory.drain()
            self.assertNoResult(done)
            self.assertEqual(watcher.events, [])
            slow.go_on()
            self.successResultOf(done)
            delivered, ended = watcher.events
            self.assertEqual((delivered.sender, delivered.uids), (sender, [("ann", b"uid")]))
            self.assertEqual(ended.why, "dropped")
            watcher.events.clear()
            factory.startFactory()


class WatchedTests(SynchronousTestCase):
    """What observers are told of a conversation."""

    def test_conversation(self) -> None:
        """Commands and replies, and of the message no more than its size."""
        watcher = Watcher(LineReceived, TextReceived, ReplySent, Ended)
        factory, _, _ = world(smtp_factory, observers=Observers(watcher), numbers=iter([7]))
        client = Client(factory)
        client.say(*ENVELOPE, "DATA", "Subject: private", ".", "BURP ann secret", "QUIT")
        client.leave()
        self.assertEqual({event.session for event in watcher.events}, {7})
        lines = watcher.of(LineReceived)
        self.assertEqual(
            [(event.command, event.state) for event in lines],
            [
                ("EHLO", "before hello"), ("MAIL", "ready"), ("RCPT", "mail begun"),
                ("DATA", "recipients given"), ("", "ready"), ("QUIT", "ready"),
            ],
        )  # fmt: skip
        self.assertEqual(lines[2].line, b"RCPT TO:<ann@example.org>")
        self.assertIn(b"250 2.1.5 recipient ok\r\n", [event.data for event in watcher.of(ReplySent)])
        self.assertEqual([(e.octets, e.data, e.last) for e in watcher.of(TextReceived)], [(21, b"", True)])
        self.assertEqual(watcher.events[-1].why, "quit")
        told = repr(watcher.events)
        self.assertNotIn("private", told)
        self.assertNotIn("secret", told)

    def test_octets_are_counted_once(self) -> None:
        """What stands behind a message's end in one piece with it is counted once."""
        watcher = Watcher(Ended)
        factory, _, _ = world(smtp_factory, observers=Observers(watcher))
        client = Client(factory)
        said = "\r\n".join([*ENVELOPE, "DATA", "a: b", ".", "NOOP", "QUIT", ""]).encode()
        client.send(said)
        client.leave()
        self.assertEqual(watcher.ends[0].received, len(said))

    def test_message(self) -> None:
        """Where nothing is hidden a message is told as it came."""
        watcher = Watcher(TextReceived, LineReceived)
        factory, _, _ = world(smtp_factory, observers=Observers(watcher, secrets=True))
        client = Client(factory)
        client.say(*ENVELOPE, "DATA")
        text = b"Subject: hello\r\n\r\n..dots\r\n.\r\n"
        for octet in text + b"BURP\r\n":
            client.send(bytes([octet]))
        self.assertEqual(b"".join(event.data for event in watcher.of(TextReceived)), text)
        self.assertEqual([event.last for event in watcher.of(TextReceived)][-2:], [False, True])
        self.assertEqual(watcher.of(LineReceived)[-1].line, b"BURP")


class TraceTests(SynchronousTestCase):
    """The headers that are put before a message."""

    def test_address_without_domain(self) -> None:
        """An address without a domain stands in Received with the one that it is in."""
        factory, store, _ = world(smtp_factory)
        Client(factory).say(*ENVELOPE[:2], "RCPT TO:<Ann>", "DATA", "a: b", ".")
        self.assertIn(b"for <Ann@example.org>;", store.messages("ann")[0])

    def test_ipv6(self) -> None:
        """An address of IPv6 is written as RFC 5321 section 4.1.3 has it, without its zone."""
        factory, store, _ = world(smtp_factory)
        for host, written in (("::1", b"[IPv6:::1]"), ("fe80::1%eth0", b"[IPv6:fe80::1]")):
            Client(factory, IPv6Address("TCP", host, 1)).say(*ENVELOPE, "DATA", "a: b", ".")
            self.assertIn(b"from client.example (" + written + b")\r\n", store.messages("ann")[-1])

    def test_long_addresses(self) -> None:
        """However long the addresses are, no line of the headers exceeds what RFC 5322 allows."""
        name = "a" * (limits.PATH - len("@example.org"))
        factory, store, _ = world(
            smtp_factory, recipients=RecipientResolver(lambda _: "ann", domains=("example.org",))
        )
        client = Client(factory)
        client.say(
            "EHLO " + "x" * 900, f"MAIL FROM:<{name}@example.org>", f"RCPT TO:<{name}@example.org>",
            "DATA", "a: b", ".",
        )  # fmt: skip
        (message,) = store.messages("ann")
        self.assertLessEqual(max(map(len, message.split(b"\r\n"))), 998)


class MemoryDeliveryTests(SynchronousTestCase):
    """A store whose mailbox may be missing."""

    def test_no_mailbox(self) -> None:
        """Mail for a user whom the accounts know and the store does not waits, and the log says why."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, events.append)  # type: ignore[arg-type]
        store = MemoryStore({"ann": ()})
        factory, _, _ = world(smtp_factory, delivery=store)
        client = Client(factory)
        client.say("EHLO x", "MAIL FROM:<>")
        (answer,) = client.say("RCPT TO:<bob@localhost>")
        self.assertEqual(answer[:9], "451 4.3.0")
        self.assertTrue([event for event in events if "'bob'" in event.get("why", "")])
