"""The states of RFC 1939 and what each command means in each; refusals, limits, comings and goings."""

from __future__ import annotations

from itertools import product
from typing import Any, ClassVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.errors import (
    AuthenticationFailed,
    BadCommand,
    InUse,
    LoginDelay,
    MessageGone,
    NoSuchMailbox,
    Refusal,
    StoreTrouble,
)
from pop3toy.interfaces import After, Challenge, Channel, SessionRecord, TLSFacts
from pop3toy.pop3 import commands
from pop3toy.pop3.dispatch import TABLES, handle
from pop3toy.pop3.replies import Lines, Message, Status, encode
from pop3toy.pop3.session import Session, State

from ..pop3_world import FakeAuthenticator, ScriptedMailbox, Watcher

LOOPBACK = Channel("127.0.0.1", local=True)
DIGEST = b"0" * 32
MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"

#: A well-formed line for each command, and for each way to write it.
LINES = [
    b"STAT",
    b"LIST",
    b"LIST 1",
    b"UIDL",
    b"UIDL 1",
    b"RETR 1",
    b"TOP 1 0",
    b"DELE 1",
    b"NOOP",
    b"RSET",
    b"CAPA",
    b"STLS",
    b"USER ann",
    b"PASS pass",
    b"APOP ann " + DIGEST,
    b"AUTH",
    b"AUTH PLAIN",
    b"QUIT",
]


class SessionCase(SynchronousTestCase):
    """A session over a mailbox with two messages."""

    def setUp(self) -> None:
        self.mailbox = ScriptedMailbox({b"one": MESSAGE, b"two": b"A: b\n\n"})
        self.authenticator = FakeAuthenticator(self.mailbox, timestamp="<1@pop3toy>")
        self.authenticator.offered = ["PLAIN"]
        self.watcher = Watcher()
        self.record = SessionRecord(7, LOOPBACK)
        self.session = Session(self.authenticator, self.record, happened=self.watcher.happened)
        self.session.greet()

    def say(self, *lines: bytes) -> Any:
        """The reply to the last of these lines."""
        reply: Any = None
        for line in lines:
            reply = handle(self.session, self.session.parse(line))
        return reply

    def come_in(self) -> None:
        self.say(b"USER ann", b"PASS pass")
        self.assertIs(self.session.state, State.TRANSACTION)

    def shown(self, reply: Any) -> str:
        """A reply's first line, without its CRLF."""
        encoded = encode(reply)
        if not isinstance(encoded, bytes):
            encoded = cast(bytes, encoded.pull())
        return encoded.split(b"\r\n")[0].decode()


class EveryStateTests(SessionCase):
    """Each command in each state, written down in full."""

    BEFORE: ClassVar[dict[bytes, str]] = {
        **{
            line: f"-ERR {line.split()[0].decode()} is for after login"
            for line in LINES
            if line.split()[0] in (b"STAT", b"LIST", b"UIDL", b"RETR", b"TOP", b"DELE", b"NOOP", b"RSET")
        },
        b"CAPA": "+OK capability list follows",
        b"STLS": "-ERR TLS is not available here",
        b"USER ann": "+OK send PASS",
        b"PASS pass": "-ERR send USER first",
        b"APOP ann " + DIGEST: "+OK maildrop has 2 messages (32 octets)",
        b"AUTH": "+OK mechanisms follow",
        b"AUTH PLAIN": "+ ",
        b"QUIT": "+OK bye",
    }
    AFTER_USER: ClassVar[dict[bytes, str]] = {
        **BEFORE,
        b"PASS pass": "+OK maildrop has 2 messages (32 octets)",
    }
    WITHIN: ClassVar[dict[bytes, str]] = {
        **{
            line: f"-ERR {line.split()[0].decode()} is for before login"
            for line in LINES
            if line.split()[0] in (b"USER", b"PASS", b"APOP", b"AUTH", b"STLS")
        },
        b"STAT": "+OK 2 32",
        b"LIST": "+OK 2 messages (32 octets)",
        b"LIST 1": "+OK 1 24",
        b"UIDL": "+OK unique-id listing follows",
        b"UIDL 1": "+OK 1 one",
        b"RETR 1": "+OK 24 octets",
        b"TOP 1 0": "+OK top of message follows",
        b"DELE 1": "+OK message 1 deleted",
        b"NOOP": "+OK",
        b"RSET": "+OK maildrop has 2 messages (32 octets)",
        b"CAPA": "+OK capability list follows",
        b"QUIT": "+OK bye",
    }
    OVER: ClassVar[dict[bytes, str]] = dict.fromkeys(LINES, "-ERR the session is over")

    def assertAnswers(self, expected: dict[bytes, str], *first: bytes) -> None:
        """Each line gets its answer, in a session of its own that has heard ``first``."""
        self.assertEqual(set(expected), set(LINES))
        for line in LINES:
            self.setUp()
            self.authenticator.steps = [Challenge(b"")]
            self.mailbox.removal = Deferred()
            self.say(*first)
            self.assertEqual(self.shown(self.say(line)), expected[line], line)

    def test_every_command_is_here(self) -> None:
        """The lines of this test are of every command that there is."""
        self.assertEqual({line.split()[0].decode() for line in LINES}, set(commands.KEYWORDS))
        self.assertEqual({key for table in TABLES.values() for key in table}, set(commands.KEYWORDS))

    def test_authorization(self) -> None:
        """Before login."""
        self.assertAnswers(self.BEFORE)

    def test_authorization_after_user(self) -> None:
        """Between USER and PASS."""
        self.assertAnswers(self.AFTER_USER, b"USER ann")

    def test_transaction(self) -> None:
        """After login."""
        self.assertAnswers(self.WITHIN, b"USER ann", b"PASS pass")

    def test_update(self) -> None:
        """Behind a QUIT that is still at work."""
        self.assertAnswers(self.OVER, b"USER ann", b"PASS pass", b"DELE 1", b"QUIT")

    def test_closed(self) -> None:
        """Behind the farewell."""
        self.assertAnswers(self.OVER, b"QUIT")

    def test_malformed_in_every_state(self) -> None:
        """A line that does not parse is told what is wrong with it, and changes nothing."""
        for first in ([], [b"USER ann"], [b"USER ann", b"PASS pass"], [b"QUIT"]):
            for line, answer in {
                b"": "-ERR empty command",
                b"DELE x": "-ERR DELE takes a message number in decimal digits",
                b"QUIT now": "-ERR QUIT takes no argument",
                b"\0": "-ERR control characters are not allowed in a command",
            }.items():
                self.setUp()
                self.say(*first)
                before = self.session.state
                if line.startswith(b"DELE") and before is not State.TRANSACTION:
                    # Where it belongs comes before how it is written.
                    over = before is State.CLOSED
                    answer = "-ERR the session is over" if over else "-ERR DELE is for after login"
                elif line.startswith(b"QUIT") and before is State.CLOSED:
                    answer = "-ERR the session is over"
                self.assertEqual(self.shown(self.say(line)), answer)
                self.assertIs(self.session.state, before)

    def test_unknown(self) -> None:
        """What is no command is answered with the commands that work here and now, in one line of a reply."""
        here = "unknown command; here you can say"
        for first, answer in (
            ([], f"{here} USER, PASS, APOP, AUTH, CAPA, QUIT"),
            ([b"USER ann"], f"{here} USER, PASS, APOP, AUTH, CAPA, QUIT"),
            (
                [b"USER ann", b"PASS pass"],
                f"{here} STAT, LIST, RETR, DELE, NOOP, RSET, TOP, UIDL, CAPA, QUIT",
            ),
            ([b"QUIT"], "unknown command"),
        ):
            for line in (b"HELP", b"help", b"FOO"):
                self.setUp()
                self.say(*first)
                before = self.session.state
                self.assertEqual(self.shown(self.say(line)), f"-ERR {answer}")
                self.assertIs(self.session.state, before)
        longest = "; ".join((here + " " + ", ".join(commands.KEYWORDS), "too many bad commands, goodbye"))
        self.assertLess(len(f"-ERR {longest}\r\n"), limits.REPLY_LINE)

    def test_unknown_names_what_works(self) -> None:
        """The commands that are named do not answer that they cannot be had here; the others do."""
        tls = Channel("192.0.2.1", False, TLSFacts("TLSv1.3", "x"))
        for clear, timestamp, offered, channel, can_start_tls in product(
            (True, False), ("<1@pop3toy>", None), (["PLAIN"], []), (LOOPBACK, tls), (True, False)
        ):
            authenticator = FakeAuthenticator(timestamp=timestamp)
            authenticator.clear, authenticator.offered = clear, offered
            record = SessionRecord(7, channel)
            self.session = Session(authenticator, record)
            self.session.can_start_tls = can_start_tls
            self.session.greet()
            named = self.shown(self.say(b"HELP")).partition(" say ")[2].split(", ")
            expected = {
                "USER": clear,
                "PASS": clear,
                "APOP": timestamp is not None,
                "AUTH": bool(offered),
                "CAPA": True,
                "STLS": can_start_tls and channel.tls is None,
                "QUIT": True,
            }
            self.assertEqual(named, [word for word, works in expected.items() if works])
        self.setUp()
        self.mailbox.read_only = True
        self.come_in()
        self.assertNotIn("DELE", self.shown(self.say(b"HELP")))


class LoginTests(SessionCase):
    """RFC 1939 sections 4 and 7: who comes in, and how it is refused."""

    def test_greeting(self) -> None:
        """The timestamp stands in the greeting where APOP works, and only there."""
        self.assertEqual(self.shown(self.session.greet()), "+OK pop3toy ready <1@pop3toy>")
        session = Session(FakeAuthenticator(), SessionRecord(1, LOOPBACK), happened=self.watcher.happened)
        self.assertEqual(self.shown(session.greet()), "+OK pop3toy ready")

    def test_user_tells_nothing(self) -> None:
        """USER is answered the same for every name."""
        self.assertEqual(
            {self.say(b"USER " + name) for name in (b"ann", b"nobody", b"\xff", b"a b")},
            {self.say(b"USER x")},
        )

    def test_refusals_have_their_codes(self) -> None:
        """Each kind of refusal has its response code, and the words that clients look for."""
        for trouble, line in {
            AuthenticationFailed(): "-ERR [AUTH] invalid user name or password",
            InUse(): "-ERR [IN-USE] maildrop is locked by another session",
            LoginDelay(): "-ERR [LOGIN-DELAY] please wait before the next login",
            StoreTrouble(detail="/secret"): "-ERR [SYS/TEMP] maildrop is not available at the moment",
            NoSuchMailbox(): "-ERR [SYS/TEMP] maildrop is not available at the moment",
            Refusal("no"): "-ERR no",
        }.items():
            self.setUp()
            self.authenticator.trouble = trouble
            reply = self.say(b"USER ann", b"PASS pass")
            self.assertEqual(self.shown(reply), line)
            self.assertIs(reply.after, After.GO_ON)
            self.assertIs(self.session.state, State.AUTHORIZATION)
            self.assertEqual(self.watcher.failures, [("ann", "USER", trouble.code or "refused")])

    def test_late_refusals_are_the_same(self) -> None:
        """A refusal that comes late is answered and counted like one that comes at once."""
        self.authenticator.later = True
        reply = self.say(b"USER ann", b"PASS wrong")
        self.authenticator.waiting.pop().errback(AuthenticationFailed())
        self.assertEqual(self.shown(self.successResultOf(reply)), "-ERR [AUTH] invalid user name or password")
        self.assertEqual(self.watcher.failures, [("ann", "USER", "AUTH")])

    def test_bugs_are_counted_too(self) -> None:
        """A checker that breaks counts as a failed login, at once or late."""
        self.authenticator.trouble = ValueError("secret")
        self.say(b"USER ann", b"PASS pass")
        self.authenticator.later = True
        self.say(b"USER ann", b"PASS pass")
        self.authenticator.waiting.pop().errback(ValueError("secret"))
        self.assertEqual(self.watcher.failures, [("ann", "USER", "SYS/TEMP")] * 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_user_is_used_up(self) -> None:
        """After a failed PASS a new USER is needed."""
        self.say(b"USER ann", b"PASS wrong")
        self.assertEqual(self.shown(self.say(b"PASS pass")), "-ERR send USER first")
        self.come_in()

    def test_user_survives_a_question(self) -> None:
        """CAPA between USER and PASS does no harm, nor does a PASS that does not parse."""
        self.assertEqual(
            self.shown(self.say(b"USER ann", b"CAPA", b"PASS", b"PASS pass")),
            "+OK maildrop has 2 messages (32 octets)",
        )

    def test_pass_directly_behind_user(self) -> None:
        """Behind any other line than CAPA between USER and PASS a new USER is needed."""
        for line in (*LINES, b"FOO", b"", b"\0", b"AUTH LOGIN", b"USER", b"DELE x", b"x" * 300):
            if line in (b"CAPA", b"USER ann", b"PASS pass", b"APOP ann " + DIGEST, b"QUIT"):
                continue
            self.setUp()
            self.authenticator.steps = [AuthenticationFailed()]
            reply = self.say(b"USER ann", line, b"PASS pass")
            self.assertEqual(self.shown(reply), "-ERR send USER first", line)
            self.come_in()

    def test_too_long_behind_user(self) -> None:
        """So it is behind a line of which too much came to keep it."""
        self.say(b"USER ann")
        handle(self.session, self.session.too_long())
        self.assertEqual(self.shown(self.say(b"PASS pass")), "-ERR send USER first")

    def test_another_way_in_forgets_user(self) -> None:
        """APOP and AUTH begin anew: a USER before them is forgotten."""
        for line in (b"APOP ann " + b"1" * 32, b"AUTH PLAIN"):
            self.setUp()
            self.authenticator.steps = [AuthenticationFailed()]
            self.say(b"USER ann", line)
            self.assertEqual(self.shown(self.say(b"PASS pass")), "-ERR send USER first")

    def test_last_user_counts(self) -> None:
        """USER twice: PASS belongs to the second."""
        self.say(b"USER bob", b"USER ann", b"PASS wrong")
        self.assertEqual(self.watcher.failures[0][0], "ann")

    def test_connection_stays_after_a_bad_password(self) -> None:
        """A bad password costs nothing but its answer, up to the limit, and then a farewell."""
        replies = [self.say(b"USER ann", b"PASS wrong") for _ in range(limits.FAILED_LOGINS)]
        self.assertEqual([reply.after for reply in replies[:-1]], [After.GO_ON] * (limits.FAILED_LOGINS - 1))
        self.assertIs(replies[-1].after, After.CLOSE)
        self.assertEqual(
            [self.shown(reply) for reply in replies[-2:]],
            [
                "-ERR [AUTH] invalid user name or password",
                "-ERR [AUTH] invalid user name or password; too many failed logins, goodbye",
            ],
        )
        self.assertEqual(self.record.ended, "limit")
        self.assertIs(self.session.state, State.CLOSED)

    def test_last_failure_says_so(self) -> None:
        """The failed login that ends the connection says so, whichever way in it was, at once or late."""
        farewell = "-ERR [AUTH] invalid user name or password; too many failed logins, goodbye"
        late = defer.fail(AuthenticationFailed())
        refusing = Challenge(b"{}", AuthenticationFailed())
        for line, steps in (
            (b"PASS wrong", []),
            (b"APOP ann " + b"1" * 32, []),
            (b"AUTH PLAIN AA==", [AuthenticationFailed()]),
            (b"AUTH PLAIN AA==", [late]),
            (b"AA==", [refusing]),
            (b"*", [refusing]),
        ):
            self.setUp()
            for _ in range(limits.FAILED_LOGINS - 1):
                self.say(b"USER ann", b"PASS wrong")
            self.authenticator.steps = steps
            reply = self.say(b"AUTH PLAIN" if steps == [refusing] else b"USER ann", line)
            reply = self.successResultOf(reply) if isinstance(reply, Deferred) else reply
            self.assertEqual(self.shown(reply), farewell, line)
            self.assertIs(reply.after, After.CLOSE)

    def test_trouble_is_no_failed_login(self) -> None:
        """A store in trouble does not use up the client's patience."""
        self.authenticator.trouble = StoreTrouble()
        for _ in range(3 * limits.FAILED_LOGINS):
            self.assertIs(self.say(b"USER ann", b"PASS pass").after, After.GO_ON)

    def test_no_clear_text(self) -> None:
        """Where clear text is not taken, USER says so before a password is sent, and PASS is refused."""
        self.authenticator.clear = False
        for line in (b"USER ann", b"PASS pass"):
            self.assertEqual(
                self.shown(self.say(line)), "-ERR clear-text passwords are not taken here without TLS"
            )

    def test_no_apop(self) -> None:
        """Without a timestamp in the greeting there is no APOP."""
        session = Session(
            FakeAuthenticator(self.mailbox), SessionRecord(1, LOOPBACK), happened=self.watcher.happened
        )
        session.greet()
        reply = handle(session, session.parse(b"APOP ann " + DIGEST))
        self.assertEqual(self.shown(reply), "-ERR APOP is not available here")

    def test_record(self) -> None:
        """Whoever is in stands in the record, and how."""
        self.say(b"APOP ann " + DIGEST)
        self.assertEqual((self.record.user, self.record.mechanism), ("ann", "APOP"))
        self.assertEqual([login.user for login in self.watcher.logins], ["ann"])

    def test_a_mailbox_without_a_listing(self) -> None:
        """A mailbox whose entries cannot be had is released, and the session stays before login."""

        class Broken(ScriptedMailbox):
            @property
            def entries(self) -> Any:
                raise KeyError("entries")

            @entries.setter
            def entries(self, value: Any) -> None:
                pass

        self.authenticator.mailbox = mailbox = Broken()
        self.assertTrue(self.shown(self.say(b"USER ann", b"PASS pass")).startswith("-ERR [SYS/TEMP]"))
        self.authenticator.steps = [self.authenticator.login("PLAIN")]
        self.assertTrue(self.shown(self.say(b"AUTH PLAIN")).startswith("-ERR [SYS/TEMP]"))
        self.assertEqual(mailbox.released, 2)
        self.assertEqual(
            self.shown(self.say(b"STAT")), "-ERR STAT is for after login", "the exchange is over"
        )
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)


class ExchangeTests(SessionCase):
    """RFC 5034: the dialogue of AUTH."""

    def heard(self) -> list[bytes | None]:
        return self.authenticator.exchanges[-1].heard

    def test_list(self) -> None:
        """AUTH without an argument lists the mechanisms, also when there is none."""
        for offered, lines in ((["PLAIN", "LOGIN"], b"PLAIN\r\nLOGIN\r\n"), ([], b"")):
            self.authenticator.offered = offered
            stream = encode(self.say(b"AUTH "))
            assert not isinstance(stream, bytes)
            self.assertEqual(stream.pull(), b"+OK mechanisms follow\r\n" + lines + b".\r\n")
            self.assertTrue(stream.done)

    def test_initial_response(self) -> None:
        """None, an empty one and one with octets are told apart."""
        for line, response in (
            (b"AUTH PLAIN", None),
            (b"AUTH PLAIN =", b""),
            (b"auth plain AGEAYg==", b"\0a\0b"),
        ):
            self.setUp()
            self.authenticator.steps = [Challenge(b"x")]
            self.assertEqual(self.shown(self.say(line)), "+ eA==")
            self.assertEqual(self.heard(), [response])

    def test_login(self) -> None:
        """Challenges and responses go on until somebody is in, at once or late."""
        late: Deferred[Any] = Deferred()
        self.authenticator.steps = [Challenge(b"one"), Challenge(b"two"), late]
        self.say(b"AUTH PLAIN", b"QQ==", b"")
        late.callback(self.authenticator.login("PLAIN"))
        self.assertEqual(self.heard(), [None, b"A", b""])
        self.assertIs(self.session.state, State.TRANSACTION)
        self.assertEqual(self.record.mechanism, "PLAIN")
        self.assertEqual(self.shown(self.say(b"STAT")), "+OK 2 32", "lines are commands again")

    def test_cancel(self) -> None:
        """``*`` ends it with -ERR; the next line is a command."""
        self.authenticator.steps = [Challenge(b"")]
        self.assertEqual(self.shown(self.say(b"AUTH PLAIN", b"*")), "-ERR authentication cancelled")
        self.assertEqual(self.authenticator.exchanges[0].cancelled, 1)
        self.assertEqual((self.watcher.failures, self.session.failed_logins), ([], 0), "no failed login")
        self.assertEqual(self.shown(self.say(b"CAPA")), "+OK capability list follows")

    def test_a_command_is_a_response(self) -> None:
        """Within an exchange a line is a response, even if it looks like a command."""
        self.authenticator.steps = [Challenge(b""), Challenge(b"")]
        self.say(b"AUTH PLAIN", b"QUIT")
        self.assertEqual(self.heard()[1], b"\x41\x42\x13")

    def test_not_base64(self) -> None:
        """What is not base64 ends the exchange, in the first line as well."""
        for lines in ((b"AUTH PLAIN", b"?"), (b"AUTH PLAIN ?",), (b"AUTH PLAIN A=",)):
            self.setUp()
            self.authenticator.steps = [Challenge(b"")]
            self.assertEqual(
                self.shown(self.say(*lines)), "-ERR this is not base64, authentication cancelled"
            )
            self.assertEqual(self.authenticator.exchanges[0].cancelled, 1)
            self.assertIsNone(self.session.exchange)
            self.assertEqual((self.watcher.failures, self.session.failed_logins), ([], 0))

    def test_too_long(self) -> None:
        """A response that is too long ends the exchange."""
        self.authenticator.steps = [Challenge(b"")]
        self.say(b"AUTH PLAIN")
        reply = handle(self.session, self.session.too_long())
        self.assertEqual(self.shown(reply), "-ERR line too long, authentication cancelled")
        self.assertIsNone(self.session.exchange)
        self.assertEqual(self.authenticator.exchanges[0].cancelled, 1)

    def test_too_long_after_a_refusal(self) -> None:
        """A line that is too long, behind a challenge that said why it failed, counts as any other line."""
        refusal = AuthenticationFailed("the token was not accepted")
        for count in range(1, limits.FAILED_LOGINS + 1):
            self.authenticator.steps = [Challenge(b"{}", refusal)]
            self.say(b"AUTH PLAIN QQ==")
            reply = handle(self.session, self.session.too_long())
            self.assertTrue(self.shown(reply).startswith("-ERR [AUTH] the token was not accepted"))
            self.assertEqual((self.session.failed_logins, self.session.exchange), (count, None))
        self.assertIs(self.session.state, State.CLOSED)

    def test_refused(self) -> None:
        """A refusal ends the exchange, is answered with its code and counted under the claimed name."""
        late: Deferred[Any] = Deferred()
        for step in (AuthenticationFailed(), late):
            self.setUp()
            self.authenticator.steps = [Challenge(b""), step]
            self.say(b"AUTH PLAIN")
            self.authenticator.exchanges[0].user = "ann"
            reply = self.say(b"QQ==")
            if step is late:
                late.errback(AuthenticationFailed())
                reply = self.successResultOf(reply)
            self.assertEqual(self.shown(reply), "-ERR [AUTH] invalid user name or password")
            self.assertEqual(self.watcher.failures, [("ann", "PLAIN", "AUTH")])
            self.assertIsNone(self.session.exchange)

    def test_refusal_explained(self) -> None:
        """A challenge that explains a refusal is logged at once, and any line behind it gets -ERR [AUTH]."""
        for line in (b"*", b"AQ==", b"", b"no base64"):
            self.setUp()
            refusal = AuthenticationFailed("the token was not accepted")
            self.authenticator.steps = [Challenge(b"{}", refusal)]
            self.say(b"AUTH PLAIN QQ==")
            self.assertEqual(self.watcher.failures, [("", "PLAIN", "AUTH")])
            self.assertEqual(self.shown(self.say(line)), "-ERR [AUTH] the token was not accepted")
            self.assertEqual((len(self.watcher.failures), self.session.failed_logins), (1, 1))
            self.assertIsNone(self.session.exchange)
            self.authenticator.steps = [Challenge(b"")]
            self.say(b"AUTH PLAIN")
            self.assertEqual(self.shown(self.say(b"*")), "-ERR authentication cancelled")

    def test_not_offered(self) -> None:
        """A mechanism that is not offered on this connection is refused, and no exchange begins."""
        self.assertEqual(self.shown(self.say(b"AUTH CRAM-MD5")), "-ERR this mechanism is not available here")
        self.assertIsNone(self.session.exchange)


class TransactionTests(SessionCase):
    """RFC 1939 section 5."""

    def setUp(self) -> None:
        super().setUp()
        self.come_in()

    def test_deleted_is_nowhere(self) -> None:
        """After DELE every command that names the message is refused, and no listing has it."""
        self.say(b"DELE 1")
        for line in (b"RETR 1", b"TOP 1 0", b"DELE 1", b"LIST 1", b"UIDL 1"):
            self.assertEqual(self.shown(self.say(line)), "-ERR message 1 is already deleted", line)
        self.assertEqual(self.shown(self.say(b"STAT")), "+OK 1 8")
        self.assertEqual(b"".join(cast(Lines, self.say(b"LIST")).blocks), b"2 8\r\n")
        self.assertEqual(b"".join(cast(Lines, self.say(b"UIDL")).blocks), b"2 two\r\n")
        self.assertEqual(self.shown(self.say(b"LIST 2")), "+OK 2 8")

    def test_reset(self) -> None:
        """RSET takes all marks back; QUIT then removes nothing."""
        self.say(b"DELE 1", b"DELE 2", b"RSET")
        self.assertEqual(self.shown(self.say(b"STAT")), "+OK 2 32")
        self.say(b"QUIT")
        self.assertEqual(self.mailbox.removed, [])

    def test_read_only(self) -> None:
        """From a mailbox that says it is read-only nothing can be marked, and QUIT ends well."""
        self.mailbox.read_only = True
        for _ in range(50):
            reply = self.say(b"DELE 1")
            self.assertEqual(self.shown(reply), "-ERR this maildrop is read-only")
            self.assertIs(reply.after, After.GO_ON)
        self.assertEqual(self.shown(self.say(b"DELE 3")), "-ERR no such message, only 2 in maildrop")
        self.assertEqual(self.shown(self.say(b"STAT")), "+OK 2 32")
        self.assertEqual(self.shown(self.say(b"QUIT")), "+OK bye")

    def test_numbers(self) -> None:
        """0 and too large have sentences of their own."""
        for keyword in (b"RETR %d", b"DELE %d", b"LIST %d", b"UIDL %d", b"TOP %d 1"):
            self.assertEqual(self.shown(self.say(keyword % 0)), "-ERR message numbers start at 1")
            self.assertEqual(self.shown(self.say(keyword % 3)), "-ERR no such message, only 2 in maildrop")

    def test_retr(self) -> None:
        """RETR and TOP open the message by its unique-id, and give its body on."""
        reply = cast(Message, self.say(b"RETR 2"))
        self.assertEqual((reply.text, reply.body_lines), ("8 octets", None))
        self.assertEqual(cast(Message, self.say(b"TOP 2 5")).body_lines, 5)
        self.assertEqual(len(self.mailbox.bodies), 2)

    def test_gone(self) -> None:
        """A message that vanished behind the lock is -ERR, at once or late, and the session goes on."""
        for answer in (MessageGone(detail="unlinked"), StoreTrouble()):
            self.mailbox._messages[b"one"] = self._raiser(answer)
            self.assertTrue(self.shown(self.say(b"RETR 1")).startswith("-ERR"))
            late: Deferred[Any] = Deferred()
            self.mailbox._messages[b"one"] = self._giver(late)
            reply = self.say(b"TOP 1 0")
            late.errback(answer)
            self.assertTrue(self.shown(self.successResultOf(reply)).startswith("-ERR"))
        self.assertEqual(self.shown(self.say(b"NOOP")), "+OK")

    @staticmethod
    def _raiser(error: Exception) -> Any:
        def read() -> None:
            raise error

        return read

    @staticmethod
    def _giver(answer: Any) -> Any:
        return lambda: answer


class UpdateTests(SessionCase):
    """RFC 1939 section 6: QUIT in TRANSACTION, and nothing else, removes."""

    def setUp(self) -> None:
        super().setUp()
        self.come_in()

    def test_removes_the_marked(self) -> None:
        """Exactly what is marked is removed; then the lock is free and the session over."""
        reply = self.say(b"DELE 2", b"QUIT")
        self.assertEqual(reply, Status(True, "bye, 1 message removed", after=After.CLOSE))
        self.assertEqual(self.mailbox.removed, [[b"two"]])
        self.assertEqual((self.mailbox.released, self.record.removed, self.record.ended), (1, 1, "quit"))
        self.assertIs(self.session.state, State.CLOSED)

    def test_nothing_marked(self) -> None:
        """Without marks the store is not asked to remove anything."""
        self.assertEqual(self.say(b"QUIT"), Status(True, "bye", after=After.CLOSE))
        self.assertEqual((self.mailbox.removed, self.mailbox.released), ([], 1))

    def test_not_handed_over(self) -> None:
        """What was fetched and did not leave is not removed, nor is anything else; the lock is free."""
        for later in (False, True):
            for fetched in (b"RETR 1", b"TOP 2 0"):
                answer: Any = Deferred() if later else False
                self.session.handed_over = lambda answer=answer: answer
                reply = self.say(fetched, b"DELE 1", b"DELE 2", b"QUIT")
                if later:
                    self.assertNoResult(reply)
                    self.assertEqual(self.mailbox.released, 0)
                    answer.callback(False)
                    reply = self.successResultOf(reply)
                self.assertEqual((reply.ok, reply.code, reply.after), (False, "SYS/TEMP", After.CLOSE))
                self.assertEqual((self.mailbox.removed, self.mailbox.released), ([], 1))
                self.assertEqual(self.record.ended, "dropped")
                self.assertIs(self.session.state, State.CLOSED)
                self.setUp()

    def test_handed_over(self) -> None:
        """The removal begins when what was fetched has left; without RETR or TOP it is not asked for."""
        asked: list[Deferred[bool]] = []
        self.session.handed_over = lambda: asked.append(Deferred()) or asked[-1]
        reply = self.say(b"RETR 1", b"DELE 1", b"QUIT")
        self.assertEqual(self.mailbox.removed, [])
        asked[0].callback(True)
        self.assertEqual(self.successResultOf(reply).text, "bye, 1 message removed")
        self.assertEqual(self.mailbox.removed, [[b"one"]])
        self.setUp()
        self.session.handed_over = lambda: asked.append(Deferred()) or asked[-1]
        self.assertEqual(self.say(b"DELE 1", b"QUIT").text, "bye, 1 message removed")
        self.assertEqual(len(asked), 1)

    def test_gone_before_it_was_handed_over(self) -> None:
        """A client that goes while its QUIT waits has removed nothing, whatever is said later."""
        answer: Deferred[bool] = Deferred()
        self.session.handed_over = lambda: answer
        reply = self.say(b"RETR 1", b"DELE 1", b"QUIT")
        self.session.end()
        answer.callback(True)
        self.assertFalse(self.successResultOf(reply).ok)
        self.assertEqual((self.mailbox.removed, self.mailbox.released), ([], 1))

    def test_tells_that_it_ends(self) -> None:
        """Others are told that the session is ending when it enters UPDATE, and not before."""
        told: list[State] = []
        assert self.session.login is not None
        self.session.login = self.session.login._replace(ending=lambda: told.append(self.session.state))
        self.mailbox.removal = Deferred()
        self.say(b"DELE 1")
        self.assertEqual(told, [])
        self.say(b"QUIT")
        self.assertEqual(told, [State.UPDATE])

    def test_the_lock_is_free_before_the_answer(self) -> None:
        """While the removal runs the lock is held; it is free when the answer is there."""
        self.mailbox.removal = removal = Deferred[None]()
        reply = self.say(b"DELE 1", b"QUIT")
        self.assertEqual(self.mailbox.released, 0)
        released: list[int] = []
        reply.addCallback(lambda status: released.append(self.mailbox.released) or status)
        removal.callback(None)
        self.assertEqual(released, [1])

    def test_fails(self) -> None:
        """A removal that fails, at once or late, is [SYS/TEMP]; the session ends and the lock is free."""
        late: Deferred[None] = Deferred()
        for removal in (StoreTrouble("/secret", detail="disk full"), late):
            self.setUp()
            self.mailbox.removal = removal
            reply = self.say(b"DELE 1", b"QUIT")
            if removal is late:
                late.errback(StoreTrouble("/secret"))
                reply = self.successResultOf(reply)
            self.assertEqual(
                reply, Status(False, "some deleted messages not removed", "SYS/TEMP", After.CLOSE)
            )
            self.assertEqual((self.mailbox.released, self.record.removed, self.record.ended), (1, 0, "quit"))


class PatienceTests(SessionCase):
    """RFC 1939 leaves it open how often a client may be wrong; here it is counted in a row."""

    def wrong(self, line: bytes, times: int) -> list[After]:
        replies = [self.say(line) for _ in range(times)]
        self.texts = [self.shown(reply) for reply in replies]
        return [reply.after for reply in replies]

    def test_before_login(self) -> None:
        """Ten bad commands in a row end the session of a stranger."""
        answers = self.wrong(b"FOO", 10)
        *_, before, last = self.texts
        self.assertTrue(before.startswith("-ERR unknown command; "))
        self.assertEqual(last, f"{before}; too many bad commands, goodbye")
        self.assertEqual(answers, [After.GO_ON] * 9 + [After.CLOSE])
        self.assertEqual(self.record.ended, "limit")

    def test_after_login(self) -> None:
        """Twenty end one that is logged in; the lock is free and nothing is removed."""
        self.come_in()
        self.say(b"DELE 1")
        self.assertEqual(self.wrong(b"RETR 9", 20), [After.GO_ON] * 19 + [After.CLOSE])
        self.assertEqual(
            self.texts[-2:],
            [
                "-ERR no such message, only 2 in maildrop",
                "-ERR no such message, only 2 in maildrop; too many bad commands, goodbye",
            ],
        )
        self.assertEqual((self.mailbox.released, self.mailbox.removed), (1, []))

    def test_in_a_row(self) -> None:
        """A good command in between begins the count anew, also one that is answered late."""
        for _ in range(5):
            self.assertNotIn(After.CLOSE, self.wrong(b"FOO", 9))
            self.say(b"CAPA")
        self.authenticator.later = True
        self.wrong(b"FOO", 8)
        self.say(b"USER ann", b"PASS pass")
        self.authenticator.let_in()
        self.assertNotIn(After.CLOSE, self.wrong(b"FOO", 19))

    def test_cancelled_exchanges_count(self) -> None:
        """AUTH and ``*`` for ever is no way to stay."""
        ended = False
        for _ in range(100):
            self.authenticator.steps = [Challenge(b"")]
            self.say(b"AUTH PLAIN")
            if self.say(b"*").after is After.CLOSE:
                ended = True
                break
        self.assertTrue(ended)


class SecretTests(SessionCase):
    """Nothing that a client or a store says reaches anybody it is not meant for."""

    def test_no_exception_text(self) -> None:
        """A bug's text is in the log, not in the answer."""
        self.authenticator.trouble = RuntimeError("postgres://admin:hunter2@db")
        reply = self.shown(self.say(b"USER ann", b"PASS pass"))
        self.assertEqual(reply, "-ERR [SYS/TEMP] internal error, the administrator has been told")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_no_detail(self) -> None:
        """A refusal's detail is for the log alone."""
        self.authenticator.trouble = StoreTrouble("try later", detail="/srv/mail/ann: Input/output error")
        self.assertEqual(self.shown(self.say(b"USER ann", b"PASS pass")), "-ERR [SYS/TEMP] try later")

    def test_the_administrator_reads_the_detail(self) -> None:
        """The log has the detail, and whom it is about, at once or late, before login and after."""
        late: Deferred[Any] = Deferred()
        with capturedLogs() as logs:
            self.authenticator.trouble = StoreTrouble(detail="no Maildir at /srv/mail/ann")
            self.say(b"USER ann", b"PASS pass")
            self.authenticator.steps = [late]
            self.say(b"AUTH PLAIN")
            self.authenticator.exchanges[0].user = "bob" + "b" * 5000
            late.errback(StoreTrouble(detail="no Maildir at /srv/mail/bob"))
            self.authenticator.trouble = None
            self.come_in()
            self.mailbox.removal = StoreTrouble(detail="disk full")
            self.say(b"DELE 1", b"QUIT")
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(lines[0][:28], "session 7, user 'ann': maild")
        self.assertTrue(lines[0].endswith(": no Maildir at /srv/mail/ann"))
        self.assertTrue(lines[1].startswith("session 7, user 'bobbb"))
        self.assertLess(len(lines[1]), 500)
        self.assertEqual(lines[2], "session 7, user 'ann': some deleted messages not removed: disk full")

    def test_password_behind_the_name(self) -> None:
        """What stands behind a name that is not let in may be a password: neither meter nor log has it."""
        for step, lines in (
            (None, (b"USER ann hunter2", b"PASS x")),
            (None, (b"USER ann:hunter2", b"PASS x")),
            ("\0ann\0hunter2", (b"AUTH LOGIN",)),
            ("ann hunter2", (b"AUTH LOGIN",)),
        ):
            self.setUp()
            self.authenticator.offered = ["LOGIN"]
            trouble = StoreTrouble(detail="a disk fell out")
            if step is None:
                self.authenticator.trouble = trouble
            else:
                late: Deferred[Any] = Deferred()
                self.authenticator.steps = [late]
            with capturedLogs() as logs:
                self.say(*lines)
                if step is not None:
                    self.authenticator.exchanges[0].user = step
                    late.errback(trouble)
            self.assertEqual(len(self.watcher.failures), 1)
            self.assertEqual(len(logs), 1)
            self.assertNotIn("hunter2", repr(self.watcher.failures) + formatEvent(logs[0]))

    def test_no_client_octets(self) -> None:
        """No answer to a mistake repeats what the client sent."""
        for line in (b"XYZZY", b"RETR xyzzy", b"USER", b"AUTH XYZZY", b"AUTH PLAIN xyzzy!", b"NOOP xyzzy"):
            self.assertNotIn("xyzzy", self.shown(self.say(line)).lower())


class TLSTests(SessionCase):
    """RFC 2595 section 4, as far as it is the session's."""

    def setUp(self) -> None:
        super().setUp()
        self.session.can_start_tls = True

    def test_forgets_what_was_said(self) -> None:
        """A USER in clear text is forgotten behind STLS, and STLS is offered no more."""
        self.assertIs(self.say(b"USER ann", b"STLS").after, After.START_TLS)
        self.session.restart(Channel("192.0.2.1", False, TLSFacts("TLSv1.3", "x")))
        self.assertEqual(self.shown(self.say(b"PASS pass")), "-ERR send USER first")
        self.assertEqual(self.shown(self.say(b"STLS")), "-ERR TLS is already active")

    def test_not_after_login(self) -> None:
        """STLS is for before login."""
        self.come_in()
        self.assertEqual(self.shown(self.say(b"STLS")), "-ERR STLS is for before login")


class GoneTests(SessionCase):
    """The client went away."""

    def test_twice(self) -> None:
        """Losing a session twice releases once."""
        self.come_in()
        self.session.end()
        self.session.end()
        self.assertEqual(self.mailbox.released, 1)

    def test_too_late(self) -> None:
        """A login that comes after the end is logged out, and closes."""
        self.authenticator.later = True
        reply = self.say(b"USER ann", b"PASS pass")
        self.session.end()
        self.authenticator.let_in()
        self.assertEqual(self.successResultOf(reply), Status(False, "too late", after=After.CLOSE))
        self.assertEqual((self.mailbox.released, self.watcher.logins), (1, []))

    def test_a_refusal_knows_its_line(self) -> None:
        """Each refusal's own sentence is ASCII on one line."""
        for kind in (BadCommand, AuthenticationFailed, InUse, LoginDelay, StoreTrouble, MessageGone):
            refusal = kind()
            self.assertTrue(refusal.text.isascii() and refusal.text.isprintable())
            self.assertEqual(str(refusal), refusal.text)
