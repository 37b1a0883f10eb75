"""What copying knows of a message and of a store, whatever kind of store that is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from ...mail.octets import Encoder

__all__ = ["Mailbox", "Message", "Source", "SourceStore", "Store", "Wanted", "Wire"]


class Message(NamedTuple):
    """A message that was listed."""

    uid: bytes
    #: What its store calls it, as long as it is there: a base name, or the name of an object.
    name: str
    #: When it came, in microseconds since the epoch, as far as that is known.
    micros: int
    #: In wire form, if its store says that for certain.
    octets: int | None
    #: Where it was when it was listed.
    where: str
    #: Whether its store had to give it another unique-id than its own, because that is another message's.
    renamed: bool = False


class Wanted(NamedTuple):
    """A message of the source as the target is to have it."""

    message: Message
    uid: bytes
    #: What the target calls it, if it is there.
    name: str | None


class Wire:
    """The wire form of a message, and what tells it from all others."""

    def __init__(self) -> None:
        self._encoder = Encoder(stuffed=False)
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def encoded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The wire form, taken down on its way."""
        for chunk in chunks:
            yield self._taken(self._encoder.feed(chunk))
        yield self._taken(self._encoder.finish())

    def seen(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks as they are, with their wire form taken down."""
        for chunk in chunks:
            self._taken(self._encoder.feed(chunk))
            yield chunk
        self._taken(self._encoder.finish())

    def read(self, chunks: Iterable[bytes]) -> Wire:
        """The same when all was read."""
        for _ in self.seen(chunks):
            pass
        return self

    def _taken(self, data: bytes) -> bytes:
        self._sha256.update(data)
        self._md5.update(data)
        return data

    @property
    def is_what(self) -> tuple[int, str]:
        """Octets and SHA-256."""
        return self._encoder.octets, self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        """What S3 calls the ETag of an object that was put in one request and not encrypted."""
        return self._md5.hexdigest()


class Source(Protocol):
    """A mailbox that is copied from; all raise ``StoreTrouble`` where its store is in trouble."""

    #: Whether messages are read in wire form.
    wire: bool

    def list(self) -> Sequence[Message]:
        """The messages, in the order in which POP3 lists them, with unique-ids that differ."""

    def read(self, message: Message) -> Iterator[bytes]:
        """A message in chunks, as it is kept.

        :raises pop3toy.errors.MessageGone: if it is not there any more; before the first chunk.
        :raises OSError: if this one cannot be read.
        """

    def journal(self, source: str) -> bytes:
        """What was written down of copying from this store."""


class Mailbox(Source, Protocol):
    """A mailbox that is copied from or to."""

    def names(self, wanted: Sequence[Wanted]) -> Iterator[str]:
        """Names for those that are not there, so that they are listed in the order given, if that can be.

        :param wanted: all messages of the source.
        """

    def announce(self, coming: Mapping[str, bytes]) -> None:
        """Make sure that these messages are given their unique-ids from the moment they are there.

        :param coming: unique-ids by name.
        """

    def begin(self, coming: Mapping[str, bytes]) -> None:
        """Say that these are about to be put, or something removed; all that was begun before is there.

        :param coming: unique-ids by name.
        :raises pop3toy.errors.InUse: if somebody else has begun to copy to it meanwhile.
        """

    def put(self, name: str, message: Message, chunks: Iterable[bytes], *, wire: bool) -> bool:
        """Add a message, as a whole or not at all.

        :param chunks: as :meth:`read` of the source gives them.
        :param wire: whether that is the wire form.
        :return: whether the store's own checksum proves that it is there as it was sent.  If not it has to be
            read; and it can be one that was there already.
        """

    def read_name(self, name: str, message: Message) -> Iterator[bytes]:
        """The message that was put under this name; the same raised as by :meth:`read`.

        :param message: that it was made of.
        """

    def remove(self, messages: Sequence[Message]) -> None:
        """Remove messages that were listed; those that are gone count as removed."""

    def remove_name(self, name: str, message: Message) -> None:
        """Take back what was put."""

    def settle(self) -> None:
        """What was put so far is durable, and seen by sessions from now on.

        :raises pop3toy.errors.NoSuchMailbox: if the mailbox was removed meanwhile.
        """

    def end(self) -> None:
        """Say that all is done."""

    def write_down(self, source: str, text: bytes) -> None:
        """Add to that."""


class SourceStore(Protocol):
    """A store that is copied from."""

    #: Its address, by which journals know it.
    address: str

    def mailbox(self, user: str, *, make: bool = False) -> AbstractContextManager[Source]:
        """See :meth:`Store.mailbox`; none is made."""


class Store(Protocol):
    """A store that is copied from or to."""

    #: Its address, by which journals know it.
    address: str

    def users(self) -> Sequence[str]:
        """The users who have a mailbox, in alphabetical order."""

    def mailbox(self, user: str, *, make: bool = False) -> AbstractContextManager[Mailbox]:
        """A user's mailbox during the block.

        :param make: to copy to: make it if it is missing.
        :raises pop3toy.errors.NoSuchMailbox: if there is none, or the user can have none.
        :raises pop3toy.errors.InUse: if somebody else copies to it, and cannot be made to stop.
        """
