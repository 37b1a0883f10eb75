"""What copying and comparing have done, and how they say it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Counts", "Stopped", "counted", "shown", "summary"]


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


def counted(count: int) -> str:
    """So many messages."""
    return f"{count} message{'s'[: count != 1]}"


def summary(users: int, counts: Counts, *, done: str, taken: str) -> str:
    """What was done for so many users, in one sentence.

    :param done: what it is called: ``copied``.
    :param taken: what is said of messages that their owner has removed since: ``were deleted here since``.
    """
    said = [
        f"{users} user{'s'[: users != 1]}: {counts.copied} {done} ({counts.octets:,} octets)",
        f"{counts.there} there already",
    ]
    for count, what in (
        (counts.vanished, "vanished meanwhile"),
        (counts.taken, f"{taken} and stay away"),
        (counts.removed, "removed from TO"),
        (counts.failed, f"could not be {done}"),
    ):
        if count:
            said.append(f"{count} {what}")
    return ", ".join(said)


def shown(uid: bytes) -> str:
    """A message, for a sentence."""
    return f"message {uid.decode('ascii')}"
