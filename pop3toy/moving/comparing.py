"""What a mail program would find changed if it were moved from one server to another.

A program that leaves mail on the server knows messages by their unique-ids, some by their order as well.
So those are compared in full, and of some messages all octets.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

from .client import Client, Listed, MessageRefused
from .server import Trouble

__all__ = ["Comparison", "Side", "compare"]

#: Unique-ids that are named of each kind of difference.
NAMED: Final = 3


@dataclass
class Side:
    """What one of the servers says."""

    messages: int = 0
    octets: int = 0
    #: What it says that does not fit together, in sentences.
    faults: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """What was found for one user; counts are of messages, and lists name the first few by unique-id."""

    user: str
    old: Side = field(default_factory=Side)
    new: Side = field(default_factory=Side)
    #: With the same unique-id at both.
    common: int = 0
    #: Whose unique-ids the new one alone knows, so that clients would fetch them; and their octets.
    unknown: int = 0
    unknown_octets: int = 0
    unknown_uids: list[str] = field(default_factory=list)
    #: Of these, so many as have the size of one whose unique-id is gone: clients would have them twice.  The
    #: others are new mail, if nothing is missing.
    again: int = 0
    #: That are at the old one alone, by unique-id and by size.
    missing: int = 0
    missing_uids: list[str] = field(default_factory=list)
    #: Of those at both, as few as would have to be moved to have the same order.
    moved: int = 0
    #: Of those at both, with another size.
    other_size: int = 0
    other_size_uids: list[str] = field(default_factory=list)
    #: Of those at both, whose octets were compared, and were not the same.
    bodies: int = 0
    other_body: int = 0
    other_body_uids: list[str] = field(default_factory=list)
    #: Those of them whose header alone differs, as where a server writes into it.
    other_header_only: int = 0
    #: Why nothing could be compared; empty if it was.
    error: str = ""

    @property
    def same(self) -> bool:
        """Whether a mail program would not notice."""
        return not (self.error or self.again or self.missing or self.moved or self.other_body)

    def as_json(self) -> dict[str, Any]:
        """As it is printed by ``--json``."""
        return {**asdict(self), "same": self.same}


def compare(
    user: str,
    old: Callable[[], Client],
    new: Callable[[], Client],
    *,
    sample: int | None,
    progress: Callable[[int, int], object] = lambda coming, done: None,
    stop: Callable[[], None] = lambda: None,
) -> Comparison:
    """Look at one user's mailbox at both servers.

    :param old: makes a connection on which the user has logged in; so does ``new``.
    :param sample: of how many messages all octets are compared; all if ``None``.
    :param stop: called before each message; may raise.
    :raises Trouble: if a server does not answer as it should.
    """
    found = Comparison(user)
    with old() as theirs, new() as ours:
        before = _listed(theirs, found.old)
        after = _listed(ours, found.new)
        _uids(found, before, after)
        common = [uid for uid in before if uid in after]
        differing = [uid for uid in common if before[uid].octets != after[uid].octets]
        found.other_size, found.other_size_uids = len(differing), _named(differing)
        chosen = _chosen(common, differing, sample)
        progress(len(chosen), 0)
        other = []
        for at, uid in enumerate(chosen):
            stop()
            digests, refused = [], False
            for client, side, listed in ((theirs, found.old, before), (ours, found.new, after)):
                digest = _Digest()
                ahead = [listed[one].number for one in chosen[at + 1 : at + 20]]
                try:
                    client.retr(listed[uid].number, digest, ahead=ahead)
                except MessageRefused as error:
                    side.faults.append(str(error))
                    refused = True
                digests.append(digest.both)
            found.bodies += 1
            if refused or digests[0] != digests[1]:
                other.append(uid)
                found.other_header_only += not refused and digests[0][1] == digests[1][1]
            progress(0, 1)
        found.other_body, found.other_body_uids = len(other), _named(other)
        for client in (theirs, ours):
            if not client.removes_what_is_fetched:
                client.quit()
    return found


def _listed(client: Client, side: Side) -> dict[bytes, Listed]:
    """What a server lists, by unique-id."""
    count, octets = client.stat()
    listed = client.listing()
    side.messages, side.octets = len(listed), sum(one.octets or 0 for one in listed)
    if (count, octets) != (side.messages, side.octets):
        side.faults.append(
            f"STAT says {_messages(count)} and {octets} octets, LIST {side.messages} and {side.octets}"
        )
    found: dict[bytes, Listed] = {}
    doubled = 0
    for one in listed:
        if one.uid is None:
            raise Trouble(f"{client.server} leaves messages out of UIDL; nothing can be compared")
        doubled += one.uid in found
        found.setdefault(one.uid, one)
    if doubled:
        side.faults.append(f"{_messages(doubled)} with the unique-id of another")
    return found


def _messages(count: int) -> str:
    return f"{count} message{'s'[: count != 1]}"


def _uids(found: Comparison, before: dict[bytes, Listed], after: dict[bytes, Listed]) -> None:
    unknown = [uid for uid in after if uid not in before]
    missing = [uid for uid in before if uid not in after]
    found.common = len(after) - len(unknown)
    found.unknown, found.unknown_uids = len(unknown), _named(unknown)
    found.unknown_octets = sum(after[uid].octets or 0 for uid in unknown)
    gone = Counter(before[uid].octets for uid in missing)
    found.again = (gone & Counter(after[uid].octets for uid in unknown)).total()
    # What is there under another unique-id is not missing.
    found.missing = len(missing) - found.again
    found.missing_uids = _named(missing)
    places = {uid: at for at, uid in enumerate(uid for uid in after if uid in before)}
    found.moved = len(places) - _longest_rise([places[uid] for uid in before if uid in places])


def _longest_rise(numbers: Sequence[int]) -> int:
    """How many of them stay if the others are taken out so that the rest goes up."""
    if all(one < other for one, other in pairwise(numbers)):
        return len(numbers)
    ends: list[int] = []
    for number in numbers:
        slot = bisect_left(ends, number)
        ends[slot : slot + 1] = [number]
    return len(ends)


def _chosen(common: Sequence[bytes], differing: Sequence[bytes], sample: int | None) -> list[bytes]:
    """Which messages are compared, in their order: first those of other sizes, then some from all over."""
    if sample is None or sample >= len(common):
        return list(common)
    chosen = set(differing[:sample])
    rest = [uid for uid in common if uid not in chosen]
    many = sample - len(chosen)
    chosen |= {rest[at * (len(rest) - 1) // max(many - 1, 1)] for at in range(many)}
    return [uid for uid in common if uid in chosen]


def _named(uids: Iterable[bytes]) -> list[str]:
    return [uid.decode("ascii", "backslashreplace") for uid in list(uids)[:NAMED]]


class _Digest:
    """A file that keeps hashes alone: of the header, and of what is behind it."""

    def __init__(self) -> None:
        self._header = hashlib.sha256()
        self._body = hashlib.sha256()
        self._in_header = True
        self._held = b""

    def write(self, data: bytes, /) -> object:
        if not self._in_header:
            self._body.update(data)
            return None
        data = self._held + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            # The last three octets may begin the end of the header.
            self._header.update(data[:-3])
            self._held = data[-3:]
            return None
        self._header.update(data[: end + 4])
        self._body.update(data[end + 4 :])
        self._in_header, self._held = False, b""
        return None

    @property
    def both(self) -> tuple[bytes, bytes]:
        """Of the header, and of the body."""
        header = self._header.copy()
        header.update(self._held)
        return header.digest(), self._body.digest()
