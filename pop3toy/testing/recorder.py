"""What clients did, written down session by session: an observer, and what it gives to a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from zope.interface import implementer

from ..events import (
    Connected,
    Ended,
    LineReceived,
    LoggedIn,
    MessageRemoved,
    MessageRetrieved,
    ReplySent,
    TLSStarted,
)
from ..interfaces import IObserver
from ..observe.transcript import MemoryTranscript
from ..printable import printable

__all__ = ["Recorder", "Session"]

#: Lines of one session's transcript that are kept: more than a person reads.
_LINES = 10_000


def _text(line: bytes) -> str:
    return printable(line.decode("utf-8", "backslashreplace"), keep="\t")


class Session:
    """One connection of a client, as it is now; what is read later may be more.

    :param number: of the connection.
    :param sync: waits until all is written down that the client can know of.
    """

    def __init__(self, number: int, sync: Callable[[], object] = lambda: None) -> None:
        self.number = number
        self._sync = sync
        self._commands: list[str] = []
        self._replies: list[str] = []
        self._retrieved: list[str] = []
        self._removed: list[str] = []
        self._user: str | None = None
        self._mechanism: str | None = None
        self._tls: str | None = None
        self._ended: str | None = None
        self._in_reply = False
        self._transcript = MemoryTranscript(size=_LINES)

    @property
    def commands(self) -> list[str]:
        """The client's lines, secrets masked: ``["CAPA", "USER ann", "PASS ****", "STAT", "QUIT"]``.

        A line within AUTH is ``****``, and so is one that is no command, with what is wrong with it.
        """
        self._sync()
        return list(self._commands)

    @property
    def replies(self) -> list[str]:
        """The first line of each reply, the greeting's first; ``transcript`` has the others."""
        self._sync()
        return list(self._replies)

    @property
    def retrieved(self) -> list[str]:
        """The unique-ids of the messages of which RETR handed over all, as often as it did."""
        self._sync()
        return list(self._retrieved)

    @property
    def removed(self) -> list[str]:
        """The unique-ids of the messages that QUIT has removed."""
        self._sync()
        return list(self._removed)

    @property
    def user(self) -> str | None:
        """Who logged in; ``None`` for nobody."""
        self._sync()
        return self._user

    @property
    def mechanism(self) -> str | None:
        """How: ``USER``, ``APOP`` or the name of a SASL mechanism."""
        self._sync()
        return self._mechanism

    @property
    def tls(self) -> str | None:
        """The version of TLS, ``TLSv1.3`` for instance; ``None`` without."""
        self._sync()
        return self._tls

    @property
    def ended(self) -> str | None:
        """How it ended; ``None`` while it lasts.

        ``quit``; ``dropped`` by the client; ``timeout``; ``limit`` (too many mistakes); ``rejected``;
        ``administrator``, ``shutdown`` (the server ended it); ``store``, ``bug`` (the server failed).
        """
        self._sync()
        return self._ended

    @property
    def transcript(self) -> str:
        """The conversation: lines that begin with ``C:``, ``S:`` or, for what is neither's, ``--``.

        Of long replies the beginning is shown, and how much is not.
        """
        self._sync()
        # All lines are of this session: its number says nothing.
        return "\n".join([line.partition("] ")[2] for line in tuple(self._transcript.lines)])

    def __repr__(self) -> str:
        return f"<Session {self.number} of {self._user or 'nobody'}, {self._ended or 'under way'}>"

    # -- written down by the recorder --------------------------------------------------

    def _line(self, event: LineReceived) -> None:
        self._commands.append(_text(event.line))

    def _reply(self, event: ReplySent) -> None:
        # A gate may have lost it.
        if event.handed_over and event.data and not self._in_reply:
            self._replies.append(_text(event.data.partition(b"\r\n")[0]))
        self._in_reply = not event.last

    def _logged_in(self, event: LoggedIn) -> None:
        self._user, self._mechanism = event.user, event.mechanism

    def _tls_started(self, event: TLSStarted) -> None:
        self._tls = event.tls.version

    def _message_retrieved(self, event: MessageRetrieved) -> None:
        self._retrieved.append(event.uid.decode("ascii"))

    def _message_removed(self, event: MessageRemoved) -> None:
        self._removed.append(event.uid.decode("ascii"))

    def _end(self, event: Ended) -> None:
        self._ended = event.why


#: What of a session a kind of event changes.
_CHANGES: dict[type, Callable[[Session, Any], None]] = {
    LineReceived: Session._line,
    ReplySent: Session._reply,
    LoggedIn: Session._logged_in,
    TLSStarted: Session._tls_started,
    MessageRetrieved: Session._message_retrieved,
    MessageRemoved: Session._message_removed,
    Ended: Session._end,
}


@implementer(IObserver)
class Recorder:
    """Keeps all sessions, and says when one has ended; told in the reactor's thread, asked from any.

    :param sync: see :class:`Session`.
    """

    wants: Collection[type] = {*MemoryTranscript.wants, *_CHANGES}

    def __init__(self, sync: Callable[[], object] = lambda: None) -> None:
        self._sync = sync
        self._by_number: dict[int, Session] = {}
        #: In the order in which they ended, those that nobody was given yet.
        self._to_give: list[Session] = []
        self._has_ended = threading.Condition()

    def observe(self, event: Any) -> None:
        """Write down what happened."""
        kind = type(event)
        if kind is Connected:
            self._by_number[event.session] = Session(event.session, self._sync)
        session = self._by_number.get(event.session)
        if session is None:
            return
        if kind in MemoryTranscript.wants:
            session._transcript.observe(event)
        change = _CHANGES.get(kind)
        if change is not None:
            change(session, event)
        if kind is Ended:
            with self._has_ended:
                self._to_give.append(session)
                self._has_ended.notify_all()

    @property
    def sessions(self) -> Sequence[Session]:
        """All, in the order in which they began."""
        return list(self._by_number.values())

    def next_ended(self, timeout: float) -> Session | None:
        """The session that ended next after that which was given last; ``None`` if there is none in time.

        :param timeout: seconds to wait for it.
        """
        with self._has_ended:
            if not self._has_ended.wait_for(lambda: self._to_give, timeout):
                return None
            return self._to_give.pop(0)

    def transcript(self) -> str:
        """All conversations, one after the other."""
        return "\n\n".join(f"session {one.number}:\n{one.transcript}" for one in self.sessions)
