"""Options that several commands have, and how a Deferred is waited for where nothing runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..auth.accounts.admin import list_users
from ..errors import NoSuchMailbox
from ..interfaces import Incoming
from ..stores.maildir.paths import MaildirPaths

__all__ = [
    "Failed",
    "accounts_file_option",
    "accounts_option",
    "complete_user",
    "maildir_option",
    "maildir_paths",
    "no_mailbox",
    "printable",
    "put",
    "result_of",
]

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

accounts_option = click.option(
    "-a",
    "--accounts",
    envvar="POP3TOY_ACCOUNTS",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    required=True,
    show_envvar=True,
    help="The accounts file, as twistd pop3toy --accounts has it.",
)


def accounts_file_option(use: str) -> Callable[[_F], _F]:
    """The accounts file, for a command that can do without.

    :param use: what it is for.
    """
    return click.option(
        "-a",
        "--accounts",
        envvar="POP3TOY_ACCOUNTS",
        type=click.Path(path_type=Path),
        metavar="FILE",
        show_envvar=True,
        help=f"The accounts file, {use}.",
    )


maildir_option = click.option(
    "-m",
    "--maildir",
    "pattern",
    envvar="POP3TOY_MAILDIR",
    metavar="PATH",
    required=True,
    show_envvar=True,
    help="Where the Maildirs are, with {user} for the user's name: '/srv/mail/{user}'.",
)


def maildir_paths(pattern: str, *, create: bool = False) -> MaildirPaths:
    """The Maildirs of a pattern.

    :raises click.ClickException: if the folder that they are in is not there.
    """
    paths = MaildirPaths(pattern, create=create)
    if not Path(paths.root).is_dir():
        raise click.BadParameter(f"there is no folder {paths.root}", param_hint="--maildir")
    return paths


def complete_user(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a user's name from the accounts file, if it is known where that is."""
    path = context.params.get("accounts") or os.environ.get("POP3TOY_ACCOUNTS")
    try:
        names = list_users(path).by_name if path is not None else ()
    except OSError:
        names = ()
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def printable(text: str) -> str:
    """Text in one line that steers no terminal; file names may hold any octet."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Failed(Exception):
    """A command cannot do what it was asked to; its text is one line.

    :param status: the exit status, of sysexits.h.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def no_mailbox(user: str, error: NoSuchMailbox) -> Failed:
    """That a user has no mailbox, and what to do about it."""
    return Failed(f"{user} has no mailbox here ({error.detail})", os.EX_NOUSER)


def result_of(deferred: Deferred[_T]) -> _T:
    """What a Deferred that has fired holds: no reactor runs here, and work is done at once.

    :raises Exception: what it failed with.
    """
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    assert outcome, "something waits for a reactor"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    value: _T = outcome[0]
    return value


def put(incoming: Incoming, octets: bytes) -> None:
    """Write to a delivery.

    :raises pop3toy.errors.StoreTrouble: when it cannot be written.
    """
    waiting = incoming.write(octets)
    if waiting is not None:
        result_of(waiting)
