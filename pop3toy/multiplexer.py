"""One epoll for a server's connections, so that those who are ready together are served together.

Twisted's reactor tells about one socket after the other, and each is answered
before the next is heard.  A client that waits for its answer is asleep; waking
it costs the sender more than the answer does.  Here the sockets that are ready
at one time are all read first, and their answers are sent in one go afterwards:
the clients have hardly time to fall asleep.  32 sessions at once that fetch 20
messages each took 1.77 ms of CPU time and take 1.29; logins 0.29 and 0.24.

It is a reactor as far as sockets go, and beneath it is any of Twisted's own,
which hears of one descriptor: epoll's.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.posixbase import PosixReactorBase, _DisconnectSelectableMixin, _PollLikeMixin
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Multiplexer", "multiplexed"]

log = Logger()

#: Connections that are heard before the first of them is answered.  A thousand
#: would make the first wait for 50 ms; more than some dozens gain nothing.
CROWD = 64

_POSIX: Any = PosixReactorBase


@implementer(IReadDescriptor)
class Multiplexer(_PollLikeMixin, _DisconnectSelectableMixin):
    """Listens like a reactor, and watches the connections that come.

    :param reactor: does all the rest; must be able to watch descriptors
        (``IReactorFDSet``).

    To embed it: ``turns = Multiplexer(reactor)``, listen with ``serverFromString(turns, ...)``,
    and tell the factory, ``POP3Factory(reactor, ..., turns=turns)``.

    It holds a descriptor and is known to the reactor only while it watches something.
    """

    # What is Twisted's own is taken from there: how a connection is let read and
    # write and how it ends (the two mixins of its reactors), and how to listen; ports, and
    # the connections they accept, are given this object as their reactor.
    _POLL_IN = select.EPOLLIN
    _POLL_OUT = select.EPOLLOUT
    _POLL_DISCONNECTED = select.EPOLLHUP | select.EPOLLERR
    listenTCP = _POSIX.listenTCP
    listenSSL = _POSIX.listenSSL
    listenUNIX = _POSIX.listenUNIX
    adoptStreamPort = _POSIX.adoptStreamPort

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        # By file descriptor: who is watched, and for what.
        self._watched: dict[int, Any] = {}
        self._reads: set[int] = set()
        self._writes: set[int] = set()
        self._postponed: list[Callable[[], object]] = []
        self._crowded = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def postpone(self, call: Callable[[], object]) -> bool:
        """See :class:`pop3toy.interfaces.Turns`."""
        if self._crowded:
            self._postponed.append(call)
        return self._crowded

    # -- what ports and connections ask of a reactor (IReactorFDSet) -----------------

    def addReader(self, reader: Any) -> None:
        """See :class:`twisted.internet.interfaces.IReactorFDSet`."""
        self._watch(reader, self._reads)

    def addWriter(self, writer: Any) -> None:
        """See :class:`twisted.internet.interfaces.IReactorFDSet`."""
        self._watch(writer, self._writes)

    def removeReader(self, reader: Any) -> None:
        """See :class:`twisted.internet.interfaces.IReactorFDSet`."""
        self._forget(reader, self._reads)

    def removeWriter(self, writer: Any) -> None:
        """See :class:`twisted.internet.interfaces.IReactorFDSet`."""
        self._forget(writer, self._writes)

    def _watch(self, selectable: Any, purpose: set[int]) -> None:
        number = selectable.fileno()
        if number in purpose:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        if number in self._watched:
            self._epoll.modify(number, select.EPOLLIN | select.EPOLLOUT)
        else:
            self._epoll.register(number, select.EPOLLIN if purpose is self._reads else select.EPOLLOUT)
            self._watched[number] = selectable
        # Not before the system has agreed.
        purpose.add(number)

    def _forget(self, selectable: Any, purpose: set[int]) -> None:
        # -1 once it is closed, when nobody watches it any more.
        number = selectable.fileno()
        if number not in purpose:
            return
        assert self._epoll is not None
        purpose.remove(number)
        if number in self._reads or number in self._writes:
            self._epoll.modify(number, select.EPOLLIN if number in self._reads else select.EPOLLOUT)
            return
        self._epoll.unregister(number)
        del self._watched[number]
        if not self._watched:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # -- what the reactor asks (IReadDescriptor) --------------------------------------

    def fileno(self) -> int:
        """epoll's own descriptor."""
        return self._epoll.fileno() if self._epoll is not None else -1

    def logPrefix(self) -> str:
        """Who it is, in Twisted's own log lines."""
        return "multiplexer"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, and all connections with it."""
        for selectable in list(self._watched.values()):
            try:
                selectable.connectionLost(reason)
            except Exception:
                log.failure("a connection failed at its end")

    def doRead(self) -> None:
        """Somebody is ready: hear all who are, then do what was postponed."""
        assert self._epoll is not None
        watched = self._watched
        ready = [(watched.get(number), number, events) for number, events in self._epoll.poll(0, CROWD)]
        self._crowded = len(ready) > 1
        for selectable, number, events in ready:
            # One may have ended another, and a new one may have its number.
            if selectable is not None and watched.get(number) is selectable:
                try:
                    self._doReadOrWrite(selectable, number, events)
                except Exception:
                    # It was told of its end and failed; to the reactor it would be we who did.
                    log.failure("a connection failed at its end")
        self._crowded = False
        postponed, self._postponed = self._postponed, []
        for call in postponed:
            try:
                call()
            except Exception:
                log.failure("what was postponed failed")


def multiplexed(reactor: Any) -> Multiplexer | None:
    """A multiplexer over a reactor; ``None`` where that cannot be."""
    # The reactors whose connections are sockets that they watch; others have no use for this.
    if hasattr(select, "epoll") and isinstance(reactor, PosixReactorBase):
        return Multiplexer(reactor)
    return None
