"""Copying one mailbox: which messages, in which order, and how often it is looked whether they are there.

The source is only read, without a lock.  What is in the target is known by its unique-id and not copied
again; so whoever was interrupted begins again and goes on.  What copying has brought, and its owner has
removed from the target since, stays away (``journal``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ...errors import MessageGone
from .counts import Counts, Stopped, counted, shown
from .journal import Journal, begun, ended, forgotten, found
from .messages import Mailbox, Message, Source, SourceStore, Store, Wanted, Wire
from .wanted import compared_with, wanted_of

__all__ = ["copy_mailbox"]

#: Messages, and octets of them, that may have to be looked for when copying was interrupted.
BATCH: Final = 200
BATCH_OCTETS: Final = 64 * 1024 * 1024


def copy_mailbox(
    user: str,
    source: SourceStore,
    target: Store,
    *,
    delete: bool = False,
    tell: Callable[[str], object] = lambda sentence: None,
    progress: Callable[[int, int], object] = lambda coming, done: None,
    stop: Callable[[], bool] = lambda: False,
) -> Counts:
    """Copy what is missing.

    :param delete: remove from the target what was copied and is gone from the source.
    :param tell: told in a sentence what a person should know.
    :param progress: called with how many messages are to be copied, and how many have been, each more.
    :param stop: asked before each message whether to end.
    :raises Stopped: then.
    :raises pop3toy.errors.StoreTrouble: if a store fails; what was copied stays.
    :raises pop3toy.errors.NoSuchMailbox: if the source has no such mailbox, or the target can have none.
    :raises pop3toy.errors.InUse: if somebody else is copying to it.
    """
    counts = Counts()
    with source.mailbox(user) as theirs:
        messages = theirs.list()
        with target.mailbox(user, make=True) as ours:
            # Behind the source's: what a client has removed from both meanwhile is not missed here.
            there = ours.list()
            journal = Journal(ours.journal(source.address))
            # And what was copied from the target, when mail went the other way.
            back = Journal(theirs.journal(target.address))
            if renamed := sum(message.renamed for message in messages):
                tell(
                    f"{counted(renamed)} had the unique-id of another message, or one that differs by case"
                    " alone; they keep those that clients were shown"
                )
            same, others = compared_with(theirs, ours, messages, there, journal, back)
            wanted = wanted_of(messages, there, others, tell)
            kept_away = journal.done | journal.same
            counts.there = sum(one.name is not None for one in wanted)
            coming = [
                (one, name)
                for one, name in zip(
                    (one for one in wanted if one.name is None), ours.names(wanted), strict=True
                )
                if one.uid not in kept_away
            ]
            counts.taken = len(wanted) - counts.there - len(coming)
            progress(len(coming), 0)
            lost = journal.unsure.difference(message.uid for message in there)
            # What is there of what came from here need not come again either when it has been removed.
            known = [
                (one.uid, one.name)
                for one in wanted
                if one.name is not None and one.uid in back.done and one.uid not in journal.done
            ]
            if journal.unsure or known or same:
                sure = sorted((journal.unsure - lost).union(uid for uid, _ in known))
                text = forgotten(sorted(lost)) + begun(known) + found(sorted(same)) + ended(sure)
                ours.write_down(source.address, text)
            if coming:
                ours.announce({name: one.uid for one, name in coming})
            for batch in _batches(coming):
                ours.begin({name: one.uid for one, name in batch})
                ours.write_down(source.address, begun((one.uid, name) for one, name in batch))
                failed: list[bytes] = []
                copied: list[bytes] = []
                for one, name in batch:
                    if stop():
                        raise Stopped
                    there_now = _copy(theirs, ours, one.message, name, counts, tell)
                    (copied if there_now else failed).append(one.uid)
                    progress(0, 1)
                ours.settle()
                ours.write_down(source.address, forgotten(failed) + ended(copied))
            if delete:
                brought = journal.done | journal.unsure | back.done | back.unsure
                gone = _without(wanted, [one for one in there if one.uid in brought])
                if gone:
                    # What has come since the source was listed somebody else may have brought before us.
                    again = wanted_of(theirs.list(), there, others, lambda sentence: None)
                    gone = _without(again, gone)
                if gone:
                    ours.begin({})
                    ours.remove(gone)
                    ours.write_down(source.address, forgotten(one.uid for one in gone))
                    counts.removed += len(gone)
            ours.settle()
            ours.end()
    return counts


def _without(wanted: Sequence[Wanted], messages: Sequence[Message]) -> list[Message]:
    left = {one.uid for one in wanted}
    return [one for one in messages if one.uid not in left]


def _batches(coming: Sequence[tuple[Wanted, str]]) -> Iterator[list[tuple[Wanted, str]]]:
    batch: list[tuple[Wanted, str]] = []
    octets = 0
    for one in coming:
        batch.append(one)
        octets += one[0].message.octets or 0
        if len(batch) >= BATCH or octets >= BATCH_OCTETS:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


def _copy(
    theirs: Source,
    ours: Mailbox,
    message: Message,
    name: str,
    counts: Counts,
    tell: Callable[[str], object],
) -> bool:
    """Copy a message, and look whether it is there; false if it is not."""
    wire = Wire()
    try:
        proven = ours.put(name, message, wire.seen(theirs.read(message)), wire=theirs.wire)
    except MessageGone:
        counts.vanished += 1
        return False
    except OSError as error:
        tell(f"{shown(message.uid)} cannot be copied: {error.strerror or error}")
        counts.failed += 1
        return False
    if not proven:
        try:
            same = Wire().read(ours.read_name(name, message)).is_what == wire.is_what
        except MessageGone:
            # Fetched and removed by its owner a moment ago.
            same = True
        if not same:
            tell(f"{shown(message.uid)} was not the same when it was read again; it was not copied")
            ours.remove_name(name, message)
            counts.failed += 1
            return False
    counts.copied += 1
    counts.octets += wire.is_what[0]
    return True
