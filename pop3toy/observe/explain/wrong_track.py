"""Who speaks something else, or has typed what was not meant: one sentence that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from .explanation import N_, Explanation, Say

__all__ = ["hint"]

_HTTP = re.compile(
    rb"(?:GET|POST|HEAD|PUT|OPTIONS|CONNECT|DELETE) \S+ HTTP/|(?:Host|User-Agent): ", re.IGNORECASE
)
_IMAP = re.compile(
    rb"\S+ (?:LOGIN|CAPABILITY|SELECT|LOGOUT|AUTHENTICATE|STARTTLS|ID|EXAMINE|NAMESPACE)\b", re.IGNORECASE
)
_SMTP = re.compile(rb"(?:EHLO|HELO|LHLO)\b|MAIL FROM:|RCPT TO:|DATA\s*$|STARTTLS\s*$", re.IGNORECASE)
_POP3 = re.compile(rb"(?:USER|PASS|STAT|LIST|RETR|DELE|UIDL|TOP|CAPA|APOP|STLS)\b", re.IGNORECASE)

_Signs: TypeAlias = tuple[tuple[Callable[[bytes, bool], object], str], ...]

#: Signs in a line that may well begin with a command: of how it was typed.
_TYPED: _Signs = (
    (
        lambda line, pop3: b"\x08" in line or b"\x7f" in line,
        N_(
            "There is a backspace in the line: it was sent along with what it was to delete. Type"
            " the line again"
            " without a mistake."
        ),
    ),
    (
        lambda line, pop3: re.search(rb"\x1b[\[O][A-D]", line),
        N_("There is an arrow key in the line: it was sent along. Type the line again without it."),
    ),
    (
        lambda line, pop3: b"\r" in line,
        N_("Lines end with CR and LF; a CR alone, as here, ends none."),
    ),
    (
        lambda line, pop3: re.search(rb"\\r\\n|\\[rn]$", line),
        N_("A backslash and a letter were sent, not a line end: printf makes octets of them, echo does not."),
    ),
)

#: Signs, and what to say; the first that fits.  Each is given the line and whether the protocol is POP3.
_SIGNS: _Signs = (
    (
        lambda line, pop3: line.startswith(b"\x16\x03") or b"\x16\x03\x01" in line[:8],
        N_(
            "This is the beginning of TLS, and this port begins in clear text: choose STARTTLS in"
            " the mail program,"
            " or the port with TLS from the first octet on."
        ),
    ),
    (
        lambda line, pop3: _HTTP.match(line),
        N_("This is HTTP: a browser, or curl with http://, has come to a mail server's port."),
    ),
    (
        lambda line, pop3: _IMAP.match(line),
        N_(
            "This is IMAP, where each command has a tag before it: choose POP3 in the mail"
            " program, or IMAP's port 143."
        ),
    ),
    (
        lambda line, pop3: pop3 and _SMTP.match(line),
        N_("This is SMTP, by which mail is sent; here it is fetched by POP3."),
    ),
    (
        lambda line, pop3: not pop3 and _POP3.match(line),
        N_("This is POP3, by which mail is fetched; here it is brought by SMTP."),
    ),
    (
        lambda line, pop3: line.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")),
        N_("The line begins with a byte order mark, which some editors put before a text: send it without."),
    ),
    (
        lambda line, pop3: b"\xff" in line and re.search(rb"\xff[\xf0-\xfe]", line),
        N_(
            "These octets are telnet's, which negotiates with a telnet server: call telnet with"
            " the port's number, or"
            " use nc -C."
        ),
    ),
    *_TYPED,
    (
        lambda line, pop3: pop3 and re.match(rb"[A-Za-z]{3,4}\s*:", line),
        N_("A command of POP3 has no colon behind it: USER name."),
    ),
    (
        lambda line, pop3: re.match(rb"[C]: ", line),
        N_("`C: ` is how transcripts say who speaks; it is not sent."),
    ),
)


def hint(line: bytes, say: Say, *, pop3: bool, command: bool = False) -> Explanation | None:
    """What to say to who has sent this line; ``None`` if it tells nothing.

    :param pop3: whether POP3 is spoken here, and not SMTP.
    :param command: whether it begins with a command, so that only how it was typed can be wrong.
    """
    if b"\0" in line and not line.startswith(b"\x16\x03"):
        # Neither typed nor a command of any protocol: the rest of what was told of before.
        return None
    for fits, text in _TYPED if command else _SIGNS:
        if fits(line, pop3):
            return Explanation("hint", say(text))
    return None
