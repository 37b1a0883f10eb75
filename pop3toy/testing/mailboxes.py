"""The mail of a server under test: given in any form, looked at and changed while it runs."""

from __future__ import annotations

import email.message
import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from ..stores import hello
from ..stores.memory import MemoryStore

__all__ = ["DEFAULT_PASSWORD", "Mailbox", "Message", "Store", "accounts", "as_octets"]

#: What a test may give as a message: octets, text (UTF-8), one of ``email.message``, or a file's path.
Message: TypeAlias = "bytes | str | email.message.Message | os.PathLike[str]"

#: Of users of whom no password is given.
DEFAULT_PASSWORD = hello.PASSWORD


def as_octets(message: Message) -> bytes:
    """A message as it is stored.  Octets and files stay as they are, odd line ends and all.

    :raises TypeError: for what is no message.
    :raises OSError: if the file cannot be read.
    """
    if isinstance(message, bytes):
        return message
    if isinstance(message, str):
        if "\n" not in message and os.path.exists(message):
            raise TypeError(f"{message!r} is text; the path of a file is given as pathlib.Path")
        return message.encode()
    if isinstance(message, email.message.Message):
        return message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
    if isinstance(message, os.PathLike):
        return Path(message).read_bytes()
    raise TypeError(f"a message is bytes, str, an email.message or a path, and not {type(message).__name__}")


def accounts(
    mailboxes: Mapping[str, Iterable[Message]] | None, passwords: Mapping[str, str] | None, now: float
) -> tuple[dict[str, list[bytes]], dict[str, str]]:
    """What is in whose mailbox, and all passwords; the toy's account and message if nothing is given.

    :param now: seconds since the epoch, for the toy's message.
    :raises TypeError: for what is no message.
    """
    if mailboxes is None and passwords is None:
        return {hello.USER: [hello.hello_message(now)]}, {hello.USER: hello.PASSWORD}
    mail: dict[str, list[bytes]] = {}
    for user, messages in (mailboxes or {}).items():
        if isinstance(messages, bytes | str | os.PathLike | email.message.Message):
            raise TypeError(f"the mailbox of {user!r} is a list of messages, and not one of them")
        mail[user] = [as_octets(message) for message in messages]
    known = {**dict.fromkeys(mail, DEFAULT_PASSWORD), **(passwords or {})}
    return {user: mail.get(user, []) for user in known}, known


class Store(MemoryStore):
    """A memory store of which a test remembers what clients have removed."""

    def __init__(self, mail: Mapping[str, Iterable[bytes]]) -> None:
        # Readable in a transcript, and another one in each server, so that a client that
        # remembers what it has fetched does not take one for the other.
        start, numbers = secrets.token_hex(3), itertools.count(1)
        super().__init__(mail, new_uid=lambda: f"{start}-{next(numbers)}")


class Mailbox:
    """A user's mailbox, as it is now.

    :param user: whose.
    :param store: that has it.
    :param call: calls a function in the thread of the store, and gives what it returns.
    :param removed: the unique-ids of the messages that QUIT has removed, of all sessions of the user.
    """

    def __init__(
        self,
        user: str,
        store: MemoryStore,
        call: Callable[[Callable[[], Any]], Any],
        removed: Callable[[], list[str]],
    ) -> None:
        self.user = user
        self._store = store
        self._call = call
        self._removed = removed

    @property
    def messages(self) -> list[bytes]:
        """The messages as they were given, oldest first."""
        return list(self._call(lambda: self._store.messages(self.user)))

    @property
    def uids(self) -> list[str]:
        """Their unique-ids, in the same order."""
        return [one.uid.decode("ascii") for one in self._call(lambda: self._store.list(self.user))]

    @property
    def deleted(self) -> list[str]:
        """The unique-ids of the messages that clients have removed: by DELE, and QUIT behind it."""
        return self._removed()

    def add(self, message: Message, uid: str | None = None) -> str:
        """Let a message arrive; a session that is open does not see it.

        :param message: bytes, str, an ``email.message`` or a path.
        :param uid: its unique-id; one is made up without it.
        :return: its unique-id.
        :raises ValueError: if there is a message with this unique-id, or it cannot be one.
        """
        octets = as_octets(message)
        added: bytes = self._call(lambda: self._store.add(self.user, octets, uid))
        return added.decode("ascii")

    def vanish(self, uid: str) -> None:
        """Take a message away, also behind the back of a session: that gets ``-ERR`` for RETR then.

        :param uid: its unique-id.
        :raises KeyError: if it is not there.
        """
        self._call(lambda: self._store.discard(self.user, uid))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the mailbox as another session does, so that logins hear ``[IN-USE]``.

        :raises pop3toy.errors.InUse: if a session holds it already.
        """
        opened = self._call(lambda: self._store.open(self.user))
        try:
            yield
        finally:
            self._call(opened.release)

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        return f"<Mailbox of {self.user}>"
