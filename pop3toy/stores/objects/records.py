"""What is kept besides messages, and under which keys.

::

    a/<2 hex>/<sha256 of the login>     a user: JSON with the login, the maildrop, and perhaps an account
    l/<drop>                            the lease: the lock of the maildrop (``lease``)
    m/<drop>/<name>                     one message as it is on the wire, never changed
    i/<drop>/copying                    who copies to the maildrop (``copying.fence``)
    i/<drop>/told                       when the user was told that the maildrop is nearly full
    i/<drop>/...                        what ``copying`` has written down of mail that came from another store

No user's word is ever part of a key.  ``<drop>`` is 128 random bits in hex.  The ``<name>`` of a message
sorts by arrival: 16 hex digits of microseconds since the epoch, then 16 of a hash; both together are the
unique-id.  A message that had a unique-id before it came here keeps it: its name is the 16 digits, a tilde,
and that unique-id, spelled so that it can stand in a key.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import NamedTuple

from ...errors import StoreTrouble

__all__ = [
    "UserRecord",
    "arrival_of",
    "copying_key",
    "is_message_name",
    "journal_prefix",
    "lease_key",
    "message_key",
    "message_name",
    "messages_prefix",
    "new_drop",
    "new_name",
    "told_key",
    "uid_of",
    "user_key",
]

#: Of records: what else they hold would lead to other keys, and the library panics at some buckets' names.
_DROP = re.compile(r"([0-9a-f]{32})?")
_BUCKET = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{1,220})?")
_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_NAME = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{16}|~(?:[A-Za-z0-9_-]|=[0-9a-f]{2})+)")


class UserRecord(NamedTuple):
    """What is kept of a user."""

    login: str
    #: The maildrop; empty for a user who has none yet.
    drop: str = ""
    #: The bucket in which the maildrop is; empty for the one in which this record is.
    bucket: str = ""
    #: The line of the user as an accounts file has it, with password and settings; empty where accounts
    #: are kept elsewhere.
    account: str = ""

    def encoded(self) -> bytes:
        """As it is kept."""
        said = {name: value for name, value in self._asdict().items() if value}
        return json.dumps(said, ensure_ascii=True).encode("ascii")

    @classmethod
    def decoded(cls, body: bytes, login: str) -> UserRecord:
        """Read it.

        :param login: whose it should be.
        :raises pop3toy.errors.StoreTrouble: if it is none, or somebody else's.
        """
        try:
            said = json.loads(body)
            known = {name: said.get(name, "") for name in cls._fields}
            if not all(isinstance(value, str) for value in known.values()):
                raise ValueError
            if not (_DROP.fullmatch(known["drop"]) and _BUCKET.fullmatch(known["bucket"])):
                raise ValueError
        except (ValueError, AttributeError, RecursionError):
            raise StoreTrouble(detail=f"the record of user {login!r} cannot be read") from None
        record = cls(**known)
        if record.login != login:
            raise StoreTrouble(detail=f"the record of user {login!r} is another user's")
        return record


def user_key(login: str) -> str:
    """Where a user's record is."""
    digest = hashlib.sha256(login.encode("utf-8", "surrogatepass")).hexdigest()
    return f"a/{digest[:2]}/{digest}"


def lease_key(drop: str) -> str:
    """Where a maildrop's lease is."""
    return f"l/{drop}"


def messages_prefix(drop: str) -> str:
    """What the keys of a maildrop's messages begin with."""
    return f"m/{drop}"


def message_key(drop: str, name: str) -> str:
    """Where a message is."""
    return f"m/{drop}/{name}"


def journal_prefix(drop: str) -> str:
    """What the keys begin with of what is written down of copying to a maildrop."""
    return f"i/{drop}"


def copying_key(drop: str) -> str:
    """Where it is written who has begun last to copy to a maildrop; goes with the maildrop."""
    return f"i/{drop}/copying"


def told_key(drop: str) -> str:
    """Where it is written when a user was told that the maildrop is nearly full; goes with the maildrop."""
    return f"i/{drop}/told"


def new_drop() -> str:
    """A name for a maildrop that no other has."""
    return secrets.token_hex(16)


def new_name(micros: int, *chance: str) -> str:
    """The name of a new message.

    :param micros: when it came, in microseconds since the epoch.
    :param chance: what tells it from others of that moment: the same words make the same name.
    """
    digest = hashlib.sha256("\0".join(chance).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{micros:016x}{digest[:16]}"


def message_name(micros: int, uid: bytes) -> str:
    """The name of a message that has a unique-id already.

    :param micros: when it came, in microseconds since the epoch.
    :param uid: its unique-id.
    """
    if re.fullmatch(rb"%016x[0-9a-f]{16}" % micros, uid):
        # It was here, or in another store of this kind.
        return uid.decode("ascii")
    spelled = "".join(chr(octet) if _PLAIN.match(bytes((octet,))) else f"={octet:02x}" for octet in uid)
    return f"{micros:016x}~{spelled}"


def is_message_name(name: str) -> bool:
    """Whether a message can be called that; other programs may have put other things there.

    :param name: an object's, behind :func:`messages_prefix`.
    """
    return _NAME.fullmatch(name) is not None


def uid_of(name: str) -> bytes:
    """The unique-id of the message with this name."""
    if name[16:17] != "~":
        return name.encode("ascii")
    return re.sub(rb"=([0-9a-f]{2})", lambda found: bytes((int(found[1], 16),)), name[17:].encode("ascii"))


def arrival_of(name: str) -> float:
    """When the message with this name came, in seconds since the epoch."""
    return int(name[:16], 16) / 1e6
