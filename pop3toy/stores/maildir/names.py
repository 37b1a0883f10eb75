"""What the names of a Maildir's files tell: delivery order, unique-ids, octets; no file is looked at."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence

from ...mail.unique_ids import unique_id_is_valid

__all__ = [
    "arrival",
    "base_name",
    "delivery_time",
    "in_delivery_order",
    "unique_id",
    "unique_ids",
    "wire_sizes",
]

# The delivery time that a name begins with.
_TIME = re.compile(r"[0-9]{1,18}(?=\.|\Z)")
# From 2001 to 2286 it has ten digits, and names sort as their times do.
_OF_OUR_TIME = re.compile(r"[0-9]{10}(?:\.|\Z)").match
# The delivery time, if it is plausible as seconds since the epoch.
_ARRIVAL = re.compile(r"[0-9]{9,10}(?=\.)")
# Dovecot's and Maildir++'s "size on the wire", as far as it is trusted.
_WIRE_SIZE = re.compile(r",W=([0-9]{1,15})(?=,|\Z)")


def base_name(path: str) -> str:
    """A file's name without its flags: what stays when another program marks it as read.

    :param path: a name, or one with its folder such as ``cur/1700000000.M1P1.host:2,S``.
    """
    return path[path.find("/") + 1 :].partition(":")[0]


def in_delivery_order(bases: Iterable[str]) -> list[str]:
    """Sort base names by the time that they begin with (0 if none), then by name."""
    ordered = sorted(bases)
    if not all(map(_OF_OUR_TIME, ordered)):
        # A stable sort: those of one time stay sorted by name.
        ordered.sort(key=delivery_time)
    return ordered


def delivery_time(base: str) -> int:
    """The time that a base name begins with, in seconds since the epoch as a rule; 0 if with none."""
    match = _TIME.match(base)
    return int(match[0]) if match else 0


def unique_id(base: str, taken: Container[bytes] = ()) -> bytes:
    """The unique-id of a message: its base name where that is a valid one, else a hash of it.

    :param base: the file's name without its flags.
    :param taken: unique-ids of other messages in lower case: neither these nor one that differs
        by case alone is given (RFC 1939 section 7).
    """
    uid = os.fsencode(base)
    copy = 0
    while uid.lower() in taken or not unique_id_is_valid(uid):
        seed = os.fsencode(base) + (b"/%d" % copy if copy else b"")
        uid = hashlib.sha256(seed).hexdigest()[:32].encode("ascii")
        copy += 1
    return uid


def unique_ids(bases: Sequence[str], given: Mapping[str, bytes] | None = None) -> Sequence[bytes]:
    """The unique-id of each message of a mailbox: of two whose names are alike, the first keeps its name.

    :param given: unique-ids that messages have whatever they are called, by base name; of two that are alike
        the first is given.
    """
    if given:
        return _with_given(bases, given)
    # All in one go, which no name hinders: none holds a slash.
    joined = os.fsencode("/".join(bases))
    uids = joined.split(b"/") if bases else []
    if all(map(unique_id_is_valid, uids)) and len(set(joined.lower().split(b"/"))) == len(bases):
        return uids
    # Some need another one.
    uids = []
    taken: set[bytes] = set()
    for base in bases:
        uids.append(uid := unique_id(base, taken))
        taken.add(uid.lower())
    return uids


def _with_given(bases: Sequence[str], given: Mapping[str, bytes]) -> Sequence[bytes]:
    uids: list[bytes | None] = []
    taken: set[bytes] = set()
    for base in bases:
        uid = given.get(base)
        if uid is not None and uid.lower() in taken:
            uid = None
        if uid is not None:
            taken.add(uid.lower())
        uids.append(uid)
    for at, base in enumerate(bases):
        if uids[at] is None:
            uids[at] = uid = unique_id(base, taken)
            taken.add(uid.lower())
    return [uid for uid in uids if uid is not None]


def wire_sizes(bases: Iterable[str]) -> list[int | None]:
    """The octets in wire form that each base name tells (``,W=``), or ``None``."""
    return [int(told[1]) if (told := _WIRE_SIZE.search(base)) else None for base in bases]


def arrival(path: str) -> float | None:
    """When a message was delivered, in seconds since the epoch, if its name tells.

    :param path: such as ``cur/1700000000.M1P1.host:2,S``.
    """
    told = _ARRIVAL.match(path, path.find("/") + 1)
    return float(told[0]) if told else None
