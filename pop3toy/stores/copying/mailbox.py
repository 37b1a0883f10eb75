"""Copying one mailbox: which messages, in which order, and how often it is looked whether they are there.

The source is only read, without a lock.  What is in the target is known by its unique-id and not copied
again; so whoever was interrupted begins again and goes on.  What copying has brought, and its owner has
removed from the target since, stays away (``journal``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from ...errors import MessageGone
from .journal import Journal, begun, ended, forgotten, found
from .messages import Mailbox, Message, Source, SourceStore, Store, Wanted, Wire

__all__ = ["Counts", "Stopped", "copy_mailbox", "verify_mailbox"]

#: Messages, and octets of them, that may have to be looked for when copying was interrupted.
BATCH: Final = 200
BATCH_OCTETS: Final = 64 * 1024 * 1024


class Stopped(Exception):
    """Copying is to end."""


@dataclass
class Counts:
    """What was done, in messages."""

    copied: int = 0
    #: Octets of these in wire form.
    octets: int = 0
    #: Those that were there already.
    there: int = 0
    #: Those that came earlier and that their owner has removed since.
    taken: int = 0
    #: Those that vanished from the source while it was read.
    vanished: int = 0
    #: Those that were removed from the target.
    removed: int = 0
    #: Those that could not be read, or were not the same in the target.
    failed: int = 0
    #: Those that were compared.
    compared: int = 0

    def add(self, other: Counts) -> None:
        """Add what was done elsewhere."""
        for name, count in asdict(other).items():
            setattr(self, name, count + asdict(self)[name])


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
                    f"{_messages(renamed)} had the unique-id of another message, or one that differs by case"
                    " alone; they keep those that clients were shown"
                )
            same, others = _compared(theirs, ours, messages, there, journal, back)
            wanted = _wanted(messages, there, others, tell)
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
                text = forgotten(sorted(lost)) + begun(known) + found(sorted(same)) + ended()
                ours.write_down(source.address, text)
            if coming:
                ours.announce({name: one.uid for one, name in coming})
            for batch in _batches(coming):
                ours.write_down(source.address, begun((one.uid, name) for one, name in batch))
                failed = []
                for one, name in batch:
                    if stop():
                        raise Stopped
                    if not _copy(theirs, ours, one.message, name, counts, tell):
                        failed.append(one.uid)
                    progress(0, 1)
                ours.settle()
                ours.write_down(source.address, forgotten(failed) + ended())
            if delete:
                brought = journal.done | journal.unsure | back.done | back.unsure
                left = {one.uid for one in wanted}
                gone = [one for one in there if one.uid in brought and one.uid not in left]
                if gone:
                    ours.remove(gone)
                    ours.write_down(source.address, forgotten(one.uid for one in gone))
                    counts.removed += len(gone)
            ours.settle()
    return counts


def verify_mailbox(
    user: str,
    source: SourceStore,
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
        _, others = _compared(theirs, ours, messages, list(there.values()), journal, back)
        wanted = _wanted(messages, list(there.values()), others, lambda sentence: None)
        progress(len(wanted), 0)
        last, disorder = -1, 0
        for one in wanted:
            if stop():
                raise Stopped
            progress(0, 1)
            copied = there.get(one.uid)
            if copied is None:
                if one.uid not in taken and _is_there(theirs, one.message):
                    tell(f"{_shown(one.uid)} is not in the copy")
                    counts.failed += 1
                continue
            disorder += places[one.uid] < last
            last = max(last, places[one.uid])
            try:
                source_is, copy_is = _is_what(theirs, one.message), _is_what(ours, copied)
            except MessageGone:
                continue
            except OSError as error:
                tell(f"{_shown(one.uid)} cannot be read: {error.strerror or error}")
                counts.failed += 1
                continue
            counts.compared += 1
            if source_is != copy_is:
                tell(f"{_shown(one.uid)} is another message in the copy")
                counts.failed += 1
        if disorder:
            tell(f"{_messages(disorder)} stand in another order in the copy")
            counts.failed += disorder
    return counts


def _compared(
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
            is_same = _is_what(theirs, message) == _is_what(ours, stranger)
        except (MessageGone, OSError):
            continue
        (same if is_same else others).add(message.uid)
    return same, others


def _is_what(mailbox: Source, message: Message) -> tuple[int, str]:
    return Wire().read(mailbox.read(message)).is_what


def _wanted(
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
        tell(
            f"{_messages(renamed)} get another unique-id: other messages with the same, or nearly, are there"
        )
    return wanted


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
        tell(f"{_shown(message.uid)} cannot be copied: {error.strerror or error}")
        counts.failed += 1
        return False
    if not proven:
        try:
            same = Wire().read(ours.read_name(name, message)).is_what == wire.is_what
        except MessageGone:
            # Fetched and removed by its owner a moment ago.
            same = True
        if not same:
            tell(f"{_shown(message.uid)} was not the same when it was read again; it was not copied")
            ours.remove_name(name, message)
            counts.failed += 1
            return False
    counts.copied += 1
    counts.octets += wire.is_what[0]
    return True


def _is_there(theirs: Source, message: Message) -> bool:
    try:
        for _ in theirs.read(message):
            break
    except (MessageGone, OSError):
        return False
    return True


def _messages(count: int) -> str:
    return f"{count} message{'s'[: count != 1]}"


def _shown(uid: bytes) -> str:
    return f"message {uid.decode('ascii')}"
