"""What is written down beside a mailbox of what was copied to it, and from where.

A mailbox does not tell which of its messages copying has brought, nor which of these its owner has removed
since: the first may go when they are gone at the source, the second must not come again.  Lines of text::

    + <unique-id> <name>     it is about to be copied
    - <unique-id>            it was not, or was removed by copying, and may come again
    = <unique-id>            it had come in another way, and is the same message
    ! <unique-id>            it has been copied
    .                        all of the lines above have been done: of earlier versions, which had no ``!``

Each message is named when it has been copied, since several may copy to a mailbox at once: what one has
done says nothing of what another, which was killed meanwhile, was about to do.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Journal", "begun", "ended", "forgotten", "found"]


class Journal:
    """What the lines say."""

    def __init__(self, text: bytes) -> None:
        #: Unique-ids of what was copied.
        self.done: set[bytes] = set()
        #: Those of which nobody knows, because copying was interrupted.
        self.unsure: set[bytes] = set()
        #: Those of what was there before.
        self.same: set[bytes] = set()
        # A line without an end was cut off with the machine.
        for line in text.split(b"\n")[:-1]:
            mark, _, rest = line.partition(b" ")
            uid = rest.partition(b" ")[0]
            if mark == b"+":
                self.unsure.add(uid)
            elif mark == b"-":
                self.done.discard(uid)
                self.unsure.discard(uid)
                self.same.discard(uid)
            elif mark == b"=":
                self.same.add(uid)
            elif mark == b"!":
                self.done.add(uid)
                self.unsure.discard(uid)
            elif line == b".":
                self.done |= self.unsure
                self.unsure.clear()


def begun(names: Iterable[tuple[bytes, str]]) -> bytes:
    """That these are about to be copied: unique-ids and names."""
    return b"".join(b"+ %b %b\n" % (uid, name.encode("utf-8", "surrogateescape")) for uid, name in names)


def forgotten(uids: Iterable[bytes]) -> bytes:
    """That these may come again."""
    return b"".join(b"- %b\n" % uid for uid in uids)


def found(uids: Iterable[bytes]) -> bytes:
    """That these were there."""
    return b"".join(b"= %b\n" % uid for uid in uids)


def ended(uids: Iterable[bytes]) -> bytes:
    """That these have been copied."""
    return b"".join(b"! %b\n" % uid for uid in uids)
