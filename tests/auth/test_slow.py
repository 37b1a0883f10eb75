"""Whole connections whose answers take their time: argon2, tokens and maildrops, in any order with lines."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy import MailboxRealm, POP3Factory, PortalAuthenticator
from pop3toy.auth.accounts.accounts_file import AccountsFile
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.schemes import make
from pop3toy.auth.sasl.oauth import ITokenChecker
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.events import Observers
from pop3toy.observe.session_log import SessionLog
from pop3toy.stores.memory import MemoryStore

from ..auth_world import FakeThreads
from ..pop3_world import LateStore
from .test_attack import EVIL, GOOD, Client

PASSWORDS = {"ann": "correct horse", "bob": "battery staple", "carl": "hunter2"}
#: As argon2 as any, and a thousand of them in a second.
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def argon2(password: str) -> bytes:
    """An entry of an accounts file."""
    return b"{ARGON2ID}" + CHEAP.hash(password).encode()


@implementer(ITokenChecker)
class LateTokens:
    """Knows one token, and says so when it is told."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[str | None], str]] = []

    def owner(self, token: str) -> Deferred[str | None]:
        verdict: Deferred[str | None] = Deferred()
        self.waiting.append((verdict, token))
        return verdict

    def go_on(self) -> None:
        """Answer what was asked."""
        waiting, self.waiting = self.waiting, []
        for verdict, token in waiting:
            verdict.callback("ann" if token == "good" else None)


class SlowHouse:
    """A server in which nothing is answered before it is told to go on.

    :param others: accounts besides ann's, which is argon2id.
    """

    def __init__(self, path: str, *, others: bool = True, limits: LoginLimits | None = None) -> None:
        lines = [b"ann:" + argon2(PASSWORDS["ann"]), b"bob:" + argon2(PASSWORDS["bob"])]
        if others:
            lines[1] = b"bob:" + make(PASSWORDS["bob"].encode(), "SCRAM-SHA-256")
            lines.append(b"carl:" + make(PASSWORDS["carl"].encode(), "PLAIN"))
        Path(path).write_bytes(b"\n".join([*lines, b""]))
        Path(path).chmod(0o600)
        self.clock = Clock()
        self.threads = FakeThreads(later=True)
        self.queue = HashingQueue(self.threads)
        self.tokens = LateTokens()
        self.store = MemoryStore({user: [b"Subject: hello\n\nhello\n"] for user in (*PASSWORDS, "demo")})
        self.late = LateStore(self.clock, self.store)
        self.throttle = LoginThrottle(self.clock, limits)
        later = Path(path).stat().st_mtime + 1000
        accounts = AccountsFile(path, self.queue, self.clock, wall=lambda: later)
        authenticator = PortalAuthenticator(
            Portal(MailboxRealm(self.late, anonymous="demo"), [accounts, AllowAnonymousAccess()]),
            throttle=self.throttle,
            allow_cleartext=True,
            tokens=self.tokens,
            masters=["carl"],
        )
        self.factory = POP3Factory(self.clock, authenticator, observers=Observers(SessionLog()))

    def connect(self, host: str = GOOD) -> Client:
        """Somebody connects from this address."""
        return Client(self.factory, IPv4Address("TCP", host, 50110))

    def open_what_is_proven(self) -> None:
        """Let passwords be checked, and maildrops be opened, which takes a moment."""
        self.threads.go_on()
        self.clock.advance(0.01)

    def settle(self, seconds: float = 15) -> None:
        """Let all go on until nothing waits but timers."""
        for _ in range(5):
            self.threads.go_on()
            self.tokens.go_on()
            self.clock.advance(0)
        self.clock.advance(seconds)
        self.threads.go_on()
        self.tokens.go_on()
        self.clock.advance(0)


class FloodTests(SynchronousTestCase):
    """Many guesses, each of which would cost an argon2."""

    def test_thousand_wrong_passwords(self) -> None:
        """A thousand guesses of one address each wait and are each checked; another address never waits."""
        house = SlowHouse(self.mktemp(), others=False)
        guesses = refused = logins = 0
        while guesses < 1000:
            client = house.connect(EVIL)
            for _ in range(5):
                guesses += 1
                said = client.log_in("ann", f"guess{guesses}")
                if guesses % 10 == 0:
                    friend = house.connect(GOOD)
                    friend.log_in("bob")
                    house.open_what_is_proven()
                    self.assertTrue(friend.read().startswith(b"+OK maildrop has 1"))
                    friend.say(b"QUIT")
                    friend.leave()
                    logins += 1
                house.settle()
                said += client.read()
                refused += said.startswith(b"-ERR [AUTH]")
            self.assertTrue(client.closed)
            client.leave()
        self.assertEqual((guesses, refused, logins), (1000, 1000, 100))
        self.assertGreater(house.clock.seconds(), 990 * 15)
        # Each guess, and the friend's password once in ten minutes: it is remembered that long.
        friends = house.threads.names.count("_judge") - 1000
        self.assertIn(friends, range(1, int(house.clock.seconds() / 600) + 2))
        self.assertEqual(house.queue.busy, 0)

    def test_flood(self) -> None:
        """However many connections guess at once, a few wait to be checked, and a friend behind those few."""
        house = SlowHouse(self.mktemp(), others=False)
        turned_away = 0
        for number in range(500):
            client = house.connect(EVIL)
            turned_away += client.log_in(f"ann{number}", "guess").startswith(b"-ERR [SYS/TEMP]")
        self.assertEqual((house.queue.busy, turned_away), (32, 500 - 32))
        for number in range(30):
            client = house.connect(f"203.0.113.{number}")
            turned_away += client.log_in("ann", "guess").startswith(b"-ERR [SYS/TEMP]")
        self.assertEqual((house.queue.busy, turned_away), (42, 500 - 32 + 20))
        friend = house.connect(GOOD)
        friend.log_in("bob")
        house.open_what_is_proven()
        self.assertTrue(friend.read().startswith(b"+OK maildrop has 1"))


MECHANISMS = [
    b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-1", b"SCRAM-SHA-256", b"OAUTHBEARER", b"XOAUTH2",
    b"ANONYMOUS", b"EXTERNAL", b"SCRAM-SHA-256-PLUS",
]  # fmt: skip
RESPONSES = [
    b"\0ann\0correct horse", b"\0ann\0wrong", b"\0bob\0battery staple", b"ann\0carl\0hunter2",
    b"nobody\0carl\0hunter2", b"\0carl\0hunter2", b"n,,n=ann,r=abc", b"n,,n=bob,r=abc", b"y,,n=carl,r=abc",
    b"n,a=ann,n=carl,r=abc", b"c=biws,r=abc,p=QUFB", b"ann", b"correct horse", b"carl " + b"0" * 32,
    b"n,a=ann,\1auth=Bearer good\1\1", b"n,,\1auth=Bearer bad\1\1", b"user=ann\1auth=Bearer good\1\1",
    b"user=bob\1auth=Bearer good\1\1", b"user=ann\1auth=Bearer bad\1\1", b"\1", b"", b"\xff\0\xff\0\xff",
]  # fmt: skip
_encoded = st.sampled_from(RESPONSES).map(base64.b64encode)
_lines = st.one_of(
    st.sampled_from(
        [b"*", b"=", b"", b"QUIT", b"CAPA", b"STAT", b"DELE 1", b"AUTH", b"USER ann", b"USER bob"]
    ),
    st.sampled_from([b"PASS correct horse", b"PASS wrong", b"PASS battery staple"]),
    st.sampled_from(MECHANISMS).map(lambda name: b"AUTH " + name),
    st.tuples(st.sampled_from(MECHANISMS), _encoded).map(lambda pair: b"AUTH %b %b" % pair),
    _encoded,
    st.binary(max_size=40).map(base64.b64encode),
)
#: A line, or something else that happens: threads or tokens go on, time passes, the client goes away.
_happenings = st.one_of(
    _lines, _lines, st.sampled_from(["threads", "tokens", "leave"]), st.sampled_from([0.0, 1.0, 20.0, 61.0])
)


class AnythingTests(SynchronousTestCase):
    """Whatever a client says, and whenever the answers come."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(_happenings, min_size=1, max_size=25))
    def test_dialogues(self, happenings: list[Any]) -> None:
        """No order of lines, verdicts, time and farewell is a bug, or leaves anything behind."""
        house = SlowHouse(self.mktemp())
        client = house.connect()
        said, left = b"", False
        with capturedLogs() as events:
            for one in happenings:
                if left:
                    break
                if isinstance(one, bytes):
                    said += client.say(one)
                elif one == "leave":
                    client.leave()
                    left = True
                elif isinstance(one, float):
                    house.clock.advance(one)
                else:
                    (house.threads if one == "threads" else house.tokens).go_on()
            house.settle()
            said += client.read()
            if not left:
                client.leave()
            house.settle()
        self.assertEqual([event for event in events if "log_failure" in event], [])
        self.assertNotIn(b"internal error", said)
        for line in said.split(b"\r\n")[:-1]:
            self.assertRegex(line, rb"\A(\+OK|-ERR|\+ |\.\Z|[A-Z0-9-]+( |\Z))")
        self.assertEqual(house.factory.connections, 0)
        self.assertEqual((house.queue.busy, house.late.pending, house.tokens.waiting), (0, 0, []))
        self.assertEqual(len(house.throttle._counts.in_flight), 0)
        self.assertEqual(len(house.throttle._counts.sessions), 0)
        for user in ("ann", "bob"):
            after = house.connect("203.0.113.9")
            after.log_in(user, PASSWORDS[user])
            house.settle()
            self.assertTrue(after.read().startswith(b"+OK maildrop has"))
            after.leave()
