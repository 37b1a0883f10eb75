"""The states of a session and what each command means in each; without a connection."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import OverQuota, StoreTrouble
from pop3toy.events import Delivered, LoggedIn, LoginFailed, Refused
from pop3toy.interfaces import LATER, After, Challenge, Channel, IDelivery, SessionRecord, TLSFacts
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.smtp import commands, limits
from pop3toy.smtp.commands import Command, Malformed, Response
from pop3toy.smtp.policies import LMTP, SMTP, SUBMISSION
from pop3toy.smtp.replies import Replies, Reply, encode
from pop3toy.smtp.session import Options, Policy, Session, State
from pop3toy.stores.memory import MemoryStore

from ..pop3_world import Watcher
from ..smtp_world import Accounts, Slow, find_in

POLICIES = (SMTP, SUBMISSION, LMTP)
LOOPBACK = Channel("127.0.0.1", local=True)
ANN = b64encode(b"\0ann\0nna")

#: A well-formed line for each verb.
LINES = {
    "AUTH": b"AUTH PLAIN " + ANN,
    "DATA": b"DATA",
    "EHLO": b"EHLO me",
    "HELO": b"HELO me",
    "HELP": b"HELP",
    "LHLO": b"LHLO me",
    "MAIL": b"MAIL FROM:<ann@example.org>",
    "NOOP": b"NOOP",
    "QUIT": b"QUIT",
    "RCPT": b"RCPT TO:<bob@example.org>",
    "RSET": b"RSET",
    "STARTTLS": b"STARTTLS",
    "VRFY": b"VRFY ann",
}

#: How to come into each state in which there are commands.
WAYS: dict[State, tuple[str, ...]] = {
    State.BEFORE_HELLO: (),
    State.READY: ("hello",),
    State.MAIL: ("hello", "AUTH", "MAIL"),
    State.RECIPIENTS: ("hello", "AUTH", "MAIL", "RCPT"),
}


class Visited:
    """A place among those that are counted, which writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def logged_in(self) -> None:
        self.told.append("logged in")

    def idle(self) -> None:
        self.told.append("idle")

    def release(self) -> None:
        self.told.append("released")


class Talk:
    """A session, and what is said to it."""

    def __init__(self, policy: Policy, delivery: Any = None, **options: Any) -> None:
        self.delivery = Slow() if delivery is None else delivery
        self.accounts = Accounts()
        self.watcher = Watcher(Delivered, Refused, LoggedIn, LoginFailed)
        recipients = RecipientResolver(find_in("ann", "bob", "cat"), domains=("example.org",))
        self.session = Session(
            policy,
            Options(
                cast(IDelivery, self.delivery), recipients, "mx", lambda: 0.0,
                authenticator=cast(Any, self.accounts), **options,
            ),
            SessionRecord(1, LOOPBACK),
            happened=self.watcher.happened,
        )  # fmt: skip
        self.session.slot = self.slot = Visited()

    def say(self, line: bytes, crlf: bool = True) -> Any:
        """What is answered at once, or ``None``."""
        session = self.session
        return self.result(session.handle(session.parse(line, crlf)))

    def text(self, data: bytes) -> Any:
        """The same for octets of a message."""
        return self.result(self.session.text_received(data)[1])

    def result(self, answer: Any) -> Any:
        if isinstance(answer, Deferred):
            self.later: list[Any] = []
            answer.addBoth(self.later.append)
            return self.later[0] if self.later else None
        return answer

    def reach(self, *words: str) -> Talk:
        """Say these commands, and the hello of the policy for ``hello``."""
        for word in words:
            if word == "hello":
                word = self.session.policy.hello
            if word in self.session.policy.verbs:
                code = self.say(LINES[word]).code
                assert code < 400, (word, code)
        return self

    def message(self, text: bytes = b"a: b\r\n.\r\n") -> Any:
        """A whole message behind RCPT, as fast as the delivery is."""
        self.reach("DATA")
        answer = self.text(text)
        while self.delivery.waiting:
            self.delivery.go_on()
        return answer if answer is not None else self.later[0]


def codes(answer: Any) -> list[int]:
    """The codes of a reply, or of several."""
    return [reply.code for reply in answer.replies] if isinstance(answer, Replies) else [answer.code]


class EveryStateTests(SynchronousTestCase):
    """Each verb in each state, on each kind of port."""

    def test_every_verb_has_a_line(self) -> None:
        """These tests leave no verb out, and the tables no state."""
        self.assertEqual(set(LINES), set().union(*(policy.verbs for policy in POLICIES)))
        for policy in POLICIES:
            self.assertEqual(set(policy.tables), set(State))

    def test_out_of_place(self) -> None:
        """A known verb in a wrong state is 503 and changes nothing, an unknown one is 500 or 502."""
        seen = set()
        for policy in POLICIES:
            for state, way in WAYS.items():
                for verb, line in LINES.items():
                    talk = Talk(policy).reach(*way)
                    session = talk.session
                    message = session.transaction
                    reply = talk.say(line)
                    where = (policy.name, state, verb, reply)
                    if verb not in policy.verbs:
                        self.assertEqual(reply.code, 502 if verb == "AUTH" else 500, where)
                    elif verb not in policy.tables[state]:
                        self.assertEqual((reply.code, reply.enhanced), (503, "5.5.1"), where)
                        self.assertEqual((session.state, session.transaction), (state, message), where)
                        seen.add((policy.name, state.name, verb))
                    else:
                        self.assertNotIn(reply.code, (500, 502, 503) if verb != "STARTTLS" else (), where)
        for name, commands_of in (("SMTP", "MAIL RCPT DATA"), ("LMTP", "MAIL RCPT DATA")):
            for verb in commands_of.split():
                self.assertIn((name, "BEFORE_HELLO", verb), seen)
        self.assertIn(("submission", "BEFORE_HELLO", "AUTH"), seen)
        self.assertIn(("submission", "RECIPIENTS", "AUTH"), seen)

    @given(
        st.sampled_from(POLICIES),
        st.lists(
            st.sampled_from([*LINES.values(), b"BURP", b"", b"MAIL FROM:<x", b"text", b"*", ANN]), max_size=15
        ),
    )
    def test_any_conversation(self, policy: Policy, lines: list[bytes]) -> None:
        """Whatever is said in whatever order: one answer each, a message only behind its envelope."""
        talk = Talk(policy)
        session = talk.session
        hello = mail = recipients = False
        for line in lines:
            if session.state is State.CLOSED:
                break
            if session.state is State.TEXT:
                self.assertTrue(hello and mail and recipients)
                answer = talk.text(b"x: y\r\n.\r\n")
                while talk.delivery.waiting:
                    talk.delivery.go_on()
                self.assertEqual(codes(answer if answer is not None else talk.later[0]), [250])
                mail = recipients = False
                continue
            answer = talk.say(line)
            encoded = encode(answer)
            self.assertRegex(encoded, rb"\A(?:[2-5][0-9][0-9][ -][ -~]*\r\n)+\Z")
            self.assertFalse(encoded.startswith(b"451"), line)
            if isinstance(answer, Challenge):
                continue
            verb = line[:4].decode()
            if answer.code == 250 and verb in ("EHLO", "HELO", "LHLO", "RSET"):
                hello, mail, recipients = hello or verb != "RSET", False, False
            if answer.code == 250 and verb == "MAIL":
                self.assertTrue(hello and not mail)
                mail = True
            if answer.code == 250 and verb == "RCPT":
                self.assertTrue(mail)
                recipients = True
            self.assertEqual(answer.code == 354, session.state is State.TEXT)  # type: ignore[comparison-overlap]
        committed = [word for word in talk.delivery.log if word.startswith("commit")]
        self.assertEqual(len(talk.watcher.of(Delivered)), len(committed))


class TLSTests(SynchronousTestCase):
    """What STARTTLS leaves of what was said before."""

    def test_nothing_is_left(self) -> None:
        """Behind it a submission port knows no EHLO, no login and no MAIL, and the store gets nothing."""
        for way in (("hello",), ("hello", "AUTH"), WAYS[State.MAIL], WAYS[State.RECIPIENTS]):
            talk = Talk(SUBMISSION).reach(*way)
            session = talk.session
            session.can_start_tls = True
            self.assertIs(talk.say(b"STARTTLS").after, After.START_TLS)
            session.restart(Channel("127.0.0.1", True, TLSFacts("TLSv1.3", "x")))
            for verb in ("AUTH", "MAIL", "RCPT", "DATA"):
                reply = talk.say(LINES[verb])
                self.assertEqual((reply.code, reply.text), (503, "EHLO comes first"), verb)
            self.assertIsNone(session.record.user)
            talk.reach("hello")
            self.assertEqual(talk.say(LINES["MAIL"]).code, 530)
            self.assertEqual(talk.say(LINES["RCPT"]).code, 503)
            self.assertEqual(talk.say(b"STARTTLS").code, 503)

    def test_exchange_is_left_behind(self) -> None:
        """An exchange that was begun is cancelled."""
        talk = Talk(SUBMISSION).reach("hello")
        self.assertIsInstance(talk.say(b"AUTH LOGIN"), Challenge)
        talk.session.restart(Channel("127.0.0.1", True, TLSFacts("TLSv1.3", "x")))
        self.assertEqual(talk.accounts.cancelled, 1)
        self.assertIsInstance(talk.session.parse(b"NOOP"), Command)


class FateTests(SynchronousTestCase):
    """What becomes of a message, what is told of it, and what the client gets for it."""

    def ready(self, policy: Policy = SMTP, recipients: int = 1, **options: Any) -> Talk:
        talk = Talk(policy, **options).reach("hello", "AUTH", "MAIL")
        for user in ("bob", "ann", "cat")[:recipients]:
            self.assertEqual(talk.say(f"RCPT TO:<{user}@example.org>".encode()).code, 250)
        return talk

    def test_refused_is_not_delivered(self) -> None:
        """A message that was refused is not told as delivered, forgives no mistake and earns no place."""
        for refuse in (
            lambda talk: talk.message(b"a: b\n.\r\n\r\n.\r\n"),
            lambda talk: talk.message(b"a: b\r\n" + b"x" * 101 + b"\r\n.\r\n"),
            lambda talk: talk.delivery.fail.update({"commit bob": StoreTrouble()}) or talk.message(),
            lambda talk: talk.delivery.fail.update({"write bob": OverQuota()}) or talk.message(),
        ):
            for policy in (SMTP, LMTP):
                talk = Talk(policy, largest_message=100).reach("hello")
                for _ in range(limits.ERRORS - 1):
                    self.assertEqual(codes(talk.say(b"BURP")), [500])
                talk.reach("MAIL", "RCPT")
                answer = refuse(talk)
                self.assertGreaterEqual(codes(answer)[0], 400)
                self.assertEqual(talk.watcher.of(Delivered), [])
                self.assertRegex(talk.delivery.log[-1], "^(abort|commit) bob")
                [refused] = talk.watcher.of(Refused)
                self.assertEqual(refused.code, codes(answer)[0])
                self.assertEqual((refused.sender, refused.recipient), ("ann@example.org", "bob@example.org"))
                self.assertRegex(refused.queue_id, "^[0-9a-f]{12}$")
                self.assertEqual(talk.slot.told, [])
                self.assertEqual(codes(talk.say(b"BURP")), [500, 421])
                self.assertIs(talk.session.state, State.CLOSED)

    def test_refused_for_several(self) -> None:
        """A message that is refused with one reply for all is told once, for none in particular."""
        talk = self.ready(SMTP, 2)
        self.assertEqual(codes(talk.message(b"a: b\n\r\n.\r\n")), [550])
        self.assertEqual([(event.recipient, event.code) for event in talk.watcher.of(Refused)], [("", 550)])
        talk = self.ready(LMTP, 2)
        self.assertEqual(codes(talk.message(b"a: b\n\r\n.\r\n")), [550, 550])
        told = [event.recipient for event in talk.watcher.of(Refused)]
        self.assertEqual(told, ["bob@example.org", "ann@example.org"])

    def test_trouble_is_logged(self) -> None:
        """The administrator reads what a store in trouble told, wherever it did; the client does not."""
        for at in ("check ann", "begin", "write bob", "commit bob"):
            talk = self.ready()
            talk.delivery.fail = {at: StoreTrouble(detail="/secret/path")}
            with capturedLogs() as events:
                if at == "check ann":
                    answer = talk.say(b"RCPT TO:<ann@example.org>")
                else:
                    answer = talk.say(b"DATA") if at == "begin" else talk.message()
            self.assertNotIn(b"path", encode(answer))
            self.assertEqual(codes(answer), [451])
            self.assertIn("/secret/path", "".join(str(formatEvent(event)) for event in events))

    def test_received(self) -> None:
        """Received has the keywords of RFC 3848 and RFC 6531."""
        for policy, options, keyword in (
            (SMTP, b"", b"ESMTP"), (SMTP, b" SMTPUTF8", b"UTF8SMTP"), (SUBMISSION, b"", b"ESMTPA"),
            (LMTP, b" SMTPUTF8", b"UTF8LMTP"),
        ):  # fmt: skip
            talk = Talk(policy, MemoryStore({"bob": ()})).reach("hello", "AUTH")
            self.assertEqual(talk.say(LINES["MAIL"] + options).code, 250)
            talk.reach("RCPT", "DATA")
            self.assertEqual(codes(talk.text(b".\r\n")), [250])
            [message] = talk.delivery.messages("bob")
            self.assertIn(b" with %b id " % keyword, message)

    def test_delivered_is_forgiven(self) -> None:
        """One that was delivered is told, with its size, and the count of mistakes begins anew."""
        talk = Talk(SMTP).reach("hello")
        for _ in range(limits.ERRORS - 1):
            talk.say(b"BURP")
        talk.reach("MAIL", "RCPT")
        self.assertEqual(codes(talk.message()), [250])
        [delivered] = talk.watcher.of(Delivered)
        self.assertEqual((delivered.octets, delivered.uids), (6, [("bob", b"uid")]))
        self.assertEqual(talk.watcher.of(Refused), [])
        self.assertEqual(codes(talk.say(b"BURP")), [500])
        self.assertEqual(talk.slot.told, ["idle"])

    def test_place_while_a_message_comes(self) -> None:
        """Who has brought a message keeps its place while it brings another, and not for ever."""
        talk = self.ready()
        talk.message()
        session = talk.session
        self.assertEqual(talk.slot.told, ["idle"])
        talk.reach("MAIL")
        self.assertEqual(talk.slot.told, ["idle", "logged in"])
        patience: Any = {"began": 0.0, "shaking_hands": False, "waiting": False}
        self.assertEqual(session.deadline(100.0, last=90.0, **patience), 90.0 + limits.IDLE)
        late = 100.0 + limits.MESSAGE_TIME
        self.assertEqual(session.deadline(late - 50, last=late - 60, **patience), late)
        self.assertEqual(talk.slot.told, ["idle", "logged in"])
        self.assertEqual(session.deadline(late, last=late - 1, **patience), late - 1 + limits.IDLE)
        self.assertEqual(talk.slot.told, ["idle", "logged in", "idle"])
        self.assertEqual(session.deadline(late + 9, last=late + 9, **patience), late + 9 + limits.IDLE)
        self.assertEqual(talk.slot.told, ["idle", "logged in", "idle"])
        # Another MAIL does not begin it anew; a message that arrives does.
        talk.say(b"RSET")
        talk.reach("MAIL")
        self.assertEqual(talk.slot.told[-1], "idle")
        talk.reach("RCPT")
        talk.message()
        talk.reach("MAIL")
        self.assertEqual(talk.slot.told[-1], "logged in")
        session.deadline(late, last=late, **patience)
        talk.say(b"RSET")
        talk.reach("MAIL")
        session.deadline(late + limits.MESSAGE_TIME, last=late + limits.MESSAGE_TIME, **patience)
        self.assertEqual(talk.slot.told[-1], "idle")

    def test_never_a_part_missing(self) -> None:
        """A store that tells of a user in trouble, or of too few users, is never answered with 250."""

        class Careless(Slow):
            answers: Any

            def begin(self, users: Any, octets: int = 0) -> Any:
                incoming = super().begin(users, octets).result
                incoming.write = lambda chunk: None
                incoming.commit = lambda together: succeed(self.answers)
                return incoming

        for answers, together, each in (
            ([b"1", StoreTrouble()], [451], [250, 451]),
            ([OverQuota(holds=1), b"1"], [452], [552, 250]),
            ([b"1"], [451], [451, 451]),
            ([], [451], [451, 451]),
            ([b"1", b"2"], [250], [250, 250]),
        ):
            for policy, expected in ((SMTP, together), (LMTP, each)):
                store = Careless()
                store.answers = answers
                talk = self.ready(policy, 2, delivery=store)
                self.assertEqual(codes(talk.message()), expected, answers)
                self.assertEqual(bool(talk.watcher.of(Delivered)), 250 in expected)
                self.flushLoggedErrors(ValueError)

    def test_bug_at_the_end(self) -> None:
        """What nobody foresaw is 451 for each recipient who waits for a reply; and the session goes on."""
        for policy, expected in ((SMTP, [451]), (LMTP, [451, 451])):
            for at in ("write", "commit"):
                store = Slow()
                store.fail = {f"{at} {user}": RuntimeError("secret") for user in ("ann", "bob")}
                talk = self.ready(policy, 2, delivery=store)
                answer = talk.message()
                self.assertEqual(codes(answer), expected)
                self.assertNotIn(b"secret", encode(answer))
                self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
                self.assertEqual(talk.say(b"NOOP").code, 250)

    def test_late_failure_of_a_write(self) -> None:
        """A write that fails through its Deferred, in the middle or at the end, is no 250."""
        for text in ((b"a: b\r\n\r\nx\r\n", b"y\r\n.\r\n"), (b"a: b\r\n\r\nx\r\n.\r\n",)):
            for policy in (SMTP, LMTP):
                talk = self.ready(policy)
                talk.reach("DATA")
                talk.text(text[0])
                talk.delivery.waiting.pop().errback(OverQuota(holds=1))
                answer = talk.later[0] if len(text) == 1 else talk.text(text[1])
                self.assertEqual(codes(answer), [552])
                self.assertEqual(talk.delivery.log[1:], ["abort bob"])

    def test_refused_envelopes(self) -> None:
        """Mail that is refused at MAIL or RCPT is told with its reason; slips of syntax are not."""
        for policy, way, line, told in (
            (SUBMISSION, ("hello",), b"MAIL FROM:<ann@example.org>", ("ann@example.org", "", 530, "5.7.0")),
            (SUBMISSION, ("hello", "AUTH"), b"MAIL FROM:<bob@example.org>",
             ("bob@example.org", "", 553, "5.7.1")),
            (SMTP, ("hello",), b"MAIL FROM:<a@b> SIZE=999999999", ("a@b", "", 552, "5.3.4")),
            (SMTP, ("hello",), "MAIL FROM:<ü@b>".encode(), ("ü@b", "", 553, "5.6.7")),
            (SMTP, ("hello",), b"MAIL FROM:<a@b> FOO", ("a@b", "", 555, "5.5.4")),
            (SMTP, ("hello",), b"MAIL FROM:<a b@c>", ("", "", 501, "5.1.7")),
            (SMTP, ("hello",), b"MAIL a@b", None),
            (SMTP, (), b"MAIL FROM:<a@b>", None),
            (SMTP, ("hello", "MAIL"), b"RCPT TO:<eve@example.org>",
             ("ann@example.org", "eve@example.org", 550, "5.1.1")),
            (LMTP, ("hello", "MAIL"), b"RCPT TO:<eve@else.example>",
             ("ann@example.org", "eve@else.example", 550, "5.7.1")),
            (SMTP, ("hello", "MAIL"), b"RCPT TO:<bob@example.org> NOTIFY=NEVER",
             ("ann@example.org", "bob@example.org", 555, "5.5.4")),
            (SMTP, ("hello", "MAIL"), b"RCPT bob", None),
            (SMTP, ("hello",), b"RCPT TO:<bob@example.org>", None),
        ):  # fmt: skip
            with self.subTest(line=line, policy=policy.name):
                talk = Talk(policy).reach(*way)
                reply = talk.say(line)
                if told is None:
                    self.assertEqual(talk.watcher.of(Refused), [])
                    continue
                [event] = talk.watcher.of(Refused)
                self.assertEqual((event.sender, event.recipient, event.code, event.enhanced), told)
                self.assertEqual(
                    (*event[2:5], event.code, event.enhanced, event.reason),
                    (policy.name, LOOPBACK, "", reply.code, reply.enhanced, reply.text),
                )

    def test_put_off(self) -> None:
        """So is mail that a store in trouble puts off, at RCPT and at DATA."""
        talk = self.ready()
        talk.delivery.fail = {"check ann": OverQuota(), "begin": StoreTrouble()}
        self.assertEqual(talk.say(b"RCPT TO:<ann@example.org>").code, 452)
        self.assertEqual(talk.say(b"DATA").code, 451)
        at_rcpt, at_data = talk.watcher.of(Refused)
        self.assertEqual((at_rcpt.recipient, at_rcpt.code, at_rcpt.queue_id), ("ann@example.org", 452, ""))
        self.assertEqual((at_data.recipient, at_data.code, len(at_data.queue_id)), ("", 451, 12))
        self.assertIs(talk.session.state, State.READY)
        talk.delivery.fail = {}
        self.assertEqual(talk.reach("MAIL", "RCPT").say(b"DATA").code, 354)

    def test_sender_in_doubt(self) -> None:
        """While nobody can say whose an address is, a user cannot send by it, and is told to try again."""
        talk = Talk(SUBMISSION).reach("hello", "AUTH")

        async def nobody_knows(address: object) -> Any:
            raise StoreTrouble(detail="no aliases")

        talk.session.options.resolver.resolve = nobody_knows  # type: ignore[method-assign]
        for _ in range(limits.ERRORS):
            self.assertEqual(talk.say(LINES["MAIL"]).code, 451)
            self.assertIs(talk.session.state, State.READY)


class EndTests(SynchronousTestCase):
    """How a session ends."""

    def test_last_words(self) -> None:
        """The server says 421, and why; of what has ended already nothing."""
        for why, code in (
            ("timeout", "4.4.2"), ("shutdown", "4.3.2"), ("limit", "4.7.0"), ("store", "4.3.0"),
            ("bug", "4.3.0"),
        ):  # fmt: skip
            reply = Talk(SMTP).session.closing(why, waiting=False)
            assert isinstance(reply, Reply)
            self.assertEqual((reply.code, reply.enhanced, reply.after), (421, code, After.CLOSE))
        self.assertIsNone(Talk(SMTP).session.closing("dropped", waiting=False))

    def test_later(self) -> None:
        """While a message is being made durable it is later; its end is waited for."""
        talk = Talk(SMTP).reach("hello", "MAIL", "RCPT", "DATA")
        session = talk.session
        self.assertTrue(session.logged_in)
        talk.text(b"a: b\r\n.\r\n")
        self.assertFalse(session.finishing)
        talk.delivery.go_on()
        self.assertTrue(session.finishing)
        self.assertIs(session.closing("shutdown", waiting=True), LATER)
        self.assertFalse(session.over)
        ended: Any = session.end()
        self.assertTrue(session.over)
        self.assertNoResult(ended)
        talk.delivery.go_on()
        self.successResultOf(ended)
        self.assertEqual(len(talk.watcher.of(Delivered)), 1)
        self.assertIs(session.state, State.CLOSED)

    def test_gone_at_any_moment(self) -> None:
        """Who goes away before the message's end was written leaves none; nor does a login come too late."""
        for text in (b"", b"a: b\r\n", b"a: b\r\n\r\nx\r\n", b"a: b\r\n.\r\n"):
            talk = Talk(SMTP).reach("hello", "MAIL", "RCPT", "DATA")
            talk.text(text)
            self.assertIsNone(talk.session.end())
            while talk.delivery.waiting:
                talk.delivery.go_on()
            self.assertEqual(talk.delivery.log[-1], "abort bob")
            self.assertEqual(talk.watcher.of(Delivered), [])

    def test_bug(self) -> None:
        """What fails in a command is logged and 451, and the message is dropped."""
        talk = Talk(SMTP).reach("hello", "MAIL", "RCPT")
        talk.delivery.check = lambda user, octets: fail(RuntimeError("secret"))  # type: ignore[method-assign]
        self.assertEqual(talk.say(b"RCPT TO:<ann@example.org>").code, 451)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIs(talk.session.state, State.READY)
        self.assertEqual(talk.say(LINES["MAIL"]).code, 250)

    def test_gone_while_asked(self) -> None:
        """What was asked for a client that has gone changes nothing any more."""
        for words, word in (
            (("hello", "AUTH"), "MAIL"), (("hello", "MAIL"), "RCPT"), (WAYS[State.RECIPIENTS], "DATA"),
        ):  # fmt: skip
            talk = Talk(SUBMISSION if word == "MAIL" else SMTP).reach(*words)
            answered: Deferred[Any] = Deferred()
            talk.delivery.check_at_once = talk.delivery.begin_at_once = False
            if word == "MAIL":
                talk.session.options.resolver.resolve = lambda _, answered=answered: answered  # type: ignore[method-assign]
            self.assertIsNone(talk.say(LINES[word]))
            talk.session.end()
            answered.callback(["ann"])
            while talk.delivery.waiting:
                talk.delivery.go_on()
            self.assertEqual(len(talk.later), 1)
            self.assertEqual((talk.session.state, talk.session.transaction), (State.CLOSED, None))
            self.assertEqual(talk.delivery.log, ["abort bob"] if word == "DATA" else [])

    def test_client_left(self) -> None:
        """Whoever keeps the client waiting only as long as it is there hears that it is not, once."""
        for leave in (lambda session: session.record.leave(), Session.end):
            session, left = Talk(SUBMISSION).session, []
            session.record.when_client_leaves = lambda left=left: left.append(1)  # type: ignore[misc]
            leave(session)
            session.end()
            self.assertEqual((left, session.record.client_left), ([1], True))


class LoginTests(SynchronousTestCase):
    """AUTH."""

    def test_earns_a_place(self) -> None:
        """Who has logged in is no stranger, and mistakes before it are forgiven."""
        talk = Talk(SUBMISSION).reach("hello")
        for _ in range(limits.ERRORS - 1):
            talk.say(b"BURP")
        talk.reach("AUTH")
        self.assertEqual(talk.slot.told, ["idle"])
        self.assertEqual(codes(talk.say(b"BURP")), [500])
        self.assertEqual((talk.session.record.user, talk.session.record.mechanism), ("ann", "PLAIN"))

    def test_strangers_mistakes(self) -> None:
        """Senders without a login, and in others' names, are mistakes."""
        for way in ((), ("AUTH",)):
            talk = Talk(SUBMISSION).reach("hello", *way)
            for _ in range(limits.ERRORS - 1):
                self.assertIn(codes(talk.say(b"MAIL FROM:<bob@example.org>")), ([530], [553]))
            self.assertEqual(codes(talk.say(b"MAIL FROM:<bob@example.org>"))[1:], [421])

    def test_what_counts(self) -> None:
        """Slips of a mechanism's syntax are no failed logins."""
        talk = Talk(SUBMISSION).reach("hello")
        wrong = b"AUTH PLAIN " + b64encode(b"\0ann\0no")
        talk.accounts.malformed = True
        for _ in range(limits.FAILED_LOGINS):
            self.assertEqual(codes(talk.say(LINES["AUTH"])), [501])
        talk.accounts.malformed = False
        for _ in range(limits.FAILED_LOGINS - 1):
            self.assertEqual(codes(talk.say(wrong)), [535])
        self.assertEqual(codes(talk.say(wrong)), [535, 421])
        self.assertEqual(len(talk.watcher.failures), 2 * limits.FAILED_LOGINS)

    def test_gone_meanwhile(self) -> None:
        """Who goes away while the password is looked at is logged out, and told as nobody's login."""
        talk = Talk(SUBMISSION).reach("hello")
        talk.accounts.waiting = waiting = Deferred()
        self.assertIsNone(talk.say(LINES["AUTH"]))
        talk.session.end()
        waiting.callback(None)
        self.assertEqual((talk.accounts.logged_out, talk.watcher.logins), (1, []))
        self.assertIsNone(talk.session.record.user)

    def test_bug(self) -> None:
        """What nobody foresaw in a mechanism ends the exchange."""
        talk = Talk(SUBMISSION).reach("hello")
        talk.say(b"AUTH LOGIN")
        talk.accounts.waiting = fail(RuntimeError("secret"))
        self.assertIsInstance(talk.say(b64encode(b"ann")), Challenge)
        self.assertEqual(talk.say(b64encode(b"nna")).code, 451)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsInstance(talk.session.parse(b"NOOP"), Command)
        self.assertEqual(talk.accounts.cancelled, 1)

    def test_challenges_are_secret(self) -> None:
        """What a mechanism asks is shown to nobody."""
        session = Talk(SUBMISSION).session
        for reply, shown in ((Challenge(b"x"), b"334 ****\r\n"), (Challenge(b""), b"334 \r\n")):
            self.assertEqual(session.masked_reply(reply, encode(reply)), shown)
        self.assertEqual(session.masked_reply(Reply(250, "ok"), b"250 ok\r\n"), b"250 ok\r\n")


class LineTests(SynchronousTestCase):
    """Lines as values."""

    def test_longest(self) -> None:
        """A command has 2048 octets with its end; AUTH and a response, where there are any, 12288."""
        verbs = SUBMISSION.verbs
        noop = b"NOOP ".ljust(limits.COMMAND_LINE - 2, b"x")
        self.assertIsInstance(commands.parse(noop, verbs), Command)
        self.assertEqual(commands.parse(noop + b"x", verbs), commands.TOO_LONG)
        self.assertIsInstance(commands.parse(noop + b"x", verbs, crlf=False), Command)
        auth = b"auth PLAIN ".ljust(limits.AUTH_LINE - 2, b"x")
        self.assertIsInstance(commands.parse(auth, verbs), Command)
        self.assertEqual(commands.parse(auth + b"x", verbs), commands.TOO_LONG)
        self.assertEqual(commands.parse(auth, SMTP.verbs), commands.TOO_LONG)

    def test_control_characters(self) -> None:
        """A command with control characters is none, one that there is elsewhere neither."""
        for line, code in ((b"AUTH PLAIN\0", 500), (b"NOOP \x1b", 500), (b"TURN", 502), (b"NOOP\tx", 500)):
            parsed = commands.parse(line, SUBMISSION.verbs)
            assert isinstance(parsed, Malformed)
            self.assertEqual(parsed.code, code)

    @given(st.binary(max_size=60), st.sampled_from(POLICIES), st.booleans())
    def test_any_line(self, line: bytes, policy: Policy, crlf: bool) -> None:
        """Any octets are a value, of a verb of this port, and what is shown of them begins with it."""
        parsed = commands.parse(line, policy.verbs, crlf=crlf)
        self.assertIsInstance(parsed, Command | Malformed)
        shown = commands.masked(line, parsed)
        self.assertTrue(shown.startswith(parsed.verb.encode()))
        if parsed.verb:
            self.assertIn(parsed.verb, policy.verbs)
        else:
            self.assertTrue(shown.startswith(b"**** (%d octets" % len(line)))

    def test_responses(self) -> None:
        """Of a response nothing is shown but that it gives up."""
        for line, shown in ((b"*", b"*"), (b"hunter2", b"****"), (b"", b"****")):
            self.assertEqual(commands.masked(line, Response(line)), shown)

    def test_replies(self) -> None:
        """Replies have their codes on each line, and are of ASCII and no longer than RFC 5321 allows."""
        for reply, octets in (
            (Reply(250, "ok", "2.0.0"), b"250 2.0.0 ok\r\n"),
            (Reply(250, ("mx", "A", "B c")), b"250-mx\r\n250-A\r\n250 B c\r\n"),
            (Reply(501, "no\r\n250 yes\x1bü", "5.5.2"), b"501 5.5.2 no??250 yes??\r\n"),
            (Replies((Reply(250, "a"), Reply(451, "b"))), b"250 a\r\n451 b\r\n"),
            (Challenge(b""), b"334 \r\n"),
            (Challenge(b"Username:"), b"334 VXNlcm5hbWU6\r\n"),
        ):
            self.assertEqual(encode(reply), octets)
        self.assertEqual(len(encode(Reply(501, "x" * 1000))), limits.REPLY_LINE)
