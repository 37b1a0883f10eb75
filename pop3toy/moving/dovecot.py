"""The unique-ids of Dovecot: ``dovecot-uidlist``, and formats such as ``%08Xu%08Xv``.

Pure.  As Dovecot 2.3 does it, and 2.0 to 2.4 with the same files.  The file, in the Maildir or in Dovecot's
CONTROL directory for it, in version 3::

    3 V1700000000 N3 G0123456789abcdef0123456789abcdef
    1 S42 W44 :1700000001.M1P1.host
    2 Psaved-unique-id :1700000002.M2P2.host:2,S

A header of fields (``V`` UIDVALIDITY, ``N`` next UID, ``G`` the mailbox's GUID), then a line for each
message in the order of UIDs: UID, fields, a colon and the file's name as it was at some time.  ``P`` is a
unique-id that was saved (``pop3_save_uidl``, or brought by a migration; if empty, the base name), which goes
before every format; ``O`` a number by which messages are listed before all without one; ``G`` a GUID, without
which the base name is the GUID.

With ``pop3_reuse_xuidl`` the unique-id of a message for which none was saved is its first header ``X-UIDL``,
as it is, be it another message's too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from .matching import Known

__all__ = [
    "DEFAULT_FORMAT",
    "FILE_NAME",
    "LOCKS",
    "Format",
    "NotRead",
    "Settings",
    "listed",
    "parse",
    "settings_of",
    "xuidl",
]

FILE_NAME: Final = "dovecot-uidlist"
#: What is there while Dovecot writes the file, and with ``pop3_lock_session`` for a whole session: seconds
#: after which Dovecot itself takes no notice of one that nobody touches.
LOCKS: Final = {"dovecot-uidlist.lock": 120, "dovecot-pop3-session.lock": 300}
DEFAULT_FORMAT: Final = "%08Xu%08Xv"

_HEAD_1: Final = re.compile(r"1 ([0-9]{1,10}) [0-9]{1,10}")
_HEAD_3: Final = re.compile(r"3(?: [A-Z][^ ]*)*")
_LINE_1: Final = re.compile(r"([0-9]{1,10}) ()(.+)")
_LINE_3: Final = re.compile(r"([0-9]{1,10}) ((?:[A-Z][^ ]* )*):(.+)")


class NotRead(ValueError):
    """What a file or an option says is not understood; the text says why."""


class Message(NamedTuple):
    """A line of the file."""

    uid: int
    #: The file's name without flags.
    base: str
    #: What else the line says, by its letter.
    fields: Mapping[str, str]


class UidList(NamedTuple):
    """The file."""

    uidvalidity: int
    messages: Sequence[Message]


def parse(text: bytes) -> UidList:
    """Read ``dovecot-uidlist``.

    :raises NotRead: if one line of it is not understood: none of it is believed then.
    """
    # Names of files are any octets.
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    head = lines[0]
    if old := _HEAD_1.fullmatch(head):
        uidvalidity, line_of = int(old[1]), _LINE_1
    elif _HEAD_3.fullmatch(head):
        fields = {word[0]: word[1:] for word in head.split(" ")[1:]}
        if not re.fullmatch("[0-9]{1,10}", fields.get("V", "")):
            raise NotRead(f"{FILE_NAME}: no UIDVALIDITY in its first line")
        uidvalidity, line_of = int(fields["V"]), _LINE_3
    else:
        raise NotRead(f"{FILE_NAME}: its first line is of no version that is known (1 or 3)")
    if lines[-1]:
        raise NotRead(f"{FILE_NAME}: its last line is cut off")
    messages, last = [], 0
    for number, line in enumerate(lines[1:-1], 2):
        found = line_of.fullmatch(line)
        if found is None or int(found[1]) <= last:
            # Dovecot ignores a file in which UIDs do not grow, too, and gives new ones.
            raise NotRead(f"{FILE_NAME}: line {number} is not understood")
        last = int(found[1])
        fields = {word[0]: word[1:] for word in found[2].split()}
        messages.append(Message(last, found[3].partition(":")[0], fields))
    return UidList(uidvalidity, messages)


# Modifiers of a variable.  Numbers are written without sign.
_MODIFIERS: Final[Mapping[str, Callable[[str], str]]] = {
    "L": str.lower,
    "U": str.upper,
    "X": lambda value: f"{int(value):x}" if value.isdecimal() else "0",
    "M": lambda value: hashlib.md5(
        value.encode("utf-8", "surrogateescape"), usedforsecurity=False
    ).hexdigest(),
    "R": lambda value: value[::-1],
}
_VARIABLE: Final = re.compile(
    r"%(?:(?P<percent>%)|(?:(?P<offset>-?[0-9]+)\.)?(?P<zero>0?)(?P<width>-?[0-9]*)(?P<modifiers>[LUXMR]*)"
    r"(?:(?P<short>[vufg])|\{(?P<long>uidvalidity|uid|filename|guid)\}))"
)
_LONG: Final = {"uidvalidity": "v", "uid": "u", "filename": "f", "guid": "g"}


class Format:
    """A ``pop3_uidl_format``.

    ``%m`` is refused: Dovecot has the hash of headers from mbox files alone, and with Maildirs refuses
    UIDL itself.

    :raises NotRead: if something in it is not known here.
    """

    def __init__(self, text: str = DEFAULT_FORMAT) -> None:
        if re.search(r"%[-0-9.]*[A-Z]*(?:m|\{md5\})", text):
            raise NotRead("%m in a format: Dovecot has no such unique-ids for Maildirs")
        rest = _VARIABLE.sub("", text)
        if "%" in rest or not _VARIABLE.search(text):
            raise NotRead(f"{text!r} is no format for unique-ids that is known here (%u, %v, %f, %g)")
        self._text = text

    def uidl(self, uidvalidity: int, message: Message) -> str:
        """The unique-id of a message for which none was saved."""
        values = {
            "v": str(uidvalidity),
            "u": str(message.uid),
            "f": message.base,
            "g": message.fields.get("G", message.base),
        }
        return _VARIABLE.sub(lambda found: _expanded(found, values), self._text)


def _expanded(found: re.Match[str], values: Mapping[str, str]) -> str:
    if found["percent"]:
        return "%"
    value = values[found["short"] or _LONG[found["long"]]]
    for letter in found["modifiers"]:
        value = _MODIFIERS[letter](value)
    offset = int(found["offset"] or 0)
    # A negative offset counts from the end, and is no offset if there is less.
    value = value[offset:] if offset >= 0 or -offset < len(value) else value
    width = int(found["width"] or 0)
    if found["zero"]:
        return value.rjust(width, "0") if width > 0 else value
    if width < 0:
        return value[: max(len(value) + width, 0)]
    return value[:width] if width else value


class Settings(NamedTuple):
    """What of Dovecot's configuration decides about unique-ids."""

    format: str = DEFAULT_FORMAT
    #: ``pop3_uidl_duplicates``: whether the second of two that are alike gets a number.
    rename: bool = False
    #: ``pop3_reuse_xuidl``; ``None`` if that is not known.
    reuse_xuidl: bool | None = None
    #: Where unique-ids may be that cannot be known here, in a sentence.
    warning: str = ""


_SETTING: Final = re.compile(
    r"(?m)^\s*(pop3_uidl_format|pop3_uidl_duplicates|pop3_reuse_xuidl|pop3_deleted_flag)[ \t]*="
    r"[ \t]*(.*?)(?:[ \t]+#.*|[ \t\r]*)$"
)
_INCLUDE: Final = re.compile(r"(?m)^\s*!include(?:_try)?\s")
_XUIDL: Final = re.compile(rb"(?im)^x-uidl[ \t]*:[ \t]*([^\n]*?)[ \t\r]*(?:\n([ \t])?|\Z)")


def settings_of(text: str) -> Settings:
    """Read what ``doveconf`` prints, or a file of Dovecot's configuration.

    :raises NotRead: if other files belong to it.
    """
    if _INCLUDE.search(text):
        raise NotRead(
            "other files belong to it (!include): write what doveconf -n prints into a file, and give that"
        )
    said = {name: value.strip("\"'") for name, value in _SETTING.findall(text)}
    warning = ""
    if said.get("pop3_deleted_flag"):
        warning = "pop3_deleted_flag: messages that were hidden from POP3 will be seen"
    return Settings(
        said.get("pop3_uidl_format", DEFAULT_FORMAT),
        said.get("pop3_uidl_duplicates") == "rename",
        said.get("pop3_reuse_xuidl", "no") == "yes",
        warning,
    )


def xuidl(header: bytes) -> str | None:
    """The value of the first header ``X-UIDL``; with a line end behind it if it is of more than one line."""
    found = _XUIDL.search(header)
    if found is None:
        return None
    return found[1].decode("utf-8", "surrogateescape") + ("\n" if found[2] else "")


def listed(uids: UidList, settings: Settings, xuidls: Mapping[str, str] | None = None) -> list[Known]:
    """The messages as Dovecot lists them by POP3: the unique-id of each, and its name.

    :param xuidls: what their headers ``X-UIDL`` say, by base name.
    :raises NotRead: if the format is not known, or ``pop3_reuse_xuidl`` and it makes a difference.
    """
    form = Format(settings.format)
    xuidls = xuidls or {}
    if settings.reuse_xuidl is None and xuidls:
        raise NotRead(
            "there are headers X-UIDL in its messages, which Dovecot takes for their unique-ids if"
            " pop3_reuse_xuidl = yes: say --reuse-xuidl or --no-reuse-xuidl, or give --dovecot-config"
        )
    found: list[tuple[int | None, Known]] = []
    seen: dict[str, int] = {}
    for one in uids.messages:
        if (saved := one.fields.get("P")) is not None:
            uidl = saved or one.base
        elif settings.reuse_xuidl and one.base in xuidls:
            uidl = xuidls[one.base]
        else:
            uidl = form.uidl(uids.uidvalidity, one)
        # In the order of UIDs, not in that in which messages are listed.
        while settings.rename and uidl in seen:
            seen[uidl] += 1
            uidl = f"{uidl}-{seen[uidl]}"
        seen[uidl] = 1
        octets = one.fields.get("W", "")
        known = Known(
            uidl.encode("utf-8", "surrogateescape"), one.base, int(octets) if octets.isdecimal() else None
        )
        found.append((_order(one), known))
    # A stable sort: those without a number behind all others, by UID.
    found.sort(key=lambda pair: (pair[0] is None, pair[0] or 0))
    return [known for _, known in found]


def _order(message: Message) -> int | None:
    text = message.fields.get("O", "")
    return int(text) if text.isdecimal() else None
