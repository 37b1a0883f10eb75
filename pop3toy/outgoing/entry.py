"""A message of the queue as a value: its envelope, and what has become of each recipient so far.

It is read from the records in the message's file: the first is the envelope, each later one something that
happened.  A record is a JSON object; what it means is in :func:`applied`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ..interfaces import OutgoingMail

__all__ = ["Damaged", "Entry", "Outcome", "Recipient", "Status", "applied", "entry_of", "envelope_record"]


class Damaged(ValueError):
    """A file of the queue does not hold what it should."""


class Status(Enum):
    """What has become of a recipient; the values stand in files."""

    WAITING = "waiting"
    #: The smarthost has it, and whatever was asked for with it (RFC 3461) is the smarthost's business.
    HANDED_ON = "handed on"
    #: The smarthost has it and knows no notices: that it was relayed is told from here (RFC 3461).
    RELAYED = "relayed"
    #: It was delivered to users here, who are no business of the queue; its sender has asked to be told.
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What an attempt meant for one recipient."""

    status: Status
    #: An enhanced status code (RFC 3463), such as ``5.1.1``.
    enhanced: str
    #: The smarthost's reply in one line, or why there was none.
    text: str
    #: Whether the smarthost said so.
    remote: bool = True


@dataclass(frozen=True)
class Recipient:
    """One recipient, and the last that is known of it."""

    address: str
    #: RFC 3461 section 4.1: words of NOTIFY in capitals; empty if it was not given.
    notify: tuple[str, ...] = ()
    #: RFC 3461 section 4.2: ORCPT as it came; empty if it was not given.
    original: str = ""
    status: Status = Status.WAITING
    enhanced: str = ""
    text: str = ""
    remote: bool = False
    #: Whether the sender was told how it ended, and that it takes long.
    told: bool = False
    warned: bool = False

    def wants(self, word: str) -> bool:
        """Whether the sender is to be told: ``SUCCESS``, ``FAILURE`` or ``DELAY``."""
        return word in self.notify if self.notify else word != "SUCCESS"


@dataclass(frozen=True)
class Entry:
    """A message of the queue."""

    queue_id: str
    #: Who has handed it in.
    user: str
    #: Of the envelope; empty for what must not be answered.
    sender: str
    #: Seconds since the epoch: when it came, when it is tried next, when it was tried last.
    came: float
    octets: int
    recipients: tuple[Recipient, ...]
    #: Whether SMTPUTF8 was said (RFC 6531).
    utf8: bool = False
    #: RFC 3461 sections 4.3 and 4.4, as they came; empty if they were not given.
    ret: str = ""
    envid: str = ""
    attempts: int = 0
    next: float = 0.0
    last: float = 0.0
    #: Why it was not handed on the last time, in a line.
    why: str = ""

    def numbers(self, status: Status) -> tuple[int, ...]:
        """The recipients of this status, by their places."""
        return tuple(number for number, one in enumerate(self.recipients) if one.status is status)


def envelope_record(mail: OutgoingMail, came: float) -> dict[str, object]:
    """The first record of a message."""
    return {
        "id": mail.queue_id,
        "user": mail.user,
        "sender": mail.sender,
        "came": came,
        "utf8": mail.utf8,
        "ret": mail.ret,
        "envid": mail.envid,
        "recipients": [[to.address, list(to.notify), to.original, to.here] for to in mail.recipients],
    }


def entry_of(records: Iterable[Mapping[str, Any]], octets: int) -> Entry:
    """What the records of a message say together.

    :param octets: of its text.
    :raises Damaged: if they say nothing that can be.
    """
    found: Entry | None = None
    try:
        for record in records:
            found = _begun(record, octets) if found is None else applied(found, record)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Damaged(f"a record cannot be read ({type(error).__name__})") from None
    if found is None:
        raise Damaged("there is no envelope")
    return found


def _begun(record: Mapping[str, Any], octets: int) -> Entry:
    recipients = [
        Recipient(
            str(address),
            tuple(map(str, notify)),
            str(original),
            Status.DELIVERED if here else Status.WAITING,
            *(("2.1.5", "delivered") if here else ()),
        )
        for address, notify, original, here in record["recipients"]
    ]
    came = float(record["came"])
    return Entry(
        str(record["id"]),
        str(record["user"]),
        str(record["sender"]),
        came,
        octets,
        tuple(recipients),
        bool(record["utf8"]),
        str(record["ret"]),
        str(record["envid"]),
        next=came,
    )


def applied(entry: Entry, record: Mapping[str, Any]) -> Entry:
    """What an entry is after one more record.

    ``tried``: an attempt was made (seconds since the epoch), with ``why`` it failed, and ``outcomes`` by the
    places of recipients.  ``next``: when it is tried next.  ``told``, ``warned``: whose sender was told.
    """
    recipients = list(entry.recipients)
    for number, (status, enhanced, text, remote) in record.get("outcomes", {}).items():
        recipients[int(number)] = replace(
            recipients[int(number)], status=Status(status), enhanced=enhanced, text=text, remote=remote
        )
    for number in record.get("told", ()):
        recipients[number] = replace(recipients[number], told=True)
    for number in record.get("warned", ()):
        recipients[number] = replace(recipients[number], warned=True)
    tried = "tried" in record
    return replace(
        entry,
        recipients=tuple(recipients),
        attempts=entry.attempts + tried,
        last=float(record["tried"]) if tried else entry.last,
        next=float(record.get("next", entry.next)),
        why=str(record.get("why", entry.why)),
    )
