"""CAPA: what this connection can do now (RFC 2449, 2595, 3206, 5034).

What stands here works, and what does not work does not stand here.  A new
capability is one row.
"""

from __future__ import annotations

from collections.abc import Callable

from .._version import __version__
from .commands import Command
from .replies import Lines, Reply
from .session import Session


def _sasl(session: Session) -> str | None:
    mechanisms = session.authenticator.mechanisms(session.channel)
    return f"SASL {' '.join(mechanisms)}" if mechanisms else None


def stls_works(session: Session) -> bool:
    """Whether STLS can be had now: not within TLS, and only in AUTHORIZATION (RFC 2595 section 4)."""
    return session.can_start_tls and session.channel.tls is None and session.login is None


def _login_delay(session: Session) -> str | None:
    seconds = session.authenticator.login_delay()
    return f"LOGIN-DELAY {seconds}" if seconds else None


#: One row for each capability: the line, or ``None`` where it is not so.  The
#: lines are short because fetchmail keeps 64 octets of each, and TOP, UIDL and
#: USER stand here before login as well because some clients ask only then.
ROWS: tuple[Callable[[Session], str | None], ...] = (
    lambda session: "TOP",
    lambda session: "UIDL",
    lambda session: "USER" if session.authenticator.clear_text(session.channel) else None,
    _sasl,
    lambda session: "STLS" if stls_works(session) else None,
    lambda session: "PIPELINING",
    lambda session: "RESP-CODES",
    lambda session: "AUTH-RESP-CODE",
    _login_delay,
    # RFC 2449 section 6.7: messages stay until the client deletes them, or so many days.
    lambda session: f"EXPIRE {session.expire_days or 'NEVER'}",
    lambda session: f"IMPLEMENTATION pop3toy-{__version__}",
)


def capa(session: Session, command: Command) -> Reply:
    """CAPA, in both states (RFC 2449 section 5)."""
    lines = [line for row in ROWS if (line := row(session))]
    return Lines("capability list follows", ("".join(f"{line}\r\n" for line in lines).encode("ascii"),))
