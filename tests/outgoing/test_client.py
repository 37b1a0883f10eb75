"""The client, on a string: what it says to a smarthost, and what it makes of each answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.interfaces import OutgoingRecipient
from pop3toy.outgoing.attempt import Content, Result
from pop3toy.outgoing.client import LINE, LINES, SILENCE, Handing, hand_on
from pop3toy.outgoing.entry import Entry, Outcome, Status
from pop3toy.outgoing.smarthost import Credentials, Smarthost

from .test_parts import entry

#: EHLO's answer with everything.
ALL = ("SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")

EVE, DAN = OutgoingRecipient("eve@x.example"), OutgoingRecipient("dan@x.example")


class _Endpoint:
    """Connects to a string, or not at all."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.transport is None:
            from twisted.internet.defer import fail

            return fail(ConnectionRefusedError())
        self.protocol = factory.buildProtocol(None)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)


class _Transport(StringTransportWithDisconnection):
    """One that may start TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[object] = []

    def startTLS(self, context: object) -> None:
        self.contexts.append(context)

    def abortConnection(self) -> None:
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionLost()))


class ClientCase(SynchronousTestCase):
    """One message, one conversation."""

    tls: Any = None
    credentials: Credentials | None = None

    def begin(
        self,
        one: Entry,
        text: bytes = b"Subject: x\r\n\r\n.y\r\n",
        *,
        eight_bit: bool = False,
        utf8_header: bool = False,
        reads: list[Deferred[bytes]] | None = None,
        turn: Deferred[None] | None = None,
    ) -> None:
        """Begin to hand a message on.

        :param turn: what has to be waited for before the dot.
        """
        self.clock = Clock()
        self.transport = _Transport()
        chunks = [text[:9], text[9:], b""]
        given = [succeed(chunk) for chunk in chunks] if reads is None else reads
        content = Content(lambda most: given.pop(0), len(text), eight_bit, utf8_header)
        if turn is not None:
            content = content._replace(before_end=lambda: turn)
        scheme = "smtp" if self.tls is None else "smtp+starttls"
        handing = Handing(Smarthost(scheme, "smart", 25), self.credentials, self.tls, "mail.example.org")
        self.endpoint = _Endpoint(self.transport)
        reactor: Any = self.clock
        self.result = Deferred.fromCoroutine(hand_on(reactor, handing, one, content, endpoint=self.endpoint))

    def talk(self, *script: str) -> None:
        """Answers of the smarthost, each behind what the client has to say to it (``C: ...``)."""
        for line in script:
            if line.startswith("C: "):
                said = self.transport.value().decode().replace("\r\n", "|").removesuffix("|")
                self.transport.clear()
                self.assertEqual(said, line[3:])
            else:
                self.endpoint.protocol.dataReceived(line.encode() + b"\r\n")

    def greet(self, *extensions: str) -> None:
        """Up to EHLO's answer."""
        lines = ["smart", *extensions]
        answer = [f"250{'-' if n < len(lines) - 1 else ' '}{text}" for n, text in enumerate(lines)]
        self.talk("220 smart", "C: EHLO mail.example.org", *answer)

    def done(self) -> Result:
        """What came of it."""
        return self.successResultOf(self.result)


class ClientTests(ClientCase):
    """Without TLS, on this machine."""

    def test_plain(self) -> None:
        """A server without extensions is told nothing of them; dots are stuffed."""
        self.begin(entry(EVE))
        self.greet()
        self.talk(
            "C: MAIL FROM:<ann@example.org>", "250 ok", "C: RCPT TO:<eve@x.example>", "250 ok", "C: DATA",
            "354 go on", "C: Subject: x||..y|.", "250 2.0.0 queued", "C: QUIT",
        )  # fmt: skip
        ok = Outcome(Status.HANDED_ON, "2.0.0", "250 2.0.0 queued")
        self.assertEqual(self.done(), Result({0: ok}))

    def test_all_parameters(self) -> None:
        """What the sender asked for goes on where the server knows it."""
        one = entry(
            OutgoingRecipient("eve@x.example", ("SUCCESS", "DELAY"), "rfc822;eve+40x.example"),
            ret="FULL", envid="a+2Bb",
        )  # fmt: skip
        self.begin(one, eight_bit=True)
        self.greet(*ALL)
        self.talk(
            "C: MAIL FROM:<ann@example.org> SIZE=18 BODY=8BITMIME RET=FULL ENVID=a+2Bb", "250 ok",
            "C: RCPT TO:<eve@x.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;eve+40x.example", "250 ok",
            "C: DATA", "354 go on", "C: Subject: x||..y|.", "250 ok",
        )  # fmt: skip
        self.assertEqual(self.done().outcomes[0].status, Status.HANDED_ON)

    def test_no_notices(self) -> None:
        """A server without DSN is told none of its parameters, and NOTIFY=NEVER changes nothing else."""
        one = entry(
            OutgoingRecipient("eve@x.example", ("NEVER",), "rfc822;eve@x.example"), ret="HDRS", envid="a"
        )
        self.begin(one)
        self.greet(*(word for word in ALL if word != "DSN"))
        self.talk(
            "C: MAIL FROM:<ann@example.org> SIZE=18", "250 ok", "C: RCPT TO:<eve@x.example>", "250 ok",
            "354 go on", "250 ok",
        )  # fmt: skip
        self.assertEqual(self.done().outcomes[0].status, Status.HANDED_ON)

    def test_each_recipient(self) -> None:
        """Each recipient has the fate of its own reply; the text goes to those who were accepted."""
        third = OutgoingRecipient("fay@x.example", ("SUCCESS",))
        self.begin(entry(EVE, DAN, third))
        self.greet()
        self.talk(
            "C: MAIL FROM:<ann@example.org>", "250 ok", "C: RCPT TO:<eve@x.example>", "550 5.1.1 who?",
            "C: RCPT TO:<dan@x.example>", "450 4.2.1 full", "C: RCPT TO:<fay@x.example>", "251 ok",
            "C: DATA", "354 go on", "C: Subject: x||..y|.", "250 ok",
        )  # fmt: skip
        self.assertEqual(
            {number: (one.status, one.enhanced) for number, one in self.done().outcomes.items()},
            # Without DSN there it is from here that its sender hears of the success.
            {
                0: (Status.FAILED, "5.1.1"),
                1: (Status.WAITING, "4.2.1"),
                2: (Status.RELAYED, "2.0.0"),
            },
        )

    def test_refused(self) -> None:
        """A reply to MAIL, DATA or the text is for all; 5xx ends it, 4xx does not."""
        for step, code, status in (
            ("MAIL", "550 no", Status.FAILED),
            ("MAIL", "451 no", Status.WAITING),
            ("DATA", "554 no", Status.FAILED),
            (".", "554 spam", Status.FAILED),
            (".", "451 busy", Status.WAITING),
        ):
            self.begin(entry(EVE, DAN))
            self.greet()
            script = {
                "MAIL": [code],
                "DATA": ["250 ok", "250 ok", "250 ok", code],
                ".": ["250 ok", "250 ok", "250 ok", "354 go on", code],
            }[step]
            self.talk(*script)
            result = self.done()
            self.assertIsNone(result.trouble)
            self.assertEqual([one.status for one in result.outcomes.values()], [status] * 2, (step, code))

    def test_trouble(self) -> None:
        """What is no fault of the message's bounces nothing: the connection, the greeting, the login."""
        for script in (
            ["554 go away"],
            ["421 busy"],
            ["nonsense"],
            ["220 smart", "250 smart", "530 5.7.0 log in first"],
            ["220 smart", "250 smart", "421 bye"],
        ):
            self.begin(entry(EVE))
            self.talk(*script)
            result = self.done()
            self.assertIsNotNone(result.trouble, script)
            self.assertNotIn(Status.FAILED, [one.status for one in result.outcomes.values()])
            self.assertFalse(self.transport.connected, script)

    def test_lost(self) -> None:
        """A connection that is lost anywhere leaves those without an answer waiting; so does silence."""
        script = ["220 smart", "250 smart", "250 ok", "550 no", "250 ok", "354 go on"]
        for cut in range(len(script) + 1):
            for silence in (False, True):
                self.begin(entry(EVE, DAN))
                self.talk(*script[:cut])
                if silence:
                    self.clock.advance(SILENCE)
                else:
                    self.endpoint.protocol.connectionLost(Failure(ConnectionDone()))
                result = self.done()
                self.assertIsNotNone(result.trouble)
                failed = [number for number, one in result.outcomes.items() if one.status is Status.FAILED]
                self.assertEqual(failed, [0] if cut >= 4 else [], cut)

    def test_no_connection(self) -> None:
        """Nobody listens there."""
        handing = Handing(Smarthost("smtp", "smart", 25), None, None, "here")
        content = Content(lambda most: succeed(b""), 0, False, False)
        reactor: Any = Clock()
        done = Deferred.fromCoroutine(
            hand_on(reactor, handing, entry(EVE), content, endpoint=_Endpoint(None))
        )
        trouble = self.successResultOf(done).trouble
        assert trouble is not None
        self.assertIn("cannot connect to smart", trouble.text)

    def test_impossible(self) -> None:
        """What the server cannot take is given up in a sentence, before it is sent."""
        cases: tuple[tuple[dict[str, Any], tuple[str, ...], str, str], ...] = (
            ({"eight_bit": True}, (), "5.6.3", "8BITMIME"),
            ({"utf8_header": True, "eight_bit": True}, ("8BITMIME",), "5.6.7", "SMTPUTF8"),
            ({}, ("SIZE 10",), "5.3.4", "18 octets"),
        )
        for options, offered, code, words in cases:
            self.begin(entry(EVE), **options)
            self.greet(*offered)
            self.talk("C: QUIT")
            [outcome] = self.done().outcomes.values()
            self.assertEqual((outcome.status, outcome.enhanced, outcome.remote), (Status.FAILED, code, False))
            self.assertIn(words, outcome.text)

    def test_utf8(self) -> None:
        """SMTPUTF8 is said where an address needs it."""
        self.begin(entry(OutgoingRecipient("änn@x.example"), utf8=True))
        self.greet(*ALL)
        self.talk("C: MAIL FROM:<ann@example.org> SIZE=18 SMTPUTF8", "250 ok", "C: RCPT TO:<änn@x.example>")

    def test_too_many_recipients(self) -> None:
        """552 at RCPT may mean too many recipients (RFC 5321 section 4.5.3.1.10): they have another turn."""
        self.begin(entry(EVE))
        self.greet()
        self.talk("250 ok", "552 too many")
        self.assertEqual(self.done().outcomes[0].status, Status.WAITING)


class StrangeTests(ClientCase):
    """A smarthost that does not keep the protocol loses no mail."""

    def test_taken_before_it_was_sent(self) -> None:
        """250 in the place of 354 takes nothing, for the text is still here."""
        self.begin(entry(EVE))
        self.greet()
        self.talk("250 ok", "250 ok", "250 ok")
        outcome = self.done().outcomes[0]
        self.assertEqual((outcome.status, outcome.remote), (Status.WAITING, False))
        self.assertIn("before it had the message", outcome.text)

    def test_taken_in_the_middle(self) -> None:
        """So it is with one that comes while the text is on its way."""
        self.begin(entry(EVE), reads=[succeed(b"Subject: x\r\n"), Deferred()])
        self.greet()
        self.talk("250 ok", "250 ok", "354 go on", "250 ok")
        self.assertEqual(self.done().outcomes[0].status, Status.WAITING)

    def test_turn(self) -> None:
        """The dot waits for the turn, however long, and is not sent if the smarthost waits less."""
        for gives_up in (False, True):
            turn: Deferred[None] = Deferred()
            self.begin(entry(EVE), b"Subject: x\r\n", turn=turn)
            self.greet()
            self.talk("250 ok", "250 ok", "354 go on")
            self.transport.clear()
            self.clock.advance(2 * SILENCE)
            if gives_up:
                self.talk("421 too long")
                self.endpoint.protocol.connectionLost(Failure(ConnectionLost()))
            turn.callback(None)
            self.assertEqual(self.transport.value().endswith(b".\r\n"), not gives_up)
            if not gives_up:
                self.talk("250 taken")
            self.assertEqual(self.done().outcomes[0].status, Status.WAITING if gives_up else Status.HANDED_ON)

    def test_no_code_of_a_reply(self) -> None:
        """What is no final reply passes, and has a status that a notice may hold."""
        for code in ("354", "999", "199"):
            self.begin(entry(EVE))
            self.greet()
            self.talk("250 ok", f"{code} what")
            outcome = self.done().outcomes[0]
            self.assertEqual((outcome.status, outcome.enhanced), (Status.WAITING, "4.5.0"))

    def trouble(self) -> str:
        """Why nothing could be handed on; nobody is to blame for it, and the connection has ended."""
        result = self.done()
        assert result.trouble is not None
        self.assertLessEqual({one.status for one in result.outcomes.values()}, {Status.WAITING})
        self.assertFalse(self.transport.connected)
        return result.trouble.text

    def test_another_success(self) -> None:
        """Any 2xx to MAIL and RCPT lets it go on, and none there is taken for the end of the message."""
        for code in (220, 221, 235, 251, 299):
            self.begin(entry(EVE))
            self.greet()
            self.talk(f"{code} ok", "C: MAIL FROM:<ann@example.org>|RCPT TO:<eve@x.example>", f"{code} ok")
            self.assertFalse(self.result.called, code)
            self.talk("C: DATA", "354 go on", f"{code} ok")
            self.assertEqual(self.done().outcomes[0].status, Status.HANDED_ON)

    def test_closing(self) -> None:
        """421 may come at each step, and is about the connection: for all mail, and to nobody's blame."""
        script = ["220 smart", "250 smart", "250 ok", "250 ok", "354 go on"]
        for cut in range(len(script) + 1):
            self.begin(entry(EVE))
            self.talk(*script[:cut], "421 4.3.2 going down")
            if cut == 1:
                # HELO is tried where EHLO is not taken.
                self.talk("421 4.3.2 going down")
            self.assertIn("421 4.3.2 going down", self.trouble())

    def test_no_reply(self) -> None:
        """What does not begin with three digits is no reply, whatever number it may be taken for."""
        for line in ("000 debug", "25", "2_5 ok", " 25 ok", "+25 ok", "-250 ok", "", "\x00", "²50 ok"):
            for script in ([], ["220 smart", "250 smart"], ["220 smart", "250 smart", "250 ok"]):
                self.begin(entry(EVE))
                self.talk(*script, line)
                self.assertIn("this is no reply:", self.trouble())

    def test_endless(self) -> None:
        """A reply without an end, by its lines or within one, is given up."""
        for script, words in (
            (["250-more"] * (LINES + 1), "a reply has more than 1000 lines"),
            (["250 " + "x" * LINE], "longer than 4096 octets"),
        ):
            self.begin(entry(EVE))
            self.talk("220 smart", *script)
            self.assertIn(words, self.trouble())
        # Behind QUIT, when all is known, as well.
        self.begin(entry(EVE))
        self.greet()
        self.talk("250 ok", "250 ok", "354 go on", "250 taken", *["221-bye"] * (LINES + 1))
        self.assertEqual(self.done().outcomes[0].status, Status.HANDED_ON)
        self.assertFalse(self.transport.connected)

    def test_slow(self) -> None:
        """A reply has its time as a whole, however its lines are spread; the next has its own."""
        self.begin(entry(EVE))
        self.talk("220-smart")
        self.clock.advance(SILENCE - 1)
        self.talk("220 greets", "250-smart")
        self.clock.advance(SILENCE - 2)
        self.talk("250-SIZE")
        self.assertFalse(self.result.called)
        self.clock.advance(2)
        self.assertIn("was silent for too long", self.trouble())

    def test_strange_letters(self) -> None:
        """What is no UTF-8, or would steer a terminal, is shown as something else; many lines are one."""
        self.begin(entry(EVE))
        self.talk("220-smart", "220-greets", "220 all", "250 smart", "250 ok")
        self.endpoint.protocol.dataReceived(b"550-5.1.1 f\xfcr\r\n550 \x1b[31mniemand\r\n")
        outcome = self.done().outcomes[0]
        self.assertEqual((outcome.status, outcome.enhanced), (Status.FAILED, "5.1.1"))
        self.assertEqual(outcome.text, "550 5.1.1 f\ufffdr \\x1b[31mniemand")


class SecretTests(ClientCase):
    """With TLS and a login."""

    tls = object()
    credentials = Credentials("relay", "open sesame")

    def greet(self, *extensions: str) -> None:
        """Up to EHLO's answer within TLS, and the login."""
        self.talk(
            "220 smart", "C: EHLO mail.example.org", "250-smart", "250 STARTTLS", "C: STARTTLS", "220 go"
        )
        self.assertEqual(self.transport.contexts, [self.tls])
        lines = ["smart", *extensions, "AUTH LOGIN PLAIN"]
        answer = [f"250{'-' if n < len(lines) - 1 else ' '}{text}" for n, text in enumerate(lines)]
        self.talk("C: EHLO mail.example.org", *answer)
        said = self.transport.value()
        self.transport.clear()
        self.assertTrue(said.startswith(b"AUTH PLAIN "), said)
        self.talk("235 ok")

    def test_handed_on(self) -> None:
        """Behind STARTTLS and AUTH it goes on as without."""
        self.begin(entry(EVE))
        self.greet("SIZE")
        self.talk("C: MAIL FROM:<ann@example.org> SIZE=18", "250 ok", "250 ok", "354 go on", "250 ok")
        self.assertEqual(self.done().outcomes[0].status, Status.HANDED_ON)

    def test_refused_with_tls(self) -> None:
        """Without TLS there is no password and no mail, whoever took STARTTLS out of the answer."""
        for script in (
            ["220 smart", "250 smart"],
            ["220 smart", "250-smart", "250 AUTH PLAIN"],
            ["220 smart", "500 what?"],
            ["220 smart", "250-smart", "250 STARTTLS", "454 not now"],
        ):
            self.begin(entry(EVE))
            self.talk(*script)
            self.assertIsNotNone(self.done().trouble)
            self.assertNotIn(b"AUTH", self.transport.value())
            self.assertNotIn(b"MAIL", self.transport.value())

    def test_clear_text_behind_starttls(self) -> None:
        """What was slipped in behind STARTTLS's answer is no answer within TLS."""
        self.begin(entry(EVE))
        self.talk("220 smart", "250-smart", "250 STARTTLS", "220 go\r\n250-smart\r\n250 AUTH PLAIN")
        trouble = self.done().trouble
        assert trouble is not None
        self.assertIn("behind STARTTLS", trouble.text)
        self.assertEqual(self.transport.contexts, [])

    def test_wrong_password(self) -> None:
        """A login that is refused bounces nothing, and the password is in no text."""
        self.begin(entry(EVE))
        self.talk(
            "220 smart",
            "250-smart",
            "250 STARTTLS",
            "220 go",
            "250-smart",
            "250 AUTH PLAIN",
        )
        self.transport.clear()
        self.talk("535 no")
        result = self.done()
        self.assertEqual(result.outcomes, {})
        assert result.trouble is not None
        self.assertIn("535", result.trouble.text)
        self.assertTrue(result.trouble.login)
        self.assertNotIn("sesame", repr(result))
        # Once: it may be counted.
        self.assertEqual(self.transport.value(), b"")

    def test_repeated_password(self) -> None:
        """A smarthost that repeats what it was sent tells neither the log nor a sender the password."""
        for mechanism, replies in (("PLAIN", []), ("LOGIN", ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"])):
            self.begin(entry(EVE))
            self.talk("220 smart", "250-smart", "250 STARTTLS", "220 go", "250-smart")
            self.transport.clear()
            self.talk(f"250 AUTH {mechanism}", *replies)
            sent = self.transport.value().split()[-1].decode()
            self.talk(f"500 not understood: {sent} open sesame")
            trouble = self.done().trouble
            assert trouble is not None
            self.assertIn("500 not understood: (masked) (masked)", trouble.text)

    def test_echoed_password(self) -> None:
        """Nor does one that sends it back with no code before it, or with one that asks for more."""
        for mechanism, replies in (("PLAIN", []), ("LOGIN", ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"])):
            for code in ("", "334 "):
                self.begin(entry(EVE))
                self.talk("220 smart", "250-smart", "250 STARTTLS", "220 go", "250-smart")
                self.talk(f"250 AUTH {mechanism}", *replies)
                sent = self.transport.value().split()[-1].decode()
                self.talk(f"{code}{sent}")
                self.assertNotIn(sent, repr(self.done()))
        self.begin(entry(EVE))
        self.greet()
        self.talk("250 ok", "334 open sesame")
        self.assertEqual(self.done().outcomes[0].text, "334 (masked)")

    def test_asks_on(self) -> None:
        """A smarthost that wants one answer after the other gets user and password, once."""
        for mechanism, answers in (("LOGIN", 2), ("CRAM-MD5", 2)):
            self.begin(entry(EVE))
            self.talk("220 smart", "250-smart", "250 STARTTLS", "220 go", "250-smart")
            self.talk(f"250 AUTH {mechanism}")
            self.transport.clear()
            self.talk(*["334 PDEyQHNtYXJ0Pg=="] * 5)
            self.assertEqual(self.transport.value().count(b"\r\n"), answers)
            trouble = self.done().trouble
            assert trouble is not None
            self.assertIn("334 another challenge", trouble.text)
            self.assertFalse(self.transport.connected)

    def test_other_mechanisms(self) -> None:
        """One that offers none of those that are known gets no password; the reason says which they are."""
        for offered in ("AUTH GSSAPI NTLM XOAUTH2", "AUTH", "SIZE"):
            self.begin(entry(EVE))
            self.talk("220 smart", "250-smart", "250 STARTTLS", "220 go", "250-smart", f"250 {offered}")
            trouble = self.done().trouble
            assert trouble is not None
            self.assertIn("[PLAIN, LOGIN, CRAM-MD5]", trouble.text)
            self.assertNotIn(b"AUTH", self.transport.value())

    def test_login_later(self) -> None:
        """A login that cannot be judged now (454, 432, 421) is trouble that passes, no wrong password."""
        for reply in ("454 4.7.0 later", "432 4.7.12 change it", "421 bye"):
            for mechanism in ("PLAIN", "LOGIN"):
                self.begin(entry(EVE))
                self.talk("220 smart", "250-smart", "250 STARTTLS", "220 go", "250-smart")
                self.talk(f"250 AUTH {mechanism}", reply)
                trouble = self.done().trouble
                assert trouble is not None
                self.assertFalse(trouble.login, reply)

    def test_refused_by_each_mechanism(self) -> None:
        """Each is tried once, and what comes of it is a login that was refused."""
        for mechanism, replies in (
            ("PLAIN", ["535 no"]),
            ("LOGIN", ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "535 no"]),
            ("LOGIN", ["504 no such mechanism"]),
            ("CRAM-MD5", ["334 PDEyQHNtYXJ0Pg==", "535 no"]),
        ):
            self.begin(entry(EVE))
            self.talk("220 smart", "250-smart", "250 STARTTLS", "220 go", "250-smart")
            self.talk(f"250 AUTH {mechanism}", *replies)
            trouble = self.done().trouble
            assert trouble is not None
            self.assertTrue(trouble.login, mechanism)
            self.assertEqual(self.transport.value().count(b"AUTH"), 1)
            self.assertNotIn("sesame", repr(trouble))

    def test_any_case(self) -> None:
        """Keywords of EHLO may be in any case, and the server's name is none."""
        self.begin(entry(EVE))
        self.talk("220 smart", "250-auth PLAIN", "250 starttls", "220 go")
        self.talk("250-smart", "250 Auth plain")
        self.assertIn(b"AUTH PLAIN ", self.transport.value())

    def test_login_wanted(self) -> None:
        """A smarthost that wants a login behind MAIL bounces nothing either."""
        self.begin(entry(EVE))
        self.greet()
        self.talk("530 5.7.0 log in first")
        trouble = self.done().trouble
        assert trouble is not None
        self.assertTrue(trouble.login)
