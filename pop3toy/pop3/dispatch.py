"""Which command means what in which state, and how one line is carried out (RFC 1939 section 3).

A command that is in no row of a state does not exist there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from twisted.python.failure import Failure

from ..errors import BadCommand
from ..interfaces import MaybeDeferred, is_deferred
from . import authorization, transaction
from .commands import UNKNOWN, Command, Malformed, Parsed, Response
from .replies import Reply
from .session import Session, State

__all__ = ["TABLES", "POP3Session", "handle"]

Handler: TypeAlias = "Callable[[Session, Command], MaybeDeferred[Reply]]"

#: What each command does in each state.
TABLES: dict[State, dict[str, Handler]] = {
    State.AUTHORIZATION: authorization.COMMANDS,
    State.TRANSACTION: transaction.COMMANDS,
    State.UPDATE: {},
    State.CLOSED: {},
}

#: Commands that are in a state's table and do not always work there.
_WORKS = {**authorization.WORKS, **transaction.WORKS}

#: PASS comes "immediately after a successful USER command" (RFC 1939 section 7); some
#: clients ask for CAPA in between.
_BEHIND_USER = ("PASS", "CAPA")


def handle(session: Session, parsed: Parsed) -> MaybeDeferred[Reply]:
    """Carry out one line and answer it.  Never raises, never fails."""
    if session.user is not None and getattr(parsed, "keyword", None) not in _BEHIND_USER:
        session.user = None
    try:
        if isinstance(parsed, Command):
            handler = TABLES[session.state].get(parsed.keyword)
            if handler is None:
                raise _out_of_place(session.state, parsed.keyword)
            answer = handler(session, parsed)
        elif isinstance(parsed, Response):
            answer = authorization.respond(session, parsed)
        elif session.exchange is not None:
            raise authorization.interrupted(session)
        else:
            raise _malformed(session, parsed)
    except Exception:
        return session.refused(Failure())
    if is_deferred(answer):
        return answer.addCallbacks(session.went_well, session.refused)
    return session.went_well(answer)


def _malformed(session: Session, line: Malformed) -> BadCommand:
    """What is wrong with a line; for an unknown command (HELP, for one) with the names of those that work."""
    if line.keyword is not None and line.keyword not in TABLES[session.state]:
        return _out_of_place(session.state, line.keyword)
    words = _available(session) if line == UNKNOWN else []
    return BadCommand(f"{line.reason}; here you can say {', '.join(words)}" if words else line.reason)


def _available(session: Session) -> list[str]:
    """The commands that work in this state, on this connection."""
    return [word for word in TABLES[session.state] if word not in _WORKS or _WORKS[word](session)]


def _out_of_place(state: State, keyword: str) -> BadCommand:
    if state is State.AUTHORIZATION:
        return BadCommand(f"{keyword} is for after login")
    if state is State.TRANSACTION:
        return BadCommand(f"{keyword} is for before login")
    return BadCommand("the session is over")


class POP3Session(Session):
    """A session that carries out its lines: what a connection is given."""

    handle = handle
