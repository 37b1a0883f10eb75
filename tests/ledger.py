"""What senders and readers of a mailbox were told, kept while servers and storage are killed, and compared.

A :class:`Writer` sends numbered messages by SMTP, each once, and records which were acknowledged.  A
:class:`Reader` does what mail programs do: it logs in, fetches what it has not seen, deletes some, and says
QUIT; it records what it was told, and compares each session with what the :class:`Ledger` says must hold:

* every message that was acknowledged before the login is there, unless its deletion was asked for;
* none is there whose deletion was acknowledged, none twice, none that nobody has sent;
* octets are those that were sent, and a unique-id is always the same message's;
* two sessions never last at the same time: each lasts for certain from the answer to its password until the
  moment at which the last command was sent that succeeded.

These are blocking clients in threads; they know nothing of the server but its port.
"""

from __future__ import annotations

import random
import re
import smtplib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, NamedTuple, Self, TypeVar

from .strictclient import Refused, StrictClient

__all__ = ["Doing", "Ledger", "Reader", "Session", "Writer", "text"]

_T = TypeVar("_T")
#: Seconds between two tries of somebody who was refused.
PAUSE = 0.1
#: Where all servers are.
_LOOPBACK = "127.0.0.1"


def text(number: int, octets: int | None = None) -> bytes:
    """A message in wire form that cannot be confused with another, nor a part of it with a whole.

    :param octets: about so many; without, a few hundred to some ten thousand, always the same for the number.
    """
    dice = random.Random(number)
    size = dice.choice((300, 2_000, 9_000, 40_000)) if octets is None else octets
    head = b"Subject: %d %d\r\n\r\n.\r\n..%d\r\n" % (number, -1 if octets is None else octets, number)
    block = b"".join(b"%064x\r\n" % dice.getrandbits(256) for _ in range(min(size, 66_000) // 66))
    return head + block * max(1, size // max(1, len(block))) + b"end %d\r\n" % number


class Session(NamedTuple):
    """When somebody had the mailbox, for certain; seconds of a clock that only goes forward."""

    began: float
    ended: float


class Ledger:
    """All that is known of one mailbox; any thread may ask.

    :ivar wrong: what may not be; empty at the end.
    :ivar troubles: how often somebody was told that there is trouble.
    :ivar slowest: the most seconds for which anybody waited for an answer, whatever that was.

    :param user: whose mailbox, with ``secret`` as password.
    """

    def __init__(self, user: str = "ann") -> None:
        self.user = user
        self.lock = threading.RLock()
        self.wrong: list[str] = []
        self.troubles = 0
        self.slowest = 0.0
        self.sessions: list[Session] = []
        self.acknowledged: set[int] = set()
        self.deleted: set[int] = set()
        self._sent: set[int] = set()
        #: Whose deletion was asked for, and perhaps done.
        self._doomed: set[int] = set()
        self._numbers: dict[bytes, int] = {}

    def next(self) -> int:
        """The number of the next message, which is about to be sent."""
        with self.lock:
            self._sent.add(len(self._sent) + 1)
            return len(self._sent)

    def told(self, began: float, *, trouble: bool = False) -> None:
        """An answer has come, or none that will."""
        with self.lock:
            self.troubles += trouble
            self.slowest = max(self.slowest, time.monotonic() - began)

    def complain(self, what: str) -> None:
        """Something is wrong."""
        with self.lock:
            self.wrong.append(what)

    def due(self) -> tuple[set[int], set[int]]:
        """What a session that begins now must have, and what it may not."""
        with self.lock:
            return self.acknowledged - self._doomed - self.deleted, set(self.deleted)

    def number_of(self, uid: bytes) -> int | None:
        """The message that a unique-id has been seen to mean."""
        return self._numbers.get(uid)

    def fetched(self, uid: bytes, octets: bytes) -> int | None:
        """A message was fetched; its number, if it is one."""
        # Behind the trace that each server adds.
        trace, _, sent = octets.partition(b"Subject: ")
        octets = b"Subject: " + sent
        subject = re.match(rb"Subject: (\d+) (-?\d+)\r\n", octets)
        number, size = map(int, subject.groups()) if subject is not None else (0, 0)
        with self.lock:
            if not re.fullmatch(rb"Return-Path: <>\r\nReceived: [^\r\n]*\r\n(\t[^\r\n]*\r\n)*", trace):
                self.complain(f"{uid!r} begins with {trace[:500]!r}")
            if number not in self._sent or octets != text(number, size if size >= 0 else None):
                self.complain(f"{uid!r} is nothing that was sent: {len(octets)} octets, {octets[:60]!r}")
                return None
            if self._numbers.setdefault(uid, number) != number:
                self.complain(f"{uid!r} was message {self._numbers[uid]}, and is {number}")
        return number

    def listed(self, numbers: list[int | None], due: set[int], gone: set[int]) -> None:
        """A session has all these messages.

        :param due: what :meth:`due` told before the session began.
        """
        there = {number for number in numbers if number is not None}
        with self.lock:
            if missing := due - there - self._doomed:
                self.complain(f"acknowledged and not there: {sorted(missing)}, of {len(due)}")
            if back := gone & there:
                self.complain(f"deleted and there again: {sorted(back)}")
            if twice := sorted({number for number in there if numbers.count(number) > 1}):
                self.complain(f"there more than once: {twice}")

    def doom(self, numbers: set[int]) -> None:
        """Their deletion is about to be asked for."""
        with self.lock:
            self._doomed |= numbers

    def session(self, one: Session) -> None:
        """A session was had."""
        with self.lock:
            for other in self.sessions:
                if other.began < one.ended and one.began < other.ended:
                    self.complain(f"two sessions at the same time: {other} and {one}")
            self.sessions.append(one)


class _Thread:
    """A thread that does something again and again until it is stopped; a context manager."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if not self.once():
                    self._stopped.wait(PAUSE)
        except BaseException as error:
            self.ledger.complain(f"{type(self).__name__}: {error!r}")
            raise

    def once(self) -> bool:
        """Do it once; whether that went well."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(120)
        if self._thread.is_alive():
            self.ledger.complain(f"{type(self).__name__} waits for ever")


class Doing(Generic[_T]):
    """Something that takes long, done in a thread; a context manager that waits for its end."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._outcome: Future[_T] = Future()
        self._work = work
        self._thread = threading.Thread(target=self._do, daemon=True)

    def _do(self) -> None:
        try:
            self._outcome.set_result(self._work())
        except BaseException as error:
            self._outcome.set_exception(error)

    def wait(self) -> _T:
        """What came of it; or what went wrong is raised."""
        return self._outcome.result(120)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(120)


class Writer(_Thread):
    """A sender.

    :param port: where a server takes mail by SMTP, at the moment.
    :param timeout: seconds until a silent server is a failure.
    """

    def __init__(self, ledger: Ledger, port: Callable[[], int], *, timeout: float = 60.0) -> None:
        super().__init__(ledger)
        self._port = port
        self._timeout = timeout
        self._client: smtplib.SMTP | None = None

    def once(self) -> bool:
        """Send one; whether it was acknowledged."""
        return self.send()

    def send(self, octets: int | None = None) -> bool:
        """Send one; whether it was acknowledged.

        :param octets: as for :func:`text`.
        """
        began = time.monotonic()
        number = None
        try:
            if self._client is None:
                self._client = smtplib.SMTP(_LOOPBACK, self._port(), timeout=self._timeout)
            number = self.ledger.next()
            self._client.sendmail("", [f"{self.ledger.user}@localhost"], text(number, octets))
        except TimeoutError:
            self.ledger.complain(f"no answer to message {number} for {self._timeout} s")
            self._client = None
            return False
        except (smtplib.SMTPException, OSError) as error:
            codes = [code for code, _ in getattr(error, "recipients", {}).values()]
            codes = codes or [getattr(error, "smtp_code", 0)]
            if not all(code == 0 or 400 <= code < 500 for code in codes):
                self.ledger.complain(f"message {number} was refused for good: {error!r}")
            self.ledger.told(began, trouble=any(code > 0 for code in codes))
            self._client = None
            return False
        with self.ledger.lock:
            self.ledger.acknowledged.add(number)
        self.ledger.told(began)
        return True

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.close()

    def close(self) -> None:
        """Drop the connection that is kept for the next message."""
        if self._client is not None:
            self._client.close()


class Reader(_Thread):
    """A mail program.

    :param port: where a server serves POP3, at the moment.
    :param share: of how many messages one is deleted; 0: none.
    :param again: whether messages are fetched that were seen before.
    :param timeout: seconds until a silent server is a failure.
    """

    def __init__(
        self,
        ledger: Ledger,
        port: Callable[[], int],
        *,
        share: int = 3,
        again: bool = False,
        timeout: float = 60.0,
    ) -> None:
        super().__init__(ledger)
        self._port = port
        self._share = share
        self._again = again
        self._timeout = timeout
        self.listed = 0

    def once(self) -> bool:
        """One session; whether it came to its end in order."""
        began = time.monotonic()
        try:
            with StrictClient(self._port(), timeout=self._timeout) as client:
                return _Visit(self.ledger, client).all(self)
        except TimeoutError:
            self.ledger.complain(f"no answer for {self._timeout} s")
        except Refused as refusal:
            # Before there was a session.
            if refusal.code not in (b"SYS/TEMP", b"IN-USE"):
                self.ledger.complain(f"refused at login: {refusal}")
            self.ledger.told(began, trouble=refusal.code == b"SYS/TEMP")
        except (EOFError, OSError):
            self.ledger.told(began)
        return False

    def wants(self, uid: bytes) -> bool:
        """Whether to fetch a message."""
        return self._again or self.ledger.number_of(uid) is None

    def deletes(self, number: int) -> bool:
        """Whether to delete a message."""
        return self._share > 0 and number % self._share == 0


class _Visit:
    """One session."""

    def __init__(self, ledger: Ledger, client: StrictClient) -> None:
        self._ledger = ledger
        self._client = client
        self._last = 0.0

    def all(self, reader: Reader) -> bool:
        """From the password to QUIT; whether that succeeded."""
        ledger, client = self._ledger, self._client
        due, gone = ledger.due()
        asked = time.monotonic()
        client.login(ledger.user.encode())
        began = self._last = time.monotonic()
        ledger.told(asked)
        quitting = False
        try:
            uids, sizes = self._ask(client.uids), self._ask(client.sizes)
            if uids.keys() != sizes.keys():
                ledger.complain(f"{len(uids)} unique-ids and {len(sizes)} sizes")
            numbers: list[int | None] = []
            for at, uid in uids.items():
                number = ledger.number_of(uid)
                if reader.wants(uid):
                    octets = self._ask(lambda at=at: client.retr(at))
                    number = ledger.fetched(uid, octets)
                    if len(octets) != sizes[at]:
                        ledger.complain(f"{uid!r} has {len(octets)} octets, and LIST says {sizes[at]}")
                numbers.append(number)
            ledger.listed(numbers, due, gone)
            reader.listed = len(numbers)
            doomed = {}
            for at, number in zip(uids, numbers, strict=True):
                if number is not None and reader.deletes(number):
                    self._ask(lambda at=at: client.dele(at))
                    doomed[number] = at
            ledger.doom({*doomed})
            quitting = True
            self._ask(client.quit)
        except (Refused, EOFError, ConnectionError) as error:
            code = getattr(error, "code", b"")
            if isinstance(error, Refused) and code not in (b"SYS/TEMP", b"IN-USE"):
                ledger.complain(f"refused in a session{' at its end' * quitting}: {error}")
            ledger.told(self._asked, trouble=code == b"SYS/TEMP")
            return False
        finally:
            ledger.session(Session(began, self._last))
        with ledger.lock:
            ledger.deleted |= {*doomed}
        return True

    def _ask(self, command: Callable[[], _T]) -> _T:
        self._asked = time.monotonic()
        answer = command()
        self._last = self._asked
        self._ledger.told(self._asked)
        return answer
