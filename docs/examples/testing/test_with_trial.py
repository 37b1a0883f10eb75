"""Tests of a Twisted client, with trial: connections in memory, and a clock that stands still."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.testing import POP3ServerMixin


class Counter(LineReceiver):
    """The protocol under test: fires ``counted`` with the number of messages."""

    def __init__(self) -> None:
        self.counted: Deferred[int] = Deferred()
        self.to_say = [b"USER ann", b"PASS pass", b"STAT", b"QUIT"]

    def lineReceived(self, line: bytes) -> None:
        """Say what comes next; the last but one answer is the one to STAT."""
        if not line.startswith(b"+OK"):
            self.counted.errback(ValueError(line.decode()))
        elif self.to_say:
            if len(self.to_say) == 1:
                self.counted.callback(int(line.split()[1]))
            self.sendLine(self.to_say.pop(0))


def count(reactor: Any, host: str, port: int) -> Deferred[int]:
    """The program under test: connects with whatever reactor it is given."""
    protocol = Counter()
    connectProtocol(TCP4ClientEndpoint(reactor, host, port), protocol).addErrback(protocol.counted.errback)
    return protocol.counted


class CountTests(POP3ServerMixin, SynchronousTestCase):
    """What it says and does."""

    def test_count(self) -> None:
        """The messages are counted, and the session ends as it should."""
        server = self.pop3_server(mailboxes={"ann": ["Subject: one\n\n1\n", "Subject: two\n\n2\n"]})
        counting = count(server.reactor, "192.0.2.1", 110)
        self.assertNoResult(counting)
        server.pump()
        self.assertEqual(self.successResultOf(counting), 2)
        self.assertEqual(server.sessions[0].commands, ["USER ann", "PASS ****", "STAT", "QUIT"])
        self.assertEqual(server.sessions[0].ended, "quit")

    def test_locked(self) -> None:
        """A mailbox that another session keeps for five seconds is waited for no longer than that."""
        server = self.pop3_server(mailboxes={"ann": []}, lock_wait=5)
        with server.mailbox("ann").locked():
            counting = count(server.reactor, "192.0.2.1", 110)
            server.clock.advance(4)
            self.assertNoResult(counting)
            server.clock.advance(2)
        self.assertIn("[IN-USE]", str(self.failureResultOf(counting, ValueError).value))
