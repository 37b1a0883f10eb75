"""What the names of a Maildir's files tell: order, unique-ids, octets.

Pure: no file is looked at here.  A mailbox of 100,000 messages is opened as
fast as this is, so each method first looks at all names in one go (joined
with ``/``, which no name holds) and takes them one by one only where some of
them are out of the ordinary.  Both ways give the same.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterable, Sequence
from functools import cached_property

from ... import limits
from ...mail.unique_ids import unique_id_is_valid

__all__ = ["BaseNames", "arrival", "base_name", "unique_id"]

_FLAGS = re.compile(r":[^/]*+")
# The delivery time that a name begins with.
_TIME = re.compile(r"[0-9]{1,18}(?=\.|\Z)")
# The same where it is one of our time, and no number that somebody thought of.
_ARRIVAL = re.compile(r"[0-9]{9,10}(?=\.)")
# From 2001 to 2286 it has ten digits, and names sort as their times do.
_ALL_OF_OUR_TIME = re.compile(r"(?:[0-9]{10}(?:\.[^/]*+)?+/)*+")
# Octets that POP3 allows in a unique-id, without the "/".
_ALL_VALID = re.compile(rb"(?:[\x21-\x2e\x30-\x7e]{1,%d}+/)*+" % limits.UID)
# Dovecot's and Maildir++'s "size on the wire", as far as it is trusted.
_WIRE_SIZE = re.compile(r",W=([0-9]{1,15})(?=,|\Z)")
_WIRE_SIZES = re.compile(r",W=([0-9]{1,15})(?:,[^/]*+)?+/")


def base_name(path: str) -> str:
    """A file's name without its flags: what stays when another program marks it as read.

    :param path: a name, or one with its folder such as ``cur/1700000000.M1P1.host:2,S``.
    """
    return path[path.find("/") + 1 :].partition(":")[0]


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


class BaseNames:
    """Base names, perhaps with doubles, in delivery order, and what they tell.

    Delivery order is by the time that a name begins with (0 if none), then by name.
    """

    def __init__(self, bases: Iterable[str]) -> None:
        ordered = sorted(bases)
        self._joined = _joined(ordered)
        if not _ALL_OF_OUR_TIME.fullmatch(self._joined):
            # A stable sort: those of one time stay sorted by name.
            ordered.sort(key=_time)
            self._joined = _joined(ordered)

    @classmethod
    def of_files(cls, names: Iterable[str]) -> BaseNames | None:
        """Those of file names, with flags or without, in the order in which they are given.

        It is for names as delivery programs make them, and takes half the time.

        :return: ``None`` if delivery order is or may be another one, or if two are alike.
        """
        made = cls(())
        made._joined = joined = _FLAGS.sub("", _joined(names))
        # Octets sort as characters do, in ASCII.
        if not (joined.isascii() and _ALL_OF_OUR_TIME.fullmatch(joined)):
            return None
        return made if made._encoded == sorted(made._encoded) and made._distinct else None

    @cached_property
    def ordered(self) -> list[str]:
        """The names."""
        return self._joined.split("/")[:-1]

    @cached_property
    def _encoded(self) -> list[bytes]:
        return os.fsencode(self._joined).split(b"/")[:-1]

    @cached_property
    def _distinct(self) -> bool:
        """Whether no two are alike, letter case aside."""
        return len(set(os.fsencode(self._joined).lower().split(b"/"))) == len(self._encoded) + 1

    def unique_ids(self) -> list[bytes]:
        """The unique-id of each, as :func:`unique_id` makes it: the later of two has to be another one."""
        if _ALL_VALID.fullmatch(os.fsencode(self._joined)) and self._distinct:
            return self._encoded
        uids = []
        taken: set[bytes] = set()
        for base in self.ordered:
            uids.append(uid := unique_id(base, taken))
            taken.add(uid.lower())
        return uids

    def wire_sizes(self) -> Sequence[int | None]:
        """The octets in wire form that each tells, or ``None``."""
        # At most one is found in a name, so as many as names means one in each.
        sizes = _WIRE_SIZES.findall(self._joined)
        if len(sizes) == len(self._encoded):
            return list(map(int, sizes))
        return [int(match[1]) if (match := _WIRE_SIZE.search(base)) else None for base in self.ordered]


def arrival(path: str) -> float | None:
    """When a message was delivered, in seconds since the epoch, if its name tells.

    :param path: such as ``cur/1700000000.M1P1.host:2,S``.
    """
    told = _ARRIVAL.match(path, path.find("/") + 1)
    return float(told[0]) if told else None


def _joined(bases: Iterable[str]) -> str:
    """All names, each with a ``/`` behind it."""
    return "/".join([*bases, ""])


def _time(base: str) -> int:
    match = _TIME.match(base)
    return int(match[0]) if match else 0
