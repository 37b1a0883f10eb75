"""Maildirs that are copied from and to.

A message keeps the name of its file if it comes from a Maildir, or if its unique-id was such a name.  Where
the unique-id does not follow from the name the file of unique-ids tells it (``maildir.beside.uidl_file``).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from ...errors import InUse, MessageGone, StoreTrouble
from ...files import open_regular
from ..maildir.admin import MaildirAdmin
from ..maildir.beside import uidl_file
from ..maildir.beside.owner import give
from ..maildir.folders import (
    FOLDERS,
    fsync_names,
    list_files,
    locate_all,
    open_folder,
    put_in_place,
    stat_folders,
)
from ..maildir.incoming.destination import remove, trouble
from ..maildir.incoming.message import line_feeds
from ..maildir.names import base_name, delivery_time, unique_id
from ..maildir.paths import MaildirPaths
from ..maildir.removed.folder import base_names
from ..maildir.settings import Maildirs
from ..maildir.snapshot import in_listing_order
from .messages import Message, Wanted

__all__ = ["MaildirMailboxes"]

_CHUNK: Final = 256 * 1024
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Octets of a base name that leave room for flags behind it.
_LONGEST: Final = 200
# As mail servers name files: a unique-id that is one makes a good name.
_LIKE_A_NAME: Final = re.compile(rb"[0-9]{9,10}\.[^/:]+")
_MICROS: Final = re.compile(r"[0-9]{9,10}\.(?:[^.]*?[^A-Z.])?M([0-9]{1,6})(?![0-9])")
_WIRE_SIZE: Final = re.compile(rb",W=([0-9]{1,15})(?=,|\Z)")
#: A unique-id of this server's object storage: microseconds, and a hash.
_OF_AN_OBJECT: Final = re.compile(rb"[0-9a-f]{32}")
#: Microseconds by which that may differ from the time in a name.
_NEAR: Final = 2_000_000
_JOURNAL: Final = "pop3toy-copied-"
#: More octets than a line of it has.
_TAIL: Final = 1024

_count = itertools.count(1)


class MaildirMailboxes:
    """The Maildirs of all users, a ``messages.Store``.

    :param wall: the time of day, in seconds since the epoch.
    """

    def __init__(self, settings: Maildirs, *, wall: Callable[[], float] = time.time) -> None:
        self.address = f"maildir:{os.path.abspath(os.path.expanduser(settings.path))}"
        self._admin = MaildirAdmin(settings)
        self._there = MaildirPaths(settings.path, advice="")
        self._made = MaildirPaths(settings.path, create=True)
        self._wall = wall
        self._most = settings.max_listed_size

    def users(self) -> Sequence[str]:
        """See ``messages.Store``."""
        return self._admin.users()

    @contextmanager
    def mailbox(self, user: str, *, make: bool = False) -> Iterator[_Maildir]:
        """See ``messages.Store``."""
        paths = self._made if make else self._there
        maildir = paths.open(user)
        opened = _Maildir(maildir, self._wall, self._most, partial(paths.say_where, user))
        try:
            if make:
                opened.lock()
            yield opened
        finally:
            opened.close()
            os.close(maildir)


class _Maildir:
    """One Maildir, a ``messages.Mailbox``."""

    wire = False

    def __init__(
        self, maildir: int, wall: Callable[[], float], most: int, say_where: Callable[[BaseException], None]
    ) -> None:
        self._maildir = maildir
        self._say_where = say_where
        self._wall = wall
        self._most = most
        self._folders: dict[str, int] = {}
        # The names that are there or coming.
        self._names: set[str] = set()
        self._moved: dict[str, str] = {}
        self._moved_stamp: object = None

    def lock(self) -> None:
        """Keep others from copying to it; sessions and deliveries have other locks."""
        try:
            fcntl.flock(self._folder("tmp"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse("somebody else is copying to it") from None
        except StoreTrouble as error:
            self._say_where(error)
            raise
        except OSError:
            # A file system without locks.
            pass

    def close(self) -> None:
        """Close what is open."""
        for folder in self._folders.values():
            os.close(folder)
        self._folders.clear()

    def _folder(self, name: str) -> int:
        if name not in self._folders:
            self._folders[name] = open_folder(self._maildir, name)
        return self._folders[name]

    def list(self) -> Sequence[Message]:
        """See ``messages.Mailbox``."""
        try:
            files = list_files(self._maildir)
            bases, paths, uids = in_listing_order(self._maildir, files)
            given = uidl_file.load(self._maildir, files.paths).uids
        except StoreTrouble as error:
            self._say_where(error)
            raise
        self._names = set(bases)
        found = []
        for base, path, uid in zip(bases, paths, uids, strict=True):
            expected = given.get(base) or unique_id(base)
            micros = self._micros(base, path, uid)
            found.append(Message(uid, base, micros, None, path, renamed=uid != expected))
        return found

    def _micros(self, base: str, path: str, uid: bytes) -> int:
        seconds = delivery_time(base)
        if 10**8 <= seconds < 10**10:
            digits = _MICROS.match(base)
            micros = seconds * 1_000_000 + (int(digits[1]) if digits else 0)
        else:
            part, _, name = path.partition("/")
            try:
                status = os.stat(name, dir_fd=self._folder(part), follow_symlinks=False)
                micros = status.st_mtime_ns // 1000
            except OSError:
                micros = int(self._wall() * 1e6)
        if _OF_AN_OBJECT.fullmatch(uid) and abs(int(uid[:16], 16) - micros) < _NEAR:
            # It is on its way back.
            micros = int(uid[:16], 16)
        return micros

    def read(self, message: Message) -> Iterator[bytes]:
        """See ``messages.Mailbox``."""
        return self._read(message.where)

    def _read(self, path: str) -> Iterator[bytes]:
        now: str | None = path
        for _ in range(2):
            if now is None:
                break
            part, _, name = now.partition("/")
            try:
                file = open_regular(name, self._folder(part), buffering=0)
            except FileNotFoundError:
                now = self._look_again(path)
                continue
            with file:
                if os.fstat(file.fileno()).st_size > self._most:
                    # Its owner may have made one of many TB that takes no room.
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                while chunk := file.read(_CHUNK):
                    yield chunk
            return
        raise MessageGone

    def _look_again(self, path: str) -> str | None:
        """Where a message is by now, which other programs rename; all are found by one look."""
        stamp = stat_folders(self._maildir)
        if stamp != self._moved_stamp:
            self._moved = locate_all(self._maildir)
            self._moved_stamp = stamp
        return self._moved.get(base_name(path))

    # -- copying to it -------------------------------------------------------------

    def names(self, wanted: Sequence[Wanted]) -> Iterator[str]:
        """See ``messages.Mailbox``."""
        last = (0, "")
        for one in wanted:
            if one.name is not None:
                last = max(last, _place(one.name))
                continue
            name = self._kept_name(one)
            if name is None or _place(name) <= last or name in self._names:
                name = _new_name(one, last)
            last = _place(name)
            self._names.add(name)
            yield name

    def _kept_name(self, one: Wanted) -> str | None:
        """The name that a file had that this was, or is."""
        message = one.message
        if message.where.partition("/")[0] in FOLDERS and base_name(message.where) == message.name:
            name = message.name
        elif _LIKE_A_NAME.fullmatch(one.uid):
            said = _WIRE_SIZE.search(one.uid)
            if said and message.octets is not None and int(said[1]) != message.octets:
                return None
            name = one.uid.decode("ascii")
        else:
            return None
        return name if len(os.fsencode(name)) <= _LONGEST and "\n" not in name else None

    def announce(self, coming: Mapping[str, bytes]) -> None:
        """See ``messages.Mailbox``: write the file of unique-ids, if names do not tell them."""
        lines = {name: uid for name, uid in coming.items() if unique_id(name) != uid}
        given = uidl_file.load(self._maildir)
        if lines.items() <= given.uids.items():
            return
        files = list_files(self._maildir)
        there = files.paths.keys() | base_names(self._maildir)
        kept = {name: uid for name, uid in given.uids.items() if name in there or not files.steady}
        try:
            uidl_file.save(self._maildir, uidl_file.Given(kept | lines, given.ordered))
        except OSError as error:
            raise trouble(error) from error

    def begin(self, coming: Mapping[str, bytes]) -> None:
        """See ``messages.Mailbox``: the lock is ours as long as it is open."""

    def put(self, name: str, message: Message, chunks: Iterable[bytes], *, wire: bool) -> bool:
        """See ``messages.Mailbox``: from another Maildir the file as it is, with its flags."""
        tmp = self._folder("tmp")
        seconds, fraction = divmod(self._wall(), 1)
        # A delivery removes it some day if this is killed.
        host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
        own = f"{int(seconds)}.M{int(fraction * 1e6):06}P{os.getpid()}Q{next(_count)}.{host}"
        try:
            file = os.open(own, _NEW_FILE, 0o600, dir_fd=tmp)
        except OSError as error:
            raise trouble(error) from error
        try:
            for chunk in _with_line_feeds(chunks) if wire else chunks:
                try:
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(file, view) :]
                except OSError as error:
                    raise trouble(error) from error
            try:
                give(file, self._maildir)
                os.utime(file, ns=(message.micros * 1000, message.micros * 1000))
                os.fsync(file)
                part, _, last = _path(name, message).partition("/")
                put_in_place(own, tmp, last, self._folder(part))
            except FileExistsError:
                raise
            except OSError as error:
                raise trouble(error) from error
        finally:
            os.close(file)
            remove(own, tmp)
        return False

    def read_name(self, name: str, message: Message) -> Iterator[bytes]:
        """See ``messages.Mailbox``."""
        return self._read(_path(name, message))

    def remove(self, messages: Sequence[Message]) -> None:
        """See ``messages.Mailbox``."""
        for message in messages:
            self._remove(message.where)

    def remove_name(self, name: str, message: Message) -> None:
        """See ``messages.Mailbox``."""
        self._remove(_path(name, message))

    def _remove(self, path: str) -> None:
        now: str | None = path
        for _ in range(3):
            if now is None:
                return
            part, _, name = now.partition("/")
            try:
                os.unlink(name, dir_fd=self._folder(part))
                return
            except FileNotFoundError:
                now = self._look_again(path)
            except OSError as error:
                raise trouble(error) from error
        raise StoreTrouble(detail=f"{path}: another program renames it all the while")

    def settle(self) -> None:
        """See ``messages.Mailbox``."""
        try:
            for part in FOLDERS:
                fsync_names(self._folder(part))
        except OSError as error:
            raise trouble(error) from error

    def end(self) -> None:
        """See ``messages.Mailbox``."""

    def journal(self, source: str) -> bytes:
        """See ``messages.Mailbox``."""
        try:
            file = open_regular(_journal(source), self._maildir)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise trouble(error) from error
        with file:
            return file.read()

    def write_down(self, source: str, text: bytes) -> None:
        """See ``messages.Mailbox``."""
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        name = _journal(source)
        try:
            is_new = False
            try:
                fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._maildir)
                is_new = True
            except FileExistsError:
                fd = os.open(name, flags, dir_fd=self._maildir)
            with open(fd, "ab") as file:
                if is_new:
                    give(fd, self._maildir)
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    # Its owner may have linked something there that is not theirs to write to.
                    raise StoreTrouble(detail=f"{name} is not a file of its own; move it away")
                tail = os.pread(fd, _TAIL, max(status.st_size - _TAIL, 0))
                # The machine stopped in the middle of a line, or the disk was full: it could be taken for
                # one of another message.
                os.ftruncate(fd, status.st_size - len(tail.rpartition(b"\n")[2]))
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise trouble(error) from error


def _place(name: str) -> tuple[int, str]:
    """Where a base name stands in the order of a Maildir."""
    return delivery_time(name), name


def _new_name(one: Wanted, last: tuple[int, str]) -> str:
    """A name behind the last one, with the size in wire form if that is certain: no session has to count."""
    seconds, micros = divmod(one.message.micros, 1_000_000)
    digest = hashlib.sha256(one.uid).hexdigest()[:16]
    size = f",W={one.message.octets}" if one.message.octets is not None else ""
    name = f"{seconds}.M{micros:06}H{digest}.pop3toy{size}"
    if _place(name) <= last:
        # In the same second, if that can be.
        before = re.match(r"[0-9]+\.M([0-9]{6})H", last[1])
        if before and int(before[1]) < 999_999:
            name = f"{last[0]}.M{int(before[1]) + 1:06}H{digest}.pop3toy{size}"
        else:
            name = f"{last[0] + 1}.M000000H{digest}.pop3toy{size}"
    return name


def _path(name: str, message: Message) -> str:
    """Where a message is put: with its flags, if it comes from a Maildir."""
    part, _, whole = message.where.partition("/")
    if part == "cur" and whole.partition(":")[0] == message.name:
        return f"cur/{name}{whole[len(message.name) :]}"
    return f"new/{name}"


def _journal(source: str) -> str:
    return _JOURNAL + hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _with_line_feeds(chunks: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for chunk in chunks:
        data, held = line_feeds(held + chunk)
        yield data
    yield held
