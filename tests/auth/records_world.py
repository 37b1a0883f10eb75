"""Accounts as records, in memory: what is asked of them is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.task import Clock

from pop3toy.auth.accounts.checker import AccountsChecker
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.record_source import RecordSource
from pop3toy.auth.accounts.records import AccountsInRecords
from pop3toy.errors import StoreTrouble

__all__ = ["FakeRecord", "FakeRecords", "checker_of"]


class FakeRecord(NamedTuple):
    """What is kept of a user."""

    login: str
    account: str = ""


class FakeRecords:
    """What keeps accounts, as ``pop3toy.auth.accounts.records`` asks it.

    :ivar asked: what was asked for, one word for each request.
    """

    where = "memory"

    def __init__(self, *lines: str) -> None:
        self.lines: dict[str, str] = {}
        self.spelled: dict[str, list[str]] = {}
        self.text: bytes | None = None
        self.trouble = False
        self.asked: list[str] = []
        self.remembered: list[str] = []
        self.mailboxes: list[str] = []
        self.place = AccountsInRecords(self)
        for line in lines:
            self.put(line)

    def put(self, line: str) -> None:
        """A user has this line from now on."""
        self.place.edit(line.partition(":")[0], lambda text: line.encode())
        self.asked.clear()

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.trouble:
            raise StoreTrouble(detail="nobody answers")

    def get(self, login: str) -> FakeRecord | None:
        self._ask("user")
        return FakeRecord(login, self.lines[login]) if login in self.lines else None

    def all(self) -> list[FakeRecord]:
        return [FakeRecord(*one) for one in self.lines.items()]

    def edit(self, login: str, change: Callable[[str], str]) -> None:
        self.lines[login] = change(self.lines.get(login, ""))

    def make_mailbox(self, login: str) -> None:
        self.mailboxes.append(login)

    def spellings(self, key: str) -> list[str]:
        self._ask("spellings")
        return self.spelled.get(key, [])

    def add_spelling(self, key: str, login: str) -> None:
        self.spelled.setdefault(key, []).append(login)

    def facts(self) -> bytes | None:
        self._ask("facts")
        return self.text

    def edit_facts(self, change: Callable[[bytes | None], bytes]) -> None:
        self.text = change(self.text)

    def remember(self, record: Any) -> None:
        self.remembered.append(record.login)


def checker_of(
    records: FakeRecords,
    threads: Any,
    clock: Clock | None = None,
    *,
    looking: Any = None,
    **options: Any,
) -> AccountsChecker:
    """A checker over records.

    :param threads: where passwords are checked.
    :param looking: where the records are asked for; the same threads if not given.
    """
    clock = clock or Clock()
    source = RecordSource(records, HashingQueue(looking or threads), clock)
    return AccountsChecker(lambda changed: source, HashingQueue(threads), clock, **options)
