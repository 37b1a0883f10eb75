"""An accounts file as it says now: read again when it has changed, in a thread.

Logs what is wrong with it.  What the text means is in ``passwd_file``, and passwords are checked
in ``checker``.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import StoreTrouble
from ...interfaces import MaybeDeferred
from ...net.watched_file import Content, is_unchanged, read
from ..app_passwords import last_use
from .edit import edit_file
from .hashing_queue import HashingQueue
from .passwd_file import Account, Accounts, Problem, parse
from .schemes import MissingLibrary

__all__ = ["WatchedFile", "not_now"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
#: Lines that are told when they are not understood any more; of a file that is
#: another one altogether the first few say enough.
_TOLD = 10


class WatchedFile:
    """Reads the file at once, and again when it is asked for after a change.

    :param wall: the file system's idea of now, in seconds.
    :param changed: called when the accounts are other ones than before.
    :param strict: whether it must be readable now; else that is a trouble that
        may pass, as it is later on.
    :raises OSError: if the file cannot be read now and must be.
    :raises MissingLibrary: if it holds hashes whose library is not installed, then too.
    """

    _log = Logger()

    def __init__(
        self,
        path: str | Path,
        queue: HashingQueue,
        *,
        wall: Callable[[], float] = time.time,
        changed: Callable[[], None] = lambda: None,
        strict: bool = True,
    ) -> None:
        self.path = Path(path)
        #: What it is called in the log.
        self.where = f"accounts file {path}"
        #: What the file said when it was last read and had users.
        self.accounts = Accounts({})
        #: Whether it is just being written in place, and has lost users or ends
        #: within a line: it may say half the truth.
        self.in_doubt = False
        #: The user whose line may have been read in part.
        self._unfinished: str | None = None
        #: What it said when it was last not in doubt.
        self.certain = self.accounts
        #: Whether it had users, and has none now: an accident, as it looks.
        self._emptied = False
        self._problems: tuple[Problem, ...] = ()
        self._queue = queue
        self._wall = wall
        self._changed = changed
        self._signature: object = None
        self._waiting: list[Deferred[Accounts]] | None = None
        try:
            found = self._take(self._read())
        except OSError as error:
            if strict:
                raise
            found = self.accounts
            self._log.error(
                "accounts file {path}: {why}; logins are put off until it can be read",
                path=str(self.path),
                why=error.strerror,
            )
        for problem in found.problems:
            if problem.missing_library and strict:
                raise MissingLibrary(f"{self.path}: {problem}")

    def use(
        self,
        function: Callable[Concatenate[Accounts, _P], MaybeDeferred[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> MaybeDeferred[_T]:
        """Call with the accounts as the file says now: at once if it has not changed.

        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot be
            read, or has lost its users.
        """
        if self._waiting is None and is_unchanged(self.path, self._signature):
            return function(self._known(self.accounts), *args, **kwargs)
        waiting: Deferred[_T] = self._reading().addCallback(function, *args, **kwargs)
        return waiting

    # -- as a source of users (``checker``) -----------------------------------------

    @property
    def facts(self) -> Accounts:
        """What it said when it was last not in doubt."""
        return self.certain

    def look(
        self,
        user: str,
        function: Callable[Concatenate[Accounts, Account | None, _P], MaybeDeferred[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> MaybeDeferred[_T]:
        """As :meth:`use`, with the account that has exactly this name."""
        return self.use(lambda accounts: function(accounts, accounts.by_name.get(user), *args, **kwargs))

    def sure_of(self, user: str) -> bool:
        """Whether what is said of the user now can be relied on."""
        if not self.in_doubt:
            return True
        account = self.accounts.by_name.get(user)
        # A line that has its end is whole; of the last one some settings may be missing.
        return account == self.certain.by_name.get(user) or (account is not None and user != self._unfinished)

    def is_current(self, facts: object) -> bool:
        """Whether nothing else was read since."""
        return facts is self.accounts

    def find_name(self, name: str) -> MaybeDeferred[str | None]:
        """The user's name as the file has it, however it is spelled."""

        def find(accounts: Accounts) -> str | None:
            found = accounts.names.find(name)
            if found is None and self.in_doubt and self.certain.names.find(name) is not None:
                raise not_now("the accounts file is being written")
            return found

        return self.use(find)

    def even_out(self, user: str) -> None:
        """Nothing: all users are in memory."""

    def accepted(self, user: str) -> None:
        """Nothing: nobody else asks for what was read."""

    def edit(self, user: str, change: Callable[[bytes], bytes]) -> None:
        """Change the text.  Blocks."""
        edit_file(self.path, change)

    def note_use(self, user: str, name: str, day: str) -> None:
        """Take down, beside the accounts file, that an app password was used.  Blocks."""
        last_use.note(last_use.file_of(self.path), user, name, day)

    def _reading(self) -> Deferred[Accounts]:
        turn: Deferred[Accounts] = Deferred()
        if self._waiting is not None:
            self._waiting.append(turn)
            return turn
        reading = self._queue.run(self._read).addCallback(self._take)
        self._waiting = [turn]
        reading.addCallbacks(self._known, self._unreadable).addBoth(self._tell_waiting)
        return turn

    def _read(self) -> tuple[Content, Accounts]:
        content = read(self.path, self._wall)
        accounts = parse(content.octets)
        if content.status.st_mode & stat.S_IROTH:
            exposed = Problem(0, "everybody on this machine can read it: chmod 600")
            accounts = replace(accounts, problems=(exposed, *accounts.problems))
        # Made in this thread: it takes a while if there are a hundred thousand.
        accounts.names  # noqa: B018
        return content, accounts

    def _take(self, reading: tuple[Content, Accounts]) -> Accounts:
        content, accounts = reading
        before, users = self.accounts, accounts.by_name
        self._signature = content.signature
        self.in_doubt = content.in_doubt(self.certain.by_name.keys(), users.keys())
        self._unfinished = None if content.whole_lines else next(reversed(list(users)), None)
        self._tell_problems(accounts.problems)
        emptied_before, self._emptied = self._emptied, bool(before.by_name) and not accounts.by_name
        if self._emptied:
            if not emptied_before:
                self._log.error(
                    "accounts file {path}: there were {count} users in it, and now there is none; logins"
                    " are put off until there is one. Put the old file back, or restart if this is meant",
                    path=str(self.path),
                    count=len(before.by_name),
                )
        elif accounts != before:
            self.accounts = accounts
            self._changed()
        if not self.in_doubt:
            self.certain = self.accounts
        return self.accounts

    def _tell_problems(self, problems: tuple[Problem, ...]) -> None:
        new = [problem for problem in problems if problem not in self._problems]
        self._problems = problems
        for problem in new[:_TOLD]:
            self._log.warn("accounts file {path}: {problem}", path=str(self.path), problem=str(problem))
        if len(new) > _TOLD:
            self._log.warn(
                "accounts file {path}: {count} more lines are not understood; `pop3toy user list` shows them",
                path=str(self.path),
                count=len(new) - _TOLD,
            )

    def _known(self, accounts: Accounts) -> Accounts:
        if self._emptied:
            raise not_now()
        return accounts

    def _unreadable(self, why: Failure) -> NoReturn:
        self._signature = None
        if why.check(OSError) is None:
            self._log.failure("accounts file {path}: a bug", why, path=str(self.path))
        raise not_now(f"accounts file {self.path}: {why.getErrorMessage()}")

    def _tell_waiting(self, outcome: Accounts | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        for turn in waiting:
            turn.callback(outcome)


def not_now(detail: str = "") -> StoreTrouble:
    """The refusal of a login while the accounts cannot be relied on."""
    # A client that is told that its password is wrong forgets it.
    return StoreTrouble("logins are not possible at the moment", detail=detail)
