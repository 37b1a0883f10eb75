"""What is in a Maildir at one moment: its messages in delivery order, with their unique-ids and octets.

Blocks, unless nothing may be waited for.  Which files there are is found by ``folders``, what their names
mean by ``names``, unique-ids that names do not tell by ``beside.uidl_file``, such octets by ``count``; names
of messages are never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.logger import Logger

from ...mail.listing import Listing
from .beside import last_session, uidl_file
from .beside.sizes import Counted
from .count import Counter
from .folders import MAX_LISTINGS, Files, Stamp, WouldWait, list_files
from .names import arrival, in_delivery_order, unique_ids, wire_sizes
from .paths import explained

__all__ = ["Snapshot", "in_listing_order", "take_snapshot"]

log = Logger()


class Snapshot:
    """A Maildir at one moment.

    :param listing: its messages.
    :param paths: where each of them is, such as ``new/NAME``.
    :param measured: octets that were counted, by unique-id: what the names do not tell or tell wrongly.
    :param duplicates: base names that more than one message has; such a message is not looked for
        under another name, because it could be the other one.
    :param linked: base names of messages that are linked in both folders: a program that links and
        unlinks instead of renaming was interrupted.  Both names are one message.
    :param stamp: that of the folders, of before they were listed.
    :param mark: that of the file of unique-ids, of before it was read.
    :param trusted: whether an equal stamp later on proves that nothing has changed since.

    What ``last_session`` found when a session opened it: ``looked_at`` whether it has looked, ``note`` what
    the last session has left, ``note_due`` whether this one is to write another.
    """

    __slots__ = (
        "_mark",
        "_positions",
        "duplicates",
        "linked",
        "listing",
        "looked_at",
        "measured",
        "note",
        "note_due",
        "paths",
        "stamp",
        "trusted",
    )

    def __init__(
        self,
        listing: Listing,
        paths: Sequence[str],
        measured: dict[bytes, Counted],
        duplicates: frozenset[str],
        linked: frozenset[str],
        stamp: Stamp,
        mark: uidl_file.Mark,
        trusted: bool,
    ) -> None:
        self.listing = listing
        self.paths = paths
        self.measured = measured
        self.duplicates = duplicates
        self.linked = linked
        self.stamp = stamp
        self._mark = mark
        self.trusted = trusted
        self._positions: dict[bytes, int] | None = None
        self.looked_at = self.note_due = False
        self.note: last_session.Note | None = None

    def is_current(self, maildir: int, stamp: Stamp) -> bool:
        """Whether the Maildir has not changed since.

        :param maildir: the open directory.
        :param stamp: that of its folders now.
        """
        return self.trusted and self.stamp == stamp and self._mark == uidl_file.look(maildir)

    def position(self, uid: bytes) -> int:
        """At which place of the listing a message is."""
        # A session that only asks for STAT, LIST and UIDL never needs it.
        if self._positions is None:
            self._positions = {uid: at for at, uid in enumerate(self.listing.uids)}
        return self._positions[uid]


def take_snapshot(maildir: int, now: float, counter: Counter | None = None) -> Snapshot:
    """Take a snapshot.

    :param maildir: the open directory.
    :param now: seconds since the epoch.
    :param counter: knows, or counts, the octets of messages; without it names have to tell them, and
        nothing is waited for.
    :raises WouldWait: if that is not enough.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read, or the counter is to stop.
    """
    known: dict[bytes, Counted] = {}
    mark = uidl_file.look(maildir)
    for listing in range(MAX_LISTINGS):
        files = list_files(maildir, may_wait=counter is not None)
        bases, paths, uids = in_listing_order(maildir, files, may_wait=counter is not None)
        octets = wire_sizes(bases)
        if counter is not None and not listing:
            known = counter.recall(uids, paths)
        if files.duplicates:
            # When one of two is gone the other has its unique-id, hence what is counted of them is not kept.
            shared = {uid for uid, base in zip(uids, bases, strict=True) if base in files.duplicates}
            known = {uid: counted for uid, counted in known.items() if uid not in shared}
        else:
            shared = set()
        if known:
            octets = [
                known[uid].octets if uid in known else told for uid, told in zip(uids, octets, strict=True)
            ]
        unread = vanished = False
        for at in [at for at, told in enumerate(octets) if told is None]:
            if counter is None:
                raise WouldWait
            try:
                if (counted := counter.count(paths[at])) is not None:
                    octets[at] = counted.octets
                    known[uids[at]] = counted
            except OSError as error:
                # One message that cannot be read must not take the others hostage:
                # it is listed, and RETR of it is refused.
                octets[at] = counter.size_on_disk(paths[at])
                unread = True
                where, why = counter.where, explained(error)
                log.warn("message {path!r} of {where}: {why}", path=paths[at], where=where, why=why)
            vanished = vanished or octets[at] is None
        if not vanished:
            break
        # What vanished while it was counted may have been renamed: look again.
    if vanished:
        there = [at for at, told in enumerate(octets) if told is not None]
        uids, paths = [uids[at] for at in there], [paths[at] for at in there]
    return Snapshot(
        Listing.of_columns(
            uids, [told for told in octets if told is not None], lambda at: arrival(paths[at])
        ),
        paths,
        {uid: known[uid] for uid in uids if uid in known and uid not in shared} if known else {},
        frozenset(files.duplicates),
        frozenset(files.linked),
        files.stamp,
        mark,
        trusted=files.steady and not vanished and not unread and files.stamp.is_old(now),
    )


def in_listing_order(
    maildir: int, files: Files, *, may_wait: bool = True
) -> tuple[Sequence[str], Sequence[str], Sequence[bytes]]:
    """The base name, the path and the unique-id of each message, in the order in which they are listed.

    :param files: what is there.
    :raises WouldWait: if the disk had to be waited for and must not be.
    :raises pop3toy.errors.StoreTrouble: if the file of unique-ids cannot be used.
    """
    bases, paths = _in_delivery_order(files)
    # Behind the look for messages, because a line is there before its message is.
    if uidl_file.look(maildir) is None:
        return bases, paths, unique_ids(bases)
    if not may_wait:
        raise WouldWait
    given = uidl_file.load(maildir, files.paths)
    if given.ordered:
        bases, paths = _in_given_order(bases, paths, given.uids)
    return bases, paths, unique_ids(bases, given.uids)


def _in_delivery_order(files: Files) -> tuple[list[str], list[str]]:
    """The base name and the path of each message."""
    further = [base for base, same in files.duplicates.items() for _ in same[1:]]
    bases = in_delivery_order([*files.paths, *further])
    if not further:
        return bases, [files.paths[base] for base in bases]
    same = {base: iter(paths) for base, paths in files.duplicates.items()}
    return bases, [next(same[base]) if base in same else files.paths[base] for base in bases]


def _in_given_order(
    bases: Sequence[str], paths: Sequence[str], given: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Messages whose order is given, and behind them all others."""
    ranks = {base: rank for rank, base in enumerate(given)}
    # A stable sort.
    order = sorted(range(len(bases)), key=lambda at: ranks.get(bases[at], len(ranks)))
    return [bases[at] for at in order], [paths[at] for at in order]
