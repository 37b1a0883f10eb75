"""Which messages of a mailbox are those that clients know from another server, and what they get then.

Pure.  A message is recognised by the name of its file; else by octets and a hash of headers and body
together.  Nothing less will do: of two messages with one subject the wrong one would be taken as read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from ..mail.unique_ids import unique_id_is_valid

__all__ = ["Contents", "Known", "Match", "match", "sort_out"]

#: Octets of a message in wire form, and SHA-256 of them.
Contents: TypeAlias = tuple[int, str]


class Known(NamedTuple):
    """A message as the other server lists it."""

    #: The unique-id that it gives it.
    uid: bytes
    #: The base name of its file there; ``None`` if that says nothing here.
    name: str | None = None
    #: Octets in wire form, as that server tells them.
    octets: int | None = None


class Match(NamedTuple):
    """What was recognised."""

    #: Unique-ids by base name, in the order of the other server.
    uids: Mapping[str, bytes]
    #: How many of these by their names; the others by their contents.
    by_name: int
    #: What the other server lists and is not here.
    missing: Sequence[Known]
    #: Base names that the other server does not know: mail that came since.
    unknown: Sequence[str]
    #: Sentences that say why nothing may be changed.
    doubts: Sequence[str]


def sort_out(known: Iterable[Known]) -> tuple[list[Known], list[str]]:
    """Those messages whose unique-ids can be given here, and why the others' cannot."""
    good, doubts = [], []
    seen: dict[bytes, bytes] = {}
    for one in known:
        shown = one.uid.decode("ascii", "backslashreplace")
        other = seen.get(one.uid.lower())
        if not unique_id_is_valid(one.uid):
            doubts.append(f"{shown!r} is no unique-id: one to 70 printable ASCII characters without blanks")
        elif other is not None:
            alike = "is the unique-id of more than one message there"
            by_case = "differs from another message's unique-id by case alone"
            doubts.append(f"{shown} {alike if other == one.uid else by_case}")
        else:
            seen[one.uid.lower()] = one.uid
            good.append(one)
    return good, doubts


def match(
    known: Sequence[Known],
    names: Sequence[str],
    theirs: Mapping[bytes, Contents] | None = None,
    ours: Mapping[str, Contents] | None = None,
) -> Match:
    """Recognise messages.

    :param known: what the other server lists, in its order.
    :param names: base names of the messages that are here.
    :param theirs: contents by unique-id, of those that were read.
    :param ours: contents by base name, of those that were read.
    """
    told = sort_out(known)[1]
    here = set(names)
    found: dict[bytes, str] = {}
    named: dict[str, bytes] = {}
    for one in known:
        if one.name is None or one.name not in here:
            continue
        if one.name in named:
            told.append(f"{one.name} has two lines there")
        named[one.name] = one.uid
        found[one.uid] = one.name
    by_name = len(found)
    if theirs and ours:
        left: dict[Contents, list[str]] = {}
        for name in names:
            if name not in named and name in ours:
                left.setdefault(ours[name], []).append(name)
        wanting: dict[Contents, list[bytes]] = {}
        for one in known:
            if one.uid not in found and one.uid in theirs:
                wanting.setdefault(theirs[one.uid], []).append(one.uid)
        for contents, uids in wanting.items():
            # Of messages that are the same in all their octets it is no matter which is which, if there are
            # as many; if some were removed, it is not known which.  Then the first keep the first unique-ids:
            # at worst a client has the very same message already.
            found.update(zip(uids, left.get(contents, ()), strict=False))
    given = {found[one.uid]: one.uid for one in known if one.uid in found}
    return Match(
        given,
        by_name,
        [one for one in known if one.uid not in found],
        [name for name in names if name not in given],
        told,
    )
