"""What is in a Maildir at one moment: its messages in delivery order, with their unique-ids and octets.

Blocks, unless nothing may be waited for.  Which files there are is found by ``folders``, what their names
mean by ``names``, octets that names do not tell by ``count``; names of messages are never changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from ...mail.listing import Listing
from .count import Counter
from .folders import MAX_LISTINGS, Files, Stamp, WouldWait, list_files
from .names import arrival, in_delivery_order, unique_ids, wire_sizes
from .paths import explained
from .sizes import Counted

__all__ = ["Snapshot", "take_snapshot"]

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
    :param trusted: whether an equal stamp later on proves that nothing has changed since.
    """

    __slots__ = ("_positions", "duplicates", "linked", "listing", "measured", "paths", "stamp", "trusted")

    def __init__(
        self,
        listing: Listing,
        paths: Sequence[str],
        measured: dict[bytes, Counted],
        duplicates: frozenset[str],
        linked: frozenset[str],
        stamp: Stamp,
        trusted: bool,
    ) -> None:
        self.listing = listing
        self.paths = paths
        self.measured = measured
        self.duplicates = duplicates
        self.linked = linked
        self.stamp = stamp
        self.trusted = trusted
        self._positions: dict[bytes, int] | None = None

    def is_current(self, stamp: Stamp) -> bool:
        """Whether the Maildir has not changed since, as its folders' stamp of now tells."""
        return self.trusted and self.stamp == stamp

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
    for listing in range(MAX_LISTINGS):
        files = list_files(maildir, may_wait=counter is not None)
        bases, paths = _in_delivery_order(files)
        uids = unique_ids(bases)
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
        trusted=files.steady and not vanished and not unread and files.stamp.is_old(now),
    )


def _in_delivery_order(files: Files) -> tuple[list[str], list[str]]:
    """The base name and the path of each message."""
    further = [base for base, same in files.duplicates.items() for _ in same[1:]]
    bases = in_delivery_order([*files.paths, *further])
    if not further:
        return bases, [files.paths[base] for base in bases]
    same = {base: iter(paths) for base, paths in files.duplicates.items()}
    return bases, [next(same[base]) if base in same else files.paths[base] for base in bases]
