"""The conversations in ``tests/conversations``, and the player of them (``pop3toy.testing``).

Each script runs four times: with everything at hand, with the client's octets coming one by one, with a
store whose every answer comes late, and with both.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy import IGate, POP3Factory
from pop3toy.net.fast.immediate_write import ImmediateSending
from pop3toy.net.fast.reply_batcher import ReplyBatcher
from pop3toy.net.sending import Sending
from pop3toy.testing import POP3Conversation
from pop3toy.testing.conversation import fits

SCRIPTS = sorted((Path(__file__).parents[1] / "conversations").glob("*.txt"))


class Kernel:
    """A reactor that the test calls, and the connections of its Unix sockets."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()

    def connect(self, factory: POP3Factory, clock: Clock) -> KernelSocket:
        """The client's end of a new connection."""
        ours, theirs = socket.socketpair()
        self.reactor.adoptStreamConnection(theirs.fileno(), socket.AF_UNIX, factory)
        theirs.close()
        return KernelSocket(self.reactor, clock, ours)

    def close(self) -> None:
        """Give back what it has opened."""
        for one in [*self.reactor.removeAll(), *self.reactor._internalReaders]:
            self.reactor.removeReader(one)
            one.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()


class KernelSocket:
    """A client, with the names of :class:`FakeSocket`."""

    def __init__(self, reactor: Any, clock: Clock, ours: socket.socket) -> None:
        self._reactor = reactor
        self._clock = clock
        self._socket = ours
        ours.setblocking(False)
        self.got = bytearray()
        self.lost: str | None = None

    @property
    def reading(self) -> bool:
        """Whether what the client sends may still be read."""
        return self.lost is None

    def client_sends(self, data: bytes) -> None:
        self._socket.sendall(data)

    def client_reads_all(self) -> None:
        """Turn after turn, until nothing comes in three of them: one hears, one writes, one closes."""
        quiet = 0
        while quiet < 3 and self.lost is None:
            self._clock.advance(0)
            self._reactor.iterate(0)
            quiet += 1
            try:
                while data := self._socket.recv(1 << 16):
                    self.got += data
                    quiet = 0
                self.lost = "closed"
                self._socket.close()
            except BlockingIOError:
                pass

    def vanish(self) -> None:
        self._socket.close()
        self.lost = "gone"
        self._reactor.iterate(0)


class OverKernel(POP3Conversation):
    """A script over the kernel's sockets.

    :param kernel: makes the connections.
    :param sending: of the factory.
    """

    def __init__(self, script: str, kernel: Kernel, sending: Sending) -> None:
        super().__init__(script)
        self._kernel = kernel
        self._sending = sending

    def _connect(self, factory: POP3Factory, clock: Clock) -> Any:
        return self._kernel.connect(factory, clock)


class ConversationTests(SynchronousTestCase):
    """Every script, at once, octet by octet, and with a slow store."""

    def run_all(self, *, slowly: bool, late: bool) -> None:
        self.run_each(lambda script: POP3Conversation(script, slowly=slowly, late=late))

    def run_each(self, conversation: Callable[[str], POP3Conversation]) -> None:
        for script in SCRIPTS:
            with self.subTest(script.name):
                try:
                    conversation(script.read_text("utf-8")).run()
                except AssertionError as error:
                    raise self.failureException(f"{script.name}, {error}") from error

    def test_at_once(self) -> None:
        """The conversations hold when everything is at hand."""
        self.run_all(slowly=False, late=False)

    def test_octet_by_octet(self) -> None:
        """They hold when the client's octets come one by one."""
        self.run_all(slowly=True, late=False)

    def test_late(self) -> None:
        """They hold when every answer of the store comes late."""
        self.run_all(slowly=False, late=True)

    def test_late_and_octet_by_octet(self) -> None:
        """They hold when both are so."""
        self.run_all(slowly=True, late=True)

    def test_sockets(self) -> None:
        """They hold over the kernel's sockets, with what is there for speed and without it."""
        kernel = Kernel()
        self.addCleanup(kernel.close)
        batcher = ReplyBatcher(kernel.reactor)
        self.run_each(lambda script: OverKernel(script, kernel, Sending()))
        for _ in range(2):
            self.run_each(lambda script: OverKernel(script, kernel, ImmediateSending(batcher.postpone)))
            # With it the second time.
            batcher.startService()

    def test_each_says_why(self) -> None:
        """Each script begins with the reason for which it is there."""
        self.assertGreater(len(SCRIPTS), 15)
        for script in SCRIPTS:
            self.assertTrue(script.read_text(encoding="utf-8").startswith("# "), script.name)


class RunnerTests(SynchronousTestCase):
    """The runner itself forgives nothing."""

    GOOD = (
        "octets one 30\n\nS: +OK ...\nC: USER ann\nS: +OK send PASS\n"
        "C: PASS secret\nS: +OK ... 1 message (30 octets)\n"
    )

    def run_script(self, script: str) -> None:
        POP3Conversation(script).run()

    def test_good(self) -> None:
        """A script that is right passes."""
        self.run_script(self.GOOD + "C: LIST\nS: +OK 1 message (30 octets)\nS: 1 30\nS: .\nopen\nleft one\n")

    def test_wrong(self) -> None:
        """A script that is wrong in any one thing does not."""
        for wrong in (
            "C: STAT\nS: +OK 1 31\n",
            "C: STAT\nS: -ERR ...\n",
            "C: STAT\nS: +OK 1 30 ...\n",
            "C: STAT\nS: ...\n",
            "C: STAT\n",
            "C: LIST\nS: +OK ...\nS: 1 30\n",
            "C: LIST\nS: +OK ...\nS: ...\nS: .\n",
            "C: QUIT\nS: +OK bye\nopen\n",
            "C: NOOP\nS: +OK ...\n",
            "C: NOOP\nS: +OK\nclosed\n",
            "C: DELE 1\nS: +OK ...\nC: QUIT\nS: +OK ...\nleft one\n",
            "C: NOOP\nS: +OK\nS: +OK\n",
            'C: NOOP\nS> b"+OK\\n"\n',
            "C: NOOP\nS: +OK\nfoo\n",
        ):
            with self.assertRaises(AssertionError, msg=wrong):
                self.run_script(self.GOOD + wrong)

    def test_free_text_is_no_code(self) -> None:
        """``...`` does not stand for a response code."""
        self.assertTrue(fits("-ERR ...", "-ERR no such message"))
        self.assertFalse(fits("-ERR ...", "-ERR [AUTH] no"))
        self.assertTrue(fits("-ERR [AUTH] ...", "-ERR [AUTH] no"))
        self.assertFalse(fits("-ERR [AUTH] ...", "-ERR [AUTH] "))
        self.assertFalse(fits("1 ...", "1 30"))

    def test_literals_alone(self) -> None:
        """What is written as octets is a literal, and no program."""
        for wrong in ('C> print("x")', 'C> b"x".join([])', "C> 1 + 1", 'C> "x"'):
            with self.assertRaises((AssertionError, ValueError), msg=wrong):
                self.run_script(f"{self.GOOD}{wrong}\nS: -ERR ...\n")
        self.run_script(self.GOOD + 'C> b"NO" + b"O" + b"P\\r\\n" * 2\nS: +OK\nS: -ERR ...\n')

    def test_gate(self) -> None:
        """What a gate makes of a conversation can be played, too."""
        script = self.GOOD + "C: NOOP\nS: +OK 1 30\n"
        self.assertRaises(AssertionError, POP3Conversation(script).run)
        POP3Conversation(script, gate=_StatForNoop()).run()


@implementer(IGate)
class _StatForNoop:
    """Carries out STAT where the client has said NOOP."""

    def command(self, record: object, line: bytes) -> bytes:
        return b"STAT" if line == b"NOOP" else line

    def reply(self, record: object, line: bytes, reply: bytes) -> bytes:
        return reply
