"""Adapts a ``twisted.mail.pop3.IMailbox`` of another program's realm to ours.

A realm that yields Twisted's interface works with
:class:`~pop3toy.auth.authenticator.PortalAuthenticator` as it is.  Its methods run
on the reactor thread, as they do under Twisted's own server.  ``listMessages`` and
``sync`` may answer with a Deferred, as Twisted's interface says.

Importing this file registers the adapter for who would rather write
``IMailbox(mailbox)``, which works if ``listMessages`` answers at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.mail.interfaces import IMailboxPOP3 as ITwistedMailbox
from twisted.python.components import registerAdapter
from zope.interface import implementer

from .. import limits
from ..errors import MessageGone, StoreTrouble
from ..interfaces import Entry, IMailbox, MaybeDeferred, MessageBody
from ..mail.octets import Encoder
from ..mail.unique_ids import unique_id_is_valid

__all__ = ["TwistedMailbox", "adapted"]

log = Logger()
_T = TypeVar("_T")


class _StreamBody:
    """A body from a file object, read one chunk ahead to know the end."""

    def __init__(self, stream: Any) -> None:
        self.done = False
        self._stream = stream
        # A file that was opened as text holds octets all the same, in any charset.
        self._octets = getattr(stream, "buffer", stream)
        self._next: bytes | None = None

    def _read(self) -> bytes:
        try:
            chunk = self._octets.read(limits.CHUNK)
        except (OSError, ValueError) as error:
            raise StoreTrouble(detail=f"reading from a mailbox's file: {type(error).__name__}") from error
        # Some mailboxes hand out text.
        return chunk.encode("utf-8", "surrogateescape") if isinstance(chunk, str) else bytes(chunk)

    def pull(self, most: int = limits.CHUNK) -> bytes:
        """The next chunk."""
        chunk = self._read() if self._next is None else self._next
        self._next = self._read() if chunk else b""
        self.done = not self._next
        return chunk

    def close(self, octets: int | None) -> None:
        """Close the file, if it can be closed."""
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()


@implementer(IMailbox)
class TwistedMailbox:
    """Our mailbox over Twisted's.

    Octets are counted by reading each message, because Twisted's interface
    does not say whether ``listMessages`` counts CRLF or LF.  Unique-ids that
    POP3 does not allow are hashed.

    :param mailbox: a ``twisted.mail.pop3.IMailbox``.
    :param sizes: what its ``listMessages`` gave, if it was asked already.
    """

    read_only = False

    def __init__(self, mailbox: ITwistedMailbox, sizes: Sequence[int] | None = None) -> None:
        self._mailbox = mailbox
        self._indices: dict[bytes, int] = {}
        self._folded: set[bytes] = set()
        self._removed: set[bytes] = set()
        entries = []
        for index, size in enumerate(_at_hand(mailbox.listMessages()) if sizes is None else sizes):
            # Twisted's mailboxes say 0 for a message that is deleted.
            if not size:
                continue
            uid = self._uid(index)
            self._indices[uid] = index
            entries.append(Entry(uid, self._octets(index)))
        self.entries: Sequence[Entry] = entries

    def _uid(self, index: int) -> bytes:
        given = self._mailbox.getUidl(index)
        raw = given.encode("utf-8", "surrogateescape") if isinstance(given, str) else bytes(given)
        uid = raw
        copy = 0
        while uid.lower() in self._folded or not unique_id_is_valid(uid):
            uid = hashlib.sha256(raw + b"/%d" % copy).hexdigest()[:32].encode("ascii")
            copy += 1
        self._folded.add(uid.lower())
        return uid

    def _octets(self, index: int) -> int:
        encoder = Encoder()
        body = _StreamBody(_at_hand(self._mailbox.getMessage(index)))
        try:
            while not body.done:
                encoder.feed(body.pull())
        finally:
            body.close(None)
        encoder.finish()
        return encoder.octets

    def read(self, uid: bytes) -> MaybeDeferred[MessageBody]:
        """See :class:`~pop3toy.interfaces.IMailbox`."""
        if uid in self._removed:
            raise MessageGone
        try:
            return _StreamBody(_at_hand(self._mailbox.getMessage(self._indices[uid])))
        except (ValueError, IndexError, OSError) as error:
            raise MessageGone(detail=f"a mailbox gave no message: {type(error).__name__}") from error

    def remove(self, uids: Sequence[bytes]) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.IMailbox`."""
        failed = []
        for uid in uids:
            if uid in self._removed:
                continue
            try:
                self._mailbox.deleteMessage(self._indices[uid])
            except (ValueError, IndexError, FileNotFoundError):
                # There is none any more, which is all that was wanted.
                pass
            except Exception as error:
                # It is another program's code: one failure must not keep the other messages.
                log.failure("a mailbox could not delete a message")
                failed.append(type(error).__name__)
                continue
            self._removed.add(uid)

        def removed(_: object) -> None:
            if failed:
                raise StoreTrouble(detail=f"a mailbox could not delete {len(failed)} messages: {failed[0]}")

        done = self._mailbox.sync()
        if isinstance(done, Deferred):
            return done.addCallback(removed)
        removed(done)
        return None

    def release(self) -> None:
        """Nothing to give back: the realm's logout does that."""


def _at_hand(result: MaybeDeferred[_T]) -> _T:
    if isinstance(result, Deferred):
        result.addErrback(lambda _: None)
        raise StoreTrouble(
            detail="a mailbox that answers with Deferreds has to provide pop3toy's IMailbox, not Twisted's"
        )
    return result


def adapted(mailbox: ITwistedMailbox) -> MaybeDeferred[IMailbox]:
    """Our mailbox over Twisted's, as soon as that has listed its messages.

    :param mailbox: a ``twisted.mail.pop3.IMailbox``.
    """

    def adapt(sizes: Sequence[int]) -> IMailbox:
        ours: IMailbox = TwistedMailbox(mailbox, sizes)
        return ours

    listing = mailbox.listMessages()
    return listing.addCallback(adapt) if isinstance(listing, Deferred) else adapt(listing)


registerAdapter(TwistedMailbox, ITwistedMailbox, IMailbox)
