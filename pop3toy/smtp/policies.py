"""SMTP, submission and LMTP: what each is, as a table of the commands in each state.

A command that is not in its state's table is out of place there (503), one that is in no table unknown (500).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from .authentication import auth, respond
from .greeting import ehlo, helo, help_, noop, quit_, rset, starttls, vrfy
from .mail_commands import data, mail, rcpt
from .session import Handler, Policy, State

__all__ = ["LMTP", "SMTP", "SUBMISSION"]

_Table: TypeAlias = Mapping[str, Handler]

_ANYTIME: Final[_Table] = {
    "HELP": help_,
    "NOOP": noop,
    "QUIT": quit_,
    "RSET": rset,
    "STARTTLS": starttls,
    "VRFY": vrfy,
}


def _tables(hellos: _Table, more: _Table) -> tuple[Mapping[State, _Table], frozenset[str]]:
    """The commands of each state, and all verbs; ``more`` are those behind the hello."""
    anytime = {**_ANYTIME, **hellos}
    tables: dict[State, _Table] = {
        State.BEFORE_HELLO: anytime,
        State.READY: {**anytime, **more, "MAIL": mail},
        State.MAIL: {**anytime, "RCPT": rcpt},
        State.RECIPIENTS: {**anytime, "RCPT": rcpt, "DATA": data},
        State.TEXT: {},
        State.DELIVERING: {},
        State.CLOSED: {},
    }
    return tables, frozenset(verb for table in tables.values() for verb in table)


_HELLOS: Final[_Table] = {"EHLO": ehlo, "HELO": helo}

#: RFC 5321: takes mail from anybody, for users of this server.
SMTP: Final = Policy("SMTP", *_tables(_HELLOS, {}))

#: RFC 6409: takes mail from users who have logged in.
SUBMISSION: Final = Policy(
    "submission", *_tables(_HELLOS, {"AUTH": auth}), respond=respond, login_required=True
)

#: RFC 2033: takes mail from a mail server that hands it over.  Section 4.1: LHLO is in the place of HELO and
#: EHLO.  Each recipient has a reply, and so a fate, of its own; a mail server with many unknown recipients
#: does not guess names.
LMTP: Final = Policy(
    "LMTP",
    *_tables({"LHLO": ehlo}, {}),
    speaks="LMTP",
    hello="LHLO",
    protocols=("LMTP", "LMTP"),
    together=False,
    unknown_is_mistake=False,
)
