"""The queue on the disk: one folder, and in it one file for a message and all that is known of it.

A file is a line that says how long the text is, the text, and then records, a JSON object in a line each: the
envelope, and what happened since.  Only the process that holds the queue's lock adds records; each is durable
before the next step is taken.  A record that was cut off by a crash has no line end, counts as not written,
and is overwritten.

Names: ``ID.mail`` is a message; ``ID.tmp`` one that is being written; ``retry-ID`` and ``remove-ID`` are what
the ``pop3toy queue`` command asks of the process that runs the queue; ``lock`` is that process's.  Nothing
else of a message is in a name.

All of it waits for the disk: for threads, and for the command.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from ..errors import StoreFull, StoreTrouble
from ..files import by_its_name
from .entry import Damaged, Entry, entry_of

__all__ = ["ORDERS", "Folder", "Found", "Text", "trouble"]

#: The first line: its version, and the octets of the text behind it.
_HEAD: Final = re.compile(rb"pop3toy-queue 1 ([0-9]{20})\n")
_HEAD_LENGTH: Final = len(b"pop3toy-queue 1 \n") + 20

_MESSAGE: Final = re.compile(r"([0-9A-Za-z]{1,40})\.mail")

#: What the command can ask for.
ORDERS: Final = ("retry", "remove")
_ORDER: Final = re.compile(rf"({'|'.join(ORDERS)})-([0-9A-Za-z]{{1,40}})")

#: Seconds after which a message that is still being written is one that a crash has left.
_LEFT_BEHIND: Final = 86400.0

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def trouble(error: OSError) -> StoreTrouble:
    """What the client of a submission port is told: a full disk passes."""
    kind = StoreFull if error.errno in _FULL else StoreTrouble
    return kind(detail=f"the queue: {error.strerror or error}")


class Found(NamedTuple):
    """What is in the folder."""

    messages: Sequence[str]
    orders: Sequence[tuple[str, str]]


class Text:
    """The text of a message, read piece by piece."""

    def __init__(self, file: BinaryIO, octets: int) -> None:
        self.octets = self._left = octets
        self._file = file

    def read(self, most: int) -> bytes:
        """The next octets; empty at the end.

        :raises OSError: if it cannot be read, or is shorter than it was.
        """
        chunk = self._file.read(min(most, self._left))
        if self._left and not chunk:
            raise OSError(errno.EIO, "the file ends too early")
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Writing:
    """A message that is being written; each method waits for the disk.

    :param sync: makes a descriptor's file durable.
    """

    def __init__(self, folder: Path, queue_id: str, sync: Callable[[int], object]) -> None:
        self._folder, self._id, self._sync = folder, queue_id, sync
        with by_its_name(folder):
            self._fd = os.open(self._named("tmp"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._octets = 0
        _write(self._fd, b"pop3toy-queue 1 %020d\n" % 0)

    def _named(self, ending: str) -> Path:
        return self._folder / f"{self._id}.{ending}"

    def write(self, data: bytes) -> None:
        """Add to the text."""
        _write(self._fd, data)
        self._octets += len(data)

    def finish(self, envelope: Mapping[str, object]) -> None:
        """Add the envelope, and make the file durable."""
        _write(self._fd, _line(envelope))
        os.pwrite(self._fd, b"pop3toy-queue 1 %020d\n" % self._octets, 0)
        self._sync(self._fd)
        os.close(self._fd)
        self._fd = -1

    def publish(self) -> None:
        """Give it its name, durably."""
        with by_its_name(self._named("mail")):
            os.rename(self._named("tmp"), self._named("mail"))
        _sync_folder(self._folder, self._sync)

    def abort(self) -> None:
        """Remove it; raises nothing."""
        with suppress(OSError):
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            os.unlink(self._named("tmp"))


class Folder:
    """The folder of a queue.

    :param sync: makes a descriptor's file durable; tests bring their own.
    """

    def __init__(self, path: str | Path, sync: Callable[[int], object] = os.fsync) -> None:
        self.path = Path(path)
        self._sync = sync

    def make(self) -> None:
        """Make the folder, which nobody else may look into, if it is missing; its parent has to be there."""
        with suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
            _sync_folder(self.path.parent, self._sync)

    def lock(self) -> int | None:
        """Become the process that runs the queue.

        :return: a descriptor that holds the lock until it is closed, or ``None`` if another process has it.
        """
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return fd

    def begin(self, queue_id: str) -> Writing:
        """Begin to write a message."""
        return Writing(self.path, queue_id, self._sync)

    def look(self) -> Found:
        """What is there, messages in the order of their names."""
        names = sorted(os.listdir(self.path))
        return Found(
            [match[1] for name in names if (match := _MESSAGE.fullmatch(name))],
            [(match[1], match[2]) for name in names if (match := _ORDER.fullmatch(name))],
        )

    def sweep(self, now: float) -> None:
        """Remove what writers have left behind that were killed; nobody was told that it was taken."""
        for name in os.listdir(self.path):
            if name.endswith(".tmp"):
                with suppress(OSError):
                    if os.stat(self.path / name).st_mtime < now - _LEFT_BEHIND:
                        os.unlink(self.path / name)

    def read(self, queue_id: str) -> Entry:
        """A message without its text.

        :raises Damaged: if it cannot be read as one.
        :raises OSError: if it cannot be read; ``FileNotFoundError`` if it is gone.
        """
        with open(self._file(queue_id), "rb") as file:
            octets = _octets(file)
            file.seek(octets, os.SEEK_CUR)
            return entry_of(map(_parsed, _whole_lines(file.read())), octets)

    def text(self, queue_id: str) -> Text:
        """The text of a message; to be closed.

        :raises Damaged: and ``OSError`` as :meth:`read`.
        """
        file = open(self._file(queue_id), "rb")  # noqa: SIM115
        try:
            return Text(file, _octets(file))
        except BaseException:
            file.close()
            raise

    def start(self, queue_id: str, most: int) -> tuple[bytes, bool]:
        """The start of a message's text, and whether that is all of it.

        :raises Damaged: and ``OSError`` as :meth:`read`.
        """
        text = self.text(queue_id)
        try:
            data = b""
            while len(data) < most and (chunk := text.read(most - len(data))):
                data += chunk
            return data, len(data) == text.octets
        finally:
            text.close()

    def add(self, queue_id: str, record: Mapping[str, object]) -> None:
        """Add a record, durably.  For the process that holds the lock."""
        with open(self._file(queue_id), "r+b", buffering=0) as file:
            end = _HEAD_LENGTH + _octets(file)
            file.seek(end)
            lines = file.readall()
            # What a crash has cut off is overwritten.
            end += lines.rfind(b"\n") + 1
            file.truncate(end)
            file.seek(end)
            _write(file.fileno(), _line(record))
            self._sync(file.fileno())

    def remove(self, queue_id: str) -> None:
        """Remove a message, durably; one that is gone already is none."""
        with suppress(FileNotFoundError):
            os.unlink(self._file(queue_id))
            _sync_folder(self.path, self._sync)

    def order(self, verb: str, queue_id: str) -> None:
        """Ask the process that runs the queue."""
        os.close(os.open(self.path / f"{verb}-{queue_id}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def done(self, verb: str, queue_id: str) -> None:
        """An order was carried out."""
        with suppress(FileNotFoundError):
            os.unlink(self.path / f"{verb}-{queue_id}")

    def _file(self, queue_id: str) -> Path:
        return self.path / f"{queue_id}.mail"


def _octets(file: BinaryIO | Any) -> int:
    head = _HEAD.fullmatch(file.read(_HEAD_LENGTH))
    if head is None:
        raise Damaged("it is no file of a queue, or of another version")
    return int(head[1])


def _whole_lines(data: bytes) -> Sequence[bytes]:
    return data[: data.rfind(b"\n") + 1].splitlines()


def _parsed(line: bytes) -> Mapping[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("no object")
    return record


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record).encode("ascii") + b"\n"


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(path: Path, sync: Callable[[int], object]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)
