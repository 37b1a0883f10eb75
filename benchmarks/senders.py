"""The load of the delivery benchmark: connections that send mail, and a look at what has arrived.

Speaks SMTP and LMTP over sockets of its own, as a mail server does that hands
mail over: MAIL, RCPT and DATA in one piece (RFC 2920), one message behind the
other on one connection.  Every reply is looked at, and at the end every Maildir:
a message that is missing, there twice, or changed is a fault.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.messages import message

#: Octets of a message, about.
OCTETS = 6_000
#: Seconds that one reply may take.
PATIENCE = 60.0

_IDENT = re.compile(rb"^Message-ID: (<[^>\n]*>)\n", re.MULTILINE)


@dataclass(frozen=True)
class Letter:
    """One message: its text with LF, and what goes out behind DATA."""

    text: bytes
    ident: bytes
    data: bytes

    @classmethod
    def make(cls, seed: int, number: int) -> Letter:
        """A message like no other."""
        # Without Return-Path, which mail servers take away, to put their own.
        text = message(seed, number, OCTETS).partition(b"\n")[2]
        found = _IDENT.search(text)
        assert found is not None
        wire = text.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..")
        return cls(text, found[1], wire + b".\r\n")


class Refused(Exception):
    """A reply that is not what it should be."""


class Connection:
    """One client."""

    def __init__(self, port: int, *, lmtp: bool) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._expect(b"220")
        self._socket.sendall(b"LHLO load\r\n" if lmtp else b"EHLO load\r\n")
        self._expect(b"250")

    def _expect(self, code: bytes) -> None:
        """Read one reply, perhaps of several lines."""
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                data = self._socket.recv(65_536)
                if not data:
                    raise Refused("the connection was closed")
                self._buffer += data
                continue
            line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
            if line[:3] != code:
                raise Refused(line.decode("utf-8", "replace"))
            if line[3:4] != b"-":
                return

    def send(self, user: str, letter: Letter) -> None:
        """One message for one user; returns when the server says that it has it.

        :raises Refused: if it says something else.
        """
        envelope = f"MAIL FROM:<load@example.org>\r\nRCPT TO:<{user}@localhost>\r\nDATA\r\n"
        self._socket.sendall(envelope.encode("ascii"))
        for code in (b"250", b"250", b"354"):
            self._expect(code)
        self._socket.sendall(letter.data)
        self._expect(b"250")

    def close(self) -> None:
        """Say goodbye."""
        try:
            self._socket.sendall(b"QUIT\r\n")
            self._expect(b"221")
        finally:
            self._socket.close()


@dataclass
class Sent:
    """What came of a load.  Times in seconds, latencies sorted."""

    #: By user, what the server has said that it has.
    taken: dict[str, list[Letter]] = field(default_factory=dict)
    #: From the first message to the last reply.
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    #: Seconds of CPU that sending took.
    cpu: float = 0.0

    @property
    def count(self) -> int:
        """Messages that were taken."""
        return sum(map(len, self.taken.values()))


def send(port: int, letters: Sequence[Letter], users: Sequence[str], connections: int, *, lmtp: bool) -> Sent:
    """Send all letters over so many connections at once, each with the next one that is left."""
    sent = Sent({user: [] for user in users})
    left = iter(list(enumerate(letters)))
    turn = threading.Lock()

    def work(connection: Connection) -> None:
        try:
            while True:
                with turn:
                    number, letter = next(left, (0, None))
                if letter is None:
                    break
                user = users[number % len(users)]
                began = time.perf_counter()
                connection.send(user, letter)
                sent.latencies.append(time.perf_counter() - began)
                sent.taken[user].append(letter)
            connection.close()
        except (OSError, Refused) as why:
            sent.complaints.append(f"while sending: {why}")

    opened = [Connection(port, lmtp=lmtp) for _ in range(connections)]
    threads = [threading.Thread(target=work, args=(connection,)) for connection in opened]
    cpu, began = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent.seconds = time.perf_counter() - began
    sent.cpu = time.process_time() - cpu
    sent.latencies.sort()
    return sent


def files(maildirs: Path, user: str) -> list[Path]:
    """The messages of a user."""
    return [path for folder in ("new", "cur") for path in (maildirs / user / folder).iterdir()]


def compare(taken: Iterable[Letter], delivered: Iterable[bytes]) -> list[str]:
    """What is wrong in a Maildir, in words.

    Servers put headers before a message, and may keep CRLF; nothing else may differ.
    """
    letters = {letter.ident: letter for letter in taken}
    seen: Counter[bytes] = Counter()
    faults = []
    for text in delivered:
        text = text.replace(b"\r\n", b"\n")
        found = _IDENT.search(text)
        letter = letters.get(found[1]) if found is not None else None
        if letter is None:
            faults.append("a message that nobody sent")
        elif not text.endswith(letter.text):
            faults.append(f"{letter.ident.decode()} has changed")
        else:
            seen[letter.ident] += 1
    faults += [f"{ident.decode()} is there {seen[ident]} times" for ident in letters if seen[ident] != 1]
    return faults
