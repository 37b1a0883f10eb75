"""Where unique-ids come from: the files of another server, another store, or a server by POP3."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Protocol

from ...errors import InUse, NoSuchMailbox, Refusal, StoreTrouble
from ...files import open_regular
from ...moving import courier, dovecot
from ...moving.client import Client
from ...moving.dovecot import NotRead
from ...moving.matching import Contents, Known
from ...stores.copying.adopting import AdoptedMaildir, give
from ...stores.copying.messages import Message, Store, Wire
from ...stores.maildir.links import open_named

__all__ = [
    "Courier",
    "Dovecot",
    "OtherStore",
    "Remote",
    "Source",
    "folder",
    "read",
    "read_contents",
    "trouble",
]

#: Octets of the largest file that is read: some million messages.
_MOST: Final = 512 * 1024 * 1024
#: Octets that are read at once.
CHUNK: Final = 256 * 1024
#: Octets of a message that is in memory; a larger one is in a file without a name.
_IN_MEMORY: Final = 1024 * 1024
#: What is in a lock of Dovecot's that is not Dovecot's.
_OURS: Final = b"pop3toy mailbox adopt\n"
#: Seconds after which it is kept what was read of another server.
_KEEP_EVERY: Final = 10.0
#: A unique-id that is the name of a file in a Maildir, and can be nothing else.
_LIKE_A_NAME: Final = re.compile(rb"[0-9]{9,10}\.[!-9;-~]+")
#: How folders are opened.
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Source(Protocol):
    """What another server knows of one user's mailbox; all raise ``StoreTrouble`` where it cannot be read."""

    #: Its name, for sentences.
    what: str
    #: Where it is and whose, in words of which nobody else's are the same.
    address: str

    def listed(self) -> Sequence[Known]:
        """The messages, in the order in which it lists them.

        :raises pop3toy.moving.dovecot.NotRead: if what it says is not understood.
        """

    def contents(self, uid: bytes) -> Contents | None:
        """Octets and hash of a message, read there; ``None`` if that cannot be."""


class Dovecot:
    """A ``dovecot-uidlist``.

    :param place: the folder it is in, open.
    :param maildir: where the messages are, whose headers may count.
    """

    what = "Dovecot"
    address = ""

    def __init__(self, place: int, settings: dovecot.Settings, maildir: AdoptedMaildir) -> None:
        self._place = place
        self._settings = settings
        self._maildir = maildir

    def listed(self) -> Sequence[Known]:
        """See :class:`Source`."""
        text = read(self._place, dovecot.FILE_NAME)
        if text is None:
            raise NoSuchMailbox(
                detail=f"there is no {dovecot.FILE_NAME}; is it in another folder? (--source)"
            )
        _is_last(self._place, self.what, dovecot.FILE_NAME, Courier.what, courier.FILE_NAME)
        uids = dovecot.parse(text)
        return dovecot.listed(uids, self._settings, self._xuidls(uids))

    def _xuidls(self, uids: dovecot.UidList) -> Mapping[str, str]:
        if self._settings.reuse_xuidl is False:
            return {}
        here = set(self._maildir.names)
        wanted = [one.base for one in uids.messages if one.base in here and "P" not in one.fields]
        found = ((base, dovecot.xuidl(self._maildir.header(base))) for base in wanted)
        return {base: said for base, said in found if said is not None}

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`Source`: a name is all there is."""
        return None


class Courier:
    """A ``courierpop3dsizelist``.

    :param place: the Maildir it is in, open.
    """

    what = "Courier"
    address = ""

    def __init__(self, place: int) -> None:
        self._place = place

    def listed(self) -> Sequence[Known]:
        """See :class:`Source`."""
        text = read(self._place, courier.FILE_NAME)
        if text is None:
            raise NoSuchMailbox(
                detail=f"there is no {courier.FILE_NAME}; is it in another folder? (--source)"
            )
        _is_last(self._place, self.what, courier.FILE_NAME, Dovecot.what, dovecot.FILE_NAME)
        return courier.listed(text)

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`Source`: a name is all there is."""
        return None


class OtherStore:
    """Another store of this server.

    :param mailbox: the user's mailbox there.
    :param address: see :class:`Source`.
    """

    what = "the other store"

    def __init__(self, mailbox: _Listable, address: str) -> None:
        self.address = address
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
    :param user: as whom.
    """

    def __init__(self, client: Client, user: str) -> None:
        self.what = str(client.server)
        self.address = f"pop3://{user}@{client.server}:{client.server.port}"
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
            return Wire().read(iter(lambda: file.read(CHUNK), b"")).is_what


def read(place: int, name: str) -> bytes | None:
    """A file of another server; ``None`` if it is missing.

    :param place: the open folder, whose owner may have put anything there.
    """
    try:
        file = open_regular(name, place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise trouble(name, error) from error
    with file:
        if os.fstat(file.fileno()).st_size > _MOST:
            raise StoreTrouble(detail=f"{name} is too large to be read here")
        try:
            return file.read()
        except OSError as error:
            raise trouble(name, error) from error


def _is_last(place: int, server: str, name: str, other: str, others: str) -> None:
    """See to it that it was not another server that had the mail last, whose unique-ids clients know then.

    :raises NotRead: if that has left a file that is newer.
    """
    try:
        if (
            os.stat(others, dir_fd=place, follow_symlinks=False).st_mtime
            <= os.stat(name, dir_fd=place, follow_symlinks=False).st_mtime
        ):
            return
    except OSError:
        return
    raise NotRead(
        f"{others} is newer than {name}: was it {other} that served the mail last? Then it is --from"
        f" {other.lower()}; if it was {server}, touch {name} and run it again"
    )


@contextmanager
def folder(path: str | None, maildir: AdoptedMaildir, inner: str = "") -> Iterator[int]:
    """The folder where the other server has its files, open during the block; its users may have been at it.

    :param path: where that is; ``None`` for the Maildir itself.
    :param inner: a folder in it that goes before it, if it is there.
    """
    if path is None:
        yield maildir.fd
        return
    with ExitStack() as stack:
        try:
            fd = open_named(path, FOLDER)
            stack.callback(os.close, fd)
            if inner:
                try:
                    fd = os.open(inner, FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                    stack.callback(os.close, fd)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    raise trouble(os.path.join(path, inner), error) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise NoSuchMailbox(detail=f"there is no folder {path}") from None
            raise trouble(path, error) from error
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
        # Whoever changes something has the Maildir's lock as well, so that one of ours is of a run that was
        # killed, or this one changes nothing.  Dovecot itself takes no notice of one that is stale.
        ours = read(place, name) == _OURS
        if not ours and wall() - os.stat(name, dir_fd=place, follow_symlinks=False).st_mtime < stale:
            raise InUse(detail=f"Dovecot is at it: {name} is there")
        if taken is not None:
            os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        pass
    if taken is None:
        return
    try:
        with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place), "wb") as file:
            taken.callback(os.unlink, name, dir_fd=place)
            give(file.fileno(), place)
            file.write(_OURS)
    except FileExistsError:
        raise InUse(detail=f"Dovecot is at it: {name} is there") from None
    except OSError as error:
        # Else it is a copy that nobody writes to.
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise trouble(name, error) from error


@contextmanager
def other_store(store: Store, user: str) -> Iterator[OtherStore]:
    """A user's mailbox in another store of this server, during the block."""
    with store.mailbox(user) as mailbox:
        yield OtherStore(mailbox, f"{store.address} {user}")


def trouble(what: str, error: OSError) -> StoreTrouble:
    """What to raise where a file cannot be read."""
    return StoreTrouble(detail=f"{what}: {error.strerror or error}")


def read_contents(
    source: Source,
    maildir: AdoptedMaildir,
    known: Sequence[Known],
    names: Sequence[str],
    progress: Callable[[int, int], object],
    stopped: Callable[[], bool],
    clock: Callable[[], float],
) -> tuple[Mapping[bytes, Contents], Mapping[str, Contents]]:
    """Octets and hashes of messages whose names say nothing: there, and here.

    What was read there before is not read again, also where that run was killed.

    :param clock: seconds, of a clock that nobody sets.
    """
    uids = {one.uid for one in known}
    theirs = {uid: one for uid, one in maildir.read_before(source.address).items() if uid in uids}
    wanted = [one for one in known if one.uid not in theirs]
    progress(len(wanted) + len(names), 0)
    if not names or not known:
        return {}, {}
    kept, when = len(theirs), clock()
    try:
        for one in wanted:
            if stopped():
                break
            contents = source.contents(one.uid)
            if contents is not None:
                theirs[one.uid] = contents
            progress(0, 1)
            if clock() - when > _KEEP_EVERY:
                maildir.keep_read(source.address, theirs)
                kept, when = len(theirs), clock()
    finally:
        if len(theirs) > kept:
            maildir.keep_read(source.address, theirs)
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
