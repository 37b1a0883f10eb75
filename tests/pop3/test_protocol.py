"""A connection: order, patience, back-pressure, and connections that end in the middle of things."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import MailboxRealm, POP3Factory, limits
from pop3toy.errors import AuthenticationFailed, MessageGone, StoreTrouble
from pop3toy.events import (
    KINDS,
    Ended,
    InputDiscarded,
    LineReceived,
    LoginFailed,
    MessageRemoved,
    Observers,
)
from pop3toy.interfaces import Challenge
from pop3toy.observe.transcript import MemoryTranscript
from pop3toy.pop3.session import State
from pop3toy.stores.memory import BytesBody, MemoryStore

from ..pop3_world import EndlessBody, FakeAuthenticator, FakeSocket, ScriptedMailbox, Watcher, connect

GREETING = b"+OK pop3toy ready\r\n"
LOGIN = b"USER ann\r\nPASS pass\r\n"
MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"
RETRIEVED = b"+OK 24 octets\r\n" + MESSAGE + b".\r\n"


def talk(*pieces: bytes, **authenticator: Any) -> bytes:
    """All that a session with two messages answers to these pieces of input, its greeting left out."""
    mailbox = ScriptedMailbox({b"one": MESSAGE, b"two": b"X: y\n\n.\n"})
    protocol, transport, _ = connect(FakeAuthenticator(mailbox, **authenticator))
    for piece in pieces:
        protocol.dataReceived(piece)
    return transport.value().removeprefix(GREETING)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces that end at these places."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


class InputTests(SynchronousTestCase):
    """Whatever arrives, in whatever pieces."""

    lines = st.one_of(
        st.sampled_from(
            [
                b"STAT",
                b"LIST",
                b"UIDL 1",
                b"RETR 1",
                b"RETR 2",
                b"TOP 1 0",
                b"DELE 1",
                b"RSET",
                b"NOOP",
                b"CAPA",
            ]
        ),
        st.sampled_from([b"", b"\0", b"STAT\0", b"\xff\xfe", b"NOOP x", b"\r", b"QUIT"]),
        st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
        st.sampled_from([250, 253, 254, 255, 256, 12_285, 12_286, 12_287, 12_288, 12_289, 30_000]).map(
            lambda size: b"x" * size
        ),
        st.sampled_from([249, 12_280, 12_281, 12_282, 13_000]).map(lambda size: b"AUTH PLAIN " + b"A" * size),
    )

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(lines, st.sampled_from([b"\r\n", b"\n"])), max_size=12),
        st.lists(st.integers(0, 100_000), max_size=12),
        st.booleans(),
    )
    def test_pieces_make_no_difference(
        self, lines: list[tuple[bytes, bytes]], places: list[int], logged_in: bool
    ) -> None:
        """The same octets get the same replies, however the network cuts them."""
        data = (LOGIN if logged_in else b"") + b"".join(line + end for line, end in lines)
        self.assertEqual(talk(*cut(data, places)), talk(data))

    def test_octet_by_octet(self) -> None:
        """A session that arrives octet by octet is answered like one that arrives at once."""
        data = LOGIN + b"STAT\r\nRETR 1\r\n" + b"y" * 300 + b"\r\nDELE 2\r\nLIST\r\nQUIT\r\n"
        self.assertEqual(talk(*[data[at : at + 1] for at in range(len(data))]), talk(data))
        self.assertIn(RETRIEVED, talk(data))

    def test_bare_line_feed(self) -> None:
        """A bare LF ends a line, as it comes from netcat."""
        self.assertEqual(talk(LOGIN.replace(b"\r", b"") + b"STAT\n"), talk(LOGIN + b"STAT\r\n"))
        self.assertTrue(talk(LOGIN + b"STAT\n").endswith(b"+OK 2 35\r\n"))

    def test_longest_command_line(self) -> None:
        """A command of 255 octets with its CRLF is taken, one of 256 is not."""
        name = b"n" * (255 - len(b"USER \r\n"))
        self.assertEqual(talk(b"USER " + name + b"\r\n"), b"+OK send PASS\r\n")
        self.assertEqual(talk(b"USER " + name + b"n\r\n"), b"-ERR line too long\r\n")

    def test_too_long_is_one_reply(self) -> None:
        """A line without end gets one reply, at once, and the session goes on behind it."""
        mailbox = ScriptedMailbox({b"one": MESSAGE})
        protocol, transport, _ = connect(FakeAuthenticator(mailbox))
        transport.clear()
        for _ in range(50):
            protocol.dataReceived(b"z" * 10_000)
        self.assertEqual(transport.value(), b"-ERR line too long\r\n")
        protocol.dataReceived(b"STAT\r\n" + LOGIN)
        self.assertTrue(transport.value().startswith(b"-ERR line too long\r\n+OK send PASS\r\n+OK maildrop"))

    def test_too_long_is_not_kept(self) -> None:
        """The octets of a line that is too long are thrown away as they come."""
        protocol, _, _ = connect(FakeAuthenticator())
        for _ in range(100):
            protocol.dataReceived(b"z" * 65_536)
        self.assertLess(len(protocol.clearLineBuffer()), limits.SASL_LINE + 1)

    def test_too_long_too_often(self) -> None:
        """One over-long line after the other ends the session, like any bad command."""
        protocol, transport, _ = connect(FakeAuthenticator())
        transport.clear()
        for _ in range(30):
            protocol.dataReceived(b"z" * 20_000 + b"\r\n")
        refused = b"-ERR line too long\r\n" * (limits.BAD_COMMANDS_BEFORE_LOGIN - 1)
        self.assertEqual(
            transport.value(), refused + b"-ERR line too long; too many bad commands, goodbye\r\n"
        )
        self.assertTrue(transport.disconnecting)

    def test_sasl_line(self) -> None:
        """Within an exchange a line may be as long as RFC 5034 allows, and no longer."""
        for size, heard in ((12_286, True), (12_287, False)):
            authenticator = FakeAuthenticator()
            authenticator.offered = ["PLAIN"]
            authenticator.steps = [Challenge(b"")]
            protocol, transport, _ = connect(authenticator)
            protocol.dataReceived(b"AUTH PLAIN\r\n")
            transport.clear()
            # Neither length is one of base64, so both are refused; but not for the same reason.
            protocol.dataReceived(b"A" * size + b"\r\n")
            if heard:
                self.assertEqual(transport.value(), b"-ERR this is not base64, authentication cancelled\r\n")
            else:
                self.assertEqual(transport.value(), b"-ERR line too long, authentication cancelled\r\n")

    def test_sasl_line_of_base64(self) -> None:
        """The longest response of whole base64 reaches the mechanism, decoded."""
        authenticator = FakeAuthenticator()
        authenticator.offered = ["PLAIN"]
        authenticator.steps = [Challenge(b"go"), StoreTrouble()]
        protocol, _, _ = connect(authenticator)
        protocol.dataReceived(b"AUTH PLAIN\r\n")
        protocol.dataReceived(b"A" * 12_284 + b"\r\n")
        self.assertEqual(authenticator.exchanges[0].heard, [None, b"\0" * (12_284 // 4 * 3)])

    def test_end_of_the_session_ends_the_input(self) -> None:
        """Nothing behind QUIT is answered."""
        self.assertEqual(talk(b"QUIT\r\nCAPA\r\nQUIT\r\n"), b"+OK bye\r\n")


class OrderTests(SynchronousTestCase):
    """RFC 2449 section 6.6: pipelined commands are answered in order, whatever each takes."""

    def setUp(self) -> None:
        self.mailbox = ScriptedMailbox({b"one": MESSAGE, b"two": b"X: y\n\n.\n"})
        self.authenticator = FakeAuthenticator(self.mailbox, later=True)
        self.protocol, self.transport, _ = connect(self.authenticator)
        self.transport.clear()

    def test_behind_a_late_password(self) -> None:
        """All that is pipelined behind a PASS waits for it, and means what it means after login."""
        self.protocol.dataReceived(LOGIN + b"STAT\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
        self.assertEqual(self.transport.value(), b"+OK send PASS\r\n")
        self.authenticator.let_in()
        self.assertEqual(
            self.transport.value(),
            b"+OK send PASS\r\n+OK maildrop has 2 messages (35 octets)\r\n+OK 2 35\r\n"
            + RETRIEVED
            + b"+OK message 1 deleted\r\n+OK bye, 1 message removed\r\n",
        )
        self.assertEqual(self.mailbox.removed, [[b"one"]])
        self.assertTrue(self.transport.disconnecting)

    def test_behind_a_late_refusal(self) -> None:
        """What is pipelined behind a PASS that fails is answered as before login."""
        self.protocol.dataReceived(LOGIN + b"STAT\r\nQUIT\r\n")
        self.authenticator.waiting.pop().errback(StoreTrouble())
        self.assertEqual(
            self.transport.value(),
            b"+OK send PASS\r\n-ERR [SYS/TEMP] maildrop is not available at the moment\r\n"
            b"-ERR STAT is for after login\r\n+OK bye\r\n",
        )

    def test_more_arrives_while_waiting(self) -> None:
        """Lines that arrive while PASS is pending, in halves too, are answered after it."""
        self.protocol.dataReceived(LOGIN + b"ST")
        self.protocol.dataReceived(b"AT\r\nUID")
        self.protocol.dataReceived(b"L 2\r\n")
        self.authenticator.let_in()
        self.assertTrue(self.transport.value().endswith(b"+OK 2 35\r\n+OK 2 two\r\n"))

    def test_bodies_in_turn(self) -> None:
        """A body that comes late keeps the next reply back, and its end comes before it."""
        self.authenticator.later = False
        first: Deferred[bytes] = Deferred()
        second: Deferred[bytes] = Deferred()
        self.mailbox._messages[b"one"] = [first, second]
        self.protocol.dataReceived(LOGIN)
        self.transport.clear()
        self.protocol.dataReceived(b"RETR 1\r\nSTAT\r\nRETR 2\r\nNOOP\r\n")
        self.assertEqual(self.transport.value(), b"")
        first.callback(b"A: b\n")
        self.protocol.dataReceived(b"STAT\r\n")
        self.assertNotIn(b"+OK 2 35", self.transport.value())
        second.callback(b"\nlast\n")
        self.assertEqual(
            self.transport.value(),
            b"+OK 24 octets\r\nA: b\r\n\r\nlast\r\n.\r\n+OK 2 35\r\n"
            b"+OK 11 octets\r\nX: y\r\n\r\n..\r\n.\r\n+OK\r\n+OK 2 35\r\n",
        )

    def test_late_read(self) -> None:
        """A store that opens a message late holds up what is behind it, and nothing else."""
        self.authenticator.later = False
        opening: Deferred[Any] = Deferred()
        self.mailbox._messages[b"one"] = lambda: opening
        self.protocol.dataReceived(LOGIN)
        self.transport.clear()
        self.protocol.dataReceived(b"NOOP\r\nRETR 1\r\nNOOP\r\n")
        self.assertEqual(self.transport.value(), b"+OK\r\n", "what is answered leaves at once")
        opening.callback(self.mailbox.body([MESSAGE]))
        self.assertEqual(self.transport.value(), b"+OK\r\n" + RETRIEVED + b"+OK\r\n")

    def test_late_quit(self) -> None:
        """The reply to QUIT comes when the removal is durable, not before."""
        self.authenticator.later = False
        self.mailbox.removal = removal = Deferred[None]()
        self.protocol.dataReceived(LOGIN + b"DELE 2\r\n")
        self.transport.clear()
        self.protocol.dataReceived(b"QUIT\r\n")
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.mailbox.released, 0)
        removal.callback(None)
        self.assertEqual(self.transport.value(), b"+OK bye, 1 message removed\r\n")
        self.assertEqual(self.mailbox.released, 1)

    def test_pipelined_end_of_body_is_one_write(self) -> None:
        """The final dot leaves in one write with the end of the body."""
        self.authenticator.later = False
        self.protocol.dataReceived(LOGIN)
        self.protocol.dataReceived(b"RETR 1\r\n")
        self.assertEqual(self.transport.writes[-1], RETRIEVED)

    def test_end_of_a_large_body_is_one_write(self) -> None:
        """So it does where the body is more than what is gathered for one write."""
        self.authenticator.later = False
        text = b"A: b\r\n\r\n" + b"x" * 3 * limits.GATHER
        self.mailbox._messages[b"one"] = [text[: -limits.GATHER], text[-limits.GATHER :]]
        self.protocol.dataReceived(LOGIN)
        self.protocol.dataReceived(b"RETR 1\r\n")
        self.assertEqual(self.transport.writes[-1], text[-limits.GATHER :] + b"\r\n.\r\n")

    def test_replies_are_gathered(self) -> None:
        """Pipelined small replies leave in one write."""
        self.authenticator.later = False
        self.protocol.dataReceived(LOGIN + b"NOOP\r\n" * 50)
        self.assertEqual(len(self.transport.writes), 2, "the greeting, and all the rest")


class BodyTests(SynchronousTestCase):
    """Bodies that come in all ways, and bodies that fail."""

    def serve(self, chunks: list[Any]) -> None:
        self.mailbox = ScriptedMailbox({b"one": chunks})
        self.watcher = Watcher()
        self.protocol, self.transport, _ = connect(FakeAuthenticator(self.mailbox), watcher=self.watcher)
        self.protocol.dataReceived(LOGIN)
        self.transport.clear()
        self.protocol.dataReceived(b"RETR 1\r\nSTAT\r\n")

    def tearDown(self) -> None:
        for body in self.mailbox.bodies:
            self.assertEqual(body.faults, [])
            self.assertEqual(len(body.closed), 1)

    def test_many_chunks_that_have_come_already(self) -> None:
        """Thousands of chunks in Deferreds that fired already need no thousand stack frames."""
        self.serve([succeed(b"x") for _ in range(5000)])
        self.assertEqual(
            self.transport.value(),
            b"+OK 100 octets\r\n" + b"x" * 5000 + b"\r\n\r\n.\r\n+OK 1 100\r\n",
        )

    def test_empty_chunks(self) -> None:
        """An empty chunk does not mean the end."""
        self.serve([b"", b"A: b\n", b"", b"\n", b""])
        self.assertEqual(self.transport.value(), b"+OK 100 octets\r\nA: b\r\n\r\n.\r\n+OK 1 100\r\n")
        self.assertEqual(self.mailbox.bodies[0].closed, [8])

    def test_real_octets_are_told(self) -> None:
        """A body that was sent whole is told how many octets it had; one that was not, that it was not."""
        self.serve([b"A: b\n\n", b".\n"])
        self.assertEqual(self.mailbox.bodies[0].closed, [11])
        self.protocol.dataReceived(b"TOP 1 0\r\nTOP 1 99999999\r\n")
        self.assertEqual([body.closed for body in self.mailbox.bodies[1:]], [[None], [11]])

    def test_fails_when_opened(self) -> None:
        """A message that cannot be opened is -ERR, and the session goes on."""

        def gone() -> Any:
            raise MessageGone

        mailbox = ScriptedMailbox({b"one": gone})
        self.mailbox = mailbox
        protocol, transport, _ = connect(FakeAuthenticator(mailbox))
        protocol.dataReceived(LOGIN)
        transport.clear()
        protocol.dataReceived(b"RETR 1\r\nTOP 1 0\r\nSTAT\r\n")
        self.assertEqual(
            transport.value(),
            b"-ERR message is no longer in the maildrop\r\n" * 2 + b"+OK 1 100\r\n",
        )

    def test_fails_before_its_first_chunk(self) -> None:
        """A body that fails at once is -ERR, and the session goes on."""
        self.serve([MessageGone()])
        self.assertEqual(
            self.transport.value(), b"-ERR message is no longer in the maildrop\r\n+OK 1 100\r\n"
        )

    def test_fails_late_before_its_first_chunk(self) -> None:
        """The same when the failure comes late."""
        chunk: Deferred[bytes] = Deferred()
        self.serve([chunk])
        self.assertEqual(self.transport.value(), b"")
        chunk.errback(StoreTrouble(detail="a disk fell out"))
        self.assertEqual(
            self.transport.value(),
            b"-ERR [SYS/TEMP] maildrop is not available at the moment\r\n+OK 1 100\r\n",
        )

    def test_failed_already(self) -> None:
        """The same when the Deferred had failed before it was given."""
        failed: Deferred[bytes] = Deferred()
        failed.errback(MessageGone())
        self.serve([failed])
        self.assertEqual(
            self.transport.value(), b"-ERR message is no longer in the maildrop\r\n+OK 1 100\r\n"
        )

    def test_fails_with_a_bug_before_its_first_chunk(self) -> None:
        """An exception nobody foresaw is answered without its text."""
        self.serve([ValueError("/secret/path")])
        self.assertEqual(
            self.transport.value(),
            b"-ERR [SYS/TEMP] internal error, the administrator has been told\r\n+OK 1 100\r\n",
        )
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_fails_behind_one_that_did_not(self) -> None:
        """Each body begins anew: one that fails at once is -ERR although another was sent before."""
        self.mailbox = ScriptedMailbox({b"one": MESSAGE, b"two": [MessageGone()]})
        protocol, transport, _ = connect(FakeAuthenticator(self.mailbox))
        protocol.dataReceived(LOGIN)
        transport.clear()
        protocol.dataReceived(b"RETR 1\r\nRETR 2\r\nNOOP\r\n")
        self.assertEqual(
            transport.value(), RETRIEVED + b"-ERR message is no longer in the maildrop\r\n+OK\r\n"
        )

    def test_fails_after_its_first_chunk(self) -> None:
        """A body that fails in its middle drops the connection without the final dot."""
        with capturedLogs() as events:
            self.serve([b"A: b\n", StoreTrouble(detail="a disk fell out")])
        self._dropped()
        # Foreseen: one line for the administrator, without a traceback.
        [said] = [formatEvent(event) for event in events]
        self.assertEqual(said, "session 1: dropped in the middle of a message: a disk fell out")
        self.serve([b"A: b\n", OSError("a bug")])
        self._dropped()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_fails_late_after_its_first_chunk(self) -> None:
        """The same when the failure comes late."""
        chunk: Deferred[bytes] = Deferred()
        self.serve([b"A: b\n", chunk])
        self.assertEqual(self.mailbox.released, 0)
        chunk.errback(StoreTrouble())
        self._dropped()

    def _dropped(self) -> None:
        sent = self.transport.value()
        self.assertNotIn(b"\r\n.\r\n", sent)
        self.assertNotIn(b"-ERR", sent)
        self.assertNotIn(b"+OK 1 100", sent, "STAT is not answered any more")
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.mailbox.released, 1)
        self.assertEqual(self.mailbox.bodies[-1].closed, [None])

    def test_none_is_no_chunk(self) -> None:
        """A store that hands out None instead of octets is in trouble, not at an end."""
        self.serve([None])
        self.assertTrue(self.transport.value().startswith(b"-ERR [SYS/TEMP]"))


class BackPressureTests(SynchronousTestCase):
    """A client that does not read costs bounded memory, and so does one that sends without reading."""

    def setUp(self) -> None:
        self.clock = Clock()

    def serve(self, mailbox: Any, *, keep: bool = True, later: bool = False) -> None:
        self.authenticator = FakeAuthenticator(mailbox, later=later)
        self.factory = POP3Factory(self.clock, self.authenticator)
        self.protocol = self.factory.buildProtocol(None)
        self.socket = FakeSocket(self.clock, keep=keep)
        self.socket.connect(self.protocol)
        self.socket.client_sends(LOGIN)
        self.socket.client_reads_all()

    def test_large_body_to_a_stalled_client(self) -> None:
        """Of 100 MB no more than a chunk and a buffer wait for a client that stopped reading."""
        bodies: list[EndlessBody] = []

        def read() -> EndlessBody:
            bodies.append(EndlessBody(line, 400))
            return bodies[-1]

        line = (b"A" * 76 + b"\n") * (limits.CHUNK // 77)
        self.serve(ScriptedMailbox({b"one": read}), keep=False)
        self.socket.client_sends(b"RETR 1\r\n")
        self.assertLess(bodies[0].pulls, 4)
        # It takes a little, and stalls again; nothing is read ahead of it.
        before = bodies[0].pulls
        self.socket.client_reads(1000)
        self.assertEqual(bodies[0].pulls, before)
        start = self.socket.count
        self.socket.client_reads_all()
        self.assertTrue(bodies[0].done)
        self.assertGreater(self.socket.count - start, 100_000_000)
        self.assertLess(self.socket.most_unsent, 2 * limits.CHUNK + self.socket.bufferSize)

    def test_late_body_to_a_stalled_client(self) -> None:
        """A message that was opened late is not read before the client has read what came before it."""
        opened: Deferred[EndlessBody] = Deferred()
        body = EndlessBody(b"A: b\n\nc\n", 1)
        mailbox = ScriptedMailbox({b"one": MESSAGE})
        mailbox.read = lambda uid: opened  # type: ignore[method-assign,assignment]
        self.serve(mailbox)
        self.socket.client_sends(b"RETR 1\r\n")
        self.protocol.transport.write(b"x" * 10_000_000)
        opened.callback(body)
        self.assertEqual(body.pulls, 0)
        self.assertTrue(self.socket.client_reads_all().endswith(b"x+OK 24 octets\r\nA: b\r\n\r\nc\r\n.\r\n"))
        self.assertEqual((body.pulls, body.closed), (1, [11]))

    def test_replies_to_a_stalled_client(self) -> None:
        """Commands from a client that never reads are answered up to a bound, then not even read."""
        self.serve(ScriptedMailbox({b"%d" % n: MESSAGE for n in range(1000)}))
        sent = 0
        while self.socket.reading and sent < 10_000_000:
            self.socket.client_sends(b"LIST\r\n" * 1000)
            sent += 6000
        self.assertFalse(self.socket.reading)
        self.assertLess(sent, 3 * limits.PENDING_INPUT)
        self.assertLess(self.socket.most_unsent, 4 * limits.PENDING_INPUT)
        answers = self.socket.client_reads_all()
        self.assertEqual(answers.count(b"+OK 1000 messages"), sent // 6, "and all are answered in the end")
        self.assertTrue(self.socket.reading)

    def test_input_behind_a_late_answer(self) -> None:
        """What is pipelined behind a pending answer is bounded by not reading."""
        self.serve(ScriptedMailbox(), later=True)
        sent = 0
        while self.socket.reading and sent < 10_000_000:
            self.socket.client_sends(b"NOOP\r\n" * 1000)
            sent += 6000
        self.assertLess(sent, 2 * limits.PENDING_INPUT)
        self.authenticator.let_in()
        self.assertEqual(self.socket.client_reads_all().count(b"+OK\r\n"), sent // 6)
        self.assertTrue(self.socket.reading)

    def test_input_behind_many_late_answers(self) -> None:
        """One answer does not buy another bufferful of input: the sum is bounded."""
        openings: list[Deferred[Any]] = []

        def read() -> Deferred[Any]:
            openings.append(Deferred())
            return openings[-1]

        mailbox = ScriptedMailbox({b"one": read})
        self.serve(mailbox)
        sent = most = 0
        for answered in range(60):
            # Each time a little less than what would make the server stop reading.
            if self.socket.reading:
                self.socket.client_sends(b"RETR 1\r\n" * 7500)
                sent += 7500
            most = max(most, sent - answered)
            openings.pop(0).callback(mailbox.body([MESSAGE]))
            self.socket.client_reads_all()
        self.assertLess(most * len(b"RETR 1\r\n"), 3 * limits.PENDING_INPUT)

    def test_never_two_pulls_at_once(self) -> None:
        """A transport that is ready again while a chunk is on its way does not ask for another."""
        chunk: Deferred[bytes] = Deferred()
        mailbox = ScriptedMailbox(
            {b"one": b"A: b\n\n" + b"x" * 65_000, b"two": [b"C: d\n\n" + b"y" * 600, chunk, b"z"]}
        )
        self.serve(mailbox)
        # The first body fits into the transport; with the second's beginning it is full.
        self.socket.client_sends(b"RETR 1\r\n")
        self.assertFalse(self.socket.producerPaused)
        self.socket.client_sends(b"RETR 2\r\n")
        self.assertTrue(self.socket.producerPaused)
        self.socket.client_reads_all()
        self.assertEqual(mailbox.bodies[1].pulls, 2)
        chunk.callback(b"late")
        self.socket.client_reads_all()
        self.assertTrue(self.socket.got.endswith(b"latez\r\n.\r\n"))
        self.assertEqual([body.faults for body in mailbox.bodies], [[], []])

    def test_chunk_comes_while_choked(self) -> None:
        """A chunk that arrives while the transport is full waits its turn, and none is asked for before."""
        first: Deferred[bytes] = Deferred()
        mailbox = ScriptedMailbox(
            {b"one": b"A: b\n\n" + b"x" * 65_000, b"two": [b"C: d\n\n" + b"y" * 600, first, b"z"]}
        )
        self.serve(mailbox)
        self.socket.client_sends(b"RETR 1\r\n")
        self.socket.client_sends(b"RETR 2\r\nNOOP\r\n")
        self.assertTrue(self.socket.producerPaused)
        first.callback(b"early")
        self.assertEqual(mailbox.bodies[1].pulls, 2)
        self.socket.client_reads_all()
        self.assertTrue(self.socket.got.endswith(b"earlyz\r\n.\r\n+OK\r\n"))
        self.assertEqual([body.faults for body in mailbox.bodies], [[], []])

    def test_failure_while_choked(self) -> None:
        """A body that fails while the transport is full is -ERR in its turn, and the session goes on."""
        chunk: Deferred[bytes] = Deferred()
        mailbox = ScriptedMailbox({b"one": b"A: b\n\n" + b"x" * 70_000, b"two": [chunk]})
        self.serve(mailbox)
        self.socket.bufferSize = 200_000
        self.socket.client_sends(b"RETR 1\r\nRETR 2\r\nNOOP\r\n")
        self.socket.bufferSize = 1
        self.socket.write(b"!")
        self.assertTrue(self.socket.producerPaused)
        chunk.errback(MessageGone())
        self.socket.client_reads_all()
        self.assertTrue(self.socket.got.endswith(b"!-ERR message is no longer in the maildrop\r\n+OK\r\n"))

    def test_end_of_body_while_choked(self) -> None:
        """The last chunk may fill the transport: the next command waits until it is read."""
        mailbox = ScriptedMailbox({b"one": b"A: b\n\n" + b"x" * 200_000})
        self.serve(mailbox)
        self.socket.client_sends(b"RETR 1\r\nSTAT\r\n")
        self.assertNotIn(b"+OK 1 ", bytes(self.socket.unsent))
        self.socket.client_reads_all()
        self.assertTrue(self.socket.got.endswith(b"\r\n.\r\n+OK 1 200010\r\n"))

    def test_quit_to_a_stalled_client(self) -> None:
        """The last line behind a large body still leaves before the connection closes."""
        mailbox = ScriptedMailbox({b"one": b"A: b\n\n" + b"x" * 200_000})
        self.serve(mailbox)
        self.socket.client_sends(b"RETR 1\r\nQUIT\r\n")
        self.assertIsNone(self.socket.lost)
        self.socket.client_reads_all()
        self.clock.advance(0)
        self.assertTrue(self.socket.got.endswith(b"\r\n.\r\n+OK bye\r\n"))
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual(self.factory.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_large_listing(self) -> None:
        """A listing of 200,000 messages is made block by block."""
        self.serve(ScriptedMailbox({b"%070d" % n: [b""] for n in range(200_000)}))
        for command in (b"LIST\r\n", b"UIDL\r\n"):
            self.socket.client_sends(command)
            self.assertLess(self.socket.most_unsent, 2 * 85 * limits.LISTING_BLOCK)
            listing = self.socket.client_reads_all()
            self.assertEqual(listing.count(b"\r\n"), 200_002)
            self.assertTrue(listing.endswith(b"\r\n.\r\n"))


#: How far a session has come when its connection is lost.
PHASES: dict[str, Callable[[LostTests], None]] = {}


def phase(name: str) -> Callable[[Callable[[LostTests], None]], Callable[[LostTests], None]]:
    """Enter a method that brings a session so far."""

    def remember(function: Callable[[LostTests], None]) -> Callable[[LostTests], None]:
        PHASES[name] = function
        return function

    return remember


class TurnTests(SynchronousTestCase):
    """A client that takes all as fast as it comes leaves the others their turn."""

    def serve(self, mailbox: Any) -> None:
        self.clock = Clock()
        self.protocol, self.transport, _ = connect(FakeAuthenticator(mailbox), self.clock)
        self.protocol.dataReceived(LOGIN)
        self.transport.clear()

    def turn(self) -> None:
        """What is due now, without what that makes due, as a reactor does it."""
        for call in self.clock.getDelayedCalls():
            if call.getTime() <= self.clock.seconds():
                self.clock.calls.remove(call)  # type: ignore[arg-type]
                call.called = 1  # type: ignore[attr-defined]
                call.func(*call.args, **call.kw)  # type: ignore[attr-defined]

    def turns(self, most: int) -> list[int]:
        """Turn after turn until nothing comes any more; how many octets each brought."""
        amounts = [len(self.transport.value())]
        while amounts[-1]:
            self.assertLess(len(amounts), most)
            before = len(self.transport.value())
            self.turn()
            amounts.append(len(self.transport.value()) - before)
        return amounts[:-1]

    def test_body(self) -> None:
        """Of a large message a turn brings a bounded part, and the next ones bring the rest."""
        body = EndlessBody((b"A" * 76 + b"\n") * (limits.CHUNK // 77), 50)
        self.serve(ScriptedMailbox({b"one": lambda: body}))
        self.protocol.dataReceived(b"RETR 1\r\nNOOP\r\n")
        amounts = self.turns(20)
        self.assertLess(max(amounts), limits.TURN + 2 * limits.CHUNK)
        self.assertGreater(len(amounts), 4)
        self.assertTrue(self.transport.value().endswith(b"\r\n.\r\n+OK\r\n"))
        self.assertEqual((body.pulls, body.done, len(body.closed)), (50, True, 1))

    def test_late_body(self) -> None:
        """The same if its chunks have to be waited for."""
        chunks: list[Any] = [Deferred() for _ in range(30)]
        self.serve(ScriptedMailbox({b"one": list(chunks)}))
        self.protocol.dataReceived(b"RETR 1\r\nNOOP\r\n")
        for chunk in chunks:
            chunk.callback(b"A" * limits.CHUNK)
            self.turn()
        self.turns(5)
        self.assertTrue(self.transport.value().endswith(b"\r\n.\r\n+OK\r\n"))
        self.assertEqual(self.transport.value().count(b"A"), 30 * limits.CHUNK)

    def test_commands(self) -> None:
        """Of thousands of commands in one piece a turn answers some dozens, in order, and none is lost."""
        self.serve(ScriptedMailbox({b"one": MESSAGE}))
        commands = b"NOOP\r\nSTAT\r\n" * 3_000
        self.protocol.dataReceived(commands)
        self.protocol.dataReceived(b"QUIT\r\n")
        answers = b"+OK\r\n+OK 1 24\r\n"
        amounts = self.turns(6_000)
        self.assertLess(max(amounts), len(answers) * limits.TURN // limits.REPLY)
        self.assertEqual(self.transport.value(), answers * 3_000 + b"+OK bye\r\n")
        self.assertTrue(self.transport.disconnecting)

    def test_late_answers(self) -> None:
        """The same for answers that have to be waited for: behind the last one of a turn nothing is begun."""
        opened: list[Deferred[Any]] = []

        def read() -> Deferred[Any]:
            opened.append(Deferred())
            return opened[-1]

        self.serve(ScriptedMailbox({b"one": read}))
        self.protocol.dataReceived(b"RETR 1\r\n" * 200)
        for rests in range(2):
            answered = len(opened) - 1
            while len(opened) > answered:
                answered = len(opened)
                opened[-1].callback(BytesBody(MESSAGE))
            self.assertEqual(self.transport.value().count(b"+OK"), answered)
            self.assertLess(answered, (rests + 1) * (limits.TURN // limits.REPLY + 2))
            self.turn()
            self.assertEqual(len(opened), answered + 1)

    def test_input_meanwhile(self) -> None:
        """A client whose commands wait for their turn is not read from when there are too many."""
        self.serve(ScriptedMailbox({b"one": MESSAGE}))
        self.protocol.dataReceived(b"NOOP\r\n" * 10_000)
        self.protocol.dataReceived(b"NOOP\r\n" * 2_000)
        self.assertEqual(self.transport.producerState, "paused")
        self.turns(6_000)
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(self.transport.value(), b"+OK\r\n" * 12_000)

    def test_few(self) -> None:
        """Who fetches twenty messages with all commands in one piece needs no second turn."""
        self.serve(ScriptedMailbox({b"%d" % n: MESSAGE for n in range(20)}))
        fetch = b"".join(b"RETR %d\r\n" % n for n in range(1, 21))
        self.protocol.dataReceived(b"STAT\r\nLIST\r\nUIDL\r\n" + fetch + b"QUIT\r\n")
        self.assertTrue(self.transport.value().endswith(b"\r\n.\r\n+OK bye\r\n"))

    def test_lost_meanwhile(self) -> None:
        """If the connection is lost before the next turn, nothing is left of it."""
        body = EndlessBody(b"A" * limits.CHUNK, 50)
        self.serve(ScriptedMailbox({b"one": lambda: body}))
        self.protocol.dataReceived(b"RETR 1\r\n")
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(body.closed, [None])


class PendingInputTests(SynchronousTestCase):
    """What a client may send ahead is bounded, however the answers come."""

    def test_late_and_fired(self) -> None:
        """A late answer between answers that have fired does not let in one bufferful more each time."""
        mailbox = ScriptedMailbox({b"now": b"A: b\n\nx\n", b"late": b"A: b\n\nx\n"})
        late: list[Deferred[Any]] = []

        def read_late() -> Deferred[Any]:
            late.append(Deferred())
            return late[-1]

        mailbox._messages[b"now"] = lambda: succeed(mailbox.body([b"A: b\n\nx\n"]))
        mailbox._messages[b"late"] = read_late
        clock = Clock()
        protocol = POP3Factory(clock, FakeAuthenticator(mailbox)).buildProtocol(None)
        socket = FakeSocket(clock, keep=False)
        socket.connect(protocol)
        socket.client_sends(LOGIN)
        chunk = b"RETR 2\r\nRETR 1\r\n" * 4096
        for _ in range(20):
            while socket.reading:
                socket.client_sends(chunk)
            late.pop().callback(mailbox.body([b"A: b\n\nx\n"]))
            socket.client_reads_all()
            self.assertLess(len(protocol._buffer), limits.PENDING_INPUT + len(chunk))


class ToldTests(SynchronousTestCase):
    """What observers are told, against what was sent."""

    def setUp(self) -> None:
        self.watcher = Watcher(*KINDS)
        self.clock = Clock()
        self.authenticator = FakeAuthenticator(ScriptedMailbox({b"one": MESSAGE}))
        self.factory = POP3Factory(self.clock, self.authenticator, observers=Observers(self.watcher))
        self.socket = FakeSocket(self.clock)
        self.socket.connect(self.factory.buildProtocol(None))

    def test_octets_of_long_lines(self) -> None:
        """Every octet is told once, however long a line is and however it comes."""
        said = b"A" * 13_000 + b"\r\nCAPA\r\nCAPA\r\n"
        for cut in (0, 100, 12_500, 13_001, 13_002, 13_005):
            with self.subTest(cut=cut):
                self.setUp()
                for piece in (said[:cut], said[cut:]):
                    if piece:
                        self.socket.client_sends(piece)
                lines = self.watcher.of(LineReceived)
                thrown_away = sum(event.octets for event in self.watcher.of(InputDiscarded))
                self.assertEqual(sum(event.octets for event in lines) + thrown_away, len(said))
                self.assertEqual([event.command for event in lines], ["", "CAPA", "CAPA"])
                self.assertEqual(self.socket.client_reads_all().count(b"-ERR line too long"), 1)

    def test_what_waits_behind_a_line(self) -> None:
        """A line tells what came with it: that of others, and nothing of its own."""
        for data, behind in (
            (b"NOOP\r\nCAPA\r\nNO", [8, 2]),
            (b"OP\r\n", [0]),
            (b"CAPA\r\n", [0]),
            # Too long, and something behind it.
            (b"X" * 400 + b"\r\nNOOP\r\n", [6, 0]),
        ):
            self.watcher.events.clear()
            self.socket.client_sends(data)
            self.assertEqual([event.behind for event in self.watcher.of(LineReceived)], behind)

    def test_nothing_behind_the_end(self) -> None:
        """The end is the last, but for a guess that is judged when its client has gone."""
        self.authenticator.later = True
        self.socket.client_sends(b"USER ann\r\nPASS x\r\n")
        self.socket.vanish()
        self.assertIsInstance(self.watcher.events[-1], Ended)
        self.authenticator.waiting.pop().errback(AuthenticationFailed())
        *_, ended, failed = self.watcher.events
        self.assertIsInstance(ended, Ended)
        self.assertEqual((type(failed), failed.user, failed.why), (LoginFailed, "ann", "AUTH"))

    def test_removal_behind_the_end(self) -> None:
        """What is removed when a stopping server waits no longer is not told of behind the end."""
        mailbox = ScriptedMailbox({b"one": MESSAGE})
        removal: Deferred[None] = Deferred()
        mailbox.removal = removal
        self.authenticator.mailbox = mailbox
        self.socket.client_sends(LOGIN + b"DELE 1\r\nQUIT\r\n")
        self.socket.client_reads_all()
        done = self.factory.drain()
        self.clock.pump([0.25] * 60)
        self.successResultOf(done)
        removal.callback(None)
        self.assertIsInstance(self.watcher.events[-1], Ended)
        self.assertEqual(self.watcher.of(MessageRemoved), [])


class LostTests(SynchronousTestCase):
    """RFC 1939 section 3: only QUIT removes anything; every other end frees the lock and all it held."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.chunk: Deferred[bytes] = Deferred()
        self.opening: Deferred[Any] = Deferred()
        self.mailbox = ScriptedMailbox(
            {
                b"one": [b"A: b\n\n", *[b"x" * 100_000] * 5],
                b"late": [b"A: b\n", self.chunk, b"c"],
                b"opening": lambda: self.opening,
            }
        )
        self.authenticator = FakeAuthenticator(self.mailbox)
        self.authenticator.offered = ["PLAIN"]
        self.watcher = Watcher()
        self.tape = MemoryTranscript()
        self.factory = POP3Factory(
            self.clock, self.authenticator, observers=Observers(self.watcher, self.tape)
        )
        self.protocol = self.factory.buildProtocol(None)
        self.socket = FakeSocket(self.clock)
        self.socket.connect(self.protocol)

    def send(self, data: bytes) -> None:
        self.socket.client_sends(data)

    @phase("just connected")
    def _connected(self) -> None:
        pass

    @phase("after USER")
    def _user(self) -> None:
        self.send(b"USER ann\r\n")

    @phase("within an exchange")
    def _exchange(self) -> None:
        self.authenticator.steps = [Challenge(b"")]
        self.send(b"AUTH PLAIN\r\n")

    @phase("while an exchange waits")
    def _exchange_waits(self) -> None:
        self.authenticator.steps = [Deferred()]
        self.send(b"AUTH PLAIN\r\n")

    @phase("while PASS waits")
    def _password(self) -> None:
        self.authenticator.later = True
        self.send(LOGIN + b"DELE 1\r\nQUIT\r\n")

    @phase("logged in, something marked")
    def _marked(self) -> None:
        self.send(LOGIN + b"DELE 1\r\nDELE 2\r\n")

    @phase("while a message is opened")
    def _opening(self) -> None:
        self.send(LOGIN + b"DELE 1\r\nRETR 3\r\nQUIT\r\n")

    @phase("while a chunk is on its way")
    def _chunk(self) -> None:
        self.send(LOGIN + b"DELE 1\r\nRETR 2\r\nQUIT\r\n")

    @phase("while the client does not read a body")
    def _stalled(self) -> None:
        self.send(LOGIN + b"DELE 2\r\nRETR 1\r\nQUIT\r\n")

    @phase("within a line that is too long")
    def _too_long(self) -> None:
        self.send(LOGIN + b"DELE 1\r\n" + b"x" * 20_000)

    def _all_is_let_go(self, name: str) -> None:
        """Whatever was on its way arrives after the end, and is let go of as well."""
        for waiting in self.authenticator.waiting:
            waiting.callback(self.authenticator.login())
        if name == "while a message is opened":
            self.opening.callback(self.mailbox.body([b"A: b\n"]))
        if name == "while a chunk is on its way":
            self.chunk.callback(b"too late")
        self.assertEqual(self.mailbox.removed, [])
        logins = len(self.watcher.logins) + len(self.authenticator.waiting)
        self.assertEqual(self.mailbox.released, logins)
        for body in self.mailbox.bodies:
            self.assertEqual(body.faults, [])
            self.assertEqual(body.closed, [None])
        for exchange in self.authenticator.exchanges:
            self.assertEqual(exchange.cancelled, 1)
        self.assertEqual(self.factory.connections, 0)
        self.assertEqual(len(self.watcher.ends), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [], "no timer is left")
        self.assertEqual(self.protocol.session.state, State.CLOSED)  # type: ignore[attr-defined]

    def test_dropped(self) -> None:
        """A connection that is lost in any phase removes nothing and lets go of everything."""
        for name, bring_about in PHASES.items():
            with self.subTest(name):
                self.setUp()
                bring_about(self)
                self.socket.vanish()
                self._all_is_let_go(name)
                self.assertEqual(self.watcher.ends[0].why, "dropped")
                self.assertEqual(self.tape.lines[-1], "[1] -- closed (dropped by the client)")

    def test_store_in_trouble_behind_the_end(self) -> None:
        """What a store could not read for a client that is gone concerns nobody; a bug is written down."""
        for trouble, logged in ((StoreTrouble(detail="a disk fell out"), 0), (ValueError("a bug"), 1)):
            self.setUp()
            PHASES["while a chunk is on its way"](self)
            self.socket.vanish()
            self.chunk.errback(trouble)
            self.assertEqual(len(self.flushLoggedErrors()), logged)

    def test_shut_down(self) -> None:
        """The end of the server in any phase removes nothing and lets go of everything, in bounded time."""
        for name, bring_about in PHASES.items():
            with self.subTest(name):
                self.setUp()
                bring_about(self)
                done = self.factory.drain()
                self.clock.pump([0.25] * 41)
                self.successResultOf(done)
                self.clock.pump([0.25] * 2)
                self._all_is_let_go(name)
                self.assertEqual(self.watcher.ends[0].why, "shutdown")

    def test_timed_out(self) -> None:
        """A client that falls silent in any phase is dropped in time; the server itself may take longer."""
        servers_turn = {
            "while an exchange waits",
            "while PASS waits",
            "while a message is opened",
            "while a chunk is on its way",
        }
        for name, bring_about in PHASES.items():
            with self.subTest(name):
                self.setUp()
                bring_about(self)
                self.clock.pump([10.0] * 66)
                if name in servers_turn:
                    self.assertIsNone(self.socket.lost)
                    self.socket.vanish()
                self._all_is_let_go(name)
                if name not in servers_turn:
                    self.assertEqual(self.watcher.ends[0].why, "timeout")

    def test_lost_while_quit_waits(self) -> None:
        """What QUIT has begun is finished although the client is gone; then the lock is free."""
        self.mailbox.removal = removal = Deferred[None]()
        self.send(LOGIN + b"DELE 1\r\nQUIT\r\n")
        self.socket.vanish()
        self.assertEqual(self.mailbox.removed, [[b"one"]])
        self.assertEqual(self.mailbox.released, 0, "nobody else may come in during the removal")
        removal.callback(None)
        self.assertEqual(self.mailbox.released, 1)
        self.assertEqual(self.watcher.ends[0].user, "ann")

    def test_lost_while_a_failing_quit_waits(self) -> None:
        """The same when the removal fails."""
        self.mailbox.removal = removal = Deferred[None]()
        self.send(LOGIN + b"DELE 1\r\nQUIT\r\n")
        self.socket.vanish()
        removal.errback(StoreTrouble())
        self.assertEqual(self.mailbox.released, 1)

    def test_body_is_told_that_it_was_not_whole(self) -> None:
        """A body that the client did not take to its end is not counted as whole."""
        self._stalled()
        self.socket.client_reads(100_000)
        self.socket.vanish()
        self.assertEqual(self.mailbox.bodies[0].closed, [None])

    def test_a_realm_that_stumbles(self) -> None:
        """A logout that raises is logged, and the session ends all the same."""

        def stumble() -> None:
            raise RuntimeError("no")

        for quit_first in (False, True):
            self.setUp()
            self.mailbox.release = stumble  # type: ignore[method-assign]
            self.send(LOGIN)
            self.socket.client_reads_all()
            if quit_first:
                self.send(b"QUIT\r\n")
                self.assertEqual(self.socket.client_reads(), b"+OK bye\r\n")
            self.socket.vanish()
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
            self.assertEqual(self.factory.connections, 0)
            self.assertEqual(len(self.watcher.ends), 1)

    def test_password_that_comes_too_late(self) -> None:
        """A login that succeeds after its client has gone is logged out at once and never counted."""
        self._password()
        self.socket.vanish()
        self.authenticator.let_in()
        self.assertEqual(self.mailbox.released, 1)
        self.assertEqual(self.watcher.logins, [])


class HalfCloseTests(SynchronousTestCase):
    """``printf 'QUIT\\r\\n' | nc -N``: a client that will send no more still gets its answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.mailbox = ScriptedMailbox({b"one": b"A: b\n\n" + b"x" * 200_000})
        self.authenticator = FakeAuthenticator(self.mailbox)
        self.factory = POP3Factory(self.clock, self.authenticator)
        self.protocol = self.factory.buildProtocol(None)
        self.socket = FakeSocket(self.clock)
        self.socket.connect(self.protocol)

    def test_nothing_open(self) -> None:
        """With nothing to answer the connection closes, and the maildrop is free."""
        self.socket.client_sends(LOGIN)
        self.socket.client_half_closes()
        self.assertEqual(self.mailbox.released, 1)
        self.socket.client_reads_all()
        self.clock.advance(0)
        self.assertIsNotNone(self.socket.lost)

    def test_late_answer(self) -> None:
        """A late answer is waited for, with all that is behind it."""
        self.authenticator.later = True
        self.socket.client_sends(LOGIN + b"STAT\r\n")
        self.socket.client_half_closes()
        self.socket.client_reads_all()
        self.clock.advance(0)
        self.assertIsNone(self.socket.lost)
        self.authenticator.let_in()
        self.socket.client_reads_all()
        self.clock.advance(0)
        self.assertTrue(self.socket.got.endswith(b"+OK 1 200010\r\n"))
        self.assertIsNotNone(self.socket.lost)

    def test_answers_that_have_fired(self) -> None:
        """With a store whose Deferreds have fired already, all is answered and QUIT is carried out."""
        message = b"A: b\n\nx\n"
        self.mailbox._messages[b"one"] = lambda: succeed(self.mailbox.body([message]))
        self.mailbox.removal = succeed(None)
        self.authenticator.later = True
        self.socket.client_sends(LOGIN + b"RETR 1\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
        self.socket.client_half_closes()
        self.authenticator.let_in()
        self.socket.client_reads_all()
        self.clock.advance(0)
        self.assertEqual(self.socket.got.count(b"\r\n.\r\n"), 2)
        self.assertEqual(self.mailbox.removed, [[b"one"]])
        self.assertTrue(self.socket.got.endswith(b"+OK bye, 1 message removed\r\n"))
        self.assertIsNotNone(self.socket.lost)

    def test_large_body(self) -> None:
        """A body is sent to its end, and what is pipelined behind it is answered."""
        self.socket.client_sends(LOGIN + b"RETR 1\r\nNOOP\r\n")
        self.socket.client_half_closes()
        self.socket.client_reads_all()
        self.clock.advance(0)
        self.assertTrue(self.socket.got.endswith(b"x\r\n.\r\n+OK\r\n"))
        self.assertIsNotNone(self.socket.lost)

    def test_late_chunk(self) -> None:
        """A body whose chunk comes late is sent to its end as well."""
        chunk: Deferred[bytes] = Deferred()
        self.mailbox._messages[b"one"] = [b"A: b\n", chunk]
        self.socket.client_sends(LOGIN + b"RETR 1\r\n")
        self.socket.client_half_closes()
        self.assertIsNone(self.socket.lost)
        chunk.callback(b"\nend\n")
        self.socket.client_reads_all()
        self.clock.advance(0)
        self.assertTrue(self.socket.got.endswith(b"end\r\n.\r\n"))
        self.assertIsNotNone(self.socket.lost)

    def test_then_silence(self) -> None:
        """A client that half-closes and then reads nothing is dropped in bounded time, its maildrop free."""
        self.socket.client_sends(LOGIN + b"RETR 1\r\n")
        self.socket.client_half_closes()
        self.clock.pump([10] * 70)
        self.assertIsNotNone(self.socket.lost)
        self.assertEqual(self.mailbox.released, 1)

    def test_the_protocol_says_so(self) -> None:
        """Twisted asks for the interface before it tells of a half-close."""
        self.assertTrue(IHalfCloseableProtocol.providedBy(self.protocol))


class IdleTests(SynchronousTestCase):
    """RFC 1939 section 3: an autologout timer of at least ten minutes."""

    def setUp(self) -> None:
        self.begin()

    def begin(self, **options: Any) -> None:
        """A client has just come to a server with these options."""
        self.clock = Clock()
        # A clock has been running for a while when a server starts.
        self.clock.advance(1_000)
        self.chunk: Deferred[bytes] = Deferred()
        self.mailbox = ScriptedMailbox({b"one": MESSAGE, b"two": [self.chunk]})
        self.authenticator = FakeAuthenticator(self.mailbox)
        self.authenticator.offered = ["PLAIN"]
        self.watcher = Watcher()
        watched = Observers(self.watcher)
        self.factory = POP3Factory(self.clock, self.authenticator, observers=watched, **options)
        self.protocol = self.factory.buildProtocol(None)
        self.socket = FakeSocket(self.clock)
        self.socket.connect(self.protocol)
        self.socket.client_reads_all()

    def ended(self) -> str | None:
        self.clock.advance(0)
        return self.watcher.ends[0].why if self.watcher.ends else None

    def send(self, data: bytes) -> None:
        self.socket.client_sends(data)
        self.socket.client_reads_all()

    def test_asked_after_a_minute(self) -> None:
        """The kernel is asked to look after a client that has been there for a minute, and not before."""
        with socket.socket() as beneath:
            transport = FakeSocket(self.clock)
            self.patch(transport, "getHandle", lambda: beneath)
            protocol = self.factory.buildProtocol(None)
            transport.connect(protocol)
            transport.client_sends(LOGIN)
            transport.client_reads_all()
            for seconds, asked in ((limits.IDLE_BEFORE_LOGIN - 1, False), (1, True)):
                self.clock.advance(seconds)
                found = beneath.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                self.assertEqual(bool(found), asked)
            transport.vanish(ConnectionLost())

    def test_after_login(self) -> None:
        """A session stays for ten minutes of silence, not less, and not much more."""
        self.send(LOGIN + b"DELE 1\r\n")
        self.clock.pump([1.0] * 599)
        self.assertIsNone(self.ended())
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.ended(), "timeout")
        self.assertEqual(self.mailbox.removed, [])
        self.assertEqual(self.mailbox.released, 1)
        self.assertEqual(self.socket.client_reads(), b"", "not a word is said")

    def test_commands_count(self) -> None:
        """The ten minutes begin anew with every command, and with nothing less (RFC 1939 section 3)."""
        self.send(LOGIN)
        for _ in range(5):
            self.clock.pump([599.0])
            self.send(b"NOOP\r\n")
        self.clock.pump([599.0])
        self.send(b"N")
        self.assertIsNone(self.ended())
        self.clock.pump([1.0])
        self.assertEqual(self.ended(), "timeout")

    def test_before_login(self) -> None:
        """A stranger has a minute, and an octet now and then does not make it longer."""
        for _ in range(6):
            self.clock.advance(9.9)
            self.send(b"x")
        self.assertIsNone(self.ended())
        self.clock.pump([1.0])
        self.assertEqual(self.ended(), "timeout")

    def test_within_auth(self) -> None:
        """Who has begun AUTH has three minutes and no more: a mail client may only then ask its user."""
        self.authenticator.steps = [Challenge(b"")]
        self.send(b"AUTH PLAIN\r\n")
        self.clock.pump([1.0] * 179)
        self.send(b"x")
        self.assertIsNone(self.ended())
        self.clock.pump([1.0])
        self.assertEqual(self.ended(), "timeout")

    def test_after_user(self) -> None:
        """Behind USER there are three minutes to look for the password, counted anew."""
        self.clock.advance(59)
        self.send(b"USER ann\r\n")
        self.clock.pump([1.0] * 179)
        # An octet now and then does not make it longer.
        self.send(b"P")
        self.assertIsNone(self.ended())
        self.clock.advance(1)
        self.assertEqual(self.ended(), "timeout")

    def test_after_a_failed_login(self) -> None:
        """So there are after a failed login: each USER counts anew, as long as a stranger may stay."""
        for _ in range(2):
            self.send(b"USER ann\r\n")
            self.clock.advance(110)
            self.send(b"PASS wrong\r\n")
            self.clock.advance(39)
        self.assertIsNone(self.ended())
        # 298 seconds since it began.
        self.send(b"USER ann\r\n")
        self.clock.pump([1.0] * 179)
        self.assertIsNone(self.ended())
        self.send(b"PASS pass\r\n")
        self.clock.pump([60.0] * 9)
        self.assertIsNone(self.ended(), "it is logged in")

    def test_bound_for_strangers(self) -> None:
        """Who begins a login again and again is sent away when five minutes and a last search are over."""
        for login, pause in ((b"USER ann\r\n", 1), (b"USER ann\r\n", 99), (b"AUTH PLAIN\r\n*\r\n", 60)):
            self.setUp()
            self.authenticator.steps = [Challenge(b"")] * 500
            for second in range(480):
                if second % pause == 0 and self.ended() is None:
                    self.send(login)
                self.clock.advance(1)
            self.assertEqual(self.ended(), "timeout")

    def test_patient(self) -> None:
        """Where ten minutes are given before login, they are given whatever was said, and for all of it."""
        for said in (b"", b"x", b"NONSENSE\r\n", b"CAPA\r\n", b"USER ann\r\n", b"AUTH PLAIN\r\n"):
            self.begin(before_login=600)
            self.authenticator.steps = [Challenge(b"")]
            if said:
                self.send(said)
            self.clock.pump([1.0] * 599)
            self.assertIsNone(self.ended(), said)
            self.clock.pump([1.0] * 2)
            self.assertEqual(self.ended(), "timeout", said)
        self.begin(before_login=600)
        for _ in range(5):
            self.clock.pump([1.0] * 119)
            self.send(b"CAPA\r\n")
        self.assertIsNone(self.ended())
        self.clock.pump([1.0] * 6)
        self.assertEqual(self.ended(), "timeout")

    def test_patient_behind_user(self) -> None:
        """Who says USER in time has ten minutes more for the password; after login it is as ever."""
        self.begin(before_login=600)
        for said in (b"USER ann\r\n", b"PASS pass\r\n"):
            self.clock.pump([1.0] * 599)
            self.assertIsNone(self.ended())
            self.send(said)
        self.clock.pump([1.0] * 599)
        self.assertIsNone(self.ended())
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.ended(), "timeout")
        self.assertEqual(self.mailbox.released, 1)

    def test_what_is_valid(self) -> None:
        """Any valid command gives three minutes; a bad one none."""
        for said, seconds in (
            (b"CAPA\r\n", 180),
            (b"AUTH\r\n", 180),
            (b"USER ann\r\n", 180),
            (b"USER ann\r\nNOOP\r\n", 180),
            (b"NOOP\r\n", 60),
            (b"FOO\r\n", 60),
            (b"PASS pass\r\n", 60),
            (b"AUTH PLAIN AA==\r\n", 180),
            (b"AUTH PLAIN !\r\n", 60),
            (b"GET / HTTP/1.1\r\n\r\n", 60),
            (b"x" * 20_000 + b"\r\n", 60),
        ):
            self.setUp()
            self.authenticator.steps = [AuthenticationFailed()]
            self.send(said)
            self.clock.pump([1.0] * (seconds - 1))
            self.assertIsNone(self.ended(), said)
            self.clock.advance(1)
            self.assertEqual(self.ended(), "timeout", said)

    def test_commands_before_login(self) -> None:
        """A stranger who asks for CAPA now and then is sent away after five minutes."""
        for _ in range(5):
            self.clock.advance(59)
            self.send(b"CAPA\r\n")
        self.assertIsNone(self.ended())
        self.clock.advance(6)
        self.assertEqual(self.ended(), "timeout")

    def test_slow_login_does_not_count(self) -> None:
        """The server's own slow work is no silence of the client."""
        self.authenticator.later = True
        self.send(LOGIN)
        self.clock.pump([10.0] * 100)
        self.assertIsNone(self.ended())
        self.authenticator.let_in()
        self.socket.client_reads_all()
        self.clock.pump([10.0] * 59)
        self.assertIsNone(self.ended())
        self.clock.pump([10.0] * 3)
        self.assertEqual(self.ended(), "timeout")

    def test_slow_store_does_not_count(self) -> None:
        """A chunk that comes after an hour still finds its client."""
        self.send(LOGIN + b"RETR 2\r\n")
        self.clock.pump([60.0] * 60)
        self.assertIsNone(self.ended())
        self.chunk.callback(b"A: b\n\n")
        self.assertTrue(self.socket.client_reads_all().endswith(b".\r\n"))

    def test_slow_removal_does_not_count(self) -> None:
        """A removal that takes an hour is answered when it is done."""
        self.mailbox.removal = removal = Deferred[None]()
        self.send(LOGIN + b"DELE 1\r\nQUIT\r\n")
        self.clock.pump([60.0] * 60)
        self.assertIsNone(self.ended())
        removal.callback(None)
        self.assertEqual(self.socket.client_reads_all(), b"+OK bye, 1 message removed\r\n")

    def test_client_that_reads_slowly(self) -> None:
        """A client that takes what it gets, slowly, is not idle."""
        self.mailbox._messages[b"one"] = [b"A: b\n\n", *[b"y" * 100_000] * 20]
        self.socket.client_sends(LOGIN + b"RETR 1\r\n")
        for _ in range(20):
            self.clock.pump([100.0] * 5)
            self.socket.client_reads()
        self.assertIsNone(self.ended())
        self.socket.client_reads_all()
        self.assertTrue(self.socket.got.endswith(b"yy\r\n.\r\n"))

    def test_client_that_stopped_reading(self) -> None:
        """A client that stopped reading a body is dropped, at once when its time is over."""
        self.mailbox._messages[b"one"] = [b"A: b\n\n", *[b"y" * 100_000] * 20]
        self.socket.client_sends(LOGIN + b"RETR 1\r\n")
        # Ten minutes, and half a minute to see whether it reads.
        self.clock.pump([10.0] * 64)
        self.assertEqual(self.ended(), "timeout")
        self.assertEqual(self.mailbox.released, 1)
        self.assertEqual(self.mailbox.bodies[0].closed, [None])

    def test_linger_after_quit(self) -> None:
        """A client that does not read its last line is dropped after a time; its lock is free before."""
        self.socket.client_sends(LOGIN + b"QUIT\r\n")
        self.assertEqual(self.mailbox.released, 1)
        self.clock.pump([1.0] * 29)
        self.assertIsNone(self.ended())
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.ended(), "quit", "it had said goodbye all the same")

    def test_slow_after_quit(self) -> None:
        """A client that reads slowly what was answered before QUIT is waited for as long as it reads."""
        self.authenticator.mailbox = ScriptedMailbox({b"one": b"x\n" * 20_000})
        self.socket.client_sends(LOGIN + b"RETR 1\r\nQUIT\r\n")
        for _ in range(30):
            self.socket.client_reads(1000)
            self.clock.pump([1.0] * 10)
        self.assertIsNone(self.ended())
        self.clock.pump([1.0] * 61)
        self.assertEqual(self.ended(), "quit", "then it stopped reading")

    def test_slow_reader(self) -> None:
        """Octets that trickle through a full transport count as well (RFC 1939 section 3)."""
        self.authenticator.mailbox = ScriptedMailbox({b"one": b"x\n" * 200_000})
        self.socket.client_sends(LOGIN + b"RETR 1\r\n")
        for _ in range(40):
            self.socket.client_reads(1000)
            self.clock.pump([10.0] * 3)
        self.assertIsNone(self.ended())
        self.clock.pump([10.0] * 66)
        self.assertEqual(self.ended(), "timeout")

    def test_linger_after_timeout(self) -> None:
        """A client that has vanished with its last reply unread is dropped after its time, too."""
        self.socket.client_sends(LOGIN + b"STAT\r\n")
        # Ten minutes, and half a minute to see whether it reads.
        self.clock.pump([10.0] * 64)
        self.assertIsNone(self.ended())
        self.assertEqual(self.mailbox.released, 1, "the lock is free at once")
        self.clock.pump([10.0] * 4)
        self.assertEqual(self.ended(), "timeout")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turned_out_while_a_login_waits(self) -> None:
        """A stranger who is sent away within a login, and reads nothing, is gone after the linger time."""
        self.authenticator.later = True
        self.socket.client_sends(LOGIN)
        self.protocol.hang_up("limit")
        self.clock.pump([10.0] * 4)
        self.assertEqual(self.ended(), "limit")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_timer_survives(self) -> None:
        """No timer is left when a session ends."""
        self.send(LOGIN + b"QUIT\r\n")
        self.clock.advance(0)
        self.assertEqual(self.ended(), "quit")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DrainTests(SynchronousTestCase):
    """The end of the server: sessions get a bounded time, nothing is half-removed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.mailboxes: list[ScriptedMailbox] = []
        self.watcher = Watcher()
        self.authenticator = FakeAuthenticator()
        self.factory = POP3Factory(self.clock, self.authenticator, observers=Observers(self.watcher))

    def client(self, sends: bytes = b"", mailbox: ScriptedMailbox | None = None) -> FakeSocket:
        self.authenticator.mailbox = mailbox or ScriptedMailbox({b"one": MESSAGE})
        socket = FakeSocket(self.clock)
        socket.connect(self.factory.buildProtocol(None))
        if sends:
            socket.client_sends(sends)
        return socket

    def test_nobody_there(self) -> None:
        """Without connections it is over at once."""
        self.successResultOf(self.factory.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_comes_in(self) -> None:
        """Who connects by a port that is still open is turned away."""
        busy = self.client(LOGIN)
        busy.client_reads_all()
        self.factory.drain()
        late = self.client()
        self.assertTrue(late.client_reads_all().startswith(b"-ERR [SYS/TEMP] the server is stopping"))
        self.assertTrue(late.disconnecting)
        self.assertFalse(busy.disconnecting)

    def test_strangers_go_at_once(self) -> None:
        """Who has not logged in is sent away at once."""
        socket = self.client()
        socket.client_reads_all()
        done = self.factory.drain()
        self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(self.watcher.ends[0].why, "shutdown")

    def test_sessions_may_finish(self) -> None:
        """A session that goes on is let go on, and ends with its QUIT."""
        socket = self.client(LOGIN)
        socket.client_reads_all()
        done = self.factory.drain()
        for _ in range(5):
            self.clock.advance(0.5)
            socket.client_sends(b"NOOP\r\n")
            socket.client_reads_all()
        self.assertNoResult(done)
        socket.client_sends(b"QUIT\r\n")
        socket.client_reads_all()
        self.successResultOf(done)
        self.assertEqual(self.watcher.ends[0].why, "quit")

    def test_slow_readers_may_finish(self) -> None:
        """Who reads a message slowly but reads is waited for; who has stopped reading is not."""
        mailbox = ScriptedMailbox({b"one": b"A: b\n\n" + b"x\n" * 200_000})
        socket = self.client(LOGIN + b"RETR 1\r\n", mailbox)
        done = self.factory.drain()
        for _ in range(12):
            self.clock.advance(0.25)
            socket.client_reads(1_000)
        self.assertFalse(socket.lost or socket.disconnecting)
        self.assertNoResult(done)
        self.clock.pump([0.25] * 6)
        self.assertIsNotNone(socket.lost)

    def test_close_in_update(self) -> None:
        """A session that is closed by hand while QUIT removes messages is answered before."""
        mailbox = ScriptedMailbox({b"one": MESSAGE})
        removal: Deferred[None] = Deferred()
        mailbox.removal = removal
        socket = self.client(LOGIN + b"DELE 1\r\nQUIT\r\n", mailbox)
        socket.client_reads_all()
        [connection] = self.factory.all_connections()
        connection.hang_up("administrator")
        self.assertFalse(socket.lost or socket.disconnecting)
        removal.callback(None)
        self.assertEqual(socket.client_reads_all(), b"+OK bye, 1 message removed\r\n")
        self.assertEqual(self.watcher.ends[0].why, "quit")

    def test_resumed(self) -> None:
        """Whoever comes after a drain that was taken back is let in, and who was there goes on."""
        socket = self.client(LOGIN)
        socket.client_reads_all()
        done = self.factory.drain()
        self.assertNoResult(done)
        self.factory.resume()
        self.successResultOf(done)
        self.clock.pump([1.0] * 20)
        self.assertFalse(socket.lost or socket.disconnecting)
        late = self.client()
        self.assertTrue(late.client_reads_all().startswith(b"+OK"))
        # And a second one is carried out as the first was.
        again = self.factory.drain()
        self.clock.pump([0.25] * 8)
        self.successResultOf(again)

    def test_silent_sessions_go_soon(self) -> None:
        """A session that says nothing for a second is not waited for."""
        socket = self.client(LOGIN)
        socket.client_reads_all()
        done = self.factory.drain()
        self.clock.pump([0.25] * 3)
        self.assertNoResult(done)
        self.clock.pump([0.25] * 3)
        self.successResultOf(done)

    def test_bounded(self) -> None:
        """After the grace time everybody goes, also who never falls silent."""
        socket = self.client(LOGIN)
        done = self.factory.drain()
        for _ in range(45):
            if socket.reading:
                socket.client_sends(b"NOOP\r\n")
            socket.client_reads_all()
            self.clock.advance(0.25)
        self.successResultOf(done)
        self.assertLess(self.clock.seconds(), 2 * limits.SHUTDOWN_GRACE)

    def test_over_with_the_last(self) -> None:
        """It is over when the last session has ended, not the first."""
        first, second = self.client(LOGIN), self.client(LOGIN)
        done = self.factory.drain()
        first.vanish()
        self.assertNoResult(done)
        second.vanish()
        self.successResultOf(done)

    def test_removal_is_finished(self) -> None:
        """What QUIT has begun is waited for, and its answer leaves."""
        mailbox = ScriptedMailbox({b"one": MESSAGE})
        mailbox.removal = removal = Deferred[None]()
        socket = self.client(LOGIN + b"DELE 1\r\nQUIT\r\n", mailbox)
        socket.client_reads_all()
        done = self.factory.drain()
        self.clock.pump([0.25] * 20)
        self.assertNoResult(done)
        removal.callback(None)
        self.assertEqual(socket.client_reads_all(), b"+OK bye, 1 message removed\r\n")
        self.clock.advance(0)
        self.successResultOf(done)

    def test_removal_for_a_client_that_is_gone(self) -> None:
        """A session's end is told when UPDATE is over: what it removed, and how it ended; drain waits."""
        for outcome, removed in (
            (None, 1),
            (StoreTrouble(detail="a disk is gone"), 0),
            (ValueError("bug"), 0),
        ):
            with self.subTest(outcome=outcome):
                self.setUp()
                mailbox = ScriptedMailbox({b"one": MESSAGE})
                mailbox.removal = removal = Deferred[None]()
                self.client(LOGIN + b"DELE 1\r\nQUIT\r\n", mailbox).vanish()
                self.assertEqual(self.watcher.ends, [])
                done = self.factory.drain()
                self.clock.pump([0.25] * 20)
                self.assertNoResult(done)
                if outcome is None:
                    removal.callback(None)
                else:
                    removal.errback(outcome)
                self.successResultOf(done)
                [record] = self.watcher.ends
                self.assertEqual((record.why, record.removed, record.seconds), ("quit", removed, 5.0))
                self.assertEqual(len(self.flushLoggedErrors()), isinstance(outcome, ValueError))
                self.assertEqual(self.factory.connections, 0)

    def test_removal_that_hangs(self) -> None:
        """What a store never finishes for a client that is gone is waited for as long as any session."""
        mailbox = ScriptedMailbox({b"one": MESSAGE})
        mailbox.removal = removal = Deferred[None]()
        self.client(LOGIN + b"DELE 1\r\nQUIT\r\n", mailbox).vanish()
        done = self.factory.drain()
        self.clock.pump([0.25] * 41)
        self.successResultOf(done)
        [record] = self.watcher.ends
        self.assertEqual((record.why, record.removed), ("dropped", 0))
        removal.callback(None)
        self.assertEqual(len(self.watcher.ends), 1)

    def test_last_line_is_not_cut_off(self) -> None:
        """A client that is just about to read its +OK to QUIT gets the time for it."""
        socket = self.client(LOGIN + b"QUIT\r\n")
        done = self.factory.drain()
        self.clock.pump([0.25] * 8)
        self.assertIsNone(socket.lost)
        self.assertTrue(socket.client_reads_all().endswith(b"+OK bye\r\n"))
        self.successResultOf(done)
        self.assertEqual(self.watcher.ends[0].why, "quit")

    def test_last_line_is_not_waited_for_for_ever(self) -> None:
        """Who does not read the last line is dropped when the grace time is over."""
        self.client(LOGIN + b"QUIT\r\n")
        done = self.factory.drain()
        self.clock.pump([0.25] * 41)
        self.clock.advance(0)
        self.successResultOf(done)

    def test_stalled_client(self) -> None:
        """Who does not read a body is dropped after the second of silence."""
        socket = self.client(LOGIN + b"RETR 1\r\n", ScriptedMailbox({b"one": [b"\n", *[b"x" * 100_000] * 5]}))
        done = self.factory.drain()
        self.clock.pump([0.25] * 6)
        self.successResultOf(done)
        self.assertNotIn(b"\r\n.\r\n", bytes(socket.unsent))


class OneDoor:
    """A limiter who lets in so many at once, and remembers their coming and going."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.visits: list[OneSlot] = []

    def acquire(self, host: str, evict: Callable[[], object]) -> OneSlot:
        if sum(not visit.over for visit in self.visits) >= self.places:
            raise StoreTrouble("too many connections")
        self.visits.append(OneSlot(host, evict))
        return self.visits[-1]


class OneSlot:
    """What the limiter knows of one who is in."""

    def __init__(self, host: str, evict: Callable[[], object]) -> None:
        self.host = host
        self.evict = evict
        self.known = 0
        self.over = 0

    def logged_in(self) -> None:
        self.known += 1

    def release(self) -> None:
        self.over += 1


class GatekeeperTests(SynchronousTestCase):
    """Connections are counted, and one too many is sent away with a word."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.door = OneDoor(1)
        self.watcher = Watcher()
        self.mailbox = ScriptedMailbox({b"one": MESSAGE})
        self.factory = POP3Factory(
            self.clock,
            FakeAuthenticator(self.mailbox),
            observers=Observers(self.watcher),
            limiter=self.door,  # type: ignore[arg-type]
        )

    def client(self) -> FakeSocket:
        socket = FakeSocket(self.clock)
        socket.connect(self.factory.buildProtocol(None))
        return socket

    def test_one_too_many(self) -> None:
        """It hears why instead of a greeting, nothing that it sends is answered, and the others stay."""
        first, second = self.client(), self.client()
        self.assertEqual(second.client_reads(), b"-ERR [SYS/TEMP] too many connections\r\n")
        self.clock.advance(0)
        self.assertIsNotNone(second.lost)
        self.assertIsNone(first.lost)
        self.assertEqual(self.factory.connections, 1)
        self.assertEqual(len(self.door.visits), 1)
        self.assertEqual((len(self.watcher.connections), self.watcher.ends[0].why), (2, "rejected"))
        self.assertEqual(self.watcher.turned, ["too many connections"])

    def test_one_too_many_that_does_not_read(self) -> None:
        """It is dropped after the linger time."""
        self.client()
        second = self.client()
        self.clock.pump([1.0] * 31)
        self.assertIsNotNone(second.lost)

    def test_place_is_free_again(self) -> None:
        """Whoever leaves makes room, once, however he leaves."""
        first = self.client()
        first.vanish()
        second = self.client()
        second.client_sends(LOGIN + b"QUIT\r\n")
        second.client_reads_all()
        self.clock.advance(0)
        self.client()
        self.assertEqual([visit.over for visit in self.door.visits], [1, 1, 0])

    def test_login_is_told_once(self) -> None:
        """The limiter hears of the login, once, and of no failed one."""
        socket = self.client()
        socket.client_sends(b"USER ann\r\nPASS wrong\r\n")
        self.assertEqual(self.door.visits[0].known, 0)
        socket.client_sends(LOGIN + b"NOOP\r\nRETR 1\r\nSTAT\r\n")
        self.assertEqual(self.door.visits[0].known, 1)

    def test_turned_out(self) -> None:
        """A stranger who has to make room is closed, without a word."""
        socket = self.client()
        socket.client_reads_all()
        self.door.visits[0].evict()
        self.assertEqual(socket.client_reads_all(), b"")
        self.clock.advance(0)
        self.assertIsNotNone(socket.lost)
        self.assertEqual(self.watcher.ends[0].why, "limit")


class FactoryTests(SynchronousTestCase):
    """What is the same for all connections."""

    def test_portal_alone(self) -> None:
        """A portal in the place of an authenticator is refused at once, with what to write instead."""
        portal: Any = Portal(MailboxRealm(MemoryStore()))
        error = self.assertRaises(TypeError, POP3Factory, Clock(), portal)
        self.assertIn("PortalAuthenticator(portal)", str(error))

    def test_numbers(self) -> None:
        """Each session has a number of its own, from 1 on."""
        tape = MemoryTranscript()
        factory = POP3Factory(Clock(), FakeAuthenticator(), observers=Observers(tape))
        for _ in range(3):
            FakeSocket(Clock()).connect(factory.buildProtocol(None))
        self.assertEqual(
            [line for line in tape.lines if "connected" in line],
            [f"[{number}] -- connected from 127.0.0.1:50110" for number in (1, 2, 3)],
        )
        self.assertEqual(factory.connections, 3)

    def test_no_delay(self) -> None:
        """Small replies do not wait for the client's delayed acknowledgement."""
        socket = FakeSocket(Clock())
        socket.connect(POP3Factory(Clock(), FakeAuthenticator()).buildProtocol(None))
        self.assertTrue(socket.no_delay)

    def test_record(self) -> None:
        """What a session did is counted: octets both ways, messages, seconds, and how it ended."""
        clock = Clock()
        watcher = Watcher()
        mailbox = ScriptedMailbox({b"one": MESSAGE, b"two": MESSAGE})
        factory = POP3Factory(clock, FakeAuthenticator(mailbox), observers=Observers(watcher))
        socket = FakeSocket(clock)
        socket.connect(factory.buildProtocol(None))
        said = LOGIN + b"RETR 1\r\nRETR 2\r\nDELE 2\r\n"
        socket.client_sends(said)
        clock.advance(2.5)
        socket.client_sends(b"QUIT\r\n")
        socket.client_reads_all()
        record = watcher.ends[0]
        self.assertEqual(
            (record.session, record.user, record.mechanism, record.retrieved, record.removed, record.why),
            (1, "ann", "USER", 2, 1, "quit"),
        )
        self.assertEqual((record.received, record.sent), (len(said) + 6, len(socket.got)))
        self.assertEqual(record.seconds, 2.5)
        self.assertEqual(record.channel.host, "127.0.0.1")

    def test_sessions_know_nothing_of_each_other(self) -> None:
        """Two connections at once are two conversations."""
        factory = POP3Factory(Clock(), FakeAuthenticator(ScriptedMailbox({b"one": MESSAGE})))
        first, second = FakeSocket(Clock()), FakeSocket(Clock())
        for one in (first, second):
            one.connect(factory.buildProtocol(None))
        first.client_sends(LOGIN + b"DELE 1\r\n")
        second.client_sends(b"STAT\r\n")
        self.assertTrue(second.client_reads_all().endswith(b"-ERR STAT is for after login\r\n"))
        first.vanish(ConnectionLost())
        second.client_sends(LOGIN + b"STAT\r\n")
        self.assertTrue(second.client_reads_all().endswith(b"+OK 1 24\r\n"))


def _failing(why: Exception) -> Deferred[Any]:
    result: Deferred[Any] = Deferred()
    result.errback(Failure(why))
    return result


class BugTests(SynchronousTestCase):
    """A bug is logged in full and answered without detail."""

    def test_in_an_authenticator(self) -> None:
        """A checker that breaks is [SYS/TEMP], at once or late, and the session goes on."""
        authenticator = FakeAuthenticator()
        protocol, transport, _ = connect(authenticator)
        transport.clear()
        authenticator.trouble = KeyError("a password")
        protocol.dataReceived(LOGIN)
        authenticator.later = True
        protocol.dataReceived(LOGIN)
        authenticator.waiting.pop().errback(KeyError("a password"))
        self.assertEqual(
            transport.value(),
            b"+OK send PASS\r\n-ERR [SYS/TEMP] internal error, the administrator has been told\r\n" * 2,
        )
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_in_closing_a_body(self) -> None:
        """A store that breaks when it closes a message is logged; if some of it is out, the session ends."""

        def close(octets: int | None) -> None:
            raise ZeroDivisionError

        for chunks in ([MESSAGE], [MESSAGE[:5], MESSAGE[5:]]):
            mailbox = ScriptedMailbox({b"one": MESSAGE})
            body = mailbox.body(list(chunks))
            body.close = close  # type: ignore[method-assign]
            mailbox._messages[b"one"] = lambda body=body: body
            protocol, transport, _ = connect(FakeAuthenticator(mailbox))
            protocol.dataReceived(LOGIN)
            transport.clear()
            protocol.dataReceived(b"RETR 1\r\n")
            at_once = len(chunks) == 1
            self.assertEqual(transport.disconnecting, not at_once)
            self.assertEqual(transport.value().startswith(b"-ERR [SYS/TEMP]"), at_once, transport.value())
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_in_a_mailbox(self) -> None:
        """A store that breaks at QUIT is [SYS/TEMP], the session ends and the lock is free."""
        for removal in (OSError("/secret"), _failing(OSError("/secret"))):
            mailbox = ScriptedMailbox({b"one": MESSAGE})
            mailbox.removal = removal
            protocol, transport, _ = connect(FakeAuthenticator(mailbox))
            protocol.dataReceived(LOGIN + b"DELE 1\r\n")
            transport.clear()
            protocol.dataReceived(b"QUIT\r\n")
            self.assertEqual(transport.value(), b"-ERR [SYS/TEMP] some deleted messages not removed\r\n")
            self.assertEqual(mailbox.released, 1)
            self.assertTrue(transport.disconnecting)
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
