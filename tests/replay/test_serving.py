"""The server's side of a recording, over a pair of sockets."""

from __future__ import annotations

import poplib
import socket
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.replay.recording import parse
from pop3toy.replay.serving import Asked, serve

RECORDING = b"""\
S: +OK ready
C: CAPA
S: +OK
S: UIDL
S: STLS
S: .
C: USER ann
S: +OK
C: PASS ****
S: +OK
C: STAT
S: +OK 1 100
C: RETR 1
S: +OK 100 octets
S: Subject: x
S: ... 3 more lines, 88 octets
S: .
C: NOOP
S: +OK
C: QUIT
S: +OK bye
"""


class ServingTests(SynchronousTestCase):
    """A client that does as the recorded one did, and clients that do not."""

    def serve(self, recording: bytes = RECORDING) -> None:
        self.mine, theirs = socket.socketpair()
        self.addCleanup(self.mine.close)
        self.mine.settimeout(10)
        self.asked: list[Asked] = []
        self.thread = threading.Thread(
            target=lambda: self.asked.extend(serve(theirs, parse(recording), timeout=10))
        )
        self.thread.start()
        self.file: Any = self.mine.makefile("rb")

    def say(self, line: bytes) -> bytes:
        self.mine.sendall(line + b"\r\n")
        return bytes(self.file.readline())

    def differences(self) -> list[tuple[str, str | None]]:
        self.mine.close()
        self.file.close()
        self.thread.join(10)
        return [(one.line, one.expected) for one in self.asked if one.expected is not None]

    def test_as_recorded(self) -> None:
        """All is as it was, but for the name, the password, and STLS, which needs a certificate."""
        self.serve()
        self.assertEqual(self.file.readline(), b"+OK ready\r\n")
        self.say(b"capa")
        self.assertEqual([self.file.readline() for _ in range(2)], [b"UIDL\r\n", b".\r\n"])
        self.say(b"USER bob")
        self.say(b"PASS any thing")
        self.assertEqual(self.say(b"STAT"), b"+OK 1 100\r\n")
        self.say(b"RETR 1")
        message = b"".join(iter(self.file.readline, b".\r\n"))
        self.assertEqual((len(message), message.count(b"\r\n")), (100, 4))
        self.say(b"NOOP")
        self.assertEqual(self.say(b"QUIT"), b"+OK bye\r\n")
        self.assertEqual(self.file.readline(), b"")
        self.assertEqual(self.differences(), [])

    def test_otherwise(self) -> None:
        """What the recording has elsewhere is answered from there, all else is refused; both are told."""
        self.serve()
        self.file.readline()
        for line, reply in (
            (b"USER ann", b"+OK"),
            (b"PASS x", b"+OK"),
            (b"NOOP", b"+OK"),
            (b"STAT", b"+OK 1 100"),
            (b"LIST", b"-ERR this is not in the recording"),
            (b"RETR 2", b"-ERR this is not in the recording"),
            (b"QUIT", b"+OK bye"),
        ):
            self.assertEqual(self.say(line), reply + b"\r\n", line)
        self.assertEqual(
            self.differences(),
            [("USER ann", "CAPA"), ("NOOP", "STAT"), ("STAT", "QUIT"), ("LIST", "QUIT"), ("RETR 2", "QUIT")],
        )

    def test_cut(self) -> None:
        """Where the recorded connection was lost, this one is."""
        self.serve(b"S: +OK\nC: RETR 1\nS: +OK\nS: half ... (cut off)\n")
        self.file.readline()
        self.say(b"RETR 1")
        self.assertEqual(self.file.read(), b"half")
        self.assertEqual(self.differences(), [])

    def test_poplib(self) -> None:
        """A real client, which says less than the recorded one."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def answer() -> None:
            sock, _ = listening.accept()
            for _ in serve(sock, parse(RECORDING), timeout=10):
                pass

        thread = threading.Thread(target=answer)
        thread.start()
        client = poplib.POP3(*listening.getsockname(), timeout=10)
        client.user("ann")
        client.pass_("x")
        self.assertEqual(client.stat(), (1, 100))
        self.assertEqual(client.retr(1)[2], 100)
        client.quit()
        thread.join(10)
