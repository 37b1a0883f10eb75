"""The commands of the AUTHORIZATION state (RFC 1939 section 4, RFC 2449, 2595, 5034).

What each command means; who is let in is decided in ``auth/``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.python.failure import Failure

from ..errors import AuthenticationCancelled, BadCommand, Refusal
from ..interfaces import After, Challenge, Login, MaybeDeferred, is_deferred
from . import capabilities
from .commands import Command, Response
from .replies import Lines, Reply, Status
from .session import Session


def user(session: Session, command: Command) -> Reply:
    """USER: the same answer whether there is such a user or not (RFC 1939 section 7)."""
    _clear_text_or_refuse(session)
    session.user = cast(bytes, command.args[0])
    return Status(True, "send PASS")


def password(session: Session, command: Command) -> MaybeDeferred[Reply]:
    """PASS: the second half of USER, which was taken only where a clear-text password is."""
    name, session.user = session.user, None
    if name is None:
        _clear_text_or_refuse(session)
        raise BadCommand("send USER first")
    secret = cast(bytes, command.args[0])
    return _log_in(session, "USER", session.authenticator.password, name, secret)


def apop(session: Session, command: Command) -> MaybeDeferred[Reply]:
    """APOP: a digest of the greeting's timestamp and a shared secret (RFC 1939 section 7)."""
    if session.timestamp is None:
        raise BadCommand("APOP is not available here")
    session.user = None
    name, digest = cast("tuple[bytes, bytes]", command.args)
    return _log_in(session, "APOP", session.authenticator.apop, name, digest, session.timestamp)


def auth(session: Session, command: Command) -> MaybeDeferred[Reply]:
    """AUTH: list the mechanisms, or start one (RFC 5034 section 4)."""
    offered = session.authenticator.mechanisms(session.channel)
    if not command.args:
        return Lines("mechanisms follow", (b"".join(b"%b\r\n" % name.encode() for name in offered),))
    mechanism, *initial = cast("tuple[bytes, ...]", command.args)
    name = mechanism.decode("ascii")
    if name not in offered:
        raise BadCommand("this mechanism is not available here")
    session.user = None
    session.exchange = session.authenticator.begin(name, session.record)
    return _step(session, initial[0] if initial else None)


def respond(session: Session, response: Response) -> MaybeDeferred[Reply]:
    """One line of a SASL exchange."""
    return _step(session, response.line)


def interrupted(session: Session) -> Refusal:
    """A line that is too long ends an exchange; if that had failed already, the client hears so."""
    exchange, session.exchange = session.exchange, None
    assert exchange is not None
    exchange.cancel()
    return exchange.refusal or BadCommand("line too long, authentication cancelled")


def stls(session: Session, command: Command) -> Reply:
    """STLS: TLS from here on (RFC 2595 section 4)."""
    if session.channel.tls is not None:
        raise BadCommand("TLS is already active")
    if not session.can_start_tls:
        raise BadCommand("TLS is not available here")
    return Status(True, "begin TLS negotiation", after=After.START_TLS)


def quit_(session: Session, command: Command) -> Reply:
    """QUIT before login: nothing to update."""
    return Status(True, "bye", after=session.close("quit"))


COMMANDS: dict[str, Callable[[Session, Command], MaybeDeferred[Reply]]] = {
    "USER": user,
    "PASS": password,
    "APOP": apop,
    "AUTH": auth,
    "CAPA": capabilities.capa,
    "STLS": stls,
    "QUIT": quit_,
}

#: Those that do not work on every connection, and whether they do on this one.
WORKS: dict[str, Callable[[Session], bool]] = {
    "USER": lambda session: session.authenticator.clear_text(session.channel),
    "PASS": lambda session: session.authenticator.clear_text(session.channel),
    "APOP": lambda session: session.timestamp is not None,
    "AUTH": lambda session: bool(session.authenticator.mechanisms(session.channel)),
    "STLS": capabilities.stls_works,
}


def _clear_text_or_refuse(session: Session) -> None:
    if not session.authenticator.clear_text(session.channel):
        raise BadCommand("clear-text passwords are not taken here without TLS")


def _log_in(
    session: Session, mechanism: str, log_in: Callable[..., MaybeDeferred[Login]], name: bytes, *proof: object
) -> MaybeDeferred[Reply]:
    """Try to log in, and have it counted if that fails."""

    def failed(why: Failure) -> Failure:
        session.login_failed(name.decode("utf-8", "replace"), mechanism, why)
        return why

    try:
        login = log_in(name, *proof, session.record)
    except Exception:
        failed(Failure())
        raise
    if is_deferred(login):
        return login.addErrback(failed).addCallback(session.login_succeeded)
    return session.login_succeeded(login)


def _step(session: Session, line: bytes | None) -> MaybeDeferred[Reply]:
    exchange = session.exchange
    assert exchange is not None
    counted = exchange.refusal is not None

    def over(why: Failure) -> Failure:
        session.exchange = None
        # Nor is it one if the client went before anything was checked.
        given_up = session.over and why.check(BadCommand)
        if not (counted or given_up or why.check(AuthenticationCancelled)):
            session.login_failed(exchange.user or "", exchange.mechanism, why)
        return why

    def outcome(result: Challenge | Login) -> Reply:
        if isinstance(result, Login):
            return session.login_succeeded(result)
        if result.refusal is not None:
            # It counts when it is certain; what the client answers may never come.
            session.login_failed(exchange.user or "", exchange.mechanism, Failure(result.refusal))
        return result

    try:
        result = exchange.respond(line)
    except Exception:
        over(Failure())
        raise
    if is_deferred(result):
        return result.addCallbacks(outcome, over)
    return outcome(result)
