"""Fakes for the tests of ``auth/``: a store that keeps count, and channels."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from pop3toy.errors import InUse
from pop3toy.interfaces import (
    Challenge,
    Channel,
    Entry,
    Exchange,
    IMailbox,
    IMailStore,
    Login,
    MaybeDeferred,
    SessionRecord,
    TLSFacts,
)

LOOPBACK = Channel("127.0.0.1", local=True)
NETWORK = Channel("192.0.2.7", local=False)
TLS = Channel("192.0.2.7", local=False, tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))


def session(channel: Channel = LOOPBACK) -> SessionRecord:
    """The record of a session on this channel."""
    return SessionRecord(1, channel)


def say(exchange: Exchange, response: bytes | None) -> MaybeDeferred[Challenge | Login]:
    """Send a response of a client, in base64 as on the wire."""
    return exchange.respond(None if response is None else b64encode(response))


@implementer(IMailbox)
class FakeMailbox:
    """An open mailbox that knows its owner."""

    read_only = False

    def __init__(self, user: str, released: Callable[[], None] = lambda: None) -> None:
        self.user = user
        self.entries: Sequence[Entry] = (Entry(b"uid-of-" + user.encode(), 10),)
        self._released = released

    def read(self, uid: bytes) -> Any:
        return uid

    def remove(self, uids: Sequence[bytes]) -> None:
        raise AssertionError("nobody removes anything here")

    def release(self) -> None:
        self._released()


@implementer(IMailStore)
class FakeStore:
    """Opens a mailbox for everybody, one session at a time, at once or when told."""

    def __init__(self, *, later: bool = False) -> None:
        self.later = later
        self.open_now: set[str] = set()
        self.opened: list[str] = []
        self.waiting: list[tuple[Deferred[object], str]] = []
        self.trouble: Exception | None = None

    def open(self, user: str) -> MaybeDeferred[object]:
        if self.trouble is not None:
            raise self.trouble
        if user in self.open_now:
            raise InUse
        self.open_now.add(user)
        self.opened.append(user)
        if not self.later:
            return self._mailbox(user)
        result: Deferred[object] = Deferred()
        self.waiting.append((result, user))
        return result

    def go_on(self) -> None:
        """Let everything that waits be opened."""
        waiting, self.waiting = self.waiting, []
        for result, user in waiting:
            result.callback(self._mailbox(user))

    def _mailbox(self, user: str) -> FakeMailbox:
        return FakeMailbox(user, lambda: self.open_now.discard(user))


class FakeThreads:
    """Runs jobs at once, or when told; counts them."""

    def __init__(self, *, later: bool = False) -> None:
        self.later = later
        self.jobs: list[Callable[[], None]] = []
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def run() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception:
                done.errback()
            else:
                done.callback(result)

        self.calls.append((function.__name__, args))
        if self.later:
            self.jobs.append(run)
        else:
            run()
        return done

    @property
    def names(self) -> list[str]:
        """The jobs so far, by the functions' names."""
        return [name for name, _ in self.calls]

    def go_on(self) -> None:
        """Run what waits."""
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
