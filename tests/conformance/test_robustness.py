"""Whatever a server says, or does not say, the checker comes to its end in time, and no check crashes."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.conformance import budget, examination
from pop3toy.conformance.budget import Budget
from pop3toy.conformance.connection import Connection, TooMuch
from pop3toy.conformance.examination import Examination
from pop3toy.conformance.results import CannotTry
from pop3toy.conformance.rules import Level, Outcome
from pop3toy.conformance.table import RULES
from pop3toy.conformance.trace import Trace

from .badserver import BadServer, Fault, Session
from .faults import instead
from .world import RightServer, failed, look, rules_named, target

#: Seconds that a run against a server that says nothing useful may take.
PATIENCE = 60.0


@contextlib.contextmanager
def hostile(answers: Callable[[], Iterator[bytes]]) -> Iterator[int]:
    """A server that says this to each line, the first as its greeting: its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    clients: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for said in answers():
                client.sendall(said)
                if not client.recv(65536):
                    break
            client.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for client in clients:
            client.close()
        thread.join(5)


class HostileTests(SynchronousTestCase):
    """Servers that are none."""

    def check(self, answers: Callable[[], Iterator[bytes]]) -> None:
        """A run ends in time, and some MUST is found to be broken."""
        begun = time.monotonic()
        with hostile(answers) as port:
            found = look(port, timeout=0.3, patience=0.3, destructive=True)
        self.assertLess(time.monotonic() - begun, PATIENCE)
        self.assertIn(Level.MUST, {found[name].rule.level for name in failed(found)})

    def test_silence(self) -> None:
        """A server that says nothing."""
        self.check(lambda: itertools.repeat(b""))

    def test_silence_behind_the_greeting(self) -> None:
        """A server that only greets."""
        self.check(lambda: itertools.chain([b"+OK\r\n"], itertools.repeat(b"")))

    def test_closed_at_once(self) -> None:
        """A server that hangs up."""
        self.check(lambda: iter(()))

    def test_garbage(self) -> None:
        """A server that says random octets, whole lines of them and parts."""
        for seed in range(3):
            chance = random.Random(seed)
            self.check(lambda chance=chance: (chance.randbytes(chance.randrange(1, 3000)) for _ in range(99)))

    def test_words_in_any_order(self) -> None:
        """A server whose answers are parts of right ones, in no order."""
        pieces = [
            b"+OK",
            b"-ERR",
            b" ",
            b"\r\n",
            b"\n",
            b"\r",
            b".\r\n",
            b"1 1\r\n",
            b"0",
            b"-1",
            b"+ \r\n",
            b"[A",
        ]
        for seed in range(8):
            chance = random.Random(seed)

            def answers(chance: random.Random = chance) -> Iterator[bytes]:
                yield b"+OK\r\n"
                while True:
                    yield b"+OK " + b"".join(chance.choices(pieces, k=chance.randrange(1, 20))) + b"\r\n.\r\n"

            with hostile(answers) as port:
                look(port, timeout=0.1, patience=0.1, destructive=True)

    def test_without_end(self) -> None:
        """Lines without end, and listings."""
        self.check(lambda: iter([b"+OK " + b"x" * 200_000] * 9))
        listing = b"+OK\r\n" + b"1 1\r\n" * 200_000
        self.check(lambda: itertools.chain([b"+OK\r\n"], itertools.repeat(listing)))

    def test_time_of_a_check(self) -> None:
        """A check whose time is over reads nothing more."""
        clock, (ours, theirs) = Clock(), socket.socketpair()
        self.addCleanup(theirs.close)
        time = Budget(clock.seconds, 1.0, 2.0)
        with Connection(ours, Trace([]), clock.seconds, 1.0, time) as connection:
            time.begin()
            theirs.sendall(b"+OK\r\n")
            self.assertTrue(connection.reply("STAT").ok)
            clock.advance(12)
            theirs.sendall(b"+OK\r\n")
            with self.assertRaises(TooMuch) as caught:
                connection.reply("STAT")
        self.assertIn("more than 12 s", str(caught.exception))

    def test_time_of_all(self) -> None:
        """What is lost is counted, and so is all; what is done in time counts as nothing lost."""
        clock = Clock()
        time = Budget(clock.seconds, 2.0, 0.0)
        time.begin_run()
        for spoiled in (False, True, False, True, True):
            self.assertEqual(time.used_up, "")
            time.begin()
            if spoiled:
                time.spoil()
            clock.advance(20)
            time.end()
        self.assertEqual(time.used_up, "in 60 s the server came to no end")
        time.begin_run()
        self.assertEqual(time.used_up, "")
        clock.advance(301)
        self.assertEqual(time.used_up, "the other checks took 300 s")

    def test_given_up(self) -> None:
        """A server that lets each check wait is given up, and the report says so."""
        self.patch(budget, "_LOST", 2)
        self.patch(budget, "_LOST_LEAST", 0.0)
        greets = lambda: itertools.chain([b"+OK\r\n"], itertools.repeat(b""))  # noqa: E731
        with hostile(greets) as port:
            found = look(port, timeout=0.1, patience=0.1)
        given_up = [name for name, one in found.items() if "the server came to no end" in one.text]
        self.assertGreater(len(given_up), len(RULES) // 2)
        self.assertLess(len(given_up), len(RULES))

    def test_nobody(self) -> None:
        """A port where nobody listens is no server to look at."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with self.assertRaises(CannotTry):
            Examination(target(port), time.monotonic).prepare()


class CutTests(SynchronousTestCase):
    """A right server until it says no more."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        self.right = RightServer(folder)
        self.addCleanup(self.right.stop)

    def cut(self, octets: int, *, closes: bool) -> Fault:
        """Say no more behind so many octets of each session."""

        def fault(session: Session, line: bytes, answer: Callable[[], bytes]) -> bytes:
            left = octets - session.notes.get("said", 0)
            said = answer()[: max(left, 0)]
            session.notes["said"] = session.notes.get("said", 0) + len(said)
            session.notes["silent"] = not closes
            session.closing = closes and left <= len(said)
            return said

        return fault

    def test_closed_at_any_octet(self) -> None:
        """Closed there."""
        for octets in (1, 30, 75, 110, 200, 300, 600):
            self.right.fill()
            with BadServer(self.right.port, self.cut(octets, closes=True)) as server:
                found = look(server.port, timeout=0.5, patience=0.2, destructive=True)
            self.assertTrue(failed(found), octets)

    def test_silent_from_any_octet(self) -> None:
        """Nothing more, and not closed."""
        for octets in (30, 110, 260):
            self.right.fill()
            with BadServer(self.right.port, self.cut(octets, closes=False)) as server:
                found = look(server.port, timeout=0.1, patience=0.2, destructive=True)
            broken = {one.rule.level for one in found.values() if one.outcome is Outcome.FAILED}
            self.assertIn(Level.MUST, broken)
        self.assertEqual(len(found), len(RULES))

    def test_listing_without_measure(self) -> None:
        """A listing that nobody has is read no further, whether it has many lines or long ones."""
        self.right.fill()
        for line, times in ((b"1 1\r\n", 1_100_000), (b"1 %s\r\n" % (b"9" * 997), 18_000)):
            with BadServer(self.right.port, instead("LIST", b"+OK\r\n" + line * times + b".\r\n")) as server:
                found = look(server.port, rules_named("list"), timeout=30)
            self.assertIn("has more than 16777216 octets, or than 1000000 lines", failed(found)["list"][0])

    def test_quit_is_never_answered(self) -> None:
        """That is waited for once; not in each check."""
        self.patch(examination, "_AFTER_QUIT", 0.05)
        self.right.fill()

        def silent(session: Session, line: bytes, answer: Callable[[], bytes]) -> bytes:
            session.notes["silent"] = True
            said = answer()
            return b"" if line.startswith(b"QUIT") else said

        begun = time.monotonic()
        with BadServer(self.right.port, silent) as server:
            found = look(server.port, rules_named("stat noop list list-one rset"), timeout=2.0, patience=5.0)
        self.assertEqual(failed(found), {})
        self.assertLess(time.monotonic() - begun, 6.0)
