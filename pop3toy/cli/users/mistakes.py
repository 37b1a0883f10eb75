"""What the commands about users have in common: the user who is meant, and mistakes as one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeAlias

import click

from ...auth.accounts import admin
from ..options import Failed, accounts_place, complete_user, with_settings

__all__ = ["Command", "canonical_name", "mistakes", "name_argument", "with_accounts"]

Command: TypeAlias = Callable[..., object]

name_argument = click.argument("name", shell_complete=complete_user)


def with_accounts(command: Command) -> Command:
    """Give a command ``accounts``: the path of the file, or what asks the store."""

    @wraps(command)
    def run(settings: object, **words: object) -> object:
        return command(accounts=accounts_place(settings), **words)  # type: ignore[arg-type]

    return with_settings(accounts="as twistd pop3toy --accounts has it", must_have_accounts=True)(run)


def canonical_name(accounts: admin.Where, name: str) -> str:
    """The name of the user that is meant, as at login; found too where the line cannot be read."""
    found = admin.canonical_name(accounts, name)
    if found is None:
        raise admin.NoSuchAccount(f"there is no user {name}")
    return found


@contextmanager
def mistakes() -> Iterator[None]:
    """Turn the errors of ``auth.accounts`` into one line and an exit status."""
    try:
        yield
    except admin.NoSuchAccount as error:
        raise Failed(str(error), os.EX_NOUSER) from None
    except ValueError as error:
        raise Failed(str(error), os.EX_DATAERR) from None
    except FileNotFoundError as error:
        raise Failed(f"there is no file {error.filename}", os.EX_NOINPUT) from None
