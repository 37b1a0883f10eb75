"""The unique-ids of Cyrus: which messages of a mailbox it lists, and what ``uidl_format`` makes of them.

Pure.  In the folder of a mailbox each message is a file ``<UID>.`` with the line ends of the wire.  Which
of these are listed is said in ``cyrus.index``: those that were expunged keep their files for some days
(``expunge_mode: delayed``, the default since Cyrus 2.5).  It is binary, big-endian numbers of 32 bits: a
header, which also has the mailbox's UIDVALIDITY, and a record for each message.  Its versions 6 to 19 and
20 (Cyrus 2.2 to 3.12) are read here, see :data:`_LAYOUTS`; of others somebody has to say the UIDVALIDITY,
and all files are taken for messages.

``uidl_format`` counts only where a mailbox has the option ``POP3_NEW_UIDL``, as each has that Cyrus 2.2 or
a later one has made; in older ones the unique-id is the UID alone, whatever the format.

Since Cyrus 3.6 the folder is named after the mailbox's id, ``uuid/a/b/ab...``, and whose it is is said in its
file ``cyrus.header``, in a line ``%(T e N user.ann I ab... Q ...)``.  Before, it is named after the user.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from .dovecot import NotRead

__all__ = [
    "FORMATS",
    "HEADER_NAME",
    "INDEX_NAME",
    "Index",
    "file_name",
    "folders",
    "index",
    "mailbox_name",
    "mailbox_names",
    "messages",
    "uidl",
]

INDEX_NAME: Final = "cyrus.index"
HEADER_NAME: Final = "cyrus.header"
#: By the words of Cyrus's ``uidl_format``; ``cyrus`` is the default.
FORMATS: Final = {
    "cyrus": "{uidvalidity}.{uid}",
    "uidonly": "{uid}",
    "dovecot": "{uid:08x}{uidvalidity:08x}",
    "courier": "{uidvalidity}-{uid}",
}


class _Layout(NamedTuple):
    """Where numbers are: in the header, and in a record, whose first is the UID."""

    uidvalidity: int
    options: int
    flags: int


_LAYOUTS: Final = {**dict.fromkeys(range(6, 20), _Layout(44, 60, 32)), 20: _Layout(92, 64, 36)}
_VERSION_AT: Final = 8
#: Where the length of the header, that of a record, and the number of records are.
_RECORDS_AT: Final = 12
_POP3_NEW_UIDL: Final = 1
_EXPUNGED: Final = 1 << 31

_MESSAGE: Final = re.compile(r"([1-9][0-9]{0,9})\.")
_NAME: Final = re.compile(rb'^%\(.*?\bN (?:"([^"\\]*)"|([^\s()"]+)) I ', re.MULTILINE)


class Index(NamedTuple):
    """What ``cyrus.index`` tells."""

    uidvalidity: int
    #: Whether the mailbox has the option by which ``uidl_format`` counts.
    formatted: bool
    #: UIDs of the messages that are listed, in that order.
    uids: Sequence[int]


def index(data: bytes) -> Index:
    """Read ``cyrus.index``.

    :raises NotRead: if it is not known, or cut off.
    """
    try:
        (version,) = struct.unpack_from(">I", data, _VERSION_AT)
        layout = _LAYOUTS.get(version)
        if layout is None:
            raise NotRead(f"{INDEX_NAME} of version {version} is not read here: say --uidvalidity")
        begin, length, count = struct.unpack_from(">III", data, _RECORDS_AT)
        (uidvalidity,) = struct.unpack_from(">I", data, layout.uidvalidity)
        (options,) = struct.unpack_from(">I", data, layout.options)
    except struct.error:
        raise NotRead(f"{INDEX_NAME} is too short") from None
    if not uidvalidity or length < layout.flags + 4 or begin + length * count > len(data):
        raise NotRead(f"{INDEX_NAME} is damaged or cut off: Cyrus's reconstruct mends it")
    uids = []
    for at in range(begin, begin + length * count, length):
        (uid,) = struct.unpack_from(">I", data, at)
        (flags,) = struct.unpack_from(">I", data, at + layout.flags)
        if not flags & _EXPUNGED:
            uids.append(uid)
    if any(one <= other for other, one in zip([0, *uids], uids, strict=False)):
        raise NotRead(f"{INDEX_NAME}: its UIDs do not grow; Cyrus's reconstruct mends it")
    return Index(uidvalidity, bool(options & _POP3_NEW_UIDL), uids)


def messages(names: Iterable[str]) -> list[int]:
    """UIDs of the files that are messages, in the order in which Cyrus lists them."""
    return sorted(int(found[1]) for name in names if (found := _MESSAGE.fullmatch(name)))


def file_name(uid: int) -> str:
    """The name of a message's file."""
    return f"{uid}."


def uidl(form: str, uid: int, uidvalidity: int) -> bytes:
    """The unique-id of a message.

    :param form: a key of :data:`FORMATS`.
    """
    return FORMATS[form].format(uid=uid, uidvalidity=uidvalidity).encode("ascii")


def mailbox_names(user: str) -> list[str]:
    """What Cyrus calls the inbox of a user: with ``virtdomains``, and without."""
    local, _, domain = user.partition("@")
    plain = f"user.{user.replace('.', '^')}"
    return [f"{domain}!user.{local.replace('.', '^')}", plain] if domain else [plain]


def mailbox_name(header: bytes) -> str | None:
    """The name of the mailbox that ``cyrus.header`` tells; ``None`` if it tells none."""
    found = _NAME.search(header)
    return (found[1] or found[2] or b"").decode("utf-8", "replace") if found else None


def folders(name: str) -> list[str]:
    """Where the folder of a mailbox is in the spool, if it is named after it; as the spool is hashed or not.

    :param name: as :func:`mailbox_names` tells it.
    """
    domain, mark, rest = name.rpartition("!")
    path = rest.replace(".", "/")
    hashed = rest.partition(".")[2][:1].lower()
    hashed = hashed if "a" <= hashed <= "z" else "q"
    if not mark:
        return [path, f"{hashed}/{path}"]
    first = domain[:1].lower() if "a" <= domain[:1].lower() <= "z" else "q"
    return [f"domain/{domain}/{path}", f"domain/{first}/{domain}/{hashed}/{path}"]
