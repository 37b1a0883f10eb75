"""Accounts beside the mail: the line of each user in the user's record, and what is known of all.

::

    a/<2 hex>/<sha256 of the login>     the user's record, which holds the account (``records``)
    n/<2 hex>/<sha256 of the name>      of names that are spelled otherwise: {"logins": [...]}
    c/accounts                          what has to be known of all users, for ``auth.accounts.records``

Asks for objects and changes them; what an account means, and what a spelling is, is not known here.
Blocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Final

from ...errors import StoreTrouble
from .engine import NoSuchObject, Taken
from .records import UserRecord
from .users import Engines, Users

__all__ = ["AccountObjects"]

FACTS: Final = "c/accounts"

#: How often a change is tried.  Each failure means that somebody else has changed the object.
_TRIES: Final = 20


class AccountObjects:
    """The accounts of an object store.  Every method blocks, and any thread may call it.

    All raise :class:`~pop3toy.errors.StoreTrouble` when the storage is in trouble.

    :param engines: where the objects are.
    :param users: the records, the same that open mailboxes: each is fetched once at a login.
    :param where: the store's address.
    """

    def __init__(self, engines: Engines, users: Users, where: str) -> None:
        #: What it is called in sentences.
        self.where = where
        self._engines = engines
        self._users = users

    def get(self, login: str) -> UserRecord | None:
        """What is kept of a user of exactly this name, in one request."""
        found = self._users.get(login)
        return found[0] if found is not None else None

    def all(self) -> Iterator[UserRecord]:
        """What is kept of all users, in no order."""
        return self._users.logins()

    def edit(self, login: str, change: Callable[[str], str]) -> None:
        """Give a user another line; of several changes at once none is lost.

        :param change: makes the new line of the one that is there, which is empty where there is none.  What
            it raises goes through, and nothing is changed then.
        """
        self._users.edit(login, lambda record: record._replace(account=change(record.account)))

    def make_mailbox(self, login: str) -> None:
        """Make the user's mailbox, unless there is one."""
        self._users.make(login)

    def remember(self, record: UserRecord) -> None:
        """Whoever opens this user's mailbox in a moment need not ask for the record again."""
        self._users.remember(record)

    def spellings(self, key: str) -> list[str]:
        """The names that were added for this spelling of all of them, in one request."""
        return _logins(self._get(_spelling_key(key)))

    def add_spelling(self, key: str, login: str) -> None:
        """Add a name for its other spelling."""

        def with_login(body: bytes | None) -> bytes:
            logins = _logins(body)
            return json.dumps({"logins": logins if login in logins else [*logins, login]}).encode("ascii")

        self._edit(_spelling_key(key), with_login)

    def facts(self) -> bytes | None:
        """What was written of all users, in one request."""
        return self._get(FACTS)

    def edit_facts(self, change: Callable[[bytes | None], bytes]) -> None:
        """Write another text of all users; of several changes at once none is lost.

        :param change: makes the new text of the one that is there.
        """
        self._edit(FACTS, change)

    def _get(self, key: str) -> bytes | None:
        try:
            return self._engines.main.get(key).body
        except NoSuchObject:
            return None

    def _edit(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Change an object by compare-and-swap, or make it.

        Not told apart from others' changes: one of our own of which the answer was lost.  So what ``change``
        makes of its own outcome has to be the same again.
        """
        engine = self._engines.main
        for _ in range(_TRIES):
            try:
                found = engine.get(key)
            except NoSuchObject:
                found = None
            before = found.body if found is not None else None
            after = change(before)
            if after == before:
                return
            try:
                if found is None:
                    engine.create(key, after)
                else:
                    engine.swap(key, after, found.tag)
                return
            except Taken:
                continue
        raise StoreTrouble(detail=f"{key} is changed all the time by others")


def _spelling_key(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"n/{digest[:2]}/{digest}"


def _logins(body: bytes | None) -> list[str]:
    if body is None:
        return []
    try:
        logins = json.loads(body)["logins"]
        if not all(isinstance(login, str) for login in logins):
            raise ValueError
        return list(logins)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise StoreTrouble(detail="a list of spellings of a name cannot be read") from None
