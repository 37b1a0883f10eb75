"""What every server under test has, in a thread or in memory: mail, sessions, what they did."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..interfaces import IGate
from .faults.gate import Faults
from .mailboxes import Mailbox, Message, Store, accounts
from .recorder import Recorder, Session

__all__ = ["Served", "duration"]


def duration(seconds: float) -> float:
    """Seconds by which a server's time can go on.

    :raises ValueError: if it cannot: back, for ever, or by what is no number.
    """
    if not 0 <= seconds < math.inf:
        raise ValueError(f"time goes on by a number of seconds from 0 on, and not by {seconds!r}")
    return seconds


class Served:
    """A server, as a test sees it.

    :param mailboxes: messages for each user, the oldest first; the toy's one message for ``user`` if
        neither this nor ``passwords`` is given.
    :param passwords: of the users; ``pass`` of those who have none here.
    :raises TypeError: for what is no message.
    """

    def __init__(
        self,
        mailboxes: Mapping[str, Iterable[Message]] | None,
        passwords: Mapping[str, str] | None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        mail, known = accounts(mailboxes, passwords, wall())
        #: The users and their passwords.
        self.passwords: Mapping[str, str] = known
        self._store = Store(mail)
        self._faults: Faults | None = None
        self._recorder = Recorder(self._settle)

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call a function where the server runs; what it returns."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Wait until all is written down that a client can know of."""
        raise NotImplementedError

    def _gate(self, gate: IGate | None) -> IGate:
        """The gate: the one that was given, or the faults."""
        if gate is None:
            gate = self._faults = Faults(protocols=("POP3",))
        return gate

    @property
    def faults(self) -> Faults:
        """What the server does wrong: ``server.faults.add("drop", command="RETR", octets=100)``.

        docs/faults.rst lists the kinds.  They concern POP3.

        :raises AttributeError: if the server was given a gate.
        """
        if self._faults is None:
            raise AttributeError("there are no faults: the server has another gate")
        return self._faults

    # -- mail --------------------------------------------------------------------------

    def mailbox(self, user: str) -> Mailbox:
        """A user's mailbox.

        :param user: one of ``passwords``.
        :raises KeyError: if there is no such user.
        """
        if user not in self.passwords:
            raise KeyError(f"{user!r} is no user here; there are {', '.join(self.passwords)}")

        def removed() -> list[str]:
            return [uid for one in self.sessions if one.user == user for uid in one.removed]

        return Mailbox(user, self._store, self._call, removed)

    def deliver(self, user: str, message: Message, uid: str | None = None) -> str:
        """Let a message arrive; a session that is open does not see it, the next one does.

        :param user: one of ``passwords``.
        :param message: bytes, str, an ``email.message`` or a path.
        :param uid: its unique-id; one is made up without it.
        :return: its unique-id.
        :raises KeyError: if there is no such user.
        """
        return self.mailbox(user).add(message, uid)

    # -- what clients did ----------------------------------------------------------------

    @property
    def sessions(self) -> Sequence[Session]:
        """The POP3 sessions so far, in the order in which they began, those under way among them."""
        self._settle()
        return self._recorder.sessions

    def wait_for_session(self, timeout: float = 5.0) -> Session:
        """The session that ended next: the first at the first call, the second at the second.

        :param timeout: seconds to wait for it.
        :raises AssertionError: if it does not end in time, with the conversations so far.
        """
        session = self._recorder.next_ended(timeout)
        if session is None:
            so_far = self.transcript or "nobody has connected"
            raise AssertionError(f"no session has ended within {timeout:g} seconds; so far:\n\n{so_far}")
        return session

    @property
    def transcript(self) -> str:
        """All POP3 conversations, one after the other."""
        self._settle()
        return self._recorder.transcript()
