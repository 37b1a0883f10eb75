"""One mailbox at another server, as ``stores.copying`` copies from it: by POP3, over as few logins as can be.

A connection that breaks is made again, not before the server allows another login, and goes on with the
message at which it broke.  Nothing is removed there.
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from ..errors import MessageGone
from ..mail.unique_ids import unique_id_is_valid
from ..stores.copying.messages import Message
from .arrival import arrival, in_order
from .client import AHEAD, Client, Listed, LoginRefused, MessageRefused
from .server import NotTrusted, Trouble

__all__ = ["Account", "RemoteMailbox", "unique_ids"]

#: How often a message is asked for, on connections that break.
TRIES: Final = 3
#: How often a login is tried that another session is in the way of, or that comes too early.
LOGINS: Final = 10
#: Seconds before the next, if the server does not say (RFC 2449 section 6.5).
BUSY: Final = 6.0
EARLY: Final = 60.0
#: Octets of a header that are looked at for its times.
HEADER: Final = 64 * 1024
#: Octets of a message that are in memory; a larger one is in a file without a name.
_IN_MEMORY: Final = 1024 * 1024
_CHUNK: Final = 256 * 1024


class Account:
    """Logins of one user, with the waits between them that the server asks for.

    :param connect: makes a connection on which the user has logged in.
    :param clock: seconds, of a clock that nobody sets.
    :param wait: waits so many seconds; may raise.
    :param tell: told in a sentence what a person should know.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        clock: Callable[[], float],
        wait: Callable[[float], object],
        tell: Callable[[str], object],
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._wait = wait
        self.tell = tell
        self._next = 0.0

    def log_in(self) -> Client:
        """A connection, as soon as the server allows it.

        :raises Trouble: if there is none.
        """
        for left in reversed(range(LOGINS)):
            self._pause(self._next - self._clock(), "the server asks for that time between logins")
            try:
                client = self._connect()
            except LoginRefused as refused:
                code = refused.given_code
                if not left or code not in ("IN-USE", "LOGIN-DELAY", "SYS/TEMP"):
                    raise
                self._next = self._clock() + (EARLY if code == "LOGIN-DELAY" else BUSY)
                self.tell(refused.detail)
            else:
                self._next = self._clock() + client.login_delay
                return client
        raise AssertionError("the last try returns or raises")

    def _pause(self, seconds: float, why: str) -> None:
        if seconds > 0:
            if seconds >= 30:
                self.tell(f"waiting {seconds:.0f} s: {why}")
            self._wait(seconds)


class RemoteMailbox:
    """A :class:`~pop3toy.stores.copying.messages.Store` with one user, and that one's mailbox.

    :param address: by which it is known: server and login, not the port.
    :param known: asked once for unique-ids that need not be fetched.
    :param now: the time of day, in seconds since the epoch.
    """

    wire = True

    def __init__(
        self,
        address: str,
        user: str,
        account: Account,
        *,
        known: Callable[[], Collection[bytes]],
        now: Callable[[], float],
    ) -> None:
        self.address = address
        self._user = user
        self._account = account
        self._tell = account.tell
        self._ask_known = known
        self._known: frozenset[bytes] = frozenset()
        self._now = now
        self._client: Client | None = None
        # By unique-id, as it is kept: the number in this session.
        self._numbers: dict[bytes, int] = {}
        self._uids: Sequence[bytes] = ()
        self._sizes: Mapping[bytes, int | None] = {}
        # By unique-id: hashes of headers, by which a message is known to be the one that was asked for.
        self._headers: dict[bytes, bytes] = {}
        self._wrong_sizes = 0

    # -- a store -----------------------------------------------------------------------

    def users(self) -> Sequence[str]:
        """See ``messages.Store``."""
        return [self._user]

    @contextmanager
    def mailbox(self, user: str, *, make: bool = False) -> Iterator[RemoteMailbox]:
        """See ``messages.Store``."""
        try:
            yield self
            if self._wrong_sizes:
                self._tell(f"{_messages(self._wrong_sizes)} had other sizes than LIST said; all are whole")
            if self._client is not None:
                if self._client.removes_what_is_fetched:
                    # Where QUIT would do that; without one nothing is removed (RFC 1939 section 6).
                    self._tell("the server says that it removes what is fetched; it is left without QUIT")
                else:
                    self._client.quit()
        finally:
            self._drop()

    # -- a mailbox ---------------------------------------------------------------------

    def list(self) -> Sequence[Message]:
        """See ``messages.Mailbox``."""
        self._known = frozenset(self._ask_known())
        client, listed, uids = self._session()
        if not client.login_delay and not self._known.issuperset(uids):
            # Some servers make them anew; then the next run would fetch all of it again.
            client.quit()
            client, listed, uids = self._again()
        times = in_order(self._times(client, listed, uids), int(self._now() * 1_000_000))
        self._sizes = {uid: one.octets for one, uid in zip(listed, uids, strict=True)}
        return [
            Message(uid, uid.decode("ascii"), time, None, "") for uid, time in zip(uids, times, strict=True)
        ]

    def read(self, message: Message) -> Iterator[bytes]:
        """See ``messages.Mailbox``; all of it has come before the first chunk is given."""
        with SpooledTemporaryFile(_IN_MEMORY) as file:
            for left in reversed(range(TRIES)):
                try:
                    client = self._client or self._again()[0]
                    if (number := self._numbers.get(message.uid)) is None:
                        raise MessageGone
                    octets = self._fetch(client, number, message.uid, file)
                    break
                except MessageRefused as refused:
                    raise OSError(errno.EIO, str(refused)) from None
                except NotTrusted:
                    raise
                except Trouble as trouble:
                    self._drop()
                    if not left or isinstance(trouble, LoginRefused):
                        raise
                    self._tell(f"{trouble.detail}; connecting again")
            if self._sizes.get(message.uid) not in (None, octets):
                self._wrong_sizes += 1
            file.seek(0)
            while chunk := file.read(_CHUNK):
                yield chunk

    def _fetch(self, client: Client, number: int, uid: bytes, file: IO[bytes]) -> int:
        """Write a message to a file, and see to it that it is this one."""
        for _ in range(2):
            file.seek(0)
            file.truncate()
            octets = client.retr(number, file, ahead=self._ahead(uid))
            file.seek(0)
            if uid not in self._headers or _header(file.read(HEADER)) == self._headers[uid]:
                break
            # Either an answer was left out, and this one is another's: then there are too few, which is a
            # reason to connect again.  Or the header is another in each answer.  Nothing is sent ahead then.
            self._headers.clear()
            client.settle()
        return octets

    def journal(self, source: str) -> bytes:
        """See ``messages.Mailbox``: there is none."""
        return b""

    # -- sessions ----------------------------------------------------------------------

    def _session(self) -> tuple[Client, Sequence[Listed], Sequence[bytes]]:
        client = self._client = self._account.log_in()
        listed = client.listing()
        uids = unique_ids(client, listed, self._tell if not self._numbers else lambda sentence: None)
        self._numbers = {uid: one.number for one, uid in zip(listed, uids, strict=True)}
        self._uids = uids
        return client, listed, uids

    def _again(self) -> tuple[Client, Sequence[Listed], Sequence[bytes]]:
        before = self._numbers.keys()
        client, listed, uids = self._session()
        if len(before & set(uids)) * 2 < min(len(before), len(uids)):
            raise Trouble(
                f"{client.server} gives messages other unique-ids in each session: none can be kept"
            )
        return client, listed, uids

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ahead(self, uid: bytes) -> Iterator[int]:
        """Numbers that will be asked for behind this one, if their headers are known."""
        if uid not in self._headers:
            return
        # Where numbers have gaps some of those are others, and are asked for later.
        behind = self._uids[self._numbers[uid] : self._numbers[uid] + 2 * AHEAD]
        yield from (self._numbers[other] for other in behind if other in self._headers)

    # -- times -------------------------------------------------------------------------

    def _times(self, client: Client, listed: Sequence[Listed], uids: Sequence[bytes]) -> Sequence[int | None]:
        """When messages came, of those that are not known."""
        wanted = [one.number for one, uid in zip(listed, uids, strict=True) if uid not in self._known]
        found: dict[int, int | None] = {}
        headers: dict[int, bytes] = {}
        for at, number in enumerate(wanted):
            header = _Start()
            try:
                client.top(number, header, ahead=wanted[at + 1 : at + 1 + AHEAD])
            except MessageRefused:
                if "TOP" not in client.capabilities:
                    self._tell("the server has no TOP, so messages get the time of now")
                    break
                continue
            except Trouble as trouble:
                # A server that fails at this may give messages out all the same.
                self._drop()
                self._tell(f"{trouble.detail}; messages behind it get the time of the last")
                break
            found[number] = arrival(header.data)
            headers[number] = _header(header.data)
        else:
            # All were answered, so each is the one that was asked for.
            pairs = zip(listed, uids, strict=True)
            self._headers = {uid: headers[one.number] for one, uid in pairs if one.number in headers}
        return [found.get(one.number) for one in listed]


def _header(data: bytes) -> bytes:
    """A hash of a message's header, or of so much of it as is looked at."""
    return hashlib.sha256(data[:HEADER].partition(b"\r\n\r\n")[0].rstrip(b"\r\n")).digest()


class _Start:
    """A file that keeps its first octets."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes, /) -> object:
        self.data += data[: HEADER - len(self.data)]
        return None


def unique_ids(client: Client, listed: Sequence[Listed], tell: Callable[[str], object]) -> list[bytes]:
    """The unique-ids under which messages can be kept: those of the server, if they are some.

    :param tell: told what cannot be kept.
    :raises Trouble: if messages have none.
    """
    if without := sum(one.uid is None for one in listed):
        raise Trouble(
            f"{client.server} leaves {without} of {_messages(len(listed))} out of UIDL; try again later"
        )
    taken: set[bytes] = set()
    same: Counter[tuple[bytes, int | None]] = Counter()
    found, invalid, doubled = [], 0, 0
    for one in listed:
        uid = one.uid or b""
        if not unique_id_is_valid(uid):
            invalid += 1
            uid = _made_of(uid)
        if uid in taken:
            doubled += 1
            same[uid, one.octets] += 1
            uid = _made_of(b"%b %d %d" % (uid, one.octets or 0, same[uid, one.octets]))
        taken.add(uid)
        found.append(uid)
    if invalid:
        tell(f"{_messages(invalid)} had unique-ids that RFC 1939 forbids; clients will fetch these again")
    if doubled:
        tell(f"{_messages(doubled)} had the unique-id of another and get their own; clients will fetch these")
    return found


def _made_of(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:40].encode("ascii")


def _messages(count: int) -> str:
    return f"{count} message{'s'[: count != 1]}"
