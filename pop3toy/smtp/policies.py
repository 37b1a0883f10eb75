"""SMTP, submission and LMTP: what each is, as a table of the commands in each state.

A command that is in no row of a state is out of place there (503), one that is in no table is unknown (500).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .authentication import auth, respond
from .greeting import ehlo, helo, help_, noop, quit_, rset, starttls, vrfy
from .mail_commands import data, mail, rcpt
from .session import Handler, Policy, State

__all__ = ["LMTP", "SMTP", "SUBMISSION"]

_ANYTIME: Final[dict[str, Handler]] = {
    "HELP": help_,
    "NOOP": noop,
    "QUIT": quit_,
    "RSET": rset,
    "STARTTLS": starttls,
    "VRFY": vrfy,
}


def _policy(hellos: Mapping[str, Handler], more: Mapping[str, Handler], **terms: Any) -> Policy:
    """A policy with these commands to say hello, and more of them behind it."""
    anytime = {**_ANYTIME, **hellos}
    tables: dict[State, Mapping[str, Handler]] = {
        State.BEFORE_HELLO: anytime,
        State.READY: {**anytime, **more, "MAIL": mail},
        State.MAIL: {**anytime, "RCPT": rcpt},
        State.RECIPIENTS: {**anytime, "RCPT": rcpt, "DATA": data},
        State.TEXT: {},
        State.DELIVERING: {},
        State.CLOSED: {},
    }
    verbs = frozenset(verb for table in tables.values() for verb in table)
    return Policy(tables=tables, verbs=verbs, **terms)


#: RFC 5321: takes mail from anybody, for our own users.
SMTP: Final = _policy({"EHLO": ehlo, "HELO": helo}, {}, name="SMTP")

#: RFC 6409: from users who have logged in.
SUBMISSION: Final = _policy(
    {"EHLO": ehlo, "HELO": helo}, {"AUTH": auth}, name="submission", respond=respond, login_required=True
)

#: RFC 2033: from a mail server that hands over mail.  Section 4.1: LHLO is in the place of HELO and EHLO.
#: Each recipient has a reply, and so a fate, of its own; and a mail server with many unknown ones does
#: not guess names.
LMTP: Final = _policy(
    {"LHLO": ehlo},
    {},
    name="LMTP",
    speaks="LMTP",
    hello="LHLO",
    protocols=("LMTP", "LMTP"),
    together=False,
    unknown_is_mistake=False,
)
