"""The checker of an accounts file.

How passwords are checked is in ``checker``, what the file means in ``passwd_file``, when it is read again
in ``watched``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime

from .checker import AccountsChecker, utc_day
from .hashing_queue import HashingQueue
from .watched import WatchedFile

__all__ = ["AccountsFile"]


class AccountsFile(AccountsChecker):
    """A twisted.cred checker for the users of an accounts file.

    Reads the file at once, and again in a thread when a login finds it changed.

    :param path: the file (see :mod:`~pop3toy.auth.accounts.passwd_file`).
    :param queue: where slow checks are done.
    :param clock: tells how long a success is remembered.
    :param renew: write a better hash into the file when a user with an
        outdated one logs in.
    :param strict: whether the file must be readable now; else that is a
        trouble that may pass, as it is later on.
    :param wall: the file system's idea of now, in seconds.
    :param today: tells the day, as ``2026-11-30``.
    :raises OSError: if the file cannot be read, and must be.
    :raises MissingLibrary: if it holds hashes whose library is not installed, then too.
    """

    _source: WatchedFile

    def __init__(
        self,
        path: str | Path,
        queue: HashingQueue,
        clock: IReactorTime,
        *,
        renew: bool = False,
        strict: bool = True,
        wall: Callable[[], float] = time.time,
        today: Callable[[], str] = utc_day,
    ) -> None:
        watch = partial(WatchedFile, path, queue, wall=wall, strict=strict)
        super().__init__(lambda changed: watch(changed=changed), queue, clock, renew=renew, today=today)

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self._source.certain.by_name)

    def unsupported_mechanisms(self, *, also_others: bool) -> dict[str, int]:
        """See :meth:`~pop3toy.auth.accounts.passwd_file.Accounts.unsupported_mechanisms`."""
        return self._source.certain.unsupported_mechanisms(also_others=also_others)

    def is_unclear(self, user: str) -> bool:
        """Whether the file has a line of this name that is not understood, as it was last read."""
        return self._source.accounts.unclear.find(user) is not None

    def canonical_name_at_start(self, user: str) -> str | None:
        """The same as :meth:`canonical_name`, as the file said when it was last read."""
        return self._source.accounts.names.find(user)
