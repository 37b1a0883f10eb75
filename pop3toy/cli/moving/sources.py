"""Where unique-ids come from: the files of another server, another store, or a server by POP3."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Protocol

from ...errors import InUse, NoSuchMailbox, Refusal, StoreTrouble
from ...moving import courier, cyrus, dovecot
from ...moving.client import Client
from ...moving.matching import Contents, Known
from ...stores.copying.adopting import AdoptedMaildir, give
from ...stores.copying.messages import Message, Store, Wire

__all__ = ["Courier", "Cyrus", "Dovecot", "OtherStore", "Remote", "Source"]

#: Octets of the largest file that is read: some million messages.
_MOST: Final = 512 * 1024 * 1024
_CHUNK: Final = 256 * 1024
#: Octets of a message that is in memory; a larger one is in a file without a name.
_IN_MEMORY: Final = 1024 * 1024
#: A unique-id that is the name of a file in a Maildir, and can be nothing else.
_LIKE_A_NAME: Final = re.compile(rb"[0-9]{9,10}\.[!-9;-~]+")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Source(Protocol):
    """What another server knows of one user's mailbox; all raise ``StoreTrouble`` where it cannot be read."""

    #: Its name, for sentences.
    what: str

    def listed(self) -> Sequence[Known]:
        """The messages, in the order in which it lists them.

        :raises pop3toy.moving.dovecot.NotRead: if what it says is not understood.
        """

    def contents(self, uid: bytes) -> Contents | None:
        """Octets and hash of a message, read there; ``None`` if that cannot be."""


class Dovecot:
    """A ``dovecot-uidlist``.

    :param place: the folder it is in, open.
    :param locked: whether Dovecot is to be kept from writing meanwhile.
    """

    what = "Dovecot"

    def __init__(self, place: int, settings: dovecot.Settings) -> None:
        self._place = place
        self._settings = settings

    def listed(self) -> Sequence[Known]:
        """See :class:`Source`."""
        text = read(self._place, dovecot.FILE_NAME)
        if text is None:
            raise NoSuchMailbox(
                detail=f"there is no {dovecot.FILE_NAME}; is it in another folder? (--source)"
            )
        return dovecot.listed(dovecot.parse(text), self._settings)

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`Source`: a name is all there is."""
        return None


class Courier:
    """A ``courierpop3dsizelist``.

    :param place: the Maildir it is in, open.
    """

    what = "Courier"

    def __init__(self, place: int) -> None:
        self._place = place

    def listed(self) -> Sequence[Known]:
        """See :class:`Source`."""
        text = read(self._place, courier.FILE_NAME)
        if text is None:
            raise NoSuchMailbox(
                detail=f"there is no {courier.FILE_NAME}; is it in another folder? (--source)"
            )
        return courier.listed(text)

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`Source`: a name is all there is."""
        return None


class Cyrus:
    """The folder of a mailbox in the spool of Cyrus.

    :param place: that folder, open.
    :param uidvalidity: if ``cyrus.index`` does not tell.
    """

    what = "Cyrus"

    def __init__(self, place: int, form: str, uidvalidity: int | None) -> None:
        self._place = place
        self._form = form
        self._uidvalidity = uidvalidity
        self._names: dict[bytes, str] = {}

    def listed(self) -> Sequence[Known]:
        """See :class:`Source`."""
        uidvalidity = self._uidvalidity
        if uidvalidity is None:
            index = read(self._place, cyrus.INDEX_NAME)
            if index is None:
                raise NoSuchMailbox(
                    detail=f"there is no {cyrus.INDEX_NAME}; --source is the mailbox's folder"
                )
            uidvalidity = cyrus.uidvalidity(index)
        try:
            found = cyrus.messages(os.listdir(self._place))
        except OSError as error:
            raise _trouble("the folder", error) from error
        self._names = {cyrus.uidl(self._form, uid, uidvalidity): name for uid, name in found}
        return [Known(uid) for uid in self._names]

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`Source`."""
        try:
            with open(os.open(self._names[uid], _FILE, dir_fd=self._place), "rb", buffering=0) as file:
                return Wire().read(iter(lambda: file.read(_CHUNK) or b"", b"")).is_what
        except OSError:
            return None


class OtherStore:
    """Another store of this server.

    :param mailbox: the user's mailbox there.
    """

    what = "the other store"

    def __init__(self, mailbox: _Listable) -> None:
        self._mailbox = mailbox
        self._messages: dict[bytes, Message] = {}

    def listed(self) -> Sequence[Known]:
        """See :class:`Source`."""
        messages = self._mailbox.list()
        self._messages = {one.uid: one for one in messages}
        return [Known(one.uid, one.name, one.octets) for one in messages]

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`Source`."""
        try:
            return Wire().read(self._mailbox.read(self._messages[uid])).is_what
        except (Refusal, OSError):
            return None


class _Listable(Protocol):
    def list(self) -> Sequence[Message]: ...
    def read(self, message: Message) -> Iterator[bytes]: ...


class Remote:
    """A server by POP3.

    :param client: it has logged in.
    :param what: which server, for sentences.
    """

    def __init__(self, client: Client, what: str) -> None:
        self.what = what
        self._client = client
        self._numbers: dict[bytes, int] = {}

    def listed(self) -> Sequence[Known]:
        """See :class:`Source`."""
        known = []
        for one in self._client.listing():
            uid = one.uid or b""
            # Some servers take the names of files, by which they can be recognised.
            name = uid.decode("ascii") if _LIKE_A_NAME.fullmatch(uid) else None
            known.append(Known(uid, name, one.octets))
            self._numbers[uid] = one.number
        return known

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`Source`: the message is fetched, and left there."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            try:
                self._client.retr(self._numbers[uid], file)
            except OSError:
                return None
            file.seek(0)
            return Wire().read(iter(lambda: file.read(_CHUNK), b"")).is_what


def read(place: int, name: str) -> bytes | None:
    """A file of another server; ``None`` if it is missing.

    :param place: the open folder, whose owner may have put anything there.
    """
    try:
        fd = os.open(name, _FILE, dir_fd=place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _trouble(name, error) from error
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST:
            raise StoreTrouble(detail=f"{name} is no file of mail that can be read here")
        try:
            return file.read()
        except OSError as error:
            raise _trouble(name, error) from error


@contextmanager
def folder(path: str | None, maildir: AdoptedMaildir, inner: str = "") -> Iterator[int]:
    """The folder where the other server has its files, open during the block.

    :param path: where that is; ``None`` for the Maildir itself.
    :param inner: a folder in it that goes before it, if it is there.
    """
    if path is None:
        yield maildir.fd
        return
    with ExitStack() as stack:
        try:
            fd = os.open(path, _FOLDER)
            stack.callback(os.close, fd)
            if inner:
                try:
                    fd = os.open(inner, _FOLDER, dir_fd=fd)
                    stack.callback(os.close, fd)
                except FileNotFoundError:
                    pass
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise NoSuchMailbox(detail=f"there is no folder {path}") from None
            raise _trouble(path, error) from error
        yield fd


@contextmanager
def dovecot_kept_out(places: Iterable[int], wall: Callable[[], float], *, take: bool) -> Iterator[None]:
    """Have Dovecot's locks during the block.

    :param places: the open folders where they can be.
    :param take: whether they are taken, or only looked at.
    :raises pop3toy.errors.InUse: if Dovecot has one.
    """
    with ExitStack() as stack:
        for place in dict.fromkeys(places):
            for name, stale in dovecot.LOCKS.items():
                _lock(place, name, stale, wall, stack if take else None)
        yield


def _lock(place: int, name: str, stale: int, wall: Callable[[], float], taken: ExitStack | None) -> None:
    try:
        if wall() - os.stat(name, dir_fd=place, follow_symlinks=False).st_mtime < stale:
            raise InUse(detail=f"Dovecot is at it: {name} is there")
        if taken is not None:
            # As Dovecot does with one that nobody has touched for so long.
            os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        pass
    if taken is None:
        return
    try:
        lock = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place)
        taken.callback(os.unlink, name, dir_fd=place)
        try:
            give(lock, place)
        finally:
            os.close(lock)
    except FileExistsError:
        raise InUse(detail=f"Dovecot is at it: {name} is there") from None
    except OSError as error:
        # Else it is a copy that nobody writes to.
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise _trouble(name, error) from error


@contextmanager
def other_store(store: Store, user: str) -> Iterator[OtherStore]:
    """A user's mailbox in another store of this server, during the block."""
    with store.mailbox(user) as mailbox:
        yield OtherStore(mailbox)


def _trouble(what: str, error: OSError) -> StoreTrouble:
    return StoreTrouble(detail=f"{what}: {error.strerror or error}")


def read_contents(
    source: Source,
    maildir: AdoptedMaildir,
    known: Sequence[Known],
    names: Sequence[str],
    progress: Callable[[int, int], object],
    stopped: Callable[[], bool],
) -> tuple[Mapping[bytes, Contents], Mapping[str, Contents]]:
    """Octets and hashes of messages whose names say nothing: there, and here.

    What was read before is not read again.
    """
    theirs = {uid: one for uid, one in maildir.read_before().items() if uid in {one.uid for one in known}}
    wanted = [one for one in known if one.uid not in theirs]
    progress(len(wanted) + len(names), 0)
    if not names or not known:
        return {}, {}
    before = len(theirs)
    try:
        for one in wanted:
            if stopped():
                break
            contents = source.contents(one.uid)
            if contents is not None:
                theirs[one.uid] = contents
            progress(0, 1)
    finally:
        if len(theirs) > before:
            maildir.keep_read(theirs)
    ours = {}
    for name in names:
        if stopped():
            break
        try:
            ours[name] = maildir.contents(name)
        except (Refusal, OSError):
            # Reported as one that is not recognised.
            pass
        progress(0, 1)
    return theirs, ours
