"""Refusals: the errors that know their own answer on the wire.

A store, a checker or a command handler raises one of these; exactly one place
(:meth:`pop3toy.pop3.session.Session.refused`) turns it into ``-ERR [CODE] text``.
Whatever else is raised is a bug: it is logged in full and answered with
``[SYS/TEMP]`` and no detail, so no exception's text reaches a client by
accident.

``text`` is written for the client and must never hold a secret, a path or a
client's own bytes.  ``detail`` is for the administrator's log alone.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuthenticationCancelled",
    "AuthenticationFailed",
    "BadCommand",
    "BadSetting",
    "CannotStart",
    "InUse",
    "LoginDelay",
    "MessageGone",
    "NoSuchMailbox",
    "NoSuchMessage",
    "NotBase64",
    "NotOurs",
    "OverQuota",
    "Refusal",
    "StoreFull",
    "StoreTrouble",
]


class Refusal(Exception):
    """Something that is answered with ``-ERR``.

    :param text: the sentence for the client: ASCII, one line, no brackets.
    :param detail: what the administrator should read in the log and do about
        it; the client never sees it.
    """

    #: The response code of RFC 2449 section 8 or RFC 3206, without brackets.
    code: ClassVar[str] = ""
    #: The sentence when the raiser gives none.
    sentence: ClassVar[str] = "refused"

    def __init__(self, text: str = "", *, detail: str = "") -> None:
        self.text = text or self.sentence
        self.detail = detail
        super().__init__(self.text)


class BadCommand(Refusal):
    """The client made a mistake: unknown, malformed or out of place (RFC 1939 section 3)."""

    sentence = "command not understood"


class NoSuchMessage(BadCommand):
    """The number names no message of this session, or a deleted one (RFC 1939 section 5)."""

    sentence = "no such message"


class AuthenticationCancelled(BadCommand):
    """A line of the client has cancelled the SASL exchange: ``*`` (RFC 4954 and RFC 5034 section 4)."""

    sentence = "authentication cancelled"


class NotBase64(AuthenticationCancelled):
    """A line of a SASL exchange was not base64, which cancels it as well."""

    sentence = "this is not base64, authentication cancelled"


class MessageGone(Refusal):
    """The message was taken away behind the lock, by another program."""

    sentence = "message is no longer in the maildrop"


class AuthenticationFailed(Refusal):
    """Bad credentials; the answer is the same whether there is such a user or not (RFC 3206 section 5)."""

    code = "AUTH"
    sentence = "invalid user name or password"


class InUse(Refusal):
    """Another session holds the maildrop (RFC 2449 section 8.1.2).

    The word "lock" is there for fetchmail, which looks for it.
    """

    code = "IN-USE"
    sentence = "maildrop is locked by another session"


class LoginDelay(Refusal):
    """The last login is too recent (RFC 2449 section 8.1.1); fetchmail looks for "wait"."""

    code = "LOGIN-DELAY"
    sentence = "please wait before the next login"


class StoreTrouble(Refusal):
    """The store or the password source is in trouble; trying later may help (RFC 3206 section 4).

    Never to be disguised as an empty maildrop: a client would forget every
    unique-id it knows and download everything again.
    """

    code = "SYS/TEMP"
    sentence = "maildrop is not available at the moment"

    #: How many messages a removal that failed in part has removed; for the log.
    removed = 0


class NoSuchMailbox(StoreTrouble):
    """The store keeps no mailbox for this user."""


class NotOurs(Exception):
    """The address is in a domain that this server does not take mail for."""


class OverQuota(StoreTrouble):
    """A delivery does not fit into what the user may use.

    :param holds: octets that the mailbox may hold in all, if that is known: what
        is larger will never fit.
    """

    sentence = "mailbox is full"

    def __init__(self, text: str = "", *, detail: str = "", holds: int | None = None) -> None:
        super().__init__(text, detail=detail)
        self.holds = holds


class StoreFull(StoreTrouble):
    """A delivery does not fit on the disk: no fault of the user, and it may pass."""

    sentence = "no room left in the store"


class CannotStart(Exception):
    """The server cannot start; its text is the one line that says why and what to do."""


class BadSetting(CannotStart):
    """An option has a value that cannot be, or lacks another one that it needs.

    :param option: its name, as in ``login-delay``.
    :param text: what is wrong, to be read behind the name: ``" is a number from 0 to 86400"``.
    """

    def __init__(self, option: str, text: str) -> None:
        super().__init__(f"--{option}{text}")
        self.option = option
        self.text = text
