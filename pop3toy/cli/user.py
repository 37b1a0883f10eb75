"""``pop3toy user``: the users of the accounts file, or those in an object store."""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeAlias

import click

from ..auth.accounts import admin
from ..auth.accounts.schemes import MADE
from ..config.settings import Settings
from ..routing.quota import parse_quota
from .options import Failed, accounts_place, complete_user, with_settings

__all__ = ["user"]

_Command: TypeAlias = Callable[..., object]


def _scheme_option(default: str | None, means: str) -> Callable[[_Command], _Command]:
    return click.option(
        "-s",
        "--scheme",
        type=click.Choice(sorted(MADE), case_sensitive=False),
        default=default,
        show_default=means,
        help="How the password is kept. PLAIN keeps it readable, which APOP and CRAM-MD5 need.",
    )


def _with_accounts(command: _Command) -> _Command:
    """Give a command ``accounts``: the path of the file, or what asks the store."""

    @wraps(command)
    def run(settings: Settings, **words: object) -> object:
        return command(accounts=accounts_place(settings), **words)

    return with_settings(accounts="as twistd pop3toy --accounts has it", must_have_accounts=True)(run)


_stdin_option = click.option(
    "--stdin", "from_stdin", is_flag=True, help="Read the password from standard input, for scripts."
)
_name_argument = click.argument("name", shell_complete=complete_user)


@click.group()
def user() -> None:
    """Users: add, passwd, quota, del, list.

    They are kept in the accounts file, one line for each. The server reads it
    again by itself when it changes. With --accounts objects they are kept in
    the object store that --store names, for all servers that share it.
    """


@user.command()
@_with_accounts
@_scheme_option("ARGON2ID", "ARGON2ID")
@_stdin_option
@click.option("-q", "--quota", metavar="SIZE", help="How much mail the user may keep: 500M, 2G.")
@click.argument("name")
def add(accounts: admin.Where, scheme: str, from_stdin: bool, quota: str | None, name: str) -> None:
    """Add a user; the password is asked for.

    Makes the accounts file if it is missing. A Maildir is made at the first
    login or delivery, if the server was started with --create. In an object
    store the mailbox is made at once.
    """
    settings = {} if quota is None else {"quota": _quota(quota, "--quota")}
    with _mistakes():
        admin.add_user(accounts, name, _password(from_stdin), scheme=scheme, settings=settings)
        others = admin.differing_in_case(accounts, name)
    click.echo(f"User {name} is in {accounts}{f', with the quota {_in_octets(quota)}' if quota else ''}.")
    if others:
        click.echo(
            f"Warning: {' and '.join([*others, name])} differ in case alone. From now on each of them logs in"
            " and gets mail by the name as it is written here, and other spellings are nobody's.",
            err=True,
        )


@user.command()
@_with_accounts
@_scheme_option(None, "as it is now, or ARGON2ID for what is not made any more")
@_stdin_option
@_name_argument
def passwd(accounts: admin.Where, scheme: str | None, from_stdin: bool, name: str) -> None:
    """Give a user a new password; it is asked for."""
    with _mistakes():
        # First, so that no password is typed for a user who does not exist.
        name = _canonical_name(accounts, name)
        admin.set_password(accounts, name, _password(from_stdin), scheme=scheme)
    click.echo(f"User {name} has a new password.")


@user.command(name="quota")
@_with_accounts
@_name_argument
@click.argument("size", required=False)
def quota_(accounts: admin.Where, name: str, size: str | None) -> None:
    """Say how much mail a user may keep: 500M, 2G, or none for no limit.

    Without SIZE it is shown. pop3toy mailbox list shows how full mailboxes are.
    """
    with _mistakes():
        name = _canonical_name(accounts, name)
        if size is not None:
            size = _quota(size, "SIZE")
            admin.set_setting(accounts, name, "quota", size)
            click.echo(f"User {name} has the quota {_in_octets(size)}.")
        else:
            account = admin.by_name(accounts).get(name)
            click.echo(_in_octets("none" if account is None else account.settings.get("quota", "none")))


@user.command(name="del")
@_with_accounts
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_name_argument
def delete(accounts: admin.Where, yes: bool, name: str) -> None:
    """Remove a user. The mail stays where it is."""
    with _mistakes():
        name = _canonical_name(accounts, name)
        if not yes:
            click.confirm(f"Remove user {name}?", abort=True)
        admin.delete_user(accounts, name)
    click.echo(f"User {name} is gone; the mail is not.")


@user.command(name="list")
@_with_accounts
def list_(accounts: admin.Where) -> int:
    """List the users, and the lines that are not understood."""
    with _mistakes():
        found = admin.list_users(accounts)
    width = max(map(len, found.by_name), default=0)
    for name, account in sorted(found.by_name.items()):
        settings = " ".join(f"{key}={value}" if value else key for key, value in account.settings.items())
        click.echo(f"{name:{width}}  {account.password.scheme:13}  {settings}".rstrip())
    for problem in found.problems:
        click.echo(f"{accounts}: {problem}", err=True)
    return os.EX_DATAERR if found.problems else os.EX_OK


def _quota(text: str, where: str) -> str:
    """A quota as the accounts file has it, without blanks."""
    try:
        parse_quota(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=where) from None
    return "".join(text.split())


def _in_octets(quota: str) -> str:
    """A quota with what it comes to."""
    try:
        octets = parse_quota(quota)
    except ValueError as error:
        return f"{quota} ({error})"
    return quota if octets is None else f"{quota} ({f'{octets:,} octets' if octets else 'no mail fits'})"


def _password(from_stdin: bool) -> str:
    """The password, read or asked for.

    :raises ValueError: if that cannot be.
    """
    if from_stdin:
        try:
            return sys.stdin.buffer.readline().removesuffix(b"\n").decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("the password is not UTF-8") from None
    with warnings.catch_warnings():
        # Python would ask all the same, and show what is typed.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            answer: str = click.prompt("Password", hide_input=True, confirmation_prompt="The same again")
        except getpass.GetPassWarning:
            raise ValueError("there is no terminal to ask for the password; --stdin reads it") from None
    return answer


def _canonical_name(accounts: admin.Where, name: str) -> str:
    """The name of the user that is meant, as at login; found too where the line cannot be read."""
    found = admin.canonical_name(accounts, name)
    if found is None:
        raise admin.NoSuchAccount(f"there is no user {name}")
    return found


@contextmanager
def _mistakes() -> Iterator[None]:
    """Turn the errors of ``auth.accounts`` into one line and an exit status."""
    try:
        yield
    except admin.NoSuchAccount as error:
        raise Failed(str(error), os.EX_NOUSER) from None
    except ValueError as error:
        raise Failed(str(error), os.EX_DATAERR) from None
    except FileNotFoundError as error:
        raise Failed(f"there is no file {error.filename}", os.EX_NOINPUT) from None
