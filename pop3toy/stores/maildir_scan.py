"""What is in a Maildir: its messages, in a fixed order, with their unique-ids and octets.

Plain functions over a directory's file descriptor; they may wait for the disk,
so the store calls them in a thread unless the directory is small.  Which files
there are is found by ``maildir_folders``, what names mean by ``maildir_names``;
names of messages are never changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.logger import Logger

from .. import limits
from ..maildrop import Listing
from ..wire import Encoder
from .maildir_folders import PATIENCE, Files, Stamp, list_by_name, list_files
from .maildir_names import BaseNames
from .maildir_paths import explained

__all__ = ["Snapshot", "Uncounted", "scan"]

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
        measured: dict[bytes, int],
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
    """A message would have to be read to know its octets."""


def scan(
    maildir: int,
    recall: Callable[[int], dict[bytes, int]],
    *,
    now: float,
    tick: float,
    may_read: bool,
) -> Snapshot:
    """Take a snapshot.

    :param maildir: the open directory.
    :param recall: called with the number of messages, it gives the octets that are known from
        before, by unique-id.
    :param now: seconds since the epoch.
    :param tick: seconds within which two changes may leave the same time on a
        directory.
    :param may_read: count the octets of messages whose names do not tell them.
    :raises Uncounted: if that is necessary and not allowed.
    :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be read.
    """
    known: dict[bytes, int] = {}
    for turn in range(PATIENCE):
        files = _listed(maildir)
        bases, paths = files.bases, files.paths
        uids = bases.unique_ids()
        octets = bases.wire_sizes()
        if turn == 0:
            known = recall(len(uids))
        # When one of two is gone the other has its unique-id, hence these are not remembered.
        twins: set[bytes] = set()
        if files.twins:
            twins = {uid for uid, base in zip(uids, bases.ordered, strict=True) if base in files.twins}
            known = {uid: told for uid, told in known.items() if uid not in twins}
        if known or None in octets:
            octets = [known.get(uid, told) for uid, told in zip(uids, octets, strict=True)]
        uncounted = [at for at, told in enumerate(octets) if told is None] if None in octets else []
        if uncounted and not may_read:
            raise Uncounted
        guessed: set[bytes] = set()
        for at in uncounted:
            try:
                counted = _count_octets(maildir, paths[at])
            except OSError as error:
                # One message that cannot be read must not take the others hostage:
                # it is listed, and RETR of it is refused.
                counted = _size_on_disk(maildir, paths[at])
                guessed.add(uids[at])
                log.warn("message {path!r} of a Maildir: {why}", path=paths[at], why=explained(error))
            if counted is not None:
                known[uids[at]] = counted
        # What vanished while it was counted may have been renamed: look again.
        vanished = [at for at in uncounted if uids[at] not in known]
        if not vanished:
            break
    if uncounted:
        octets = [known.get(uid, told) for uid, told in zip(uids, octets, strict=True)]
    if vanished:
        there = [at for at, told in enumerate(octets) if told is not None]
        uids, paths = [uids[at] for at in there], [paths[at] for at in there]
        octets = [octets[at] for at in there]
    forgotten = guessed | twins
    return Snapshot(
        Listing.of_columns(uids, [told for told in octets if told is not None]),
        paths,
        {uid: known[uid] for uid in uids if uid in known and uid not in forgotten} if known else {},
        files.twins,
        files.linked,
        files.stamp,
        trusted=files.steady and not vanished and not guessed and now - files.stamp.changed / 1e9 > tick,
    )


class _Listed(NamedTuple):
    """The files of a Maildir in delivery order; see :class:`~.maildir_folders.Files`."""

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


def _count_octets(maildir: int, path: str) -> int | None:
    """The octets of a message in wire form, by reading it; ``None`` if it has vanished.

    :raises OSError: if it cannot be read.
    """
    encoder = Encoder()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, dir_fd=maildir)
    except FileNotFoundError:
        return None
    try:
        while chunk := os.read(fd, limits.CHUNK):
            encoder.feed(chunk)
    finally:
        os.close(fd)
    encoder.finish()
    return encoder.octets


def _size_on_disk(maildir: int, path: str) -> int | None:
    try:
        return os.stat(path, dir_fd=maildir, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None
