"""Tests of a program that fetches mail, with unittest."""

from __future__ import annotations

import poplib
import unittest

from pop3toy.testing import POP3ServerMixin, running_server


def count(host: str, port: int, user: str, password: str) -> int:
    """The program under test: how many messages there are."""
    client = poplib.POP3(host, port, timeout=10)
    client.user(user)
    client.pass_(password)
    messages, _ = client.stat()
    client.quit()
    return messages


class CountTests(unittest.TestCase):
    """With a server on a port, in a thread of its own."""

    def setUp(self) -> None:
        """Start it; it stops with the test."""
        self.server = self.enterContext(running_server(mailboxes={"ann": []}, passwords={"ann": "secret"}))

    def test_count(self) -> None:
        """Mail comes in between two visits, and within one, which does not see it."""
        self.server.deliver("ann", "Subject: one\n\n1\n")
        self.assertEqual(count(self.server.host, self.server.port, "ann", "secret"), 1)
        self.server.deliver("ann", b"Subject: two\r\n\r\n2\r\n")
        self.assertEqual(count(self.server.host, self.server.port, "ann", "secret"), 2)
        self.assertEqual(self.server.sessions[1].replies[-2], "+OK 2 38")


class InMemoryTests(POP3ServerMixin, unittest.TestCase):
    """Without a port and a thread, for clients that do not open sockets themselves."""

    def test_silence(self) -> None:
        """A client that is silent for ten minutes is logged out, and nothing is removed."""
        server = self.pop3_server(mailboxes={"ann": ["Subject: one\n\n1\n"]})
        client = server.connect()
        client.say("USER ann", "PASS pass")
        self.assertEqual(client.say("LIST"), ["+OK 1 message (19 octets)", "1 19", "."])
        self.assertEqual(client.say("DELE 1"), ["+OK message 1 deleted"])
        server.clock.advance(600)
        self.assertTrue(client.closed)
        self.assertEqual(server.wait_for_session().ended, "timeout")
        self.assertEqual(len(server.mailbox("ann")), 1)


if __name__ == "__main__":
    unittest.main()
