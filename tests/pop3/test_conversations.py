r"""Conversations as scripts of ``C:`` and ``S:`` lines, in ``tests/conversations``.

A script is a set-up, an empty line, and the conversation.  Each line of it is::

    # why this conversation is here
    account NAME PASSWORD        who may log in (ann, secret); b"..." for an odd password
    timestamp <...>              the APOP timestamp; without it the server makes one up
    message UID b"..."           a message as it is stored
    octets UID N                 a message of N octets, subject UID, a body of x
    locked, unlocked             another session holds the maildrop, and gives it back
    C: text                      the client sends the text and CRLF; lines in a row leave in one piece
    C> b"..."                    the client sends just these octets
    S: text                      the server's next line is exactly this
    S> b"..."                    the server's next octets are exactly these
    arrives UID N, gone UID      mail arrives, or vanishes behind the lock
    wait SECONDS                 time goes by
    dropped, connected           the connection is lost; the client connects again
    open, closed                 the server keeps the connection, or has closed it
    left UID UID ...             what is in the maildrop now

In a status line ``...`` is free text, at least one character of it; status
words, response codes, numbers and the lines of a multi-line reply are exact.
Each script runs three times: with everything at hand, with the client's
octets coming one by one, and with a store whose every answer comes late.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import MailboxRealm, POP3Factory, PortalAuthenticator
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.interfaces import Channel, IMailbox
from pop3toy.net.fast.immediate_write import ImmediateSending
from pop3toy.net.fast.reply_batcher import ReplyBatcher
from pop3toy.net.sending import Sending
from pop3toy.stores.memory import MemoryStore

from ..pop3_world import FakeSocket, LateStore

SCRIPTS = sorted((Path(__file__).parents[1] / "conversations").glob("*.txt"))
#: What ``...`` stands for: text, but no response code.
_FREE = r"(?!\[)[\x20-\x7e]*[\x21-\x7e]"


def literal(text: str) -> bytes:
    """A Python expression of bytes, from a file of this project."""
    value = eval(text, {"__builtins__": {}})
    assert isinstance(value, bytes), text
    return value


def filler(uid: str, size: int) -> bytes:
    """A message of so many octets in wire form, in lines of 76 at the most."""
    message = f"Subject: {uid}\r\n\r\n".encode()
    while (left := size - len(message)) > 0:
        line = min(76, left - 2)
        # What is left must be enough for a line, or nothing.
        if 0 < left - 2 - line < 3:
            line -= 3
        message += b"x" * line + b"\r\n"
    assert len(message) == size, "too small for its header"
    return message


def fits(expected: str, line: str) -> bool:
    """Whether the server's line is what the script says."""
    if "..." not in expected or not expected.startswith(("+OK", "-ERR")):
        return line == expected
    return re.fullmatch(_FREE.join(map(re.escape, expected.split("..."))), line) is not None


class _FixedTimestamp(PortalAuthenticator):
    """With the timestamp that a script names, instead of a random one."""

    fixed: str | None = None

    def timestamp(self, channel: Channel) -> str | None:
        return self.fixed or super().timestamp(channel)


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


class Conversation:
    """One run of one script.

    :param slowly: the client's octets come one by one.
    :param late: the store's answers come late.
    :param kernel: makes the connections; without it they are fakes.
    :param sending: of the factory.
    """

    def __init__(
        self,
        script: str,
        *,
        slowly: bool,
        late: bool,
        kernel: Kernel | None = None,
        sending: Sending | None = None,
    ) -> None:
        self._slowly = slowly
        self._kernel = kernel
        self._sending = sending
        self._clock = Clock()
        self._accounts: dict[bytes, bytes] = {b"ann": b"secret"}
        self._uids: list[str] = []
        self._store = MemoryStore({"ann": []}, new_uid=lambda: self._uids.pop())
        self._late = LateStore(self._clock, self._store) if late else None
        self._timestamp: str | None = None
        self._user = "ann"
        self._other: IMailbox | None = None
        self._to_send = b""
        self._socket: FakeSocket | KernelSocket | None = None
        self._factory: POP3Factory | None = None
        self._lines = script.splitlines()

    def run(self) -> None:
        """Go through it.

        :raises AssertionError: with the number of the script's line that does not hold.
        """
        setting_up = True
        for number, line in enumerate(self._lines, 1):
            try:
                if line.startswith("#"):
                    continue
                if setting_up and line.startswith(("S:", "S>")):
                    setting_up = False
                    self._connected()
                if line:
                    self._step(line)
            except AssertionError as error:
                raise AssertionError(f"line {number}, {line!r}: {error}") from error
        assert not self._to_send, "the script ends before the server has answered"
        assert self._socket is not None, "nobody said anything"
        rest = bytes(self._socket.got)
        assert not rest, f"the server said more: {rest!r}"

    def _step(self, line: str) -> None:
        if line.startswith("C:"):
            self._to_send += line[2:].removeprefix(" ").encode() + b"\r\n"
        elif line.startswith("C>"):
            self._to_send += literal(line[2:].strip())
        elif line.startswith("S:"):
            self._send()
            self._expect_line(line[2:].removeprefix(" "))
        elif line.startswith("S>"):
            self._send()
            self._expect(literal(line[2:].strip()))
        else:
            self._send()
            word, *arguments = line.split(" ", 2)
            steps: dict[str, Callable[..., None]] = {
                "account": self._account,
                "arrives": self._octets,
                "closed": self._closed,
                "connected": self._connected,
                "dropped": self._dropped,
                "gone": self._gone,
                "left": self._left,
                "locked": self._locked,
                "message": self._message,
                "octets": self._octets,
                "open": self._open,
                "timestamp": self._set_timestamp,
                "unlocked": self._unlocked,
                "wait": self._wait,
            }
            assert word in steps, "no such word in a script"
            steps[word](*(line.split()[1:] if word == "left" else arguments))

    # -- the conversation ------------------------------------------------------------

    def _send(self) -> None:
        data, self._to_send = self._to_send, b""
        if not data:
            return
        assert self._socket is not None
        assert not self._socket.got, f"the server said more: {bytes(self._socket.got)!r}"
        pieces = [data[at : at + 1] for at in range(len(data))] if self._slowly else [data]
        for piece in pieces:
            if self._socket.reading:
                self._socket.client_sends(piece)
        self._settle()

    def _settle(self) -> None:
        assert self._socket is not None
        self._socket.client_reads_all()
        while self._late is not None and self._late.pending:
            self._clock.advance(0.01)
            self._socket.client_reads_all()
        self._clock.advance(0)

    def _expect(self, expected: bytes) -> None:
        assert self._socket is not None
        got = bytes(self._socket.got[: len(expected)])
        assert got == expected, f"the server said {got!r}"
        del self._socket.got[: len(expected)]

    def _expect_line(self, expected: str) -> None:
        assert self._socket is not None
        line, end, _ = bytes(self._socket.got).partition(b"\r\n")
        assert end, f"the server said {line!r} and no more"
        assert fits(expected, line.decode("latin-1")), f"the server said {line!r}"
        del self._socket.got[: len(line) + 2]

    def _connected(self) -> None:
        if self._factory is None:
            store: Any = self._late if self._late is not None else self._store
            portal = Portal(MailboxRealm(store), [MemoryAccounts(self._accounts)])
            authenticator = _FixedTimestamp(portal)
            authenticator.fixed = self._timestamp
            self._factory = POP3Factory(self._clock, authenticator, sending=self._sending)
        if self._kernel is not None:
            self._socket = self._kernel.connect(self._factory, self._clock)
        else:
            self._socket = FakeSocket(self._clock)
            self._socket.connect(self._factory.buildProtocol(None))
        self._settle()

    def _dropped(self) -> None:
        assert self._socket is not None
        self._socket.vanish()

    def _open(self) -> None:
        assert self._socket is not None
        assert self._socket.lost is None, "the server has closed the connection"

    def _closed(self) -> None:
        assert self._socket is not None
        self._socket.client_reads_all()
        assert self._socket.lost is not None, "the server has not closed the connection"

    def _wait(self, seconds: str) -> None:
        self._clock.pump([1.0] * int(seconds))

    # -- the maildrop ----------------------------------------------------------------

    def _account(self, name: str, password: str) -> None:
        secret = literal(password) if password.startswith('b"') else password.encode()
        self._accounts = {name.encode(): secret}
        self._user = name
        self._store = MemoryStore({name: []}, new_uid=lambda: self._uids.pop())
        if self._late is not None:
            self._late = LateStore(self._clock, self._store)

    def _set_timestamp(self, timestamp: str) -> None:
        self._timestamp = timestamp

    def _message(self, uid: str, message: str) -> None:
        self._uids.append(uid)
        self._store.add(self._user, literal(message))

    def _octets(self, uid: str, size: str) -> None:
        self._uids.append(uid)
        self._store.add(self._user, filler(uid, int(size)))

    def _gone(self, uid: str) -> None:
        del self._store._mail[self._user][uid.encode()]

    def _locked(self) -> None:
        self._other = self._store.open(self._user)

    def _unlocked(self) -> None:
        assert self._other is not None
        self._other.release()

    def _left(self, *uids: str) -> None:
        left = [uid.decode() for uid in self._store._mail[self._user]]
        assert left == list(uids), f"in the maildrop is {left}"


class ConversationTests(SynchronousTestCase):
    """Every script, at once, octet by octet, and with a slow store."""

    def run_all(self, **manner: Any) -> None:
        for script in SCRIPTS:
            with self.subTest(script.name, **manner):
                try:
                    Conversation(script.read_text(encoding="utf-8"), **manner).run()
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
        for sending in (Sending(), ImmediateSending(batcher.postpone)):
            self.run_all(slowly=False, late=False, kernel=kernel, sending=sending)
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
        Conversation(script, slowly=False, late=False).run()

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
