"""Comparing a mailbox with its copy."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import MessageGone
from .counts import Counts, Stopped, counted, shown
from .journal import Journal
from .messages import Mailbox, Message, Store
from .wanted import compared_with, wanted_of, what_is

__all__ = ["verify_mailbox"]


def verify_mailbox(
    user: str,
    source: Store,
    target: Store,
    *,
    tell: Callable[[str], object] = lambda sentence: None,
    progress: Callable[[int, int], object] = lambda coming, done: None,
    stop: Callable[[], bool] = lambda: False,
) -> Counts:
    """Compare all messages of the source with those of the target, octet for octet, and their order.

    What comes, and what its owner removes, while that goes on, is no difference.
    """
    counts = Counts()
    with source.mailbox(user) as theirs, target.mailbox(user) as ours:
        messages = theirs.list()
        there = {message.uid: message for message in ours.list()}
        places = {uid: place for place, uid in enumerate(there)}
        journal, back = Journal(ours.journal(source.address)), Journal(theirs.journal(target.address))
        taken = journal.done | journal.same
        _, others = compared_with(theirs, ours, messages, list(there.values()), journal, back)
        wanted = wanted_of(messages, list(there.values()), others, lambda sentence: None)
        progress(len(wanted), 0)
        last, disorder = -1, 0
        for one in wanted:
            if stop():
                raise Stopped
            progress(0, 1)
            copied = there.get(one.uid)
            if copied is None:
                if one.uid not in taken and _is_there(theirs, one.message):
                    tell(f"{shown(one.uid)} is not in the copy")
                    counts.failed += 1
                continue
            disorder += places[one.uid] < last
            last = max(last, places[one.uid])
            try:
                source_is, copy_is = what_is(theirs, one.message), what_is(ours, copied)
            except MessageGone:
                continue
            except OSError as error:
                tell(f"{shown(one.uid)} cannot be read: {error.strerror or error}")
                counts.failed += 1
                continue
            counts.compared += 1
            if source_is != copy_is:
                tell(f"{shown(one.uid)} is another message in the copy")
                counts.failed += 1
        if disorder:
            tell(f"{counted(disorder)} stand in another order in the copy")
            counts.failed += disorder
    return counts


def _is_there(theirs: Mailbox, message: Message) -> bool:
    try:
        for _ in theirs.read(message):
            break
    except (MessageGone, OSError):
        return False
    return True
