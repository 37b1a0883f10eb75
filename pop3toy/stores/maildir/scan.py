"""What is in a Maildir: its messages, in a fixed order, with their unique-ids and octets.

Plain functions over a directory's file descriptor; they may wait for the disk,
so the store calls them in a thread unless the directory is small.  Which files
there are is found by ``folders``, what names mean by ``names``, octets by
``count``; names of messages are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from twisted.logger import Logger

from ...mail.listing import Listing
from .count import MAX_LISTED_SIZE, Counter
from .folders import PATIENCE, Files, Stamp, list_by_name, list_files
from .names import BaseNames, arrival
from .paths import explained
from .sizes import Counted

__all__ = ["Snapshot", "Uncounted", "list_at_once", "scan"]

log = Logger()


class Snapshot:
    """A Maildir at one moment.

    :param stamp: of before the scan.
    :param trusted: whether an equal stamp later on proves that nothing has
        changed since; not so if the last change was too fresh.
    """

    __slots__ = ("_positions", "linked", "listing", "measured", "paths", "stamp", "trusted", "twins")

    def __init__(
        self,
        listing: Listing,
        paths: Sequence[str],
        measured: dict[bytes, Counted],
        twins: frozenset[str],
        linked: frozenset[str],
        stamp: Stamp,
        trusted: bool,
    ) -> None:
        self.listing = listing
        #: As many as entries, in the same order, such as ``new/NAME``: 100,000
        #: strings cost less than as many objects.
        self.paths = paths
        #: Octets that were counted, by unique-id: what the names do not tell or tell wrongly.
        self.measured = measured
        #: Base names that more than one message has; such a message is not
        #: looked for under another name, because it could be the other one.
        self.twins = twins
        #: Base names of messages that are linked in both folders: what links and
        #: unlinks instead of renaming was interrupted.  Both names are one message.
        self.linked = linked
        self.stamp = stamp
        self.trusted = trusted
        self._positions: dict[bytes, int] | None = None

    def position(self, uid: bytes) -> int:
        """At which place of the listing a message is."""
        # A session that only asks for STAT, LIST and UIDL never needs it.
        if self._positions is None:
            self._positions = {uid: at for at, uid in enumerate(self.listing.uids)}
        return self._positions[uid]


class Uncounted(Exception):
    """A message would have to be read, or many be looked at, to know their octets."""


#: Messages of which it is seen without a thread whether what was counted is still true.
LOOKED_AT_ONCE = 50


def scan(
    maildir: int,
    recall: Callable[[int], dict[bytes, Counted]],
    *,
    now: float,
    tick: float,
    may_read: bool,
    max_listed_size: int = MAX_LISTED_SIZE,
    wanted: Callable[[], bool] = lambda: True,
    where: str = "a Maildir",
) -> Snapshot:
    """Take a snapshot.

    :param maildir: the open directory.
    :param recall: called with the number of messages, it gives what was counted before, by
        unique-id.
    :param now: seconds since the epoch.
    :param tick: seconds within which two changes may leave the same time on a
        directory.
    :param may_read: count the octets of messages whose names do not tell them.
    :param max_listed_size: octets of a file beyond which it is not read, but listed by its size.
    :param wanted: asked again and again, from this thread; where it says no the scan ends.
    :param where: what the log calls it.
    :raises Uncounted: if that is necessary and not allowed.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read, or is not wanted any more.
    """
    with Counter(maildir, max_listed_size, wanted, where) as counter:
        return _scan(maildir, recall, counter, now=now, tick=tick, may_read=may_read)


def list_at_once(
    maildir: int, opener: Callable[[int, str], int | None], *, now: float, tick: float
) -> Snapshot | None:
    """Take a snapshot on the reactor's thread, if nothing has to be waited for and the names tell all.

    :param opener: opens a folder that is at hand.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """

    def open_or_leave(maildir: int, folder: str) -> int:
        if (opened := opener(maildir, folder)) is None:
            raise Uncounted
        return opened

    try:
        found = list_by_name(maildir, open_or_leave)
    except Uncounted:
        return None
    if found is None or (bases := BaseNames.of_files(found[0].names)) is None:
        return None
    paths, stamp = found
    octets = [told for told in bases.wire_sizes() if told is not None]
    if len(octets) < len(paths):
        return None
    listing = Listing.of_columns(bases.unique_ids(), octets, partial(_arrival_of_one, paths))
    trusted = now - stamp.changed / 1e9 > tick
    return Snapshot(listing, paths, {}, frozenset(), frozenset(), stamp, trusted)


def _scan(
    maildir: int,
    recall: Callable[[int], dict[bytes, Counted]],
    counter: Counter,
    *,
    now: float,
    tick: float,
    may_read: bool,
) -> Snapshot:
    known: dict[bytes, Counted] = {}
    guessed: set[bytes] = set()
    for turn in range(PATIENCE):
        files = _listed(maildir)
        bases, paths = files.bases, files.paths
        uids = bases.unique_ids()
        octets = bases.wire_sizes()
        if turn == 0:
            known = _still_true(recall(len(uids)), uids, paths, counter, may_read)
        # When one of two is gone the other has its unique-id, hence these are not remembered.
        twins: set[bytes] = set()
        if files.twins:
            twins = {uid for uid, base in zip(uids, bases.ordered, strict=True) if base in files.twins}
            known = {uid: counted for uid, counted in known.items() if uid not in twins}
        if known:
            octets = _with_known(uids, octets, known)
        uncounted = [at for at, told in enumerate(octets) if told is None] if None in octets else []
        if uncounted and not may_read:
            raise Uncounted
        guessed.clear()
        for at in uncounted:
            try:
                counted = counter.count(paths[at])
            except OSError as error:
                # One message that cannot be read must not take the others hostage:
                # it is listed, and RETR of it is refused.
                counted = counter.size_on_disk(paths[at])
                guessed.add(uids[at])
                place, why = counter.where, explained(error)
                log.warn("message {path!r} of {where}: {why}", path=paths[at], where=place, why=why)
            if counted is not None:
                known[uids[at]] = counted
        # What vanished while it was counted may have been renamed: look again.
        vanished = [at for at in uncounted if uids[at] not in known]
        if not vanished:
            break
    if uncounted:
        octets = _with_known(uids, octets, known)
    if vanished:
        there = [at for at, told in enumerate(octets) if told is not None]
        uids, paths = [uids[at] for at in there], [paths[at] for at in there]
        octets = [octets[at] for at in there]
    forgotten = guessed | twins
    return Snapshot(
        Listing.of_columns(
            uids, [told for told in octets if told is not None], partial(_arrival_of_one, paths)
        ),
        paths,
        {uid: known[uid] for uid in uids if uid in known and uid not in forgotten} if known else {},
        files.twins,
        files.linked,
        files.stamp,
        trusted=files.steady and not vanished and not guessed and now - files.stamp.changed / 1e9 > tick,
    )


def _arrival_of_one(paths: Sequence[str], at: int) -> float | None:
    return arrival(paths[at])


def _still_true(
    known: dict[bytes, Counted], uids: Sequence[bytes], paths: Sequence[str], counter: Counter, may_read: bool
) -> dict[bytes, Counted]:
    """What is true of the files that have these names now: somebody may have put back older ones."""
    if not known:
        return {}
    listed = [(uid, path) for uid, path in zip(uids, paths, strict=True) if uid in known]
    if len(listed) > LOOKED_AT_ONCE and not may_read:
        raise Uncounted
    return counter.still_true(known, listed)


def _with_known(
    uids: Sequence[bytes], octets: Sequence[int | None], known: dict[bytes, Counted]
) -> list[int | None]:
    return [known[uid].octets if uid in known else told for uid, told in zip(uids, octets, strict=True)]


class _Listed(NamedTuple):
    """The files of a Maildir in delivery order; see :class:`pop3toy.stores.maildir.folders.Files`."""

    bases: BaseNames
    paths: Sequence[str]
    twins: frozenset[str]
    linked: frozenset[str]
    stamp: Stamp
    steady: bool


def _listed(maildir: int) -> _Listed:
    """List it the short way if it holds still and all names are as usual.

    A mailbox of 100,000 is opened in 180 ms that way; it took 237 before there was one.
    """
    files = None
    if (found := list_by_name(maildir)) is not None:
        paths, stamp = found
        # No two of them are alike then, not even in letter case.
        if (bases := BaseNames.of_files(paths.names)) is not None:
            return _Listed(bases, paths, frozenset(), frozenset(), stamp, steady=True)
        by_base = paths.by_base_name()
        if len(by_base) == len(paths):
            files = Files(by_base, {}, set(), stamp, steady=True)
    if files is None:
        files = list_files(maildir)
    further = [base for base, doubles in files.twins.items() for _ in doubles[1:]]
    bases = BaseNames([*files.paths, *further])
    twins, linked = frozenset(files.twins), frozenset(files.linked)
    return _Listed(bases, _paths(bases.ordered, files), twins, linked, files.stamp, files.steady)


def _paths(bases: list[str], files: Files) -> list[str]:
    """The path of each, in the order of ``bases``."""
    if not files.twins:
        if bases == list(files.paths):
            return list(files.paths.values())
        return list(map(files.paths.__getitem__, bases))
    twins = {base: iter(doubles) for base, doubles in files.twins.items()}
    return [next(twins[base]) if base in twins else files.paths[base] for base in bases]
