"""HELO, EHLO, STARTTLS and the commands that carry no mail (RFC 5321 section 4.1.1, RFC 3207)."""

from __future__ import annotations

from ..interfaces import After
from .commands import Command
from .replies import Answer, Reply
from .session import Session, State

__all__ = ["ehlo", "helo", "help_", "noop", "quit_", "rset", "starttls", "vrfy"]


def helo(session: Session, command: Command) -> Answer:
    """HELO: a client without extensions (RFC 5321 section 4.1.1.1)."""
    _begin_anew(session, command, extended=False)
    return Reply(250, session.options.host)


def ehlo(session: Session, command: Command) -> Answer:
    """EHLO and LHLO: what can be done here and now (RFC 5321 section 4.1.1.1, RFC 2033 section 4.1)."""
    _begin_anew(session, command, extended=True)
    return Reply(250, (session.options.host, *_extensions(session)))


def _begin_anew(session: Session, command: Command, *, extended: bool) -> None:
    # RFC 5321 section 4.1.4: it has the effect of RSET.
    session.abort_transaction()
    session.client_name = command.argument
    session.extended = extended
    session.state = State.READY


def _extensions(session: Session) -> list[str]:
    """The extensions that EHLO announces: those that work now."""
    offered = ["PIPELINING", f"SIZE {session.options.largest_message}", "8BITMIME", "ENHANCEDSTATUSCODES"]
    if session.options.smtputf8:
        offered.append("SMTPUTF8")
    if session.options.outgoing is not None:
        # RFC 3461: where mail for elsewhere is taken its sender is told what becomes of it.
        offered.append("DSN")
    if session.can_start_tls:
        offered.append("STARTTLS")
    if mechanisms := session.mechanisms():
        offered.append(f"AUTH {' '.join(mechanisms)}")
    return offered


def starttls(session: Session, command: Command) -> Answer:
    """STARTTLS; :meth:`Session.restart` forgets what was said before."""
    if session.record.channel.tls is not None:
        return Reply(503, "TLS already negotiated", "5.5.1")
    if not session.can_start_tls:
        return Reply(454, "TLS not available", "4.7.0")
    return Reply(220, "Begin TLS negotiation now", after=After.START_TLS)


def noop(session: Session, command: Command) -> Answer:
    """NOOP (RFC 5321 section 4.1.1.9)."""
    return Reply(250, "ok", "2.0.0")


def rset(session: Session, command: Command) -> Answer:
    """RSET (RFC 5321 section 4.1.1.5)."""
    session.abort_transaction()
    return Reply(250, "ok", "2.0.0")


def quit_(session: Session, command: Command) -> Answer:
    """QUIT (RFC 5321 section 4.1.1.10)."""
    return session.close("quit", Reply(221, "goodbye", "2.0.0"))


def help_(session: Session, command: Command) -> Answer:
    """HELP (RFC 5321 section 4.1.1.8)."""
    missing = set() if session.can_start_tls else {"STARTTLS"}
    return Reply(214, " ".join(sorted(session.policy.verbs - missing)), "2.0.0")


def vrfy(session: Session, command: Command) -> Answer:
    """VRFY: says nothing about users (RFC 5321 section 7.3)."""
    return Reply(252, "send a message and see", "2.1.5")
