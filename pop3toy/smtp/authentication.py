"""AUTH (RFC 4954): the command and its replies; ``auth`` decides who may log in."""

from __future__ import annotations

from twisted.logger import Logger

from ..errors import AuthenticationCancelled, AuthenticationFailed, BadCommand, NotBase64, Refusal
from ..interfaces import Challenge, is_deferred
from . import limits
from .commands import Command
from .replies import Answer, Reply
from .session import Session

__all__ = ["auth", "respond"]

log = Logger()


async def auth(session: Session, command: Command) -> Answer:
    """AUTH: start an exchange, perhaps with an initial response (RFC 4954 section 4)."""
    name, _, initial = command.argument.partition(b" ")
    mechanism = name.upper().decode("latin-1")
    authenticator = session.options.authenticator
    if session.user is not None:
        return session.mistake(Reply(503, "AUTH comes once", "5.5.1"))
    if authenticator is not None and mechanism in session.mechanisms():
        try:
            session.exchange = authenticator.begin(mechanism, session.record)
        except Refusal as error:
            return _refused(session, error)
        return await respond(session, initial or None)
    if session.record.channel.private:
        return session.mistake(Reply(504, "this mechanism is not available here", "5.5.4"))
    return session.mistake(Reply(538, "no login in clear text: STARTTLS comes first", "5.7.11"))


async def respond(session: Session, line: bytes | None) -> Answer:
    """A line of the exchange; ``None`` stands for an initial response that is missing."""
    exchange = session.exchange
    assert exchange is not None
    # A refusal that the last challenge brought was counted with that.
    counted = exchange.refusal is not None
    try:
        answer = exchange.respond(line)
        result = await answer if is_deferred(answer) else answer
    except Refusal as error:
        session.exchange = None
        # A client that left before anything was checked has not failed.
        given_up = session.over and isinstance(error, BadCommand)
        if not (counted or given_up or isinstance(error, AuthenticationCancelled)):
            session.login_failed(exchange, error)
        return _refused(session, error)
    if isinstance(result, Challenge):
        if result.refusal is not None:
            # Counted at once: the client's answer may never come.
            session.login_failed(exchange, result.refusal)
        return result
    return session.login_succeeded(result)


def _refused(session: Session, error: Refusal) -> Answer:
    # RFC 4954 section 4: 501 for "*", also where the challenge before brought a refusal.
    if isinstance(error.__cause__, AuthenticationCancelled):
        error = error.__cause__
    if isinstance(error, BadCommand):
        cancelled = isinstance(error, AuthenticationCancelled) and not isinstance(error, NotBase64)
        return session.mistake(Reply(501, error.text, "5.7.0" if cancelled else "5.5.2"))
    if isinstance(error, AuthenticationFailed):
        if session.failed_logins < limits.FAILED_LOGINS:
            return Reply(535, error.text, "5.7.8")
        last = Reply(535, f"{error.text}; too many failed logins, goodbye", "5.7.8")
        return session.close("limit", last, Reply(421, "too many failed logins", "4.7.0"))
    log.warn(
        "session {number}: AUTH cannot be answered: {text} {detail}",
        number=session.record.number,
        text=error.text,
        detail=error.detail,
    )
    # RFC 4954 section 4: the client keeps its password and tries again.
    return Reply(454, "login is not available at the moment", "4.7.0")
