"""The examples of embedding, run as they stand in ``docs/examples``."""

from __future__ import annotations

import runpy
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from .realserver import environment, wait_until
from .strictclient import StrictClient

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"

#: Seconds after which a program that does not listen is a failed test.
PATIENCE = 30.0


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Examples(SynchronousTestCase):
    """Runs an example, on a fake connection and as a program."""

    def conversation(self, name: str) -> Callable[[str], list[str]]:
        """Connect to the factory of an example; a function that sends a line and gives the reply's lines."""
        factory = runpy.run_path(str(EXAMPLES / name))["make_factory"](Clock())

        def connect() -> Callable[[str], list[str]]:
            transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 40000))
            protocol = factory.buildProtocol(None)
            protocol.makeConnection(transport)
            transport.clear()

            def say(line: str) -> list[str]:
                protocol.dataReceived(line.encode() + b"\r\n")
                reply = transport.value().decode()
                transport.clear()
                return reply.split("\r\n")[:-1]

            return say

        self.connect = connect
        return connect()

    def as_program(self, name: str) -> StrictClient:
        """Start an example as its text says, and connect to it."""
        port = free_port()
        arguments = [sys.executable, str(EXAMPLES / name), str(port)]
        program = subprocess.Popen(arguments, env=environment(Path(self.mktemp())))

        def end() -> None:
            program.kill()
            program.wait(PATIENCE)

        self.addCleanup(end)
        clients = []

        def connected() -> bool:
            assert program.poll() is None, "it ended"
            try:
                clients.append(StrictClient(port))
            except ConnectionRefusedError:
                return False
            return True

        wait_until(connected, "it listens")
        return clients[0]


class OwnStoreTests(Examples):
    """A store of one's own."""

    NAME = "embed_own_store.py"

    def test_conversation(self) -> None:
        """Both messages are listed, read and removed, for this user alone."""
        say = self.conversation(self.NAME)
        self.assertEqual(["+OK send PASS"], say("USER ann"))
        self.assertTrue(say("PASS secret")[0].startswith("+OK maildrop has 2 messages"))
        self.assertIn("1 alert-0", say("UIDL"))
        self.assertIn("Subject: Coffee is ready", say("RETR 1"))
        other = self.connect()
        other("USER ann")
        self.assertIn("[IN-USE]", other("PASS secret")[0])
        say("DELE 1")
        self.assertIn("+OK bye, 1 message removed", say("QUIT"))
        for user, password, count in (("ann", "secret", 1), ("bob", "secret too", 2)):
            say = self.connect()
            say(f"USER {user}")
            say(f"PASS {password}")
            self.assertTrue(say("STAT")[0].startswith(f"+OK {count} "))

    def test_program(self) -> None:
        """It runs as a program, and a strict client takes no offence."""
        with self.as_program(self.NAME) as client:
            client.login(b"ann", b"secret")
            self.assertEqual(2, client.stat().messages)


class TwistedMailboxTests(Examples):
    """A realm of another program."""

    NAME = "embed_twisted_mailbox.py"

    def test_conversation(self) -> None:
        """Messages of an old mailbox are listed, read and removed."""
        say = self.conversation(self.NAME)
        say("USER ann")
        self.assertEqual(["-ERR [AUTH] invalid user name or password"], say("PASS wrong"))
        say("USER ann")
        self.assertTrue(say("PASS secret")[0].startswith("+OK maildrop has 2 messages"))
        self.assertEqual(["+OK 19 octets", "Subject: two", "", "2", "."], say("RETR 2"))
        self.assertIn("2 second", say("UIDL"))
        say("DELE 1")
        self.assertIn("+OK bye, 1 message removed", say("QUIT"))
        say = self.connect()
        say("USER ann")
        say("PASS secret")
        self.assertEqual(["+OK 1 second"], say("UIDL 1"))

    def test_program(self) -> None:
        """It runs as a program, and a strict client takes no offence."""
        with self.as_program(self.NAME) as client:
            client.login(b"ann", b"secret")
            self.assertEqual(2, client.stat().messages)
