"""What may stand in a label: words that are known before, and ``other`` for all else.

Whatever clients send, there are as many series as these sets have pairs; no user's name and no client's text
becomes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = [
    "COMMANDS",
    "MECHANISMS",
    "OTHER",
    "POP3_CODES",
    "PROTOCOLS",
    "RESPONSE",
    "SMTP_CODES",
    "TEXT",
    "TLS_VERSIONS",
    "WHYS",
    "known",
    "reason",
]

OTHER: Final = "other"
#: In the place of a command: a line within AUTH's exchange, and the text behind DATA.
RESPONSE: Final = "(response)"
TEXT: Final = "(text)"

PROTOCOLS: Final = frozenset(("POP3", "SMTP", "submission", "LMTP", "HTTP"))

_SMTP: Final = frozenset(
    ("DATA", "HELP", "MAIL", "NOOP", "QUIT", "RCPT", "RSET", "STARTTLS", "VRFY", RESPONSE, TEXT)
)  # fmt: skip
COMMANDS: Final[Mapping[str, frozenset[str]]] = {
    "POP3": frozenset(
        (
            "APOP", "AUTH", "CAPA", "DELE", "LIST", "NOOP", "PASS", "QUIT", "RETR", "RSET", "STAT",
            "STLS", "TOP", "UIDL", "USER", RESPONSE,
        )
    ),
    "SMTP": _SMTP | {"EHLO", "HELO"},
    "submission": _SMTP | {"EHLO", "HELO", "AUTH"},
    "LMTP": _SMTP | {"LHLO"},
}  # fmt: skip

MECHANISMS: Final = frozenset(
    (
        "USER", "APOP", "EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1",
        "OAUTHBEARER", "XOAUTH2", "CRAM-MD5", "PLAIN", "LOGIN", "ANONYMOUS", "PASSWORD",
    )
)  # fmt: skip

#: RFC 2449 section 8, RFC 3206, RFC 6856; and what is said where a refusal has none.
POP3_CODES: Final = frozenset(
    ("AUTH", "IN-USE", "LOGIN-DELAY", "SYS/TEMP", "SYS/PERM", "UTF8", "none", "refused")
)
#: RFC 5321 section 4.2.2, RFC 4954.
SMTP_CODES: Final = frozenset(
    (
        "421", "432", "450", "451", "452", "454", "455", "500", "501", "502", "503", "504", "521", "523",
        "530", "534", "535", "538", "550", "551", "552", "553", "554", "555", "556",
    )
)  # fmt: skip

#: How a connection ends (``SessionRecord.ended``).
WHYS: Final = frozenset(
    ("quit", "dropped", "timeout", "limit", "rejected", "administrator", "shutdown", "store", "bug")
)

TLS_VERSIONS: Final = frozenset(("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"))


def known(word: str | None, words: frozenset[str]) -> str:
    """The word, if it is one of these; else ``other``."""
    return word if word in words else OTHER


def reason(told: str) -> str:
    """Why a client was sent away, by what it was told: ``address``, ``full``, ``stopping`` or ``other``."""
    for text, short in (("from your address", "address"), ("too many", "full"), ("stopping", "stopping")):
        if text in told:
            return short
    return OTHER
