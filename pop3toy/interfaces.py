"""The interfaces: what the packages promise one another.

Some are zope interfaces because other people provide them
(:class:`IMailStore`, :class:`IMailbox`, :class:`IDelivery`, :class:`IObserver`).  The small values
and protocols that travel through them stand here as well, so that a reader
needs no other file to write a store, on this machine or on a network.

Nothing here imports a reactor, a transport or another module but ``addresses``, ``errors`` and ``limits``.

A result written as ``X or Deferred of X`` may be given at once or later: what
is at hand is given at once, because a Deferred costs more than most answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from . import limits
from .addresses import Address
from .errors import AuthenticationFailed, StoreTrouble

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "LATER",
    "After",
    "Authenticator",
    "Batcher",
    "Challenge",
    "Channel",
    "ConnectionSlot",
    "Delayed",
    "Entry",
    "Exchange",
    "GateAnswer",
    "ICancellableStore",
    "IDelivery",
    "IGate",
    "IKeepingMailbox",
    "ILeasedMailbox",
    "IMailStore",
    "IMailbox",
    "IObserver",
    "IRecipientResolver",
    "IRemovedMessages",
    "IServerControl",
    "IStoreAdmin",
    "IViewableStore",
    "Incoming",
    "Later",
    "Limiter",
    "Login",
    "MaybeDeferred",
    "MessageBody",
    "Outgoing",
    "OutgoingIncoming",
    "OutgoingMail",
    "OutgoingRecipient",
    "RemovedMessage",
    "SessionInfo",
    "SessionRecord",
    "StoredMessage",
    "TLSFacts",
    "is_deferred",
]

_T = TypeVar("_T")
#: At hand now, or a Deferred of it.
MaybeDeferred: TypeAlias = _T | Deferred[_T]


def is_deferred(result: _T | Deferred[Any]) -> TypeIs[Deferred[Any]]:
    """Whether a result comes later.

    What ``isinstance`` says, and faster: ``Deferred`` is an abstract base class, which asks
    Python code about every object that is none.
    """
    return Deferred in type(result).__mro__


class Entry(NamedTuple):
    """One message as a listing knows it: ``Entry(uid, octets)``, perhaps with ``arrived``."""

    #: The unique-id: 1 to 70 octets of 0x21 to 0x7E (RFC 1939 section 7).
    uid: bytes
    #: Octets in wire form: CRLF line ends and a final CRLF, before
    #: dot-stuffing (RFC 1939 section 11).  :func:`pop3toy.octets` counts them.
    octets: int
    #: When it came, in seconds since the epoch; ``None`` where the store does not know without
    #: looking at each message.  The same in every session.
    arrived: float | None = None


class MessageBody(Protocol):
    """A message that is being read, pulled chunk by chunk; any line ends.

    Chunks are the message as the store keeps it, with LF or CRLF; whoever pulls
    them makes CRLF of all line ends, and stuffs dots (RFC 1939 section 3).
    ``BytesBody`` and ``FileBody`` are two of them.
    """

    @property
    def done(self) -> bool:
        """True as soon as the last chunk has been handed out."""

    def pull(self, most: int = limits.CHUNK) -> MaybeDeferred[bytes]:
        """The next chunk: bytes if at hand, else a Deferred of them.

        :param most: octets that are wanted at the most; TOP asks for few.  A
            store may give more if that is cheaper for it.

        An empty chunk is allowed and does not mean the end; ``done`` does.
        Never called again before the last Deferred has fired.

        :raises pop3toy.errors.MessageGone: (or fails with) before the first
            chunk, if the message has vanished.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot be
            read, or ends before its end.
        """

    def close(self, octets: int | None) -> None:
        """Let go of it; called exactly once, also after an error.

        :param octets: how many octets the whole message had in wire form
            (before dot-stuffing) when all of it went out, else ``None``.
        """


class Stream(Protocol):
    """A reply that is pulled piece by piece."""

    @property
    def done(self) -> bool:
        """True as soon as the last piece has been handed out."""

    def pull(self) -> MaybeDeferred[bytes]:
        """The next piece.  Raises, or fails, with what the store raised."""

    def close(self) -> None:
        """Let go of what it reads from, whole or not."""


class IMailbox(Interface):
    """One user's maildrop, opened and locked for one session (RFC 1939 section 4).

    A session calls ``read`` for one message after the other, ``remove`` once at most, and ``release``
    in the end, however it ends: also while a Deferred of ``read`` or of a body is still out.
    """

    entries: Sequence[Entry] = Attribute(
        """The messages, in an order that is the same in every session
        (delivery time).  Never changes while the mailbox is open.  Unique-ids
        are unique, no two differ by case alone."""
    )

    read_only: bool = Attribute(
        """Whether nothing can be removed: DELE is refused then, and ``remove`` is not
        called.  Never changes.  Taken to be false for a mailbox that has no such attribute."""
    )

    def read(uid: bytes) -> MaybeDeferred[MessageBody]:
        """Open a message for reading.

        :param uid: of one of ``entries``.
        :return: the body, or a Deferred of it.  Where each look costs a request let the body make it: its
            first ``pull`` tells how much is wanted, and may find that the message is gone.
        :raises pop3toy.errors.MessageGone: (or fails with) if it vanished.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if the store
            cannot read it.
        """

    def remove(uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """Remove exactly these messages, durably, before the result is there.

        Idempotent: a message that is gone already counts as removed.

        :param uids: of some of ``entries``; those of the messages that QUIT removes.
        :return: ``None``, or a Deferred of it.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if not all of
            them could be removed.
        """

    def release() -> MaybeDeferred[None]:
        """Give the lock back.  Removes nothing, raises nothing.  May be called twice.

        QUIT is answered when that is done, or after ``limits.RELEASE`` seconds; other logins of the user
        that wait for the lock, and a server that stops, wait for it as well.

        :return: ``None``, or a Deferred that fires when the lock is free, if something
            that is under way has to end before, or a network has to be asked.
        """


class IKeepingMailbox(IMailbox):
    """A mailbox whose ``remove`` may keep messages for a while, apart (:class:`IRemovedMessages`)."""

    def remove_for_good(uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """As ``remove``, and keep nothing."""


class ILeasedMailbox(IMailbox):
    """A mailbox whose lock can be lost while the session lasts, such as a lease that has to be renewed.

    Its ``remove`` looks once more before it begins, and raises (or fails with)
    :class:`~pop3toy.errors.StoreTrouble`, with nothing removed, when the lock is lost; its ``release`` gives
    away nothing that another session holds by then.
    """

    def when_lost(call: Callable[[str], object]) -> None:
        """Set what is called when the lock is lost.  Called once, when the session begins.

        The session ends then without UPDATE: nothing is removed, whatever was marked.  Gives no
        Deferred, and raises nothing.

        :param call: ``call(why)``, a sentence for the log.  At most once, from the reactor's thread, and
            not within a method of the mailbox, ``when_lost`` included.  Calling it after
            ``release`` is harmless.
        """


class IMailStore(Interface):
    """Where the maildrops of all users are."""

    def open(user: str) -> MaybeDeferred[object]:
        """Open and lock the maildrop of a user who has been authenticated.

        :param user: the name as the accounts spell it; for a store it is still a stranger's word.
        :return: an :class:`IMailbox` (or a Deferred of one).
        :raises pop3toy.errors.InUse: (or fails with) at once when another
            session holds it.
        :raises pop3toy.errors.StoreTrouble: (or fails with) when it is
            missing, unreadable or half-made.  Never an empty mailbox instead.
        """


class ICancellableStore(IMailStore):
    """A store whose opening of a maildrop can be given up."""

    def open(user: str) -> MaybeDeferred[object]:
        """See :class:`IMailStore`.

        A Deferred may be cancelled.  It fails then, at once; what was begun ends soon,
        and leaves nothing locked.

        :param user: whose.
        :raises pop3toy.errors.StoreTrouble: (or fails with) and ``InUse`` as there.
        """


class IViewableStore(IMailStore):
    """A store that can show a maildrop to a reader who must not change it, while others have it open.

    Without it anonymous visitors need the lock of the maildrop that they see.
    """

    def view(user: str) -> MaybeDeferred[object]:
        """Open a maildrop as it is now, without its lock.

        :param user: whose.
        :return: an :class:`IMailbox` (or a Deferred of one), of which only ``entries``, ``read`` and
            ``release`` are used.  What its owner removes meanwhile is :class:`~pop3toy.errors.MessageGone`.
        :raises pop3toy.errors.StoreTrouble: (or fails with) as ``open`` does; never ``InUse``.
        """


class Incoming(Protocol):
    """One message on its way to one or several users; no session sees it before ``commit``."""

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """Add octets (any size, LF or CRLF line ends, no dot-stuffing), once for all users.

        A Deferred asks the caller to wait before the next chunk.

        :param chunk: the next octets of the message.
        :raises pop3toy.errors.StoreTrouble: (or fails with) when none of the users can have the
            message any more.  It is lost then: the caller aborts, and a ``commit`` would fail.
            What only some cannot have is told by ``commit``.
        """

    def commit(self, *, together: bool = True) -> Deferred[Sequence[bytes | StoreTrouble]]:
        """Make it durable and visible; fires when both are true for all who get it.

        :param together: if one user cannot have it, none gets it.
        :return: for each user, in the order of ``begin``, the uid, or why the user has not got it;
            uids alone if they stand together.  Fails with :class:`~pop3toy.errors.StoreTrouble`
            when nobody has it, and then nobody will find the message.  (What several must have
            together may be taken back: whoever has seen it in that moment finds it gone.)
        """

    def abort(self) -> None:
        """Forget it.  Harmless after ``commit`` and when called twice."""


class IDelivery(Interface):
    """A store that takes new mail.  Needs no lock: a session's numbers never move."""

    def check(user: str, octets: int = 0) -> MaybeDeferred[None]:
        """Whether a user can have a message now, as far as that can be told before it comes.

        Nothing is kept for it, and nothing has to be given back.

        :param user: whose mail it would be.
        :param octets: how large the message will be, as far as it was told; 0
            if it was not.
        :return: ``None`` (or a Deferred of it): the user can have it.
        :raises pop3toy.errors.NoSuchMailbox: (or fails with) if the store
            keeps no mailbox for the user and may not make one.
        :raises pop3toy.errors.OverQuota: (or fails with) if there is no room for it.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot take
            mail now.
        """

    def begin(users: Sequence[str], octets: int = 0) -> MaybeDeferred[Incoming]:
        """Start the delivery of one message to all these users.

        :param users: whose mail it is: at least one, and nobody twice.
        :param octets: as for ``check``.
        :return: an object with the methods ``write(chunk)``, ``commit(together=True)`` and
            ``abort()`` of :class:`Incoming`, or a Deferred of one.
        :raises pop3toy.errors.StoreTrouble: (or fails with) as ``check``, if it is known already
            that none of them can have it.  What is wrong with some, and what was not looked
            for here, is told by ``commit``.
        """


class OutgoingRecipient(NamedTuple):
    """Somebody elsewhere to whom a user writes."""

    #: As it was written.
    address: str
    #: The words of NOTIFY in capitals, and ORCPT as it came (RFC 3461); empty if they were not given.
    notify: tuple[str, ...] = ()
    original: str = ""
    #: Not elsewhere: a recipient here, of whose delivery the sender wants to be told (``NOTIFY=SUCCESS``).
    here: bool = False


class OutgoingMail(NamedTuple):
    """The envelope of a message that a user hands in for others elsewhere."""

    #: Under which the client is told of the message.
    queue_id: str
    #: Who has logged in.
    user: str
    #: An address of the user's; empty for a message that must not be answered.
    sender: str
    recipients: Sequence[OutgoingRecipient]
    #: Whether SMTPUTF8 was said (RFC 6531).
    utf8: bool = False
    #: RFC 3461 sections 4.3 and 4.4: ``FULL`` or ``HDRS``, and ENVID as it came; empty if not given.
    ret: str = ""
    envid: str = ""


class OutgoingIncoming(Protocol):
    """A message on its way into the queue; in two steps, since others may get it at the same time."""

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """Add octets, as they are sent, with CRLF.

        :param chunk: the next ones.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot be kept.
        """

    def prepare(self) -> Deferred[None]:
        """Make it durable, though nobody sees it yet.

        Fails with :class:`~pop3toy.errors.StoreTrouble` if it cannot be.
        """

    def commit(self) -> Deferred[None]:
        """Put it into the queue, durably.

        Fails with :class:`~pop3toy.errors.StoreTrouble` if it cannot be.
        """

    def abort(self) -> None:
        """Forget it.  Harmless after ``commit`` and when called twice."""


class Outgoing(Protocol):
    """Takes mail for addresses elsewhere; :class:`pop3toy.outgoing.service.OutgoingQueue` does."""

    async def refusal(self, user: str, recipients: int) -> str | None:
        """Why a user may not write to so many recipients more now.

        :param user: who has logged in.
        :param recipients: how many, at least one.
        :return: a sentence; ``None`` if that is all right.
        :raises pop3toy.errors.StoreTrouble: if that cannot be known now.
        """

    async def count(self, user: str, recipients: int) -> str | None:
        """Count these recipients for the user's limit, if they are allowed.

        :param user: and the others: as for :meth:`refusal`.
        """

    def begin(self, mail: OutgoingMail) -> OutgoingIncoming:
        """Take a message.

        :param mail: its envelope.
        """


class IRecipientResolver(Interface):
    """Says whose an address is; :class:`pop3toy.routing.recipients.RecipientResolver` is the one shipped."""

    def ours(address: Address) -> bool:
        """Whether mail for this address is taken at all.

        :param address: of MAIL or RCPT.
        """

    def at_home(address: Address, here: Collection[str]) -> Address:
        """The address in our first domain if its own is another name of this host, else as it is.

        :param address: of MAIL.
        :param here: this host's names and IP addresses.
        """

    def in_full(address: Address) -> Address:
        """The address with its domain, for headers.

        :param address: of RCPT.
        """

    def resolve(address: Address) -> Awaitable[Sequence[str]]:
        """The users who get mail for this address, each once, at least one.

        :param address: of MAIL or RCPT.
        :raises pop3toy.errors.NotOurs: if it would have to be sent on.
        :raises pop3toy.errors.NoSuchMailbox: if its domain is ours and no user has it.
        :raises pop3toy.errors.StoreTrouble: if that cannot be known now.
        """


class StoredMessage(NamedTuple):
    """One message as an administrator sees it."""

    #: Its unique-id, and its octets as LIST tells them.
    uid: bytes
    octets: int
    #: Where it is, for people: a file's path, an object's key.
    where: str
    #: When it came, in seconds since the epoch; ``None`` where the store does not know.
    arrived: float | None = None


class IStoreAdmin(Interface):
    """What the ``pop3toy`` command asks of any store.

    The methods wait for the disk or the network, and return no Deferred: call them in a thread, or
    where nothing else runs.  None makes a mailbox.  All but ``exists`` and ``users`` raise
    :class:`pop3toy.errors.NoSuchMailbox` for a user without a mailbox, and
    :class:`pop3toy.errors.StoreTrouble` for one that cannot be read.
    """

    def users() -> Sequence[str]:
        """The users who have a mailbox, in alphabetical order.

        What cannot be opened is among them: the other methods say what is wrong with it.

        :raises pop3toy.errors.StoreTrouble: if that cannot be told.
        """

    def exists(user: str) -> bool:
        """Whether a user has a mailbox.

        :param user: any text, such as the local part of an address.
        :raises pop3toy.errors.StoreTrouble: if that cannot be told.
        """

    def list(user: str) -> Sequence[StoredMessage]:
        """The messages, in the order in which POP3 would list them now.  Takes no lock.

        :param user: whose.
        :return: values with ``uid`` (bytes), ``octets`` and ``where``, the place for people.
        """

    def read(user: str, message: StoredMessage) -> BinaryIO:
        """A message that was listed, open for reading, as it is kept, with any line ends.

        :param user: whose.
        :param message: what :meth:`list` told of it.
        :raises pop3toy.errors.MessageGone: if it is not there any more.
        """

    def problems(user: str, *, read: bool = True) -> Iterable[str]:
        """What is wrong in a mailbox, a sentence each; nothing is changed.

        :param user: whose.
        :param read: whether the messages are read as well.
        """

    def usage(user: str) -> int:
        """The octets that count against a quota.

        :param user: whose.
        """

    def remove(user: str) -> None:
        """Remove a mailbox with all that is in it.

        No session and no delivery finds half of it: a delivery that is under way fails.

        :param user: whose.
        :raises pop3toy.errors.InUse: if a session holds it; then nothing is removed.
        """


class RemovedMessage(NamedTuple):
    """One message that a session has removed and that is kept."""

    message: StoredMessage
    #: When it was removed, in seconds since the epoch; the same for all that one session has removed.
    removed: float


class IRemovedMessages(Interface):
    """What sessions have removed and is kept for a while: of stores that can.

    What has it is an :class:`IStoreAdmin`, too, whose ``read`` reads these messages.  The methods wait for
    the disk, and raise :class:`pop3toy.errors.NoSuchMailbox` for a user without a mailbox and
    :class:`pop3toy.errors.StoreTrouble` for one that cannot be used.
    """

    def removed(user: str, tell: Callable[[str], object] | None = None) -> Sequence[RemovedMessage]:
        """What is kept, first what was removed first.  Takes no lock.

        :param user: whose.
        :param tell: told in a sentence of each thing there that cannot be read, and is left out; without it
            that is a StoreTrouble.
        """

    def put_back(user: str, messages: Sequence[RemovedMessage], *, look: bool = False) -> Sequence[str]:
        """Let messages be in the mailbox again, durably, with the unique-ids and the order that they had.

        :param user: whose.
        :param messages: what :meth:`removed` told.
        :param look: change nothing, and take no lock.
        :return: for each why it cannot be put back, and is kept still; empty where it is back.
        :raises pop3toy.errors.InUse: if a session holds the mailbox; nothing was changed then.
        """

    def forget(user: str, before: float, tell: Callable[[str], object] | None = None) -> tuple[int, int]:
        """Remove for good what was removed at this time or before it.

        :param user: whose.
        :param before: seconds since the epoch.
        :param tell: told in a sentence of each thing that cannot be removed, and stays; without it that is a
            StoreTrouble.
        :return: how many messages, and octets on the disk.
        :raises pop3toy.errors.InUse: if there is such mail and a session holds the mailbox; all is kept then.
        """


class IMailboxRenaming(Interface):
    """Gives a mailbox another user: of stores that can.  What has it is an :class:`IStoreAdmin`, too."""

    def rename(user: str, new: str, then: Callable[[], object]) -> None:
        """Let a mailbox with all that is in it be another user's.  Blocks.

        No session finds half of it.  After a crash at any moment all mail is in one of the two users'
        mailboxes, and the same call again comes to the end.

        :param user: whose it is.
        :param new: whose it is to be; an empty mailbox of theirs is replaced.
        :param then: renames the account: is called while the mailbox is held and can be renamed, once.
            What it raises goes through, and the mailbox stays.
        :raises pop3toy.errors.NoSuchMailbox: if there is none.
        :raises pop3toy.errors.InUse: if a session holds it.
        :raises pop3toy.errors.StoreTrouble: if the new user has mail already, or it cannot be done.
        """


class IMailboxUnlocking(Interface):
    """Makes a lost lock anew: of stores where one can be.  What has it is an :class:`IStoreAdmin`, too."""

    def unlock(user: str) -> bool:
        """Let a mailbox be opened again whose lock is lost or cannot be read.  Blocks.

        A lock that can be read is left alone, whoever has it.  A session that has the mailbox open and loses
        its lock so removes nothing.

        :return: whether there was something to do.
        :raises pop3toy.errors.NoSuchMailbox: if there is none.
        :raises pop3toy.errors.StoreTrouble: if it cannot be done.
        """


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """What TLS told about a connection, and how to ask it for more."""

    #: ``"TLSv1.3"``.
    version: str
    cipher: str
    #: The verified subject's common name or mail address of a client certificate.
    client_name: str | None = None
    #: ``exporter(label, context, length)`` of RFC 9266, where TLS can do it.
    exporter: Callable[[bytes, bytes | None, int], bytes] | None = None
    #: The hash of the server's certificate for ``tls-server-end-point`` (RFC 5929).
    server_end_point: bytes | None = None


@dataclass(frozen=True, slots=True)
class Channel:
    """What is known about the connection that a session speaks through."""

    #: The client's address in text: ``127.0.0.1``, ``::1``, or ``unix`` for a
    #: Unix socket.  With the PROXY protocol the one that the proxy tells.
    host: str
    #: Loopback or a Unix socket: no one on a network can listen.
    local: bool
    #: TLS facts once TLS is on.
    tls: TLSFacts | None = None

    @property
    def private(self) -> bool:
        """Whether a clear-text password cannot be overheard on a network."""
        return self.local or self.tls is not None


class Login(NamedTuple):
    """A successful login: what an authentication gives to the session."""

    user: str
    mailbox: IMailbox
    #: Gives the mailbox back (twisted.cred's logout); may return a Deferred of its end.
    logout: Callable[[], object]
    #: ``USER``, ``APOP`` or the SASL mechanism's name.
    mechanism: str
    #: Tells that the session is ending, and the mailbox free as soon as that is done: others
    #: wait for it.
    ending: Callable[[], object] = lambda: None


@dataclass(slots=True)
class SessionRecord:
    """What is known of one connection, and what it did."""

    number: int
    channel: Channel
    #: ``POP3``, ``SMTP``, ``submission`` or ``LMTP``.
    protocol: str = ""
    user: str | None = None
    mechanism: str | None = None
    #: Octets received from and sent to the client.
    received: int = 0
    sent: int = 0
    #: Messages of which RETR handed over all, and that were removed at QUIT.
    retrieved: int = 0
    removed: int = 0
    #: Seconds from connection to end.
    seconds: float = 0.0
    #: Gives up the maildrop that is being opened, while it is: called when the connection is gone.
    give_up_opening: Callable[[], object] | None = field(default=None, repr=False)
    #: How it ended: ``quit``, ``dropped`` (by the client), ``timeout``, ``limit`` (too many mistakes, or
    #: others needed the place), ``rejected`` (it was one connection too many), ``administrator``,
    #: ``shutdown``, ``store`` (it failed in the middle of a message), ``bug`` or what
    #: :meth:`IServerControl.close` was given.
    ended: str = "dropped"
    #: Whether the client has gone, or can do nothing more with an answer than read it.
    client_left: bool = False
    #: Called when that comes, by whoever keeps the client waiting only as long as it is there.
    when_client_leaves: Callable[[], object] | None = field(default=None, repr=False)

    def leave(self) -> None:
        """The client has gone, or will send nothing more and all that it sent is being carried out."""
        self.client_left = True
        leaves, self.when_client_leaves = self.when_client_leaves, None
        if leaves is not None:
            leaves()


class After(Enum):
    """What happens to the connection once a reply is out."""

    GO_ON = "go on"
    CLOSE = "close"
    START_TLS = "start TLS"
    #: What comes next are no lines but a message.
    READ_TEXT = "read text"


class Later(Enum):
    """What a conversation says whose connection is to end while something has to be finished first."""

    LATER = "later"


LATER: Final = Later.LATER


class Challenge(NamedTuple):
    """What a SASL mechanism asks next (RFC 5034 section 4), and the reply that asks it."""

    #: The raw octets; the protocol makes base64 of them.
    data: bytes
    #: If it asks nothing but explains why the client is not let in: that.  The
    #: exchange has failed, whatever the client answers (RFC 7628 section 3.2.3).
    refusal: AuthenticationFailed | None = None
    #: As every reply has them.
    after: After = After.GO_ON
    done: Callable[[], object] | None = None


class Exchange(Protocol):
    """One SASL exchange in progress (RFC 4422), with the client's lines as POP3 and SMTP have them."""

    @property
    def mechanism(self) -> str:
        """Its registered name, such as ``SCRAM-SHA-256``."""

    @property
    def user(self) -> str | None:
        """The name that the client claims, once it is known; for the log."""

    @property
    def refusal(self) -> AuthenticationFailed | None:
        """Why it has failed, if the last challenge said so; raised at the next line, whatever that is."""

    def respond(self, line: bytes | None) -> MaybeDeferred[Challenge | Login]:
        """Take a line of the client as it came: base64, or ``*``, which cancels the exchange.

        :param line: without its line end.  In the first call the argument of AUTH: ``=`` is an empty
            initial response there, and ``None`` is none at all.
        :return: the next challenge, or the login when it is proven.
        :raises pop3toy.errors.Refusal: (or fails with) when it is over: ``AuthenticationFailed`` for
            bad credentials, ``AuthenticationCancelled`` for ``*``, its subclass ``NotBase64`` for a
            line that is not base64, ``BadCommand`` for a response that is not well-formed.  A
            :attr:`refusal` that ``*`` has brought out has an ``AuthenticationCancelled`` as its
            ``__cause__``: SMTP answers that with 501 all the same (RFC 4954 section 4).
        """

    def cancel(self) -> None:
        """The client went away, or its line was too long."""


class ConnectionSlot(Protocol):
    """One connection of those that the limits allow; given back by :meth:`release`."""

    def logged_in(self) -> None:
        """A user has logged in, or the client brings a message: the connection is not evicted."""

    def idle(self) -> None:
        """The client would lose little: the connection is evicted before unauthenticated ones."""

    def release(self) -> None:
        """The connection is closed.  Harmless when called twice."""


class Limiter(Protocol):
    """Counts connections: in all, from one address, and those that have not logged in."""

    def acquire(self, host: str, evict: Callable[[], object]) -> ConnectionSlot:
        """A client has connected.

        :param host: its address in text; ``unix`` for a Unix socket.
        :param evict: closes the connection, to make room for another one.
        :raises pop3toy.errors.Refusal: if there are too many.
        """


class Delayed(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """It is not to come."""


class Batcher(Protocol):
    """Has the reactor read from all connections that are ready before the first of them is answered."""

    def postpone(self, call: Callable[[], object]) -> bool:
        """Call this when all connections that are ready have been read; or answered, if they have been read.

        :return: whether that will be; if not, no other connection is ready, and the
            caller goes on at once.
        """


class Authenticator(Protocol):
    """What a session asks of ``auth/``: mechanisms, and logins."""

    def clear_text(self, channel: Channel) -> bool:
        """Whether USER and PASS are offered and taken on this connection."""

    def timestamp(self, channel: Channel) -> str | None:
        """A fresh APOP timestamp ``<...>``, or ``None`` where APOP cannot work."""

    def mechanisms(self, channel: Channel) -> Sequence[str]:
        """The SASL mechanisms that can work here now, best first."""

    def login_delay(self) -> int:
        """Seconds that LOGIN-DELAY announces; 0 for none (RFC 2449 section 6.5)."""

    def password(self, user: bytes, password: bytes, record: SessionRecord) -> MaybeDeferred[Login]:
        """Check a clear-text password and open the maildrop.

        :raises pop3toy.errors.Refusal: (or fails with) ``AuthenticationFailed``,
            ``InUse``, ``LoginDelay`` or ``StoreTrouble``.
        """

    def apop(self, user: bytes, digest: bytes, timestamp: str, record: SessionRecord) -> MaybeDeferred[Login]:
        """The same for APOP: ``digest`` is the MD5 of timestamp and secret in hex."""

    def begin(self, mechanism: str, record: SessionRecord) -> Exchange:
        """Start a SASL exchange.

        :raises pop3toy.errors.BadCommand: if the mechanism is not offered here.
        """


class IObserver(Interface):
    """It is told what happens: the log, a transcript, metrics.

    It must not block, and cannot act: that is for an :class:`IGate` or :class:`IServerControl`.
    """

    wants: Collection[type] = Attribute("The kinds of events that it is told of, of :mod:`pop3toy.events`.")

    def observe(event: Any) -> object:
        """Something happened.

        What this raises is logged and disturbs no conversation; what it returns, a Deferred too, is ignored.

        :param event: of one of the kinds in ``wants``.
        """


class GateAnswer(NamedTuple):
    """What a gate has said to a command in place of carrying it out."""

    #: With its line ends.
    reply: bytes


class IGate(Interface):
    """It acts on a conversation: holds, delays, changes or drops commands and replies.

    Of a message that comes in by SMTP it sees the commands and the replies, not the text.

    For debuggers, and for faults in tests: it sees lines and replies as they are, secrets included.
    If it raises, that is logged and the conversation goes on as without it.  A server without one
    runs no line of code for it.
    """

    def command(record: SessionRecord, line: bytes) -> MaybeDeferred[bytes | GateAnswer | None]:
        """A line of the client's is about to be carried out.

        :param record: of the connection: its number, its channel and its user.
        :param line: without its line end.
        :return: the line to carry out, this one or another; a :class:`GateAnswer` if none is, and this is
            answered; ``None`` if none is and nothing is answered.
            While a Deferred of it has not fired, nothing else of this client is carried out.
        """

    def reply(
        record: SessionRecord, line: bytes, reply: bytes | Stream
    ) -> MaybeDeferred[bytes | Stream | None]:
        """A reply is about to be sent.

        :param record: of the connection.
        :param line: that it answers, as it was carried out; empty for the greeting and for what is said
            to one connection too many, ``b"."`` for what is said behind a message.
        :param reply: octets, or a :class:`Stream` of them where they are pulled piece by piece, as
            messages and listings are.
        :return: what is sent, this or another; ``None`` for nothing.  A stream that fails behind its
            first piece ends the connection there; one that pulls another has to close that when it is
            closed.
        """


class SessionInfo(NamedTuple):
    """A connection as it is now."""

    session: int
    #: ``POP3``, ``SMTP``, ``submission`` or ``LMTP``.
    protocol: str
    channel: Channel
    user: str | None
    mechanism: str | None
    #: ``AUTHORIZATION``, ``TRANSACTION``, ``UPDATE`` ...
    state: str
    #: Seconds since it was made, and since the client's last octet or ours.
    seconds: float
    idle: float
    #: Octets from and to the client.
    received: int
    sent: int
    #: Messages.
    retrieved: int


class IServerControl(Interface):
    """What may be done to a running server; :func:`pop3toy.server` gives it as ``service.control``."""

    mailboxes: Any = Attribute(
        """The store as an :class:`IStoreAdmin`, whose methods wait for the disk or the network: call
        them in a thread.  ``None`` where the store does not provide that interface."""
    )

    draining: bool = Attribute(
        "Whether no more connections are taken, or soon will not be, because of :meth:`drain`."
    )

    def sessions() -> Sequence[SessionInfo]:
        """The connections of this process, oldest first, whatever they speak."""

    def close(session: int, *, why: str = "administrator", at_once: bool = False) -> bool:
        """End a connection; what is being made durable is finished before.

        :param session: its number.
        :param why: see :attr:`SessionRecord.ended`.
        :param at_once: by a reset, which may take what the client has not read yet.
        :return: whether there is such a connection.
        """

    def note(session: int, text: str) -> bool:
        """Tell observers what a gate did, as the next thing that happened (:class:`~pop3toy.events.Noted`).

        :param session: the connection's number.
        :param text: one line.
        :return: whether there is such a connection.
        """

    def drain() -> Deferred[None]:
        """Take no more connections and let the sessions end, as a stopping server does, but do not stop.

        Where the settings give a ``stop_delay``, connections are taken as long as it says.

        :return: fires when the last one has ended, or with :meth:`resume`.
        """

    def resume() -> None:
        """Take connections again after :meth:`drain`; sessions that have not ended yet go on."""
