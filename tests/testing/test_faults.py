"""Each fault as the client meets it, when it happens, and that nothing else changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import pop3toy
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.realm import MailboxRealm
from pop3toy.events import Ended, Noted, Observers, ReplySent
from pop3toy.interfaces import IDelivery, IMailStore, IStoreAdmin
from pop3toy.observe.transcript import MemoryTranscript
from pop3toy.pop3.factory import POP3Factory
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.run.control import Notice, ServerControl
from pop3toy.smtp.factory import smtp_factory
from pop3toy.stores.memory import MemoryStore
from pop3toy.testing.faults.gate import Faults
from pop3toy.testing.faults.kinds import KINDS
from pop3toy.testing.faults.reference import fault_reference
from pop3toy.testing.faults.rules import BadFault

from ..pop3_world import FakeSocket, Watcher

ONE = b"Subject: one\r\n\r\nHello\r\n"
TWO = b"Subject: two\r\n\r\n.hidden\r\n.\r\nend\r\n"
RETR_1 = b"+OK 23 octets\r\n" + ONE + b".\r\n"


class World:
    """A server with two messages of ann's, its faults, and as many clients as a test wants."""

    def __init__(self, seed: int | None = None) -> None:
        self.clock = Clock()
        self.faults = Faults(seed)
        uids = iter(range(1, 100))
        self.store = MemoryStore({"ann": [ONE, TWO], "bob": []}, new_uid=lambda: f"uid-{next(uids)}")
        users = MemoryAccounts({"ann": "secret", "bob": "secret"})
        realm = MailboxRealm(self.faults.around_store(self.store))
        self.watcher = Watcher(Noted, Ended, ReplySent)
        self.transcript = MemoryTranscript()
        self.factory = POP3Factory(
            self.clock,
            PortalAuthenticator(Portal(realm, [users])),
            gate=self.faults,
            observers=Observers(self.watcher, self.transcript),
        )
        self.faults.attach(self.clock, ServerControl([self.factory], lambda: None, Notice(Clock(), 0)))

    def client(self) -> Client:
        return Client(self)


class Client:
    """One connection; what it reads is what came without any time passing, or within so many seconds."""

    def __init__(self, world: World) -> None:
        self.clock = world.clock
        self.socket = FakeSocket(world.clock)
        self.socket.connect(world.factory.buildProtocol(None))
        self.greeting = self.socket.client_reads_all()

    def say(self, line: bytes, within: float = 0.0) -> bytes:
        self.socket.client_sends(line + b"\r\n")
        return self.read(within)

    def read(self, within: float = 0.0) -> bytes:
        read = self.socket.client_reads_all()
        for _ in range(round(within * 100)):
            self.clock.advance(0.01)
            read += self.socket.client_reads_all()
        return read

    def log_in(self, user: bytes = b"ann") -> bytes:
        self.say(b"USER " + user)
        return self.say(b"PASS secret")

    @property
    def lost(self) -> type[BaseException] | None:
        return None if self.socket.lost is None else self.socket.lost.type


#: Faults with what comes for a command, and whether the connection ends there.
OF_ONE_REPLY: list[tuple[str, dict[str, Any], bytes, bytes, type[BaseException] | None]] = [
    ("drop", {"command": "STAT"}, b"STAT", b"", ConnectionDone),
    ("drop", {"command": "RETR", "octets": 20}, b"RETR 1", RETR_1[:20], ConnectionDone),
    ("drop-behind", {"command": "NOOP"}, b"NOOP", b"+OK\r\n", ConnectionDone),
    ("drop-before-dot", {}, b"RETR 1", RETR_1[:-3], ConnectionDone),
    ("drop-before-dot", {}, b"LIST", b"+OK\r\n1 23\r\n2 33\r\n", ConnectionDone),
    ("no-dot", {}, b"RETR 1", RETR_1[:-3], None),
    ("silence", {"command": "NOOP"}, b"NOOP", b"", None),
    ("answer", {}, b"STAT", b"-ERR no\r\n", None),
    ("answer", {"command": "LIST", "text": "+OK 0"}, b"LIST", b"+OK 0\r\n", None),
    ("long-reply", {"octets": 600}, b"STAT", b"+OK 2 56".ljust(598, b"x") + b"\r\n", None),
    ("unasked", {"text": "+OK hello"}, b"STAT", b"+OK 2 56\r\n+OK hello\r\n", None),
    ("status", {}, b"STAT", b"+ok 2 56\r\n", None),
    ("status", {"command": "NOOP", "text": "BAD"}, b"NOOP", b"BAD\r\n", None),
    ("wrong-size", {}, b"STAT", b"+OK 2 55\r\n", None),
    ("wrong-size", {"add": 7}, b"LIST", b"+OK\r\n1 30\r\n2 40\r\n.\r\n", None),
    ("wrong-size", {"add": -99}, b"LIST 1", b"+OK 1 0\r\n", None),
    ("wrong-size", {"add": 1}, b"RETR 1", RETR_1.replace(b"23", b"24"), None),
    ("huge-size", {}, b"LIST 1", b"+OK 1 4294967296\r\n", None),
    ("huge-size", {}, b"STAT", b"+OK 2 4294967296\r\n", None),
    ("negative-size", {}, b"LIST", b"+OK\r\n1 -23\r\n2 -33\r\n.\r\n", None),
    ("missing-number", {}, b"STAT", b"+OK 2\r\n", None),
    ("missing-number", {}, b"LIST", b"+OK\r\n1\r\n2\r\n.\r\n", None),
    ("wrong-count", {}, b"STAT", b"+OK 3 56\r\n", None),
    ("list-missing", {}, b"LIST", b"+OK\r\n2 33\r\n.\r\n", None),
    ("uidl-missing", {"message": 2}, b"UIDL", b"+OK\r\n1 uid-1\r\n.\r\n", None),
    ("uidl-duplicate", {}, b"UIDL", b"+OK\r\n1 same\r\n2 same\r\n.\r\n", None),
    ("uidl-changing", {}, b"UIDL 2", b"+OK 2 uid-2-1\r\n", None),
    ("uidl-long", {"octets": 80}, b"UIDL 1", b"+OK 1 " + b"uid-1".ljust(80, b"x") + b"\r\n", None),
    ("uidl-empty", {}, b"UIDL 1", b"+OK 1 \r\n", None),
    ("not-implemented", {}, b"UIDL", b"-ERR unknown command\r\n", None),
    ("not-implemented", {"command": ["TOP"]}, b"TOP 1 0", b"-ERR unknown command\r\n", None),
    ("capa", {"lines": ["TOP", "UIDL"]}, b"CAPA", b"+OK\r\nTOP\r\nUIDL\r\n.\r\n", None),
    ("capa", {"lines": ["SASL PLAIN"], "case": "odd"}, b"CAPA", b"+OK\r\nsAsL PlAiN\r\n.\r\n", None),
    ("bare-lf", {}, b"RETR 1", b"+OK 23 octets\r\nSubject: one\n\nHello\n.\r\n", None),
    ("no-final-crlf", {}, b"RETR 1", b"+OK 23 octets\r\nSubject: one\r\n\r\nHello.\r\n", None),
    ("unstuffed", {}, b"RETR 2", b"+OK 33 octets\r\n" + TWO + b".\r\n", None),
    ("unstuffed", {}, b"TOP 2 1", b"+OK\r\nSubject: two\r\n\r\n.hidden\r\n.\r\n", None),
    ("vanished", {}, b"RETR 2", b"-ERR message is gone\r\n", None),
    ("quit-refused", {}, b"QUIT", b"-ERR some deleted messages not removed\r\n", None),
    ("quit-silent", {}, b"QUIT", b"", ConnectionDone),
]  # fmt: skip


class OfOneReplyTests(SynchronousTestCase):
    """What a client sees instead of what is right."""

    def test_on_the_wire(self) -> None:
        for kind, words, line, expected, ends in OF_ONE_REPLY:
            with self.subTest(kind=kind, line=line):
                world = World()
                client = world.client()
                client.log_in()
                right = client.say(line)
                if kind.startswith("quit"):
                    client = world.client()
                    client.log_in()
                world.faults.add(kind, **{"session": 2, **words} if kind == "uidl-changing" else words)
                if kind == "uidl-changing":
                    client.say(b"QUIT")
                    client = world.client()
                    client.log_in()
                    expected = expected.replace(b"-1\r", b"-2\r")
                got = client.say(line)
                if line in (b"LIST", b"UIDL", b"CAPA", b"TOP 2 1"):
                    got = re.sub(rb"\A\+OK [^\r]*(?=\r\n.)", b"+OK", got)
                self.assertNotEqual((got, client.lost), (right, None), kind)
                self.assertEqual(got, expected, kind)
                self.assertIs(client.lost, ends, kind)
                self.assertEqual(len(world.watcher.of(Noted)), 1, kind)
                if ends is None:
                    world.faults.clear()
                    self.assertEqual(client.say(b"NOOP"), b"+OK\r\n", kind)

    def test_told(self) -> None:
        """The transcript names a fault in the place where it happened."""
        world = World()
        client = world.client()
        client.log_in()
        fault = world.faults.add("answer", text="-ERR nobody knows")
        client.say(b"STAT")
        self.assertIn("answer (text -ERR nobody knows)", fault.description)
        self.assertEqual(
            list(world.transcript.lines)[-3:],
            [
                "[1] C: STAT",
                f"[1] -- {fault.description}",
                "[1] S: -ERR nobody knows",
            ],
        )


class TimeTests(SynchronousTestCase):
    """Faults that take time, which is the server's clock's."""

    def setUp(self) -> None:
        self.world = World()
        self.client = self.world.client()
        self.client.log_in()

    def test_delay(self) -> None:
        self.world.faults.add("delay", command="NOOP", seconds=0.5)
        self.assertEqual(self.client.say(b"NOOP", within=0.45), b"")
        self.assertEqual(self.client.read(within=0.1), b"+OK\r\n")

    def test_waits_in_turn(self) -> None:
        """What is pipelined behind a late reply is answered behind it."""
        self.world.faults.add("delay", command="NOOP", seconds=0.5, times=1)
        self.assertEqual(self.client.say(b"NOOP\r\nSTAT", within=0.4), b"")
        self.assertEqual(self.client.read(within=0.2), b"+OK\r\n+OK 2 56\r\n")

    def test_split_end(self) -> None:
        """Each octet of the end comes by itself."""
        self.world.faults.add("split-end", seconds=0.1)
        self.assertEqual(self.client.say(b"RETR 1"), RETR_1[:-3])
        self.assertEqual([self.client.read(within=0.11) for _ in range(3)], [b".", b"\r", b"\n"])
        self.assertEqual(self.client.say(b"NOOP", within=0.3), b"+OK\r\n")

    def test_packets(self) -> None:
        self.world.faults.add("packets", octets=10)
        written: list[bytes] = []
        socket = self.client.socket
        write = socket.write
        socket.write = lambda data: (written.append(data), write(data))[1]  # type: ignore[assignment]
        self.client.socket.protocol.writer.rewire(socket)
        self.assertEqual(self.client.say(b"RETR 1"), RETR_1)
        self.assertEqual([len(piece) for piece in written], [10, 10, 10, 10, 1])

    def test_slow(self) -> None:
        """41 octets at 20 a second."""
        self.world.faults.add("slow", rate=20)
        got = self.client.say(b"RETR 1", within=1.0)
        self.assertTrue(18 <= len(got) <= 24, len(got))
        self.assertEqual(got + self.client.read(within=1.5), RETR_1)

    def test_gone_meanwhile(self) -> None:
        """A client that leaves while a fault waits leaves nothing behind."""
        self.world.faults.add("delay", command="RETR", seconds=60.0)
        self.client.say(b"RETR 1")
        self.client.socket.vanish()
        self.world.clock.advance(0)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.assertEqual(self.world.factory.connections, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_reset(self) -> None:
        self.world.faults.add("drop", command="RETR", octets=5, reset=True)
        self.client.socket.client_sends(b"RETR 1\r\n")
        self.world.clock.advance(0)
        self.assertIs(self.client.lost, ConnectionAborted)
        self.assertEqual(self.world.watcher.of(Ended)[-1].why, "fault")


class GreetingTests(SynchronousTestCase):
    """The first thing that a client reads."""

    def test_greetings(self) -> None:
        for kind, words, expected, ends in (
            ("drop", {}, b"", ConnectionDone),
            ("drop", {"octets": 3}, b"+OK", ConnectionDone),
            ("delay", {"seconds": 100.0}, b"", None),
            ("status", {"text": "+HI"}, b"+HI", None),
            ("no-dot", {}, b"+OK", None),
        ):
            world = World()
            world.faults.add(kind, command="GREETING", **words)
            client = world.client()
            self.assertEqual(client.greeting[: len(expected) or None], expected, kind)
            self.assertIs(client.lost, ends, kind)

    def test_never(self) -> None:
        """Without a greeting the server still takes commands; no reply at all is a rule for any."""
        world = World()
        world.faults.add("delay", command="*", seconds=86_400)
        client = world.client()
        self.assertEqual(client.greeting + client.say(b"CAPA", within=1.0), b"")

    def test_refused(self) -> None:
        """A server that is closed today says so, and ends; one that hangs says nothing, and no longer."""
        world = World()
        world.faults.add("answer", command="GREETING", text="-ERR closed today")
        world.faults.add("drop-behind", command="GREETING")
        client = world.client()
        self.assertEqual(client.greeting, b"-ERR closed today\r\n")
        self.assertIs(client.lost, ConnectionDone)
        world.faults.clear()
        world.faults.add("silence", command="GREETING", times=1)
        client = world.client()
        self.assertEqual(client.greeting, b"")
        self.assertIn("[2] -- fault silence", "\n".join(world.transcript.lines))
        self.assertEqual(client.say(b"QUIT")[:4], b"+OK ")
        # Where no command is named, all are meant, and the greeting comes.
        world.faults.add("silence")
        self.assertEqual(world.client().greeting[:4], b"+OK ")

    def test_garbage(self) -> None:
        """The same seed gives the same garbage, to the same connection."""
        greetings = []
        for seed in (1, 1, 2):
            world = World(seed)
            world.faults.add("garbage", octets=20)
            greetings.append(world.client().greeting)
        self.assertEqual(len(greetings[0]), 22)
        self.assertEqual(greetings[0], greetings[1])
        self.assertNotEqual(greetings[0], greetings[2])


class LoginTests(SynchronousTestCase):
    """A password is right, and nobody is let in."""

    def test_codes(self) -> None:
        for code in KINDS["login-refused"].parameters["code"].choices or ():
            world = World()
            fault = world.faults.add("login-refused", code=code, times=2)
            client = world.client()
            for _ in range(2):
                self.assertRegex(client.log_in(), rb"\A-ERR \[%s\] [^\r]+\r\n\Z" % code.encode())
            self.assertRegex(client.log_in(), rb"\A\+OK")
            self.assertEqual(fault.happened, 2)
            self.assertEqual(len(world.watcher.of(Noted)), 2)

    def test_of_one_user(self) -> None:
        world = World()
        world.faults.add("login-refused", user="ann")
        self.assertRegex(world.client().log_in(b"bob"), rb"\A\+OK")
        self.assertRegex(world.client().log_in(b"ann"), rb"\A-ERR \[IN-USE\]")

    def test_all_else_is_the_stores(self) -> None:
        """What else a store can do, it still can."""
        store = World().faults.around_store(MemoryStore({"ann": []}))
        for interface in (IMailStore, IDelivery, IStoreAdmin):
            self.assertTrue(interface.providedBy(store))
        admin: Any = store
        self.assertTrue(admin.exists("ann"))


class CapaTests(SynchronousTestCase):
    """What CAPA says."""

    def test_hidden(self) -> None:
        """A command that is not there is not announced, and the others are."""
        world = World()
        client = world.client()
        before = client.say(b"CAPA")
        self.assertIn(b"\r\nUIDL\r\n", before)
        world.faults.add("not-implemented", command="uidl")
        self.assertEqual(client.say(b"CAPA"), before.replace(b"UIDL\r\n", b""))

    def test_cases(self) -> None:
        for case, expected in (("upper", b"\r\nTOP\r\n"), ("lower", b"\r\ntop\r\n"), ("odd", b"\r\ntOp\r\n")):
            world = World()
            world.faults.add("capa", case=case)
            self.assertIn(expected, world.client().say(b"CAPA"))


class ConditionTests(SynchronousTestCase):
    """When a fault happens."""

    def replies(self, count: int, world: World, line: bytes = b"NOOP") -> str:
        client = world.client()
        client.log_in()
        seen = "".join("." if client.say(line) == b"+OK\r\n" else "x" for _ in range(count))
        client.say(b"QUIT")
        return seen

    def test_nth_and_times(self) -> None:
        for words, expected in (
            ({}, "xxxxx"),
            ({"nth": 3}, "..x.."),
            ({"times": 2}, "xx..."),
            ({"command": ["NOOP", "STAT"], "nth": 1}, "x...."),
        ):
            world = World()
            fault = world.faults.add("answer", **{"command": "noop", **words})
            self.assertEqual(self.replies(5, world), expected)
            self.assertEqual(fault.happened, expected.count("x"))

    def test_session_and_user(self) -> None:
        world = World()
        world.faults.add("answer", command="NOOP", session=2)
        self.assertEqual([self.replies(1, world) for _ in range(3)], [".", "x", "."])
        world.faults.clear()
        world.faults.add("answer", command="NOOP", user="ann")
        self.assertEqual(self.replies(1, world), "x")
        bob = world.client()
        bob.log_in(b"bob")
        self.assertEqual(bob.say(b"NOOP"), b"+OK\r\n")

    def test_user_who_says_so(self) -> None:
        """Before login a user is who the client says it is."""
        world = World()
        world.faults.add("answer", command="PASS", user="ann", text="-ERR [SYS/TEMP] later")
        self.assertEqual(world.client().log_in(), b"-ERR [SYS/TEMP] later\r\n")
        self.assertRegex(world.client().log_in(b"bob"), rb"\A\+OK")

    def test_probability(self) -> None:
        """The same seed, the same faults; about as many as it says."""
        seen = []
        for seed in (1, 1, 2):
            world = World(seed)
            world.faults.add("answer", command="NOOP", probability=0.3)
            seen.append("".join(self.replies(50, world) for _ in range(8)))
        self.assertEqual(seen[0], seen[1])
        self.assertNotEqual(seen[0], seen[2])
        self.assertTrue(80 < seen[0].count("x") < 160, seen[0].count("x"))

    def test_removed(self) -> None:
        world = World()
        fault = world.faults.add("answer", command="NOOP")
        world.faults.remove(fault)
        self.assertEqual(self.replies(2, world), "..")
        self.assertEqual(list(world.faults), [])

    def test_not_this_message(self) -> None:
        """A fault for one message leaves the others, and is not counted for them."""
        world = World()
        fault = world.faults.add("vanished", message=2)
        client = world.client()
        client.log_in()
        self.assertEqual(client.say(b"RETR 1"), RETR_1)
        self.assertEqual(fault.happened, 0)
        self.assertEqual(client.say(b"RETR 2"), b"-ERR message is gone\r\n")
        self.assertEqual(fault.happened, 1)

    def test_two_at_once(self) -> None:
        """Both happen, in the order in which they were put in."""
        world = World()
        world.faults.add("wrong-size", command="STAT", add=1)
        world.faults.add("drop", command="STAT", octets=8)
        client = world.client()
        client.log_in()
        self.assertEqual(client.say(b"STAT"), b"+OK 2 57")
        self.assertIs(client.lost, ConnectionDone)

    def test_lines_of_an_exchange(self) -> None:
        """What is sent behind AUTH is no command, whatever it looks like; its replies are AUTH's."""
        world = World()
        client = world.client()
        world.faults.add("answer", command="*", text="-ERR never", session=2)
        world.faults.add("long-reply", command="AUTH", octets=30, session=1)
        challenge = client.say(b"AUTH PLAIN")
        self.assertTrue(challenge.startswith(b"+ "), challenge)
        world.faults.clear()
        world.faults.add("answer", command="*", text="-ERR never")
        self.assertRegex(client.say(b"AGFubgBzZWNyZXQ="), rb"\A\+OK")

    def test_nothing_removed(self) -> None:
        """QUIT that is refused removes nothing; a message that was dropped counts as not retrieved."""
        world = World()
        world.faults.add("quit-refused")
        world.faults.add("drop", command="RETR", octets=20)
        client = world.client()
        client.log_in()
        client.say(b"DELE 1")
        client.say(b"QUIT")
        client.say(b"RETR 2")
        self.assertEqual(world.watcher.of(Ended)[-1].retrieved, 0)
        again = world.client()
        again.log_in()
        self.assertEqual(again.say(b"STAT"), b"+OK 2 56\r\n")


class SMTPTests(SynchronousTestCase):
    """Faults where mail comes in."""

    def test_lost_acknowledgement(self) -> None:
        """The message is there and its sender does not hear so: the connection ends before the 250."""
        clock, faults, store = Clock(), Faults(), MemoryStore({"ann": []})
        factory = smtp_factory(store, RecipientResolver({"ann": "ann"}.get), clock, gate=faults)
        faults.attach(clock, ServerControl([factory], lambda: None, Notice(Clock(), 0)))
        faults.add("drop", command="DATA", nth=2, protocol="SMTP")
        faults.add("answer", command="RSET", text="451 no", protocol="SMTP")
        faults.add("answer", command="NOOP")
        socket = FakeSocket(clock)
        socket.connect(factory.buildProtocol(None))
        socket.client_reads_all()
        said = b""
        for line in (b"NOOP", b"RSET", b"EHLO me", b"MAIL FROM:<>", b"RCPT TO:<ann>", b"DATA"):
            socket.client_sends(line + b"\r\n")
            said += socket.client_reads_all()
        self.assertRegex(said, rb"(?s)\A250 [^\n]*\n451 no\r\n250-.*354 ")
        socket.client_sends(b"Subject: x\r\n\r\nx\r\n.\r\n")
        self.assertEqual(socket.client_reads_all(), b"")
        self.assertIsNotNone(socket.lost)
        self.assertEqual(len(store.messages("ann")), 1)


class ReferenceTests(SynchronousTestCase):
    """The page that lists the faults."""

    def test_current(self) -> None:
        """docs/faults.rst is what the kinds say."""
        page = Path(pop3toy.__file__).parent.parent / "docs" / "faults.rst"
        self.assertEqual(page.read_text(encoding="utf-8"), fault_reference())

    def test_complete(self) -> None:
        """Each kind says where it was seen, and is one thing."""
        for name, kind in KINDS.items():
            self.assertTrue(kind.seen, name)
            parts = [kind.alters, kind.answers, kind.login or None, kind.tls or None]
            self.assertEqual(len([part for part in parts if part is not None]), 1, name)


class MistakeTests(SynchronousTestCase):
    """What cannot be is told, with the word that is wrong."""

    def test_mistakes(self) -> None:
        for kind, words, key, text in (
            ("dorp", {}, "kind", "did you mean 'drop'?"),
            ("drop", {"octet": 1}, "octet", "did you mean 'octets'?"),
            ("drop", {"octets": -1}, "octets", "too small"),
            ("drop", {"octets": 1.5}, "octets", "number"),
            ("drop", {"octets": True}, "octets", "number"),
            ("drop", {"reset": 1}, "reset", "true or false"),
            ("slow", {"rate": 0}, "rate", "too small"),
            ("packets", {"octets": 0}, "octets", "too small"),
            ("delay", {"seconds": "1"}, "seconds", "number"),
            ("answer", {"text": "a\nb"}, "text", "one line"),
            ("capa", {"lines": "TOP"}, "lines", "list"),
            ("capa", {"case": "Upper"}, "case", "upper"),
            ("login-refused", {"code": "NO"}, "code", "IN-USE"),
            ("login-refused", {"command": "PASS"}, "command", "no command"),
            ("login-refused", {"session": 1}, "session", "a user"),
            ("tls-expired", {"user": "ann"}, "user", "before"),
            ("drop", {"nth": 0}, "nth", "from 1"),
            ("drop", {"times": "2"}, "times", "from 1"),
            ("drop", {"session": True}, "session", "from 1"),
            ("drop", {"probability": 2}, "probability", "0 to 1"),
            ("drop", {"protocol": "IMAP"}, "protocol", "LMTP"),
            ("drop", {"user": 1}, "user", "text"),
            ("drop", {"command": [1]}, "command", "text"),
            ("drop", {"command": 1}, "command", "text"),
            ("drop", {"command": "RETR 1"}, "command", "one word"),
            ("drop", {"command": ["RETR\r\nDELE"]}, "command", "one word"),
            ("drop", {"command": ""}, "command", "one word"),
            ("delay", {"seconds": float("nan")}, "seconds", "up to 86400"),
            ("delay", {"seconds": float("inf")}, "seconds", "up to 86400"),
            ("split-end", {"seconds": 86_401}, "seconds", "up to 86400"),
            ("garbage", {"octets": 2**24 + 1}, "octets", "up to 16777216"),
            ("slow", {"rate": 10**400}, "rate", "up to"),
            ("wrong-size", {"add": -(10**5000)}, "add", "up to"),
            ("capa", {"lines": ["TOP\r\nUIDL"]}, "lines", "one line"),
        ):
            with self.assertRaises(BadFault) as caught:
                Faults().add(kind, **words)
            self.assertEqual(caught.exception.key, key)
            self.assertIn(text, str(caught.exception))

    def test_every_kind_is_seen(self) -> None:
        """No kind without a test that shows it on the wire: here, or for TLS in test_faulty_tls."""
        seen = {kind for kind, *_ in OF_ONE_REPLY}
        seen |= {"delay", "split-end", "packets", "slow", "garbage", "login-refused"}
        self.assertEqual({kind for kind in KINDS if not kind.startswith(("tls-", "stls-"))} - seen, set())
