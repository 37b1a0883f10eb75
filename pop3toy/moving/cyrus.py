"""The unique-ids of Cyrus: which files of its spool are messages, and what ``uidl_format`` makes of them.

Pure.  In the folder of a mailbox each message is a file ``<UID>.`` with the line ends of the wire.  What else
is needed is the mailbox's UIDVALIDITY, in the header of ``cyrus.index``, which is binary: big-endian numbers
of 32 bits, of which the third is the version; in versions 6 to 19 UIDVALIDITY begins at octet 44, in version
20 at octet 92.  Other versions are not read here: somebody has to say the number.  Which messages were
expunged and have a file for some days still is in records that are not read here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

from .dovecot import NotRead

__all__ = ["FORMATS", "INDEX_NAME", "messages", "uidl", "uidvalidity"]

INDEX_NAME: Final = "cyrus.index"
#: By the words of Cyrus's ``uidl_format``; ``cyrus`` is the default.
FORMATS: Final = {
    "cyrus": "{uidvalidity}.{uid}",
    "uidonly": "{uid}",
    "dovecot": "{uid:08x}{uidvalidity:08x}",
    "courier": "{uidvalidity}-{uid}",
}

_MESSAGE: Final = re.compile(r"([1-9][0-9]{0,9})\.")
_VERSION_AT: Final = 8


def messages(names: Iterable[str]) -> list[tuple[int, str]]:
    """UID and name of the files that are messages, in the order in which Cyrus lists them."""
    return sorted((int(found[1]), name) for name in names if (found := _MESSAGE.fullmatch(name)))


def uidvalidity(index: bytes) -> int:
    """The UIDVALIDITY that the beginning of ``cyrus.index`` tells.

    :raises NotRead: if that is not known.
    """
    try:
        (version,) = struct.unpack_from(">I", index, _VERSION_AT)
        (value,) = struct.unpack_from(">I", index, 44 if 6 <= version <= 19 else 92)
    except struct.error:
        raise NotRead(f"{INDEX_NAME} is too short") from None
    # A time, as a rule that of the mailbox's making.
    if not 6 <= version <= 20 or value < 10**8:
        raise NotRead(f"{INDEX_NAME} of version {version} is not read here: say --uidvalidity")
    return int(value)


def uidl(form: str, uid: int, uidvalidity: int) -> bytes:
    """The unique-id of a message.

    :param form: a key of :data:`FORMATS`.
    """
    return FORMATS[form].format(uid=uid, uidvalidity=uidvalidity).encode("ascii")
