"""Delivery status notifications (RFC 3464), in a multipart/report (RFC 6522).  Pure: values become octets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from typing import Final, NamedTuple

from ..printable import printable
from .entry import Entry, Recipient
from .schedule import GIVE_UP, Due, Notice

__all__ = ["HEADER", "WHOLE", "Original", "notice"]

#: Octets of a message that come back with it where its sender asks for that (RET=FULL); of larger ones, and
#: where nothing is asked for, the header does.
WHOLE: Final = 1024 * 1024
#: Octets of a header that come back.
HEADER: Final = 64 * 1024

_SUBJECTS: Final = {
    Notice.FAILED: "Your message could not be delivered",
    Notice.DELAYED: "Your message is delayed",
    Notice.RELAYED: "Your message was handed on",
    Notice.DELIVERED: "Your message was delivered",
}
_SENTENCES: Final = {
    Notice.FAILED: "could not be delivered to the recipients below. It will not be tried again.",
    Notice.DELAYED: "has not been delivered to the recipients below yet. You need not send it again:"
    " it is tried for five days in all, and if that fails you will be told.",
    Notice.RELAYED: "was handed on for the recipients below to a server that does not tell more of it.",
    Notice.DELIVERED: "was delivered to the recipients below.",
}
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")


class Original(NamedTuple):
    """Of the message that a notice is about."""

    #: Its text, or the start of it.
    text: bytes
    #: Whether that is all of it.
    whole: bool


def notice(
    entry: Entry,
    due: Due,
    original: Original,
    *,
    host: str,
    smarthost: str,
    now: float,
    unique: str,
) -> bytes:
    """The message that tells the sender, with CRLF line ends; its envelope has no sender.

    :param host: this server's name.
    :param smarthost: the server that the replies are from.
    :param now: seconds since the epoch.
    :param unique: a word that stands in no message: for the boundary and the Message-ID.
    """
    recipients = [entry.recipients[number] for number in due.numbers]
    subject = _SUBJECTS[due.notice]
    utf8 = not all(one.address.isascii() for one in recipients)
    boundary = f"=_{unique}"
    parts = [
        ("text/plain; charset=utf-8", "\r\n".join(_for_people(entry, due, recipients, host, smarthost))),
        (
            # RFC 6533 section 3.
            f"message/{'global-' * utf8}delivery-status{'; charset=utf-8' * utf8}",
            "\r\n".join(_for_programs(entry, due, recipients, host, smarthost, now)),
        ),
    ]
    body = "".join(_part(boundary, kind, text.encode("utf-8")) for kind, text in parts)
    head = [
        f"From: Mail delivery <postmaster@{host}>",
        f"To: <{entry.sender}>",
        f"Subject: {subject}",
        f"Date: {formatdate(now, localtime=True)}",
        f"Message-ID: <{unique}@{host}>",
        # RFC 3834 section 5: so that no vacation program answers.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        "This message is in MIME format, and is meant for programs as well (RFC 3464).",
    ]
    made = ("\r\n".join(head) + "\r\n" + body).encode("utf-8")
    kind, returned = _returned(entry, due, original)
    return made + _bytes_part(boundary, kind, returned) + f"\r\n--{boundary}--\r\n".encode()


def _returned(entry: Entry, due: Due, original: Original) -> tuple[str, bytes]:
    """What comes back of the message (RFC 3461 section 4.3: all of it only of what has failed)."""
    if entry.ret == "FULL" and due.notice is Notice.FAILED and original.whole:
        return f"message/{'rfc822' if _header(original.text).isascii() else 'global'}", original.text
    header = _header(original.text)
    return "text/rfc822-headers" if header.isascii() else "message/global-headers", header


def _header(text: bytes) -> bytes:
    end = _HEADER_END.search(text)
    header = text[: end.start()] if end else text[:HEADER]
    return header + b"\r\n"


def _part(boundary: str, kind: str, text: bytes) -> str:
    return _bytes_part(boundary, kind, text).decode("utf-8")


def _bytes_part(boundary: str, kind: str, text: bytes) -> bytes:
    encoding = "" if text.isascii() else "Content-Transfer-Encoding: 8bit\r\n"
    return f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n{encoding}\r\n".encode() + text


def _for_people(
    entry: Entry, due: Due, recipients: Sequence[Recipient], host: str, smarthost: str
) -> Iterator[str]:
    yield f"This is the mail server {host}."
    yield ""
    yield f"A message that you sent {formatdate(entry.came, localtime=True)} (queue id {entry.queue_id})"
    yield _SENTENCES[due.notice]
    yield ""
    for one in recipients:
        yield f"  {one.address}"
        if one.text and due.notice is not Notice.DELIVERED:
            who = f"{smarthost} said: " if one.remote else ""
            yield f"      {who}{_line(one.text)}"
    yield ""


def _for_programs(
    entry: Entry, due: Due, recipients: Sequence[Recipient], host: str, smarthost: str, now: float
) -> Iterator[str]:
    """RFC 3464 section 2: a block for the message, then one for each recipient."""
    if entry.envid:
        yield f"Original-Envelope-Id: {_plain(entry.envid)}"
    yield f"Reporting-MTA: dns; {host}"
    yield f"Arrival-Date: {formatdate(entry.came, localtime=True)}"
    for one in recipients:
        yield ""
        if one.original:
            kind, _, address = one.original.partition(";")
            yield f"Original-Recipient: {kind};{_plain(address)}"
        kind = "rfc822" if one.address.isascii() else "utf-8"
        yield f"Final-Recipient: {kind}; {one.address}"
        yield f"Action: {due.notice.value}"
        yield f"Status: {_status(one, due.notice)}"
        if one.remote:
            yield f"Remote-MTA: dns; {smarthost}"
            yield f"Diagnostic-Code: smtp; {_line(one.text)}"
        elif one.text and due.notice in (Notice.FAILED, Notice.DELAYED):
            yield f"Diagnostic-Code: x-pop3toy; {_line(one.text)}"
        if entry.last:
            yield f"Last-Attempt-Date: {formatdate(entry.last, localtime=True)}"
        if due.notice is Notice.DELAYED:
            yield f"Will-Retry-Until: {formatdate(entry.came + GIVE_UP, localtime=True)}"
    yield ""


def _status(one: Recipient, notice: Notice) -> str:
    """An enhanced status code whose class is that of the action (RFC 3464 section 2.3.4)."""
    first = {Notice.FAILED: "5", Notice.DELAYED: "4"}.get(notice, "2")
    if one.enhanced == "4.4.7" and notice is Notice.FAILED:
        # RFC 3463 section 3.5 has it as a persistent error; as "5.4.7" others write it who gave up.
        return "5.4.7"
    return one.enhanced if one.enhanced.startswith(f"{first}.") else f"{first}.0.0"


def _plain(xtext: str) -> str:
    """xtext as text (RFC 3461 section 4), in one line."""
    return printable(_XTEXT.sub(lambda match: chr(int(match[1], 16)), xtext))


def _line(text: str) -> str:
    """Text of another server's in one line that is short enough for a header."""
    return printable(" ".join(text.split()))[:500]
