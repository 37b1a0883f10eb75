"""The Maildirs that all servers read, and the answers they must give.

Lives here: making them in a directory, and the wire form that every reply is
compared with.  It is worked out here anew, not with the server's own code: a
fault in that must not be able to hide itself.
"""

from __future__ import annotations

import os
import shutil
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.messages import message

#: When the first message arrived; names and mtimes count seconds from here, so
#: that the order by name is the order of delivery for every server.
EPOCH = 1_699_833_600
#: A directory must not look as if it had just been changed.
QUIET = EPOCH + 10_000_000


@dataclass(frozen=True)
class DataSet:
    """Mailboxes of one kind.

    :param octets: of a message, about.
    :param bodies: whether messages of this set are ever retrieved; if not,
        their wire form is not kept.
    """

    name: str
    users: int
    messages: int
    octets: int
    attachments: bool = False
    bodies: bool = True
    seed: int = 1

    def user(self, number: int) -> str:
        """The name of a user; ``number`` counts from 0."""
        return f"{self.name}{number:05d}"


#: Every user's password.
PASSWORD = "sesame"

SMALL = DataSet("small", users=100, messages=20, octets=6_000)
MANY = DataSet("many", users=1, messages=100_000, octets=1_000, bodies=False)
BIG = DataSet("big", users=1, messages=10, octets=20_000_000, attachments=True)
IDLE = DataSet("idle", users=10_000, messages=1, octets=500)

QUICK_SMALL = DataSet("small", users=20, messages=20, octets=6_000)
QUICK_MANY = DataSet("many", users=1, messages=3_000, octets=1_000)
QUICK_BIG = DataSet("big", users=1, messages=4, octets=5_000_000, attachments=True)
QUICK_IDLE = DataSet("idle", users=100, messages=1, octets=500)


def wire_form(text: bytes) -> bytes:
    """A message with LF line ends as RETR sends it, with the final dot (RFC 1939 section 3)."""
    if not text.endswith(b"\n"):
        text += b"\n"
    stuffed = text.replace(b"\n.", b"\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed.replace(b"\n", b"\r\n") + b".\r\n"


def octet_count(text: bytes) -> int:
    """The message's octets with CRLF line ends, before dot-stuffing (RFC 1939 section 11)."""
    return len(text) + text.count(b"\n") + (0 if text.endswith(b"\n") else 2)


@dataclass
class World:
    """One directory with everything: ``mail/USER/{cur,new,tmp}``, ``expected/SET/`` and the password file."""

    root: Path
    owner: tuple[int, int] | None = None
    sets: list[DataSet] = field(default_factory=list)
    #: Is told what takes long.
    say: Callable[[str], object] = len

    @property
    def mail(self) -> Path:
        """The directory of Maildirs, one for each user."""
        return self.root / "mail"

    @property
    def passwords(self) -> Path:
        """Lines of ``user:password``."""
        return self.root / "passwords"

    @property
    def peers(self) -> Path:
        """Where the servers keep what is theirs: a directory for each."""
        return self.root / "peers"

    def expected(self, data: DataSet) -> Path:
        """Where the load generator finds the right answers."""
        return self.root / "expected" / data.name

    def add(self, data: DataSet) -> None:
        """Make a data set."""
        self.sets.append(data)
        self.say(f"making {data.name}: {data.users} x {data.messages} x {data.octets:,} octets")
        where = self.expected(data)
        where.mkdir(parents=True)
        # What servers remember of mail that is no more must not outlive it.
        shutil.rmtree(self.peers, ignore_errors=True)
        self._make(data, where)
        self._write_passwords()

    def remove(self, data: DataSet) -> None:
        """Delete a data set again, for curves that would fill the disk."""
        self.sets.remove(data)
        shutil.rmtree(self.expected(data))
        for number in range(data.users):
            shutil.rmtree(self.mail / data.user(number))

    def _write_passwords(self) -> None:
        lines = [f"{data.user(n)}:{PASSWORD}\n" for data in self.sets for n in range(data.users)]
        self.passwords.write_text("".join(lines))
        self.passwords.chmod(0o600)

    def _make(self, data: DataSet, where: Path) -> None:
        places = array("Q")
        with (where / "wire.bin").open("wb") as wire, (where / "users.txt").open("w") as users:
            for number in range(data.users):
                first = len(places) // 3
                counts = []
                for octets, body in self._mailbox(data, number):
                    counts.append(octets)
                    places.extend((octets, wire.tell(), len(body)))
                    wire.write(body)
                line = f"{data.user(number)} {PASSWORD} {first} {len(counts)} {sum(counts)}"
                listing = "".join(f"{n} {octets}\r\n" for n, octets in enumerate(counts, 1)) + ".\r\n"
                uids = "".join(f"{n} {number:04x}.{n:08x}\r\n" for n in range(1, len(counts) + 1)) + ".\r\n"
                for reply in (listing, uids):
                    line += f" {wire.tell()} {len(reply)}"
                    wire.write(reply.encode("ascii"))
                users.write(line + "\n")
        with (where / "messages.bin").open("wb") as table:
            places.tofile(table)

    def _mailbox(self, data: DataSet, number: int) -> Iterator[tuple[int, bytes]]:
        """Make one Maildir; its messages are all read ones, so no server has to move them.

        :return: octets and wire form of each message, in order.
        """
        maildir = self.mail / data.user(number)
        for name in ("new", "tmp", "cur"):
            (maildir / name).mkdir(parents=True)
        cur = str(maildir / "cur")
        for n in range(data.messages):
            attachment = data.attachments and n % 2 == 0
            text = message(data.seed, number * data.messages + n, data.octets, attachment)
            octets = octet_count(text)
            name = f"{EPOCH + n}.M{n % 1_000_000:06d}P4711.mail,S={len(text)},W={octets}:2,S"
            handle = os.open(f"{cur}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(handle, text)
                if self.owner:
                    os.fchown(handle, *self.owner)
                os.utime(handle, (EPOCH + n, EPOCH + n))
            finally:
                os.close(handle)
            yield octets, wire_form(text) if data.bodies else b""
        for path in (maildir / "new", maildir / "tmp", maildir / "cur", maildir):
            os.utime(path, (QUIET, QUIET))
            if self.owner:
                os.chown(path, *self.owner)
