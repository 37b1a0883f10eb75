"""Accounts that are kept as one record for each user, in a storage that many servers share.

A record holds the user's line as an accounts file has it (``passwd_file``).  What has to be known of all
users (:class:`KnownFacts`) is kept beside the records, and grows when a user gets a password of a new kind.
Who asks the storage is passed in (:class:`AccountRecords`); it blocks, and is called in threads.
:class:`AccountsInRecords` is what commands ask; logins come by ``record_source``.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from ...errors import StoreTrouble
from ..names import folded
from .passwd_file import (
    RENAMED_FROM,
    Account,
    AccountExists,
    Accounts,
    Problem,
    parse,
    with_name,
    with_setting,
    without_setting,
)
from .schemes import MADE, StoredPassword, make
from .schemes import parse as parse_password

__all__ = ["AccountRecords", "AccountsInRecords", "KnownFacts", "Record"]

#: More kinds of passwords than these are not hidden (see ``passwd_file``).
_MOST_DUMMIES: Final = 3
#: A setting that says when an app password was used last.
_USED: Final = "app-used."
#: With it the functions of ``passwd_file`` add no key to a text that is one line.
_HEAD: Final = b"# decoy-key: AAAA\n"


class Record(Protocol):
    """What is kept of a user."""

    @property
    def login(self) -> str:
        """The user's name."""

    @property
    def account(self) -> str:
        """The user's line as an accounts file has it; empty for a user who has no account."""


class AccountRecords(Protocol):
    """The storage.  Every method blocks, and any thread may call it.

    All raise :class:`~pop3toy.errors.StoreTrouble` when the storage is in trouble.
    """

    #: What it is called in sentences.
    where: str

    def get(self, login: str) -> Record | None:
        """What is kept of a user of exactly this name, in one request."""

    def all(self) -> Iterable[Record]:
        """What is kept of all users, in no order."""

    def edit(self, login: str, change: Callable[[str], str]) -> None:
        """Give a user another line, or a record with one; of several changes at once none is lost.

        :param change: makes the new line of the one that is there.  What it raises goes through, and nothing
            is changed then.
        """

    def make_mailbox(self, login: str) -> None:
        """Make the user's mailbox, unless there is one."""

    def spellings(self, key: str) -> list[str]:
        """The names that were added for this spelling of all of them, in one request."""

    def add_spelling(self, key: str, login: str) -> None:
        """Add a name for its other spelling."""

    def facts(self) -> bytes | None:
        """What was written of all users, in one request."""

    def edit_facts(self, change: Callable[[bytes | None], bytes]) -> None:
        """Write another text of all users; of several changes at once none is lost."""

    def remember(self, record: Any) -> None:
        """Whoever opens this user's mailbox in a moment need not ask for the record again."""


@dataclass(frozen=True)
class KnownFacts:
    """What is known of all users, without a look at them (see ``checker.Facts``)."""

    dummy_passwords: tuple[StoredPassword, ...] = field(default=(), repr=False)
    has_plaintext: bool = False
    cram_contexts: bool = False
    #: By hash: iterations and length of the salt.
    scram: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    has_addresses: bool = False
    dummy_key: bytes | None = field(default=None, repr=False)
    #: Passwords of kinds that this server cannot check, as they are kept.
    not_understood: tuple[str, ...] = field(default=(), repr=False)

    @property
    def scram_hashes(self) -> frozenset[str]:
        """The hashes for which SCRAM can work for somebody."""
        return frozenset(("sha1", "sha256") if self.has_plaintext else self.scram)

    def scram_example(self, hash_name: str) -> tuple[int, int] | None:
        """Iterations and length of the salt (octets) of the first verifier for this hash."""
        return self.scram.get(hash_name)

    def knowing(self, account: Account) -> KnownFacts:
        """The facts when there is this account too."""
        password = account.password
        dummies = self.dummy_passwords
        known = {dummy.cost for dummy in dummies}
        if not password.cheap and password.cost not in known and len(dummies) < _MOST_DUMMIES:
            dummies = (*dummies, _dummy_like(password))
        scram = dict(self.scram)
        for hash_name in ("sha1", "sha256"):
            if (verifier := password.verifier(hash_name)) is not None:
                scram.setdefault(hash_name, (verifier.iterations, len(verifier.salt)))
        return replace(
            self,
            dummy_passwords=dummies,
            has_plaintext=self.has_plaintext or password.secret is not None,
            cram_contexts=self.cram_contexts or password.cram_md5 is not None,
            scram=scram,
            has_addresses=self.has_addresses or "@" in account.name,
            dummy_key=self.dummy_key or base64.b64encode(secrets.token_bytes(24)),
        )

    def encoded(self) -> bytes:
        """As it is kept: JSON."""
        dummies = (f"{{{one.scheme}}}{one.encoded.decode('latin-1')}" for one in self.dummy_passwords)
        said = {
            "dummies": [*dummies, *self.not_understood],
            "plaintext": self.has_plaintext,
            "cram": self.cram_contexts,
            "scram": self.scram,
            "addresses": self.has_addresses,
            "key": (self.dummy_key or b"").decode("ascii"),
        }
        return json.dumps(said).encode("ascii")

    @classmethod
    def decoded(cls, text: bytes | None) -> KnownFacts:
        """Read them.

        :raises pop3toy.errors.StoreTrouble: if they cannot be read.
        """
        if text is None:
            return cls()
        dummies: list[StoredPassword] = []
        others: list[str] = []
        try:
            said = json.loads(text)
            for one in said["dummies"]:
                try:
                    dummies.append(parse_password(one.encode("latin-1")))
                except ValueError:
                    # Of a newer version, or of a library that is not installed.
                    others.append(one)
            return cls(
                tuple(dummies),
                bool(said["plaintext"]),
                bool(said["cram"]),
                {str(name): (int(rounds), int(salt)) for name, (rounds, salt) in said["scram"].items()},
                bool(said["addresses"]),
                said["key"].encode("ascii") or None,
                tuple(others),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise StoreTrouble(detail="what is kept of all accounts cannot be read") from None


def _dummy_like(password: StoredPassword) -> StoredPassword:
    """A password whose check takes equally long; nobody's, where such can be made."""
    if password.scheme in MADE:
        made = parse_password(make(secrets.token_hex(16).encode("ascii"), password.scheme))
        if made.cost == password.cost:
            return made
    return password


class AccountsInRecords:
    """The accounts in records, as ``admin`` administers them.  Blocks."""

    def __init__(self, records: AccountRecords) -> None:
        self._records = records

    def __str__(self) -> str:
        """What it is called in sentences."""
        return self._records.where

    def get(self, login: str) -> tuple[Record | None, Account | None]:
        """A user of exactly this name.

        :raises pop3toy.errors.StoreTrouble: if the storage is in trouble, or the account not understood.
        """
        record = self._records.get(login)
        return record, (_account(record) if record is not None and record.account else None)

    def spelled(self, name: str) -> list[str]:
        """The names that this one may mean, itself aside, of users who may be gone."""
        key = folded(name)
        known = (other for other in self._records.spellings(key) if folded(other) == key)
        return [other for other in dict.fromkeys((*known, key)) if other != name]

    def find(self, name: str) -> str | None:
        """The name of the user that is meant, found as at login; also of one whose line is not understood."""
        if self._has_account(name):
            return name
        found = self.alike(name)
        return found[0] if len(found) == 1 else None

    def alike(self, name: str) -> list[str]:
        """The other users whose names differ from this one in case alone (or NFC and NFD)."""
        return [other for other in self.spelled(name) if self._has_account(other)]

    def _has_account(self, login: str) -> bool:
        record = self._records.get(login)
        return record is not None and bool(record.account)

    def by_name(self) -> Mapping[str, Account]:
        """The accounts; each is fetched when it is asked for."""
        return _ByName(self)

    def accounts(self) -> Accounts:
        """All accounts, and what is not understood of them."""
        found: dict[str, Account] = {}
        problems: list[Problem] = []
        for record in self._records.all():
            if record.account:
                try:
                    found[record.login] = _account(record)
                except StoreTrouble as trouble:
                    problems.append(Problem(0, trouble.detail))
        return Accounts(found, tuple(problems))

    def edit(self, login: str, change: Callable[[bytes], bytes]) -> None:
        """Change a user's line by what would change it in an accounts file.

        What has to be known of all users is written first, and the mailbox of a new user made.

        :raises ValueError: as ``change`` does.
        """
        record = self._records.get(login)
        line = _changed(record.account if record is not None else "", change)
        if line:
            account = _account_of(login, line)
            if (key := folded(login)) != login:
                self._records.add_spelling(key, login)
            self._know(account)
            if record is None or not record.account:
                self._records.make_mailbox(login)
        self._records.edit(login, lambda line: _changed(line, change))

    def rename(self, name: str, new: str) -> None:
        """Give a user another name: the record of the new one gets the line first, then the old one has none.

        See ``admin.AccountsPlace``.
        """
        record = self._records.get(name)
        if record is None or not record.account:
            # Killed behind the last step.
            _, there = self.get(new)
            if there is not None and there.settings.get(RENAMED_FROM) == name:
                return
            raise KeyError(name)
        line = record.account

        def add(text: bytes) -> bytes:
            there = parse(text).by_name.get(new)
            if there is not None and there.settings.get(RENAMED_FROM) != name:
                raise AccountExists(f"there is a user {new} already")
            renamed = with_name(line.encode("utf-8") + b"\n", name, new)
            return _HEAD + with_setting(renamed, new, RENAMED_FROM, name)

        def remove(now: str) -> str:
            if now not in ("", line):
                raise StoreTrouble(detail=f"the account of {name!r} was changed meanwhile: try again")
            return ""

        self.edit(new, add)
        self._records.edit(name, remove)

    def note_use(self, login: str, name: str, day: str) -> None:
        """Take down that an app password was used on this day."""

        def change(text: bytes) -> bytes:
            known = parse(text).by_name.get(login)
            if known is None or known.settings.get(f"{_USED}{name}", "") >= day:
                return text
            return with_setting(text, login, f"{_USED}{name}", day)

        self._records.edit(login, lambda line: _changed(line, change) if line else line)

    def last_used(self, login: str) -> Mapping[str, str]:
        """The last day of each app password, as far as it is known."""
        _, account = self.get(login)
        said = account.settings.items() if account is not None else ()
        return {key.removeprefix(_USED): day for key, day in said if key.startswith(_USED)}

    def forget_use(self, login: str, name: str) -> None:
        """An app password is gone."""
        change = partial(without_setting, name=login, key=f"{_USED}{name}")
        self._records.edit(login, lambda line: _changed(line, change) if line else line)

    def _know(self, account: Account) -> None:
        before = KnownFacts.decoded(self._records.facts())
        if before.knowing(account) != before:

            def grown(text: bytes | None) -> bytes:
                return KnownFacts.decoded(text).knowing(account).encoded()

            self._records.edit_facts(grown)


class _ByName(Mapping[str, Account]):
    """Accounts that are fetched when they are asked for."""

    def __init__(self, place: AccountsInRecords) -> None:
        self._place = place

    def __getitem__(self, name: str) -> Account:
        _, account = self._place.get(name)
        if account is None:
            raise KeyError(name)
        return account

    def __iter__(self) -> Iterator[str]:
        return iter(self._place.accounts().by_name)

    def __len__(self) -> int:
        return len(self._place.accounts().by_name)


def _changed(line: str, change: Callable[[bytes], bytes]) -> str:
    text = change(_HEAD + (line.encode("utf-8") + b"\n" if line else b""))
    return text.removeprefix(_HEAD).decode("utf-8").rstrip("\n")


def _account(record: Record) -> Account:
    return _account_of(record.login, record.account)


def _account_of(login: str, line: str) -> Account:
    accounts = parse(line.encode("utf-8"))
    account = accounts.by_name.get(login)
    if account is None:
        why = accounts.problems[0].why if accounts.problems else "its line is another user's"
        raise StoreTrouble(detail=f"the account of {login!r}: {why}")
    return account
