"""Which unique-ids messages get in the target: their own, unless another message has them there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence

from ...errors import MessageGone
from .counts import counted
from .journal import Journal
from .messages import Mailbox, Message, Source, Wanted, Wire

__all__ = ["compared_with", "wanted_of", "what_is"]


def wanted_of(
    messages: Sequence[Message],
    there: Sequence[Message],
    of_others: Collection[bytes],
    tell: Callable[[str], object],
) -> list[Wanted]:
    """What the target is to have; the same at each run.

    :param of_others: unique-ids that are other messages' in the target.
    """
    names = {message.uid: message.name for message in there}
    # In lower case: two that differ by case alone are the same for some clients.
    others = {message.uid.lower(): message.uid for message in there}
    wanted, renamed = [], 0
    for message in messages:
        uid = message.uid
        while uid in of_others or others.get(uid.lower(), uid) != uid:
            # The target has it for another message.
            uid = hashlib.sha256(uid).hexdigest()[:40].encode("ascii")
        renamed += uid != message.uid
        wanted.append(Wanted(message, uid, names.get(uid)))
    if renamed:
        tell(f"{counted(renamed)} get another unique-id: other messages with the same, or nearly, are there")
    return wanted


def compared_with(
    theirs: Source,
    ours: Mailbox,
    messages: Sequence[Message],
    there: Sequence[Message],
    journal: Journal,
    back: Journal,
) -> tuple[set[bytes], set[bytes]]:
    """Unique-ids that the target has though no copying has brought them: of the same message, and of another.

    Some servers give out 1, 2, 3.
    """
    known = journal.done | journal.unsure | journal.same | back.done | back.unsure
    strangers = {message.uid: message for message in there if message.uid not in known}
    same: set[bytes] = set()
    others: set[bytes] = set()
    for message in messages if strangers else ():
        if (stranger := strangers.get(message.uid)) is None:
            continue
        try:
            is_same = what_is(theirs, message) == what_is(ours, stranger)
        except (MessageGone, OSError):
            continue
        (same if is_same else others).add(message.uid)
    return same, others


def what_is(mailbox: Source, message: Message) -> tuple[int, str]:
    """Octets and SHA-256 of a message's wire form; all of it is read."""
    return Wire().read(mailbox.read(message)).is_what
